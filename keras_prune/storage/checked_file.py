"""Write a file atomically, and verify its kind, version, length and checksum before it is read.

A checked file holds, with little-endian integers:

    magic "KPRUNE" and a zero byte (7 bytes), version (1), bytes of the header (4), bytes of the payload (8)
    header    zlib-compressed JSON
    payload
    checksum  SHA-256 of all bytes before it. It detects damage, but does not prove who wrote the file.
"""

import contextlib
import contextvars
import hashlib
import json
import os
import shutil
import struct
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from keras_prune._arguments import require_path

UNFINISHED = ".keras_prune_"  # Prefix of files and folders that are not in place yet.
# A running process changes its files more often, even if the clock of a network drive is hours off.
_ABANDONED_SECONDS = 24 * 3600
_MAGIC, _VERSION = b"KPRUNE\0", 2
_PREFIX = struct.Struct("<7sBIQ")
_CHECKSUM_BYTES = 32
# The configs of large networks take under 1 MB and shrink 50-fold, but zlib can shrink a header a thousandfold, and
# JSON takes up to 40 times its size in Python.
_HEADER_LIMIT, _SMALL_HEADER, _HEADER_EXPANSION = 1 << 26, 1 << 20, 200
_PIECE = 1 << 20
_WRITING: contextvars.ContextVar["Writing | None"] = contextvars.ContextVar("writing", default=None)


class Writing:
    """Files and folders that are written within `watch_writing`.

    Attributes:
        unfinished: Set of the paths of temporary files and folders.
        finished: List of the requested paths that are complete, as strings.
    """

    def __init__(self):
        self.unfinished: set[str] = set()
        self.finished: list[str] = []


@contextlib.contextmanager
def watch_writing() -> Iterator[Writing]:
    """Context that yields a `Writing`, which lists the files that are written in it."""
    token = _WRITING.set(writing := Writing())
    try:
        yield writing
    finally:
        _WRITING.reset(token)


@contextlib.contextmanager
def unfinished_until_end(temporary, filepath) -> Iterator[None]:
    """Context in which `temporary` is written. If it ends without an error, `filepath` is complete."""
    writing = _WRITING.get() or Writing()
    writing.unfinished.add(temporary)
    try:
        yield
        writing.finished.append(os.fspath(filepath))
    finally:
        writing.unfinished.discard(temporary)


def remove_abandoned(folder) -> None:
    """Removes unfinished files and folders of killed processes from a folder.

    Their names begin with `UNFINISHED`, and nothing in them changed within the last day. Files of running processes
    stay, and so do files that cannot be removed.

    Args:
        folder: String or path object. It need not exist.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if entry.name.startswith(UNFINISHED)]:
            with contextlib.suppress(OSError):
                inside = [os.path.join(root, name) for root, _, names in os.walk(entry.path) for name in names]
                changed = max(os.lstat(path).st_mtime for path in [entry.path, *inside])
                if time.time() - changed > _ABANDONED_SECONDS:
                    remove = shutil.rmtree if entry.is_dir(follow_symlinks=False) else os.remove
                    remove(entry.path)


@contextlib.contextmanager
def atomic_write(filepath) -> Iterator[str]:
    """Yields the path of a new, empty file that replaces `filepath` when the context ends without an error.

    The file is on the disk before it replaces the previous one. After an error, or if the process is killed, the
    previous file is unchanged. If `filepath` is a link, the file that it points to is replaced. Both paths have the
    same suffixes. Files that killed processes left in the folder are removed, see `remove_abandoned`.

    Args:
        filepath: String or path object.

    Raises:
        ValueError: If `filepath` is not a path.
        OSError: If the file cannot be written, such as in a folder that does not exist. It names `filepath`.
    """
    require_path("filepath", filepath)
    target = os.path.realpath(filepath)
    folder, name = os.path.split(target)
    unfinished = os.path.join(folder, f"{UNFINISHED}{uuid.uuid4().hex}.{name}")
    remove_abandoned(folder)
    try:
        with unfinished_until_end(unfinished, filepath):
            open(unfinished, "xb").close()  # If the folder is missing, this fails before any work is done.
            yield unfinished
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        if isinstance(error, OSError) and error.filename == unfinished:
            raise type(error)(error.errno, error.strerror, os.fspath(filepath)) from error
        raise


def write_checked(filepath, header: dict[str, Any], payload: Iterable, payload_bytes: int) -> None:
    """Writes a checked file atomically.

    Args:
        filepath: String or path object.
        header: Dict of JSON types.
        payload: Iterable of bytes or contiguous arrays.
        payload_bytes: Integer, the total size of the payload.

    Raises:
        ValueError: If the payload has another size, or the header takes more than 64 MiB as JSON.
        OSError: If the file cannot be written.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > _HEADER_LIMIT:
        raise ValueError(f"The header must take at most {_HEADER_LIMIT} bytes as JSON. Received: {len(text)} bytes")
    packed = zlib.compress(text, 9)
    if len(text) > _header_limit(len(packed)):
        packed = zlib.compress(text, 0)
    checksum, written = hashlib.sha256(), 0
    with atomic_write(filepath) as unfinished, open(unfinished, "wb") as file:
        for piece in (_PREFIX.pack(_MAGIC, _VERSION, len(packed), payload_bytes), packed):
            file.write(piece)
            checksum.update(piece)
        for piece in payload:
            written += file.write(piece)
            checksum.update(piece)
        if written != payload_bytes:
            raise ValueError(
                f"The model was modified while it was being saved. Received: {written} bytes instead of {payload_bytes}"
            )
        file.write(checksum.digest())


