// Norms and pooling on a GPU, each in one pass over memory, with float32 inside: the formulas of layers.py, for float32
// and bfloat16, windows of five channels or 5 x 5 pixels, and beta 0.75.
//
// XLA writes float32 maps between the two window sums of a norm's gradient, and takes three to ten times as long. A
// thread computes the channels of one vector load, and computes again what it needs of their neighbours.
//
// The same source is C++ for a CPU, where a test compares it with float64: an item is then a turn of a loop.

#include "call.h"

#ifdef __CUDACC__
#define DEVICE static __device__ __forceinline__
#define FOR_THREADS(i, n) for (unsigned i = threadIdx.x; i < (unsigned)(n); i += blockDim.x)
#define SYNCHRONIZE() __syncthreads()
#define UNROLL _Pragma("unroll")
DEVICE float as_float(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned as_bits(float x) { return __float_as_uint(x); }
DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float reciprocal_root(float x) {  // of a normal number: `rsqrtf` would also look after denormal ones
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
#include <math.h>
#include <string.h>
#define DEVICE static inline
#define FOR_THREADS(i, n) for (unsigned i = 0; i < (unsigned)(n); i++)
#define SYNCHRONIZE()
#define UNROLL
DEVICE float as_float(unsigned bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
DEVICE unsigned as_bits(float x) {
  unsigned bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
DEVICE float fused_multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
DEVICE float reciprocal_root(float x) { return 1 / sqrtf(x); }
#endif

// ---- numbers in memory ---------------------------------------------------------------------------------------------

struct Bfloat16 {
  unsigned short bits;
};

// Two numbers, rounded to nearest, ties to even; the first one in the lower half.
DEVICE unsigned bfloat16_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  unsigned halves[2] = {as_bits(low), as_bits(high)};
  for (int i = 0; i < 2; i++) {
    const bool number = (halves[i] & 0x7fffffff) <= 0x7f800000;
    halves[i] = number ? (halves[i] + 0x7fff + ((halves[i] >> 16) & 1)) >> 16 : 0x7fff;
  }
  return halves[0] | halves[1] << 16;
#endif
}

// Rounds N numbers as the type in memory does. N is even.
template <int N>
DEVICE void round_to(const float*, float*) {}

template <int N>
DEVICE void round_to(const Bfloat16*, float* x) {
  UNROLL for (int i = 0; i < N; i += 2) {
    const unsigned pair = bfloat16_pair(x[i], x[i + 1]);
    x[i] = as_float(pair << 16), x[i + 1] = as_float(pair & 0xffff0000u);
  }
}

// The larger numbers of a word, and NaN where one is NaN.
DEVICE unsigned larger(unsigned a, unsigned b, const float*) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float most;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(most) : "f"(as_float(a)), "f"(as_float(b)));
  return as_bits(most);
#else
  const float x = as_float(a), y = as_float(b);
  return y > x || y != y ? b : a;
#endif
}

DEVICE unsigned larger(unsigned a, unsigned b, const Bfloat16*) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned most;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(most) : "r"(a), "r"(b));
  return most;
#else
  const float* const wide = nullptr;
  return larger(a << 16, b << 16, wide) >> 16 | (larger(a & 0xffff0000u, b & 0xffff0000u, wide) & 0xffff0000u);
#endif
}

template <int N>
DEVICE void load_words(const void* p, unsigned* w) {
#ifdef __CUDACC__
  if constexpr (N >= 4) {
    UNROLL for (int i = 0; i < N / 4; i++) {
      const uint4 v = ((const uint4*)p)[i];
      w[4 * i] = v.x, w[4 * i + 1] = v.y, w[4 * i + 2] = v.z, w[4 * i + 3] = v.w;
    }
  } else if constexpr (N == 2) {
    const uint2 v = *(const uint2*)p;
    w[0] = v.x, w[1] = v.y;
  } else {
    w[0] = *(const unsigned*)p;
  }
#else
  memcpy(w, p, N * sizeof *w);
#endif
}

template <int N>
DEVICE void store_words(void* p, const unsigned* w) {
#ifdef __CUDACC__
  if constexpr (N >= 4) {
    UNROLL for (int i = 0; i < N / 4; i++)((uint4*)p)[i] =
        make_uint4(w[4 * i], w[4 * i + 1], w[4 * i + 2], w[4 * i + 3]);
  } else {
    *(uint2*)p = make_uint2(w[0], w[1]);
  }
#else
  memcpy(p, w, N * sizeof *w);
#endif
}

