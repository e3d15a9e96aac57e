import keras
import numpy as np
import pytest
from helpers import TORCH, array

from keras_prune.layers.variables import assign, where_kept

EYE = np.eye(2, 3)


def variable(value, **kwargs):
    return keras.Variable(np.asarray(value), **{"dtype": "float32"} | kwargs)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("otherwise", [0.0, 0.5])
def test_where_kept_puts_a_number_where_nothing_is_kept(dtype, otherwise):
    weight, mask = variable(np.ones((2, 3)), dtype=dtype), variable(EYE, dtype="bool", trainable=False)
    kept = where_kept(mask.value, weight, otherwise)
    assert keras.backend.standardize_dtype(kept.dtype) == dtype
    np.testing.assert_array_equal(array(keras.ops.stop_gradient(kept)), np.where(EYE, 1.0, otherwise))
    assert not TORCH or kept.requires_grad


@pytest.mark.parametrize("convert", [np.asarray, keras.ops.convert_to_tensor])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bool"])
def test_assign_takes_arrays_and_tensors(convert, dtype):
    target = variable(np.zeros((2, 3)), dtype=dtype, trainable=False)
    assign(target, convert(EYE.astype(dtype)))
    np.testing.assert_array_equal(array(target), EYE.astype(dtype))
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        assign(target, convert(EYE.T.astype(dtype)))


def test_assign_in_a_stateless_scope_leaves_the_variable():
    target = variable(np.zeros((2, 3)))
    with keras.StatelessScope() as scope:
        assign(target, keras.ops.ones((2, 3)))
    np.testing.assert_array_equal(array(target), np.zeros((2, 3)))
    np.testing.assert_array_equal(array(scope.get_current_value(target)), np.ones((2, 3)))
