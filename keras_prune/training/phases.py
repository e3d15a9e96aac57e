"""Retrain dense layers while the convolutions are fixed, and the reverse (Han et al. 2015, section 3.3)."""

import contextlib

import keras

from keras_prune.layers.connections import owned_connections
from keras_prune.layers.traversal import layers_in
from keras_prune.models.rebuild import recompile


def phases_of(model, alternate: bool) -> list:
    """Returns, for each training of a round, which layers it trains, a function of a layer; `None` for all layers."""
    layers = [layer for layer, _ in owned_connections(model)]
    return [phase for phase in (_is_dense, _is_no_dense) if any(map(phase, layers))] if alternate else [None]


@contextlib.contextmanager
def only_trainable(model, phase):
    """Freezes the layers with connections for which `phase` is false while the context lasts. Optimizers are fresh."""
    if phase is None:
        yield
        return
    frozen = [layer for layer, _ in owned_connections(model) if layer.trainable and not phase(layer)]
    # Layers inside them that are frozen for themselves, which the flag of the outer one would thaw.
    stay = [inner for layer in frozen for inner in layers_in(layer) if not inner.trainable]
    try:
        for layer in frozen:
            layer.trainable = False
        recompile(model, model)
        yield
    finally:
        for layer in frozen:
            layer.trainable = True
        for inner in stay:
            inner.trainable = False
        # An optimizer knows the variables that were trainable when it was built; what follows trains others.
        recompile(model, model)


def _is_dense(layer) -> bool:
    return isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))


def _is_no_dense(layer) -> bool:
    return not _is_dense(layer)
