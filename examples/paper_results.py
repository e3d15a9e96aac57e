"""Tables of the MNIST results beside the paper's, from the JSON files of paper.py and mnist.py."""

import json
import pathlib
import statistics

from keras_prune import networks

NETWORKS = {"lenet_300_100": "LeNet-300-100", "lenet_5": "LeNet-5"}
BASELINES = {"naive_cut": "one cut without retraining", "svd": "rank reduction without retraining"}


def measurements(results_dir, network, kind):
    """Returns the measurements, one entry for each seed, in their order."""
    files = sorted(pathlib.Path(results_dir).glob(f"{network}_{kind}_*.json"))
    if not files:
        raise SystemExit(f"no measurements in {results_dir}: run paper.py --network={network} for {kind!r} first")
    return [json.loads(file.read_text()) for file in files]


def mean(values):
    """Returns the mean and, for several seeds, the standard deviation, in percent."""
    values = list(values)
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else " (one seed)"
    return f"{statistics.mean(values):.2f}{spread}"


def tables(results_dir):
    """Returns all tables as Markdown, each below its title."""
    made = {
        "Table 1": _trade_offs(results_dir),
        "Table 2": _layers("lenet_300_100", results_dir),
        "Table 3": _layers("lenet_5", results_dir),
        **{f"{title}, seed by seed": _seeds(name, results_dir) for name, title in NETWORKS.items()},
        "One cut under L1 and L2": _penalties(results_dir),
        "In a minute": _in_a_minute(results_dir),
    }
    return "\n\n".join(f"**{title}**\n\n" + "\n".join(lines) for title, lines in made.items())


def _head(*columns):
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def _trade_offs(results_dir):
    """Table 1: the errors of each round and of the baselines, as means over the seeds."""
    lines = _head("network", "compression", "test error, %", "paper, %")
    for network, title in NETWORKS.items():
        paper = networks.TABLE_1[network]
        for index, rounds in enumerate(rounds_of(network, results_dir)):
            compression = statistics.mean(one["compression"] for one in rounds)
            beside = ""
            if index == 0:
                beside = f"{paper.reference_error:.2f} (dense)"
            elif paper.compression <= compression < 1.2 * paper.compression:
                beside = f"{paper.pruned_error:.2f} at {paper.compression}x"
            errors = mean(one["test_error"] for one in rounds)
            lines.append(f"| {title} | {compression:.1f}x | {errors} | {beside} |")
    for kind, label in BASELINES.items():
        for points in baseline_of(kind, results_dir):
            errors = mean(point["test_error"] for point in points)
            lines.append(f"| LeNet-300-100, {label} | {points[0]['compression']:.1f}x | {errors} | |")
    return lines


def rounds_of(network, results_dir):
    """Returns for each round a list with an entry for each seed."""
    return list(zip(*(seed["rounds"] for seed in measurements(results_dir, network, "rounds")), strict=False))


def baseline_of(kind, results_dir):
    """Returns for each point of a baseline for LeNet-300-100 a list with an entry for each seed."""
    return list(zip(*(seed[kind] for seed in measurements(results_dir, "lenet_300_100", kind)), strict=True))


def _seeds(network, results_dir):
    """The test error of each seed in each round."""
    rounds = rounds_of(network, results_dir)
    lines = _head("compression", *(f"seed {seed}" for seed in range(len(rounds[0]))), "mean")
    for one in rounds:
        errors = [seed["test_error"] for seed in one]
        cells = " | ".join(f"{error:.2f}%" for error in [*errors, statistics.mean(errors)])
        lines.append(f"| {statistics.mean(seed['compression'] for seed in one):.1f}x | {cells} |")
    return lines


def _layers(network, results_dir):
    """The layers of the first round with the paper's compression, as means over the seeds."""
    paper = {row.layer: row for row in networks.TABLES[network]}
    wanted = networks.TABLE_1[network].compression
    seeds = measurements(results_dir, network, "rounds")
    chosen = [next(one for one in seed["rounds"] if one["compression"] >= wanted) for seed in seeds]
    columns = ("layer", "weights", "FLOP", "Act%", "Weights%", "FLOP%", "dropout", "paper: Act%, Weights%, FLOP%")
    lines = _head(*columns)

    def line(name, weights, flop, shares, dropout):
        cells = " | ".join(f"{100 * statistics.mean(share):.1f}" for share in shares)
        beside = f"{paper[name].activation}, {paper[name].density}, {paper[name].flop_density}"
        lines.append(f"| {name} | {weights:,} | {flop:,} | {cells} | {dropout} | {beside} |")

    for layers in zip(*(one["layers"] for one in chosen), strict=True):
        first = layers[0]
        dropout = "" if first["dropout"] is None else f"{statistics.mean(one['dropout'] for one in layers):.2f}"
        kept = [one["kept"] / one["weights"] for one in layers]
        shares = [one["activation"] for one in layers], kept, [one["flop_density"] for one in layers]
        line(first["name"], first["weights"], first["flop"], shares, dropout)
    weights, flop = (sum(layer[key] for layer in chosen[0]["layers"]) for key in ("weights", "flop"))
    kept = [1 / one["compression"] for one in chosen]
    line(
        "total",
        weights,
        flop,
        ([one["activation"] for one in chosen], kept, [one["flop_density"] for one in chosen]),
        "",
    )
    return lines


def _penalties(results_dir):
    """Held-out errors of LeNet-300-100 after one cut under L1 and L2, for the seeds that have both."""
    once = [seed["regularization"] for seed in measurements(results_dir, "lenet_300_100", "regularization")]
    lines = _head(
        "seed", "compression", *(f"{penalty}, {when}" for penalty in ("L1", "L2") for when in ("cut", "retrained"))
    )
    for seed, run in enumerate(once):
        l1, l2 = ([point for point in run if point["penalty"] == penalty] for penalty in ("L1", "L2"))
        lines.append(f"| {seed} | 1.0x | {l1[0]['error']:.2f}% | | {l2[0]['error']:.2f}% | |")
        for points in zip(l1[1:], l2[1:], strict=True):
            cells = [f"{point[key]:.2f}%" for point in points for key in ("cut_error", "retrained_error")]
            lines.append(f"| {seed} | {points[0]['compression']:.1f}x | {' | '.join(cells)} |")
    return lines


def _in_a_minute(results_dir):
    """The results of `mnist.py --reference` for each seed."""
    runs = [json.loads(file.read_text()) for file in sorted(pathlib.Path(results_dir).glob("mnist_*.json"))]
    keys = ("reference_error", "test_error", "compression", "seconds")
    means = {key: statistics.mean(run[key] for run in runs) for key in keys}
    lines = _head("seed", "test error, dense", "test error, pruned", "compression", "seconds")
    for run in [*runs, means]:
        dense, pruned, compression, seconds = (run[key] for key in keys)
        lines.append(
            f"| {run.get('seed', 'mean')} | {dense:.2f}% | {pruned:.2f}% | {compression:.1f}x | {seconds:.0f} |"
        )
    paper = networks.TABLE_1["lenet_300_100"]
    lines.append(f"| the paper | {paper.reference_error:.2f}% | {paper.pruned_error:.2f}% | {paper.compression}x | |")
    return lines
