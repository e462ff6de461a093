"""What was written, read back: ``forebay.read("runs/first")``, ``forebay.runs("runs")``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from forebay._forebay import Record, RecordReader, count_records, read_columns, read_scalars, runs_of
from forebay.sinks import local

#: The file of JSON Lines in the folder of a run.
EVENTS = "events.jsonl"


def _file(path: str | os.PathLike[str]) -> Path:
    """Returns the file of JSON Lines of a run, or the file itself."""
    path = Path(path)
    return path / EVENTS if path.is_dir() else path


class _Columns(NamedTuple):
    """Columns of records, as bytes in the layout of Arrow."""

    names: list[str]
    rows: int
    #: Places in ``names``: 32 bits each.
    codes: bytearray
    #: 64 bits each; 0 where there is none.
    steps: bytearray
    #: A bit for each row that has a step, from the lowest on.
    step_bits: bytearray
    #: Nanoseconds since 1970: 64 bits each.
    times: bytearray
    #: 64 bits each; NaN where there is none.
    values: bytearray
    #: Where each text begins in ``text``, and where the last one ends: 64 bits each.
    offsets: bytearray
    text: bytearray
    #: A bit for each row that has a text, from the lowest on.
    text_bits: bytearray

    def has_step(self) -> Any:
        """Returns an array of NumPy: whether each row has a step."""
        return self._unpacked(self.step_bits)

    def texts(self) -> tuple[Any, list[str]]:
        """Returns an array of NumPy with the rows that have a text, and these texts."""
        import numpy as np

        rows = np.flatnonzero(self._unpacked(self.text_bits))
        offsets = np.frombuffer(self.offsets, np.int64)
        ranges = zip(offsets[rows].tolist(), offsets[rows + 1].tolist(), strict=True)
        return rows, [self.text[start:end].decode() for start, end in ranges]

    def _unpacked(self, bits: bytearray) -> Any:
        """Returns the bits of a column, one for each row."""
        import numpy as np

        return np.unpackbits(np.frombuffer(bits, np.uint8), count=self.rows, bitorder="little").astype(bool)


class Records:
    """The records of a run, read again whenever they are asked for. Make it by :func:`read`.

    A table of them has a row for each record, in the order of the file, and these columns:

    ========= ============================= =====================================================================================
    column    pandas, Arrow, polars         what it holds
    ========= ============================= =====================================================================================
    ``name``  categories of strings         the name
    ``step``  nullable ``int64``            the step; null where the record has none
    ``time``  nanoseconds, in UTC           the moment
    ``value`` ``float64``                   a number, a whole number (exact up to 2**53) or a truth value (0 or 1); NaN for all else
    ``text``  nullable string               a text as it is; lists, dictionaries, histograms and images as JSON; null for all else
    ========= ============================= =====================================================================================

    The columns are built without an object of Python for each record: a million records of numbers take 40 MB. Iteration gives
    :class:`Record` objects, whose ``value`` has every kind as it was logged. It reads 256 records or about a mebibyte of them at a time, so
    that a file of any size takes no more memory.
    """

    def __init__(self, path: Path, pattern: str | None) -> None:
        #: The file that is read.
        self.path = path
        self._pattern = pattern

    def __iter__(self) -> Iterator[Record]:
        reader = RecordReader(os.fspath(self.path), self._pattern)
        return chain.from_iterable(iter(reader.piece, []))

    def __len__(self) -> int:
        return count_records(os.fspath(self.path), self._pattern)

    def __repr__(self) -> str:
        return f"<Records of {str(self.path)!r}{f', {self._pattern}' if self._pattern else ''}>"

    def scalars(self, name: str) -> tuple[list[int | None], list[float]]:
        """Returns the steps and the numbers of a name.

        A truth value is 0 or 1. NaN and infinities are among the numbers, as they were logged: a loss that became NaN shows that. Records
        of that name with another kind of value are left out.

        Args:
            name: The name, such as ``"train.loss"``.
        """
        return read_scalars(os.fspath(self.path), self._pattern, name)

    def _columns(self) -> _Columns:
        """Reads all columns."""
        names, rows, buffers = read_columns(os.fspath(self.path), self._pattern)
        return _Columns(names, rows, *buffers)

    def to_pandas(self) -> Any:
        """Returns a ``pandas.DataFrame``. Needs pandas. See :class:`Records` for its columns."""
        import numpy as np
        import pandas

        columns = self._columns()
        rows, texts = columns.texts()
        text = np.full(columns.rows, pandas.NA, dtype=object)
        text[rows] = texts
        return pandas.DataFrame(
            {
                "name": pandas.Categorical.from_codes(np.frombuffer(columns.codes, np.int32), columns.names),
                "step": pandas.arrays.IntegerArray(np.frombuffer(columns.steps, np.int64), ~columns.has_step()),
                "time": pandas.DatetimeIndex(np.frombuffer(columns.times, "M8[ns]")).tz_localize("UTC"),
                "value": np.frombuffer(columns.values, np.float64),
                "text": pandas.array(text, dtype="string"),
            },
            copy=False,
        )

    def to_arrow(self) -> Any:
        """Returns a ``pyarrow.Table``. Needs pyarrow. See :class:`Records` for its columns."""
        import pyarrow

        columns = self._columns()

        def column(kind: Any, *buffers: bytearray | None) -> Any:
            """Returns a column of Arrow over buffers that are not copied."""
            found = [None if buffer is None else pyarrow.py_buffer(buffer) for buffer in buffers]
            return pyarrow.Array.from_buffers(kind, columns.rows, found)

        codes = column(pyarrow.int32(), None, columns.codes)
        return pyarrow.table(
            {
                "name": pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(columns.names, pyarrow.string())),
                "step": column(pyarrow.int64(), columns.step_bits, columns.steps),
                "time": column(pyarrow.timestamp("ns", "UTC"), None, columns.times),
                "value": column(pyarrow.float64(), None, columns.values),
                "text": column(pyarrow.large_string(), columns.text_bits, columns.offsets, columns.text),
            }
        )

    def to_polars(self) -> Any:
        """Returns a ``polars.DataFrame``. Needs polars, and pyarrow or NumPy. See :class:`Records` for its columns."""
        import polars as pl

        if importlib.util.find_spec("pyarrow") is not None:
            return pl.DataFrame(pl.from_arrow(self.to_arrow())).with_columns(pl.col("name").cast(pl.Categorical))
        import numpy as np

        columns = self._columns()
        has_step, rows, texts = columns.has_step(), *columns.texts()
        # The place of each row among the texts; null where it has none.
        places = np.full(columns.rows, -1)
        places[rows] = np.arange(len(rows))
        step, place = pl.col("step"), pl.Series(places)
        return pl.DataFrame(
            {
                "name": pl.Series(columns.names, dtype=pl.String).gather(np.frombuffer(columns.codes, np.uint32)),
                "step": np.frombuffer(columns.steps, np.int64),
                "time": np.frombuffer(columns.times, np.int64),
                "value": np.frombuffer(columns.values, np.float64),
                "text": pl.Series(texts, dtype=pl.String).gather(place.set(place < 0, None)),
            }
        ).with_columns(
            pl.col("name").cast(pl.Categorical),
            pl.when(pl.Series(has_step)).then(step).alias("step"),
            pl.col("time").cast(pl.Datetime("ns", "UTC")),
        )


def read(path: str | os.PathLike[str], pattern: str | None = None) -> Records:
    """Reads what a run has written, during the run or after it.

    Args:
        path: The folder of the run, or its file of JSON Lines.
        pattern: The names to read, such as ``"train.*"``. Defaults to all.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is an address of a remote file system.
    """
    file = _file(local("path", path))
    if not file.exists():
        raise FileNotFoundError(f"there is no file of JSON Lines at {str(file)!r}")
    return Records(file, pattern)


@dataclass(frozen=True, repr=False)
class RunInfo:
    """What the events of a run tell of one process that worked on it."""

    #: The folder of the run.
    folder: Path
    #: The id of the run.
    run_id: str
    #: The name of the run, if it has one.
    name: str | None
    #: 1 for the first process of the run, and one more with each resumption.
    generation: int
    #: Which of the processes this is that worked on the run at the same time.
    rank: int
    #: ``"running"``, ``"finished"``, ``"failed"``, ``"preempted"``, ``"vanished"`` or ``"unclear"``.
    status: str
    #: When it began, in seconds since 1970.
    began: float
    #: When its last event was made, in seconds since 1970.
    last_seen: float
    #: The step of its last heartbeat, or of its end.
    last_step: int | None
    #: Why it failed, was interrupted, or ended early.
    reason: str | None

    def __repr__(self) -> str:
        parts = [self.status]
        if self.last_step is not None:
            parts.append(f"at step {self.last_step:,}")
        if self.reason:
            # The last line of a traceback says what it was.
            parts.append(f"({self.reason.strip().splitlines()[-1]})")
        return f"<RunInfo {self.name or self.run_id} in {str(self.folder)!r}: {' '.join(parts)}>"


def runs(dir: str | os.PathLike[str] = "runs") -> list[RunInfo]:  # noqa: A002 - the word that users know
    """Returns all runs in a folder, and at any depth below it, oldest first. Folders without a file of JSON Lines are passed over; what lies
    below the folder of a run belongs to that run.

    Args:
        dir: The folder of all runs, or that of one run.

    Raises:
        OSError: A file cannot be read.
        ValueError: It is an address of a remote file system.
    """
    folder = Path(local("dir", dir))
    found = [RunInfo(folder=each, **run) for each in _folders(folder) for run in runs_of(os.fspath(each / EVENTS))]
    return sorted(found, key=lambda run: run.began)


def _folders(root: Path) -> Iterator[Path]:
    """Returns the folders of runs at any depth, sorted within a folder, as the command line finds them. Those that cannot be listed are left
    out."""
    real = os.path.realpath(root)

    def is_new(path: str) -> bool:
        """Returns whether a folder is not found without a link as well, and leads not back."""
        if not os.path.islink(path):
            return True
        target = os.path.realpath(path)
        is_known = target in links or os.path.commonpath((target, real)) in (target, real)
        links.add(target)
        return not is_known

    links: set[str] = set()
    for parent, folders, names in os.walk(root, followlinks=True):
        if EVENTS in names:
            # What lies below belongs to the run.
            folders.clear()
            yield Path(parent)
        folders[:] = [name for name in sorted(folders) if is_new(os.path.join(parent, name))]
