"""Callbacks that prune wrapped layers during `fit`, and write their sparsity for TensorBoard."""

import functools
import importlib.util
from typing import Any

import keras

from keras_prune.compat.tfmot.low_magnitude import PruneLowMagnitude
from keras_prune.layers.attachment import apply_masks
from keras_prune.layers.masks import require_finite_weights
from keras_prune.layers.prune import wrappers_in
from keras_prune.layers.weights import pruned_weights
from keras_prune.training.density_watch import DensityWatch
from keras_prune.training.optimizer_slots import optimizers_of, reset_slots


class UpdatePruningStep(keras.callbacks.Callback):
    """Prunes the layers of `prune_low_magnitude` during training, each by its own schedule.

    A layer is pruned before the batch of a step. Steps are batches since the model was first trained with the callback,
    counted from 1, also over several runs of `fit`, and saved with the weights. In a custom loop, call `set_model`,
    `on_train_begin`, `on_train_batch_begin` before each batch, and `on_epoch_end`. Set `model.optimizer`, so that its
    slots are reset.

    Raises:
        RuntimeError: At the first step of a training without it, by the wrapped layers.
    """

    def __init__(self):
        super().__init__()
        self.prunable_layers = []
        self._batch = 0
        self._watch = DensityWatch(at_end=lambda: None)

    def on_train_begin(self, logs=None):
        model = self.model
        self.prunable_layers = [layer for layer in wrappers_in(model) if isinstance(layer, PruneLowMagnitude)]
        weights = pruned_weights(model)
        for weight in weights:
            weight.take_zeros()  # Of a file without masks, such as .h5.
        if self.params and weights:  # In `fit`, callbacks such as EarlyStopping may restore weights.
            self._watch.set_model(model)
            self._watch.on_train_begin()
        self._watch.follow(weights, [])
        self._count(0)

    def on_train_batch_begin(self, batch, logs=None):
        self._batch = batch
        self._count(1)

    def on_train_batch_end(self, batch, logs=None):
        if batch > self._batch:
            self._count(batch - self._batch)  # Steps that Keras executed together with the first.

    def on_epoch_end(self, batch, logs=None):
        apply_masks(self.model)

    def _count(self, steps: int) -> None:
        """Counts steps, and prunes what becomes due."""
        done = max([0, *(layer.pruning_step for layer in self.prunable_layers)])
        sparsity_of = functools.cache(functools.partial(_last_sparsity, range(done + steps, done, -1)))
        for layer in self.prunable_layers:
            layer.__dict__["pruning_step"] = done + steps  # `setattr` of a layer takes longer than all else here.
        due = [(layer, sparsity) for layer in self.prunable_layers if (sparsity := sparsity_of(layer.update_schedule))]
        if due:
            self._prune(self.model, due)  # On JAX, `self.model` brings the variables up to date.

    def _prune(self, model, due) -> None:
        cuts: list[tuple[Any, float]] = [
            (weight, sparsity) for layer, sparsity in due for weight in pruned_weights(layer)
        ]
        require_finite_weights([weight for weight, _ in cuts])
        for weight, sparsity in cuts:
            weight.cut(weight.criterion, sparsity)
        for optimizer in optimizers_of(model):
            reset_slots(optimizer, [(weight.variable, weight.mask) for weight, _ in cuts])
        self._watch.follow(pruned_weights(model), [])


def _last_sparsity(steps, schedule) -> float:
    """Returns the sparsity at the first of the steps at which the schedule prunes, or 0."""
    return next((float(sparsity) for due, sparsity in map(schedule, steps) if due), 0.0)


class PruningSummaries(keras.callbacks.TensorBoard):
    """Writes the sparsity and threshold of each pruned weight for TensorBoard, when an epoch begins.

    Args:
        log_dir: String, folder of the logs, of which these go into `metrics`.
        update_freq: As in `keras.callbacks.TensorBoard`. Defaults to `"epoch"`.
        **kwargs: Further arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ValueError: If `log_dir` is not a string, or empty.
        ImportError: If TensorFlow or TensorBoard is not installed, with which Keras writes logs on every backend.
    """

    def __init__(self, log_dir, update_freq="epoch", **kwargs):
        if not isinstance(log_dir, str) or not log_dir:
            raise ValueError(f"`log_dir` must be a string that is not empty. Received: log_dir={log_dir!r}")
        if missing := [name for name in ("tensorflow", "tensorboard") if importlib.util.find_spec(name) is None]:
            raise ImportError(
                f"PruningSummaries needs {' and '.join(missing)}: Keras writes logs for TensorBoard with TensorFlow on "
                f"every backend. Run `pip install {' '.join(missing)}`, or leave the callback out."
            )
        super().__init__(log_dir=log_dir, update_freq=update_freq, **kwargs)
        self._file_writer = self.summary.create_file_writer(f"{log_dir}/metrics")

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        with self._file_writer.as_default():
            for layer in wrappers_in(self.model):
                for index, weight in enumerate(pruned_weights(layer)):
                    number = f"_{index}" if index else ""
                    threshold = float(keras.ops.convert_to_numpy(weight.threshold))
                    self.summary.scalar(f"{layer.name}/mask{number}/sparsity", 1 - weight.density, step=step)
                    self.summary.scalar(f"{layer.name}/threshold{number}/threshold", threshold, step=step)
            self._file_writer.flush()
