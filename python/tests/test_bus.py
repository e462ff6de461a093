"""The event bus: emission, subscriptions, filters, errors, bounds."""

import enum
import json
import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import forebay
import numpy as np
import pytest
from bus_support import bus, law, until, watchdog  # noqa: F401
from forebay.bus import Event, EventBus, EventFilter, EventQuery, EventSubscriber, _calls, correlate, create_default_event_bus, events, on


def names(found):
    return [event.name for event in found]


def test_the_names_of_the_package_are_those_of_the_bus():
    assert forebay.EventBus is EventBus
    assert forebay.bus.Event is forebay.Event is Event
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        forebay.nothing  # noqa: B018


def test_a_handler_gets_what_was_emitted(bus):
    got = []
    bus.subscribe_sync("training.*", got.append)
    before = datetime.now(UTC)
    emission = bus.emit_sync(
        "training.epoch_completed",
        {"epoch": 5, "val_loss": 0.15, "ok": True, "none": None, "text": "x", "list": [1, "b"], "dict": {"a": {"b": 1.5}}},
        correlation_id="run-7",
        source="trainer",
        metadata={"rank": 0},
    )
    (event,) = got
    assert (emission.outcome, emission.done, emission.handled, emission.failed, emission.lost) == ("queued", True, 1, 0, 0)
    assert event.name == "training.epoch_completed"
    assert event.data == {
        "epoch": 5, "val_loss": 0.15, "ok": True, "none": None, "text": "x", "list": [1, "b"], "dict": {"a": {"b": 1.5}},
    }
    assert event.data["ok"] is True
    assert (event.source, event.correlation_id, event.metadata, event.priority) == ("trainer", "run-7", {"rank": 0}, "normal")
    assert event.id == emission.id
    assert event.timestamp.tzinfo is UTC
    assert before - timedelta(milliseconds=1) <= event.timestamp <= datetime.now(UTC)


def test_an_event_has_defaults(bus):
    got = []
    bus.subscribe("a.b", got.append)
    bus.emit_sync("a.b")
    (event,) = got
    assert (event.data, event.source, event.correlation_id, event.metadata) == ({}, "", None, {})


def test_an_event_cannot_be_changed_and_its_data_is_of_one_handler(bus):
    got = []

    def spoil(event):
        event.data["list"].append(2)
        got.append(event)

    bus.subscribe("a", spoil)
    bus.subscribe("a", spoil)
    bus.emit_sync("a", {"list": [1]})
    assert [event.data for event in got] == [{"list": [1, 2]}] * 2
    with pytest.raises(AttributeError):
        got[0].name = "b"


def test_what_was_emitted_does_not_change_with_its_data(bus):
    data = {"list": [1]}
    bus.emit("a", data)
    data["list"].append(2)
    assert [event.data for event in bus.query()] == [{"list": [1]}]


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("training.started", {"training.started"}),
        ("training.*", {"training.started", "training.epoch.failed"}),
        ("model.checkpoint_*", {"model.checkpoint_saved"}),
        ("*.failed", {"training.epoch.failed", "plugin.failed"}),
        (["model.*", "plugin.*"], {"model.checkpoint_saved", "plugin.failed"}),
        ("*", {"training.started", "training.epoch.failed", "model.checkpoint_saved", "plugin.failed"}),
    ],
)
def test_a_pattern_selects_names(bus, pattern, matching):
    got = []
    bus.subscribe(pattern, got.append)
    for name in ("training.started", "training.epoch.failed", "model.checkpoint_saved", "plugin.failed"):
        bus.emit(name)
    assert bus.flush()
    assert set(names(got)) == matching and len(got) == len(matching)


class Color(enum.Enum):
    RED = "red"


@dataclass
class Config:
    rate: float
    folder: Path


def test_objects_of_libraries_become_what_an_event_can_keep(bus):
    got = []
    bus.subscribe("a", got.append)
    data = {
        "f32": np.float32(0.5), "f64": np.float64(0.25), "i64": np.int64(3), "bool": np.bool_(True), "0d": np.array(2.5),
        "path": Path("a/b"), "enum": Color.RED, "time": datetime(2026, 1, 2, tzinfo=UTC), "span": timedelta(seconds=2),
        "set": {1}, "shape": (32, 128), "config": Config(0.1, Path("runs")),
    }
    bus.emit_sync("a", data)
    assert got[0].data == {
        "f32": 0.5, "f64": 0.25, "i64": 3, "bool": True, "0d": 2.5, "path": "a/b", "enum": "red", "time": "2026-01-02T00:00:00+00:00",
        "span": 2.0, "set": [1], "shape": [32, 128], "config": {"rate": 0.1, "folder": "runs"},
    }
    assert {key: type(value) for key, value in got[0].data.items() if key in ("f32", "i64", "bool")} == {"f32": float, "i64": int, "bool": bool}


