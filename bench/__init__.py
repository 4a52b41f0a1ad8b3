"""Benchmarks: each prints figures with their limit or their peer, measured in one run."""
