"""Benchmarks: each prints figures beside their limit or their peer, measured in one run."""
