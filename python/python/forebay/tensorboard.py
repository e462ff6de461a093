"""TensorBoard's writer: ``from forebay.tensorboard import SummaryWriter``.

The class has the methods, parameters, defaults and files of ``torch.utils.tensorboard.SummaryWriter``, and needs neither PyTorch nor
TensorBoard. A call hands its data over and returns; one thread of Rust encodes and writes it.
"""

from __future__ import annotations

import os
import socket
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from forebay._forebay import Writer

__all__ = ["FileWriter", "SummaryWriter"]


class SummaryWriter(Writer):
    """Writes a folder of TensorBoard event files.

    Every method returns before its data is written. What was added is in the file a second later at the latest, and after ``flush`` and
    ``close``. Adding never waits for the disk until 32,768 events, or 256 MiB of them, are waiting; then it waits a second at most, and
    counts what it could not add.

    A writer that was closed opens a new file when something is added to it. In a forked child, a writer of the parent writes nothing, and
    never hangs; see ``in_child``. It can be pickled: the copy is like a writer in a forked child.

    Args:
        log_dir: The folder to write to. Defaults to ``runs/<month><day>_<time>_<host><comment>``.
        comment: The end of the default folder's name. Has no effect where ``log_dir`` is given.
        purge_step: The step at which a run goes on that was interrupted: TensorBoard hides what was written of later steps before.
        max_queue: Accepted for PyTorch's sake. The queue is bounded by its own limits.
        flush_secs: The most seconds until data is in the file, at most 1.
        filename_suffix: The end of the names of all files.
        in_child: What a writer of the parent does in a forked child, or unpickled in another process: ``"ignore"`` counts what is added
            and writes nothing; ``"reopen"`` writes to ``<log_dir>/pid_<process>``.

    Raises:
        OSError: The folder or the file cannot be created.
        ValueError: ``log_dir`` is an address of a remote file system, or ``in_child`` is unknown.

    Example:
        >>> with SummaryWriter("runs/first") as writer:
        ...     for step in range(100):
        ...         writer.add_scalar("train/loss", 1 / (step + 1), step)
    """

    log_dir: str | os.PathLike[str]
    purge_step: int | None
    max_queue: int
    flush_secs: float
    filename_suffix: str

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        *,
        in_child: Literal["ignore", "reopen"] = "ignore",
    ) -> None:
        if not log_dir:
            now = datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = os.path.join("runs", f"{now}_{socket.gethostname()}{comment}")
        if "://" in os.fspath(log_dir):
            raise ValueError(
                f"log_dir must be a local folder, got {os.fspath(log_dir)!r}: write to a local folder and copy it, or mount the remote one"
            )
        if in_child not in ("ignore", "reopen"):
            raise ValueError(f"in_child must be 'ignore' or 'reopen', got {in_child!r}")
        self.log_dir = log_dir
        self.max_queue = max_queue
        self.flush_secs = flush_secs
        self.filename_suffix = filename_suffix
        self._begin(in_child, None if purge_step is None else int(purge_step), is_copy=False)

    @property
    def file_writer(self) -> FileWriter | None:
        """The writer of events below this one, or ``None`` while it is closed."""
        return self._files if self._is_open else None

    @property
    def all_writers(self) -> dict[str, FileWriter] | None:
        """The writer of events below this one, by its folder, or ``None`` while it is closed."""
        return {self._files.get_logdir(): self._files} if self._is_open else None

    def _get_file_writer(self) -> FileWriter:
        """Returns the writer of events below this one, and opens it if it is closed."""
        self._reopen()
        return self._files

    def get_logdir(self) -> str | os.PathLike[str]:
        """Returns the folder that it writes to."""
        return self.log_dir

    def flush(self) -> None:
        """Waits until everything that was added before is in its file, 10 seconds at most."""
        self._flush()

    def close(self) -> None:
        """Writes what is left, and closes the files, within 10 seconds. What is added later begins a new file."""
        self._close()

    def _close_at_exit(self, timeout: float) -> None:
        self._close(timeout)

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        for name in ("log_dir", "max_queue", "flush_secs", "filename_suffix"):
            setattr(self, name, arguments[name])
        self._begin(arguments["in_child"], None, is_copy=True)

    def _begin(self, in_child: Literal["ignore", "reopen"], purge_step: int | None, is_copy: bool) -> None:
        self._in_child = in_child
        self._files = FileWriter(self)
        self._setup(
            os.fspath(self.log_dir), float(self.flush_secs), purge_step, self.filename_suffix, in_child == "reopen", is_copy
        )
        # As PyTorch does: a file that is opened later goes on where this one ends.
        self.purge_step = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<{type(self).__name__} of {os.fspath(self.log_dir)!r}, {state}>"

    def __copy__(self) -> Self:
        # Two writers of one folder would hide each other's points.
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            "log_dir": os.fspath(self.log_dir),
            "max_queue": self.max_queue,
            "flush_secs": self.flush_secs,
            "filename_suffix": self.filename_suffix,
            "in_child": self._in_child,
        }
        return (_unpickled, (type(self), arguments))


def _unpickled(kind: type[SummaryWriter], arguments: dict[str, Any]) -> SummaryWriter:
    """Makes a writer that stands for one of another process: see ``SummaryWriter``."""
    writer = kind.__new__(kind)
    writer.__setstate__(arguments)
    return writer


class FileWriter:
    """Writer of TensorBoard's protocol buffers, below a ``SummaryWriter``: what its ``file_writer`` is.

    It takes messages that somebody else has made, such as those of ``tensorboard.compat.proto``.
    """

    def __init__(self, writer: SummaryWriter) -> None:
        self._writer = writer

    def get_logdir(self) -> str:
        """Returns the folder that it writes to."""
        return str(self._writer.log_dir)

    def flush(self) -> None:
        """Waits until everything that was added before is in its file."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the writer that it belongs to."""
        self._writer.close()

    def reopen(self) -> None:
        """Opens the writer that it belongs to, if it is closed."""
        self._writer._reopen()

    def __repr__(self) -> str:
        return f"<FileWriter of {self.get_logdir()!r}>"
