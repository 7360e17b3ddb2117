// Convolutions and the gradients of their kernels on a CPU, float32. Maps are [images, rows, columns, channels].
//
// Kernels of 3 x 3 and 5 x 5 that move by one pixel go by Winograd's way (Lavin and Gray 2015, arXiv:1509.09308): a
// tile of 6 x 6 pixels and the kernel are transformed to 36 numbers each, whose products for all channels are 36 matrix
// products, and the result is transformed back to 4 x 4 or 2 x 2 pixels. That takes 4 and 2.8 times fewer
// multiplications than summing the products one by one, less what tiles hang over. All other kernels are summed one by
// one, straight from the image: a row of a window is one run of memory.

#include "work.h"

#if defined(__AVX512F__)
enum { LANES = 16, ROWS_OF_2 = 12, ROWS_OF_3 = 8 };  // 24 of 32 registers hold sums
#elif defined(__AVX__)
enum { LANES = 8, ROWS_OF_2 = 6, ROWS_OF_3 = 4 };  // 12 of 16
#else
enum { LANES = 4, ROWS_OF_2 = 6, ROWS_OF_3 = 4 };
#endif

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

// ---- matrix products -----------------------------------------------------------------------------------------------

// c[row][column] = sum of a[row][step] b[step][column], over `segments` runs of `depth` steps. Columns come in panels
// of `vectors` registers, rows in blocks of `block_rows`; a and c are read and written up to the end of the last block.
typedef struct {
  const float *a, *b;
  float* c;
  long a_row, a_step, a_segment;
  long b_step, b_segment, b_panel;
  long c_row;
  long rows, panels, depth, segments;
  int vectors, add;  // add to what is in c
} Product;

// The number of registers that leaves the fewest columns over.
static int vectors_for(long columns) { return round_up(columns, 3 * LANES) < round_up(columns, 2 * LANES) ? 3 : 2; }
static long block_rows(int vectors) { return vectors == 3 ? ROWS_OF_3 : ROWS_OF_2; }

INLINE void block(const Product* p, const int rows, const int vectors, const float* a, const float* b, float* c) {
  Vector sums[ROWS_OF_2][3];
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) sums[i][j] = (Vector){0};
  for (long segment = 0; segment < p->segments; segment++) {
    const float *own_a = a + segment * p->a_segment, *own_b = b + segment * p->b_segment;
    for (long k = 0; k < p->depth; k++, own_a += p->a_step, own_b += p->b_step) {
      Vector row[3];
#pragma GCC unroll 3
      for (int j = 0; j < vectors; j++) row[j] = ((const Vector*)own_b)[j];
#pragma GCC unroll 12
      for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vectors; j++) sums[i][j] += own_a[i * p->a_row] * row[j];
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
    for (int j = 0; j < vectors; j++) {
      Vector* place = (Vector*)(c + i * p->c_row) + j;
      if (p->add) sums[i][j] += *place;
      *place = sums[i][j];
    }
}

static void product(const Product* p) {
  for (long panel = 0; panel < p->panels; panel++)
    for (long row = 0; row < p->rows; row += block_rows(p->vectors)) {
      const float *a = p->a + row * p->a_row, *b = p->b + panel * p->b_panel;
      float* c = p->c + row * p->c_row + panel * p->vectors * LANES;
      if (p->vectors == 3)
        block(p, ROWS_OF_3, 3, a, b, c);
      else
        block(p, ROWS_OF_2, 2, a, b, c);
    }
}

// ---- the call ------------------------------------------------------------------------------------------------------

enum {
  SIDE = 6,
  PLACES = SIDE * SIDE,
  TILES = 96 /* at once, but one image's at least */,
  TILES_OF_GRADIENT = 192,
  GROUPS = 8
};

typedef struct {
  const float *x, *other;  // the images; the kernel, or the result's gradient
  float* result;
  long images, rows, columns, channels;
  long out_rows, out_columns, maps;
  long size, stride, pad;
  // What follows from these:
  int vectors;                                  // of a panel of maps
  long block, maps_up;                          // rows of a block; maps rounded up to panels
  long outs, tile_rows, tile_columns;           // pixels that a tile gives along a side; tiles of an image
  long wide_rows, wide_columns, wide_channels;  // of an image with its border
  long chunk;                                   // images at once
  long groups, group;    // of images whose gradients are summed apart, the same for any number of threads
  float *kernel, *sums;  // transformed kernel; each group's sums
} Call;

