import json
import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import keras
import numpy as np
import pytest
from helpers import assert_same, assert_zeros, masks, refill
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import keras_prune as kp
from keras_prune import _keras
from keras_prune.analysis.entropy import entropy_bound
from keras_prune.storage import load_sparse, save_sparse, storage_sizes
from keras_prune.storage.checked_file import open_checked, write_checked


def bits(array):
    array = np.asarray(array)
    return np.ravel(array).view(f"u{array.dtype.itemsize}")


def values(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


def assert_same_weights(model, other):
    assert [weight.shape for weight in model.weights] == [weight.shape for weight in other.weights]
    for one, two in zip(values(model), values(other), strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_array_equal(bits(one), bits(two))


def fill(model, density, seed=0):
    """Random values everywhere, and zeros in matrices and kernels."""
    rng = np.random.default_rng(seed)
    weights = [np.abs(rng.standard_normal(weight.shape)) + 0.1 for weight in model.weights]
    model.set_weights([np.where(rng.random(w.shape) < density, w, 0) if w.ndim > 1 else w for w in weights])
    return model


def lenet_300_100():
    return keras.Sequential(
        [
            keras.Input((784,)),
            layers.Dense(300, "relu", name="fc1"),
            layers.Dense(100, "relu", name="fc2"),
            layers.Dense(10, name="fc3"),
        ]
    )


def small():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, "relu", name="fc1"), layers.Dense(2, name="fc2")])
    return fill(model, 0.4)


def convolutional():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.SeparableConv2D(4, 1),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(2),
        ]
    )


def recurrent():
    return keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.GRU(3, dropout=0.2, recurrent_dropout=0.2),
            layers.Dense(2),
        ]
    )


def attention():
    inputs = keras.Input((6, 8))
    outputs = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(inputs, inputs) + inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(outputs)))