// Loads N numbers that lie side by side, from a multiple of 16 bytes or of their size.
template <int N>
DEVICE void load(const float* p, float* x) {
  unsigned w[N];
  load_words<N>(p, w);
  UNROLL for (int i = 0; i < N; i++) x[i] = as_float(w[i]);
}

template <int N>
DEVICE void load(const Bfloat16* p, float* x) {
  unsigned w[N / 2];
  load_words<N / 2>(p, w);
  UNROLL for (int i = 0; i < N / 2; i++) x[2 * i] = as_float(w[i] << 16), x[2 * i + 1] = as_float(w[i] & 0xffff0000u);
}

template <int N>
DEVICE void store(float* p, const float* x) {
  unsigned w[N];
  UNROLL for (int i = 0; i < N; i++) w[i] = as_bits(x[i]);
  store_words<N>(p, w);
}

template <int N>
DEVICE void store(Bfloat16* p, const float* x) {
  unsigned w[N / 2];
  UNROLL for (int i = 0; i < N / 2; i++) w[i] = bfloat16_pair(x[2 * i], x[2 * i + 1]);
  store_words<N / 2>(p, w);
}

// Loads V channels of a pixel with HALO more on both sides; those that do not exist are 0.
template <int V, int HALO, typename T>
DEVICE void load_around(const T* pixel, int channel, int channels, float* x) {
  UNROLL for (int i = 0; i < HALO; i++) x[i] = x[HALO + V + i] = 0;
  if (channel > 0) load<HALO>(pixel + channel - HALO, x);
  load<V>(pixel + channel, x + HALO);
  if (channel + V < channels) load<HALO>(pixel + channel + V, x + HALO + V);
}

// ---- response norm: windows of five channels -----------------------------------------------------------------------

enum { HALF = 2 };

struct Powers {
  float p, q;  // d^-3/4 and d^-7/4
};

DEVICE Powers powers_of(float d) {
  const float r = reciprocal_root(d), inverse = r * r;
  const float p = inverse * reciprocal_root(r);
  return {p, p * inverse};
}

// Adds the bias, and rectifies. Channels that do not exist stay 0, for their bias is loaded as 0.
template <int N>
DEVICE void prepare(const Call& a, const float* bias, float* x) {
  UNROLL for (int i = 0; i < N; i++) {
    x[i] = x[i] + bias[i];
    if (a.rectify_before) x[i] = x[i] < 0 ? 0 : x[i];
  }
}

// The denominator of channel i, in the middle of x[i] to x[i + 4].
DEVICE float denominator(const Call& a, const float* x, int i) {
  float sum = x[i] * x[i];
  UNROLL for (int j = 1; j <= 2 * HALF; j++) sum = fused_multiply_add(x[i + j], x[i + j], sum);
  return fused_multiply_add(a.alpha, sum, a.k);
}

template <typename T, int V>
DEVICE void norm_forward(const Call& a, unsigned item) {
  const unsigned vectors = a.channels / V;
  const int channel = (int)(item % vectors) * V;
  const long long pixel = (long long)(item / vectors) * a.channels;
  float x[V + 2 * HALF], bias[V + 2 * HALF], y[V];
  load_around<V, HALF>((const T*)a.x + pixel, channel, a.channels, x);
  load_around<V, HALF>(a.bias, channel, a.channels, bias);
  prepare<V + 2 * HALF>(a, bias, x);
  UNROLL for (int i = 0; i < V; i++) y[i] = x[HALF + i] * powers_of(denominator(a, x, i)).p;
  store<V>((T*)a.out[0] + pixel + channel, y);
}

// The gradient of the ReLU before the norm.
template <int V>
DEVICE void clear_unless_positive(const Call& a, const float* x, float* dx) {
  if (a.rectify_before) {
    UNROLL for (int i = 0; i < V; i++) {
      if (!(x[i] > 0)) dx[i] = 0;
    }
  }
}

