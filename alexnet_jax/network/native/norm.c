// Response norms and their gradients on a CPU, each in one pass over memory: the formulas of layers.py, for float32 and
// beta 0.75.
//
// XLA's compiler for the CPU computes the neighbours of a window anew at each place of the window and takes ten times
// as long. An item of work is an image, or a run of pixels.

#include "norm.h"

#include <stdlib.h>
#include <string.h>

enum { PIXELS = 512 /* of one item */, BLOCK = 1536 /* floats, so that a few such arrays fit L1 */ };

// ---- window sums ---------------------------------------------------------------------------------------------------

// out[i] = in[i] + in[i + step] + ... , `size` terms.
static void sum_of_shifted(const float* restrict in, float* restrict out, long n, long size, long step) {
  if (size == 5) {  // every norm of 2012
    for (long i = 0; i < n; i++) out[i] = in[i] + in[i + step] + in[i + 2 * step] + in[i + 3 * step] + in[i + 4 * step];
    return;
  }
  memcpy(out, in, n * sizeof *out);
  for (long j = 1; j < size; j++)
    for (long i = 0; i < n; i++) out[i] += in[i + j * step];
}

// d^-0.75, for the denominator d = k + alpha sum.
static inline float inverse_power(float d) { return 1 / __builtin_sqrtf(d * __builtin_sqrtf(d)); }

// ---- response norm: windows over channels --------------------------------------------------------------------------
// Pixels lie in scratch with `half` zeros before, between and after them, so that one loop computes a whole block.

long norm_scratch(const Norm* norm) { return 4 * (BLOCK + 2 * norm->channels + (BLOCK + 2) * norm->size); }

void norm_pixels(const Norm* norm, long first, long end, float* scratch) {
  const long c = norm->channels, half = norm->size / 2, pitch = c + half, block = max(1, BLOCK / c);
  float *squares = scratch, *power = squares + block * pitch + half;
  memset(squares, 0, (block * pitch + half) * sizeof *squares);
  for (; first < end; first += block) {
    const long count = min(block, end - first), n = count * pitch - half;
    for (long p = 0; p < count; p++) {
      const float* restrict x = norm->x + (first + p) * c;
      float* restrict square = squares + half + p * pitch;
      for (long i = 0; i < c; i++) square[i] = x[i] * x[i];
    }
    sum_of_shifted(squares, power, n, norm->size, 1);
    for (long i = 0; i < n; i++) power[i] = inverse_power(norm->k + norm->alpha * power[i]);
    for (long p = 0; p < count; p++) {
      const float* restrict x = norm->x + (first + p) * c, * restrict pixel_power = power + p * pitch;
      float* restrict y = norm->out + (first + p) * c;
      for (long i = 0; i < c; i++) y[i] = x[i] * pixel_power[i];
    }
  }
}

// dx = dy d^-b - 2ab x sum(dy x d^-(b+1))
void norm_pixels_gradient(const Norm* norm, long first, long end, float* scratch) {
  const long c = norm->channels, half = norm->size / 2, pitch = c + half, block = max(1, BLOCK / c);
  const long length = block * pitch + half;
  float *squares = scratch, *products = squares + length, *power = products + length, *sums = power + length;
  memset(squares, 0, 2 * length * sizeof *squares);
  const float factor = 2 * norm->alpha * 0.75f;
  for (; first < end; first += block) {
    const long count = min(block, end - first), n = count * pitch - half;
    for (long p = 0; p < count; p++) {
      const float* restrict x = norm->x + (first + p) * c, * restrict dy = norm->dy + (first + p) * c;
      float* restrict square = squares + half + p * pitch, * restrict product = products + half + p * pitch;
      for (long i = 0; i < c; i++) square[i] = x[i] * x[i], product[i] = x[i] * dy[i];
    }
    sum_of_shifted(squares, sums, n, norm->size, 1);
    for (long i = 0; i < n; i++) {
      const float d = norm->k + norm->alpha * sums[i];
      power[i] = inverse_power(d);
      products[half + i] *= power[i] / d;
    }
    for (long p = 1; p <= count; p++)  // 0 between two pixels became NaN where the sum of either is NaN or infinite
      memset(products + p * pitch, 0, half * sizeof *products);
    sum_of_shifted(products, sums, n, norm->size, 1);
    for (long p = 0; p < count; p++) {
      const float* restrict x = norm->x + (first + p) * c, * restrict dy = norm->dy + (first + p) * c;
      const float* restrict pixel_power = power + p * pitch, * restrict sum = sums + p * pitch;
      float* restrict dx = norm->out + (first + p) * c;
      for (long i = 0; i < c; i++) dx[i] = dy[i] * pixel_power[i] - factor * x[i] * sum[i];
    }
  }
}

static void response_norm(const void* call, long item, float* scratch) {
  const Norm* norm = call;
  const long pixels = norm->images * norm->rows * norm->columns;
  norm_pixels(norm, item * PIXELS, min(pixels, (item + 1) * PIXELS), scratch);
}

static void response_norm_gradient(const void* call, long item, float* scratch) {
  const Norm* norm = call;
  const long pixels = norm->images * norm->rows * norm->columns;
  norm_pixels_gradient(norm, item * PIXELS, min(pixels, (item + 1) * PIXELS), scratch);
}

// ---- spatial norm: windows over the pixels of a map ----------------------------------------------------------------

