"""Damages and forges sparse files, backups and rounds, and checks how reading them ends.

    python experiments/fuzz_files.py                                  # everything that is not in the results
    python experiments/fuzz_files.py --sparse=100 --others=20 --results=/tmp/fuzz.json
    python experiments/fuzz_files.py --piece=sparse_0 --results=/tmp/fuzz.json      # one piece again

Reading a file must give the original values or one `ValueError` with its path. It must not run code, or open another
file or the network. It may take as much memory as `load_sparse` allows, 64 MiB or 10,000 times the size of the file,
and three times that for a valid file. Pieces of 250 files run in their own processes. File `i` of a piece only depends
on the seed, the piece and `i`.
"""

import base64
import builtins
import collections
import contextlib
import json
import marshal
import pathlib
import pickle
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback

import keras
import measurements
import numpy as np
from absl import app, flags
from keras import layers

import keras_prune as kp
from keras_prune.storage.checked_file import open_checked, write_checked
from keras_prune.training.round_store import Round, RoundSettings, RoundStore

FLAGS = flags.FLAGS
flags.DEFINE_integer("sparse", 5000, "Sparse files.")
flags.DEFINE_integer("others", 1000, "Backups and rounds.")
flags.DEFINE_integer("seed", 0, "Seed of all files.")
flags.DEFINE_integer("seconds", 60, "Time for one file.")
flags.DEFINE_string("piece", None, "Piece to run in this process, such as sparse_0.")
flags.DEFINE_string("results", "docs/data/fuzz_files.json", "File of the outcomes.")

EACH = 250
CANARY = "fuzz_files_canary"
NUMBERS = [None, True, -1, 0, 1, 2, 3, 7, 1.5, float("nan"), 10**4, 10**6, 10**9, 10**12, 10**30]
TEXTS = ["", "x", "dense", "relu", "float16", "float64", "int8", "bool", "string", "float8_e4m3fn", "channels_first"]
CLASSES = [
    *(name for name, one in vars(layers).items() if isinstance(one, type)),
    *(
        "Functional",
        "Sequential",
        "Model",
        "function",
        "__lambda__",
        "__numpy__",
        "__tensor__",
        "__bytes__",
        "__slice__",
    ),
    *(
        "AUC",
        "MeanIoU",
        "Adam",
        "VGG16",
        "get_file",
        "load_data",
        "Zeros",
        "Constant",
        "DTypePolicy",
        "GetItem",
        "Arange",
    ),
]
MODULES = [None, "", "os", "builtins", "keras", "keras.layers", "keras.initializers", "keras.metrics", "keras.utils"]
MODULES += ["keras.applications", "keras.datasets.mnist", "keras.optimizers", "keras.src.ops.numpy", "keras.src.models"]
events = []


def model_of(kind):
    """Returns one of six small models, pruned."""
    inputs = keras.Input((4, 6))
    if kind == "dense":
        model = keras.Sequential([keras.Input((12,)), layers.Dense(16, "relu"), layers.Dense(4)])
    elif kind == "convolutional":
        parts = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.DepthwiseConv2D(3), layers.Flatten()]
        model = keras.Sequential([keras.Input((8, 8, 2)), *parts, layers.Dense(3)])
    elif kind == "recurrent":
        parts = [layers.Embedding(9, 4), layers.Bidirectional(layers.LSTM(3)), layers.Dropout(0.5), layers.Dense(2)]
        model = keras.Sequential([keras.Input((5,)), *parts])
    elif kind == "attention":
        outputs = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(inputs, inputs) + inputs)
        model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(3))(outputs))
    elif kind == "nested":
        inner = keras.Sequential([keras.Input((6,)), layers.Dense(5)])
        model = keras.Model(inputs, [keras.ops.relu(inner(inputs[:, 0])), inner(inputs[:, 1]) * 2])
    else:
        parts = [layers.Dense(8, dtype="mixed_bfloat16"), layers.Dense(4, dtype="float16")]
        model = keras.Sequential([keras.Input((8,)), *parts])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) * (rng.random(weight.shape) < 0.3) for weight in model.weights])
    return model