def branches():
    """A model with nested and shared layers, and parallel layers of one shape, which must not be mixed up."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")
    one, two = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(4)
    left = layers.Dense(4)(shared(inner(one)))
    right = layers.Dense(4)(shared(two))
    both = layers.Add()([left, right]) + 3.0  # An operation with the name of the layer.
    outputs = [layers.Dense(4)(left - right), layers.Dense(4)(inner(both))]
    return keras.Model([two, one], outputs)


def low_precision():
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(8, dtype="bfloat16"),
            layers.Dense(8, dtype="float16"),
            layers.Dense(8, dtype="mixed_bfloat16"),
            layers.Dense(2, dtype="float64"),
        ]
    )


@pytest.mark.parametrize("build", [convolutional, recurrent, attention, branches, low_precision])
def test_load_sparse_restores_weights_and_outputs(build, tmp_path):
    model = fill(build(), 0.2)
    save_sparse(model, tmp_path / "model.kprune")
    loaded = load_sparse(tmp_path / "model.kprune")
    assert_same_weights(model, loaded)
    assert type(loaded) is type(model)
    assert not loaded.compiled
    inputs = [keras.random.normal((2, *tensor.shape[1:])) for tensor in model.inputs]
    inputs = inputs[0] if len(inputs) == 1 else inputs
    for one, two in zip(keras.tree.flatten(model(inputs)), keras.tree.flatten(loaded(inputs)), strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(keras.ops.cast(one, "float32")),
            keras.ops.convert_to_numpy(keras.ops.cast(two, "float32")),
        )


@pytest.fixture(scope="module")
def plain():
    return keras.Sequential([keras.Input((23,)), layers.Dense(11, use_bias=False)])


@given(seed=st.integers(0, 99), density=st.floats(0, 1), index_bits=st.sampled_from([None, "smallest", *range(1, 17)]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_load_sparse_restores_any_mask_at_any_width(plain, tmp_path, seed, density, index_bits):
    fill(plain, density, seed)
    save_sparse(plain, tmp_path / "model.kprune", index_bits)
    assert_same_weights(plain, load_sparse(tmp_path / "model.kprune"))


def test_load_sparse_restores_special_numbers_bit_for_bit(plain, tmp_path):
    pattern = np.zeros((23, 11), "uint32")
    # -0, the smallest numbers of both signs, infinities, quiet NaNs with a payload.
    pattern[::5, 3] = [0x80000000, 0x00000001, 0x807FFFFF, 0x7F800000, 0xFFC12345]
    plain.set_weights([pattern.view("float32")])
    np.testing.assert_array_equal(values(plain)[0].view("uint32"), pattern)
    save_sparse(plain, tmp_path / "model.kprune")
    np.testing.assert_array_equal(values(load_sparse(tmp_path / "model.kprune"))[0].view("uint32"), pattern)


def test_loaded_model_trains(tmp_path):
    save_sparse(small(), tmp_path / "model.kprune")
    model = load_sparse(tmp_path / "model.kprune")
    model.compile("adam", "mse")
    model.fit(np.ones((8, 6)), np.ones((8, 2)), epochs=1, verbose=0)
    assert not np.array_equal(values(model)[0], values(small())[0])


def test_save_sparse_saves_pruned_models_without_masks(tmp_path):
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(50, name="fc1"), layers.Dropout(0.5), layers.Dense(10, name="fc2")]
    )
    kp.cut(kp.prune(model, kp.TargetSparsity(0.9)))
    refill(model)
    save_sparse(model, tmp_path / "model.kprune")
    loaded = load_sparse(tmp_path / "model.kprune")
    assert [type(layer).__name__ for layer in loaded.layers] == ["Dense", "Dropout", "Dense"]
    assert not any(hasattr(layer, "pruning") for layer in loaded.layers)
    assert_same_weights(model, loaded)
    assert_zeros(model)
    rows = storage_sizes(model)
    assert [(row.shape, row.entries) for row in rows] == [((64, 50), 320), ((50,), 0), ((50, 10), 50), ((10,), 0)]
    assert rows[0].name == kp.layers.pruned_weights(model)[0].path
    assert [replace(row, name="") for row in rows] == [replace(row, name="") for row in storage_sizes(loaded)]


def test_save_sparse_keeps_the_model_pruned(tmp_path):
    model = small()
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    before = masks(model)
    save_sparse(model, tmp_path / "model.kprune")
    assert_same(masks(model), before)
    refill(model)
    assert_same(model(np.ones((1, 6))), load_sparse(tmp_path / "model.kprune")(np.ones((1, 6))))


def test_save_sparse_saves_models_of_wrappers_plain(tmp_path):
    wrapped = [kp.Prune(layers.Dense(5, "relu"), kp.TargetSparsity(0.5)), kp.Prune(layers.LSTM(4))]
    model = keras.Sequential([keras.Input((3, 6)), *wrapped, layers.Dense(2)])
    kp.cut(model)
    save_sparse(model, tmp_path / "model.kprune")
    loaded = load_sparse(tmp_path / "model.kprune")
    assert [type(layer).__name__ for layer in loaded.layers] == ["Dense", "LSTM", "Dense"]
    assert_same_weights(model, loaded)
    assert [type(layer).__name__ for layer in model.layers] == ["Prune", "Prune", "Dense"]


class Subclassed(keras.Model):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden, self.head = layers.Dense(units, "relu"), layers.Dense(2)

    def build(self, shape):
        self.hidden.build(shape)
        self.head.build((None, self.units))

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return super().get_config() | {"units": self.units}


def test_load_sparse_restores_subclassed_models_plain(tmp_path):
    model = Subclassed(7)
    model.build((None, 6))
    kp.cut(kp.prune(model, kp.TargetSparsity(0.75)))
    save_sparse(model, tmp_path / "model.kprune")
    loaded = load_sparse(tmp_path / "model.kprune", custom_objects={"Subclassed": Subclassed})
    assert type(loaded) is Subclassed
    assert_same_weights(model, loaded)
    assert_same(model(np.ones((1, 6))), loaded(np.ones((1, 6))))
    assert kp.report(loaded).compression == kp.report(model).compression > 4


def test_load_sparse_restores_adapted_normalization(tmp_path):
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(0).normal(5, 3, (100, 4)))
    model = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(2)])
    save_sparse(model, tmp_path / "model.kprune")
    inputs = np.ones((1, 4), "float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model(inputs)),
        keras.ops.convert_to_numpy(load_sparse(tmp_path / "model.kprune")(inputs)),
    )


def test_load_sparse_restores_int8_models(tmp_path):
    model = fill(keras.Sequential([keras.Input((20,)), layers.Dense(30), layers.Dense(2)]), 0.2)
    model.quantize("int8")
    save_sparse(model, tmp_path / "model.kprune")
    loaded = load_sparse(tmp_path / "model.kprune")
    assert_same_weights(model, loaded)
    assert storage_sizes(model)[1].dtype == "int8"


def concentrated(shape, rng):
    """Bands, as in the paper's figure 4: most connections go to a few inputs."""
    return rng.random(shape) * np.exp(2 * rng.standard_normal((shape[0], 1)))


