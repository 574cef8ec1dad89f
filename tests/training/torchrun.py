"""torchrun as a process of its own, with `cllm` as what it starts."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from commands import wait_for

IN_ONE_PLACE = ("--standalone",)


def at(host, port, node, nodes):
    """Options for one of several machines; the first has the address `host`."""
    return (f"--nnodes={nodes}", f"--node-rank={node}", f"--master-addr={host}", f"--master-port={port}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Torchrun:
    """`torchrun OPTIONS -m crystalline run ...`, in `folder`, its output in files there.

    prefix: words before the command. environment: variables over those of the test.
    """

    def __init__(self, *words, folder, options=IN_ONE_PLACE, ranks=2, prefix=(), environment=None):
        command = [*prefix, sys.executable, "-m", "torch.distributed.run", *options, f"--nproc-per-node={ranks}"]
        self._output = folder / f"torchrun-{time.monotonic_ns()}.txt"
        self.ranks_here = ranks
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                [*command, "-m", "crystalline", *(str(word) for word in words)], cwd=folder, stdout=output,
                stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            )  # fmt: skip
        self.seen = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.look():
            kill(pid, signal.SIGKILL)
        kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def ranks(self):
        """Process ids in the order of ranks; waits until all are there."""

        def found():
            return {rank_of(pid): pid for pid in children(self.process.pid) if rank_of(pid) is not None}

        wait_for(lambda: len(found()) == self.ranks_here)
        return [pid for _, pid in sorted(found().items())]

    def look(self):
        """All processes of the ranks that were ever seen."""
        for rank in children(self.process.pid):
            self.seen |= {rank, *children(rank)}
        return self.seen

    def wait(self, seconds=300):
        """(exit code, output). Nothing that was seen may still be there."""
        code = self.process.wait(seconds)
        wait_for(lambda: not any(alive(pid) for pid in self.seen))
        return code, self._output.read_text("utf-8", "replace")


def kill(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def children(pid):
    """In the order in which they were started."""
    with contextlib.suppress(OSError):
        return sorted(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return []


def rank_of(pid):
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if line.startswith(b"RANK="):
                return int(line[5:])
    return None
