// Calls of the kernels in kernels.cu from XLA: checks buffers and attributes, and launches on XLA's stream.
//
// The compiled kernels are part of this library. CUDA's driver is loaded when it is there, so that the library can be
// built and loaded, and its checks be tested, on a machine without a GPU.

#include <dlfcn.h>
#include <stddef.h>
#include <string.h>

#include "../call.h"
#include "call.h"

// A test defines DRIVER, a library that runs the kernels on a CPU. XLA has no streams there.
#ifndef DRIVER
#define DRIVER "libcuda.so.1"
#define GET_STREAM(op, args) (op)->frame->api->XLA_FFI_Stream_Get(args)
#else
#define GET_STREAM(op, args) ((void)(op), (void)(args), NULL)
#endif

// ---- CUDA's driver: the few functions of its stable interface that a launch takes -----------------------------------

typedef int Status;  // CUresult; 0: success
typedef struct CUlib_st* Library;
typedef struct CUkern_st* Kernel;
typedef struct CUfunc_st* Function;
typedef struct CUctx_st* Context;
typedef struct CUstream_st* Stream;

enum { MAX_DYNAMIC_SHARED = 8 };  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

static struct {
  Status (*cuLibraryLoadData)(Library*, const void*, void*, void**, unsigned, void*, void**, unsigned);
  Status (*cuLibraryGetKernel)(Kernel*, Library, const char*);
  Status (*cuKernelGetFunction)(Function*, Kernel);
  Status (*cuFuncSetAttribute)(Function, int, int);
  Status (*cuLaunchKernel)(Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream,
                           void**, void**);
  Status (*cuStreamGetCtx)(Stream, Context*);
  Status (*cuCtxPushCurrent)(Context);
  Status (*cuCtxPopCurrent)(Context*);
} driver;

typedef struct {
  const char* name;
  void* function;  // of `driver`
} Symbol;

static const Symbol SYMBOLS[] = {
    {"cuLibraryLoadData", &driver.cuLibraryLoadData},     {"cuLibraryGetKernel", &driver.cuLibraryGetKernel},
    {"cuKernelGetFunction", &driver.cuKernelGetFunction}, {"cuFuncSetAttribute", &driver.cuFuncSetAttribute},
    {"cuLaunchKernel", &driver.cuLaunchKernel},           {"cuStreamGetCtx", &driver.cuStreamGetCtx},
    {"cuCtxPushCurrent_v2", &driver.cuCtxPushCurrent},    {"cuCtxPopCurrent_v2", &driver.cuCtxPopCurrent},
};

// ---- the kernels, by operation and type -----------------------------------------------------------------------------

// CUBIN is the path of the compiled kernels.
__asm__(".section .rodata\n.balign 16\nkernels_begin:\n.incbin \"" CUBIN "\"\nkernels_end:\n.byte 0\n.previous");
extern const char kernels_begin[] __attribute__((visibility("hidden")));

enum {
  NORM_FORWARD,
  NORM_BACKWARD,
  SPATIAL_FORWARD,
  SPATIAL_BACKWARD,
  POOL_FORWARD,  // from here on, the operations of pooling by 3 pixels
  POOL_BACKWARD,
  NORM_POOL_FORWARD,
  NORM_POOL_BACKWARD,
  POOL_BY_2,  // as many operations of pooling by 2 pixels
  OPERATIONS = POOL_BY_2 + POOL_BY_2 - POOL_FORWARD
};
enum { F32, BF16, BF16X4, TYPES };

#define NAMES(operation) {operation "_f32", operation "_bf16", operation "_bf16x4"}
static const char* const NAME[OPERATIONS][TYPES] = {
    NAMES("norm_forward"),   NAMES("norm_backward"),   NAMES("spatial_forward"),     NAMES("spatial_backward"),
    NAMES("pool_forward_3"), NAMES("pool_backward_3"), NAMES("norm_pool_forward_3"), NAMES("norm_pool_backward_3"),
    NAMES("pool_forward_2"), NAMES("pool_backward_2"), NAMES("norm_pool_forward_2"), NAMES("norm_pool_backward_2"),
};
static Kernel kernels[OPERATIONS][TYPES];

