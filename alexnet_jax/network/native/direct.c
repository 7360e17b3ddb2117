// Convolutions as direct sums, straight from the image. In an image with its border, the pixels under a row of a window
// are one run of `size * channels` floats.

#include <stdlib.h>

#include "convolution.h"

// Sets the sizes; returns the floats of scratch of one image.
static long lay_out(Conv* conv) {
  conv->padded_rows = (conv->out_rows - 1) * conv->stride + conv->size;
  conv->padded_columns = (round_up(conv->out_columns, conv->block) - 1) * conv->stride + conv->size;
  const long gradient_rows = conv->maps == conv->maps_padded ? 1 : conv->out_rows;
  return mul_size(mul_size(conv->padded_rows, conv->padded_columns), conv->channels) + conv->block +
         mul_size(conv->maps_padded, mul_size(conv->out_columns + conv->block, gradient_rows));
}

static void convolve(const void* call, long image, float* scratch) {
  const Conv* conv = call;
  const long width = conv->vectors * LANES, depth = conv->size * conv->channels;
  const long row_size = conv->padded_columns * conv->channels;
  float *padded = scratch, *line = padded + conv->padded_rows * row_size;
  pad_image(conv->x + image * conv->rows * conv->columns * conv->channels, conv->rows, conv->columns, conv->channels,
            conv->pad, padded, conv->padded_rows, conv->padded_columns, conv->channels);
  float* to = conv->out + image * conv->out_rows * conv->out_columns * conv->maps;
  for (long row = 0; row < conv->out_rows; row++) {
    multiply(&(Matmul){.a = padded + row * conv->stride * row_size,
                       .a_row = conv->stride * conv->channels,
                       .a_step = 1,
                       .a_segment = row_size,
                       .b = conv->packed,
                       .b_step = width,
                       .b_segment = depth * width,
                       .b_panel = conv->size * depth * width,
                       .c = line,
                       .c_row = conv->maps_padded,
                       .rows = round_up(conv->out_columns, conv->block),
                       .panels = conv->maps_padded / width,
                       .depth = depth,
                       .segments = conv->size,
                       .vectors = conv->vectors});
    for (long column = 0; column < conv->out_columns; column++, to += conv->maps)
      memcpy(to, line + column * conv->maps_padded, conv->maps * sizeof *to);
  }
}

static void pack_kernel(const Conv* conv) {
  const long steps = conv->size * conv->size * conv->channels, width = conv->vectors * LANES;
  for (long step = 0; step < steps; step++)
    for (long n = 0; n < conv->maps_padded; n += LANES) {
      const long left = conv->maps - n;
      *(Vector*)(conv->packed + (n / width * steps + step) * width + n % width) =
          left > 0 ? load(conv->kernel + step * conv->maps + n, left) : (Vector){0};
    }
}

XLA_FFI_Error* direct_convolution(const Op* op, Conv* conv) {
  const long scratch = lay_out(conv);
  TRY(alloc_floats(op, mul_size(conv->size * conv->size * conv->channels, conv->maps_padded), &conv->packed));
  pack_kernel(conv);
  XLA_FFI_Error* error = parallel_for(op, convolve, conv, conv->images, scratch);
  free(conv->packed);
  return error;
}

static void sum_group(const void* call, long item, float* scratch) {
  enum { STRIP = 5 };  // rows at once, so that a strip of dy stays in the cache for all of a kernel
  const Conv* conv = call;
  const long width = conv->vectors * LANES, row_size = conv->padded_columns * conv->channels;
  const long rows = round_up(conv->size * conv->channels, conv->block);
  float *padded = scratch, *dy_padded = padded + conv->padded_rows * row_size + conv->block;
  const long begin = item * conv->group_size, end = min(conv->images, begin + conv->group_size);
  for (long image = begin; image < end; image++) {
    pad_image(conv->x + image * conv->rows * conv->columns * conv->channels, conv->rows, conv->columns, conv->channels,
              conv->pad, padded, conv->padded_rows, conv->padded_columns, conv->channels);
    const float* dy = conv->dy + image * conv->out_rows * conv->out_columns * conv->maps;
    if (conv->maps != conv->maps_padded) {
      pad_image(dy, conv->out_rows, conv->out_columns, conv->maps, 0, dy_padded, conv->out_rows, conv->out_columns,
                conv->maps_padded);
      dy = dy_padded;
    }
    for (long row = 0; row < conv->out_rows; row += STRIP)
      for (long down = 0; down < conv->size; down++)
        multiply(&(Matmul){.a = padded + (row * conv->stride + down) * row_size,
                           .a_row = 1,
                           .a_step = conv->stride * conv->channels,
                           .a_segment = conv->stride * row_size,
                           .b = dy + row * conv->out_columns * conv->maps_padded,
                           .b_step = conv->maps_padded,
                           .b_segment = conv->out_columns * conv->maps_padded,
                           .b_panel = width,
                           .c = conv->sums + (item * conv->size + down) * rows * conv->maps_padded,
                           .c_row = conv->maps_padded,
                           .rows = rows,
                           .panels = conv->maps_padded / width,
                           .depth = conv->out_columns,
                           .segments = min(STRIP, conv->out_rows - row),
                           .vectors = conv->vectors,
                           .add = image > begin || row > 0});
  }
}

XLA_FFI_Error* direct_kernel_gradient(const Op* op, Conv* conv) {
  const long scratch = lay_out(conv), depth = conv->size * conv->channels, rows = round_up(depth, conv->block);
  TRY(alloc_floats(op, mul_size(conv->groups * conv->size * rows, conv->maps_padded), &conv->sums));
  XLA_FFI_Error* error = parallel_for(op, sum_group, conv, conv->groups, scratch);
  if (!error)
    for (long down = 0; down < conv->size; down++)
      for (long step = 0; step < depth; step++)
        for (long n = 0; n < conv->maps; n++) {
          float sum = 0;
          for (long group = 0; group < conv->groups; group++)
            sum += conv->sums[((group * conv->size + down) * rows + step) * conv->maps_padded + n];
          conv->out[(down * depth + step) * conv->maps + n] = sum;
        }
  free(conv->sums);
  return error;
}
