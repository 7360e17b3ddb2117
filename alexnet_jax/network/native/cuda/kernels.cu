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
#define FOR_THREADS(i, n) for (int i = threadIdx.x; i < (n); i += blockDim.x)
#define SYNCHRONIZE() __syncthreads()
#define UNROLL _Pragma("unroll")
DEVICE float as_float(unsigned bits) { return __uint_as_float(bits); }
DEVICE unsigned as_bits(float x) { return __float_as_uint(x); }
DEVICE float fused_multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float reciprocal_root(float x) { return rsqrtf(x); }
#else
#include <math.h>
#include <string.h>
#define DEVICE static inline
#define FOR_THREADS(i, n) for (int i = 0; i < (n); i++)
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

DEVICE unsigned bfloat16_bits(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  unsigned short bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#else
  const unsigned bits = as_bits(x);
  if (x != x) return 0x7fff;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
#endif
}

// Rounds as the type in memory does.
DEVICE float rounded(float x, const float*) { return x; }
DEVICE float rounded(float x, const Bfloat16*) { return as_float(bfloat16_bits(x) << 16); }

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
  UNROLL for (int i = 0; i < N / 2; i++) w[i] = bfloat16_bits(x[2 * i]) | bfloat16_bits(x[2 * i + 1]) << 16;
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

// The gradient of the norm, from x with 2 HALF and dn with HALF channels around: dx = dn d^-b - 2ab x sum(dn x
// d^-(b+1)).
template <int V>
DEVICE void norm_gradient(const Call& a, const float* x, const float* dn, float* dx) {
  float terms[V + 2 * HALF], p[V + 2 * HALF];
  UNROLL for (int i = 0; i < V + 2 * HALF; i++) {
    const Powers power = powers_of(denominator(a, x, i));
    p[i] = power.p;
    terms[i] = dn[i] * x[HALF + i] * power.q;
  }
  UNROLL for (int i = 0; i < V; i++) {
    float sum = terms[i];
    UNROLL for (int j = 1; j <= 2 * HALF; j++) sum = sum + terms[i + j];
    const float factor = -1.5f * a.alpha * x[2 * HALF + i];
    dx[i] = fused_multiply_add(factor, sum, dn[HALF + i] * p[HALF + i]);
    if (a.rectify_before && !(x[2 * HALF + i] > 0)) dx[i] = 0;
  }
}

template <typename T, int V>
DEVICE void norm_backward(const Call& a, unsigned item) {
  const unsigned vectors = a.channels / V;
  const int channel = (int)(item % vectors) * V;
  const long long pixel = (long long)(item / vectors) * a.channels;
  float x[V + 4 * HALF], bias[V + 4 * HALF], dy[V + 2 * HALF], dx[V];
  load_around<V, 2 * HALF>((const T*)a.x + pixel, channel, a.channels, x);
  load_around<V, 2 * HALF>(a.bias, channel, a.channels, bias);
  load_around<V, HALF>((const T*)a.dy[0] + pixel, channel, a.channels, dy);
  prepare<V + 4 * HALF>(a, bias, x);
  norm_gradient<V>(a, x, dy, dx);
  store<V>((T*)a.out[0] + pixel + channel, dx);
}

// ---- max pooling by 3 or 2 pixels, 2 apart: windows clipped at the right and bottom border
// ----------------------------

enum { STRIDE = 2 };

// The array of a group. An index would put the call into a thread's local memory.
DEVICE const void* of_group(const void* const* arrays, int group) { return group ? arrays[1] : arrays[0]; }
DEVICE void* of_group(void* const* arrays, int group) { return group ? arrays[1] : arrays[0]; }

DEVICE int least(int a, int b) { return a < b ? a : b; }

// The larger number, and NaN where one is NaN.
DEVICE float larger(float most, float x) { return x > most || x != x ? x : most; }

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

template <typename T, int V, int SIZE>
DEVICE void pool_forward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.out_rows, a.out_columns);
  const int top = at.row * STRIDE, left = at.column * STRIDE;
  float most[V], x[V];
  UNROLL for (int i = 0; i < SIZE; i++) UNROLL for (int j = 0; j < SIZE; j++) {
    if (top + i >= a.rows || left + j >= a.columns) continue;
    load<V>((const T*)a.x + pixel_of_x(a, at, top + i, left + j) + at.channel, x);
    UNROLL for (int n = 0; n < V; n++) most[n] = i + j == 0 ? x[n] : larger(most[n], x[n]);
  }
  store<V>((T*)of_group(a.out, at.group) + window_of_y(a, at, at.row, at.column) + at.channel, most);
}

