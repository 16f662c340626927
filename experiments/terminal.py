"""What a command shows of a run: a line that is rewritten on a terminal, plain lines elsewhere."""

import logging
import sys

from tqdm import tqdm


class Terminal:
    """Progress on stderr if that is a terminal, else on stdout; lines that stay go to stdout.

    Attributes:
      every: seconds between two lines of progress, at least.
    """

    def __init__(self) -> None:
        self._bar = tqdm(bar_format="{desc}", dynamic_ncols=True, leave=False) if sys.stderr.isatty() else None
        self.every = 30.0 if self._bar is None else 1.0

    def say(self, text: str) -> None:
        """Shows a line that stays."""
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)

    def progress(self, text: str) -> None:
        """Shows a line of progress, in place of the one before on a terminal."""
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.set_description_str(text)


class _Handler(logging.Handler):
    """Shows records of the package's loggers as plain lines."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__(logging.INFO)
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        self._terminal.say(self.format(record))


def show_log(terminal: Terminal) -> None:
    """Shows what the package logs from level INFO on; for commands, once."""
    logger = logging.getLogger("ghn_jax")
    logger.setLevel(logging.INFO)
    logger.addHandler(_Handler(terminal))
    logger.propagate = False  # some dependencies give the root logger a handler of their own