// The image with zeros around it: `before` rows and columns, and as many after it as fill the room.
static void widen(const float* restrict image, long rows, long columns, long channels, long before,
                  float* restrict wide, long wide_rows, long wide_columns, long wide_channels) {
  memset(wide, 0, wide_rows * wide_columns * wide_channels * sizeof *wide);
  const long own_columns = least(columns, wide_columns - before);
  for (long row = 0; row < least(rows, wide_rows - before); row++) {
    const float* from = image + row * columns * channels;
    float* to = wide + ((row + before) * wide_columns + before) * wide_channels;
    if (channels == wide_channels)
      memcpy(to, from, own_columns * channels * sizeof *to);
    else
      for (long column = 0; column < own_columns; column++)
        memcpy(to + column * wide_channels, from + column * channels, channels * sizeof *to);
  }
}

INLINE Vector load(const float* from, long count) {
  if (count >= LANES) return *(const Vector*)from;
  Vector loaded = {0};
  memcpy(&loaded, from, count * sizeof *from);
  return loaded;
}

INLINE void store(float* to, Vector stored, long count) {
  if (count >= LANES)
    *(Vector*)to = stored;
  else
    memcpy(to, &stored, count * sizeof *to);
}

// ---- Winograd's transforms, with the points 0, 1, -1, 1/2, -2 and infinity -----------------------------------------

// One row a line; the reasons for these points are in Barabasz et al. 2020, arXiv:1803.10986.
// clang-format off
static const float FROM_PIXELS[SIDE * SIDE] = {
    1, -1.5f, -2,    1.5f, 1,    0,
    0, -1,    .5f,   2.5f, 1,    0,
    0, 1,     -2.5f, .5f,  1,    0,
    0, -2,    -1,    2,    1,    0,
    0, .5f,   -1,    -.5f, 1,    0,
    0, 1,     -1.5f, -2,   1.5f, 1};
static const float FROM_KERNEL_3[SIDE * 3] = {
    1,          0,         0,
    1 / 3.f,    1 / 3.f,   1 / 3.f,
    -1 / 3.f,   1 / 3.f,   -1 / 3.f,
    -16 / 15.f, -8 / 15.f, -4 / 15.f,
    1 / 15.f,   -2 / 15.f, 4 / 15.f,
    0,          0,         1};
static const float FROM_KERNEL_5[SIDE * 5] = {
    1,          0,         0,         0,         0,
    1 / 3.f,    1 / 3.f,   1 / 3.f,   1 / 3.f,   1 / 3.f,
    -1 / 3.f,   1 / 3.f,   -1 / 3.f,  1 / 3.f,   -1 / 3.f,
    -16 / 15.f, -8 / 15.f, -4 / 15.f, -2 / 15.f, -1 / 15.f,
    1 / 15.f,   -2 / 15.f, 4 / 15.f,  -8 / 15.f, 16 / 15.f,
    0,          0,         0,         0,         1};
static const float TO_PIXELS_4[4 * SIDE] = {
    1, 1, 1,  1,     1,  0,
    0, 1, -1, .5f,   -2, 0,
    0, 1, 1,  .25f,  4,  0,
    0, 1, -1, .125f, -8, 1};
static const float TO_PIXELS_2[2 * SIDE] = {
    1, 1, 1,  1,   1,  0,
    0, 1, -1, .5f, -2, 1};
// clang-format on

// out = m in m^T, for m [rows, columns], or its transpose: [columns, columns] to [rows, rows].
INLINE void transform(const float* m, const int rows, const int columns, const int transposed, const Vector* in,
                      Vector* out) {
  const int by_row = transposed ? 1 : columns, by_column = transposed ? rows : 1;
  Vector half[SIDE * SIDE];
#pragma GCC unroll 6
  for (int j = 0; j < columns; j++)
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      Vector sum = {0};
#pragma GCC unroll 6
      for (int k = 0; k < columns; k++)
        if (m[i * by_row + k * by_column] != 0) sum += m[i * by_row + k * by_column] * in[k * columns + j];
      half[i * columns + j] = sum;
    }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 6
    for (int j = 0; j < rows; j++) {
      Vector sum = {0};
#pragma GCC unroll 6
      for (int k = 0; k < columns; k++)
        if (m[j * by_row + k * by_column] != 0) sum += m[j * by_row + k * by_column] * half[i * columns + k];
      out[i * rows + j] = sum;
    }
}

