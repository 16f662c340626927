"""Progress of long work: what it is doing, how fast it was in the last minute, when it should end."""

import collections
import logging
import time
from typing import Protocol

logger = logging.getLogger(__name__)

WINDOW = 60.0
"""Seconds over which the rate is measured."""

FIRST_ESTIMATE = 10.0
"""Seconds of work before an end is estimated."""


class Reporter(Protocol):
    """Where text about a run goes; a command hands in one that writes to its terminal.

    Attributes:
      every: seconds between two lines of progress, at least.
    """

    every: float

    def say(self, text: str) -> None:
        """Shows a line that stays."""
        ...

    def progress(self, text: str) -> None:
        """Shows a line of progress, which the next one may replace."""
        ...


class LogReporter:
    """Writes to the logger of this module, at level INFO."""

    def __init__(self, every: float = 30.0) -> None:
        self.every = every

    def say(self, text: str) -> None:
        """Logs a line."""
        logger.info("%s", text)

    def progress(self, text: str) -> None:
        """Logs a line."""
        logger.info("%s", text)


class Progress:
    """Counts steps and reports the rate of the last minute.

    Args:
      total: steps in all.
      done: steps made before.
      what: name of the work, such as "train".
      reporter: where lines go; default: the log.
      waiting: what the work does while it waits, such as "compiling".
      limit: seconds from now after which the work ends in any case.
    """

    def __init__(
        self,
        total: int,
        done: int,
        what: str,
        reporter: Reporter | None = None,
        *,
        waiting: str = "waiting",
        limit: float | None = None,
    ) -> None:
        self._total, self._done, self._what, self._waiting = total, done, what, waiting
        self._reporter: Reporter = LogReporter() if reporter is None else reporter
        start = time.monotonic()
        self._end = None if limit is None else start + limit
        self._waited = 0.0
        self._points = collections.deque([(start, done, 0.0)])
        self._shown = start - self._reporter.every

    def advance(self, text: str, steps: int = 1, waited: float = 0.0) -> None:
        """Counts steps, of whose time `waited` seconds were spent waiting, and shows `text` if a line is due."""
        now = time.monotonic()
        self._done += steps
        self._waited += waited
        self._points.append((now, self._done, self._waited))
        while len(self._points) > 2 and self._points[1][0] <= now - WINDOW:
            self._points.popleft()
        if now - self._shown >= self._reporter.every or self._done == self._total:
            self._show(now, text)

    def wait(self, text: str) -> None:
        """Shows what is waited for, if a line is due."""
        now = time.monotonic()
        if now - self._shown >= self._reporter.every:
            self._shown = now
            self._reporter.progress(f"{self._what} {self._done}/{self._total}  {self._waiting}  {text}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._reporter.say(text)

    def _show(self, now: float, text: str) -> None:
        self._shown = now
        since, done, waited = self._points[0]
        seconds = max(now - since, 1e-9)
        rate = (self._done - done) / seconds
        is_waiting = self._waited - waited > 0.5 * seconds
        phase = f"  {self._waiting}" if is_waiting else ""
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
        left = self._left(now, None if is_waiting or seconds < FIRST_ESTIMATE else rate)
        self._reporter.progress(f"{self._what} {self._done}/{self._total}{phase}  {text}  {speed}  {left}")

    def _left(self, now: float, rate: float | None) -> str:
        limit = None if self._end is None else max(self._end - now, 0.0)
        if self._done >= self._total:
            return "done"
        if rate:
            by_rate = (self._total - self._done) / rate
            return f"{(by_rate if limit is None else min(by_rate, limit)) / 60:.1f} min left"
        return "no estimate yet" if limit is None else f"at most {limit / 60:.1f} min left"
