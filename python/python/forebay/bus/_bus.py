"""The bus."""

from __future__ import annotations

import contextlib
import inspect
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from forebay import _lifecycle
from forebay._forebay import BusCore, BusEmission, BusWatcher
from forebay._values import plain
from forebay.bus import _calls, _loops, events
from forebay.bus._calls import Calls, Handler, is_async, logger
from forebay.bus._event import (
    DeadLetter,
    Event,
    EventFilter,
    EventMetrics,
    EventQuery,
    HandlerMetrics,
    Priority,
    _event,
    _Predicate,
    _time,
)
from forebay.bus.events import StandardEvent

#: A handler: takes an event. With ``max_batch``, it takes a list of them.
EventHandler = Callable[[Any], object]
#: A handler that is a coroutine function.
AsyncEventHandler = Callable[[Any], Awaitable[object]]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Emission:
    """What became of an event that was emitted. It need not be awaited: the event is queued already.

    ``await`` waits until its handlers have run, for the ``timeout`` of the bus at most, and returns the emission; in asyncio and trio. In a
    handler it returns at once, because that may have to end first. As a coroutine, it may be given to ``asyncio.create_task``.
    """

    __slots__ = ("_bus", "_inner", "_steps")

    def __init__(self, inner: BusEmission, bus: EventBus) -> None:
        self._inner = inner
        self._bus = bus
        self._steps: Generator[Any, None, Emission] | None = None

    @property
    def outcome(self) -> str:
        """``"queued"``, or why the event was not taken: ``"filtered"``, ``"stopped"``, ``"forked"``, ``"oversize"``, ``"too_deep"``,
        ``"full"``, ``"worker_gone"``."""
        return self._inner.outcome

    @property
    def id(self) -> str | None:
        """The id of the event; ``None`` if it was not taken."""
        return self._inner.id

    @property
    def done(self) -> bool:
        """Whether its handlers have run, or nobody will call them."""
        return self._inner.done

    @property
    def handled(self) -> int:
        """Number of handlers that took it so far."""
        return self._inner.counts[0]

    @property
    def failed(self) -> int:
        """Number of handlers that raised so far."""
        return self._inner.counts[1]

    @property
    def lost(self) -> int:
        """Number of handlers that were too far behind, were unsubscribed, or were stopped before they had it.

        None of an event that was evicted on its way to the handlers: see ``EventMetrics.evicted``.
        """
        return self._inner.counts[2] + self._inner.counts[3]

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until its handlers have run, and returns whether they have. In a handler, it does not wait.

        It keeps the thread. On that of an event loop, ``await`` the emission.

        Args:
            timeout: In seconds. Defaults to the ``timeout`` of the bus.
        """
        if _calls.depth():
            return self._inner.done
        return self._inner.wait(self._bus.timeout if timeout is None else timeout)

    def __await__(self) -> Generator[Any, None, Self]:
        if not _calls.depth() and not self._inner.done:
            yield from self._bus._calls.wait(self._inner, self._bus.timeout).__await__()
        return self

    # A task takes only what is a coroutine (`collections.abc.Coroutine`).

    def send(self, value: Any) -> Any:
        """Goes on with the wait of a task."""
        return self._wait_of_task().send(value)

    def throw(self, *error: Any) -> Any:
        """Ends the wait of a task by an exception."""
        return self._wait_of_task().throw(*error)

    def close(self) -> None:
        """Ends the wait of a task."""
        self._wait_of_task().close()

    def _wait_of_task(self) -> Generator[Any, None, Emission]:
        """Returns the one wait that a task goes through, step by step."""
        if self._steps is None:
            self._steps = self.__await__()
        return self._steps

    def __repr__(self) -> str:
        handled, failed, evicted, cancelled = self._inner.counts
        state = "done" if self.done else "on its way"
        return f"<Emission {self.outcome}, {state}: {handled} handled, {failed} failed, {evicted + cancelled} lost>"


class _Ready:
    """Coroutine without a step: what it is awaited for is there already."""

    __slots__ = ()

    def _result(self) -> Any:
        """Returns what it is awaited for."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._result()

    def send(self, _value: Any) -> Any:
        """Ends at once."""
        raise StopIteration(self._result())

    def throw(self, *error: Any) -> Any:
        """Raises what it is given."""
        return self.__await__().throw(*error)

    def close(self) -> None:
        """Has nothing to end."""


