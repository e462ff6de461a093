"""The extension module: what has to be fast, or happens on the worker thread."""

from typing import Any, Self

from typing_extensions import disjoint_base

__all__ = ["Writer", "__version__"]

__version__: str

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
        """Adds a scalar."""

    def _setup(
        self,
        folder: str,
        interval: float,
        purge_step: int | None,
        filename_suffix: str,
        reopens_in_child: bool,
        is_copy: bool,
    ) -> None: ...
    def _flush(self) -> None: ...
    def _close(self, timeout: float | None = None) -> None: ...
    def _reopen(self) -> None: ...
    @property
    def _is_open(self) -> bool: ...
