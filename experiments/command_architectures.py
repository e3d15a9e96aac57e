"""Runs every subcommand of keras-prune once on the 40 architectures of keras.applications.

    python experiments/command_architectures.py                    # all of them; continues if stopped
    python experiments/command_architectures.py --names=MobileNetV2,VGG16
    python experiments/command_architectures.py --table            # Markdown, from the measurements

Each network has its own process, in which the subcommands run one after the other, since most of the time of a
command is the import of Keras. `export` writes a sparse file, and a .tflite file where the backend is TensorFlow.
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("names", None, "Architectures. Defaults to all, the smallest first.")
flags.DEFINE_string("one", None, "Architecture to run in this process.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/command_architectures.json", "File of the measurements.")


def commands(backend) -> dict[str, list[str]]:
    """Returns the arguments of each command by name. The first writes what the others read."""
    tflite = {"export .tflite": ["export", "pruned.keras", "model.tflite"]} if backend == "tensorflow" else {}
    engine = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}[backend]
    return {
        "prune": ["prune", "dense.keras", "pruned.keras", "--compression=4"],
        "report": ["report", "pruned.keras"],
        "plan": ["plan", "dense.keras"],
        "export .kprune": ["export", "pruned.keras", "model.kprune"],
        **tflite,
        "benchmark": ["benchmark", "pruned.keras", f"--engines={engine}", "--rounds=1", "--batch_sizes=1"],
    }


def run_one(name) -> dict:
    """Runs each command on one network, and returns its status, its seconds and the errors in its output."""
    import keras
    from architectures import architectures

    from keras_prune.tools.command import main as keras_prune

    model = architectures()[name]()
    model.save("dense.keras")
    parameters = model.count_params()
    del model
    results = {}
    for label, arguments in commands(keras.backend.backend()).items():
        started, output, errors = time.time(), io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            status = keras_prune(arguments)
        widest = max(map(len, output.getvalue().splitlines()), default=0)
        results[label] = {
            "status": status,
            "seconds": round(time.time() - started, 1),
            "widest_line": widest,
            "errors": errors.getvalue().strip(),
        }
    unfinished = [file.name for file in pathlib.Path().iterdir() if file.name.startswith(".keras_prune")]
    return {"backend": keras.backend.backend(), "parameters": parameters, "left": unfinished, "commands": results}


def passed(one) -> bool:
    """Returns whether all commands of a network ended well, printed no error and left no temporary file."""
    if "error" in one or one["left"]:
        return False
    return all(not command["status"] and not command["errors"] for command in one["commands"].values())


def table(results) -> str:
    """Returns the results in Markdown."""
    labels = list(commands("tensorflow"))
    lines = [f"| architecture | backend | passed | {', s | '.join(labels)}, s |", "|---" * (3 + len(labels)) + "|"]
    for name, one in results.items():
        if "error" in one:
            lines.append(f"| {name} | | {one['error']} |{' |' * len(labels)}")
            continue
        seconds = [f"{one['commands'][label]['seconds']:.0f}" if label in one["commands"] else "-" for label in labels]
        lines.append(f"| {name} | {one['backend']} | {'yes' if passed(one) else '**no**'} | {' | '.join(seconds)} |")
    return "\n".join([*lines, "", f"{sum(map(passed, results.values()))} of {len(results)} passed"])


def main(_):
    script = pathlib.Path(__file__).resolve()
    if FLAGS.one:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            print(json.dumps(run_one(FLAGS.one)))
        return
    results = measurements.read(FLAGS.results)
    names = [] if FLAGS.table else FLAGS.names
    if names is None:
        from architectures import architectures

        names = list(architectures())
    for name in names:
        if "error" not in results.get(name, {"error": "not run"}):
            continue
        environment = os.environ | {"PYTHONPATH": str(script.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(script), f"--one={name}"]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if process.returncode:
            results[name] = {"error": (process.stderr.strip().splitlines() or ["no words"])[-1]}
        else:
            results[name] = json.loads(process.stdout.splitlines()[-1])
        print(name, "passed" if passed(results[name]) else results[name], flush=True)
        measurements.write(FLAGS.results, results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
