import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import array, assert_same, refill

import keras_prune as kp
from keras_prune import networks
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import prunable_weights
from keras_prune.sparse import conversion

pytestmark = pytest.mark.skipif(
    keras.backend.backend() not in ("tensorflow", "jax"), reason="sparse layers run on TensorFlow and JAX"
)
FORMATS = ("csr", "coo", "ell")

SERVE = """
import sys
import numpy as np
import tensorflow as tf
inputs = np.load(sys.argv[1] + "/inputs.npy")
served = tf.saved_model.load(sys.argv[1] + "/model")
np.save(sys.argv[1] + "/served.npy", served.serve(inputs))
np.save(sys.argv[1] + "/one.npy", served.signatures["serving_default"](tf.constant(inputs[:1]))["output_0"])
assert "keras_prune" not in sys.modules
"""


def cut_model(*layers, inputs=(16,), sparsity=0.8):
    """Returns a stripped model of layers that are pruned to the same sparsity."""
    model = kp.prune(keras.Sequential([keras.Input(inputs), *layers]), kp.TargetSparsity(sparsity))
    kp.cut(model)
    return kp.strip(model)


def test_several_processes_do_not_time_layers_together(monkeypatch):
    monkeypatch.setattr(conversion, "process_count", lambda model: 2)
    with pytest.raises(ValueError, match=r"Pass format=.*Received: format='auto' in one of 2"):
        kp.to_sparse(cut_model(keras.layers.Dense(4)))
    assert kp.to_sparse(cut_model(keras.layers.Dense(4)), "csr", verbose=0).layers[0].connections == 13


def two_layers():
    layers = keras.layers.Dense(24, "relu", name="fc1"), keras.layers.Dense(3, bias_initializer="ones", name="fc2")
    return cut_model(*layers)


def random_inputs(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("batch", [1, 33])
def test_to_sparse_gives_the_same_outputs(format, batch):
    model = two_layers()
    sparse = kp.to_sparse(model, format, verbose=0)
    assert [type(layer).__name__ for layer in sparse.layers] == ["SparseDense", "SparseDense"]
    inputs = random_inputs(batch, 16)
    np.testing.assert_allclose(sparse.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_sparse_model_is_saved_and_loaded(format, tmp_path):
    sparse = kp.to_sparse(two_layers(), format, verbose=0)
    sparse.save(tmp_path / "sparse.keras")
    loaded = keras.models.load_model(tmp_path / "sparse.keras")
    assert loaded.get_layer("fc1").format == format
    inputs = random_inputs(5, 16)
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), sparse.predict(inputs, verbose=0))


def test_sparse_weights_load_with_another_format(tmp_path):
    model = two_layers()
    kp.to_sparse(model, "csr", verbose=0).save_weights(tmp_path / "sparse.weights.h5")
    other = kp.to_sparse(two_layers(), "coo", verbose=0)
    other.load_weights(tmp_path / "sparse.weights.h5")
    inputs = random_inputs(5, 16)
    np.testing.assert_allclose(other.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels are TensorFlow's")
@pytest.mark.parametrize("format", FORMATS)
def test_saved_model_is_served_without_keras_prune(format, tmp_path):
    model = two_layers()
    sparse = kp.to_sparse(model, format, verbose=0)
    sparse.export(tmp_path / "model", verbose=False)
    inputs = random_inputs(5, 16)
    np.save(tmp_path / "inputs.npy", inputs)
    run = subprocess.run(
        [sys.executable, "-c", SERVE, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "served.npy"), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "one.npy"), expected[:1], atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("format", FORMATS)
def test_sparse_model_in_a_graph_of_unknown_batch_size(format):
    import tensorflow as tf

    model = two_layers()
    sparse = kp.to_sparse(model, format, verbose=0)
    call = tf.function(sparse, input_signature=[tf.TensorSpec((None, 16))])
    for batch in (1, 9):
        inputs = random_inputs(batch, 16)
        np.testing.assert_allclose(call(inputs), model(inputs), atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2])
def test_to_sparse_only_converts_1x1_convolutions(rank, capsys):
    convolution = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}[rank]
    model = cut_model(
        convolution(8, 3, name="wide"),
        convolution(6, 1, activation="relu", name="pointwise"),
        convolution(6, 1, strides=2, name="strided"),
        inputs=(*[9] * rank, 4),
    )
    sparse = kp.to_sparse(model, "csr")
    assert [type(layer).__name__ for layer in sparse.layers] == [
        convolution.__name__,
        "SparseDense",
        convolution.__name__,
    ]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "wide: dense; a convolution of several positions is faster dense"
    assert printed[2].startswith("strided: dense; a 1x1 convolution must have stride 1")
    inputs = random_inputs(2, *[9] * rank, 4)
    np.testing.assert_allclose(sparse.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5)


def test_to_sparse_auto_prints_its_choice_and_times(capsys):
    model = two_layers()
    sparse = kp.to_sparse(model, batch_size=4)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == ["fc1", "fc2"]
    for line, layer in zip(printed, sparse.layers, strict=True):
        chosen = line.split(": ")[1].split(",")[0]
        assert chosen == (layer.format if isinstance(layer, kp.sparse.SparseDense) else "dense")
        assert re.search(r" us against .* at batch 4; (20.1% of 384|19.4% of 72) connections", line)


