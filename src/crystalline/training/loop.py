"""The training loop: twelve positions, their exact sum, one update; once in a while save, then evaluate, then sample.

Start reading at "Training loop" below.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crystalline.errors import Interrupted, UserError
from crystalline.events import EventLog
from crystalline.model import scoring, store
from crystalline.model.generation import LanguageModel, visible
from crystalline.model.sampling import Sampling
from crystalline.model.transformer import Transformer
from crystalline.run_folder import RunFolder
from crystalline.settings import Generation
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training import checkpoint, commands, hardware, process
from crystalline.training.batches import Batches
from crystalline.training.cluster import Cluster
from crystalline.training.interrupt import StopRequest
from crystalline.training.link import Lost, Ranks
from crystalline.training.node_zero import Alone, LocalTeam, Report, Stopped, Team, Wanted, Workers
from crystalline.training.recipe import Recipe
from crystalline.training.schedule import rate_at
from crystalline.training.workspace import Workspace

log = logging.getLogger("crystalline.training")
DROPS_IN_A_ROW = 3  # unsound steps after which training stops
SAMPLE_TOKENS = 48
SPHERES_EVERY = 5.0  # seconds between records of what each worker has done
PAUSE_SECONDS = 0.2  # how often a paused run looks for orders


class Trainer:
    """One training run: the network, its optimizers and its text, at some step.

    Made at step 0; `resume` goes to the newest whole checkpoint, `train` to the recipe's last step.
    ranks: who trains with this process, if any. Only rank 0 resumes and trains; the others `follow`.
    """

    def __init__(self, run: RunFolder, recipe: Recipe, ranks: Ranks | None = None) -> None:
        process.prepare()
        self.run, self.recipe, self.ranks = run, recipe, ranks
        t = recipe.settings.training
        self.tokenizer = Tokenizer.load(run.tokenizer)
        bags = TokenCodes.load(run.tokenizer).bags() if recipe.shape.factors else None
        self.model = Transformer(recipe.shape, bags, recipe.dtype)
        self.model.initialize(t.seed)
        self.workspace = Workspace(self.model, recipe, spheres=t.positions)
        self.parameters, self.optimizers = self.workspace.parameters, self.workspace.optimizers
        assert t.micro_batch is not None
        stream = TokenStream(run.shards, "train")
        self.batches = Batches(
            stream, t.seed, recipe.shape.context, t.micro_batch, t.accumulation, t.positions, self.tokenizer.pad
        )
        self.held_out = TokenStream(run.shards, "held_out")
        self.token_bytes = scoring.token_byte_lengths(self.tokenizer)
        self.step, self.tokens_seen = 0, 0
        self.drops, self.drops_in_a_row = 0, 0

    @property
    def leads(self) -> bool:
        """Whether this process trains, and not only helps another to."""
        return self.ranks is None or self.ranks.leads

    def resume(self) -> None:
        """Continue from the newest whole checkpoint, if there is one."""
        found = store.newest_whole(self.run)
        if found is not None:
            state = checkpoint.restore(found, self.parameters, self.optimizers)
            self.step, self.tokens_seen, self.drops = state["step"], state["tokens"], state["drops"]

    def team(self, workers: Wanted, stop: Callable[[], bool], report: Report = lambda kind, **facts: None) -> Team:
        """Who computes: that many processes, or this one when `workers` is 0; or all ranks. report: see `Workers`."""
        if self.ranks is not None:
            return self._cluster(workers, stop, report)
        return self._local_team(workers, report, stop)

    def _local_team(self, workers: Wanted, report: Report, stop: Callable[[], bool]) -> LocalTeam:
        if workers == 0:
            return Alone(self.workspace, self.batches, stop)
        return Workers(self.workspace, self.batches, workers, stop, report)

    def _cluster(self, workers: Wanted, stop: Callable[[], bool], report: Report) -> Cluster:
        assert self.ranks is not None
        return Cluster(self.ranks, self.workspace, partial(self._local_team, workers, report), stop)

    def follow(self, workers: Wanted | None = None) -> None:
        """Compute what rank 0 says, until it has trained to the end or stops."""

        def report(kind: str, **facts: Any) -> None:
            """Told by the log; the events are rank 0's."""

        wanted = "auto" if workers is None else workers
        with (
            StopRequest(patient=True) as stop,
            closing(self._cluster(wanted, lambda: stop.asked, report)) as cluster,
        ):
            cluster.follow()

    # ------------------------------------------------------------------------------------------------
    # Training loop
    # ------------------------------------------------------------------------------------------------

    def train(
        self,
        events: EventLog,
        on_step: Callable[[dict[str, float]], None] = lambda _: None,
        workers: Wanted | None = None,
    ) -> None:
        """Train to the recipe's last step. Each step is written to `events` and given to `on_step`.

        workers: processes; None: one a core; "free": as many as there are cores that other processes leave free.
        The weights do not depend on it.
        Raises Interrupted after Ctrl-C, with everything saved; UserError when training cannot go on.
        """
        recipe, settings = self.recipe, self.recipe.settings
        saved_at, saved_step, spoken_at = time.monotonic(), self.step, -math.inf
        commands.clear(self.run)

        def report(kind: str, **facts: Any) -> None:
            events.write(kind, step=self.step, **facts)

        wanted = "auto" if workers is None else workers
        with (
            StopRequest(patient=self.ranks is not None) as stop,
            closing(self.team(wanted, lambda: stop.asked, report)) as team,
            self._saving_when_others_are_lost(events),
        ):
            while self.step < recipe.steps:
                self._obey(team, stop, events)
                if stop.asked:
                    break
                began = time.monotonic()
                targets = self.batches.targets_in_step(self.step)

                # The same 12 positions in every step, computed by whoever is free: their sum is exact.
                try:
                    results = team.positions(self.step, targets)
                except Stopped:
                    stop.asked = True  # if by another rank
                    break  # the unfinished step is done again on resuming
                loss = math.fsum(result.loss for result in results) / targets
                rate = rate_at(self.step, recipe.steps, settings.scheduler)

                # Look before the weights change; then one update by the summed gradient, clipped.
                norm = team.reduce() if all(result.sound for result in results) else math.nan
                if self._usable(norm, loss):
                    limit = settings.optimizer.clip_norm
                    clip = limit / norm if limit and norm > limit else 1.0
                    team.update(clip, rate, self.step + 1 - self.drops)
                self.step += 1
                self.tokens_seen += targets

                facts = {
                    "step": self.step,
                    "loss": loss,
                    "gradient_norm": norm,
                    "rate": rate,
                    "tokens": self.tokens_seen,
                    "seconds": time.monotonic() - began,
                }
                events.write("training.step", **{k: _finite(v) for k, v in facts.items()})
                on_step(facts)
                self._stop_if_hopeless()

                last = self.step == recipe.steps
                if last or began - spoken_at >= SPHERES_EVERY:
                    memory, shares = hardware.resident_memory(), team.shares()
                    told = {"spheres": team.spheres(), "shares": shares, "memory": memory}
                    events.write("training.spheres", step=self.step, **told)
                    spoken_at = began

                # Once in a while: save first, so that nothing below can cost work; then measure, then show.
                if last or self._save_due(saved_at):
                    self.save(events)
                    saved_at, saved_step = time.monotonic(), self.step
                if last or self.step % _every(settings.training.evaluate_every) == 0:
                    self.evaluate(events)
                if last or self.step % _every(settings.training.sample_every) == 0:
                    self.sample(events)
            if stop.asked and saved_step != self.step:
                self.save(events)
        if stop.asked and self.step < recipe.steps:
            raise Interrupted(f"step {self.step} is saved; the same command continues")

    @contextmanager
    def _saving_when_others_are_lost(self, events: EventLog) -> Iterator[None]:
        """This process has everything that is done, so none of it is lost with another rank."""
        try:
            yield
        except Lost:
            if not (self.run.checkpoints / store.checkpoint_name(self.step)).exists():
                self.save(events)
            raise

    def _obey(self, team: Team, stop: StopRequest, events: EventLog) -> None:
        """Do what other processes have ordered (`cllm pause`, ...), between two steps."""
        paused = False
        while True:
            for name, arguments in commands.take(self.run):
                log.info("order: %s %s", name, " ".join(str(v) for v in arguments.values()))
                events.write("training.order", step=self.step, order=name, **arguments)
                if name == "checkpoint":
                    self.save(events)
                elif name == "workers":
                    team.resize(arguments["count"])
                elif name == "rebalance":
                    team.rebalance()
                elif name == "stop":
                    stop.asked = True
                else:
                    paused = name == "pause"
            if stop.asked or not paused:
                return
            time.sleep(PAUSE_SECONDS)

    def _usable(self, norm: float, loss: float) -> bool:
        """Whether the step may change the weights. Counts steps that may not."""
        if math.isfinite(norm):
            self.drops_in_a_row = 0
            return True
        self.drops += 1
        self.drops_in_a_row += 1
        log.warning("step %d dropped: loss %s, gradient not finite or huge", self.step + 1, loss)
        return False

    def _stop_if_hopeless(self) -> None:
        if self.drops_in_a_row >= DROPS_IN_A_ROW:
            raise UserError(
                f"training stopped at step {self.step}",
                f"{DROPS_IN_A_ROW} steps in a row had a loss or gradient that is not a usable number",
                "train again in a new run with a lower optimizer.learning_rate, or precision fp32",
            )

    def _save_due(self, saved_at: float) -> bool:
        c = self.recipe.settings.checkpointing
        if c.every_steps:
            return self.step % c.every_steps == 0
        return time.monotonic() - saved_at >= 60 * c.every_minutes

    def save(self, events: EventLog) -> Path:
        """Write a checkpoint of the current step."""
        folder = checkpoint.save(
            self.run,
            self.step,
            self.parameters,
            self.optimizers,
            self.recipe.to_json(),
            {"tokens": self.tokens_seen, "drops": self.drops},
            self.recipe.settings.checkpointing.keep,
        )
        events.write("training.checkpoint", step=self.step, folder=folder.name)
        return folder

    def evaluate(self, events: EventLog) -> scoring.Score:
        """Cross-entropy and bits per byte on the beginning of the held-out text."""
        training = self.recipe.settings.training
        assert training.micro_batch is not None
        tokens = self.held_out.read(0, min(len(self.held_out), training.evaluate_tokens + 1))
        # No more windows at once than in training, so that evaluation never needs more memory than the plan says.
        result = scoring.score(self.model, tokens, self.token_bytes, training.micro_batch)
        events.write("training.evaluation", step=self.step, bits_per_byte=result.bits_per_byte, **asdict(result))
        log.info(
            "held-out text: %.3f nats per token, %.3f bits per byte",
            result.cross_entropy,
            result.bits_per_byte,
        )
        return result

    def sample(self, events: EventLog) -> str:
        """Let the model continue the sample prompt."""
        speaker = LanguageModel(self.model, self.tokenizer, Generation())
        prompt = self.recipe.settings.training.sample_prompt
        tokens = self.tokenizer.encode(prompt) if prompt else self._held_out_prompt()
        text = speaker.continue_tokens(tokens, Sampling(temperature=0.8, top_p=0.95, seed=self.step), SAMPLE_TOKENS)
        start = self.tokenizer.decode(tokens)
        events.write("training.sample", step=self.step, prompt=start, text=text)
        log.info("sample: %s", _one_block(start, text))
        return text

    def _held_out_prompt(self) -> list[int]:
        """The first words of a held-out document, another one each time."""
        starts = self.held_out.document_starts()
        start = int(starts[self.step % len(starts)])
        tokens: np.ndarray = self.held_out.read(start, min(24, len(self.held_out) - start))
        return [int(t) for t in tokens if not self.tokenizer.is_special(int(t))]


def _one_block(prompt: str, text: str) -> str:
    shown = visible(f"{prompt.strip()}▸{text}".rstrip())
    return "\n    │ ".join(["", *shown.split("\n")])


def _every(setting: int | None) -> int:
    assert setting is not None  # a settled recipe has a number here
    return setting


def _finite(value: float) -> float | None:
    """JSON has no NaN: None says that a number was not usable."""
    return value if math.isfinite(value) else None