// The gradient of the norm, from x with 2 HALF, and powers and dn with HALF channels around:
// dx = dn d^-b - 2ab x sum(dn x d^-(b+1)).
template <int V>
DEVICE void norm_gradient(const Call& a, const float* x, const Powers* power, const float* dn, float* dx) {
  float terms[V + 2 * HALF];
  UNROLL for (int i = 0; i < V + 2 * HALF; i++) terms[i] = dn[i] * x[HALF + i] * power[i].q;
  UNROLL for (int i = 0; i < V; i++) {
    float sum = terms[i];
    UNROLL for (int j = 1; j <= 2 * HALF; j++) sum = sum + terms[i + j];
    const float factor = -1.5f * a.alpha * x[2 * HALF + i];
    dx[i] = fused_multiply_add(factor, sum, dn[HALF + i] * power[HALF + i].p);
  }
  clear_unless_positive<V>(a, x + 2 * HALF, dx);
}

template <typename T, int V>
DEVICE void norm_backward(const Call& a, unsigned item) {
  const unsigned vectors = a.channels / V;
  const int channel = (int)(item % vectors) * V;
  const long long pixel = (long long)(item / vectors) * a.channels;
  float x[V + 4 * HALF], bias[V + 4 * HALF], dy[V + 2 * HALF], dx[V];
  Powers power[V + 2 * HALF];
  load_around<V, 2 * HALF>((const T*)a.x + pixel, channel, a.channels, x);
  load_around<V, 2 * HALF>(a.bias, channel, a.channels, bias);
  load_around<V, HALF>((const T*)a.dy[0] + pixel, channel, a.channels, dy);
  prepare<V + 4 * HALF>(a, bias, x);
  UNROLL for (int i = 0; i < V + 2 * HALF; i++) power[i] = powers_of(denominator(a, x, i));
  norm_gradient<V>(a, x, power, dy, dx);
  store<V>((T*)a.out[0] + pixel + channel, dx);
}

// ---- max pooling by 3 or 2 pixels, 2 apart: windows clipped at the right and bottom border
// ----------------------------

enum { STRIDE = 2 };

// The array of a group. An index would put the call into a thread's local memory.
DEVICE const void* of_group(const void* const* arrays, int group) { return group ? arrays[1] : arrays[0]; }
DEVICE void* of_group(void* const* arrays, int group) { return group ? arrays[1] : arrays[0]; }

DEVICE int least(int a, int b) { return a < b ? a : b; }

// The channels of a thread, in maps with so many rows and columns. `group` has the channel.
struct Place {
  int image, row, column, channel, group;
};

template <int V>
DEVICE Place place_of(const Call& a, unsigned item, int rows, int columns) {
  const unsigned vectors = a.channels / V;
  Place at;
  at.channel = (int)(item % vectors) * V;
  item /= vectors;
  at.column = (int)(item % columns);
  item /= columns;
  at.row = (int)(item % rows);
  at.image = (int)(item / rows);
  const int channels = a.channels / a.groups;
  at.group = at.channel / channels;
  at.channel %= channels;
  return at;
}

// Where a pixel's channels of a group begin: in x, and in the array of a group after pooling.
DEVICE long long pixel_of_x(const Call& a, const Place& at, int row, int column) {
  const long long pixel = ((long long)at.image * a.rows + row) * a.columns + column;
  return pixel * a.channels + at.group * (a.channels / a.groups);
}

DEVICE long long window_of_y(const Call& a, const Place& at, int row, int column) {
  const long long window = ((long long)at.image * a.out_rows + row) * a.out_columns + column;
  return window * (a.channels / a.groups);
}

// V numbers of a type, as words.
template <typename T, int V>
struct Vector {
  enum { WORDS = V * sizeof(T) / 4 };
  unsigned words[WORDS];
};

template <typename T, int V>
DEVICE void add_to_maximum(Vector<T, V>& most, const T* p, bool first) {
  unsigned words[Vector<T, V>::WORDS];
  load_words<Vector<T, V>::WORDS>(p, words);
  UNROLL for (int i = 0; i < Vector<T, V>::WORDS; i++) most.words[i] =
      first ? words[i] : larger(most.words[i], words[i], p);
}

// The maximum of a window that begins at p, and of which so many rows and columns are there.
template <typename T, int V, int SIZE>
DEVICE Vector<T, V> maximum(const T* p, int rows, int columns, int to_row, int to_column) {
  Vector<T, V> most;
  UNROLL for (int i = 0; i < SIZE; i++) {
    UNROLL for (int j = 0; j < SIZE; j++) {
      if (i < rows && j < columns) add_to_maximum<T, V>(most, p + (i * to_row + j * to_column), i + j == 0);
    }
  }
  return most;
}

