"""Interfaces of other pruning libraries, for code that was written for them."""
