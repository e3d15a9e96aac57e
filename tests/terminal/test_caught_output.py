import os
import subprocess
import sys

import pytest

from keras_prune.terminal.caught_output import caught_output


def test_caught_output_is_dropped(capfd):
    os.write(1, b"before")
    with caught_output():
        os.write(1, b"within")
        os.write(2, b"within")
    os.write(1, b"after")
    assert capfd.readouterr() == ("beforeafter", "")


def test_caught_output_is_shown_at_a_log_level_of_the_user(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with caught_output():
        os.write(2, b"a last message")
    assert capfd.readouterr() == ("", "a last message")


def test_caught_output_of_a_failure_is_a_note(capfd):
    with pytest.raises(FileNotFoundError) as failure, caught_output():
        os.stat(f"missing {os.write(2, b'the reason')}")
    assert failure.value.__notes__ == ["the reason"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("closed", ["", "os.close(1); os.close(2)", "sys.stdout = sys.stderr = None"])
def test_caught_output_works_with_any_streams(closed):
    code = (
        f"import os, sys\n{closed}\n"
        "from keras_prune.terminal.caught_output import caught_output\n"
        "with caught_output(): print('within'); print('within', file=sys.stderr)\n"
        "print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or closed.startswith("os.close")  # Python cannot flush what is closed.
    assert (done.stdout, done.stderr) == ("" if closed else "after\n", "")


def test_caught_output_leaves_loggers_the_streams():
    code = (
        "import logging\n"
        "from keras_prune.terminal.caught_output import caught_output\n"
        "with caught_output(): logging.basicConfig(format='%(message)s')\n"
        "logging.warning('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "after\n"
