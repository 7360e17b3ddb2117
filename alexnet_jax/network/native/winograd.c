// Convolutions with kernels of 3 x 3 and 5 x 5 and stride 1 by Winograd's algorithm (Lavin and Gray 2015,
// arXiv:1509.09308).
//
// With a larger stride, blocks of `stride x stride` pixels are the places, and the numbers of a block its terms:
// windows of 11 x 11 pixels with 3 channels, 4 apart, are windows of 3 x 3 places with 48 terms, 1 apart. The kernel is
// 0 where a block reaches past the window.
//
// A tile of 6 x 6 pixels and the kernel are transformed to 36 elements each. Their products for all channels are 36
// matrix products, and the result is transformed back to 4 x 4 or 2 x 2 pixels. That takes 4 and 2.8 times fewer
// multiplications than a direct sum, less what tiles hang over.

#include <stdlib.h>

#include "convolution.h"

enum {
  TILE = 6,
  ELEMENTS = TILE * TILE,
  TILES = 96 /* of an item, but one image's at least */,
  TILES_OF_GRADIENT = 192,
  LINE = 16 /* floats of a line of a cache */
};

// ---- transforms, with the points 0, 1, -1, 1/2, -2 and infinity ----------------------------------------------------

// Barabasz et al. 2020, arXiv:1803.10986, has the reasons for these points. Each line is a row of a matrix.
// clang-format off
static const float FROM_PIXELS[TILE * TILE] = {
    1, -1.5f, -2,    1.5f, 1,    0,
    0, -1,    .5f,   2.5f, 1,    0,
    0, 1,     -2.5f, .5f,  1,    0,
    0, -2,    -1,    2,    1,    0,
    0, .5f,   -1,    -.5f, 1,    0,
    0, 1,     -1.5f, -2,   1.5f, 1};
static const float FROM_KERNEL_3[TILE * 3] = {
    1,          0,         0,
    1 / 3.f,    1 / 3.f,   1 / 3.f,
    -1 / 3.f,   1 / 3.f,   -1 / 3.f,
    -16 / 15.f, -8 / 15.f, -4 / 15.f,
    1 / 15.f,   -2 / 15.f, 4 / 15.f,
    0,          0,         1};
static const float FROM_KERNEL_5[TILE * 5] = {
    1,          0,         0,         0,         0,
    1 / 3.f,    1 / 3.f,   1 / 3.f,   1 / 3.f,   1 / 3.f,
    -1 / 3.f,   1 / 3.f,   -1 / 3.f,  1 / 3.f,   -1 / 3.f,
    -16 / 15.f, -8 / 15.f, -4 / 15.f, -2 / 15.f, -1 / 15.f,
    1 / 15.f,   -2 / 15.f, 4 / 15.f,  -8 / 15.f, 16 / 15.f,
    0,          0,         0,         0,         1};
static const float TO_PIXELS_4[4 * TILE] = {
    1, 1, 1,  1,     1,  0,
    0, 1, -1, .5f,   -2, 0,
    0, 1, 1,  .25f,  4,  0,
    0, 1, -1, .125f, -8, 1};
static const float TO_PIXELS_2[2 * TILE] = {
    1, 1, 1,  1,   1,  0,
    0, 1, -1, .5f, -2, 1};
// clang-format on

// out = m in m^T, for m [rows, columns], or its transpose: [columns, columns] to [rows, rows].
INLINE void transform(const float* m, const int rows, const int columns, const int transposed, const Vector* in,
                      Vector* out) {
  const int row_step = transposed ? 1 : columns, column_step = transposed ? rows : 1;
  Vector half[TILE * TILE];
  UNROLL for (int j = 0; j < columns; j++) {
    UNROLL for (int i = 0; i < rows; i++) {
      Vector sum = {0};
      UNROLL for (int k = 0; k < columns; k++) {
        if (m[i * row_step + k * column_step] != 0) sum += m[i * row_step + k * column_step] * in[k * columns + j];
      }
      half[i * columns + j] = sum;
    }
  }
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int j = 0; j < rows; j++) {
      Vector sum = {0};
      UNROLL for (int k = 0; k < columns; k++) {
        if (m[j * row_step + k * column_step] != 0) sum += m[j * row_step + k * column_step] * half[i * columns + k];
      }
      out[i * rows + j] = sum;
    }
  }
}

