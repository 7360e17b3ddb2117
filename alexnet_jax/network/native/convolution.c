// Convolutions, and the gradients of their images and kernels, on a CPU, float32.
//
// Winograd's algorithm convolves windows of 3 x 3 and of 5 x 5 places. A place is a pixel, or where there is a stride,
// a block of `stride x stride` pixels that has few numbers. Other windows are not covered. Kernels are square.
// `pad` rows and columns of zeros lie before an image. After an image there are as many as the result's size asks for.

#include "convolution.h"

#include <stdlib.h>

// Reads shapes and attributes that the three operations share, of x or dy -> y or dx.
static XLA_FFI_Error* read_call(const Op* op, const XLA_FFI_Buffer* kernel, const XLA_FFI_Buffer* in,
                                const XLA_FFI_Buffer* out, Conv* conv) {
  *conv = (Conv){.images = in->dims[0],
                 .rows = in->dims[1],
                 .columns = in->dims[2],
                 .channels = in->dims[3],
                 .out_rows = out->dims[1],
                 .out_columns = out->dims[2],
                 .maps = out->dims[3],
                 .size = kernel->dims[0],
                 .stride = 1};
  if (conv->size < 1) return INVALID(op, "the kernel has no rows, expected 1 or more");
  TRY(attr_i64(op, "pad", 0, conv->size - 1, &conv->pad));
  conv->vectors = vectors_for(conv->maps), conv->width = conv->vectors * LANES;
  conv->block = block_rows(conv->vectors), conv->maps_padded = round_up(conv->maps, conv->width);
  conv->group_size = max(1, ceil_div(conv->images, GROUPS));
  conv->groups = ceil_div(conv->images, conv->group_size);
  return NULL;
}

static XLA_FFI_Error* zero_result(const Op* op) {
  memset(result(op)->data, 0, element_count(result(op)) * sizeof(float));
  return NULL;
}

static XLA_FFI_Error* check_window(const Op* op, const Conv* conv) {
  if (winograd_applies(conv)) return NULL;
  return INVALID(op, "a window of %ld x %ld over %ld channels with stride %ld, expected 3 or 5 blocks a side",
                 conv->size, conv->size, conv->channels, conv->stride);
}

// x [batch, rows, columns, channels], kernel [size, size, channels, maps] -> y [batch, out_rows, out_columns, maps]
static XLA_FFI_Error* run_convolution(const Op* op) {
  Conv conv;
  TRY(check_buffers(op, 2));
  TRY(read_call(op, argument(op, 1), argument(op, 0), result(op), &conv));
  TRY(attr_i64(op, "stride", 1, INT32_MAX, &conv.stride));
  TRY(check_window(op, &conv));
  TRY(check_argument_shape(op, 1, SHAPE(conv.size, conv.size, conv.channels, conv.maps)));
  TRY(check_result_shape(op, SHAPE(conv.images, conv.out_rows, conv.out_columns, conv.maps)));
  if (!element_count(result(op))) return NULL;
  if (!element_count(argument(op, 0)) || !element_count(argument(op, 1))) return zero_result(op);
  conv.x = argument(op, 0)->data, conv.kernel = argument(op, 1)->data, conv.out = result(op)->data;
  return winograd_convolution(op, &conv);
}

// kernel [places, maps, channels] -> [places, channels, maps], with its places in reverse: upside down, left to right.
static void rotate_kernel(const Conv* conv, const float* kernel, float* rotated) {
  const long places = conv->size * conv->size;
  for (long place = 0; place < places; place++) {
    const float* from = kernel + (places - 1 - place) * conv->maps * conv->channels;
    float* to = rotated + place * conv->channels * conv->maps;
    for (long c = 0; c < conv->channels; c++)
      for (long n = 0; n < conv->maps; n++) to[c * conv->maps + n] = from[n * conv->channels + c];
  }
}

// dy [batch, out_rows, out_columns, maps], kernel [size, size, channels, maps] -> dx [batch, rows, columns, channels],
// for stride 1: the convolution of dy with the rotated kernel, whose maps are the channels.
static XLA_FFI_Error* run_convolution_input_gradient(const Op* op) {
  Conv conv;
  TRY(check_buffers(op, 2));
  TRY(read_call(op, argument(op, 1), argument(op, 0), result(op), &conv));
  TRY(check_window(op, &conv));
  TRY(check_argument_shape(op, 1, SHAPE(conv.size, conv.size, conv.maps, conv.channels)));
  TRY(check_result_shape(op, SHAPE(conv.images, conv.out_rows, conv.out_columns, conv.maps)));
  if (!element_count(result(op))) return NULL;
  if (!element_count(argument(op, 0)) || !element_count(argument(op, 1))) return zero_result(op);
  float* rotated;
  TRY(alloc_floats(op, element_count(argument(op, 1)), &rotated));
  rotate_kernel(&conv, argument(op, 1)->data, rotated);
  conv.x = argument(op, 0)->data, conv.kernel = rotated, conv.out = result(op)->data;
  conv.pad = conv.size - 1 - conv.pad;
  XLA_FFI_Error* error = winograd_convolution(op, &conv);
  free(rotated);
  return error;
}

// x [batch, rows, columns, channels], dy [batch, out_rows, out_columns, maps] -> [size, size, channels, maps]
static XLA_FFI_Error* run_convolution_kernel_gradient(const Op* op) {
  Conv conv;
  TRY(check_buffers(op, 2));
  TRY(read_call(op, result(op), argument(op, 0), argument(op, 1), &conv));
  TRY(attr_i64(op, "stride", 1, INT32_MAX, &conv.stride));
  TRY(check_window(op, &conv));
  TRY(check_argument_shape(op, 1, SHAPE(conv.images, conv.out_rows, conv.out_columns, conv.maps)));
  TRY(check_result_shape(op, SHAPE(conv.size, conv.size, conv.channels, conv.maps)));
  if (!element_count(result(op))) return NULL;
  if (!element_count(argument(op, 0)) || !element_count(argument(op, 1))) return zero_result(op);
  conv.x = argument(op, 0)->data, conv.dy = argument(op, 1)->data, conv.out = result(op)->data;
  return winograd_kernel_gradient(op, &conv);
}

DEFINE_OPERATION(convolution, run_convolution)
DEFINE_OPERATION(convolution_input_gradient, run_convolution_input_gradient)
DEFINE_OPERATION(convolution_kernel_gradient, run_convolution_kernel_gradient)
