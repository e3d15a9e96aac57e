"""Shared parts of the tools: flags, model files and exit statuses.

A tool exits with 0 if it succeeded, 1 if the command line is wrong, and 2 if a file or value cannot be used. In the
last two cases it prints one line to standard error, and writes no files.
"""

import contextlib
import importlib
import json
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from absl import flags

from keras_prune.storage.checked_file import atomic_write


class Result(NamedTuple):
    """Result of a tool.

    Attributes:
        text: Object to print.
        values: Dict of the same in types that JSON knows, for `--json`.
    """

    text: Any
    values: dict[str, Any]


class Tool(NamedTuple):
    """A tool for the command line.

    Attributes:
        usage: String, the help.
        files: Strings, names of the file arguments. Optional ones are in brackets, such as `"[MODEL]"`.
        define: Function that defines the flags of the tool in an `absl.flags.FlagValues`.
        action: Function of the parsed flags and the files. Returns a `Result`. A `ValueError` or an `OSError` ends the
            tool with status 2.
    """

    usage: str | None
    files: Sequence[str]
    define: Callable[[flags.FlagValues], None]
    action: Callable[..., Result]

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Runs the tool in this process and returns its exit status.

        Args:
            argv: Strings, the arguments behind the name of the tool. Defaults to `None`, those of this process.
        """
        values = flags.FlagValues()
        values.set_gnu_getopt()  # Flags may follow files.
        flags.DEFINE_bool("help", False, "Print this help.", flag_values=values)
        flags.DEFINE_bool("json", False, "Print the result as JSON.", flag_values=values)
        flags.DEFINE_list("modules", [], "Python modules to import first, such as one with layers.", flag_values=values)
        self.define(values)
        try:
            paths = values(["", *(sys.argv[1:] if argv is None else argv)])[1:]
        except flags.Error as error:
            return _fail(error, 1)
        if values.help:
            print(self.usage, values.get_help(), sep="\n")
            return 0
        required = [name for name in self.files if not name.startswith("[")]
        if not len(required) <= len(paths) <= len(self.files):
            expected = f"Expected the files {' '.join(self.files)}; --help shows examples"
            return _fail(f"{expected}. Received: {' '.join(paths) or 'no file'}", 1)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Keras prints, too.
                result = self.action(values, *paths)
        except (ValueError, OSError) as error:
            return _fail(error, 2)
        print(json.dumps(result.values, indent=1, allow_nan=False) if values.json else result.text)
        return 0


def _fail(error, status: int) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def load_model(path: str, modules: Sequence[str] = ()) -> keras.Model:
    """Returns the model in a `.keras` file, not compiled.

    Args:
        path: String.
        modules: Strings, names of Python modules to import first. Defaults to `()`.

    Raises:
        ValueError: If a module cannot be imported, or the file is missing, damaged, or not a Keras 3 model with known
            layers.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"Cannot import a module of --modules: {error}. Received: {module!r}") from error
    if not os.path.isfile(path):
        raise ValueError(f"Expected a model that Keras saved, but there is no such file. Received: {path!r}")
    if path.endswith(".keras") and not zipfile.is_zipfile(path):
        raise ValueError(
            "Expected a model that Keras saved as .keras, but the file is damaged or not a Keras file. "
            f"Received: {path!r}"
        )
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras may raise anything for a file that it did not write.
        if "enable_unsafe_deserialization" in str(error):
            raise ValueError(
                "Expected a model that Keras loads without running Python code from the file, such as that of a Lambda "
                "layer. If you trust the file, call the functions of keras_prune in a program after "
                f"keras.config.enable_unsafe_deserialization(). Received: {path!r}"
            ) from error
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise ValueError(
            f"Expected a model that Keras saved as .keras: {type(error).__name__}: {reason}. If it has custom layers, "
            f"add --modules=their.module. Received: {path!r}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a whole model, but the file holds a {type(model).__name__}. Received: {path!r}")
    return model


def save_model(model: keras.Model, path: str) -> None:
    """Writes a model to a `.keras` file atomically.

    Args:
        model: Keras model.
        path: String.

    Raises:
        ValueError: If `path` has another suffix, or its folder does not exist.
    """
    if not path.endswith(".keras") or not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise ValueError(f"The output must be a .keras file in a folder that exists. Received: {path!r}")
    with atomic_write(path) as unfinished:
        model.save(unfinished)
