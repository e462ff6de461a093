"""Events, and what selects them: filters and queries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from forebay._forebay import matches
from forebay._values import whole

# A union, as `mypy.stubtest` takes it for.
Priority = Literal["critical"] | Literal["normal"] | Literal["low"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PRIORITIES = ("low", "normal", "critical")


def _time(nanoseconds: int) -> datetime:
    """Returns a moment, given in nanoseconds since 1970."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)


def _nanoseconds(time: datetime) -> int:
    """Returns the nanoseconds since 1970 of a moment."""
    # A naive time is a local one, as everywhere in Python.
    return max(0, (time.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)) * 1000


@dataclass(frozen=True, slots=True)
class Event:
    """An event: a name, and data.

    Every handler gets one of its own, so that nothing that it does to the data reaches another handler.
    """

    #: One or more words of letters, digits, ``_`` and ``-``, separated by dots.
    name: str
    #: Numbers, texts, booleans, ``None``, and lists and dicts of these. Tuples that were emitted are lists.
    data: dict[str, Any] = field(default_factory=dict)
    #: When it was emitted: aware, in UTC, to the microsecond.
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: Who emitted it; empty if nobody said so.
    source: str = ""
    #: What it belongs to, across sources.
    correlation_id: str | None = None
    #: Anything else.
    metadata: dict[str, Any] = field(default_factory=dict)
    #: Critical events come before others and are never evicted; low ones come last on their way to the handlers.
    priority: Priority = "normal"
    #: Unique across runs. ``None`` before it is emitted, and for what was written without a bus.
    id: str | None = None


def _event(parts: tuple[Any, ...]) -> Event:
    """Makes an event of its parts, as the extension module has them."""
    name, data, nanoseconds, source, correlation_id, metadata, priority, event_id = parts
    return Event(name, data, _time(nanoseconds), source, correlation_id, metadata, priority, event_id)


class EventFilter(ABC):
    """Decides which events come in. Derive from it, and give an object to ``EventBus.add_filter``; or use one that is here.

    It is asked on the thread that emits, before the event is queued. A filter that raises lets the event in.
    """

    @abstractmethod
    def should_process(self, event: Event) -> bool:
        """Returns whether the event comes in."""

    @staticmethod
    def allow(*patterns: str) -> EventFilter:
        """Lets in events whose names one of the patterns stands for."""
        return _Predicate(_named(patterns))

    @staticmethod
    def deny(*patterns: str) -> EventFilter:
        """Lets in events whose names none of the patterns stands for."""
        is_named = _named(patterns)
        return _Predicate(lambda event: not is_named(event))

    @staticmethod
    def min_priority(lowest: Priority) -> EventFilter:
        """Lets in events of that priority and above."""
        if lowest not in _PRIORITIES:
            raise ValueError(f"lowest must be 'critical', 'normal' or 'low', got {lowest!r}")
        return _Predicate(lambda event: _PRIORITIES.index(event.priority) >= _PRIORITIES.index(lowest))

    @staticmethod
    def data(key: str, lets_in: Callable[[Any], bool] = bool) -> EventFilter:
        """Lets in what a function says of one value of the data; of ``None``, where there is no such key. Defaults to what is true."""
        return _Predicate(lambda event: bool(lets_in(event.data.get(key))))


class _Predicate(EventFilter):
    """A filter that is a function."""

    def __init__(self, lets_in: Callable[[Event], Any]) -> None:
        self._lets_in = lets_in

    def should_process(self, event: Event) -> bool:
        """Returns what the function does."""
        return bool(self._lets_in(event))


def _named(patterns: tuple[str, ...]) -> Callable[[Event], bool]:
    """Returns a function that lets in the events whose name fits a pattern."""
    for pattern in patterns:
        matches(pattern, "")  # raises for what is no pattern
    return lambda event: any(matches(pattern, event.name) for pattern in patterns)