// Adds the gradients of all windows to two pixels of a row, from column 2 `at.column` on: windows whose maximum is n.
// HALO: how many channels more than V on both sides.
template <typename T, int V, int HALO, int SIZE>
DEVICE void add_window_gradients(const Call& a, const Place& at, const float (*n)[V + 2 * HALF],
                                 float (*dn)[V + 2 * HALF]) {
  enum { BACK = (SIZE - 1) / STRIDE, OFFSET = HALF - HALO };  // earlier windows that reach a pixel
  const int channels = a.channels / a.groups;
  float y[V + 2 * HALO], dy[V + 2 * HALO];
  UNROLL for (int up = 0; up <= BACK; up++) {
    const int row = at.row / STRIDE - up;
    if (row < 0 || row >= a.out_rows || at.row % STRIDE + up * STRIDE >= SIZE) continue;
    UNROLL for (int back = 0; back <= BACK; back++) {
      const int column = at.column - back;
      if (column < 0 || column >= a.out_columns) continue;
      const long long window = window_of_y(a, at, row, column);
      if constexpr (HALO > 0) {
        load_around<V, HALO>((const T*)of_group(a.y, at.group) + window, at.channel, channels, y);
        load_around<V, HALO>((const T*)of_group(a.dy, at.group) + window, at.channel, channels, dy);
      } else {
        load<V>((const T*)of_group(a.y, at.group) + window + at.channel, y);
        load<V>((const T*)of_group(a.dy, at.group) + window + at.channel, dy);
      }
      UNROLL for (int pixel = 0; pixel + back * STRIDE < SIZE && pixel < STRIDE; pixel++)
          UNROLL for (int i = 0; i < V + 2 * HALO; i++) dn[pixel][OFFSET + i] +=
          n[pixel][OFFSET + i] == y[i] ? dy[i] : 0;
    }
  }
}

template <typename T, int V, int SIZE>
DEVICE void pool_backward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.rows, (a.columns + 1) / STRIDE);
  float x[STRIDE][V + 2 * HALF], dx[STRIDE][V + 2 * HALF];
  UNROLL for (int pixel = 0; pixel < STRIDE; pixel++) {
    const int column = least(at.column * STRIDE + pixel, a.columns - 1);
    load<V>((const T*)a.x + pixel_of_x(a, at, at.row, column) + at.channel, x[pixel] + HALF);
    UNROLL for (int i = 0; i < V + 2 * HALF; i++) dx[pixel][i] = 0;
  }
  add_window_gradients<T, V, 0, SIZE>(a, at, x, dx);
  UNROLL for (int pixel = 0; pixel < STRIDE; pixel++) {
    const int column = at.column * STRIDE + pixel;
    if (column < a.columns) store<V>((T*)a.out[0] + pixel_of_x(a, at, at.row, column) + at.channel, dx[pixel] + HALF);
  }
}

// ---- response norm, then max pooling -------------------------------------------------------------------------------

// The norm of V channels, from x with HALF channels around, rounded as it is kept. Both directions take these
// instructions, so that a maximum is found again.
template <int V, typename T>
DEVICE float normed(const Call& a, const float* x, int i, const T* type) {
  return rounded(x[HALF + i] * powers_of(denominator(a, x, i)).p, type);
}

// A block computes the norms of some rows of a group in shared memory, and pools them.
template <typename T, int V, int SIZE>
DEVICE void norm_pool_forward(const Call& a, unsigned item, float* memory) {
  T* shared = (T*)memory;
  const unsigned strips = (a.out_rows + a.chunk - 1) / a.chunk;
  const int channels = a.channels / a.groups, vectors = channels / V;
  Place at = {(int)(item / strips / a.groups), 0, 0, 0, (int)(item / strips % a.groups)};
  const int first = (int)(item % strips) * a.chunk, end = least(first + a.chunk, a.out_rows), top = first * STRIDE;
  const int rows = least((end - 1) * STRIDE + SIZE, a.rows) - top;
  FOR_THREADS(i, rows * a.columns * vectors) {
    const int channel = i % vectors * V, pixel = i / vectors;
    const T* from = (const T*)a.x + pixel_of_x(a, at, top, pixel);  // a row follows the row before
    float x[V + 2 * HALF], bias[V + 2 * HALF], n[V];
    load_around<V, HALF>(from, channel, channels, x);
    load_around<V, HALF>(a.bias + at.group * channels, channel, channels, bias);
    prepare<V + 2 * HALF>(a, bias, x);
    UNROLL for (int j = 0; j < V; j++) n[j] = normed<V>(a, x, j, from);
    store<V>(shared + i * V, n);
  }
  SYNCHRONIZE();
  FOR_THREADS(i, (end - first) * a.out_columns * vectors) {
    const int vector = i % vectors, column = i / vectors % a.out_columns, row = i / vectors / a.out_columns;
    float most[V], n[V];
    UNROLL for (int down = 0; down < SIZE; down++) UNROLL for (int right = 0; right < SIZE; right++) {
      if (row * STRIDE + down >= rows || column * STRIDE + right >= a.columns) continue;
      load<V>(shared + (((row * STRIDE + down) * a.columns + column * STRIDE + right) * vectors + vector) * V, n);
      UNROLL for (int j = 0; j < V; j++) most[j] = down + right == 0 ? n[j] : larger(most[j], n[j]);
    }
    if (a.rectify_after) UNROLL for (int j = 0; j < V; j++) most[j] = most[j] < 0 ? 0 : most[j];
    store<V>((T*)of_group(a.out, at.group) + window_of_y(a, at, first + row, column) + vector * V, most);
  }
}

