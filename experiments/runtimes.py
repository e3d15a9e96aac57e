"""Writes a pruned network as every kind of file, and tests which runtimes read it with the right outputs.

    pip install openvino onnxruntime tf2onnx tflite_micro ethos-u-vela      # beside keras_prune[examples]
    python experiments/runtimes.py                                         # all installed runtimes
    python experiments/runtimes.py --table                                 # Markdown, from the measurements

Each file runs in its own process, because a runtime that misreads a file may crash.
"""

import importlib.metadata
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", None, "Folder for the files. Defaults to a temporary folder.")
flags.DEFINE_list("one", None, "Runtime and file to run in this process.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/runtimes.json", "File of the measurements.")

# File name, quantization, sparse.
TFLITE = [
    ("dense", None, False),
    ("zeros_left_out", None, True),
    ("float16", "float16", False),
    ("dynamic_int8", "dynamic_int8", False),
    ("full_int8", "full_int8", False),
    ("int8_only", "int8_only", False),
]
PACKAGES = {
    "OpenVINO": "openvino",
    "ONNX Runtime": "onnxruntime",
    "tf2onnx": "tf2onnx",
    "tflite-micro": "tflite_micro",
    "Vela": "ethosu",
}
DISTRIBUTIONS = {"ethosu": "ethos-u-vela"}


