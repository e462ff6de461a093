"""Where events go: sinks of a :class:`forebay.Collector` or of a run. All of them run on the worker thread, in Rust."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from forebay._values import whole

__all__ = ["Console", "JsonLines", "Sink", "TensorBoard"]

#: A sink as the extension module takes it: kind, path, and the size in bytes at which its file is closed, or the step at which it goes on.
Row = tuple[str, str | None, int | None]


def local(what: str, path: str | os.PathLike[str]) -> str:
    """Returns a path, unless it is an address of a remote file system.

    Raises:
        TypeError: It is no path.
        ValueError: It is one.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{what} must be a path, got {path!r}")
    path = os.fspath(path)
    # Also as `pathlib` writes it: s3:/bucket/run.
    if "://" in path or re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", path):
        raise ValueError(f"{what} must be on a local file system, got {path!r}: write there and copy it, or mount the remote one")
    return path


class Sink:
    """What all sinks are."""

    def _row(self) -> Row:
        """Returns it as the extension module takes it."""
        raise NotImplementedError


@dataclass(frozen=True)
class JsonLines(Sink):
    """Writes one JSON object a line. :func:`forebay.read` reads it.

    Args:
        path: The file. Its folder is created.
        rotate_at: The size in bytes at which the file is closed and a new one begun. Defaults to 100 MiB; ``2**64 - 1`` is no
            limit. The closed files are ``events.jsonl.000001`` and so on. :func:`forebay.read` reads all of them; a reader of the one file
            does not.
    """

    path: str | os.PathLike[str]
    rotate_at: int | None = None

    def _row(self) -> Row:
        """Returns it as the extension module takes it."""
        rotate_at = None if self.rotate_at is None else whole("rotate_at", self.rotate_at)
        return ("json_lines", local("path", self.path), rotate_at)


@dataclass(frozen=True)
class TensorBoard(Sink):
    """Writes a folder of TensorBoard event files. The name ``train.loss`` is shown as the tag ``train/loss``.

    Args:
        folder: The folder of the run, which is created.
        resume: The step at which a run goes on that was interrupted. TensorBoard hides what was written of this step and later ones
            before.
    """

    folder: str | os.PathLike[str]
    resume: int | None = None

    def _row(self) -> Row:
        """Returns it as the extension module takes it."""
        resume = None if self.resume is None else whole("resume", self.resume)
        return ("tensorboard", local("folder", self.folder), resume)


@dataclass(frozen=True)
class Console(Sink):
    """Writes a line for each event to standard error."""

    def _row(self) -> Row:
        """Returns it as the extension module takes it."""
        return ("console", None, None)
