"""What comes with the event bus: the mock, and the monitors."""

import asyncio
import re
import threading
from unittest.mock import AsyncMock

import pytest
from bus_support import bus, law, watchdog  # noqa: F401
from forebay.bus import EventBus, events, monitor
from forebay.bus.monitor import RecentEvents, TrainingRun, timed
from forebay.bus.testing import MockEventBus


@pytest.fixture
def mock():
    with MockEventBus(timeout=60) as mock:
        yield mock
    law(mock)


def test_a_mock_remembers_what_was_emitted(mock):
    mock.emit("component.started", {"a": 1, "b": 2}, correlation_id="c")
    mock.emit_sync("component.completed", timeout=1)
    mock.emit(events.training.early_stopped(3, "patience"))
    assert mock.emitted_events == [
        {"name": "component.started", "data": {"a": 1, "b": 2}, "correlation_id": "c"},
        {"name": "component.completed", "data": {}},
        {"name": "training.early_stopped", "data": {"epoch": 3, "reason": "patience"}, "priority": "critical"},
    ]
    assert [event["name"] for event in mock.emitted("component.*")] == ["component.started", "component.completed"]


def test_the_mock_of_the_guide_works():
    class MockEventBus(EventBus):
        def __init__(self):
            super().__init__()
            self.emitted_events = []
            self.emit = AsyncMock(side_effect=self._mock_emit)

        async def _mock_emit(self, event_name, data, **kwargs):
            self.emitted_events.append({"name": event_name, "data": data, **kwargs})

    async def main():
        bus = MockEventBus()
        await bus.emit("component.started", {"a": 1}, correlation_id="c")
        await bus.emit("component.completed", {})
        assert bus.emitted_events == [
            {"name": "component.started", "data": {"a": 1}, "correlation_id": "c"},
            {"name": "component.completed", "data": {}},
        ]
        assert await bus.shutdown()
        return bus

    law(asyncio.run(main()))


def test_a_plugin_subscribes_and_unsubscribes(bus):
    class Plugin:
        def __init__(self):
            self.ids, self.epochs = [], []

        async def initialize(self):
            self.ids.append(await bus.subscribe("training.epoch_completed", self.on_epoch_completed))
            await bus.emit("plugin.activated", {"plugin_name": "Plugin", "version": "1", "capabilities": []})

        async def on_epoch_completed(self, event):
            self.epochs.append(event.data["epoch"])

        async def cleanup(self):
            for subscription in self.ids:
                assert await bus.unsubscribe(subscription)
            await bus.emit("plugin.deactivated", {"plugin_name": "Plugin"})

    async def main():
        plugin = Plugin()
        await plugin.initialize()
        await bus.emit("training.epoch_completed", {"epoch": 1})
        await plugin.cleanup()
        await bus.emit("training.epoch_completed", {"epoch": 2})
        return plugin.epochs

    lifecycle = RecentEvents(bus, "plugin.*")
    assert asyncio.run(main()) == [1]
    assert bus.flush()
    assert [event.name for event in lifecycle.events()] == ["plugin.activated", "plugin.deactivated"]


def test_a_mock_asserts(mock):
    mock.emit("component.started", {"a": 1, "b": 2})
    mock.emit("component.started", {"a": 3})
    assert len(mock.assert_emitted("component.*")) == 2
    mock.assert_emitted("component.started", {"a": 1}, times=1)
    mock.assert_emitted("*", where=lambda event: event["data"]["a"] > 2, times=1)
    mock.assert_not_emitted("component.completed")
    for arguments, options in (
        (("component.completed",), {}),
        (("component.started",), {"times": 1}),
        (("component.started", {"a": 2}), {}),
        (("component.started",), {"where": lambda event: False}),
    ):
        with pytest.raises(AssertionError, match="component.started, component.started"):
            mock.assert_emitted(*arguments, **options)
    with pytest.raises(AssertionError):
        mock.assert_not_emitted("component.*")
    mock.clear()
    mock.assert_not_emitted("*")


