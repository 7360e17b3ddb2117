// CUDA's driver on a CPU, as far as launch.c calls it: a launch runs the kernel as a loop.

#include <cstdlib>
#include <cstring>

#include "kernels.cu"

namespace {
typedef void Kernel(const Call*, float*);
struct Named {
  const char* name;
  Kernel* kernel;
};
#define NAMED(name) {#name, name}
#define NAMED_ITEMS(name) NAMED(name##_f32), NAMED(name##_bf16), NAMED(name##_bf16x4)
#define NAMED_BLOCKS(name) NAMED(name##_f32), NAMED(name##_bf16)
const Named KERNELS[] = {
    NAMED_ITEMS(norm_forward),     NAMED_ITEMS(norm_backward),     NAMED_ITEMS(pool_forward),
    NAMED_ITEMS(pool_backward),    NAMED_ITEMS(norm_pool_forward), NAMED_ITEMS(norm_pool_backward),
    NAMED_BLOCKS(spatial_forward), NAMED_BLOCKS(spatial_backward),
};
}  // namespace

extern "C" {
int cuLibraryLoadData(void** library, const void* code, void*, void**, unsigned, void*, void**, unsigned) {
  *library = nullptr;
  return !code;
}
int cuLibraryGetKernel(Kernel** kernel, void*, const char* name) {
  for (const Named& each : KERNELS)
    if (!strcmp(each.name, name)) {
      *kernel = each.kernel;
      return 0;
    }
  return 500;  // CUDA_ERROR_NOT_FOUND
}
int cuKernelGetFunction(Kernel** function, Kernel* kernel) {
  *function = kernel;
  return 0;
}
int cuFuncSetAttribute(Kernel*, int attribute, int) { return attribute != 8; }
int cuLaunchKernel(Kernel* kernel, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned shared, void*, void** parameters, void**) {
  const Call* call = (const Call*)parameters[0];
  if (!blocks || !threads || threads > 1024 || (unsigned long)blocks * threads < call->items) return 1;
  float* memory = (float*)malloc(shared);
  kernel(call, memory);
  free(memory);
  return 0;
}
int cuStreamGetCtx(void*, void** context) {
  *context = nullptr;
  return 0;
}
int cuCtxPushCurrent_v2(void*) { return 0; }
int cuCtxPopCurrent_v2(void**) { return 0; }
}
