"""Figures show the given numbers in percent, and reject numbers that they cannot show."""

import itertools
import re
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_prune as kp
from keras_prune.analysis.sensitivity import Point, Sensitivity
from keras_prune.layers.weight_summary import WeightSummary
from keras_prune.results import Round

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

from keras_prune import plots  # noqa: E402
from keras_prune.plots.style import fitting_names  # noqa: E402
from keras_prune.plots.svg import inline_svg  # noqa: E402

SPARSITIES = [0.5, 0.8, 0.9]
CURVES = {"L1": (SPARSITIES, [0.0, -0.01, -0.03]), "L2": (SPARSITIES, [0.002, 0.0, -0.01])}
WEIGHT = np.random.default_rng(0).normal(size=(100, 50))
PRUNED = np.where(np.abs(WEIGHT) > 1, 1.1 * WEIGHT, 0)


def scan(names=("conv1", "fc1")):
    points = {name: [Point(None, 0.7, 0.9 - 0.01 * i), Point(None, 0.3, 0.5)] for i, name in enumerate(names)}
    return Sensitivity(points, 0.95, "sparse_top_k_accuracy", 1)


def report(densities, names="abcdefgh"):
    rows = zip(names, densities, strict=False)
    return types.SimpleNamespace(rows=[types.SimpleNamespace(name=name, density=density) for name, density in rows])


SUMMARY = WeightSummary("fc", (100, 50), 4000, 0.5, 0.4, np.arange(80), (-2.0, 2.0), (255 * (PRUNED != 0)).T)
ROUNDS = [Round(1.0, 0.98, True, 0.0), Round(4.0, 0.97, True, 1.0), Round(5.0, 0.5, False, 2.0)]


def history(**logs):
    made = keras.callbacks.History()
    made.epoch, made.history = list(range(3)), logs
    return made


FIGURES = {
    "trade_off": lambda ax=None: plots.trade_off(CURVES, ax),
    "sensitivity": lambda ax=None: plots.sensitivity(scan(), ax),
    "weights": lambda ax=None: plots.weights(WEIGHT, PRUNED, ax),
    "mask": lambda ax=None: plots.mask(PRUNED, ax),
    "histogram": lambda ax=None: plots.histogram(SUMMARY, ax),
    "rounds": lambda ax=None: plots.rounds(ROUNDS, "accuracy", ax),
    "epochs": lambda ax=None: plots.epochs(history(sparsity=[0.0, 0.5, 0.9]), ax=ax),
    "density": lambda ax=None: plots.density(report([0.08, 0.26]), ax),
}
each_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


@pytest.fixture(autouse=True)
def _no_figure_stays_open():
    yield
    plt.close("all")


def drawn(line):
    return line.get_xydata().T.tolist()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@each_figure
def test_figures_have_labels_and_the_width_of_a_column(draw):
    ax = draw()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.figure.get_size_inches()[0] == 3.4


@each_figure
def test_figures_draw_into_given_axes(draw):
    before = dict(matplotlib.rcParams)
    _, (left, right) = plt.subplots(1, 2)
    assert draw(right) is right
    assert right.get_xlabel()
    assert not left.has_data()
    assert len(plt.get_fignums()) == 1
    assert dict(matplotlib.rcParams) == before


def test_figures_keep_the_fonts_of_given_axes():
    with plt.rc_context({"legend.fontsize": 13}):
        ax = plots.sensitivity(scan(), plt.subplots()[1])
    assert {text.get_fontsize() for text in ax.get_legend().get_texts()} == {13}


def test_trade_off_draws_each_curve_in_percent():
    ax = plots.trade_off(CURVES)
    lines = {line.get_label(): drawn(line) for line in ax.lines if line.get_label() in CURVES}
    assert legend(ax) == list(lines) == list(CURVES)
    for label, (sparsities, changes) in CURVES.items():
        np.testing.assert_allclose(lines[label], 100 * np.array([sparsities, changes]))


def test_trade_off_draws_the_mean_and_range_of_seeds():
    changes = np.array([[0.0, -0.01, -0.05], [0.01, 0.0, -0.01], [0.005, -0.002, -0.03]])
    ax = plots.trade_off({"L2": (SPARSITIES, changes)})
    (line,) = (line for line in ax.lines if line.get_label() == "L2")
    np.testing.assert_allclose(line.get_ydata(), 100 * changes.mean(0))
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    for sparsity, low, high in zip(SPARSITIES, changes.min(0), changes.max(0), strict=True):
        heights = corners[np.isclose(corners[:, 0], 100 * sparsity), 1]
        np.testing.assert_allclose([heights.min(), heights.max()], [100 * low, 100 * high], atol=1e-12)


