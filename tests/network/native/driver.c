// Runs the operations without XLA, for sanitizers and other processors: a call frame, a thread pool and random calls.
//
// driver values SEED CALLS   results against loops in double precision
// driver faults SEED CALLS   calls with a wrong argument, attribute or result, and calls without enough memory
//
// The operations are compiled with -Daligned_alloc=test_aligned_alloc and -Dcalloc=test_calloc, like this file.

#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xla/ffi/api/c_api.h"

static void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  vfprintf(stderr, format, values);
  va_end(values);
  fputs("\n", stderr);
  exit(1);
}

static unsigned long long random_state;

static long random_between(long low, long high) {  // Knuth's MMIX generator, the same everywhere
  random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
  return low + (long)((random_state >> 33) % (unsigned long long)(high - low + 1));
}

static double random_normal(void) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += random_between(0, 1 << 20) / (double)(1 << 20);
  return sum;
}

// ---- memory --------------------------------------------------------------------------------------------------------

static atomic_long allocations;
static long failing_allocation = -1;

static int refused(size_t size) { return atomic_fetch_add(&allocations, 1) == failing_allocation || size > 1L << 30; }

void* test_aligned_alloc(size_t alignment, size_t size) {
  void* memory = NULL;
  if (refused(size) || posix_memalign(&memory, alignment, size)) return NULL;
  return memset(memory, 0xff, size);  // NaN, so that a float which nobody has set shows in the result
}

void* test_calloc(size_t count, size_t size) {
  if (refused(count * size)) return NULL;
  void* memory = malloc(count * size);
  return memset(memory, 0, count * size);
}

// ---- XLA's interface -----------------------------------------------------------------------------------------------

struct XLA_FFI_Error {
  XLA_FFI_Error_Code code;
  char message[600];
};

static XLA_FFI_Error* create_error(XLA_FFI_Error_Create_Args* args) {
  XLA_FFI_Error* error = malloc(sizeof *error);
  error->code = args->errc;
  snprintf(error->message, sizeof error->message, "%s", args->message);
  return error;
}

static void destroy_error(XLA_FFI_Error_Destroy_Args* args) { free(args->error); }

// A pool whose threads are late and sometimes refuse a task.
enum { POOL = 3, QUEUE = 4096 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct {
  XLA_FFI_Task* task;
  void* data;
  long delay;
} queue[QUEUE];
static long queued, begun, ended;
static int closing;

static void* run_tasks(void* unused) {
  (void)unused;
  pthread_mutex_lock(&lock);
  while (1) {
    while (begun == queued && !closing) pthread_cond_wait(&changed, &lock);
    if (begun == queued) break;
    const long i = begun++ % QUEUE;
    XLA_FFI_Task* task = queue[i].task;
    void* data = queue[i].data;
    const long delay = queue[i].delay;
    pthread_mutex_unlock(&lock);
    if (delay) usleep(delay);
    task(data);
    pthread_mutex_lock(&lock);
    ended++;
    pthread_cond_broadcast(&changed);
  }
  pthread_mutex_unlock(&lock);
  return NULL;
}

static XLA_FFI_Error* make_error(const char* message) {
  XLA_FFI_Error_Create_Args args = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, message,
                                    XLA_FFI_Error_Code_UNAVAILABLE};
  return create_error(&args);
}

static XLA_FFI_Error* schedule(XLA_FFI_ThreadPool_Schedule_Args* args) {
  if (random_between(0, 15) == 0) return make_error("the queue is full");
  pthread_mutex_lock(&lock);
  while (queued - ended >= QUEUE) pthread_cond_wait(&changed, &lock);
  queue[queued % QUEUE].task = args->task;
  queue[queued % QUEUE].data = args->data;
  queue[queued++ % QUEUE].delay = random_between(0, 3) ? 0 : random_between(0, 300);
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return NULL;
}

static XLA_FFI_Error* count_threads(XLA_FFI_ThreadPool_NumThreads_Args* args) {
  if (random_between(0, 15) == 0) return make_error("there is no pool");
  *args->num_threads = random_between(1, POOL + 2);
  return NULL;
}

