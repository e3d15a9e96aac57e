"""Callback to back up and restore the training state of a pruned model."""

import os
import pathlib
import re

import keras

from keras_prune import _keras
from keras_prune._arguments import require_integer, require_path
from keras_prune.storage.checked_file import add_checksum, atomic_write, verify_checksum
from keras_prune.training.seeds import reseed


class PruningBackup(keras.callbacks.Callback):
    """Back up the training state of a pruned model, and resume a run that was killed.

    `keras.callbacks.BackupAndRestore` writes weights and epoch to two files. If the process is killed between the two,
    a cut may be applied twice. This callback writes a single file with weights, masks, thresholds, dropout rates and
    the optimizer, and replaces the previous one only when it is complete.

    The resumed run ends with the same weights and masks as a run that was never killed. Random seeds are set before
    each epoch. The order of the data must be the same too: pass `shuffle=False`, or a dataset whose order depends only
    on the epoch. Other callbacks start anew, so that `EarlyStopping` loses its patience count.

    Put this callback last in the list. A finished run does not train again. To train again, delete the directory.

    Args:
        backup_dir: String or path, the directory for the backup of this run.
        seed: Integer. Before each epoch all seeds are set to `seed` + epoch. Defaults to `0`.

    Raises:
        ValueError: If `backup_dir` is not a path, or `seed` not an integer. At the start of `fit`, if the model is not
            built, or the backup is damaged or of another model.

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
    Epoch 2: pruned 24 of 32 connections at strength 1.00; 8 of 32 are left (75.00% sparse, 4.0x).
    start 0: trained 2 epochs, 4.0x
    start 1: trained 1 epochs, 4.0x
    """

    def __init__(self, backup_dir: str | os.PathLike, seed: int = 0):
        super().__init__()
        require_path("backup_dir", backup_dir)
        require_integer("seed", seed, 0)
        self.backup_dir = pathlib.Path(backup_dir)
        self.seed = seed

    def on_train_begin(self, logs=None):
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        model = self.model
        if not model.built:  # Without a backup too, so that a run that could not be resumed ends before it begins.
            raise ValueError(
                "A backup can only be restored into a model that is built. Call the model on a batch of data before "
                f"`fit`. Received: unbuilt model {model.name!r}, backup_dir={str(self.backup_dir)!r}"
            )
        backups = self._backups()
        if not backups:
            return
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        epoch = max(backups)
        try:
            verify_checksum(backups[epoch])
            model.load_weights(backups[epoch])
        except Exception as error:  # Keras and h5py raise anything.
            raise ValueError(
                "The backup cannot be restored, because it is damaged or of another model. Delete it to train from the "
                f"start. Received: backup_dir={str(self.backup_dir)!r}, whose {backups[epoch].name} failed with: "
                f"{error!s:.1000}"
            ) from error
        _keras.set_initial_epoch(model, epoch)

    def on_epoch_begin(self, epoch, logs=None):
        _keras.set_initial_epoch(self.model, None)  # This `fit` has read it. The next one must not.
        reseed(self.model, self.seed + epoch)

    def on_epoch_end(self, epoch, logs=None):
        backup = self.backup_dir / f"after_epoch_{epoch + 1}.weights.h5"
        with atomic_write(backup) as unfinished:
            self.model.save_weights(unfinished)
            add_checksum(unfinished)
        for file in self._backups().values():
            if file != backup:
                file.unlink()

    def on_train_end(self, logs=None):
        _keras.set_initial_epoch(self.model, None)  # A finished run has begun no epoch.

    def _backups(self) -> dict[int, pathlib.Path]:
        """Returns the complete backups by the number of finished epochs. A killed process may leave two."""
        files = {file: re.fullmatch(r"after_epoch_(\d+)\.weights\.h5", file.name) for file in self.backup_dir.iterdir()}
        return {int(match[1]): file for file, match in files.items() if match}
