// Between XLA and the operations of this folder: a call's buffers and attributes, and work shared out among XLA's
// threads.

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long most(long a, long b) { return a > b ? a : b; }
static inline long round_up(long n, long unit) { return (n + unit - 1) / unit * unit; }

// One item of a call's work; `scratch` is the thread's own, and holds anything at first.
typedef void Kernel(const void* call, long item, float* scratch);

typedef struct {
  const void* call;
  Kernel* kernel;
  long items, scratch;  // floats
  atomic_long next, done;
  atomic_int holders;
  pthread_mutex_t lock;
  pthread_cond_t finished;
} Work;

static inline void* found(void* memory) {
  if (memory) return memory;
  fputs("alexnet_jax: the machine has no memory left\n", stderr);
  abort();
}

static inline float* floats(long count) { return found(aligned_alloc(64, round_up(count * sizeof(float) + 1, 64))); }

static inline void let_go(Work* work) {
  if (atomic_fetch_sub(&work->holders, 1) > 1) return;
  pthread_mutex_destroy(&work->lock);
  pthread_cond_destroy(&work->finished);
  free(work);
}

// Takes items until none is left. A thread that comes after that finds nothing to do.
static inline void take_items(void* data) {
  Work* work = data;
  float* scratch = NULL;
  for (long item; (item = atomic_fetch_add(&work->next, 1)) < work->items;) {
    if (!scratch) scratch = floats(work->scratch);
    work->kernel(work->call, item, scratch);
    if (atomic_fetch_add(&work->done, 1) + 1 == work->items) {
      pthread_mutex_lock(&work->lock);
      pthread_cond_broadcast(&work->finished);
      pthread_mutex_unlock(&work->lock);
    }
  }
  free(scratch);
  let_go(work);
}

static inline int failed(const XLA_FFI_CallFrame* frame, XLA_FFI_Error* error) {
  if (!error) return 0;
  XLA_FFI_Error_Destroy_Args args = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
  frame->api->XLA_FFI_Error_Destroy(&args);
  return 1;
}

// Has the kernel do items 0 to items - 1. The caller works as well and waits for those items alone that another thread
// is at, so it never waits for a thread to be free.
static inline void share_out(const XLA_FFI_CallFrame* frame, Kernel* kernel, const void* call, long items,
                             long scratch) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args count = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx,
                                              &threads};
  if (failed(frame, frame->api->XLA_FFI_ThreadPool_NumThreads(&count))) threads = 1;
  Work* work = found(calloc(1, sizeof *work));
  work->call = call, work->kernel = kernel, work->items = items, work->scratch = scratch;
  pthread_mutex_init(&work->lock, NULL);
  pthread_cond_init(&work->finished, NULL);
  atomic_store(&work->holders, 2);  // this function, and its own call of take_items
  for (long i = 1; i < least(threads, items); i++) {
    atomic_fetch_add(&work->holders, 1);
    XLA_FFI_ThreadPool_Schedule_Args task = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, take_items,
                                             work};
    if (failed(frame, frame->api->XLA_FFI_ThreadPool_Schedule(&task))) let_go(work);
  }
  take_items(work);
  pthread_mutex_lock(&work->lock);
  while (atomic_load(&work->done) < items) pthread_cond_wait(&work->finished, &work->lock);
  pthread_mutex_unlock(&work->lock);
  let_go(work);
}

static inline const XLA_FFI_Buffer* input(const XLA_FFI_CallFrame* frame, long i) { return frame->args.args[i]; }
static inline const XLA_FFI_Buffer* output(const XLA_FFI_CallFrame* frame) { return frame->rets.rets[0]; }
// The size of a dimension, counted from the last one; -1 is the last.
static inline long dim(const XLA_FFI_Buffer* buffer, long i) { return buffer->dims[buffer->rank + i]; }

// Attributes, 0 where an operation is given none of that name: whole numbers are int64, others float.
static inline const void* attribute(const XLA_FFI_CallFrame* frame, const char* name) {
  static const int64_t nothing = 0;
  for (long i = 0; i < frame->attrs.size; i++) {
    const XLA_FFI_ByteSpan* own = frame->attrs.names[i];
    if (own->len == strlen(name) && !memcmp(own->ptr, name, own->len))
      return ((const XLA_FFI_Scalar*)frame->attrs.attrs[i])->value;
  }
  return &nothing;
}

static inline long whole(const XLA_FFI_CallFrame* frame, const char* name) {
  return *(const int64_t*)attribute(frame, name);
}

static inline float real(const XLA_FFI_CallFrame* frame, const char* name) {
  float value;
  memcpy(&value, attribute(frame, name), sizeof value);
  return value;
}

// XLA asks for the version of its interface before anything else.
static inline int asked_for_version(const XLA_FFI_CallFrame* frame) {
  if (!frame->extension_start || frame->extension_start->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata* metadata = ((XLA_FFI_Metadata_Extension*)frame->extension_start)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

// Makes XLA's entry point `serve_NAME` of a call `function`, to which the `frame` is known.
#define SERVE(name, function)                             \
  XLA_FFI_Error* serve_##name(XLA_FFI_CallFrame* frame) { \
    if (!asked_for_version(frame)) function;              \
    return NULL;                                          \
  }
