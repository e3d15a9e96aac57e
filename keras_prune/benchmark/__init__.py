"""Benchmark: which runtime and weight format is fastest for a model, measured on this machine."""
