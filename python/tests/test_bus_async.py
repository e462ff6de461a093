"""The event bus and event loops."""

import asyncio
import contextvars
import queue
import threading
import time
from datetime import datetime

import pytest

from bus_support import bus, law, watchdog  # noqa: F401
from forebay.bus import Event, EventBus, EventFilter, EventQuery, _calls


def test_an_async_handler_runs_on_the_loop_of_its_subscriber():
    async def main():
        async with EventBus(timeout=60) as bus:
            got = []

            async def handler(event: Event):
                got.append((event.name, event.data, asyncio.get_running_loop(), threading.current_thread()))
                await asyncio.sleep(0)

            await bus.subscribe("test.*", handler)
            emission = await bus.emit("test.example", {"key": "value"})
            here = asyncio.get_running_loop(), threading.current_thread()
            assert got == [("test.example", {"key": "value"}, *here)]
            assert (emission.outcome, emission.handled, emission.done) == ("queued", 1, True)
            assert await bus.shutdown()
        return bus

    law(asyncio.run(main()))


def test_the_words_of_the_guide_work():
    async def main():
        bus = EventBus(timeout=60)
        got = []

        class Important(EventFilter):
            def should_process(self, event):
                return event.data.get("important", True)

        bus.add_filter(Important())

        async def monitor(event):
            got.append(event.name)
            if event.name == "training.epoch_completed" and event.data["val_loss"] < 0.2:
                # This handler is among those of the derived event.
                await bus.emit("training.new_best_model", {"epoch": event.data["epoch"]})

        subscription = await bus.subscribe("training.*", monitor)
        await bus.emit("training.epoch_completed", {"epoch": 5, "val_loss": 0.15, "duration": 120.5}, correlation_id="c")
        await bus.emit("training.unimportant", {"important": False})
        await bus.emit("metrics.aggregated", {"timestamp": datetime.now()})
        related = await bus.get_correlated_events("c")
        assert [event.name for event in related] == ["training.epoch_completed", "training.new_best_model"]
        found = await bus.query_events(EventQuery().event_name_pattern("training.*").data_contains({"epoch": 5}))
        assert len(found) == 2
        await bus.emit("other")
        while len(got) < 2:
            await asyncio.sleep(0)
        metrics = await bus.get_metrics()
        assert metrics.total_events == 4 and metrics.events_per_second > 0 and metrics.avg_processing_time_ms > 0
        assert await bus.unsubscribe(subscription) is True
        assert await bus.unsubscribe(subscription) is False
        await bus.shutdown()
        assert got == ["training.epoch_completed", "training.new_best_model"]
        return bus

    law(asyncio.run(main()))


def test_an_emission_need_not_be_awaited(bus, recwarn):
    async def main():
        done = asyncio.Event()

        async def handler(event):
            done.set()

        subscription = bus.subscribe("a", handler)
        bus.emit("a")
        await done.wait()
        bus.unsubscribe(subscription)

    asyncio.run(main())
    assert not recwarn.list


