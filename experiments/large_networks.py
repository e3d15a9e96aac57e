"""Measures seconds, memory and bytes of all steps except training, for the paper's AlexNet and VGG-16 at full size.

    python experiments/large_networks.py                            # both, without measurements in the JSON file
    python experiments/large_networks.py --networks=alexnet --phase=to_sparse --again
    python experiments/large_networks.py --table                    # Markdown, from the JSON file alone

The weights are random, and every layer is pruned to the density in the paper's tables. Every phase runs in its own
process. Its memory is measured beyond that of the process with the libraries loaded (Linux). For a quick trial, use the
two smaller networks of the paper, `lenet_300_100` and `lenet_5`.
"""

import functools
import gc
import importlib.metadata
import json
import os
import pathlib
import time

import measurements
from absl import app, flags

PHASES = ("build", "prune", "load", "to_sparse", "files", "float32", "float16", "dynamic_int8")
STEPS = {  # In the order of the table, with the phase and the name of each in the JSON file.
    "building the network (Keras alone)": ("build", "build"),
    "`prune`": ("prune", "prune"),
    "`cut`, `TargetSparsity`": ("prune", "cut"),
    "`strip`": ("prune", "strip"),
    "`save_sparse`": ("prune", "save_sparse"),
    "`load_sparse`": ("load", "load_sparse"),
    "`report`": ("load", "report"),
    '`to_sparse(format="csr")`': ("to_sparse", "csr"),
    "`to_sparse`": ("to_sparse", "auto"),
    "`export_tflite`": ("float32", "export"),
    '`export_tflite(quantization="float16")`': ("float16", "export"),
    '`export_tflite(quantization="dynamic_int8")`': ("dynamic_int8", "export"),
}
MB = 2**20
FLAGS = flags.FLAGS
flags.DEFINE_list("networks", ["alexnet", "vgg16"], "Networks of keras_prune.networks.")
flags.DEFINE_multi_enum("phase", PHASES, PHASES, "Phases, in this order. Most need the files of earlier ones.")
flags.DEFINE_bool("again", False, "Whether to repeat measurements in the JSON file.")
flags.DEFINE_string("json", "docs/data/large_networks.json", "File of the measurements.")
flags.DEFINE_string("folder", "output/large_networks", "Folder for the models, 5 GB for VGG-16.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")
flags.DEFINE_string("one", None, "`network/phase` to measure in this process. The script starts these itself.")


class Process:
    """Measures steps relative to the process with the libraries loaded and no model."""

    def __init__(self):
        import keras

        import keras_prune  # noqa: F401

        keras.ops.add(keras.ops.ones(2), 1)  # The backend starts at its first operation.
        self.baseline = measurements.memory("VmRSS")

    def measure(self, step):
        """Returns the result of a function without arguments, and its seconds and bytes."""
        gc.collect()
        measurements.reset_high_water()
        before, started = measurements.memory("VmRSS"), time.perf_counter()
        result = step()
        seconds = time.perf_counter() - started
        peak = measurements.memory("VmHWM")
        return result, {
            "seconds": seconds,
            "baseline": self.baseline,
            "before": before - self.baseline,
            "peak": peak - self.baseline,
        }


def build(process, name, folder):
    """Builds the network as Keras does, and saves it in two files."""
    import keras

    import keras_prune as kp
    from keras_prune import networks

    keras.utils.set_random_seed(0)
    model, measured = process.measure(getattr(networks, name))
    model.save(folder / "dense.keras")
    kp.save_sparse(model, folder / "dense.kprune")
    sizes = {"keras": (folder / "dense.keras").stat().st_size, "kprune": (folder / "dense.kprune").stat().st_size}
    return {"parameters": model.count_params(), "build": measured, "bytes": sizes}


def prune(process, name, folder):
    """Prunes the dense network and saves the sparse file, in one process."""
    import keras_prune as kp
    from keras_prune import networks

    densities = {row.layer: row.density / 100 for row in networks.TABLES[name]}
    steps = {}
    model = kp.load_sparse(folder / "dense.kprune")  # Unlike an initialization by Keras, it keeps no extra memory.
    model, steps["prune"] = process.measure(
        lambda: kp.prune(model, lambda layer: kp.TargetSparsity(1 - densities[layer.name]))
    )
    cuts, steps["cut"] = process.measure(lambda: kp.cut(model))
    del cuts  # They keep masks in memory.
    model, steps["strip"] = process.measure(lambda: kp.strip(model))
    _, steps["save_sparse"] = process.measure(lambda: kp.save_sparse(model, folder / "sparse.kprune"))
    return steps