// All tiles of an image with its border. Channels come in panels of `width`: element e of tile t, channel c, is at
// planes[e * plane + c / width * panel + t * width + c % width].
INLINE void transform_tiles(const Conv* conv, const float* m, const int side, const int transposed, const float* padded,
                            long padded_columns, long channels, float* planes, long plane, long width, long panel) {
  for (long first = 0; first < channels; first += width, planes += panel) {
    float* tile = planes;
    for (long row = 0; row < conv->tile_rows; row++)
      for (long column = 0; column < conv->tile_columns; column++, tile += width) {
        const float* corner = padded + (row * padded_columns + column) * conv->tile_out * channels + first;
        for (long c = 0; c < width; c += LANES) {
          Vector in[TILE * TILE], out[ELEMENTS];
          UNROLL for (int i = 0; i < side; i++) {
            UNROLL for (int j = 0; j < side; j++) {
              in[i * side + j] = *(const Vector*)(corner + (i * padded_columns + j) * channels + c);
            }
          }
          transform(m, TILE, side, transposed, in, out);
          for (int e = 0; e < ELEMENTS; e++) *(Vector*)(tile + e * plane + c) = out[e];
        }
      }
  }
}

// Where the kernel has a term of a place of the window; -1: the term lies past the window.
static inline long place_in_kernel(const Conv* conv, long place, long term) {
  const long line = conv->stride * conv->channels;  // terms of a row of a block
  const long row = place / conv->window * conv->stride + term / line;
  const long column = place % conv->window * conv->stride + term % line / conv->channels;
  if (row >= conv->size || column >= conv->size) return -1;
  return ((row * conv->size + column) * conv->channels + term % conv->channels) * conv->maps;
}

INLINE void transform_kernel(const Conv* conv, const float* m, const int window) {
  const long width = conv->width, plane = conv->terms * conv->maps_padded;
  for (long term = 0; term < conv->terms; term++)
    for (long n = 0; n < conv->maps_padded; n += LANES) {
      Vector in[TILE * TILE], out[ELEMENTS];
      for (int i = 0; i < window * window; i++) {
        const long at = place_in_kernel(conv, i, term), left = conv->maps - n;
        in[i] = at >= 0 && left > 0 ? load(conv->kernel + at + n, left) : (Vector){0};
      }
      transform(m, TILE, window, 0, in, out);
      float* to = conv->packed + (n / width * conv->terms + term) * width + n % width;
      for (int e = 0; e < ELEMENTS; e++) *(Vector*)(to + e * plane) = out[e];
    }
}

// ---- an item's arrays in its scratch -------------------------------------------------------------------------------

typedef struct {
  long count, count_padded;  // tiles, and rounded up to blocks
  long plane, out_plane;     // floats of one element of all tiles: of the images; of y, or dy
  float *padded, *planes, *out_planes;
} Tiles;

// Floats of an image with its border; a kernel's gradient pads dy in the same place.
static long padded_size(const Conv* conv) {
  const long image = mul_size(conv->padded_rows * conv->padded_columns, conv->padded_terms);
  const long out_pixels = conv->tile_rows * conv->tile_columns * conv->tile_out * conv->tile_out;
  return max(image, mul_size(out_pixels, conv->maps_padded));
}

// Floats from one element's numbers to the next one's: an odd number of lines, so that a tile's 36 elements lie in
// different sets of a cache.
static inline long plane_size(long numbers) {
  const long lines = ceil_div(numbers, LINE);
  return (lines + (lines + 1) % 2) * LINE;
}

static Tiles tiles_of(const Conv* conv, long images, float* scratch) {
  Tiles t = {.count = images * conv->tile_rows * conv->tile_columns};
  t.count_padded = round_up(t.count, conv->block);
  t.plane = plane_size(t.count_padded * conv->padded_terms);
  t.out_plane = plane_size(t.count_padded * conv->maps_padded);
  t.padded = scratch, t.planes = t.padded + padded_size(conv), t.out_planes = t.planes + ELEMENTS * t.plane;
  return t;
}

// Sets the sizes for items of `tiles` tiles; returns the floats of scratch of an item.
static long lay_out(Conv* conv, long tiles) {
  conv->window = window_of(conv), conv->terms = conv->stride * conv->stride * conv->channels;
  conv->tile_out = TILE + 1 - conv->window;
  conv->tile_rows = ceil_div(conv->out_rows, conv->tile_out);
  conv->tile_columns = ceil_div(conv->out_columns, conv->tile_out);
  conv->padded_rows = conv->tile_rows * conv->tile_out + conv->window - 1;
  conv->padded_columns = conv->tile_columns * conv->tile_out + conv->window - 1;
  conv->padded_terms = round_up(conv->terms, LANES);
  conv->chunk = max(1, tiles / (conv->tile_rows * conv->tile_columns));
  const long count_padded = round_up(conv->chunk * conv->tile_rows * conv->tile_columns, conv->block);
  const long plane = plane_size(mul_size(count_padded, conv->padded_terms));
  const long out_plane = plane_size(mul_size(count_padded, conv->maps_padded));
  return padded_size(conv) + mul_size(ELEMENTS, plane + out_plane) + conv->block;
}

