"""Event loops: those of asyncio and its like, and the runs of trio.

trio is not imported here: where a program uses it, it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar


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
    return trio if lowlevel is not None and _in_task(lowlevel) else None


def _in_task(lowlevel: Any) -> bool:
    """Returns whether a task of trio runs."""
    check = getattr(lowlevel, "in_trio_task", None)
    if check is not None:
        return bool(check())
    # trio before 0.23.
    try:
        lowlevel.current_task()
    except RuntimeError:
        return False
    return True


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


def spawn(
    loop: Loop, context: contextvars.Context, function: Callable[..., Coroutine[Any, Any, None]], *args: Any
) -> object:
    """Starts a task in a context, on the thread of its loop. Returns it: loops of asyncio hold their tasks weakly."""
    if hasattr(loop, "run_sync_soon"):
        return sys.modules["trio"].lowlevel.spawn_system_task(function, *args, context=context)
    # The task gets a copy of the context. Not every loop takes one as an argument.
    return context.run(loop.create_task, function(*args))


async def in_thread(function: Callable[..., _Result], *args: Any, is_shielded: bool = False) -> _Result:
    """Calls a function on a thread of its own, while the loop that runs here goes on.

    No thread of a pool: all of these may be taken, and the interpreter waits for them at its end.

    A task that is cancelled stops waiting, and the thread goes on. Where it ``is_shielded``, it waits for the end of the function first.

    Raises:
        RuntimeError: The loop that runs here is neither of asyncio nor of trio.
        ThreadRefusedError: The system refuses a thread.
    """
    call: _Call[_Result] = _Call(contextvars.copy_context(), function, args)
    await wait(call.begin, math.inf, is_shielded)
    return call.result()


class ThreadRefusedError(RuntimeError):
    """The system refuses a thread."""


class _Call(Generic[_Result]):
    """A call on a thread of its own."""

    def __init__(self, context: contextvars.Context, function: Callable[..., _Result], args: tuple[Any, ...]) -> None:
        self._context = context
        self._function = function
        self._args = args
        self._results: list[_Result] = []
        self._error: BaseException | None = None

    def begin(self, wake: Callable[[], object]) -> bool:
        """Starts the thread, which wakes who waits."""
        # A daemon: the end of the process does not wait for a disk that hangs.
        thread = threading.Thread(target=self._run, args=(wake,), name="forebay-bus-wait", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise ThreadRefusedError(*error.args) from error
        return True

    def _run(self, wake: Callable[[], object]) -> None:
        """Calls the function, and wakes who waits."""
        try:
            self._results.append(self._context.run(self._function, *self._args))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._error = error
        # Where the loop is closed, nobody waits any more.
        with contextlib.suppress(Exception):
            wake()

    def result(self) -> _Result:
        """Returns what the function returned, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._results[0]


async def wait(begin: Callable[[Callable[[], object]], bool], timeout: float, is_shielded: bool = False) -> None:
    """Waits until a function is called, or for ``timeout`` seconds.

    ``begin`` gets the function, which may be called on any thread, and returns whether there is something to wait for. Where it
    ``is_shielded``, a task that is cancelled waits on, and is cancelled then.

    Raises:
        RuntimeError: The loop that runs here is neither of asyncio nor of trio.
    """
    trio, loop = _trio(), asyncio._get_running_loop()
    if trio is not None:
        event, token = trio.Event(), trio.lowlevel.current_trio_token()
        if begin(lambda: token.run_sync_soon(event.set)):
            with trio.CancelScope(deadline=trio.current_time() + timeout, shield=is_shielded):
                await event.wait()
    elif loop is not None:
        waiter = loop.create_future()
        if begin(lambda: loop.call_soon_threadsafe(_resolve, waiter)):
            await _wait_for(waiter, loop.time() + timeout, is_shielded)
    else:
        raise RuntimeError("the bus can be waited for in asyncio and trio only: elsewhere, wait on a thread")


async def _wait_for(waiter: asyncio.Future[None], deadline: float, is_shielded: bool) -> None:
    """Waits for a future of the loop that runs here, until a moment of its clock."""
    cancellation: asyncio.CancelledError | None = None
    while not waiter.done():
        left = deadline - waiter.get_loop().time()
        if left <= 0:
            break
        try:
            await asyncio.wait((waiter,), timeout=None if left == math.inf else left)
        except asyncio.CancelledError as error:
            cancellation = error
            if not is_shielded:
                break
    if cancellation is not None:
        raise cancellation


def _resolve(waiter: asyncio.Future[None]) -> None:
    """Ends a wait, unless it was cancelled."""
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
