// Max pooling and its gradient on a CPU, float32. Windows are clipped at the right and bottom border.

#include "pool.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

void pool_image(const Pool* pool, long image) {
  const long c = pool->channels;
  const float* from = pool->x + image * pool->rows * pool->columns * c;
  float* out = pool->out + image * pool->out_rows * pool->out_columns * c;
  for (long h = 0; h < pool->out_rows; h++)
    for (long w = 0; w < pool->out_columns; w++, out += c) {
      const long bottom = min(pool->rows, h * pool->stride + pool->size);
      const long right = min(pool->columns, w * pool->stride + pool->size);
      // Beyond the border a window has the lowest finite number.
      const int inside = bottom == h * pool->stride + pool->size && right == w * pool->stride + pool->size;
      if (inside)
        memcpy(out, from + (h * pool->stride * pool->columns + w * pool->stride) * c, c * sizeof *out);
      else
        for (long i = 0; i < c; i++) out[i] = -FLT_MAX;
      for (long row = h * pool->stride; row < bottom; row++)
        for (long column = w * pool->stride; column < right; column++) {
          const float* restrict x = from + (row * pool->columns + column) * c;
          float* restrict y = out;
          for (long i = 0; i < c; i++) y[i] = ((x[i] > y[i]) | (x[i] != x[i])) ? x[i] : y[i];  // NaN stays
        }
    }
}

// Each pixel that equals the maximum of a window gets the window's whole gradient (V1/src/cudaconv2/conv_util.cu:1559).
void pool_image_gradient(const Pool* pool, long image) {
  const long c = pool->channels, stride = pool->stride, size = pool->size;
  const float* x = pool->x + image * pool->rows * pool->columns * c;
  const long first_window = image * pool->out_rows * pool->out_columns * c;
  float* restrict dx = pool->out + image * pool->rows * pool->columns * c;
  for (long row = 0; row < pool->rows; row++)
    for (long column = 0; column < pool->columns; column++, x += c, dx += c) {
      memset(dx, 0, c * sizeof *dx);
      for (long h = min(row / stride, pool->out_rows - 1); h >= 0 && h * stride + size > row; h--)
        for (long w = min(column / stride, pool->out_columns - 1); w >= 0 && w * stride + size > column; w--) {
          const long window = first_window + (h * pool->out_columns + w) * c;
          const float* restrict y = pool->y + window, * restrict dy = pool->dy + window;
          for (long i = 0; i < c; i++) dx[i] += x[i] == y[i] ? dy[i] : 0;
        }
    }
}

// ---- entry points --------------------------------------------------------------------------------------------------

static void max_pool(const void* call, long item, float* scratch) {
  (void)scratch;
  pool_image(call, item);
}

static void max_pool_gradient(const void* call, long item, float* scratch) {
  (void)scratch;
  pool_image_gradient(call, item);
}

// Windows along a side: 1 + ceil((n - size) / stride), as `layers.output_size` has it.
static long window_count(long n, long size, long stride) {
  return 1 + (n > size ? ceil_div(n - size, stride) : (n - size) / stride);
}

XLA_FFI_Error* count_windows(const Op* op, Pool* pool) {
  pool->out_rows = window_count(pool->rows, pool->size, pool->stride);
  pool->out_columns = window_count(pool->columns, pool->size, pool->stride);
  if (pool->out_rows >= 1 && pool->out_columns >= 1) return NULL;
  return INVALID(op, "argument 0 has %ld x %ld pixels, which is too few for windows of %ld pixels, %ld apart",
                 pool->rows, pool->columns, pool->size, pool->stride);
}

static XLA_FFI_Error* read_call(const Op* op, int gradient, Pool* pool) {
  TRY(check_buffers(op, gradient ? 3 : 1));
  const XLA_FFI_Buffer* x = argument(op, 0);
  *pool = (Pool){.x = x->data,
                 .out = result(op)->data,
                 .images = x->dims[0],
                 .rows = x->dims[1],
                 .columns = x->dims[2],
                 .channels = x->dims[3]};
  TRY(attr_i64(op, "size", 1, INT32_MAX, &pool->size));
  TRY(attr_i64(op, "stride", 1, INT32_MAX, &pool->stride));
  TRY(count_windows(op, pool));
  const Shape pooled = SHAPE(pool->images, pool->out_rows, pool->out_columns, pool->channels);
  if (!gradient) return check_result_shape(op, pooled);
  pool->y = argument(op, 1)->data, pool->dy = argument(op, 2)->data;
  TRY(check_argument_shape(op, 1, pooled));
  TRY(check_argument_shape(op, 2, pooled));
  return check_result_shape(op, SHAPE(pool->images, pool->rows, pool->columns, pool->channels));
}

static XLA_FFI_Error* run_max_pool(const Op* op) {
  Pool pool;
  TRY(read_call(op, 0, &pool));
  if (!element_count(result(op))) return NULL;
  return parallel_for(op, max_pool, &pool, pool.images, 0);
}

static XLA_FFI_Error* run_max_pool_gradient(const Op* op) {
  Pool pool;
  TRY(read_call(op, 1, &pool));
  if (!element_count(result(op))) return NULL;
  return parallel_for(op, max_pool_gradient, &pool, pool.images, 0);
}

DEFINE_OPERATION(max_pool, run_max_pool)
DEFINE_OPERATION(max_pool_gradient, run_max_pool_gradient)