def uniform(shape, rng):
    return rng.random(shape)


@pytest.mark.parametrize("index_bits", [None, "smallest"])
@pytest.mark.parametrize("score", [uniform, concentrated])
def test_lenet_300_100_at_12x_is_near_its_entropy(score, index_bits, tmp_path):
    model, rng = lenet_300_100(), np.random.default_rng(0)
    for layer, density in zip(model.layers, (0.08, 0.09, 0.26), strict=True):
        ranks = score(layer.kernel.shape, rng)
        mask = ranks > np.quantile(ranks, 1 - density)
        layer.kernel.assign(np.where(mask, rng.standard_normal(mask.shape), 0))
        layer.bias.assign(rng.standard_normal(layer.bias.shape))
    save_sparse(model, tmp_path / "model.kprune", index_bits)
    size = os.path.getsize(tmp_path / "model.kprune")
    kernels = storage_sizes(model, index_bits)[::2]
    assert sum(row.entries for row in kernels) == pytest.approx(21_776, abs=3)
    assert size < 110_000
    bound = sum(entropy_bound(row.entries, row.size, 4) for row in kernels)
    assert size < 1.08 * bound
    if score is uniform:
        assert sum(row.stored_bytes for row in kernels) < 1.012 * bound


def test_storage_sizes_are_the_sizes_in_the_file(tmp_path):
    model = fill(convolutional(), 0.1)
    for arguments in [(), ("smallest",), (3, "float16")]:
        save_sparse(model, tmp_path / "model.kprune", *arguments)
        header, payload = unpacked(tmp_path / "model.kprune")
        rows = storage_sizes(model, *arguments)
        assert sum(row.stored_bytes for row in rows) == len(payload)
        assert [row["name"] for row in header["weights"]] == [row.name for row in rows]
    assert sum(row.dense_bytes for row in rows) == sum(value.nbytes for value in values(model))


def test_save_sparse_with_float16_only_rounds_kernels(tmp_path):
    model = fill(convolutional(), 0.3)
    save_sparse(model, tmp_path / "model.kprune", value_dtype="float16")
    for before, after in zip(values(model), values(load_sparse(tmp_path / "model.kprune")), strict=True):
        np.testing.assert_array_equal(after, before.astype("float16") if before.ndim > 1 else before)


def test_load_sparse_works_in_a_fresh_process(tmp_path):
    model = small()
    save_sparse(model, tmp_path / "model.kprune")
    script = (
        "import sys, numpy, keras_prune.storage; model = keras_prune.storage.load_sparse(sys.argv[1]); "
        "numpy.savez(sys.argv[2], *model.get_weights())"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "model.kprune", tmp_path / "weights.npz"], check=True)
    with np.load(tmp_path / "weights.npz") as weights:
        for before, after in zip(values(model), weights.values(), strict=True):
            np.testing.assert_array_equal(bits(after), bits(before))


