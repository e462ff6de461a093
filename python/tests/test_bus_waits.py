"""What waits for the bus: how long, and what ends it early."""

import asyncio
import fcntl
import math
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bus_support import bus, law, until, watchdog  # noqa: F401
from forebay.bus import EventBus, _calls, _loops
from support import handling

PIPE = 4096


class Journal:
    """The file of a bus, on a disk that hangs as soon as it is full: a named pipe that nobody reads."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path = path
        self.descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, PIPE)

    def bus(self, timeout):
        return EventBus(enable_persistence=True, persistence_path=self.path, timeout=timeout)

    def let_go(self, is_over):
        """Reads what is written until something is so."""
        while not is_over():
            try:
                os.read(self.descriptor, PIPE)
            except BlockingIOError:
                time.sleep(0.001)

    def end(self, bus):
        """Lets the disk go, and stops the bus."""
        stop = threading.Thread(target=bus.stop, args=(60,))
        stop.start()
        self.let_go(lambda: not stop.is_alive())
        os.close(self.descriptor)
        law(bus)


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "events.jsonl")


class Handler:
    """A handler that hangs until it is let go."""

    def __init__(self):
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, event):
        self.begun.set()
        assert self.goes_on.wait(60)


def threads(bus):
    return [*bus._calls._makers, bus._calls._notifier, bus._calls._loop_thread]


def have_ended(bus):
    return not any(thread is not None and thread.is_alive() for thread in threads(bus))


# The disk hangs


def test_a_flush_ends_by_its_timeout_where_the_disk_hangs(journal):
    bus = journal.bus(timeout=60)
    for _ in range(3):
        bus.emit("a", {"text": "x" * PIPE})
    began = time.monotonic()
    assert not bus.flush(0.05)
    # The flush of a bus in Rust takes 10 seconds by default.
    assert time.monotonic() - began < 8
    journal.end(bus)


def test_a_query_waits_for_the_disk_by_the_timeout_of_the_bus(journal):
    bus = journal.bus(timeout=0.05)
    for _ in range(3):
        bus.emit("a", {"text": "x" * PIPE})
    began = time.monotonic()
    # Behind the wait, it finds that the file is none that can be read again.
    with pytest.raises(OSError, match="must be a plain file"):
        bus.query()
    assert time.monotonic() - began < 8
    journal.end(bus)


def interrupted(call, is_waiting_for=lambda: True):
    """Calls something that waits, and has the user press Ctrl-C once it does. Returns the seconds that it took."""
    is_waiting, is_over = threading.Event(), threading.Event()

    def press():
        assert is_waiting.wait(60)
        until(is_waiting_for)
        while not is_over.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    def handle(*_):
        if not is_over.is_set():
            is_over.set()
            raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGINT, handle)
    user = threading.Thread(target=press)
    user.start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            is_waiting.set()
            call()
    finally:
        is_over.set()
        user.join()
        signal.signal(signal.SIGINT, earlier)
    return time.monotonic() - began


@pytest.mark.parametrize("method", ["flush", "query", "stop", "emit_sync"])
def test_the_user_interrupts_what_waits_for_a_disk_that_hangs(journal, method):
    bus = journal.bus(timeout=50)
    bus.subscribe("*", lambda event: None)
    for _ in range(3):
        bus.emit("a", {"text": "x" * PIPE})
    calls = {"flush": bus.flush, "query": bus.query, "stop": bus.stop, "emit_sync": lambda: bus.emit_sync("b")}
    assert interrupted(calls[method]) < 8
    journal.end(bus)


def test_a_stop_that_the_user_interrupts_ends_the_threads_while_the_disk_hangs(journal):
    bus = journal.bus(timeout=50)
    bus.subscribe("a", lambda event: None)

    async def answer(event):
        pass

    # One of each kind of thread: of calls, of notices, and of a loop.
    bus.subscribe("a", answer)
    for _ in range(3):
        bus.emit("a", {"text": "x" * PIPE})
    assert interrupted(bus.stop, lambda: bus._is_stopped) < 8
    assert all(threads(bus))
    until(lambda: have_ended(bus))
    journal.end(bus)


def test_a_stop_that_the_user_interrupts_ends_the_threads_while_a_handler_hangs():
    bus, handler = EventBus(timeout=50), Handler()
    bus.subscribe("a", handler)

    async def answer(event):
        pass

    bus.subscribe("b", answer)
    bus.emit("a")
    assert handler.begun.wait(60)
    assert interrupted(bus.stop, lambda: bus._is_stopped) < 8
    # All but the one whose handler hangs.
    until(lambda: not bus._calls._notifier.is_alive() and not bus._calls._loop_thread.is_alive())
    handler.goes_on.set()
    until(lambda: have_ended(bus))
    assert bus.stop(60)
    law(bus)


def test_other_threads_run_while_the_disk_hangs(journal):
    bus = journal.bus(timeout=60)
    for _ in range(3):
        bus.emit("a", {"text": "x" * PIPE})
    done = []
    flush = threading.Thread(target=lambda: done.append(bus.flush()))
    flush.start()
    # It could not, if the flush held the GIL.
    journal.let_go(lambda: bool(done))
    assert done == [True]
    journal.end(bus)


# The threads of others are taken


def test_a_shutdown_needs_no_thread_of_the_pool_of_its_loop(bus):
    async def main():
        goes_on = threading.Event()
        pool = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(pool)
        hog = asyncio.get_running_loop().run_in_executor(None, goes_on.wait)
        try:
            assert await asyncio.wait_for(bus.query_events(), 30) == []
            assert await asyncio.wait_for(bus.shutdown(60), 30)
        finally:
            goes_on.set()
        await hog

    asyncio.run(main())


def test_a_shutdown_needs_no_thread_of_the_pool_of_trio(bus):
    trio = pytest.importorskip("trio")

    async def main():
        trio.to_thread.current_default_thread_limiter().total_tokens = 1
        goes_on, is_taken = threading.Event(), threading.Event()

        def hog():
            is_taken.set()
            goes_on.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hog)
            while not is_taken.is_set():
                await trio.sleep(0)
            try:
                with trio.fail_after(30):
                    assert await bus.shutdown(60)
            finally:
                goes_on.set()

    trio.run(main)


def test_a_shutdown_ends_by_its_timeout_and_says_what_is_left_behind(caplog):
    async def main():
        bus, handler = EventBus(workers=1), Handler()
        bus.subscribe("a", handler, name="the first")
        bus.subscribe("a", print, name="the second")
        emission = bus.emit("a")
        assert await asyncio.to_thread(handler.begun.wait, 60)
        began = time.monotonic()
        assert not await bus.shutdown(0.05)
        assert time.monotonic() - began < 8
        (message,) = caplog.messages
        assert message == (
            "the event bus was stopped after 0.05 s with 0 events that no handler has got, and calls that still run of: 'the first'"
        )
        # What waited for the only thread was cancelled.
        assert emission.lost == 1
        handler.goes_on.set()
        assert await bus.shutdown(60)
        assert len(caplog.messages) == 1
        return bus

    law(asyncio.run(main()))


@pytest.mark.parametrize("library", ["asyncio", "trio"])
@pytest.mark.parametrize("way", ["block", "shutdown"])
def test_a_bus_whose_stop_gets_no_thread_is_stopped_and_says_why(library, way, monkeypatch):
    run = pytest.importorskip("trio").run if library == "trio" else lambda main: asyncio.run(main())
    got = []

    async def receive(event):
        got.append(event.name)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    async def work():
        bus, handler = EventBus(timeout=60), Handler()
        bus.subscribe("a", handler)
        bus.subscribe("a", receive)
        bus.emit("a")
        assert handler.begun.wait(60)
        handler.goes_on.set()
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="can't start new thread") as raised:
            if way == "shutdown":
                patch.setattr(threading.Thread, "start", refuse)
                await bus.shutdown()
            async with bus:
                patch.setattr(threading.Thread, "start", refuse)
        (note,) = raised.value.__notes__
        assert note.startswith("the event bus is stopped: ")
        return bus

    bus = run(work)
    # That of the loop runs where the library comes to it before.
    assert [handler.handled for handler in bus.metrics().handlers] == [1, len(got)]
    assert bus._is_stopped and bus.emit("a").outcome == "stopped"
    until(lambda: have_ended(bus))
    law(bus)


def test_a_loop_of_the_bus_that_gets_no_thread_is_none(bus, monkeypatch):
    async def handler(event):
        pass

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            bus.subscribe("a", handler)
    # The next one has a loop that runs.
    bus.subscribe("a", handler)
    assert bus.emit_sync("a").handled == 1


def test_a_loop_of_the_bus_whose_begin_the_user_interrupts_is_none(bus, monkeypatch):
    async def handler(event):
        pass

    started, start = [], threading.Thread.start

    def interrupt(thread):
        started.append(thread)
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            bus.subscribe("a", handler)
    (thread,) = started
    thread.join(60)
    assert not thread.is_alive()
    bus.subscribe("a", handler)
    assert bus.emit_sync("a").handled == 1


# The task is cancelled


def test_a_block_that_is_cancelled_in_asyncio_stops_its_bus_and_is_cancelled_then():
    async def main():
        bus, handler = EventBus(timeout=60), Handler()
        bus.subscribe("a", handler)

        async def work():
            async with bus:
                bus.emit("a")
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        assert await asyncio.to_thread(handler.begun.wait, 60)
        task.cancel()
        while not bus._is_stopped:
            await asyncio.sleep(0)
        # Once more, in the middle of the stop.
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not task.done()
        handler.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert have_ended(bus)
        assert bus.metrics().handlers[0].handled == 1
        return bus

    law(asyncio.run(main()))


def test_a_block_that_is_cancelled_in_trio_stops_its_bus_and_is_cancelled_then():
    trio = pytest.importorskip("trio")
    got = []

    async def main():
        bus = EventBus(timeout=60)

        async def handler(event):
            await trio.sleep(0)
            got.append(event.name)

        bus.subscribe("a", handler)
        is_behind = False
        with trio.CancelScope() as scope:
            async with bus:
                bus.emit("a")
                scope.cancel()
                await trio.sleep_forever()
            is_behind = True
        assert scope.cancelled_caught and not is_behind
        assert got == ["a"]
        assert have_ended(bus)
        return bus

    law(trio.run(main))


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_a_block_that_is_cancelled_waits_for_the_timeout_of_the_bus_at_most(library, caplog):
    trio = pytest.importorskip("trio")
    bus, handler = EventBus(timeout=0.05), Handler()

    async def work():
        async with bus:
            bus.subscribe("a", handler)
            bus.emit("a")
            while not handler.begun.is_set():
                await (trio if library == "trio" else asyncio).sleep(0)
            scope.cancel()
            await (trio.sleep_forever() if library == "trio" else asyncio.Event().wait())

    async def in_asyncio():
        nonlocal scope
        scope = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await scope

    async def in_trio():
        nonlocal scope
        with trio.CancelScope() as scope:
            await work()
        assert scope.cancelled_caught

    scope = None
    began = time.monotonic()
    trio.run(in_trio) if library == "trio" else asyncio.run(in_asyncio())
    assert time.monotonic() - began < 8
    assert "calls that still run of: 'Handler'" in caplog.text
    handler.goes_on.set()
    assert bus.stop(60)
    law(bus)


@pytest.mark.parametrize("library", ["asyncio", "trio"])
def test_a_shutdown_whose_task_is_cancelled_goes_on_and_nobody_waits(library):
    trio = pytest.importorskip("trio")
    bus, handler = EventBus(timeout=60), Handler()
    bus.subscribe("a", handler)
    emission = bus.emit("a")
    assert handler.begun.wait(60)

    async def in_asyncio():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bus.shutdown(), 0.01)

    async def in_trio():
        with trio.CancelScope() as scope:
            scope.cancel()
            await bus.shutdown()
        assert scope.cancelled_caught

    began = time.monotonic()
    trio.run(in_trio) if library == "trio" else asyncio.run(in_asyncio())
    assert time.monotonic() - began < 30
    until(lambda: bus._is_stopped)
    handler.goes_on.set()
    until(lambda: have_ended(bus))
    assert emission.handled == 1
    assert bus.stop(60)
    law(bus)


def test_a_bus_without_a_timeout_stops():
    bus = EventBus(timeout=math.inf)
    got = []
    bus.subscribe("a", got.append)

    async def wait():
        await bus.emit("a")
        return await bus.shutdown()

    assert bus.emit_sync("a").wait()
    assert bus.flush()
    assert asyncio.run(wait())
    assert len(got) == 2
    law(bus)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_cannot_be_made_is_cancelled_and_ends_no_thread(bus, caplog, monkeypatch, is_async):
    got = []

    async def handle(event):
        got.append(event)

    def fail(*arguments):
        raise MemoryError

    bus.subscribe("a", handle if is_async else got.append)
    with monkeypatch.context() as patch:
        patch.setattr(_calls, "_event", fail)
        if is_async:
            patch.setattr(_loops, "call_soon", fail)
        refused = bus.emit_sync("a")
    taken = bus.emit_sync("a")
    assert [(it.done, it.handled, it.lost) for it in (refused, taken)] == [(True, 0, 1), (True, 1, 0)]
    assert len(got) == 1
    assert caplog.messages == ["a call of a handler of the event bus could not be made, and is cancelled"]


@pytest.mark.parametrize("is_async", [False, True])
def test_the_handler_of_a_signal_may_subscribe_while_a_subscription_begins_a_thread(bus, monkeypatch, is_async):
    start, got, done = _calls._start, [], []

    async def handle(event):
        got.append(event.name)

    def subscribe(name):
        bus.subscribe(name, handle if is_async else lambda event: got.append(event.name))

    def start_and_interrupt(*arguments):
        thread = start(*arguments)
        if not done:
            done.append(False)
            signal.raise_signal(signal.SIGUSR1)
            until(lambda: done[0])
        return thread

    def interrupt(*_):
        subscribe("b")
        done[0] = True

    monkeypatch.setattr(_calls, "_start", start_and_interrupt)
    with handling(interrupt):
        subscribe("a")
    for name in ("a", "b"):
        bus.emit_sync(name)
    assert got == ["a", "b"]