// ---- convolution ---------------------------------------------------------------------------------------------------

// Like `pad_image`, with the pixels of a block as the terms of its place.
static void gather_blocks(const Conv* conv, const float* restrict image, float* restrict padded) {
  memset(padded, 0, conv->padded_rows * conv->padded_columns * conv->padded_terms * sizeof *padded);
  const long stride = conv->stride, line = stride * conv->channels;
  for (long row = 0; row < min(conv->rows, conv->padded_rows * stride - conv->pad); row++) {
    const float* from = image + row * conv->columns * conv->channels;
    const long down = row + conv->pad;
    float* to = padded + down / stride * conv->padded_columns * conv->padded_terms + down % stride * line;
    for (long place = 0; place < conv->padded_columns; place++, to += conv->padded_terms) {
      const long first = max(0, place * stride - conv->pad);
      const long last = min(conv->columns, (place + 1) * stride - conv->pad);
      if (first < last)
        memcpy(to + (first + conv->pad - place * stride) * conv->channels, from + first * conv->channels,
               (last - first) * conv->channels * sizeof *to);
    }
  }
}

// The i-th image of an item.
static void transform_image(const Conv* conv, const Tiles* t, long image, long i) {
  const float* from = conv->x + image * conv->rows * conv->columns * conv->channels;
  if (conv->stride == 1)
    pad_image(from, conv->rows, conv->columns, conv->channels, conv->pad, t->padded, conv->padded_rows,
              conv->padded_columns, conv->padded_terms);
  else
    gather_blocks(conv, from, t->padded);
  transform_tiles(conv, FROM_PIXELS, TILE, 0, t->padded, conv->padded_columns, conv->padded_terms,
                  t->planes + i * conv->tile_rows * conv->tile_columns * conv->padded_terms, t->plane,
                  conv->padded_terms, 0);
}

INLINE void write_image(const Conv* conv, const Tiles* t, const float* m, const int tile_out, long image, long i) {
  for (long row = 0; row < conv->tile_rows; row++)
    for (long column = 0; column < conv->tile_columns; column++) {
      const long tile = (i * conv->tile_rows + row) * conv->tile_columns + column;
      const float* from = t->out_planes + tile * conv->maps_padded;
      const long first_row = row * tile_out, first_column = column * tile_out;
      float* to = conv->out + ((image * conv->out_rows + first_row) * conv->out_columns + first_column) * conv->maps;
      for (long n = 0; n < conv->maps; n += LANES) {
        Vector in[ELEMENTS], out[TILE * TILE];
        UNROLL for (int e = 0; e < ELEMENTS; e++) in[e] = *(const Vector*)(from + e * t->out_plane + n);
        transform(m, tile_out, TILE, 0, in, out);
        for (int i = 0; i < min(tile_out, conv->out_rows - first_row); i++)
          for (int j = 0; j < min(tile_out, conv->out_columns - first_column); j++)
            store(to + (i * conv->out_columns + j) * conv->maps + n, out[i * tile_out + j], conv->maps - n);
      }
    }
}

static void write_image_4(const Conv* conv, const Tiles* t, long image, long i) {
  write_image(conv, t, TO_PIXELS_4, 4, image, i);
}

static void write_image_2(const Conv* conv, const Tiles* t, long image, long i) {
  write_image(conv, t, TO_PIXELS_2, 2, image, i);
}

static void convolve(const void* call, long item, float* scratch) {
  const Conv* conv = call;
  const long first = item * conv->chunk, images = min(conv->chunk, conv->images - first);
  const Tiles t = tiles_of(conv, images, scratch);
  for (long i = 0; i < images; i++) transform_image(conv, &t, first + i, i);
  for (long e = 0; e < ELEMENTS; e++)
    multiply(&(Matmul){.a = t.planes + e * t.plane,
                       .a_row = conv->padded_terms,
                       .a_step = 1,
                       .b = conv->packed + e * conv->terms * conv->maps_padded,
                       .c = t.out_planes + e * t.out_plane,
                       .c_row = conv->maps_padded,
                       .rows = t.count_padded,
                       .panels = conv->maps_padded / conv->width,
                       .depth = conv->terms,
                       .vectors = conv->vectors});
  for (long i = 0; i < images; i++)
    if (conv->tile_out == 4)
      write_image_4(conv, &t, first + i, i);
    else
      write_image_2(conv, &t, first + i, i);
}

static void transform_kernel_3(const Conv* conv) { transform_kernel(conv, FROM_KERNEL_3, 3); }
static void transform_kernel_5(const Conv* conv) { transform_kernel(conv, FROM_KERNEL_5, 5); }

