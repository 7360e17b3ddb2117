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

DEVICE float widen(float x) { return x; }
DEVICE float widen(Bfloat16 x) { return as_float((unsigned)x.bits << 16); }

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

DEVICE void store_one(float* p, float x) { *p = x; }
DEVICE void store_one(Bfloat16* p, float x) { p->bits = (unsigned short)bfloat16_bits(x); }

struct alignas(8) Words2 {
  unsigned w[2];
};
struct alignas(16) Words4 {
  unsigned w[4];
};

template <int N>
DEVICE void load_words(const void* p, unsigned* w) {
#ifdef __CUDACC__
  if constexpr (N == 4) {
    const uint4 v = __ldg((const uint4*)p);
    w[0] = v.x, w[1] = v.y, w[2] = v.z, w[3] = v.w;
  } else if constexpr (N == 2) {
    const uint2 v = __ldg((const uint2*)p);
    w[0] = v.x, w[1] = v.y;
  } else {
    w[0] = __ldg((const unsigned*)p);
  }
#else
  memcpy(w, p, N * sizeof *w);
#endif
}

template <int N>
DEVICE void store_words(void* p, const unsigned* w) {
#ifdef __CUDACC__
  if constexpr (N == 4)
    *(uint4*)p = make_uint4(w[0], w[1], w[2], w[3]);
  else
    *(uint2*)p = make_uint2(w[0], w[1]);
#else
  memcpy(p, w, N * sizeof *w);
#endif
}

// Loads N numbers that lie side by side, on a multiple of their size. N is 2, 4, or 8 for bfloat16.
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

// d^-1/4, from which d^-3/4 and d^-7/4 follow.
struct Powers {
  float p, q;  // d^-3/4 and d^-7/4
};

DEVICE Powers powers(float d) {
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
  UNROLL for (int i = 0; i < V; i++) y[i] = x[HALF + i] * powers(denominator(a, x, i)).p;
  store<V>((T*)a.out + pixel + channel, y);
}

// The gradient of the norm, from x with 2 HALF and dn with HALF channels around: dx = dn d^-b - 2ab x sum(dn x
// d^-(b+1)).
template <int V>
DEVICE void norm_gradient(const Call& a, const float* x, const float* dn, float* dx) {
  float terms[V + 2 * HALF], p[V + 2 * HALF];
  UNROLL for (int i = 0; i < V + 2 * HALF; i++) {
    const Powers power = powers(denominator(a, x, i));
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
  load_around<V, HALF>((const T*)a.dy + pixel, channel, a.channels, dy);
  prepare<V + 4 * HALF>(a, bias, x);
  norm_gradient<V>(a, x, dy, dx);
  store<V>((T*)a.out + pixel + channel, dx);
}

// ---- max pooling: windows clipped at the right and bottom border ---------------------------------------------------

// An item of a map with so many rows and columns: image, row, column, and first channel.
struct Place {
  int image, row, column, channel;
};

template <int V>
DEVICE Place place_of(const Call& a, unsigned item, int rows, int columns) {
  const unsigned vectors = a.channels / V;
  Place place;
  place.channel = (int)(item % vectors) * V;
  item /= vectors;
  place.column = (int)(item % columns);
  item /= columns;
  place.row = (int)(item % rows);
  place.image = (int)(item / rows);
  return place;
}

DEVICE long long offset(const Call& a, int image, int row, int column, int rows, int columns) {
  return (((long long)image * rows + row) * columns + column) * a.channels;
}

DEVICE int least(int a, int b) { return a < b ? a : b; }

// The larger number, and NaN where one is NaN.
DEVICE float larger(float most, float x) { return x > most || x != x ? x : most; }

template <typename T, int V>
DEVICE void pool_forward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.out_rows, a.out_columns);
  const int top = at.row * a.stride, left = at.column * a.stride;
  float most[V], x[V];
  for (int row = top; row < least(top + a.size, a.rows); row++)
    for (int column = left; column < least(left + a.size, a.columns); column++) {
      load<V>((const T*)a.x + offset(a, at.image, row, column, a.rows, a.columns) + at.channel, x);
      const bool first = row == top && column == left;
      UNROLL for (int i = 0; i < V; i++) most[i] = first ? x[i] : larger(most[i], x[i]);
    }
  store<V>((T*)a.out + (long long)item * V, most);
}

