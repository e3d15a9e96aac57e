import hashlib
import json
import os
import zlib

import numpy as np
import pytest

from keras_prune.storage import checked_file
from keras_prune.storage.checked_file import open_checked, write_checked


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


def test_header_and_payload_come_back(path):
    assert read(path) == ({"name": "fc1"}, b"abc\x01\x02")


def test_a_file_cut_at_any_length_is_refused(path):
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"file\.kprune"):
            read(path)


def test_a_file_with_any_bit_flipped_is_refused(path):
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"file\.kprune"):
                read(path)


def test_a_file_that_was_added_to_is_refused(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match="truncated or added to"):
        read(path)


def test_another_version_is_named(path):
    content = bytearray(path.read_bytes()[:-32])
    content[7] = 2
    path.write_bytes(with_checksum(bytes(content)))
    with pytest.raises(ValueError, match="format version 2, and this release reads version 1"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"K", b"\x89HDF\r\n\x1a\n" + bytes(100), bytes(1000)])
def test_a_file_of_another_kind_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="of another kind or cut off"):
        read(path)


@pytest.mark.parametrize("header", [b"", b"not zlib", zlib.compress(b"not JSON"), zlib.compress(b"[" * 100_000)])
def test_a_header_that_cannot_be_read_is_refused(path, header):
    path.write_bytes(with_checksum(checked_file._PREFIX.pack(b"KPRUNE\0", 1, len(header), 0) + header))
    with pytest.raises(ValueError, match="header of this one cannot be read"):
        read(path)


def test_a_header_is_not_expanded_beyond_its_limit(path, monkeypatch):
    monkeypatch.setattr(checked_file, "_HEADER_LIMIT", 1000)
    header = zlib.compress(json.dumps({"a": "b" * 1000}).encode())
    path.write_bytes(with_checksum(checked_file._PREFIX.pack(b"KPRUNE\0", 1, len(header), 0) + header))
    with pytest.raises(ValueError, match="beyond 1000 bytes"):
        read(path)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        write_checked(path, {"a": "b" * 1000}, [], 0)


def failing_payload():
    yield b"abc"
    raise KeyboardInterrupt


def test_a_failure_midway_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    old = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_checked(path, {}, failing_payload(), 5)
    with pytest.raises(ValueError, match="must not change"):
        write_checked(path, {}, [b"four"], 5)

    def no_space(descriptor):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_checked(path, {}, [b"12345"], 5)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_replaced_is_replaced_whole(path):
    write_checked(path, {"name": "fc2"}, [b"x"], 1)
    assert read(path) == ({"name": "fc2"}, b"x")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_stays_a_link(path):
    link = path.with_name("link")
    link.symlink_to(path)
    write_checked(link, {"name": "fc2"}, [], 0)
    assert link.is_symlink()
    assert read(path) == ({"name": "fc2"}, b"")


def test_a_missing_file_is_a_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError), open_checked(tmp_path / "none"):
        pass
