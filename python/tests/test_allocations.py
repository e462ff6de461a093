"""What a call allocates, by an allocator that counts."""

import os
import shutil
import subprocess
import sys

import pytest

#: Counts the calls of each thread, and goes on to the C library. Python's own small objects come from arenas of its own.
COUNTER = """
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);
static __thread long count;
long allocations(void) { long found = count; count = 0; return found; }
void *malloc(size_t size) { count++; return __libc_malloc(size); }
void *calloc(size_t items, size_t size) { count++; return __libc_calloc(items, size); }
void *realloc(void *old, size_t size) { count++; return __libc_realloc(old, size); }
void *memalign(size_t alignment, size_t size) { count++; return __libc_memalign(alignment, size); }
void *aligned_alloc(size_t alignment, size_t size) { count++; return __libc_memalign(alignment, size); }
int posix_memalign(void **found, size_t alignment, size_t size) { count++; *found = __libc_memalign(alignment, size); return !*found; }
"""

SCRIPT = """
import ctypes, gc, sys
from forebay import Collector, SummaryWriter, init

allocations = ctypes.CDLL(None).allocations
allocations.restype = ctypes.c_long
tags = [f"train/metric_{number}" for number in range(20)]
writer, run, collector = SummaryWriter(sys.argv[1] + "/writer"), init(sys.argv[1]), Collector(capacity=100_000)
many, five = dict.fromkeys(tags, 0.5), dict.fromkeys("abcde", 0.5)
calls = {
    "add_scalar": lambda step: writer.add_scalar("loss", 0.25, step),
    "add_scalar of a whole number": lambda step: writer.add_scalar("loss", 3, step, 1.5),
    "add_scalar with a name made anew": lambda step: writer.add_scalar(f"train/metric_{step % 20}", 0.25, step),
    "add_scalars of 5": lambda step: writer.add_scalars("losses", five, step),
    "collect": lambda step: collector.collect("loss", 0.25, step=step),
    "log of 20": lambda step: run.log(many, step),
    "add_scalar with one of 1,000 names": lambda step: writer.add_scalar(f"layer/{step}", 0.25, step),
    "add_scalar with a name beyond the 16,384th": lambda step: writer.add_scalar(f"beyond/{step}", 0.25, step),
}
gc.disable()
for step in range(1000):
    writer.add_scalar(f"layer/{step}", 0.25, step)
for name, call in calls.items():
    if "beyond" in name:
        for number in range(16_384):
            writer.add_scalar(f"many/{number}", 0.25, 0)
    # The first calls make what the later ones use.
    for step in range(100):
        call(step)
    writer.flush(), run.flush(), collector.flush()
    allocations()
    for step in range(1000):
        call(step)
    print(f"{name}={allocations() / 1000}")
"""


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("counter")
    (folder / "counter.c").write_text(COUNTER)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "counter.c", "-o", "counter.so"], cwd=folder, check=True)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder / "run")], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "LD_PRELOAD": str(folder / "counter.so")},
    )  # fmt: skip
    return dict(line.split("=") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("call", "allowed"),
    [
        ("add_scalar", 0),
        ("add_scalar of a whole number", 0),
        ("add_scalar with a name made anew", 0),
        # For each scalar, the box that says which sub-run it is of; and the name of that, built in one buffer.
        ("add_scalars of 5", 5 + 2),
        ("collect", 0),
        # The copy of the dictionary, and the records before they are collected.
        ("log of 20", 2),
        # More than a thread remembers, so that it asks for the name that all threads have in common.
        ("add_scalar with one of 1,000 names", 0),
        # More than are kept for ever: the text, and the block that has its count of references.
        ("add_scalar with a name beyond the 16,384th", 2),
    ],
)
def test_a_call_allocates_no_more_than_it_says(call, allowed, counted):
    assert float(counted[call]) <= allowed, counted
