"""The collector, for programs that want more of it than a run or a writer."""

from __future__ import annotations

import html
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from forebay import _lifecycle
from forebay._forebay import CollectorBase, Record, Subscription, check_settings
from forebay._progress import Progress
from forebay._values import whole
from forebay.sinks import Row, Sink

logger = logging.getLogger("forebay")


@dataclass(frozen=True, repr=False)
class Report:
    """What became of all events of a collector.

    ``offered`` is the sum of ``processed``, ``lost`` and ``pending``: nothing is lost silently.
    """

    #: Events that were given to the collector.
    offered: int
    #: Events that every sink has seen.
    processed: int
    #: Events that no sink has seen, because they were evicted, rejected, or kept out by the gate.
    lost: int
    #: Events that are still queued.
    pending: int
    #: Events that a sink could not write, by the name of the sink.
    failed: Mapping[str, int]
    #: Everything, as the collector counts it.
    stats: Mapping[str, Any]

    @classmethod
    def _of(cls, stats: Mapping[str, Any]) -> Self:
        """Makes a report of the statistics of a collector."""
        lost = stats["offered"] - stats["processed"] - stats["pending"]
        failed = {sink["name"]: sink["failed"] for sink in stats["sinks"] if sink["failed"]}
        return cls(stats["offered"], stats["processed"], lost, stats["pending"], failed, stats)

    @property
    def is_clean(self) -> bool:
        """Whether every event is where it belongs."""
        return self.processed == self.offered and not self.failed

    def __repr__(self) -> str:
        parts = [f"{self.offered:,} offered = {self.processed:,} processed + {self.lost:,} lost + {self.pending:,} pending"]
        parts += [f"{number:,} failed in {name}" for name, number in self.failed.items()]
        return f"<Report: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        """Returns the report as a notebook shows it."""
        rows = [(name, getattr(self, name)) for name in ("offered", "processed", "lost", "pending")]
        rows += [(f"failed in {name}", number) for name, number in self.failed.items()]
        cells = (f"<tr><th>{html.escape(name)}</th><td>{number:,}</td></tr>" for name, number in rows)
        return f"<table>{''.join(cells)}</table>"


class Collector(CollectorBase):
    """Takes events from any thread, and delivers them in batches to sinks, on a thread of its own.

    Collecting never waits for a sink. By default, the oldest events are evicted when a sink is too slow, and counted.

    Args:
        sinks: Where events go.
        settings: The settings of ``docs/configuration.md``, such as ``capacity=50_000``, ``overflow="drop_newest"``,
            ``flush={"strategy": "hybrid", "events": 500, "interval": "1s"}``, ``gate={"deny": ["debug.*"]}``.

    Raises:
        OSError: A sink cannot be created.
        ValueError: A setting is unknown or not allowed.

    Example:
        >>> with forebay.Collector([forebay.sinks.JsonLines("events.jsonl")], capacity=50_000) as collector:
        ...     collector.collect("train.loss", 0.25, step=7)
    """

    _exit_turn = 2

    def __new__(cls, sinks: Iterable[Sink] = (), **settings: Any) -> Self:
        collector = super().__new__(cls, _rows(sinks), _encoded(settings))
        _lifecycle.register(collector)
        return collector

    def __init__(self, sinks: Iterable[Sink] = (), **settings: Any) -> None:
        super().__init__()

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until everything that was collected before is delivered, and returns whether it is. Ctrl-C interrupts it.

        It is not where an event was larger than seven eighths of ``max_bytes``: the queue had no room for it, and it is logged.

        Args:
            timeout: The most seconds to wait. Defaults to the setting ``flush_timeout``, which is 10 s.
        """
        report, said = self._flush(timeout)
        _log(said)
        return report is not None and not any(sink["failed"] for sink in json.loads(report)["sinks"])

    def stop(self, timeout: float | None = None) -> Report:
        """Refuses new events, delivers those that are queued, and ends the worker.

        Where that takes more than a second, a line on the terminal tells how much is left. Ctrl-C raises ``KeyboardInterrupt`` when it is
        done.

        Args:
            timeout: The most seconds to wait. Defaults to the setting ``stop_timeout``, which is 10 s.
        """
        progress = Progress("the collector", self._timeouts[1] if timeout is None else timeout)
        try:
            return self._end(timeout, progress)
        finally:
            progress.end()

    def _end(self, timeout: float | None, progress: Progress) -> Report:
        """Stops it, tells how that goes, and returns the report."""
        stats, said = progress.follow(self._stop(timeout))
        _log(said)
        return Report._of(json.loads(stats))

    def stats(self) -> Report:
        """Returns what became of all events so far."""
        return Report._of(json.loads(self._stats()))

    def health(self) -> dict[str, Any]:
        """Returns the state of the collector as an operator sees it: its status, alerts, and how full it is."""
        health: dict[str, Any] = json.loads(self._health())
        return health

    def subscribe(
        self,
        pattern: str = "*",
        callback: Callable[[Record], object] | None = None,
        *,
        capacity: int = 1000,
    ) -> Subscription:
        """Watches events as they are delivered, until the collector has stopped.

        Args:
            pattern: The names to watch, such as ``"train.*"``; ``*`` stands for all.
            callback: Called for every event, on a thread of its own. An exception is logged, and the next event goes on. Without it, the
                subscription is an iterator.
            capacity: The events that are kept for a subscriber that lags, before the oldest are evicted.

        Raises:
            ValueError: The pattern is none, or ``capacity`` is negative.
        """
        subscription = self._subscribe(pattern, whole("capacity", capacity))
        if callback is not None:
            arguments = (subscription, callback)
            threading.Thread(target=_call, args=arguments, name="forebay-subscriber", daemon=True).start()
        return subscription

    def _close_at_exit(self, timeout: float) -> None:
        """Stops it at the end of the process: see ``_lifecycle``."""
        progress = Progress("the collector", timeout)
        try:
            # A child that was forked has nothing to stop, and says nothing of it.
            progress.follow(self._stop(timeout))
        finally:
            progress.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Collector: {self._account().splitlines()[0]}>"

    def __reduce__(self) -> Any:
        raise TypeError("a Collector cannot be pickled: make one in each process")


def _rows(sinks: Iterable[Sink]) -> list[Row]:
    """Returns sinks as the extension module takes them."""
    rows = []
    for sink in sinks:
        if not isinstance(sink, Sink):
            raise TypeError(f"sinks must be of forebay.sinks, got {sink!r}")
        rows.append(sink._row())
    return rows


#: Settings of a bus, which may stand in one file with those of a collector.
_OF_A_BUS = ("bus", "workerCount", "maxSubscribers", "retryDelays", "retryAttempts", "fallbackToSync")


def _encoded(settings: Mapping[str, Any]) -> str:
    """Returns settings as JSON."""
    for name in _OF_A_BUS:
        if name in settings:
            raise ValueError(f"unknown setting: {name} (it is one of a bus, not of a collector)")
    return json.dumps(settings)


def check(sinks: Iterable[Sink], settings: Mapping[str, Any]) -> None:
    """Raises what :class:`Collector` would, as far as that can be known before a file is made."""
    _rows(sinks)
    check_settings(_encoded(settings))


def _call(subscription: Subscription, callback: Callable[[Record], object]) -> None:
    """Calls back for every event of a subscription, on a thread of its own."""
    for record in subscription:
        try:
            callback(record)
        except Exception:
            logger.exception("the callback of a subscription failed for %r", record.name)


def _log(said: list[str]) -> None:
    """Logs what the worker had to say."""
    for message in said:
        logger.warning("%s", message)
