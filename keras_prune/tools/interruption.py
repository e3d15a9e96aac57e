"""End the command in one line at SIGINT (Ctrl-C) or SIGTERM, with no unfinished file left."""

import contextlib
import os
import shutil
import signal
import sys
import threading

_SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_GRACE_SECONDS = 5.0


class Interruption(contextlib.AbstractContextManager):
    """Context in which a signal ends the process.

    Outside of `unwinding` there is nothing to clean up, and the process exits at once, because a `KeyboardInterrupt` in
    an import could surface as another error. Within `unwinding`, the first signal raises `KeyboardInterrupt`, and the
    functions of keras_prune remove unfinished files. The process still exits at a second signal, if a library swallows
    the exception, or if the main thread does not return from compiled code for 5 seconds.

    Attributes:
        signal: Integer, the signal that was received. 0 if none was.
        writing: `Writing` that follows the files of the subcommand, or `None` before it runs.
        terminal: Text file, the standard error of the process, even while it is redirected to catch output of
            libraries.
    """

    def __init__(self):
        self.signal, self.writing, self.unwinds, self.previous = 0, None, False, {}

    def __enter__(self):
        self.terminal = open(os.dup(2), "w", encoding=sys.stderr.encoding, errors="replace")
        if threading.current_thread() is threading.main_thread():  # Only this thread can set handlers.
            # A signal that is ignored stays ignored. `nohup` and shells do so for a process in the background.
            heeded = [one for one in _SIGNALS if signal.getsignal(one) is not signal.SIG_IGN]
            self.previous = {one: signal.signal(one, self._handle) for one in heeded}
        return self

    def __exit__(self, *_):
        for one, handler in self.previous.items():
            signal.signal(one, handler)
        self.terminal.close()

    @contextlib.contextmanager
    def unwinding(self, writing):
        """Context in which a signal raises `KeyboardInterrupt`. `writing` is a `Writing`."""
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self.writing, self.unwinds, self.hook = writing, True, hook
        try:
            yield
        finally:
            self.unwinds = False
            sys.unraisablehook = hook

    @property
    def status(self) -> int:
        """The exit status, as a shell reports it."""
        return 128 + self.signal

    def line(self) -> str:
        """Returns the line to print."""
        finished = [] if self.writing is None else list(dict.fromkeys(self.writing.finished))
        done = f"{', '.join(finished)} written before" if finished else "nothing was written"
        return f"{_SIGNALS[signal.Signals(self.signal)]}; {done}"

    def _handle(self, number, _):
        if self.signal or not self.unwinds:
            self.signal = self.signal or number
            self._exit()
        self.signal = number
        timer = threading.Timer(_GRACE_SECONDS, self._exit)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    def _unraisable(self, unraisable):
        if self.signal and isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._exit()  # It was raised in a destructor, which ends it.
        self.hook(unraisable)

    def _exit(self):
        for path in [] if self.writing is None else list(self.writing.unfinished):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.remove(path)
        clear = "\r\x1b[K\x1b[?25h" if self.terminal.isatty() else ""  # The bar, which hides the cursor.
        os.write(self.terminal.fileno(), f"{clear}{self.line()}\n".encode())
        os._exit(self.status)
