"""The public names of `tfmot.sparsity.keras`, and the wrapper `PruneLowMagnitude`."""
# ruff: noqa: F401

from keras_prune.compat.tfmot.callbacks import PruningSummaries, UpdatePruningStep
from keras_prune.compat.tfmot.low_magnitude import PrunableLayer, PruneLowMagnitude
from keras_prune.compat.tfmot.policies import PruneForLatencyOnXNNPack, PruningPolicy
from keras_prune.compat.tfmot.prune import prune_low_magnitude, prune_scope, strip_pruning
from keras_prune.compat.tfmot.schedules import ConstantSparsity, PolynomialDecay, PruningSchedule
