"""The network's operations as native kernels: in C for CPUs, in CUDA for NVIDIA GPUs."""
