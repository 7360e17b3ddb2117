#include "parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

XLA_FFI_Error* alloc_floats(const Op* op, long count, float** floats) {
  enum { ALIGNMENT = 64 };
  *floats = NULL;
  if (count <= LONG_MAX / (long)sizeof(float) - ALIGNMENT)
    *floats = aligned_alloc(ALIGNMENT, max(ALIGNMENT, round_up(count * sizeof(float), ALIGNMENT)));
  if (*floats) return NULL;
  return make_error(op, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "no memory for %ld floats", count);
}

// Lives until the last thread has left it: XLA may start a task after all items are computed.
typedef struct {
  ItemFunction* function;
  const void* call;
  long items;
  atomic_long next_item, items_done;
  atomic_int next_thread, references;
  pthread_mutex_t lock;
  pthread_cond_t all_done;
  float* scratch[];  // by thread, in the order in which threads come
} Work;

static void release(Work* work) {
  if (atomic_fetch_sub(&work->references, 1) > 1) return;
  pthread_mutex_destroy(&work->lock);
  pthread_cond_destroy(&work->all_done);
  free(work);
}

// Computes items until none is left. A thread that comes later finds none, and touches no scratch.
static void run_items(void* data) {
  Work* work = data;
  float* scratch = NULL;
  for (long item; (item = atomic_fetch_add(&work->next_item, 1)) < work->items;) {
    if (!scratch) scratch = work->scratch[atomic_fetch_add(&work->next_thread, 1)];
    work->function(work->call, item, scratch);
    if (atomic_fetch_add(&work->items_done, 1) + 1 == work->items) {
      pthread_mutex_lock(&work->lock);
      pthread_cond_broadcast(&work->all_done);
      pthread_mutex_unlock(&work->lock);
    }
  }
  release(work);
}

static long thread_count(const Op* op) {
  int64_t threads = 1;
  XLA_FFI_ThreadPool_NumThreads_Args args = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, op->frame->ctx,
                                             &threads};
  if (discard_error(op->frame, op->frame->api->XLA_FFI_ThreadPool_NumThreads(&args))) return 1;
  return max(1, threads);
}

XLA_FFI_Error* parallel_for(const Op* op, ItemFunction* function, const void* call, long items, long scratch) {
  const long threads = min(thread_count(op), items);
  if (items <= 0) return NULL;
  Work* work = calloc(1, sizeof *work + threads * sizeof *work->scratch);
  if (!work) return make_error(op, XLA_FFI_Error_Code_RESOURCE_EXHAUSTED, "no memory for %ld threads", threads);
  XLA_FFI_Error* error = NULL;
  for (long i = 0; i < threads && !error; i++) error = alloc_floats(op, scratch, &work->scratch[i]);
  if (!error) {
    work->function = function, work->call = call, work->items = items;
    pthread_mutex_init(&work->lock, NULL);
    pthread_cond_init(&work->all_done, NULL);
    atomic_store(&work->references, 2);  // of this function, and of its call of run_items
    for (long i = 1; i < threads; i++) {
      atomic_fetch_add(&work->references, 1);
      XLA_FFI_ThreadPool_Schedule_Args task = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, op->frame->ctx,
                                               run_items, work};
      if (discard_error(op->frame, op->frame->api->XLA_FFI_ThreadPool_Schedule(&task))) release(work);
    }
    run_items(work);
    pthread_mutex_lock(&work->lock);
    while (atomic_load(&work->items_done) < items) pthread_cond_wait(&work->all_done, &work->lock);
    pthread_mutex_unlock(&work->lock);
  }
  for (long i = 0; i < threads; i++) free(work->scratch[i]);
  if (error)
    free(work);
  else
    release(work);
  return error;
}