@keras.saving.register_keras_serializable(package="test_sparse_file")
class Compiling(keras.Model):
    """A model that its constructor compiles, as the tasks of KerasHub."""

    def __init__(self, units=3, **kwargs):
        inputs = keras.Input((4,))
        super().__init__(inputs, layers.Dense(units, name="fc")(inputs), **kwargs)
        self.units = units
        self.compile(keras.optimizers.Nadam(0.5), "mse", metrics=["mae"])

    def get_config(self):
        return {"units": self.units, "name": self.name}


def test_load_sparse_restores_models_that_compile_themselves(tmp_path, monkeypatch):
    model = Compiling()
    save_sparse(kp.prune(model, kp.TargetSparsity(0.5)), tmp_path / "model.kprune")
    with ThreadPoolExecutor(4) as threads:
        loaded = list(threads.map(load_sparse, [tmp_path / "model.kprune"] * 8))
    for one in loaded:
        assert type(one) is Compiling
        assert_same_weights(model, one)
        assert float(one.optimizer.learning_rate) == 0.5
        one.evaluate(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
    header, payload = unpacked(tmp_path / "model.kprune")
    header["model"]["config"]["units"] = 10**12
    forge(tmp_path / "model.kprune", header, payload)
    initialised = allocations(monkeypatch)
    with pytest.raises(ValueError, match="1000000000000"):
        load_sparse(tmp_path / "model.kprune")
    assert initialised == []


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


def test_load_sparse_needs_custom_objects(tmp_path):
    model = keras.Sequential([keras.Input((4,)), Doubled(3)])
    save_sparse(model, tmp_path / "model.kprune")
    assert_same_weights(model, load_sparse(tmp_path / "model.kprune", custom_objects={"Doubled": Doubled}))
    with pytest.raises(ValueError, match=r"(?s)in `custom_objects`.*model\.kprune.*Doubled"):
        load_sparse(tmp_path / "model.kprune")


# The content of a file is not trusted, and no code from it is run.


def unpacked(path):
    with open_checked(path) as (header, payload_bytes, file):
        return header, file.read(payload_bytes)


def forge(path, header, payload):
    """Writes a file with a valid checksum."""
    write_checked(path, header, [payload], len(payload))


@pytest.fixture
def file(tmp_path):
    save_sparse(small(), tmp_path / "model.kprune")
    return tmp_path / "model.kprune"


def test_load_sparse_rejects_damage_to_any_byte(file):
    whole = file.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.kprune"):
            load_sparse(file)
        file.write_bytes(whole[:position])
        with pytest.raises(ValueError, match=r"model\.kprune"):
            load_sparse(file)


def allocations(monkeypatch):
    """Counts the weights that Keras initializes from now on."""
    initialised = []
    original = keras.Variable._initialize_with_initializer

    def count(self, initializer):
        initialised.append(self.path)
        return original(self, initializer)

    monkeypatch.setattr(keras.Variable, "_initialize_with_initializer", count)
    return initialised


@pytest.mark.parametrize(
    "lie",
    [
        {"shape": [1_000_000, 1_000_000]},
        {"shape": [6, 5]},
        {"shape": [4, 6]},
        {"shape": [24]},
        {"dtype": "int32", "stored_dtype": "int32"},
        {"entries": 10**12},
        {"settings": {"index_bits": 5, "indices": 10**12}},
        {"settings": {"index_bits": 16, "indices": 9}},
        {"encoding": "dense", "settings": {}},
        {"encoding": "entropy"},
        {"unknown": 1},
    ],
)
def test_load_sparse_allocates_nothing_for_false_headers(file, lie, monkeypatch):
    header, payload = unpacked(file)
    forge(file, header, payload)
    assert_same_weights(load_sparse(file), small())
    header["weights"][0] |= lie
    forge(file, header, payload)
    initialised = allocations(monkeypatch)
    with pytest.raises(ValueError, match=r"model\.kprune"):
        load_sparse(file)
    assert initialised == []


def test_load_sparse_allocates_nothing_for_false_configs(file, monkeypatch):
    sound = file.read_bytes()
    header, payload = unpacked(file)
    header["model"]["config"]["layers"][1]["config"]["units"] = 10**12
    forge(file, header, payload)
    initialised = allocations(monkeypatch)
    with pytest.raises(ValueError, match="1000000000000"):
        load_sparse(file)
    assert initialised == []
    # No variable of the rejected model is left to be allocated with the next model.
    file.write_bytes(sound)
    load_sparse(file)
    assert len(initialised) == 4


def test_load_sparse_rejects_indices_of_another_span(file):
    header, payload = unpacked(file)
    for position in range(3):
        for bit in range(8):
            altered = bytearray(payload)
            altered[position] ^= 1 << bit
            forge(file, header, bytes(altered))
            with pytest.raises(ValueError, match=r"model\.kprune.*(span|index for each entry)"):
                load_sparse(file)


@pytest.mark.parametrize("header", [[], None, "model", {}, {"model": {}}, {"model": {}, "weights": []}])
def test_load_sparse_rejects_headers_of_another_structure(file, header):
    forge(file, header, b"")
    with pytest.raises(ValueError, match=r"model\.kprune"):
        load_sparse(file)


@given(st.data())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_load_sparse_of_altered_configs_is_valid_or_raises(file, data):
    save_sparse(small(), file)
    header, payload = unpacked(file)
    node, key = {"model": header["model"]}, "model"
    while isinstance(node[key], (dict, list)) and node[key] and data.draw(st.integers(0, 9)):
        node = node[key]
        key = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
    node[key] = data.draw(st.sampled_from([None, -1, 1.5, "x", "dense", [], {}, True, 10**30]))
    forge(file, header, payload)
    try:
        model = load_sparse(file)
    except ValueError:
        return
    assert_same_weights(model, small())


def test_lambdas_are_rejected_even_if_keras_allows_them(tmp_path, file):
    safe = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Lambda(lambda x: x + 1)])
    keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(ValueError, match="replace Lambda layers"):
            save_sparse(safe, tmp_path / "lambda.kprune")
        assert not (tmp_path / "lambda.kprune").exists()
        header, payload = unpacked(file)
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(safe.layers[-1])))
        header["model"]["config"]["layers"].append(config)
        forge(file, header, payload)
        with pytest.raises(ValueError, match=r"model\.kprune.*(?i:lambda)"):
            load_sparse(file)
    finally:
        _keras.global_state.set_global_attribute("safe_mode_saving", None)


