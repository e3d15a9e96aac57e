"""The networks have the sizes in the paper, and the tables of the paper are consistent."""

import functools

import keras
import pytest
from keras import layers

from keras_prune import networks

PARAMETERS = {"lenet_300_100": 266_610, "lenet_5": 431_080, "alexnet": 60_965_224, "vgg16": 138_357_544}


@functools.cache
def build(name, **kwargs):
    """Builds a network whose variables have shapes but no memory. Those of VGG-16 would take 0.5 GB."""
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(networks, name)(**kwargs)
    # Otherwise the end of the next scope initializes the variables.
    keras.utils.clear_session()
    return model


@pytest.mark.parametrize("name", list(networks.TABLE_1))
def test_networks_have_the_parameters_of_table_1(name):
    model = build(name)
    parameters = model.count_params()
    assert model.name == name
    assert parameters == PARAMETERS[name]
    assert parameters == pytest.approx(networks.TABLE_1[name].parameters, rel=0.003)


@pytest.mark.parametrize("name", list(networks.TABLE_1))
def test_table_1_agrees_with_tables_2_to_5(name):
    result, total = networks.TABLE_1[name], networks.TABLES[name][-1]
    assert result.parameters / result.pruned_parameters == pytest.approx(result.compression, abs=0.5)
    assert total.weights == pytest.approx(result.parameters, rel=0.005)
    assert total.weights * total.density / 100 == pytest.approx(result.pruned_parameters, rel=0.05)


@pytest.mark.parametrize("name", list(networks.TABLES))
def test_rows_of_tables_agree_with_their_totals(name):
    *rows, total = networks.TABLES[name]
    assert total.layer == "total"
    assert rows[-1].activation == 100
    assert sum(row.weights for row in rows) == pytest.approx(total.weights, rel=0.01)
    assert sum(row.flop for row in rows) == pytest.approx(total.flop, rel=0.05)
    before = 100
    for row in rows:
        assert row.flop_density == pytest.approx(row.density * before / 100, abs=1)
        before = row.activation


@pytest.mark.parametrize("name", ["lenet_300_100", "lenet_5"])
def test_lenets_take_weight_decay_and_dropout(name):
    model = build(name, l2=1e-3, **{"dropout": (0.2, 0.1) if name == "lenet_300_100" else 0.2})
    assert all(layer.kernel_regularizer.l2 == pytest.approx(1e-3) for layer in model.layers if layer.weights)
    rates = [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)]
    assert rates == ([0.2, 0.1] if name == "lenet_300_100" else [0.2])


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_large_networks_take_other_classes_and_sizes(name):
    model = build(name, classes=7, input_shape=(96, 96, 1), dropout=0.2)
    assert (model.input_shape, model.output_shape) == ((None, 96, 96, 1), (None, 7))
    assert [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)] == [0.2, 0.2]


def test_networks_return_logits():
    for name in networks.TABLES:
        model = build(name)
        assert model.layers[-1].activation is keras.activations.linear
