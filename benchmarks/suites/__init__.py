"""The benchmarks: one file each, with a `BENCHMARK` in it."""
