"""`forebay.integrations.logging`: log records as events, which never end or stop a training."""

import logging
import subprocess
import sys
import threading

import pytest
from support import law, law_of_run

import forebay
from forebay import Collector, sinks
from forebay.integrations.logging import ForebayHandler


@pytest.fixture
def logger():
    # Below no other one, whose handlers would write down what is wrong on purpose.
    return logging.Logger("the.tests", logging.DEBUG)


def collected(collector, path, offered):
    """What a collector has written."""
    law(collector.stop(), offered)
    return list(forebay.read(path))


def test_a_record_is_an_event_with_its_fields(logger, tmp_path):
    path = tmp_path / "events.jsonl"
    collector = Collector([sinks.JsonLines(path)])
    logger.addHandler(ForebayHandler(collector))
    logger.debug("small")
    logger.info("the loss is %.1f", 0.5, extra={"step": 7, "loss": 0.5, "note": "x", "where": tmp_path})
    try:
        raise ValueError("no data")
    except ValueError:
        logger.exception("it failed")
    logger.critical("the end")
    found = {record.name: record for record in collected(collector, path, 4)}
    debug, info, error, critical = (found[f"log.{level}"] for level in ("debug", "info", "error", "critical"))
    assert (debug.name, debug.priority) == ("log.debug", "low")
    assert (info.name, info.priority, info.step) == ("log.info", "normal", 7)
    logged = {name: info.value[name] for name in ("message", "logger", "file", "loss", "note", "where")}
    assert logged == {
        "message": "the loss is 0.5", "logger": "the.tests", "file": __file__, "loss": 0.5, "note": "x", "where": str(tmp_path),
    }  # fmt: skip
    assert "step" not in info.value
    assert (error.name, error.value["exception"]) == ("log.error", "ValueError")
    assert "Traceback" in error.value["traceback"]
    assert "no data" in error.value["traceback"]
    assert (critical.name, critical.priority) == ("log.critical", "critical")


def test_a_level_and_a_filter_leave_records_out(logger):
    collector = Collector()
    handler = ForebayHandler(collector, logging.ERROR)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.addHandler(handler)
    for level, message in ((logging.INFO, "x"), (logging.ERROR, "secret"), (logging.ERROR, "x")):
        logger.log(level, message)
    assert "ERROR" in repr(handler)
    law(collector.stop(), 1)


def test_a_record_has_a_bounded_size(logger, tmp_path):
    path = tmp_path / "events.jsonl"
    collector = Collector([sinks.JsonLines(path)])
    logger.addHandler(ForebayHandler(collector))
    logger.info("m" * 1_000_000, extra={f"x{number}": "y" * 100_000 for number in range(100)})

    def deep(number):
        if number:
            deep(number - 1)
        raise ValueError("z" * 1_000_000)

    try:
        deep(50)
    except ValueError:
        logger.exception("x")
    first, second = collected(collector, path, 2)
    assert len(first.value["message"]) == 8192
    assert [name for name in first.value if name.startswith("x")] == [f"x{number}" for number in range(32)]
    assert first.value["left_out"] == 68
    assert {len(first.value[f"x{number}"]) for number in range(32)} == {1024}
    assert len(second.value["traceback"]) == 32_768


def test_what_forebay_says_itself_makes_no_event():
    collector = Collector()
    handler = ForebayHandler(collector)
    root = logging.getLogger()
    root.addHandler(handler)
    said = logging.getLogger("forebay")
    try:
        # An event that makes forebay say something, which would be an event, and so on.
        done = threading.Event()
        collector.subscribe("log.*", lambda record: (done.set(), said.error("within")))
        logging.getLogger("app").error("once")
        collector.flush()
        assert done.wait(60)
        said.error("from outside")
        logging.getLogger("forebay.part").error("from outside")
    finally:
        root.removeHandler(handler)
    law(collector.stop(), 1)
    assert handler.ignored == 0


def test_what_a_record_logs_in_turn_makes_no_event(logger, tmp_path):
    class Talkative:
        def __str__(self):
            logger.warning("somebody asks for my name: %s", self)
            return "talkative"

    path = tmp_path / "events.jsonl"
    collector = Collector([sinks.JsonLines(path)])
    handler = ForebayHandler(collector)
    logger.addHandler(handler)
    logger.warning("%s", Talkative(), extra={"who": Talkative()})
    (record,) = collected(collector, path, 1)
    assert (record.value["message"], record.value["who"]) == ("talkative", "talkative")
    # Some versions of Python themselves leave out what is logged while a record is handled.
    assert handler.ignored == (0 if hasattr(logging.Logger, "_is_disabled") else 2)


