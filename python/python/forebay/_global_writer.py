"""The writer of a whole process, as tensorboardX has it."""

from __future__ import annotations

import os
import threading
from typing import Any

from forebay.tensorboard import FileWriter, SummaryWriter


class GlobalSummaryWriter:
    """A writer that any module of a program gets by ``GlobalSummaryWriter.getSummaryWriter()``, and that counts the steps itself.

    The steps of a tag are 0, 1, 2 and so on, in the order of the calls, of any thread. In a child, it is like a ``SummaryWriter`` of its
    parent: with ``in_child="reopen"``, it writes to ``<log_dir>/pid_<process>``, and goes on from the parent's steps. TensorboardX has one
    counter for all processes, by a server process and a lock; this has neither.

    Args:
        logdir: The folder to write to: see ``SummaryWriter``.
        comment: The end of the default folder's name.
        purge_step: See ``SummaryWriter``, as for all others.
        max_queue: Has no effect.
        flush_secs: The most seconds until data is in the file, at most 1.
        filename_suffix: The end of the names of all files.
        write_to_disk: ``False`` counts what is added as ignored.
        log_dir: The same as ``logdir``.
        coalesce_process: Accepted for tensorboardX's sake, which does nothing with it either.
        settings: The others of ``SummaryWriter``.
    """

    def __init__(
        self,
        logdir: str | os.PathLike[str] | None = None,
        comment: str | None = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
        write_to_disk: bool | None = True,
        log_dir: str | os.PathLike[str] | None = None,
        coalesce_process: bool = True,
        **settings: Any,
    ) -> None:
        self.smw = SummaryWriter(
            log_dir, comment, purge_step, max_queue, flush_secs, filename_suffix, write_to_disk, logdir=logdir, **settings
        )
        self._steps: dict[tuple[str, str], int] = {}

    def _step(self, kind: str, tag: str) -> int:
        """Returns the next step of a tag."""
        with _counting:
            step = self._steps.get((kind, tag), 0)
            self._steps[kind, tag] = step + 1
        return step

    def add_scalar(self, tag: str, scalar_value: Any, walltime: float | None = None) -> None:
        """Adds a number at the next step of its tag.

        Args:
            tag: The name.
            scalar_value: The number, or a tensor of one element.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        self.smw.add_scalar(tag, scalar_value, self._step("scalar", tag), walltime)

    def add_image(self, tag: str, img_tensor: Any, walltime: float | None = None, dataformats: str = "CHW") -> None:
        """Adds an image at the next step of its tag: see ``SummaryWriter.add_image``.

        Args:
            tag: The name.
            img_tensor: The image.
            walltime: The moment, in seconds since 1970. Defaults to now.
            dataformats: The meaning of the dimensions.
        """
        self.smw.add_image(tag, img_tensor, self._step("image", tag), walltime, dataformats)

    def add_text(self, tag: str, text_string: str, walltime: float | None = None) -> None:
        """Adds a text at the next step of its tag.

        Args:
            tag: The name.
            text_string: The text.
            walltime: The moment, in seconds since 1970. Defaults to now.
        """
        self.smw.add_text(tag, text_string, self._step("text", tag), walltime)

    @staticmethod
    def getSummaryWriter() -> GlobalSummaryWriter:  # noqa: N802 - tensorboardX's name
        """Returns the writer of the process, which the first call makes with the default settings."""
        global _writer
        # Without the lock once it is there.
        if _writer is None:
            with _making:
                if _writer is None:
                    made = GlobalSummaryWriter()
                    # A handler of a signal may have made one meanwhile.
                    if _writer is None:
                        _writer = made
                    else:
                        made.close()
        return _writer

    @property
    def file_writer(self) -> FileWriter:
        """The writer of events below this one."""
        return self.smw._get_file_writer()

    def close(self) -> None:
        """Writes what is left, and closes the file. What is added later begins a new one."""
        self.smw.close()


_writer: GlobalSummaryWriter | None = None

#: Held while the writer of the process is made. A handler of a signal may ask for it within.
_making = threading.RLock()

#: Held while a step is counted. A handler of a signal may count within.
_counting = threading.RLock()


def _free() -> None:
    """Replaces the locks in a forked child: a thread that does not exist there may hold them."""
    global _making, _counting
    _making, _counting = threading.RLock(), threading.RLock()


os.register_at_fork(after_in_child=_free)
