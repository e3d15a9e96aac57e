"""The command `keras-prune` as `python -m keras_prune`, for a chosen interpreter."""

import sys

from keras_prune.tools.command import main

sys.exit(main())
