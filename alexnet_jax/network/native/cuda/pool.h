// Max pooling by 3 or 2 pixels, 2 apart: windows clipped at the right and bottom border.

#ifndef ALEXNET_JAX_CUDA_POOL_H_
#define ALEXNET_JAX_CUDA_POOL_H_

#include "numbers.h"

enum { STRIDE = 2 };

// The array of a group. An index would put the call into a thread's local memory.
DEVICE const void* of_group(const void* const* arrays, int group) { return group ? arrays[1] : arrays[0]; }
DEVICE void* of_group(void* const* arrays, int group) { return group ? arrays[1] : arrays[0]; }

DEVICE int least(int a, int b) { return a < b ? a : b; }

// The channels of a thread, in maps with so many rows and columns. `group` has the channel.
struct Place {
  int image, row, column, channel, group;
};

// Sets the channel of a place by the number of its vector.
template <int V>
DEVICE void set_channel(const Call& a, Place& at, unsigned vector) {
  const unsigned vectors = a.channels / a.groups / V;
  at.group = vector >= vectors;
  at.channel = (int)(vector - at.group * vectors) * V;
}

template <int V>
DEVICE Place place_of(const Call& a, unsigned item, int rows, int columns) {
  const unsigned vectors = a.channels / V, pixel = item / vectors, row = pixel / columns;
  Place at = {(int)(row / rows), (int)(row % rows), (int)(pixel % columns), 0, 0};
  set_channel<V>(a, at, item % vectors);
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

#endif