// Loads the kernels into CUDA. NULL, or what failed; `*status` is then the driver's.
EXPORT const char* alexnet_jax_load_kernels(int* status) {
  *status = 0;
  void* library = dlopen(DRIVER, RTLD_NOW | RTLD_LOCAL);
  if (!library) return DRIVER;
  for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++) {
    void* function = dlsym(library, SYMBOLS[i].name);
    if (!function) return SYMBOLS[i].name;
    memcpy(SYMBOLS[i].function, &function, sizeof function);
  }
  Library loaded;
  if ((*status = driver.cuLibraryLoadData(&loaded, kernels_begin, NULL, NULL, 0, NULL, NULL, 0)))
    return "cuLibraryLoadData";
  for (int operation = 0; operation < OPERATIONS; operation++)
    for (int type = 0; type < TYPES; type++)
      if ((*status = driver.cuLibraryGetKernel(&kernels[operation][type], loaded, NAME[operation][type])))
        return NAME[operation][type];
  return NULL;
}

// ---- buffers of a call ----------------------------------------------------------------------------------------------

static XLA_FFI_Error* check_maps(const Op* op, const char* kind, long i, const XLA_FFI_Buffer* buffer,
                                 XLA_FFI_DataType dtype) {
  if (buffer->dtype != dtype)
    return INVALID(op, "%s %ld has data type %d, expected %d", kind, i, (int)buffer->dtype, (int)dtype);
  if (buffer->rank != RANK) return INVALID(op, "%s %ld has rank %lld, expected 4", kind, i, (long long)buffer->rank);
  for (int axis = 0; axis < RANK; axis++)
    if (buffer->dims[axis] < 1 || buffer->dims[axis] > INT32_MAX)
      return INVALID(op, "%s %ld has a dimension of %lld, expected 1 to %d", kind, i, (long long)buffer->dims[axis],
                     INT32_MAX);
  return NULL;
}

static XLA_FFI_Error* check_same(const Op* op, const XLA_FFI_Buffer* a, const XLA_FFI_Buffer* b) {
  if (!memcmp(a->dims, b->dims, RANK * sizeof *a->dims)) return NULL;
  return INVALID(op, "two arrays that should have one shape differ");
}

static const XLA_FFI_Buffer* result_of(const Op* op, long i) { return op->frame->rets.rets[i]; }

// Checks the number of arguments and results, and x, the first argument; fills in what x says.
static XLA_FFI_Error* read_x(const Op* op, long arguments, long results, Call* call) {
  const XLA_FFI_Args* args = &op->frame->args;
  const XLA_FFI_Rets* rets = &op->frame->rets;
  if (args->size != arguments) return INVALID(op, "%lld arguments, expected %ld", (long long)args->size, arguments);
  if (rets->size != results) return INVALID(op, "%lld results, expected %ld", (long long)rets->size, results);
  for (long i = 0; i < arguments; i++)
    if (args->types[i] != XLA_FFI_ArgType_BUFFER) return INVALID(op, "argument %ld is no buffer", i);
  for (long i = 0; i < results; i++)
    if (rets->types[i] != XLA_FFI_RetType_BUFFER) return INVALID(op, "result %ld is no buffer", i);
  const XLA_FFI_Buffer* x = argument(op, 0);
  if (x->dtype != XLA_FFI_DataType_F32 && x->dtype != XLA_FFI_DataType_BF16)
    return INVALID(op, "argument 0 has data type %d, expected float32 or bfloat16", (int)x->dtype);
  TRY(check_maps(op, "argument", 0, x, x->dtype));
  call->x = x->data;
  call->images = (int)x->dims[0], call->rows = (int)x->dims[1], call->columns = (int)x->dims[2];
  call->channels = (int)x->dims[3], call->groups = 1;
  if (call->channels % 4) return INVALID(op, "%d channels, expected a multiple of 4", call->channels);
  return NULL;
}

