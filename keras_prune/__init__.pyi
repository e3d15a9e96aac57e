"""What __init__.py imports at first use, for editors and type checkers."""

from keras_prune import budgets, layers, networks, neurons, plots, results, sparse, storage
from keras_prune.analysis.report import report
from keras_prune.analysis.sensitivity import sensitivity
from keras_prune.benchmark.advice import compare_runtimes
from keras_prune.deployment.deployment_plan import deployment_plan
from keras_prune.export.tflite import export_tflite
from keras_prune.export.xla import export_xla
from keras_prune.layers.prune import Prune
from keras_prune.models.prune_model import prune, strip
from keras_prune.models.regularize import regularize
from keras_prune.neurons.report import dead_neurons
from keras_prune.neurons.shrink import remove_dead_neurons
from keras_prune.rules.criteria import Criterion, RandomSparsity, StdThreshold, TargetSparsity
from keras_prune.rules.patterns import Blocks, NOfM, Pattern
from keras_prune.rules.schedules import Iterative, OneShot, Polynomial, Schedule
from keras_prune.sparse.conversion import to_sparse
from keras_prune.storage.sparse_file import load_sparse, save_sparse
from keras_prune.training.backup import PruningBackup
from keras_prune.training.batch_norm import reestimate_batch_norm
from keras_prune.training.cut import cut
from keras_prune.training.iterative_prune import iterative_prune
from keras_prune.training.pruning_callback import PruningCallback

__version__: str
__all__ = [
    "Blocks",
    "Criterion",
    "Iterative",
    "NOfM",
    "OneShot",
    "Pattern",
    "Polynomial",
    "Prune",
    "PruningBackup",
    "PruningCallback",
    "RandomSparsity",
    "Schedule",
    "StdThreshold",
    "TargetSparsity",
    "budgets",
    "compare_runtimes",
    "cut",
    "dead_neurons",
    "deployment_plan",
    "export_tflite",
    "export_xla",
    "iterative_prune",
    "layers",
    "load_sparse",
    "networks",
    "neurons",
    "plots",
    "prune",
    "reestimate_batch_norm",
    "regularize",
    "remove_dead_neurons",
    "report",
    "results",
    "save_sparse",
    "sensitivity",
    "sparse",
    "storage",
    "strip",
    "to_sparse",
]