def cyclic():
    values = []
    values.append(values)
    return values


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"a": {"b": [1, object()]}}, TypeError, r'^data\["a"\]\["b"\]\[1\] must be a number, .*, got object$'),
        ({"a": np.zeros(3)}, TypeError, r'^data\["a"\] must be .*, got numpy.ndarray$'),
        ({"a": b"x"}, TypeError, r'^data\["a"\] must be .*, got bytes$'),
        ({1: 2}, TypeError, r"^the keys of data must be str, got 1$"),
        ({"a": 2**63}, ValueError, r'^data\["a"\] must be in -2\*\*63..=2\*\*63-1, got 9223372036854775808$'),
        ({"a": cyclic()}, ValueError, r"^lists and dicts must be nested at most 100 deep"),
        ([1], TypeError, r"^data must be a dict, got list$"),
        ("text", TypeError, r"^data must be a dict, got str$"),
    ],
)
def test_what_an_event_cannot_keep_is_refused_by_name(bus, data, error, message):
    with pytest.raises(error, match=message):
        bus.emit("a", data)
    with pytest.raises(error, match=message.replace("data", "metadata")):
        bus.emit("a", metadata=data)


def test_wrong_arguments_are_refused(bus):
    for name in ("", "a b", "a..b", "ä", "x" * 201):
        with pytest.raises(ValueError, match="invalid name"):
            bus.emit(name)
    with pytest.raises(ValueError, match="priority must be 'critical', 'normal' or 'low', got 'high'"):
        bus.emit("a", priority="high")
    with pytest.raises(TypeError, match="handler must be callable, got int"):
        bus.subscribe("a", 1)
    with pytest.raises(ValueError, match="topics"):
        bus.subscribe("a b", print)
    with pytest.raises(ValueError):
        bus.subscribe("a[", print)
    with pytest.raises(ValueError, match="max_batch must be at least 1, got 0"):
        bus.subscribe("a", print, max_batch=0)
    with pytest.raises(TypeError, match="event_filter must be"):
        bus.add_filter(1)
    with pytest.raises(ValueError, match="capacity"):
        EventBus(buffer_size=0)
    with pytest.raises(ValueError, match="workers must be at least 1, got 0"):
        EventBus(workers=0)
    with pytest.raises(ValueError, match="timeout must be at least 0, got nan"):
        EventBus(timeout=float("nan"))
    with pytest.raises(TypeError, match="cannot be pickled"):
        __import__("pickle").dumps(bus)
    assert bus.metrics().misnamed == 5


def test_no_more_subscribers_than_allowed():
    with EventBus(max_subscribers=1) as bus:
        bus.subscribe("a", print)
        with pytest.raises(RuntimeError, match="maximum of 1 subscriptions"):
            bus.subscribe("a", print)
        assert len(bus.metrics().handlers) == 1
    with pytest.raises(RuntimeError, match="the bus is stopped"):
        bus.subscribe("a", print)


def test_an_unsubscribed_handler_gets_nothing_more(bus):
    got = []
    subscription = bus.subscribe("a", got.append)
    assert isinstance(subscription, str)
    bus.emit_sync("a")
    assert bus.unsubscribe(subscription)
    assert not bus.unsubscribe(subscription)
    assert not bus.unsubscribe("unknown")
    bus.emit_sync("a")
    assert len(got) == 1
    assert (bus.metrics().gone.matched, bus.metrics().gone.handled) == (1, 1)


def test_what_waits_for_an_unsubscribed_handler_is_cancelled(bus):
    begun, go, got = threading.Event(), threading.Event(), []

    def slow(event):
        begun.set()
        go.wait()
        got.append(event)

    subscription = bus.subscribe("a", slow)
    first = bus.emit("a")
    begun.wait()
    second = bus.emit("a")
    until(lambda: bus.metrics().handlers[0].matched >= 2)
    assert bus.unsubscribe(subscription)
    assert second.wait()
    assert (second.handled, second.lost) == (0, 1)
    assert not first.done
    assert not bus.flush(0.01)
    go.set()
    assert first.wait()
    gone = bus.metrics().gone
    assert (len(got), gone.matched, gone.handled, gone.cancelled, gone.in_flight) == (1, 2, 1, 1, 0)


