// Norms and pooling on a GPU, each in one pass over memory, with float32 inside: the formulas of layers.py, for float32
// and bfloat16, windows of five channels or 5 x 5 pixels, and beta 0.75.
//
// XLA writes float32 maps between the two window sums of a norm's gradient, and takes three to ten times as long. A
// thread computes the channels of one vector load. What it needs of their neighbours it computes again, or takes from
// shared memory.
//
// The same source is C++ for a CPU, where a test compares it with float64: an item is then a turn of a loop.

#include "norm_pool.h"
#include "spatial.h"

#ifdef __CUDACC__
#define ITEMS(name, threads, ...)                                            \
  extern "C" __global__ void __launch_bounds__(threads) name(const Call a) { \
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;             \
    if (item < a.items) __VA_ARGS__(a, item);                                \
  }
#define BLOCKS(name, threads, ...)                                           \
  extern "C" __global__ void __launch_bounds__(threads) name(const Call a) { \
    extern __shared__ uint4 shared[];                                        \
    __VA_ARGS__(a, blockIdx.x, (float*)shared);                              \
  }
#else
#define ITEMS(name, threads, ...)                                           \
  extern "C" void name(const Call* a, float*) {                             \
    for (unsigned item = 0; item < a->items; item++) __VA_ARGS__(*a, item); \
  }
#define BLOCKS(name, threads, ...)                                                  \
  extern "C" void name(const Call* a, float* shared) {                              \
    for (unsigned item = 0; item < a->items; item++) __VA_ARGS__(*a, item, shared); \
  }
#endif

// For float32, for bfloat16 in vectors of 8 channels, and in vectors of 4.
#define OF_ALL_TYPES(define, name, threads)                                                   \
  define(name##_f32, threads, name<float, 4>) define(name##_bf16, threads, name<Bfloat16, 8>) \
      define(name##_bf16x4, threads, name<Bfloat16, 4>)

// Of pooling windows of 3 and of 2 pixels.
#define OF_ALL_SIZES(define, name, threads)                                                                   \
  define(name##_3_f32, threads, name<float, 4, 3>) define(name##_3_bf16, threads, name<Bfloat16, 8, 3>)       \
      define(name##_3_bf16x4, threads, name<Bfloat16, 4, 3>) define(name##_2_f32, threads, name<float, 4, 2>) \
          define(name##_2_bf16, threads, name<Bfloat16, 8, 2>) define(name##_2_bf16x4, threads, name<Bfloat16, 4, 2>)

OF_ALL_TYPES(ITEMS, norm_forward, 256)
OF_ALL_TYPES(ITEMS, norm_backward, 256)
OF_ALL_SIZES(ITEMS, pool_forward, 256)
OF_ALL_SIZES(ITEMS, pool_backward, 256)
OF_ALL_SIZES(BLOCKS, norm_pool_forward, 256)
OF_ALL_SIZES(BLOCKS, norm_pool_backward, 256)
OF_ALL_TYPES(BLOCKS, spatial_forward, 512)
OF_ALL_TYPES(BLOCKS, spatial_backward, 512)