def test_a_mock_calls_handlers_and_refuses_what_a_bus_refuses(mock):
    got = []
    mock.subscribe("a", got.append)
    mock.emit_sync("a")
    assert len(got) == 1
    with pytest.raises(ValueError, match="invalid name"):
        mock.emit("a b")
    mock.assert_emitted("*", times=1)


def test_recent_events_are_bounded(bus):
    recent = RecentEvents(bus, "training.*", "system.*", max_events=3)
    for i in range(5):
        bus.emit_sync("training.a", {"i": i})
    bus.emit_sync("other")
    assert [event.data["i"] for event in recent.events()] == [2, 3, 4]
    assert [event.data["i"] for event in recent.events(last=2)] == [3, 4]
    assert recent.events(last=0) == []
    assert len(recent) == 3


def test_errors_are_counted_up_to_a_threshold(bus):
    exceeded = RecentEvents(bus, events.system.ERROR_THRESHOLD_EXCEEDED)
    with monitor.error_budget(bus, threshold=3):
        for _ in range(2):
            bus.emit("plugin.error", {"component": "loader"})
        bus.emit("training.started")
        assert bus.flush() and len(exceeded) == 0
        bus.emit("training.failed", {"component": "loader"})
        assert bus.flush()
    for _ in range(3):
        bus.emit("plugin.error")
    assert bus.flush()
    assert [event.data for event in exceeded.events()] == [{"error_count": 3, "threshold": 3, "component": "loader"}]
    with pytest.raises(ValueError, match="invalid threshold: 0"):
        monitor.error_budget(bus, threshold=0)


def test_a_number_above_its_threshold_is_reported(bus):
    warnings = RecentEvents(bus, events.system.PERFORMANCE_WARNING)
    monitor.threshold(bus, "data.*", "load_time", 0.5)
    for seconds in (0.1, 0.75):
        bus.emit(events.data.batch_loaded(32, seconds))
    assert bus.flush()
    assert [event.data for event in warnings.events()] == [
        {"component": "data", "metric": "load_time", "value": 0.75, "threshold": 0.5}
    ]
    with pytest.raises(ValueError):
        monitor.threshold(bus, "a[", "x", 1)


def test_rates_memory_disk_and_bottlenecks_are_watched(bus, tmp_path):
    found = {}
    came = {name: threading.Event() for name in ("metrics.aggregated", "system.memory_usage", "system.disk_usage")}

    @bus.on(*came)
    def keep(event):
        found[event.name] = event.data
        came[event.name].set()

    bus.emit("training.a")
    assert bus.flush()
    with monitor.aggregate(bus, every=0.01), monitor.memory(bus, every=0.01), monitor.disk(bus, tmp_path, every=0.01):
        bus.emit("training.b")
        for event in came.values():
            assert event.wait(60)
    assert bus.flush()
    assert {"training_events_count", "system_events_count", "events_per_second"} <= set(found["metrics.aggregated"])
    assert 0 < found["system.memory_usage"]["percentage"] < 100
    assert found["system.disk_usage"]["available_gb"] >= 0
    with monitor.bottlenecks(bus, every=3600):
        pass
    with pytest.raises(ValueError, match="invalid every: 0ns"):
        monitor.aggregate(bus, every=0)


def test_a_run_reports_its_end(mock):
    with TrainingRun(mock, "run-7", config={"lr": 0.1}) as run:
        mock.emit("training.epoch_started", {"epoch": 1})
        run.final_metrics = {"loss": 0.1}
    assert [event["name"] for event in mock.emitted_events] == ["training.started", "training.epoch_started", "training.completed"]
    mock.assert_emitted("training.started", {"run_id": "run-7", "config": {"lr": 0.1}}, times=1)
    assert mock.emitted_events[2]["data"]["final_metrics"] == {"loss": 0.1}
    assert len(mock.correlated("run-7")) == 3


