// Products of matrices in registers, for convolutions. Static, so that the compiler fits a copy to each file's
// products.

#ifndef ALEXNET_JAX_MATMUL_H_
#define ALEXNET_JAX_MATMUL_H_

#include <string.h>

#include "parallel.h"

#if defined(__AVX512F__)
enum { LANES = 16, ROWS_OF_2 = 12, ROWS_OF_3 = 8 };  // 24 of 32 registers hold sums
#elif defined(__AVX__)
enum { LANES = 8, ROWS_OF_2 = 6, ROWS_OF_3 = 4 };  // 12 of 16
#else
enum { LANES = 4, ROWS_OF_2 = 6, ROWS_OF_3 = 4 };
#endif

typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
// Unrolls all of the loop that follows, so that arrays of vectors stay in registers.
#ifdef UNROLL  // sanitizers of clang take minutes to compile an unrolled loop
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 49")
#endif
#define INLINE static inline __attribute__((always_inline))

// The first `count` floats, and zeros.
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

// c[row][column] = sum of a[row][step] b[step][column], over `depth` steps. Columns come in panels of `vectors`
// registers, rows in blocks of `block_rows`; a and c are read and written up to the end of the last block. b has all
// steps of a panel before the next panel.
typedef struct {
  const float *a, *b;
  float* c;
  long a_row, a_step;  // floats from one row or step to the next
  long c_row;
  long rows, panels, depth;
  int vectors, add;  // add: to the values that c has
} Matmul;

// The number of registers that leaves the fewest columns over. One alone loads a number of `a` for every product.
static inline int vectors_for(long columns) {
  if (columns <= LANES) return 1;
  return round_up(columns, 3 * LANES) < round_up(columns, 2 * LANES) ? 3 : 2;
}

static inline long block_rows(int vectors) { return vectors == 3 ? ROWS_OF_3 : ROWS_OF_2; }

INLINE void multiply_block(const Matmul* m, const int rows, const int vectors, const float* a, const float* b,
                           float* c) {
  Vector sums[ROWS_OF_2][3];
  UNROLL for (int i = 0; i < rows; i++) { UNROLL for (int j = 0; j < vectors; j++) sums[i][j] = (Vector){0}; }
  for (long k = 0; k < m->depth; k++, a += m->a_step, b += vectors * LANES) {
    Vector row[3];
    UNROLL for (int j = 0; j < vectors; j++) row[j] = ((const Vector*)b)[j];
    UNROLL for (int i = 0; i < rows; i++) {
      UNROLL for (int j = 0; j < vectors; j++) sums[i][j] += a[i * m->a_row] * row[j];
    }
  }
  UNROLL for (int i = 0; i < rows; i++) {
    UNROLL for (int j = 0; j < vectors; j++) {
      Vector* to = (Vector*)(c + i * m->c_row) + j;
      if (m->add) sums[i][j] += *to;
      *to = sums[i][j];
    }
  }
}

// Clang merges calls of one inlined function, and then knows its loops' bounds only at run time: hence three functions.
INLINE void multiply_block_1(const Matmul* m, const float* a, const float* b, float* c) {
  multiply_block(m, ROWS_OF_2, 1, a, b, c);  // more rows would leave more of them over
}

INLINE void multiply_block_2(const Matmul* m, const float* a, const float* b, float* c) {
  multiply_block(m, ROWS_OF_2, 2, a, b, c);
}

INLINE void multiply_block_3(const Matmul* m, const float* a, const float* b, float* c) {
  multiply_block(m, ROWS_OF_3, 3, a, b, c);
}

__attribute__((unused)) static void multiply(const Matmul* m) {
  const long width = m->vectors * LANES;
  for (long panel = 0; panel < m->panels; panel++)
    for (long row = 0; row < m->rows; row += block_rows(m->vectors)) {
      const float *a = m->a + row * m->a_row, *b = m->b + panel * m->depth * width;
      float* c = m->c + row * m->c_row + panel * width;
      if (m->vectors == 3)
        multiply_block_3(m, a, b, c);
      else if (m->vectors == 2)
        multiply_block_2(m, a, b, c);
      else
        multiply_block_1(m, a, b, c);
    }
}

#endif