// All tiles of an image with border: tile t's number of place p is at planes[p * plane + t * channels].
INLINE void transform_tiles(const Call* call, const float* m, const int side, const int transposed, const float* wide,
                            long wide_columns, long channels, float* planes, long plane) {
  for (long row = 0; row < call->tile_rows; row++)
    for (long column = 0; column < call->tile_columns; column++, planes += channels) {
      const float* corner = wide + (row * wide_columns + column) * call->outs * channels;
      for (long c = 0; c < channels; c += LANES) {
        Vector in[SIDE * SIDE], out[PLACES];
#pragma GCC unroll 6
        for (int i = 0; i < side; i++)
#pragma GCC unroll 6
          for (int j = 0; j < side; j++)
            in[i * side + j] = *(const Vector*)(corner + (i * wide_columns + j) * channels + c);
        transform(m, SIDE, side, transposed, in, out);
        for (int place = 0; place < PLACES; place++) *(Vector*)(planes + place * plane + c) = out[place];
      }
    }
}

INLINE void transform_kernel(const Call* call, const float* m, const int size) {
  const long width = call->vectors * LANES, plane = call->channels * call->maps_up;
  for (long c = 0; c < call->channels; c++)
    for (long n = 0; n < call->maps_up; n += LANES) {
      Vector in[SIDE * SIDE], out[PLACES];
      for (int place = 0; place < size * size; place++)
        in[place] = load(call->other + (place * call->channels + c) * call->maps + n, most(0, call->maps - n));
      transform(m, SIDE, size, 0, in, out);
      float* to = call->kernel + (n / width * call->channels + c) * width + n % width;
      for (int place = 0; place < PLACES; place++) *(Vector*)(to + place * plane) = out[place];
    }
}

// Where an item's arrays lie in its scratch.
typedef struct {
  long count, count_up;      // tiles, and rounded up to blocks
  long plane, result_plane;  // numbers of one place of all tiles: of the image; of the result, or its gradient
  float *wide, *planes, *results;
} Tiles;

static long wide_size(const Call* call) {  // the result's gradient, where that is wanted, is widened in the same place
  return most(call->wide_rows * call->wide_columns * call->wide_channels,
              call->tile_rows * call->tile_columns * call->outs * call->outs * call->maps_up);
}

static Tiles tiles_of(const Call* call, long images, float* scratch) {
  Tiles t = {.count = images * call->tile_rows * call->tile_columns};
  t.count_up = round_up(t.count, call->block);
  t.plane = t.count_up * call->wide_channels, t.result_plane = t.count_up * call->maps_up;
  t.wide = scratch, t.planes = t.wide + wide_size(call), t.results = t.planes + PLACES * t.plane;
  return t;
}

static void take_image(const Call* call, const Tiles* t, long image, long number) {
  const long numbers = call->rows * call->columns * call->channels;
  widen(call->x + image * numbers, call->rows, call->columns, call->channels, call->pad, t->wide, call->wide_rows,
        call->wide_columns, call->wide_channels);
  transform_tiles(call, FROM_PIXELS, SIDE, 0, t->wide, call->wide_columns, call->wide_channels,
                  t->planes + number * call->tile_rows * call->tile_columns * call->wide_channels, t->plane);
}

INLINE void give_image(const Call* call, const Tiles* t, const float* m, const int outs, long image, long number) {
  for (long row = 0; row < call->tile_rows; row++)
    for (long column = 0; column < call->tile_columns; column++) {
      const float* from = t->results + ((number * call->tile_rows + row) * call->tile_columns + column) * call->maps_up;
      const long first_row = row * outs, first_column = column * outs;
      for (long n = 0; n < call->maps; n += LANES) {
        Vector in[PLACES], out[SIDE * SIDE];
#pragma GCC unroll 36
        for (int place = 0; place < PLACES; place++) in[place] = *(const Vector*)(from + place * t->result_plane + n);
        transform(m, outs, SIDE, 0, in, out);
        for (int i = 0; i < least(outs, call->out_rows - first_row); i++)
          for (int j = 0; j < least(outs, call->out_columns - first_column); j++)
            store(call->result +
                      ((image * call->out_rows + first_row + i) * call->out_columns + first_column + j) * call->maps +
                      n,
                  out[i * outs + j], call->maps - n);
      }
    }
}

