"""The machine: processes, signals, memory, caches."""
