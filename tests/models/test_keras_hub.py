"""Small models of KerasHub with random weights are pruned, saved and stripped."""

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW, array, assert_zeros, refill

import keras_prune as kp

keras_hub = pytest.importorskip("keras_hub")

IDS = np.random.default_rng(0).integers(0, 50, (2, 8)).astype("int32")
TOKENS = {"token_ids": IDS, "padding_mask": np.ones_like(IDS)}
IMAGES = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
SIZES = {"vocabulary_size": 50, "num_layers": 1, "hidden_dim": 16, "intermediate_dim": 32}
ATTENTION = {"num_query_heads": 2, "num_key_value_heads": 1}


def gpt2():
    return keras_hub.models.GPT2Backbone(**SIZES, num_heads=2, max_sequence_length=16), TOKENS


def llama():
    return keras_hub.models.LlamaBackbone(**SIZES, **ATTENTION), TOKENS


def gemma():
    return keras_hub.models.GemmaBackbone(**SIZES, **ATTENTION, head_dim=8), TOKENS


def bert():
    model = keras_hub.models.BertBackbone(**SIZES, num_heads=2, max_sequence_length=16)
    return model, TOKENS | {"segment_ids": np.zeros_like(IDS)}


def vit():
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    return keras_hub.models.ViTBackbone(image_shape=(16, 16, 3), patch_size=8, **sizes), IMAGES


def output(model, inputs):
    return array(keras.tree.flatten(model(inputs))[0])


@pytest.mark.parametrize(
    "make", [gpt2, *(pytest.param(one, marks=pytest.mark.slow) for one in (llama, gemma, bert, vit))]
)
def test_prune_takes_keras_hub_backbones(make, tmp_path):
    model, inputs = make()
    kind, before = type(model), output(model, inputs)
    kp.prune(model, kp.TargetSparsity(0.5))
    assert isinstance(model, kind)
    np.testing.assert_array_equal(output(model, inputs), before)

    kp.cut(model)
    pruned = output(model, inputs)
    refill(model, 0.5)
    np.testing.assert_allclose(output(model, inputs), pruned, atol=1e-5)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(output(loaded, inputs), pruned)
    assert kp.report(loaded).sparsity == kp.report(model).sparsity > 0.49

    with pytest.warns(UserWarning, match="A preset holds the plain model"):
        model.save_to_preset(str(tmp_path / "preset"))
    preset = kind.from_preset(str(tmp_path / "preset"))
    assert type(preset) is kind
    np.testing.assert_array_equal(output(preset, inputs), pruned)
    assert type(kp.strip(model)) is kind
    np.testing.assert_array_equal(output(model, inputs), pruned)


@pytest.mark.skipif(not TENSORFLOW, reason="tokenizers need TensorFlow Text")
def test_prune_takes_gpt2_that_generates_text(tmp_path):
    letters = [chr(33 + number) for number in range(50)]
    vocabulary = {token: number for number, token in enumerate([*letters, "!#", "<|endoftext|>"])}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["! #"])
    backbone = keras_hub.models.GPT2Backbone(**SIZES | {"vocabulary_size": 52}, num_heads=2, max_sequence_length=16)
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=preprocessor)
    model.compile(sampler="greedy", optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.generate("$", max_length=6)  # Compiled before it is pruned.

    kp.prune(model, kp.TargetSparsity(0.5))
    callback = kp.PruningCallback(kp.OneShot(start=1), verbose=0)
    model.fit(["!#$%", "&'()"], epochs=3, batch_size=2, verbose=0, callbacks=[callback])
    assert_zeros(model, 0.5)
    text = model.generate("$", max_length=6)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="A preset holds the plain model"):
        model.save_to_preset(str(tmp_path / "preset"))
    # Looks for the class among all registered ones, those that `prune` made included.
    preset = keras_hub.models.CausalLM.from_preset(str(tmp_path / "preset"))
    assert type(preset) is keras_hub.models.GPT2CausalLM
    for other in (loaded, preset, kp.strip(model)):
        other.compile(sampler="greedy")
        assert other.generate("$", max_length=6) == text