def test_sensitivity_draws_each_layer_and_the_dense_network():
    ax = plots.sensitivity(scan())
    first, second, reference = ax.lines
    assert legend(ax) == ["conv1", "fc1", "not pruned"]
    np.testing.assert_allclose(drawn(first), [[70, 30], [0.9, 0.5]])
    np.testing.assert_allclose(drawn(second), [[70, 30], [0.89, 0.5]])
    assert set(reference.get_ydata()) == {0.95}
    assert ax.get_ylabel() == "sparse top k accuracy"


def test_curves_differ_without_color():
    ax = plots.sensitivity(scan([f"conv{i}" for i in range(16)]))
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.lines[:-1]]
    assert len(set(looks)) == 16
    assert all(one[1:] != other[1:] for one, other in itertools.pairwise(looks))


PATHS = [
    f"backbone/block_{i}_expand/{name}" for i in range(20) for name in ("conv", "depthwise_convolution", "project")
]


def test_long_legends_are_below_the_axes():
    ax = plots.sensitivity(scan(PATHS[:16]))
    ax.figure.draw_without_rendering()
    inside, below, label = (one.get_window_extent() for one in (ax, ax.get_legend(), ax.xaxis.label))
    assert below.y1 <= label.y0
    assert below.y0 >= 0
    assert below.x0 >= 0
    assert below.x1 <= ax.figure.bbox.x1
    assert inside.height > 1.5 * ax.figure.dpi


def test_weights_counts_the_surviving_connections():
    ax = plots.weights(WEIGHT, PRUNED)
    for outline, weight in zip(ax.patches, (WEIGHT.ravel(), PRUNED[PRUNED != 0]), strict=True):
        steps = outline.get_xy()[:201]
        np.testing.assert_array_equal(steps[1::2, 1], np.histogram(weight, steps[::2, 0])[0])
        assert sum(steps[1::2, 1]) == weight.size
    assert legend(ax) == [f"before: {WEIGHT.size:,}", f"after: {np.count_nonzero(PRUNED):,}"]


def test_weights_has_a_logarithmic_axis_without_zero():
    ax = plots.weights(WEIGHT, PRUNED)
    ax.figure.draw_without_rendering()
    assert ax.get_yscale() == "log"
    assert 0 < ax.get_ylim()[0] < 1


def test_weights_takes_layers_and_their_weights():
    dense = layers.Dense(3)
    dense.build((None, 8))
    pruned = kp.Prune(layers.Dense(3), kp.TargetSparsity(0.5))
    pruned.build((None, 8))
    kp.cut(pruned)
    expected = ["before: 24", "after: 12"]
    assert legend(plots.weights(dense, pruned)) == legend(plots.weights(dense.kernel, pruned.layer.kernel)) == expected


