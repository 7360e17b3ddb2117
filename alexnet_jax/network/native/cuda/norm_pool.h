// Response norm, then max pooling.

#ifndef ALEXNET_JAX_CUDA_NORM_POOL_H_
#define ALEXNET_JAX_CUDA_NORM_POOL_H_

#include "norm.h"
#include "pool.h"

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

// A block computes `chunk` pixels. First, each thread stores the terms of its channels in shared memory. Then it adds
// the terms of neighbouring channels from there.
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

#endif
