"""Benchmarks: figures and ratios, side by side in one run. Nothing here asserts a time."""
