// Norms and pooling on a CPU, each in one pass over memory: what layers.py says in JAX, for float32, beta 0.75.
//
// XLA's compiler for the CPU computes a window's neighbours anew at each of its places and takes ten times as long.
// Maps are [images, rows, columns, channels]. Work is handed out by the image, or by the run of pixels, to XLA's own
// threads.

#include <float.h>

#include "work.h"

enum { PIXELS = 512 /* of one item */, BLOCK = 1536 /* numbers, so that a few such arrays fit L1 */ };

typedef struct {
  const float* in[3];
  float* out;
  long images, rows, columns, channels;  // of the first input
  long out_rows, out_columns;            // of what is pooled
  long size, stride;
  float k, alpha;
} Call;

// ---- window sums ---------------------------------------------------------------------------------------------------

// out[i] = in[i] + in[i + step] + ... , `size` of them.
static void sum_of_shifted(const float* restrict in, float* restrict out, long n, long size, long step) {
  if (size == 5) {  // every norm of 2012
    for (long i = 0; i < n; i++) out[i] = in[i] + in[i + step] + in[i + 2 * step] + in[i + 3 * step] + in[i + 4 * step];
    return;
  }
  memcpy(out, in, n * sizeof *out);
  for (long j = 1; j < size; j++)
    for (long i = 0; i < n; i++) out[i] += in[i + j * step];
}

// The denominator's power, (k + alpha sum)^-0.75, in place of the sum.
static inline float inverse_power(float d) { return 1 / __builtin_sqrtf(d * __builtin_sqrtf(d)); }

// ---- response norm: windows over channels --------------------------------------------------------------------------
// Pixels lie in scratch with `half` zeros before, between and after them, so that one loop serves a whole block.

static void response_norm(const void* of, long item, float* scratch) {
  const Call* call = of;
  const long c = call->channels, half = call->size / 2, pitch = c + half, block = most(1, BLOCK / c);
  const long pixels = call->images * call->rows * call->columns, end = least(pixels, (item + 1) * PIXELS);
  float *squares = scratch, *power = squares + block * pitch + half;
  memset(squares, 0, (block * pitch + half) * sizeof *squares);
  for (long first = item * PIXELS; first < end; first += block) {
    const long count = least(block, end - first), n = count * pitch - half;
    for (long p = 0; p < count; p++) {
      const float* restrict x = call->in[0] + (first + p) * c;
      float* restrict square = squares + half + p * pitch;
      for (long i = 0; i < c; i++) square[i] = x[i] * x[i];
    }
    sum_of_shifted(squares, power, n, call->size, 1);
    for (long i = 0; i < n; i++) power[i] = inverse_power(call->k + call->alpha * power[i]);
    for (long p = 0; p < count; p++) {
      const float* restrict x = call->in[0] + (first + p) * c, * restrict own = power + p * pitch;
      float* restrict y = call->out + (first + p) * c;
      for (long i = 0; i < c; i++) y[i] = x[i] * own[i];
    }
  }
}

// dx = dy d^-b - 2ab x sum(dy x d^-(b+1))
static void response_norm_gradient(const void* of, long item, float* scratch) {
  const Call* call = of;
  const long c = call->channels, half = call->size / 2, pitch = c + half, block = most(1, BLOCK / c);
  const long pixels = call->images * call->rows * call->columns, end = least(pixels, (item + 1) * PIXELS);
  const long room = block * pitch + half;
  float *squares = scratch, *products = squares + room, *power = products + room, *sums = power + room;
  memset(squares, 0, 2 * room * sizeof *squares);
  const float factor = 2 * call->alpha * 0.75f;
  for (long first = item * PIXELS; first < end; first += block) {
    const long count = least(block, end - first), n = count * pitch - half;
    for (long p = 0; p < count; p++) {
      const float* restrict x = call->in[0] + (first + p) * c, * restrict dy = call->in[1] + (first + p) * c;
      float* restrict square = squares + half + p * pitch, * restrict product = products + half + p * pitch;
      for (long i = 0; i < c; i++) square[i] = x[i] * x[i], product[i] = x[i] * dy[i];
    }
    sum_of_shifted(squares, sums, n, call->size, 1);
    for (long i = 0; i < n; i++) {
      const float d = call->k + call->alpha * sums[i];
      power[i] = inverse_power(d);
      products[half + i] *= power[i] / d;
    }
    for (long p = 1; p <= count; p++)  // where the sum of the pixels on either side is no number, 0 did not stay 0
      memset(products + p * pitch, 0, half * sizeof *products);
    sum_of_shifted(products, sums, n, call->size, 1);
    for (long p = 0; p < count; p++) {
      const float* restrict x = call->in[0] + (first + p) * c, * restrict dy = call->in[1] + (first + p) * c;
      const float* restrict own = power + p * pitch, * restrict sum = sums + p * pitch;
      float* restrict dx = call->out + (first + p) * c;
      for (long i = 0; i < c; i++) dx[i] = dy[i] * own[i] - factor * x[i] * sum[i];
    }
  }
}

