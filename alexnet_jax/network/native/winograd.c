// Convolutions with kernels of 3 x 3 and 5 x 5 and stride 1 by Winograd's algorithm (Lavin and Gray 2015,
// arXiv:1509.09308).
//
// With a larger stride, blocks of `stride x stride` pixels are the places, and the numbers of a block its terms:
// windows of 11 x 11 pixels with 3 channels, 4 apart, are windows of 3 x 3 places with 48 terms, 1 apart. The kernel is
// 0 where a block reaches past the window.
//
// A tile of 7 x 7 pixels and the kernel are transformed to 49 elements each. Their products for all channels are 49
// matrix products, and the result is transformed back to 5 x 5 or 3 x 3 pixels. That takes 4.6 times fewer
// multiplications than a direct sum, less what tiles hang over.

#include <stdlib.h>

#include "convolution.h"

enum {
  TILE = 7,
  ELEMENTS = TILE * TILE,
  TILES = 72 /* of an item, but one image's at least */,
  TILES_OF_GRADIENT = 144,
  TERMS = 8 /* of an item that transforms a kernel */,
  NUMBERS = 8192 /* of an item that adds the groups' gradients */,
  LINE = 16 /* floats of a line of a cache */
};

// ---- transforms, with the points 1, -1, 1/4, -1/4, 2, -2 and infinity ----------------------------------------------

// Each line is a row of a matrix, for the points 1, 1/4, 2 and infinity. A row for the other point of a pair has the
// same numbers, the odd ones with the other sign. `expand` applies a matrix, `contract` its transpose. Barabasz et al.
// 2020, arXiv:1803.10986, explain how the choice of points changes the rounding; of the pairs that
// docs/experiments-log.md compares, these have the least error.
// clang-format off
enum { PAIRS = TILE / 2 };
static const float FROM_PIXELS[(PAIRS + 1) * TILE] = {
    .25f,  .25f,   -4.0625f, -4.0625f, 1,        1, 0,
    1,     4,      -1.25f,   -5,       .25f,     1, 0,
    .125f, .0625f, -2.125f,  -1.0625f, 2,        1, 0,
    -.25f, 0,      4.3125f,  0,        -5.0625f, 0, 1};
static const float FROM_KERNEL_3[(PAIRS + 1) * 3] = {
    -8 / 45.f,    -8 / 45.f,    -8 / 45.f,
    512 / 945.f,  128 / 945.f,  32 / 945.f,
    4 / 189.f,    8 / 189.f,    16 / 189.f,
    0,            0,            1};
static const float FROM_KERNEL_5[(PAIRS + 1) * 5] = {
    -8 / 45.f,    -8 / 45.f,    -8 / 45.f,    -8 / 45.f,    -8 / 45.f,
    512 / 945.f,  128 / 945.f,  32 / 945.f,   8 / 945.f,    2 / 945.f,
    4 / 189.f,    8 / 189.f,    16 / 189.f,   32 / 189.f,   64 / 189.f,
    0,            0,            0,            0,            1};
static const float FROM_RESULT_5[(PAIRS + 1) * 5] = {
    1, 1,    1,       1,        1,
    1, .25f, .0625f, 1 / 64.f, 1 / 256.f,
    1, 2,    4,       8,        16,
    0, 0,    0,       0,        1};
static const float FROM_RESULT_3[(PAIRS + 1) * 3] = {
    1, 1,    1,
    1, .25f, .0625f,
    1, 2,    4,
    0, 0,    1};
// clang-format on

// out[i] = the sums of row i of m times in, for all TILE rows.
INLINE void expand_line(const float* m, const int size, const float* in, long in_step, float* out, long out_step) {
  UNROLL for (int pair = 0; pair < PAIRS; pair++, m += size) {
    Vector even = m[0] * *(const Vector*)in, odd = m[1] * *(const Vector*)(in + in_step);
    UNROLL for (int k = 2; k < size; k += 2) {
      if (m[k] != 0) even += m[k] * *(const Vector*)(in + k * in_step);
    }
    UNROLL for (int k = 3; k < size; k += 2) odd += m[k] * *(const Vector*)(in + k * in_step);
    *(Vector*)(out + 2 * pair * out_step) = even + odd;
    *(Vector*)(out + (2 * pair + 1) * out_step) = even - odd;
  }
  Vector last = {0};
  UNROLL for (int k = 0; k < size; k++) {
    if (m[k] != 0) last += m[k] * *(const Vector*)(in + k * in_step);
  }
  *(Vector*)(out + (TILE - 1) * out_step) = last;
}

