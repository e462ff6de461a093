"""The extension module: what has to be fast, or happens on the worker thread."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Self, TypeAlias, final

from typing_extensions import Buffer, disjoint_base

__all__ = [
    "CollectorBase",
    "Histogram",
    "Image",
    "Record",
    "RunGuard",
    "Subscription",
    "Writer",
    "__version__",
    "count_records",
    "default_edges",
    "frames_of",
    "pixels_of",
    "read_columns",
    "read_records",
    "read_scalars",
    "run_folder",
    "runs_of",
    "sprite_of",
]

__version__: str

#: Seconds, and what is called after them with the number of events that are left.
_Watcher: TypeAlias = tuple[float, Callable[[int], object]]

def default_edges() -> list[float]:
    """Returns the edges of the default bins of a histogram."""

def pixels_of(data: Buffer, code: str, shape: Sequence[int], letters: str) -> tuple[bytes, int, int, int]:
    """Returns the pixels of an image in the layout of its letters, row by row, and its height, width and channels."""

def frames_of(data: Buffer, code: str, shape: Sequence[int]) -> tuple[bytes, list[int]]:
    """Returns the frames of a video, one after the other, and their number, height, width and channels."""

def sprite_of(data: Buffer, code: str, shape: Sequence[int], columns: int) -> bytes:
    """Returns a PNG file of images, tiled into a square with so many in a row."""

def run_folder(runs: str, name: str | None) -> str:
    """Creates a new folder for a run, named after the time and the run."""

def read_columns(path: str, pattern: str | None = None) -> tuple[list[str], int, list[bytearray]]:
    """Returns the records of a file of JSON Lines, column by column: all names, the number of rows, and buffers."""

def read_scalars(path: str, pattern: str | None, name: str) -> tuple[list[int | None], list[float]]:
    """Returns the steps and the numbers of a name."""

def count_records(path: str, pattern: str | None = None) -> int:
    """Returns the number of records of a file of JSON Lines."""

def read_records(path: str, pattern: str | None = None) -> list[Record]:
    """Returns the records of a file of JSON Lines."""

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
class RunGuard:
    """Guard of a training run, for ``forebay.Run``."""

    def __new__(
        cls,
        collector: CollectorBase,
        name: str | None,
        config: dict[str, Any],
        watches: bool,
        resumed: tuple[str, int] | None = None,
    ) -> Self: ...
    @property
    def run_id(self) -> str: ...
    def log(self, values: Mapping[str, Any], step: Any = None) -> None: ...
    def end(
        self, status: str, reason: str, metrics: dict[str, Any], watcher: _Watcher | None = None
    ) -> None: ...

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
    def _stop(
        self, timeout: float | None = None, watcher: _Watcher | None = None
    ) -> tuple[str, list[str]]: ...
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
    def _close(self, timeout: float, watcher: _Watcher | None = None) -> list[str]: ...
    def _reopen(self) -> None: ...
    def _hang_on(self, path: str) -> None: ...
    def _stats(self) -> dict[str, int]: ...
    @property
    def _is_open(self) -> bool: ...
    def _add_text(self, tag: str, text: str, step: Any, walltime: float | None) -> None: ...
    def _add_histogram(
        self,
        tag: str,
        data: Buffer,
        code: str,
        edges: list[float] | None,
        counts: list[float] | None,
        max_bins: int | None,
        step: Any,
        walltime: float | None,
    ) -> None: ...
    def _add_histogram_raw(
        self,
        tag: str,
        numbers: Sequence[float],
        limits: list[float],
        counts: list[float],
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
        self, tag: str, rows: list[list[float]], step: Any, walltime: float | None
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
        sub_run: str,
        settings: list[tuple[str, Any, list[Any] | None]],
        metrics: list[tuple[str, float]],
        step: Any,
    ) -> None: ...
    def _add_summary(self, message: bytes, step: Any, walltime: float | None) -> None: ...
    def _add_graph(
        self, graph: bytes, run_metadata: bytes | None, walltime: float | None
    ) -> None: ...
    def _add_event(self, message: bytes, step: Any, walltime: float | None) -> None: ...
