"""Measures pruned layers and pruned training on a GPU, with JAX, PyTorch and TensorFlow if they are installed.

    python experiments/gpu.py --output=gpu.json                    # everything, at most 8 minutes on a GPU
    python experiments/gpu.py --sections=layers --output=gpu.json
    python experiments/gpu.py --small --output=/tmp/gpu.json       # tiny shapes, on a CPU too
    python experiments/gpu.py --table --output=gpu.json            # Markdown, from the measurements alone
    python experiments/gpu.py --add=gpu.json --remark="second run" --output=docs/data/gpu.json

Sections run in their own processes, one for each backend of Keras. The file is rewritten after every row, so a stopped
run keeps its rows. A failure is recorded with its reason, and the rest is still measured.
"""

import importlib.util
import json
import math
import pathlib
import sys
import time

import gpu_events
import gpu_merge
import gpu_tables
from absl import app, flags

FOLDER = pathlib.Path(__file__).resolve().parent
SECTIONS = {"layers": 300, "training": 200, "smoke": 90}  # With the most seconds of each.
BACKENDS = ("jax", "torch", "tensorflow")
MOST_RESTARTS = 4
PATIENCE = 60  # Seconds without an event after which the layers are started again.
# XLA and TensorFlow would take most of the memory when they start.
ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true", "PYTHONUNBUFFERED": "1"}
ENVIRONMENT |= {"TF_CPP_MIN_LOG_LEVEL": "2"}
FLAGS = flags.FLAGS
flags.DEFINE_list("sections", list(SECTIONS), "Sections to run: layers, training, smoke.")
flags.DEFINE_bool("small", False, "Tiny shapes and few rounds, to try the script. Runs on a CPU too.")
flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Device to run on. With auto, the GPU if there is one.")
flags.DEFINE_string("output", "gpu.json", "File of the measurements. Sections that are not run do not change.")
flags.DEFINE_float("time_limit", 450, "Seconds after which nothing new is started.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")
flags.DEFINE_string("add", None, "File of another run to merge into --output. Nothing is measured.")
flags.DEFINE_string("remark", "", "Remark on the run of --add.")


def main(_):
    output = pathlib.Path(FLAGS.output)
    results = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
    if FLAGS.add:
        added = json.loads(pathlib.Path(FLAGS.add).read_text(encoding="utf-8"))
        results = gpu_merge.merge(results, added, FLAGS.remark)
        write(output, results)
    if FLAGS.table or FLAGS.add:
        print(gpu_tables.tables(results))
        return
    device = FLAGS.device
    if device == "auto":
        device = "gpu" if gpu_events.gpu_found() else "cpu"
    if device == "gpu" and not gpu_events.gpu_found():
        sys.exit("There is no NVIDIA GPU on this machine. Received: --device=gpu")
    if device == "cpu" and not FLAGS.small:
        sys.exit("The full run needs a GPU. Use --small to try the script on a CPU.")
    if set(FLAGS.sections) - set(SECTIONS):
        sys.exit(
            f"`sections` must be among layers, training and smoke. Received: --sections={','.join(FLAGS.sections)}"
        )
    until = time.time() + FLAGS.time_limit
    for section in FLAGS.sections:
        limit = min(until, time.time() + SECTIONS[section])
        if section == "layers":
            run_layers(results, output, device, limit)
        else:
            run_backends(section, results, output, device, limit)
    write(output, results)
    print(gpu_tables.tables(results))


def run_layers(results, output, device, until):
    """Runs the layers section, again without the engine that ended its process."""
    found = results["layers"] = {"small": FLAGS.small, "machine": {}, "absent": {}, "rows": [], "ends": []}
    current = {}

    def handle(event):
        if event["kind"] == "machine":
            found["machine"], found["absent"] = event["machine"], event["absent"]
        elif event["kind"] == "row":
            found["rows"].append(event["row"])
            report(event["row"])
        elif event["kind"] == "stopped":
            found["ends"].append(f"no time was left for {event['row']} and the rows after it")
        else:
            current.update(event)
            return
        write(output, results)

    skip = []
    for _ in range(MOST_RESTARTS + 1):
        done = ",".join(f"{row['layer']}:{row['batch']}" for row in found["rows"])
        arguments = [f"--device={device}", f"--until={until}", f"--skip={','.join(skip)}", f"--done={done}"]
        ended = run("gpu_layers.py", arguments, {}, until + 30, handle, PATIENCE)
        if ended is None or time.time() > until:
            break
        skip.append(current.get("engine", "?"))
        found["ends"].append(f"{skip[-1]} ({current.get('row', '?')}): {ended}")
        if "engine" not in current:
            break
    if ended and time.time() > until:
        found["ends"].append(ended)
    write(output, results)


def run_backends(section, results, output, device, until):
    """Runs a section once for each backend of Keras that is installed."""
    found = results[section] = {"small": FLAGS.small}
    backends = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    for place, backend in enumerate(backends):
        mine = found[backend] = {"machine": {}, "entries": [], "ends": []}

        def handle(event, mine=mine, backend=backend):
            if event["kind"] == "machine":
                mine["machine"] = event["machine"]
            elif event["kind"] == "entry":
                mine["entries"].append(event["entry"])
                print(f"{section} {backend} {event['entry']}", flush=True)
            write(output, results)

        # The remaining backends share the remaining time.
        limit = time.time() + (until - time.time()) / (len(backends) - place)
        arguments = [f"--device={device}", f"--until={limit}"]
        ended = run(f"gpu_{section}.py", arguments, {"KERAS_BACKEND": backend}, limit + 5, handle)
        if ended:
            mine["ends"].append(ended)
        write(output, results)
    for backend in BACKENDS:
        if backend not in backends:
            found[backend] = {"machine": {}, "entries": [], "ends": [f"{backend} is not installed"]}


def run(script, arguments, environment, limit, handle, patience=math.inf):
    """Runs another script of this folder until a Unix time. Returns `None`, or how it failed."""
    if limit <= time.time() + 5:
        return "no time was left"
    command = [sys.executable, str(FOLDER / script), *arguments, f"--small={FLAGS.small}"]
    return gpu_events.follow(command, ENVIRONMENT | environment, limit - time.time(), handle, patience)


def report(row):
    """Prints one row of the layers in a line, fastest first."""
    entries = sorted(row["entries"], key=lambda entry: entry["microseconds"])
    times = ", ".join(f"{entry['engine']} {entry['microseconds']:.4g}" for entry in entries)
    print(f"{row['layer']} batch {row['batch']}: {times} us; refused: {row['refused']}", flush=True)


def write(path, results):
    """Replaces the file of the results in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(rounded(results), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def rounded(value):
    """Returns the results with floats of 5 significant digits."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [rounded(entry) for entry in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.5g}")
    return value


if __name__ == "__main__":
    app.run(main)
