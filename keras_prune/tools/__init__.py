"""Command-line tools: `python -m keras_prune.tools.prune --help` and so on."""
