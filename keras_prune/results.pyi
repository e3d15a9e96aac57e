"""What results.py imports at first use, for editors and type checkers."""

from keras_prune.analysis.report import Report, Row
from keras_prune.analysis.sensitivity import Point, Sensitivity
from keras_prune.benchmark.advice import Advice, Choice
from keras_prune.benchmark.results import Crossover, Measurement, Results
from keras_prune.deployment.deployment_plan import DeploymentPlan, LayerPlan
from keras_prune.export.tflite_report import TFLiteReport
from keras_prune.export.xla import XLAReport
from keras_prune.layers.masks import LayerCut, PrunedWeight
from keras_prune.layers.weight_summary import WeightSummary
from keras_prune.neurons.report import DeadNeurons, LayerNeurons
from keras_prune.rules.criteria import Cut
from keras_prune.storage.codecs import WeightStorage
from keras_prune.training.round_store import Round

__all__ = [
    "Advice",
    "Choice",
    "Crossover",
    "Cut",
    "DeadNeurons",
    "DeploymentPlan",
    "LayerCut",
    "LayerNeurons",
    "LayerPlan",
    "Measurement",
    "Point",
    "PrunedWeight",
    "Report",
    "Results",
    "Round",
    "Row",
    "Sensitivity",
    "TFLiteReport",
    "WeightStorage",
    "WeightSummary",
    "XLAReport",
]
