"""The line that tells of a close that takes long."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import TextIO

logger = logging.getLogger("forebay")

#: The seconds after which a close takes long.
PATIENCE = 1.0


class Progress:
    """Tells how much a close has left to do: by a line on a terminal or in a notebook, else by a message to the logger.

    Args:
        what: What is closed.
        timeout: The most seconds that the close takes.
        clock: What tells the time, in seconds.
    """

    def __init__(self, what: str, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._began = clock()
        self._timeout = timeout
        self._stream: TextIO | None = None
        self._has_told = False
        self._is_writing = False

    def watcher(self) -> tuple[float, Callable[[int], None]]:
        """Returns the seconds until the close takes long, and what is then called with the number of events that are left."""
        return max(0.0, self._began + PATIENCE - self._clock()), self.tell

    def tell(self, left: int) -> None:
        """Tells how many events are left, and how long the close may take yet."""
        seconds = max(0.0, self._began + self._timeout - self._clock())
        said = f"closing {self._what}: {left:,} {'event' if left == 1 else 'events'} left, {seconds:.0f} s at most"
        if not self._has_told:
            self._has_told = True
            self._stream = _terminal()
            if self._stream is None:
                logger.info("%s", said)
        self._write(f"\r\x1b[Kforebay: {said}")

    def end(self) -> None:
        """Ends the line, if there is one."""
        # A watcher that is still at it hangs in a terminal that is stopped, where this would hang as well.
        if not self._is_writing:
            self._write("\n")

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._is_writing = True
            try:
                self._stream.write(text)
                self._stream.flush()
            except (OSError, ValueError):
                # The terminal is gone. The close goes on.
                self._stream = None
            finally:
                self._is_writing = False


def _terminal() -> TextIO | None:
    """Returns standard error, if somebody looks at it: in a terminal or a notebook."""
    stream = sys.stderr
    if stream is None or type(stream).__module__.startswith("ipykernel"):
        return stream
    try:
        return stream if stream.isatty() else None
    except (AttributeError, ValueError):
        return None