static void convolve_tiles(const void* of, long item, float* scratch) {
  const Call* call = of;
  const long first = item * call->chunk, images = least(call->chunk, call->images - first);
  const Tiles t = tiles_of(call, images, scratch);
  for (long i = 0; i < images; i++) take_image(call, &t, first + i, i);
  const long width = call->vectors * LANES;
  for (long place = 0; place < PLACES; place++)
    product(&(Product){.a = t.planes + place * t.plane,
                       .a_row = call->wide_channels,
                       .a_step = 1,
                       .b = call->kernel + place * call->channels * call->maps_up,
                       .b_step = width,
                       .b_panel = call->channels * width,
                       .c = t.results + place * t.result_plane,
                       .c_row = call->maps_up,
                       .rows = t.count_up,
                       .panels = call->maps_up / width,
                       .depth = call->channels,
                       .segments = 1,
                       .vectors = call->vectors});
  for (long i = 0; i < images; i++)
    if (call->outs == 4)
      give_image(call, &t, TO_PIXELS_4, 4, first + i, i);
    else
      give_image(call, &t, TO_PIXELS_2, 2, first + i, i);
}

// A group's images: the sums of image times gradient at each place of the transformed kernel.
static void gradient_tiles(const void* of, long item, float* scratch) {
  const Call* call = of;
  const long width = call->vectors * LANES, end = least(call->images, (item + 1) * call->group);
  const long channels_up = round_up(call->channels, call->block), plane = channels_up * call->maps_up;
  const long numbers = call->out_rows * call->out_columns * call->maps;
  const long wide_rows = call->tile_rows * call->outs, wide_columns = call->tile_columns * call->outs;
  for (long first = item * call->group; first < end; first += call->chunk) {
    const long images = least(call->chunk, end - first);
    const Tiles t = tiles_of(call, images, scratch);
    for (long i = 0; i < images; i++) {
      take_image(call, &t, first + i, i);
      widen(call->other + (first + i) * numbers, call->out_rows, call->out_columns, call->maps, 0, t.wide, wide_rows,
            wide_columns, call->maps_up);
      float* results = t.results + i * call->tile_rows * call->tile_columns * call->maps_up;
      if (call->outs == 4)
        transform_tiles(call, TO_PIXELS_4, 4, 1, t.wide, wide_columns, call->maps_up, results, t.result_plane);
      else
        transform_tiles(call, TO_PIXELS_2, 2, 1, t.wide, wide_columns, call->maps_up, results, t.result_plane);
    }
    for (long place = 0; place < PLACES; place++)
      product(&(Product){.a = t.planes + place * t.plane,
                         .a_row = 1,
                         .a_step = call->wide_channels,
                         .b = t.results + place * t.result_plane,
                         .b_step = call->maps_up,
                         .b_panel = width,
                         .c = call->sums + (item * PLACES + place) * plane,
                         .c_row = call->maps_up,
                         .rows = channels_up,
                         .panels = call->maps_up / width,
                         .depth = t.count,
                         .segments = 1,
                         .vectors = call->vectors,
                         .add = first > item * call->group});
  }
}

INLINE void give_gradient(const Call* call, const float* m, const int size) {
  const long plane = round_up(call->channels, call->block) * call->maps_up;
  for (long c = 0; c < call->channels; c++)
    for (long n = 0; n < call->maps; n += LANES) {
      Vector in[PLACES], out[SIDE * SIDE];
      for (int place = 0; place < PLACES; place++) {
        const float* from = call->sums + place * plane + c * call->maps_up + n;
        in[place] = *(const Vector*)from;
        for (long group = 1; group < call->groups; group++)
          in[place] += *(const Vector*)(from + group * PLACES * plane);
      }
      transform(m, size, SIDE, 1, in, out);
      for (int place = 0; place < size * size; place++)
        store(call->result + (place * call->channels + c) * call->maps + n, out[place], call->maps - n);
    }
}

// ---- one by one ----------------------------------------------------------------------------------------------------
// Of an image with border, the pixels under a row of a window are one run of `size * channels` numbers.

