// A response norm or a spatial norm, or the gradient of one; and the response norm of some pixels.

#ifndef ALEXNET_JAX_NORM_H_
#define ALEXNET_JAX_NORM_H_

#include "parallel.h"

typedef struct {
  const float *x, *dy;  // dy: of a gradient
  float* out;           // y, or dx
  long images, rows, columns, channels;
  long size;  // of the window, odd
  float k, alpha;
} Norm;

// Reads the attributes size, k and alpha.
XLA_FFI_Error* read_window(const Op* op, Norm* norm);

// Floats of scratch of the two functions below.
long norm_scratch(const Norm* norm);

// Pixels first to end - 1 of the response norm, and of its gradient.
void norm_pixels(const Norm* norm, long first, long end, float* scratch);
void norm_pixels_gradient(const Norm* norm, long first, long end, float* scratch);

#endif