// ---- spatial norm: windows over the pixels of a map ----------------------------------------------------------------

// The sum over the window around each number of row h: first down the columns, into `margin`, which has half a window
// of zeros at either end, then along the row.
static void sum_around(const float* image, long h, const Call* call, int squared, float* margin, float* sums) {
  const long n = call->columns * call->channels, half = call->size / 2;
  float* column = margin + half * call->channels;
  memset(column, 0, n * sizeof *column);
  for (long r = most(0, h - half); r <= least(call->rows - 1, h + half); r++) {
    const float* restrict x = image + r * n;
    if (squared)
      for (long i = 0; i < n; i++) column[i] += x[i] * x[i];
    else
      for (long i = 0; i < n; i++) column[i] += x[i];
  }
  sum_of_shifted(margin, sums, n, call->size, call->channels);
}

static void spatial_norm(const void* of, long item, float* scratch) {
  const Call* call = of;
  const long n = call->columns * call->channels, margins = (call->size - 1) * call->channels;
  float *margin = scratch, *restrict sums = margin + n + margins;
  memset(margin, 0, (n + margins) * sizeof *margin);
  const float* image = call->in[0] + item * call->rows * n;
  for (long h = 0; h < call->rows; h++) {
    const float* restrict x = image + h * n;
    float* restrict y = call->out + (item * call->rows + h) * n;
    sum_around(image, h, call, 1, margin, sums);
    for (long i = 0; i < n; i++) y[i] = x[i] * inverse_power(call->k + call->alpha * sums[i]);
  }
}

static void spatial_norm_gradient(const void* of, long item, float* scratch) {
  const Call* call = of;
  const long n = call->columns * call->channels, margins = (call->size - 1) * call->channels;
  float *margin = scratch, *restrict sums = margin + n + margins, *products = sums + n;
  memset(margin, 0, (n + margins) * sizeof *margin);
  const float* image = call->in[0] + item * call->rows * n;
  const float factor = 2 * call->alpha * 0.75f;
  for (long h = 0; h < call->rows; h++) {
    const float* restrict x = image + h * n, * restrict dy = call->in[1] + (item * call->rows + h) * n;
    float* restrict dx = call->out + (item * call->rows + h) * n, * restrict product = products + h * n;
    sum_around(image, h, call, 1, margin, sums);
    for (long i = 0; i < n; i++) {
      const float d = call->k + call->alpha * sums[i], power = inverse_power(d);
      dx[i] = dy[i] * power;
      product[i] = dx[i] * x[i] / d;
    }
  }
  for (long h = 0; h < call->rows; h++) {
    const float* restrict x = image + h * n;
    float* restrict dx = call->out + (item * call->rows + h) * n;
    sum_around(products, h, call, 0, margin, sums);
    for (long i = 0; i < n; i++) dx[i] -= factor * x[i] * sums[i];
  }
}

// ---- max pooling, windows clipped at the right and bottom border ---------------------------------------------------