def test_a_handler_that_is_unsubscribed_just_before_its_call_is_not_called(bus, monkeypatch):
    got = []
    subscription = bus.subscribe("a", got.append)
    enter = _calls._enter

    def late(call):
        entered = enter(call)
        assert bus.unsubscribe(subscription)
        return entered

    monkeypatch.setattr(_calls, "_enter", late)
    emission = bus.emit_sync("a")
    assert (got, emission.done, emission.lost) == ([], True, 1)


def test_a_flush_after_an_unsubscribe_waits_for_the_call_that_runs(bus):
    begun, go = threading.Event(), threading.Event()

    def handler(event):
        begun.set()
        go.wait()

    subscription = bus.subscribe("a", handler)
    bus.emit("a")
    begun.wait()
    assert bus.unsubscribe(subscription)
    assert not bus.flush(0.05)
    go.set()
    assert bus.flush()


def test_a_handler_may_unsubscribe_itself(bus):
    got = []

    def once(event):
        got.append(event)
        assert bus.unsubscribe(subscription)

    subscription = bus.subscribe("a", once)
    bus.emit_sync("a")
    bus.emit_sync("a")
    assert len(got) == 1


def test_events_come_in_order_to_each_handler(bus):
    got = [], []
    bus.subscribe("a", lambda event: got[0].append(event.data["i"]))
    bus.subscribe("*", lambda event: got[1].append(event.data["i"]))
    for i in range(500):
        bus.emit("a", {"i": i})
    assert bus.flush()
    assert got[0] == got[1] == list(range(500))


def test_an_event_has_the_priority_that_it_was_given(bus):
    got = []
    bus.subscribe("*", lambda event: got.append(event.priority))
    bus.emit_sync("a")
    bus.emit_sync("a", priority="critical")
    bus.emit_sync("a", priority="low")
    assert got == ["normal", "critical", "low"]


def test_a_handler_that_lags_loses_its_oldest_and_no_other():
    with EventBus(handler_queue=10, timeout=60) as bus:
        begun, go, slow, fast = threading.Event(), threading.Event(), [], []

        def lag(event):
            begun.set()
            go.wait()
            slow.append(event.data["i"])

        bus.subscribe("a", lag, name="slow")
        bus.subscribe("a", lambda event: fast.append(event.data["i"]), name="fast")
        emissions = [bus.emit("a", {"i": 0})]
        begun.wait()
        for i in range(1, 100):
            emissions.append(bus.emit("a", {"i": i}))
            # The other keeps up.
            until(lambda: len(fast) > i)
        lost = [emission.lost for emission in emissions]
        go.set()
        assert bus.flush()
        assert slow == [0, *range(90, 100)]
        assert fast == list(range(100))
        assert lost == [0] + [1] * 89 + [0] * 10
        slow_metrics = bus.metrics().handlers[0]
        assert (slow_metrics.name, slow_metrics.matched, slow_metrics.handled, slow_metrics.evicted) == ("slow", 100, 11, 89)
    law(bus)


def test_a_handler_that_lags_gets_critical_events_first_and_loses_none():
    with EventBus(handler_queue=3, timeout=60) as bus:
        begun, go, got = threading.Event(), threading.Event(), []

        def lag(event):
            begun.set()
            go.wait()
            got.append(event.data["i"])

        bus.subscribe("a", lag)

        def emit(i, priority):
            emission = bus.emit("a", {"i": i}, priority=priority)
            until(lambda: bus.metrics().handlers[0].matched > i)
            return emission

        emit(0, "normal")
        begun.wait()
        emissions = [emit(i, "critical" if i in (2, 4, 5, 6) else "normal") for i in range(1, 8)]
        # There is room for three. The normal ones go; then another critical one becomes a dead letter, and a normal one is evicted at once.
        assert [(emission.failed, emission.lost) for emission in emissions] == [(0, 1), (0, 0), (0, 1), (0, 0), (0, 0), (1, 0), (0, 1)]
        assert [(letter.error, letter.event.data) for letter in bus.dead_letters()] == [("its queue is full of critical events", {"i": 6})]
        assert not bus.flush(0)
        go.set()
        assert bus.flush()
        assert got == [0, 2, 4, 5]
    law(bus)