// The sum over the window around each element of row h: first down the columns, into `padded`, which has half a window
// of zeros at either end, then along the row.
static void sum_around(const float* image, long h, const Norm* norm, int squared, float* padded, float* sums) {
  const long n = norm->columns * norm->channels, half = norm->size / 2;
  float* column = padded + half * norm->channels;
  memset(column, 0, n * sizeof *column);
  for (long r = max(0, h - half); r <= min(norm->rows - 1, h + half); r++) {
    const float* restrict x = image + r * n;
    if (squared)
      for (long i = 0; i < n; i++) column[i] += x[i] * x[i];
    else
      for (long i = 0; i < n; i++) column[i] += x[i];
  }
  sum_of_shifted(padded, sums, n, norm->size, norm->channels);
}

static void spatial_norm(const void* call, long item, float* scratch) {
  const Norm* norm = call;
  const long n = norm->columns * norm->channels, padding = (norm->size - 1) * norm->channels;
  float *padded = scratch, *restrict sums = padded + n + padding;
  memset(padded, 0, (n + padding) * sizeof *padded);
  const float* image = norm->x + item * norm->rows * n;
  for (long h = 0; h < norm->rows; h++) {
    const float* restrict x = image + h * n;
    float* restrict y = norm->out + (item * norm->rows + h) * n;
    sum_around(image, h, norm, 1, padded, sums);
    for (long i = 0; i < n; i++) y[i] = x[i] * inverse_power(norm->k + norm->alpha * sums[i]);
  }
}

static void spatial_norm_gradient(const void* call, long item, float* scratch) {
  const Norm* norm = call;
  const long n = norm->columns * norm->channels, padding = (norm->size - 1) * norm->channels;
  float *padded = scratch, *restrict sums = padded + n + padding, *products = sums + n;
  memset(padded, 0, (n + padding) * sizeof *padded);
  const float* image = norm->x + item * norm->rows * n;
  const float factor = 2 * norm->alpha * 0.75f;
  for (long h = 0; h < norm->rows; h++) {
    const float* restrict x = image + h * n, * restrict dy = norm->dy + (item * norm->rows + h) * n;
    float* restrict dx = norm->out + (item * norm->rows + h) * n, * restrict product = products + h * n;
    sum_around(image, h, norm, 1, padded, sums);
    for (long i = 0; i < n; i++) {
      const float d = norm->k + norm->alpha * sums[i], power = inverse_power(d);
      dx[i] = dy[i] * power;
      product[i] = dx[i] * x[i] / d;
    }
  }
  for (long h = 0; h < norm->rows; h++) {
    const float* restrict x = image + h * n;
    float* restrict dx = norm->out + (item * norm->rows + h) * n;
    sum_around(products, h, norm, 0, padded, sums);
    for (long i = 0; i < n; i++) dx[i] -= factor * x[i] * sums[i];
  }
}

// ---- entry points --------------------------------------------------------------------------------------------------

XLA_FFI_Error* read_window(const Op* op, Norm* norm) {
  TRY(attr_i64(op, "size", 1, INT32_MAX, &norm->size));
  if (norm->size % 2 == 0) return INVALID(op, "attribute size is %ld, expected an odd number", norm->size);
  TRY(attr_f32(op, "k", &norm->k));
  return attr_f32(op, "alpha", &norm->alpha);
}

static XLA_FFI_Error* read_call(const Op* op, int gradient, Norm* norm) {
  TRY(check_buffers(op, gradient ? 2 : 1));
  const XLA_FFI_Buffer* x = argument(op, 0);
  const Shape shape = SHAPE(x->dims[0], x->dims[1], x->dims[2], x->dims[3]);
  if (gradient) TRY(check_argument_shape(op, 1, shape));
  TRY(check_result_shape(op, shape));
  *norm = (Norm){.x = x->data,
                 .dy = gradient ? argument(op, 1)->data : NULL,
                 .out = result(op)->data,
                 .images = shape.dims[0],
                 .rows = shape.dims[1],
                 .columns = shape.dims[2],
                 .channels = shape.dims[3]};
  return read_window(op, norm);
}

static XLA_FFI_Error* run_by_pixels(const Op* op, int gradient, ItemFunction* function) {
  Norm norm;
  TRY(read_call(op, gradient, &norm));
  if (!element_count(result(op))) return NULL;
  const long items = ceil_div(norm.images * norm.rows * norm.columns, PIXELS);
  return parallel_for(op, function, &norm, items, norm_scratch(&norm));
}

static XLA_FFI_Error* run_by_images(const Op* op, int gradient, ItemFunction* function) {
  Norm norm;
  TRY(read_call(op, gradient, &norm));
  if (!element_count(result(op))) return NULL;
  const long scratch = (norm.rows + 3) * norm.columns * norm.channels + norm.size * norm.channels;
  return parallel_for(op, function, &norm, norm.images, scratch);
}

static XLA_FFI_Error* run_response_norm(const Op* op) { return run_by_pixels(op, 0, response_norm); }
static XLA_FFI_Error* run_response_norm_gradient(const Op* op) { return run_by_pixels(op, 1, response_norm_gradient); }
static XLA_FFI_Error* run_spatial_norm(const Op* op) { return run_by_images(op, 0, spatial_norm); }
static XLA_FFI_Error* run_spatial_norm_gradient(const Op* op) { return run_by_images(op, 1, spatial_norm_gradient); }

DEFINE_OPERATION(response_norm, run_response_norm)
DEFINE_OPERATION(response_norm_gradient, run_response_norm_gradient)
DEFINE_OPERATION(spatial_norm, run_spatial_norm)
DEFINE_OPERATION(spatial_norm_gradient, run_spatial_norm_gradient)
