"""Ctrl-C and SIGTERM: the first asks the loop to save and end, a second one ends at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

from crystalline.errors import EXIT_INTERRUPTED


class StopRequest:
    """`with StopRequest() as stop:` then look at `stop.asked` between positions.

    patient: also a second signal only asks. torchrun may send several; it kills those who take too long.
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked, self.patient = False, patient
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers; elsewhere (a page's worker thread) the caller sets `asked`.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and background jobs of scripts ignore some
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked and not self.patient:
            os._exit(EXIT_INTERRUPTED)
        self.asked = True
