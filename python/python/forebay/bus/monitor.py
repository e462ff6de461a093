"""What programs do with events again and again: keep the last ones, watch for errors, time a pipeline, report a run.

What watches emits standard events, and is the bus's own: see ``Watcher``.
"""

from __future__ import annotations

import contextlib
import os
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Self, TypeVar

from forebay._forebay import BusWatcher
from forebay._values import whole
from forebay.bus import events
from forebay.bus._bus import EventBus, EventSubscriber, correlate
from forebay.bus._event import Event

_Item = TypeVar("_Item")


class RecentEvents(EventSubscriber):
    """Keeps the last events of some names.

    Args:
        bus: Where the events come from.
        topics: Their names and patterns.
        max_events: How many are kept.
    """

    def __init__(self, bus: EventBus, *topics: str, max_events: int = 1_000) -> None:
        self.topics = topics or ("*",)
        self._events: deque[Event] = deque(maxlen=max_events)
        self.attach(bus)

    def on_event(self, event: Event) -> None:
        """Keeps an event."""
        self._events.append(event)

    def events(self, last: int | None = None) -> list[Event]:
        """Returns the last events, the oldest first."""
        kept = list(self._events)
        return kept if last is None else kept[max(0, len(kept) - last) :]

    def __len__(self) -> int:
        return len(self._events)


class Watcher:
    """Watches until the bus ends, or until ``close``, or until the end of a ``with`` block."""

    def __init__(self, bus: EventBus, inner: BusWatcher) -> None:
        self._inner = inner
        self._bus = weakref.ref(bus)
        # As long as the bus, unless it is closed before.
        bus._watchers.append(inner)

    def close(self) -> None:
        """Ends it."""
        self._inner.close()
        bus = self._bus()
        if bus is not None:
            # It may be closed already.
            with contextlib.suppress(ValueError):
                bus._watchers.remove(self._inner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        self.close()


def error_budget(bus: EventBus, threshold: int = 10) -> Watcher:
    """Emits ``system.error_threshold_exceeded`` for every so many events of ``*.error`` and ``*.failed``."""
    return Watcher(bus, bus._core.watch_errors(whole("threshold", threshold)))


def threshold(bus: EventBus, topics: str | Iterable[str], field: str, threshold: float) -> Watcher:
    """Emits ``system.performance_warning`` for each event of some names or patterns whose data have more than ``threshold`` there."""
    topics = [topics] if isinstance(topics, str) else list(topics)
    return Watcher(bus, bus._core.watch_field(topics, field, threshold))


def aggregate(bus: EventBus, every: float = 5.0, last: int = 50) -> Watcher:
    """Emits ``metrics.aggregated`` every so many seconds: how many of the last events were of ``training.*`` and ``system.*``, and how many
    came a second. Nothing is emitted where nothing came."""
    return Watcher(bus, bus._core.watch_rates(every, whole("last", last)))


def memory(bus: EventBus, every: float = 10.0) -> Watcher:
    """Emits ``system.memory_usage`` of the machine every so many seconds, on Linux."""
    return Watcher(bus, bus._core.watch_memory(every))


def disk(bus: EventBus, path: str | os.PathLike[str] = ".", every: float = 60.0) -> Watcher:
    """Emits ``system.disk_usage`` of the file system of a path every so many seconds, on Unix."""
    return Watcher(bus, bus._core.watch_disk(every, path))


def bottlenecks(bus: EventBus, every: float = 5.0) -> Watcher:
    """Looks at the health of the bus every so many seconds, and emits ``system.bottleneck_detected`` for each alert that is new."""
    return Watcher(bus, bus._core.watch_bottlenecks(every))


class TrainingRun:
    """Reports a run: ``training.started`` where its block begins, then ``training.completed``, or ``training.failed`` where it raises.

    All that is emitted in the block has the id of the run as correlation id. An exception goes on its way.

    Example:
        >>> with TrainingRun(bus, "run-7", config={"lr": 1e-3}) as run:
        ...     for run.epoch in range(10):
        ...         run.final_metrics = train()
    """

    def __init__(self, bus: EventBus, run_id: str, config: Any = None, model_type: str | None = None) -> None:
        self.run_id = run_id
        #: The epoch that ``training.failed`` tells.
        self.epoch: int | None = None
        #: What ``training.completed`` tells.
        self.final_metrics: dict[str, Any] = {}
        self._bus = bus
        self._config = config
        self._model_type = model_type
        self._begun = 0.0

    def __enter__(self) -> Self:
        # It may raise, for a setting that no event can have; then nothing has begun.
        started = events.training.started(self.run_id, self._config, self._model_type)
        self._scope = correlate(self.run_id)
        self._scope.__enter__()
        self._begun = time.monotonic()
        self._bus.emit(started)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        try:
            if exc_val is None:
                self._bus.emit(events.training.completed(self.final_metrics, time.monotonic() - self._begun))
            else:
                # What an event has room for: the end of a traceback says most, and the beginning of a message. The text of an
                # exception may raise; `traceback` says so in its place.
                text = "".join(traceback.format_exception(exc_val))[-16_384:]
                said = "".join(traceback.format_exception_only(exc_val)).strip()[:4_096]
                self._bus.emit(events.training.failed(said, text, self.epoch))
        finally:
            self._scope.__exit__(None, None, None)


def timed(
    bus: EventBus,
    batches: Iterable[_Item],
    *,
    threshold: float | None = None,
    component: str = "data_loader",
    size: Callable[[_Item], int] | None = None,
) -> Iterator[_Item]:
    """Goes through batches, and emits ``data.batch_loaded`` for each, with its size and the seconds that it took to come.

    Args:
        bus: Where it is emitted.
        batches: The batches.
        threshold: A batch that takes more seconds is a ``data.performance_warning`` as well.
        component: Who that warning is about.
        size: Returns the size of a batch. Defaults to the first dimension of a tensor: the batch itself, the first of a list or a tuple, or
            the first value of a dict; else to the length of the batch, or of the first value of a dict. What has no length has the size 1.
    """
    size_of = _size if size is None else size
    iterator = iter(batches)
    while True:
        begun = time.perf_counter()
        try:
            batch = next(iterator)
        except StopIteration:
            return
        seconds = time.perf_counter() - begun
        bus.emit(events.data.batch_loaded(size_of(batch), seconds))
        if threshold is not None and seconds > threshold:
            bus.emit(events.data.performance_warning(component, "load_time", seconds, threshold))
        yield batch


def _size(batch: Any) -> int:
    """Returns the size of a batch, as far as its shape or its length tells it."""
    first = batch
    if isinstance(batch, Mapping):
        batch = first = next(iter(batch.values()), ())
    elif isinstance(batch, (list, tuple)) and batch:
        first = batch[0]
    shape = getattr(first, "shape", None)
    if isinstance(shape, tuple) and (shape or first is batch):
        return int(shape[0]) if shape else 1
    return len(batch) if isinstance(batch, Sized) and not isinstance(batch, (str, bytes)) else 1
