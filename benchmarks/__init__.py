"""Measure compiled graphs beside the floor: `python -m benchmarks`."""
