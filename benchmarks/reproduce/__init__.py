"""Everything behind docs/results.md; see `python -m benchmarks.reproduce --help`."""
