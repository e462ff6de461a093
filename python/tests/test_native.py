"""Runs, collectors, and what is read back of them."""

import itertools
import json
import logging
import pickle
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from support import law, law_of_run, values

import forebay
from forebay import Collector, SummaryWriter, sinks


def run_script(script, *arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done
    return done


def test_a_run_writes_json_lines_and_tensorboard_and_ends(tmp_path):
    run = forebay.init(tmp_path, name="digits", config={"lr": 0.1, "layers": [64, 10]})
    for step in range(100):
        run.log({"train.loss": 1 / (step + 1), "train.lr": 0.1}, step=step)
    run.event("data.shuffled", seed=3)
    with run.timer("data.seconds", step=99):
        pass
    run.summary["accuracy"] = 0.97
    assert "running" in repr(run)
    report = run.finish()
    assert report.is_clean
    assert (report.lost, report.pending) == (0, 0)
    assert run.finish() is report
    law(report, 200 + 2 + 2)
    assert run.folder.name.endswith("_digits")

    records = forebay.read(run.folder)
    assert len(records) == report.offered
    assert records.scalars("train.loss") == (list(range(100)), [1 / (step + 1) for step in range(100)])
    by_name = {record.name: record for record in records}
    assert by_name["data.shuffled"].value == {"seed": 3}
    assert by_name["data.seconds"].step == 99
    assert by_name["training.started"].value["config"] == {"lr": 0.1, "layers": [64, 10]}
    assert by_name["training.completed"].value["final_metrics"] == {"accuracy": 0.97}
    assert sum(value.tag == "train/loss" for value in values(run.folder)) == 100

    (info,) = forebay.runs(tmp_path)
    assert (info.name, info.status, info.run_id, info.folder) == ("digits", "finished", run.run_id, run.folder)


def test_everything_says_what_it_is(tmp_path):
    run = forebay.init(tmp_path, name="digits")
    folder = str(run.folder)
    run.log({"loss": 0.5}, step=3)
    assert repr(run) == f"<Run digits in {folder!r}, running: 2 events, 0 lost>"
    report = run.finish("failed", "Traceback\n  a line\nValueError: no data\n")
    assert repr(run) == f"<Run digits in {folder!r}, ended: 3 events, 0 lost>"
    assert repr(report) == "<Report: 3 offered = 3 processed + 0 lost + 0 pending>"
    (info,) = forebay.runs(tmp_path)
    assert repr(info) == f"<RunInfo digits in {folder!r}: failed at step 3 (ValueError: no data)>"
    records = forebay.read(run.folder, "lo*")
    assert repr(records) == f"<Records of {folder + '/events.jsonl'!r}, lo*>"
    (record,) = records
    assert repr(record).startswith("<Record loss")
    assert repr(forebay.Histogram(np.array([1.0, 2.0]))) == "<Histogram of 2 values in 64 bins>"
    assert repr(forebay.Image(np.zeros((3, 4, 5)))) == "<Image of 5 x 4 pixels>"

    failed = forebay.Report(5000, 4000, 1000, 0, {"<disk>": 2}, {})
    assert repr(failed) == "<Report: 5,000 offered = 4,000 processed + 1,000 lost + 0 pending, 2 failed in <disk>>"
    assert "<tr><th>failed in &lt;disk&gt;</th><td>2</td></tr>" in failed._repr_html_()


def test_tensorboard_finds_runs_and_writers_in_the_folder_that_it_is_given(tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    monkeypatch.chdir(tmp_path)
    with forebay.init(name="digits", config={"lr": 0.1}) as run:
        run.log({"train.loss": 0.5}, step=0)
    with forebay.SummaryWriter(comment="_mine") as default, forebay.SummaryWriter("runs/nested/named") as named:
        default.add_scalar("train/loss", 0.5, 0)
        named.add_scalars("loss", {"train": 0.5, "test": 0.7}, 0)
        named.add_scalar("lr", 0.1, 0)
        named.add_hparams({"lr": 0.1}, {"accuracy": 0.9}, run_name="trial")
    # As `tensorboard --logdir runs` and `%tensorboard --logdir runs` do.
    found = EventMultiplexer().AddRunsFromDirectory("runs")
    found.Reload()
    names = {
        run.folder.name: "train/loss", str(default.log_dir)[len("runs/") :]: "train/loss", "nested/named": "lr",
        "nested/named/loss_train": "loss", "nested/named/loss_test": "loss", "nested/named/trial": "accuracy",
    }  # fmt: skip
    assert set(found.Runs()) == set(names)
    for name, tag in names.items():
        assert tag in found.Runs()[name]["tensors"], name


def test_the_functions_of_the_module_work_on_the_run_that_goes_on(tmp_path):
    run = forebay.init(tmp_path)
    forebay.log({"loss": 0.5}, step=3)
    forebay.event("note", text="x")
    with forebay.timer("seconds"):
        pass
    forebay.summary()["best"] = 1
    report = forebay.finish("stopped", "the loss rose")
    assert report.is_clean
    (info,) = forebay.runs(tmp_path)
    assert (info.status, info.reason, info.last_step) == ("finished", "the loss rose", 3)
    assert run.summary == {"best": 1}
    with pytest.raises(RuntimeError, match="forebay.init first"):
        forebay.log({"loss": 0.5})


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [(ValueError("no data"), "failed", "ValueError: no data"), (KeyboardInterrupt(), "preempted", "KeyboardInterrupt"),
     (SystemExit(2), "failed", "SystemExit"), (SystemExit(0), "finished", None)],
)  # fmt: skip
def test_a_run_ends_as_its_block_does(error, status, reason, tmp_path):
    with pytest.raises(type(error)), forebay.init(tmp_path) as run:
        run.log({"loss": 0.5}, step=0)
        raise error
    (info,) = forebay.runs(tmp_path)
    assert info.status == status
    assert info.reason is None if reason is None else reason in info.reason
    if status == "failed":
        assert "Traceback" in info.reason


SCRIPT = """
import os, signal, sys, forebay
run = forebay.init(sys.argv[1])
for step in range(100):
    forebay.log({"loss": 0.5}, step=step)
how = sys.argv[2]
if how == "raise":
    raise ValueError("no data")
if how == "SIGTERM":
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
if how == "SIGINT":
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
if how == "SIGKILL":
    run.flush()
    os.kill(os.getpid(), signal.SIGKILL)
if how == "fork":
    if os.fork() == 0:
        forebay.log({"child": 1.0}); run.flush(); run.finish()
        os._exit(0)
    os.wait()
"""


@pytest.mark.parametrize(
    ("how", "code", "status"),
    [("return", 0, "finished"), ("raise", 1, "failed"), ("SIGTERM", -15, "preempted"), ("SIGINT", -2, "preempted"),
     ("SIGKILL", -9, "running"), ("fork", 0, "finished")],
)  # fmt: skip
def test_a_run_that_is_open_at_the_end_of_the_program_says_how_it_ended(how, code, status, tmp_path):
    run_script(SCRIPT, tmp_path, how, code=code)
    (info,) = forebay.runs(tmp_path)
    assert info.status == status
    records = forebay.read(info.folder)
    assert len(records.scalars("loss")[0]) == 100
    assert records.scalars("child") == ([], [])


def test_a_handler_of_the_program_for_sigterm_stays(tmp_path):
    script = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n" + SCRIPT.split("\n", 2)[2]
    run_script("import os, signal, sys, forebay\n" + script, tmp_path, "SIGTERM", code=5)
    (info,) = forebay.runs(tmp_path)
    assert info.status == "finished"


def test_values_of_every_kind_are_kept(tmp_path):
    path = tmp_path / "events.jsonl"
    logged = {
        "float": 0.5, "int": 3, "bool": True, "text": "x", "none": None, "large": 2**70, "list": [1, [2.5, "a"]],
        "fields": {"a": {"b": 1}}, "tensor": np.array([2.5]), "nan": float("nan"), "path": path,
    }  # fmt: skip
    with Collector([sinks.JsonLines(path)]) as collector:
        assert collector.log(logged, step=7) == len(logged)
        collector.collect("array", np.arange(10.0), step=-1)
        collector.collect("histogram", forebay.Histogram(np.array([[1, 2], [3, 4]]), bins=3))
        collector.collect("image", forebay.Image(np.zeros((3, 4, 5))), priority="critical", walltime=5.5)
    found = {record.name: record for record in forebay.read(path)}
    kept = {name: found[name].value for name in logged}
    assert kept.pop("nan") != 0
    expected = {**logged, "large": float(2**70), "tensor": 2.5, "path": str(path)}
    del expected["nan"]
    assert kept == expected
    assert {record.step for name, record in found.items() if name in logged} == {7}
    assert (found["array"].step, sum(found["array"].value["counts"])) == (-1, 10)
    assert found["histogram"].value["counts"] == [1, 1, 2]
    image = found["image"]
    assert (image.value["width"], image.value["height"], image.priority, image.walltime) == (5, 4, "critical", 5.5)


@pytest.mark.parametrize(
    "values",
    [np.arange(100, dtype=kind) for kind in (np.float32, np.float64, np.int64, np.uint8, ">f4")]
    + [np.arange(100) % 3 > 0, np.arange(200.0)[::2], np.arange(100.0).reshape(10, 10).T, np.arange(100.0, dtype=np.float16)],
    ids=str,
)  # fmt: skip
def test_a_histogram_of_any_array_is_counted_as_it_was_logged(values, tmp_path):
    path = tmp_path / "events.jsonl"
    with Collector([sinks.JsonLines(path)]) as collector:
        held = values.copy()
        collector.log({"array": held, "histogram": forebay.Histogram(held, bins=5)}, step=1)
        collector.collect("nested", {"deep": forebay.Histogram(held, bins=5)})
        # What was logged is a copy.
        held[...] = 0
        law(collector.stop(), 3)
    found = {record.name: record.value for record in forebay.read(path)}
    numbers = values.astype(np.float64).reshape(-1)
    for value, bins in ((found["array"], 64), (found["histogram"], 5), (found["nested"]["deep"], 5)):
        counts, _ = np.histogram(numbers, bins)
        assert sum(value["counts"]) == len(numbers)
        assert (value["min"], value["max"], value["sum"]) == (numbers.min(), numbers.max(), numbers.sum())
        assert abs(np.cumsum(value["counts"]) - np.cumsum(counts)).max() <= 1
    assert repr(forebay.Histogram(values)) == f"<Histogram of {values.size} values in 64 bins>"


def test_a_list_that_has_itself_in_it_is_rejected(tmp_path):
    endless = []
    endless.append(endless)
    with Collector() as collector:
        assert collector.collect("x", endless) == "oversize"
        law(collector.stop(), 1)


def test_a_list_that_has_itself_in_it_twice_is_refused():
    endless = []
    endless += [endless, endless]
    with Collector() as collector:
        with pytest.raises(ValueError, match="at most 1048576 parts"):
            collector.collect("x", endless)
        law(collector.stop(), 0)


def test_a_dictionary_may_change_while_it_is_read(tmp_path):
    inner = {}

    class Changes:
        def __str__(self):
            inner[f"another {len(inner)}"] = 1
            return "text"

    inner["a"] = Changes()
    with forebay.init(tmp_path) as run:
        run.log({"inner": inner}, step=0)
    (record,) = forebay.read(run.folder, "inner")
    assert record.value == {"a": "text"}


def test_a_text_that_is_no_utf8_is_logged_all_the_same(tmp_path):
    with pytest.raises(ValueError), forebay.init(tmp_path) as run:
        run.log({"path": "caf\udce9"}, step=0)
        raise ValueError("caf\udce9")
    (record,) = forebay.read(run.folder, "path")
    assert record.value.startswith("caf")
    (info,) = forebay.runs(tmp_path)
    assert info.status == "failed"
    assert "ValueError: caf" in info.reason


def test_what_a_summary_cannot_keep_is_its_text_and_the_run_ends(tmp_path):
    with forebay.init(tmp_path) as run:
        run.summary["per_class"] = {0: 0.9}
        run.summary["large"] = 10**400
        run.summary["accuracy"] = 0.97
    (info,) = forebay.runs(tmp_path)
    assert info.status == "finished"
    (record,) = forebay.read(run.folder, "training.completed")
    metrics = record.value["final_metrics"]
    assert (metrics["per_class"], metrics["accuracy"], len(metrics["large"])) == ("{0: 0.9}", 0.97, 401)


def test_a_config_that_cannot_be_kept_is_refused_before_there_is_a_folder(tmp_path):
    with pytest.raises(TypeError, match="names must be str, got 1"):
        forebay.init(tmp_path / "runs", config={"layers": {1: 64}})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (ValueError, "unknown key capacities", {"capacities": 5}),
        (ValueError, "invalid capacity: 0", {"capacity": 0}),
        (TypeError, "not JSON serializable", {"capacity": object()}),
        (TypeError, "sinks must be of forebay.sinks, got 'events.jsonl'", {"sinks": ["events.jsonl"]}),
        (ValueError, "must be on a local file system", {"sinks": [sinks.JsonLines("s3://bucket/events.jsonl")]}),
        (ValueError, r"rotate_at must be from 0 to 2\*\*63 - 1, got -1", {"sinks": [sinks.JsonLines("events.jsonl", rotate_at=-1)]}),
        (TypeError, "rotate_at must be a whole number, got 0.5", {"sinks": [sinks.JsonLines("events.jsonl", rotate_at=0.5)]}),
        (ValueError, r"resume must be from 0 to 2\*\*63 - 1, got -1", {"sinks": [sinks.TensorBoard("run", resume=-1)]}),
        (ValueError, "name must be a text that is not empty", {"name": ""}),
        (TypeError, "name must be a text, got 5", {"name": 5}),
        # What is known only once there is a folder.
        (ValueError, "did not take the begin of the run", {"gate": {"enabled": False}}),
        (OSError, "file", {"sinks": [sinks.JsonLines("/dev/null/file")]}),
    ],
    ids=str,
)  # fmt: skip
def test_a_run_that_cannot_begin_leaves_no_folder_and_no_file(error, words, arguments, tmp_path):
    with pytest.raises(error, match=words):
        forebay.init(tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []
    first = forebay.init(tmp_path)
    first.finish()
    before = sorted(first.folder.iterdir())
    if "gate" not in arguments:
        with pytest.raises(error, match=words):
            forebay.init(resume=first.folder, **arguments)
        assert sorted(first.folder.iterdir()) == before


def test_variables_that_contradict_themselves_are_refused_before_there_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(ValueError, match='environment variable RANK must be a whole number from 0, got "first"'):
        forebay.init(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_run_is_refused_before_a_file_is_made(tmp_path):
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(ValueError, match="resume must name a run that has begun"):
        forebay.init(resume=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl"]


HOOKED = """
import sys
import forebay
if sys.argv[2] == "earlier":
    # What a debugger or a test runner leaves.
    sys.last_exc = sys.last_value = ValueError("of before")
run = forebay.init(sys.argv[1])
other = forebay.init(sys.argv[1])
if sys.argv[2] == "replaced":
    sys.excepthook = lambda *_: None
    raise ValueError("no data")
if sys.argv[2] == "person":
    sys.ps1 = ">>> "
    raise ValueError("a typo")
if sys.argv[2] == "both":
    raise ValueError("no data")
"""


@pytest.mark.parametrize(
    ("how", "code", "statuses"),
    [
        # A library that shows tracebacks its own way, and calls nobody else.
        ("replaced", 1, ["failed", "failed"]),
        ("both", 1, ["failed", "failed"]),
        ("earlier", 0, ["finished", "finished"]),
        # Only the run that goes on: a person at a prompt goes on as well.
        ("person", 1, ["failed", "finished"]),
    ],
)
def test_an_exception_that_nobody_catches_fails_every_run_that_is_open(how, code, statuses, tmp_path):
    run_script(HOOKED, tmp_path, how, code=code)
    found = forebay.runs(tmp_path)
    assert sorted(info.status for info in found) == statuses
    assert all("no data" in info.reason for info in found if info.status == "failed" and how != "person")


def test_a_run_may_fail_with_an_exception(tmp_path):
    with pytest.raises(TypeError, match="reason must be a text or an exception, got NoneType"):
        forebay.init(tmp_path, name="first").finish("failed", None)
    forebay.finish()
    run = forebay.init(tmp_path, name="second")
    try:
        raise ArithmeticError("the reason")
    except ArithmeticError as error:
        run.finish("failed", error)
    (info,) = [info for info in forebay.runs(tmp_path) if info.name == "second"]
    assert info.status == "failed" and "Traceback" in info.reason and info.reason.rstrip().endswith("ArithmeticError: the reason")


def test_two_threads_end_a_run_once(tmp_path):
    for number in range(20):
        run = forebay.init(tmp_path / str(number))
        run.log({"loss": 0.5}, step=0)
        both = threading.Barrier(2)

        def end(run=run, both=both):
            both.wait()
            run.finish("stopped", "by a watchdog")

        other = threading.Thread(target=end)
        other.start()
        both.wait()
        report = run.finish("stopped", "by a watchdog")
        other.join()
        (info,) = forebay.runs(tmp_path / str(number))
        assert (info.status, info.reason) == ("finished", "by a watchdog")
        assert report.stats["rejected"]["stopped"] == 0


def test_arguments_of_a_collector_are_checked(tmp_path):
    with pytest.raises(ValueError, match=r"invalid capacity: 0 \(expected 1"):
        Collector(capacity=0)
    with pytest.raises(ValueError, match="capasity"):
        Collector(capasity=5)
    with pytest.raises(TypeError, match="sinks must be of forebay.sinks, got 5"):
        Collector([5])
    with pytest.raises(OSError, match="file"):
        (tmp_path / "file").write_text("")
        Collector([sinks.JsonLines(tmp_path / "file" / "x")])
    with pytest.raises(ValueError, match="already exists"):
        Collector([sinks.Console(), sinks.Console()])
    with Collector() as collector:
        with pytest.raises(ValueError, match="priority must be 'critical', 'normal' or 'low', got 'high'"):
            collector.collect("x", priority="high")
        with pytest.raises(TypeError, match="names must be str"):
            collector.collect("x", {1: 2})
        with pytest.raises(ValueError, match="pattern"):
            collector.subscribe("a{")
        with pytest.raises(ValueError, match=r"capacity must be from 0 to 2\*\*63 - 1, got -1"):
            collector.subscribe(capacity=-1)
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(collector)
        with pytest.raises(ValueError, match="bins must be 1..=65536, got 0"):
            forebay.Histogram(np.ones(2), bins=0)
        with pytest.raises(ValueError, match="bins must be 1..=65536, got -1"):
            forebay.Histogram(np.ones(2), bins=-1)
        with pytest.raises(AssertionError, match="input format"):
            forebay.Image(np.ones(2))
        with pytest.raises(TypeError, match="pixels must be a tensor or an array, got list"):
            forebay.Image([[1, 2]], "HW")
        for values in ("abc", {"a": 1}, None, object()):
            rule = "values must be a tensor, an array, or numbers in a list or another iterable, got " + type(values).__name__
            with pytest.raises(TypeError, match=rule):
                forebay.Histogram(values)
        for element in (None, "1", b"3", object()):
            with pytest.raises(TypeError, match=rf"values\[1\] must be a number, got {type(element).__name__}"):
                forebay.Histogram([1, element])
        with pytest.raises(ValueError, match="inhomogeneous"):
            forebay.Histogram([[1, 2], [3]])
    with pytest.raises(FileNotFoundError, match="no file of JSON Lines"):
        forebay.read(tmp_path)
    assert forebay.runs(tmp_path / "none") == []


@pytest.mark.parametrize(
    "values",
    [[1, 2, 3, 4], (1, 2, 3, 4), [[1, 2], [3, 4]], range(1, 5), {1, 2, 3, 4}, {1: 0, 2: 0, 3: 0, 4: 0}.keys(), b"\1\2\3\4", [np.float32(1), 2, 3, 4.0]],
    ids=lambda values: f"{type(values).__name__} {values}",
)
def test_a_histogram_of_any_iterable_of_numbers_is_counted(values, tmp_path):
    path = tmp_path / "events.jsonl"
    with Collector([sinks.JsonLines(path)]) as collector:
        collector.collect("given", forebay.Histogram(values, bins=3))
        collector.collect("by turns", forebay.Histogram((value for value in (1, 2, 3, 4)), bins=3))
        collector.collect("none", forebay.Histogram([]))
    found = {record.name: record.value["counts"] for record in forebay.read(path)}
    assert found == {"given": [1, 1, 2], "by turns": [1, 1, 2], "none": []}


class OnDevice:
    """A tensor of one element that only `item` moves to the host, as one of PyTorch that needs a gradient or is on a GPU."""

    shape = ()

    def __init__(self, number):
        self.number = number

    def item(self):
        return self.number

    def __array__(self, *_args, **_kwargs):
        raise TypeError("cannot be converted to NumPy")


def test_a_histogram_takes_tensors_of_one_element_from_a_list_and_a_generator(tmp_path):
    path = tmp_path / "events.jsonl"
    with Collector([sinks.JsonLines(path)]) as collector:
        collector.collect("list", forebay.Histogram([OnDevice(1.0), OnDevice(2.0), np.float32(3), 4], bins=3))
        collector.collect("generator", forebay.Histogram((OnDevice(number) for number in (1, 2, 3, 4)), bins=3))
        collector.collect("arrays", forebay.Histogram([np.array([1, 2]), np.array([3, 4])], bins=3))
    assert [record.value["counts"] for record in forebay.read(path)] == [[1, 1, 2]] * 3


def test_an_iterable_without_a_length_is_bounded(monkeypatch):
    assert forebay._arrays.MAX_NUMBERS == 1_048_576
    monkeypatch.setattr(forebay._arrays, "MAX_NUMBERS", 3)
    allowed = "values must be at most 3 numbers where the iterable has no length, got more: make an array of them"
    with pytest.raises(ValueError, match=allowed):
        forebay.Histogram(itertools.repeat(1.0))
    # What has a length is in memory already.
    for values in (itertools.repeat(1.0, 3), [1.0] * 4, range(4), {1: 0, 2: 0, 3: 0, 4: 0}.values()):
        forebay.Histogram(values)


def test_an_image_has_one_to_four_channels(tmp_path):
    path = tmp_path / "events.jsonl"
    levels = np.array([[[10, 20]], [[30, 40]], [[50, 60]], [[70, 80]]], np.uint8)
    with Collector([sinks.JsonLines(path)]) as collector:
        for channels in (1, 2, 3, 4):
            collector.collect("image", forebay.Image(levels[:channels]))
    found = [(record.value["format"], list(record.value["bytes"])) for record in forebay.read(path)]
    assert found == [
        ("rgb8", [10, 10, 10, 20, 20, 20]),
        ("rgba8", [10, 10, 10, 30, 20, 20, 20, 40]),
        ("rgb8", [10, 30, 50, 20, 40, 60]),
        ("rgba8", [10, 30, 50, 70, 20, 40, 60, 80]),
    ]


def test_a_full_queue_and_a_gate_are_counted(tmp_path):
    # Nothing is delivered before the stop.
    settings = {"flush": {"strategy": "manual"}, "gate": {"deny": ["debug.*"]}}
    collector = Collector(capacity=10, **settings)
    outcomes = [collector.collect("x", number) for number in range(15)]
    assert outcomes == ["queued"] * 10 + ["queued_evicting"] * 5
    assert collector.collect("debug.x") == "filtered"
    assert collector.pending == 10
    assert repr(collector) == "<Collector: 16 offered = 0 processed + 5 evicted + 0 rejected + 10 pending + 1 filtered>"
    report = collector.stop()
    assert (report.lost, report.processed, report.is_clean) == (6, 10, False)
    law(report, 16)
    assert collector.collect("x") == "stopped"
    assert not collector.is_running


def test_a_subscriber_gets_events_by_iteration_and_by_a_callback(caplog):
    collector = Collector()
    heard, enough = [], threading.Event()

    def callback(record):
        heard.append(record.name)
        if record.name == "a.bad":
            raise ValueError("the callback fails")
        if record.name == "a.last":
            enough.set()

    every, some = collector.subscribe(), collector.subscribe("a.*", callback)
    names = ["a.first", "b", "a.bad", "a.last"]
    with caplog.at_level(logging.ERROR, "forebay"):
        for name in names:
            collector.collect(name, 1)
        assert collector.flush()
        assert enough.wait(60)
    assert heard == ["a.first", "a.bad", "a.last"]
    assert "the callback fails" in caplog.text
    first = every.receive(60)
    assert (first.name, first.value, len(every), every.evicted) == ("a.first", 1, 3, 0)
    assert every.receive(0) is not None
    del some
    law(collector.stop(), 4)
    del collector
    assert [record.name for record in every] == ["a.bad", "a.last"]


def test_a_subscriber_that_lags_loses_its_own_events_alone():
    collector = Collector()
    subscription = collector.subscribe(capacity=10)
    for number in range(25):
        collector.collect("x", number)
    collector.flush()
    assert subscription.receive(60).value == subscription.evicted >= 15
    law(collector.stop(), 25)


def test_health_and_statistics_are_plain_data():
    with Collector() as collector:
        collector.collect("x", 1.0)
        collector.flush()
        assert collector.health()["status"] == "healthy"
        report = collector.stats()
        assert (report.offered, report.processed, report.is_clean) == (1, 1, True)
        assert json.loads(json.dumps(report.stats)) == report.stats
        assert len(collector.session_id) == 36


def test_tables_have_a_row_for_each_record(tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "events.jsonl"
    with Collector([sinks.JsonLines(path)]) as collector:
        collector.collect("loss", 0.5, step=3, walltime=1.5)
        collector.collect("text", "x")
        collector.collect("fields", {"a": 1})
    table = forebay.read(path).to_pandas()
    assert table.name.tolist() == ["loss", "text", "fields"]
    assert table.step.tolist() == [3, pandas.NA, pandas.NA]
    assert table.time[0] == pandas.Timestamp("1970-01-01T00:00:01.5Z")
    assert table.value[0] == 0.5
    assert table.text[1] == "x"
    assert json.loads(table.text[2]) == {"a": 1}
    assert forebay.read(path, "lo*").to_pandas().shape == (1, 5)


def test_tables_of_the_other_libraries_are_the_same(tmp_path):
    path = tmp_path / "events.jsonl"
    with Collector([sinks.JsonLines(path)]) as collector:
        collector.collect("loss", 0.5, step=3)
        collector.collect("text", "x")
    expected = {"name": ["loss", "text"], "step": [3, None], "text": [None, "x"]}
    for module, name, to_dict in (("pyarrow", "to_arrow", "to_pydict"), ("polars", "to_polars", "to_dict")):
        pytest.importorskip(module)
        table = getattr(forebay.read(path), name)()
        columns = getattr(table, to_dict)()
        assert {key: list(columns[key]) for key in expected} == expected


def test_the_signal_of_the_keyboard_interrupts_a_subscriber(tmp_path):
    script = """
import os, signal, threading, forebay
collector = forebay.Collector()
threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    for record in collector.subscribe():
        pass
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_script(script).stdout == "interrupted\n"


def test_the_run_before_goes_on_when_the_last_one_ends(tmp_path):
    outer = forebay.init(tmp_path, name="outer")
    middle = forebay.init(tmp_path, name="middle")
    with forebay.init(tmp_path, name="inner") as inner:
        forebay.log({"x": 1.0})
        # It is not the last one, and is passed over later.
        middle.finish()
        forebay.log({"x": 2.0})
    forebay.log({"x": 3.0})
    forebay.finish()
    with pytest.raises(RuntimeError, match="there is no run"):
        forebay.log({"x": 4.0})
    logged = {run.name: forebay.read(run.folder).scalars("x")[1] for run in (outer, middle, inner)}
    assert logged == {"outer": [3.0], "middle": [], "inner": [1.0, 2.0]}
    assert {info.name: info.status for info in forebay.runs(tmp_path)} == dict.fromkeys(logged, "finished")


def test_a_run_that_nobody_holds_does_not_go_on(tmp_path):
    forebay.init(tmp_path, name="lost")
    forebay.init(tmp_path, name="last").finish()
    with pytest.raises(RuntimeError, match="there is no run"):
        forebay.log({"x": 1.0})
    assert {info.name: info.status for info in forebay.runs(tmp_path)} == {"lost": "failed", "last": "finished"}


def test_an_event_that_is_larger_than_the_queue_is_said_once_and_fails_the_flush(tmp_path, caplog):
    collector = Collector([sinks.JsonLines(tmp_path / "events.jsonl")], max_bytes=100_000, gate={"max_event_bytes": 95_000})
    large = "x" * 90_000
    assert [collector.collect("a", large), collector.try_collect("b", large)] == ["oversize", "oversize"]
    # The last eighth is for critical events; and those that the gate keeps out are kept out on purpose.
    assert collector.collect("critical", large, priority="critical") == "queued"
    assert not collector.flush()
    (message,) = caplog.messages
    assert re.match(
        r'"a" has 9\d{4} bytes, and an event may have 87500: it is not written; others that are too large are counted only', message
    )
    assert collector.collect("small", "x" * 5_000) == "queued"
    assert collector.flush()
    assert len(caplog.messages) == 1
    law(collector.stop(), 4)
    collector = Collector(gate={"max_event_bytes": 5_000})
    assert collector.collect("gate", "x" * 6_000) == "oversize"
    assert collector.flush()


def test_an_array_that_is_larger_than_the_queue_is_counted_in_the_call(tmp_path):
    run = forebay.init(tmp_path, max_bytes=100_000)
    run.log({"a": np.arange(20_000.0)})
    run.collector.collect("b", forebay.Histogram(np.arange(20_000.0), bins=10))
    assert run.flush()
    law_of_run(run, 4)
    found = {record.name: record.value for record in forebay.read(run.folder)}
    assert {name: (len(found[name]["counts"]), sum(found[name]["counts"])) for name in "ab"} == {"a": (64, 20_000), "b": (10, 20_000)}


def test_a_writer_counts_a_large_histogram_in_the_call_and_says_what_else_is_too_large(tmp_path, caplog):
    # 224 MiB and a little more.
    numbers = np.zeros(29_400_000)
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("h", numbers)
        for _ in range(2):
            writer.add_tensor("t", numbers)
        writer.flush()
        (message,) = caplog.messages
        assert re.match(r'"t" has 235200\d{3} bytes, and an event may have 234881024: it is not written', message)
        stats = writer.stats()
        assert (stats["offered"], stats["processed"], stats["rejected"]) == (3, 1, 2)
    (value,) = values(tmp_path)
    assert (value.tag, value.histo.num) == ("h", 29_400_000)


@pytest.mark.parametrize("kind", ["run", "collector"])
def test_a_subscription_ends_when_its_collector_has_stopped(tmp_path, kind):
    run = forebay.init(tmp_path) if kind == "run" else None
    collector = run.collector if run else Collector()
    before, heard, read = set(threading.enumerate()), [], []
    subscription = collector.subscribe("x")
    reader = threading.Thread(target=lambda: read.extend(record.value for record in subscription), daemon=True)
    reader.start()
    # Its thread holds it.
    collector.subscribe("x", lambda record: heard.append(record.value))
    (caller,) = {thread for thread in threading.enumerate() if thread.name == "forebay-subscriber"} - before
    mine = collector.subscribe("x")
    collector.collect("x", 1)
    (run.finish if run else collector.stop)()
    for thread in (reader, caller):
        thread.join(60)
        assert not thread.is_alive()
    assert heard == read == [record.value for record in mine] == [1]
    late = collector.subscribe()
    assert list(late) == []
    assert late.receive(60) is None


def test_what_has_a_shape_and_is_no_tensor_is_its_text(tmp_path):
    class Space:
        """A space of Gymnasium."""

        dtype = np.dtype("f4")

        def __init__(self, shape):
            self.shape = shape

        def __repr__(self):
            return f"Space({self.shape})"

    given = {
        "seconds": np.datetime64("2026-11-30T12:30:01"),
        "nanoseconds": np.datetime64("2026-11-30T12:30:01", "ns"),
        "span": np.timedelta64(5, "ns"),
        "bytes": np.bytes_(b"1.5"),
        "complex": np.complex64(1 + 2j),
        "array": np.array([1 + 2j]),
        "box": Space((4,)),
        "discrete": Space(()),
        "dict": Space(None),
        "number": np.float32(0.5),
    }
    with forebay.init(tmp_path, config=given) as run:
        run.log(given)
    expected = {name: str(value) for name, value in given.items()} | {"number": 0.5}
    found = {record.name: record.value for record in forebay.read(run.folder)}
    assert found["training.started"]["config"] == expected
    assert {name: found[name] for name in given} == expected
    with pytest.raises(TypeError, match="values must be real numbers, got complex128"):
        forebay.init(tmp_path, config={"x": np.array([1 + 2j, 3])})


def test_runs_are_found_at_any_depth(tmp_path):
    made = [forebay.init(tmp_path / name) for name in (".", "digits/version_0", "digits/a/b/c")]
    for run in made:
        run.finish()
    (tmp_path / "digits" / "text.txt").write_text("")
    # What lies below a run is a part of it.
    inner = forebay.init(made[0].folder / "part")
    inner.finish()
    # Links that lead back, or to what is found without them, count for nothing.
    (tmp_path / "digits" / "back").symlink_to(tmp_path)
    (tmp_path / "latest").symlink_to(made[2].folder)
    assert [info.folder for info in forebay.runs(tmp_path)] == [run.folder for run in made]
    (tmp_path / "elsewhere").mkdir()
    for name in ("a", "b"):
        (tmp_path / "elsewhere" / name).symlink_to(tmp_path / "digits")
    linked = [tmp_path / "elsewhere" / "a" / run.folder.relative_to(tmp_path / "digits") for run in made[1:]]
    assert [info.folder for info in forebay.runs(tmp_path / "elsewhere")] == linked
    assert [info.folder for info in forebay.runs(made[1].folder)] == [made[1].folder]
    assert forebay.runs(tmp_path / "none") == []


REFUSED_THREAD = """
import resource, sys
import forebay

with open("/proc/self/statm") as sizes:
    used = int(sizes.read().split()[0]) * resource.getpagesize()
# There is no room for the stack of the worker, and some for all else.
resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20),) * 2)
for begin in (lambda **settings: forebay.init(sys.argv[1], **settings), forebay.Collector):
    try:
        begin(thread_stack_size=1 << 30)
    except OSError as error:
        print(error)
"""


def test_a_thread_that_the_system_refuses_is_an_error_of_the_system(tmp_path):
    lines = run_script(REFUSED_THREAD, tmp_path).stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["cannot create the worker thread"] * 2
    assert list(tmp_path.iterdir()) == []
