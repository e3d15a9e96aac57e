"""The command `keras-prune`, whose subcommands are the modules of this folder. They import Keras when they run."""
