"""The convolutions, norms and pooling of the network in C, for CPUs."""
