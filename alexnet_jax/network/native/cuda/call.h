// A call of a kernel on a GPU: what the host passes and the kernel reads. Both sides include this file.

#ifndef ALEXNET_JAX_CUDA_CALL_H_
#define ALEXNET_JAX_CUDA_CALL_H_

enum { GROUPS = 2 };  // at most

typedef struct {
  const void* x;           // maps: [images, rows, columns, channels]
  const float* bias;       // added to x before anything else: [channels]
  const void* y[GROUPS];   // of a gradient: the result of pooling, of each group of channels
  const void* dy[GROUPS];  // of a gradient
  void* out[GROUPS];
  unsigned items;  // threads, or blocks where a block's threads work together
  int images, rows, columns, channels;
  int groups;                         // of channels; no window of a norm reaches into another one
  int out_rows, out_columns;          // after pooling
  int rectify_before, rectify_after;  // ReLU after the bias; after pooling
  int chunk;                          // of a block whose threads work together: channels, or rows after pooling
  float k, alpha;                     // of a norm
} Call;

#endif