static XLA_FFI_Api api = {.struct_size = XLA_FFI_Api_STRUCT_SIZE,
                          .XLA_FFI_Error_Create = create_error,
                          .XLA_FFI_Error_Destroy = destroy_error,
                          .XLA_FFI_ThreadPool_Schedule = schedule,
                          .XLA_FFI_ThreadPool_NumThreads = count_threads};

// ---- calls ---------------------------------------------------------------------------------------------------------

#define OPERATIONS(apply)                                                                                             \
  apply(response_norm) apply(response_norm_gradient) apply(spatial_norm) apply(spatial_norm_gradient) apply(max_pool) \
      apply(max_pool_gradient) apply(norm_pool) apply(norm_pool_gradient) apply(convolution)                          \
          apply(convolution_input_gradient) apply(convolution_kernel_gradient)
#define DECLARE(name) XLA_FFI_Error* alexnet_jax_##name(XLA_FFI_CallFrame*);
#define LIST(name) {"alexnet_jax_" #name, alexnet_jax_##name},
#define NAME(name) name,
OPERATIONS(DECLARE)
enum { OPERATIONS(NAME) COUNT };
static const struct {
  const char* name;
  XLA_FFI_Handler* handler;
} operations[] = {OPERATIONS(LIST)};

typedef struct {
  XLA_FFI_Buffer buffer;
  int64_t dims[5];
} Array;

typedef struct {
  const char* name;
  XLA_FFI_DataType dtype;
  int64_t integer;
  float real;
} Attribute;

typedef struct {
  int operation;
  long arguments, attributes;
  Array args[4], out;
  Attribute attrs[7];
} Call;

static Array shape(long a, long b, long c, long d) {
  return (Array){{.struct_size = XLA_FFI_Buffer_STRUCT_SIZE, .dtype = XLA_FFI_DataType_F32, .rank = 4},
                 {a, b, c, d, 1}};
}

static long count(const Array* array) {
  for (int i = 0; i < 4; i++)
    if (array->dims[i] <= 0) return 0;
  long product = 1;
  for (int i = 0; i < 4; i++) product *= array->dims[i];
  return product;
}

static float* data(const Array* array) { return array->buffer.data; }

static Attribute integer(const char* name, long value) { return (Attribute){name, XLA_FFI_DataType_S64, value, 0}; }
static Attribute real(const char* name, float value) { return (Attribute){name, XLA_FFI_DataType_F32, 0, value}; }

static void draw_norm(Call* call) {
  call->attrs[call->attributes++] = integer("size", 2 * random_between(0, 4) + 1);
  call->attrs[call->attributes++] = real("k", 2);
  call->attrs[call->attributes++] = real("alpha", 0.01f);
}

// A call of random geometry. `levels`: numbers of few values, so that maxima are tied.
static Call draw_call(int operation) {
  const long batch = random_between(1, 9), rows = random_between(1, 18), columns = random_between(1, 18);
  const long channels = random_between(0, 9) ? random_between(1, 40) : random_between(41, 150);
  Call call = {.operation = operation, .arguments = 1};
  if (operation <= spatial_norm_gradient) {
    const int gradient = operation == response_norm_gradient || operation == spatial_norm_gradient;
    const long wide = random_between(0, 9) ? channels : 1700;  // more channels than a block has
    call.args[0] = call.args[1] = call.out = shape(wide > 200 ? 1 : batch, rows, wide > 200 ? 2 : columns, wide);
    call.arguments = gradient ? 2 : 1;
    draw_norm(&call);
  } else if (operation <= norm_pool_gradient) {
    const int block = operation >= norm_pool;
    const long size = random_between(1, 4), stride = random_between(1, 4);
    const long high = rows + size, wide = columns + size;
    const Array x = shape(batch, high, wide, channels);
    const Array y =
        shape(batch, 1 + (high - size + stride - 1) / stride, 1 + (wide - size + stride - 1) / stride, channels);
    call.args[0] = call.out = x;
    if (block) call.args[call.arguments++] = shape(1, 1, 1, channels);
    if (operation == max_pool_gradient || operation == norm_pool_gradient)
      call.args[call.arguments] = call.args[call.arguments + 1] = y, call.arguments += 2;
    else
      call.out = y;
    if (block) draw_norm(&call);
    call.attrs[call.attributes++] = integer(block ? "pool_size" : "size", size);
    call.attrs[call.attributes++] = integer(block ? "pool_stride" : "stride", stride);
    if (block) {
      call.attrs[call.attributes++] = integer("rectify", random_between(0, 1));
      call.attrs[call.attributes++] = integer("rectify_pooled", random_between(0, 1));
    }
  } else {
    const long maps = random_between(0, 9) ? random_between(1, 50) : random_between(51, 120);
    const int input = operation == convolution_input_gradient;
    const long stride = input || random_between(0, 1) ? 1 : random_between(2, 4);
    const long most = stride > 1 ? 256 / (stride * stride) : channels, depth = channels < most ? channels : most;
    // Of 3 or 5 pixels, or of as many blocks of `stride` pixels, the last of which may reach past the window.
    const long size = stride * (2 * random_between(1, 2) + 1) - random_between(0, stride - 1);
    const long pad = random_between(0, size - 1);
    // `after` rows and columns of zeros lie after the image, or some of the image is left out.
    const long after = random_between(-1, size);
    const long high = rows + 2 * size, wide = columns + 2 * size;
    const Array x = shape(batch, high, wide, depth), kernel = shape(size, size, depth, maps);
    const Array y =
        shape(batch, (high + pad + after - size) / stride + 1, (wide + pad + after - size) / stride + 1, maps);
    call.args[0] = input ? y : x;
    call.args[1] = operation == convolution_kernel_gradient ? y : kernel;
    call.out = operation == convolution ? y : input ? x : kernel;
    call.arguments = 2;
    call.attrs[0] = integer("pad", pad);
    call.attrs[1] = integer("stride", stride);
    call.attributes = input ? 1 : 2;
  }
  return call;
}

