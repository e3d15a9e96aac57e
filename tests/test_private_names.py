"""One test for each private name in `keras_prune/_keras.py`, which fails if a release of Keras changes it."""

import io
import re
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW, TORCH, array
from keras import layers

from keras_prune import _keras

FUNCTIONS = [
    name
    for name, value in vars(_keras).items()
    if getattr(value, "__module__", None) == _keras.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_has_a_test_and_names_a_version(name):
    assert f"_keras.{name}(" in Path(__file__).read_text(encoding="utf-8")
    assert re.search(r"\((Keras|TensorFlow|PyTorch)\s+\d+\.\d+\)", getattr(_keras, name).__doc__)


def functional():
    inputs = keras.Input((3,), name="in")
    return keras.Model(inputs, layers.Dense(2, name="fc")(inputs))


def sequential():
    return keras.Sequential([keras.Input((3,)), layers.Dense(2, name="fc")])


def variable(value=1.0, **settings):
    return keras.Variable(value, **settings)


@keras.saving.register_keras_serializable(package="tests")
class OwnCall(keras.Model):
    def __init__(self, **settings):
        super().__init__(**settings)
        self.dense = layers.Dense(2)
        self.held = [layers.Dense(2), (layers.Dense(2),), {"key": self.dense}]

    def call(self, inputs):
        return self.dense(inputs) + self.held[0](inputs) + self.held[1][0](inputs)


def test_layers_of_gives_direct_layers():
    forward = layers.LSTM(2)
    layer = layers.Bidirectional(forward)
    assert layer.forward_layer in _keras.layers_of(layer)
    assert layer.forward_layer.cell not in _keras.layers_of(layer)


def test_variables_made_trainable_includes_frozen_ones():
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    layer.trainable = False
    made = _keras.variables_made_trainable(layer)
    assert [id(one) for one in made] == [id(layer.gamma), id(layer.beta)]
    assert layer.trainable_variables == []


def test_inbound_nodes_lists_calls():
    inputs, layer = keras.Input((3,)), layers.Dense(3)
    layer(layer(inputs))
    assert len(_keras.inbound_nodes(layer)) == 2


def test_add_layer_and_remove_layer_change_built_layers():
    layer, inner = layers.Dense(2), layers.Dense(1)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="already built"):
        layer.added = inner
    _keras.add_layer(layer, "added", inner)
    assert inner in _keras.layers_of(layer)
    _keras.remove_layer(layer, "added")
    assert inner not in _keras.layers_of(layer)
    assert not hasattr(layer, "added")


def test_forget_variables_removes_pytorch_parameters():
    model = sequential()
    path = model.layers[0].kernel.path
    _keras.forget_variables(model, {path})
    assert not TORCH or path not in dict(model.named_parameters())


def test_is_functional_call_tells_own_calls():
    assert _keras.is_functional_call(functional())
    assert _keras.is_functional_call(sequential())
    assert not _keras.is_functional_call(OwnCall())


def test_is_quantized_after_quantize():
    layer = layers.Dense(2)
    layer.build((None, 3))
    assert not _keras.is_quantized(layer)
    layer.quantize("int8")
    assert _keras.is_quantized(layer)


def test_strategy_scope_is_that_of_the_model():
    with _keras.strategy_scope(sequential()):
        pass
    if TENSORFLOW:
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy(["cpu:0"])
        with strategy.scope():
            model = sequential()
        with _keras.strategy_scope(model):
            assert tf.distribute.get_strategy() is strategy


def test_stateless_scope_is_the_active_one():
    assert _keras.stateless_scope() is None
    with keras.StatelessScope() as scope:
        assert _keras.stateless_scope() is scope


def test_inside_suspends_scopes():
    one = variable()
    with keras.StatelessScope([(one, keras.ops.ones(()) * 2)]) as scope:
        with _keras.inside(None):
            assert _keras.stateless_scope() is None
            assert float(array(one)) == 1
        assert _keras.stateless_scope() is scope
        assert float(array(one)) == 2


def test_stored_value_ignores_scopes():
    one = variable()
    with keras.StatelessScope([(one, keras.ops.ones(()) * 2)], initialize_variables=False):
        assert float(array(_keras.stored_value(one))) == 1
        one = keras.Variable("ones", shape=(2,))
        assert _keras.stored_value(one) is None
    with keras.StatelessScope():
        pass
    assert array(_keras.stored_value(one)).tolist() == [1, 1]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="keras.distribution is JAX's")