class EventQuery:
    """A question about events of the past: all conditions must hold. Without one it asks for all.

    Every method changes the query and returns it, so that calls can be chained.

    Example:
        >>> query = EventQuery().event_name_pattern("training.*").data_contains({"epoch": 5})
    """

    def __init__(self) -> None:
        self._arguments: dict[str, Any] = dict.fromkeys(
            ("name", "since", "before", "contains", "correlation_id", "source", "limit")
        )
        self._arguments["newest_first"] = False

    def event_name_pattern(self, pattern: str) -> Self:
        """Selects by name: ``*`` stands for any text, dots included."""
        matches(pattern, "")
        self._arguments["name"] = pattern
        return self

    def time_range(self, start: datetime | None = None, end: datetime | None = None) -> Self:
        """Selects events of ``start`` or later, and before ``end``. A time without a zone is local time."""
        self._arguments["since"] = None if start is None else _nanoseconds(start)
        self._arguments["before"] = None if end is None else _nanoseconds(end)
        return self

    def data_contains(self, items: Mapping[str, Any]) -> Self:
        """Selects events whose data or metadata have all these items. The number 5 is not 5.0 here."""
        self._arguments["contains"] = {**(self._arguments["contains"] or {}), **items}
        return self

    def correlation_id(self, correlation_id: str) -> Self:
        """Selects by correlation id."""
        self._arguments["correlation_id"] = correlation_id
        return self

    def source(self, source: str) -> Self:
        """Selects by source."""
        self._arguments["source"] = source
        return self

    def limit(self, events: int) -> Self:
        """Limits the answer to the first so many events. Raises ``ValueError`` for a negative number."""
        self._arguments["limit"] = whole("events", events)
        return self

    def newest_first(self) -> Self:
        """Reverses the order."""
        self._arguments["newest_first"] = True
        return self

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self._arguments.items() if value)
        return f"EventQuery({said})"


@dataclass(frozen=True, slots=True)
class HandlerMetrics:
    """The account of one handler: ``matched`` is the sum of the five numbers after it."""

    #: The number of the subscription; 0 for all handlers together that are not subscribed any more.
    key: int
    name: str
    #: Events that are for it.
    matched: int
    #: Events that it took.
    handled: int
    #: Events at which it raised. They are dead letters.
    failed: int
    #: Events that it lost, because it was too far behind.
    evicted: int
    #: Events that it was not called for after all: it was unsubscribed, or the bus stopped.
    cancelled: int
    #: Events that wait for it, or that it is busy with.
    in_flight: int
    #: The last exception.
    last_error: str | None = None


@dataclass(frozen=True, slots=True)
class EventMetrics:
    """How a bus does."""

    #: Events that have come to the handlers.
    total_events: int
    #: Events a second at present.
    events_per_second: float
    #: Mean time of a call of a handler, in milliseconds; of an ``async`` one, from its begin to its end.
    avg_processing_time_ms: float
    #: The time that 50 of 100 calls take at most, to within a factor of two.
    p50_processing_time_ms: float
    p95_processing_time_ms: float
    p99_processing_time_ms: float
    #: Events that were emitted, whatever became of them.
    emitted: int
    #: Events that have not come to the handlers yet, and the bytes that they own.
    pending: int
    pending_bytes: int
    #: Events that were lost because more than ``buffer_size`` waited.
    evicted: int
    #: Events that a filter did not let in.
    filtered: int
    #: Events that are larger than ``max_event_bytes``.
    oversize: int
    #: Events that found no room, and were not worth the oldest ones; and those that were emitted after the bus had stopped.
    rejected: int
    #: Events at the end of too long a chain of handlers.
    too_deep: int
    #: Events that were emitted in a forked child, where nobody handles them.
    forked: int
    #: Events whose names are not allowed.
    misnamed: int
    #: Dead letters that are kept, and the number of those that were too many.
    dead_letters: int
    evicted_dead_letters: int
    #: Every handler.
    handlers: list[HandlerMetrics]
    #: All handlers together that are not subscribed any more.
    gone: HandlerMetrics

    @property
    def failed(self) -> int:
        """Number of events at which a handler raised, over all handlers."""
        return self.gone.failed + sum(handler.failed for handler in self.handlers)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that a handler did not take."""

    #: The name of the handler.
    handler: str
    #: The exception, with its type.
    error: str
    #: When that was, in UTC.
    time: datetime
    event: Event