static void convolve_directly(const void* of, long image, float* scratch) {
  const Call* call = of;
  const long width = call->vectors * LANES, depth = call->size * call->channels;
  const long row_size = call->wide_columns * call->channels;
  float *wide = scratch, *line = wide + call->wide_rows * row_size;
  widen(call->x + image * call->rows * call->columns * call->channels, call->rows, call->columns, call->channels,
        call->pad, wide, call->wide_rows, call->wide_columns, call->channels);
  float* to = call->result + image * call->out_rows * call->out_columns * call->maps;
  for (long row = 0; row < call->out_rows; row++) {
    product(&(Product){.a = wide + row * call->stride * row_size,
                       .a_row = call->stride * call->channels,
                       .a_step = 1,
                       .a_segment = row_size,
                       .b = call->kernel,
                       .b_step = width,
                       .b_segment = depth * width,
                       .b_panel = call->size * depth * width,
                       .c = line,
                       .c_row = call->maps_up,
                       .rows = round_up(call->out_columns, call->block),
                       .panels = call->maps_up / width,
                       .depth = depth,
                       .segments = call->size,
                       .vectors = call->vectors});
    for (long column = 0; column < call->out_columns; column++, to += call->maps)
      memcpy(to, line + column * call->maps_up, call->maps * sizeof *to);
  }
}

static void gradient_directly(const void* of, long item, float* scratch) {
  enum { STRIP = 5 };  // rows at once, so that a strip of gradients stays in the cache for all of a kernel
  const Call* call = of;
  const long width = call->vectors * LANES, row_size = call->wide_columns * call->channels;
  const long rows = round_up(call->size * call->channels, call->block);
  float *wide = scratch, *gradients = wide + call->wide_rows * row_size + call->block;
  const long begin = item * call->group, end = least(call->images, begin + call->group);
  for (long image = begin; image < end; image++) {
    widen(call->x + image * call->rows * call->columns * call->channels, call->rows, call->columns, call->channels,
          call->pad, wide, call->wide_rows, call->wide_columns, call->channels);
    const float* dy = call->other + image * call->out_rows * call->out_columns * call->maps;
    if (call->maps != call->maps_up) {
      widen(dy, call->out_rows, call->out_columns, call->maps, 0, gradients, call->out_rows, call->out_columns,
            call->maps_up);
      dy = gradients;
    }
    for (long row = 0; row < call->out_rows; row += STRIP)
      for (long down = 0; down < call->size; down++)
        product(&(Product){.a = wide + (row * call->stride + down) * row_size,
                           .a_row = 1,
                           .a_step = call->stride * call->channels,
                           .a_segment = call->stride * row_size,
                           .b = dy + row * call->out_columns * call->maps_up,
                           .b_step = call->maps_up,
                           .b_segment = call->out_columns * call->maps_up,
                           .b_panel = width,
                           .c = call->sums + (item * call->size + down) * rows * call->maps_up,
                           .c_row = call->maps_up,
                           .rows = rows,
                           .panels = call->maps_up / width,
                           .depth = call->out_columns,
                           .segments = least(STRIP, call->out_rows - row),
                           .vectors = call->vectors,
                           .add = image > begin || row > 0});
  }
}

// ---- entry points --------------------------------------------------------------------------------------------------

static Call call_of(const XLA_FFI_CallFrame* frame, const XLA_FFI_Buffer* kernel, const XLA_FFI_Buffer* out) {
  const XLA_FFI_Buffer* in = input(frame, 0);
  Call call = {.x = in->data,
               .other = input(frame, 1)->data,
               .result = output(frame)->data,
               .images = dim(in, -4),
               .rows = dim(in, -3),
               .columns = dim(in, -2),
               .channels = dim(in, -1),
               .out_rows = dim(out, -3),
               .out_columns = dim(out, -2),
               .maps = dim(out, -1),
               .size = dim(kernel, -4),
               .stride = whole(frame, "stride"),
               .pad = whole(frame, "pad")};
  call.vectors = vectors_for(call.maps), call.block = block_rows(call.vectors);
  call.maps_up = round_up(call.maps, call.vectors * LANES);
  call.group = (call.images + GROUPS - 1) / GROUPS, call.groups = (call.images + call.group - 1) / call.group;
  return call;
}

static int by_tiles(const Call* call) { return call->stride == 1 && (call->size == 3 || call->size == 5); }

