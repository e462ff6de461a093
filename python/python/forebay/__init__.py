"""Metrics and events out of a training loop, without making it wait.

In the place of PyTorch's writer::

    from forebay import SummaryWriter

Or by itself::

    import forebay

    with forebay.init("runs", config={"lr": 0.1}) as run:
        for step in range(1000):
            run.log({"loss": 1 / (step + 1)}, step=step)
"""

# First: it refuses before anything is loaded.
from forebay import _interpreter as _interpreter

from typing import TYPE_CHECKING, Any

from forebay import sinks, tensorboard
from forebay._collector import Collector, Report
from forebay._demo import demo
from forebay._forebay import Histogram, Image, Record, Subscription, __version__
from forebay._reading import Records, RunInfo, read, runs
from forebay._run import Run, event, finish, init, log, summary, timer
from forebay.tensorboard import SummaryWriter

__all__ = [
    "Collector",
    "Histogram",
    "Image",
    "Record",
    "Records",
    "Report",
    "Run",
    "RunInfo",
    "Subscription",
    "SummaryWriter",
    "__version__",
    "demo",
    "event",
    "finish",
    "init",
    "log",
    "read",
    "runs",
    "sinks",
    "summary",
    "tensorboard",
    "timer",
]

if TYPE_CHECKING:
    from forebay import bus
    from forebay.bus import Event, EventBus, EventFilter, EventMetrics, EventQuery, EventSubscriber, create_default_event_bus

__all__ += ["Event", "EventBus", "EventFilter", "EventMetrics", "EventQuery", "EventSubscriber", "bus", "create_default_event_bus"]


def __getattr__(name: str) -> Any:
    # Imported where it is used: a writer needs no asyncio.
    if name not in __all__:
        raise AttributeError(f"module 'forebay' has no attribute {name!r}")
    import importlib

    module = importlib.import_module("forebay.bus")
    return module if name == "bus" else getattr(module, name)