// A result, or an argument, with the shape of another array.
static XLA_FFI_Error* read_result(const Op* op, long i, const XLA_FFI_Buffer* like, Call* call) {
  TRY(check_maps(op, "result", i, result_of(op, i), argument(op, 0)->dtype));
  TRY(check_same(op, result_of(op, i), like));
  call->out[i] = result_of(op, i)->data;
  return NULL;
}

static XLA_FFI_Error* read_argument(const Op* op, long i, const XLA_FFI_Buffer* like, const void** data) {
  TRY(check_maps(op, "argument", i, argument(op, i), argument(op, 0)->dtype));
  TRY(check_same(op, argument(op, i), like));
  *data = argument(op, i)->data;
  return NULL;
}

static XLA_FFI_Error* read_bias(const Op* op, Call* call) {
  const XLA_FFI_Buffer* bias = argument(op, 1);
  if (bias->dtype != XLA_FFI_DataType_F32 || bias->rank != 1 || bias->dims[0] != call->channels)
    return INVALID(op, "argument 1 is no bias: expected %d float32 numbers", call->channels);
  call->bias = bias->data;
  return NULL;
}

static XLA_FFI_Error* read_norm(const Op* op, Call* call) {
  TRY(attr_f32(op, "k", &call->k));
  return attr_f32(op, "alpha", &call->alpha);
}

static XLA_FFI_Error* read_int(const Op* op, const char* name, long min, long max, int* value) {
  long number = 0;
  TRY(attr_i64(op, name, min, max, &number));
  *value = (int)number;
  return NULL;
}

// The geometry of pooling; `pooled` is the array of a group after it. `operation` becomes that of the window's size.
static XLA_FFI_Error* read_pool(const Op* op, const XLA_FFI_Buffer* pooled, Call* call, int* operation) {
  int size = 0;
  TRY(read_int(op, "size", 2, 3, &size));
  TRY(check_maps(op, "pooled array", 0, pooled, argument(op, 0)->dtype));
  call->out_rows = (int)pooled->dims[1], call->out_columns = (int)pooled->dims[2];
  const int fits = pooled->dims[0] == call->images && pooled->dims[3] * call->groups == call->channels &&
                   pooled->dims[3] % 4 == 0 && 2 * (call->out_rows - 1) < call->rows &&
                   2 * (call->out_columns - 1) < call->columns;
  if (!fits) return INVALID(op, "the pooled array does not fit the maps");
  if (size == 2) *operation += POOL_BY_2 - POOL_FORWARD;
  return NULL;
}

// ---- launches -------------------------------------------------------------------------------------------------------

static XLA_FFI_Error* fail(const Op* op, const char* function, Status status) {
  return make_error(op, XLA_FFI_Error_Code_INTERNAL, "%s failed with status %d", function, status);
}

enum { MOST_SHARED = 96 << 10 };  // bytes that every GPU since 2020 has for a block

static XLA_FFI_Error* launch_in_context(const Op* op, Kernel kernel, Stream stream, Call* call, unsigned blocks,
                                        unsigned threads, unsigned shared) {
  Function function;
  Status status = driver.cuKernelGetFunction(&function, kernel);
  if (status) return fail(op, "cuKernelGetFunction", status);
  // The same limit for every launch: threads may launch one function with different sizes at a time.
  if (shared && (status = driver.cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED, MOST_SHARED)))
    return fail(op, "cuFuncSetAttribute", status);
  void* parameters[] = {call};
  status = driver.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, NULL);
  return status ? fail(op, "cuLaunchKernel", status) : NULL;
}

