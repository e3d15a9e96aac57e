"""Counts the neurons that LeNet-300-100 loses by pruning, with the recipe of examples/mnist.py.

    KERAS_BACKEND=jax python experiments/neurons.py
    python experiments/neurons.py --table

One dense network a seed is trained, then pruned and trained on from the same weights in each of the ways below, and
`remove_dead_neurons` makes it smaller. Runs that are in the JSON file already are not repeated.
"""

import pathlib
import statistics
import sys
import tempfile

import measurements
from absl import app, flags

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "examples"))

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", ["0", "1"], "Seeds of initial weights, order of images and dropout.")
flags.DEFINE_float("l1", 2e-5, "Factor of the sum of magnitudes, where L1 is the penalty.", lower_bound=0)
flags.DEFINE_bool("table", False, "Print the table of what was measured.")
flags.DEFINE_string("results", "docs/data/neurons.json", "Where the measurements are kept.")


def ways():
    """Returns the criterion of each way to prune, and its penalty if that is not the L2 of the recipe."""
    from keras_prune import Blocks, TargetSparsity, budgets

    def neurons(sparsity):
        return {"fc1": TargetSparsity(sparsity, Blocks((784, 1))), "fc2": TargetSparsity(sparsity, Blocks((300, 1)))}

    l1 = {"l1": FLAGS.l1}
    return {
        "connections, 13x": (budgets.GlobalMagnitude(13), {}),
        "connections, 13x, L1": (budgets.GlobalMagnitude(13), l1),
        "connections, 40x": (budgets.GlobalMagnitude(40), {}),
        "connections, 40x, L1": (budgets.GlobalMagnitude(40), l1),
        "half of the neurons": (neurons(0.5), {}),
        "80% of the neurons": (neurons(0.8), {}),
    }


def measure(seed):
    """Trains what is not in the JSON file yet."""
    import keras
    import mnist

    import keras_prune as kp

    images, labels = mnist.load("train")
    data = images[: -mnist.HELD_OUT], labels[: -mnist.HELD_OUT]
    held_out = images[-mnist.HELD_OUT :], labels[-mnist.HELD_OUT :]
    file = pathlib.Path(tempfile.gettempdir()) / f"neurons_{seed}.keras"
    for way, (criterion, penalty) in ways().items():
        measured = measurements.read(FLAGS.results)
        if f"{way} {seed}" in measured:
            continue
        keras.utils.set_random_seed(seed)
        if not file.exists():
            model = mnist.build()
            mnist.train(model, data, held_out, FLAGS.dense_epochs)
            model.save(file)
        model = keras.models.load_model(file)
        kp.prune(model, criterion)
        if penalty:
            kp.regularize(model, **penalty)
        mnist.train(model, data, held_out, FLAGS.epochs, [kp.PruningCallback()])
        measured[f"{way} {seed}"] = {"way": way, "seed": seed, **penalty, **compare(model, mnist.load("test"))}
        measurements.write(FLAGS.results, measured)


def compare(model, test):
    """Returns what a pruned model and the one without its dead neurons have and compute."""
    import mnist
    import numpy as np

    import keras_prune as kp

    small = kp.remove_dead_neurons(model)
    outputs, of_small = (one.predict(test[0], batch_size=1000, verbose=0) for one in (model, small))
    dead, (report, report_of_small) = kp.dead_neurons(model), map(kp.report, (model, small))
    return {
        "weights": report.weights,
        "kept": report.kept,
        "flop": report.flop,
        "test_error": mnist.error(model, test),
        "rows": dead.to_dict()["rows"],
        "small_weights": report_of_small.weights,
        "small_kept": report_of_small.kept,
        "small_flop": report_of_small.flop,
        "small_test_error": mnist.error(small, test),
        "largest_output": float(np.max(np.abs(outputs))),
        "largest_difference": float(np.max(np.abs(outputs - of_small))),
    }


def table():
    """Returns the means over seeds as Markdown, with the single seeds in parentheses."""
    groups = {}
    for one in measurements.read(FLAGS.results).values():
        groups.setdefault(one["way"], []).append(one)

    def cell(values, form):
        each = ", ".join(form.format(value) for value in values)
        return f"{form.format(statistics.mean(values))} ({each})" if len(values) > 1 else each

    titles = [
        "pruned",
        "connections left",
        "fc1, of 300",
        "fc2, of 100",
        "weights after removal",
        "test error, %",
    ]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for way, runs in groups.items():
        cells = [
            cell([run["kept"] for run in runs], "{:,.0f}"),
            *(cell([run["rows"][layer]["kept"] for run in runs], "{:.0f}") for layer in (0, 1)),
            cell([run["small_weights"] for run in runs], "{:,.0f}"),
            cell([run["test_error"] for run in runs], "{:.2f}"),
        ]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if FLAGS.table:
        print(table())
        return
    for seed in map(int, FLAGS.seeds):
        measure(seed)


if __name__ == "__main__":
    app.run(main)
