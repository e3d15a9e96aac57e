"""Write an exported model to a temporary path, compare it with the Keras model, and then move it into place."""

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import tempfile
import textwrap
from collections.abc import Iterator

import numpy as np

from keras_prune._arguments import is_number, require_integer
from keras_prune.export.refusals import refuse_layers
from keras_prune.export.sample import gather, take_sample, with_graph
from keras_prune.models.rebuild import plain_model
from keras_prune.storage.checked_file import UNFINISHED, remove_abandoned, unfinished_until_end
from keras_prune.terminal.progress import steps

# The name differs from those of unfinished files, which are deleted, since the folder may be the only copy.
_PREVIOUS = ".keras_prune_previous"


class VerificationError(ValueError):
    """A file cannot be written, does not load, does not run, or has other outputs than the model."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A file or folder that was compared with the Keras model, and is not in place yet.

    Attributes:
        path: String.
        outputs: Dict of its outputs for a `Sample`. `None` if it runs only once it is linked.
        difference: Float, the largest difference from an output of the Keras model. `None` without outputs.
        relative_difference: Float, the same over the largest magnitude in that output. `None` without outputs.
    """

    path: str
    outputs: dict[str, np.ndarray] | None = None
    difference: float | None = None
    relative_difference: float | None = None

    @property
    def bytes(self) -> int:
        """Size of the file, or of all files in the folder."""
        return sum(file.stat().st_size for file in _files(self.path))


def check_limits(tolerance, batch_size) -> None:
    """Checks two arguments that all exports have.

    Raises:
        ValueError: If `tolerance` is not a number of at least 0, or `batch_size` not an integer of at least 1.
    """
    if not (is_number(tolerance) and tolerance >= 0):
        raise ValueError(f"`tolerance` must be a number of at least 0. Received: tolerance={tolerance!r}")
    require_integer("batch_size", batch_size, 1)


@contextlib.contextmanager
def exporting(model, filepath, x, batch_size: int | None) -> Iterator[tuple]:
    """Context to write files for a model.

    Yields the plain model with a graph, a `Sample`, and a temporary folder on the disk of `filepath`. `replace` moves
    a verified file from there to `filepath`, everything else is deleted. Files that killed exports left a day ago are
    deleted too, and a folder that they were replacing is moved back to `filepath`.

    Args:
        model: Built Keras model, plain or pruned.
        filepath: String or path object.
        x: Inputs, or `None`, as for `take_sample`.
        batch_size: Integer. `None` for the one of the model, or else 1.

    Raises:
        ValueError: If no file can hold the model, or `x` does not fit it.
        OSError: If nothing can be written at `filepath`.
    """
    target = os.path.realpath(filepath)
    with plain_model(model) as plain:
        refuse_layers(plain)
        x = gather(plain, x)
        graph = with_graph(plain, x)
        sample = take_sample(graph, x, batch_size or graph.inputs[0].shape[0] or 1)
        existing = next(folder for folder in pathlib.Path(target).parents if folder.exists())
        remove_abandoned(existing)
        _restore_previous(target)
        try:
            temporary = tempfile.TemporaryDirectory(dir=existing, prefix=f"{UNFINISHED}export_")
        except OSError as error:
            raise type(error)(error.errno, error.strerror, os.fspath(filepath)) from error
        with temporary as folder, unfinished_until_end(folder, filepath), steps(f"exporting {filepath}"):
            yield graph, sample, folder


def verify(path: str, outputs, expected, tolerance: float) -> Candidate:
    """Returns a `Candidate` if its outputs are those of the Keras model.

    Args:
        path: String, where the file or folder is now.
        outputs: Dict of the outputs of the file, or `None` if it runs only once it is linked.
        expected: Dict of the outputs of the Keras model.
        tolerance: Float, the largest difference allowed, relative to the largest magnitude in the same output.

    Raises:
        VerificationError: If the outputs differ by more.
    """
    return Candidate(path) if outputs is None else Candidate(path, outputs, *differences(outputs, expected, tolerance))


def differences(outputs, expected, tolerance: float) -> tuple[float, float]:
    """Returns the largest difference between two dicts of outputs, and the largest relative to its own output.

    Args:
        outputs: Dict of arrays.
        expected: Dict of arrays of the same shapes.
        tolerance: Float, the largest difference allowed, relative to the largest magnitude in the same output.

    Raises:
        VerificationError: If a difference is larger or not a number, or the outputs have other names or shapes.
    """
    shapes = {name: array.shape for name, array in outputs.items()}
    wanted = {name: array.shape for name, array in expected.items()}
    if shapes != wanted:
        raise VerificationError(f"it has the outputs {shapes} instead of {wanted}")
    absolute = relative = 0.0
    for name, array in outputs.items():
        largest = float(np.max(np.abs(array.astype("float64") - expected[name].astype("float64"))))
        scale = float(np.max(np.abs(expected[name].astype("float64"))))
        if not largest <= tolerance * scale:
            raise VerificationError(
                f"its output {name!r} differs by {largest:.3g}, and the limit is {tolerance:g} of the largest, "
                f"{scale:.3g}"
            )
        absolute = max(absolute, largest)
        relative = max(relative, largest / scale if scale else 0.0)
    return absolute, relative


def replace(candidate: Candidate, filepath) -> None:
    """Moves a verified file or folder to its place, and creates the folders around it.

    If `filepath` is a link, it stays a link. An older folder is replaced as a whole. In between it has the ending
    `.keras_prune_previous`. A process that is killed there leaves it, and the next export moves it back.

    Raises:
        ValueError: If the folder at `filepath` holds something that is not in the new one, or if there is a folder
            where a file is exported, or the reverse.
    """
    target = os.path.realpath(filepath)
    kinds = [("folder" if os.path.isdir(path) else "file") for path in (target, candidate.path)]
    if os.path.lexists(target) and kinds[0] != kinds[1]:
        raise ValueError(
            f"There is a {kinds[0]} at `filepath`, and the export is a {kinds[1]}. Choose a new path. "
            f"Received: filepath={os.fspath(filepath)!r}"
        )
    for written in _files(candidate.path):
        with open(written, "rb+") as file:
            os.fsync(file.fileno())
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not (os.path.isdir(target) and os.path.isdir(candidate.path)):
        os.replace(candidate.path, target)
        return
    if others := sorted(set(os.listdir(target)) - set(os.listdir(candidate.path))):
        raise ValueError(
            f"The folder at `filepath` would be replaced, but it holds more than an earlier export: {others}. Choose "
            f"a new path. Received: filepath={os.fspath(filepath)!r}"
        )
    os.rename(target, target + _PREVIOUS)  # A folder with files cannot be replaced in one step.
    try:
        os.rename(candidate.path, target)
    finally:
        _restore_previous(target)


def _restore_previous(target) -> None:
    """Moves the folder that an export was replacing back to `target`, or deletes it if the new one is there."""
    if os.path.isdir(target + _PREVIOUS):
        if os.path.lexists(target):
            shutil.rmtree(target + _PREVIOUS)
        else:
            os.rename(target + _PREVIOUS, target)


def cause(error) -> str:
    """Returns the message of an error on one line, without colors, truncated to 1,000 characters."""
    return textwrap.shorten(re.sub(r"\x1b\[\d*m", "", str(error)), 1000).rstrip(".") or repr(error)


def _files(path):
    path = pathlib.Path(path)
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