def test_a_handler_that_raises_hurts_no_other(bus, caplog):
    got = []

    def bad(event):
        raise KeyError(event.data["i"])

    bus.subscribe("a", bad, name="bad")
    bus.subscribe("a", got.append)
    with caplog.at_level(logging.ERROR, logger="forebay.bus"):
        emissions = [bus.emit_sync("a", {"i": i}) for i in range(3)]
    assert [(emission.handled, emission.failed) for emission in emissions] == [(1, 1)] * 3
    assert len(got) == 3
    (record,) = caplog.records
    assert "'bad'" in record.getMessage() and record.exc_info[0] is KeyError
    metrics = bus.metrics()
    assert (metrics.failed, metrics.dead_letters) == (3, 3)
    assert metrics.handlers[0].last_error == "KeyError: 2"
    letters = bus.dead_letters()
    assert [(it.handler, it.error, it.event.data) for it in letters] == [("bad", f"KeyError: {i}", {"i": i}) for i in range(3)]


def test_a_handler_that_raises_is_reported_by_an_event(bus):
    got = []

    def bad(event):
        raise OSError(event.name)

    # Also at reports, of which there are no reports.
    bus.subscribe("*", bad, name="loader")
    bus.subscribe(events.plugin.ERROR, got.append)
    bus.emit("a", correlation_id="run-7")
    assert bus.flush()
    assert [(event.data, event.correlation_id) for event in got] == [({"plugin_name": "loader", "error": "OSError: a"}, "run-7")]
    assert [letter.event.name for letter in bus.dead_letters()] == ["a", "plugin.error"]


def test_reports_of_errors_end_at_the_depth_of_a_chain():
    with EventBus(max_depth=6, timeout=60) as bus:

        @bus.on("a")
        def bad(event):
            raise OSError

        bus.subscribe("plugin.error", lambda event: bus.emit("a"))
        bus.emit("a")
        assert bus.flush()
        # a, its report, a, and so on.
        assert bus.metrics().total_events == 7
        assert bus.metrics().too_deep == 1
    law(bus)


def test_a_handler_may_even_exit(bus):
    def leave(event):
        raise SystemExit(1)

    got = []
    bus.subscribe("a", leave)
    bus.subscribe("a", got.append)
    bus.emit_sync("a")
    assert bus.emit_sync("a").failed == 1
    assert len(got) == 2


def test_dead_letters_are_given_again(bus):
    got, works = [], []

    def handler(event):
        if not works:
            raise OSError("not yet")
        got.append(event.data["i"])

    subscription = bus.subscribe("a", handler)
    for i in range(3):
        bus.emit_sync("a", {"i": i})
    works.append(True)
    assert bus.redrive() == 3
    assert bus.flush()
    assert (got, bus.dead_letters()) == ([0, 1, 2], [])
    works.clear()
    bus.emit_sync("a", {"i": 3})
    bus.unsubscribe(subscription)
    assert bus.redrive() == 0
    assert bus.clear_dead_letters() == 1


def test_dead_letters_are_bounded():
    with EventBus(max_dead_letters=2, timeout=60) as bus:
        bus.subscribe("a", lambda event: 1 / 0)
        for i in range(5):
            bus.emit_sync("a", {"i": i})
        assert [letter.event.data["i"] for letter in bus.dead_letters()] == [3, 4]
        assert bus.metrics().evicted_dead_letters == 3
    law(bus)


def test_a_handler_may_emit_and_nobody_waits_for_itself(bus):
    got = []

    def derive(event):
        if event.name != "training.epoch_completed":
            return
        derived = bus.emit_sync("training.new_best_model", {"loss": 0.1})
        # Itself is among its handlers.
        got.append((event.name, derived.outcome, derived.wait()))
        with pytest.raises(RuntimeError, match="in a handler"):
            bus.flush()
        with pytest.raises(RuntimeError, match="in a handler"):
            bus.stop()

    bus.subscribe("training.*", derive)
    bus.emit_sync("training.epoch_completed", correlation_id="run")
    assert bus.flush()
    assert got == [("training.epoch_completed", "queued", False)]
    assert names(bus.correlated("run")) == ["training.epoch_completed", "training.new_best_model"]
    assert bus.metrics().failed == 0


def test_a_chain_of_handlers_ends():
    with EventBus(max_depth=4, timeout=60) as bus:
        outcomes = []
        bus.subscribe("again", lambda event: outcomes.append(bus.emit("again").outcome))
        bus.emit("again")
        assert bus.flush()
        assert outcomes == ["queued"] * 4 + ["too_deep"]
        assert bus.metrics().too_deep == 1
    law(bus)