template <typename T, int V, int SIZE>
DEVICE void pool_forward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.out_rows, a.out_columns);
  const int top = at.row * STRIDE, left = at.column * STRIDE;
  const T* const p = (const T*)a.x + pixel_of_x(a, at, top, left) + at.channel;
  const Vector<T, V> most = maximum<T, V, SIZE>(p, a.rows - top, a.columns - left, a.columns * a.channels, a.channels);
  T* out = (T*)of_group(a.out, at.group) + window_of_y(a, at, at.row, at.column) + at.channel;
  store_words<Vector<T, V>::WORDS>(out, most.words);
}

// Adds the gradients of all windows of which a pixel's number n is the maximum, to V channels.
template <typename T, int V, int SIZE>
DEVICE void add_window_gradients(const Call& a, const Place& at, const float* n, float* dn) {
  const int channels = a.channels / a.groups;
  const int last_row = at.row / STRIDE, last_column = at.column / STRIDE;
  const long long last = window_of_y(a, at, last_row, last_column) + at.channel;
  const T* const ys = (const T*)of_group(a.y, at.group) + last;
  const T* const dys = (const T*)of_group(a.dy, at.group) + last;
  float y[V], dy[V];
  // Windows are 2 apart, so that a pixel lies in at most two in each direction.
  for (int up = 0; up <= last_row && at.row % STRIDE + up * STRIDE < SIZE; up++) {
    if (last_row - up >= a.out_rows) continue;
    for (int back = 0; back <= last_column && at.column % STRIDE + back * STRIDE < SIZE; back++) {
      if (last_column - back >= a.out_columns) continue;
      const int window = -(up * a.out_columns + back) * channels;
      load<V>(ys + window, y);
      load<V>(dys + window, dy);
      UNROLL for (int i = 0; i < V; i++) {
        if (n[i] == y[i]) dn[i] += dy[i];
      }
    }
  }
}

// A pixel by its number: in a row first those in even columns, then those in odd ones, so that neighbours lie in as
// many windows.
DEVICE Place pixel_by_parity(const Call& a, unsigned number) {
  const unsigned columns = a.columns, rows = a.rows, even = (columns + 1) / STRIDE;
  const unsigned row = number / columns, place = number % columns;
  const unsigned column = place < even ? place * STRIDE : (place - even) * STRIDE + 1;
  return {(int)(row / rows), (int)(row % rows), (int)column, 0, 0};
}

// Sets the channel of a place by the number of its vector.
template <int V>
DEVICE void set_channel(const Call& a, Place& at, unsigned vector) {
  const unsigned vectors = a.channels / a.groups / V;
  at.group = vector >= vectors;
  at.channel = (int)(vector - at.group * vectors) * V;
}

template <typename T, int V, int SIZE>
DEVICE void pool_backward(const Call& a, unsigned item) {
  const unsigned vectors = a.channels / V;
  Place at = pixel_by_parity(a, item / vectors);
  set_channel<V>(a, at, item % vectors);
  const long long first = pixel_of_x(a, at, at.row, at.column) + at.channel;
  float x[V], dx[V];
  load<V>((const T*)a.x + first, x);
  UNROLL for (int i = 0; i < V; i++) dx[i] = 0;
  add_window_gradients<T, V, SIZE>(a, at, x, dx);
  store<V>((T*)a.out[0] + first, dx);
}

// ---- response norm, then max pooling -------------------------------------------------------------------------------

// The norms of N channels, from x with HALF channels around, rounded as they are kept. Both directions take these
// instructions, so that a maximum is found again.
template <int N, typename T>
DEVICE void normed(const Call& a, const float* x, float* n, Powers* power, const T* type) {
  UNROLL for (int i = 0; i < N; i++) {
    power[i] = powers_of(denominator(a, x, i));
    n[i] = x[HALF + i] * power[i].p;
  }
  round_to<N>(type, n);
}