def load(process, name, folder):
    """Reads the sparse file, and makes a report of the network."""
    import keras_prune as kp
    from keras_prune import networks

    model, loaded = process.measure(lambda: kp.load_sparse(folder / "sparse.kprune"))
    report, reported = process.measure(lambda: kp.report(model))
    return {
        "load_sparse": loaded,
        "report": reported,
        "rows": [
            {"layer": row.name, "weights": row.weights, "kept": row.kept, "flop": row.flop} for row in report.rows
        ],
        "paper": [row._asdict() for row in networks.TABLES[name]],
    }


def to_sparse(process, name, folder):
    """Converts the dense layers to one format, and to the fastest format."""
    import keras_prune as kp

    model = kp.load_sparse(folder / "sparse.kprune")
    _, csr = process.measure(lambda: kp.to_sparse(model, format="csr", verbose=0))
    sparse, auto = process.measure(lambda: kp.to_sparse(model, verbose=0))
    formats = {layer.name: layer.format for layer in sparse.layers if hasattr(layer, "connections")}
    return {"csr": csr, "auto": auto, "formats": formats}


def files(process, name, folder):
    """Writes the network as a Keras file, and as sparse files with other widths."""
    import keras_prune as kp
    from keras_prune.export.tflite import gzip_bytes

    model = kp.load_sparse(folder / "sparse.kprune")
    model.save(folder / "sparse.keras")
    sizes = {"keras": (folder / "sparse.keras").stat().st_size, "keras_gzip": gzip_bytes(folder / "sparse.keras")}
    for key, options in {
        "kprune": {},
        "kprune_smallest": {"index_bits": "smallest"},
        "kprune_float16": {"value_dtype": "float16"},
    }.items():
        kp.save_sparse(model, folder / f"{key}.kprune", **options)
        sizes[key] = (folder / f"{key}.kprune").stat().st_size
    return {"bytes": sizes}


def export(process, name, folder, weights):
    """Writes a TFLite file."""
    import keras_prune as kp

    quantization = None if weights == "float32" else weights
    model = kp.load_sparse(folder / "sparse.kprune")
    report, measured = process.measure(
        lambda: kp.export_tflite(model, folder / f"{weights}.tflite", quantization=quantization, batch_size=1)
    )
    return {
        "export": measured,
        "bytes": {"tflite": report.bytes, "tflite_dense": report.dense_bytes, "tflite_dense_gzip": report.gzip_bytes},
        "dense_because": report.dense_because,
        "relative_difference": report.relative_difference,
    }


MEASURES = {"build": build, "prune": prune, "load": load, "to_sparse": to_sparse, "files": files}
MEASURES |= {weights: functools.partial(export, weights=weights) for weights in ("float32", "float16", "dynamic_int8")}