def test_filters_let_in_what_they_say(bus):
    class Important(EventFilter):
        def should_process(self, event):
            return event.data.get("important", False)

    got = []
    bus.subscribe("test.*", got.append)
    important = Important()
    bus.add_filter(important)
    assert bus.emit_sync("test.filtered", {"important": False}).outcome == "filtered"
    assert bus.emit_sync("test.important", {"important": True}).outcome == "queued"
    assert names(got) == ["test.important"]
    assert bus.metrics().filtered == 1
    assert bus.remove_filter(important)
    assert not bus.remove_filter(important)

    def lets_in(event):
        return event.name != "test.b"

    bus.add_filter(lets_in)
    assert [bus.emit(name).outcome for name in ("test.a", "test.b")] == ["queued", "filtered"]
    assert bus.remove_filter(lets_in)
    assert bus.emit("test.b").outcome == "queued"


def test_filters_are_there(bus):
    def lets_in(event_filter, name="a.b", data=None, priority="normal"):
        return event_filter.should_process(Event(name, data or {}, priority=priority))

    assert [lets_in(EventFilter.allow("a.*", "c"), name) for name in ("a.b", "c", "d")] == [True, True, False]
    assert [lets_in(EventFilter.deny("a.*"), name) for name in ("a.b", "c")] == [False, True]
    assert [lets_in(EventFilter.min_priority("normal"), priority=it) for it in ("critical", "normal", "low")] == [True, True, False]
    assert [lets_in(EventFilter.data("x"), data=data) for data in ({}, {"x": 0}, {"x": 1})] == [False, False, True]
    assert lets_in(EventFilter.data("x", lambda x: x is None))
    with pytest.raises(ValueError, match="lowest must be"):
        EventFilter.min_priority("high")
    with pytest.raises(ValueError):
        EventFilter.allow("a[")


def test_a_filter_that_raises_lets_events_in(bus, caplog):
    bus.add_filter(lambda event: 1 / 0)
    with caplog.at_level(logging.ERROR, logger="forebay.bus"):
        assert [bus.emit("a").outcome for _ in range(3)] == ["queued"] * 3
    assert len(caplog.records) == 1


def test_a_handler_may_take_batches(bus):
    begun, go, got = threading.Event(), threading.Event(), []

    def handler(batch):
        begun.set()
        go.wait()
        got.append([event.data["i"] for event in batch])

    bus.subscribe("a", handler, max_batch=4)
    bus.emit("a", {"i": 0})
    begun.wait()
    for i in range(1, 7):
        bus.emit("a", {"i": i})
    until(lambda: bus.metrics().handlers[0].matched >= 7)
    go.set()
    assert bus.flush()
    assert got == [[0], [1, 2, 3, 4], [5, 6]]


def test_an_event_that_is_too_large_is_not_taken(bus):
    assert bus.emit("a", {"text": "x" * 100_000}).outcome == "oversize"
    assert bus.emit("a", {"text": "x" * 60_000}).outcome == "queued"
    assert bus.metrics().oversize == 1


def test_a_correlation_is_found(bus):
    with correlate("run-7"):
        bus.emit("training.started")
        bus.emit("training.other", correlation_id="mine")
        with correlate("inner"):
            bus.emit("training.inner")
        bus.emit("training.epoch_started")
    bus.emit("training.started")
    assert names(bus.correlated("run-7")) == ["training.started", "training.epoch_started"]
    assert names(bus.correlated("inner")) == ["training.inner"]
    assert bus.correlated("unknown") == []


@pytest.mark.parametrize("persistent", [False, True])
def test_queries_find_events(tmp_path, persistent):
    path = tmp_path / "training_events.jsonl"
    with EventBus(enable_persistence=persistent, persistence_path=path, max_file_size_mb=100, timeout=60) as bus:
        begin = datetime.now(UTC)
        for epoch in range(10):
            bus.emit("training.epoch_completed", {"epoch": epoch, "loss": 1 / (epoch + 1), "deep": {"none": None}}, source="trainer")
        bus.emit("system.memory_usage", {"used_mb": 3.5})
        found = bus.query(EventQuery().event_name_pattern("training.*").data_contains({"epoch": 5}))
        assert [(event.name, event.data, event.source) for event in found] == [
            ("training.epoch_completed", {"epoch": 5, "loss": 1 / 6, "deep": {"none": None}}, "trainer")
        ]
        assert found[0].timestamp >= begin
        assert found[0].id.endswith(":6")
        assert len(bus.query()) == 11
        local = datetime.now() - timedelta(hours=1)
        assert len(bus.query(EventQuery().time_range(start=local))) == 11
        assert bus.query(EventQuery().time_range(end=local)) == []
        assert len(bus.query(EventQuery().source("trainer").limit(3))) == 3
        assert bus.query(EventQuery().newest_first())[0].name == "system.memory_usage"
        assert bus.query(EventQuery().data_contains({"epoch": 5}).data_contains({"epoch": 6})) == bus.query(
            EventQuery().data_contains({"epoch": 6})
        )
        assert path.exists() == persistent
    law(bus)
    if persistent:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["name"] for line in lines] == ["training.epoch_completed"] * 10 + ["system.memory_usage"]
        # A bus that comes later goes on with the file.
        with EventBus(enable_persistence=True, persistence_path=path) as bus:
            assert len(bus.query()) == 11


