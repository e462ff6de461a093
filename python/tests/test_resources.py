"""What is left of what was opened and closed: no thread, no file, no memory."""

import os
import subprocess
import sys

import pytest

#: What the process has: threads, open files, blocks of Python's objects, and bytes of the C library's allocator in all threads.
SCRIPT = """
import ctypes, gc, os, shutil, sys, time
from forebay import Collector, SummaryWriter, init, sinks

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

info = ctypes.CDLL(None).mallinfo2
info.restype = Info

def held():
    gc.collect()
    until = time.monotonic() + 10
    # A thread that was joined may still be listed for a moment.
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    found = info()
    threads, files = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
    return threads, files, sys.getallocatedblocks(), found.uordblks + found.hblkhd

def writer(folder):
    with SummaryWriter(folder) as writer:
        writer.add_scalar("loss", 0.5, 1)
        writer.add_scalars("losses", {"a": 0.5}, 1)

def run(folder):
    with init(folder, sinks=[sinks.JsonLines(folder + "/events.jsonl")]) as run:
        run.log({"loss": 0.5}, step=1)

def collector(folder):
    with Collector([sinks.JsonLines(folder + "/events.jsonl")], capacity=1000) as collector:
        collector.collect("loss", 0.5)
        subscription = collector.subscribe()

kind, folder, times = globals()[sys.argv[1]], sys.argv[2], int(sys.argv[3])

def open_and_close(times):
    for _ in range(times):
        kind(folder)
        shutil.rmtree(folder)

# What is made once, and pools that grow to what is used at one time.
open_and_close(50)
first = held()
open_and_close(times // 2)
second = held()
open_and_close(times // 2)
third = held()
print(*(min(b - a, c - b) for a, b, c in zip(first, second, third, strict=True)))
"""


@pytest.mark.parametrize("kind", ["writer", "run", "collector"])
def test_a_thousand_that_are_opened_and_closed_leave_nothing(kind, tmp_path):
    times = 1000
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, str(tmp_path / "run"), str(times)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    threads, files, blocks, size = map(int, done.stdout.split())
    assert (threads, files) == (0, 0)
    # The smaller growth of both halves: a table that grew once is in one of them. The smallest leak is a block, or 24 bytes, each time.
    assert blocks < times / 4
    assert size < 10 * times


SCALARS = """
import resource, sys
from forebay import SummaryWriter

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

writer, scalars = SummaryWriter(sys.argv[1]), int(sys.argv[2])
for step in range(100_000):
    writer.add_scalar("train/loss", 0.5, step)
before = peak()
for step in range(scalars):
    writer.add_scalar("train/loss", 0.5, step)
grown = peak() - before
writer.close()
print(grown)
"""


def test_scalars_without_end_need_no_more_memory(tmp_path):
    # A million; ten million where the long checks ask for them.
    scalars = int(os.environ.get("FOREBAY_SCALARS", 1_000_000))
    done = subprocess.run(
        [sys.executable, "-c", SCALARS, str(tmp_path), str(scalars)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "nothing was lost"
    # The queue has 2.4 MB, which the first scalars may not have filled. Records that stay would be 72 MB or more.
    assert int(done.stdout) < 4_000_000