KINDS = ["dense", "convolutional", "recurrent", "attention", "nested", "mixed"]


def values_of(model):
    """Returns the weights as bytes, and the variables of an optimizer if there is one."""
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else ())]
    return [
        (str(one.dtype), keras.ops.convert_to_numpy(one.value).tobytes()) for one in variables if "seed" not in one.path
    ]


class Code:
    """Leaves a trace where it is unpickled."""

    def __reduce__(self):
        return exec, (f"import builtins; builtins.{CANARY} = True",)


def harmful(rng):
    """Returns an object that would leave a trace, or take all memory, if it were read."""
    code = base64.b64encode(pickle.dumps(Code())).decode()
    function = (lambda x, name=CANARY: (setattr(__import__("builtins"), name, True), x)[1]).__code__
    text = base64.b64encode(marshal.dumps(function)).decode()
    python = {"class_name": "__lambda__", "config": {"code": text, "defaults": [CANARY], "closure": None}}
    python["config"]["value"] = [text, [CANARY], None]
    name, config = rng.choice(
        [
            ("Lambda", {"function": python}),
            ("TorchModuleWrapper", {"module": code}),
            ("TFSMLayer", {"filepath": f"/tmp/{CANARY}"}),
            ("StringLookup", {"vocabulary": f"/tmp/{CANARY}"}),
            ("TextVectorization", {"vocabulary": f"/tmp/{CANARY}"}),
            ("JaxLayer", {"call_fn": python, "init_fn": python}),
            ("FlaxLayer", {"module": python, "method": None}),
            ("Dense", {"units": 10**9, "build_config": {"input_shape": [None, 10**6]}}),
            ("Dense", {"units": 4, "activation": python}),
            ("Embedding", {"input_dim": 10**9, "output_dim": 1000}),
            ("RepeatVector", {"n": 10**9}),
            ("Normalization", {"mean": [0.0] * 10**5, "variance": [1.0] * 10**5}),
        ]
    )
    module = rng.choice(["keras.layers", "keras.layers", "keras", None, "keras.src.layers"])
    if module == "keras":
        name = f"layers.{name}"
    found = rng.choice(
        [
            {"module": module, "class_name": name, "config": config, "registered_name": None},
            {"class_name": name, "config": config, "name": "x", "inbound_nodes": []},
            {"class_name": name, "config": config},
            python,
            {"module": "keras.metrics", "class_name": "AUC", "config": {"num_thresholds": 10**10}},
            {"module": "keras.metrics", "class_name": "MeanIoU", "config": {"num_classes": 10**6}},
            {"module": "keras.applications", "class_name": "function", "config": "VGG16", "registered_name": "VGG16"},
            {"module": "keras.datasets.mnist", "class_name": "function", "config": "load_data", "registered_name": "x"},
            {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "U1000000000"}},
            {"module": "keras.initializers", "class_name": "Constant", "config": {"value": python}},
        ]
    )
    return json.loads(json.dumps(found))


def places(config):
    """Returns each dict or list in a config with each of its keys."""
    found, waiting = [], [config]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        found += [(node, key) for key in keys]
        waiting += [node[key] for key in keys if isinstance(node[key], (dict, list))]
    return found


def alter(rng, root):
    """Alters one value in a tree of JSON."""
    node, key = rng.choice(places(root))
    old = node[key]
    how = rng.randrange(5)
    if how == 0 and isinstance(node, dict):
        del node[key]
    elif how == 1:
        other, name = rng.choice(places(root))
        node[key] = json.loads(json.dumps(other[name]))
    elif isinstance(old, (int, float)) and not isinstance(old, bool) and how > 2:
        node[key] = rng.choice([old + 1, -old, old * 2, old * 10**6, old * 10**12])
    else:
        node[key] = rng.choice([*NUMBERS, *TEXTS, [], {}, [1], [10**9, 10**9], [None, 10**6], {"class_name": "x"}])


