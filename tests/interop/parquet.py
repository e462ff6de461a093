"""Reads what `forebay export` writes as Parquet, with pyarrow and with polars. What must be in it is known from the lines that it was made
of.

usage: parquet.py FOREBAY FOLDER        (see ./run, which makes all that it needs)
"""

import datetime
import json
import math
import os
import subprocess
import sys

import polars
import pyarrow.parquet

#: More rows than are in one group of a file.
MANY = 150_000
#: The last moment that a record has: in the year 2116.
LAST = 2**62 - 1


def nanos(time):
    """Nanoseconds since 1970 of a moment."""
    moment = datetime.datetime.fromisoformat(time[:19] + "+00:00")
    return min(int(moment.timestamp()) * 10**9 + int(time[20:29]), LAST)


def write(folder, lines):
    """Writes a run, and returns the rows that it must have."""
    os.makedirs(folder)
    rows = []
    with open(os.path.join(folder, "events.jsonl"), "w", encoding="utf-8") as file:
        for name, time, step, value in lines:
            line = {"name": name, "time": time} | ({} if step is None else {"step": step})
            if isinstance(value, str):
                file.write(json.dumps(line | {"text": value}) + "\n")
                continue
            kind = "bool" if isinstance(value, bool) else "integer" if isinstance(value, int) else "scalar"
            # What is not finite is a word in a line.
            said = value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            file.write(json.dumps(line | {kind: said}) + "\n")
            rows.append((os.path.basename(folder), name, step, nanos(time), float(value)))
    return rows


def is_same(own, wanted):
    """Whether two rows are the same. NaN is NaN."""
    return own[:4] == wanted[:4] and (own[4] == wanted[4] or (math.isnan(own[4]) and math.isnan(wanted[4])))


def by_pyarrow(path):
    """The rows of a file, as pyarrow has them."""
    table = pyarrow.parquet.read_table(path)
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("run", "string"),
        ("name", "string"),
        ("step", "int64"),
        ("time", "timestamp[ns, tz=UTC]"),
        ("value", "double"),
    ], table.schema
    columns = [table.column(name) for name in ("run", "name", "step")]
    columns += [table.column("time").cast("int64"), table.column("value")]
    return list(zip(*(column.to_pylist() for column in columns)))


def by_polars(path):
    """The rows of a file, as polars has them: with a reader of its own."""
    table = polars.read_parquet(path)
    assert table.schema == {
        "run": polars.String,
        "name": polars.String,
        "step": polars.Int64,
        "time": polars.Datetime("ns", "UTC"),
        "value": polars.Float64,
    }, table.schema
    return table.with_columns(polars.col("time").cast(polars.Int64)).rows()


def export(forebay, folder, path, *arguments):
    """Exports a folder, and returns the exit code."""
    done = subprocess.run([forebay, "export", folder, "-o", path, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode in (0, 1) and done.stderr == "", done
    return done.returncode


def main(forebay, folder):
    odd = [
        ("train.loss", "2026-11-21T08:00:00.000000001Z", 0, 0.1),
        ("ä \u2028 名 \"',", "2026-11-21T08:00:00.123456789Z", -7, -0.0),
        ("none", "2026-11-21T08:00:01.000000000Z", None, math.nan),
        ("train.loss", "2026-11-21T07:59:59.999999999Z", 2**63 - 1, math.inf),
        ("train.loss", "1970-01-01T00:00:00.000000000Z", 0, -math.inf),
        ("train.loss", "2400-01-01T00:00:00.000000000Z", 1, 5e-324),
        ("truth", "2026-11-21T08:00:02.000000000Z", 3, True),
        ("whole", "2026-11-21T08:00:02.000000000Z", 4, 2**53 + 1),
        ("text", "2026-11-21T08:00:02.000000000Z", 5, "left out"),
        ("x" * 300, "2026-11-21T08:00:03.000000000Z", None, 1.7976931348623157e308),
    ]
    many = (
        ("even" if step % 2 == 0 else f"name {step % 1001}", f"2026-11-21T08:{step // 60 % 60:02}:{step % 60:02}.{step:09}Z", step, step / 7)
        for step in range(MANY)
    )
    rows = write(os.path.join(folder, "runs/a"), odd) + write(os.path.join(folder, "runs/b"), many)
    path = os.path.join(folder, "all.parquet")
    assert export(forebay, os.path.join(folder, "runs"), path) == 0
    groups = pyarrow.parquet.ParquetFile(path).num_row_groups
    assert groups > 1, groups
    for reader in (by_pyarrow, by_polars):
        found = reader(path)
        assert len(found) == len(rows), (reader.__name__, len(found), len(rows))
        for own, wanted in zip(found, rows):
            assert is_same(own, wanted), (reader.__name__, own, wanted)
    # A file without a row is one as well.
    assert export(forebay, os.path.join(folder, "runs"), path, "-n", "nothing") == 1
    assert by_pyarrow(path) == by_polars(path) == []
    print(f"pyarrow and polars read {len(rows)} rows in {groups} groups of Parquet, and a file without one")


main(*sys.argv[1:])
