"""Callbacks that prune wrapped layers during `fit`, and write their sparsity for TensorBoard."""

import importlib.util
from typing import Any

import keras

from keras_prune.compat.tfmot.low_magnitude import PruneLowMagnitude
from keras_prune.layers.attachment import apply_masks
from keras_prune.layers.masks import require_finite_weights
from keras_prune.layers.prune import wrappers_in
from keras_prune.layers.weights import pruned_weights


class UpdatePruningStep(keras.callbacks.Callback):
    """Prunes the layers of `prune_low_magnitude` during training, each by its own schedule.

    A layer is pruned before the batch of a step. Steps are batches since the model was first trained with the callback,
    counted from 1, also over several runs of `fit`, and saved with the weights. In a custom loop, call `set_model`,
    `on_train_begin`, `on_train_batch_begin` before each batch, and `on_epoch_end`.

    Raises:
        RuntimeError: Raised by the wrapped layers at the first training step without this callback.

    Example:

    >>> import numpy as np, keras_prune.compat.tfmot as tfmot
    >>> schedule = tfmot.sparsity.keras.ConstantSparsity(0.75, begin_step=1)
    >>> layer = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(4, name="fc"), schedule)
    >>> model = keras.Sequential([keras.Input((8,)), layer])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 8)), np.ones((8, 4))
    >>> history = model.fit(x, y, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    >>> int(keras.ops.count_nonzero(layer.layer.kernel.value))
    8
    """

    def on_train_begin(self, logs=None):
        self.prunable_layers = [layer for layer in wrappers_in(self.model) if isinstance(layer, PruneLowMagnitude)]
        for weight in pruned_weights(self.model):
            weight.take_zeros()  # The weights may come from a file without masks, such as .h5.

    def on_train_batch_begin(self, batch, logs=None):
        step = 1 + max((layer.pruning_step for layer in self.prunable_layers), default=0)
        due: list[tuple[Any, float]] = []
        for layer in self.prunable_layers:
            layer.__dict__["pruning_step"] = step  # `setattr` of a layer is slow.
            is_due, sparsity = layer.pruning_schedule(step)
            if is_due and sparsity > 0:
                due += [(weight, float(sparsity)) for weight in pruned_weights(layer)]
        if due:
            require_finite_weights(pruned_weights(self.model))  # On JAX, `self.model` updates them.
        for weight, sparsity in due:
            weight.cut(weight.criterion, sparsity)

    def on_epoch_end(self, batch, logs=None):
        apply_masks(self.model)


class PruningSummaries(keras.callbacks.TensorBoard):
    """Writes the sparsity and threshold of each pruned weight for TensorBoard, when an epoch begins.

    Args:
        log_dir: String, folder of the logs. Sparsities and thresholds are written to its folder `metrics`.
        update_freq: As in `keras.callbacks.TensorBoard`. Defaults to `"epoch"`.
        **kwargs: Further arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ImportError: If TensorFlow or TensorBoard is not installed. Keras needs both to write logs, on every backend.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> callbacks = [
    ...     tfmot.sparsity.keras.UpdatePruningStep(),
    ...     tfmot.sparsity.keras.PruningSummaries(log_dir="logs"),  # doctest: +SKIP
    ... ]
    """

    def __init__(self, log_dir, update_freq="epoch", **kwargs):
        if missing := [name for name in ("tensorflow", "tensorboard") if importlib.util.find_spec(name) is None]:
            raise ImportError(f"Keras writes logs with TensorFlow. Run `pip install {' '.join(missing)}`.")
        super().__init__(log_dir=log_dir, update_freq=update_freq, **kwargs)
        self._file_writer = self.summary.create_file_writer(f"{log_dir}/metrics")

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        with self._file_writer.as_default(step):
            for layer in wrappers_in(self.model):
                for index, weight in enumerate(pruned_weights(layer)):
                    number = f"_{index}" if index else ""
                    threshold = float(keras.ops.convert_to_numpy(weight.threshold))
                    self.summary.scalar(f"{layer.name}/mask{number}/sparsity", 1 - weight.density)
                    self.summary.scalar(f"{layer.name}/threshold{number}/threshold", threshold)
            self._file_writer.flush()