static void allocate(Array* array, int levels) {
  const long n = count(array);
  float* values = malloc(n ? n * sizeof *values : 1);
  for (long i = 0; i < n; i++) values[i] = levels ? random_between(0, levels - 1) - 1 : (float)random_normal();
  array->buffer.data = values;
}

static void free_call(Call* call) {
  for (long i = 0; i < call->arguments; i++) free(call->args[i].buffer.data);
  free(call->out.buffer.data);
}

static XLA_FFI_Error* run(Call* call) {
  void *args[4], *rets[1] = {&call->out.buffer}, *attrs[7];
  XLA_FFI_ArgType arg_types[4];
  XLA_FFI_RetType ret_types[1] = {XLA_FFI_RetType_BUFFER};
  XLA_FFI_AttrType attr_types[7];
  XLA_FFI_ByteSpan spans[7], *names[7];
  XLA_FFI_Scalar scalars[7];
  for (long i = 0; i < call->arguments; i++) {
    args[i] = &call->args[i].buffer, arg_types[i] = XLA_FFI_ArgType_BUFFER;
    call->args[i].buffer.dims = call->args[i].dims;
  }
  call->out.buffer.dims = call->out.dims;
  for (long i = 0; i < call->attributes; i++) {
    Attribute* attr = &call->attrs[i];
    spans[i] = (XLA_FFI_ByteSpan){attr->name, strlen(attr->name)}, names[i] = &spans[i];
    scalars[i] =
        (XLA_FFI_Scalar){attr->dtype, attr->dtype == XLA_FFI_DataType_F32 ? (void*)&attr->real : (void*)&attr->integer};
    attrs[i] = &scalars[i], attr_types[i] = XLA_FFI_AttrType_SCALAR;
  }
  XLA_FFI_CallFrame frame = {
      .struct_size = XLA_FFI_CallFrame_STRUCT_SIZE,
      .api = &api,
      .stage = XLA_FFI_ExecutionStage_EXECUTE,
      .args = {XLA_FFI_Args_STRUCT_SIZE, NULL, call->arguments, arg_types, args},
      .rets = {XLA_FFI_Rets_STRUCT_SIZE, NULL, 1, ret_types, rets},
      .attrs = {XLA_FFI_Attrs_STRUCT_SIZE, NULL, call->attributes, attr_types, names, attrs},
  };
  return operations[call->operation].handler(&frame);
}

