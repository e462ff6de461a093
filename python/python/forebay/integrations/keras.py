"""Keras: ``model.fit(..., callbacks=[ForebayCallback()])``. Needs no TensorFlow: it works with every backend."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras

from forebay._run import Run
from forebay.integrations import _rank
from forebay.integrations._session import Session
from forebay.sinks import Sink, local

__all__ = ["ForebayCallback"]


class ForebayCallback(keras.callbacks.Callback):
    """Logs the training of a model to a run.

    The run begins and ends with ``fit``. The values of an epoch are logged as ``epoch.loss``, ``epoch.val_loss`` and so on, with the epoch
    as their step, beside ``epoch.learning_rate``; those of batches as ``batch.loss``, with the number of the batch since the training
    began. ``evaluate`` logs ``evaluation.loss`` to the run that ended last, or to one of its own.

    Of processes that train together, the first logs alone: as JAX or PyTorch tells once it has joined them, or else the variables
    ``TF_CONFIG``, ``RANK`` and ``LOCAL_RANK``. It can be pickled: the copy has the settings, and begins a run of its own with its training.

    Args:
        dir: The folder of all runs.
        name: The name of the run. Defaults to the name of the model.
        update_freq: Which batches are logged: ``"epoch"`` for none, ``"batch"`` for all, or every so many.
        run: A run to log to instead. It is not ended.
        sinks: Where events go: see :func:`forebay.init`.
        settings: Settings of the :class:`forebay.Collector`.

    Raises:
        TypeError: A sink is none.
        ValueError: ``update_freq`` is unknown, or below 1; a setting is unknown or not allowed; or ``dir`` is an address of a remote file
            system.

    Example:
        >>> model.fit(x, y, epochs=5, callbacks=[ForebayCallback(name="digits", update_freq=10)])
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] = "runs",  # noqa: A002 - the word of `forebay.init`
        *,
        name: str | None = None,
        update_freq: Literal["epoch", "batch"] | int = "epoch",
        run: Run | None = None,
        sinks: Iterable[Sink] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        freq = {"epoch": 0, "batch": 1}.get(update_freq, update_freq) if isinstance(update_freq, str) else update_freq
        if not isinstance(freq, int) or isinstance(freq, bool) or freq < (update_freq != "epoch"):
            raise ValueError(f"update_freq must be 'epoch', 'batch' or 1 or more, got {update_freq!r}")
        self._every = freq
        #: Where no batch is logged, Keras need not wait for one. Otherwise its threads would bring them in any order.
        self.async_safe = not freq
        #: The number of batches in the epochs before, that of the batch at hand, and the next to log.
        self._earlier = self._batch = self._next = 0
        self._epoch = 0
        self._trains = False
        self._dir = local("dir", dir)
        self._session = Session(run, self._runs, name, sinks, settings)

    def __getstate__(self) -> dict[str, Any]:
        # Nothing trains by a copy yet: Keras gives it a model when something does.
        models: dict[str, Any] = {name: None for name in ("model", "_model") if name in self.__dict__}
        return {**self.__dict__, **models, "_trains": False}

    def _runs(self) -> str:
        """Returns the folder of all runs."""
        return self._dir

    @property
    def run(self) -> Run | None:
        """The run that is logged to, or was last; ``None`` before the first."""
        return self._session.run

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begins the run.

        Raises:
            OSError: The folder or a file cannot be created.
        """
        # A training that ended without a word, or that another process has, is over.
        self._trains = False
        if not _is_first():
            return
        session = self._session
        # A notebook goes on after an error, and no callback is called for that.
        session.end("failed", "the training before did not end")
        self._earlier = self._batch = self._next = self._epoch = 0
        self._describe()
        if session.is_ours:
            session.folder = None
            session.start()
        else:
            session.event("training.configured", session.config)
        self._trains = True

    def _describe(self) -> None:
        """Tells the settings of the training."""
        model = self.model
        config: dict[str, Any] = dict(self.params or {})
        for part in ("optimizer", "loss"):
            value: Any = getattr(model, part, None)
            if value is not None:
                config[part] = _config_of(value)
        if getattr(model, "built", False):
            config["parameters"] = _parameters(model)
        self._session.describe(config, getattr(model, "name", None))

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Logs the values of a batch, if it is one of those that are logged."""
        if not self._trains or not self._every:
            return
        self._batch = self._earlier + batch
        if logs and self._batch >= self._next:
            self._next = self._batch + self._every
            self._session.log({f"batch.{name}": value for name, value in logs.items()}, self._batch)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Logs the values of an epoch."""
        if not self._trains:
            return
        self._epoch = epoch
        self._earlier = self._batch + 1
        values = {f"epoch.{name}": value for name, value in (logs or {}).items()}
        rate = self._learning_rate()
        if rate is not None:
            values.setdefault("epoch.learning_rate", rate)
        self._session.log(values, epoch)

    def _learning_rate(self) -> float | None:
        """Returns the present rate of learning, if there is one."""
        try:
            return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        except Exception:  # noqa: BLE001 - an optimizer of one's own may have none, or more than one
            return None

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Logs the values of an evaluation outside of a training: those within are values of the epoch."""
        if self._trains or not logs or not _is_first():
            return
        session = self._session
        if not session.is_open:
            self._describe()
            session.begin(max(self._epoch, self._batch))
        session.log({f"evaluation.{name}": value for name, value in logs.items()}, self._epoch)
        session.end()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Ends the run, whose summary has the values of the last epoch."""
        if self._trains:
            self._trains = False
            self._session.end("finished", "", logs)


def _config_of(part: Any) -> Any:
    """Returns what an optimizer or a loss says of itself, if it does."""
    try:
        return {"class": type(part).__name__, **part.get_config()}
    except Exception:  # noqa: BLE001 - a function, or one of one's own that says nothing
        return part


def _parameters(model: Any) -> int | None:
    """Returns the number of parameters of a model, if it tells."""
    try:
        return int(model.count_params())
    except Exception:  # noqa: BLE001 - a model of one's own
        return None


def _is_first() -> bool:
    """Returns whether this is the first of all processes that train together."""
    if keras.backend.backend() == "jax":
        import jax

        # On some machines, JAX joins processes without being asked to.
        if jax.process_count() > 1:
            return bool(jax.process_index() == 0)
    return _rank.is_first()
