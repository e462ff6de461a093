"""What was written, read back: ``forebay.read("runs/first")``, ``forebay.runs("runs")``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay._forebay import Record, read_columns, read_records, runs_of

#: The file of JSON Lines in the folder of a run.
EVENTS = "events.jsonl"


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    return path / EVENTS if path.is_dir() else path


class Records:
    """The records of a run, read anew whenever they are asked for. Make it by :func:`read`.

    A table of them has a row for each record, and the columns ``name``, ``step``, ``time``, ``value`` (a number; NaN where there is none)
    and ``text`` (a text; JSON for histograms, lists and fields).
    """

    def __init__(self, path: Path, pattern: str | None) -> None:
        #: The file that is read.
        self.path = path
        self._pattern = pattern

    def __iter__(self) -> Iterator[Record]:
        return iter(read_records(os.fspath(self.path), self._pattern))

    def __len__(self) -> int:
        return len(read_columns(os.fspath(self.path), self._pattern)[1])

    def __repr__(self) -> str:
        return f"<Records of {str(self.path)!r}{f', {self._pattern}' if self._pattern else ''}>"

    def scalars(self, name: str) -> tuple[list[int | None], list[float]]:
        """Returns the steps and the numbers of a name.

        Args:
            name: The name, such as ``"train.loss"``.
        """
        names, codes, steps, _, values, _ = read_columns(os.fspath(self.path), self._pattern)
        if name not in names:
            return [], []
        wanted = names.index(name)
        rows = [row for row, code in enumerate(codes) if code == wanted and values[row] == values[row]]
        return [steps[row] for row in rows], [values[row] for row in rows]

    def to_pandas(self) -> Any:
        """Returns a ``pandas.DataFrame``. Needs pandas."""
        import pandas

        names, codes, steps, times, values, texts = read_columns(os.fspath(self.path), self._pattern)
        return pandas.DataFrame(
            {
                "name": pandas.Categorical.from_codes(codes, names),
                "step": pandas.array(steps, dtype="Int64"),
                "time": pandas.to_datetime(times, unit="ns", utc=True),
                "value": values,
                "text": pandas.array(texts, dtype="string"),
            }
        )

    def to_arrow(self) -> Any:
        """Returns a ``pyarrow.Table``. Needs pyarrow."""
        import pyarrow

        names, codes, steps, times, values, texts = read_columns(os.fspath(self.path), self._pattern)
        name = pyarrow.DictionaryArray.from_arrays(pyarrow.array(codes, pyarrow.int32()), pyarrow.array(names, pyarrow.string()))
        return pyarrow.table(
            {
                "name": name,
                "step": pyarrow.array(steps, pyarrow.int64()),
                "time": pyarrow.array(times, pyarrow.timestamp("ns", "UTC")),
                "value": pyarrow.array(values, pyarrow.float64()),
                "text": pyarrow.array(texts, pyarrow.string()),
            }
        )

    def to_polars(self) -> Any:
        """Returns a ``polars.DataFrame``. Needs polars."""
        import polars

        names, codes, steps, times, values, texts = read_columns(os.fspath(self.path), self._pattern)
        return polars.DataFrame(
            {
                "name": polars.Series([names[code] for code in codes], dtype=polars.Categorical),
                "step": polars.Series(steps, dtype=polars.Int64),
                "time": polars.Series(times, dtype=polars.Int64).cast(polars.Datetime("ns", "UTC")),
                "value": polars.Series(values, dtype=polars.Float64),
                "text": polars.Series(texts, dtype=polars.String),
            }
        )


def read(path: str | os.PathLike[str], pattern: str | None = None) -> Records:
    """Reads what a run has written, during the run or after it.

    Args:
        path: The folder of the run, or its file of JSON Lines.
        pattern: The names to read, such as ``"train.*"``. Defaults to all.

    Raises:
        FileNotFoundError: There is no such file.
    """
    file = _file(path)
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
    """Returns all runs in a folder, oldest first. Folders without a file of JSON Lines are passed over.

    Args:
        dir: The folder of all runs, or that of one run.
    """
    folder = Path(dir)
    files = [folder / EVENTS, *sorted(folder.glob(f"*/{EVENTS}"))]
    found = [RunInfo(folder=file.parent, **run) for file in files if file.exists() for run in runs_of(os.fspath(file))]
    return sorted(found, key=lambda run: run.began)