def test_what_may_be_awaited_may_be_given_to_a_task(bus):
    async def main():
        released = asyncio.Event()

        async def handler(event):
            await released.wait()

        subscription = await asyncio.create_task(bus.subscribe("a", handler))
        waiting = asyncio.create_task(bus.emit("a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        released.set()
        assert (await waiting).handled == 1
        assert (await asyncio.create_task(bus.emit("b"))).handled == 0
        assert (await asyncio.gather(bus.emit("a"), bus.emit("a")))[1].handled == 1
        # A task that is cancelled stops waiting. The event stays.
        released.clear()
        waiting = asyncio.create_task(bus.emit("a"))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        released.set()
        assert await asyncio.create_task(bus.unsubscribe(subscription)) is True

    asyncio.run(main())


def test_a_handler_without_a_loop_runs_on_one_of_the_bus(bus):
    got = []

    @bus.on("a")
    async def handler(event):
        await asyncio.sleep(0)
        got.append((event.data["i"], threading.current_thread().name))

    for i in range(3):
        assert bus.emit_sync("a", {"i": i}).handled == 1
    assert got == [(i, "forebay-bus-loop") for i in range(3)]


def test_events_come_in_order_and_one_at_a_time(bus):
    got, running = [], []

    @bus.on("a")
    async def handler(event):
        running.append(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        got.append((event.data["i"], len(running)))
        running.pop()

    for i in range(200):
        bus.emit("a", {"i": i})
    assert bus.flush()
    assert got == [(i, 1) for i in range(200)]


def test_a_coroutine_that_is_unsubscribed_just_before_its_call_is_not_called(bus, monkeypatch):
    got = []

    @bus.on("a")
    async def handler(event):
        got.append(event)

    enter = _calls._enter

    def late(call):
        entered = enter(call)
        assert bus.unsubscribe("subscription-1")
        return entered

    monkeypatch.setattr(_calls, "_enter", late)
    emission = bus.emit_sync("a")
    assert (got, emission.done, emission.lost) == ([], True, 1)


_VARIABLE = contextvars.ContextVar("variable", default="unset")


class Contexts:
    """A handler that tells the context in which it is called, and changes it. Three events wait before the first call ends."""

    def __init__(self, bus):
        self.bus, self.seen = bus, []

    def enter(self, event):
        while self.bus.metrics().handlers[0].matched < 3:
            time.sleep(0.001)
        self.seen.append((_VARIABLE.get(), event.correlation_id))
        _VARIABLE.set(event.data["i"])

    def emit(self):
        _VARIABLE.set("emitter")
        for i in range(3):
            self.bus.emit("a", {"i": i}, correlation_id=str(i))

    def check(self):
        assert self.seen == [("subscriber", str(i)) for i in range(3)]
        assert _VARIABLE.get() == "emitter"


def test_each_call_of_a_function_has_a_copy_of_the_context_of_its_subscriber(bus):
    contexts = Contexts(bus)
    _VARIABLE.set("subscriber")
    bus.subscribe("a", contexts.enter)
    contexts.emit()
    assert bus.flush()
    contexts.check()


@pytest.mark.parametrize("loop", ["asyncio", "own", "trio"])
def test_each_call_of_a_coroutine_function_has_a_copy_of_the_context_of_its_subscriber(bus, loop):
    trio = pytest.importorskip("trio") if loop == "trio" else None
    contexts = Contexts(bus)

    async def handler(event):
        contexts.enter(event)

    def subscribe():
        _VARIABLE.set("subscriber")
        bus.subscribe("a", handler)

    async def main():
        subscribe()
        contexts.emit()
        while len(contexts.seen) < 3:
            await (trio or asyncio).sleep(0)
        contexts.check()

    if loop == "own":
        subscribe()
        contexts.emit()
        assert bus.flush()
        contexts.check()
    elif trio:
        trio.run(main)
    else:
        asyncio.run(main())


def test_emit_sync_on_the_thread_of_a_loop_does_not_wait_for_its_handlers(bus):
    async def main():
        got, threaded = [], []

        async def handler(event):
            got.append(event)

        subscription = bus.subscribe("a", handler)
        bus.subscribe("a", threaded.append)
        # With its timeout of a minute, a wait for the first would be seen.
        emission = bus.emit_sync("a")
        assert (len(got), len(threaded), emission.done, emission.handled) == (0, 1, True, 1)
        assert bus.flush()
        while not got:
            await asyncio.sleep(0)
        while emission.handled < 2:
            await asyncio.sleep(0)
        bus.unsubscribe(subscription)

    asyncio.run(main())


def test_a_handler_that_raises_is_counted(bus):
    @bus.on("a")
    async def bad(event):
        raise ValueError("no")

    emission = bus.emit_sync("a")
    assert (emission.handled, emission.failed) == (0, 1)
    assert bus.dead_letters()[0].error == "ValueError: no"


def test_events_for_a_loop_that_is_closed_are_dead_letters(bus):
    async def main():
        async def handler(event):
            pass

        bus.subscribe("a", handler)

    asyncio.run(main())
    assert bus.emit_sync("a").failed == 1
    assert "Event loop is closed" in bus.dead_letters()[0].error


def test_a_call_that_its_loop_cancels_is_cancelled(bus):
    async def main():
        begun = asyncio.Event()

        async def handler(event):
            begun.set()
            await asyncio.Event().wait()

        bus.subscribe("a", handler)
        emission = bus.emit("a")
        await begun.wait()
        return emission

    emission = asyncio.run(main())
    assert emission.wait()
    assert (emission.handled, emission.lost) == (0, 1)


def test_a_call_whose_task_is_cancelled_before_its_first_step_is_cancelled(bus):
    async def handler(event):
        pytest.fail("it was cancelled before")

    async def main():
        bus.subscribe("a", handler)
        emission = bus.emit("a")
        while True:
            await asyncio.sleep(0)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            if others:
                break
        for task in others:
            task.cancel()
        return emission

    asyncio.run(main())
    assert bus.flush(60)
    assert bus.metrics().handlers[0].cancelled == 1


def test_an_await_ends_by_the_timeout_of_the_bus():
    async def main():
        go = threading.Event()
        bus = EventBus(timeout=0.01)
        bus.subscribe("a", lambda event: go.wait())
        emission = await bus.emit("a")
        assert not emission.done
        go.set()
        assert emission.wait(60)
        assert await bus.shutdown(60)
        return bus

    law(asyncio.run(main()))


def test_a_stop_ends_awaits():
    async def main():
        bus = EventBus(timeout=60)
        begun, go = threading.Event(), threading.Event()

        def handler(event):
            begun.set()
            go.wait()

        bus.subscribe("a", handler)
        first, second = bus.emit("a"), bus.emit("a")
        await asyncio.to_thread(begun.wait)

        async def wait():
            return await second

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert not await bus.shutdown(0.05)
        assert (await waiting).lost == 1
        go.set()
        assert first.wait(60)
        assert await bus.shutdown(60)
        return bus

    law(asyncio.run(main()))


def test_tasks_that_a_handler_starts_may_outlive_it(bus):
    async def main():
        tasks, go = [], asyncio.Event()

        async def later():
            await go.wait()
            return await asyncio.to_thread(bus.flush)

        async def handler(event):
            tasks.append(asyncio.create_task(later()))

        subscription = bus.subscribe("a", handler)
        await bus.emit("a")
        go.set()
        assert await tasks[0]
        bus.unsubscribe(subscription)

    asyncio.run(main())


def test_a_function_that_returns_a_coroutine_fails_clearly(bus):
    async def coroutine(event):
        pass

    bus.subscribe("a", lambda event: coroutine(event))
    assert bus.emit_sync("a").failed == 1
    assert "subscribe an 'async def' function" in bus.dead_letters()[0].error


def test_many_tasks_wait_at_once(bus):
    async def main():
        got = []

        async def handler(event):
            got.append(event.data["i"])

        subscription = bus.subscribe("a", handler)
        emissions = await asyncio.gather(*(wait(i) for i in range(50)))
        assert [emission.handled for emission in emissions] == [1] * 50
        assert sorted(got) == list(range(50))
        assert bus._calls._waiters == {}
        bus.unsubscribe(subscription)

    async def wait(i):
        return await bus.emit("a", {"i": i})

    asyncio.run(main())


def test_several_tasks_wait_for_one_emission(bus):
    async def main():
        go = threading.Event()
        bus.subscribe("a", lambda event: go.wait())
        emission = bus.emit("a")

        async def wait():
            return await emission

        waiting = [asyncio.create_task(wait()) for _ in range(3)]
        while len(bus._calls._waiters) < 3:
            await asyncio.sleep(0)
        go.set()
        assert [it.handled for it in await asyncio.gather(*waiting)] == [1] * 3

    # Before the timeout of the bus, which is a minute.
    asyncio.run(asyncio.wait_for(main(), 30))


def test_a_handler_that_exits_does_not_end_its_loop(bus):
    async def main():
        async def leave(event):
            raise SystemExit(1)

        subscription = bus.subscribe("a", leave)
        assert (await bus.emit("a")).failed == 1
        bus.unsubscribe(subscription)
        return "on"

    assert asyncio.run(main()) == "on"


@pytest.mark.parametrize("is_old", [False, True])
def test_handlers_run_on_trio_and_emissions_are_awaited_there(bus, is_old, monkeypatch):
    trio = pytest.importorskip("trio")
    if is_old:
        # As before trio 0.23.
        monkeypatch.delattr(trio.lowlevel, "in_trio_task")
        assert bus.emit("none").wait()

    async def main():
        token, got = trio.lowlevel.current_trio_token(), []

        async def handler(event):
            await trio.sleep(0)
            assert trio.lowlevel.current_trio_token() is token
            got.append((event.data["i"], event.correlation_id))
            if event.name == "a":
                # It does not wait for itself.
                await bus.emit("derived", {"i": event.data["i"]})

        async def bad(event):
            raise ValueError("no")

        ids = [await bus.subscribe(["a", "derived"], handler), await bus.subscribe("bad", bad)]
        for i in range(3):
            emission = await bus.emit("a", {"i": i}, correlation_id=str(i))
            assert (emission.done, emission.handled) == (True, 1)
        assert await trio.to_thread.run_sync(bus.flush)
        assert sorted(got) == [(i, str(i)) for i in range(3) for _ in range(2)]
        assert (await bus.emit("bad")).failed == 1
        # On the thread of its loop, it cannot be waited for.
        assert bus.emit_sync("a", {"i": 3}).done
        assert len(await bus.get_correlated_events("1")) == 2
        while len(got) < 8:
            await trio.sleep(0)
        for subscription in ids:
            assert await bus.unsubscribe(subscription)

    trio.run(main)


def test_a_run_of_trio_that_ends_cancels_its_calls_and_refuses_more(bus):
    trio = pytest.importorskip("trio")

    async def main():
        begun = trio.Event()

        async def handler(event):
            begun.set()
            await trio.sleep_forever()

        bus.subscribe("a", handler)
        emission = bus.emit("a")
        await begun.wait()
        with trio.move_on_after(0.01):
            await emission
        assert not emission.done
        return emission

    emission = trio.run(main)
    assert emission.wait()
    assert (emission.handled, emission.failed, emission.lost) == (0, 0, 1)
    assert bus.emit_sync("a").failed == 1
    assert "RunFinishedError" in bus.dead_letters()[0].error


def test_a_loop_made_by_hand_runs_handlers(bus):
    class Loop:
        """Steps coroutines that yield ``None``, in order."""

        def __init__(self):
            self.ready = queue.SimpleQueue()

        def call_soon_threadsafe(self, callback, *args):
            self.ready.put((callback, args))

        def create_task(self, coroutine):
            context = contextvars.copy_context()

            def step():
                try:
                    context.run(coroutine.send, None)
                except StopIteration:
                    return
                self.ready.put((step, ()))

            self.ready.put((step, ()))

        def run_until(self, is_over):
            while not is_over():
                callback, args = self.ready.get(timeout=60)
                callback(*args)

    loop, got = Loop(), []

    async def handler(event):
        await asyncio.sleep(0)
        got.append((event.data["i"], bus.emit("b").outcome))

    bus.subscribe("a", handler, loop=loop)
    emissions = [bus.emit("a", {"i": i}) for i in range(3)]
    loop.run_until(lambda: len(got) == 3)
    assert got == [(i, "queued") for i in range(3)]
    assert all(emission.wait() for emission in emissions)
    with pytest.raises(TypeError, match="loop must be an event loop of asyncio or a token of trio, got int"):
        bus.subscribe("a", handler, loop=1)

    # Nobody could wake a task of it.
    async def wait():
        await bus.emit("a", {"i": 3})

    with pytest.raises(RuntimeError, match="asyncio and trio only"):
        wait().send(None)
    loop.run_until(lambda: len(got) == 4)
