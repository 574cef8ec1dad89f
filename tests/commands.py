"""`cllm` as a process of its own that can be killed, without paying for the import of torch each time.

A server process (the standard library's "forkserver") imports the package once; every command is a fork of it with
its own signals, output and exit code, as if it had been typed.
"""

import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["crystalline.pipeline.runner", "crystalline.model.generation"])


@dataclass
class Result:
    """How a command ended. code: its exit code, or minus the number of the signal that killed it."""

    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


class Command:
    """A running `cllm ARGUMENTS`.

    before: a function called in the process before the command starts, to make trouble for it.
    output: a file descriptor to use as standard output, instead of keeping it for the result.
    terminal: a file descriptor of a terminal, to use as standard output and standard error.
    """

    def __init__(self, *arguments, folder, before=None, output=None, terminal=None):
        self._files = [folder / f"command-{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        words = [str(word) for word in arguments]
        given = {1: output if terminal is None else terminal, 2: terminal}
        given = {to: multiprocessing.reduction.DupFd(fd) for to, fd in given.items() if fd is not None}
        environment = dict(os.environ)
        process = _context.Process(target=_run, args=(words, self._files, environment, os.getcwd(), before, given))
        process.start()
        self.process, self.pid = process, process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill(signal.SIGKILL)
        self.process.join()

    @property
    def said(self):
        """Its standard output so far."""
        return self._files[0].read_text("utf-8") if self._files[0].exists() else ""

    @property
    def complained(self):
        """Its standard error so far."""
        return self._files[1].read_text("utf-8") if self._files[1].exists() else ""

    def kill(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, seconds=60):
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running after {seconds} s"
        out, err = (file.read_text("utf-8") if file.exists() else "" for file in self._files)
        return Result(self.process.exitcode, out, err)


def wait_for(condition, seconds=60):
    """Wait until `condition()` is true, looking every millisecond."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.001)


def last_step(run):
    """The last optimizer step that the run's events speak of."""
    events = Path(run) / "events.jsonl"
    lines = events.read_bytes().splitlines() if events.exists() else []
    steps = [json.loads(line)["step"] for line in lines if b'"training.step"' in line and line.endswith(b"}")]
    return steps[-1] if steps else 0


def _run(words, files, environment, folder, before, given):
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    for descriptor, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    for descriptor, output in given.items():
        os.dup2(output.detach(), descriptor)
    sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(open(2, "wb", buffering=0, closefd=False), encoding="utf-8", write_through=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if before is not None:
        before()
    from crystalline.cli.main import main

    sys.exit(main(words))
