"""The loggers that `compare.py` compares, each behind the same few methods, as its own documentation has it used."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any


class Rival:
    """A logger in a folder of its own."""

    #: What the tables call it.
    name = ""
    #: The packages that it needs, the first of which is the one compared.
    packages: tuple[str, ...] = ()
    #: What it keeps of a call, and where.
    stores = ""
    #: Whether it can log the distribution of an array.
    has_histograms = True

    def __init__(self, folder: Path) -> None:
        raise NotImplementedError

    def scalar(self, step: int, value: float) -> None:
        """Logs a number. Timed."""
        raise NotImplementedError

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Logs the numbers of a step: in one call, where the logger has one for that. Timed with the step."""
        for name, value in values.items():
            self._one(name, value, step)

    def _one(self, name: str, value: float, step: int) -> None:
        raise NotImplementedError

    def histogram(self, step: int, values: Any) -> None:
        """Logs the distribution of an array. Timed."""
        raise NotImplementedError

    def flush(self) -> None:
        """Waits until everything is in its file, where the logger can."""

    def close(self) -> None:
        raise NotImplementedError

    @classmethod
    def version(cls) -> str | None:
        """The version that is installed, or `None` where something is missing."""
        try:
            versions = [importlib.metadata.version(package) for package in cls.packages]
        except importlib.metadata.PackageNotFoundError:
            return None
        return versions[0] if versions else f"Python {sys.version.split()[0]}"


class Nothing(Rival):
    """No logger: what the loop costs by itself."""

    name = "nothing"
    stores = "nothing"
    has_histograms = False

    def __init__(self, folder: Path) -> None:
        pass

    def scalar(self, step: int, value: float) -> None:
        pass

    def scalars(self, step: int, values: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class Writer(Rival):
    """A class with the methods of `SummaryWriter`."""

    writer: Any

    def scalar(self, step: int, value: float) -> None:
        self.writer.add_scalar("train/loss", value, step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        add = self.writer.add_scalar
        for name, value in values.items():
            add(name, value, step)

    def histogram(self, step: int, values: Any) -> None:
        self.writer.add_histogram("weights", values, step)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Forebay(Writer):
    name = "forebay add_scalar"
    packages = ("forebay",)
    stores = "TensorBoard's event file"

    def __init__(self, folder: Path) -> None:
        from forebay import SummaryWriter

        self.writer = SummaryWriter(folder)


class ForebayRun(Rival):
    name = "forebay run.log"
    packages = ("forebay",)
    stores = "TensorBoard's event file and JSON Lines"

    def __init__(self, folder: Path) -> None:
        import forebay

        self.run = forebay.init(folder)
        self._histogram = forebay.Histogram

    def scalar(self, step: int, value: float) -> None:
        self.run.log({"train/loss": value}, step=step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def histogram(self, step: int, values: Any) -> None:
        self.run.log({"weights": self._histogram(values)}, step=step)

    def flush(self) -> None:
        self.run.flush()

    def close(self) -> None:
        report = self.run.finish()
        # A logger that loses what it is given has not done the same work.
        assert report.is_clean, report


class Torch(Writer):
    name = "PyTorch SummaryWriter"
    packages = ("torch", "tensorboard")
    stores = "TensorBoard's event file"

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))


class TensorBoardX(Writer):
    name = "tensorboardX"
    packages = ("tensorboardX",)
    stores = "TensorBoard's event file"

    def __init__(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(folder))


class TensorBoard(Rival):
    """TensorBoard's own writer of files, and messages that are made as PyTorch makes them."""

    name = "TensorBoard EventFileWriter"
    packages = ("tensorboard",)
    stores = "TensorBoard's event file"
    # Its own histograms need TensorFlow.
    has_histograms = False

    def __init__(self, folder: Path) -> None:
        import time

        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(folder))
        self._event, self._summary, self._time = Event, Summary, time.time

    def scalar(self, step: int, value: float) -> None:
        self._one("train/loss", value, step)

    def _one(self, name: str, value: float, step: int) -> None:
        summary = self._summary(value=[self._summary.Value(tag=name, simple_value=value)])
        self.writer.add_event(self._event(wall_time=self._time(), step=step, summary=summary))

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class Wandb(Rival):
    name = "wandb, offline"
    packages = ("wandb",)
    stores = "its own transaction log, by a second process"

    def __init__(self, folder: Path) -> None:
        os.environ.update(WANDB_SILENT="true", WANDB_ERROR_REPORTING="false", WANDB_CONSOLE="off")
        import wandb

        folder.mkdir(parents=True)
        self.run = wandb.init(project="bench", dir=str(folder), mode="offline")
        self._histogram = wandb.Histogram

    def scalar(self, step: int, value: float) -> None:
        self.run.log({"train/loss": value}, step=step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def histogram(self, step: int, values: Any) -> None:
        self.run.log({"weights": self._histogram(values)}, step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio(Rival):
    name = "trackio"
    packages = ("trackio",)
    stores = "SQLite, by a thread"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        os.environ.setdefault("TRACKIO_DIR", str(folder))
        os.environ["HF_HUB_OFFLINE"] = "1"
        import trackio

        self.trackio = trackio
        self.run = trackio.init(project="bench", name=folder.name, embed=False)

    def scalar(self, step: int, value: float) -> None:
        self.trackio.log({"train/loss": value}, step=step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.trackio.log(values, step=step)

    def histogram(self, step: int, values: Any) -> None:
        self.trackio.log({"weights": self.trackio.Histogram(values)}, step=step)

    def close(self) -> None:
        self.trackio.finish()


class Mlflow(Rival):
    name = "mlflow, file store"
    packages = ("mlflow",)
    stores = "a line in the file of each metric"
    has_histograms = False

    def __init__(self, folder: Path) -> None:
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        import mlflow

        mlflow.set_tracking_uri(folder.as_uri())
        mlflow.set_experiment("bench")
        mlflow.start_run()
        self.mlflow = mlflow

    def scalar(self, step: int, value: float) -> None:
        self.mlflow.log_metric("train/loss", value, step=step)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.mlflow.log_metrics(values, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class Json(Rival):
    name = "json.dumps and write"
    stores = "JSON Lines, in a buffered file of Python"
    has_histograms = False

    def __init__(self, folder: Path) -> None:
        import time

        folder.mkdir(parents=True)
        self.file = open(folder / "events.jsonl", "w")  # noqa: SIM115 - closed by `close`
        self._time = time.time

    def scalar(self, step: int, value: float) -> None:
        self.file.write(json.dumps({"train/loss": value, "step": step, "time": self._time()}) + "\n")

    def scalars(self, step: int, values: dict[str, float]) -> None:
        self.file.write(json.dumps({**values, "step": step, "time": self._time()}) + "\n")

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


RIVALS: tuple[type[Rival], ...] = (Nothing, Forebay, ForebayRun, Json, TensorBoardX, TensorBoard, Torch, Wandb, Trackio, Mlflow)
