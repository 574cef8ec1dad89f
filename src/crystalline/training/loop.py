"""The training loop: twelve positions, their exact sum, one update; once in a while save, evaluate and sample.

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

from crystalline.errors import EXIT_DAMAGED, EXIT_USAGE, Interrupted, UserError
from crystalline.events import EventLog
from crystalline.model import checkpoints, store
from crystalline.model.generation import visible
from crystalline.model.objective import Objective
from crystalline.model.transformer import build
from crystalline.run_folder import RunFolder, damage
from crystalline.tokens.codes import TokenCodes
from crystalline.tokens.stream import TokenStream
from crystalline.tokens.tokenizer import Tokenizer
from crystalline.training import checkpoint, commands, device, hardware, process
from crystalline.training.batches import Batches
from crystalline.training.checkpoint import Retention
from crystalline.training.cluster import Cluster
from crystalline.training.evaluations import Evaluations
from crystalline.training.guard import DROPS_IN_A_ROW, ROLLBACKS, Drop, Guard
from crystalline.training.interrupt import StopRequest
from crystalline.training.link import Lost, Ranks
from crystalline.training.node_zero import Alone, LocalTeam, Stopped, Team, Tell, Wanted, Workers
from crystalline.training.position import PositionResult
from crystalline.training.recipe import Recipe, start_identity
from crystalline.training.roots import DECIDED_ON, RootFinder
from crystalline.training.schedule import rate_at
from crystalline.training.scribe import PARTS, Job, Report, Scribe
from crystalline.training.workspace import Workspace

log = logging.getLogger("crystalline.training")
SPHERES_EVERY = 5.0  # seconds between records of what each worker has done
PAUSE_SECONDS = 0.2  # how often a paused run looks for orders, and a waiting one for the scribe
LATE = 1.5  # times checkpointing.every_minutes, after which the clock saves, if steps are slower than planned
GRACE = 1.0  # seconds that an evaluation or a sample still gets when training is stopped


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
        codes = TokenCodes.load(run.tokenizer)
        self.model = build(recipe.shape, codes, recipe.dtype)
        self._begin()
        held_out = TokenStream(run.shards, "held_out")
        self.roots = self._root_finder(codes, held_out) if t.discover_roots else None
        objective = Objective.of(recipe.settings.objective, recipe.steps, self.tokenizer, codes)
        devices = device.devices(recipe.device)
        self.workspace = Workspace(self.model, recipe, t.positions, objective, devices)
        self.parameters, self.optimizers = self.workspace.parameters, self.workspace.optimizers
        assert t.micro_batch is not None
        stream = TokenStream(run.shards, "train")
        self.batches = Batches(
            stream, t.seed, recipe.shape.context, t.micro_batch, t.accumulation, t.positions, self.tokenizer.pad
        )
        self.scribe = Scribe(run, self.workspace, self.tokenizer, held_out)
        # With the weights and the optimizers' state, all that the next step depends on; saved in every checkpoint.
        self.step, self.tokens_seen, self.updates = 0, 0, 0
        self.guard, self.evaluations = Guard(), Evaluations()
        self.saved_step, self.saved_at = 0, time.monotonic()
        self.computed_again = -1  # the step of a damaged checkpoint that a rollback needed

    @property
    def leads(self) -> bool:
        """Whether this process trains, and not only helps another to."""
        return self.ranks is None or self.ranks.leads

    @property
    def ended_early(self) -> bool:
        """Whether training was ended because evaluations got no better, and nobody has asked for more since."""
        e, t = self.evaluations, self.recipe.settings.training
        return e.ended == self.recipe.steps and 0 < t.patience <= e.ended_after

    @property
    def done(self) -> bool:
        return self.step >= self.recipe.steps or self.ended_early

    def team(self, workers: Wanted, stop: Callable[[], bool], tell: Tell = lambda kind, **facts: None) -> Team:
        """Who computes: that many processes, or this one when `workers` is 0; or all ranks. tell: see `Workers`."""
        if self.ranks is not None:
            return self._cluster(workers, stop, tell)
        return self._local_team(workers, tell, stop)

    def _local_team(self, workers: Wanted, tell: Tell, stop: Callable[[], bool]) -> LocalTeam:
        if workers == 0:
            return Alone(self.workspace, self.batches, stop)
        return Workers(self.workspace, self.batches, workers, stop, tell)

    def _cluster(self, workers: Wanted, stop: Callable[[], bool], tell: Tell) -> Cluster:
        assert self.ranks is not None
        return Cluster(self.ranks, self.workspace, partial(self._local_team, workers, tell), stop)

    def follow(self, workers: Wanted | None = None) -> None:
        """Compute what rank 0 says, until it has trained to the end or stops."""

        def tell(kind: str, **facts: Any) -> None:
            """Told by the log; the events are rank 0's."""

        wanted = "auto" if workers is None else workers
        with (
            StopRequest(patient=True) as stop,
            closing(self._cluster(wanted, lambda: stop.asked, tell)) as cluster,
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

        workers: processes; None: one a core, or a GPU; "free": as many as there are cores that other processes leave
        free.
        The weights do not depend on it.
        Raises Interrupted after Ctrl-C, with everything saved; UserError when training cannot go on.
        """
        recipe, settings = self.recipe, self.recipe.settings
        spoken_at = -math.inf
        commands.clear(self.run)

        def tell(kind: str, **facts: Any) -> None:
            events.write(kind, step=self.step, **facts)

        wanted = "auto" if workers is None else workers
        with (
            StopRequest(patient=self.ranks is not None) as stop,
            closing(self.team(wanted, lambda: stop.asked, tell)) as team,
            self._watching_the_scribe(events),
            self._saving_when_others_are_lost(stop, events),
        ):
            self._take_up(stop, events)
            while not self.done:
                self._record(self.scribe.reports(), events)
                self._obey(team, stop, events)
                if stop.asked:
                    break
                began = time.monotonic()
                batch = self.step + self.guard.skipped
                targets = self.batches.targets_in_step(batch)

                # The same 12 positions in every step, computed by whoever is free: their sum is exact.
                try:
                    results = team.positions(batch, targets)
                except Stopped:
                    stop.asked = True  # if by another rank
                    break  # the unfinished step is done again on resuming
                loss = math.fsum(result.loss for result in results) / targets
                rate = rate_at(self.step, recipe.steps, settings.scheduler)

                # Look before the weights change; then one update by the summed gradient, clipped.
                norm = team.reduce() if all(result.sound for result in results) else math.nan
                drop = self.guard.judge(loss, norm)
                if drop is None:
                    limit = settings.optimizer.clip_norm
                    clip = limit / norm if limit and norm > limit else 1.0
                    self.updates += 1
                    team.update(clip, rate, self.updates)
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
                if drop is not None:
                    self._tell_of(drop, loss, norm, results, events)
                on_step(facts)
                if self.guard.in_a_row >= DROPS_IN_A_ROW:
                    self._go_back(stop, events)
                    continue

                last = self.step == recipe.steps
                if last or began - spoken_at >= SPHERES_EVERY:
                    memory, shares = hardware.resident_memory(), team.shares()
                    told = {"spheres": team.spheres(), "shares": shares, "memory": memory}
                    events.write("training.spheres", step=self.step, **told)
                    spoken_at = began

                if self.roots is not None and self.step in self.roots.steps:
                    self._look_for_roots(stop, events)

                # Once in a while save, measure and show: the scribe does it while the next steps are computed.
                self._hand_over(self._due(stop, events), stop, events)
            if stop.asked and self.saved_step != self.step:
                self._hand_over({"checkpoint"}, stop, events)
            self._wait_for_the_scribe(stop, events)
        if stop.asked and not self.done:
            raise Interrupted(f"step {self.step} is saved; the same command continues")

    @contextmanager
    def _saving_when_others_are_lost(self, stop: StopRequest, events: EventLog) -> Iterator[None]:
        """This process has everything that is done, so none of it is lost with another rank."""
        try:
            yield
        except Lost:
            if self.saved_step != self.step:
                self._hand_over({"checkpoint"}, stop, events)
            self._wait_for_the_scribe(stop, events)
            raise

    def _obey(self, team: Team, stop: StopRequest, events: EventLog) -> None:
        """Do what other processes have ordered (`cllm pause`, ...), between two steps."""
        paused = False
        while True:
            for name, arguments in commands.take(self.run):
                log.info("order: %s %s", name, " ".join(str(v) for v in arguments.values()))
                events.write("training.order", step=self.step, order=name, **arguments)
                if name == "checkpoint":
                    if self.saved_step != self.step:
                        self._hand_over({"checkpoint"}, stop, events)
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
            self._record(self.scribe.reports(), events)
            time.sleep(PAUSE_SECONDS)

    def _tell_of(self, drop: Drop, loss: float, norm: float, results: list[PositionResult], events: EventLog) -> None:
        """Say and record why a step has changed nothing."""
        log.warning("step %d dropped: %s", self.step, drop.reason)
        unsound = [place for place, result in enumerate(results) if not result.sound]
        events.write(
            "training.dropped", step=self.step, reason=drop.reason, loss=_finite(loss), gradient_norm=_finite(norm),
            positions=unsound, **drop.numbers,
        )  # fmt: skip

    # --- what is due, and the scribe that does it -------------------------------------------------------------

    def _due(self, stop: StopRequest, events: EventLog) -> set[str]:
        """Which of the scribe's parts are due after this step."""
        t, c = self.recipe.settings.training, self.recipe.settings.checkpointing
        evaluate = self._at(t.evaluate_every)
        if evaluate and t.patience:
            # The result of the last evaluation is acted on now, however long it took: all runs of a recipe end alike.
            self._wait_for_the_scribe(stop, events)
            if self.evaluations.exhausted(t.patience) and self.step < self.recipe.steps:
                self._end_early(events)
        parts = set()
        if evaluate or self.done:
            parts.add("evaluation")
        if self._at(t.sample_every) or self.done:
            parts.add("sample")
        minutes = (time.monotonic() - self.saved_at) / 60
        late = not c.every_steps and minutes >= LATE * c.every_minutes and not self.scribe.busy
        planned = self._at(c.rollback_every) or self._at(c.every_steps) or self._at(c.keep_every)
        if planned or late or self.done or (evaluate and self.recipe.best_counts):
            parts.add("checkpoint")
        return parts

    def _at(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _hand_over(self, parts: set[str], stop: StopRequest, events: EventLog) -> None:
        """Let the scribe do these parts for the present step; what it does for an earlier one must be ready first."""
        if not parts:
            return
        self._wait_for_the_scribe(stop, events)
        if "checkpoint" in parts:
            if self._at(self.recipe.settings.checkpointing.rollback_every) and self.guard.set_anchor(self.step):
                self.evaluations.best_at_anchor = self.evaluations.best_step
            self.saved_step, self.saved_at = self.step, time.monotonic()
        needed = {"checkpoint"}
        if self.recipe.best_counts:
            needed.add("evaluation")
            if "evaluation" in parts:
                self.evaluations.pending = self.step
        ordered = tuple(part for part in PARTS if part in parts)
        codes = self.roots.codes if self.roots is not None else None
        self.scribe.begin(Job(self.step, ordered, frozenset(needed), self._state(), self._retention(), codes))

    def _root_finder(self, codes: TokenCodes, held_out: TokenStream) -> RootFinder:
        t = self.recipe.settings.training
        # The memory that all workers read the tokens' factors from is this machine's.
        if self.ranks is not None or not self.recipe.shape.factors or not self.tokenizer.is_own:
            raise UserError(
                "training.discover_roots cannot be used here",
                "it works on one machine, with factor embeddings (model.factor_scale above 0) and a vocabulary of "
                "crystalline's own",
                "set training.discover_roots = 0",
                EXIT_USAGE,
            )
        tokens = held_out.read(0, min(len(held_out), max(t.evaluate_tokens, DECIDED_ON) + 1))
        counts = np.load(self.run.shards / "counts.npy")
        return RootFinder(self.model, codes, self.tokenizer, tokens, counts, t.discover_roots, self.recipe.steps)

    def _look_for_roots(self, stop: StopRequest, events: EventLog) -> None:
        assert self.roots is not None
        self._wait_for_the_scribe(stop, events)  # it reads the same factors
        facts = self.roots.look()
        events.write("training.roots", step=self.step, **facts)
        log.info("step %d: %d of %d better roots taken", self.step, len(facts["changes"]), facts["proposed"])

    def _state(self) -> dict[str, Any]:
        """What a checkpoint says besides weights and optimizers."""
        return {
            "tokens": self.tokens_seen,
            "updates": self.updates,
            "guard": self.guard.to_json(),
            "evaluations": self.evaluations.to_json(),
        }

    def _retention(self) -> Retention:
        c = self.recipe.settings.checkpointing
        best = self.evaluations.steps_kept if self.recipe.best_counts else frozenset()
        return Retention(c.keep, (self.guard.anchor, self.guard.before_anchor), c.keep_every, best)

    def _wait_for_the_scribe(self, stop: StopRequest, events: EventLog) -> None:
        """Until nothing is under way. After a stop what may be lost is waited for only for a moment."""
        stopped_at = math.inf
        while self.scribe.busy:
            self._record(self.scribe.reports(PAUSE_SECONDS), events)
            if stop.asked and not self.scribe.working_on_needed:
                stopped_at = min(stopped_at, time.monotonic())
                if time.monotonic() - stopped_at > GRACE:
                    self._record(self.scribe.give_up(), events)

    @contextmanager
    def _watching_the_scribe(self, events: EventLog) -> Iterator[None]:
        """Leave no process behind, however training ends, and no checkpoint half written if it can be helped."""
        try:
            yield
        finally:
            for report in self.scribe.close():
                if report.error is None:
                    self._record([report], events)

    def _record(self, reports: list[Report], events: EventLog) -> None:
        """Write down what the scribe has done. Raises its error when it could not do what must be done."""
        for report in reports:
            if report.error is not None:
                self._tell_of_loss(report, events)
            elif report.part == "checkpoint":
                events.write("training.checkpoint", step=report.step, folder=report.result)
            elif report.part == "evaluation":
                score = report.result
                events.write(
                    "training.evaluation", step=report.step, bits_per_byte=score.bits_per_byte, **asdict(score)
                )
                log.info(
                    "step %d held-out text: %.3f nats per token, %.3f bits per byte",
                    report.step,
                    score.cross_entropy,
                    score.bits_per_byte,
                )
                if self.recipe.best_counts and self.evaluations.result(report.step, score.bits_per_byte):
                    checkpoint.mark_best(self.run, report.step)
                    events.write("training.best", step=report.step, bits_per_byte=score.bits_per_byte)
            else:
                prompt, text = report.result
                events.write("training.sample", step=report.step, prompt=prompt, text=text)
                log.info("step %d sample: %s", report.step, _one_block(prompt, text))

    def _tell_of_loss(self, report: Report, events: EventLog) -> None:
        error = report.error
        assert error is not None
        if report.part == "checkpoint" or (report.part == "evaluation" and self.recipe.best_counts):
            raise error
        log.warning("the %s of step %d is lost: %s", report.part, report.step, error)
        events.write("training.lost", step=report.step, part=report.part, why=f"{type(error).__name__}: {error}")

    def _end_early(self, events: EventLog) -> None:
        e, patience = self.evaluations, self.recipe.settings.training.patience
        e.ended, e.ended_after = self.recipe.steps, e.stale
        log.info(
            "training ends at step %d of %d: %d evaluations in a row were no better than the %.4f bits per byte of "
            "step %d",
            self.step, self.recipe.steps, patience, e.best, e.best_step,
        )  # fmt: skip
        events.write(
            "training.ended_early", step=self.step, steps=self.recipe.steps, patience=patience, best_step=e.best_step,
            bits_per_byte=e.best,
        )  # fmt: skip

    # --- back to a checkpoint -----------------------------------------------------------------------------------

    def resume(self, before: float = math.inf) -> None:
        """Continue from the newest whole checkpoint of a step under `before`, if there is one; else from step 0."""
        if before == math.inf:
            found = checkpoints.newest_whole(self.run)
        else:
            folders = (f for f in checkpoints.checkpoint_folders(self.run) if checkpoints.step_of(f) < before)
            found = next((folder for folder in folders if not damage(folder)), None)
        if found is not None or self.step > 0:
            self._restore(found)

    def _begin(self) -> None:
        """The weights before the first step: drawn, or those of the model that the run starts from.

        Ranks that only help get theirs from rank 0.
        """
        self.model.initialize(self.recipe.settings.training.seed)
        if "start" in self.recipe.text and self.leads:
            problem = damage(self.run.start)
            if not problem and start_identity(self.run) != self.recipe.text["start"]:
                problem = "it is not the model that this run was started with"
            if problem:
                raise UserError(
                    f"could not use the model in {self.run.start}", problem,
                    "restore it from a backup, or import the model into a new run", EXIT_DAMAGED,
                )  # fmt: skip
            store.start_from(self.model, store.read_weights(self.run.start))

    def _restore(self, folder: Path | None) -> None:
        """Put the numbers of a checkpoint in place; None: those of the beginning."""
        if folder is None:
            self._begin()
            if self.roots is not None:
                self.roots.use(self.roots.first_codes)
            for optimizer in self.optimizers:
                for tensor in optimizer.state.values():
                    tensor.zero_()
            self.step, self.tokens_seen, self.updates = 0, 0, 0
            self.guard, self.evaluations = Guard(), Evaluations()
        else:
            state = checkpoint.restore(folder, self.parameters, self.optimizers)
            if self.roots is not None:
                self.roots.use(TokenCodes.load(folder))
            self.step, self.tokens_seen, self.updates = state["step"], state["tokens"], state["updates"]
            self.guard, self.evaluations = Guard(**state["guard"]), Evaluations(**state["evaluations"])
        self.saved_step, self.saved_at = self.step, time.monotonic()

    def _take_up(self, stop: StopRequest, events: EventLog) -> None:
        """Bring in order what depends on settings that may have changed, and what an interruption has cost."""
        e = self.evaluations
        if e.ended:  # and yet training goes on, because more was asked for
            e.ended, e.ended_after, e.stale = 0, 0, 0
        if self.recipe.best_counts:
            checkpoint.mark_best(self.run, e.best_step)
        self._hand_over(self._evaluation_to_repeat(), stop, events)

    def _go_back(self, stop: StopRequest, events: EventLog) -> None:
        """Too many steps in a row were dropped: back to the last good checkpoint, and on with other text."""
        guard, fell = self.guard, self.step
        if guard.hopeless:
            raise UserError(
                f"training stopped at step {fell}",
                f"{DROPS_IN_A_ROW} steps in a row had to be dropped, and going back to a checkpoint and leaving out "
                f"the text of these steps has not helped {ROLLBACKS - 1} times",
                "train again in a new run with a lower optimizer.learning_rate, or precision fp32; the checkpoints "
                "of this one stay usable",
            )
        self._wait_for_the_scribe(stop, events)
        folder = self.run.checkpoints / checkpoints.checkpoint_name(guard.anchor)
        problem = damage(folder) if guard.anchor else ""
        if problem:
            if guard.anchor == self.computed_again:
                raise UserError(
                    f"could not go back to step {guard.anchor}", f"{problem}, a second time",
                    f"check the disk of {self.run.checkpoints}, then give the same command again", EXIT_DAMAGED,
                )  # fmt: skip
            log.warning("checkpoint %s is damaged (%s); it is computed again", folder.name, problem)
            self.computed_again = guard.anchor
            self.resume(before=guard.anchor)
        else:
            self._restore(folder if guard.anchor else None)
            guard.go_back(fell, self.guard)
            self.guard = guard
        log.warning("back from step %d to step %d; the text of the steps between is left out", fell, self.step)
        events.write(
            "training.rollback", step=fell, to=self.step, skipped=self.guard.skipped, rollbacks=self.guard.rollbacks
        )
        if self.recipe.best_counts:
            checkpoint.mark_best(self.run, self.evaluations.best_step)
        if not problem:
            # Saved again with what the guard knows now; checkpoints of the steps that are given up leave with that.
            self._hand_over({"checkpoint"} | self._evaluation_to_repeat(), stop, events)

    def _evaluation_to_repeat(self) -> set[str]:
        """The evaluation of this step, when its checkpoint was made but not its result recorded."""
        waited_for = self.recipe.best_counts and self.evaluations.pending == self.step
        return {"evaluation"} if waited_for else set()


def _one_block(prompt: str, text: str) -> str:
    shown = visible(f"{prompt.strip()}▸{text}".rstrip())
    return "\n    │ ".join(["", *shown.split("\n")])


def _finite(value: float) -> float | None:
    """JSON has no NaN: None says that a number was not usable."""
    return value if math.isfinite(value) else None
