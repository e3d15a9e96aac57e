"""Scripts for the shell: `python -m keras_prune.tools.prune --help` and so on."""
