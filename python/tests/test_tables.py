"""Tables of what was written hold what iteration gives, row by row."""

import json
import math
import random
import signal

import numpy as np
import pytest
from support import law

import forebay
from forebay import Collector, sinks
from forebay._forebay import RecordReader

KINDS = {
    "float": lambda chance: chance.uniform(-1e6, 1e6),
    "special": lambda chance: chance.choice([math.inf, -math.inf, 0.0, 5e-324]),
    "int": lambda chance: chance.randrange(-(2**53), 2**53),
    "bool": lambda chance: chance.random() < 0.5,
    "text": lambda chance: "".join(chance.choices("aä\n\"\\ 漢\0😀", k=chance.randrange(8))),
    "none": lambda chance: None,
    "list": lambda chance: [chance.randrange(9) for _ in range(chance.randrange(5))],
    "fields": lambda chance: {"a": chance.random(), "b": {"c": "x"}},
    "histogram": lambda chance: np.arange(float(chance.randrange(2, 50))),
    "image": lambda chance: forebay.Image(np.zeros((3, 2, 2))),
}


def row(record):
    """The row of a record: name, step, time in quarters of a second, number, and text, whose JSON is read."""
    value, number, text = record.value, math.nan, None
    if isinstance(value, (bool, int, float)):
        number = float(value)
    elif isinstance(value, str):
        text = value
    elif isinstance(value, list) or record.name == "fields":
        text = value
    elif value is not None:
        text = {key: value[key] for key in ("counts", "width") if key in value}
    return record.name, record.step, round(record.walltime * 4), number, text


def read_text(name, text):
    """What the text of a table says of a value that is no text itself."""
    if text is None or name == "text":
        return text
    found = json.loads(text)
    if name in ("histogram", "image"):
        found = found["$" + name]
        return {key: found[key] for key in ("counts", "width") if key in found}
    return found


def of_pandas(table):
    pandas = pytest.importorskip("pandas")
    assert [str(kind) for kind in table.dtypes] == ["category", "Int64", "datetime64[ns, UTC]", "float64", "string"]
    for name, step, time, value, text in table.itertuples(index=False):
        missing = None if text is pandas.NA else text
        yield name, None if step is pandas.NA else step, time.value / 250_000_000, value, read_text(name, missing)


def of_arrow(table):
    table.validate(full=True)
    columns = [table[name] for name in ("name", "step", "time", "value", "text")]
    columns[2] = columns[2].cast("int64")
    for name, step, time, value, text in zip(*(column.to_pylist() for column in columns), strict=True):
        yield name, step, time / 250_000_000, value, read_text(name, text)


def of_polars(table):
    polars = pytest.importorskip("polars")
    assert table.dtypes == [polars.Categorical, polars.Int64, polars.Datetime("ns", "UTC"), polars.Float64, polars.String]
    for name, step, time, value, text in table.with_columns(polars.col("time").cast(polars.Int64)).iter_rows():
        yield name, step, time / 250_000_000, value, read_text(name, text)


def written(folder, seed):
    """Writes values of every kind in random order, and returns the records."""
    chance, path = random.Random(seed), folder / "events.jsonl"
    kinds = chance.choices(list(KINDS), k=chance.choice([0, 1, 7, 8, 9, 200]))
    with Collector([sinks.JsonLines(path)]) as collector:
        for number, kind in enumerate(kinds):
            step = chance.choice([None, number, -number])
            collector.collect(kind, KINDS[kind](chance), step=step, walltime=chance.randrange(8_000_000_000) / 4)
    return forebay.read(path)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("method", "rows"), [("to_pandas", of_pandas), ("to_arrow", of_arrow), ("to_polars", of_polars), ("without pyarrow", of_polars)]
)
def test_a_table_has_the_rows_that_iteration_gives(method, rows, seed, tmp_path, monkeypatch):
    pytest.importorskip({"to_pandas": "pandas", "to_arrow": "pyarrow"}.get(method, "polars"))
    if method == "without pyarrow":
        find_spec, method = forebay._reading.importlib.util.find_spec, "to_polars"
        monkeypatch.setattr(forebay._reading.importlib.util, "find_spec", lambda name: None if name == "pyarrow" else find_spec(name))
    records = written(tmp_path, seed)
    expected = [row(record) for record in records]
    found = list(rows(getattr(records, method)()))
    assert len(records) == len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one[:3] == other[:3]
        assert one[3] == other[3] or (math.isnan(one[3]) and math.isnan(other[3]))
        assert one[4] == other[4]