// A block computes the norms of some rows of a group in shared memory, and pools them.
template <typename T, int V, int SIZE>
DEVICE void norm_pool_forward(const Call& a, unsigned item, float* memory) {
  T* shared = (T*)memory;
  const unsigned strips = (a.out_rows + a.chunk - 1) / a.chunk, channels = a.channels / a.groups,
                 vectors = channels / V;
  const Place at = {(int)(item / strips / a.groups), 0, 0, 0, (int)(item / strips % a.groups)};
  const int first = (int)(item % strips) * a.chunk, end = least(first + a.chunk, a.out_rows), top = first * STRIDE;
  const int rows = least((end - 1) * STRIDE + SIZE, a.rows) - top;
  const T* const strip = (const T*)a.x + pixel_of_x(a, at, top, 0);
  const float* const biases = a.bias + at.group * channels;
  FOR_THREADS(i, rows * a.columns * vectors) {
    const unsigned pixel = i / vectors, channel = i % vectors * V;
    float x[V + 2 * HALF], bias[V + 2 * HALF], n[V];
    Powers power[V];
    load_around<V, HALF>(strip + (long long)pixel * a.channels, channel, channels, x);
    load_around<V, HALF>(biases, channel, channels, bias);
    prepare<V + 2 * HALF>(a, bias, x);
    normed<V>(a, x, n, power, strip);
    store<V>(shared + i * V, n);
  }
  SYNCHRONIZE();
  T* const out = (T*)of_group(a.out, at.group) + window_of_y(a, at, first, 0);
  FOR_THREADS(i, (end - first) * a.out_columns * vectors) {
    const unsigned vector = i % vectors, window = i / vectors;
    const int column = (int)(window % a.out_columns) * STRIDE, row = (int)(window / a.out_columns) * STRIDE;
    const T* const p = shared + ((row * a.columns + column) * vectors + vector) * V;
    Vector<T, V> most =
        maximum<T, V, SIZE>(p, rows - row, a.columns - column, a.columns * (int)channels, (int)channels);
    if (a.rectify_after) {
      UNROLL for (int j = 0; j < Vector<T, V>::WORDS; j++) most.words[j] = larger(most.words[j], 0, out);
    }
    store_words<Vector<T, V>::WORDS>(out + i * V, most.words);
  }
}

// A block computes `chunk` pixels. A thread computes the terms of its own channels alone; the sums over neighbours take
// them from shared memory.
template <typename T, int V, int SIZE>
DEVICE void norm_pool_backward(const Call& a, unsigned item, float* shared) {
  const unsigned vectors = a.channels / V, channels = a.channels / a.groups;
  const unsigned pixels = (unsigned)a.images * a.rows * a.columns, begin = item * a.chunk;
  const unsigned work = (begin + a.chunk < pixels ? a.chunk : pixels - begin) * vectors;
  float* const terms = shared;
  float* const direct = terms + a.chunk * a.channels;
  unsigned* const places = (unsigned*)(direct + a.chunk * a.channels);  // of the channels in x, in vectors
  FOR_THREADS(i, work) {
    Place at = pixel_by_parity(a, begin + i / vectors);
    set_channel<V>(a, at, i % vectors);
    const T* const pixel = (const T*)a.x + pixel_of_x(a, at, at.row, at.column);
    float x[V + 2 * HALF], bias[V + 2 * HALF], n[V], dn[V];
    Powers power[V];
    load_around<V, HALF>(pixel, at.channel, channels, x);
    load_around<V, HALF>(a.bias + at.group * channels, at.channel, channels, bias);
    prepare<V + 2 * HALF>(a, bias, x);
    normed<V>(a, x, n, power, pixel);
    UNROLL for (int j = 0; j < V; j++) dn[j] = 0;
    if (a.rectify_after) {
      UNROLL for (int j = 0; j < V; j++) n[j] -= 1e-37f;  // 0 then equals no maximum; other numbers stay as they are
    }
    add_window_gradients<T, V, SIZE>(a, at, n, dn);
    UNROLL for (int j = 0; j < V; j++) {
      n[j] = dn[j] * x[HALF + j] * power[j].q;
      dn[j] = dn[j] * power[j].p;
    }
    store<V>(terms + i * V, n);
    store<V>(direct + i * V, dn);
    places[i] = (unsigned)((pixel_of_x(a, at, at.row, at.column) + at.channel) / V);
  }
  SYNCHRONIZE();
  FOR_THREADS(i, work) {
    const long long first = (long long)places[i] * V;
    Place at = {};
    set_channel<V>(a, at, i % vectors);
    float x[V], bias[V], near[V + 2 * HALF], dx[V];
    load<V>((const T*)a.x + first, x);
    load<V>(a.bias + at.group * channels + at.channel, bias);
    prepare<V>(a, bias, x);
    load_around<V, HALF>(terms + i * V - at.channel, at.channel, channels, near);
    load<V>(direct + i * V, dx);
    UNROLL for (int j = 0; j < V; j++) {
      const float sum = ((near[j] + near[j + 1]) + (near[j + 2] + near[j + 3])) + near[j + 4];
      dx[j] = fused_multiply_add(-1.5f * a.alpha * x[j], sum, dx[j]);
    }
    clear_unless_positive<V>(a, x, dx);
    store<V>((T*)a.out[0] + first, dx);
  }
}

