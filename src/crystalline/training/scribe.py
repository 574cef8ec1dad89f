"""The scribe: writes checkpoints, evaluates and samples in a process of its own, while training goes on.

At a step boundary Node Zero copies the weights, and for a checkpoint the optimizers' state, to a second place in
shared memory (a few milliseconds) and forks a process that works on this copy. What it has found out comes through
a pipe, which Node Zero looks into between two steps. There is one copy, so one job at a time.

The process cannot hurt the run: it has one thread and low priority, none of Node Zero's files, pipes and locks, and
dies with it. If it dies itself, what must be done is done again from the same copy, and the rest is given up.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch

from crystalline.errors import EXIT_SYSTEM, UserError
from crystalline.model import scoring
from crystalline.model.generation import LanguageModel
from crystalline.model.sampling import Sampling
from crystalline.run_folder import RunFolder
from crystalline.settings import Generation
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training import checkpoint, process
from crystalline.training.checkpoint import Retention
from crystalline.training.memory import Field, SharedMemory
from crystalline.training.parameters import FlatParameters
from crystalline.training.workspace import Workspace

log = logging.getLogger("crystalline.training")
SAMPLE_TOKENS = 48
NICENESS = 5  # beside a busy worker about a quarter of a core: done in time, and hardly felt
DEATHS = 3  # of processes over one job, after which something is wrong
PARTS = ("checkpoint", "evaluation", "sample")  # in this order: nothing that comes later can cost a checkpoint


@dataclass(frozen=True)
class Job:
    """What to do with the numbers after `step` steps. parts: some of PARTS.

    needed: those that must not be lost. state: what the checkpoint says besides; retention: which others stay.
    """

    step: int
    parts: tuple[str, ...]
    needed: frozenset[str]
    state: dict[str, Any]
    retention: Retention


@dataclass(frozen=True)
class Report:
    """A part of a job that has ended: with its result, or with an error.

    result: the folder's name; a `scoring.Score`; (prompt, text).
    """

    step: int
    part: str
    result: Any = None
    error: Exception | None = None


class Scribe:
    """Does one job after the other for a run. held_out: the text to measure on."""

    def __init__(
        self,
        run: RunFolder,
        workspace: Workspace,
        tokenizer: Tokenizer,
        held_out: TokenStream,
    ) -> None:
        self.run, self.workspace, self.tokenizer, self.held_out = run, workspace, tokenizer, held_out
        self.token_bytes = scoring.token_byte_lengths(tokenizer)
        self.originals = {"weights": workspace.parameters.values}
        for index, optimizer in enumerate(workspace.optimizers):
            self.originals |= {f"{index}.{name}": tensor for name, tensor in optimizer.state.items()}
        fields = [Field(name, tuple(tensor.shape), tensor.dtype) for name, tensor in self.originals.items()]
        self.copy = SharedMemory(fields)
        self.job: Job | None = None
        self.left: list[str] = []  # parts of the job that have not ended
        self.deaths = 0
        self.done: list[Report] = []  # here and not by a process
        self.process: BaseProcess | None = None
        self.pipe: Connection | None = None

    # --- Node Zero's side -----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return self.process is not None or bool(self.done)

    @property
    def working_on_needed(self) -> bool:
        """Whether something that must not be lost is still to be done."""
        return self.job is not None and any(part in self.job.needed for part in self.left)

    def begin(self, job: Job) -> None:
        """Copy the numbers and start. The job before must have ended."""
        assert not self.busy
        for name, tensor in self.originals.items():
            if name == "weights" or "checkpoint" in job.parts:
                self.copy[name].copy_(tensor)
        self.job, self.left, self.deaths = job, list(job.parts), 0
        if not self._start():
            log.warning("the system gives no more processes: training waits while step %d is saved", job.step)
            self.done = [_report(job.step, part, getattr(self, part)) for part in self.left]
            self.left = []

    def reports(self, wait: float = 0.0) -> list[Report]:
        """What has ended since the last call, waiting at most `wait` seconds for the first.

        Raises UserError when processes keep dying over something that must not be lost.
        """
        found, self.done = self.done, []
        while self.pipe is not None and self.pipe.poll(0.0 if found else wait):
            try:
                report: Report = self.pipe.recv()
            except (EOFError, OSError):  # it has done everything, or died
                found += self._ended()
                break
            self.left.remove(report.part)
            found.append(report)
        return found

    def give_up(self) -> list[Report]:
        """End the process at once; reports of what is lost by that."""
        if self.process is not None:
            self.process.kill()
            self._forget()
        left, self.left = self.left, []
        error = InterruptedError("training was stopped")
        return [Report(self.job.step, part, error=error) for part in left] if self.job is not None else []

    def close(self) -> list[Report]:
        """Let a checkpoint that is being written become whole, and leave the rest; reports of both."""
        found: list[Report] = []
        with contextlib.suppress(UserError):  # training ends with an error of its own
            while self.busy and "checkpoint" in self.left:
                found += self.reports(1.0)
        return found + self.give_up()

    def _start(self) -> bool:
        """Start a process for what is left; whether the system gave one."""
        assert self.job is not None
        ours, theirs = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("fork")
        work = [(part, getattr(self, part)) for part in self.left]
        child = context.Process(
            target=_main, args=(theirs, os.getpid(), self.job.step, self._take_copy, work), daemon=True, name="scribe"
        )
        try:
            child.start()
        except OSError:
            ours.close()
            return False
        finally:
            theirs.close()
        self.process, self.pipe = child, ours
        return True

    def _ended(self) -> list[Report]:
        """The process has left. When it died in the middle of something, go on from there."""
        assert self.process is not None
        assert self.job is not None
        self.process.join()
        code = self.process.exitcode
        self._forget()
        if not self.left:
            return []
        self.deaths += 1
        part = self.left[0]
        error = ChildProcessError(f"its process died (exit code {code})")
        if part in self.job.needed and self.deaths >= DEATHS:
            raise UserError(
                f"could not finish the {part} of step {self.job.step}",
                f"{self.deaths} processes died over it (the last with exit code {code})",
                "look for lack of memory (dmesg), then give the same command again: it continues",
                EXIT_SYSTEM,
            )
        if part not in self.job.needed:
            self.left.remove(part)
        if self.left and not self._start():
            raise UserError(
                f"could not finish the {self.left[0]} of step {self.job.step}",
                f"its process died (exit code {code}), and the system gives no other one",
                "look at the limit of processes (ulimit -u), then give the same command again: it continues",
                EXIT_SYSTEM,
            )
        return [] if part in self.job.needed else [Report(self.job.step, part, error=error)]

    def _forget(self) -> None:
        assert self.process is not None
        assert self.pipe is not None
        self.process.join()
        self.process.close()
        self.pipe.close()
        self.process = self.pipe = None

    # --- the other process's side ---------------------------------------------------------------------------

    def _take_copy(self) -> None:
        """From here on this process sees the copy as the run's numbers."""
        model = self.workspace.model
        self.workspace.parameters = FlatParameters(model, self.copy["weights"])
        if model.dtype == torch.float16:
            model.dtype = torch.float32  # as wherever the model is read: processors are slow at fp16
        for index, optimizer in enumerate(self.workspace.optimizers):
            optimizer.state = {name: self.copy[f"{index}.{name}"] for name in optimizer.state}

    def checkpoint(self) -> str:
        """Write the checkpoint; its folder's name."""
        w, job = self.workspace, self.job
        assert job is not None
        folder = checkpoint.save(
            self.run, job.step, w.parameters, w.optimizers, w.recipe.to_json(), job.state, job.retention
        )
        return folder.name

    def evaluation(self) -> scoring.Score:
        """Cross-entropy and bits per byte on the beginning of the held-out text."""
        training = self.workspace.recipe.settings.training
        assert training.micro_batch is not None
        tokens = self.held_out.read(0, min(len(self.held_out), training.evaluate_tokens + 1))
        # No more windows at once than in training, so that evaluation never needs more memory than the plan says.
        return scoring.score(self.workspace.model, tokens, self.token_bytes, training.micro_batch)

    def sample(self) -> tuple[str, str]:
        """Let the model continue the sample prompt, or the first words of a held-out document, another each time."""
        assert self.job is not None
        speaker = LanguageModel(self.workspace.model, self.tokenizer, Generation())
        prompt, step = self.workspace.recipe.settings.training.sample_prompt, self.job.step
        tokens = self.tokenizer.encode(prompt) if prompt else self._held_out_prompt(step)
        text = speaker.continue_tokens(tokens, Sampling(temperature=0.8, top_p=0.95, seed=step), SAMPLE_TOKENS)
        return self.tokenizer.decode(tokens), text

    def _held_out_prompt(self, step: int) -> list[int]:
        starts = self.held_out.document_starts()
        start = int(starts[step % len(starts)])
        tokens: np.ndarray = self.held_out.read(start, min(24, len(self.held_out) - start))
        return [int(t) for t in tokens if not self.tokenizer.is_special(int(t))]


def _main(
    pipe: Connection, parent: int, step: int, prepare: Callable[[], None], work: list[tuple[str, Callable[[], Any]]]
) -> None:
    """The life of the process: each part of the work, then out, without Node Zero's exit handlers."""
    try:
        process.become_child(parent, keep=pipe.fileno())
        os.nice(NICENESS)
        prepare()
        for part, do in work:
            pipe.send(_report(step, part, do))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _report(step: int, part: str, do: Callable[[], Any]) -> Report:
    try:
        return Report(step, part, do())
    except Exception as error:  # told to Node Zero, which decides
        return Report(step, part, error=error)
