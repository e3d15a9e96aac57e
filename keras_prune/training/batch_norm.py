"""Re-estimate the moving statistics of batch normalization after a cut, without training."""

import contextlib
import functools

import keras
import numpy as np
from keras import ops

from keras_prune.analysis.batches import input_batches
from keras_prune.layers.hook import override, restore
from keras_prune.layers.traversal import layers_in
from keras_prune.models.checks import require_built
from keras_prune.rules.chunks import on_host


def reestimate_batch_norm(model, x, steps: int | None = None) -> int:
    """Sets the moving statistics of batch normalization to those of the pruned model, without training.

    A cut changes what the layers before a `BatchNormalization` compute. Its moving mean and variance are still those of
    the dense model. With the default momentum of 0.99, 37% of them are left after 100 training steps. Call this
    function after a one-shot cut, or before you compare models that are not trained further.

    The model runs eagerly. Its trainable `BatchNormalization` layers are in training mode, all other layers in
    inference mode. Only the moving statistics change. The new mean is the mean over all samples. The new variance is
    the mean of the variances within the batches, to which the moving variance converges in training. Use batches as
    large as in training or larger. A layer that the model always calls with `training=False` gets new statistics as
    well. To keep the statistics of a layer, freeze it (`trainable=False`).

    Args:
        model: Built Keras model, pruned or plain, compiled or not.
        x: Array of shape `(n, ...)`, a structure of arrays (in batches of 256), or an iterable of batches. Of a batch
            `(inputs, targets)`, only the inputs are used. Use training data.
        steps: Integer, number of batches to use. Defaults to `None`, all. An endless dataset needs it.

    Returns:
        Integer, the number of layers with new statistics.

    Raises:
        ValueError: If the model is not built or has no trainable `BatchNormalization` that it calls, if `x` is empty or
            endless, or if a layer gets NaN or infinity. The model keeps its statistics then.

    Example:

    >>> import numpy as np
    >>> import keras_prune as kp
    >>> norm = keras.layers.BatchNormalization()
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "relu"), norm])
    >>> model = kp.prune(model, 0.5)
    >>> cuts = kp.cut(model)
    >>> x = np.array([[0.0, 1.0], [2.0, 3.0]], "float32")
    >>> kp.reestimate_batch_norm(model, x)
    1
    >>> inputs = keras.ops.convert_to_numpy(model.layers[0](x))
    >>> bool(np.allclose(norm.moving_mean, inputs.mean(axis=0)))
    True
    """
    require_built(model)
    batches = input_batches(x, steps)
    moments = [_Moments(layer) for layer in layers_in(model) if isinstance(layer, keras.layers.BatchNormalization)]
    moments = [one for one in moments if one.layer.trainable]
    if not moments:
        raise ValueError(
            "The model has no trainable BatchNormalization layer. Set `trainable=True` on the layers that need new "
            f"statistics. Received: model={model.name!r}"
        )
    with contextlib.ExitStack() as watching:
        for one in moments:
            watching.enter_context(one.watching())
        for batch in batches:
            # The scope discards everything that a call assigns, such as seeds and states of layers.
            with keras.StatelessScope([zeros for one in moments for zeros in one.zeros()]):
                model(batch, training=False)
    reached = [one for one in moments if one.samples]
    if not reached:
        raise ValueError(
            "Statistics are estimated on at least one input that reaches a trainable BatchNormalization layer. "
            f"Received: x={x!r}"
        )
    for one in reached:
        one.require_finite()
    for one in reached:
        one.assign()
    return len(reached)


class _Moments:
    """The moments of the inputs of a batch normalization, as a mean over the samples of all its calls."""

    def __init__(self, layer):
        self.layer = layer
        self.samples = 0
        self.mean = self.variance = np.float64(0.0)

    @contextlib.contextmanager
    def watching(self):
        """Context in which the layer is in training mode, and each of its calls counts."""
        layer, call = self.layer, self.layer.call

        @functools.wraps(call)
        def training_call(inputs, **kwargs):
            outputs = call(inputs, **{**kwargs, "training": True})
            self._add(inputs, kwargs.get("mask"))
            return outputs

        before = layer.momentum, layer.renorm
        # Without momentum, the moving statistics after a call are those of its batch.
        layer.momentum, layer.renorm = 0.0, False
        override(layer, "call", training_call)
        try:
            yield
        finally:
            restore(layer, "call")
            layer.momentum, layer.renorm = before

    def zeros(self):
        """Returns zeros for the statistics of the layer, because those of a diverged model may be NaN."""
        return [(one, ops.zeros(one.shape)) for one in (self.layer.moving_mean, self.layer.moving_variance)]

    def _add(self, inputs, mask):
        samples = inputs.shape[0] if mask is None else int(ops.sum(ops.cast(mask, "int32")))
        if samples:
            share = samples / (self.samples + samples)
            self.samples += samples
            self.mean += share * (on_host(self.layer.moving_mean.value) - self.mean)
            self.variance += share * (on_host(self.layer.moving_variance.value) - self.variance)

    def require_finite(self):
        if not (np.isfinite(self.mean).all() and np.isfinite(self.variance).all()):
            raise ValueError(
                "The inputs of a BatchNormalization layer hold NaN or infinity. The statistics of the model are "
                f"unchanged. Received: layer={self.layer.path}, mean={self.mean}, variance={self.variance}"
            )

    def assign(self):
        layer = self.layer
        layer.moving_mean.assign(self.mean)
        layer.moving_variance.assign(self.variance)
        if layer.renorm:
            layer.moving_stddev.assign(np.sqrt(self.variance + layer.epsilon))
            layer.renorm_mean.assign(layer.moving_mean)
            layer.renorm_stddev.assign(layer.moving_stddev)
