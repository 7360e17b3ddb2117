// Numbers in memory and in registers, on a GPU and on a CPU: float32 and bfloat16, loaded and stored in vectors.

#ifndef ALEXNET_JAX_CUDA_NUMBERS_H_
#define ALEXNET_JAX_CUDA_NUMBERS_H_

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
#ifndef FOR_THREADS  // a test gives a block threads
#define FOR_THREADS(i, n) for (unsigned i = 0; i < (unsigned)(n); i++)
#define SYNCHRONIZE()
#endif
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

#endif
