"""Benchmarks against the peers: each pair is measured in turn, in one run, as a ratio."""