static void describe(const Call* call) {
  fprintf(stderr, "%s", operations[call->operation].name);
  for (long i = 0; i <= call->arguments; i++) {
    const int64_t* dims = (i < call->arguments ? &call->args[i] : &call->out)->dims;
    fprintf(stderr, " %s[%lld, %lld, %lld, %lld]", i < call->arguments ? "" : "-> ", (long long)dims[0],
            (long long)dims[1], (long long)dims[2], (long long)dims[3]);
  }
  for (long i = 0; i < call->attributes; i++)
    fprintf(stderr, " %s=%g", call->attrs[i].name, call->attrs[i].integer + (double)call->attrs[i].real);
  fputs("\n", stderr);
}

// ---- the formulas, in double ---------------------------------------------------------------------------------------

#define EACH(i, n) for (long i = 0; i < (n); i++)
static long at(const Array* a, long b, long h, long w, long c) {
  return ((b * a->dims[1] + h) * a->dims[2] + w) * a->dims[3] + c;
}

// Sums values of x's shape over a norm's window around each element.
static void window_sums(const Call* call, const double* values, double* sums) {
  const Array* x = &call->args[0];
  const long half = call->attrs[0].integer / 2;
  const int spatial = call->operation >= spatial_norm;
  EACH(b, x->dims[0]) EACH(h, x->dims[1]) EACH(w, x->dims[2]) EACH(c, x->dims[3]) {
    double sum = 0;
    if (spatial) {
      for (long i = h - half; i <= h + half; i++)
        for (long j = w - half; j <= w + half; j++)
          if (i >= 0 && i < x->dims[1] && j >= 0 && j < x->dims[2]) sum += values[at(x, b, i, j, c)];
    } else {
      for (long i = c - half; i <= c + half; i++)
        if (i >= 0 && i < x->dims[3]) sum += values[at(x, b, h, w, i)];
    }
    sums[at(x, b, h, w, c)] = sum;
  }
}

static void norm_reference(const Call* call, double* out) {
  const Array* x = &call->args[0];
  const long n = count(x);
  const double k = call->attrs[1].real, alpha = call->attrs[2].real, beta = 0.75;
  double *values = calloc(n, sizeof *values), *d = malloc(n * sizeof *d), *sums = malloc(n * sizeof *sums);
  EACH(i, n) values[i] = (double)data(x)[i] * data(x)[i];
  window_sums(call, values, sums);
  EACH(i, n) d[i] = k + alpha * sums[i];
  if (call->arguments == 1) {
    EACH(i, n) out[i] = data(x)[i] * pow(d[i], -beta);
  } else {
    const float* dy = data(&call->args[1]);
    EACH(i, n) values[i] = (double)dy[i] * data(x)[i] * pow(d[i], -beta - 1);
    window_sums(call, values, sums);
    EACH(i, n) out[i] = dy[i] * pow(d[i], -beta) - 2 * alpha * beta * data(x)[i] * sums[i];
  }
  free(values), free(d), free(sums);
}

static void pool_reference(const Call* call, double* out) {
  const int gradient = call->operation == max_pool_gradient;
  const Array *x = &call->args[0], *y = gradient ? &call->args[1] : &call->out;
  const long size = call->attrs[0].integer, stride = call->attrs[1].integer;
  EACH(b, y->dims[0]) EACH(h, y->dims[1]) EACH(w, y->dims[2]) EACH(c, y->dims[3]) {
    float maximum = -3.402823466e38f;
    for (int pass = 0; pass <= gradient; pass++)
      for (long i = h * stride; i < h * stride + size && i < x->dims[1]; i++)
        for (long j = w * stride; j < w * stride + size && j < x->dims[2]; j++) {
          const long pixel = at(x, b, i, j, c);
          if (pass == 0 && data(x)[pixel] > maximum) maximum = data(x)[pixel];
          if (pass == 1 && data(x)[pixel] == maximum) out[pixel] += data(&call->args[2])[at(y, b, h, w, c)];
        }
    if (!gradient) out[at(y, b, h, w, c)] = maximum;
  }
}

