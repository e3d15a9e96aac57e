"""Models and layers that `prune_low_magnitude` wraps and `strip_pruning` unwraps."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW, array, assert_same, density
from keras import layers

import keras_prune as kp
from keras_prune.compat import tfmot

ROOT = Path(__file__).resolve().parents[2]
s = tfmot.sparsity.keras
X = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")


def dense_model(**settings):
    return keras.Sequential([keras.Input((8,)), layers.Dense(6, name="a", **settings), layers.Dense(2, name="b")])


def test_a_model_is_new_around_the_same_layers():
    model = dense_model()
    model.compile("sgd", "mse")
    pruned = s.prune_low_magnitude(model)
    assert [layer.name for layer in pruned.layers] == ["prune_low_magnitude_a", "prune_low_magnitude_b"]
    assert [layer.layer for layer in pruned.layers] == model.layers
    assert (model.compiled, pruned.compiled) == (True, False)
    assert_same(pruned(X), model(X))


def test_nested_models_and_shared_layers_are_wrapped_once():
    inner, shared = dense_model(), layers.Dense(8)
    inputs = keras.Input((8,))
    pruned = s.prune_low_magnitude(keras.Model(inputs, inner(shared(shared(inputs))) + 1))
    assert len(kp.layers.pruned_weights(pruned)) == 3
    assert len(pruned.weights) == 6


def test_an_unbuilt_model_is_pruned_when_it_is_built():
    pruned = s.prune_low_magnitude(keras.Sequential([layers.Dense(3), layers.Flatten()]))
    assert not kp.layers.pruned_weights(pruned)
    pruned.build((None, 8))
    assert len(kp.layers.pruned_weights(pruned)) == 1


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize(("inner", "outer"), [({"input_shape": (8,)}, {}), ({}, {"input_shape": (8,)})])
def test_a_first_layer_with_input_shape_builds_the_model(inner, outer):
    model = keras.Sequential([s.prune_low_magnitude(layers.Dense(3, **inner), **outer), layers.Flatten()])
    assert model.input_shape == (None, 8)


def test_layers_wrapped_by_clone_model_are_pruned():
    wrap = lambda layer: s.prune_low_magnitude(layer) if layer.name == "a" else layer  # noqa: E731
    model = keras.models.clone_model(dense_model(), clone_function=wrap)
    assert [layer.name for layer in model.layers] == ["prune_low_magnitude_a", "b"]


def test_lists_are_wrapped_layer_by_layer():
    wrapped = s.prune_low_magnitude([layers.Dense(2, name="a"), layers.Flatten(name="flat")])
    assert [layer.name for layer in wrapped] == ["prune_low_magnitude_a", "flat"]
    assert s.prune_low_magnitude(wrapped) == wrapped


class Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("to_prune", [Subclassed(), "dense", None])
def test_other_objects_are_refused(to_prune):
    with pytest.raises(ValueError, match=r"keras_prune\.prune|Expected a Keras 3 model"):
        s.prune_low_magnitude(to_prune)


def test_strip_pruning_returns_plain_layers_with_zeros():
    model = s.prune_low_magnitude(dense_model())
    kp.cut(model, 0.5)
    outputs = array(model(X))
    stripped = s.strip_pruning(model)
    assert [layer.name for layer in stripped.layers] == ["a", "b"]
    assert np.mean(array(stripped.layers[0].kernel.value) == 0) == 0.5
    assert not any(hasattr(layer, name) for layer in stripped.layers for name in ("pruning", "get_prunable_weights"))
    for one in (stripped, model):
        np.testing.assert_allclose(array(one(X)), outputs, rtol=1e-6)


def test_zeros_of_a_pruned_model_count_as_pruned():
    model = dense_model()
    kp.prune(model, 0.75)
    kp.cut(model)
    pruned = s.prune_low_magnitude(kp.strip(model))
    assert density(pruned) == 0.25


@pytest.mark.parametrize("ending", ["keras", "h5", "weights.h5"])
@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_files_hold_the_schedule_and_the_zeros(tmp_path, ending):
    model = s.prune_low_magnitude(dense_model(), s.PolynomialDecay(0.1, 0.8, 3, 9, frequency=2))
    kp.cut(model, 0.5)
    model.layers[0].pruning_step = 7
    path = str(tmp_path / f"model.{ending}")
    if ending == "weights.h5":
        model.save_weights(path)
        loaded = s.prune_low_magnitude(dense_model(), model.layers[0].pruning_schedule)
        loaded.load_weights(path)
    else:
        model.save(path)
        loaded = keras.models.load_model(path)
    assert_same(loaded.get_weights(), model.get_weights())
    assert loaded.layers[0].pruning_schedule.get_config() == model.layers[0].pruning_schedule.get_config()
    if ending != "h5":  # It has no place for them.
        assert (density(loaded), loaded.layers[0].pruning_step) == (0.5, 7)


@pytest.mark.parametrize(
    "arguments", [{"block_size": (2, 2), "block_pooling_type": "MAX"}, {"sparsity_m_by_n": (1, 4)}]
)
def test_the_config_holds_schedule_and_pattern(arguments):
    layer = s.prune_low_magnitude(layers.Dense(4), **arguments)
    again = s.PruneLowMagnitude.from_config(layer.get_config())
    assert again.criterion == layer.criterion
    assert again.pruning_schedule.get_config() == layer.pruning_schedule.get_config()


def test_missing_names_suggest_another_way():
    with pytest.raises(AttributeError, match="export_tflite"):
        tfmot.quantization.keras.quantize_model  # noqa: B018
    for name in ("clustering", "experimental", "nonsense"):
        with pytest.raises(AttributeError, match=name):
            getattr(tfmot, name)


def mobile_model(keepdims=True, strides=2):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(4, 3, strides=strides, name="first"),
            layers.ReLU(),
            layers.Conv2D(4, 1, name="pointwise"),
            layers.GlobalAveragePooling2D(keepdims=keepdims),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )


def test_xnnpack_policy_prunes_pointwise_convolutions():
    pruned = s.prune_low_magnitude(mobile_model(), pruning_policy=s.PruneForLatencyOnXNNPack())
    assert [weight.layer.name for weight in kp.layers.pruned_weights(pruned)] == ["pointwise"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [(mobile_model(keepdims=False), "keepdims=True"), (mobile_model(strides=1), "stride"), (dense_model(), "Conv2D")],
)
def test_xnnpack_policy_refuses_other_models(model, reason):
    with pytest.raises(ValueError, match=reason):
        s.prune_low_magnitude(model, pruning_policy=s.PruneForLatencyOnXNNPack())


class OnlyB(s.PruningPolicy):
    def allow_pruning(self, layer):
        return layer.name == "b"

    def ensure_model_supports_pruning(self, model):
        if len(model.layers) > 2:
            raise ValueError("too long")


def test_own_policies_choose_layers():
    pruned = s.prune_low_magnitude(dense_model(), pruning_policy=OnlyB())
    assert [layer.name for layer in pruned.layers] == ["a", "prune_low_magnitude_b"]
    with pytest.raises(ValueError, match="too long"):
        s.prune_low_magnitude(mobile_model(), pruning_policy=OnlyB())


@pytest.mark.skipif(not TENSORFLOW, reason="only TensorFlow writes checkpoints")
def test_checkpoints_hold_the_masks(tmp_path):
    import tensorflow as tf

    model = s.prune_low_magnitude(dense_model())
    kp.cut(model, 0.5)
    path = tf.train.Checkpoint(model).save(str(tmp_path / "checkpoint"))
    loaded = s.prune_low_magnitude(dense_model())
    tf.train.Checkpoint(loaded).restore(path)
    assert density(loaded) == 0.5


def test_saved_models_load_after_import_keras_prune_alone(tmp_path):
    model = s.prune_low_magnitude(dense_model(), s.ConstantSparsity(0.5, 1))
    kp.cut(model, 0.5)
    model.save(tmp_path / "model.keras")
    code = """
import sys
import keras_prune, keras
layer = keras.models.load_model(sys.argv[1]).layers[0]
print(layer.name, layer.pruning_schedule(1), keras_prune.layers.pruned_weights(layer)[0].density)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "prune_low_magnitude_a (True, np.float32(0.5)) 0.5\n", done.stderr


def test_sparsity_keras_can_be_imported_by_itself():
    from keras_prune.compat.tfmot.sparsity import keras as sparsity

    assert sparsity.prune_low_magnitude is s.prune_low_magnitude
    assert dir(tfmot) == ["sparsity"]
