"""The paper's tables and figures, drawn from the measurements that paper.py keeps as JSON."""

import json
import pathlib
import statistics

import matplotlib

matplotlib.use("Agg")

import numpy as np

import keras_prune as kp
from keras_prune import networks, plots


def measurements(results_dir, network, kind):
    """Returns what was measured, one entry a seed, in the order of the seeds."""
    files = sorted(pathlib.Path(results_dir).glob(f"{network}_{kind}_*.json"))
    if not files:
        raise SystemExit(f"no measurements in {results_dir}: run paper.py --network={network} for {kind!r} first")
    return [json.loads(file.read_text()) for file in files]


def mean(values):
    """Returns the mean and, of several seeds, the standard deviation, in percent."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else " (one seed)"
    return f"{statistics.mean(values):.2f}{spread}"


def table(number, results_dir):
    """Returns a table of the paper as Markdown, with ours beside it."""
    if number == "1":
        return "\n".join(
            ["| network | compression | test error, % | paper |", "|---|---|---|---|"]
            + [row for network in ("lenet_300_100", "lenet_5") for row in _trade_off_rows(network, results_dir)]
        )
    return _layer_table({"2": "lenet_300_100", "3": "lenet_5"}[number], results_dir)


def _trade_off_rows(network, results_dir):
    paper = networks.TABLE_1[network]
    seeds = measurements(results_dir, network, "rounds")
    for index in range(min(len(seed["rounds"]) for seed in seeds)):
        rounds = [seed["rounds"][index] for seed in seeds]
        compression = statistics.mean(one["compression"] for one in rounds)
        beside = ""
        if index == 0:
            beside = f"{paper.reference_error:.2f} (dense)"
        elif paper.compression <= compression < 1.2 * paper.compression:
            beside = f"{paper.pruned_error:.2f} at {paper.compression}x"
        errors = mean(one["test_error"] for one in rounds)
        yield f"| {network} | {compression:.1f}x | {errors} | {beside} |"
    for kind in ("naive_cut", "svd"):
        if list(pathlib.Path(results_dir).glob(f"{network}_{kind}_*.json")):
            rivals = [seed[kind] for seed in measurements(results_dir, network, kind)]
            for points in zip(*rivals, strict=True):
                errors = mean(point["test_error"] for point in points)
                yield f"| {network}, {kind} without retraining | {points[0]['compression']}x | {errors} | |"


def _layer_table(network, results_dir):
    """The first round that reaches the paper's compression, layer by layer, as means over the seeds."""
    paper = {row.layer: row for row in networks.TABLES[network]}
    chosen = []
    for seed in measurements(results_dir, network, "rounds"):
        chosen.append(
            next(one for one in seed["rounds"] if one["compression"] >= networks.TABLE_1[network].compression)
        )
    lines = [
        "| layer | weights | FLOP | Act% | Weights% | FLOP% | dropout | paper: Act%, Weights%, FLOP% |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for layers in zip(*(one["layers"] for one in chosen), strict=True):
        row = paper[layers[0]["name"]]
        dropout = "" if layers[0]["dropout"] is None else f"{np.mean([layer['dropout'] for layer in layers]):.2f}"
        lines.append(
            f"| {layers[0]['name']} | {layers[0]['weights']:,} | {layers[0]['flop']:,} "
            f"| {_percent(layer['activation'] for layer in layers)} "
            f"| {_percent(layer['kept'] / layer['weights'] for layer in layers)} "
            f"| {_percent(layer['flop_density'] for layer in layers)} "
            f"| {dropout} | {row.activation}, {row.density}, {row.flop_density} |"
        )
    row = paper["total"]
    weights = sum(layer["weights"] for layer in chosen[0]["layers"])
    lines.append(
        f"| total | {weights:,} | {sum(layer['flop'] for layer in chosen[0]['layers']):,} "
        f"| {_percent(one['activation'] for one in chosen)} | {_percent(1 / one['compression'] for one in chosen)} "
        f"| {_percent(one['flop_density'] for one in chosen)} | | {row.activation}, {row.density}, {row.flop_density} |"
    )
    return "\n".join(lines)


def _percent(values):
    return f"{100 * statistics.mean(values):.1f}"


def figure(number, results_dir, figures_dir):
    """Draws a figure of the paper and returns the path of its PNG."""
    draw = {"4": _mask, "5": _trade_off, "6": _sensitivity, "7": _weights}[number]
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


def _trade_off(results_dir):
    """Held-out accuracy of LeNet-300-100 against the share of connections cut, five ways."""
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
