// The operations of layer 1 after its convolution, on a CPU, float32: bias, ReLU, response norm, max pooling and ReLU,
// where either ReLU may be left out. An image's maps stay in the cache from the first to the last.

#include "norm.h"
#include "pool.h"

typedef struct {
  const float *x, *bias, *y, *dy;  // y, dy: of a gradient
  float* out;                      // y, or dx
  Norm norm;                       // of an image, without its arrays
  Pool pool;
  long rectify, rectify_pooled;
} Block;

static inline float rectified(float x) { return ((x > 0) | (x != x)) ? x : 0; }  // NaN stays

// A row of the maps that the norm is given.
static void bias_row(const Block* block, const float* restrict x, float* restrict biased) {
  const long c = block->norm.channels;
  for (long w = 0; w < block->norm.columns; w++, x += c, biased += c) {
    for (long i = 0; i < c; i++) biased[i] = x[i] + block->bias[i];
    if (block->rectify)
      for (long i = 0; i < c; i++) biased[i] = rectified(biased[i]);
  }
}

static void norm_image(const Block* block, long image, float* normed, float* row, float* scratch) {
  const long n = block->norm.columns * block->norm.channels;
  Norm norm = block->norm;
  for (long h = 0; h < norm.rows; h++) {
    bias_row(block, block->x + (image * norm.rows + h) * n, row);
    norm.x = row, norm.out = normed + h * n;
    norm_pixels(&norm, 0, norm.columns, scratch);
  }
}

static void norm_pool(const void* call, long item, float* scratch) {
  const Block* block = call;
  Pool pool = block->pool;
  const long n = pool.columns * pool.channels, windows = pool.out_rows * pool.out_columns * pool.channels;
  float *normed = scratch, *row = normed + pool.rows * n;
  norm_image(block, item, normed, row, row + n);
  pool.x = normed, pool.out = block->out + item * windows;
  pool_image(&pool, 0);
  if (block->rectify_pooled)
    for (long i = 0; i < windows; i++) pool.out[i] = rectified(pool.out[i]);
}

static void norm_pool_gradient(const void* call, long item, float* scratch) {
  const Block* block = call;
  Pool pool = block->pool;
  Norm norm = block->norm;
  const long n = pool.columns * pool.channels, windows = pool.out_rows * pool.out_columns * pool.channels;
  float *normed = scratch, *gradient = normed + pool.rows * n, *pooled = gradient + pool.rows * n;
  float *row = pooled + windows, *rest = row + n;
  norm_image(block, item, normed, row, rest);
  pool.x = normed, pool.y = block->y + item * windows, pool.dy = block->dy + item * windows, pool.out = gradient;
  if (block->rectify_pooled) {  // where y is 0, no gradient passes; elsewhere it is the maximum
    for (long i = 0; i < windows; i++) pooled[i] = pool.y[i] != 0 ? pool.dy[i] : 0;
    pool.dy = pooled;
  }
  pool_image_gradient(&pool, 0);
  for (long h = 0; h < norm.rows; h++) {
    const long first = (item * norm.rows + h) * n;
    float* restrict dx = block->out + first;
    bias_row(block, block->x + first, row);
    norm.x = row, norm.dy = gradient + h * n, norm.out = dx;
    norm_pixels_gradient(&norm, 0, norm.columns, rest);
    if (block->rectify)
      for (long i = 0; i < n; i++) dx[i] = row[i] != 0 ? dx[i] : 0;
  }
}

// x [batch, rows, columns, channels], bias [1, 1, 1, channels] -> y [batch, out_rows, out_columns, channels]; for a
// gradient also y and dy -> dx
static XLA_FFI_Error* run_block(const Op* op, int gradient, ItemFunction* function) {
  TRY(check_buffers(op, gradient ? 4 : 2));
  const int64_t* x = argument(op, 0)->dims;
  Block block = {.x = argument(op, 0)->data, .bias = argument(op, 1)->data, .out = result(op)->data};
  block.norm = (Norm){.rows = x[1], .columns = x[2], .channels = x[3]};
  block.pool = (Pool){.rows = x[1], .columns = x[2], .channels = x[3]};
  TRY(read_window(op, &block.norm));
  TRY(attr_i64(op, "pool_size", 1, INT32_MAX, &block.pool.size));
  TRY(attr_i64(op, "pool_stride", 1, INT32_MAX, &block.pool.stride));
  TRY(attr_i64(op, "rectify", 0, 1, &block.rectify));
  TRY(attr_i64(op, "rectify_pooled", 0, 1, &block.rectify_pooled));
  TRY(count_windows(op, &block.pool));
  TRY(check_argument_shape(op, 1, SHAPE(1, 1, 1, x[3])));
  const Shape pooled = SHAPE(x[0], block.pool.out_rows, block.pool.out_columns, x[3]);
  if (gradient) {
    TRY(check_argument_shape(op, 2, pooled));
    TRY(check_argument_shape(op, 3, pooled));
    block.y = argument(op, 2)->data, block.dy = argument(op, 3)->data;
  }
  TRY(check_result_shape(op, gradient ? SHAPE(x[0], x[1], x[2], x[3]) : pooled));
  if (!element_count(result(op))) return NULL;
  const long image = mul_size(x[1] * x[2], x[3]),
             windows = gradient ? mul_size(pooled.dims[1] * pooled.dims[2], x[3]) : 0;
  const long scratch = (1 + gradient) * image + windows + x[2] * x[3] + norm_scratch(&block.norm);
  return parallel_for(op, function, &block, x[0], scratch);
}

static XLA_FFI_Error* run_norm_pool(const Op* op) { return run_block(op, 0, norm_pool); }
static XLA_FFI_Error* run_norm_pool_gradient(const Op* op) { return run_block(op, 1, norm_pool_gradient); }

DEFINE_OPERATION(norm_pool, run_norm_pool)
DEFINE_OPERATION(norm_pool_gradient, run_norm_pool_gradient)
