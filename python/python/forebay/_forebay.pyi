"""The extension module: what has to be fast, or happens on the worker thread."""

import os
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, final

from typing_extensions import Buffer, disjoint_base

__all__ = [
    "BusCall",
    "BusCalls",
    "BusCore",
    "BusEmission",
    "BusWatcher",
    "CollectorBase",
    "Histogram",
    "Image",
    "LastRun",
    "Record",
    "RecordReader",
    "RunGuard",
    "Subscription",
    "Work",
    "Writer",
    "__version__",
    "check_fields",
    "check_settings",
    "count_records",
    "default_edges",
    "environment_rank",
    "frames_of",
    "matches",
    "pixels_of",
    "read_columns",
    "read_scalars",
    "run_folder",
    "runs_of",
    "sprite_of",
]

__version__: str

#: The number of a process among all, its number on its machine, and the number of all.
_Rank: TypeAlias = tuple[int, int | None, int]

def default_edges() -> list[float]:
    """Returns the edges of the default bins of a histogram."""

def pixels_of(data: Buffer, code: str, shape: Sequence[int], letters: str) -> tuple[bytes, int, int, int]:
    """Returns the pixels of an image in the layout of its letters, row by row, and its height, width and channels."""

def frames_of(data: Buffer, code: str, shape: Sequence[int]) -> tuple[bytes, list[int]]:
    """Returns the frames of a video, one after the other, and their number, height, width and channels."""

def sprite_of(data: Buffer, code: str, shape: Sequence[int], columns: int) -> bytes:
    """Returns a PNG file of images, tiled into a square with so many in a row."""

def run_folder(runs: str, name: str | None) -> Path:
    """Creates a new folder for a run, named after the time and the run."""

def read_columns(path: str, pattern: str | None = None) -> tuple[list[str], int, list[bytearray]]:
    """Returns the records of a file of JSON Lines, column by column: all names, the number of rows, and buffers."""

def read_scalars(path: str, pattern: str | None, name: str) -> tuple[list[int | None], list[float]]:
    """Returns the steps and the numbers of a name, NaN included."""

def environment_rank() -> _Rank:
    """Returns the rank of this process as the environment tells it. Raises ``ValueError`` where that contradicts itself."""

def check_settings(settings: str) -> None:
    """Raises ``ValueError`` where the settings of a collector, as JSON, are unknown or not allowed."""

def check_fields(values: dict[str, Any]) -> None:
    """Raises what a dictionary is wrong with as the fields of an event: ``TypeError`` or ``ValueError``."""

def count_records(path: str, pattern: str | None = None) -> int:
    """Returns the number of records of a file of JSON Lines."""

@final
class RecordReader:
    """Reader of the records of a file of JSON Lines, piece by piece."""

    def __new__(cls, path: str, pattern: str | None = None) -> Self: ...
    def piece(self) -> list[Record]:
        """Returns the next records; none at the end."""

def runs_of(path: str) -> list[dict[str, Any]]:
    """Returns what a file of JSON Lines tells of the runs that wrote to it, each as a dictionary."""

@final
class Histogram:
    """Distribution of values to log: ``run.log({"weights": Histogram(weights, bins=30)})``."""

    def __new__(cls, values: Any, bins: int = 64) -> Self: ...

@final
class Image:
    """Picture to log: ``run.log({"sample": Image(pixels)})``."""

    def __new__(cls, pixels: Any, dataformats: str = "CHW") -> Self: ...

@final
class Record:
    """Event as a subscriber or a reader gets it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> Any: ...
    @property
    def step(self) -> int | None: ...
    @property
    def walltime(self) -> float: ...
    @property
    def priority(self) -> str: ...

@final
class Subscription:
    """Subscription: an iterator of the events that match, as they come."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...
    def __len__(self) -> int: ...
    def receive(self, timeout: float = 0.0) -> Record | None:
        """Returns the next event, or ``None`` where none comes in time or the collector is gone."""

    @property
    def evicted(self) -> int: ...

@final
class LastRun:
    """What a file of JSON Lines tells of the process that worked on its last run last."""

    def __new__(cls, path: str) -> Self: ...

@final
class RunGuard:
    """Guard of a training run, for ``forebay.Run``."""

    def __new__(
        cls,
        collector: CollectorBase,
        name: str | None,
        config: dict[str, Any],
        watches: bool,
        rank: _Rank,
        resumed: tuple[LastRun, int] | None = None,
    ) -> Self: ...
    @property
    def run_id(self) -> str: ...
    def log(self, values: Mapping[str, Any], step: Any = None) -> None: ...
    def end(
        self,
        status: str,
        reason: str,
        metrics: dict[str, Any],
        timeout: float | None = None,
    ) -> Work | None: ...

@final
class Work:
    """Work that has begun, on a thread of Rust. It goes on if nobody waits for it."""

    def wait(self, seconds: float) -> bool:
        """Waits for so many seconds at most, and returns whether it is done."""

    @property
    def pending(self) -> int:
        """The number of events that are left."""

    def result(self) -> Any:
        """Waits until it is done, and returns what it returns: once."""