def test_layout_of_is_that_of_the_distribution():
    assert _keras.layout_of(variable()) is None
    with keras.distribution.DataParallel().scope():
        assert _keras.layout_of(variable()).axes == ()


def test_keep_strides_gives_masks_the_layout_of_weights():
    weight, mask = variable(np.ones((2, 3))), variable(np.eye(2, 3), dtype="bool", trainable=False)
    if TORCH:
        weight.value.data = weight.value.data.T.contiguous().T
    _keras.keep_strides(mask, weight)
    assert not TORCH or mask.value.stride() == weight.value.stride() == (1, 2)
    np.testing.assert_array_equal(array(mask), np.eye(2, 3))


def test_copy_keras_mask_gives_a_tensor_the_mask_of_another():
    embedded, bare = layers.Embedding(3, 2, mask_zero=True)(np.array([[0, 1]])), keras.ops.ones((1, 2))
    target = keras.ops.ones((1, 2, 2))
    _keras.copy_keras_mask(bare, target)
    assert keras.src.backend.common.masking.get_keras_mask(target) is None
    _keras.copy_keras_mask(embedded, target)
    assert array(keras.src.backend.common.masking.get_keras_mask(target)).tolist() == [[False, True]]


def test_unpickle_reads_the_buffer_of_save_to_buffer():
    model, buffer = sequential(), io.BytesIO()
    _keras.save_to_buffer(model, buffer)
    buffer.seek(0)
    np.testing.assert_array_equal(_keras.unpickle(type(model), buffer).get_weights()[0], model.get_weights()[0])


def test_has_keras_class_tells_subclasses():
    assert _keras.has_keras_class(functional())
    assert _keras.has_keras_class(sequential())
    assert not _keras.has_keras_class(OwnCall())


def test_origin_of_symbolic_tensors():
    model = functional()
    assert _keras.origin_of(model.inputs[0])[0].name == "in"
    operation, node_index = _keras.origin_of(model.outputs[0])
    assert (operation.name, node_index) == ("fc", 0)


def test_compile_arguments_are_objects():
    model, loss = sequential(), keras.losses.MeanSquaredError()
    model.compile("sgd", loss)
    assert _keras.compile_arguments(model)["loss"] is loss


def test_schedule_of_optimizers():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert _keras.schedule_of(keras.optimizers.SGD(schedule)) is schedule
    assert _keras.schedule_of(keras.optimizers.SGD(0.1)) is None


def test_slots_of_optimizers():
    weights = [variable(), variable(np.ones(2))]
    optimizer = keras.optimizers.Adam()
    optimizer.build(weights)
    trained, slots = _keras.slots_of(optimizer)
    assert [id(one) for one in trained] == [id(one) for one in weights]
    assert set(slots) == {"_momentums", "_velocities"}
    assert [tuple(slot.shape) for slot in slots["_momentums"]] == [(), (2,)]


def test_set_initial_epoch_is_read_by_fit():
    model, epochs = sequential(), []
    model.compile("sgd", "mse")
    _keras.set_initial_epoch(model, 2)
    record = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epochs.append(epoch))
    model.fit(np.ones((1, 3)), np.ones((1, 2)), epochs=3, verbose=0, callbacks=[record])
    assert epochs == [2]


def test_declaring_takes_no_memory_until_allocate():
    layer = layers.Dense(2)
    with _keras.declaring() as declared:
        layer.build((None, 3))
    assert [_keras.stored_value(one) for one in declared] == [None, None]
    with keras.StatelessScope():
        pass
    assert _keras.stored_value(layer.kernel) is None
    _keras.allocate(declared, {id(layer.kernel): lambda shape, dtype: np.full(shape, 5, dtype)}, [layer])
    np.testing.assert_array_equal(array(layer.kernel), np.full((3, 2), 5))
    np.testing.assert_array_equal(array(layer.bias), np.zeros(2))


def test_declaring_lets_optimizers_create_their_numbers():
    with keras.name_scope("outer"), _keras.declaring() as declared:
        scope = _keras.stateless_scope()
        optimizer = keras.optimizers.Nadam(0.5)
        assert _keras.stateless_scope() is scope
        layers.Dense(2, name="fc").build((None, 3))
    assert [one.path for one in declared] == ["outer/fc/kernel", "outer/fc/bias"]
    assert [float(array(one)) for one in optimizer.variables] == [0, 0.5]
    assert _keras.stateless_scope() is None