// The first window that reaches a pixel, and the one after the last.
DEVICE int first_window(const Call& a, int pixel) { return pixel < a.size ? 0 : (pixel - a.size) / a.stride + 1; }
DEVICE int windows_end(const Call& a, int pixel, int windows) { return least(pixel / a.stride + 1, windows); }

template <typename T, int V>
DEVICE void pool_backward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.rows, a.columns);
  float x[V], y[V], dy[V], dx[V];
  load<V>((const T*)a.x + (long long)item * V, x);
  UNROLL for (int i = 0; i < V; i++) dx[i] = 0;
  for (int row = first_window(a, at.row); row < windows_end(a, at.row, a.out_rows); row++)
    for (int column = first_window(a, at.column); column < windows_end(a, at.column, a.out_columns); column++) {
      const long long window = offset(a, at.image, row, column, a.out_rows, a.out_columns) + at.channel;
      load<V>((const T*)a.y + window, y);
      load<V>((const T*)a.dy + window, dy);
      UNROLL for (int i = 0; i < V; i++) dx[i] += x[i] == y[i] ? dy[i] : 0;
    }
  store<V>((T*)a.out + (long long)item * V, dx);
}

// ---- response norm, then max pooling -------------------------------------------------------------------------------

template <typename T, int V>
DEVICE void norm_pool_forward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.out_rows, a.out_columns);
  const int top = at.row * a.stride, left = at.column * a.stride;
  float most[V], x[V + 2 * HALF], bias[V + 2 * HALF];
  load_around<V, HALF>(a.bias, at.channel, a.channels, bias);
  for (int row = top; row < least(top + a.size, a.rows); row++)
    for (int column = left; column < least(left + a.size, a.columns); column++) {
      const T* pixel = (const T*)a.x + offset(a, at.image, row, column, a.rows, a.columns);
      load_around<V, HALF>(pixel, at.channel, a.channels, x);
      prepare<V + 2 * HALF>(a, bias, x);
      const bool first = row == top && column == left;
      UNROLL for (int i = 0; i < V; i++) {
        const float n = rounded(x[HALF + i] * powers(denominator(a, x, i)).p, pixel);
        most[i] = first ? n : larger(most[i], n);
      }
    }
  if (a.rectify_after) UNROLL for (int i = 0; i < V; i++) most[i] = most[i] < 0 ? 0 : most[i];
  store<V>((T*)a.out + (long long)item * V, most);
}

template <typename T, int V>
DEVICE void norm_pool_backward(const Call& a, unsigned item) {
  const Place at = place_of<V>(a, item, a.rows, a.columns);
  const T* pixel = (const T*)a.x + offset(a, at.image, at.row, at.column, a.rows, a.columns);
  float x[V + 4 * HALF], bias[V + 4 * HALF], n[V + 2 * HALF], dn[V + 2 * HALF], y[V + 2 * HALF], dy[V + 2 * HALF],
      dx[V];
  load_around<V, 2 * HALF>(pixel, at.channel, a.channels, x);
  load_around<V, 2 * HALF>(a.bias, at.channel, a.channels, bias);
  prepare<V + 4 * HALF>(a, bias, x);
  UNROLL for (int i = 0; i < V + 2 * HALF; i++) {  // the same instructions as forward, so that n can equal y
    n[i] = rounded(x[HALF + i] * powers(denominator(a, x, i)).p, pixel);
    dn[i] = 0;
  }
  for (int row = first_window(a, at.row); row < windows_end(a, at.row, a.out_rows); row++)
    for (int column = first_window(a, at.column); column < windows_end(a, at.column, a.out_columns); column++) {
      const long long window = offset(a, at.image, row, column, a.out_rows, a.out_columns);
      load_around<V, HALF>((const T*)a.y + window, at.channel, a.channels, y);
      load_around<V, HALF>((const T*)a.dy + window, at.channel, a.channels, dy);
      UNROLL for (int i = 0; i < V + 2 * HALF; i++) dn[i] += n[i] == y[i] && (!a.rectify_after || y[i] > 0) ? dy[i] : 0;
    }
  norm_gradient<V>(a, x, dn, dx);
  store<V>((T*)a.out + (long long)item * V, dx);
}

