"""Prune models in place, and follow, rebuild and describe them."""
