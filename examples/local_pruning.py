"""Retrain dense layers while the convolutions are fixed, and the reverse (Han et al. 2015, section 3.3).

A deep network recovers better from pruning if only one part of it is retrained at a time. Wrap the rounds in
`local_retraining`, as cifar10.py and imagenet.py do.
"""

import contextlib

import keras

import keras_prune as kp


@contextlib.contextmanager
def local_retraining(model, compile):
    """Context in which `model.fit` trains the dense layers with the convolutions fixed, and then the reverse.

    Each half starts by pruning the layers that it trains. A half without layers is skipped. All other layers, such as
    batch normalization, train in both halves.

    Args:
        model: Compiled model. Nested models are not opened.
        compile: Function that compiles the model. It is called whenever other layers are to be trained. The learning
            rate is kept.

    Example:

        with local_retraining(model, compile):
            rounds = kp.iterative_prune(model, [2, 4, 8], x=x, y=y, validation_data=validation_data)
    """
    layers = [layer for layer in model.layers if hasattr(layer, "kernel") and layer.trainable]
    dense = [layer for layer in layers if isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))]
    halves = [half for half in (dense, [layer for layer in layers if layer not in dense]) if half]
    fit = model.fit

    def compile_for(trained, rate):
        for layer in layers:
            layer.trainable = layer in trained
        compile(model)  # An optimizer knows the variables that were trainable when it was built.
        model.optimizer.learning_rate = rate

    def fit_halves(callbacks=(), **arguments):
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        try:
            for half in halves:
                compile_for(half, rate)
                has_cut = not all(weight.frozen for weight in kp.layers.pruned_weights(model))
                own = [one for one in callbacks if has_cut or not isinstance(one, kp.PruningCallback)]
                history = fit(callbacks=own, **arguments)
        finally:
            compile_for(layers, rate)
        return history

    model.fit = fit_halves
    try:
        yield
    finally:
        del model.fit
