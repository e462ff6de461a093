"""What large values cost in memory: on the caller, on the worker, and in the budget of the queue."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import Disk, full_pipe, law, values

from forebay import Collector, Histogram, SummaryWriter, _arrays, read, sinks

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def run(script, folder):
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=100, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return int(done.stdout)


#: The page faults of the calling thread in its first call.
FAULTS = """
import resource, sys
import numpy as np
from forebay import SummaryWriter

writer = SummaryWriter(sys.argv[1])
values = np.random.default_rng(0).standard_normal(8_000_000)
def faults():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
before = faults()
writer.add_histogram("weights", values, bins=[0.0, 1.0])
print(faults() - before)
writer.close()
"""


@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="the system has no huge pages")
def test_the_first_histogram_of_eight_million_values_is_copied_into_huge_pages(tmp_path):
    # Of 4 KiB, there would be 15,625 pages. Those at both ends are small ones, and those for which the system has no huge one.
    assert run(FAULTS, tmp_path) < 8_000


#: The bytes by which the process grows while the worker works on an array of a byte for each element.
GROWTH = """
import resource, sys
import numpy as np
from forebay import Collector, Histogram, SummaryWriter, sinks

bits = np.arange(8_000_000, dtype=np.uint8)
writer, collector = SummaryWriter(sys.argv[1]), Collector([sinks.JsonLines(sys.argv[1] + "/events.jsonl")])
calls = {{
    "pr_curve": lambda bits: writer.add_pr_curve("c", bits, bits, num_thresholds=2),
    "histogram": lambda bits: collector.collect("h", Histogram(bits)),
}}
def peak():
    writer.flush(), collector.flush()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
call = calls["{}"]
call(bits[:1000])
before = peak()
call(bits)
print(peak() - before)
"""


@pytest.mark.parametrize(("call", "copies"), [("pr_curve", 2), ("histogram", 1)])
def test_the_worker_keeps_an_array_in_its_own_type(call, copies, tmp_path):
    # As numbers of 64 bits, the labels or the values alone would take 64 MB.
    assert run(GROWTH.format(call), tmp_path) < (8 * copies + 24) * 1_000_000


def test_the_bins_of_a_histogram_count_in_the_budget_of_a_collector():
    with full_pipe() as drain:
        collector = Collector([sinks.Console()], max_bytes=4 << 20, overflow="drop_newest")
        outcomes = [collector.collect("h", Histogram(np.zeros(2), bins=65_536)) for _ in range(16)]
        drain()
        report = collector.stop()
    # An edge and a count for each bin make 1 MiB.
    assert 2 <= outcomes.count("queued") <= 8, outcomes
    law(report, 16)


def test_the_edges_of_a_histogram_count_in_the_budget_of_a_writer(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "disk")
    data, code, _ = _arrays.raw(np.zeros(1))
    edges, added = [0.0] * 1_000_000, 0
    while not writer.stats()["rejected"]:
        writer._add_histogram("h", data, code, edges, None, None, None, None)
        added += 1
        # 256 MiB, of 8 MB each.
        assert added < 64
    assert added >= 16
    disk.let_go()
    while writer.stats()["pending"]:
        writer.flush()
    writer.close()


#: An array that has no memory yet, and a process that gets no more than a quarter of what a copy of it takes.
REFUSED = """
import resource, sys
import numpy as np
from forebay import Collector, Histogram, SummaryWriter, sinks

size = 1 << 30
values = np.zeros(size, np.uint8).reshape(1 << 10, -1)
values = values.T if "strided" in sys.argv[2:] else values
writer, collector = SummaryWriter(sys.argv[1]), Collector()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + size // 4, resource.getrlimit(resource.RLIMIT_AS)[1]))
refused = 0
calls = [
    lambda: writer.add_histogram("x", values, bins=[0.0, 1.0]),
    lambda: writer.add_tensor("x", values),
    lambda: writer.add_image("x", values, dataformats="HW"),
    lambda: collector.collect("x", Histogram(values)),
]
for call in calls:
    try:
        call()
    except MemoryError as error:
        # NumPy makes one of its own of what is strided.
        refused += "strided" in sys.argv[2:] or "there is no memory for a copy" in str(error)
