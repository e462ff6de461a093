"""``logging``: ``logging.getLogger().addHandler(ForebayHandler(run))``."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Literal

from forebay import _run
from forebay._collector import Collector
from forebay._run import Run

__all__ = ["ForebayHandler"]

#: The most characters of a message, of a text among the fields, and of a traceback. What is beyond is cut.
MAX_MESSAGE, MAX_TEXT, MAX_TRACEBACK = 8_192, 1_024, 32_768

#: The most fields that a record adds of its own.
MAX_EXTRAS = 32

#: What every record has.
_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "exc_text"}


class ForebayHandler(logging.Handler):
    """Collects log records as events, beside the values of a run.

    A record of the level ``WARNING`` is the event ``log.warning``, with the fields ``message``, ``logger``, ``file``, ``line`` and
    ``thread``, those that were given as ``extra``, and of an exception ``exception`` and ``traceback``. An extra ``step`` is the step of
    the event. Records below ``INFO`` have a low priority, and go first when a queue is full; those of ``CRITICAL`` are never evicted.

    It never waits and never raises. Texts are cut and fields are counted, so that a record has a bounded size. Records of the logger
    ``forebay`` are left to other handlers, so that what forebay says of an event makes no event. Like other handlers of ``logging``, it has a
    lock and cannot be pickled: another process makes its own, in ``logging.config`` for example.

    Args:
        target: The run or the collector. Defaults to the run that goes on, as for :func:`forebay.log`; while there is none, records are
            counted in ``ignored``.
        level: The least level.

    Example:
        >>> with forebay.init("runs") as run:
        ...     logging.getLogger().addHandler(ForebayHandler(run))
        ...     logging.warning("the loss rose", extra={"step": 7, "loss": 2.5})
    """

    def __init__(self, target: Run | Collector | None = None, level: int | str = logging.NOTSET) -> None:
        super().__init__(level)
        if not isinstance(target, (Run, Collector, type(None))):
            raise TypeError(f"target must be a Run or a Collector, got {target!r}")
        self._target = target
        self._emitting = threading.local()
        #: Records that became no event: there was no run, they came from within, or they could not be put into words.
        self.ignored = 0

    def filter(self, record: logging.LogRecord) -> Any:
        """Leaves out what forebay says itself, and what the text of a record logs in turn."""
        name = str(record.name)
        if name == "forebay" or name.startswith("forebay."):
            return False
        if getattr(self._emitting, "is_in", False):
            self._ignore()
            return False
        try:
            return super().filter(record)
        except Exception:  # noqa: BLE001 - a filter of anybody, which must end no training either
            self._ignore()
            return False

    def _ignore(self) -> None:
        """Counts a record that becomes no event. ``logging`` calls ``filter`` without the lock."""
        self.acquire()
        try:
            self.ignored += 1
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Collects a record."""
        self._emitting.is_in = True
        try:
            collector = self._collector()
            if collector is None:
                self._ignore()
                return
            step = _step(record)
            name = f"log.{record.levelname.lower()[:64]}"
            fields, priority = _fields(record, step), _priority(record.levelno)
            collector.try_collect(name, fields, step=step, priority=priority, walltime=record.created)
        except Exception:  # noqa: BLE001 - a log record ends no training
            self._ignore()
        finally:
            self._emitting.is_in = False

    def flush(self) -> None:
        """Does nothing: the worker delivers by itself. ``logging.shutdown`` must not wait for it."""

    def _collector(self) -> Collector | None:
        """Returns the collector that records go to, if there is one."""
        target = _run._current if self._target is None else self._target
        return target.collector if isinstance(target, Run) else target

    def __repr__(self) -> str:
        target = "the run that goes on" if self._target is None else repr(self._target)
        return f"<ForebayHandler ({logging.getLevelName(self.level)}) to {target}>"


def _priority(level: int) -> Literal["critical", "normal", "low"]:
    """Returns the priority of a level."""
    if level >= logging.CRITICAL:
        return "critical"
    return "normal" if level >= logging.INFO else "low"


def _step(record: logging.LogRecord) -> int | None:
    """Returns the step of a record, if it has one."""
    step = getattr(record, "step", None)
    is_step = isinstance(step, int) and not isinstance(step, bool) and -(1 << 63) <= step < 1 << 63
    return step if is_step else None


def _fields(record: logging.LogRecord, step: int | None) -> dict[str, Any]:
    """Returns what an event tells of a record."""
    fields: dict[str, Any] = {
        "message": _text(record.getMessage, MAX_MESSAGE),
        "logger": str(record.name)[:MAX_TEXT],
        "file": record.pathname,
        "line": record.lineno,
        "thread": record.threadName,
    }
    extras = [name for name in vars(record) if name not in _USUAL and not (name == "step" and step is not None)]
    for name in extras[:MAX_EXTRAS]:
        fields.setdefault(str(name)[:MAX_TEXT], _plain(vars(record)[name]))
    if len(extras) > MAX_EXTRAS:
        fields["left_out"] = len(extras) - MAX_EXTRAS
    info = record.exc_info
    if info and info[0] is not None:
        fields["exception"] = info[0].__name__
        fields["traceback"] = _text(lambda: _FORMATTER.formatException(info), MAX_TRACEBACK)
    elif record.exc_text:
        fields["traceback"] = record.exc_text[:MAX_TRACEBACK]
    if record.stack_info:
        fields["stack"] = record.stack_info[:MAX_TRACEBACK]
    return fields


_FORMATTER = logging.Formatter()


def _text(make: Callable[[], str], limit: int) -> str:
    """Returns a text of limited length, or why there is none."""
    try:
        text = make()
    except Exception as error:  # noqa: BLE001 - a message that does not fit its arguments is worth a record as well
        text = f"<{type(error).__name__}: {error}>"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _plain(value: Any) -> Any:
    """Returns a number or a truth value as it is, and anything else as a text. A tensor is its shape: it may be on a device, and large."""
    if value is None or isinstance(value, (bool, float)) or type(value) is int and abs(value) < 1 << 63:
        return value
    if isinstance(value, str):
        return _text(lambda: value, MAX_TEXT)
    if getattr(value, "shape", None) is not None:
        return _text(lambda: f"<{type(value).__name__} of the shape {tuple(value.shape)}>", MAX_TEXT)
    return _text(lambda: str(value), MAX_TEXT)
