"""What ends by its deadline, also where something hangs, fails or is interrupted."""

import os
import subprocess
import sys
import threading
import time
import weakref

import forebay
import pytest
from support import Disk, full_pipe, law

from forebay import SummaryWriter, _lifecycle
from forebay._progress import Progress


def test_a_close_that_has_not_ended_in_time_holds_no_other_thread(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "disk")
    ran, is_over = [], threading.Event()

    def work():
        while not is_over.wait(0.01):
            ran.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    began = time.monotonic()
    # It ends, and then drops the collector, which waits for the worker once more.
    writer._close(0.05).result()
    ended = time.monotonic()
    is_over.set()
    thread.join()
    disk.let_go()
    # In the drop, which takes a second, and not behind it.
    assert ended - began > 0.9
    assert any(began + 0.2 < moment < began + 0.8 for moment in ran)


def test_the_end_of_a_run_at_exit_has_the_deadline_of_the_exit(tmp_path):
    with full_pipe() as drain:
        run = forebay.init(tmp_path, sinks=[forebay.sinks.Console()])
        run.log({"x": 1.0}, step=0)
        began = time.monotonic()
        run._close_at_exit(0.2)
        # A flush and a stop have 10 seconds each.
        assert time.monotonic() - began < 8
        assert run.finish().pending
        drain()
        report = run.collector.stop(60)
    law(report, 3)


def test_an_interruption_while_the_end_is_reported_ends_the_run_nevertheless(tmp_path, monkeypatch):
    class Interrupted(Progress):
        is_first = True

        def follow(self, work):
            result = super().follow(work)
            if self.is_first:
                self.is_first = False
                raise KeyboardInterrupt
            return result

    run = forebay.init(tmp_path)
    run.log({"x": 1.0}, step=0)
    monkeypatch.setattr(forebay._run, "Progress", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.finish()
    assert repr(run).count("ended") == 1
    assert run.collector.collect("late") == "stopped"
    law(run.finish(), 3)
    (info,) = forebay.runs(tmp_path)
    assert info.status == "finished"


def test_an_error_before_the_run_does_not_hide_the_exit_code(tmp_path, monkeypatch):
    for name in ("last_exc", "last_value"):
        monkeypatch.setattr(sys, name, ValueError("before"), raising=False)
    run = forebay.init(tmp_path)
    monkeypatch.setattr(_lifecycle, "_exit_code", 3)
    run._close_at_exit(10)
    (info,) = forebay.runs(tmp_path)
    assert (info.status, info.reason) == ("failed", "the process ended with exit code 3")
    law(run.finish(), 2)


def test_what_is_interrupted_at_the_end_lets_the_others_close(monkeypatch):
    class Thing:
        def __init__(self, turn, error):
            self._exit_turn, self.error = turn, error

        def _close_at_exit(self, timeout):
            closed.append(self._exit_turn)
            if self.error:
                raise self.error

    closed = []
    things = [Thing(turn, error) for turn, error in enumerate([KeyboardInterrupt(), SystemExit(1), OSError(), None])]
    monkeypatch.setattr(_lifecycle, "_open", weakref.WeakSet(things))
    _lifecycle.close_all()
    assert closed == [0, 1, 2, 3]


#: Ends an interpreter many times, each in a child, while threads wait in Rust and call Python. What is dropped last lets them run.
SCRIPT = """
import os, sys, threading, time
from forebay import Collector, SummaryWriter, _progress
from forebay.bus import EventBus
_progress.PATIENCE = 0.0
_progress.INTERVAL = 0.01
folder, times = sys.argv[1], int(sys.argv[2])

class Last:
    def __del__(self, sleep=time.sleep):
        sleep(0.03)

def work(child):
    global last, kept
    was_called = threading.Event()
    def tell(self, left):
        while threading.current_thread() is not threading.main_thread():
            was_called.set()
            time.sleep(0.001)
    _progress.Progress.tell = tell
    writer = SummaryWriter(f"{folder}/{child}")
    pipe = f"{folder}/{child}.pipe"
    os.mkfifo(pipe)
    writer._hang_on(pipe)
    # What closes is a daemon, which the interpreter does not wait for.
    threading.Thread(target=writer.close, daemon=True).start()
    collector, bus = Collector(), EventBus()
    collector.subscribe(callback=lambda record: time.sleep(0.01))
    bus.subscribe("a", lambda event: time.sleep(0.01))
    for number in range(3):
        collector.collect("x", number), bus.emit("a")
    assert was_called.wait(60)
    last, kept = Last(), (writer, collector, bus)

for child in range(times):
    if os.fork() == 0:
        work(child)
        break
    _, status = os.wait()
    if status:
        sys.exit(f"child {child}: {status}")
"""


def test_an_interpreter_that_ends_while_threads_are_at_work_ends_well(tmp_path):
    times = 100 if os.environ.get("FOREBAY_PYTHON_FULL") else 25
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", SCRIPT, str(tmp_path), str(times)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done