// ---- spatial norm: windows of 5 x 5 pixels -------------------------------------------------------------------------
// A block's threads work together on `chunk` channels of an image, in shared memory. A thread slides along a row or a
// column with the window in registers.

struct Window {
  float v[2 * HALF + 1];
};

DEVICE float slide(Window& window, float next) {
  UNROLL for (int i = 0; i < 2 * HALF; i++) window.v[i] = window.v[i + 1];
  window.v[2 * HALF] = next;
  float sum = window.v[0];
  UNROLL for (int i = 1; i <= 2 * HALF; i++) sum = sum + window.v[i];
  return sum;
}

// What a block works on: the place of its channels in an image, and in shared memory.
struct Block {
  long long first;  // of the image's numbers
  int row;          // from a row to the next, in shared memory
};

DEVICE Block block_of(const Call& a, unsigned item) {
  const unsigned chunks = a.channels / a.chunk;
  return {(long long)(item / chunks) * a.rows * a.columns * a.channels + item % chunks * a.chunk, a.columns * a.chunk};
}

// sums[row, column, channel] = sums of squares of x along rows.
template <typename T>
DEVICE void sum_squares_along_rows(const Call& a, const Block& block, float* sums) {
  FOR_THREADS(i, a.rows * a.chunk) {
    const int row = i / a.chunk, channel = i % a.chunk;
    const T* x = (const T*)a.x + block.first + (long long)row * a.columns * a.channels + channel;
    float* out = sums + row * block.row + channel;
    Window window = {};
    for (int column = 0; column < a.columns + HALF; column++) {
      const float value = column < a.columns ? widen(x[(long long)column * a.channels]) : 0;
      const float sum = slide(window, value * value);
      if (column >= HALF) out[(column - HALF) * a.chunk] = sum;
    }
  }
}

template <typename T>
DEVICE void spatial_forward(const Call& a, unsigned item, float* shared) {
  const Block block = block_of(a, item);
  sum_squares_along_rows<T>(a, block, shared);
  SYNCHRONIZE();
  FOR_THREADS(i, a.columns * a.chunk) {
    const int column = i / a.chunk, channel = i % a.chunk;
    const long long first = block.first + (long long)column * a.channels + channel;
    Window window = {};
    for (int row = 0; row < a.rows + HALF; row++) {
      const float sum = slide(window, row < a.rows ? shared[row * block.row + i] : 0);
      if (row < HALF) continue;
      const long long at = first + (long long)(row - HALF) * a.columns * a.channels;
      const float x = widen(((const T*)a.x)[at]);
      store_one((T*)a.out + at, x * powers(fused_multiply_add(a.alpha, sum, a.k)).p);
    }
  }
}

