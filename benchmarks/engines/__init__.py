"""The engines of benchmarks/simulators.py: one file a simulator, each run in its own process."""
