"""The extension module: what has to be fast, or happens on the worker thread."""

from collections.abc import Sequence
from typing import Any, Self

from typing_extensions import Buffer, disjoint_base

__all__ = ["Writer", "__version__", "default_edges", "frames_of", "pixels_of", "sprite_of"]

__version__: str

def default_edges() -> list[float]:
    """Returns the edges of the default bins of a histogram."""

def pixels_of(data: Buffer, code: str, shape: Sequence[int], letters: str) -> tuple[bytes, int, int, int]:
    """Returns the pixels of an image in the layout of its letters, row by row, and its height, width and channels."""

def frames_of(data: Buffer, code: str, shape: Sequence[int]) -> tuple[bytes, list[int]]:
    """Returns the frames of a video, one after the other, and their number, height, width and channels."""

def sprite_of(data: Buffer, code: str, shape: Sequence[int], columns: int) -> bytes:
    """Returns a PNG file of images, tiled into a square with so many in a row."""

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
    def _close(self, timeout: float | None = None) -> list[str]: ...
    def _reopen(self) -> None: ...
    def _stats(self) -> dict[str, int]: ...
    @property
    def _is_open(self) -> bool: ...
    def _add_scalar_to(
        self, sub_run: str, tag: str, value: Any, step: Any, walltime: float | None
    ) -> None: ...
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