template <typename T>
DEVICE void spatial_backward(const Call& a, unsigned item, float* shared) {
  const Block block = block_of(a, item);
  float *p = shared, *terms = shared + a.rows * block.row;  // p: first sums of squares, then d^-b
  sum_squares_along_rows<T>(a, block, p);
  SYNCHRONIZE();
  FOR_THREADS(i, a.columns * a.chunk) {
    const int column = i / a.chunk, channel = i % a.chunk;
    const long long first = block.first + (long long)column * a.channels + channel;
    Window window = {};
    for (int row = 0; row < a.rows + HALF; row++) {
      const float sum = slide(window, row < a.rows ? p[row * block.row + i] : 0);
      if (row < HALF) continue;
      const long long at = first + (long long)(row - HALF) * a.columns * a.channels;
      const Powers power = powers(fused_multiply_add(a.alpha, sum, a.k));
      p[(row - HALF) * block.row + i] = power.p;  // no later window of this column reaches the sum that stood here
      terms[(row - HALF) * block.row + i] = widen(((const T*)a.dy)[at]) * widen(((const T*)a.x)[at]) * power.q;
    }
  }
  SYNCHRONIZE();
  FOR_THREADS(i, a.rows * a.chunk) {
    float* line = terms + i / a.chunk * block.row + i % a.chunk;
    Window window = {};
    for (int column = 0; column < a.columns + HALF; column++) {
      const float sum = slide(window, column < a.columns ? line[column * a.chunk] : 0);
      if (column >= HALF) line[(column - HALF) * a.chunk] = sum;
    }
  }
  SYNCHRONIZE();
  FOR_THREADS(i, a.columns * a.chunk) {
    const int column = i / a.chunk, channel = i % a.chunk;
    const long long first = block.first + (long long)column * a.channels + channel;
    Window window = {};
    for (int row = 0; row < a.rows + HALF; row++) {
      const float sum = slide(window, row < a.rows ? terms[row * block.row + i] : 0);
      if (row < HALF) continue;
      const long long at = first + (long long)(row - HALF) * a.columns * a.channels;
      const float factor = -1.5f * a.alpha * widen(((const T*)a.x)[at]);
      const float dn = widen(((const T*)a.dy)[at]) * p[(row - HALF) * block.row + i];
      store_one((T*)a.out + at, fused_multiply_add(factor, sum, dn));
    }
  }
}

// ---- entry points --------------------------------------------------------------------------------------------------

#ifdef __CUDACC__
#define ITEMS(name, ...)                                                 \
  extern "C" __global__ void __launch_bounds__(256) name(const Call a) { \
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;         \
    if (item < a.items) __VA_ARGS__(a, item);                            \
  }
#define BLOCKS(name, ...)                                                \
  extern "C" __global__ void __launch_bounds__(512) name(const Call a) { \
    extern __shared__ float shared[];                                    \
    __VA_ARGS__(a, blockIdx.x, shared);                                  \
  }
#else
#define ITEMS(name, ...)                                                    \
  extern "C" void name(const Call* a, float*) {                             \
    for (unsigned item = 0; item < a->items; item++) __VA_ARGS__(*a, item); \
  }
#define BLOCKS(name, ...)                                                           \
  extern "C" void name(const Call* a, float* shared) {                              \
    for (unsigned item = 0; item < a->items; item++) __VA_ARGS__(*a, item, shared); \
  }
#endif

#define ITEMS_OF_ALL_TYPES(name)        \
  ITEMS(name##_f32, name<float, 4>)     \
  ITEMS(name##_bf16, name<Bfloat16, 8>) \
  ITEMS(name##_bf16x4, name<Bfloat16, 4>)

#define BLOCKS_OF_ALL_TYPES(name) \
  BLOCKS(name##_f32, name<float>) \
  BLOCKS(name##_bf16, name<Bfloat16>)

ITEMS_OF_ALL_TYPES(norm_forward)
ITEMS_OF_ALL_TYPES(norm_backward)
ITEMS_OF_ALL_TYPES(pool_forward)
ITEMS_OF_ALL_TYPES(pool_backward)
ITEMS_OF_ALL_TYPES(norm_pool_forward)
ITEMS_OF_ALL_TYPES(norm_pool_backward)
BLOCKS_OF_ALL_TYPES(spatial_forward)
BLOCKS_OF_ALL_TYPES(spatial_backward)