def run(name, phase):
    """Runs one phase, and returns its measurements and the versions of libraries."""
    folder = pathlib.Path(FLAGS.folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    measured = MEASURES[phase](Process(), name, folder)
    versions = {library: importlib.metadata.version(library) for library in ("keras", "tensorflow", "numpy")}
    return measured | {"versions": versions, "cores": len(os.sched_getaffinity(0))}


def step_table(name, phases):
    """Returns the table of all steps."""
    dense = 4 * phases["build"]["parameters"]
    lines = [
        f"**{name}: steps**",
        "",
        f"| step | seconds | held before, MiB | peak, MiB | peak / {dense / MB:,.0f} | with the libraries, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for step, (phase, key) in STEPS.items():
        if phase in phases:
            took = phases[phase][key]
            before, peak, whole = took["before"], took["peak"], took["baseline"] + took["peak"]
            sizes = f"{before / MB:,.0f} | {peak / MB:,.0f} | {peak / dense:.2f} | {whole / MB:,.0f}"
            lines.append(f"| {step} | {took['seconds']:.1f} | {sizes} |")
    return lines


def file_table(results):
    """Returns the bytes of every kind of file, and the bytes of each weight in sparse files."""
    kinds = {
        "`.keras`, dense": ("build", "keras"),
        "`.keras`, cut": ("files", "keras"),
        "the same, gzip": ("files", "keras_gzip"),
        "`save_sparse`": ("files", "kprune"),
        '`save_sparse(index_bits="smallest")`': ("files", "kprune_smallest"),
        '`save_sparse(value_dtype="float16")`': ("files", "kprune_float16"),
    }
    for weights in ("float32", "float16", "dynamic_int8"):
        kinds[f"TFLite {weights}, dense"] = (weights, "tflite_dense")
        kinds[f"TFLite {weights}, as exported"] = (weights, "tflite")
    lines = ["| file | " + " | ".join(f"{name}, bytes | of dense" for name in results) + " |"]
    lines.append("|---|" + "---|---|" * len(results))
    for kind, (phase, key) in kinds.items():
        cells = []
        for phases in results.values():
            size = phases.get(phase, {}).get("bytes", {}).get(key)
            dense = 4 * phases["build"]["parameters"]
            cells += [f"{size:,}", f"{size / dense:.1%}"] if size else ["-", "-"]
        if set(cells) != {"-"}:
            lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines += ["", "**Bytes a weight**", ""]
    lines += [
        '| network | weights kept | `save_sparse`, bytes of each | with `index_bits="smallest"` |',
        "|---|---|---|---|",
    ]
    for name, phases in results.items():
        if "files" in phases and "load" in phases:
            kept = sum(row["kept"] for row in phases["load"]["rows"])
            stored = [phases["files"]["bytes"][key] / kept for key in ("kprune", "kprune_smallest")]
            lines.append(f"| {name} | {kept:,} | {stored[0]:.2f} | {stored[1]:.2f} |")
    return lines


def layer_table(name, load):
    """Returns the parameters and operations of every layer beside the paper's."""
    lines = [
        f"| {name} | weights | paper | kept | Weights% | paper | FLOP | paper | FLOP% | paper |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    *paper, paper_total = load["paper"]
    active, weights, kept, flop, left = 1.0, 0, 0, 0, 0.0

    def line(layer, weights, kept, flop, left, printed):
        ours = [f"{weights:,}", f"{printed['weights']:,.0f}", f"{kept:,}", f"{kept / weights:.2%}"]
        ours += [f"{printed['density']:g}%", f"{flop:,}", f"{printed['flop']:,.0f}", f"{left / flop:.1%}"]
        return f"| {layer} | {' | '.join(ours)} | {printed['flop_density']:g}% |"

    for row, printed in zip(load["rows"], paper, strict=True):
        # Activations of random weights mean nothing, so take the paper's for the layer before.
        left_here = row["flop"] * row["kept"] / row["weights"] * active
        lines.append(line(row["layer"], row["weights"], row["kept"], row["flop"], left_here, printed))
        weights, kept, flop, left = weights + row["weights"], kept + row["kept"], flop + row["flop"], left + left_here
        active = printed["activation"] / 100
    return [*lines, line("total", weights, kept, flop, left, paper_total)]


def table(results):
    """Returns the Markdown tables."""
    lines = []
    for name, phases in results.items():
        lines += [*step_table(name, phases), ""]
    lines += ["**Files**", "", *file_table(results), ""]
    for name, phases in results.items():
        if "load" in phases:
            lines += [f"**{name}: layers**", "", *layer_table(name, phases["load"]), ""]
    return "\n".join(lines)


def main(_):
    if FLAGS.one:
        print(json.dumps(run(*FLAGS.one.split("/"))))
        return
    results = measurements.read(FLAGS.json)
    for name in [] if FLAGS.table else FLAGS.networks:
        phases = results.setdefault(name, {})
        for phase in FLAGS.phase:
            if phase not in phases or FLAGS.again:
                arguments = [f"--folder={FLAGS.folder}", f"--one={name}/{phase}"]
                phases[phase] = measurements.run_apart(__file__, arguments)
                print(name, phase, phases[phase], flush=True)
                measurements.write(FLAGS.json, results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