@contextlib.contextmanager
def open_checked(filepath) -> Iterator[tuple[dict[str, Any], int, BinaryIO]]:
    """Opens a checked file after verifying its kind, version, length and checksum.

    Args:
        filepath: String or path object.

    Yields:
        The header, the number of bytes of the payload, and the open file at the start of the payload.

    Raises:
        ValueError: If the verification fails.
        OSError: If the file cannot be opened.
    """

    def refusal(reason):
        return ValueError(f"Cannot read the file: {reason}. Received: filepath={os.fspath(filepath)!r}")

    require_path("filepath", filepath)
    with open(filepath, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(_PREFIX.size)
        least = _PREFIX.size + _CHECKSUM_BYTES
        if not prefix.startswith(_MAGIC) or size < least:
            raise refusal(f"it was not written by `save_sparse`, or is truncated to less than {least} bytes")
        _, version, header_bytes, payload_bytes = _PREFIX.unpack(prefix)
        if version != _VERSION:
            raise refusal(f"it has format version {version}, and this release reads version {_VERSION}")
        expected = least + header_bytes + payload_bytes
        if size != expected:
            raise refusal(f"it has {size} bytes instead of {expected}, so it was truncated or extended")
        if _checksum(file, size - _CHECKSUM_BYTES) != file.read():
            raise refusal("its content does not match its checksum, so it was altered or damaged")
        file.seek(_PREFIX.size)
        try:
            inflate = zlib.decompressobj()
            limit = _header_limit(header_bytes)
            text = inflate.decompress(file.read(header_bytes), limit)
            if not inflate.eof:
                raise ValueError(f"it is truncated or takes more than {limit} bytes")
            header = json.loads(text)
        except (zlib.error, ValueError, RecursionError) as error:
            raise refusal(f"its header is invalid: {error}") from error
        yield header, payload_bytes, file


def _header_limit(packed_bytes):
    return min(_HEADER_LIMIT, max(_SMALL_HEADER, _HEADER_EXPANSION * packed_bytes))


def add_checksum(filepath) -> None:
    """Appends its SHA-256 to a file. Readers of HDF5 and zip files, which have no such check, ignore it."""
    with open(filepath, "rb+") as file:
        checksum = _checksum(file, os.fstat(file.fileno()).st_size)
        file.seek(0, os.SEEK_END)
        file.write(checksum)


def verify_checksum(filepath) -> None:
    """Raises a `ValueError` if a file was altered after `add_checksum`."""
    with open(filepath, "rb") as file:
        end = max(0, os.fstat(file.fileno()).st_size - _CHECKSUM_BYTES)
        if _checksum(file, end) != file.read():
            raise ValueError("its content does not match its checksum, so it was altered or damaged")


def _checksum(file, end):
    """Returns the checksum of the bytes before `end`, and leaves the file at that position."""
    file.seek(0)
    checksum = hashlib.sha256()
    for start in range(0, end, _PIECE):
        checksum.update(file.read(min(_PIECE, end - start)))
    return checksum.digest()