static void max_pool(const void* of, long item, float* scratch) {
  (void)scratch;
  const Call* call = of;
  const long c = call->channels;
  const float* image = call->in[0] + item * call->rows * call->columns * c;
  float* out = call->out + item * call->out_rows * call->out_columns * c;
  for (long h = 0; h < call->out_rows; h++)
    for (long w = 0; w < call->out_columns; w++, out += c) {
      const long bottom = least(call->rows, h * call->stride + call->size);
      const long right = least(call->columns, w * call->stride + call->size);
      // A window that hangs over has the lowest number there.
      const int whole = bottom == h * call->stride + call->size && right == w * call->stride + call->size;
      const float* corner = image + (h * call->stride * call->columns + w * call->stride) * c;
      for (long i = 0; i < c; i++) out[i] = whole ? corner[i] : -FLT_MAX;
      for (long row = h * call->stride; row < bottom; row++)
        for (long column = w * call->stride; column < right; column++) {
          const float* restrict x = image + (row * call->columns + column) * c;
          float* restrict y = out;
          for (long i = 0; i < c; i++) y[i] = (x[i] > y[i]) | (x[i] != x[i]) ? x[i] : y[i];  // NaN goes through
        }
    }
}

// Every place that equals its window's maximum gets all of the window's gradient (V1/src/cudaconv2/conv_util.cu:1559).
static void max_pool_gradient(const void* of, long item, float* scratch) {
  (void)scratch;
  const Call* call = of;
  const long c = call->channels, stride = call->stride, size = call->size;
  const float* x = call->in[0] + item * call->rows * call->columns * c;
  const long outs = item * call->out_rows * call->out_columns * c;
  float* restrict dx = call->out + item * call->rows * call->columns * c;
  for (long row = 0; row < call->rows; row++)
    for (long column = 0; column < call->columns; column++, x += c, dx += c) {
      memset(dx, 0, c * sizeof *dx);
      for (long h = least(row / stride, call->out_rows - 1); h >= 0 && h * stride + size > row; h--)
        for (long w = least(column / stride, call->out_columns - 1); w >= 0 && w * stride + size > column; w--) {
          const long window = outs + (h * call->out_columns + w) * c;
          const float* restrict y = call->in[1] + window, * restrict dy = call->in[2] + window;
          for (long i = 0; i < c; i++) dx[i] += x[i] == y[i] ? dy[i] : 0;
        }
    }
}

// ---- entry points --------------------------------------------------------------------------------------------------

static void serve(const XLA_FFI_CallFrame* frame, Kernel* kernel, int by_pixels) {
  const XLA_FFI_Buffer *in = input(frame, 0), *pooled = frame->args.size == 3 ? input(frame, 1) : output(frame);
  Call call = {
      .out = output(frame)->data, .images = 1, .rows = dim(in, -3), .columns = dim(in, -2), .channels = dim(in, -1)};
  for (long i = 0; i < frame->args.size; i++) call.in[i] = input(frame, i)->data;
  for (long i = 0; i < in->rank - 3; i++) call.images *= in->dims[i];
  call.out_rows = dim(pooled, -3), call.out_columns = dim(pooled, -2);
  call.size = whole(frame, "size"), call.stride = whole(frame, "stride");
  call.k = real(frame, "k"), call.alpha = real(frame, "alpha");
  const long row = call.columns * call.channels;
  if (by_pixels) {
    const long arrays = 4 * (BLOCK + 2 * call.channels + (BLOCK + 2) * call.size);
    share_out(frame, kernel, &call, (call.images * call.rows * call.columns + PIXELS - 1) / PIXELS, arrays);
  } else {
    share_out(frame, kernel, &call, call.images, (call.rows + 3) * row + call.size * call.channels);
  }
}

SERVE(response_norm, serve(frame, response_norm, 1))
SERVE(response_norm_gradient, serve(frame, response_norm_gradient, 1))
SERVE(spatial_norm, serve(frame, spatial_norm, 0))
SERVE(spatial_norm_gradient, serve(frame, spatial_norm_gradient, 0))
SERVE(max_pool, serve(frame, max_pool, 0))
SERVE(max_pool_gradient, serve(frame, max_pool_gradient, 0))
