"""How the process that asks for texts and its child, which reads files, speak: in frames of a letter and bytes.

To the child: JOB (JSON), then DATA when the file is in memory. From the child, after HELLO at its start, for a job:
BEGIN (the source of a file that is now read), TEXT in pieces, then EXTRACTED or SKIPPED (JSON) for it; SKIPPED
without BEGIN for what is not read at all; DONE at the end.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

JOB, DATA = b"J", b"D"
HELLO, BEGIN, TEXT, EXTRACTED, SKIPPED, DONE = b"H", b"B", b"T", b"E", b"S", b"F"

_HEADER = struct.Struct("<cQ")


def send(stream: BinaryIO, letter: bytes, payload: bytes = b"") -> None:
    """Write a frame and see that it leaves. Raises OSError when the other side is gone."""
    stream.write(_HEADER.pack(letter, len(payload)))
    stream.write(payload)
    stream.flush()


def receive(stream: BinaryIO) -> tuple[bytes, bytes]:
    """The next frame: letter and payload. Raises EOFError when the other side is gone."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    letter, length = _HEADER.unpack(header)
    payload = stream.read(length)
    if len(payload) < length:
        raise EOFError
    return letter, payload
