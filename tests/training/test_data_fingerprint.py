"""Different data have different fingerprints."""

import keras
import numpy as np
import pytest

from keras_prune.training.data_fingerprint import fingerprints

ONES = np.ones((64, 3), "float32")


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        raise AssertionError("A dataset may be large.")


def last_changed(array):
    array = array.copy()
    array[-1, -1] += 1
    return array


DATA = {
    "array": lambda: ONES,
    "value": lambda: last_changed(ONES),
    "dtype": lambda: ONES.astype("float64"),
    "shape": lambda: ONES.T,
    "tensor": lambda: keras.ops.zeros((64, 3)),
    "bfloat16": lambda: keras.ops.ones((64, 3), "bfloat16"),
    "scalar": lambda: np.float32(1),
    "strings": lambda: np.array(["one", "two"], object),
    "other strings": lambda: np.array(["one", "three"], object),
    "several": lambda: {"a": ONES, "b": [last_changed(ONES), None]},
    "list": lambda: [0.0] * 1000,
    "other list": lambda: [0.0] * 999 + [1.0],
    "dataset": lambda: Batches(3),
    "longer dataset": lambda: Batches(4),
    "generator": lambda: iter([ONES]),
}


def test_fingerprints_differ_between_data_and_are_short():
    found = {name: fingerprints({"x": make()})["x"] for name, make in DATA.items()}
    assert len(set(found.values())) == len(DATA)
    assert max(map(len, found.values())) < 100
    assert found == {name: fingerprints({"x": make()})["x"] for name, make in DATA.items()}


def test_fingerprints_do_not_depend_on_the_container_of_values():
    tensor, view = keras.ops.convert_to_tensor(ONES), np.asfortranarray(ONES)
    assert fingerprints({"x": ONES}) == fingerprints({"x": tensor}) == fingerprints({"x": view})


def test_fingerprints_tell_tensorflow_datasets_by_their_elements():
    tf = pytest.importorskip("tensorflow")
    datasets = [tf.data.Dataset.from_tensor_slices(ONES).batch(size) for size in (8, 16)]
    datasets.append(tf.data.Dataset.from_tensor_slices(ONES).batch(8, drop_remainder=True))
    assert len({fingerprints({"x": dataset})["x"] for dataset in datasets}) == 3
    assert "of 8" in fingerprints({"x": datasets[0]})["x"]


def test_fingerprints_ignore_other_arguments():
    assert fingerprints({"callbacks": [object()], "epochs": 3, "batch_size": 8, "verbose": 1}) == {}