// ---- spatial norm: windows of 5 x 5 pixels -------------------------------------------------------------------------
// A block's threads work together on `chunk` channels of an image, in shared memory. They load and store V channels at
// once; for window sums, a thread slides along a row or a column with the window in registers.

// What a block works on: where its channels begin, in an image.
DEVICE long long first_of(const Call& a, unsigned item) {
  const unsigned chunks = a.channels / a.chunk;
  return (long long)(item / chunks) * a.rows * a.columns * a.channels + item % chunks * a.chunk;
}

struct Two {
  float a, b;
};

DEVICE Two load_two(const float* p) {
  float x[2];
  load<2>(p, x);
  return {x[0], x[1]};
}

// Sums over windows of five along two lines of `length` numbers, side by side, `step` apart, in place.
DEVICE void sum_along(float* line, int length, int step) {
  enum { SIZE = 2 * HALF + 1 };
  Two window[SIZE] = {};
  for (int i = 0; i < HALF && i < length; i++) window[i] = load_two(line + i * step);
  const float* ahead = line + HALF * step;
  for (int left = length; left > 0; left -= SIZE) {
    UNROLL for (int j = 0; j < SIZE; j++) {  // the window never moves: its oldest numbers are replaced
      if (j >= left) return;
      window[(j + HALF) % SIZE] = left - j > HALF ? load_two(ahead) : Two{0, 0};
      const float sums[2] = {
          ((window[0].a + window[1].a) + (window[2].a + window[3].a)) + window[4].a,
          ((window[0].b + window[1].b) + (window[2].b + window[3].b)) + window[4].b,
      };
      store<2>(line, sums);
      ahead += step, line += step;
    }
  }
}

// Replaces [rows, columns, chunk] numbers by their sums over windows of 5 x 5 pixels.
DEVICE void sum_windows(const Call& a, float* numbers) {
  const unsigned pairs = a.chunk / 2;
  SYNCHRONIZE();
  FOR_THREADS(i, a.rows * pairs)
  sum_along(numbers + i / pairs * a.columns * a.chunk + i % pairs * 2, a.columns, a.chunk);
  SYNCHRONIZE();
  FOR_THREADS(i, a.columns * pairs) sum_along(numbers + i * 2, a.rows, a.columns * a.chunk);
  SYNCHRONIZE();
}

template <typename T, int V>
DEVICE void sum_squares(const Call& a, long long first, float* sums) {
  const unsigned vectors = a.chunk / V, shift = vectors / 2;  // 1, 2 or 4 vectors
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    float x[V];
    load<V>((const T*)a.x + first + (long long)(i >> shift) * a.channels + (i & (vectors - 1)) * V, x);
    UNROLL for (int j = 0; j < V; j++) x[j] = x[j] * x[j];
    store<V>(sums + i * V, x);
  }
  sum_windows(a, sums);
}

template <typename T, int V>
DEVICE void spatial_forward(const Call& a, unsigned item, float* sums) {
  const long long first = first_of(a, item);
  const unsigned vectors = a.chunk / V, shift = vectors / 2;  // 1, 2 or 4 vectors
  sum_squares<T, V>(a, first, sums);
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    const long long at = first + (long long)(i >> shift) * a.channels + (i & (vectors - 1)) * V;
    float x[V], sum[V];
    load<V>((const T*)a.x + at, x);
    load<V>(sums + i * V, sum);
    UNROLL for (int j = 0; j < V; j++) x[j] = x[j] * powers_of(fused_multiply_add(a.alpha, sum[j], a.k)).p;
    store<V>((T*)a.out[0] + at, x);
  }
}

