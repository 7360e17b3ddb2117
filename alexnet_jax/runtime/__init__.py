"""The machine: processes, signals, standard output, memory, caches."""
