"""What a close that takes long tells, and to whom."""

import io
import logging
import os
import re
import sys
import termios
import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from support import Disk, full_pipe, law, values

import forebay
from forebay import Collector, SummaryWriter, _progress, sinks

PIPE = 4096


class Terminal:
    """A terminal, as standard error. Before it shows the first text that has some words in it, it calls what it was given."""

    def __init__(self, monkeypatch):
        self.screen, descriptor = os.openpty()
        os.set_blocking(self.screen, False)
        self.stream = os.fdopen(descriptor, "w")
        # Not that of `sys`, which pytest sets anew for each part of a test.
        monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=self.stream))
        self.shown = ""
        self.before("", lambda: None)
        write = _progress._Terminal.write

        def show(screen, text):
            if self.words in text:
                call = self.call
                self.before("", lambda: None)
                call()
            write(screen, text)

        monkeypatch.setattr(_progress._Terminal, "write", show)

    def before(self, words, call):
        self.words, self.call = words, call

    def stop(self):
        """Does what Ctrl-S does."""
        termios.tcflow(self.stream.fileno(), termios.TCOOFF)

    def go_on(self):
        termios.tcflow(self.stream.fileno(), termios.TCOON)

    def text(self):
        """What it has shown so far."""
        with suppress(BlockingIOError):
            while True:
                self.shown += os.read(self.screen, PIPE).decode()
        return self.shown

    def has_said(self, words):
        """Whether a line says so, and then how long it may take yet."""
        return any(re.fullmatch(re.escape(words) + r", \d+ s at most", line) for line in self.lines())

    def lines(self):
        return [line.replace("\x1b[K", "") for line in self.text().replace("\n", "\r").split("\r") if line]


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal(monkeypatch)
    yield terminal
    terminal.go_on()
    terminal.stream.close()
    os.close(terminal.screen)


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def impatient(monkeypatch):
    """Every close takes long at once."""
    monkeypatch.setattr(_progress, "PATIENCE", 0.0)
    monkeypatch.setattr(_progress, "INTERVAL", 0.01)


def test_a_line_tells_how_many_events_are_left_and_how_long_it_may_take(terminal):
    clock = Clock()
    progress = _progress.Progress("runs/first", 10.0, clock)
    clock.now += 1.0
    progress.tell(12_345)
    clock.now += 8.5
    progress.tell(1)
    clock.now += 8.0
    progress.tell(1)
    progress.end()
    assert terminal.lines() == [
        "forebay: closing runs/first: 12,345 events left, 9 s at most",
        "forebay: closing runs/first: 1 event left, 0 s at most",
        "forebay: closing runs/first: 1 event left, 0 s at most",
    ]
    assert terminal.text().endswith("\n")


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
def test_a_collector_that_waits_for_a_sink_says_so(terminal):
    with full_pipe() as drain:
        # The worker may be taking them out of a ring when the first line is written.
        terminal.before(": 3 events left", drain)
        collector = Collector([sinks.Console()])
        for number in range(3):
            collector.collect("x", number)
        report = collector.stop()
    law(report, 3)
    assert report.is_clean
    assert terminal.has_said("forebay: closing the collector: 3 events left")


@pytest.mark.usefixtures("impatient")
def test_a_run_says_so_in_one_line(terminal, tmp_path):
    with full_pipe() as drain:
        # The begin, and what was logged. The end is behind them.
        terminal.before(": 2 events left", drain)
        run = forebay.init(tmp_path, sinks=[sinks.Console()])
        run.log({"x": 1.0}, step=0)
        report = run.finish()
    law(report, 3)
    assert report.is_clean
    assert terminal.has_said(f"forebay: closing {run.folder}: 2 events left")
    assert terminal.text().count("\n") == 1


@pytest.mark.usefixtures("impatient")
def test_a_writer_that_waits_for_its_disk_says_so(terminal, tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "disk")
    writer.add_scalar("x", 1.0)
    terminal.before(": 2 events left", disk.let_go)
    writer.close()
    assert terminal.has_said(f"forebay: closing {tmp_path / 'run'}: 2 events left")
    assert len(values(tmp_path / "run")) == 1


def test_a_close_that_is_quick_says_nothing(terminal, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(_progress, "PATIENCE", 600.0)
    with caplog.at_level(logging.INFO, "forebay"):
        SummaryWriter(tmp_path / "writer").close()
        forebay.init(tmp_path).finish()
        Collector().stop()
    assert (terminal.text(), caplog.messages) == ("", [])


@pytest.mark.parametrize("error", [OSError("the terminal is gone"), RuntimeError("a stream that is not one"), KeyboardInterrupt()])
@pytest.mark.usefixtures("impatient")
def test_a_line_that_fails_harms_nothing(terminal, error):
    with full_pipe() as drain:

        def fail():
            drain()
            raise error

        terminal.before("", fail)
        collector = Collector([sinks.Console()])
        collector.collect("x", 1)
        if isinstance(error, KeyboardInterrupt):
            # It is the user's, and is raised when the close is done.
            with pytest.raises(KeyboardInterrupt):
                collector.stop()
            assert not collector.is_running
        report = collector.stop()
    law(report, 1)
    assert report.is_clean


@pytest.mark.usefixtures("impatient")
def test_a_terminal_that_is_stopped_does_not_hold_a_close(terminal):
    with full_pipe() as drain:

        def stop():
            terminal.stop()
            drain()

        terminal.before("", stop)
        collector = Collector([sinks.Console()])
        collector.collect("x", 1)
        began = time.monotonic()
        report = collector.stop()
    assert time.monotonic() - began < 8
    law(report, 1)
    terminal.go_on()
    assert terminal.text() == ""


def test_a_terminal_that_is_stopped_between_two_lines_is_not_waited_for(terminal):
    progress = _progress.Progress("it", 10, Clock())

    def tell():
        progress.tell(7)
        terminal.stop()
        progress.tell(6)
        progress.end()

    closing = threading.Thread(target=tell, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    terminal.go_on()
    assert terminal.lines() == ["forebay: closing it: 7 events left, 10 s at most"]


def test_a_terminal_that_nobody_reads_is_not_waited_for(terminal):
    progress = _progress.Progress("it", 10, Clock())
    descriptor = os.open(os.ttyname(terminal.stream.fileno()), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, bytes(PIPE))
    os.close(descriptor)

    def tell():
        progress.tell(7)
        progress.end()

    closing = threading.Thread(target=tell, daemon=True)
    closing.start()
    closing.join(30)
    is_held = closing.is_alive()
    terminal.text()
    assert not is_held


def test_the_terminal_of_the_program_is_as_it_was(terminal):
    progress = _progress.Progress("it", 10, Clock())
    before = set(os.listdir("/proc/self/fd"))
    progress.tell(7)
    assert os.get_blocking(terminal.stream.fileno())
    progress.end()
    assert set(os.listdir("/proc/self/fd")) == before
