"""Training runs: ``run = forebay.init("runs")``, ``run.log({"loss": loss}, step=step)``, ``run.finish()``."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from forebay import _lifecycle
from forebay._collector import Collector, Report, check
from forebay._forebay import LastRun, RunGuard, check_fields, environment_rank, run_folder
from forebay._progress import Progress
from forebay._reading import EVENTS
from forebay.sinks import JsonLines, Sink, TensorBoard, local

logger = logging.getLogger("forebay")


class Run:
    """A training run. Make it by :func:`init`.

    It reports its begin, a heartbeat every ten seconds, and its end, so that :func:`forebay.runs` can tell which runs go on, which have
    ended and how, and which have vanished. As a context manager, it ends as its block does: an exception is a failure with its
    traceback, ``KeyboardInterrupt`` an interruption. So does a run that is still open when the program ends.
    """

    _exit_turn = 1

    def __init__(
        self,
        folder: str | os.PathLike[str],
        name: str | None,
        config: Mapping[str, Any],
        sinks: Iterable[Sink],
        settings: Mapping[str, Any],
        rank: tuple[int, int | None, int],
        resumed: tuple[LastRun, int] | None = None,
    ) -> None:
        #: The folder of the run.
        self.folder = Path(folder)
        #: The name of the run, or ``None``.
        self.name = name
        #: The settings of the run, which TensorBoard shows as hyper-parameters.
        self.config = dict(config)
        #: What the run achieved: TensorBoard and readers get it with the end of the run.
        self.summary: dict[str, Any] = {}
        #: The collector that takes the events.
        self.collector = Collector(sinks, **settings)
        self._report: Report | None = None
        self._pid = os.getpid()
        #: What was raised last, before this run: it does not end it.
        self._earlier_error = id(_last_error())
        # Where the program has a handler of its own for SIGTERM, that decides.
        watches = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        # A handler of signals may interrupt the thread that ends it, and end it as well.
        self._ending = threading.RLock()
        try:
            self._guard = RunGuard(self.collector, name, self.config, watches, rank, resumed)
        except BaseException:
            self.collector.stop()
            raise
        _lifecycle.register(self)

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._guard.run_id

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Collects the values of a step, each under its name.

        Args:
            values: Values by name: numbers, texts, truth values, lists, dictionaries, :class:`forebay.Histogram`,
                :class:`forebay.Image`, and tensors: one of one element is a number, a larger one a histogram. Anything else is its text.
            step: The step. TensorBoard shows a value without one a step after the last of its name.
        """
        self._guard.log(values, step)

    def event(self, name: str, /, **fields: Any) -> None:
        """Collects an event with fields: ``run.event("data.shuffled", seed=3)``.

        Args:
            name: The name.
            fields: The fields.
        """
        self.collector.collect(name, fields or None)

    @contextmanager
    def timer(self, name: str, step: int | None = None) -> Iterator[None]:
        """Collects the seconds that a block takes: ``with run.timer("data"): ...``.

        Args:
            name: The name.
            step: The step.
        """
        began = time.perf_counter()
        try:
            yield
        finally:
            self.collector.collect(name, time.perf_counter() - began, step=step)

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until everything that was logged before is written, and returns whether it is: see :meth:`Collector.flush`.

        Args:
            timeout: The most seconds to wait. Defaults to 10.
        """
        return self.collector.flush(timeout)

    def finish(
        self, status: Literal["finished", "stopped", "failed", "preempted"] = "finished", reason: str | BaseException = ""
    ) -> Report:
        """Ends the run, writes what is left, and returns what became of all events. A second call returns the same report.

        Where that takes more than a second, a line on the terminal tells how much is left.

        Args:
            status: How the run ended: it completed, ended early on purpose, failed, or was interrupted.
            reason: Why it failed, or ended early. Of an exception, that is its traceback.

        Raises:
            ValueError: The status is unknown.
            TypeError: The reason is neither a text nor an exception.
        """
        if status not in ("finished", "stopped", "failed", "preempted"):
            raise ValueError(f"status must be 'finished', 'stopped', 'failed' or 'preempted', got {status!r}")
        if isinstance(reason, BaseException):
            reason = "".join(traceback.format_exception(reason))
        if not isinstance(reason, str):
            raise TypeError(f"reason must be a text or an exception, got {type(reason).__name__}")
        return self._finish(status, reason, None)

    def _finish(self, status: str, reason: str, timeout: float | None) -> Report:
        """Ends the run, within so many seconds or the collector's own limits."""
        if self._pid != os.getpid():
            # A forked child ends nothing: what it logs is counted, also after this.
            return self.collector.stats()
        # One thread ends it, and another waits: it would stop the collector before the end is reported.
        with self._ending:
            if self._report is None:
                # The end is reported behind what was logged before, and then everything is written.
                flush, stop = self.collector._timeouts
                longest = flush + stop if timeout is None else timeout
                until = time.monotonic() + longest
                progress = Progress(str(self.folder), longest)
                try:
                    # A traceback may have the name of a file that is no UTF-8.
                    said = reason.encode("utf-8", "replace").decode("utf-8")
                    reported = self._guard.end(status, said, self.summary, timeout)
                    try:
                        progress.follow(reported)
                    finally:
                        # Also after Ctrl-C: the run would be left half ended.
                        left = None if timeout is None else max(0.0, until - time.monotonic())
                        self._report = self.collector._end(left, progress)
                finally:
                    progress.end()
                    _end(self)
            return self._report

    def _close_at_exit(self, timeout: float) -> None:
        """Ends the run as its process does: see ``_lifecycle``."""
        # A child of multiprocessing handles what ends it just now. Elsewhere, the hook of exceptions has seen it before, unless the
        # program has set another one since.
        error = sys.exc_info()[1] or _last_error()
        if id(error) == self._earlier_error:
            error = None
        status, reason = _ending(error)
        if error is None and (code := _lifecycle.exit_code()):
            status, reason = "failed", f"the process ended with exit code {code}"
        self._finish(status, reason, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._finish(*_ending(exc_val), None)

    def __repr__(self) -> str:
        report = self._report or self.collector.stats()
        state = "running" if self._report is None else "ended"
        return f"<Run {self.name or self.run_id} in {str(self.folder)!r}, {state}: {report.offered:,} events, {report.lost:,} lost>"

    def __reduce__(self) -> Any:
        raise TypeError("a Run cannot be pickled: log to it in the process that made it")


def _ending(error: BaseException | None) -> tuple[str, str]:
    """How a run ends that an exception ends."""
    match error:
        case None:
            return "finished", ""
        case SystemExit(code=None | 0):
            return "finished", ""
        case KeyboardInterrupt():
            return "preempted", "KeyboardInterrupt"
        case _:
            return "failed", "".join(traceback.format_exception(error))


def _last_error() -> BaseException | None:
    """Returns the exception that has ended the program: the last that nobody caught, unless a person goes on after it."""
    if hasattr(sys, "ps1"):
        return None
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None


#: The run of `forebay.log` and the other functions: the one that was begun last and has not ended.
_current: Run | None = None

#: The runs that were begun before it, the oldest first. A run that nobody holds any more ends, and is none of them.
_earlier: list[weakref.ref[Run]] = []

_has_hook = False


def init(
    dir: str | os.PathLike[str] = "runs",  # noqa: A002 - the word that users know
    *,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    sinks: Iterable[Sink] | None = None,
    resume: str | os.PathLike[str] | None = None,
    first_step: int = 0,
    **settings: Any,
) -> Run:
    """Begins a run, in a new folder of its own.

    Args:
        dir: The folder of all runs. The folder of this one is made in it, and named after the time and ``name``.
        name: The name of the run.
        config: The settings of the run, such as ``{"lr": 0.1}``.
        sinks: Where events go. Defaults to ``events.jsonl`` and TensorBoard's files, both in the folder of the run.
        resume: The folder of an earlier run, which goes on there with its id and its name: ``dir`` has no effect then.
        first_step: The first step that a resumed run does. TensorBoard hides what was written of this step and later ones before.
        settings: Settings of the :class:`forebay.Collector`.

    Raises:
        FileNotFoundError: There is no run to resume in that folder.
        OSError: The folder or a file cannot be created.
        TypeError: A sink is none, or the name of a setting of the run is no text.
        ValueError: A setting is unknown or not allowed, ``first_step`` is negative, a folder is an address of a remote file system, or the
            environment variables that tell the rank of the process contradict themselves.

    What is wrong with the arguments is raised before a file is made, and a run that cannot begin leaves no folder.

    ``forebay.log`` and the other functions work on the run that was begun last. When that ends, they work on the one before, as long as the
    program holds it. A run that nobody holds any more, and that is not the last, ends as failed.

    Processes that resume one run at once, such as the ranks of a training, all read which generation was the last, and get the same next
    one: ``forebay.runs`` tells them apart by their ranks.

    A run that is open when its process ends says how that ended. ``sys.exit(1)`` outside of the ``with`` of a run looks like a success
    there, because Python does not report the exit code: call :meth:`Run.finish` with ``"failed"`` before. From Python 3.13 on, a child of
    ``multiprocessing`` knows of an exception, also of Ctrl-C, the exit code alone: its run is failed, with that as the reason.

    Example:
        >>> with forebay.init("runs", name="digits", config={"lr": 0.1}) as run:
        ...     for step in range(1000):
        ...         run.log({"loss": 1 / (step + 1)}, step=step)
        ...     run.summary["accuracy"] = 0.97
    """
    config, rank = dict(config or {}), environment_rank()
    if first_step < 0:
        raise ValueError(f"first_step must be 0 or more, got {first_step}")
    if resume is None:
        return _new(dir, name, config, sinks, settings, rank)
    if not Path(local("resume", resume), EVENTS).is_file():
        raise FileNotFoundError(f"resume must be the folder of a run, got {os.fspath(resume)!r}: it has no {EVENTS}")
    sinks = _checked(name, config, sinks, settings)
    earlier = LastRun(os.path.join(resume, EVENTS))
    return _begin(Path(resume), name, config, sinks, settings, rank, (earlier, int(first_step)))


def _new(
    dir: str | os.PathLike[str],  # noqa: A002
    name: str | None,
    config: Mapping[str, Any],
    sinks: Iterable[Sink] | None,
    settings: Mapping[str, Any],
    rank: tuple[int, int | None, int],
) -> Run:
    """Begins a run in a new folder."""
    sinks = _checked(name, config, sinks, settings)
    folder = run_folder(local("dir", dir), name)
    try:
        return _begin(folder, name, config, sinks, settings, rank)
    except BaseException:
        # It was made just now, and has what was to be written to alone.
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _checked(
    name: str | None, config: Mapping[str, Any], sinks: Iterable[Sink] | None, settings: Mapping[str, Any]
) -> list[Sink] | None:
    """Returns the sinks, if nothing is wrong with the arguments, as far as that can be known before a file is made."""
    if not isinstance(name, str | None):
        raise TypeError(f"name must be a text, got {name!r}")
    if name == "":
        raise ValueError("name must be a text that is not empty, got ''")
    check_fields(dict(config))
    sinks = None if sinks is None else list(sinks)
    check(sinks or (), settings)
    return sinks


def _begin(
    folder: Path,
    name: str | None,
    config: Mapping[str, Any],
    sinks: Iterable[Sink] | None,
    settings: Mapping[str, Any],
    rank: tuple[int, int | None, int],
    resumed: tuple[LastRun, int] | None = None,
) -> Run:
    """Begins a run in a folder, or goes on with an earlier one at a step."""
    global _current, _has_hook
    if sinks is None:
        sinks = [JsonLines(folder / EVENTS), TensorBoard(folder, None if resumed is None else resumed[1])]
    run = Run(folder, name, config, sinks, settings, rank, resumed)
    # A handler of a signal may begin and end runs as well.
    with _lock:
        before = _current
        if before is not None:
            _earlier[:] = [*(each for each in _earlier if each() is not None), weakref.ref(before)]
        _current = run
    if not _has_hook:
        _has_hook = True
        _hook()
    return run


def _hook() -> None:
    """Has an exception that nobody catches end the run that goes on."""
    earlier = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Ends the run that goes on, and calls the earlier hook."""
        run = _current
        if run is not None and run._pid == os.getpid():
            run._finish(*_ending(error), None)
        earlier(kind, error, trace)

    sys.excepthook = hook


def _end(run: Run) -> None:
    """Has the run go on that was begun last of those that are left, if it was this one."""
    global _current
    with _lock:
        _earlier[:] = [each for each in _earlier if each() not in (None, run)]
        if _current is run:
            _current = None
            while _earlier and _current is None:
                _current = _earlier.pop()()


class _NoRun:
    """The run of a process that has none, such as a child of ``multiprocessing``: what is logged is counted, and written nowhere.

    A forked child has the run of its parent, which does the same there. So a dataset that logs works with every start method.

    Args:
        has_warned: Whether there was a warning already, or needs to be none, that nothing is logged.
    """

    def __init__(self, has_warned: bool = False) -> None:
        self._has_warned = has_warned

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Counts values."""
        self._ignore(len(values))

    def event(self, name: str, /, **fields: Any) -> None:
        """Counts an event."""
        self._ignore(1)

    def _ignore(self, count: int) -> None:
        """Counts so many events, and warns the first time."""
        global _ignored, _has_warned
        with _lock:
            _ignored += count
            warns = not (_has_warned or self._has_warned)
            _has_warned |= warns
        if warns:
            logger.warning("nothing is logged in this process, which has no run: call forebay.init in it")

    @contextmanager
    def timer(self, name: str, step: int | None = None) -> Iterator[None]:
        """Counts a value."""
        yield
        self._ignore(1)

    @property
    def summary(self) -> dict[str, Any]:
        """Returns a dictionary that nobody reads."""
        return {}

    def flush(self, timeout: float | None = None) -> bool:
        """Has nothing to write."""
        return True

    def finish(self, status: str = "finished", reason: str | BaseException = "") -> Report:
        """Returns what was counted in this process."""
        return Report(_ignored, 0, _ignored, 0, {}, {})


def _count_anew() -> None:
    """Begins to count in a forked child, where the thread that holds the lock may not exist."""
    global _ignored, _has_warned, _lock
    _ignored, _has_warned, _lock = 0, False, threading.RLock()


#: Events that `_NoRun` was given in this process, and whether there was a warning of them. A handler of signals may log as well, within the
#: lock.
_ignored, _has_warned, _lock = 0, False, threading.RLock()
os.register_at_fork(after_in_child=_count_anew)


def _running() -> Run | _NoRun:
    """Returns the run that goes on. In a child of ``multiprocessing`` without one, that is one which counts what it is given."""
    if _current is not None:
        return _current
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        return _NoRun()
    raise RuntimeError("there is no run: call forebay.init first")


def log(values: Mapping[str, Any], step: int | None = None) -> None:
    """Logs to the run that goes on: see :meth:`Run.log`.

    In a process that ``multiprocessing`` made, such as a worker of a ``DataLoader``, and that has no run of its own, it counts the values
    and writes nothing.
    """
    _running().log(values, step)


def event(name: str, /, **fields: Any) -> None:
    """Collects an event of the run that goes on: see :meth:`Run.event`."""
    _running().event(name, **fields)


@contextmanager
def timer(name: str, step: int | None = None) -> Iterator[None]:
    """Collects the seconds that a block takes: see :meth:`Run.timer`."""
    with _running().timer(name, step):
        yield


def summary() -> dict[str, Any]:
    """Returns the summary of the run that goes on: see :attr:`Run.summary`."""
    return _running().summary


def finish(
    status: Literal["finished", "stopped", "failed", "preempted"] = "finished", reason: str | BaseException = ""
) -> Report:
    """Ends the run that goes on: see :meth:`Run.finish`."""
    return _running().finish(status, reason)
