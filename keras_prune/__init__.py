"""Magnitude pruning for Keras 3: train, cut, retrain (Han et al. 2015)."""

from keras_prune import _lazy

# These hold classes that Keras must know before it can load a pruned model. All else is imported at its first use.
_lazy.import_after(
    "keras",
    [
        "keras_prune.compat.tfmot.low_magnitude",
        "keras_prune.compat.tfmot.schedules",
        "keras_prune.models.prune_model",
        "keras_prune.rules.criteria",
        "keras_prune.sparse.sparse_dense",
    ],
)

__version__ = "0.1.0"

__all__, __getattr__, __dir__ = _lazy.lazy_attributes(
    __name__,
    {
        "keras_prune.analysis.report": ["report"],
        "keras_prune.analysis.sensitivity": ["sensitivity"],
        "keras_prune.benchmark.advice": ["compare_runtimes"],
        "keras_prune.budgets": [""],
        "keras_prune.deployment.deployment_plan": ["deployment_plan"],
        "keras_prune.export.tflite": ["export_tflite"],
        "keras_prune.export.xla": ["export_xla"],
        "keras_prune.layers": [""],
        "keras_prune.layers.prune": ["Prune"],
        "keras_prune.models.prune_model": ["prune", "strip"],
        "keras_prune.models.regularize": ["regularize"],
        "keras_prune.networks": [""],
        "keras_prune.neurons": [""],
        "keras_prune.neurons.report": ["dead_neurons"],
        "keras_prune.neurons.shrink": ["remove_dead_neurons"],
        "keras_prune.plots": [""],
        "keras_prune.results": [""],
        "keras_prune.rules.criteria": ["Criterion", "RandomSparsity", "StdThreshold", "TargetSparsity"],
        "keras_prune.rules.patterns": ["Blocks", "NOfM", "Pattern"],
        "keras_prune.rules.schedules": ["Iterative", "OneShot", "Polynomial", "Schedule"],
        "keras_prune.sparse": [""],
        "keras_prune.sparse.conversion": ["to_sparse"],
        "keras_prune.storage": [""],
        "keras_prune.storage.sparse_file": ["load_sparse", "save_sparse"],
        "keras_prune.training.backup": ["PruningBackup"],
        "keras_prune.training.batch_norm": ["reestimate_batch_norm"],
        "keras_prune.training.cut": ["cut"],
        "keras_prune.training.iterative_prune": ["iterative_prune"],
        "keras_prune.training.pruning_callback": ["PruningCallback"],
    },
)
