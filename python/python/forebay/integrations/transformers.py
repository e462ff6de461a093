"""Hugging Face transformers: ``Trainer(..., callbacks=[ForebayCallback()])``.

A ``TensorBoardCallback`` takes our writer as well: ``TensorBoardCallback(tb_writer=forebay.SummaryWriter(folder))``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from forebay._run import Run
from forebay.integrations._session import Session
from forebay.sinks import Sink, local

__all__ = ["ForebayCallback"]

#: The file in a checkpoint that tells which run it belongs to.
MARK = "forebay.json"


class ForebayCallback(TrainerCallback):
    """Logs the training of a ``Trainer`` to a run.

    The run begins with the training and ends with it; its settings are the arguments of the trainer and, as ``model``, the configuration
    of the model. ``loss`` is logged as ``train.loss``, and ``eval_loss`` as ``eval.loss``. A training that is resumed from a checkpoint
    in ``output_dir`` goes on in the folder of its run. A model that is evaluated after the training adds to its run. Only the first
    process of all logs. It can be pickled: the copy has the settings, and begins a run of its own with its training.

    Args:
        dir: The folder of all runs. Defaults to ``<output_dir>/runs``.
        name: The name of the run. Defaults to the trainer's ``run_name``.
        run: A run to log to instead. It is not ended.
        sinks: Where events go: see :func:`forebay.init`.
        settings: Settings of the :class:`forebay.Collector`.

    Raises:
        TypeError: A sink is none.
        ValueError: A setting is unknown or not allowed, or ``dir`` is an address of a remote file system.

    Example:
        >>> trainer = Trainer(model, TrainingArguments("out", report_to=[]), callbacks=[ForebayCallback(name="digits")])
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the word of `forebay.init`
        *,
        name: str | None = None,
        run: Run | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        self._dir = None if dir is None else local("dir", dir)
        self._output_dir = "."
        self._resumed: Path | None = None
        self._trains = False
        self._session = Session(run, self._runs, name, sinks, settings, self._folder)

    def __getstate__(self) -> dict[str, Any]:
        # Nothing trains by a copy yet.
        return {**self.__dict__, "_trains": False}

    @property
    def run(self) -> Run | None:
        """The run that is logged to, or was last; ``None`` before the first."""
        return self._session.run

    def _runs(self) -> str:
        """Returns the folder of all runs."""
        return os.path.join(self._output_dir, "runs") if self._dir is None else self._dir

    def _folder(self) -> Path | None:
        """Returns the folder of the run to resume, if there is one."""
        return None if self._session.is_apart else self._resumed

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Begins the run, or goes on with the one that the checkpoint belongs to.

        Raises:
            OSError: The folder or a file cannot be created.
            ValueError: ``output_dir`` is an address of a remote file system, and ``dir`` was not given.
        """
        if not state.is_world_process_zero:
            return
        session = self._session
        # A notebook goes on after an error, and no callback is called for that.
        session.end("failed", "the training before did not end")
        self._describe(args, model)
        self._trains = True
        self._resumed = _run_of(Path(args.output_dir, f"checkpoint-{state.global_step}")) if state.global_step else None
        if session.is_ours:
            # A training from its first step is a run of its own.
            session.folder = None
            session.start(state.global_step + 1)
        else:
            session.event("training.configured", session.config)

    def _describe(self, args: Any, model: Any) -> None:
        """Notes the settings of the training and of the model."""
        self._output_dir = getattr(args, "output_dir", None) or "."
        config = {"args": args} if (found := _dict_of(args)) is None else found
        described = getattr(model, "config", None)
        if described is not None:
            config["model"] = described if (found := _dict_of(described)) is None else found
        if model is not None:
            config["model_class"] = type(model).__name__
        self._session.describe(config, _named(args))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Logs what the trainer logs."""
        if state.is_world_process_zero and logs:
            if not self._trains and not self._session.is_open:
                self._describe(args, kwargs.get("model"))
            self._session.log({_renamed(name): value for name, value in logs.items()}, state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Ends what an evaluation outside of a training has begun. Its values were logged already."""
        if state.is_world_process_zero and not self._trains:
            self._session.end()

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Logs the measurements of a prediction, which the trainer does not log."""
        if state.is_world_process_zero and metrics:
            self.on_log(args, state, control, metrics, **kwargs)
            self.on_evaluate(args, state, control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tells of a checkpoint, which learns the run that it belongs to, and flushes: what the checkpoint has done is not done again."""
        if not state.is_world_process_zero:
            return
        session = self._session
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        session.event("model.checkpoint_saved", {"path": str(folder), "epoch": int(state.epoch or 0)}, state.global_step)
        session.flush()
        if session.folder is not None and folder.is_dir():
            try:
                (folder / MARK).write_text(json.dumps({"run": os.path.abspath(session.folder)}), encoding="utf-8")
            except OSError as error:
                session._warn(MARK, error)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the run."""
        if state.is_world_process_zero:
            self._trains = False
            best = {"best_metric": state.best_metric, "best_model_checkpoint": state.best_model_checkpoint}
            summary = {name: value for name, value in best.items() if value is not None}
            self._session.end("finished", "", {"global_step": state.global_step, **summary})


def _dict_of(described: Any) -> dict[str, Any] | None:
    """Returns what something says of itself, if it does."""
    try:
        return dict(described.to_dict())
    except Exception:  # noqa: BLE001 - of one's own, and none ends a training
        return None


def _named(args: Any) -> str | None:
    """Returns the name that the user gave the run. Older trainers put the folder of the output there."""
    name = getattr(args, "run_name", None)
    return name if name and name != args.output_dir else None


def _renamed(name: str) -> str:
    """Returns the name of a value, as transformers' callback for TensorBoard groups them: the mean of a training is no point of its loss."""
    for part in ("eval", "test"):
        if name.startswith(f"{part}_"):
            return f"{part}.{name[len(part) + 1 :]}"
    return f"train.{name}"


def _run_of(checkpoint: Path) -> Path | None:
    """Returns the folder of the run that a checkpoint belongs to, if there is one."""
    try:
        folder = Path(json.loads((checkpoint / MARK).read_text(encoding="utf-8"))["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder if folder.is_dir() else None