def convolutions():
    from keras import layers

    return [
        *(layers.Conv2D(8, 5, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(16, 5, activation="relu")),
        *(layers.MaxPooling2D(), layers.Flatten(), layers.Dense(120, activation="relu"), layers.Dense(10)),
    ]


def write_files(folder: pathlib.Path) -> None:
    """Writes the files, and for each file its inputs and the outputs of the Keras model."""
    import keras
    import numpy as np
    from keras import layers

    import keras_prune as kp

    keras.utils.set_random_seed(0)
    images, rows = (np.random.default_rng(0).random((200, *shape), "float32") for shape in ((28, 28, 1), (128,)))
    model = keras.Sequential([keras.Input((28, 28, 1), name="image"), *convolutions()])
    kp.cut(kp.prune(model, kp.TargetSparsity(0.8)))
    blocks = keras.Sequential([keras.Input((128,), name="row"), layers.Dense(64, "relu"), layers.Dense(16)])
    kp.cut(kp.prune(blocks, kp.TargetSparsity(0.8, kp.Blocks((4, 1)))))
    for name, quantization, sparse in TFLITE:
        kp.export_tflite(model, folder / f"{name}.tflite", quantization, sparse, x=images, batch_size=1)
    kp.export_tflite(blocks, folder / "blocks_left_out.tflite", None, True, x=rows, batch_size=1)
    kp.export_xla(model, folder / "saved_model")
    model.export(str(folder / "model.onnx"), format="onnx", verbose=False)
    model.export(str(folder / "model.xml"), format="openvino", verbose=False)
    for name, one, x in (("model", model, images), ("blocks_left_out", blocks, rows)):
        np.savez(folder / f"{name}.npz", x=x[:1], y=one.predict(x[:1], verbose=0))


def scaled(array, dtype, scale, zero_point):
    """Returns an array in the 8-bit format of a file, or unchanged."""
    import numpy as np

    return np.clip(np.round(array / scale) + zero_point, -128, 127).astype("int8") if dtype == np.int8 else array


def run_micro(path, x):
    import numpy as np
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file(str(path))
    first, last = interpreter.get_input_details(0), interpreter.get_output_details(0)
    sides = [
        (one["dtype"], *(one["quantization_parameters"][name][0] for name in ("scales", "zero_points")))
        if one["dtype"] == np.int8
        else (one["dtype"], 1, 0)
        for one in (first, last)
    ]
    interpreter.set_input(scaled(x, *sides[0]), 0)
    interpreter.invoke()
    return (interpreter.get_output(0).astype("float32") - sides[1][2]) * sides[1][1]


def run_openvino(path, x):
    import openvino

    core = openvino.Core()
    model = openvino.convert_model(path) if path.is_dir() else core.read_model(path)
    compiled = core.compile_model(model, "CPU")
    if "f" not in compiled.input(0).element_type.to_string():
        return None  # OpenVINO does not report the scale.
    return next(iter(compiled(x).values()))


def run_onnx(path, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    given = session.get_inputs()[0]
    return session.run(None, {given.name: x})[0] if "float" in given.type else None


def run_tf2onnx(path, x):
    import tf2onnx

    converted = path.with_suffix(".from_tflite.onnx")
    tf2onnx.convert.from_tflite(str(path), opset=15, output_path=str(converted))
    return run_onnx(converted, x)


def run_vela(path, x):
    command = ["vela", "--accelerator-config=ethos-u55-128", f"--output-dir={path.parent / 'vela'}", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    if done.returncode:
        raise ValueError(text.strip().splitlines()[-1])
    operators = next(line.strip() for line in text.splitlines() if "NPU operators" in line)
    print(json.dumps(f"{operators}; {text.count('contains sparsity information')} warnings that sparsity is ignored"))


RUNS = dict(zip(PACKAGES, (run_openvino, run_onnx, run_tf2onnx, run_micro, run_vela), strict=True))


def run_one(runtime, path) -> None:
    """Runs one file, and prints the largest difference over the largest output, or another outcome."""
    import numpy as np

    with np.load(path.with_name("blocks_left_out.npz" if "blocks" in path.name else "model.npz")) as arrays:
        x, y = arrays["x"], arrays["y"]
    outputs = RUNS[runtime](path, x)
    if outputs is not None:
        difference = float(np.abs(outputs - y).max() / np.abs(y).max())
        print(json.dumps(difference if np.isfinite(difference) else "wrong outputs: not a number"))
    elif runtime != "Vela":
        print(json.dumps("loads; its 8-bit outputs were not compared"))


def tried(runtime, path):
    command = [sys.executable, __file__, f"--one={runtime},{path}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.strip().splitlines()[-1])
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    return f"refused ({done.returncode}): {lines[-1]:.200}"


def outcome(value):
    """Returns the outcome of a file in a runtime as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.1g}"
    if "NPU operators" in value:
        share = float(value.partition("(")[2].partition("%")[0])
        return f"{share:.0f}% on the NPU" + ("" if "; 0 warnings" in value else ", ignores sparsity")
    return re.split("[(:;]", value)[0].strip()


def table(measured):
    """Returns as Markdown the largest difference of each file in each runtime, over the largest output."""
    names = dict.fromkeys(name for about in measured.values() for name in about["files"])
    heads = [f"{runtime} {about['version']}" for runtime, about in measured.items()]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name in names:
        cells = [outcome(about["files"].get(name)) for about in measured.values()]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if FLAGS.one:
        run_one(FLAGS.one[0], pathlib.Path(FLAGS.one[1]))
        return
    measured = measurements.read(FLAGS.results)
    if not FLAGS.table:
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(FLAGS.folder or temporary)
            write_files(folder)
            for runtime, package in PACKAGES.items():
                if importlib.util.find_spec(package) is None:
                    continue
                kinds = {"ONNX Runtime": ["*.onnx"], "OpenVINO": ["*.tflite", "model.*ml", "model.onnx", "saved_model"]}
                paths = [path for kind in kinds.get(runtime, ["*.tflite"]) for path in sorted(folder.glob(kind))]
                version = importlib.metadata.version(DISTRIBUTIONS.get(package, package))
                rows = {path.name: tried(runtime, path) for path in paths if "from_tflite" not in path.name}
                measured[runtime] = {"version": version, "command": "python experiments/runtimes.py", "files": rows}
                measurements.write(FLAGS.results, measured)
    print(table(measured))


if __name__ == "__main__":
    app.run(main)
