"""Shared parts of the subcommands, such as flags, help, errors and output."""

import contextlib
import importlib.util
import json
import logging
import math
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from absl import flags

from keras_prune.terminal.caught_output import caught_output
from keras_prune.tools.interruption import Interruption

_WIDTH = 100


class Result(NamedTuple):
    """Result of a subcommand.

    Attributes:
        text: Object to print.
        values: Dict of the same values as JSON types, for `--json`.
    """

    text: Any
    values: dict[str, Any]


class Subcommand(NamedTuple):
    """A subcommand of `keras-prune`.

    Attributes:
        name: String.
        usage: String, the help. Its first line is a sentence. `None` if Python removes docstrings (`-OO`).
        files: Strings, names of the file arguments. Optional ones are in brackets, such as `"[MODEL]"`.
        define: Function that defines the flags in an `absl.flags.FlagValues`. Each subcommand has its own.
        action: Function of the parsed flags and the files that returns a `Result`. It may import Keras.
    """

    name: str
    usage: str | None
    files: Sequence[str]
    define: Callable[[flags.FlagValues], None]
    action: Callable[..., Result]

    def run(self, arguments: Sequence[str], interruption: Interruption) -> int:
        """Runs the subcommand and returns the exit status.

        Args:
            arguments: Strings, flags and files in any order.
            interruption: `Interruption` that is active.
        """
        values = self.all_flags()
        try:
            paths = values(["", *arguments])[1:]
            required = [name for name in self.files if not name.startswith("[")]
            if not values.help and not len(required) <= len(paths) <= len(self.files):
                expected = f"Expected the files {' '.join(self.files)}; keras-prune {self.name} --help shows examples"
                raise flags.Error(f"{expected}. Received: {' '.join(paths) or 'no file'}")
            print(self.help_text(values) if values.help else self._printed(values, paths, interruption))
        except (Exception, KeyboardInterrupt) as error:
            if interruption.signal:  # A library may have turned it into another exception.
                print(interruption.line(), file=sys.stderr)
                return interruption.status
            if isinstance(error, KeyboardInterrupt) or (values.is_parsed() and values.traceback):
                raise
            if isinstance(error, (flags.Error, ValueError, OSError, ImportError)):
                return fail(error)
            return fail(f"{type(error).__name__}: {error} (--traceback shows where)")
        return 0

    def all_flags(self) -> flags.FlagValues:
        """Returns the flags of the subcommand and the flags of all subcommands, not parsed yet."""
        values = flags.FlagValues()
        values.set_gnu_getopt()  # Flags may follow files.
        self.define(values)
        text = "Python modules to import first, such as one with custom layers. The current folder is searched too."
        flags.DEFINE_list("modules", [], text, flag_values=values)
        flags.DEFINE_bool("json", False, "Print the result as JSON.", flag_values=values)
        flags.DEFINE_bool("traceback", False, "Print where an error comes from.", flag_values=values)
        flags.DEFINE_bool("help", False, "Print this help.", short_name="h", flag_values=values)
        return values

    def _printed(self, values, paths, interruption) -> str:
        quiet_libraries()
        # Libraries must not print to the output, which a program may read.
        with contextlib.redirect_stdout(sys.stderr), one_line_warnings():
            import_keras()

            from rich.console import Console

            from keras_prune.storage.checked_file import watch_writing
            from keras_prune.terminal.progress import shown

            console = Console(file=interruption.terminal)
            with watch_writing() as writing, interruption.unwinding(writing), shown(console):
                result = self.action(values, *paths)
        return json.dumps(finite(result.values), indent=1, allow_nan=False) if values.json else str(result.text)

    def help_text(self, values: flags.FlagValues) -> str:
        """Returns usage, description, examples and flags."""
        usage = f"usage: keras-prune {self.name} {' '.join(self.files)} [flags]"
        lines = [line for name in values if name != "h" for line in _help(values[name])]
        return "\n".join([usage, "", (self.usage or "").strip(), "", "Flags:", "", *lines])


def _help(flag) -> list[str]:
    """Returns the lines of one flag, wrapped."""
    choices = getattr(flag.parser, "enum_values", None)
    text = f"{flag.help.split('>: ')[-1]} One of {', '.join(choices)}." if choices else flag.help
    if not (flag.boolean or flag.default in (None, []) or "Default:" in text):
        default = ",".join(flag.default) if isinstance(flag.default, list) else flag.default
        text += f" Default: {default}"
    lines = textwrap.wrap(text, _WIDTH - 28)
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    return [f"  {name:24}  {lines[0]}", *(" " * 28 + line for line in lines[1:])]


def fail(error) -> int:
    """Prints an error in one line, and returns the exit status."""
    print(f"error: {textwrap.shorten(str(error), 2000)}", file=sys.stderr)
    return 2


def numbers(values: flags.FlagValues, name: str, kind: type) -> list:
    """Returns the numbers in a list flag.

    Args:
        values: `absl.flags.FlagValues`.
        name: String, the name of the flag.
        kind: `int` or `float`.

    Raises:
        ValueError: If an entry is not such a number.
    """
    entries: list[str] = values[name].value or []
    try:
        return [kind(entry) for entry in entries]
    except ValueError:
        what = "integers" if kind is int else "numbers"
        received = ",".join(entries)
        raise ValueError(f"--{name} must be {what}, such as 2,4. Received: --{name}={received}") from None


def finite(values):
    """Returns nested values with `None` in place of NaN and infinity, which JSON does not have."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def quiet_libraries() -> None:
    """Makes the backends print errors only. Environment variables that the user set stay."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "jax", "tensorflow"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def one_line_warnings() -> Iterator[None]:
    """Context in which a warning takes one line. Warnings of libraries about themselves are left out."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        warnings.showwarning = lambda message, *_: print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)
        yield


def import_keras() -> None:
    """Imports Keras.

    Raises:
        ValueError: If its backend is not installed.
    """
    try:
        with caught_output():
            import keras  # noqa: F401
    except (ImportError, ValueError) as error:
        installed = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
        raise ValueError(
            f"Keras cannot import its backend: {error}. Install it, or set the environment variable KERAS_BACKEND to "
            f"another, of which {' and '.join(installed) or 'none'} is installed. "
            f"Received: KERAS_BACKEND={os.environ.get('KERAS_BACKEND', '')!r}"
        ) from error
