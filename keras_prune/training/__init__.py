"""Prune during training: the callback, the loop of rounds, backups."""
