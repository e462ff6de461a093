"""The line that tells of a close that takes long."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

from forebay._forebay import Work

logger = logging.getLogger("forebay")

#: The seconds after which a close takes long.
PATIENCE = 1.0
#: The seconds between two lines.
INTERVAL = 0.5


class Progress:
    """Tells how much a close has left to do: by a line on a terminal or in a notebook, else by a message to the logger.

    The thread that closes tells it, so that it must not wait.

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
        self._screen: _Screen | None = None
        self._has_told = False

    def follow(self, work: Work | None) -> Any:
        """Waits until some work is done, tells how much is left where that takes long, and returns the result of the work.

        What a handler of a signal raises meanwhile, such as ``KeyboardInterrupt``, is raised when the work is done: it has a deadline, and
        a close that ended halfway would lose what was to be written.
        """
        if work is None:
            return None
        seconds = max(0.0, self._began + PATIENCE - self._clock())
        interruption: BaseException | None = None
        while True:
            try:
                if work.wait(seconds):
                    break
                seconds = INTERVAL
                self.tell(work.pending)
            except Exception:  # noqa: BLE001 - a line that fails harms nothing
                pass
            except BaseException as error:  # noqa: BLE001 - raised below
                interruption = interruption or error
        if interruption is not None:
            raise interruption
        return work.result()

    def tell(self, left: int) -> None:
        """Tells how many events are left, and how long the close may take yet."""
        seconds = max(0.0, self._began + self._timeout - self._clock())
        said = f"closing {self._what}: {left:,} {'event' if left == 1 else 'events'} left, {seconds:.0f} s at most"
        if not self._has_told:
            self._has_told = True
            self._screen = _screen()
            if self._screen is None:
                logger.info("%s", said)
        if self._screen is not None:
            self._screen.write(f"\r\x1b[Kforebay: {said}")

    def end(self) -> None:
        """Ends the line, if there is one."""
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.write("\n")
            screen.close()


class _Screen(Protocol):
    """What somebody looks at. Its ``write`` never waits, and fails for nothing that is the screen's."""

    def write(self, text: str) -> None:
        """Shows a text."""

    def close(self) -> None:
        """Ends what was opened for it."""


class _Terminal:
    """A terminal, opened once more: so that no write waits, and that of the program is as it was.

    Where the terminal is stopped (by Ctrl-S), or nobody reads what comes out of it, the text is left out.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def write(self, text: str) -> None:
        """Shows a text, or leaves it out."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode("utf-8", "replace"))

    def close(self) -> None:
        """Closes the terminal that was opened."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class _Notebook:
    """The output of a cell, which a thread of the notebook sends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Shows a text below the cell."""
        # The notebook is gone: the close goes on.
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def close(self) -> None:
        """Leaves the cell open, which is the notebook's."""


def _screen() -> _Screen | None:
    """Returns what is behind standard error, if somebody looks at it: a terminal or a notebook."""
    stream = sys.stderr
    if stream is None:
        return None
    if type(stream).__module__.startswith("ipykernel"):
        return _Notebook(stream)
    try:
        return _Terminal(os.ttyname(stream.fileno())) if stream.isatty() else None
    except (AttributeError, OSError, ValueError):
        return None