writer.add_scalar("loss", 0.5, 1)
writer.close()
collector.stop()
print(refused)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a limit that the system obeys")
@pytest.mark.parametrize("kind", ["whole", "strided"])
def test_a_copy_for_which_there_is_no_memory_is_refused_with_an_error(kind, tmp_path):
    done = subprocess.run([sys.executable, "-c", REFUSED, str(tmp_path), kind], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


#: An image whose copy there is memory for, and a process that gets no more than half of what the worker makes of it.
UNENCODED = """
import logging, resource, sys
import numpy as np
from forebay import SummaryWriter

size = 64 << 20
values = np.zeros((4, size // 4), np.uint8)
writer = SummaryWriter(sys.argv[1])
writer.add_scalar("loss", 0.5, 1)
writer.flush()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 3 * size, resource.getrlimit(resource.RLIMIT_AS)[1]))
calls = [
    lambda: writer.add_image("x", values, dataformats="HW"),
    lambda: writer.add_audio("x", values.reshape(-1)),
    lambda: writer.add_tensor("x", values),
    lambda: writer.add_text("x", "x" * size),
    lambda: writer._add_summary(bytes(size), None, None),
]
for call in calls:
    call()
    writer.flush()
writer.add_scalar("loss", 0.25, 2)
writer.close()
stats = writer.stats()
print(stats["failed"], stats["processed"], stats["offered"])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a limit that the system obeys")
def test_what_there_is_no_memory_to_encode_is_not_written_and_counted(tmp_path):
    done = subprocess.run([sys.executable, "-c", UNENCODED, str(tmp_path)], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "5 7 7\n"), done.stderr
    # One line for each, and none by the sink.
    said = done.stderr.splitlines()
    assert [line.startswith("there is no memory to encode") for line in said] == [True] * 5
    assert [value.simple_value for value in values(tmp_path)] == [0.5, 0.25]


#: Events for which there is memory while they are queued, and a process that gets less than what sinks make of two of them.
UNENCODED_EVENTS = """
import resource, sys
import numpy as np
from forebay import Collector, Histogram, Image, sinks

image, text = Image(np.zeros((1, 4096, 4096), np.uint8)), "x" * (40 << 20)
collector = Collector([sinks.JsonLines(sys.argv[1] + "/events.jsonl"), sinks.TensorBoard(sys.argv[1])], max_bytes=1 << 30)
collector.log({"loss": 0.5}, step=1)
collector.flush()
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (256 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
try:
    Image(np.zeros((1, 8192, 8192), np.uint8))
except MemoryError as error:
    print(error)
for values in ({"image": image}, {"text": text}, {"loss": 0.25, "bins": Histogram([1, 2], bins=65_536)}):
    collector.log(values, step=2)
    collector.flush()
report = collector.stop()
print(report.offered, report.processed, sorted(report.failed.values()))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs a limit that the system obeys")
def test_an_event_that_there_is_no_memory_to_encode_is_not_written_and_counted(tmp_path):
    run = [sys.executable, "-c", UNENCODED_EVENTS, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=100, check=False)
    refused = "there is no memory for the pixels of an image, which take 536870912 bytes\n"
    assert (done.returncode, done.stdout) == (0, f"{refused}5 5 [2, 2]\n"), done.stderr
    assert done.stderr == "".join(f"there is no memory to encode {name!r}: it is not written\n" for name in ("image", "text")).replace("'", '"')
    # The gaps tell of both in the file.
    kept = [record.name for record in read(tmp_path / "events.jsonl")]
    assert kept == ["loss", "forebay.gap", "forebay.gap", "loss", "bins"]
