"""Where positions are computed: on the processor, or on GPUs, one worker for each.

CUDA does not survive a fork, and Node Zero forks its workers. So GPUs are looked at in a child process, and only a
worker, which forks no more, starts CUDA.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from crystalline import processes
from crystalline.errors import EXIT_SYSTEM, EXIT_USAGE, UserError, is_out_of_memory
from crystalline.training import link, process

log = logging.getLogger("crystalline.training")

Kind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Gpu:
    """index: as CUDA counts those that it may see. memory: bytes. capability: of its architecture, such as (9, 0)."""

    index: int
    name: str
    memory: int
    capability: tuple[int, int]

    @property
    def kind(self) -> str:
        """What the bits of its products depend on."""
        return f"{self.name} ({self.capability[0]}.{self.capability[1]})"

    @property
    def has_bf16(self) -> bool:
        """Whether it multiplies bf16 natively."""
        return self.capability >= (8, 0)


def gpus() -> Sequence[Gpu]:
    """The GPUs that this process may use, all of one kind; under torchrun its share of those of this machine."""
    ranks = link.ranks()
    return process.share(_gpus(), ranks.local_rank, ranks.local_size) if ranks else _gpus()


@functools.cache
def _gpus() -> tuple[Gpu, ...]:
    if not torch.backends.cuda.is_built():
        return ()
    try:
        found = _look() if torch.cuda.is_initialized() else process.in_child(_look)
    except (RuntimeError, OSError) as error:  # an old driver, a GPU that has failed
        log.warning("GPUs cannot be used: %s", str(error).strip().split("\n")[0])
        return ()
    same = tuple(gpu for gpu in found if gpu.kind == found[0].kind)
    if len(same) < len(found):
        # Whoever is free takes the next position: on another kind of GPU it would have other bits.
        log.warning("%d GPUs of other kinds than %s are not used", len(found) - len(same), found[0].kind)
    return same


def _look() -> list[Gpu]:
    every = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Gpu(i, gpu.name, gpu.total_memory, (gpu.major, gpu.minor)) for i, gpu in enumerate(every)]


def choose(wanted: str) -> Kind:
    """ "auto" settled. Raises a UserError when "cuda" is wanted and there is none.

    "auto" is the processor until the GPU path has run on one (decision 10): where there is a GPU the log tells of it.
    """
    if wanted == "auto" and gpus():
        log.info("training on the processor; --device cuda would train on %s, which is untested so far", describe())
    if wanted != "cuda":
        return "cpu"
    if not gpus():
        why, fix = "PyTorch finds none", "see what nvidia-smi says"
        if not torch.backends.cuda.is_built():
            why = f"this PyTorch ({torch.__version__}) was built without CUDA"
            fix = "install its CUDA build (https://pytorch.org/get-started)"
        raise UserError("could not train on a GPU", why, f"{fix}; or train a new run with --device cpu", EXIT_USAGE)
    return "cuda"


def devices(kind: Kind) -> list[torch.device]:
    """What workers compute on, in turn. None at all: on the processor, in the memory that they share."""
    return [torch.device("cuda", gpu.index) for gpu in gpus()] if choose(kind) == "cuda" else []


def workers(kind: Kind) -> int:
    """How many workers there are unless somebody says a number: one for each GPU, or for each core."""
    return len(gpus()) if kind == "cuda" else processes.cores()


def describe() -> str:
    """The GPUs that are used, in words; "" when there are none."""
    found = gpus()
    return f"{len(found)} of {found[0].kind}, {found[0].memory / 1e9:.0f} GB each" if found else ""


def identity(kind: Kind) -> dict[str, str]:
    """What the bits depend on besides the processor."""
    return {"gpu": gpus()[0].kind} if kind == "cuda" else {}


def prepare(device: torch.device) -> None:
    """Set this process up to compute on `device`, always to the same bits. Before CUDA starts, after the last fork.

    PyTorch then takes deterministic kernels (flash and memory-efficient attention have a deterministic backward, that
    of cuDNN has not) and raises an error where it has none.
    """
    if device.type != "cuda":
        return
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # with another workspace cuBLAS may add in another order
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_float32_matmul_precision("highest")  # fp32 is fp32, not TF32; and products of 16 bits are
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False  # added up in fp32
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        why, fix = str(error).strip().split("\n")[0], "see what nvidia-smi says, then give the same command again"
        raise UserError(f"could not train on {device}", why, fix, EXIT_SYSTEM) from error
