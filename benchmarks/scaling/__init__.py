"""One measured run in a process of its own, for benchmarks/scale.py."""
