"""Hugging Face accelerate: ``Accelerator(log_with=ForebayTracker("digits"))``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from forebay._run import Run
from forebay.integrations._session import Session, plain
from forebay.sinks import Sink, local

__all__ = ["ForebayTracker"]


class ForebayTracker(GeneralTracker):
    """Logs what ``accelerator.log`` is given to a run.

    The run begins with ``init_trackers``, or with the first value, and ends with ``end_training``. Its settings are those that
    ``init_trackers`` is given. Only the main process logs. It can be pickled: the copy has the settings, and a run of its own.

    Args:
        name: The name of the run.
        dir: The folder of all runs.
        run: A run to log to instead. It is not ended.
        sinks: Where events go: see :func:`forebay.init`.
        settings: Settings of the :class:`forebay.Collector`.

    Raises:
        TypeError: A sink is none.
        ValueError: A setting is unknown or not allowed, or ``dir`` is an address of a remote file system.

    Example:
        >>> accelerator = Accelerator(log_with=ForebayTracker("digits"))
        >>> accelerator.init_trackers("digits", config={"lr": 0.1})
        >>> accelerator.log({"loss": 0.5}, step=3)
        >>> accelerator.end_training()
    """

    #: The name by which accelerate finds it: ``accelerator.get_tracker("forebay")``.
    name = "forebay"
    requires_logging_directory = False
    main_process_only = True

    def __init__(
        self,
        name: str | None = None,
        dir: str | os.PathLike[str] = "runs",  # noqa: A002 - the word of `forebay.init`
        *,
        run: Run | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        self._dir = local("dir", dir)
        self._session = Session(run, self._runs, name, sinks, settings)
        # It asks for the properties.
        super().__init__()

    def _runs(self) -> str:
        """Returns the folder of all runs."""
        return self._dir

    @property
    def tracker(self) -> Run | None:
        """The run; ``None`` before it begins, and in other processes than the main one."""
        return self._session.run

    @on_main_process
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Begins the run with these settings. A run that goes on already gets them as an event.

        Raises:
            OSError: The folder or a file cannot be created.
        """
        session = self._session
        if session.goes_on_here():
            session.config.update(plain(values))
            session.event("training.configured", values)
        else:
            session.describe({**session.config, **values})
            session.start()

    @on_main_process
    def log(self, values: Mapping[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Logs the values of a step, each under its name."""
        self._session.log(values, step)

    @on_main_process
    def finish(self) -> None:
        """Ends the run."""
        self._session.end()