def test_files_are_closed_at_their_size(tmp_path):
    with EventBus(enable_persistence=True, persistence_path=tmp_path / "events.log", max_file_size_mb=0.01, timeout=60) as bus:
        for i in range(300):
            bus.emit("a", {"i": i, "text": "x" * 100})
            # A file is closed between two deliveries, each of which is larger than it may be.
            if i % 100 == 99:
                assert bus.flush()
        assert [event.data["i"] for event in bus.query()] == list(range(300))
        assert len(list(tmp_path.iterdir())) >= 3
    law(bus)


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        EventBus(enable_persistence=True, persistence_path=tmp_path / "file" / "events.log")


def test_metrics_tell_how_the_bus_does(bus):
    bus.subscribe("a", lambda event: None, name="handler")
    for _ in range(5):
        bus.emit_sync("a")
    metrics = bus.metrics()
    assert (metrics.total_events, metrics.emitted) == (5, 5)
    assert metrics.events_per_second > 0
    assert 0 < metrics.avg_processing_time_ms
    assert metrics.p50_processing_time_ms <= metrics.p95_processing_time_ms <= metrics.p99_processing_time_ms
    (handler,) = metrics.handlers
    assert (handler.name, handler.matched, handler.handled, handler.in_flight) == ("handler", 5, 5, 0)


def test_emission_waits_for_a_time_at_most():
    with EventBus(timeout=0.01) as bus:
        go = threading.Event()
        bus.subscribe("a", lambda event: go.wait())
        emission = bus.emit_sync("a")
        assert not emission.done
        assert "on its way" in repr(emission)
        assert not bus.flush()
        go.set()
        assert emission.wait(60)
        assert bus.stop(60)
    law(bus)


def test_a_stop_cancels_what_is_not_handled_in_time():
    bus = EventBus()
    begun, go = threading.Event(), threading.Event()

    def handler(event):
        begun.set()
        go.wait()

    bus.subscribe("a", handler)
    first, second = bus.emit("a"), bus.emit("a")
    begun.wait()
    assert not bus.stop(0.05)
    assert (second.done, second.lost) == (True, 1)
    assert bus.emit("a").outcome == "stopped"
    assert repr(bus) == "<EventBus, stopped, 1 handlers>"
    go.set()
    assert first.wait(60)
    assert bus.stop(60)
    law(bus)


def test_a_stop_handles_what_was_emitted():
    got = []
    bus = EventBus()
    bus.subscribe("a", got.append)
    for _ in range(100):
        bus.emit("a")
    assert bus.stop(60)
    assert len(got) == 100
    law(bus)
    assert bus.stop()


def test_a_bus_that_nobody_holds_ends_with_its_threads():
    import gc
    import weakref

    class Monitor:
        def __init__(self):
            self.bus = EventBus()
            # A cycle, as in every program.
            self.bus.subscribe("a", self.handle)
            self.bus.emit_sync("a")

        def handle(self, event):
            pass

    monitor = Monitor()
    threads = list(monitor.bus._calls._makers)
    gone = weakref.ref(monitor.bus)
    del monitor
    # The thread may be at the end of its call.
    while gone() is not None:
        gc.collect()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_handlers_run_beside_one_another(bus):
    barrier = threading.Barrier(3)
    for _ in range(2):
        bus.subscribe("a", lambda event: barrier.wait(60))
    emission = bus.emit("a")
    barrier.wait(60)
    assert emission.wait()


def test_threads_may_emit_subscribe_and_unsubscribe_at_once(bus):
    counts = []

    def work():
        got = []
        for _ in range(20):
            subscription = bus.subscribe("a.*", got.append)
            bus.emit_sync("a.b")
            bus.unsubscribe(subscription)
        counts.append(len(got))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 4 and all(count >= 20 for count in counts)
    assert bus.flush()
    assert bus.metrics().total_events == 80


