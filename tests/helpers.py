"""Helpers that several test files share."""

import gc
import sys

import keras
import numpy as np
from keras import ops

import keras_prune as kp

JAX, TENSORFLOW, TORCH = (keras.backend.backend() == name for name in ("jax", "tensorflow", "torch"))


def array(value):
    """Returns a variable or tensor as a NumPy array."""
    return ops.convert_to_numpy(value)


def arrays(values):
    """Returns the tensors in a nested structure as a list of NumPy arrays."""
    return [array(value) for value in keras.tree.flatten(values)]


def assert_same(first, second):
    """Asserts that two structures of tensors are equal to the bit."""
    for one, other in zip(arrays(first), arrays(second), strict=True):
        np.testing.assert_array_equal(one, other)


def mask_of(criterion, *args, **kwargs):
    """Returns the mask of a criterion's cut as a NumPy array."""
    return array(criterion(*args, **kwargs).mask)


def masks(root):
    """Returns the masks in a model or layer as NumPy arrays."""
    return [array(weight.mask) for weight in kp.layers.pruned_weights(root)]


def kept(root):
    """Returns how many connections each pruned weight has left."""
    return [weight.kept for weight in kp.layers.pruned_weights(root)]


def density(root):
    """Returns the share of the connections of a model or layer that are left."""
    weights = kp.layers.pruned_weights(root)
    return sum(weight.kept for weight in weights) / sum(weight.size for weight in weights)


def criteria(root):
    """Returns the criterion of each pruned weight by `"layer/weight"`."""
    return {f"{one.layer.name}/{one.name}": one.criterion for one in kp.layers.pruned_weights(root)}


def assert_zeros(root, share=None):
    """Asserts that the stored weights are finite, and zero where the masks are, of which `share` is left."""
    weights = kp.layers.pruned_weights(root)
    assert weights
    for weight in weights:
        stored, mask = array(weight.variable), array(weight.mask)
        assert np.isfinite(stored).all()
        assert not stored[~mask].any()
        if share is not None:
            assert mask.mean() == share


def refill(root, value=7.0):
    """Writes `value` into the stored weights where the masks are zero, as an optimizer might."""
    for weight in kp.layers.pruned_weights(root):
        weight.variable.assign(np.where(array(weight.mask), array(weight.variable), value))


def calls_of(step):
    """Returns how many calls a function without arguments makes, including those of compiled functions.

    Unlike its seconds, they are the same on a busy machine.
    """
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    gc.collect()
    gc.disable()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(None)
        gc.enable()
    return calls


def growth_of(calls):
    """Returns the slope of calls at sizes n, 2n and 4n, from the second to the third over from the first to the second.

    It is 1 if they are linear, and 2 if they are quadratic.
    """
    first, second, third = calls
    return (third - second) / 2 / (second - first)
