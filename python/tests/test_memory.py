"""What large values cost in memory: on the caller, on the worker, and in the budget of the queue."""

import os
import subprocess
import sys
import sysconfig
from array import array
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
values = np.random.default_rng(0).standard_normal({})
def faults():
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
before = faults()
writer.add_histogram("weights", values, bins=[0.0, 1.0])
print(faults() - before)
writer.close()
"""


@pytest.mark.skipif(not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(), reason="the system has no huge pages")
def test_the_first_histogram_of_a_million_values_is_copied_into_huge_pages(tmp_path):
    # Of 4 KiB, there would be 15,625 pages. Small ones are those for which the system has no huge one.
    assert run(FAULTS.format(8_000_000), tmp_path) < 8_000
    # And here 1,954.
    assert run(FAULTS.format(1_000_000), tmp_path) < 1_000


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
    edges, added = array("d", [0.0]) * 1_000_000, 0
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


#: Where memory is limited by its addresses. The allocator of a Python without a GIL takes them by the GiB, long before it needs them.
LIMITED = pytest.mark.skipif(
    not Path("/proc/self/statm").exists() or bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="needs a limit that Python obeys"
)

#: Limits the address space of the process to what it has, and so many bytes more.
LIMIT = """
import resource, sys

def limit(more):
    held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + more, resource.getrlimit(resource.RLIMIT_AS)[1]))

def error_of(call):
    try:
        return call()
    except MemoryError as error:
        return error
"""


def limited(script, *arguments):
    """Runs a script in a process whose memory it limits, and returns the lines of its output and of its errors."""
    # Otherwise, glibc keeps up to 64 MB of what was freed, and reserves as much for a thread when it allocates first.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LIMIT + script, *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


#: An array that has no memory yet, and a process that gets no more than a quarter of what a copy of it takes.
REFUSED = """
import numpy as np
from forebay import Collector, Histogram, SummaryWriter, sinks