@pytest.mark.parametrize("module", ["os", "subprocess", "keras_prune.storage", "keras.src.saving.saving_lib"])
def test_load_sparse_rejects_configs_of_other_classes(file, module):
    header, payload = unpacked(file)
    header["model"]["config"]["layers"][1] |= {"module": module, "class_name": "system"}
    forge(file, header, payload)
    with pytest.raises(ValueError, match=r"model\.kprune"):
        load_sparse(file)


def test_load_sparse_rejects_harmful_layers_before_keras_reads(file, monkeypatch):
    def read(*args, **kwargs):
        raise AssertionError("Keras has read the config.")

    header, payload = unpacked(file)
    header["model"]["config"]["layers"][1] |= {"class_name": "TorchModuleWrapper"}
    forge(file, header, payload)
    monkeypatch.setattr(keras.saving, "deserialize_keras_object", read)
    with pytest.raises(ValueError, match=r"model\.kprune.* must not hold keras.layers.TorchModuleWrapper"):
        load_sparse(file)


# A few bytes can stand for any number of zeros.


@pytest.fixture
def zeros(tmp_path):
    """A file of a few hundred bytes for a weight of 200 MB."""
    path, model = tmp_path / "zeros.kprune", keras.Sequential([keras.Input((3,)), layers.Embedding(50_000, 1000)])
    model.set_weights([np.zeros((50_000, 1000), "float32")])
    save_sparse(model, path, "smallest")
    return path


