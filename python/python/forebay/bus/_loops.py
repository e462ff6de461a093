"""Event loops: those of asyncio and its like, and the runs of trio.

trio is not imported here: where a program uses it, it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar


class TrioToken(Protocol):
    """A run of trio, as ``trio.lowlevel.current_trio_token()`` returns it."""

    def run_sync_soon(self, sync_fn: Callable[..., Any], *args: Any) -> None:
        """Calls a function in the run, from any thread."""


#: A loop of asyncio, or another that has its ``call_soon_threadsafe`` and ``create_task``; or a run of trio.
Loop = asyncio.AbstractEventLoop | TrioToken

_Result = TypeVar("_Result")


def _trio() -> Any:
    """Returns the module ``trio`` in a task of it, and else ``None``."""
    trio = sys.modules.get("trio")
    # The attribute is there once its import is done.
    lowlevel = getattr(trio, "lowlevel", None)
    return trio if lowlevel is not None and lowlevel.in_trio_task() else None


def here() -> Loop | None:
    """Returns the loop that runs on this thread."""
    trio = _trio()
    if trio is not None:
        return trio.lowlevel.current_trio_token()  # type: ignore[no-any-return]
    return asyncio._get_running_loop()


def key(loop: Loop | None) -> int:
    """Returns the number of a loop; 0 for none."""
    return 0 if loop is None else id(loop)


def call_soon(loop: Loop, function: Callable[..., Any], *args: Any) -> None:
    """Has a loop call a function. For any thread."""
    if hasattr(loop, "run_sync_soon"):
        loop.run_sync_soon(function, *args)
    else:
        loop.call_soon_threadsafe(function, *args)


def spawn(loop: Loop, function: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> object:
    """Starts a task, on the thread of its loop. Returns it: loops of asyncio hold their tasks weakly."""
    if hasattr(loop, "run_sync_soon"):
        return sys.modules["trio"].lowlevel.spawn_system_task(function, *args)
    return loop.create_task(function(*args))


async def in_thread(function: Callable[..., _Result], *args: Any) -> _Result:
    """Calls a function on a thread, while the loop that runs here goes on."""
    trio = _trio()
    if trio is not None:
        return await trio.to_thread.run_sync(function, *args)  # type: ignore[no-any-return]
    return await asyncio.to_thread(function, *args)


async def wait(begin: Callable[[Callable[[], object]], bool], timeout: float) -> None:
    """Waits until a function is called, or for ``timeout`` seconds.

    ``begin`` gets the function, which may be called on any thread, and returns whether there is something to wait for.

    Raises:
        RuntimeError: The loop that runs here is neither of asyncio nor of trio.
    """
    trio, loop = _trio(), asyncio._get_running_loop()
    if trio is not None:
        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        if begin(lambda: token.run_sync_soon(event.set)):
            with trio.move_on_after(timeout):
                await event.wait()
    elif loop is not None:
        waiter = loop.create_future()
        if begin(lambda: loop.call_soon_threadsafe(_resolve, waiter)):
            await asyncio.wait((waiter,), timeout=timeout)
    else:
        raise RuntimeError("an emission can be awaited in asyncio and trio only: call its wait() on a thread")


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def run(runner: asyncio.Runner) -> None:
    """Runs a loop of asyncio until it is stopped, then cancels what runs on it."""
    with runner:
        runner.get_loop().run_forever()


def stop(loop: asyncio.AbstractEventLoop) -> None:
    """Stops a loop of asyncio, from another thread."""
    with contextlib.suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(loop.stop)
