"""From a model to a wrapped one and back: same outputs and layers, zeros inside, the original left as it was."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
HALF, MOST = kp.TargetSparsity(0.5), kp.TargetSparsity(0.9)


def numbers(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(tensors)]


def assert_same(first, second):
    for one, other in zip(numbers(first), numbers(second), strict=True):
        np.testing.assert_array_equal(one, other)


def small_model(**first):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="hidden", **first),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(3, name="head"),
        ]
    )


def cut(model, strength=1.0):
    for layer in kp.graph.pruned_layers(model):
        layer.cut(strength)
    return model


class UnregisteredLayer(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 8), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)


class UnregisteredCriterion(kp.Criterion):
    def select(self, weight, mask, strength):
        return ops.logical_and(mask, weight > 0), 0.0


def test_layers_and_criteria_that_are_not_registered_survive_prune_and_strip():
    model = keras.Sequential([keras.Input((8,)), UnregisteredLayer(name="own"), layers.Dense(3)])
    pruned = cut(kp.prune(model, UnregisteredCriterion()))
    again = kp.prune(pruned)
    assert_same(again(X), pruned(X))
    plain = kp.strip(again)
    assert type(plain.layers[0]) is UnregisteredLayer
    assert_same(plain(X), pruned(X))


def test_a_stripped_layer_has_the_regularizer_of_its_config():
    plain = kp.strip(cut(kp.prune(small_model(kernel_regularizer="l1"))))
    kernel = plain.get_layer("hidden").kernel
    assert type(kernel.regularizer) is keras.regularizers.L1
    assert kernel.regularizer.get_config() == plain.get_layer("hidden").kernel_regularizer.get_config()


def test_lambda_layers_and_operations_are_carried_over():
    inputs = keras.Input((8,))
    hidden = ops.relu(layers.Dense(4)(inputs) * 2 + 1)
    outputs = layers.Dense(3)(layers.Lambda(lambda tensor: tensor * 3, output_shape=(4,))(hidden))
    model = keras.Model(inputs, outputs)
    pruned = kp.prune(model)
    assert_same(pruned(X), model(X))
    assert_same(kp.strip(pruned)(X), model(X))


def test_strip_gives_back_the_configuration_of_the_original_model():
    inputs = keras.Input((8,))
    block = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), layers.Dropout(0.5, seed=7)], name="block")
    model = keras.Model(inputs, layers.Dense(3, kernel_regularizer="l2")(block(block(inputs))), name="siamese")
    plain = kp.strip(kp.prune(model))
    assert plain.get_config() == model.get_config()
    assert [variable.path for variable in plain.trainable_variables]


def mean_square(truth, prediction):
    return ops.mean(ops.square(truth - prediction))


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.001 * ops.cast(step, "float32")

    def get_config(self):
        return {}


def test_a_compiled_model_comes_back_compiled_with_what_it_was_compiled_with():
    model = small_model()
    adam = keras.optimizers.Adam(Warmup(), clipnorm=0.5)
    metrics = ["mae", keras.metrics.MeanSquaredError(name="own")]
    model.compile(adam, mean_square, metrics=metrics, jit_compile=False)
    model.train_on_batch(X, Y)
    pruned = kp.prune(model)
    for copy in (pruned, kp.strip(pruned)):
        assert copy.optimizer is not adam
        assert copy.optimizer.clipnorm == 0.5
        assert int(copy.optimizer.iterations) == 0
        assert copy.jit_compile is False
        assert copy.evaluate(X, Y, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0))
    assert model.compiled
    assert int(model.optimizer.iterations) == 1


def test_a_model_that_is_not_compiled_comes_back_that_way():
    assert not kp.strip(kp.prune(small_model())).compiled


def branches():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    both = layers.Concatenate()([layers.Dense(4, "relu")(left), layers.Dense(4)(right)])
    return keras.Model({"left": left, "right": right}, {"sum": layers.Dense(2)(both), "own": both}), {
        "left": X,
        "right": -X,
    }


def shared_layer():
    inputs, dense = keras.Input((8,)), layers.Dense(8, "tanh", name="shared")
    return keras.Model(inputs, layers.Dense(3)(dense(dense(inputs)))), X


def nested():
    inner = keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.5)], name="inner")
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, inner(inner(inputs)), name="outer")
    whole = keras.Input((8,))
    return keras.Model(whole, layers.Dense(3)(outer(whole))), X


def built_late():
    model = keras.Sequential([layers.Dense(8, "relu"), layers.Dense(3)])
    model.build((None, 8))
    return model, X


def convolutions():
    images = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    return model, images


@pytest.mark.parametrize("make", [branches, shared_layer, nested, built_late, convolutions])
def test_prune_save_load_and_strip_keep_the_outputs_bit_for_bit(make, tmp_path):
    model, data = make()
    expected = model(data)
    pruned = kp.prune(model)
    assert_same(pruned(data), expected)
    assert_same(kp.strip(pruned)(data), expected)
    cut(pruned)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(data), pruned(data))
    assert_same(kp.strip(loaded)(data), pruned(data))
    assert kp.strip(pruned).get_config() == model.get_config()
    assert_same(model(data), expected)


def test_strip_leaves_plain_keras_layers_with_the_zeros_inside():
    pruned = cut(kp.prune(small_model(), kp.TargetSparsity(0.75)))
    plain = kp.strip(pruned)
    assert [type(layer) for layer in plain.layers] == [layers.Dense, layers.Dropout, layers.Dense]
    for old, new in zip(pruned.layers[::2], plain.layers[::2], strict=True):
        assert_same(new.kernel.value, old.pruned_weights[0].masked())
        assert np.count_nonzero(numbers(new.kernel.value)[0]) == old.connections[0]
        assert_same(new.bias.value, old.layer.bias.value)
    assert plain.layers[1].rate == 0.5
    assert "keras_prune" not in str(keras.saving.serialize_keras_object(plain))


def test_strip_zeroes_what_an_optimizer_has_moved_since_the_cut():
    pruned = cut(kp.prune(small_model(), HALF))
    outputs = pruned(X)
    for layer in pruned.layers[::2]:
        layer.layer.kernel.assign(layer.layer.kernel + 1e-3 * (1 - ops.cast(layer.pruned_weights[0].mask, "float32")))
    plain = kp.strip(pruned)
    assert_same(plain(X), outputs)
    assert np.count_nonzero(numbers(plain.layers[0].kernel.value)[0]) == 64


def test_wrappers_inside_other_layers_are_left_alone_and_not_stripped():
    model = keras.Sequential(
        [keras.Input((5, 8)), layers.TimeDistributed(kp.Prune(layers.Dense(4, name="inside"), HALF)), layers.Dense(3)]
    )
    pruned = kp.prune(model, MOST)
    assert [type(layer) for layer in pruned.layers] == [layers.TimeDistributed, kp.Prune]
    assert pruned.layers[0].layer.criterion == HALF
    with pytest.raises(ValueError, match=r"inside other layers.*Received: model=.*\['inside'\]"):
        kp.strip(pruned)


def test_neither_prune_nor_strip_shares_state_with_the_model_they_were_given():
    model = small_model()
    pruned = kp.prune(model)
    plain = kp.strip(pruned)
    before = numbers([variable.value for variable in model.variables])
    for copy in (pruned, plain):
        copy.compile("adam", "mse")
        copy.fit(X, Y, verbose=0)
    cut(pruned)
    assert_same([variable.value for variable in model.variables], before)
    assert [type(layer) for layer in model.layers] == [layers.Dense, layers.Dropout, layers.Dense]


def test_strip_of_a_plain_model_is_a_copy():
    model = small_model()
    copy = kp.strip(model)
    assert copy is not model
    assert_same(copy(X), model(X))


def criteria(model):
    return {layer.name: getattr(layer, "criterion", None) for layer in model.layers if layer.name != "drop"}


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (None, {"hidden": kp.StdThreshold(1.0), "head": kp.StdThreshold(1.0)}),
        (HALF, {"hidden": HALF, "head": HALF}),
        ({"hidden": HALF, ".*": MOST}, {"hidden": HALF, "head": MOST}),
        ({"h.*": HALF, "head": MOST}, {"hidden": HALF, "head": HALF}),
        ({"head": MOST}, {"hidden": None, "head": MOST}),
        ({"head": None, "hidden": HALF}, {"hidden": HALF, "head": None}),
        (lambda layer: MOST if layer.units == 3 else None, {"hidden": None, "head": MOST}),
    ],
)
def test_a_criterion_may_be_one_a_mapping_or_a_callable(criterion, expected):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, name="hidden"), layers.Dense(3, name="head")])
    assert criteria(kp.prune(model, criterion)) == expected


def test_layers_that_are_pruned_already_keep_weights_masks_and_criterion():
    once = cut(kp.prune(small_model(), {"hidden": HALF}))
    twice = kp.prune(once, MOST)
    assert criteria(twice) == {"hidden": HALF, "head": MOST}
    old, new = once.get_layer("hidden"), twice.get_layer("hidden")
    assert_same([variable.value for variable in new.variables], [variable.value for variable in old.variables])
    assert_same(twice(X), once(X))


def test_pruning_twice_is_pruning_once():
    once = cut(kp.prune(small_model(), HALF))
    twice = kp.prune(once, MOST)
    assert twice.get_config() == once.get_config()
    assert_same([variable.value for variable in twice.weights], [variable.value for variable in once.weights])


def test_frozen_layers_are_left_alone():
    model = small_model()
    model.get_layer("hidden").trainable = False
    pruned = kp.prune(model)
    assert [type(layer) for layer in pruned.layers] == [layers.Dense, layers.Dropout, kp.Prune]
    assert not pruned.get_layer("hidden").trainable


def test_a_frozen_model_inside_stays_frozen_until_it_is_unfrozen_and_pruned_too():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, layers.Dense(6, name="hidden")(inputs), name="backbone")
    backbone.trainable = False
    inputs = keras.Input((4,))
    model = kp.prune(keras.Model(inputs, layers.Dense(2, name="head")(backbone(inputs))))
    backbone = model.get_layer("backbone")
    assert not backbone.trainable
    assert len(model.trainable_variables) == 2

    backbone.trainable = True
    assert len(model.trainable_variables) == 4
    model = kp.prune(model)
    assert [row.name for row in kp.report(model).rows] == ["hidden", "head"]
    assert kp.report(model).skipped == {}


def test_a_dropout_is_tied_to_the_layer_it_drops_and_keeps_its_settings():
    model = keras.Sequential(
        [
            keras.Input((5, 8)),
            layers.Dropout(0.1, name="on_inputs"),
            layers.Dense(4, name="fc"),
            layers.ReLU(),
            layers.Dropout(0.25, noise_shape=(None, 1, 4), seed=7, name="tied"),
            layers.SpatialDropout1D(0.5, name="spatial"),
            layers.Dense(4, name="unpruned"),
            layers.Dropout(0.5, name="untied"),
        ]
    )
    pruned = kp.prune(model, {"fc": HALF})
    tied = pruned.get_layer("tied")
    assert (type(tied), tied.source) == (kp.PrunedDropout, "fc")
    assert (tied.rate, tied.noise_shape, tied.seed) == (0.25, (None, 1, 4), 7)
    assert type(pruned.get_layer("on_inputs")) is layers.Dropout
    assert type(pruned.get_layer("untied")) is layers.Dropout
    assert type(pruned.get_layer("spatial")) is layers.SpatialDropout1D
    assert kp.strip(pruned).get_config() == model.get_config()


def test_an_adapted_normalization_keeps_what_it_learned():
    normalization = layers.Normalization()
    normalization.adapt(X * 5 + 3)
    model = keras.Sequential([keras.Input((8,)), normalization, layers.Dense(3)])
    pruned = kp.prune(model)
    assert_same(pruned(X), model(X))
    assert_same(kp.strip(pruned)(X), model(X))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras looks up on TensorFlow only")
def test_an_adapted_lookup_keeps_its_vocabulary():
    lookup = layers.StringLookup()
    lookup.adapt(np.array(["a", "b", "c"]))
    model = keras.Sequential([keras.Input((2,), dtype="string"), lookup, layers.Embedding(4, 3)])
    words = ops.convert_to_tensor([["a", "c"], ["b", "unknown"]])
    assert_same(kp.prune(model)(words), model(words))


class WithConstructor(keras.Model):
    def __init__(self, units):
        inputs = keras.Input((8,))
        super().__init__(inputs, layers.Dense(units)(inputs), name="own_class")


class WithoutConstructor(keras.Model):
    pass


def test_a_class_of_the_users_own_is_kept_or_the_loss_is_told():
    inputs = keras.Input((8,))
    assert type(kp.prune(WithoutConstructor(inputs, layers.Dense(3)(inputs)))) is WithoutConstructor
    with pytest.warns(UserWarning, match="'own_class' of class WithConstructor comes back as a plain Functional"):
        kp.prune(WithConstructor(3))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


def keras_2_model():
    module = {"__module__": "tf_keras.src.engine.sequential", "layers": []}
    return type("Sequential", (), module)()


@pytest.mark.parametrize(
    ("message", "make", "criterion"),
    [
        (r"Keras 3 models.*TF_USE_LEGACY_KERAS.*Received: model of class tf_keras", keras_2_model, None),
        (r"no weights yet.*keras.Input.*Received: unbuilt", lambda: keras.Sequential([layers.Dense(3)]), None),
        (r"no weights yet.*call it on a batch.*Received: unbuilt model 'subclassed", Subclassed, None),
        (r"single layer is wrapped with keras_prune.Prune.*Received: model=", lambda: layers.Dense(3), None),
        (r"Expected a Keras 3 model.*Received: model=", lambda: ops.ones((2, 2)), None),
        (r"which here are \['hidden', 'head'\].*Received: criterion=.*'dense_1'", small_model, {"dense_1": HALF}),
        (r"must be a Criterion such as.*Received: criterion='magnitude'", small_model, "magnitude"),
        (r"Criterion or None. Received: criterion=0.5 for layer 'hidden'", small_model, lambda layer: 0.5),
        (r"nothing to prune.*Received: model=.*'drop'", small_model, lambda layer: None),
        (r"nothing to prune", lambda: keras.Sequential([keras.Input((3,)), layers.ReLU()]), None),
    ],
)
def test_what_cannot_be_pruned_is_refused(message, make, criterion):
    with pytest.raises(ValueError, match=message):
        kp.prune(make(), criterion)


@pytest.mark.parametrize("make", [keras_2_model, lambda: layers.Dense(3), Subclassed])
def test_what_cannot_be_stripped_is_refused(make):
    with pytest.raises(ValueError, match=r"Received: (unbuilt )?model"):
        kp.strip(make())


READER = """
import sys
sys.modules["keras_prune"] = None  # Not to be had, as where the model is served.
import keras, numpy
model = keras.models.load_model(sys.argv[1])
numpy.save(sys.argv[2], keras.ops.convert_to_numpy(model(numpy.ones((2, 8), "float32"))))
"""


def test_a_stripped_model_is_read_where_keras_prune_is_not_installed(tmp_path):
    plain = kp.strip(cut(kp.prune(small_model())))
    plain.save(tmp_path / "model.keras")
    paths = [str(tmp_path / name) for name in ("model.keras", "outputs.npy")]
    subprocess.run(
        [sys.executable, "-c", READER, *paths], check=True, env={**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    )
    np.testing.assert_allclose(np.load(paths[1]), numbers(plain(np.ones((2, 8), "float32")))[0], rtol=1e-6)


@pytest.mark.parametrize("pattern", ["fc[", 3])
def test_a_pattern_that_is_no_regular_expression_is_named(pattern):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")])
    with pytest.raises(ValueError, match="regular expressions for layer names"):
        kp.prune(model, {pattern: kp.StdThreshold(1.0)})


@keras.saving.register_keras_serializable(package="test_surgery")
class Counted(keras.initializers.GlorotUniform):
    """Counts how many weights were drawn."""

    drawn = 0

    def __call__(self, *args, **kwargs):
        Counted.drawn += 1
        return super().__call__(*args, **kwargs)


def test_a_copy_of_a_layer_is_not_initialised_at_random_first():
    dense = layers.Dense(3, kernel_initializer=Counted())
    convolution = layers.Conv1D(2, 3, kernel_initializer=Counted())
    model = keras.Sequential([keras.Input((8, 2)), dense, convolution])
    drawn = Counted.drawn
    pruned = kp.prune(model, kp.TargetSparsity(0.5))
    kp.cut(pruned, kp.OneShot(), 0)
    plain = kp.strip(pruned)
    assert Counted.drawn == drawn
    assert [type(layer.kernel_initializer) for layer in plain.layers] == [Counted, Counted]
    # Nor do they share what they hold.
    assert all(np.count_nonzero(weight) == weight.size for weight in model.get_weights() if weight.ndim > 1)
    assert all(np.count_nonzero(weight) == weight.size / 2 for weight in plain.get_weights() if weight.ndim > 1)


def test_a_function_as_activation_need_not_be_registered_and_a_name_not_be_in_the_config():
    class Scale(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)

        def call(self, x):
            return 2 * x

        def get_config(self):
            return {}

    hidden = layers.Dense(4, activation=lambda x: ops.relu(x) + 1, name="hidden")
    model = keras.Sequential([keras.Input((8,)), hidden, Scale(name="twice"), layers.Dense(3)])
    pruned = kp.prune(model)
    assert_same(pruned(X), model(X))
    assert pruned.layers[1].name == kp.strip(pruned).layers[1].name == "twice"


@keras.saving.register_keras_serializable(package="test_surgery")
class Tied(layers.Layer):
    """Multiplies by the table of an embedding."""

    def __init__(self, embedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding

    def call(self, x):
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


def test_a_weight_that_two_layers_share_is_refused_rather_than_doubled():
    embedding = layers.Embedding(9, 4, name="embedding")
    inputs = keras.Input((5,), dtype="int32")
    model = keras.Model(inputs, Tied(embedding, name="tied")(embedding(inputs)))
    for copied in (kp.prune, kp.strip):
        with pytest.raises(ValueError, match=r"'embedding' and 'tied' share the weight 'embedding/embeddings'"):
            copied(model)


def test_a_mapping_gives_wrapped_layers_another_criterion_and_leaves_their_masks():
    pruned = cut(kp.prune(small_model(), HALF))
    again = kp.prune(pruned, {"hid.*": MOST})
    assert [again.get_layer(name).criterion for name in ("hidden", "head")] == [MOST, HALF]
    assert pruned.get_layer("hidden").criterion == HALF
    assert again.get_layer("hidden").density == 0.5
    assert kp.prune(pruned, MOST).get_layer("hidden").criterion == HALF


def test_what_cannot_be_compiled_again_comes_back_uncompiled_with_a_warning():
    class Nameless(keras.metrics.Metric):
        def __init__(self, name="nameless"):
            super().__init__(name=name)

        def update_state(self, *arguments, **more):
            pass

        def result(self):
            return 0.0

    model = small_model()
    model.compile(keras.optimizers.Adam(lambda: 0.01), "mse", metrics=[Nameless()])
    with pytest.warns(UserWarning, match="comes back without being compiled.*unexpected keyword argument"):
        assert not kp.prune(model).compiled
    model.compile(keras.optimizers.Adam(lambda: 0.01), "mse")
    assert float(kp.prune(model).optimizer.learning_rate) == pytest.approx(0.01)
