// Max pooling or its gradient, and its computation for an image.

#ifndef ALEXNET_JAX_POOL_H_
#define ALEXNET_JAX_POOL_H_

#include "parallel.h"

typedef struct {
  const float *x, *y, *dy;  // y, dy: of a gradient
  float* out;               // y, or dx
  long images, rows, columns, channels;
  long out_rows, out_columns;
  long size, stride;
} Pool;

// Sets the number of windows; there has to be one.
XLA_FFI_Error* count_windows(const Op* op, Pool* pool);

void pool_image(const Pool* pool, long image);
void pool_image_gradient(const Pool* pool, long image);

#endif
