"""The event bus at the end of a process, and in a child."""

import os
import subprocess
import sys
import textwrap
import threading

import forebay
import pytest
from bus_support import bus, law, watchdog  # noqa: F401
from forebay.bus import EventBus


def run(code):
    """Runs a program to its end, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def in_child(body):
    """Calls a function in a forked child, and returns what it returns, as text. A child that hangs is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, repr(body()).encode())
        except BaseException as error:  # noqa: BLE001
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    killer = threading.Timer(60, os.kill, (child, 9))
    killer.start()
    with os.fdopen(reader) as answer:
        text = answer.read()
    _, status = os.waitpid(child, 0)
    killer.cancel()
    assert status == 0, status
    return text


pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


def test_what_was_emitted_is_handled_at_the_end_of_the_process():
    out = run(
        """
        import os
        from forebay.bus import EventBus
        bus = EventBus()
        @bus.on("a")
        def handler(event):
            os.write(1, b"%d\\n" % event.data["i"])
        @bus.on("a")
        async def other(event):
            os.write(1, b"%d\\n" % event.data["i"])
        for i in range(100):
            bus.emit("a", {"i": i})
        """
    )
    assert sorted(map(int, out.split())) == sorted([*range(100), *range(100)])


@pytest.mark.parametrize("first", ["bus", "run"])
def test_a_bus_and_a_run_that_are_open_at_the_end_deliver_all(tmp_path, first):
    make = {"bus": "bus = EventBus()", "run": f"run = forebay.init({str(tmp_path)!r}, name='r')"}
    second = "run" if first == "bus" else "bus"
    run(
        f"""
        import forebay
        from forebay import _lifecycle
        from forebay.bus import EventBus
        _lifecycle.EXIT_TIMEOUT = 100
        {make[first]}
        {make[second]}
        @bus.on("loss")
        def log(event):
            run.log({{"loss": event.data["loss"]}}, step=event.data["step"])
        @bus.on("loss")
        async def log_too(event):
            run.log({{"twice": 2 * event.data["loss"]}}, step=event.data["step"])
        for step in range(200):
            bus.emit("loss", {{"loss": step / 2, "step": step}})
        """
    )
    (info,) = forebay.runs(tmp_path)
    for name, factor in (("loss", 0.5), ("twice", 1.0)):
        records = list(forebay.read(info.folder, name))
        assert [(record.step, record.value) for record in records] == [(step, factor * step) for step in range(200)]
    assert info.status == "finished"


def test_a_handler_that_hangs_leaves_time_for_a_run_at_the_end(tmp_path):
    out = run(
        f"""
        import threading
        import forebay
        from forebay import _lifecycle
        from forebay.bus import EventBus
        _lifecycle.EXIT_TIMEOUT = 3
        run = forebay.init({str(tmp_path)!r}, name="r")
        def close(timeout, close=run._close_at_exit):
            print("some" if timeout > 0 else "none")
            close(60)
        run._close_at_exit = close
        bus, begun = EventBus(), threading.Event()
        @bus.on("a")
        def handler(event):
            begun.set()
            threading.Event().wait()
        bus.emit("a")
        begun.wait()
        run.log({{"loss": 1.0}}, step=1)
        """
    )
    assert out == "some\n"
    (info,) = forebay.runs(tmp_path)
    assert [record.value for record in forebay.read(info.folder, "loss")] == [1.0]
    assert info.status == "finished"


def test_a_loop_that_nobody_runs_does_not_hold_up_the_end():
    run(
        """
        import asyncio, threading, time
        from forebay.bus import EventBus
        bus = EventBus(timeout=60)
        loop = asyncio.new_event_loop()
        begun = asyncio.Event()
        async def handler(event):
            begun.set()
            await asyncio.Event().wait()
        async def main():
            bus.subscribe("a", handler)
            bus.emit("a")
            bus.emit("a")
            await begun.wait()
            # The other one waits for it.
            while bus.metrics().handlers[0].in_flight < 2:
                await asyncio.sleep(0)
        loop.run_until_complete(main())
        # Before its timeout of 10 seconds.
        import atexit, os
        from forebay import _lifecycle
        def check():
            _lifecycle.close_all()
            gone = bus.metrics().gone
            os._exit(0 if (gone.cancelled, gone.in_flight) == (2, 0) and bus.stop(60) else 1)
        atexit.register(check)
        """
    )