def shown(ax):
    """The rows of the image, one pixel for each connection again."""
    image = np.asarray(ax.images[0].get_array())
    _, width, height, _ = ax.images[0].get_extent()
    return image[:: image.shape[0] // height, :: image.shape[1] // width].astype(bool)


@pytest.mark.parametrize("shape", [(784, 300), (10, 3), (1300, 2)])
def test_mask_has_a_row_per_neuron(shape):
    mask = np.random.default_rng(0).random(shape) < 0.1
    ax = plots.mask(mask)
    np.testing.assert_array_equal(shown(ax), mask.T)
    assert ax.images[0].get_array().mean() == pytest.approx(mask.mean())
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("input", "neuron")


def test_mask_has_a_row_per_filter():
    kernel = np.random.default_rng(0).random((5, 5, 20, 50)) < 0.1
    ax = plots.mask(kernel)
    np.testing.assert_array_equal(shown(ax), kernel.reshape(500, 50).T)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("place in the patch", "filter")


def test_mask_is_the_same_after_strip():
    model = kp.prune(keras.Sequential([keras.Input((8,)), layers.Dense(4)]), kp.TargetSparsity(0.5))
    layer = model.layers[0]
    kp.cut(model)
    mask = shown(plots.mask(layer))
    assert mask.sum() == 16
    np.testing.assert_array_equal(shown(plots.mask(kp.layers.pruned_weights(layer)[0].mask)), mask)
    np.testing.assert_array_equal(shown(plots.mask(kp.strip(model).layers[0])), mask)


def test_mask_draws_the_shares_of_a_summary():
    ax = plots.mask(SUMMARY)
    np.testing.assert_allclose(ax.images[0].get_array(), (PRUNED != 0).T)
    assert ax.images[0].get_extent() == [0, 100, 50, 0]


def test_mask_fills_its_axes_in_a_page():
    svg = inline_svg(lambda ax: plots.mask(SUMMARY, ax), "mask")
    dots, factor = re.search(r'<image[^>]* width="(\d+)"[^>]*matrix\(([\d.]+)', svg).groups()
    (width,) = re.findall(r'<rect [^>]*width="([\d.]+)"', svg)
    assert float(factor) * int(dots) == pytest.approx(float(width), abs=0.02)


def test_mask_of_fewer_dots_shows_the_largest_share_as_full():
    shares = np.array([[0, 10], [5, 20]], "uint8")
    ax = plots.mask(SUMMARY._replace(shares=shares))
    np.testing.assert_allclose(ax.images[0].get_array(), shares / 20)
    assert not plots.mask(SUMMARY._replace(shares=0 * shares)).images[0].get_array().any()


def test_histogram_draws_the_survivors_and_the_threshold():
    ax = plots.histogram(SUMMARY)
    assert ax.patches[0].get_data().values.tolist() == SUMMARY.counts.tolist()
    assert sorted(line.get_xdata()[0] for line in ax.lines) == [-0.5, 0.5]
    assert legend(ax) == ["threshold 0.5"]


@pytest.mark.parametrize(("kept", "expected"), [(4000, ["smallest kept 0.4"]), (5000, [])])
def test_histogram_without_threshold_draws_the_smallest(kept, expected):
    ax = plots.histogram(SUMMARY._replace(threshold=None, kept=kept))
    assert len(ax.lines) == 2 * len(expected)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == expected if expected else not ax.get_legend()


def test_rounds_marks_those_out_of_the_budget():
    ax = plots.rounds(ROUNDS, "val_accuracy")
    _, line, within, beyond = ax.lines
    assert drawn(line) == [[1, 4, 5], [0.98, 0.97, 0.5]]
    assert drawn(within) == [[1, 4], [0.98, 0.97]]
    assert drawn(beyond) == [[5], [0.5]]
    assert legend(ax) == ["within the budget", "out of the budget"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1x", "4x", "5x"]
    assert ax.get_ylabel() == "val accuracy"


def test_epochs_draws_any_log_from_the_first_epoch():
    ax = plots.epochs(history(val_loss=[3.0, 2.0, 1.0]), "val_loss")
    assert drawn(ax.lines[0]) == [[1, 2, 3], [3.0, 2.0, 1.0]]
    assert ax.get_ylabel() == "val loss"
    assert drawn(plots.epochs(history(sparsity=[0.0, 0.5, 1.0])).lines[0])[1] == [0, 50, 100]


def test_density_names_fit_and_stay_apart():
    ax = plots.density(report([0.3] * 60, PATHS))
    ax.figure.draw_without_rendering()
    labels = ax.get_yticklabels()
    assert len({label.get_text() for label in labels}) == 60
    edges = sorted((label.get_window_extent().y0, label.get_window_extent().y1) for label in labels)
    assert all(start >= end for (_, end), (start, _) in itertools.pairwise(edges))
    assert min(label.get_window_extent().x0 for label in labels) >= 0
    assert ax.get_window_extent().width > ax.figure.bbox.width / 3


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["fc1", "fc2"], ["fc1", "fc2"]),
        (["net/fc"], ["net/fc"]),
        (["net/block/a", "net/block/b"], ["a", "b"]),
        (["net/a/b", "net/c"], ["a/b", "c"]),
        (["block_3/attention/query"], ["block_3/\u2026/query"]),
        (["a" * 21], ["aaaaaa\u2026" + "a" * 13]),
    ],
)
def test_long_names_are_shortened(names, expected):
    assert fitting_names(names, 20) == expected