@disjoint_base
class CollectorBase:
    """Base of ``forebay.Collector``."""

    def __new__(cls, sinks: Sequence[tuple[str, str | None, int | None]], settings: str) -> Self: ...
    def collect(
        self,
        name: str,
        value: Any = None,
        *,
        step: Any = None,
        priority: Literal["critical", "normal", "low"] = "normal",
        walltime: float | None = None,
    ) -> str:
        """Collects an event, and returns what became of it: ``"queued"``, ``"full"``, ``"filtered"`` and others."""

    def try_collect(
        self,
        name: str,
        value: Any = None,
        *,
        step: Any = None,
        priority: Literal["critical", "normal", "low"] = "normal",
        walltime: float | None = None,
    ) -> str:
        """Collects an event as ``collect`` does, but never waits: where there is no place, the event is rejected at once."""

    def log(self, values: Mapping[str, Any], step: Any = None) -> int:
        """Collects the values of a step, each under its name, and returns how many were taken."""

    def _flush(self, timeout: float | None = None) -> tuple[str | None, list[str]]: ...
    def _stop(self, timeout: float | None = None) -> Work: ...
    @property
    def _timeouts(self) -> tuple[float, float]: ...
    def _stats(self) -> str: ...
    def _account(self) -> str: ...
    def _health(self) -> str: ...
    def _subscribe(self, pattern: str, capacity: int) -> Subscription: ...
    @property
    def is_running(self) -> bool: ...
    @property
    def pending(self) -> int: ...
    @property
    def session_id(self) -> str: ...

