"""Signals that end a run after the update that is being made."""

import contextlib
import logging
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals(contextlib.AbstractContextManager["StopSignals"]):
    """Notes the first SIGTERM or SIGINT while the context lasts; a second one does what it did before the context.

    Outside the main thread, where Python allows no handlers, nothing is noted.

    Attributes:
      received: whether a signal has come.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in SIGNALS:
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        self._restore()
        text = "%s: the run ends after the current update, with a checkpoint; the same signal again ends it at once"
        # In a thread of its own: the signal may have interrupted a write to the very stream that the logger writes to.
        threading.Thread(target=logger.warning, args=(text, signal.Signals(number).name), daemon=True).start()
