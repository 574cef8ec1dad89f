"""The live view of a run: progress, measurements and workers, drawn in place from its events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from crystalline.cli.output import count, duration, size
from crystalline.cli.terminal import Line, Live, Part, bar, columns_of, sparkline
from crystalline.errors import UserError

DRAW_SECONDS = 0.2  # shortest time between two drawings
WORKING = ("preparing", "training", "paused")  # states in which more will come
LABEL = 10  # columns of the names at the left
STATE_STYLES = {"training": "good", "done": "good", "paused": "warn", "stopped": "warn", "preparing": "dim"}


@contextmanager
def shown(root: str, stream: TextIO) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Inside this block the run's training is shown on `stream`; call what it gives after each event."""
    from crystalline.pipeline.status import Standing

    standing = Standing(root)
    with Live(stream) as live:
        began, drawn = False, 0.0

        def draw() -> None:
            nonlocal drawn
            drawn = time.monotonic()
            with suppress(OSError, UserError):  # a view that cannot be drawn must not end the training
                standing.catch_up()
                live.draw(lines(standing.facts(), live.size()[0], live.unicode))

        def on_event(event: dict[str, Any]) -> None:
            nonlocal began
            began = began or event["kind"] == "training.started"
            if began and time.monotonic() - drawn >= DRAW_SECONDS:
                draw()

        try:
            yield on_event
        finally:
            if began:
                draw()


def watch(root: str, stream: TextIO) -> None:
    """Show the run on `stream` until no process works in it any more."""
    from crystalline.pipeline.status import Standing

    standing = Standing(root)
    with Live(stream) as live:
        while True:
            standing.catch_up()
            facts = standing.facts()
            live.draw(lines(facts, live.size()[0], live.unicode))
            if facts["state"] not in WORKING:
                return
            time.sleep(DRAW_SECONDS)


def lines(facts: dict[str, Any], columns: int, fine: bool = True) -> list[Line]:
    """What `Standing.facts` tells, for a terminal of so many columns. fine: it has more than ASCII."""
    found = [_head(facts, columns), _progress(facts, columns, fine)]
    if facts["loss"] is not None:
        text = f"{facts['loss']:.3f} nats"
        curve = sparkline([y for _, y in facts["curve"]], max(0, min(40, columns - LABEL - len(text) - 4)), fine)
        found.append([_label("loss"), (text, "bold"), (f"  {curve}", "bar")])
    found += [[_label(name), (f"{separator(fine).join(texts)}", "")] for name, texts in _rows(facts) if texts]
    spheres = facts["spheres"]
    width = max(4, min(20, columns - 66))
    found += [_sphere(sphere, width, fine) for sphere in spheres]
    return found


def separator(fine: bool) -> str:
    """Between things on one line."""
    return " · " if fine else ", "


def _head(facts: dict[str, Any], columns: int) -> Line:
    state, left = facts["state"], facts["seconds_left"]
    time_left = f"{duration(left)} left" if left is not None and state == "training" else ""
    room = columns - 1 - len(state) - len(time_left) - 4
    name = facts["run"] if columns_of(facts["run"]) <= room else "..." + facts["run"][-max(1, room - 3) :]
    gap = " " * max(2, columns - 1 - columns_of(name) - 2 - len(state) - len(time_left))
    return [(name, "bold"), ("  ", ""), (state, STATE_STYLES.get(state, "")), (gap, ""), (time_left, "bold")]


def _progress(facts: dict[str, Any], columns: int, fine: bool) -> Line:
    step, steps = facts["step"], facts["steps"]
    text = f"  step {step:,}/{steps:,}  {step / steps:4.0%}" if steps else f"  step {step:,}"
    full, empty = bar(step / steps if steps else 0.0, max(0, columns - 1 - len(text)), fine)
    return [(full, "bar"), (empty, "dim"), (text, "")]


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(name, texts) of what is measured, those that are known."""
    f = facts
    held_out = []
    if f["bits_per_byte"] is not None:
        held_out = [f"{f['bits_per_byte']:.3f} bits per byte", f"perplexity {f['held_out_perplexity']:.4g}"]
        held_out.append(f"at step {f['evaluated_step']:,}")
    yield "held out", held_out
    speed = [f"{count(f['tokens_per_second'])} tokens/s"] if f["tokens_per_second"] else []
    if f["peak_share"] is not None:
        speed.append(f"{f['peak_share']:.0%} of the matrix peak")
    if f["memory"] is not None:
        speed.append(f"memory {size(f['memory'])}")
    yield "speed", speed
    update = [f"norm {f['gradient_norm']:.3g}"] if f["gradient_norm"] is not None else []
    if f["learning_rate"] is not None:
        update.append(f"rate {f['learning_rate']:.3g}, {f['rate']:.0%} of its peak")
    yield "gradient", update
    guard = [f"{f['drops']:,} {'step' if f['drops'] == 1 else 'steps'} dropped"] if f["drops"] else []
    if f["rollbacks"]:
        guard.append(f"{f['rollbacks']:,} {'rollback' if f['rollbacks'] == 1 else 'rollbacks'}")
    yield "guard", guard


def _sphere(sphere: dict[str, Any], width: int, fine: bool) -> Line:
    parts: list[Part] = [_label(f"sphere {sphere['number']}")]
    share = sphere.get("share")
    if share is not None:
        full, empty = bar(share, width, fine)
        parts += [(full, "good"), (empty, "dim"), (f" {share:4.0%} busy", "")]
    told = []
    if "positions" in sphere:
        told.append(f"{sphere['positions']:,} positions")
    if sphere.get("steals"):
        told.append(f"{sphere['steals']:,} taken over")
    if sphere.get("memory"):
        told.append(size(sphere["memory"]))
    if sphere.get("errors"):
        told.append(f"{sphere['errors']:,} errors")
    return [*parts, (f"  {separator(fine).join(told)}", "")]


def _label(name: str) -> Part:
    return f"{name:{LABEL}}", "dim"
