// A call of a kernel on a GPU: what the host passes and the kernel reads. Both sides include this file.

#ifndef ALEXNET_JAX_CUDA_CALL_H_
#define ALEXNET_JAX_CUDA_CALL_H_

typedef struct {
  const void* x;      // maps: [images, rows, columns, channels]
  const float* bias;  // added to x before anything else: [channels]
  const void* y;      // of a gradient: the result of pooling
  const void* dy;     // of a gradient
  void* out;
  unsigned items;  // threads, or blocks where a block's threads work together
  int images, rows, columns, channels;
  int out_rows, out_columns, size, stride;  // of pooling
  int rectify_before, rectify_after;        // ReLU after the bias; after pooling
  int chunk;                                // channels of a block, where a block's threads work together
  float k, alpha;                           // of a norm
} Call;

#endif