def test_load_sparse_limits_the_memory_unless_told_otherwise(zeros, monkeypatch):
    initialised = allocations(monkeypatch)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"zeros\.kprune.*200000000 bytes .*67108864.*pass max_bytes=200000000"):
        load_sparse(zeros)
    with pytest.raises(ValueError, match="the limit for this file is 1000"):
        load_sparse(zeros, max_bytes=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert initialised == []
    assert load_sparse(zeros, max_bytes=200_000_000).count_params() == 50_000_000


def test_load_sparse_limits_memory_for_hidden_variables(file, monkeypatch):
    header, payload = unpacked(file)
    hidden = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 10**6}}
    hidden["build_config"] = {"input_shape": [None, 10**6]}
    constant = {"module": "keras.initializers", "class_name": "Constant", "config": {"value": hidden}}
    header["model"]["config"]["layers"][1]["config"]["kernel_initializer"] = constant
    forge(file, header, payload)
    initialised = allocations(monkeypatch)
    with pytest.raises(ValueError, match=r"model\.kprune.* 4000004000000 bytes"):
        load_sparse(file)
    assert initialised == []


@pytest.mark.parametrize("limit", [0, -1, "1 GB", float("nan")])
def test_load_sparse_rejects_other_limits(file, limit):
    with pytest.raises(ValueError, match=f"positive number or None. Received: max_bytes={limit!r}"):
        load_sparse(file, max_bytes=limit)


@pytest.mark.parametrize("name", ["none.kprune", "."])
def test_load_sparse_names_paths_that_are_not_files(name, tmp_path):
    with pytest.raises(FileNotFoundError if name == "none.kprune" else IsADirectoryError) as error:
        load_sparse(tmp_path / name)
    assert error.value.filename == str(tmp_path / name)


@pytest.mark.parametrize("name", ["plain.keras", "model.weights.h5", "model.TFLITE"])
def test_save_sparse_does_not_write_over_other_formats(name, tmp_path):
    (tmp_path / name).write_text("before")
    with pytest.raises(ValueError, match=rf"Use \.kprune\. Received: filepath='.*{name}'"):
        save_sparse(small(), tmp_path / name)
    assert (tmp_path / name).read_text() == "before"


# Models that cannot be saved are rejected before the previous file is replaced.


class Unserializable(keras.Model):
    def __init__(self, anything):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def lora():
    model = small()
    model.layers[0].enable_lora(2)
    return model


def stateful():
    return keras.Sequential([keras.Input((5, 3), batch_size=2), layers.LSTM(4, stateful=True)])


class Vocabulary(layers.Layer):
    def save_assets(self, folder):
        raise NotImplementedError

    def call(self, inputs):
        return inputs


def with_vocabulary():
    return keras.Sequential([keras.Input((5,)), Vocabulary(), layers.Dense(2)])


def subclassed():
    model = Unserializable(anything=object())
    model.build((None, 4))
    model(np.ones((1, 4)))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lora, "merge LoRA weights"),
        (with_vocabulary, "Remove lookup layers.*'vocabulary'"),
        (stateful, "stateful=False"),
        (subclassed, "rebuilt from its config"),
        (lambda: keras.Sequential([layers.Dense(2)]), "The model has no weights yet"),
    ],
)
def test_save_sparse_rejects_models_that_would_not_load(build, message, file):
    before = file.read_bytes()
    with pytest.raises(ValueError, match=message):
        save_sparse(build(), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("index_bits", [0, 17, -1, 5.0, True, "largest"])
def test_index_bits_out_of_range_is_rejected(index_bits, file):
    for call in (lambda: save_sparse(small(), file, index_bits), lambda: storage_sizes(small(), index_bits)):
        with pytest.raises(ValueError, match=f"from 1 to 16.*Received: index_bits={index_bits!r}"):
            call()


def test_save_sparse_rejects_other_value_dtypes(file):
    with pytest.raises(ValueError, match="value_dtype='int8'"):
        save_sparse(small(), file, value_dtype="int8")


def test_save_sparse_changes_neither_model_nor_keras(file, monkeypatch):
    model = small()
    model.compile("adam", "mse")
    before = values(model)
    initialised = allocations(monkeypatch)
    save_sparse(model, file)
    assert initialised == []
    assert model.compiled
    for one, two in zip(before, values(model), strict=True):
        np.testing.assert_array_equal(one, two)
    with keras.StatelessScope():
        pass
    assert initialised == []