def test_a_run_that_raises_reports_it_and_raises(mock):
    with pytest.raises(ZeroDivisionError), TrainingRun(mock, "run-7") as run:
        run.epoch = 3
        1 / 0  # noqa: B018
    (failed,) = mock.assert_emitted("training.failed", {"epoch": 3, "error": "ZeroDivisionError: division by zero"})
    assert "1 / 0" in failed["data"]["traceback"]
    mock.assert_not_emitted("training.completed")


def test_a_run_whose_exception_has_no_text_reports_it(mock):
    class Unsaid(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    with pytest.raises(Unsaid), TrainingRun(mock, "run-7"):
        raise Unsaid
    with pytest.raises(ValueError, match="long"), TrainingRun(mock, "run-8"):
        raise ValueError("long" * 100_000)
    unsaid, long = mock.assert_emitted("training.failed", times=2)
    assert "Unsaid" in unsaid["data"]["error"]
    # An event has room for 64 KiB.
    assert long["data"]["error"].startswith("ValueError: long") and len(long["data"]["error"]) < 5_000


def test_a_run_with_a_setting_that_no_event_can_have_does_not_begin(mock):
    with pytest.raises(TypeError), TrainingRun(mock, "run-7", config={"what": object()}):
        raise AssertionError("it has begun")
    assert mock.emit("later").outcome == "queued"
    assert mock.correlated("run-7") == []


def test_batches_are_timed(mock):
    assert list(timed(mock, [[1, 2], [3]], threshold=3600)) == [[1, 2], [3]]
    assert [event["data"]["batch_size"] for event in mock.emitted("data.batch_loaded")] == [2, 1]
    mock.assert_not_emitted("data.performance_warning")
    assert list(timed(mock, [5], threshold=-1)) == [5]
    mock.assert_emitted("data.performance_warning", {"component": "data_loader", "metric": "load_time", "threshold": -1}, times=1)


class Tensor:
    """A tensor, as far as its size is asked for. One without dimensions has no length, as in PyTorch."""

    def __init__(self, *shape):
        self.shape = shape

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (Tensor(32, 3, 8, 8), 32),
        (Tensor(), 1),
        ([Tensor(32, 3), Tensor(32)], 32),
        ((Tensor(32, 3), [1] * 32), 32),
        ({"image": Tensor(32, 3), "label": Tensor(32)}, 32),
        ({"ids": [[1, 2], [3], [4]]}, 3),
        ([Tensor(), Tensor()], 2),
        ([1, 2, 3], 3),
        (["a", "b"], 2),
        ("text", 1),
        ([], 0),
        ({}, 0),
        (7, 1),
    ],
)
def test_the_size_of_a_batch_is_its_first_dimension(mock, batch, size):
    assert list(timed(mock, [batch])) == [batch]
    mock.assert_emitted("data.batch_loaded", {"batch_size": size}, times=1)


def test_the_caller_may_say_how_large_a_batch_is(mock):
    assert list(timed(mock, [{"texts": "a b c"}], size=lambda batch: len(batch["texts"].split()))) == [{"texts": "a b c"}]
    mock.assert_emitted("data.batch_loaded", {"batch_size": 3}, times=1)


def test_a_bus_does_not_keep_watchers_that_are_closed(bus):
    for _ in range(3):
        with monitor.error_budget(bus) as watcher:
            assert len(bus._watchers) == 1
        watcher.close()
    assert bus._watchers == []


def test_negative_numbers_of_a_monitor_are_named(bus):
    for said, call in [
        ("threshold must be from 0 to 2**63 - 1, got -1", lambda: monitor.error_budget(bus, threshold=-1)),
        ("last must be from 0 to 2**63 - 1, got -1", lambda: monitor.aggregate(bus, last=-1)),
    ]:
        with pytest.raises(ValueError, match=re.escape(said)):
            call()
