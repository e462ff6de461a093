"""Lightning: ``Trainer(logger=ForebayLogger("runs"))``."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from forebay._run import Run
from forebay.integrations._session import Session, plain
from forebay.sinks import Sink, local
from forebay.tensorboard import SummaryWriter

# Lightning has two names. A class of one is none of the other.
if "pytorch_lightning" in sys.modules or importlib.util.find_spec("lightning") is None:
    from pytorch_lightning.loggers import Logger
    from pytorch_lightning.loggers import TensorBoardLogger as _TensorBoardLogger
    from pytorch_lightning.loggers.logger import rank_zero_experiment
    from pytorch_lightning.utilities import rank_zero_only
else:
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.loggers import TensorBoardLogger as _TensorBoardLogger
    from lightning.pytorch.loggers.logger import rank_zero_experiment
    from lightning.pytorch.utilities import rank_zero_only

__all__ = ["ForebayLogger", "TensorBoardLogger"]


class _LazyRun:
    """A run that begins when something of it is used."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        # Not for those who only look what it is.
        if name.startswith("__") or name == "_session":
            raise AttributeError(name)
        return getattr(self._session.begin(), name)

    def __repr__(self) -> str:
        return "<Run that has not begun>"


class ForebayLogger(Logger):
    """Logs the training of a ``Trainer`` to a run, in the folder ``<save_dir>/<name>/version_<n>``.

    The run begins with the first value, so that its settings are the hyper-parameters that were logged until then. It ends as the
    training does: an exception is a failure with its traceback, Ctrl-C an interruption. A version that exists goes on, from the first
    step that is logged. Tests and validations after the training add to its run.

    Args:
        save_dir: The folder of all runs.
        name: The name of the run, and a folder below ``save_dir``. Without one, there is no such folder.
        version: The version: a number, or the name of the folder. Defaults to the next number, whose folder is made when it is asked for.
        prefix: The beginning of all names, such as ``"fold1."``.
        log_graph: Whether the trainer's model is added as a graph, to TensorBoard's files in the folder of the run. Needs TensorBoard.
        run: A run to log to instead. It is not ended.
        sinks: Where events go: see :func:`forebay.init`.
        settings: Settings of the :class:`forebay.Collector`.

    Raises:
        TypeError: A sink is none.
        ValueError: A setting is unknown or not allowed, or ``save_dir`` is an address of a remote file system.

    Example:
        >>> trainer = Trainer(logger=ForebayLogger("runs", name="digits"))
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str] = "runs",
        name: str | None = None,
        version: int | str | None = None,
        *,
        prefix: str = "",
        log_graph: bool = False,
        run: Run | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._save_dir = local("save_dir", save_dir)
        self._name = name or ""
        self._version = version
        self._prefix = prefix
        self._log_graph = log_graph
        self._session = Session(run, self._runs, name, sinks, settings, self._folder)
        self._lazy = _LazyRun(self._session)

    def _runs(self) -> str:
        """Returns the folder of all runs."""
        return self._save_dir

    def _folder(self) -> Path:
        """Returns the folder of the run."""
        return Path(self.log_dir)

    @property
    def name(self) -> str:
        """The name; empty where none was given."""
        return self._name

    @property
    def version(self) -> int | str:
        """The version: the number, or the name of the folder.

        A number that was not given is the next one. Its folder is made then, so that no other training gets it.
        """
        self._session.leave_to_parent()
        if self._session.is_apart:
            # The run of that version goes on in another process.
            self._session.is_apart, self._version = False, None
        if self._version is None:
            is_first = getattr(rank_zero_only, "rank", 0) in (0, None)
            self._version = (_claimed_version if is_first else _next_version)(Path(self.root_dir))
        return self._version

    @property
    def root_dir(self) -> str:
        """The folder of all versions."""
        return os.path.join(self._save_dir, self._name) if self._name else self._save_dir

    @property
    def save_dir(self) -> str:
        """The folder of all runs."""
        return self._save_dir

    @property
    def log_dir(self) -> str:
        """The folder of the run."""
        if not self._session.is_ours:
            return str(self._session.folder)
        version = self.version
        return os.path.join(self.root_dir, version if isinstance(version, str) else f"version_{version}")

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run, for what Lightning does not log: ``experiment.log({"x": Image(..)})``. It begins with its first use."""
        session = self._session
        # Lightning looks at it before it logs the hyper-parameters, and before it knows the step of a checkpoint.
        return session.run if session.is_open and session.run is not None else cast(Run, self._lazy)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Logs the values of a step, each under its name."""
        self._session.log({f"{self._prefix}{name}": value for name, value in metrics.items()}, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Mapping[str, Any] | None = None, *args: Any, **kwargs: Any) -> None:
        """Adds settings of the run. Once it has begun, they are an event."""
        session = self._session
        config = plain(params) if params is not None else {}
        config = config if isinstance(config, dict) else {"params": config}
        session.config = {**session.config, **config}
        if session.is_open and config:
            session.event("training.configured", config)
        if metrics:
            session.log(metrics, 0)

    @rank_zero_only
    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """Adds the graph of a model, if ``log_graph`` was set."""
        example = getattr(model, "example_input_array", None) if input_array is None else input_array
        if not self._log_graph or example is None:
            return
        try:
            if hasattr(model, "_on_before_batch_transfer"):
                example = model._on_before_batch_transfer(example)
            if hasattr(model, "_apply_batch_transfer_handler"):
                example = model._apply_batch_transfer_handler(example)
            if not isinstance(self._session.begin(), Run):
                return
            # TensorBoard reads all files of a folder, and shows the graph beside the run's values.
            with SummaryWriter(self.log_dir, filename_suffix=".graph") as writer:
                writer.add_graph(model, example)
            # A test after the training has the same.
            self._log_graph = False
        except Exception as error:  # noqa: BLE001 - a graph is worth no training
            self._session._warn("the graph", error)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Tells of a checkpoint, and flushes: what the checkpoint has done is not done again."""
        self._tell_of_checkpoint(checkpoint_callback)

    @rank_zero_only
    def _tell_of_checkpoint(self, callback: Any) -> None:
        """Logs that a checkpoint was saved."""
        path = getattr(callback, "last_model_path", "") or getattr(callback, "best_model_path", "")
        score = getattr(callback, "current_score", None)
        metrics = {} if score is None or not getattr(callback, "monitor", None) else {callback.monitor: score}
        step = getattr(callback, "_last_global_step_saved", None)
        self._session.event("model.checkpoint_saved", {"path": path, "metrics": metrics}, step)
        self._session.flush()

    @rank_zero_only
    def save(self) -> None:
        """Waits a little until what was logged is written."""
        self._session.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Ends the run.

        Args:
            status: ``"success"`` or ``"finished"``; anything else is a failure, of the exception that is handled just now.
        """
        session = self._session
        if status in ("success", "finished"):
            session.end()
        else:
            if not session.is_open and session.config:
                # What failed before its first value is a run as well.
                session.begin()
            session.fail(sys.exc_info()[1])
        session.renew_warning()


class TensorBoardLogger(_TensorBoardLogger):
    """Lightning's ``TensorBoardLogger`` with :class:`forebay.SummaryWriter` in the place of PyTorch's: ``experiment`` is one.

    Its arguments are those of Lightning's. Those that Lightning passes on are those of our writer.
    """

    _experiment: Any

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The writer."""
        if self._experiment is None:
            self._experiment = SummaryWriter(self.log_dir, **self._kwargs)
        writer: SummaryWriter = self._experiment
        return writer


def _claimed_version(root: Path) -> int:
    """Makes the folder of the next version, and returns its number. Of two who ask at once, each gets one of its own."""
    number = _next_version(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (root / f"version_{number}").mkdir()
                return number
            except FileExistsError:
                number += 1
    except OSError:
        # What begins in it says why.
        return number


def _next_version(root: Path) -> int:
    """Returns the number after the largest of the folders ``version_<n>``."""
    try:
        names = [path.name.removeprefix("version_") for path in root.glob("version_*") if path.is_dir()]
    except OSError:
        # What begins in it says why.
        names = []
    return max((int(name) for name in names if name.isdecimal()), default=-1) + 1
