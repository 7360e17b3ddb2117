// Memory for a call, and work divided among XLA's threads.

#ifndef ALEXNET_JAX_PARALLEL_H_
#define ALEXNET_JAX_PARALLEL_H_

#include <limits.h>

#include "call.h"

static inline long min(long a, long b) { return a < b ? a : b; }
static inline long max(long a, long b) { return a > b ? a : b; }
static inline long round_up(long n, long unit) { return (n + unit - 1) / unit * unit; }
static inline long ceil_div(long n, long unit) { return (n + unit - 1) / unit; }

// The product of two sizes, or a size that no memory holds where the product would overflow.
static inline long mul_size(long a, long b) {
  const long too_large = LONG_MAX / 64;
  long product;
  return __builtin_mul_overflow(a, b, &product) ? too_large : min(product, too_large);
}

// Allocates so many floats, aligned to 64 bytes and not set to any value. Free them with `free`.
XLA_FFI_Error* alloc_floats(const Op* op, long count, float** floats);

// Computes one item of a call's work. `scratch` belongs to the thread, and its floats are not set to any value.
typedef void ItemFunction(const void* call, long item, float* scratch);

// Computes items 0 to items - 1, on this thread and on those of XLA's that are free; returns when all are computed.
//
// All memory is allocated before the work is divided, `scratch` floats a thread, so no other thread can fail. This
// thread computes items as well and waits only for items that another thread has begun, so it never waits for a thread
// to become free.
XLA_FFI_Error* parallel_for(const Op* op, ItemFunction* function, const void* call, long items, long scratch);

#endif
