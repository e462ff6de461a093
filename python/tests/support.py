"""What tests share."""

import fcntl
import json
import os
import signal
from contextlib import contextmanager
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

import forebay


def all_events(folder):
    """All events of the files of a folder, in order."""
    return [event for path in sorted(Path(folder).glob("events.out.*")) for event in LegacyEventFileLoader(str(path)).Load()]


def events(folder):
    """The events of a folder that have values."""
    return [event for event in all_events(folder) if event.HasField("summary")]


def values(folder):
    """The values in the files of a folder, in order."""
    return [value for event in events(folder) for value in event.summary.value]


def forked(work):
    """Does something in a forked child, and returns what it returned, as JSON has it. A child that hangs is killed, and fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            os.write(writing, json.dumps(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading) as file:
        said = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(said)


def law(report, offered):
    """Checks that so many events were offered, and that their fates add up, in each sink as well."""
    stats = report.stats
    kept_out = stats["filtered"] + stats["sampled_out"] + stats["rate_limited"] + stats["oversize"]
    fates = kept_out + sum(stats["rejected"].values()) + stats["evicted"] + stats["processed"] + stats["pending"]
    assert stats["offered"] == fates == offered, stats
    for sink in stats["sinks"]:
        fates = ("delivered", "dead_lettered", "failed", "evicted", "rejected", "in_flight")
        assert sink["offered"] == sum(sink[fate] for fate in fates), sink


def law_of_run(run, offered):
    """Checks the law for a run that has ended, or that it ends, which was offered so many events beside its heartbeats."""
    report = run.finish()
    law(report, report.offered)
    records = [record.name for record in forebay.read(run.folder)]
    # Those of its earlier generations are in the same file.
    own = records[len(records) - report.offered :]
    assert report.offered - own.count("training.heartbeat") == offered, own


class Disk:
    """A disk that hangs until it is let go: the worker waits for somebody who writes to a named pipe."""

    def __init__(self, writer, path):
        self.path = path
        os.mkfifo(path)
        writer._hang_on(path)

    def let_go(self):
        with self.path.open("w"):
            pass


PIPE = 4096


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


@contextmanager
def handling(handler):
    """Has a function handle SIGUSR1. What hangs in it is ended by an exception after a minute."""

    def fail(*_):
        raise AssertionError("the handler of the signal hangs")

    before = signal.signal(signal.SIGUSR1, handler), signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGALRM, before[1])