// Returns the scratch, in numbers, of `chunk` images.
static long lay_tiles(Call* call, long tiles) {
  call->outs = SIDE + 1 - call->size;
  call->tile_rows = round_up(call->out_rows, call->outs) / call->outs;
  call->tile_columns = round_up(call->out_columns, call->outs) / call->outs;
  call->wide_rows = call->tile_rows * call->outs + call->size - 1;
  call->wide_columns = call->tile_columns * call->outs + call->size - 1;
  call->wide_channels = round_up(call->channels, LANES);
  call->chunk = most(1, tiles / (call->tile_rows * call->tile_columns));
  const long count_up = round_up(call->chunk * call->tile_rows * call->tile_columns, call->block);
  return wide_size(call) + PLACES * count_up * (call->wide_channels + call->maps_up) + call->block;
}

// Returns the scratch of one image.
static long lay_rows(Call* call) {
  call->wide_rows = (call->out_rows - 1) * call->stride + call->size;
  call->wide_columns = (round_up(call->out_columns, call->block) - 1) * call->stride + call->size;
  return call->wide_rows * call->wide_columns * call->channels + call->block +
         call->maps_up * (call->out_columns + call->block) * (call->maps == call->maps_up ? 1 : call->out_rows);
}

// The kernel by which a result's gradient gives the image's: upside down, left to right, maps for channels.
static float* turned(const Call* call) {
  const long places = call->size * call->size;
  float* kernel = floats(places * call->channels * call->maps);
  for (long place = 0; place < places; place++) {
    const float* from = call->other + (places - 1 - place) * call->maps * call->channels;
    float* to = kernel + place * call->channels * call->maps;
    for (long c = 0; c < call->channels; c++)
      for (long n = 0; n < call->maps; n++) to[c * call->maps + n] = from[n * call->channels + c];
  }
  return kernel;
}

static void convolution(const XLA_FFI_CallFrame* frame) {
  Call call = call_of(frame, input(frame, 1), output(frame));
  float* own = whole(frame, "turned") ? turned(&call) : NULL;
  if (own) call.other = own;
  if (by_tiles(&call)) {
    const long scratch = lay_tiles(&call, TILES);
    call.kernel = floats(PLACES * call.channels * call.maps_up);
    if (call.size == 3)
      transform_kernel(&call, FROM_KERNEL_3, 3);
    else
      transform_kernel(&call, FROM_KERNEL_5, 5);
    share_out(frame, convolve_tiles, &call, (call.images + call.chunk - 1) / call.chunk, scratch);
  } else {
    const long scratch = lay_rows(&call), steps = call.size * call.size * call.channels, width = call.vectors * LANES;
    call.kernel = floats(steps * call.maps_up);
    for (long step = 0; step < steps; step++)
      for (long n = 0; n < call.maps_up; n += LANES)
        *(Vector*)(call.kernel + (n / width * steps + step) * width + n % width) =
            load(call.other + step * call.maps + n, most(0, call.maps - n));
    share_out(frame, convolve_directly, &call, call.images, scratch);
  }
  free(call.kernel);
  free(own);
}

static void convolution_gradient(const XLA_FFI_CallFrame* frame) {
  Call call = call_of(frame, output(frame), input(frame, 1));
  if (by_tiles(&call)) {
    const long scratch = lay_tiles(&call, TILES_OF_GRADIENT);
    call.sums = floats(call.groups * PLACES * round_up(call.channels, call.block) * call.maps_up);
    share_out(frame, gradient_tiles, &call, call.groups, scratch);
    if (call.size == 3)
      give_gradient(&call, FROM_KERNEL_3, 3);
    else
      give_gradient(&call, FROM_KERNEL_5, 5);
  } else {
    const long scratch = lay_rows(&call), depth = call.size * call.channels, rows = round_up(depth, call.block);
    call.sums = floats(call.groups * call.size * rows * call.maps_up);
    share_out(frame, gradient_directly, &call, call.groups, scratch);
    for (long down = 0; down < call.size; down++)
      for (long step = 0; step < depth; step++)
        for (long n = 0; n < call.maps; n++) {
          float sum = 0;
          for (long group = 0; group < call.groups; group++)
            sum += call.sums[((group * call.size + down) * rows + step) * call.maps_up + n];
          call.result[(down * depth + step) * call.maps + n] = sum;
        }
  }
  free(call.sums);
}

SERVE(convolution, convolution(frame))
SERVE(convolution_gradient, convolution_gradient(frame))