def test_a_handler_that_hangs_does_not_hold_up_the_end():
    run(
        """
        import threading
        from forebay import _lifecycle
        from forebay.bus import EventBus
        _lifecycle.EXIT_TIMEOUT = 0.2
        bus = EventBus()
        begun = threading.Event()
        @bus.on("a")
        def handler(event):
            begun.set()
            threading.Event().wait()
        bus.emit("a")
        begun.wait()
        """
    )


def test_an_end_without_atexit_hangs_nowhere():
    run(
        """
        import os, threading
        from forebay.bus import EventBus
        bus = EventBus()
        bus.on("a")(print)
        bus.emit("a")
        os._exit(0)
        """
    )


def test_an_exception_of_the_program_ends_it():
    done = subprocess.run(
        [sys.executable, "-c", "from forebay.bus import EventBus\nbus = EventBus()\nbus.on('a')(lambda e: print('handled'))\nbus.emit('a')\n1 / 0"],
        capture_output=True, text=True, timeout=100, check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "handled\n"


def test_a_child_is_refused_and_hangs_nowhere(bus):
    got = []
    subscription = bus.subscribe("a", got.append)
    bus.emit_sync("a")

    def child():
        emission = bus.emit_sync("a")
        refused = []
        for call in (lambda: bus.subscribe("a", print), bus.query, bus.flush):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))
        return (
            emission.outcome, emission.done, emission.wait(), bus.metrics().forked, len(refused), refused[0],
            bool(bus.unsubscribe(subscription)), bus.stop(), len(got), bus.dead_letters(), bus.redrive(),
        )

    reason = "this process is a fork of the one that started the bus"
    assert in_child(child) == repr(("forked", True, True, 1, 3, reason, False, False, 1, [], 0))
    bus.emit_sync("a")
    assert len(got) == 2


def test_a_child_is_refused_while_handlers_run_in_the_parent(bus):
    begun, go = threading.Event(), threading.Event()

    def handler(event):
        begun.set()
        go.wait()

    bus.subscribe("a", handler)
    emission = bus.emit("a")
    begun.wait()
    # Its end will never come there.
    assert in_child(lambda: (emission.wait(), emission.done, bus.emit("a").outcome)) == repr((True, True, "forked"))
    go.set()
    assert emission.wait()


def test_a_child_may_make_a_bus_of_its_own(bus):
    bus.subscribe("a", print)
    bus.emit_sync("a")

    def child():
        with EventBus(timeout=60) as own:
            got = []
            own.subscribe("a", got.append)
            own.emit_sync("a")
        return len(got), own._core.check_law()

    assert in_child(child) == repr((1, None))


def test_a_handler_may_fork(bus):
    answers = []
    bus.subscribe("a", lambda event: answers.append(in_child(lambda: bus.emit("b").outcome)))
    bus.emit_sync("a")
    assert answers == ["'forked'"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_bus_in_a_global_lets_children_of_multiprocessing_end(tmp_path, method):
    (tmp_path / "program.py").write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            from forebay.bus import EventBus
            bus = EventBus()
            bus.on("a")(lambda event: print("handled", flush=True))
            def work(i):
                return bus.emit_sync("a").outcome
            if __name__ == "__main__":
                bus.emit_sync("a")
                with multiprocessing.get_context("{method}").Pool(2) as pool:
                    print(sorted(set(pool.map(work, range(4)))))
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done
    # A forked child has the bus of its parent; one that was started imports the program again, and has its own.
    expected = "['forked']" if method == "fork" else "['queued']"
    assert expected in done.stdout.splitlines(), done
    assert done.stdout.count("handled") == (1 if method == "fork" else 5), done