// The norm that decides which pixel of a window is the largest is the operation's own, whose numbers are rounded alike.
static void norm_pool_reference(const Call* call, double* out) {
  const Array* x = &call->args[0];
  const Attribute* attrs = call->attrs;
  const long n = count(x), rectify = attrs[5].integer, rectify_pooled = attrs[6].integer;
  Call norm = {.operation = response_norm, .arguments = 1, .attributes = 3, .args = {*x, *x}, .out = *x};
  memcpy(norm.attrs, attrs, 3 * sizeof *attrs);
  allocate(&norm.args[0], 0), allocate(&norm.args[1], 0), allocate(&norm.out, 0);
  float *biased = data(&norm.args[0]), *gradient = data(&norm.args[1]);
  EACH(i, n) {
    biased[i] = data(x)[i] + data(&call->args[1])[i % x->dims[3]];
    if (rectify && biased[i] < 0) biased[i] = 0;
  }
  XLA_FFI_Error* error = run(&norm);
  if (error) fail("%s", error->message);
  Call pool = {.operation = max_pool, .arguments = 1, .attributes = 2, .args = {norm.out}, .out = call->out};
  pool.attrs[0] = integer("size", attrs[3].integer), pool.attrs[1] = integer("stride", attrs[4].integer);
  if (call->operation == norm_pool) {
    pool_reference(&pool, out);
    EACH(i, count(&call->out)) if (rectify_pooled && out[i] < 0) out[i] = 0;
  } else {
    const Array *y = &call->args[2], *dy = &call->args[3];
    pool.operation = max_pool_gradient, pool.args[1] = *y, pool.args[2] = *dy;
    allocate(&pool.args[2], 0);
    EACH(i, count(y)) data(&pool.args[2])[i] = rectify_pooled && data(y)[i] == 0 ? 0 : data(dy)[i];
    double* of_norm = calloc(n, sizeof *of_norm);
    pool_reference(&pool, of_norm);
    EACH(i, n) gradient[i] = (float)of_norm[i];
    norm.operation = response_norm_gradient, norm.arguments = 2;
    norm_reference(&norm, out);
    EACH(i, n) if (rectify && biased[i] == 0) out[i] = 0;
    free(of_norm), free(data(&pool.args[2]));
  }
  free(biased), free(gradient), free(data(&norm.out));
}

static void convolution_reference(const Call* call, double* out) {
  const int input = call->operation == convolution_input_gradient;
  const int of_kernel = call->operation == convolution_kernel_gradient;
  const Array* x = input ? &call->out : &call->args[0];
  const Array* kernel = of_kernel ? &call->out : &call->args[1];
  const Array* y = input ? &call->args[0] : of_kernel ? &call->args[1] : &call->out;
  const long pad = call->attrs[0].integer, stride = input ? 1 : call->attrs[1].integer;
  EACH(b, y->dims[0]) EACH(h, y->dims[1]) EACH(w, y->dims[2]) EACH(i, kernel->dims[0]) EACH(j, kernel->dims[1]) {
    const long row = h * stride + i - pad, column = w * stride + j - pad;
    if (row < 0 || row >= x->dims[1] || column < 0 || column >= x->dims[2]) continue;
    EACH(c, x->dims[3]) EACH(n, y->dims[3]) {
      const long xi = at(x, b, row, column, c), ki = at(kernel, i, j, c, n), yi = at(y, b, h, w, n);
      if (input)
        out[xi] += (double)data(kernel)[ki] * data(y)[yi];
      else if (of_kernel)
        out[ki] += (double)data(x)[xi] * data(y)[yi];
      else
        out[yi] += (double)data(x)[xi] * data(kernel)[ki];
    }
  }
}