def test_nothing_that_is_wrong_with_a_record_is_raised(logger, tmp_path, capsys):
    class Broken:
        def __str__(self):
            raise ValueError("no words")

        @property
        def shape(self):
            raise ValueError("no shape")

    path = tmp_path / "events.jsonl"
    collector = Collector([sinks.JsonLines(path)])
    handler = ForebayHandler(collector)
    logger.addHandler(handler)
    logger.info("%d %d", 1)
    logger.info("%s", Broken())
    logger.info("x", extra={"step": "seven", "large": 2**80, "none": None, "endless": [1]})
    logger.info("x", extra={"broken": Broken()})
    logger.handle(logging.makeLogRecord({"levelno": logging.INFO, "levelname": None, "msg": "x"}))
    handler.addFilter(lambda record: 1 / 0)
    logger.info("x")
    first, second, third = collected(collector, path, 3)
    assert "not enough arguments" in first.value["message"]
    assert second.value["message"] == "<ValueError: no words>"
    assert (third.step, third.value["step"], third.value["large"], third.value["none"]) == (None, "seven", str(2**80), None)
    assert handler.ignored == 3
    assert capsys.readouterr().err == ""


def test_a_tensor_is_told_by_its_shape(logger, tmp_path):
    np = pytest.importorskip("numpy")
    path = tmp_path / "events.jsonl"
    collector = Collector([sinks.JsonLines(path)])
    logger.addHandler(ForebayHandler(collector))
    logger.info("x", extra={"weights": np.zeros((1000, 1000))})
    (record,) = collected(collector, path, 1)
    assert record.value["weights"] == "<ndarray of the shape (1000, 1000)>"


def test_a_full_queue_never_makes_it_wait(logger):
    # A collector that would wait a minute for a place, and delivers nothing by itself.
    settings = {
        "flush": {"strategy": "manual"}, "overflow": "block", "overflow_timeout": "1m", "critical_timeout": "1m", "capacity": 10, "critical_capacity": 10,
    }  # fmt: skip
    collector = Collector(**settings)
    handler = ForebayHandler(collector)
    logger.addHandler(handler)
    done = threading.Event()

    def fill():
        for _ in range(15):
            logger.critical("x")
            logger.info("x")
        done.set()

    threading.Thread(target=fill, daemon=True).start()
    assert done.wait(30)
    assert collector.stats().stats["rejected"]["full"] == 10
    law(collector.stop(), 30)


def test_the_run_that_goes_on_is_the_target_where_none_is_given(logger, tmp_path):
    handler = ForebayHandler()
    logger.addHandler(handler)
    logger.info("before")
    with forebay.init(tmp_path) as run:
        logger.info("within")
        run.log({"loss": 0.5}, step=0)
    logger.info("after")
    assert handler.ignored == 2
    assert [record.name for record in forebay.read(run.folder)][1:-1] == ["log.info", "loss"]
    law_of_run(run, 4)
    with pytest.raises(TypeError, match="target must be a Run or a Collector, got 5"):
        ForebayHandler(5)


def test_a_program_that_logs_to_its_end_ends(tmp_path):
    script = """
import atexit, logging, os, sys, forebay
from forebay.integrations.logging import ForebayHandler
run = forebay.init(sys.argv[1])
logging.basicConfig(handlers=[ForebayHandler(run)], level="INFO")
atexit.register(logging.info, "at the end")
if os.fork() == 0:
    logging.info("child")
    sys.exit(0)
os.wait()
class Late:
    def __del__(self):
        logging.info("in the end")
late = sys.modules["late"] = Late()
logging.info("x")
"""
    # From Python 3.12 on, `os.fork` warns where there are threads.
    command = [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    (info,) = forebay.runs(tmp_path)
    said = [record.value["message"] for record in forebay.read(info.folder, "log.*")]
    assert said == ["x", "at the end"]


def test_records_that_become_no_event_are_counted_under_the_lock(logger):
    class Handler(ForebayHandler):
        """One that notes whether it holds its lock where it counts."""

        counts = ()

        @property
        def ignored(self):
            return len(self.counts) - 1

        @ignored.setter
        def ignored(self, count):
            self.counts = (*self.counts, self.lock._is_owned())
            assert self.ignored == count

    handler = Handler()
    logger.addHandler(handler)
    logger.info("without a run")
    handler.addFilter(lambda record: record.nothing)
    logger.info("a filter that raises")
    # The first is where it is made, and nobody else has it.
    assert handler.counts == (False, True, True)
