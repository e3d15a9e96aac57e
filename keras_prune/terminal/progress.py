"""Progress bars for work that takes longer than two seconds, inside the context `shown`."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_DELAY_SECONDS = 2.0
_SHOWN: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("shown", default=None)


@contextlib.contextmanager
def shown(console: Console | None = None) -> Iterator[None]:
    """Context in which the functions of keras_prune show a bar for work that takes longer than two seconds.

    A bar disappears when its work is done.

    Args:
        console: `rich.console.Console`. Defaults to `None`, standard error. Nothing is drawn if it is not a terminal.

    Example:

    >>> import keras_prune as kp, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="fc")])
    >>> model.compile(loss="mse")
    >>> with shown():
    ...     scan = kp.sensitivity(model, (np.ones((8, 4)), np.ones((8, 1))), monitor="loss")
    """
    terminal = Console(stderr=True) if console is None else console
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with _DelayedBars(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        token = _SHOWN.set(None if progress.disable else progress)
        try:
            yield
        finally:
            _SHOWN.reset(token)


class _DelayedBars(Progress):
    def get_renderables(self):
        yield self.make_tasks_table([task for task in self.tasks if (task.elapsed or 0) > _DELAY_SECONDS])


@contextlib.contextmanager
def steps(description: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Context with one bar. Yields a function that advances it.

    Args:
        description: String.
        total: Integer, the number of steps. Defaults to `None`, unknown. The bar then only shows activity.

    Yields:
        A function of the number of steps that were done, by default 1, and of a new `description`, by default the same.
    """
    progress = _SHOWN.get()
    if progress is None:
        yield lambda count=1, description=None: None
        return
    task = progress.add_task(description, total=total)
    try:
        yield lambda count=1, description=None: progress.update(task, advance=count, description=description)
    finally:
        progress.refresh()  # Otherwise, a bar that ends between two refreshes would never look complete.
        progress.remove_task(task)


def track(items: Sequence, description: str) -> Iterator[Any]:
    """Yields the items of a sequence, with a bar that advances after each."""
    with steps(description, len(items)) as advance:
        for item in items:
            yield item
            advance()


def training_bar(description: str) -> list[keras.callbacks.Callback]:
    """Returns the callback that shows a bar of the batches of `fit`, or nothing outside of `shown`."""
    return [] if _SHOWN.get() is None else [_TrainingBar(description)]


class _TrainingBar(keras.callbacks.Callback):
    def __init__(self, description):
        super().__init__()
        self.description, self.bar = description, contextlib.ExitStack()

    def on_train_begin(self, logs=None):
        batches = self.params.get("steps")  # Unknown for a generator.
        total = batches and batches * self.params["epochs"]
        self.advance = self.bar.enter_context(steps(self.description, total))

    def on_train_batch_end(self, batch, logs=None):
        self.advance()

    def on_train_end(self, logs=None):
        self.bar.close()
