"""Suppress the output of compiled libraries."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def caught_output() -> Iterator[None]:
    """Context that catches standard output and error, and drops them unless the context fails.

    TensorFlow prints a page while it converts a model, and some lines at its import, from C++ code that
    `contextlib.redirect_stdout` does not reach and `TF_CPP_MIN_LOG_LEVEL=3` does not silence (TensorFlow 2.21). The
    output is added to an error as a note, which a traceback shows. The redirection holds for the whole process. If the
    process crashes, the output is lost. With the environment variable `TF_CPP_MIN_LOG_LEVEL=0`, nothing is caught.

    Example:

    >>> import os
    >>> from keras_prune.terminal.caught_output import caught_output
    >>> try:
    ...     with caught_output():
    ...         size = os.write(2, b"E0000 unknown operator")
    ...         raise ValueError("The converter failed.")
    ... except ValueError as error:
    ...     print(error, error.__notes__)
    The converter failed. ['E0000 unknown operator']
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") == "0":
        yield
        return
    with tempfile.TemporaryFile() as file:
        try:
            with _redirected(file):
                yield
        except Exception as error:
            file.seek(0)
            if output := file.read().decode(errors="replace").strip():
                error.add_note(output)
            raise


@contextlib.contextmanager
def _redirected(file) -> Iterator[None]:
    """Context in which the descriptors of standard output and error write to a file.

    `sys.stdout` and `sys.stderr` stay, because modules imported within the context, such as logging, keep them.
    """
    with contextlib.ExitStack() as restored:
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # Closed, or there is no terminal.
                flush = stream.flush if stream else lambda: None
                flush()
                saved = os.dup(number)
                restored.callback(os.close, saved)
                restored.callback(os.dup2, saved, number)
                restored.callback(flush)
                os.dup2(file.fileno(), number)
        yield
