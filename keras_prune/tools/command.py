"""The command `keras-prune`. This module does not import Keras, so that `--help` is quick."""

import difflib
import io
import os
import signal
import sys
from collections.abc import Sequence

import keras_prune as kp
from keras_prune.tools import benchmark, export, plan, prune, report
from keras_prune.tools.interruption import Interruption
from keras_prune.tools.subcommand import fail

SUBCOMMANDS = {one.name: one for one in (prune.PRUNE, report.REPORT, plan.PLAN, export.EXPORT, benchmark.BENCHMARK)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, 2 after an error, 130 after SIGINT, or 143 after SIGTERM.

    Args:
        argv: Strings, the arguments behind the name of the command. Defaults to `None`, those of this process.
    """
    if argv is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")  # For tables, if the terminal cannot show their lines.
        if hasattr(signal, "SIGPIPE"):
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Ends silently in `| head`.
    with Interruption() as interruption:
        status = _run(list(sys.argv[1:] if argv is None else argv), interruption)
        if argv is None:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # At the end, libraries take seconds, and print if they are interrupted.
    return status


def _run(arguments: list[str], interruption: Interruption) -> int:
    name, *rest = arguments or [""]
    if name in ("--help", "-h", "help"):
        print(help_text())
        return 0
    if name == "--version":
        print(f"keras-prune {kp.__version__}")
        return 0
    if name in SUBCOMMANDS:
        return SUBCOMMANDS[name].run(rest, interruption)
    near = difflib.get_close_matches(name, SUBCOMMANDS)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Expected one of {', '.join(SUBCOMMANDS)}."
    return fail(f"The first argument must be a subcommand. {hint} Received: {name or 'nothing'}")


def help_text() -> str:
    """Returns the help of the whole command."""
    lines = [f"  {name:10} {(one.usage or '').partition(chr(10))[0]}" for name, one in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: keras-prune SUBCOMMAND [arguments]",
            "",
            "Magnitude pruning of saved Keras 3 models. Reads .keras, .kprune and .h5 files and KerasHub presets.",
            "",
            *lines,
            "",
            "keras-prune SUBCOMMAND --help shows examples and flags. KERAS_BACKEND selects the backend of Keras.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
