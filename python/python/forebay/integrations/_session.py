"""What the adapters share: the run that one logs to, and values that anything can be."""

from __future__ import annotations

import dataclasses
import enum
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from forebay._forebay import LastRun, environment_rank
from forebay._reading import EVENTS
from forebay._run import Run, _begin, _ending, init
from forebay.sinks import Sink

logger = logging.getLogger("forebay")

#: The longest wait for the disk where a library asks for a flush: it trains on meanwhile with what is left.
FLUSH_TIMEOUT = 5.0

#: The depth at which a configuration is cut: one may have itself in it.
MAX_DEPTH = 8


class Session:
    """The run of an adapter.

    It begins with the first value. Libraries log on after training, for example when a model is tested: the run goes on in its folder
    then, as its next generation. A run that the user gave is neither begun nor ended here.

    What cannot be logged is left out, with a warning for each name: no training ends because of it.
    """

    def __init__(
        self,
        run: Run | None,
        folder: Callable[[], Path | None],
        runs: Callable[[], str | os.PathLike[str]],
        name: str | None,
        sinks: Iterable[Sink] | None,
        settings: Mapping[str, Any],
    ) -> None:
        """Takes what :func:`forebay.init` takes, but late.

        Args:
            run: The run of the user.
            folder: Returns the folder of the run, or ``None`` for a new one in ``runs``.
            runs: Returns the folder of all runs.
            name: The name of the run.
            sinks: Where events go.
            settings: Settings of the collector.
        """
        self.run = run
        self.is_ours = run is None
        self.name = name
        self._folder = folder
        self._runs = runs
        self._sinks = None if sinks is None else list(sinks)
        self._settings = dict(settings)
        self._warned: set[str] = set()
        #: What the next run is begun with.
        self.config: dict[str, Any] = {}
        #: The folder of the run that goes on, or ended last.
        self.folder: Path | None = None if run is None else run.folder

    @property
    def is_open(self) -> bool:
        """Whether there is a run that has not ended."""
        return self.run is not None and self.run._report is None

    def begin(self, step: int | None = None) -> Run:
        """Returns the run. If there is none, one begins, or goes on where the folder has one.

        Args:
            step: The first step that is to be logged.
        """
        run = self.run
        if run is not None and (run._report is None or not self.is_ours):
            return run
        folder = self.folder or self._folder()
        if folder is None:
            run = init(self._runs(), name=self.name, config=self.config, sinks=self._sinks, **self._settings)
        else:
            # What this session has logged stays. What another process has, it logs anew from this step on.
            first = max(0, step or 0) + (self.folder is not None)
            file = folder / EVENTS
            resumed = (LastRun(os.fspath(file)), first) if file.is_file() else None
            run = _begin(folder, self.name, self.config, self._sinks, self._settings, environment_rank(), resumed)
        self.run, self.folder = run, run.folder
        return run

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Logs the values of a step."""
        run = self.begin(step)
        step = None if step is None else int(step)
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
            run.collector.collect(name, plain(fields), step=step)
        except Exception as error:  # noqa: BLE001
            self._warn(name, error)

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._warned and len(self._warned) < 1000:
            self._warned.add(name)
            logger.warning("%s is not logged: %s: %s", name, type(error).__name__, error)

    def flush(self) -> None:
        """Waits a little until what was logged is written."""
        if self.is_open and self.run is not None:
            self.run.flush(FLUSH_TIMEOUT)

    def end(
        self,
        status: Literal["finished", "failed", "preempted"] = "finished",
        reason: str = "",
        summary: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends the run, unless it is the user's: that is flushed."""
        run = self.run
        if run is None or run._report is not None:
            return
        try:
            run.summary.update(plain(summary or {}))
        except Exception as error:  # noqa: BLE001
            self._warn("summary", error)
        if self.is_ours:
            run.finish(status, reason)
        else:
            self.flush()

    def fail(self, error: BaseException | None) -> None:
        """Ends the run as one that an exception ends."""
        status, reason = ("failed", "") if error is None else _ending(error)
        self.end("preempted" if status == "preempted" else "failed", reason)


def plain(value: Any, depth: int = 0) -> Any:
    """Returns a configuration as dictionaries, lists, numbers and texts. Anything else is its ``str``."""
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
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a configuration of anybody
        return f"<{type(value).__name__}>"
