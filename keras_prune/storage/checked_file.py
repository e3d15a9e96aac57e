"""Write a file atomically, and verify its kind, version, length and checksum before it is read.

A checked file holds, with little-endian integers:

    magic "KPRUNE" and a zero byte (7 bytes), version (1), bytes of the header (4), bytes of the payload (8)
    header    zlib-compressed JSON
    payload
    checksum  SHA-256 of all bytes before it. It detects damage, but does not prove who wrote the file.
"""

import contextlib
import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

_MAGIC, _VERSION = b"KPRUNE\0", 2
_PREFIX = struct.Struct("<7sBIQ")
_CHECKSUM_BYTES = 32
_HEADER_LIMIT = 1 << 26  # zlib can expand a thousandfold, and the config of the largest networks takes a few MB.
_PIECE = 1 << 20


@contextlib.contextmanager
def atomic_write(filepath) -> Iterator[str]:
    """Yields the path of a new file that replaces `filepath` when the context ends without an error.

    The file is on the disk before it replaces the previous one. After an error, or if the process is killed, the
    previous file is unchanged. If `filepath` is a link, the file that it points to is replaced. Both paths have the
    same suffixes.

    Args:
        filepath: String or path object.
    """
    folder, name = os.path.split(os.path.realpath(filepath))
    unfinished = os.path.join(folder, f".{uuid.uuid4().hex}.{name}")
    try:
        yield unfinished
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, os.path.join(folder, name))
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise


def write_checked(filepath, header: dict[str, Any], payload: Iterable, payload_bytes: int) -> None:
    """Writes a checked file atomically.

    Args:
        filepath: String or path object.
        header: Dict of values that JSON can hold.
        payload: Iterable of bytes or contiguous arrays.
        payload_bytes: Integer, the total size of the payload.

    Raises:
        ValueError: If the payload has another size, or the header takes more than 64 MiB as JSON.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > _HEADER_LIMIT:
        raise ValueError(f"The header must take at most {_HEADER_LIMIT} bytes as JSON. Received: {len(text)} bytes")
    packed = zlib.compress(text, 9)
    checksum, written = hashlib.sha256(), 0
    with atomic_write(filepath) as unfinished, open(unfinished, "xb") as file:
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
    """

    def refusal(reason):
        return ValueError(f"Cannot read the file: {reason}. Received: filepath={os.fspath(filepath)!r}")

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
        if not _matches_checksum(file, size - _CHECKSUM_BYTES):
            raise refusal("its content does not match its checksum, so it was altered or damaged")
        file.seek(_PREFIX.size)
        try:
            inflate = zlib.decompressobj()
            text = inflate.decompress(file.read(header_bytes), _HEADER_LIMIT)
            if not inflate.eof:
                raise ValueError(f"it is truncated or takes more than {_HEADER_LIMIT} bytes")
            header = json.loads(text)
        except (zlib.error, ValueError, RecursionError) as error:
            raise refusal(f"its header is invalid: {error}") from error
        yield header, payload_bytes, file


def _matches_checksum(file, end):
    file.seek(0)
    checksum = hashlib.sha256()
    for start in range(0, end, _PIECE):
        checksum.update(file.read(min(_PIECE, end - start)))
    return checksum.digest() == file.read(_CHECKSUM_BYTES)
