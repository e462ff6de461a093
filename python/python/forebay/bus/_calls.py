"""Calls of handlers: the threads that make them, and the event loops.

The threads hold neither the bus nor its handlers, so that a bus that nobody needs any more can end.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from forebay._forebay import BusCall, BusCalls, BusEmission
from forebay.bus import _loops
from forebay.bus._event import Event, _event

logger = logging.getLogger("forebay.bus")


class Running:
    """A call of a handler that runs, for what is called in it. Tasks that a handler creates may outlive it."""

    __slots__ = ("depth", "is_over")

    def __init__(self, depth: int) -> None:
        #: Number of events that led to what is emitted in it.
        self.depth = depth
        self.is_over = False


_running: contextvars.ContextVar[Running | None] = contextvars.ContextVar("forebay.bus.running", default=None)
#: The correlation id of what is emitted now, unless it has its own.
correlation: contextvars.ContextVar[str | None] = contextvars.ContextVar("forebay.bus.correlation", default=None)


def depth() -> int:
    """Returns how many events led to what is emitted now: 0 outside of handlers."""
    running = _running.get()
    return 0 if running is None or running.is_over else running.depth


@dataclass(slots=True, eq=False)
class Handler:
    """A function that is subscribed, and how it is called."""

    function: Callable[..., Any]
    name: str
    #: ``None`` for a function that is no coroutine function: a thread calls it.
    loop: _loops.Loop | None
    takes_lists: bool
    #: The context of who subscribed it. Each call runs in a copy, as callbacks of asyncio do: no call finds what another has set.
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    is_reported: bool = False
    #: The last call that was given to the loop, and its task.
    call: BusCall | None = None
    task: object = None

    def argument(self, events: list[Event]) -> Event | list[Event]:
        """Returns what the function is given."""
        return events if self.takes_lists else events[0]


def is_async(function: Callable[..., Any]) -> bool:
    """Returns whether calls of a function have to be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class Calls:
    """The handlers of a bus, and what calls them.

    Args:
        calls: The calls that are to be made.
        workers: The most threads that call functions.
        report: Called for every call that fails, with the name of the handler, and the error.
    """

    def __init__(self, calls: BusCalls, workers: int, report: Callable[[str, str], None]) -> None:
        self.handlers: dict[int, Handler] = {}
        self._calls = calls
        self._workers = workers
        self._report = report
        # A handler of a signal may subscribe as well, within the lock.
        self._lock = threading.RLock()
        self._makers: list[threading.Thread] = []
        self._notifier: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        #: What wakes the tasks that wait for an emission, by number.
        self._waiters: dict[int, Callable[[], object]] = {}
        self._last_waiter = 0

    # Threads

    def start_maker(self) -> None:
        """Starts one more thread that makes calls, up to ``workers``."""
        with self._lock:
            if len(self._makers) < self._workers:
                self._makers.append(_start("forebay-bus", make_calls, self._calls, weakref.ref(self)))

    def start_notifier(self) -> None:
        """Starts the thread that notifies event loops, unless it runs."""
        if self._notifier is None:
            with self._lock:
                if self._notifier is None:
                    self._notifier = _start("forebay-bus-loops", notify_loops, self._calls, weakref.ref(self))

    def own_loop(self) -> asyncio.AbstractEventLoop:
        """Returns an event loop on a thread of the bus."""
        with self._lock:
            if self._loop is None:
                runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
                loop = runner.get_loop()
                try:
                    thread = _start("forebay-bus-loop", _loops.run, runner)
                except RuntimeError:
                    # The system refuses the thread.
                    runner.close()
                    raise
                except BaseException:
                    # The user has interrupted the wait for its begin. The thread closes what it runs.
                    _loops.stop(loop)
                    raise
                if self._loop is not None:
                    # A handler of a signal has begun one meanwhile.
                    _loops.stop(loop)
                    return self._loop
                self._loop, self._loop_thread = loop, thread
                weakref.finalize(self, _loops.stop, self._loop).atexit = False
            return self._loop

    def join(self, timeout: float) -> bool:
        """Waits for the end of the threads. Returns whether they have ended."""
        until = time.monotonic() + timeout
        if self._loop is not None:
            _loops.stop(self._loop)
        threads = [*self._makers, self._notifier, self._loop_thread]
        for thread in threads:
            if thread is not None and thread is not threading.current_thread():
                # A thread takes no longer wait, and no infinite one.
                thread.join(min(max(0.0, until - time.monotonic()), threading.TIMEOUT_MAX))
        return not any(thread is not None and thread.is_alive() for thread in threads)

    def stranded(self) -> list[tuple[int, Handler]]:
        """Returns the handlers whose loops do not run, and their numbers."""

        def is_stranded(loop: Any) -> bool:
            """Returns whether nobody runs the loop of a handler."""
            # That of the bus may be about to run.
            return loop is not self._loop and hasattr(loop, "is_running") and not loop.is_running()

        return [(key, handler) for key, handler in list(self.handlers.items()) if is_stranded(handler.loop)]

    # Calls

    def call(self, call: BusCall) -> None:
        """Makes a call, on a thread of the bus."""
        handler = self.handlers.get(call.key)
        if handler is None:
            call.cancel()
        else:
            handler.context.copy().run(self._call, handler, call)

    def _is_subscribed(self, handler: Handler, call: BusCall) -> bool:
        """Returns whether a handler is subscribed still: the last step before it is called. Else the call is cancelled."""
        is_subscribed = self.handlers.get(call.key) is handler
        if not is_subscribed:
            call.cancel()
        return is_subscribed

    def _call(self, handler: Handler, call: BusCall) -> None:
        """Calls a handler on this thread."""
        running, events = _enter(call)
        if not self._is_subscribed(handler, call):
            return
        try:
            result = handler.function(handler.argument(events))
            if inspect.isawaitable(result):
                if inspect.iscoroutine(result):
                    result.close()
                raise TypeError("the handler returned an awaitable: subscribe an 'async def' function")  # noqa: TRY301
        except BaseException as error:  # noqa: BLE001 - also of `sys.exit`: the thread has other handlers to call
            call.end(self._outcome(handler, running, events, error))
        else:
            call.end(self._outcome(handler, running, events))

    def hand_over(self, call: BusCall) -> None:
        """Gives a call to the event loop of its handler, on the thread that notifies loops."""
        handler = self.handlers.get(call.key)
        if handler is None or handler.loop is None:
            call.cancel()
            return
        handler.call = call
        try:
            _loops.call_soon(handler.loop, self._begin, handler, call)
        except Exception as error:  # noqa: BLE001 - the loop is closed, or is of another kind
            handler.context.copy().run(self._refused, handler, call, error)

    def _begin(self, handler: Handler, call: BusCall) -> None:
        """Begins a call on the loop of its handler."""
        assert handler.loop is not None
        try:
            handler.task = _loops.spawn(handler.loop, handler.context.copy(), self._run, handler, call)
            if isinstance(handler.task, asyncio.Task):
                # One that is cancelled before its first step never comes to `_run`. To end a call twice does nothing.
                handler.task.add_done_callback(lambda _: call.cancel())
        except Exception as error:  # noqa: BLE001 - the run is at its end
            handler.context.copy().run(self._refused, handler, call, error)

    def _refused(self, handler: Handler, call: BusCall, error: Exception) -> None:
        """Ends a call that its loop did not take."""
        running, events = _enter(call)
        call.end(self._outcome(handler, running, events, error))

    async def _run(self, handler: Handler, call: BusCall) -> None:
        """Calls a coroutine function, in a task of its loop."""
        running, events = _enter(call)
        if not self._is_subscribed(handler, call):
            return
        try:
            await handler.function(handler.argument(events))
            text = self._outcome(handler, running, events)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler may raise anything
            text = self._outcome(handler, running, events, error)
        except BaseException:
            # The loop cancels it, or the user interrupts the program.
            running.is_over = True
            call.cancel()
            raise
        following = call.end(text, takes_next=True)
        if following is not None:
            self.hand_over(following)

    def _outcome(
        self, handler: Handler, running: Running, events: list[Event], error: BaseException | None = None
    ) -> str | None:
        """Returns the text of the error. The first of a handler is logged, and each is reported, but for those at reports."""
        text = None
        if error is not None:
            text = _text_of(error)
            if not handler.is_reported:
                handler.is_reported = True
                # What handles the log is user code as well.
                with contextlib.suppress(Exception):
                    logger.error(
                        "the handler %r of the event bus raised; the events are dead letters, and later exceptions are counted only",
                        handler.name,
                        exc_info=error,
                    )
            if all(event.name != "plugin.error" for event in events):
                self._report(handler.name, text)
        running.is_over = True
        return text

    # Emissions

    async def wait(self, emission: BusEmission, timeout: float) -> None:
        """Waits until the handlers of an emission are done."""
        with self._lock:
            self._last_waiter += 1
            number = self._last_waiter

        def begin(wake: Callable[[], object]) -> bool:
            """Has the notifier wake who waits."""
            self._waiters[number] = wake
            self.start_notifier()
            return emission.watch(number)

        try:
            await _loops.wait(begin, timeout)
        finally:
            self._waiters.pop(number, None)

    def wake(self, number: int) -> None:
        """Wakes the task that waits for an emission."""
        wake = self._waiters.get(number)
        if wake is not None:
            # Where the loop is closed, nobody waits any more.
            with contextlib.suppress(Exception):
                wake()


