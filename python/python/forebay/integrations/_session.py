"""What the adapters share: the run that one logs to, and values that anything can be."""

from __future__ import annotations

import copy
import dataclasses
import enum
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

from forebay._collector import check
from forebay._forebay import LastRun
from forebay._reading import EVENTS
from forebay._run import _NoRun, Run, _begin, _ending, _new
from forebay.integrations import _rank
from forebay.sinks import Sink

logger = logging.getLogger("forebay")

#: The longest wait for the disk where a library asks for a flush: it trains on meanwhile with what is left.
FLUSH_TIMEOUT = 5.0

#: What is not logged where no run can begin.
_TRAINING = "the training"

#: The depth at which a configuration is cut: one may have itself in it.
MAX_DEPTH = 8


class Session:
    """The run of an adapter.

    It begins where the library says that a training begins, or else with the first value. Libraries log on after training, for example
    when a model is tested: the run goes on in its folder then, as its next generation. A run that the user gave is neither begun nor
    ended here.

    Only the beginning of a training raises. Later, what cannot be logged is left out, with a warning for each name: no training ends
    because of it.

    A copy, such as one that was pickled for another process, has the settings and no run: it begins one of its own. The run of the user
    stays in its process: what was pickled with one logs nothing. A forked child does what it does with any run of its parent: it counts
    what it logs, and writes nothing, until a training begins in it.
    """

    def __init__(
        self,
        run: Run | None,
        runs: Callable[[], str | os.PathLike[str]],
        name: str | None,
        sinks: Iterable[Sink] | None,
        settings: Mapping[str, Any],
        folder: Callable[[], Path | None] | None = None,
    ) -> None:
        """Takes what :func:`forebay.init` takes, but late. What can be checked is checked at once.

        Args:
            run: The run of the user.
            runs: Returns the folder of all runs. To be pickled, it is a method.
            name: The name of the run.
            sinks: Where events go.
            settings: Settings of the collector.
            folder: Returns the folder of the run, or ``None`` for a new one in ``runs``. Defaults to a new one.

        Raises:
            TypeError: A sink is none.
            ValueError: A setting is unknown or not allowed, or a folder is an address of a remote file system.
        """
        self.run = run
        self.is_ours = run is None
        self.name = name
        self._folder = folder
        self._runs = runs
        self._sinks = None if sinks is None else list(sinks)
        self._settings = dict(settings)
        check(self._sinks or (), self._settings)
        self._warned: set[str] = set()
        #: None could begin, and that was said.
        self._has_failed = False
        #: Whether the processes that train had been joined when the run began.
        self._was_joined = False
        #: Whether a run of this adapter goes on in another process, so that this one needs a folder of its own.
        self.is_apart = False
        #: What the next run is begun with.
        self.config: dict[str, Any] = {}
        #: The folder of the run that goes on, or ended last.
        self.folder: Path | None = None if run is None else run.folder

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state.update(run=None, _warned=set(), _has_failed=False, is_apart=self.is_apart or self.is_ours and self.is_open)
        if self.is_ours:
            state.update(folder=None)
        return state

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        # A run of the user's is theirs to share in this process.
        vars(other).update(copy.deepcopy(self.__getstate__(), memo), run=None if self.is_ours else self.run)
        return other

    @property
    def is_open(self) -> bool:
        """Whether there is a run that has not ended."""
        return self.run is not None and self.run._report is None

    def goes_on_here(self) -> bool:
        """Returns whether there is a run that has not ended, and that is of this process."""
        return self.is_open and self.run is not None and (self.run._pid == os.getpid() or not self.is_ours)

    def start(self, step: int | None = None) -> None:
        """Begins the run of a training, or goes on with it. Raises where that is not possible.

        Args:
            step: The first step that is to be logged.

        Raises:
            OSError: The folder or a file cannot be created.
            ValueError: A setting is not allowed.
        """
        if self.is_ours and self.run is not None and self.run._pid != os.getpid():
            self._part()
        self._has_failed = False
        self.renew_warning()
        self._begin(step)

    def begin(self, step: int | None = None) -> Run | _NoRun:
        """Returns the run. If there is none, one begins, or goes on where the folder has one. Never raises.

        Args:
            step: The first step that is to be logged.
        """
        if self._has_failed:
            return _NoRun(has_warned=True)
        try:
            return self._begin(step)
        except Exception as error:  # noqa: BLE001 - a full disk ends no training either
            self._has_failed = True
            self._warn(_TRAINING, error)
            return _NoRun(has_warned=True)

    def renew_warning(self) -> None:
        """Lets the next training say, too, that it cannot begin. For the end of one where a library has no hook for the begin."""
        self._warned.discard(_TRAINING)

    def _begin(self, step: int | None) -> Run | _NoRun:
        """Returns the run of the training, and begins it if need be."""
        self.leave_to_parent()
        run = self.run
        if run is not None and (run._report is None or not self.is_ours):
            return run
        place = _rank.joined()
        if not self.is_ours or _rank.is_worker() or place is not None and place[0] != 0:
            # Other processes that train log nothing by intention, and need no warning.
            return _NoRun(has_warned=self.is_ours and not _rank.is_worker())
        if run is not None and run._pid != os.getpid():
            # It ended before this process was forked. Its folder is the parent's, who may go on in it.
            self._part()
        folder = self.folder or (None if self._folder is None else self._folder())
        rank = _rank.of_first()
        if folder is None:
            run = _new(self._runs(), self.name or None, self.config, self._sinks, self._settings, rank)
        else:
            # What this session has logged stays. What another process has, it logs anew from this step on.
            first = max(0, step or 0) + (self.folder is not None)
            resumed = None if (earlier := _last_run(folder)) is None else (earlier, first)
            run = _begin(folder, self.name or None, self.config, self._sinks, self._settings, rank, resumed)
        self.run, self.folder = run, run.folder
        self.is_apart, self._was_joined = False, place is not None
        return run

    def _part(self) -> None:
        """Leaves the run to the process that this one was forked from."""
        self.run, self.folder, self.is_apart = None, None, True

    def leave_to_parent(self) -> None:
        """Leaves the run to the process that this one was forked from, if this one trains by itself."""
        # One that only fetches data was not joined with others since.
        is_joined = not self._was_joined and _rank.joined() is not None and not _rank.is_worker()
        if self.is_ours and self.run is not None and self.run._pid != os.getpid() and is_joined:
            self._part()

    def describe(self, config: Any, name: object = None) -> None:
        """Sets what the next run is begun with, and its name unless it has one."""
        found = plain(config)
        self.config = found if isinstance(found, dict) else {"config": found}
        if not self.name and isinstance(name, str):
            self.name = name or None

    def log(self, values: Mapping[str, Any], step: Any = None) -> None:
        """Logs the values of a step."""
        try:
            step = None if step is None else int(step)
        except Exception as error:  # noqa: BLE001 - a step of anybody
            self._warn("the step", error)
            step = None
        run = self.begin(step)
        try:
            run.log(values, step)
        except Exception:  # noqa: BLE001 - one of them is to be left out, whatever it is
            for name, value in values.items():
                try:
                    run.log({name: value}, step)
                except Exception as error:  # noqa: BLE001
                    self._warn(str(name), error)

    def event(self, name: str, fields: Mapping[str, Any], step: int | None = None) -> None:
        """Collects an event with fields."""
        run = self.begin(step)
        try:
            if isinstance(run, Run):
                run.collector.collect(name, plain(fields), step=step)
            else:
                run.event(name)
        except Exception as error:  # noqa: BLE001
            self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        """Warns of a value that cannot be logged, once for each name."""
        if name not in self._warned and len(self._warned) < 1000:
            self._warned.add(name)
            logger.warning("%s is not logged: %s: %s", name, type(error).__name__, error)

    def flush(self) -> None:
        """Waits a little until what was logged is written."""
        try:
            if self.is_open and self.run is not None:
                self.run.flush(FLUSH_TIMEOUT)
        except Exception as error:  # noqa: BLE001
            self._warn("what was logged", error)

    def end(
        self,
        status: Literal["finished", "failed", "preempted"] = "finished",
        reason: str = "",
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends the run, unless it is the user's: that is flushed."""
        # The next training may begin.
        self._has_failed = False
        run = self.run
        if run is None or run._report is not None:
            return
        try:
            run.summary.update(plain(summary or {}))
        except Exception as error:  # noqa: BLE001
            self._warn("summary", error)
        if not self.is_ours:
            self.flush()
            return
        try:
            run.finish(status, reason)
        except Exception as error:  # noqa: BLE001
            self._warn("the end", error)

    def fail(self, error: BaseException | None) -> None:
        """Ends the run as one that an exception ends."""
        status, reason = ("failed", "") if error is None else _ending(error)
        self.end("preempted" if status == "preempted" else "failed", reason)


def _last_run(folder: Path) -> LastRun | None:
    """Returns the run that goes on in a folder, if there is one."""
    try:
        return LastRun(os.fspath(folder / EVENTS)) if (folder / EVENTS).is_file() else None
    except ValueError:
        # The process was killed before its run began.
        return None


def plain(value: Any, depth: int = 0) -> Any:
    """Returns a configuration as dictionaries, lists, numbers and texts. Anything else is its ``str``. Never raises."""
    try:
        return _plain(value, depth)
    except Exception:  # noqa: BLE001 - a configuration of anybody, which may refuse to be read
        return f"<{type(value).__name__}>"


def _plain(value: Any, depth: int) -> Any:
    """Returns a value as an event can keep it, ``"..."`` where it is nested too deep."""
    if value is None or isinstance(value, (bool, int, float, str)) and not isinstance(value, enum.Enum):
        return value
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, enum.Enum):
        return plain(value.value, depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif not isinstance(value, Mapping) and hasattr(value, "__dict__") and type(value).__name__ == "Namespace":
        value = vars(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(each, depth + 1) for each in value]
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return plain(value.item(), depth + 1)
    if isinstance(value, type) or callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)
