"""Magnitude pruning for Keras 3: train, cut, retrain (Han et al. 2015)."""

from keras_prune import budgets, layers
from keras_prune.backup import Backup
from keras_prune.benchmark.advice import deployment_advice
from keras_prune.budgets import quality_for
from keras_prune.callbacks import PruningCallback
from keras_prune.criteria import Criterion, RandomSparsity, StdThreshold, TargetSparsity
from keras_prune.cutting import cut
from keras_prune.deployment import DeploymentPlan, LayerPlan, deployment_plan
from keras_prune.export.tflite import export_tflite
from keras_prune.export.xla import export_xla
from keras_prune.iterative import iterative_prune
from keras_prune.neurons import DeadNeurons, dead_neurons, remove_dead_neurons
from keras_prune.patterns import Blocks, NOfM, Pattern
from keras_prune.prune_model import prune, strip
from keras_prune.regularizers import regularize
from keras_prune.report import Report, report
from keras_prune.rounds import Round
from keras_prune.schedules import Iterative, OneShot, PolynomialDecay, Schedule
from keras_prune.sensitivity import Point, Sensitivity, sensitivity
from keras_prune.sparse.conversion import to_sparse
from keras_prune.sparse.layers import SparseDense
from keras_prune.storage import load_sparse, save_sparse, storage_sizes
from keras_prune.wrappers import Prune

__version__ = "0.1.0"

__all__ = [
    "Backup",
    "Blocks",
    "Criterion",
    "DeadNeurons",
    "DeploymentPlan",
    "Iterative",
    "LayerPlan",
    "NOfM",
    "OneShot",
    "Pattern",
    "Point",
    "PolynomialDecay",
    "Prune",
    "PruningCallback",
    "RandomSparsity",
    "Report",
    "Round",
    "Schedule",
    "Sensitivity",
    "SparseDense",
    "StdThreshold",
    "TargetSparsity",
    "budgets",
    "cut",
    "dead_neurons",
    "deployment_advice",
    "deployment_plan",
    "export_tflite",
    "export_xla",
    "iterative_prune",
    "layers",
    "load_sparse",
    "prune",
    "quality_for",
    "regularize",
    "remove_dead_neurons",
    "report",
    "save_sparse",
    "sensitivity",
    "storage_sizes",
    "strip",
    "to_sparse",
]
