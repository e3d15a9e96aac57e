import io
import itertools
import sys

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW
from rich.console import Console

import keras_prune as kp
from keras_prune.terminal.progress import shown, steps, track, training_bar


@pytest.fixture
def terminal():
    """A terminal that keeps what it shows, and whose clock advances by a second at each look."""
    return Console(file=io.StringIO(), force_terminal=True, width=80, get_time=itertools.count().__next__)


def test_bars_show_after_two_seconds():
    now = [0.0]
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, get_time=lambda: now[0])
    with shown(terminal):
        with steps("quick", 4) as advance:
            now[0] = 1.9
            advance()
        with steps("slow", 4) as advance:
            advance()
            now[0] = 4.0
    assert "quick" not in terminal.file.getvalue()
    assert "slow" in terminal.file.getvalue()


def test_bars_show_on_a_terminal(terminal):
    with shown(terminal), steps("first", 4) as advance:
        advance(2, "second [b]")
        advance()
    assert "second [b]" in terminal.file.getvalue()
    assert "75%" in terminal.file.getvalue()


def test_bars_are_silent_elsewhere(capsys):
    file = Console(file=io.StringIO())
    with shown(file):
        assert list(track([1, 2], "items")) == [1, 2]
        assert training_bar("training") == []
    assert list(track([1, 2], "items")) == [1, 2]
    assert file.file.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_bars_end_with_their_context(terminal):
    with pytest.raises(KeyError), shown(terminal), steps("first"):
        raise KeyError
    shown_before = terminal.file.getvalue()
    with steps("second"):
        pass
    assert terminal.file.getvalue() == shown_before


def test_prints_appear_above_the_bars(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    with shown(terminal), steps("first"):
        print("a line of a library")
    assert "a line of a library" in terminal.file.getvalue()


def test_sensitivity_and_training_show_bars(terminal):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="fc")])
    model.compile("sgd", "mse", run_eagerly=TENSORFLOW)
    x, y, seen = np.ones((8, 4)), np.ones((8, 1)), []
    with shown(terminal):
        kp.sensitivity(model, (x, y), [kp.TargetSparsity(0.5)], "loss")
        (bar,) = training_bar("retraining")
        advance = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: count_calls(bar, seen))
        model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[bar, advance])
    sensitivity, _, retraining = terminal.file.getvalue().partition("retraining")
    assert "sensitivity of fc" in sensitivity
    assert "100%" in sensitivity
    assert "100%" in retraining
    assert len(seen) == 4


def count_calls(bar, seen):
    advance = bar.advance
    bar.advance = lambda: (seen.append(1), advance())