@disjoint_base
class Writer:
    """Base of ``forebay.SummaryWriter``: a collector with a TensorBoard sink, which is opened again when it is used after a close."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self: ...
    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
        *,
        display_name: str | None = "",
        summary_description: str | None = "",
    ) -> None:
        """Adds a number."""

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Adds several scalars to be shown in one chart."""

    def _setup(
        self,
        folder: str,
        interval: float,
        purge_step: int | None,
        filename_suffix: str,
        reopens_in_child: bool,
        is_copy: bool,
    ) -> None: ...
    def _flush(self) -> list[str]: ...
    def _close(self, timeout: float) -> Work | None: ...
    def _reopen(self) -> Path | None: ...
    @property
    def _root(self) -> Path: ...
    def _ignore(self) -> None: ...
    def _hang_on(self, path: str) -> None: ...
    def _stats(self) -> dict[str, int]: ...
    @property
    def _is_open(self) -> bool: ...
    @property
    def _folder(self) -> Path | None: ...
    def _has_begun(self, path: str) -> bool: ...
    _has_defaults: bool
    def _add_text(self, tag: str, text: str, step: Any, walltime: float | None) -> None: ...
    def _add_histogram(
        self,
        tag: str,
        data: Buffer,
        code: str,
        edges: array[float] | None,
        counts: array[float] | None,
        max_bins: int | None,
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_histogram_raw(
        self,
        tag: str,
        numbers: Sequence[float],
        limits: Buffer,
        counts: Buffer,
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_image(
        self,
        tag: str,
        data: Buffer,
        code: str,
        shape: Sequence[int],
        letters: str,
        is_opaque: bool,
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_drawn(
        self,
        tag: str,
        bytes: bytes,
        size: tuple[int, int],
        shown: Sequence[int],
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_encoded_image(
        self, tag: str, file: bytes, shown: Sequence[int], step: Any, walltime: float | None
    ) -> None: ...
    def _add_audio(
        self, tag: str, data: Buffer, code: str, rate: int, step: Any, walltime: float | None
    ) -> None: ...
    def _add_tensor(
        self, tag: str, data: Buffer, code: str, shape: Sequence[int], step: Any, walltime: float | None
    ) -> None: ...
    def _add_pr_curve(
        self,
        tag: str,
        arrays: list[tuple[Any, str]],
        thresholds: int,
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_pr_curve_raw(
        self, tag: str, rows: Sequence[Buffer], step: Any, walltime: float | None
    ) -> None: ...
    def _add_mesh(
        self,
        tag: str,
        arrays: list[tuple[str, Any, str, tuple[int, ...]]],
        config: str,
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_layout(self, categories: list[tuple[str, list[tuple[str, bool, list[str]]]]]) -> None: ...
    def _add_hparams(
        self,
        sub_run: str | None,
        settings: list[tuple[str, Any, list[Any] | None]],
        metrics: list[tuple[str, float]],
        step: Any,
    ) -> None: ...
    def _add_summary(self, message: bytes, step: Any, walltime: float | None) -> None: ...
    def _add_graph(
        self, graph: bytes, run_metadata: bytes | None, walltime: float | None
    ) -> None: ...
    def _add_event(self, message: bytes, step: Any, walltime: float | None) -> None: ...

# The bus

@final
class BusCore:
    """A bus, and the queues of its handlers in Python."""

    def __new__(
        cls,
        *,
        buffer_size: int,
        max_subscribers: int,
        journal: str | None,
        max_file_bytes: int,
        handler_queue: int,
        max_event_bytes: int,
        dead_letters: int,
        max_depth: int,
    ) -> Self: ...
    def emit(
        self,
        name: str,
        data: Mapping[str, Any] | None,
        priority: str,
        correlation_id: str | None,
        source: str | None,
        metadata: Mapping[str, Any] | None,
        depth: int,
        unawaited_loop: int,
    ) -> BusEmission:
        """Emits an event: queues it and returns."""

    def refuse(self, outcome: str) -> BusEmission:
        """Counts an event that a filter did not let in."""

    def check(self) -> None:
        """Fails in a forked child."""

    def enabled(self, name: str) -> bool:
        """Returns whether an event of that name would be taken."""

    def add(self, name: str, event_loop: int, batch: int) -> int:
        """Makes the queue of a handler, and returns its number."""

    def subscribe(self, key: int, patterns: list[str], name: str) -> None:
        """Fills the queue of a handler from now on."""

    def unsubscribe(self, key: int) -> bool:
        """Unsubscribes a handler: what waits for it is cancelled. Returns whether it was there."""

    def watch_errors(self, threshold: int) -> BusWatcher:
        """Watches for errors: see `forebay_bus::watch`, as for the others."""

    def watch_field(self, topics: list[str], field: str, threshold: float) -> BusWatcher: ...
    def watch_rates(self, every: float, last: int) -> BusWatcher: ...
    def watch_memory(self, every: float) -> BusWatcher: ...
    def watch_disk(self, every: float, path: str | os.PathLike[str]) -> BusWatcher: ...
    def watch_bottlenecks(self, every: float) -> BusWatcher: ...
    def calls(self) -> BusCalls:
        """Returns what the threads need that make the calls."""

    def query(
        self,
        name: str | None,
        since: int | None,
        before: int | None,
        contains: Mapping[str, Any] | None,
        correlation_id: str | None,
        source: str | None,
        limit: int | None,
        newest_first: bool,
        timeout: float,
    ) -> list[tuple[Any, ...]]:
        """Returns the events that a query asks for. Flushes before, for ``timeout`` seconds at most."""

    def flush(self, timeout: float, unawaited_loop: int) -> bool:
        """Waits until all handlers are done with what was emitted before, but for those of one loop."""

    def stop(self, timeout: float, unawaited_loop: int) -> bool:
        """Refuses what comes, waits until the handlers are done, and ends the threads that wait for calls."""

    def metrics(self) -> dict[str, Any]:
        """Returns numbers about the whole, then a list of what is known of each handler, then of those that are gone."""

    def check_law(self) -> str | None:
        """Checks that the fates of all events add up. Returns what does not hold."""

    def dead_letters(self) -> list[tuple[str, str, int, tuple[Any, ...]]]:
        """Returns the events that handlers did not take: each the handler, the error, the time and the event."""

    def redrive(self) -> int:
        """Offers all dead letters again to their handlers. Returns how many are offered."""

    def clear_dead_letters(self) -> int:
        """Forgets all dead letters."""

@final
class BusEmission:
    """What became of an event that was emitted."""

    @property
    def outcome(self) -> str: ...
    @property
    def id(self) -> str | None: ...
    @property
    def done(self) -> bool:
        """Returns whether its handlers are done."""

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Returns the numbers of handlers that took it, failed, lost it, and were not called after all."""

    def wait(self, timeout: float) -> bool:
        """Waits until its handlers are done. Returns whether they are."""

    def watch(self, token: int) -> bool:
        """Has the number be a notice once its handlers are done. Returns `False` if they are."""

@final
class BusWatcher:
    """A watcher of the bus of Rust."""

    def close(self) -> None:
        """Ends it."""

@final
class BusCalls:
    """What the threads hold that make calls: not the bus, which ends without them."""

    def next_call(self) -> BusCall | None:
        """Waits for the next call of a thread. Returns `None` at the end."""

    def next_notice(self) -> BusCall | int | None:
        """Waits for the next notice: a call of an event loop, or the number of an emission that is over."""

@final
class BusCall:
    """A call that is to be made. Without an end, it is cancelled when it is dropped."""

    @property
    def key(self) -> int: ...
    @property
    def depth(self) -> int:
        """Returns how many events led to what the handler emits."""

    def events(self) -> list[tuple[Any, ...]]:
        """Returns the events of the call."""

    def end(self, error: str | None = None, takes_next: bool = False) -> BusCall | None:
        """Ends it: the handler took the events; or did not, and the error says why. Returns the next call of its loop, where that takes it."""

    def cancel(self) -> None:
        """Ends it without a call."""

def matches(pattern: str, name: str) -> bool:
    """Returns whether a pattern stands for a name."""
