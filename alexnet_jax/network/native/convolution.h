// A convolution, or the gradient of its kernel, by Winograd's algorithm.

#ifndef ALEXNET_JAX_CONVOLUTION_H_
#define ALEXNET_JAX_CONVOLUTION_H_

#include "matmul.h"

enum { GROUPS = 8 };

typedef struct {
  const float *x, *kernel, *dy;  // a kernel's gradient has dy and no kernel
  float* out;                    // y, or the kernel's gradient
  long images, rows, columns, channels;
  long out_rows, out_columns, maps;
  long size, stride, pad;
  // What follows from these:
  int vectors;                                     // registers of a panel of maps
  long width, block, maps_padded;                  // maps of a panel; rows of a block; maps rounded up to panels
  long padded_rows, padded_columns, padded_terms;  // of an image with its border
  long groups, group_size;  // of images whose gradients are summed apart, the same for any number of threads
  // Over blocks of `stride x stride` pixels. A place is a block, a term one of its numbers.
  long window, terms;                      // places along a side of a window; terms of a place
  long tile_out, tile_rows, tile_columns;  // pixels that a tile yields along a side; tiles of an image
  long chunk;                              // images of an item of work
  long kernel_plane;                       // floats of one element of the transformed kernel, or of its gradient
  float *packed, *gradients;               // the kernel in panels, transformed; each group's gradient
} Conv;

static inline void zero(float* to, long count) { memset(to, 0, count * sizeof *to); }

// Copies an image between zeros: `before` rows and columns of zeros, and as many after the image as the room leaves.
static inline void pad_image(const float* restrict image, long rows, long columns, long channels, long before,
                             float* restrict padded, long padded_rows, long padded_columns, long padded_channels) {
  const long copied = min(columns, padded_columns - before), left = before * padded_channels;
  const long line = padded_columns * padded_channels, end = left + copied * padded_channels;
  for (long row = -before; row < padded_rows - before; row++, padded += line) {
    if (row < 0 || row >= rows) {
      zero(padded, line);
      continue;
    }
    const float* from = image + row * columns * channels;
    zero(padded, left), zero(padded + end, line - end);
    if (channels == padded_channels)
      memcpy(padded + left, from, copied * channels * sizeof *from);
    else
      for (long column = 0; column < copied; column++) {
        float* to = padded + left + column * padded_channels;
        memcpy(to, from + column * channels, channels * sizeof *to);
        zero(to + channels, padded_channels - channels);
      }
  }
}

// Places along a side of a window: pixels, or blocks of pixels, of which the last ones may be part of the window.
static inline long window_of(const Conv* conv) { return ceil_div(conv->size, conv->stride); }

static inline int winograd_applies(const Conv* conv) {
  enum { MOST_TERMS = 256 };  // of a block: with 2,320 the result is off by 9e-6
  const long window = window_of(conv);
  if (window != 3 && window != 5) return 0;
  return conv->stride == 1 || conv->stride * conv->stride * conv->channels <= MOST_TERMS;
}

XLA_FFI_Error* winograd_convolution(const Op* op, Conv* conv);
XLA_FFI_Error* winograd_kernel_gradient(const Op* op, Conv* conv);

#endif
