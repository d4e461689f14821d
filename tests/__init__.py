"""The tests: pure ones, and ones that start processes (marked `proc`)."""