static void check_values(int operation) {
  Call call = draw_call(operation);
  const long work = count(&call.args[0]) * (operation >= convolution ? call.out.dims[3] : 1);
  if (work > 150000) call.args[0].dims[0] = 1;  // a batch of one image, in every array that has a batch
  if (work > 150000 && operation != convolution_kernel_gradient) call.out.dims[0] = 1;
  if (work > 150000 && operation != convolution && operation != convolution_input_gradient)
    call.args[1].dims[0] = call.args[2].dims[0] = call.args[3].dims[0] = 1;
  const int levels = operation >= max_pool && operation <= norm_pool_gradient && random_between(0, 1) ? 3 : 0;
  for (long i = 0; i < call.arguments; i++) allocate(&call.args[i], i == 0 ? levels : 0);
  allocate(&call.out, 0);
  if (operation == max_pool_gradient) {  // y is the maximum
    Call forward = call;
    forward.operation = max_pool, forward.arguments = 1, forward.out = call.args[1];
    double* y = calloc(count(&forward.out), sizeof *y);
    pool_reference(&forward, y);
    EACH(i, count(&forward.out)) data(&forward.out)[i] = (float)y[i];
    free(y);
  }
  if (operation == norm_pool_gradient) {  // y is what the block gives
    Call forward = call;
    forward.operation = norm_pool, forward.arguments = 2, forward.out = call.args[2];
    XLA_FFI_Error* error = run(&forward);
    if (error) describe(&forward), fail("%s", error->message);
  }
  const long n = count(&call.out);
  memset(data(&call.out), 0xff, n * sizeof(float));
  double* expected = calloc(n, sizeof *expected);
  if (operation <= spatial_norm_gradient)
    norm_reference(&call, expected);
  else if (operation <= max_pool_gradient)
    pool_reference(&call, expected);
  else if (operation <= norm_pool_gradient)
    norm_pool_reference(&call, expected);
  else
    convolution_reference(&call, expected);
  XLA_FFI_Error* error = run(&call);
  if (error) describe(&call), fail("%s", error->message);
  double difference = 0, size = 0;
  EACH(i, n) {
    if (!isfinite(data(&call.out)[i])) describe(&call), fail("element %ld is not finite", i);
    difference += pow(data(&call.out)[i] - expected[i], 2), size += pow(expected[i], 2);
  }
  const double tolerance = operation >= convolution ? 5e-6 : 1e-6;
  if (sqrt(difference) > tolerance * sqrt(size))
    describe(&call), fail("relative error %g, expected at most %g", sqrt(difference / size), tolerance);
  free(expected);
  free_call(&call);
}

// ---- faults --------------------------------------------------------------------------------------------------------

// Runs a call whose arrays have their own memory each. Whether it failed, with an error that names the operation.
static int fails(Call* call, XLA_FFI_Error_Code expected) {
  for (long i = 0; i < call->arguments; i++) allocate(&call->args[i], 0);
  allocate(&call->out, 0);
  XLA_FFI_Error* error = run(call);
  if (error) {
    const char* name = operations[call->operation].name;
    const size_t length = strlen(name);
    if (strncmp(error->message, name, length) || strncmp(error->message + length, ": ", 2))
      fail("an error does not name %s: %s", name, error->message);
    if (error->code != expected && error->code != XLA_FFI_Error_Code_RESOURCE_EXHAUSTED)
      fail("code %d, expected %d: %s", error->code, expected, error->message);
  }
  const int failed = error != NULL;
  free(error);
  free_call(call);
  return failed;
}

static void expect_error(Call call, const char* fault, long i) {
  if (!fails(&call, XLA_FFI_Error_Code_INVALID_ARGUMENT)) describe(&call), fail("no error for %s %ld", fault, i);
}

// Whether an axis of the i-th array, the result being the last, may have sizes that do not follow from other arrays.
static int is_free(int operation, long i, int axis) {
  if (axis == 0 || axis == 3 || operation == max_pool_gradient) return 0;
  if (operation == norm_pool_gradient) return 0;
  if (operation == max_pool || operation == norm_pool) return i == 0;  // windows may hang over
  return operation >= convolution && i != (operation == convolution_kernel_gradient ? 2 : 1);
}

