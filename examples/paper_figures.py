"""Figures of the MNIST results, from the JSON files of paper.py."""

import pathlib
import statistics

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from paper_results import NETWORKS, baseline_of, measurements, rounds_of

import keras_prune as kp
from keras_prune import networks, plots
from keras_prune.plots.style import STYLE, curve_style, plain_log_ticks


def figure(number, results_dir, figures_dir):
    """Draws a figure of the paper and returns the path of its PNG."""
    draw = {"4": _mask, "5": _compressions, "5_penalties": _once, "6": _sensitivity, "7": _weights}[number]
    ax = draw(pathlib.Path(results_dir))
    pathlib.Path(figures_dir).mkdir(parents=True, exist_ok=True)
    path = pathlib.Path(figures_dir) / f"figure_{number}.png"
    ax.figure.savefig(path)
    return path


def _fc1(results_dir):
    """Returns the first dense layer of LeNet-300-100, seed 0, before and after pruning, float16."""
    file = results_dir / "lenet_300_100_fc1.npz"
    if not file.exists():
        raise SystemExit(f"{file} is missing: run paper.py --network=lenet_300_100 first")
    arrays = np.load(file)
    return arrays["before"].astype("float32"), arrays["after"].astype("float32")


def _mask(results_dir):
    return plots.mask(_fc1(results_dir)[1])


def _weights(results_dir):
    return plots.weights(*_fc1(results_dir))


def _compressions(results_dir):
    """Test error against compression, with the range over seeds, and the paper's points."""
    curves = {f"{title}, in rounds": rounds_of(network, results_dir) for network, title in NETWORKS.items()}
    curves["LeNet-300-100, one cut, not retrained"] = baseline_of("naive_cut", results_dir)
    with plt.rc_context(STYLE):
        _, ax = plt.subplots(figsize=(4.5, 2.9))
        for index, (label, points) in enumerate(curves.items()):
            compressions = [statistics.mean(one["compression"] for one in point) for point in points]
            errors = np.array([[one["test_error"] for one in point] for point in points])
            ax.plot(compressions, errors.mean(1), label=label, **curve_style(index))
            ax.fill_between(
                compressions, errors.min(1), errors.max(1), color=curve_style(index)["color"], alpha=0.2, linewidth=0
            )
        paper = [networks.TABLE_1[network] for network in NETWORKS]
        points = [one.compression for one in paper], [one.pruned_error for one in paper]
        ax.plot(*points, "*", color="black", markersize=8, label="the paper")
        ax.set(xscale="log", xlabel="compression", ylabel="test error (%)", ylim=(0, 3.5))
        plain_log_ticks(ax.xaxis)
        ax.legend()
    return ax


def _once(results_dir):
    """Held-out accuracy of LeNet-300-100 against the share of connections pruned, in five ways."""
    curves = {}
    once = [seed["regularization"] for seed in measurements(results_dir, "lenet_300_100", "regularization")]
    for penalty in ("L1", "L2"):
        runs = [[point for point in run if point["penalty"] == penalty] for run in once]
        dense = np.array([run[0]["error"] for run in runs])[:, None]
        sparsities = [1 - 1 / point["compression"] for point in runs[0][1:]]
        for label, key in (("no retraining", "cut_error"), ("one retraining", "retrained_error")):
            errors = np.array([[point[key] for point in run[1:]] for run in runs])
            curves[f"{penalty}, {label}"] = sparsities, (dense - errors) / 100
    seeds = [seed["rounds"] for seed in measurements(results_dir, "lenet_300_100", "rounds")][: len(once)]
    errors = np.array([[one["held_out_error"] for one in rounds] for rounds in seeds])
    sparsities = [1 - 1 / one["compression"] for one in seeds[0][1:]]
    curves["L2, iterative"] = sparsities, (errors[:, :1] - errors[:, 1:]) / 100
    ax = plots.trade_off(curves)
    ax.set_ylim(-4.5, 0.5)
    return ax


def _sensitivity(results_dir):
    measured = measurements(results_dir, "lenet_5", "sensitivity")[0]["sensitivity"]
    curves = {
        name: [kp.results.Point(kp.StdThreshold(one["strength"]), one["density"], one["value"]) for one in points]
        for name, points in measured["curves"].items()
    }
    scan = kp.results.Sensitivity(curves, measured["reference"], measured["monitor"], 1)
    return plots.sensitivity(scan)