template <typename T, int V>
DEVICE void spatial_backward(const Call& a, unsigned item, float* sums) {
  const long long first = first_of(a, item);
  const unsigned vectors = a.chunk / V, shift = vectors / 2;  // 1, 2 or 4 vectors
  float* terms = sums + a.rows * a.columns * a.chunk;
  sum_squares<T, V>(a, first, sums);
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    const long long at = first + (long long)(i >> shift) * a.channels + (i & (vectors - 1)) * V;
    float x[V], dy[V], sum[V];
    load<V>((const T*)a.x + at, x);
    load<V>((const T*)a.dy[0] + at, dy);
    load<V>(sums + i * V, sum);
    UNROLL for (int j = 0; j < V; j++) {
      const Powers power = powers_of(fused_multiply_add(a.alpha, sum[j], a.k));
      sum[j] = power.p;
      x[j] = dy[j] * x[j] * power.q;
    }
    store<V>(sums + i * V, sum);
    store<V>(terms + i * V, x);
  }
  sum_windows(a, terms);
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    const long long at = first + (long long)(i >> shift) * a.channels + (i & (vectors - 1)) * V;
    float x[V], dy[V], p[V], sum[V];
    load<V>((const T*)a.x + at, x);
    load<V>((const T*)a.dy[0] + at, dy);
    load<V>(sums + i * V, p);
    load<V>(terms + i * V, sum);
    UNROLL for (int j = 0; j < V; j++) x[j] = fused_multiply_add(-1.5f * a.alpha * x[j], sum[j], dy[j] * p[j]);
    store<V>((T*)a.out[0] + at, x);
  }
}

// ---- entry points --------------------------------------------------------------------------------------------------

#ifdef __CUDACC__
#define ITEMS(name, threads, ...)                                            \
  extern "C" __global__ void __launch_bounds__(threads) name(const Call a) { \
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;             \
    if (item < a.items) __VA_ARGS__(a, item);                                \
  }
#define BLOCKS(name, threads, ...)                                           \
  extern "C" __global__ void __launch_bounds__(threads) name(const Call a) { \
    extern __shared__ uint4 shared[];                                        \
    __VA_ARGS__(a, blockIdx.x, (float*)shared);                              \
  }
#else
#define ITEMS(name, threads, ...)                                           \
  extern "C" void name(const Call* a, float*) {                             \
    for (unsigned item = 0; item < a->items; item++) __VA_ARGS__(*a, item); \
  }
#define BLOCKS(name, threads, ...)                                                  \
  extern "C" void name(const Call* a, float* shared) {                              \
    for (unsigned item = 0; item < a->items; item++) __VA_ARGS__(*a, item, shared); \
  }
#endif

// For float32, for bfloat16 in vectors of 8 channels, and in vectors of 4.
#define OF_ALL_TYPES(define, name, threads)                                                   \
  define(name##_f32, threads, name<float, 4>) define(name##_bf16, threads, name<Bfloat16, 8>) \
      define(name##_bf16x4, threads, name<Bfloat16, 4>)

// Of pooling windows of 3 and of 2 pixels.
#define OF_ALL_SIZES(define, name, threads)                                                                   \
  define(name##_3_f32, threads, name<float, 4, 3>) define(name##_3_bf16, threads, name<Bfloat16, 8, 3>)       \
      define(name##_3_bf16x4, threads, name<Bfloat16, 4, 3>) define(name##_2_f32, threads, name<float, 4, 2>) \
          define(name##_2_bf16, threads, name<Bfloat16, 8, 2>) define(name##_2_bf16x4, threads, name<Bfloat16, 4, 2>)

OF_ALL_TYPES(ITEMS, norm_forward, 256)
OF_ALL_TYPES(ITEMS, norm_backward, 256)
OF_ALL_SIZES(ITEMS, pool_forward, 256)
OF_ALL_SIZES(ITEMS, pool_backward, 256)
OF_ALL_SIZES(BLOCKS, norm_pool_forward, 256)
OF_ALL_SIZES(BLOCKS, norm_pool_backward, 256)
OF_ALL_TYPES(BLOCKS, spatial_forward, 512)
OF_ALL_TYPES(BLOCKS, spatial_backward, 512)