template <typename T, int V, int SIZE>
DEVICE void norm_pool_backward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.rows, (a.columns + 1) / STRIDE);
  const int channels = a.channels / a.groups;
  float x[STRIDE][V + 4 * HALF], bias[V + 4 * HALF], n[STRIDE][V + 2 * HALF], dn[STRIDE][V + 2 * HALF], dx[V];
  load_around<V, 2 * HALF>(a.bias + at.group * channels, at.channel, channels, bias);
  UNROLL for (int pixel = 0; pixel < STRIDE; pixel++) {
    const int column = least(at.column * STRIDE + pixel, a.columns - 1);
    const T* from = (const T*)a.x + pixel_of_x(a, at, at.row, column);
    load_around<V, 2 * HALF>(from, at.channel, channels, x[pixel]);
    prepare<V + 4 * HALF>(a, bias, x[pixel]);
    UNROLL for (int i = 0; i < V + 2 * HALF; i++) {
      n[pixel][i] = normed<V>(a, x[pixel], i, from);
      if (a.rectify_after && !(n[pixel][i] > 0)) n[pixel][i] = as_float(0x7fc00000);  // NaN, which equals no maximum
      dn[pixel][i] = 0;
    }
  }
  add_window_gradients<T, V, HALF, SIZE>(a, at, n, dn);
  UNROLL for (int pixel = 0; pixel < STRIDE; pixel++) {
    const int column = at.column * STRIDE + pixel;
    if (column >= a.columns) continue;
    norm_gradient<V>(a, x[pixel], dn[pixel], dx);
    store<V>((T*)a.out[0] + pixel_of_x(a, at, at.row, column) + at.channel, dx);
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

// Sums over windows of five along lines of `length` numbers, `step` apart, in place.
DEVICE void sum_along(float* line, int length, int step) {
  float window[2 * HALF + 1] = {};
  for (int i = 0; i < length + HALF; i++) {
    UNROLL for (int j = 0; j < 2 * HALF; j++) window[j] = window[j + 1];
    window[2 * HALF] = i < length ? line[i * step] : 0;
    float sum = window[0];
    UNROLL for (int j = 1; j <= 2 * HALF; j++) sum = sum + window[j];
    if (i >= HALF) line[(i - HALF) * step] = sum;
  }
}

// Replaces [rows, columns, chunk] numbers by their sums over windows of 5 x 5 pixels.
DEVICE void sum_windows(const Call& a, float* numbers) {
  SYNCHRONIZE();
  FOR_THREADS(i, a.rows * a.chunk)
  sum_along(numbers + i / a.chunk * a.columns * a.chunk + i % a.chunk, a.columns, a.chunk);
  SYNCHRONIZE();
  FOR_THREADS(i, a.columns * a.chunk) sum_along(numbers + i, a.rows, a.columns * a.chunk);
  SYNCHRONIZE();
}

template <typename T, int V>
DEVICE void sum_squares(const Call& a, long long first, float* sums) {
  const int vectors = a.chunk / V;
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    float x[V];
    load<V>((const T*)a.x + first + (long long)(i / vectors) * a.channels + i % vectors * V, x);
    UNROLL for (int j = 0; j < V; j++) x[j] = x[j] * x[j];
    store<V>(sums + i * V, x);
  }
  sum_windows(a, sums);
}

template <typename T, int V>
DEVICE void spatial_forward(const Call& a, unsigned item, float* sums) {
  const long long first = first_of(a, item);
  const int vectors = a.chunk / V;
  sum_squares<T, V>(a, first, sums);
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    const long long at = first + (long long)(i / vectors) * a.channels + i % vectors * V;
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
  const int vectors = a.chunk / V;
  float* terms = sums + a.rows * a.columns * a.chunk;
  sum_squares<T, V>(a, first, sums);
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    const long long at = first + (long long)(i / vectors) * a.channels + i % vectors * V;
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
    const long long at = first + (long long)(i / vectors) * a.channels + i % vectors * V;
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

// CROWDED_ITEMS: four blocks share a multiprocessor's registers, for too few threads would wait for memory too long.
#ifdef __CUDACC__
#define CROWDED_ITEMS(name, threads, ...)                                       \
  extern "C" __global__ void __launch_bounds__(threads, 4) name(const Call a) { \
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;                \
    if (item < a.items) __VA_ARGS__(a, item);                                   \
  }
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
#define CROWDED_ITEMS ITEMS
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
OF_ALL_SIZES(CROWDED_ITEMS, norm_pool_backward, 128)
OF_ALL_TYPES(BLOCKS, spatial_forward, 512)
OF_ALL_TYPES(BLOCKS, spatial_backward, 512)