def _enter(call: BusCall) -> tuple[Running, list[Event]]:
    """Lets what is emitted in this context be of a call. Returns the events of the call, too."""
    running, events = Running(call.depth), [_event(parts) for parts in call.events()]
    _running.set(running)
    correlation.set(events[0].correlation_id)
    return running, events


def _start(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:
    """Starts a thread."""
    # A daemon: the interpreter waits for other threads before it closes what is open. The end of the bus ends it.
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    thread.start()
    return thread


def make_calls(calls: BusCalls, owner: weakref.ref[Calls]) -> None:
    """Makes calls of functions until the bus ends."""
    while (call := calls.next_call()) is not None:
        handlers = owner()
        if handlers is None:
            call.cancel()
            return
        try:
            handlers.call(call)
        except BaseException:  # noqa: BLE001 - the thread has other calls to make
            _give_up(call)
        del handlers, call


def notify_loops(calls: BusCalls, owner: weakref.ref[Calls]) -> None:
    """Gives calls to event loops, and wakes tasks that wait, until the bus ends."""
    while (notice := calls.next_notice()) is not None:
        handlers = owner()
        if handlers is None:
            return
        if isinstance(notice, int):
            handlers.wake(notice)
        else:
            try:
                handlers.hand_over(notice)
            except BaseException:  # noqa: BLE001 - the thread has other loops to notify
                _give_up(notice)
        del handlers, notice


def _give_up(call: BusCall) -> None:
    """Cancels a call that could not be made, as where no memory is left, and logs the exception that is handled."""
    call.cancel()
    # What handles the log is user code as well.
    with contextlib.suppress(Exception):
        logger.exception("a call of a handler of the event bus could not be made, and is cancelled")


#: The longest text of an error that is kept: a batch may have a dead letter for each of its events.
MAX_ERROR = 4096


def _text_of(error: BaseException) -> str:
    """Returns what an exception says, as far as it can be printed, in UTF-8."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an exception that cannot be printed
        text = type(error).__name__
    return text[:MAX_ERROR].encode("utf-8", "replace").decode("utf-8")