def test_a_table_can_be_changed(tmp_path):
    pytest.importorskip("pandas")
    with Collector([sinks.JsonLines(tmp_path / "events.jsonl")]) as collector:
        collector.collect("loss", 0.5, step=1)
    table = forebay.read(tmp_path / "events.jsonl").to_pandas()
    table.loc[0, ["value", "step", "text"]] = [1.5, 7, "x"]
    assert table.loc[0, ["value", "step", "text"]].tolist() == [1.5, 7, "x"]


def test_the_scalars_of_a_name_are_its_numbers(tmp_path):
    with Collector([sinks.JsonLines(tmp_path / "events.jsonl")]) as collector:
        for step, value in enumerate([0.5, True, "text", None, [1.0], 3]):
            collector.collect("x", value, step=step)
        collector.collect("y", 1.0)
    records = forebay.read(tmp_path / "events.jsonl")
    assert records.scalars("x") == ([0, 1, 5], [0.5, 1.0, 3.0])
    assert records.scalars("y") == ([None], [1.0])
    assert records.scalars("z") == ([], [])


def test_a_number_that_is_none_is_among_the_scalars(tmp_path):
    """A loss that became NaN did not end at the step before."""
    with Collector([sinks.JsonLines(tmp_path / "events.jsonl")]) as collector:
        for step, value in enumerate([0.5, math.nan, math.inf, -math.inf]):
            collector.collect("loss", value, step=step)
    steps, numbers = forebay.read(tmp_path / "events.jsonl").scalars("loss")
    assert (steps, list(map(repr, numbers))) == ([0, 1, 2, 3], ["0.5", "nan", "inf", "-inf"])


def of_steps(path, count, text=""):
    with Collector([sinks.JsonLines(path)], capacity=count + 1) as collector:
        for step in range(count):
            collector.collect("text", text or step, step=step)
        law(collector.stop(), count)


def test_iteration_reads_a_piece_at_a_time(tmp_path):
    path = tmp_path / "events.jsonl"
    of_steps(path, 5_000)
    records = iter(forebay.read(path))
    assert next(records).step == 0
    # What was not read is not there any more.
    path.write_text("")
    assert len(list(records)) < 1_000
    # The next iteration begins anew.
    assert list(forebay.read(path)) == []


def test_a_piece_of_large_records_is_bounded_by_their_size(tmp_path):
    path = tmp_path / "events.jsonl"
    of_steps(path, 20, "x" * 300_000)
    assert [record.step for record in forebay.read(path)] == list(range(20))
    reader = RecordReader(str(path))
    pieces = list(iter(reader.piece, []))
    assert max(map(len, pieces)) <= 4
    assert [record.step for piece in pieces for record in piece] == list(range(20))
    assert reader.piece() == []


def test_iteration_gives_what_was_read_before_an_error(tmp_path):
    path = tmp_path / "events.jsonl"
    of_steps(path, 3)
    path.rename(tmp_path / "events.jsonl.000001")
    path.write_text("")
    # Compressed files are not read by this package.
    (tmp_path / "events.jsonl.000002.zst").write_text("")
    records = iter(forebay.read(path))
    assert [next(records).step for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="cannot read .*events.jsonl"):
        next(records)


class Interrupt(BaseException):
    """What the handler of a signal raises."""


def test_a_piece_of_rare_records_is_interrupted_before_the_whole_file_is_read(tmp_path):
    with Collector([sinks.JsonLines(tmp_path / "events.jsonl")]) as collector:
        for step in range(10_000):
            collector.collect("common", 0.5, step=step)
        law(collector.stop(), 10_000)
    # Three hundred files of them, then one of what is looked for.
    closed = [tmp_path / f"events.jsonl.{number:06}" for number in range(1, 301)]
    (tmp_path / "events.jsonl").rename(closed[0])
    for path in closed[1:]:
        path.hardlink_to(closed[0])
    with Collector([sinks.JsonLines(tmp_path / "events.jsonl")]) as collector:
        collector.collect("rare", 0.25)
        law(collector.stop(), 1)

    def interrupt(*_):
        raise Interrupt

    reader = RecordReader(str(tmp_path / "events.jsonl"), "rare")
    earlier = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(Interrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            reader.piece()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, earlier)
    # Nothing that was looked for is lost.
    for path in closed:
        path.unlink()
    assert [record.name for record in reader.piece()] == ["rare"]
    assert reader.piece() == []
