import hashlib
import json
import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

from keras_prune.storage import checked_file
from keras_prune.storage.checked_file import atomic_write, open_checked, watch_writing, write_checked


def read(path):
    with open_checked(path) as (header, payload_bytes, file):
        return header, file.read(payload_bytes)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.kprune"
    write_checked(path, {"name": "fc1"}, [b"abc", np.array([1, 2], "uint8")], 5)
    return path


def with_checksum(content):
    return content + hashlib.sha256(content).digest()


def test_open_checked_returns_header_and_payload(path):
    assert read(path) == ({"name": "fc1"}, b"abc\x01\x02")


def test_open_checked_rejects_truncation_at_any_byte(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"file\.kprune"):
            read(path)


def test_open_checked_rejects_any_flipped_bit(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"file\.kprune"):
                read(path)


def test_open_checked_rejects_an_extended_file(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="truncated or extended"):
        read(path)


def test_open_checked_names_another_version(path):
    content = bytearray(path.read_bytes()[:-32])
    content[7] = 1
    path.write_bytes(with_checksum(bytes(content)))
    with pytest.raises(ValueError, match="format version 1, and this release reads version 2"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"K", b"\x89HDF\r\n\x1a\n" + bytes(100), bytes(1000)])
def test_open_checked_rejects_another_kind_of_file(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not written by `save_sparse`, or is truncated"):
        read(path)


@pytest.mark.parametrize("header", [b"", b"not zlib", zlib.compress(b"not JSON"), zlib.compress(b"[" * 100_000)])
def test_open_checked_rejects_an_invalid_header(path, header):
    path.write_bytes(with_checksum(checked_file._PREFIX.pack(b"KPRUNE\0", 2, len(header), 0) + header))
    with pytest.raises(ValueError, match="its header is invalid"):
        read(path)


def test_open_checked_limits_the_size_of_the_header(path, monkeypatch):
    monkeypatch.setattr(checked_file, "_HEADER_LIMIT", 1000)
    header = zlib.compress(json.dumps({"a": "b" * 1000}).encode())
    path.write_bytes(with_checksum(checked_file._PREFIX.pack(b"KPRUNE\0", 2, len(header), 0) + header))
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read(path)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        write_checked(path, {"a": "b" * 1000}, [], 0)


def failing_payload():
    yield b"abc"
    raise KeyboardInterrupt


def test_write_checked_keeps_the_old_file_if_it_fails(path, monkeypatch):
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_checked(path, {}, failing_payload(), 5)
    with pytest.raises(ValueError, match="modified while it was being saved"):
        write_checked(path, {}, [b"four"], 5)

    def no_space(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_checked(path, {}, [b"12345"], 5)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_keeps_suffixes_and_the_old_file(tmp_path):
    path = tmp_path / "model.weights.h5"
    path.write_text("old")
    with atomic_write(path) as unfinished:
        assert Path(unfinished).name.startswith(checked_file.UNFINISHED)
        assert unfinished.endswith(".model.weights.h5")
        Path(unfinished).write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def age(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2, follow_symlinks=False)


def test_atomic_write_removes_files_of_killed_processes(path):
    with atomic_write(path) as unfinished:
        left = path.parent / Path(unfinished).name
    folder = path.parent / ".keras_prune_export_x"
    (folder / "inner").mkdir(parents=True)
    inside, outside, link = folder / "inner" / "file", path.parent / ".other", path.parent / ".keras_prune_link"
    link.symlink_to(path)
    for one in (left, inside, outside):
        one.write_text("content")
    for one in (left, inside, inside.parent, folder, outside, link):
        age(one, 25 * 3600)
    age(inside, 23 * 3600)  # Another process still writes it.
    write_checked(path, {}, [], 0)
    assert sorted(path.parent.iterdir()) == sorted([path, folder, outside])
    age(inside, 25 * 3600)
    write_checked(path, {}, [], 0)
    assert sorted(path.parent.iterdir()) == sorted([path, outside])


@pytest.mark.parametrize(("name", "error"), [("none/a.kprune", FileNotFoundError), ("folder", IsADirectoryError)])
def test_errors_of_atomic_write_name_the_path_of_the_user(name, error, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(error) as raised:
        write_checked(tmp_path / name, {}, [b"x"], 1)
    assert str(raised.value).endswith(f": {str(tmp_path / name)!r}")
    assert [file.name for file in tmp_path.rglob("*")] == ["folder"]


def test_write_checked_replaces_the_whole_file(path):
    write_checked(path, {"name": "fc2"}, [b"x"], 1)
    assert read(path) == ({"name": "fc2"}, b"x")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_write_checked_replaces_the_target_of_a_link(path):
    link = path.with_name("link")
    link.symlink_to(path)
    write_checked(link, {"name": "fc2"}, [], 0)
    assert link.is_symlink()
    assert read(path) == ({"name": "fc2"}, b"")


def test_open_checked_raises_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError), open_checked(tmp_path / "none"):
        pass


def test_watch_writing_follows_files(tmp_path):
    with watch_writing() as writing:
        with atomic_write(tmp_path / "whole") as unfinished:
            assert writing.unfinished == {unfinished}
        with pytest.raises(KeyError), atomic_write(tmp_path / "failed"):
            raise KeyError
    assert (writing.unfinished, writing.finished) == (set(), [str(tmp_path / "whole")])
    with atomic_write(tmp_path / "later"):
        pass
    assert len(writing.finished) == 1