def test_a_subscriber_has_several_handlers(bus):
    class Monitor(EventSubscriber):
        topics = ("model.*",)

        def __init__(self):
            self.got = []

        def on_event(self, event):
            self.got.append(("model", event.name))

        @on("training.started", "training.completed")
        def run(self, event):
            self.got.append(("run", event.name))

        @on("*.failed", name="failures")
        async def failed(self, event):
            self.got.append(("failed", event.name))

    monitor = Monitor()
    assert len(bus.add_subscriber(monitor)) == 3
    for name in ("model.a", "training.started", "training.failed", "other"):
        bus.emit_sync(name)
    assert monitor.got == [("model", "model.a"), ("run", "training.started"), ("failed", "training.failed")]
    assert "failures" in [handler.name for handler in bus.metrics().handlers]
    assert monitor.detach() == 3
    bus.emit_sync("model.b")
    assert len(monitor.got) == 3


def test_standard_events_have_names_data_and_priorities(bus):
    got = []
    bus.subscribe(events.training.STARTED, got.append)
    bus.subscribe(events.plugin.MESSAGE, got.append)
    bus.emit_sync(events.training.started("run-7", config={"lr": 0.1}, seed=3))
    bus.emit_sync(events.plugin.message("a", "b", {"x": 1}))
    assert [(event.name, event.data, event.priority) for event in got] == [
        ("training.started", {"run_id": "run-7", "config": {"lr": 0.1}, "seed": 3}, "critical"),
        ("plugin.message", {"from": "a", "to": "b", "message": {"x": 1}}, "normal"),
    ]


CATALOGUE = {
    "training.started": "config run_id model_type",
    "training.epoch_started": "epoch total_epochs",
    "training.batch_completed": "batch loss metrics",
    "training.epoch_completed": "epoch metrics duration",
    "training.completed": "final_metrics total_duration",
    "training.failed": "error traceback epoch",
    "training.new_best_model": "epoch loss",
    "training.early_stopped": "epoch reason",
    "model.forward_pass": "input_shape output_shape",
    "model.backward_pass": "gradients loss",
    "model.checkpoint_saved": "path epoch metrics size_mb",
    "model.checkpoint_loaded": "path restored_epoch",
    "data.batch_loaded": "batch_size load_time sequence_length memory_usage",
    "data.preprocessing_started": "dataset_size",
    "data.preprocessing_completed": "processed_samples duration",
    "data.cache_hit": "cache_key size_mb",
    "data.cache_miss": "cache_key reason",
    "data.validation_started": "validation_type",
    "data.validation_completed": "passed issues",
    "data.schema_mismatch": "expected actual",
    "data.performance_warning": "component metric value threshold",
    "plugin.loaded": "plugin_name version",
    "plugin.initialized": "plugin_name config",
    "plugin.activated": "plugin_name version capabilities",
    "plugin.deactivated": "plugin_name",
    "plugin.error": "plugin_name error",
    "plugin.message": "from to message",
    "plugin.state_changed": "plugin_name old_state new_state",
    "system.memory_usage": "used_mb available_mb percentage",
    "system.gpu_usage": "utilization memory_used temperature",
    "system.disk_usage": "used_gb available_gb",
    "system.performance_warning": "component metric value threshold",
    "system.bottleneck_detected": "component description suggestions",
    "system.error_threshold_exceeded": "error_count threshold component",
    "metrics.aggregated": "training_events_count system_events_count events_per_second timestamp",
}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_standard_event_has_its_fields(name):
    group, _, what = name.partition(".")
    fields = CATALOGUE[name].split()
    arguments = {"sender" if field == "from" else field: number for number, field in enumerate(fields)}
    event = getattr(getattr(events, group), what)(**arguments, more=7)
    assert (event.name, event.data) == (name, {**{field: number for number, field in enumerate(fields)}, "more": 7})


def test_every_standard_event_has_its_constant():
    for group in (events.training, events.model, events.data, events.plugin, events.system, events.metrics):
        functions = {name for name, value in vars(group).items() if isinstance(value, staticmethod)}
        constants = {name: value for name, value in vars(group).items() if name.isupper()}
        assert {name.upper() for name in functions} == set(constants)
        assert set(constants.values()) == {f"{group.__name__}.{name}" for name in functions}


def test_the_default_bus_takes_settings():
    with create_default_event_bus(source="here") as bus:
        got = []
        bus.subscribe("a", got.append)
        bus.emit_sync("a")
        bus.emit_sync("a", source="there")
        assert [event.source for event in got] == ["here", "there"]
        assert bus.enabled("a")
    assert not bus.enabled("a")


