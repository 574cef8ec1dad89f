"""What happens in a run, for the TensorBoard program: RUN/tensorboard, made from the events.

The events are the record and this folder is a copy in another form. It is made anew whenever training starts, so it
is complete, also from before it was asked for, and holds no step twice. Nothing here can hurt a run: when the folder
cannot be written, that is told once and training goes on.
"""

from __future__ import annotations

import logging
import math
import shutil
import sys
import time
from typing import Any

from crystalline.errors import UserError
from crystalline.events import read
from crystalline.pipeline.status import busy_share
from crystalline.run_folder import RunFolder

log = logging.getLogger("crystalline")


def check() -> None:
    """Raise UserError when the tensorboard package cannot be loaded."""
    try:
        import tensorboard.compat.proto.event_pb2
        import tensorboard.summary.writer.record_writer  # noqa: F401
    except ImportError as error:
        raise UserError(
            "could not write for TensorBoard",
            f"the package 'tensorboard' is not installed here ({error})",
            f"{sys.executable} -m pip install tensorboard (or leave --tensorboard out)",
        ) from error


class Follower:
    """Writes RUN/tensorboard: what the events say so far at once, and each later one when `take` is given it."""

    def __init__(self, run: RunFolder) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._step, self._tokens, self._began = 0, 0, 0.0
        self._writer = None
        try:
            shutil.rmtree(run.tensorboard, ignore_errors=True)
            run.tensorboard.mkdir()
            # The name that the tensorboard program looks for. No writer of this package's is used: they start a
            # thread, and a process with threads cannot safely fork its workers.
            name = f"events.out.tfevents.{int(time.time())}.crystalline"
            self._writer = RecordWriter(open(run.tensorboard / name, "wb"))
            self._put(time.time(), file_version="brain.Event:2")
            self._forget(time.time(), 0)  # what a running program has read from a file before this one
            for event in read(run.events):
                self._take(event, flush=False)
            self._flush()
        except OSError as error:
            self._give_up(error)

    def take(self, event: dict[str, Any]) -> None:
        """Write what `event` says."""
        try:
            self._take(event, flush=True)
        except OSError as error:
            self._give_up(error)

    def _take(self, event: dict[str, Any], flush: bool) -> None:
        if self._writer is None:
            return
        write = {
            "training.planned": self._planned,
            "training.started": self._started,
            "training.step": self._stepped,
            "training.evaluation": self._evaluated,
            "training.sample": self._sampled,
            "training.spheres": self._spheres,
            "training.rollback": self._rolled_back,
        }.get(event["kind"])
        if write is not None:
            write(event)
            if flush:
                self._flush()

    def close(self) -> None:
        """Write what is left and end."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            try:
                writer.close()
            except OSError as error:
                log.warning("the folder for TensorBoard is not complete: %s", error)

    # --- what each kind of event says -----------------------------------------------------------------------

    def _planned(self, event: dict[str, Any]) -> None:
        settings = event["recipe"]["settings"]
        rows = [f"| {section}.{name} | {value} |" for section, t in settings.items() for name, value in t.items()]
        self._text(event, "recipe", "\n".join(["| setting | value |", "|---|---|", *rows]))

    def _started(self, event: dict[str, Any]) -> None:
        self._began = event["time"]

    def _stepped(self, event: dict[str, Any]) -> None:
        if event["step"] <= self._step:  # done again, after a kill or a rollback
            self._forget(event["time"], event["step"])
            self._tokens = 0
        speed = (event["tokens"] - self._tokens) / event["seconds"] if self._tokens and event["seconds"] else None
        self._step, self._tokens = event["step"], event["tokens"]
        self._scalars(
            event,
            {
                "train/loss": event["loss"],
                "train/gradient_norm": event["gradient_norm"],
                "train/rate": event["rate"],
                "train/tokens": event["tokens"],
                "train/tokens_per_second": speed,
            },
        )

    def _rolled_back(self, event: dict[str, Any]) -> None:
        self._forget(event["time"], event["to"] + 1)
        self._step, self._tokens = event["to"], 0

    def _evaluated(self, event: dict[str, Any]) -> None:
        nats = event["cross_entropy"]
        self._scalars(
            event,
            {
                "held_out/bits_per_byte": event["bits_per_byte"],
                "held_out/cross_entropy": nats,
                "held_out/perplexity": math.exp(min(nats, 88.0)),  # the format's numbers end at e^88.7
            },
        )

    def _sampled(self, event: dict[str, Any]) -> None:
        # Four spaces make it a block in Markdown, where nothing in it means anything.
        text = f"{event['prompt']}▸{event['text']}"
        self._text(event, "sample", "\n".join(f"    {line}" for line in text.splitlines()))

    def _spheres(self, event: dict[str, Any]) -> None:
        elapsed = event["time"] - self._began if self._began else None
        shares = {f"spheres/busy_{s['number']}": busy_share(s, elapsed) for s in event["spheres"]}
        self._scalars(event, {**shares, "machine/memory_bytes": event.get("memory")})

    # --- the file --------------------------------------------------------------------------------------------

    def _scalars(self, event: dict[str, Any], values: dict[str, float | None]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        known = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
        self._put(event["time"], event["step"], summary=Summary(value=known))

    def _text(self, event: dict[str, Any], tag: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

        value = Summary.Value(
            tag=tag,
            metadata=SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text")),
            tensor=TensorProto(
                dtype="DT_STRING",
                tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
                string_val=[text.encode("utf-8", "replace")],
            ),
        )
        self._put(event["time"], event.get("step", 0), summary=Summary(value=[value]))

    def _forget(self, at: float, step: int) -> None:
        """Have the reader drop everything from `step` on."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._put(at, step, session_log=SessionLog(status=SessionLog.START))

    def _put(self, at: float, step: int = 0, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        assert self._writer is not None
        self._writer.write(Event(wall_time=at, step=step, **fields).SerializeToString())

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def _give_up(self, error: OSError) -> None:
        log.warning("TensorBoard is not written any more: %s; training goes on", error)
        self._writer = None
