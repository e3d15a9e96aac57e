"""Backup: a run of `fit` that is killed at any moment goes on when the same command is started again."""

import os
import pathlib
import re

import keras

from keras_prune.training.seeds import reseed


class PruningBackup(keras.callbacks.Callback):
    """Keeps the state of a run, and lets one that was killed go on and end as if it had not been.

    `keras.callbacks.BackupAndRestore` writes weights and epoch one after the other into files that exist: a kill in
    between leaves a state that never was, in which a cut may be done twice. Here one file holds all and appears under
    its name when it is whole: weights, masks, thresholds, dropout rates and optimizer. Random seeds are set anew for
    every epoch, so that a later start draws the same noise. The order of the data is yours: pass `shuffle=False` with
    data that is shuffled already, or a dataset whose order depends on the epoch alone. What other callbacks remember,
    such as the patience of `EarlyStopping`, begins anew with every start.

    Put it last in the list of callbacks. A run that is finished does not train again; remove the directory for that.

    Args:
        directory: Folder of this run's backup.
        seed: Integer; before each epoch all seeds are set to `seed` + epoch. Defaults to `0`.

    Example:

    >>> import tempfile
    >>> import numpy as np, keras_prune as kp
    >>> x = np.ones((32, 8))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     for start in range(2):
    ...         model = kp.prune(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]), kp.TargetSparsity(0.75))
    ...         model.compile("adam", "mse")
    ...         callbacks = [kp.PruningCallback(kp.OneShot(start=1)), kp.PruningBackup(directory)]
    ...         history = model.fit(x, x[:, :4], epochs=2 + start, shuffle=False, verbose=0, callbacks=callbacks)
    ...         print(f"start {start}: trained {len(history.epoch)} epochs, {kp.report(model).compression}x")
    Epoch 2: cut 24 of 32 connections at strength 1.00; 8 of 32 are left (75.00 % sparse, 4.0x).
    start 0: trained 2 epochs, 4.0x
    start 1: trained 1 epochs, 4.0x
    """

    def __init__(self, directory: str | os.PathLike, seed: int = 0):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.seed = seed

    def on_train_begin(self, logs=None):
        self.directory.mkdir(parents=True, exist_ok=True)
        backups = self._backups()
        if not backups:
            return
        if not self.model.built:
            raise ValueError(
                "A backup is restored into a model that has its weights: call the model on a batch of data before fit. "
                f"Received: unbuilt model {self.model.name!r}, directory={str(self.directory)!r}"
            )
        epoch = max(backups)
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(backups[epoch])
        self.model._initial_epoch = epoch  # As Keras's own BackupAndRestore says where to go on.

    def on_epoch_begin(self, epoch, logs=None):
        self.model._initial_epoch = None  # `fit` has read it, and would read it again whenever it is called.
        reseed(self.model, self.seed + epoch)

    def on_epoch_end(self, epoch, logs=None):
        partial = self.directory / "partial.weights.h5"
        self.model.save_weights(partial, overwrite=True)
        older = self._backups().values()
        os.replace(partial, self.directory / f"after_epoch_{epoch + 1}.weights.h5")
        for file in older:
            file.unlink()

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None  # Of a run that was finished, no epoch has begun.

    def _backups(self) -> dict[int, pathlib.Path]:
        """Returns the whole backups by the number of epochs done; a kill may leave two."""
        files = {file: re.fullmatch(r"after_epoch_(\d+)\.weights\.h5", file.name) for file in self.directory.iterdir()}
        return {int(match[1]): file for file, match in files.items() if match}
