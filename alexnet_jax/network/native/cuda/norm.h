// Response norm: windows of five channels.

#ifndef ALEXNET_JAX_CUDA_NORM_H_
#define ALEXNET_JAX_CUDA_NORM_H_

#include "numbers.h"

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

#endif