def test_declaring_forgets_variables_after_errors():
    layer = layers.Dense(2)

    def fail():
        with _keras.declaring():
            layer.build((None, 3))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with keras.StatelessScope():
        pass
    assert _keras.stored_value(layer.kernel) is None


def test_safe_mode_overrides_unsafe_deserialization():
    config = keras.saving.serialize_keras_object(layers.Lambda(lambda x: x))
    unsafe = _keras.SafeModeScope(False)  # As `keras.config.enable_unsafe_deserialization()` sets for good.
    with unsafe:
        keras.saving.deserialize_keras_object(config, safe_mode=True)
        with _keras.safe_mode(), pytest.raises((ValueError, TypeError), match=r"(?i)lambda"):
            keras.saving.deserialize_keras_object(config)


def test_attribute_of_ignores_classes():
    model = OwnCall()
    assert _keras.attribute_of(model, "dense") is model.dense
    assert _keras.attribute_of(model, "call") is None


def test_replace_layers_in_attributes_lists_and_dicts():
    model = OwnCall()
    new = {id(layer): layers.Dense(2, name=f"new_{layer.name}") for layer in model.layers}
    names = [new[id(layer)].name for layer in model.layers]
    assert len(names) == 3
    _keras.replace_layers(model, new)
    assert [layer.name for layer in model.layers] == names
    held = [model.dense, model.held[0], model.held[1][0], model.held[2]["key"]]
    assert all(layer.name.startswith("new_") for layer in held)


def test_set_trainable_leaves_inner_layers():
    model = sequential()
    _keras.set_trainable(model, False)
    assert not model.trainable
    assert model.layers[0].trainable


def test_lambda_output_shape_is_the_argument():
    def output_shape(shape):
        return shape

    assert _keras.lambda_output_shape(layers.Lambda(lambda x: x, output_shape=output_shape)) is output_shape


def test_metric_directions_of_compiled_metrics():
    model = sequential()
    model.compile("sgd", "mse", metrics=[keras.metrics.BinaryAccuracy(name="accuracy")])
    model.evaluate(np.ones((1, 3)), np.ones((1, 2)), verbose=0)
    assert _keras.metric_directions(model)["accuracy"] == "up"


def test_batches_seen_counts_accumulated_batches():
    optimizer, one = keras.optimizers.SGD(gradient_accumulation_steps=2), variable()
    for _ in range(3):
        optimizer.apply([keras.ops.ones(())], [one])
    assert _keras.batches_seen(optimizer) == 3
    assert int(array(optimizer.iterations)) == 1


@pytest.mark.parametrize("make", [functional, sequential])
def test_graph_structures_are_nested(make):
    inputs, outputs = _keras.graph_structures(make())
    assert [tensor.shape for tensor in keras.tree.flatten([inputs, outputs])] == [(None, 3), (None, 2)]


def test_graph_structures_keep_dicts():
    inputs = {"in": keras.Input((3,), name="in")}
    assert set(_keras.graph_structures(keras.Model(inputs, inputs["in"] * 2))[0]) == {"in"}


@pytest.mark.skipif(not TENSORFLOW, reason="it is an operator of TensorFlow")
def test_stablehlo_function_computes_outputs():
    import tensorflow as tf

    double = tf.function(lambda x: x * 2, jit_compile=True)
    module = double.experimental_get_compiler_ir(tf.TensorSpec((2,)))(stage="stablehlo_serialized")
    (output,) = _keras.stablehlo_function(module, [tf.float32], [(2,)])(tf.constant([1.0, 2.0]))
    assert array(output).tolist() == [2, 4]


@pytest.mark.skipif(not TENSORFLOW, reason="it is a tool of TensorFlow")
def test_saved_model_cli_compiles_ahead_of_time():
    command = [*_keras.saved_model_cli(), "aot_compile_cpu", "--helpfull"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "--cpp_class" in done.stdout


class TrainingSeen(layers.Layer):
    def call(self, inputs):
        self.seen = _keras.is_training()
        return inputs


def test_is_training_reaches_layers_without_the_argument():
    layer = TrainingSeen()
    model = keras.Sequential([keras.Input((3,)), layer])
    model(np.ones((1, 3)), training=True)
    assert layer.seen
    model(np.ones((1, 3)))
    assert not layer.seen


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_keep_input_shape_builds_a_sequential_model():
    wrapper = layers.TimeDistributed(layers.Dense(2))
    _keras.keep_input_shape(wrapper, layers.Dense(2, input_shape=(4, 3)))
    assert keras.Sequential([wrapper]).input_shape == (None, 4, 3)
