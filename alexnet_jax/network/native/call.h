// What XLA passes to an operation: arguments, results and attributes, checked before an operation reads them.
//
// A check returns NULL, or an error that XLA raises in the program that made the call. Each error names the operation,
// the value that was found and the value that was expected.

#ifndef ALEXNET_JAX_CALL_H_
#define ALEXNET_JAX_CALL_H_

#include <stdint.h>

#include "xla/ffi/api/c_api.h"

typedef struct {
  const XLA_FFI_CallFrame* frame;
  const char* name;  // of the operation
} Op;

typedef XLA_FFI_Error* Operation(const Op* op);

// Returns from the calling function with the error, if there is one.
#define TRY(check)                   \
  do {                               \
    XLA_FFI_Error* error_ = (check); \
    if (error_) return error_;       \
  } while (0)

#define EXPORT __attribute__((visibility("default")))

// Defines XLA's entry point of an operation: `alexnet_jax_NAME` checks and computes by `function`.
#define DEFINE_OPERATION(name, function)                               \
  EXPORT XLA_FFI_Error* alexnet_jax_##name(XLA_FFI_CallFrame* frame) { \
    return run_operation(frame, "alexnet_jax_" #name, function);       \
  }

XLA_FFI_Error* run_operation(const XLA_FFI_CallFrame* frame, const char* name, Operation* operation);

__attribute__((format(printf, 3, 4))) XLA_FFI_Error* make_error(const Op* op, XLA_FFI_Error_Code code,
                                                                const char* format, ...);
#define INVALID(op, ...) make_error(op, XLA_FFI_Error_Code_INVALID_ARGUMENT, __VA_ARGS__)

// Whether there is an error; destroys it.
int discard_error(const XLA_FFI_CallFrame* frame, XLA_FFI_Error* error);

// Maps are [batch, rows, columns, channels]; kernels of convolutions are [rows, columns, channels, maps].
enum { RANK = 4 };

typedef struct {
  int64_t dims[RANK];
} Shape;

#define SHAPE(...) ((Shape){{__VA_ARGS__}})

static inline const XLA_FFI_Buffer* argument(const Op* op, long i) { return op->frame->args.args[i]; }
static inline const XLA_FFI_Buffer* result(const Op* op) { return op->frame->rets.rets[0]; }

// The number of elements; 0 where a dimension is 0, however large the others are.
int64_t element_count(const XLA_FFI_Buffer* buffer);

// The call has so many arguments and one result, each a float32 buffer of rank 4 with dimensions up to 2^31 - 1.
XLA_FFI_Error* check_buffers(const Op* op, long arguments);
XLA_FFI_Error* check_argument_shape(const Op* op, long i, Shape expected);
XLA_FFI_Error* check_result_shape(const Op* op, Shape expected);

// Reads an attribute that must be there, with its type, and an integer within its bounds.
XLA_FFI_Error* attr_i64(const Op* op, const char* name, int64_t min, int64_t max, long* value);
XLA_FFI_Error* attr_f32(const Op* op, const char* name, float* value);

#endif