// The transpose of it: out[k] = the sums of column k of m times in.
INLINE void contract_line(const float* m, const int size, const float* in, long in_step, float* out, long out_step) {
  Vector sums[2][PAIRS];  // of the two numbers of a pair, and their differences
  UNROLL for (int pair = 0; pair < PAIRS; pair++) {
    const Vector a = *(const Vector*)(in + 2 * pair * in_step), b = *(const Vector*)(in + (2 * pair + 1) * in_step);
    sums[0][pair] = a + b, sums[1][pair] = a - b;
  }
  UNROLL for (int k = 0; k < size; k++) {
    Vector sum = m[k] * sums[k % 2][0];
    UNROLL for (int pair = 1; pair < PAIRS; pair++) sum += m[pair * size + k] * sums[k % 2][pair];
    if (m[PAIRS * size + k] != 0) sum += m[PAIRS * size + k] * *(const Vector*)(in + (TILE - 1) * in_step);
    *(Vector*)(out + k * out_step) = sum;
  }
}

// The elements of `size x size` vectors that lie `row` and `column` floats apart, `plane` floats apart.
INLINE void expand(const float* m, const int size, const float* in, long row, long column, float* out, long plane) {
  Vector half[TILE * TILE];
  UNROLL for (int j = 0; j < size; j++) {
    expand_line(m, size, in + j * column, row, (float*)(half + j), size * LANES);
  }
  UNROLL for (int i = 0; i < TILE; i++) {
    expand_line(m, size, (const float*)(half + i * size), LANES, out + i * TILE * plane, plane);
  }
}

// The transpose of it: from elements to `size x size` vectors.
INLINE void contract(const float* m, const int size, const float* in, long plane, Vector* out) {
  Vector half[TILE * TILE];
  UNROLL for (int i = 0; i < TILE; i++) {
    contract_line(m, size, in + i * TILE * plane, plane, (float*)(half + i * size), LANES);
  }
  UNROLL for (int j = 0; j < size; j++) {
    contract_line(m, size, (const float*)(half + j), size * LANES, (float*)(out + j), size * LANES);
  }
}

