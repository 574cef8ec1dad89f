"""Training on several processes or machines: one Node Zero above the others.

Rank 0 runs the training loop. Its team is this `Cluster`: it tells all ranks what to do, one order at a time, as
each Node Zero tells its workers. In a step every rank gets the weights from rank 0, computes its share of
the positions, and its sum is added to rank 0's, which then updates the weights. Sums are integers, so it does not
matter who computes what: the bits are those of a single process. The other ranks keep nothing from step to step, so
there is nothing in which they could come to differ, and only rank 0 has anything to save.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from crystalline import __version__
from crystalline.errors import UserError
from crystalline.model import checkpoints
from crystalline.run_folder import SEAL, RunFolder, reporting_os_errors
from crystalline.training.link import Link, Lost, Ranks
from crystalline.training.node_zero import LocalTeam, Stopped, Wanted
from crystalline.training.position import PositionResult
from crystalline.training.recipe import Recipe, machine
from crystalline.training.workspace import TOTAL, Workspace

log = logging.getLogger("crystalline.training")
MEETING_PATIENCE = 300.0  # seconds that ranks may need to start; one may have to load everything from a slow disk


class Cluster:
    """All ranks as one team. Rank 0 gives it orders like any other `Team`; on the other ranks it does `follow`.

    make_team: makes the team of this rank, given what to ask whether to stop.
    stop: whether this rank is asked to stop; when one is, all are.
    """

    def __init__(
        self,
        ranks: Ranks,
        workspace: Workspace,
        make_team: Callable[[Callable[[], bool]], LocalTeam],
        stop: Callable[[], bool],
    ) -> None:
        self.ranks, self.workspace = ranks, workspace
        # Before the team, whose workers are forked: the messenger must not hold the ends of their pipes.
        self.link = Link(ranks, {"weights": workspace.memory["weights"], "sum": workspace.sum_of(TOTAL)}, stop)
        self.team = make_team(self.link.pass_on_stop)
        self.in_step_with_others = True
        try:
            self.workers = self._count()
        except Lost:
            self.in_step_with_others = False
            self.close()
            raise
        positions = workspace.recipe.settings.training.positions
        if ranks.leads and sum(self.workers) > positions:
            log.warning(
                "%d of %d workers have nothing to do: a step has %d positions (a new run can have 144, with "
                "training.positions)",
                sum(self.workers) - positions,
                sum(self.workers),
                positions,
            )

    # --- orders, on rank 0 ----------------------------------------------------------------------------------

    def positions(self, step: int, targets_in_step: int) -> list[PositionResult]:
        results: list[PositionResult] | None = self._all("_positions", step, targets_in_step)
        if results is None:
            raise Stopped
        return results

    def reduce(self) -> float:
        self._all("_add_up")
        return self.team.reduce(total=True)

    def update(self, clip: float, share: float, number: int) -> None:
        self.team.update(clip, share, number)

    def resize(self, wanted: Wanted) -> None:
        """Have so many workers on each rank from the next step on."""
        self._all("_resize", wanted)

    def rebalance(self) -> None:
        self._all("_rebalance")

    def shares(self) -> dict[str, float]:
        """Of the workers of rank 0."""
        return self.team.shares()

    def spheres(self) -> list[dict[str, Any]]:
        """As of any team; "rank" says where each worker is."""
        found: list[list[dict[str, Any]]] = self._all("_spheres")
        return [
            {**sphere, "rank": rank, "number": sum(map(len, found[:rank])) + index}
            for rank, spheres in enumerate(found)
            for index, sphere in enumerate(spheres)
        ]

    def close(self) -> None:
        if self.ranks.leads and self.in_step_with_others:
            with suppress(Lost):
                self._all("_leave")
        self.link.close()
        self.team.close()

    def _all(self, order: str, *arguments: Any) -> Any:
        """Have all ranks do it, this one too; its own result."""
        self.in_step_with_others = False  # and so it stays when something goes wrong in the middle
        self.link.say((order, arguments))
        result = getattr(self, order)(*arguments)
        self.in_step_with_others = True
        return result

    # --- what all ranks do ----------------------------------------------------------------------------------

    def follow(self) -> None:
        """Do what rank 0 says until it ends the training."""
        order = ""
        while order != "_leave":
            order, arguments = self.link.say()
            getattr(self, order)(*arguments)

    def _positions(self, step: int, targets_in_step: int) -> list[PositionResult] | None:
        """The results of all ranks; None when one was asked to stop meanwhile."""
        self.link.send("weights")
        count = self.workspace.recipe.settings.training.positions
        try:
            mine = self.team.positions(step, targets_in_step, share(count, self.workers, self.ranks.rank))
        except Stopped:
            mine = None
        every = self.link.collect(mine)
        return None if None in every else [result for part in every for result in part]

    def _add_up(self) -> None:
        self.team.total()
        self.link.add_up("sum")

    def _resize(self, wanted: Wanted) -> None:
        self.team.resize(wanted)
        self.workers = self._count()

    def _rebalance(self) -> None:
        self.team.rebalance()

    def _spheres(self) -> list[list[dict[str, Any]]]:
        return self.link.collect(self.team.spheres())

    def _leave(self) -> None:
        self.link.leave()

    def _count(self) -> list[int]:
        """How many workers each rank has."""
        return self.link.collect(max(1, len(self.team.spheres())))


def share(positions: int, workers: list[int], rank: int) -> range:
    """The positions of a rank: neighbours in the tree of twelve, as many as it has workers among all."""
    before, every = sum(workers[:rank]), sum(workers)
    return range(positions * before // every, positions * (before + workers[rank]) // every)


# --- before training ------------------------------------------------------------------------------------------


class Meeting:
    """What the ranks settle before they train. Each method is called by all of them, in the same order.

    one_folder: whether this rank works in the same run folder as rank 0.
    """

    def __init__(self, run: RunFolder, link: Link) -> None:
        self.run, self.link = run, link
        mark = run.root / f".cluster.{uuid.uuid4().hex[:8]}.partial"  # a lock removes it, should a kill leave it
        if link.ranks.leads:
            with reporting_os_errors(f"write to {run.root}"):
                mark.touch()
        try:
            self.one_folder = (run.root / link.say(mark.name)).exists()
            link.collect(None)  # all have looked
        finally:
            mark.unlink(missing_ok=True)

    def agree(self, recipe: Recipe | None = None, step: int = 0) -> tuple[Recipe, int]:
        """Rank 0's recipe, and the step from which it goes on. Called when the text is prepared.

        Raises UserError, on all ranks, when one has another text, or a newer checkpoint than rank 0.
        """
        value, step = self.link.say((recipe.to_json(), step) if recipe else None)
        agreed = Recipe.from_json(value)
        folders = checkpoints.checkpoint_folders(self.run)
        every = self.link.collect(
            {
                "text": _text(self.run),
                "step": checkpoints.step_of(folders[0]) if folders else 0,
                "machine": machine(agreed.device) | {"crystalline": __version__},
            }
        )
        others = [rank for rank, its in enumerate(every) if its["text"] != every[0]["text"]]
        if others:
            raise UserError(
                "could not train together",
                f"ranks {', '.join(map(str, others))} have prepared another text (or tokenizer) than rank 0",
                "give all machines the same documents and settings, or one run folder on a shared disk",
            )
        newer = [rank for rank, its in enumerate(every) if its["step"] > max(step, every[0]["step"])]
        if newer:
            raise UserError(
                "could not train together",
                f"rank 0 is at step {step}, but rank {newer[0]} has a checkpoint of step {every[newer[0]]['step']}",
                "start that machine as rank 0 (torchrun --node-rank 0), or copy its run folder to that of rank 0",
            )
        if self.link.ranks.leads:
            for rank, its in enumerate(every):
                if changes := [name for name, v in its["machine"].items() if v != every[0]["machine"][name]]:
                    log.warning(
                        "rank %d differs from rank 0 (%s): the last bits of the weights may be other ones than those "
                        "of a single machine",
                        rank,
                        ", ".join(f"{n}: {its['machine'][n]}, not {every[0]['machine'][n]}" for n in changes),
                    )
        return agreed, step

    def ready(self) -> None:
        """Wait until all are ready to train. The meeting is over."""
        self.link.leave()


@contextmanager
def meeting(run: RunFolder, ranks: Ranks | None) -> Iterator[Meeting | None]:
    """`with meeting(run, ranks) as others:` others is None when this process trains by itself."""
    if ranks is None:
        yield None
        return
    link = Link(ranks, patience=MEETING_PATIENCE)
    try:
        yield Meeting(run, link)
    finally:
        link.close()


def _text(run: RunFolder) -> str:
    """A hash of everything that positions are made of: token numbers, their order, their codes."""
    seals = [(folder / SEAL).read_bytes() for folder in (run.tokenizer, run.shards)]
    return hashlib.sha256(b"".join(seals)).hexdigest()
