"""The end of a process: what is open then is closed."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from types import FrameType
from typing import Protocol


class Closable(Protocol):
    """What can be open at the end of a process."""

    #: Its turn: 0 for a bus, whose handlers may use a run; 1 for a run or a writer; 2 for a collector, which runs use.
    _exit_turn: int

    def _close_at_exit(self, timeout: float) -> None:
        """Closes it, within so many seconds."""


#: The most seconds that closing everything takes at the end of a process.
EXIT_TIMEOUT = 10.0

_open: weakref.WeakSet[Closable] = weakref.WeakSet()
_registered_in: int | None = None

#: The exit code of this process, where it is a child of ``multiprocessing`` that ends.
_exit_code: int | None = None


def register(thing: Closable) -> None:
    """Has a writer, a run or a collector closed at the end of the process.

    A child of ``multiprocessing`` ends by ``os._exit``, which no ``atexit`` sees. Its own list of finalizers is run before. A fork
    clears both lists, so they are filled anew in every process.
    """
    global _registered_in
    _open.add(thing)
    if _registered_in == os.getpid():
        return
    _registered_in = os.getpid()
    atexit.register(close_all)
    # Imported in every child of multiprocessing. Elsewhere, `atexit` is enough.
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.Finalize(None, _close_child, exitpriority=100)
        util.register_after_fork(close_all, _finalize_again)
        # Called when threads are waited for, behind everything that the child does. Of the standard library's own, as
        # `concurrent.futures` uses it; where it is missing, no child is known to have failed.
        when_threads_end = getattr(threading, "_register_atexit", None)
        if when_threads_end is not None:
            try:
                when_threads_end(_note_exit_code)
            except RuntimeError:
                pass  # The process ends already.


def _note_exit_code() -> None:
    """Notes how a child of ``multiprocessing`` ends.

    From Python 3.13 on, its finalizers run after the exception that ended it is gone. What is left is its exit code, in the function
    that has called all this.
    """
    global _exit_code
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_bootstrap" and frame.f_globals.get("__name__") == "multiprocessing.process":
            code = frame.f_locals.get("exitcode")
            _exit_code = code if isinstance(code, int) else None
            return
        frame = frame.f_back


def exit_code() -> int | None:
    """Returns the exit code of a child of ``multiprocessing`` that ends, if it is known."""
    return _exit_code


def _finalize_again(_: object) -> None:
    """Registers anew, in a child of ``multiprocessing`` that begins its work: that clears the list of finalizers first.

    What was opened before is from the import of the script, in a child by ``spawn`` or ``forkserver``. The latter ends by ``os._exit``.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _registered_in == os.getpid():
        util.Finalize(None, _close_child, exitpriority=100)


def _forget() -> None:
    """Forgets, in a forked child, what the parent has open: that is the parent's to close."""
    global _open, _registered_in, _exit_code
    _open = weakref.WeakSet()
    _registered_in = _exit_code = None


os.register_at_fork(after_in_child=_forget)


def _close_child() -> None:
    """Closes everything at the end of a child of ``multiprocessing``, behind the last of its threads.

    From Python 3.13 on, threads are waited for before finalizers run. Before, that comes after them, and nothing runs behind it: what a
    thread adds then is lost. So it is done here, by the function that ``multiprocessing`` calls, and that does nothing the second time.
    """
    processes = sys.modules.get("multiprocessing.process")
    if sys.version_info < (3, 13) and processes is not None and processes.parent_process() is not None:
        threading._shutdown()  # type: ignore[attr-defined, unused-ignore]
    close_all()


def close_all() -> None:
    """Closes everything that is open, within ``EXIT_TIMEOUT`` seconds in all."""
    until = time.monotonic() + EXIT_TIMEOUT
    for thing in _in_turn():
        try:
            thing._close_at_exit(max(0.0, until - time.monotonic()))
        except BaseException:  # noqa: BLE001 - nobody is left to see it, and the others are to be closed
            pass


def _in_turn() -> list[Closable]:
    """Returns what is open, in the order in which it is closed."""
    while True:
        try:
            return sorted(_open, key=lambda thing: thing._exit_turn)
        except RuntimeError:
            # Another thread has opened something meanwhile.
            continue