def test_an_error_of_any_text_is_counted_and_its_handler_goes_on(bus):
    errors = iter(["caf\udce9", "x" * 100_000, "plain"])

    def fails(event):
        raise ValueError(next(errors))

    bus.subscribe_sync("a", fails)
    for _ in range(3):
        bus.emit_sync("a")
    texts = [letter.error for letter in bus.dead_letters()]
    assert texts == ["ValueError: caf?", "ValueError: " + "x" * (4096 - 12), "ValueError: plain"]


def test_a_bus_that_is_closed_keeps_its_dead_letters():
    def fails(event):
        raise ValueError("no")

    bus = EventBus(timeout=60)
    bus.subscribe_sync("a", fails)
    bus.emit_sync("a", {"i": 1})
    assert bus.stop()
    assert bus.redrive() == 0
    assert [letter.event.data for letter in bus.dead_letters()] == [{"i": 1}]
    law(bus)


def test_data_may_change_while_it_is_read(bus):
    data = {}

    class Changes:
        def __fspath__(self):
            data[f"another {len(data)}"] = 1
            return "path"

    data["a"] = Changes()
    got = []
    bus.subscribe_sync("a", got.append)
    bus.emit_sync("a", data)
    assert [event.data["a"] for event in got] == ["path"]


def test_a_filter_that_is_taken_out_meanwhile_has_no_other_passed_over(bus):
    def leaves(event):
        assert bus.remove_filter(leaves)
        return True

    bus.add_filter(leaves)
    bus.add_filter(EventFilter.deny("secret.*"))
    assert [bus.emit("secret.a").outcome for _ in range(2)] == ["filtered"] * 2


def test_times_of_numpy_are_texts_and_seconds(bus):
    class Place(enum.Enum):
        HERE = Path("here")

    got = []
    bus.subscribe("a", got.append)
    data = {f"us_{unit}": np.datetime64("2026-11-30T12:30:01", unit) for unit in ("s", "ms", "us", "ns")}
    data |= {"day": np.datetime64("2026-11-30"), "none": np.datetime64("NaT"), "span": np.timedelta64(1_500_000_000, "ns"), "place": Place.HERE}
    bus.emit_sync("a", data)
    times = dict.fromkeys((name for name in data if name.startswith("us_")), "2026-11-30T12:30:01")
    assert got[0].data == times | {"day": "2026-11-30T00:00:00", "none": None, "span": 1.5, "place": "here"}


def test_negative_numbers_are_named():
    for name in ("buffer_size", "max_subscribers", "max_event_bytes", "max_depth", "max_dead_letters"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0, got -1"):
            EventBus(**{name: -1})
    with pytest.raises(ValueError, match=r"events must be from 0 to 2\*\*63 - 1, got -1"):
        EventQuery().limit(-1)
    with pytest.raises(TypeError, match="events must be a whole number, got '1'"):
        EventQuery().limit("1")


def test_dead_letters_own_50_mib_at_most_but_for_one():
    def fail(event):
        raise ValueError("no")

    with EventBus(timeout=60, max_event_bytes=60 << 20) as bus:
        bus.subscribe("a", fail)
        for _ in range(20):
            bus.emit_sync("a", {"text": "x" * (3 << 20)})
        metrics = bus.metrics()
        assert (metrics.dead_letters, metrics.evicted_dead_letters) == (16, 4)
        assert len(bus.dead_letters()) == 16
        # They are given again, and come back one by one.
        assert bus.redrive() == 16 and bus.flush()
        assert (bus.metrics().dead_letters, bus.metrics().evicted_dead_letters) == (16, 4)
        assert bus.clear_dead_letters() == 16
        bus.emit_sync("a", {"text": "x"})
        assert bus.metrics().dead_letters == 1
    law(bus)


def test_the_limit_of_an_event_is_none_for_critical_ones():
    with EventBus(timeout=60, max_event_bytes=1_000) as bus:
        text = {"text": "x" * 2_000}
        assert bus.emit("a", text).outcome == "oversize"
        assert bus.emit("a", text, priority="critical").outcome == "queued"
    law(bus)


def test_what_is_rejected_is_counted(bus):
    bus.emit_sync("a")
    assert bus.metrics().rejected == 0
    bus.stop()
    assert [bus.emit("a").outcome for _ in range(3)] == ["stopped"] * 3
    metrics = bus.metrics()
    assert (metrics.emitted, metrics.total_events, metrics.rejected) == (4, 1, 3)
