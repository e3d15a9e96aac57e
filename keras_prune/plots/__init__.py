"""Figures of pruned models and of the cost of pruning (Han et al. 2015, Figs. 4 to 7).

They require Matplotlib. Each function draws into the given axes and returns them. Without axes it creates a figure
3.4 in wide, the column of a paper, in `STYLE`. Pass shares as fractions, as Keras reports them. They are drawn in
percent. The palette of Okabe and Ito can be told apart by color-blind readers.
"""

try:
    import matplotlib as _  # noqa: F401
except ImportError as error:
    raise ImportError("Figures need Matplotlib, which is missing: pip install matplotlib") from error

from keras_prune.plots.curve_figures import epochs, rounds, sensitivity, trade_off
from keras_prune.plots.layer_figures import density, histogram, mask, weights
from keras_prune.plots.style import STYLE

__all__ = ["STYLE", "density", "epochs", "histogram", "mask", "rounds", "sensitivity", "trade_off", "weights"]
