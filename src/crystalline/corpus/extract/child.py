"""The child process that reads files, as its parent sees it: started when it is first needed, kept for the next
file, and started again when a file has made it die.

A file that takes too long is ended by the system itself (worker.py sets an alarm that kills), so a parser that never
comes back from C holds up nothing. What died is known from what the child said last: it was reading a certain
member of an archive, and goes on after it; or it was unpacking, and the rest of the archive is given up.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from crystalline.corpus.decoding import pieces
from crystalline.corpus.extract.item import Extracted, Raw
from crystalline.corpus.extract.protocol import (
    BEGIN,
    DATA,
    DONE,
    HELLO,
    JOB,
    SKIPPED,
    TEXT,
    receive,
    send,
)
from crystalline.corpus.files import Skipped
from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.settings import Extract

IN_MEMORY = 4 << 20  # bytes of a text; a longer one waits in a temporary file until it is whole

_TOO_SLOW = (signal.SIGPROF, signal.SIGALRM, signal.SIGXCPU)


class _Died(Exception):
    """The child is gone. reason, detail: as in Skipped."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class _Child:
    """One child process."""

    def __init__(self) -> None:
        path = os.pathsep.join(part for part in sys.path if part)
        environment = {**os.environ, "PYTHONPATH": path, "OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1"}
        self.owner = os.getpid()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crystalline.corpus.extract.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.to, self.back = cast(BinaryIO, self.process.stdin), cast(BinaryIO, self.process.stdout)
        try:
            letter, _ = receive(self.back)
        except EOFError:
            letter = b""
        if letter != HELLO:
            raise UserError(
                "could not read files",
                f"the process that reads them did not start (exit code {self.process.wait()})",
                "run cllm doctor, which says what is missing",
                EXIT_SYSTEM,
            )

    def ask(self, job: dict[str, Any], data: bytes | None) -> None:
        """Give it a job. Raises _Died."""
        try:
            send(self.to, JOB, json.dumps(job).encode())
            if data is not None:
                send(self.to, DATA, data)
        except OSError:
            raise self.death() from None

    def hear(self) -> tuple[bytes, bytes]:
        """What it says next. Raises _Died."""
        try:
            return receive(self.back)
        except (EOFError, OSError):
            raise self.death() from None

    def death(self) -> _Died:
        """Why it is gone."""
        code = self.process.wait()
        if -code in _TOO_SLOW:
            return _Died("too slow", "took longer than extract.seconds")
        if code == -signal.SIGKILL:
            return _Died("too much memory", "its reader was killed, as a rule because memory had run out")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _Died("broken", f"its reader broke down ({name})")

    def close(self) -> None:
        """End it, whatever it does."""
        if self.owner == os.getpid():  # not that of the process that this one was forked from
            self.process.kill()
            self.process.wait()
            for stream in (self.to, self.back):
                with contextlib.suppress(OSError):
                    stream.close()


_idle: list[_Child] = []  # one at most


def extract(raw: Raw, format: str, settings: Extract) -> Iterator[Extracted | Skipped]:
    """As extraction.extract, in a child."""
    job = {
        "source": raw.source,
        "path": os.fsencode(raw.path).decode("utf-8", "surrogateescape") if raw.path is not None else None,
        "media_type": raw.media_type,
        "encoding": raw.encoding,
        "format": format,
        "settings": settings.model_dump(),
    }
    done = 0  # files that are behind us
    while True:
        child, reading, text = _take(), "", _spool()
        try:
            child.ask({**job, "first": done}, raw.data if raw.path is None else None)
            while True:
                letter, payload = child.hear()
                if letter == BEGIN:
                    reading = payload.decode()
                elif letter == TEXT:
                    text.write(payload)
                elif letter == DONE:
                    _give_back(child)
                    return
                else:
                    result = _result(letter, json.loads(payload), text)
                    reading, text, done = "", _spool(), done + 1
                    yield result
        except _Died as death:
            yield Skipped(reading or raw.source, death.reason, detail=death.detail)
            if not reading:  # it died while it was unpacking
                return
            done += 1
        finally:
            if child not in _idle:
                child.close()  # it is dead; or the caller has enough, and it would still speak


def close() -> None:
    """End the children of this process that wait. The next file starts another."""
    while _idle:
        _idle.pop().close()


def _take() -> _Child:
    while _idle:
        child = _idle.pop()
        if child.owner == os.getpid():  # not that of the process that this one was forked from
            return child
    return _Child()


def _give_back(child: _Child) -> None:
    if not _idle:
        _idle.append(child)


def _spool() -> BinaryIO:
    return cast(BinaryIO, SpooledTemporaryFile(max_size=IN_MEMORY))


def _result(letter: bytes, told: dict[str, Any], text: BinaryIO) -> Extracted | Skipped:
    if letter == SKIPPED:
        text.close()
        return Skipped(told["source"], told["reason"], detail=told["detail"])
    return Extracted(told["source"], _pieces(text), told["kind"], told["metadata"])


def _pieces(text: BinaryIO) -> Iterator[str]:
    with text:
        yield from pieces(text, "utf-8")


atexit.register(close)
