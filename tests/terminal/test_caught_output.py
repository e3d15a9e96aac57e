import os
import subprocess
import sys

import pytest

from keras_prune.terminal.caught_output import caught_output


def write_everywhere():
    os.write(1, b"descriptor 1\n")
    os.write(2, b"descriptor 2\n")
    print("standard output")
    print("standard error", file=sys.stderr)


def test_caught_output_is_dropped(capfd):
    print("before")
    with caught_output():
        write_everywhere()
    print("after")
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_caught_output_of_a_failure_is_a_note(capfd):
    with pytest.raises(FileNotFoundError) as failure, caught_output():
        os.stat(write_everywhere() or "missing")
    (note,) = failure.value.__notes__
    assert sorted(note.splitlines()) == ["descriptor 1", "descriptor 2", "standard error", "standard output"]
    assert capfd.readouterr() == ("", "")


def test_caught_output_works_without_a_terminal():
    code = (
        "import os; os.close(1); os.close(2)\n"
        "from keras_prune.terminal.caught_output import caught_output\n"
        "with caught_output(): print(3)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
