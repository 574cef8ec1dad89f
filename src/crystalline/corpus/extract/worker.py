"""The child process that reads files: gets jobs from its parent, sends texts back, and ends with it.

What a file can do here is little: it has so much memory and so much time, and Python code in this process opens no
connection, starts no program and writes no file except temporary ones.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO, cast

from crystalline.corpus.extract import containers, formats
from crystalline.corpus.extract.item import Item, Unreadable, why
from crystalline.corpus.extract.protocol import (
    BEGIN,
    DONE,
    EXTRACTED,
    HELLO,
    SKIPPED,
    TEXT,
    receive,
    send,
)
from crystalline.settings import Extract

PIECE = 1 << 18  # characters of text in a frame

# Events of Python's audit hooks by which code could reach out of this process.
_OUTWARD = (
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.exec", "os.posix_spawn"),
    *("os.system", "os.fork", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
)


def main() -> None:
    """Serve until the parent closes our input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    jobs, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)  # what libraries print is not for our parent
    sys.setrecursionlimit(5_000)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    tempfile.gettempdir()  # found now: it is tried out by writing
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)
    send(answers, HELLO)
    while True:
        try:
            _, payload = receive(jobs)
            job = json.loads(payload)
            file = _open(job, jobs)
            _serve(job, file, answers)
        except (EOFError, BrokenPipeError):
            return


def beat() -> None:
    """Begin the time of a file, or of one of its pages, anew. Whoever uses it up is killed, also inside of C.

    It is processor time, so a busy machine changes nothing; ten times of it for what waits without computing.
    """
    signal.setitimer(signal.ITIMER_PROF, _seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * _seconds)


_seconds = 0.0


def _open(job: dict[str, Any], jobs: BinaryIO) -> BinaryIO | OSError:
    if job["path"] is None:
        return BytesIO(receive(jobs)[1])
    try:
        return open(job["path"].encode("utf-8", "surrogateescape"), "rb")
    except OSError as error:
        return error


def _serve(job: dict[str, Any], file: BinaryIO | OSError, answers: BinaryIO) -> None:
    global _seconds
    settings = Extract(**job["settings"])
    _seconds = settings.seconds
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    memory = settings.memory_mb * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))
    beat()
    if isinstance(file, OSError):
        _skip(answers, job["source"], "unreadable", file.strerror or "")
    else:
        item = Item(job["source"], file, job["media_type"], job["encoding"], job["format"])
        with file:
            for number, found in enumerate(_files(item, settings)):
                if number >= job["first"]:
                    _answer(found, settings, answers)
                beat()
    for clock in (signal.ITIMER_PROF, signal.ITIMER_REAL):
        signal.setitimer(clock, 0)
    send(answers, DONE)


def _files(item: Item, settings: Extract) -> Iterator[Item | tuple[str, str, str]]:
    """The files in an item, or itself, and what was left out; a failure to unpack ends it."""
    try:
        yield from containers.files(item, settings)
    except Exception as error:
        yield (item.source, *why(error))


def _answer(found: Item | tuple[str, str, str], settings: Extract, answers: BinaryIO) -> None:
    if isinstance(found, tuple):
        _skip(answers, *found)
        return
    send(answers, BEGIN, found.source.encode("utf-8", "replace"))
    try:
        text = formats.read(found, settings)
        empty = True
        for piece in text.pieces:
            for start in range(0, len(piece), PIECE):
                part = piece[start : start + PIECE].encode("utf-8", "replace")  # half characters (surrogates): "?"
                empty = empty and not part.strip()
                send(answers, TEXT, part)
        if empty:
            raise Unreadable("no text")
    except Exception as error:  # a broken file makes a parser raise anything
        _skip(answers, found.source, *why(error))
        return
    told = {"source": found.source, "kind": text.kind, "metadata": {"format": found.format, **text.metadata}}
    send(answers, EXTRACTED, json.dumps(told).encode())


def _skip(answers: BinaryIO, source: str, reason: str, detail: str) -> None:
    send(answers, SKIPPED, json.dumps({"source": source, "reason": reason, "detail": detail}).encode())


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(_OUTWARD):
        raise PermissionError(f"{event} is not allowed while files are read")
    if event in ("open", "os.remove"):
        path, flags = arguments[0], arguments[2] if event == "open" else os.O_WRONLY
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
        if writes and not isinstance(path, int) and not _is_temporary(os.fsdecode(path)):
            raise PermissionError(f"{event} of {path!r} is not allowed while files are read")


def _is_temporary(path: str) -> bool:
    folder = tempfile.gettempdir()
    return os.path.normpath(path) == folder or os.path.normpath(path).startswith(folder + os.sep)


if __name__ == "__main__":
    # Run as a program, this module is called __main__; readers call beat() in the one that they import.
    from crystalline.corpus.extract import worker

    cast(Any, worker).main()
