from itertools import pairwise

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

import keras_prune as kp
from keras_prune.neurons import dead_neurons, remove_dead_neurons


@pytest.fixture(autouse=True, scope="module")
def initial_zeros():
    """JAX compiles the drawing of initial weights anew for every shape; `randomize` draws them here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.GlorotUniform, "__call__", keras.initializers.Zeros.__call__)
        yield


def randomize(model, density=0.3, seed=0):
    """Gives every weight a random value, and leaves a share of the connections of each kernel."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        value = random.normal(size=variable.shape)
        if "variance" in variable.name or "gamma" in variable.name:
            value = abs(value) + 0.5
        if len(variable.shape) > 1:
            value *= random.random(variable.shape[-2:]) < density
        variable.assign(value)
    return model


def outputs(model, seed=1):
    """What a model makes of random inputs, in one array."""
    random = np.random.default_rng(seed)
    inputs = [random.normal(size=(5, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    results = keras.tree.flatten(model(inputs[0] if len(inputs) == 1 else inputs))
    return np.concatenate([keras.ops.convert_to_numpy(result).reshape(5, -1) for result in results], axis=1)


def assert_same_outputs(small, model):
    expected = outputs(model)
    np.testing.assert_allclose(outputs(small), expected, rtol=1e-5, atol=1e-5 * max(1, abs(expected).max()))


def row(report, name):
    (found,) = (row for row in report.rows if row.name == name)
    return found


def conv_net(*hidden, channels=6, shape=(8, 9, 2)):
    """A convolution, the given layers behind it, and a convolution as the head."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(channels, 3, activation="tanh", name="conv"),
            *hidden,
            layers.Conv2D(3, 1, name="head"),
        ]
    )


def cut_inputs(layer, neurons):
    """Takes away all inputs of some neurons of a layer."""
    kernel = np.array(keras.ops.convert_to_numpy(layer.kernel))
    kernel[..., neurons] = 0
    layer.kernel.assign(kernel)


@pytest.mark.parametrize("density", [0.05, 0.15, 0.3, 1.0])
@pytest.mark.parametrize("activation", ["relu", "sigmoid", layers.LeakyReLU()])
def test_a_sparse_mlp_keeps_its_outputs_and_has_no_dead_neuron_left(density, activation):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(20, activation),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.Activation("gelu"),
            layers.Dropout(0.5),
            layers.Dense(12, activation),
            layers.Dense(4, "softmax"),
        ]
    )
    small = remove_dead_neurons(randomize(model, density))
    assert_same_outputs(small, model)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    kernels = [keras.ops.convert_to_numpy(layer.kernel) for layer in small.layers if isinstance(layer, layers.Dense)]
    for kernel, following in pairwise(kernels):
        assert len(following) == 1 or (kernel.any(axis=0).all() and following.any(axis=1).all())
    assert (small.count_params() < model.count_params()) == (density < 1)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2])
def test_a_sparse_convolutional_net_keeps_its_outputs(padding, strides):
    model = keras.Sequential(
        [
            keras.Input((19, 18, 2)),
            layers.Conv2D(12, 3, strides, padding, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2, strides, padding),
            layers.Conv2D(10, 2, 1, padding, activation="relu"),
            layers.AveragePooling2D(2, strides, padding),
            layers.Conv2D(8, 1, 1, padding, activation="tanh"),
            layers.SpatialDropout2D(0.2),
            layers.Flatten(),
            layers.Dense(9, "relu"),
            layers.Dense(3),
        ]
    )
    randomize(model, density=0.25)
    assert outputs(model).std(axis=0).max() > 0.01
    small = remove_dead_neurons(model)
    assert_same_outputs(small, model)
    assert small.layers[0].filters < 12
    assert small.layers[9].input.shape[1:] != model.layers[9].input.shape[1:]


KINDS = {
    "dense": lambda n: layers.Dense(n, "sigmoid"),
    "conv": lambda n: layers.Conv2D(n, 2, activation="relu"),
    "same": lambda n: layers.Conv2D(n, 3, padding="same", activation="relu"),
    "plain": lambda n: layers.Conv2D(n, 1, use_bias=False),
    "strided": lambda n: layers.Conv2D(n, 3, 2, "same", activation="elu"),
    "depthwise": lambda n: layers.DepthwiseConv2D(2, depth_multiplier=1 + n % 2, activation="tanh"),
    "depthwise same": lambda n: layers.DepthwiseConv2D(3, padding="same", use_bias=n % 2 == 0),
    "separable": lambda n: layers.SeparableConv2D(n, 2, depth_multiplier=1 + n % 2, activation="relu"),
    "separable same": lambda n: layers.SeparableConv2D(n, 2, padding="same"),
    "normalization": lambda n: layers.BatchNormalization(),
    "activation": lambda n: layers.Activation(["relu", "softplus", "softmax"][n % 3]),
    "pooling": lambda n: layers.MaxPooling2D(2, 1, "same") if n % 2 else layers.AveragePooling2D(2, 1, "same"),
    "padding": lambda n: layers.ZeroPadding2D(1),
    "layer normalization": lambda n: layers.LayerNormalization(),
}


# JAX compiles every operation for every shape.
@settings(max_examples=3 if keras.backend.backend() == "jax" else 12, deadline=None, derandomize=True)
@given(
    hidden=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 6)), max_size=5),
    top=st.sampled_from([layers.Flatten, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D]),
    density=st.sampled_from([0.1, 0.25, 0.5]),
    seed=st.integers(0, 1000),
)
def test_in_any_net_outputs_stay_and_a_second_removal_finds_nothing(hidden, top, density, seed):
    chain = [keras.Input((20, 20, 2)), layers.Conv2D(6, 2, activation="relu")]
    chain += [KINDS[kind](size) for kind, size in hidden]
    chain += [top(), layers.Dense(5, "relu"), layers.Dense(2)]
    model = randomize(keras.Sequential(chain), density, seed)
    report = dead_neurons(model)
    small = remove_dead_neurons(model, verbose=0)
    assert_same_outputs(small, model)
    again = dead_neurons(small)
    assert (again.neurons, again.kept) == (report.kept, report.kept)


def test_without_a_dead_neuron_nothing_changes(capsys):
    model = randomize(conv_net(layers.BatchNormalization()), density=1)
    small = remove_dead_neurons(model)
    assert capsys.readouterr().out == "Removed 0 of 9 neurons.\n"
    for old, new in zip(model.weights, small.weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(new), keras.ops.convert_to_numpy(old))


def test_a_neuron_goes_when_the_last_neuron_it_feeds_goes():
    model = randomize(keras.Sequential([keras.Input((3,)), *[layers.Dense(2, "relu") for _ in range(4)]]), density=1)
    model.layers[0].kernel.assign([[1, 1], [0, 1], [0, 1]])
    for layer in model.layers[1:3]:
        layer.kernel.assign(np.eye(2))
    model.layers[3].kernel.assign([[1, 1], [0, 0]])
    report = dead_neurons(model)
    assert [(row.without_inputs, row.without_outputs) for row in report.rows] == [(0, 1)] * 3 + [(0, 0)]
    assert row(report, model.layers[0].name).ignored_inputs == 2


def test_a_neuron_goes_when_the_last_neuron_that_feeds_it_goes():
    model = randomize(keras.Sequential([keras.Input((3,)), *[layers.Dense(2, "tanh") for _ in range(4)]]), density=1)
    model.layers[0].kernel.assign([[1, 0], [1, 0], [1, 0]])
    for layer in model.layers[1:3]:
        layer.kernel.assign(np.eye(2))
    report = dead_neurons(model)
    assert [(row.without_inputs, row.without_outputs) for row in report.rows] == [(1, 0)] * 3 + [(0, 0)]
    assert_same_outputs(remove_dead_neurons(model), model)


@pytest.mark.parametrize(
    "hidden",
    [
        [layers.BatchNormalization, lambda: layers.Activation("softplus")],
        [lambda: layers.AveragePooling2D(2, padding="same"), lambda: layers.MaxPooling2D(2, 1)],
        [lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, activation="sigmoid")],
        [lambda: layers.SeparableConv2D(4, 2, depth_multiplier=2, activation="relu")],
        [lambda: layers.Conv2D(5, 3, strides=2)],
        [lambda: layers.Conv2D(5, 1, padding="same")],
        [lambda: layers.Dense(5, layers.ReLU(max_value=2))],
        [lambda: layers.GaussianNoise(0.1), lambda: layers.SpatialDropout2D(0.5)],
    ],
)
def test_a_constant_is_folded_through(hidden):
    model = randomize(conv_net(*[build() for build in hidden]), density=1)
    cut_inputs(model.layers[0], [1, 4])
    small = remove_dead_neurons(model)
    assert small.layers[0].filters == 4
    assert_same_outputs(small, model)
    assert not np.allclose(outputs(small), outputs(with_biases_of(model, small)))


def with_biases_of(model, small):
    """The smaller model with the biases of the larger one: what it would be without the fold."""
    wrong = keras.models.clone_model(small)
    wrong.set_weights(small.get_weights())
    for old, new in zip(model.layers, wrong.layers, strict=True):
        if getattr(new, "use_bias", False) and old.bias.shape == new.bias.shape:
            new.bias.assign(old.bias)
    return wrong


def test_a_constant_goes_through_flatten_to_each_of_its_places():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(3, 2, activation="sigmoid"), layers.Flatten(), layers.Dense(2)]
    )
    cut_inputs(randomize(model, density=1).layers[0], 1)
    small = remove_dead_neurons(model)
    assert small.layers[2].kernel.shape == (18, 2)
    assert_same_outputs(small, model)


def test_channels_first_is_followed_through_flatten():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's max pooling on a CPU takes channels last only.")
    model = keras.Sequential(
        [
            keras.Input((2, 8, 7)),
            layers.Conv2D(5, 3, activation="sigmoid", data_format="channels_first"),
            layers.BatchNormalization(axis=1),
            layers.MaxPooling2D(2, data_format="channels_first"),
            layers.Conv2D(4, 2, activation="tanh", data_format="channels_first"),
            layers.Flatten(data_format="channels_first"),
            layers.Dense(3),
        ]
    )
    for layer in (0, 3):
        cut_inputs(randomize(model, density=1).layers[layer], 2)
    small = remove_dead_neurons(model)
    assert (small.layers[0].filters, small.layers[3].filters) == (5, 3)
    assert_same_outputs(small, model)


@pytest.mark.parametrize(
    "following",
    [
        lambda: [layers.Conv2D(3, 3, padding="same", name="next")],
        lambda: [layers.SeparableConv2D(3, 3, padding="same", name="next")],
        lambda: [layers.DepthwiseConv2D(3, padding="same", name="next")],
        lambda: [layers.ZeroPadding2D(1, name="next"), layers.Conv2D(3, 3)],
    ],
)
def test_behind_zero_padding_only_a_constant_zero_is_folded(following):
    model = randomize(conv_net(*following()), density=1)
    cut_inputs(model.layers[0], [0, 5])
    bias = np.array(keras.ops.convert_to_numpy(model.layers[0].bias))
    bias[0] = 0
    model.layers[0].bias.assign(bias)
    found = row(dead_neurons(model), "conv")
    assert (found.without_inputs, found.left) == (1, 1)
    assert found.note == "'next' pads with zeros, where only a constant 0 stays constant"
    assert_same_outputs(remove_dead_neurons(model), model)


def test_causal_padding_is_zero_padding():
    model = keras.Sequential(
        [keras.Input((6, 2)), layers.Conv1D(4, 1, name="conv"), layers.Conv1D(3, 2, padding="causal")]
    )
    cut_inputs(randomize(model, density=1).layers[0], 2)
    assert row(dead_neurons(model), "conv").left == 1
    assert_same_outputs(remove_dead_neurons(model), model)


def test_a_layer_without_bias_gets_one_for_the_constants_folded_into_it():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, "sigmoid"), layers.Dense(2, use_bias=False, name="head")]
    )
    cut_inputs(randomize(model, density=1).layers[0], 3)
    assert "a bias is added for the constants folded into it" in row(dead_neurons(model), "head").note
    small = remove_dead_neurons(model)
    assert small.layers[1].use_bias
    assert_same_outputs(small, model)


def test_a_layer_without_bias_gets_none_for_constants_of_zero():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2, use_bias=False)])
    cut_inputs(randomize(model, density=1).layers[0], 3)
    model.layers[0].bias.assign([-1] * 4)
    small = remove_dead_neurons(model)
    assert small.layers[0].units == 3
    assert not small.layers[1].use_bias


def residual_net():
    inputs = keras.Input((6, 6, 2))
    start = layers.Conv2D(4, 3, padding="same", name="start")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(start)
    x = layers.Conv2D(4, 1, name="end")(x)
    x = layers.Add(name="add")([start, x])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def test_what_a_merge_reads_is_left_with_the_reason():
    model = randomize(residual_net(), density=1)
    cut_inputs(model.get_layer("start"), 0)
    cut_inputs(model.get_layer("end"), 1)
    kernel = keras.ops.convert_to_numpy(model.get_layer("end").kernel) * (np.arange(8) > 2)[:, None]
    model.get_layer("end").kernel.assign(kernel)
    report = dead_neurons(model)
    assert (row(report, "start").left, row(report, "end").left) == (1, 1)
    assert row(report, "end").note == "Add 'add' merges several inputs or is called more than once"
    assert row(report, "inner").without_outputs == 3
    assert [row.name for row in report.rows] == ["start", "inner", "end", "head"]
    assert "end: Add 'add' merges several inputs or is called more than once\n" in str(report)
    small = remove_dead_neurons(model)
    assert [small.get_layer(name).filters for name in ("start", "inner", "end")] == [4, 5, 4]
    assert_same_outputs(small, model)


@pytest.mark.parametrize(
    ("layer", "note"),
    [
        (lambda: layers.LayerNormalization(name="x"), "LayerNormalization 'x' cannot be followed"),
        (lambda: layers.Softmax(name="x"), "Softmax 'x' cannot be followed"),
        (lambda: layers.PReLU(name="x"), "PReLU 'x' cannot be followed"),
        (lambda: layers.Dropout(0.5, noise_shape=(None, 1, 4), name="x"), "Dropout 'x' cannot be followed"),
        (lambda: layers.BatchNormalization(axis=1, name="x"), "BatchNormalization 'x' cannot be followed"),
        (lambda: layers.Conv1D(4, 2, groups=2, name="x"), "Conv1D 'x' cannot be followed"),
        (lambda: layers.LSTM(3, return_sequences=True, name="x"), "LSTM 'x' cannot be followed"),
        (lambda: keras.Sequential([layers.Dense(3)], name="x"), "'x' is a model of its own"),
    ],
)
def test_what_cannot_be_followed_is_left_with_the_reason(layer, note):
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(4, "tanh", name="before"), layer(), layers.Dense(2)])
    cut_inputs(randomize(model, density=1).layers[0], 0)
    found = row(dead_neurons(model), "before")
    assert (found.left, found.without_inputs, found.note) == (1, 0, note)
    small = remove_dead_neurons(model)
    assert small.layers[0].units == 4
    assert_same_outputs(small, model)


@keras.saving.register_keras_serializable(package="test_neurons")
def scaled(x):
    return x / (1 + keras.ops.sum(x**2, axis=-1, keepdims=True))


@pytest.mark.parametrize("activation", ["softmax", scaled])
def test_behind_an_activation_that_mixes_neurons_they_stay(activation):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation, name="hidden"), layers.Dense(2)])
    cut_inputs(randomize(model, density=1).layers[0], 0)
    found = row(dead_neurons(model), "hidden")
    assert (found.left, found.note) == (1, "its activation mixes neurons or is not one of Keras's own")
    small = remove_dead_neurons(model)
    assert small.layers[0].units == 4
    assert_same_outputs(small, model)


def test_a_subclass_is_followed_unless_it_computes_something_else():
    class Same(layers.Dense):
        pass

    class Doubled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    for kind, units in ((Same, 3), (Doubled, 4)):
        model = keras.Sequential([keras.Input((5,)), kind(4, "sigmoid"), layers.Dense(2)])
        cut_inputs(randomize(model, density=1).layers[0], 0)
        small = remove_dead_neurons(model)
        assert small.layers[0].units == units
        assert_same_outputs(small, model)


def test_a_shared_layer_and_what_it_reads_are_left():
    first, second = keras.Input((3,)), keras.Input((3,))
    shared = layers.Dense(4, "tanh", name="shared")
    a, b = shared(layers.Dense(5, "tanh", name="a")(first)), shared(layers.Dense(5, "tanh", name="b")(second))
    model = keras.Model([first, second], layers.Dense(2)(layers.Concatenate()([a, b])))
    for name in ("a", "b", "shared"):
        cut_inputs(randomize(model, density=1).get_layer(name), 0)
    report = dead_neurons(model)
    assert row(report, "shared").neurons is None
    assert row(report, "a").note == "Dense 'shared' merges several inputs or is called more than once"
    small = remove_dead_neurons(model)
    assert small.count_params() == model.count_params()
    assert_same_outputs(small, model)


def test_a_layer_that_two_models_share_and_what_it_reads_are_left():
    trunk, head = layers.Dense(4, "relu", name="trunk"), layers.Dense(2, name="head")
    inner_inputs, inputs = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(inner_inputs, head(trunk(inner_inputs)), name="inner")
    model = randomize(keras.Model(inputs, [trunk(inputs), inner(inputs)]), density=1)
    head.kernel.assign(head.kernel * np.array([[0], [0], [0], [1]]))
    assert_same_outputs(remove_dead_neurons(model, verbose=0), model)
    assert "'trunk' is shared by several models" in row(dead_neurons(model), "trunk").note


def test_a_layer_that_feeds_itself_is_left():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, "tanh", name="shared")
    model = keras.Model(inputs, layers.Dense(2)(shared(layers.ReLU()(shared(inputs)))))
    cut_inputs(randomize(model, density=1).get_layer("shared"), 0)
    assert_same_outputs(remove_dead_neurons(model), model)


def test_a_dropout_that_always_drops_is_left():
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, "sigmoid", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5, name="x")(hidden, training=True)))
    cut_inputs(randomize(model, density=1).get_layer("hidden"), 0)
    found = row(dead_neurons(model), "hidden")
    assert (found.left, found.note) == (1, "Dropout 'x' is called with training=True")


def test_branches_that_can_both_be_followed_take_the_constant_each():
    inputs = keras.Input((4,))
    trunk = layers.Dense(5, "sigmoid", name="trunk")(inputs)
    left, right = layers.Dense(2)(trunk), layers.Dense(3)(layers.BatchNormalization()(trunk))
    model = randomize(keras.Model(inputs, [left, right]), density=1)
    cut_inputs(model.get_layer("trunk"), [1, 2])
    small = remove_dead_neurons(model)
    assert small.get_layer("trunk").units == 3
    assert_same_outputs(small, model)


def test_an_output_keeps_its_neurons_even_inside_the_model():
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "sigmoid", name="hidden")(inputs)
    model = randomize(keras.Model(inputs, [hidden, layers.Dense(2, name="head")(hidden)]), density=1)
    cut_inputs(model.get_layer("hidden"), 1)
    cut_inputs(model.get_layer("head"), 0)
    small = remove_dead_neurons(model)
    assert [tensor.shape for tensor in small.outputs] == [(None, 5), (None, 2)]
    assert row(dead_neurons(model), "hidden").note == "they are the model's outputs"
    assert_same_outputs(small, model)


def test_inputs_stay_and_those_that_are_ignored_are_counted():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(6, "relu", name="fc"), layers.Dense(2)]
    )
    randomize(model, density=1).layers[1].kernel.assign(np.ones((16, 6)) * (np.arange(16) < 11)[:, None])
    found = row(dead_neurons(model), "fc")
    assert (found.ignored_inputs, found.inputs) == (5, 16)
    assert remove_dead_neurons(model).input_shape == (None, 4, 4, 1)


def test_a_layer_keeps_one_neuron_when_all_are_dead():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu"),
            layers.Dense(5, "sigmoid", name="dead"),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    cut_inputs(randomize(model, density=1).get_layer("dead"), slice(None))
    found = row(dead_neurons(model), "dead")
    assert (found.without_inputs, found.left) == (4, 1)
    assert found.note == "one neuron stays, for a layer needs one"
    small = remove_dead_neurons(model)
    assert [layer.units for layer in small.layers if isinstance(layer, layers.Dense)] == [1, 1, 2]
    assert_same_outputs(small, model)


def test_the_neurons_of_a_nested_model_go_too():
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh", name="a"), layers.Dense(3, name="b")])
    model = keras.Sequential([keras.Input((4,)), nested, layers.Dense(2)])
    cut_inputs(randomize(model, density=1).layers[0].get_layer("a"), [0, 3])
    small = remove_dead_neurons(model)
    assert [layer.units for layer in small.layers[0].layers] == [4, 3]
    assert_same_outputs(small, model)


def test_a_pruned_model_comes_back_plain_and_can_be_trained(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(16, "relu"),
            layers.Dropout(0.3),
            layers.Dense(3),
        ]
    )
    kp.prune(randomize(model, density=1), kp.TargetSparsity(0.96))
    model.compile("adam", "mse")
    kp.cut(model)
    before = kp.report(model)
    small = remove_dead_neurons(model)
    assert small.count_params() < model.count_params() / 4
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in model.layers]
    assert type(small) is keras.Sequential
    assert kp.layers.pruned_weights(small) == []
    assert str(kp.report(model)) == str(before)
    assert_same_outputs(small, model)
    assert small.compiled
    small.fit(np.ones((8, 8, 8, 1)), np.ones((8, 3)), verbose=0)
    small.save(tmp_path / "small.keras")
    assert_same_outputs(keras.models.load_model(tmp_path / "small.keras"), small)


def test_hand_written_wrappers_are_left_out():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kp.Prune(layers.Conv2D(8, 3, activation="relu"), kp.TargetSparsity(0.9)),
            layers.Flatten(),
            kp.Prune(layers.Dense(16, "relu"), kp.TargetSparsity(0.997)),
            layers.Dense(3),
        ]
    )
    kp.cut(randomize(model, density=1))
    found = dead_neurons(model)
    small = remove_dead_neurons(model)
    assert [type(layer).__name__ for layer in small.layers] == ["Conv2D", "Flatten", "Dense", "Dense"]
    assert small.layers[2].units == found.rows[1].kept < 16
    assert_same_outputs(small, model)
    assert [type(layer).__name__ for layer in model.layers] == ["Prune", "Flatten", "Prune", "Dense"]
    assert len(kp.layers.pruned_weights(model)) == 2


def test_the_model_is_not_changed():
    model = randomize(conv_net())
    cut_inputs(model.layers[0], 0)
    before = model.get_weights()
    small = remove_dead_neurons(model)
    small.set_weights([weight + 1 for weight in small.get_weights()])
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_frozen_layers_and_mixed_precision_come_through():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "sigmoid", dtype="mixed_bfloat16"), layers.Dense(3, trainable=False)]
    )
    cut_inputs(randomize(model, density=1).layers[0], 2)
    small = remove_dead_neurons(model)
    assert small.layers[0].dtype_policy.name == "mixed_bfloat16"
    assert not small.layers[1].trainable
    np.testing.assert_allclose(outputs(small), outputs(model), atol=0.02)


def test_every_elementwise_activation_of_keras_is_followed():
    left = []
    # Not activations, or not without more arguments, or with other shapes.
    others = {"deserialize", "get", "glu", "serialize", "threshold"}
    for name in set(dir(keras.activations)) - others:
        if name.startswith("_"):
            continue
        model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name, name="hidden"), layers.Dense(1)])
        cut_inputs(randomize(model, density=1).layers[0], 1)
        left += [name] * row(dead_neurons(model), "hidden").left
    assert sorted(left) == ["log_softmax", "softmax", "sparsemax"]


def test_one_line_says_what_was_removed(capsys):
    model = randomize(residual_net(), density=1)
    cut_inputs(model.get_layer("inner"), [0, 1])
    model.get_layer("inner").bias.assign([-1] * 8)
    cut_inputs(model.get_layer("start"), 3)
    remove_dead_neurons(model)
    assert capsys.readouterr().out == (
        "Removed 2 of 19 neurons: inner 8 -> 6; dead ones that stay: 1, and keras_prune.dead_neurons(model) says why.\n"
    )
    remove_dead_neurons(model, verbose=0)
    assert capsys.readouterr().out == ""