static XLA_FFI_Error* launch(const Op* op, int operation, int type, Call* call, unsigned blocks, unsigned threads,
                             unsigned shared) {
  const Kernel kernel = kernels[operation][type];
  if (!kernel) return make_error(op, XLA_FFI_Error_Code_INTERNAL, "the kernels are not loaded");
  XLA_FFI_Stream_Get_Args args = {XLA_FFI_Stream_Get_Args_STRUCT_SIZE, NULL, op->frame->ctx, NULL};
  XLA_FFI_Error* error = GET_STREAM(op, &args);
  if (error) return error;
  Context context;
  Status status = driver.cuStreamGetCtx(args.stream, &context);
  if (!status) status = driver.cuCtxPushCurrent(context);
  if (status) return fail(op, "cuCtxPushCurrent", status);
  error = launch_in_context(op, kernel, args.stream, call, blocks, threads, shared);
  driver.cuCtxPopCurrent(&context);
  return error;
}

enum { THREADS = 256 };  // of a block

// Which kernel of an operation: by type, and by the channels of a vector, which divide those of a group.
static int type_of(const Op* op, int channels, int* vector) {
  const int wide = argument(op, 0)->dtype == XLA_FFI_DataType_F32;
  *vector = wide || channels % 8 ? 4 : 8;
  return wide ? F32 : *vector == 8 ? BF16 : BF16X4;
}

// A thread for each vector of channels of a map of so many rows and columns.
static XLA_FFI_Error* launch_items(const Op* op, int operation, Call* call, int rows, int columns) {
  int vector;
  const int type = type_of(op, call->channels / call->groups, &vector);
  const double items = (double)call->images * rows * columns * (call->channels / vector);
  if (items > INT32_MAX) return INVALID(op, "%.0f vectors, expected at most %d", items, INT32_MAX);
  call->items = (unsigned)items;
  return launch(op, operation, type, call, (call->items + THREADS - 1) / THREADS, THREADS, 0);
}

// A block for each of so many items.
static XLA_FFI_Error* launch_blocks(const Op* op, int operation, int type, Call* call, double items, double work,
                                    unsigned most_threads, double shared) {
  if (items > INT32_MAX) return INVALID(op, "%.0f blocks, expected at most %d", items, INT32_MAX);
  if (shared > MOST_SHARED) return INVALID(op, "a block takes %.0f bytes, expected at most %d", shared, MOST_SHARED);
  call->items = (unsigned)items;
  const unsigned threads = work < most_threads ? ((unsigned)work + 31) / 32 * 32 : most_threads;
  return launch(op, operation, type, call, call->items, threads, (unsigned)shared);
}

static XLA_FFI_Error* norm(const Op* op, int gradient) {
  Call call = {0};
  TRY(read_x(op, 2 + gradient, 1, &call));
  TRY(read_result(op, 0, argument(op, 0), &call));
  TRY(read_bias(op, &call));
  if (gradient) TRY(read_argument(op, 2, argument(op, 0), &call.dy[0]));
  TRY(read_norm(op, &call));
  TRY(read_int(op, "rectify", 0, 1, &call.rectify_before));
  return launch_items(op, gradient ? NORM_BACKWARD : NORM_FORWARD, &call, call.rows, call.columns);
}

static XLA_FFI_Error* pool(const Op* op, int gradient) {
  Call call = {0};
  int operation = gradient ? POOL_BACKWARD : POOL_FORWARD;
  TRY(read_x(op, gradient ? 3 : 1, 1, &call));
  const XLA_FFI_Buffer* pooled = gradient ? argument(op, 1) : result(op);
  TRY(read_pool(op, pooled, &call, &operation));
  TRY(read_result(op, 0, gradient ? argument(op, 0) : pooled, &call));
  if (!gradient) return launch_items(op, operation, &call, call.out_rows, call.out_columns);
  TRY(read_argument(op, 1, pooled, &call.y[0]));
  TRY(read_argument(op, 2, pooled, &call.dy[0]));
  return launch_items(op, operation, &call, call.rows, call.columns);
}

