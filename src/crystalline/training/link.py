"""What goes between the ranks of a cluster, and the process that carries it: torch.distributed with gloo.

torchrun starts the same command several times, on one machine or many; each process is a *rank*. A rank speaks with
the others through a process of its own, its *messenger*, the only one that has sockets and threads of gloo. So
Node Zero can fork workers at any time, is never stuck in a call that no signal ends, and what belongs to
a dead rank is closed by the kernel at once. Numbers are not copied for it: they lie in memory that both share.

Messengers meet at least once in HEARTBEAT seconds, also while their ranks are busy: a machine that vanishes without a
word is missed after `patience`, and an order to stop that has reached one rank reaches all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from crystalline import processes
from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.training import process

HEARTBEAT = 1.0  # seconds; a rank with nothing to say says at least that
PATIENCE = 60.0  # seconds without a sign of life, after which a rank is lost
POLL_SECONDS = 0.2  # how often an order to stop is looked for while waiting for others
_links = itertools.count()  # all ranks make theirs in the same order


@dataclass(frozen=True)
class Ranks:
    """Which of the processes that torchrun started this one is."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def leads(self) -> bool:
        """Whether this is Node Zero of the whole."""
        return self.rank == 0


def ranks() -> Ranks | None:
    """What torchrun says of this process; None when it was not started by it, or is the only one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Ranks(*(int(os.environ[name]) for name in names))


@functools.cache
def settle_in(ranks: Ranks) -> None:
    """Take this rank's place on its machine: its own processors; and end (saving) when torchrun is killed."""
    process.keep_to_share(ranks.local_rank, ranks.local_size)
    processes.die_with_parent(signal.SIGTERM)


class Lost(UserError):
    """Another rank has ended or cannot be reached."""

    def __init__(self, why: str) -> None:
        super().__init__(
            "training stopped: a process on this or another machine is gone",
            why,
            "look for its own message above or on its machine (processes that never met: name the network with "
            "GLOO_SOCKET_IFNAME), then give the same command again on all machines: it continues",
            EXIT_SYSTEM,
        )

    def __reduce__(self) -> tuple[type[Lost], tuple[str]]:
        return Lost, (self.why,)


class Link:
    """This rank's connection to all others. Each method is called by all ranks, in the same order.

    tensors: name -> tensor in shared memory, made before the link. stop: whether this rank is asked to stop; then all
    ranks get a SIGTERM. patience: seconds without a sign of life after which another rank is given up.
    Every method raises Lost when another rank is gone.
    """

    def __init__(
        self,
        ranks: Ranks,
        tensors: Mapping[str, Tensor] | None = None,
        stop: Callable[[], bool] = lambda: False,
        patience: float = PATIENCE,
    ) -> None:
        self.ranks, self._stop, self._told = ranks, stop, False
        self._pipe, theirs = multiprocessing.Pipe()
        self._messenger = multiprocessing.get_context("fork").Process(
            target=_carry, args=(theirs, self._pipe, ranks, next(_links), tensors or {}, patience), daemon=True,
            name="messenger",
        )  # fmt: skip
        self._messenger.start()
        theirs.close()

    def say(self, words: Any = None) -> Any:
        """What rank 0 says, to all."""
        return self._ask("say", words)

    def collect(self, words: Any) -> list[Any]:
        """What each rank says, in the order of ranks, to all."""
        every: list[Any] = self._ask("collect", words)
        return every

    def send(self, tensor: str) -> None:
        """Copy rank 0's tensor to all."""
        self._ask("send", tensor)

    def add_up(self, tensor: str) -> None:
        """Make rank 0's integers the sum over all ranks. The others' are used up."""
        self._ask("add_up", tensor)

    def leave(self) -> None:
        """Close when all others do so too, and so have got everything that was said."""
        with contextlib.suppress(Lost):  # another was faster
            self._ask("leave", None)
        self.close()

    def close(self) -> None:
        """End the messenger. Ranks that are not about to leave lose this one."""
        self._pipe.close()
        self._messenger.kill()
        self._messenger.join()

    def _ask(self, name: str, argument: Any) -> Any:
        with contextlib.suppress(OSError):  # it has ended; what it had to say about that is in the pipe
            self._pipe.send((name, argument))
        try:
            while not self._pipe.poll(POLL_SECONDS):
                self.pass_on_stop()
            done, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise Lost("the process that speaks with the others was killed") from None
        if not done:
            raise Lost(answer)
        return answer

    def pass_on_stop(self) -> bool:
        """Whether this rank is asked to stop; the others are told."""
        if self._stop() and not self._told:
            self._told = True
            with contextlib.suppress(OSError):
                self._pipe.send(("stop", None))
        return self._told


def _carry(
    pipe: Connection,
    parents_end: Connection,
    ranks: Ranks,
    number: int,
    tensors: Mapping[str, Tensor],
    patience: float,
) -> None:
    """The life of a messenger: do what its rank asks for, together with all others."""
    process.be_child()
    parents_end.close()
    try:
        _meet(ranks, number, patience)
        _serve(pipe, ranks, tensors)
    except (EOFError, OSError):
        pass  # our rank is gone, and so are we
    except RuntimeError as error:  # torch's errors of the network are all of this kind
        with contextlib.suppress(OSError):
            pipe.send((False, str(error).splitlines()[0]))
    os._exit(0)  # nothing of Node Zero's state here may run its exit handlers


def _meet(ranks: Ranks, number: int, patience: float) -> None:
    wait = timedelta(seconds=patience)
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # not in every build of torch

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=wait)  # torchrun's
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    apart = PrefixStore(f"crystalline/{attempt}/{number}", store)
    dist.init_process_group("gloo", store=apart, rank=ranks.rank, world_size=ranks.size, timeout=wait)


def _serve(pipe: Connection, ranks: Ranks, tensors: Mapping[str, Tensor]) -> None:
    def say(words: Any) -> Any:
        box = [words]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def collect(words: Any) -> list[Any]:
        boxes: list[Any] = [None] * ranks.size
        dist.all_gather_object(boxes, words)
        return boxes

    def send(name: str) -> None:
        dist.broadcast(tensors[name], 0)

    def add_up(name: str) -> None:
        dist.reduce(tensors[name], 0)

    def leave(_: None) -> None:
        pass

    work: dict[str, Callable[[Any], Any]] = {
        "say": say,
        "collect": collect,
        "send": send,
        "add_up": add_up,
        "leave": leave,
    }
    asked: tuple[str, Any] | None = None
    stopping = told = False
    while True:
        while pipe.poll(0 if asked else HEARTBEAT):
            message = pipe.recv()
            if message[0] == "stop":
                stopping = True
            else:
                asked = message
                break
        state = torch.tensor([asked is None, stopping], dtype=torch.int32)
        dist.all_reduce(state)
        busy, stops = state.tolist()
        if stops and not told:
            told = True
            os.kill(os.getppid(), signal.SIGTERM)
        if asked and not busy:
            pipe.send((True, work[asked[0]](asked[1])))
            asked = None
