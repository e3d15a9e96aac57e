"""Callback to back up and restore the training state of a pruned model."""

import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator

import keras
import numpy as np

from keras_prune import _keras
from keras_prune._arguments import require_integer, require_path
from keras_prune._processes import gather, process_count, process_index
from keras_prune.models.checks import require_whole
from keras_prune.storage.checked_file import add_checksum, atomic_write, verify_checksum
from keras_prune.training.seeds import reseed


class PruningBackup(keras.callbacks.Callback):
    """Back up the training state of a pruned model, and resume a run that was killed.

    `keras.callbacks.BackupAndRestore` writes weights and epoch to two files. If the process is killed between the two,
    a cut may be applied twice. This callback writes a single file with weights, masks, thresholds, dropout rates and
    the optimizer, and replaces the previous one only when it is complete.

    The resumed run ends with the same weights and masks as a run that was never killed. Random seeds are set before
    each epoch. The order of the data must be the same too: pass `shuffle=False`, or a dataset whose order depends only
    on the epoch. The state of other callbacks is not restored, so `EarlyStopping` loses its patience count.

    Put this callback last in the list. In a custom training loop, iterate over `epochs(model, 20)` instead of
    `range(20)`. A finished run does not train again. To train again, delete the directory.

    If several processes train the model together, each of them must use a `PruningBackup`. Process 0 of 2 writes to the
    folder `worker_0_of_2` in `backup_dir`, which may be one directory for all processes or a different one on each
    machine. Each process keeps its last two epochs, since it can be killed between two saves. At the start, all
    processes resume from the newest epoch that each of them has.

    Args:
        backup_dir: String or path, the directory for the backup of this run.
        seed: Integer. Before each epoch all seeds are set to `seed` + epoch. Defaults to `0`.

    Raises:
        ValueError: If `backup_dir` is not a path, or `seed` not an integer. At the start of the training, if the model
            is not built, weights are spread over processes (JAX), or the backup is damaged, of another model or of
            another number of processes. Every process then raises it.

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
    Epoch 2: pruned 24 connections at strength 1.00; 8 of 32 left (75.00% sparse, 4.0x).
    start 0: trained 2 epochs, 4.0x
    start 1: trained 1 epochs, 4.0x
    """

    def __init__(self, backup_dir: str | os.PathLike, seed: int = 0):
        super().__init__()
        require_path("backup_dir", backup_dir)
        require_integer("seed", seed, 0)
        self.backup_dir = pathlib.Path(backup_dir)
        self.seed = seed

    def epochs(self, model, epochs: int) -> Iterator[int]:
        """Yields the remaining epochs of a custom training loop, and saves the model after each.

        The first is the one after the backup. An epoch counts as finished when the loop asks for the next one.

        Args:
            model: Built model, compiled with the optimizer of the loop.
            epochs: Integer, the number of epochs of the whole run.

        Raises:
            ValueError: If the model has no optimizer, or as at the start of `fit`.

        Example:

        >>> import tempfile
        >>> import keras_prune as kp
        >>> model = kp.prune(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]), kp.TargetSparsity(0.75))
        >>> model.compile("adam", "mse")
        >>> schedule = kp.OneShot(start=1)
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     for epoch in kp.PruningBackup(directory).epochs(model, 2):
        ...         cuts = kp.cut(model, schedule(epoch))  # ... and the steps of the epoch.
        ...     list(kp.PruningBackup(directory).epochs(model, 3))
        [2]
        """
        require_integer("epochs", epochs, 1)
        if getattr(model, "optimizer", None) is None:
            raise ValueError(
                "A backup holds the optimizer of the model. Compile the model with the optimizer of the loop. "
                f"Received: model={model.name!r} without an optimizer"
            )
        self.set_model(model)
        for epoch in range(self._restore(), epochs):
            reseed(model, self.seed + epoch)
            yield epoch
            self.on_epoch_end(epoch)

    def on_train_begin(self, logs=None):
        if epoch := self._restore():
            _keras.set_initial_epoch(self.model, epoch)

    def on_epoch_begin(self, epoch, logs=None):
        _keras.set_initial_epoch(self.model, None)  # This `fit` has read it. The next one must not.
        reseed(self.model, self.seed + epoch)

    def on_epoch_end(self, epoch, logs=None):
        with atomic_write(self._file(epoch + 1)) as unfinished:
            self.model.save_weights(unfinished)
            add_checksum(unfinished)
        # Another process may still be saving this epoch. It has saved the epoch before, or no step would have ended.
        kept = 2 if self._folder else 1
        for old in sorted(self._epochs())[:-kept]:
            self._file(old).unlink()

    def on_train_end(self, logs=None):
        _keras.set_initial_epoch(self.model, None)  # A finished run has begun no epoch.

    def _restore(self) -> int:
        """Restores the newest epoch that all processes have, and returns its number or 0."""
        model = self.model
        # Checked even without a backup, so that a run that could not be resumed fails at the start.
        if not model.built:
            raise ValueError(
                "A backup can only be restored into a model that is built. Call the model on a batch of data before "
                f"`fit`. Received: unbuilt model {model.name!r}, backup_dir={str(self.backup_dir)!r}"
            )
        require_whole(model)
        self._folder = _folder(process_index(model), process_count(model))
        (self.backup_dir / self._folder).mkdir(parents=True, exist_ok=True)
        epoch = self._agree()
        if not model.optimizer.built:
            with _keras.strategy_scope(model):
                model.optimizer.build(model.trainable_variables)
        if epoch:
            self._in_all_processes(verify_checksum, self._file(epoch))
            self._in_all_processes(model.load_weights, self._file(epoch))
        for newer in self._epochs():
            if newer > epoch:
                self._file(newer).unlink()
        return epoch

    def _agree(self) -> int:
        text = json.dumps(self._names("", "worker_*_of_*")).encode()
        longest = gather(len(text), self.model).max()
        rows = gather(np.frombuffer(text.ljust(longest), "uint8"), self.model)
        names = [json.loads(bytes(row)) for row in rows]
        epoch = common_epoch(names)
        if epoch is None:
            raise ValueError(
                "There is no epoch that every process has a backup of, or the run had another number of processes. "
                "Restore the missing files, or delete the directory of every process to train from the start. To "
                "resume with another number of processes, keep only one newest file, copied to "
                "`worker_I_of_N` for each process I of N, or to `backup_dir` itself for one process. "
                f"Received: backup_dir={str(self.backup_dir)!r}, where {len(names)} processes see {names!s:.1000}"
            )
        return epoch

    def _in_all_processes(self, action: Callable, file) -> None:
        """Calls a function on the backup. If it fails in one process, all raise, because none can train alone."""
        failure = None
        try:
            action(file)
        except Exception as error:  # Keras and h5py raise anything.
            failure = error
        failed = np.flatnonzero(gather(failure is not None, self.model)).tolist()
        if failed:
            raise ValueError(
                "The backup cannot be restored, because it is damaged or of another model. Delete it to resume from "
                "the epoch before, or from the start if there is no other. "
                f"Received: backup_dir={str(self.backup_dir)!r}, whose {file.name} failed "
                + (f"with: {failure!s:.1000}" if failure else f"in the processes {failed}")
            ) from failure

    def _file(self, epoch) -> pathlib.Path:
        return self.backup_dir / self._folder / f"after_epoch_{epoch}.weights.h5"

    def _epochs(self) -> list[int]:
        """Returns the epochs that this process has a complete backup of."""
        return [_split(name)[1] for name in self._names(self._folder)]

    def _names(self, *folders: str) -> list[str]:
        """Returns the complete backups in folders of `backup_dir`."""
        files = [file for folder in folders for file in self.backup_dir.glob(os.path.join(folder, "*.weights.h5"))]
        names = [file.relative_to(self.backup_dir).as_posix() for file in files]
        return sorted(filter(_NAME.fullmatch, names))


_NAME = re.compile(r"(?:(worker_\d+_of_\d+)/)?after_epoch_(\d+)\.weights\.h5")


def _split(name) -> tuple[str, int]:
    """Returns the folder of a backup, empty for a run of one process, and its epoch."""
    [(folder, epoch)] = _NAME.findall(name)
    return folder, int(epoch)


def _folder(index, count) -> str:
    return f"worker_{index}_of_{count}" if count > 1 else ""


def common_epoch(names: list[list[str]]) -> int | None:
    """Returns the newest epoch that every process has a backup of, 0 for a new run, or `None`.

    Args:
        names: List with, for each process, the backups that it sees, some of them of other processes.
    """
    seen = [set(map(_split, one)) for one in names]
    folders = [_folder(index, len(names)) for index in range(len(names))]
    common = set.intersection(
        *({epoch for one, epoch in backups if one == folder} for folder, backups in zip(folders, seen, strict=True))
    )
    everything = set.union(*seen)
    # A kill between the first saves of the run leaves epoch 1 in some processes only.
    complete = common or {epoch for _, epoch in everything} <= {1}
    return max(common, default=0) if complete and {folder for folder, _ in everything} <= set(folders) else None
