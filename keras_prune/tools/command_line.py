"""What the scripts share: a model file in, a table or JSON out, and one clear line for what cannot be used.

Exit status 0: done. 1: the command line is wrong (absl prints the help). 2: a file or a value cannot be used; one line
on standard error says why, and nothing was written.
"""

import contextlib
import importlib
import json
import os
import sys
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("json", False, "Print the result as JSON, for machines.")
flags.DEFINE_list("modules", [], "Python modules to import first, such as those that register layers of your own.")


def run(main: Callable[..., tuple[Any, dict[str, Any]]], files: Sequence[str]) -> None:
    """Runs a script: parses the flags, calls `main(*paths)`, and prints what it returns.

    Args:
        main: Function of one path for each of `files`. Returns what to print, and the same for `--json`. What is
            printed meanwhile, as Keras does, goes to standard error. A `ValueError` or `OSError` ends the script with
            exit status 2 and its message on one line.
        files: Strings, what the help calls the files on the command line, such as `["MODEL"]`.
    """

    def start(arguments):
        paths = arguments[1:]
        if len(paths) != len(files):
            raise app.UsageError(f"Expected the files {' '.join(files)}. Received: {' '.join(paths) or 'none'}")
        try:
            with contextlib.redirect_stdout(sys.stderr):
                text, values = main(*paths)
        except (ValueError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(2)
        print(json.dumps(values, indent=1, allow_nan=False) if FLAGS.json else text)

    FLAGS.set_gnu_getopt()  # Flags may stand behind the files.
    for name in ("json", "modules"):
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])  # So that --help of every script shows them.
    app.run(start)


def load_model(path: str) -> keras.Model:
    """Returns the model in a `.keras` file, not compiled.

    Args:
        path: String.

    Raises:
        ValueError: If the file is missing or damaged, holds no Keras 3 model, or one with unknown layers.
    """
    for module in FLAGS.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"--modules names Python modules that can be imported. Received: {module!r}: {error}"
            ) from error
    if not os.path.isfile(path):
        raise ValueError(f"Expected a model that Keras saved. Received: {path!r}, which is no file")
    if path.endswith(".keras") and not zipfile.is_zipfile(path):
        raise ValueError(
            f"Expected a model that Keras 3 saved as .keras. Received: {path!r}, which is no Keras file "
            "or a damaged one"
        )
    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # A foreign file fails anywhere in Keras, with any error.
        reason = str(error).strip().splitlines()
        if "enable_unsafe_deserialization" in str(error):
            raise ValueError(
                "Expected a model that Keras loads without running code from its file. If you trust it, do this in a "
                "Python program of your own, with the functions of keras_prune, where "
                "keras.config.enable_unsafe_deserialization() lets Keras run that code. "
                f"Received: {path!r}, with Python code inside, as of a Lambda layer"
            ) from error
        raise ValueError(
            "Expected a model that Keras 3 saved as .keras; layers of your own need --modules=their.module. "
            f"Received: {path!r}: {type(error).__name__}: {reason[0] if reason else 'no reason given'}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a whole model. Received: {path!r}, which holds a {type(model).__name__}")
    return model


@contextlib.contextmanager
def written_aside(path: str, suffix: str) -> Iterator[str]:
    """Yields another name to write to; what is there takes the place of `path` if all went well, else it is removed.

    Args:
        path: String, where the file is wanted.
        suffix: String, which the name must end with, such as `".keras"`.

    Raises:
        ValueError: If `path` has another suffix or its folder does not exist.
    """
    folder, name = os.path.split(os.path.realpath(path))
    if not name.endswith(suffix) or not os.path.isdir(folder):
        raise ValueError(f"The output is a {suffix} file in a folder that exists. Received: {path!r}")
    aside = os.path.join(folder, f"{uuid.uuid4().hex}.tmp{suffix}")
    try:
        yield aside
        os.replace(aside, os.path.join(folder, name))
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(aside)
        raise
