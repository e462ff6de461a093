"""Stand-ins for libraries that are not installed: as much of their documented interface as an adapter uses.

They show that an adapter keeps its side of the contract. Whether the library keeps its own, the tests of the real library show, which run
where it is installed.
"""

import functools
import importlib
import importlib.util
import json
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path


def module(name, **contents):
    made = types.ModuleType(name)
    vars(made).update(contents)
    return made


# transformers: the documentation of callbacks.


class TrainerCallback:
    pass


@dataclass
class TrainingArguments:
    output_dir: str
    run_name: str | None = None
    learning_rate: float = 5e-5
    token: object = field(default=None, repr=False)

    def to_dict(self):
        return dict(vars(self))


@dataclass
class TrainerState:
    epoch: float | None = None
    global_step: int = 0
    best_metric: float | None = None
    best_model_checkpoint: str | None = None
    is_world_process_zero: bool = True


@dataclass
class TrainerControl:
    should_log: bool = False


def transformers():
    return {
        "transformers": module(
            "transformers",
            TrainerCallback=TrainerCallback,
            TrainingArguments=TrainingArguments,
            TrainerState=TrainerState,
            TrainerControl=TrainerControl,
        )
    }


# Lightning: the documentation of `Logger`, and what its TensorBoardLogger does.


def rank_zero_only(function):
    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        return function(*args, **kwargs) if rank_zero_only.rank == 0 else None

    return wrapped


rank_zero_only.rank = 0


def rank_zero_experiment(function):
    @functools.wraps(function)
    def wrapped(self):
        return function(self) if rank_zero_only.rank == 0 else types.SimpleNamespace(log=lambda *args, **kwargs: None)

    return wrapped


class Logger:
    def after_save_checkpoint(self, checkpoint_callback):
        pass


class TensorBoardLogger(Logger):
    def __init__(self, save_dir, name="lightning_logs", version=0, **kwargs):
        self._experiment, self._kwargs = None, kwargs
        self.log_dir = str(Path(save_dir, name, f"version_{version}"))

    def log_metrics(self, metrics, step=None):
        for name, value in metrics.items():
            self.experiment.add_scalar(name, value, step)

    def finalize(self, status):
        self.experiment.flush()
        self.experiment.close()


def lightning():
    loggers = module("lightning.pytorch.loggers", Logger=Logger, TensorBoardLogger=TensorBoardLogger)
    loggers.logger = module("lightning.pytorch.loggers.logger", rank_zero_experiment=rank_zero_experiment)
    utilities = module("lightning.pytorch.utilities", rank_zero_only=rank_zero_only)
    pytorch = module("lightning.pytorch", loggers=loggers, utilities=utilities)
    top = module("lightning", pytorch=pytorch)
    top.__spec__ = importlib.util.spec_from_loader("lightning", None)
    return {each.__name__: each for each in (top, pytorch, loggers, loggers.logger, utilities)}


# accelerate: the documentation of custom trackers.


class PartialState:
    is_main_process = True


class GeneralTracker:
    main_process_only = True

    def __init__(self, _blank=False):
        # As the documentation asks of a tracker.
        for name in ("name", "requires_logging_directory", "tracker"):
            assert hasattr(self, name), name

    def start(self):
        pass

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **kwargs):
        pass

    def finish(self):
        pass


def on_main_process(function):
    @functools.wraps(function)
    def wrapped(self, *args, **kwargs):
        return function(self, *args, **kwargs) if PartialState.is_main_process else None

    return wrapped


def accelerate():
    tracking = module("accelerate.tracking", GeneralTracker=GeneralTracker, on_main_process=on_main_process)
    return {"accelerate": module("accelerate", tracking=tracking), "accelerate.tracking": tracking}


# Keras: the documentation of `Callback`.


class Callback:
    def __init__(self):
        self.params, self.model = None, None

    def set_params(self, params):
        self.params = params

    def set_model(self, model):
        self.model = model


def keras():
    return {
        "keras": module(
            "keras",
            callbacks=module("keras.callbacks", Callback=Callback),
            backend=module("keras.backend", backend=lambda: "numpy"),
            ops=module("keras.ops", convert_to_numpy=float),
        )
    }


def adapter(name, monkeypatch):
    """The adapter of a library: the real one where that is installed, and else a stand-in. Returns the library as well."""
    if importlib.util.find_spec(name) is None:
        return stand_in(name, monkeypatch)
    return importlib.import_module(f"forebay.integrations.{name}"), importlib.import_module(name)


def stand_in(name, monkeypatch):
    """The adapter of a library, of which a stand-in is there, and the stand-in."""
    for each, made in globals()[name]().items():
        monkeypatch.setitem(sys.modules, each, made)
    monkeypatch.delitem(sys.modules, f"forebay.integrations.{name}", raising=False)
    found = importlib.import_module(f"forebay.integrations.{name}")
    # Not for a test that comes later: `monkeypatch.delitem` would put it back.
    del sys.modules[f"forebay.integrations.{name}"]
    return found, sys.modules[name]


def lines(folder):
    """The lines of a run's file, parsed."""
    return [json.loads(line) for line in Path(folder, "events.jsonl").read_text().splitlines()]