class Subscription(_Ready, str):
    """The id of a subscription, a text. It may be awaited, which returns it at once: the handler is subscribed already."""

    __slots__ = ()

    def _result(self) -> Self:
        """Returns the id."""
        return self


class Answer(_Ready):
    """Yes or no. It may be awaited, which returns a ``bool`` at once."""

    __slots__ = ("_answer",)

    def __init__(self, answer: bool) -> None:
        self._answer = answer

    def _result(self) -> bool:
        """Returns the answer."""
        return self._answer

    def __bool__(self) -> bool:
        return self._answer

    def __eq__(self, other: object) -> bool:
        return self._answer == (other._answer if isinstance(other, Answer) else other)

    def __hash__(self) -> int:
        return hash(self._answer)

    def __repr__(self) -> str:
        return repr(self._answer)


class EventBus:
    """Calls handlers for events, by name or pattern. The thread that emits hands the event over and goes on.

    A handler that is an ``async def`` function runs on the event loop (asyncio, trio) that runs where it is subscribed; without one, on a
    loop in a thread of the bus. Any other function is called by a thread of the bus. A handler has one call at a time, and gets its events in
    order: critical ones first.

    A bus that is not needed any more is stopped: by ``stop``, ``await shutdown()``, ``with`` or ``async with``; else at the end of the
    process.

    Args:
        max_subscribers: The most subscriptions at once.
        buffer_size: The most events that wait on their way to the handlers. A full queue evicts its oldest event, counted as ``evicted``.
        enable_persistence: Whether all events are written to a file of JSON Lines, and queries read it. Without, they know the last 1,000
            events.
        persistence_path: The file. An existing file is continued.
        max_file_size_mb: The size at which a file is closed and numbered, in MiB. Queries read all of them.
        handler_queue: The most events that wait for one handler. A full queue evicts its oldest event, counted as ``evicted``.
        workers: The most threads that call handlers.
        timeout: The most seconds that ``emit_sync``, ``await emit``, ``flush`` and ``stop`` wait.
        max_event_bytes: The most bytes of an event that is not critical.
        max_dead_letters: The most dead letters that are kept, within 50 MiB.
        max_depth: The longest chain of events, each emitted by a handler of the one before. With 0, a handler cannot emit. ``emit``
            refuses an event beyond it.
        source: The source of all events that name none.

    Raises:
        OSError: The file cannot be opened, or the system refuses a thread.
        ValueError: A setting is not allowed.

    Example:
        >>> bus = EventBus()
        >>> @bus.on("training.*")
        ... def show(event):
        ...     print(event.name, event.data)
        >>> bus.emit_sync("training.epoch_completed", {"epoch": 5, "val_loss": 0.15}).handled
        training.epoch_completed {'epoch': 5, 'val_loss': 0.15}
        1
        >>> bus.stop()
        True
    """

    timeout: float
    source: str | None

    def __init__(
        self,
        max_subscribers: int = 1_000,
        buffer_size: int = 10_000,
        enable_persistence: bool = False,
        persistence_path: str | os.PathLike[str] = "events.jsonl",
        max_file_size_mb: float = 100,
        *,
        handler_queue: int = 1_000,
        workers: int = 4,
        timeout: float = 10.0,
        max_event_bytes: int = 65_536,
        max_dead_letters: int = 1_000,
        max_depth: int = 16,
        source: str | None = None,
    ) -> None:
        for name, number, least in (
            ("max_file_size_mb", max_file_size_mb, 0),
            ("timeout", timeout, 0),
            ("handler_queue", handler_queue, 1),
            ("workers", workers, 1),
            ("max_dead_letters", max_dead_letters, 0),
            ("max_subscribers", max_subscribers, 0),
            ("buffer_size", buffer_size, 0),
            ("max_event_bytes", max_event_bytes, 0),
            ("max_depth", max_depth, 0),
        ):
            if not number >= least:
                raise ValueError(f"{name} must be at least {least}, got {number!r}")
        self.timeout = timeout
        self.source = source
        self._filters: list[EventFilter] = []
        self._watchers: list[BusWatcher] = []
        #: The ids of the filters that have raised.
        self._reported: set[int] = set()
        self._core = BusCore(
            buffer_size=buffer_size,
            max_subscribers=max_subscribers,
            journal=os.fspath(persistence_path) if enable_persistence else None,
            max_file_bytes=int(max_file_size_mb * 2**20),
            handler_queue=handler_queue,
            max_event_bytes=max_event_bytes,
            dead_letters=max_dead_letters,
            max_depth=max_depth,
        )
        own = weakref.ref(self)

        def report(handler: str, error: str) -> None:
            """Emits that a handler has failed, as long as the bus is there."""
            bus = own()
            if bus is not None:
                bus._emit(events.plugin.error(handler, error))

        self._calls = Calls(self._core.calls(), workers, report)
        self._is_stopped = False
        _lifecycle.register(self)

    # Emit

    def emit(
        self,
        event_name: str | StandardEvent,
        data: Mapping[str, Any] | None = None,
        *,
        correlation_id: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Priority | None = None,
    ) -> Emission:
        """Queues an event and returns. It waits for nothing but, as a critical event, a moment for space.

        ``await bus.emit(...)`` waits until the handlers have run; without ``await`` nothing is lost but that.

        Args:
            event_name: One or more words of letters, digits, ``_`` and ``-``, separated by dots, of 200 bytes at most; or one of the
                standard events of ``forebay.bus.events``.
            data: Numbers, texts, booleans, ``None``, and lists, tuples and dicts of these with texts as keys. Scalars of NumPy are numbers;
                paths, times, members of an ``Enum``, dataclasses and sets become texts, numbers, dicts and lists.
            correlation_id: What the event belongs to. Defaults to that of ``correlate``, and in a handler to that of the event at hand.
            source: Who emits it. Defaults to the ``source`` of the bus.
            metadata: Anything else, as for ``data``.
            priority: ``"critical"`` comes before others and is never evicted; ``"low"`` comes last. Defaults to that of the standard event,
                or to ``"normal"``.

        Raises:
            TypeError: A value that an event cannot keep; the message names its key.
            ValueError: The name or the priority is not allowed; a whole number that does not fit in 64 bits.
        """
        return self._emit(event_name, data, correlation_id, source, metadata, priority)

    def emit_sync(
        self,
        event_name: str | StandardEvent,
        data: Mapping[str, Any] | None = None,
        *,
        correlation_id: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Priority | None = None,
        timeout: float | None = None,
    ) -> Emission:
        """Emits an event, as ``emit`` does, and waits until its handlers have run.

        It waits for ``timeout`` seconds at most (that of the bus by default): see ``Emission.done``. In a handler it does not wait. On the
        thread of an event loop it does not wait for the handlers of this loop, which could not run.
        """
        emission = self._emit(event_name, data, correlation_id, source, metadata, priority, _loops.key(_loops.here()))
        emission.wait(timeout)
        return emission

    def _emit(
        self,
        event_name: str | StandardEvent,
        data: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
        source: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        priority: Priority | None = None,
        unawaited_loop: int = 0,
    ) -> Emission:
        """Emits an event, and returns what becomes of it."""
        if isinstance(event_name, StandardEvent):
            data = event_name.data if data is None else {**event_name.data, **data}
            priority = priority or event_name.priority
            event_name = event_name.name
        if source is None:
            source = self.source
        if correlation_id is None:
            correlation_id = _calls.correlation.get()
        if self._filters:
            event = Event(
                event_name,
                plain(data or {}),
                source=source or "",
                correlation_id=correlation_id,
                metadata=plain(metadata or {}),
                priority=priority or "normal",
            )
            if isinstance(event.data, dict) and not self._lets_in(event):
                return Emission(self._core.refuse("filtered"), self)
        inner = self._core.emit(
            event_name, data, priority or "normal", correlation_id, source, metadata, _calls.depth(), unawaited_loop
        )
        return Emission(inner, self)

    def _lets_in(self, event: Event) -> bool:
        """Returns whether all filters let an event in. A filter that raises lets it in, and is reported once."""
        # Of a copy: a filter that another thread takes out meanwhile must not have the next one passed over.
        for event_filter in tuple(self._filters):
            try:
                if not event_filter.should_process(event):
                    return False
            except Exception:  # noqa: BLE001 - a filter may raise anything, which must not reach who emits
                if id(event_filter) not in self._reported:
                    self._reported.add(id(event_filter))
                    # What handles the log is user code as well.
                    with contextlib.suppress(Exception):
                        logger.exception("the filter %r of the event bus raised, and lets events in", event_filter)
        return True

    def enabled(self, event_name: str) -> bool:
        """Returns whether an event of that name would be taken at present, filters aside: to skip the making of its data."""
        return self._core.enabled(event_name)

    # Subscribe

    def subscribe(
        self,
        pattern: str | Iterable[str],
        handler: EventHandler | AsyncEventHandler,
        *,
        name: str | None = None,
        loop: _loops.Loop | None = None,
        max_batch: int | None = None,
    ) -> Subscription:
        """Calls a handler for all events of a name or pattern, from now on. May be awaited.

        Args:
            pattern: A name; or a pattern, in which ``*`` stands for any text, dots included, ``?`` for one character, ``[abc]`` and
                ``{a,b}`` for one of several; or several of them.
            handler: A function or a coroutine function that takes an event. Each call runs in a copy of the present context
                (``contextvars``), as callbacks of asyncio do.
            name: The name under which it is counted. Defaults to its qualified name.
            loop: The event loop of a coroutine function: of asyncio, or anything that has its ``call_soon_threadsafe`` and
                ``create_task``; or a run of trio, as ``trio.lowlevel.current_trio_token()`` returns it. Defaults to the one that runs here,
                or else to one of asyncio in a thread of the bus.
            max_batch: Gives it a list of so many events at most: those that wait when it is called.

        Raises:
            RuntimeError: There are ``max_subscribers`` subscriptions; the bus is stopped; or this is a forked child.
            TypeError: The handler cannot be called, or the loop is none.
            ValueError: The pattern is none, or is a name that no event may have.
        """
        if not callable(handler):
            raise TypeError(f"handler must be callable, got {type(handler).__name__}")
        if max_batch is not None and max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, got {max_batch!r}")
        self._core.check()
        patterns = [pattern] if isinstance(pattern, str) else list(pattern)
        if name is None:
            name = getattr(handler, "__qualname__", None) or type(handler).__name__
        if is_async(handler):
            if loop is not None and not hasattr(loop, "run_sync_soon") and not hasattr(loop, "call_soon_threadsafe"):
                raise TypeError(f"loop must be an event loop of asyncio or a token of trio, got {type(loop).__name__}")
            loop = loop or _loops.here() or self._calls.own_loop()
            self._calls.start_notifier()
        else:
            loop = None
            self._calls.start_maker()
        key = self._core.add(name, _loops.key(loop), max_batch or 1)
        # Before its first event.
        self._calls.handlers[key] = Handler(handler, name, loop, max_batch is not None)
        try:
            self._core.subscribe(key, patterns, name)
        except BaseException:
            del self._calls.handlers[key]
            raise
        return Subscription(f"subscription-{key}")

    def subscribe_sync(self, pattern: str | Iterable[str], handler: EventHandler, **options: Any) -> Subscription:
        """Subscribes a handler: the same as ``subscribe``."""
        return self.subscribe(pattern, handler, **options)

    def on(self, *patterns: str, **options: Any) -> Callable[[_Function], _Function]:
        """Subscribes the function below it: ``@bus.on("training.*")``. Takes the options of ``subscribe``."""

        def subscribe(function: _Function) -> _Function:
            """Subscribes a function, and returns it."""
            self.subscribe(patterns, function, **options)
            return function

        return subscribe

    def unsubscribe(self, subscription_id: str) -> Answer:
        """Ends a subscription: no call begins any more, and what waits for the handler is cancelled. Returns whether there was one.

        The last step before a call asks whether the handler is subscribed. A call that has passed it has begun, although its first
        statement may run a moment after this has returned, on another thread. ``flush`` waits for such a call: call it before you
        take apart what the handler uses.

        A handler may unsubscribe itself. May be awaited.
        """
        _, _, key = subscription_id.partition("subscription-")
        if not key.isdecimal() or self._calls.handlers.pop(int(key), None) is None:
            return Answer(False)
        return Answer(self._core.unsubscribe(int(key)))

    def add_subscriber(self, subscriber: EventSubscriber) -> list[str]:
        """Subscribes all handlers of an object. Returns the ids of the subscriptions."""
        return subscriber.attach(self)

    def add_filter(self, event_filter: EventFilter | Callable[[Event], bool]) -> None:
        """Lets in only events that the filter lets in, beside those that were added before. Counts for events that are emitted later."""
        if isinstance(event_filter, EventFilter):
            self._filters.append(event_filter)
        elif callable(event_filter):
            self._filters.append(_Predicate(event_filter))
        else:
            raise TypeError(f"event_filter must be an EventFilter or a function, got {type(event_filter).__name__}")

    def remove_filter(self, event_filter: EventFilter | Callable[[Event], bool]) -> bool:
        """Takes a filter out. Returns whether it was in."""
        for added in tuple(self._filters):
            if event_filter in (added, getattr(added, "_lets_in", None)):
                # Another thread may have taken it out meanwhile.
                with contextlib.suppress(ValueError):
                    self._filters.remove(added)
                    return True
        return False

    # Ask

    def query(self, query: EventQuery | None = None) -> list[Event]:
        """Returns events that were emitted, in the order of their delivery: from the file, or else of the last 1,000.

        It waits for the ``timeout`` of the bus at most until what was emitted before is in the file, and finds what is there then. The
        reading takes as long as the files are large. Other threads run meanwhile, and Ctrl-C interrupts it.

        Raises:
            OSError: The file cannot be read.
            RuntimeError: This is a forked child.
        """
        arguments = (query or EventQuery())._arguments
        return [_event(parts) for parts in self._core.query(**arguments, timeout=self.timeout)]

    def correlated(self, correlation_id: str) -> list[Event]:
        """Returns the events with that correlation id: see ``query``."""
        return self.query(EventQuery().correlation_id(correlation_id))

    def metrics(self) -> EventMetrics:
        """Returns how the bus does."""
        found = self._core.metrics()
        found["handlers"] = [HandlerMetrics(**handler) for handler in found["handlers"]]
        found["gone"] = HandlerMetrics(**found["gone"])
        return EventMetrics(**found)

    async def query_events(self, query: EventQuery | None = None) -> list[Event]:
        """Returns what ``query`` returns, without keeping the event loop waiting."""
        return await _loops.in_thread(self.query, query)

    async def get_correlated_events(self, correlation_id: str) -> list[Event]:
        """Returns what ``correlated`` returns, without keeping the event loop waiting."""
        return await _loops.in_thread(self.correlated, correlation_id)

    async def get_metrics(self) -> EventMetrics:
        """Returns how the bus does."""
        return self.metrics()

    def dead_letters(self) -> list[DeadLetter]:
        """Returns the events at which handlers raised, the oldest first."""
        return [
            DeadLetter(handler, error, _time(nanoseconds), _event(parts))
            for handler, error, nanoseconds, parts in self._core.dead_letters()
        ]

    def redrive(self) -> int:
        """Gives all dead letters to their handlers again. Those of handlers that are gone stay. Returns how many are given."""
        return self._core.redrive()

    def clear_dead_letters(self) -> int:
        """Forgets all dead letters. Returns how many there were."""
        return self._core.clear_dead_letters()

    # End

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all events that were emitted before are handled, and what their handlers have emitted. Returns whether they are.

        On the thread of an event loop it does not wait for the handlers of this loop. Other threads run meanwhile, and Ctrl-C interrupts
        it.

        Args:
            timeout: The most seconds to wait, also where the disk of the file hangs. Defaults to the ``timeout`` of the bus.

        Raises:
            RuntimeError: It is called in a handler, which would have to wait for itself; or in a forked child.
        """
        _not_in_a_handler("flush")
        return self._core.flush(self.timeout if timeout is None else timeout, _loops.key(_loops.here()))

    def stop(self, timeout: float | None = None) -> bool:
        """Refuses new events, waits until the others are handled, and ends the threads. Returns whether all was done in time.

        What is not handled in time is cancelled, and calls that run are left behind: a warning of the logger ``forebay.bus`` names their
        handlers. On the thread of an event loop it does not wait for the handlers of this loop: ``await shutdown()`` does. A bus that is
        stopped stays stopped. In a forked child it does nothing and returns ``False``. Other threads run meanwhile. Ctrl-C interrupts the
        wait, and the bus stops all the same.

        Args:
            timeout: The most seconds to wait; the threads have a tenth of a second to end in any case. Defaults to the ``timeout`` of the
                bus.

        Raises:
            RuntimeError: It is called in a handler, which would have to wait for itself.
        """
        _not_in_a_handler("stop")
        timeout = self.timeout if timeout is None else timeout
        is_done = self._stop(timeout)
        if not is_done:
            self._warn_of_rest(timeout)
        return is_done

    async def shutdown(self, timeout: float | None = None) -> bool:
        """Stops the bus, as ``stop`` does, and lets the event loop run meanwhile.

        It needs none of the loop's own threads. Where the task is cancelled, the bus stops all the same, and nobody waits for that:
        ``async with`` does.

        Raises:
            RuntimeError: It is called in a handler, which would have to wait for itself; or the system refuses a thread, as at the end of
                an ``async with``. The bus is stopped then: handlers on threads had a tenth of a second, and those of this loop get
                nothing more.
        """
        return await self._stop_in_thread(timeout, is_shielded=False)

    async def _stop_in_thread(self, timeout: float | None, is_shielded: bool) -> bool:
        """Stops the bus while a loop waits for it, on another thread."""
        _not_in_a_handler("shutdown")
        try:
            return await _loops.in_thread(self.stop, timeout, is_shielded=is_shielded)
        except _loops.ThreadRefusedError as error:
            # No thread can wait while the loop runs, and nobody would stop the bus later.
            self.stop(0.1)
            if self._is_stopped:
                error.add_note("the event bus is stopped: handlers on threads had a tenth of a second, those of this loop get nothing more")
            raise

    def _warn_of_rest(self, timeout: float) -> None:
        """Says what a stop has left behind, unless this is a forked child."""
        with contextlib.suppress(RuntimeError):
            self._core.check()
            metrics = self.metrics()
            running = [repr(handler.name) for handler in metrics.handlers if handler.in_flight]
            if metrics.gone.in_flight:
                running.append("handlers that are unsubscribed")
            logger.warning(
                "the event bus was stopped after %g s with %d events that no handler has got, and calls that still run of: %s",
                timeout,
                metrics.pending,
                ", ".join(running) or "no handler",
            )

    def _stop(self, timeout: float) -> bool:
        """Stops the bus, and returns whether all handlers are done."""
        until = time.monotonic() + timeout
        try:
            self._core.check()
        except RuntimeError:
            return False
        self._is_stopped = True
        is_done = False
        try:
            is_done = self._core.stop(timeout, _loops.key(_loops.here()))
        except BaseException:
            # The user has interrupted it, perhaps before it began.
            self._core.stop(0.0, _loops.key(_loops.here()))
            raise
        finally:
            # Where the user has interrupted the wait, nobody waits any more.
            left = until - time.monotonic() if is_done else 0.0
            have_ended = self._calls.join(max(0.1, left))
        return have_ended and is_done

    #: Handlers may use what closes later.
    _exit_turn = 0

    def _close_at_exit(self, timeout: float) -> None:
        """Stops it at the end of the process: see ``_lifecycle``."""
        # Nobody runs those loops any more.
        for key, handler in self._calls.stranded():
            self._core.unsubscribe(key)
            if handler.call is not None:
                handler.call.cancel()
        # What closes later needs time, too.
        self._stop(timeout / 2)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        # Also where the task is cancelled: it is bounded by the timeout of the bus.
        await self._stop_in_thread(None, is_shielded=True)

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("an event bus belongs to its process and cannot be pickled: make one in each process")

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else "running"
        return f"<{type(self).__name__}, {state}, {len(self._calls.handlers)} handlers>"


def create_default_event_bus(**settings: Any) -> EventBus:
    """Makes a bus with the default settings, but for those that are given."""
    return EventBus(**settings)


@contextlib.contextmanager
def correlate(correlation_id: str) -> Iterator[str]:
    """Gives all events that are emitted in its block, on this thread or task, a correlation id. Those that have one keep it.

    Example:
        >>> with correlate("run-7"):
        ...     bus.emit("training.started")
    """
    token = _calls.correlation.set(correlation_id)
    try:
        yield correlation_id
    finally:
        _calls.correlation.reset(token)


def on(*patterns: str, **options: Any) -> Callable[[_Function], _Function]:
    """Marks a method of an ``EventSubscriber`` as a handler of events. Takes the options of ``EventBus.subscribe``."""

    def mark(function: _Function) -> _Function:
        """Notes the patterns of a method."""
        function._forebay_topics = (*getattr(function, "_forebay_topics", ()), (patterns, options))  # type: ignore[attr-defined]
        return function

    return mark


class EventSubscriber:
    """An object with several handlers. Derive from it, and mark methods with ``on``; or set ``topics`` and define ``on_event``.

    Example:
        >>> class Monitor(EventSubscriber):
        ...     @on("training.epoch_completed")
        ...     async def epoch_completed(self, event): ...
        ...     @on("*.error", "*.failed")
        ...     def failed(self, event): ...
        >>> ids = Monitor().attach(bus)
    """

    #: Names and patterns of the events that ``on_event`` is called for.
    topics: Sequence[str] = ()

    _attached: tuple[tuple[EventBus, str], ...] = ()

    def on_event(self, event: Event) -> object:
        """Handles an event of ``topics``. May be a coroutine function."""

    def attach(self, bus: EventBus) -> list[str]:
        """Subscribes all handlers. Returns the ids of the subscriptions."""
        ids: list[str] = []
        try:
            if self.topics:
                ids.append(bus.subscribe(self.topics, self.on_event))
            for name, _ in inspect.getmembers_static(type(self)):
                for patterns, options in getattr(getattr(type(self), name, None), "_forebay_topics", ()):
                    ids.append(bus.subscribe(patterns, getattr(self, name), **options))
        except BaseException:
            for subscription in ids:
                bus.unsubscribe(subscription)
            raise
        self._attached = (*self._attached, *((bus, subscription) for subscription in ids))
        return ids

    def detach(self) -> int:
        """Ends all subscriptions of the object. Returns how many there were."""
        attached, self._attached = self._attached, ()
        return sum(bool(bus.unsubscribe(subscription)) for bus, subscription in attached)


def _not_in_a_handler(method: str) -> None:
    """Raises ``RuntimeError`` in a handler."""
    if _calls.depth():
        raise RuntimeError(f"{method} must not be called in a handler, which would have to wait for itself")
