"""What a close that takes long tells, and to whom."""

import fcntl
import io
import logging
import os
import sys
import threading
from contextlib import contextmanager

import pytest
from support import law, values

import forebay
from forebay import Collector, SummaryWriter, _progress, sinks

PIPE = 4096


class Terminal(io.StringIO):
    """A terminal that calls what it is given before it shows the first line."""

    def __init__(self, first=lambda: None):
        super().__init__()
        self.first = first

    def isatty(self):
        return True

    def write(self, text):
        first, self.first = self.first, lambda: None
        first()
        return super().write(text)

    def lines(self):
        return [line.replace("\x1b[K", "") for line in self.getvalue().replace("\n", "\r").split("\r") if line]


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def impatient(monkeypatch):
    """Every close takes long at once."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.0)


@contextmanager
def full_pipe():
    """Standard error as a pipe that is full: a console sink hangs until it is drained."""
    kept = os.dup(2)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    assert os.write(writer, bytes(PIPE)) == PIPE
    os.dup2(writer, 2)

    def drain():
        assert os.read(reader, PIPE) == bytes(PIPE)

    try:
        yield drain
    finally:
        os.dup2(kept, 2)
        for descriptor in (kept, reader, writer):
            os.close(descriptor)


def test_a_line_tells_how_many_events_are_left_and_how_long_it_may_take(monkeypatch):
    clock, terminal = Clock(), Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = _progress.Progress("runs/first", 10.0, clock)
    seconds, tell = progress.watcher()
    assert seconds == _progress.PATIENCE == 1.0
    clock.now += 1.0
    tell(12_345)
    clock.now += 8.5
    tell(1)
    clock.now += 8.0
    assert progress.watcher()[0] == 0.0
    tell(1)
    progress.end()
    assert terminal.lines() == [
        "forebay: closing runs/first: 12,345 events left, 9 s at most",
        "forebay: closing runs/first: 1 event left, 0 s at most",
        "forebay: closing runs/first: 1 event left, 0 s at most",
    ]
    assert terminal.getvalue().endswith("\n")


def test_a_notebook_gets_the_line_and_everything_else_one_message_of_the_logger(monkeypatch, caplog):
    notebook = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    for stream, is_shown in ((notebook, True), (io.StringIO(), False), (None, False)):
        monkeypatch.setattr(sys, "stderr", stream)
        progress = _progress.Progress("x", 10.0, Clock())
        caplog.clear()
        with caplog.at_level(logging.INFO, "forebay"):
            progress.tell(2)
            progress.tell(1)
            progress.end()
        if is_shown:
            assert stream.getvalue().count("closing x") == 2
            assert caplog.messages == []
        else:
            assert stream is None or stream.getvalue() == ""
            assert caplog.messages == ["closing x: 2 events left, 10 s at most"]


@pytest.mark.usefixtures("impatient")
def test_a_collector_that_waits_for_a_sink_says_so(monkeypatch):
    with full_pipe() as drain:
        terminal = Terminal(first=drain)
        monkeypatch.setattr(sys, "stderr", terminal)
        collector = Collector([sinks.Console()])
        for number in range(3):
            collector.collect("x", number)
        report = collector.stop()
    law(report, 3)
    assert report.is_clean
    assert terminal.lines()[0] == "forebay: closing the collector: 3 events left, 10 s at most"


@pytest.mark.usefixtures("impatient")
def test_a_run_says_so_in_one_line(monkeypatch, tmp_path):
    with full_pipe() as drain:
        terminal = Terminal(first=drain)
        monkeypatch.setattr(sys, "stderr", terminal)
        run = forebay.init(tmp_path, sinks=[sinks.Console()])
        run.log({"x": 1.0}, step=0)
        report = run.finish()
    law(report, 3)
    assert report.is_clean
    # The begin, and what was logged. The end is behind them.
    assert terminal.lines()[0] == f"forebay: closing {run.folder}: 2 events left, 20 s at most"
    assert terminal.getvalue().count("\n") == 1


def test_a_writer_hands_its_line_to_the_worker(monkeypatch, tmp_path):
    class Slow(SummaryWriter):
        def _close(self, timeout, watcher):
            watcher[1](7)
            return super()._close(timeout, watcher)

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Slow(tmp_path) as writer:
        writer.add_scalar("x", 1.0)
    assert terminal.lines() == [f"forebay: closing {tmp_path}: 7 events left, 10 s at most"]
    assert len(values(tmp_path)) == 1


def test_a_close_that_is_quick_says_nothing(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(_progress, "PATIENCE", 600.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO, "forebay"):
        SummaryWriter(tmp_path / "writer").close()
        forebay.init(tmp_path).finish()
        Collector().stop()
    assert (terminal.getvalue(), caplog.messages) == ("", [])


@pytest.mark.parametrize("error", [OSError("the terminal is gone"), RuntimeError("a stream that is not one"), KeyboardInterrupt()])
@pytest.mark.usefixtures("impatient")
def test_a_line_that_fails_harms_nothing(monkeypatch, error):
    with full_pipe() as drain:

        def fail():
            drain()
            raise error

        monkeypatch.setattr(sys, "stderr", Terminal(first=fail))
        collector = Collector([sinks.Console()])
        collector.collect("x", 1)
        report = collector.stop()
    law(report, 1)
    assert report.is_clean


@pytest.mark.usefixtures("impatient")
def test_a_terminal_that_is_stopped_does_not_hold_a_close(monkeypatch):
    goes_on = threading.Event()
    left = threading.Event()
    with full_pipe() as drain:

        def block():
            drain()
            goes_on.wait(60)
            left.set()

        monkeypatch.setattr(sys, "stderr", Terminal(first=block))
        collector = Collector([sinks.Console()])
        collector.collect("x", 1)
        report = collector.stop()
    # It waited a second for the line, and no longer.
    assert not left.is_set()
    law(report, 1)
    goes_on.set()
    assert left.wait(60)


def test_the_end_of_a_close_touches_no_terminal_that_is_stopped(monkeypatch):
    in_write, goes_on = threading.Event(), threading.Event()
    calls = []

    def stopped():
        in_write.set()
        assert goes_on.wait(60)

    class Stopped(Terminal):
        def write(self, text):
            calls.append(text)
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", Stopped(first=stopped))
    progress = _progress.Progress("it", 10)
    watcher = threading.Thread(target=progress.tell, args=(7,))
    watcher.start()
    try:
        assert in_write.wait(60)
        progress.end()
        assert len(calls) == 1, "it would hang there, with the deadline over"
    finally:
        goes_on.set()
        watcher.join()