// All tiles of an image with its border. Channels come in panels of `width`: element e of tile t, channel c, is at
// planes[e * plane + c / width * panel + t * width + c % width].
INLINE void transform_tiles(const Conv* conv, const float* m, const int side, const float* padded, long padded_columns,
                            long channels, float* planes, long plane, long width, long panel) {
  for (long first = 0; first < channels; first += width, planes += panel) {
    float* tile = planes;
    for (long row = 0; row < conv->tile_rows; row++)
      for (long column = 0; column < conv->tile_columns; column++, tile += width) {
        const float* corner = padded + (row * padded_columns + column) * conv->tile_out * channels + first;
        for (long c = 0; c < width; c += LANES)
          expand(m, side, corner + c, padded_columns * channels, channels, tile + c, plane);
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

INLINE void transform_kernel(const Conv* conv, const float* m, const int window, long item) {
  const long width = conv->width;
  for (long term = item * TERMS; term < min(conv->terms, (item + 1) * TERMS); term++)
    for (long n = 0; n < conv->maps_padded; n += LANES) {
      Vector in[TILE * TILE];
      for (int i = 0; i < window * window; i++) {
        const long at = place_in_kernel(conv, i, term), left = conv->maps - n;
        in[i] = at >= 0 && left > 0 ? load(conv->kernel + at + n, left) : (Vector){0};
      }
      expand(m, window, (const float*)in, window * LANES, LANES,
             conv->packed + (n / width * conv->terms + term) * width + n % width, conv->kernel_plane);
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

// Floats from one element's numbers to the next one's: an odd number of lines, so that a tile's 49 elements lie in
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
  return padded_size(conv) + mul_size(ELEMENTS, plane + out_plane);
}

// ---- convolution ---------------------------------------------------------------------------------------------------

// Like `pad_image`, with the pixels of a block as the terms of its place.
static void gather_blocks(const Conv* conv, const float* restrict image, float* restrict padded) {
  const long stride = conv->stride, line = stride * conv->channels, end = conv->columns * conv->channels;
  for (long down = 0; down < conv->padded_rows * stride; down++) {
    const long row = down - conv->pad;
    const float* from = row >= 0 && row < conv->rows ? image + row * end : NULL;
    float* to = padded + down / stride * conv->padded_columns * conv->padded_terms + down % stride * line;
    long at = -conv->pad * conv->channels;  // of the line's first number in its row
    for (long place = 0; place < conv->padded_columns; place++, at += line, to += conv->padded_terms) {
      if (from && at >= 0 && at + line <= end)
        memcpy(to, from + at, line * sizeof *to);
      else
        for (long i = 0; i < line; i++) to[i] = from && at + i >= 0 && at + i < end ? from[at + i] : 0;
      if (down % stride == stride - 1) zero(to + line, conv->padded_terms - conv->terms);
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
  transform_tiles(conv, FROM_PIXELS, TILE, t->padded, conv->padded_columns, conv->padded_terms,
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
        Vector out[TILE * TILE];
        contract(m, tile_out, from + n, t->out_plane, out);
        for (int i = 0; i < min(tile_out, conv->out_rows - first_row); i++)
          for (int j = 0; j < min(tile_out, conv->out_columns - first_column); j++)
            store(to + (i * conv->out_columns + j) * conv->maps + n, out[i * tile_out + j], conv->maps - n);
      }
    }
}

static void write_image_5(const Conv* conv, const Tiles* t, long image, long i) {
  write_image(conv, t, FROM_RESULT_5, 5, image, i);
}

static void write_image_3(const Conv* conv, const Tiles* t, long image, long i) {
  write_image(conv, t, FROM_RESULT_3, 3, image, i);
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
                       .b = conv->packed + e * conv->kernel_plane,
                       .c = t.out_planes + e * t.out_plane,
                       .c_row = conv->maps_padded,
                       .rows = t.count_padded,
                       .panels = conv->maps_padded / conv->width,
                       .depth = conv->terms,
                       .vectors = conv->vectors});
  for (long i = 0; i < images; i++)
    if (conv->tile_out == 5)
      write_image_5(conv, &t, first + i, i);
    else
      write_image_3(conv, &t, first + i, i);
}

static void transform_kernel_3(const void* call, long item, float* scratch) {
  (void)scratch;
  transform_kernel(call, FROM_KERNEL_3, 3, item);
}

static void transform_kernel_5(const void* call, long item, float* scratch) {
  (void)scratch;
  transform_kernel(call, FROM_KERNEL_5, 5, item);
}

XLA_FFI_Error* winograd_convolution(const Op* op, Conv* conv) {
  const long scratch = lay_out(conv, TILES);
  conv->kernel_plane = plane_size(mul_size(conv->terms, conv->maps_padded));
  TRY(alloc_floats(op, mul_size(ELEMENTS, conv->kernel_plane), &conv->packed));
  ItemFunction* transform = conv->window == 3 ? transform_kernel_3 : transform_kernel_5;
  XLA_FFI_Error* error = parallel_for(op, transform, conv, ceil_div(conv->terms, TERMS), 0);
  if (!error) error = parallel_for(op, convolve, conv, ceil_div(conv->images, conv->chunk), scratch);
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
  transform_tiles(conv, m, tile_out, t->padded, columns, conv->maps_padded,
                  t->out_planes + i * conv->tile_rows * conv->tile_columns * conv->width, t->out_plane, conv->width,
                  t->count * conv->width);
}

static void transform_gradient_5(const Conv* conv, const Tiles* t, long image, long i) {
  transform_gradient(conv, t, FROM_RESULT_5, 5, image, i);
}

static void transform_gradient_3(const Conv* conv, const Tiles* t, long image, long i) {
  transform_gradient(conv, t, FROM_RESULT_3, 3, image, i);
}

// The gradient of the kernel from its sums at each element.
INLINE void write_gradient(const Conv* conv, const float* m, const int window, const float* sums, float* gradient) {
  for (long term = 0; term < conv->terms; term++)
    for (long n = 0; n < conv->maps; n += LANES) {
      Vector out[TILE * TILE];
      contract(m, window, sums + term * conv->maps_padded + n, conv->kernel_plane, out);
      for (int i = 0; i < window * window; i++) {
        const long at = place_in_kernel(conv, i, term);
        if (at >= 0) store(gradient + at + n, out[i], conv->maps - n);
      }
    }
}

static void write_gradient_3(const Conv* conv, const float* sums, float* gradient) {
  write_gradient(conv, FROM_KERNEL_3, 3, sums, gradient);
}

static void write_gradient_5(const Conv* conv, const float* sums, float* gradient) {
  write_gradient(conv, FROM_KERNEL_5, 5, sums, gradient);
}

static inline long kernel_size(const Conv* conv) { return conv->size * conv->size * conv->channels * conv->maps; }

// The gradient of a group's images: at each element of the transformed kernel the sums of image times dy.
static void differentiate_group(const void* call, long item, float* scratch) {
  const Conv* conv = call;
  float *sums = scratch, *gradient = conv->gradients + item * kernel_size(conv);
  const long end = min(conv->images, (item + 1) * conv->group_size);
  for (long first = item * conv->group_size; first < end; first += conv->chunk) {
    const long images = min(conv->chunk, end - first);
    const Tiles t = tiles_of(conv, images, sums + ELEMENTS * conv->kernel_plane);
    for (long i = 0; i < images; i++) {
      transform_image(conv, &t, first + i, i);
      if (conv->tile_out == 5)
        transform_gradient_5(conv, &t, first + i, i);
      else
        transform_gradient_3(conv, &t, first + i, i);
    }
    for (long e = 0; e < ELEMENTS; e++)
      multiply(&(Matmul){.a = t.planes + e * t.plane,
                         .a_row = 1,
                         .a_step = conv->padded_terms,
                         .b = t.out_planes + e * t.out_plane,
                         .c = sums + e * conv->kernel_plane,
                         .c_row = conv->maps_padded,
                         .rows = round_up(conv->terms, conv->block),
                         .panels = conv->maps_padded / conv->width,
                         .depth = t.count,
                         .vectors = conv->vectors,
                         .add = first > item * conv->group_size});
  }
  if (conv->window == 3)
    write_gradient_3(conv, sums, gradient);
  else
    write_gradient_5(conv, sums, gradient);
}

// Some numbers of the sum over groups.
static void add_groups(const void* call, long item, float* scratch) {
  (void)scratch;
  const Conv* conv = call;
  const long size = kernel_size(conv), first = item * NUMBERS, count = min(NUMBERS, size - first);
  const float* from = conv->gradients + first;
  float* to = conv->out + first;
  memcpy(to, from, count * sizeof *to);
  for (long group = 1; group < conv->groups; group++)
    for (long i = 0; i < count; i++) to[i] += from[group * size + i];
}

XLA_FFI_Error* winograd_kernel_gradient(const Op* op, Conv* conv) {
  const long tiles = lay_out(conv, TILES_OF_GRADIENT);
  conv->kernel_plane = plane_size(mul_size(round_up(conv->terms, conv->block), conv->maps_padded));
  TRY(alloc_floats(op, mul_size(conv->groups, kernel_size(conv)), &conv->gradients));
  XLA_FFI_Error* error =
      parallel_for(op, differentiate_group, conv, conv->groups, tiles + mul_size(ELEMENTS, conv->kernel_plane));
  if (!error) error = parallel_for(op, add_groups, conv, ceil_div(kernel_size(conv), NUMBERS), 0);
  free(conv->gradients);
  return error;
}
