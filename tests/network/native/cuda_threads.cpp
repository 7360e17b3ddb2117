// The CUDA kernels whose threads work together, with threads: a sanitizer finds what two of them touch at once.
//
// Each kernel runs block by block, first with one thread and then with several; the results are the same bytes.

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

static unsigned threads;
static thread_local unsigned thread;
static pthread_barrier_t barrier;

#define FOR_THREADS(i, n) for (unsigned i = thread; i < (unsigned)(n); i += threads)
#define SYNCHRONIZE() pthread_barrier_wait(&barrier)

#include "kernels.cu"

namespace {
typedef void Block(const Call&, unsigned item, float* shared);

enum { SEVERAL = 5, IMAGES = 2, ROWS = 7, COLUMNS = 6, CHANNELS = 32, NUMBERS = IMAGES * ROWS * COLUMNS * CHANNELS };

struct Work {
  Block* block;
  const Call* call;
  float* shared;
  unsigned thread;
};

void* run_thread(void* argument) {
  const Work* work = (const Work*)argument;
  thread = work->thread;
  for (unsigned item = 0; item < work->call->items; item++) {
    work->block(*work->call, item, work->shared);
    pthread_barrier_wait(&barrier);  // a block of a GPU has shared memory of its own
  }
  return nullptr;
}

void run(Block* block, const Call& call, unsigned count) {
  std::vector<float> shared(16 * NUMBERS);
  std::vector<pthread_t> running(count);
  std::vector<Work> works;
  threads = count;
  pthread_barrier_init(&barrier, nullptr, count);
  for (unsigned i = 0; i < count; i++) works.push_back({block, &call, shared.data(), i});
  for (unsigned i = 0; i < count; i++) pthread_create(&running[i], nullptr, run_thread, &works[i]);
  for (unsigned i = 0; i < count; i++) pthread_join(running[i], nullptr);
  pthread_barrier_destroy(&barrier);
}

std::vector<float> draw(int count) {
  std::vector<float> numbers(count);
  for (float& number : numbers) number = (float)rand() / RAND_MAX * 6 - 3;
  return numbers;
}

// Whether one thread and several write the same `count` numbers, of which some are not 0.
bool agrees(const char* name, Block* block, Call call, unsigned items, int chunk) {
  std::vector<float> out[2];
  call.items = items, call.chunk = chunk;
  for (int i = 0; i < 2; i++) {
    out[i].assign(2 * NUMBERS, 0);
    call.out[0] = out[i].data(), call.out[1] = out[i].data() + NUMBERS;
    run(block, call, i ? SEVERAL : 1);
  }
  bool written = false;
  for (float number : out[0]) written = written || number != 0;
  if (written && out[0] == out[1]) return true;
  printf("%s: %s\n", name, written ? "one thread and several differ" : "nothing is written");
  return false;
}
}  // namespace

int main() {
  const std::vector<float> x = draw(NUMBERS), dy = draw(2 * NUMBERS), bias = draw(CHANNELS);
  std::vector<float> y(2 * NUMBERS);
  Call call = {};
  call.x = x.data(), call.bias = bias.data();
  call.images = IMAGES, call.rows = ROWS, call.columns = COLUMNS, call.channels = CHANNELS;
  call.groups = 2, call.out_rows = 3, call.out_columns = 3;
  call.k = 2, call.alpha = 0.1f, call.rectify_after = 1;
  bool right = agrees("norm_pool_forward", norm_pool_forward<float, 4, 3>, call, IMAGES * 2 * 2, 2);
  call.out[0] = y.data(), call.out[1] = y.data() + NUMBERS, call.items = IMAGES * 2 * 2, call.chunk = 2;
  run(norm_pool_forward<float, 4, 3>, call, 1);  // the maxima that the gradient is given
  call.y[0] = y.data(), call.y[1] = y.data() + NUMBERS;
  call.dy[0] = dy.data(), call.dy[1] = dy.data() + NUMBERS;
  right &= agrees("norm_pool_backward", norm_pool_backward<float, 4, 3>, call, (IMAGES * ROWS * COLUMNS + 3) / 4, 4);
  right &= agrees("spatial_forward", spatial_forward<float, 4>, call, IMAGES * CHANNELS / 8, 8);
  right &= agrees("spatial_backward", spatial_backward<float, 4>, call, IMAGES * CHANNELS / 8, 8);
  return !right;
}
