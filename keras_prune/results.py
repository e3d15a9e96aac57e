"""Objects that functions of the package return. You do not create them yourself."""

from keras_prune._lazy import lazy_attributes

__all__, __getattr__, __dir__ = lazy_attributes(
    __name__,
    {
        "keras_prune.analysis.report": ["Report", "Row"],
        "keras_prune.analysis.sensitivity": ["Point", "Sensitivity"],
        "keras_prune.benchmark.advice": ["Advice", "Choice"],
        "keras_prune.benchmark.results": ["Crossover", "Measurement", "Results"],
        "keras_prune.deployment.deployment_plan": ["DeploymentPlan", "LayerPlan"],
        "keras_prune.export.tflite_report": ["TFLiteReport"],
        "keras_prune.export.xla": ["XLAReport"],
        "keras_prune.layers.masks": ["LayerCut", "PrunedWeight"],
        "keras_prune.layers.weight_summary": ["WeightSummary"],
        "keras_prune.neurons.report": ["DeadNeurons", "LayerNeurons"],
        "keras_prune.rules.criteria": ["Cut"],
        "keras_prune.storage.codecs": ["WeightStorage"],
        "keras_prune.training.round_store": ["Round"],
    },
)