XLA_FFI_Error* winograd_convolution(const Op* op, Conv* conv) {
  const long scratch = lay_out(conv, TILES);
  TRY(alloc_floats(op, mul_size(ELEMENTS * conv->terms, conv->maps_padded), &conv->packed));
  if (conv->window == 3)
    transform_kernel_3(conv);
  else
    transform_kernel_5(conv);
  XLA_FFI_Error* error = parallel_for(op, convolve, conv, ceil_div(conv->images, conv->chunk), scratch);
  free(conv->packed);
  return error;
}

// ---- gradient of the kernel ----------------------------------------------------------------------------------------

// dy of the i-th image of an item, in the panels of the product.
INLINE void transform_gradient(const Conv* conv, const Tiles* t, const float* m, const int tile_out, long image,
                               long i) {
  const long rows = conv->tile_rows * tile_out, columns = conv->tile_columns * tile_out;
  pad_image(conv->dy + image * conv->out_rows * conv->out_columns * conv->maps, conv->out_rows, conv->out_columns,
            conv->maps, 0, t->padded, rows, columns, conv->maps_padded);
  transform_tiles(conv, m, tile_out, 1, t->padded, columns, conv->maps_padded,
                  t->out_planes + i * conv->tile_rows * conv->tile_columns * conv->width, t->out_plane, conv->width,
                  t->count * conv->width);
}

static void transform_gradient_4(const Conv* conv, const Tiles* t, long image, long i) {
  transform_gradient(conv, t, TO_PIXELS_4, 4, image, i);
}

static void transform_gradient_2(const Conv* conv, const Tiles* t, long image, long i) {
  transform_gradient(conv, t, TO_PIXELS_2, 2, image, i);
}

// A group's images: at each element of the transformed kernel the sums of image times dy.
static void sum_group(const void* call, long item, float* scratch) {
  const Conv* conv = call;
  const long end = min(conv->images, (item + 1) * conv->group_size);
  const long terms_padded = round_up(conv->terms, conv->block), plane = terms_padded * conv->maps_padded;
  for (long first = item * conv->group_size; first < end; first += conv->chunk) {
    const long images = min(conv->chunk, end - first);
    const Tiles t = tiles_of(conv, images, scratch);
    for (long i = 0; i < images; i++) {
      transform_image(conv, &t, first + i, i);
      if (conv->tile_out == 4)
        transform_gradient_4(conv, &t, first + i, i);
      else
        transform_gradient_2(conv, &t, first + i, i);
    }
    for (long e = 0; e < ELEMENTS; e++)
      multiply(&(Matmul){.a = t.planes + e * t.plane,
                         .a_row = 1,
                         .a_step = conv->padded_terms,
                         .b = t.out_planes + e * t.out_plane,
                         .c = conv->sums + (item * ELEMENTS + e) * plane,
                         .c_row = conv->maps_padded,
                         .rows = terms_padded,
                         .panels = conv->maps_padded / conv->width,
                         .depth = t.count,
                         .vectors = conv->vectors,
                         .add = first > item * conv->group_size});
  }
}

INLINE void write_gradient(const Conv* conv, const float* m, const int window) {
  const long plane = round_up(conv->terms, conv->block) * conv->maps_padded;
  for (long term = 0; term < conv->terms; term++)
    for (long n = 0; n < conv->maps; n += LANES) {
      Vector in[ELEMENTS], out[TILE * TILE];
      for (int e = 0; e < ELEMENTS; e++) {
        const float* from = conv->sums + e * plane + term * conv->maps_padded + n;
        in[e] = *(const Vector*)from;
        for (long group = 1; group < conv->groups; group++) in[e] += *(const Vector*)(from + group * ELEMENTS * plane);
      }
      transform(m, window, TILE, 1, in, out);
      for (int i = 0; i < window * window; i++) {
        const long at = place_in_kernel(conv, i, term);
        if (at >= 0) store(conv->out + at + n, out[i], conv->maps - n);
      }
    }
}

static void write_gradient_3(const Conv* conv) { write_gradient(conv, FROM_KERNEL_3, 3); }
static void write_gradient_5(const Conv* conv) { write_gradient(conv, FROM_KERNEL_5, 5); }

XLA_FFI_Error* winograd_kernel_gradient(const Op* op, Conv* conv) {
  const long scratch = lay_out(conv, TILES_OF_GRADIENT);
  const long terms_padded = round_up(conv->terms, conv->block);
  TRY(alloc_floats(op, mul_size(conv->groups * ELEMENTS * terms_padded, conv->maps_padded), &conv->sums));
  XLA_FFI_Error* error = parallel_for(op, sum_group, conv, conv->groups, scratch);
  if (!error) {
    if (conv->window == 3)
      write_gradient_3(conv);
    else
      write_gradient_5(conv);
  }
  free(conv->sums);
  return error;
}