def test_to_sparse_auto_chooses_the_fastest_format(monkeypatch):
    from keras_prune.sparse import conversion

    for fastest, expected in (("dense", keras.layers.Dense), ("coo", kp.sparse.SparseDense)):
        times = {"dense": 2.0, "csr": 2.0, "coo": 2.0, "ell": 2.0, fastest: 1.0}
        monkeypatch.setattr(
            conversion, "interleave", lambda calls, times=times: {name: np.array([times[name]]) for name in calls}
        )
        sparse = kp.to_sparse(two_layers(), verbose=0)
        assert {type(layer) for layer in sparse.layers} == {expected}
        if fastest == "coo":
            assert {layer.format for layer in sparse.layers} == {"coo"}


def pruned_in_place():
    return kp.prune(keras.Sequential([keras.Input((16,)), keras.layers.Dense(4)]), kp.TargetSparsity(0.5))


def with_wrappers():
    layers = kp.Prune(keras.layers.Dense(6, name="fc1"), kp.TargetSparsity(0.5)), keras.layers.Dense(4, name="fc2")
    return keras.Sequential([keras.Input((16,)), *layers])


def with_wrappers_and_pruned():
    return kp.prune(with_wrappers(), kp.TargetSparsity(0.5))


def subclassed_with_wrapper():
    model = OfOneWrapper()
    model(random_inputs(2, 16))
    return model


@keras.saving.register_keras_serializable(package="tests")
class OfOneWrapper(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.fc = kp.Prune(keras.layers.Dense(4, name="fc"), kp.TargetSparsity(0.5))

    def call(self, inputs):
        return self.fc(inputs)


@pytest.mark.parametrize("make", [pruned_in_place, with_wrappers, with_wrappers_and_pruned, subclassed_with_wrapper])
def test_to_sparse_does_not_change_the_pruned_model(make):
    model = make()
    kp.cut(model)
    inputs = random_inputs(3, 16)
    expected, kind = array(model(inputs)), type(model)
    before = [(weight.path, weight.kept, weight.criterion) for weight in kp.layers.pruned_weights(model)]
    sparse = kp.to_sparse(model, "csr", verbose=0)
    converted = [layer for layer in layers_in(sparse) if isinstance(layer, kp.sparse.SparseDense)]
    nonzero = [np.count_nonzero(one.variable) for one in prunable_weights(model)]
    assert [layer.connections for layer in converted] == nonzero
    assert not kp.layers.pruned_weights(sparse)
    np.testing.assert_allclose(array(sparse(inputs)), expected, atol=1e-5)
    assert type(model) is kind
    assert [(weight.path, weight.kept, weight.criterion) for weight in kp.layers.pruned_weights(model)] == before
    refill(model)  # Its hooks still hide what an optimizer writes into pruned connections.
    assert_same(model(inputs), expected)


def test_to_sparse_converts_nested_and_branching_models():
    inputs = keras.Input((6,))
    nested = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="inner")])
    shared = keras.layers.Dense(6, name="shared")
    outputs = keras.layers.Add()([shared(inputs), shared(shared(inputs))])
    model = keras.Model(inputs, nested(outputs))
    sparse = kp.to_sparse(model, "csr", verbose=0)
    inputs = random_inputs(3, 6)
    np.testing.assert_allclose(sparse.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5)
    assert sum(isinstance(layer, kp.sparse.SparseDense) for layer in layers_in(sparse)) == 2


def test_to_sparse_compiles_the_copy():
    model = two_layers()
    model.compile("adam", "mse", metrics=["mae"])
    data = random_inputs(10, 16), random_inputs(10, 3)
    sparse = kp.to_sparse(model, "csr", verbose=0)
    np.testing.assert_allclose(sparse.evaluate(*data, verbose=0), model.evaluate(*data, verbose=0), rtol=1e-5)


def test_to_sparse_at_12x_takes_a_quarter_of_the_memory():
    model = networks.lenet_300_100()
    model = kp.prune(model, kp.TargetSparsity(1 - 1 / 12))
    kp.cut(model)
    sparse = kp.to_sparse(model, "csr", verbose=0)
    dense_bytes = sum(4 * int(np.prod(weight.shape)) for weight in model.weights)
    layers = [layer for layer in sparse.layers if isinstance(layer, kp.sparse.SparseDense)]
    assert sum(layer.weight_bytes for layer in layers) <= dense_bytes / 4
    held = sum(array.nbytes for layer in layers for array in layer.matrix.read())
    assert held == sum(layer.matrix.weight_bytes for layer in layers)


@pytest.mark.parametrize("format", FORMATS)
def test_sparse_models_can_be_copied(format):
    sparse = kp.to_sparse(two_layers(), format, verbose=0)
    x = np.random.default_rng(0).normal(size=(4, 16)).astype("float32")
    expected = array(sparse(x))
    nested = keras.Sequential([keras.Input((16,)), sparse, keras.layers.Dense(2)])
    kp.cut(kp.prune(nested))  # Sparse layers have no weight to prune, and are left alone.
    assert_same(sparse(x), expected)
    assert_same(kp.remove_dead_neurons(sparse, verbose=0)(x), expected)


def test_fit_of_a_sparse_model_warns_that_it_does_not_train():
    sparse = kp.to_sparse(two_layers(), "csr", verbose=0)
    model = keras.Sequential([keras.Input((16,)), sparse, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="The sparse layer .* is for inference, and its weights stay"):
        model.fit(random_inputs(4, 16), np.zeros((4, 1)), verbose=0)