static void check_faults(int operation) {
  const Call call = draw_call(operation);
  Call wrong;
  for (long i = 0; i <= call.arguments; i++) {
#define WRONG (wrong = call, i < call.arguments ? &wrong.args[i] : &wrong.out)
    Array* array = WRONG;
    array->buffer.dtype = XLA_FFI_DataType_F64;
    expect_error(wrong, "data type of array", i);
    array = WRONG;
    array->buffer.rank = 3;
    expect_error(wrong, "rank of array", i);
    array = WRONG;
    array->buffer.rank = 5;
    expect_error(wrong, "rank of array", i);
    for (int axis = 0; axis < 4; axis++) {
      for (long change = -1; change <= 1; change += 2) {
        array = WRONG;
        array->dims[axis] += change;
        if (!fails(&wrong, XLA_FFI_Error_Code_INVALID_ARGUMENT) && !is_free(operation, i, axis))
          describe(&wrong), fail("no error for axis %d of array %ld", axis, i);
      }
      array = WRONG;
      array->dims[axis] = 0;
      fails(&wrong, XLA_FFI_Error_Code_INVALID_ARGUMENT);
      array = WRONG;
      array->dims[axis] = -1;
      expect_error(wrong, "a negative dimension of array", i);
      array = WRONG;
      array->dims[axis] = 1L << 40, array->dims[(axis + 1) % 4] = 0;
      expect_error(wrong, "a large dimension of array", i);
    }
  }
  for (long i = 0; i < call.arguments; i++) {  // all of a batch, or all channels
    wrong = call;
    for (int axis = 0; axis < 4; axis++) wrong.args[i].dims[axis] = 0;
    fails(&wrong, XLA_FFI_Error_Code_INVALID_ARGUMENT);
  }
  wrong = call;
  for (long i = 0; i < call.arguments; i++) wrong.args[i].dims[0] = 0;
  wrong.out.dims[0] = 0;
  fails(&wrong, XLA_FFI_Error_Code_INVALID_ARGUMENT);
  wrong = call;
  wrong.arguments--;
  expect_error(wrong, "arguments", call.arguments - 1);
  for (long i = 0; i < call.attributes; i++) {
    wrong = call;
    wrong.attrs[i].name = "other";
    expect_error(wrong, "a missing attribute", i);
    wrong = call;
    wrong.attrs[i].dtype = XLA_FFI_DataType_S32;
    expect_error(wrong, "the type of attribute", i);
    if (call.attrs[i].dtype == XLA_FFI_DataType_F32) continue;
    const int64_t values[] = {INT64_MIN, -1, INT64_MAX, 1L << 32};
    for (int j = 0; j < 4; j++) {
      wrong = call;
      wrong.attrs[i].integer = values[j];
      expect_error(wrong, "the value of attribute", i);
    }
    const int64_t legal[] = {0, 1, 2, 3, 7, INT32_MAX};  // for some operations
    for (int j = 0; j < 6; j++) {
      wrong = call;
      wrong.attrs[i].integer = legal[j];
      const int failed = fails(&wrong, XLA_FFI_Error_Code_INVALID_ARGUMENT);
      const int may_be_0 = !strcmp(call.attrs[i].name, "pad") || !strncmp(call.attrs[i].name, "rectify", 7);
      if (!failed && !may_be_0 && legal[j] == 0) describe(&wrong), fail("no error for 0");
      if (!failed && operation <= spatial_norm_gradient && legal[j] == 2) describe(&wrong), fail("no error for 2");
    }
  }
}

// Refuses the first allocation of a call, then the second one, and so on, until the call has all that it needs.
static void check_memory(int operation) {
  const Call call = draw_call(operation);
  for (long i = 0;; i++) {
    Call tried = call;
    const unsigned long long state = random_state;
    for (long j = 0; j < tried.arguments; j++) allocate(&tried.args[j], 0);
    allocate(&tried.out, 0);
    atomic_store(&allocations, 0);
    failing_allocation = i;
    XLA_FFI_Error* error = run(&tried);
    failing_allocation = -1;
    if (error && (error->code != XLA_FFI_Error_Code_RESOURCE_EXHAUSTED || !strstr(error->message, "no memory")))
      describe(&tried), fail("code %d: %s", error->code, error->message);
    free_call(&tried);
    const long made = atomic_load(&allocations);
    if (!error && made > i) describe(&call), fail("no error without allocation %ld of %ld", i, made);
    free(error);
    if (made <= i) return;
    random_state = state;  // the same number of threads
  }
}

int main(int arguments, char** argument) {
  if (arguments != 4) fail("usage: driver values|faults SEED CALLS");
  const int values = !strcmp(argument[1], "values");
  random_state = strtoull(argument[2], NULL, 10);
  const long calls = atol(argument[3]);
  pthread_t threads[POOL];
  for (int i = 0; i < POOL; i++)
    if (pthread_create(&threads[i], NULL, run_tasks, NULL)) fail("no thread");
  for (long i = 0; i < calls; i++)
    for (int operation = 0; operation < COUNT; operation++) {
      if (values)
        check_values(operation);
      else
        check_faults(operation), check_memory(operation);
    }
  pthread_mutex_lock(&lock);
  closing = 1;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  for (int i = 0; i < POOL; i++) pthread_join(threads[i], NULL);
  printf("%ld calls of each of %d operations\n", calls, COUNT);
  return 0;
}