def test_density_draws_a_bar_with_its_value_per_layer():
    ax = plots.density(report([0.08, 0.095, 1.0]))
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([8, 9.5, 100])
    assert [text.get_text() for text in ax.texts] == ["8", "9.5", "100"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    assert ax.yaxis_inverted()
    assert ax.get_legend() is None


def test_density_groups_the_bars_of_several_reports():
    ax = plots.density({"paper": report([0.08, 0.09]), "ours": report([0.06, 0.11])})
    assert legend(ax) == ["paper", "ours"]
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert np.rint(middles).tolist() == [0, 1, 0, 1]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([8, 9, 6, 11])
    edges = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in ax.patches)
    assert all(end <= start + 1e-9 for (_, end), (start, _) in itertools.pairwise(edges))


def test_density_values_do_not_overlap():
    ax = plots.density({"paper": report([0.3] * 16, range(16)), "ours": report([0.3] * 16, range(16))})
    ax.figure.draw_without_rendering()
    heights = sorted((text.get_window_extent().y0, text.get_window_extent().y1) for text in ax.texts)
    assert all(start >= end for (_, end), (start, _) in itertools.pairwise(heights))


RECURRENT = keras.Sequential([keras.Input((4, 2)), layers.LSTM(3)])
REFUSED = {
    "no curve": (lambda: plots.trade_off({}), r"curves=\{\}"),
    "no point": (lambda: plots.trade_off({"L2": ([], [])}), r"curves\['L2'\]"),
    "as many changes as sparsities": (lambda: plots.trade_off({"L2": ([0.5], [0.0, 0.1])}), r"curves\['L2'\]"),
    "no seed": (lambda: plots.trade_off({"L2": ([0.5], np.zeros((0, 1)))}), r"curves\['L2'\]"),
    "single numbers": (lambda: plots.trade_off({"L2": (0.5, 0.1)}), r"curves\['L2'\]"),
    "sparsities in percent": (lambda: plots.trade_off({"L2": ([50], [0.1])}), "Divide percent by 100"),
    "changes in percent": (lambda: plots.trade_off({"L2": ([0.5], [-4.5])}), "Divide percent by 100"),
    "not a number": (lambda: plots.trade_off({"L2": ([0.5, 0.6], [np.nan, 0.0])}), r"curves\['L2'\]"),
    "no layer": (lambda: plots.sensitivity(scan([])), r"scan\.curves=\{\}"),
    "a layer without points": (lambda: plots.sensitivity(Sensitivity({"fc": []}, 1, "auc", 1)), "'fc': "),
    "weights of two layers": (lambda: plots.weights(WEIGHT, WEIGHT[:5]), r"\(100, 50\), after of shape \(5, 50\)"),
    "all weights cut": (lambda: plots.weights(WEIGHT, 0 * WEIGHT), "with 0 connections"),
    "no weights": (lambda: plots.weights(np.ones(0), np.ones(0)), "with 0 connections"),
    "a bias": (lambda: plots.mask(np.ones(5)), r"shape=\(5,\)"),
    "an empty mask": (lambda: plots.mask(np.ones((0, 5))), r"shape=\(0, 5\)"),
    "two weights": (lambda: plots.mask(kp.prune(RECURRENT).layers[0]), "with 2 prunable weights"),
    "a layer that is not built": (lambda: plots.mask(kp.Prune(layers.Dense(3))), "with 0 prunable weights"),
    "a layer without weights": (lambda: plots.mask(layers.ReLU()), "with 0 prunable weights"),
    "no survivor": (lambda: plots.histogram(SUMMARY._replace(counts=np.zeros(80))), "name='fc'"),
    "no round": (lambda: plots.rounds([]), r"rounds=\[\]"),
    "another list": (lambda: plots.rounds([0.5]), r"rounds=\[0\.5\]"),
    "no sparsity": (lambda: plots.epochs(history(loss=[1.0])), "log='sparsity'"),
    "no report": (lambda: plots.density({}), r"layers=\[\]"),
    "other layers": (lambda: plots.density({"a": report([1.0]), "b": report([1.0], "b")}), r"\[\['a'\], \['b'\]\]"),
}


@pytest.mark.parametrize(("draw", "received"), REFUSED.values(), ids=REFUSED)
def test_figures_reject_invalid_numbers(draw, received):
    with pytest.raises(ValueError, match=f"(?s)Received: .*{received}|{received}.*Received: "):
        draw()
    assert not plt.get_fignums()
