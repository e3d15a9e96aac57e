"""One file of a header, a payload and a checksum: written whole or not at all, verified before it is read.

Integers are little-endian:

    magic "KPRUNE" and a zero byte (7 bytes), version (1), bytes of the header (4), bytes of the payload (8)
    header    zlib-compressed JSON
    payload
    checksum  SHA-256 of everything before it: it tells damage, it does not prove who wrote the file
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

_MAGIC, _VERSION = b"KPRUNE\0", 1
_PREFIX = struct.Struct("<7sBIQ")
_CHECKSUM_BYTES = 32
_HEADER_LIMIT = 1 << 26  # zlib can expand a thousandfold, and the config of the largest networks takes a few MB.
_PIECE = 1 << 20


def write_checked(path, header: dict[str, Any], payload: Iterable, payload_bytes: int) -> None:
    """Writes a file under another name, and puts it in its place once all of it is on the disk.

    Whatever `path` held before is still there if anything fails; where it is a link, the link stays.

    Args:
        path: String or path object.
        header: Dict that JSON can hold.
        payload: Iterable of bytes or contiguous arrays.
        payload_bytes: Integer, what the payload will take.

    Raises:
        ValueError: If the payload turns out to be of another length, or the header is beyond 64 MiB.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    if len(text) > _HEADER_LIMIT:
        raise ValueError(f"The header must take at most {_HEADER_LIMIT} bytes as JSON. Received: {len(text)} bytes")
    packed = zlib.compress(text, 9)
    path = os.path.realpath(path)
    unfinished = f"{path}.{uuid.uuid4().hex}.tmp"
    checksum = hashlib.sha256()
    try:
        with open(unfinished, "xb") as file:

            def write(piece):
                file.write(piece)
                checksum.update(piece)

            write(_PREFIX.pack(_MAGIC, _VERSION, len(packed), payload_bytes))
            write(packed)
            start = file.tell()
            for piece in payload:
                write(piece)
            if file.tell() - start != payload_bytes:
                raise ValueError(
                    f"What is written must not change meanwhile. Received: {file.tell() - start} bytes instead of "
                    f"{payload_bytes}"
                )
            file.write(checksum.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(unfinished)
        raise


@contextlib.contextmanager
def open_checked(path) -> Iterator[tuple[dict[str, Any], int, BinaryIO]]:
    """Opens a file after verifying its kind, version, length and checksum.

    Args:
        path: String or path object.

    Yields:
        The header, the number of bytes of the payload, and the open file at the payload's start.

    Raises:
        ValueError: If any of these is not as it should be.
    """

    def refuse(reason):
        return ValueError(
            f"Expected an undamaged file that keras_prune wrote; {reason}. Received: path={os.fspath(path)!r}"
        )

    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(_PREFIX.size)
        least = _PREFIX.size + _CHECKSUM_BYTES
        if not prefix.startswith(_MAGIC) or size < least:
            raise refuse(f"this one is of another kind or cut off within its first {least} bytes")
        _, version, header_bytes, payload_bytes = _PREFIX.unpack(prefix)
        if version != _VERSION:
            raise refuse(f"this one is of format version {version}, and this release reads version {_VERSION} only")
        if size != least + header_bytes + payload_bytes:
            raise refuse(
                f"this one is {size} bytes long and should be {least + header_bytes + payload_bytes}: it was "
                "truncated or added to"
            )
        if not _matches_checksum(file, size - _CHECKSUM_BYTES):
            raise refuse("the content of this one does not match its checksum: it was altered or damaged")
        file.seek(_PREFIX.size)
        try:
            inflate = zlib.decompressobj()
            text = inflate.decompress(file.read(header_bytes), _HEADER_LIMIT)
            if not inflate.eof:
                raise ValueError(f"it is cut off or beyond {_HEADER_LIMIT} bytes")
            header = json.loads(text)
        except (zlib.error, ValueError, RecursionError) as error:
            raise refuse(f"the header of this one cannot be read: {error}") from error
        yield header, payload_bytes, file


def _matches_checksum(file, end):
    file.seek(0)
    checksum = hashlib.sha256()
    for start in range(0, end, _PIECE):
        checksum.update(file.read(min(_PIECE, end - start)))
    return checksum.digest() == file.read(_CHECKSUM_BYTES)