def alter_class(rng, config):
    """Gives an object another class or module, and a shape, dtype or count another value."""
    objects = [node for node, key in places(config) if key == "class_name"]
    node = rng.choice(objects)
    node[rng.choice(["class_name", "class_name", "registered_name"])] = rng.choice(CLASSES)
    if rng.random() < 0.5:
        node["module"] = rng.choice(MODULES)
    if rng.random() < 0.2:
        node.pop("module", None)


def alter_row(rng, rows):
    """Alters a shape, dtype, count or encoding of a stored weight."""
    row = rng.choice(rows)
    name = rng.choice(list(row))
    if name == "shape":
        shape = row["shape"] if isinstance(row["shape"], list) else []
        row["shape"] = rng.choice([[10**6, 10**6], [], [0], shape[::-1], [*shape, 10**9], [1, *shape]])
    elif "dtype" in name:
        row[name] = rng.choice([*TEXTS, "uint8", "int64", "bfloat16", "object", "U1000000"])
    elif name == "encoding":
        row["encoding"], row["settings"] = rng.choice(
            [("dense", {}), ("relative_index", {"index_bits": 16, "indices": 10**9})]
        )
    else:
        alter(rng, row)


def forge(rng, path, header, payload):
    """Writes a forged file with a valid checksum, and returns the kind of forgery."""
    how = rng.choice(["rows", "rows", "config", "config", "config", "class", "class", "harmful", "zeros", "header"])
    config = header["model"]
    if how == "rows":
        for _ in range(rng.randint(1, 2)):
            alter_row(rng, header["weights"])
    elif how == "config":
        for _ in range(rng.randint(1, 3)):
            alter(rng, config)
    elif how == "class":
        alter_class(rng, config)
    elif how == "harmful":
        node, key = rng.choice(
            [(node, key) for node, key in places(config) if isinstance(node, list) or key != "class_name"]
        )
        node[key] = harmful(rng)
    elif how == "zeros":  # A huge weight of zeros in few bytes, in rows, payload and config alike.
        units, inputs = 10 ** rng.randint(1, 6), 10 ** rng.randint(1, 6)
        size = units * inputs
        indices = -(-size // 65535)
        if indices > 10**6:
            indices, size = 10**6, 65535 * 10**6
        settings = {"index_bits": 16, "indices": indices}
        row = {"name": "w", "shape": [inputs, units], "dtype": "float32", "stored_dtype": "float32", "entries": 0}
        header["weights"] = [row | {"encoding": "relative_index", "settings": settings}]
        dense = keras.saving.serialize_keras_object(layers.Dense(units, use_bias=False))
        inner = [keras.saving.serialize_keras_object(layers.InputLayer((inputs,))), dense]
        header["model"] = {"module": "keras", "class_name": "Sequential", "registered_name": None}
        header["model"]["config"] = {"name": "s", "layers": inner}
        payload = b"\xff\xff" * indices
    else:
        alter(rng, header)
    write_checked(path, json.loads(json.dumps(header)), [payload], len(payload))
    return how


def damage(rng, path):
    """Damages a file without updating its checksum, and returns how."""
    content = bytearray(path.read_bytes())
    how = rng.choice(["flip", "flip", "truncate", "extend", "zero", "swap"])
    start = rng.randrange(len(content))
    if how == "flip":
        for _ in range(rng.choice([1, 1, 1, 8])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del content[start:]
    elif how == "extend":
        content += rng.randbytes(rng.randint(1, 100))
    elif how == "zero":
        content[start : start + 64] = bytes(len(content[start : start + 64]))
    else:
        other = rng.randrange(len(content))
        content[start : start + 16], content[other : other + 16] = (
            content[other : other + 16],
            content[start : start + 16],
        )
    path.write_bytes(content)
    return how


class SparseFiles:
    """Sparse files of six models. Every second file is forged with a valid checksum."""

    def __init__(self, folder):
        self.path, self.originals = folder / "fuzzed.kprune", []
        for kind in KINDS:
            for options in ({}, {"index_bits": "smallest", "value_dtype": "float16"}):
                kp.save_sparse(model_of(kind), self.path, **options)
                with open_checked(self.path) as (header, payload_bytes, file):
                    parts = header, file.read(payload_bytes)
                self.originals.append((kind, self.path.read_bytes(), parts, values_of(kp.load_sparse(self.path))))

    def make(self, rng):
        kind, content, (header, payload), values = rng.choice(self.originals)
        self.path.write_bytes(content)
        if rng.random() < 0.4:
            how = damage(rng, self.path)
        else:
            how = forge(rng, self.path, json.loads(json.dumps(header)), payload)
        # A file of zeros is valid within the limit.
        return f"{kind}, {how}", None if how == "zeros" else values

    def read(self):
        return values_of(kp.load_sparse(self.path))


class BackupsAndRounds:
    """Backups of `PruningBackup` and directories of `iterative_prune`."""

    def __init__(self, folder):
        self.original, self.path = folder / "original", folder / "fuzzed"
        x = np.ones((4, 12), "float32")
        model = self.model()
        model.fit(x, x[:, :4], verbose=0, callbacks=[kp.PruningBackup(self.original / "backup")])
        self.store = RoundStore(
            self.original / "rounds", RoundSettings(1, ["a"], ["2.0"], 0.1, "loss", "min", 0.1, 1, None, {"x": "1"})
        )
        done = self.store.load(model)
        for compression in (1.0, 2.0):
            done.append(Round(compression, 0.1, True, 1.5))
            self.store.save(model, done)
        self.part, self.files = "", [file for file in self.original.rglob("*") if file.is_file()]
        self.values = {}
        shutil.copytree(self.original, self.path)
        for self.part in ("backup", "rounds"):
            self.values[self.part] = self.read()

    @staticmethod
    def model():
        model = kp.prune(model_of("dense"), kp.TargetSparsity(0.5), keep_zeros=False)
        model.compile("adam", "mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        return model

    def make(self, rng):
        shutil.rmtree(self.path)
        shutil.copytree(self.original, self.path)
        file = self.path / rng.choice(self.files).relative_to(self.original)
        self.part = file.parent.name
        how = rng.choice([*["damage"] * 8, "missing", "other"])
        if how == "damage":
            how = damage(rng, file)
        elif how == "other":
            shutil.copy(rng.choice(self.files), file)
        elif file.suffix == ".keras":  # Without its table or a backup, a run starts from the beginning.
            file.unlink()
        return f"{file.name}, {how}", self.values[self.part]

    def read(self):
        model = self.model()
        if self.part == "backup":
            callback = kp.PruningBackup(self.path / "backup")
            callback.set_model(model)
            callback.on_train_begin()
            return values_of(model)
        store = RoundStore(self.path / "rounds", RoundSettings(**self.store.settings))
        return [store.load(model), values_of(model)]


def chain(error):
    """Yields an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def outcome(files, expected, size):
    """Reads a file, and returns the outcome, with details if it is not allowed."""
    events.clear()
    measurements.reset_high_water()
    before, error, found = measurements.memory("VmRSS"), None, None
    signal.alarm(FLAGS.seconds)
    try:
        found = files.read()
    except Exception as raised:
        error = raised
    finally:
        signal.alarm(0)
    grown = measurements.memory("VmHWM") - before
    if events or hasattr(builtins, CANARY):
        with contextlib.suppress(AttributeError):
            delattr(builtins, CANARY)
        return "ran code", grown, str(events)
    # The largest weight is in memory up to three times, as read, on the device, and assigned.
    limit = max(1 << 26, 10_000 * size) * (1 if error else 3)
    if grown > limit or any(isinstance(one, MemoryError) for one in chain(error)):
        return "too much memory", grown, f"{grown} bytes for {size}"
    if any(isinstance(one, TimeoutError) for one in chain(error)):
        return "too slow", grown, "".join(traceback.format_exception(error))[-1500:]
    if error is None:
        same = expected is None or found == expected
        return ("equal" if same else "differs"), grown, ""
    if type(error) is ValueError and str(files.path) in str(error):
        return "ValueError with the path", grown, ""
    return "another error", grown, "".join(traceback.format_exception(error))[-1500:]


def watch(event, arguments):
    """Records events that no file may cause: opening the canary or the network, or starting a process."""
    if event == "open" and CANARY in str(arguments[0]):
        events.append((event, str(arguments[0])))
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "urllib.Request"):
        events.append((event, str(arguments)[:200]))


def too_slow(*_):
    raise TimeoutError


def run_piece(name):
    """Runs the files of one piece, and returns the outcomes."""
    kind, number = name.split("_")
    count = min(EACH, getattr(FLAGS, kind) - EACH * int(number))
    counts, kinds, failures, peak = collections.Counter(), collections.Counter(), [], 0
    signal.signal(signal.SIGALRM, too_slow)
    with tempfile.TemporaryDirectory() as folder:
        files = (SparseFiles if kind == "sparse" else BackupsAndRounds)(pathlib.Path(folder))
        files.read()
        sys.addaudithook(watch)
        for index in range(count):
            what, expected = files.make(random.Random(f"{FLAGS.seed}/{name}/{index}"))
            size = sum(file.stat().st_size for file in files.path.rglob("*")) or files.path.stat().st_size
            end, grown, details = outcome(files, expected, size)
            counts[end] += 1
            kinds[f"{what.rpartition(', ')[2]}: {end}"] += 1
            peak = max(peak, grown)
            if end not in ("equal", "ValueError with the path"):
                failures.append({"index": index, "what": what, "end": end, "details": details})
            keras.backend.clear_session()
    return {"outcomes": dict(counts), "by_kind": dict(sorted(kinds.items())), "peak_bytes": peak, "failures": failures}


def main(_):
    measured = measurements.read(FLAGS.results)
    run = f"Keras {keras.__version__}, {keras.backend.backend()}"
    versions = {"python": platform.python_version(), "numpy": np.__version__, "seed": FLAGS.seed}
    here = measured.setdefault(run, versions | {"command": "python experiments/fuzz_files.py", "pieces": {}})
    if FLAGS.piece:
        here["pieces"][FLAGS.piece] = run_piece(FLAGS.piece)
        measurements.write(FLAGS.results, measured)
        return
    for kind in ("sparse", "others"):
        for number in range(-(-getattr(FLAGS, kind) // EACH)):
            name = f"{kind}_{number}"
            if name not in measurements.read(FLAGS.results).get(run, here)["pieces"]:
                values = [
                    f"--{flag}={FLAGS[flag].value}" for flag in ("sparse", "others", "seed", "seconds", "results")
                ]
                subprocess.run([sys.executable, __file__, f"--piece={name}", *values], check=True)
    measured = measurements.read(FLAGS.results)
    here = measured[run]
    for kind in ("sparse", "others"):
        pieces = [piece for name, piece in here["pieces"].items() if name.startswith(kind)]
        here[kind] = sum((collections.Counter(piece["outcomes"]) for piece in pieces), collections.Counter())
        here[f"{kind}_peak_bytes"] = max((piece["peak_bytes"] for piece in pieces), default=0)
        print(f"{run}, {kind}: {dict(here[kind])}, at most {here[f'{kind}_peak_bytes']} bytes")
    measurements.write(FLAGS.results, measured)


if __name__ == "__main__":
    app.run(main)
