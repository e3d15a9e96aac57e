"""Prune during training, in a callback or in rounds, and back up the run."""
