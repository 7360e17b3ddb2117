// Spatial norm: windows of 5 x 5 pixels.
//
// A block's threads work together on `chunk` channels of an image, in shared memory. They load and store V channels at
// once; for window sums, a thread slides along a row or a column with the window in registers.

#ifndef ALEXNET_JAX_CUDA_SPATIAL_H_
#define ALEXNET_JAX_CUDA_SPATIAL_H_

#include "norm.h"

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
      sum[j] = dy[j] * power.p;
      x[j] = dy[j] * x[j] * power.q;
    }
    store<V>(sums + i * V, sum);
    store<V>(terms + i * V, x);
  }
  sum_windows(a, terms);
  FOR_THREADS(i, a.rows * a.columns * vectors) {
    const long long at = first + (long long)(i >> shift) * a.channels + (i & (vectors - 1)) * V;
    float x[V], direct[V], sum[V];
    load<V>((const T*)a.x + at, x);
    load<V>(sums + i * V, direct);
    load<V>(terms + i * V, sum);
    UNROLL for (int j = 0; j < V; j++) x[j] = fused_multiply_add(-1.5f * a.alpha * x[j], sum[j], direct[j]);
    store<V>((T*)a.out[0] + at, x);
  }
}

#endif