size = 1 << 30
values = np.zeros(size, np.uint8).reshape(1 << 10, -1)
values = values.T if "strided" in sys.argv[2:] else values
writer, collector = SummaryWriter(sys.argv[1]), Collector()
limit(size // 4)
refused = 0
calls = [
    lambda: writer.add_histogram("x", values, bins=[0.0, 1.0]),
    lambda: writer.add_tensor("x", values),
    lambda: writer.add_image("x", values, dataformats="HW"),
    lambda: collector.collect("x", Histogram(values)),
]
for call in calls:
    error = error_of(call)
    # NumPy makes a copy of its own of what is strided.
    refused += isinstance(error, MemoryError) and ("strided" in sys.argv[2:] or "there is no memory for a copy" in str(error))
writer.add_scalar("loss", 0.5, 1)
writer.close()
collector.stop()
print(refused)
"""


@LIMITED
@pytest.mark.parametrize("kind", ["whole", "strided"])
def test_a_copy_for_which_there_is_no_memory_is_refused_with_an_error(kind, tmp_path):
    assert limited(REFUSED, tmp_path, kind)[0] == ["4"]


#: What images of several layouts take.
LAYOUTS = """
from forebay import Image, _arrays
from forebay._forebay import frames_of, pixels_of, sprite_of
import numpy as np

def copied(make, *shape):
    return make(np.zeros(np.prod(shape), np.uint8), "|u1", shape)

calls = [
    lambda: copied(lambda *image: sprite_of(*image, 15), 200, 3, 1, 1000),
    lambda: copied(lambda *image: pixels_of(*image, "NCHW"), 9, 1, 1000, 2000),
    lambda: copied(frames_of, 5, 10, 3, 500, 600),
    lambda: Image(np.zeros((2, 4000, 4000), np.uint8)),
    lambda: Image(np.zeros((1, 6000, 4000), np.uint8)),
]
limit(100_000_000)
for call in calls:
    print(error_of(call))
# There is memory for the pixels, but not for both them and the bytes of Python.
limit(28_000_000)
print(type(error_of(lambda: copied(lambda *image: pixels_of(*image, "HW"), 2000, 2000))).__name__)
"""


@LIMITED
def test_the_memory_that_is_asked_for_an_image_follows_from_its_layout():
    assert limited(LAYOUTS)[0] == [
        # The levels, the pixels of 14 rows and 15 columns, and three squares of 15,000 pixels a side.
        f"there is no memory for a sprite: it takes up to {600_000 + 630_000 + 3 * 15_000**2 * 3} bytes",
        # 9 images in 2 rows of 8.
        f"there is no memory for an image: it takes up to {18_000_000 + 16 * 2_000_000 * 3} bytes",
        # 5 videos in 2 rows of 4.
        f"there is no memory for a video: it takes up to {45_000_000 + 10 * 8 * 900_000} bytes",
        # Two channels become four.
        f"there is no memory for an image: it takes up to {32_000_000 + 32_000_000 + 64_000_000} bytes",
        f"there is no memory for an image: it takes up to {24_000_000 + 72_000_000} bytes",
        "MemoryError",
    ]


#: A process that has memory for a copy, and hardly more: the small allocations that follow do not ask for theirs.
LAST = """
import numpy as np
from forebay import SummaryWriter

size = 4 << 20
values, text = np.zeros(size, np.uint8), "x" * size
writer = SummaryWriter(sys.argv[1])
writer.add_scalar("loss", 0.5, 1)
writer.flush()
limit(size + int(sys.argv[2]))
for call in (lambda: writer.add_histogram("x", values), lambda: writer.add_text("x", text)):
    print(error_of(call))
    writer.flush()
writer.add_scalar("loss", 0.25, 2)
writer.close()
print(writer.stats()["processed"])
"""


@LIMITED
@pytest.mark.parametrize("more", [1 << 16, 1 << 17, 3 << 16, 1 << 20])
def test_a_copy_that_would_take_the_last_memory_is_refused(more, tmp_path):
    printed, _ = limited(LAST, tmp_path, more)
    assert printed == [f"there is no memory for a copy: it takes {4 << 20} bytes"] * 2 + ["2"]


#: Texts, bytes and numbers that the loop copies, and a process that gets no more than a quarter of what a copy takes.
COPIES = """
from array import array
from forebay import Collector, SummaryWriter
from forebay.bus import EventBus

size = 64 << 20
data, text, odd = bytes(size), "x" * size, chr(0xD800) + "x" * size

class Shown:
    def __str__(self):
        return text

writer, collector, bus = SummaryWriter(sys.argv[1]), Collector(), EventBus()
hparams, one, few, numbers = {"text": text}, bytes(8), array("d", [1.0]), array("d", bytes(size))
calls = [
    lambda: writer.add_text("x", text),
    lambda: writer.add_hparams(hparams, {}),
    lambda: writer.add_mesh("x", [[[1.0, 2.0, 3.0]]], config_dict={"x": text}),
    lambda: writer._add_drawn("x", data, (1024, size >> 10), (size >> 10, 1024, 1), None, None),
    lambda: writer._add_encoded_image("x", data, (1, 1, 1), None, None),
    lambda: writer._add_summary(data, None, None),
    lambda: writer._add_event(data, None, None),
    lambda: writer._add_graph(data, None, None),
    lambda: writer._add_graph(b"", data, None),
    lambda: collector.collect("x", text),
    lambda: collector.collect("x", odd),
    lambda: collector.collect("x", Shown()),
    lambda: collector.collect("x", {"y": [text]}),
    lambda: collector.collect("x", {text: 1}),
    lambda: bus.emit_sync("x", {"y": text}),
    lambda: bus.emit_sync("x", {text: 1}),
    lambda: writer.add_custom_scalars({"x": {"y": ["Multiline", [text]]}}),
    lambda: writer.add_custom_scalars({text: {}}),
    lambda: writer.add_hparams({text: 1.0}, {}),
    lambda: writer.add_hparams({}, {text: 1.0}),
    lambda: writer._add_histogram("x", one, "<f8", numbers, None, None, None, None),
    lambda: writer._add_histogram("x", one, "<f8", None, numbers, None, None, None),
    lambda: writer._add_histogram_raw("x", [0.0] * 5, numbers, few, None, None),
    lambda: writer._add_pr_curve_raw("x", [few] * 5 + [numbers], None, None),
]
limit(size // 4)
for call in calls:
    print(type(error_of(call)).__name__)
writer.close()
collector.stop()
bus.shutdown()
"""


@LIMITED
def test_texts_bytes_and_numbers_that_there_is_no_memory_to_copy_are_refused_with_an_error(tmp_path):
    assert limited(COPIES, tmp_path)[0] == ["MemoryError"] * 24


#: An image, and a process that gets no more than a third of what a copy of it takes.
IMAGE = """
import numpy as np
from forebay import Collector, Image, sinks

image = Image(np.zeros((3, 4096, 4096), np.uint8))
collector = Collector([sinks.JsonLines(sys.argv[1] + "/events.jsonl")], max_bytes=1 << 30)
limit(16 << 20)
print(collector.collect("x", image))
print(error_of(lambda: collector.collect("x", {"y": image})))
report = collector.stop()
print(report.offered, report.processed, sum(report.failed.values()))
"""


@LIMITED
def test_an_image_is_copied_on_the_worker_and_in_the_call_only_within_a_dictionary(tmp_path):
    printed, _ = limited(IMAGE, tmp_path)
    assert printed == ["queued", f"there is no memory for a copy of an image: it takes up to {3 * 4096**2} bytes", "1 1 1"]


#: Values for which there is memory while they are queued, of a run and of `add_hparams`, and a process that gets less than what sinks make
#: of them.
UNENCODED_RUN = """
import forebay
from forebay import SummaryWriter

text, bins = "x" * (40 << 20), []
writer = SummaryWriter(sys.argv[1] + "/writer")
# So that what it takes once is there.
forebay.init(sys.argv[1]).finish()
limit(256 << 20)
writer.add_hparams({"text": text}, {"loss": 0.5}, run_name=".")
writer.close()
stats = writer.stats()
print(stats["offered"], stats["processed"], stats["failed"])
run = forebay.init(sys.argv[1], config={"text": text})
run.log({"loss": 0.5}, step=1)
run.summary["text"] = text
report = run.finish()
stats = run.collector.stats()
print(stats.offered, stats.processed, sorted(stats.failed.values()))
run = forebay.init(sys.argv[1])
run.finish(status="failed", reason=text)
stats = run.collector.stats()
print(stats.offered, stats.processed, sorted(stats.failed.values()))
"""


@LIMITED
def test_settings_and_ends_of_runs_that_there_is_no_memory_to_encode_are_counted(tmp_path):
    assert limited(UNENCODED_RUN, tmp_path)[0] == ["4 4 1", "3 3 [2, 2]", "2 2 [1, 1]"]


#: An image whose copy there is memory for, and a process that gets no more than half of what the worker makes of it.
UNENCODED = """
import numpy as np
from forebay import SummaryWriter

size = 64 << 20
values = np.zeros((4, size // 4), np.uint8)
writer = SummaryWriter(sys.argv[1])
writer.add_scalar("loss", 0.5, 1)
writer.flush()
limit(3 * size)
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


@LIMITED
def test_what_there_is_no_memory_to_encode_is_not_written_and_counted(tmp_path):
    printed, logged = limited(UNENCODED, tmp_path)
    assert printed == ["5 7 7"]
    assert sum(line.startswith("there is no memory to encode") for line in logged) == 5
    assert [value.simple_value for value in values(tmp_path)] == [0.5, 0.25]


#: Events for which there is memory while they are queued, and a process that gets less than what sinks make of two of them.
UNENCODED_EVENTS = """
import numpy as np
from forebay import Collector, Histogram, Image, sinks

image, text = Image(np.zeros((1, 4096, 4096), np.uint8)), "x" * (40 << 20)
files = [sinks.JsonLines(sys.argv[1] + "/events.jsonl"), sinks.TensorBoard(sys.argv[1])]
collector = Collector([*files, sinks.Console()], max_bytes=1 << 30)
collector.log({"loss": 0.5}, step=1)
collector.flush()
limit(256 << 20)
print(error_of(lambda: Image(np.zeros((1, 8192, 8192), np.uint8))))
for values in ({"image": image}, {"text": text}, {"loss": 0.25, "bins": Histogram([1, 2], bins=65_536)}):
    collector.log(values, step=2)
    collector.flush()
report = collector.stop()
print(report.offered, report.processed, sorted(report.failed.values()))
"""


@LIMITED
def test_an_event_that_there_is_no_memory_to_encode_is_not_written_and_counted(tmp_path):
    printed, logged = limited(UNENCODED_EVENTS, tmp_path)
    assert printed == ["there is no memory for an image: it takes up to 268435456 bytes", "5 5 [2, 2, 2]"]
    missing = [line for line in logged if line.startswith("there is no memory")]
    assert missing == [f'there is no memory to encode "{name}": it is not written' for name in ("image", "text")]
    # Each sink says that it refuses them, and the console shows the others alone.
    refused = {line.split(": ")[1] for line in logged if line.startswith("error: ")}
    assert refused == {"json_lines", "tensorboard", "console"}, logged
    assert [line.split()[1] for line in logged if line.startswith("[] ")] == ["loss", "loss", "bins"]
    # The gaps tell of both in the file.
    kept = [record.name for record in read(tmp_path / "events.jsonl")]
    assert kept == ["loss", "forebay.gap", "forebay.gap", "loss", "bins"]