static XLA_FFI_Error* norm_pool(const Op* op, int gradient) {
  Call call = {0};
  int groups = 1, operation = gradient ? NORM_POOL_BACKWARD : NORM_POOL_FORWARD, size = 0;
  TRY(read_int(op, "groups", 1, GROUPS, &groups));
  TRY(read_int(op, "size", 2, 3, &size));
  TRY(read_x(op, gradient ? 2 + 2 * groups : 2, gradient ? 1 : groups, &call));
  call.groups = groups;
  const XLA_FFI_Buffer* pooled = gradient ? argument(op, 2) : result(op);
  TRY(read_bias(op, &call));
  TRY(read_pool(op, pooled, &call, &operation));
  TRY(read_norm(op, &call));
  TRY(read_int(op, "rectify", 0, 1, &call.rectify_before));
  TRY(read_int(op, "rectify_pooled", 0, 1, &call.rectify_after));
  int vector;
  const int channels = call.channels / groups, type = type_of(op, channels, &vector);
  if (gradient) {
    TRY(read_result(op, 0, argument(op, 0), &call));
    for (int i = 0; i < groups; i++) {
      TRY(read_argument(op, 2 + i, pooled, &call.y[i]));
      TRY(read_argument(op, 2 + groups + i, pooled, &call.dy[i]));
    }
    const int vectors = call.channels / vector;
    call.chunk = vectors < THREADS ? THREADS / vectors : 1;
    const double pixels = (double)call.images * call.rows * call.columns;
    if (pixels > INT32_MAX) return INVALID(op, "%.0f pixels, expected at most %d", pixels, INT32_MAX);
    const double blocks = ((long)pixels + call.chunk - 1) / call.chunk;
    return launch_blocks(op, operation, type, &call, blocks, (double)call.chunk * vectors, THREADS,
                         call.chunk * (2.0 * call.channels * sizeof(float) + vectors * sizeof(unsigned)));
  }
  for (int i = 0; i < groups; i++) TRY(read_result(op, i, pooled, &call));
  const double row = (double)call.columns * channels * (type == F32 ? 4 : 2);
  call.chunk = call.out_rows < 4 ? call.out_rows : 4;  // rows of a block: more would leave too few blocks at work
  while (call.chunk > 1 && (2 * (call.chunk - 1) + size) * row > MOST_SHARED / 2) call.chunk--;
  const double strips = (call.out_rows + call.chunk - 1) / call.chunk, rows = 2 * (call.chunk - 1) + size;
  const double work = rows * call.columns * channels / vector;
  return launch_blocks(op, operation, type, &call, call.images * groups * strips, work, THREADS, rows * row);
}

static XLA_FFI_Error* spatial(const Op* op, int gradient) {
  Call call = {0};
  TRY(read_x(op, 1 + gradient, 1, &call));
  TRY(read_result(op, 0, argument(op, 0), &call));
  if (gradient) TRY(read_argument(op, 1, argument(op, 0), &call.dy[0]));
  TRY(read_norm(op, &call));
  TRY(read_int(op, "chunk", 4, INT16_MAX, &call.chunk));
  if (call.channels % call.chunk || (call.chunk != 4 && call.chunk != 8 && call.chunk != 16))
    return INVALID(op, "a chunk of %d channels, expected 4, 8 or 16, which divides %d", call.chunk, call.channels);
  int vector;
  const int type = type_of(op, call.chunk, &vector);
  const double numbers = (double)call.rows * call.columns * call.chunk;
  return launch_blocks(op, gradient ? SPATIAL_BACKWARD : SPATIAL_FORWARD, type, &call,
                       (double)call.images * (call.channels / call.chunk), numbers / vector, 512,
                       (1 + gradient) * numbers * sizeof(float));
}

// ---- entry points ---------------------------------------------------------------------------------------------------

#define DEFINE_PAIR(name, function)                                               \
  static XLA_FFI_Error* name##_forward(const Op* op) { return function(op, 0); }  \
  static XLA_FFI_Error* name##_backward(const Op* op) { return function(op, 1); } \
  DEFINE_OPERATION(cuda_##name, name##_forward)                                   \
  DEFINE_OPERATION(cuda_##name##_gradient, name##_backward)

DEFINE_PAIR(response_norm, norm)
DEFINE_PAIR(max_pool, pool)
DEFINE_PAIR(norm_pool, norm_pool)
DEFINE_PAIR(spatial_norm, spatial)
