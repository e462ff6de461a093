"""Forks, children of `multiprocessing`, copies, and all ends of a process. Whatever hangs is killed, and fails."""

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import children
import pytest
from children import ENDS, FLUSHED, HOLDERS, UNFLUSHED
from support import Disk, values

from forebay import SummaryWriter

METHODS = ("fork", "spawn", "forkserver")

#: The size of a process is read there.
PROC = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")

#: The most seconds until a process that hangs is killed.
WATCHDOG = 60

#: Ends that can be seen: nothing is lost then.
SEEN = ("return", "exception", "sys.exit", "SIGTERM")

CODES = {"return": 0, "exception": 1, "sys.exit": 3, "os._exit": 4, "SIGTERM": -15, "SIGKILL": -9}


def ended(processes):
    """Waits until all processes have ended, and returns their exit codes."""
    until = time.monotonic() + WATCHDOG
    for process in processes.values():
        process.join(max(0.0, until - time.monotonic()))
    hanging = [name for name, process in processes.items() if process.is_alive()]
    for name in hanging:
        processes[name].kill()
    assert not hanging, f"these hang: {hanging}"
    return {name: process.exitcode for name, process in processes.items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_child_loses_nothing_of_its_own_writer_where_its_end_can_be_seen(method, tmp_path):
    context = multiprocessing.get_context(method)
    processes = {
        (holder, how): context.Process(target=children.own, args=(tmp_path / holder / how, holder, how))
        for holder in HOLDERS
        for how in ENDS
    }
    for process in processes.values():
        process.start()
    assert ended(processes) == {(holder, how): CODES[how] for holder, how in processes}
    for holder, how in processes:
        count = len(values(tmp_path / holder / how))
        if how in SEEN:
            assert count == FLUSHED + UNFLUSHED, (holder, how)
        else:
            # What was not flushed may be lost, and nothing else.
            assert FLUSHED <= count <= FLUSHED + UNFLUSHED, (holder, how)


@pytest.mark.parametrize("method", METHODS)
def test_a_child_loses_nothing_of_threads_that_outlast_its_work(method, tmp_path):
    context = multiprocessing.get_context(method)
    processes = {how: context.Process(target=children.late, args=(tmp_path / how, how)) for how in ("thread", "pool")}
    for process in processes.values():
        process.start()
    assert ended(processes) == {"thread": 0, "pool": 0}
    for how in processes:
        assert len(values(tmp_path / how)) == 1 + children.UNFLUSHED, how


@pytest.mark.parametrize("in_child", ["ignore", "reopen"])
@pytest.mark.parametrize("method", METHODS)
def test_a_writer_of_the_parent_is_ignored_or_opened_again_in_a_child(method, in_child, tmp_path):
    context = multiprocessing.get_context(method)
    counted = context.Queue()
    processes, writers = {}, {}
    for holder in HOLDERS:
        for how in ENDS:
            writer = writers[holder, how] = SummaryWriter(tmp_path / holder / how, in_child=in_child)
            held = children.Holder(writer) if holder == "attribute" else writer
            if method == "fork" and holder == "global":
                children.HELD, given = held, None
            else:
                given = held
            process = processes[holder, how] = context.Process(target=children.inherited, args=(holder, how, given, counted))
            process.start()
    children.HELD = None
    stats = [counted.get(timeout=WATCHDOG) for _ in processes]
    assert ended(processes) == {(holder, how): CODES[how] for holder, how in processes}
    added = FLUSHED + UNFLUSHED
    for name, writer in writers.items():
        writer.add_scalar("parent", 1.0)
        writer.close()
        assert [value.tag for value in values(tmp_path / Path(*name))] == ["parent"]
        folders = [each for each in (tmp_path / Path(*name)).iterdir() if each.is_dir()]
        if in_child == "reopen":
            assert [folder.name for folder in folders] == [f"pid_{processes[name].pid}"]
            assert len(values(folders[0])) == added
        else:
            assert folders == []
    if in_child == "ignore":
        assert [each["ignored"] for each in stats] == [added] * len(processes)
    else:
        assert [(each["processed"], each["ignored"]) for each in stats] == [(added, 0)] * len(processes)


#: Adds to two writers and ends by SIGTERM, which comes while the main thread holds the GIL in a call that does not end.
TERMINATED = """
import os, signal, sys, threading
from forebay import SummaryWriter
folder, how = sys.argv[1:]
def own(*_): sys.exit(5)
if how == "handler before":
    signal.signal(signal.SIGTERM, own)
if how == "handler in C":
    import faulthandler
    faulthandler.register(signal.SIGTERM, file=open(os.devnull, "w"))
writers = [SummaryWriter(f"{folder}/{name}", flush_on_sigterm=how != "refused") for name in "ab"]
if how == "handler after":
    signal.signal(signal.SIGTERM, own)
if how == "closed":
    SummaryWriter(f"{folder}/c").close()
if how == "handler for a while":
    signal.signal(signal.SIGTERM, signal.signal(signal.SIGTERM, own))
    SummaryWriter(f"{folder}/c").close()
if how == "no thread":
    import resource
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    # A thread takes 2 MiB.
    resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), resource.RLIM_INFINITY))
for step in range(700):
    for writer in writers:
        writer.add_scalar("x", step, step)
if how in ("handler before", "handler after", "handler in C"):
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(0)
if how == "refused":
    [writer.close() for writer in writers]
    os.kill(os.getpid(), signal.SIGTERM)
print("ready", flush=True)
sum(iter(int, 1))
"""


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("alone", -15), ("closed", -15), ("refused", -15), ("handler before", 5), ("handler after", 5), ("handler in C", 0),
        ("handler for a while", -15), pytest.param("no thread", -15, marks=PROC),
    ],
)
def test_sigterm_has_a_writer_write_what_it_has_unless_the_program_handles_it(how, code, tmp_path):
    command = [sys.executable, "-c", TERMINATED, str(tmp_path), how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout.readline():
                process.send_signal(signal.SIGTERM)
            assert process.wait(WATCHDOG) == code
        finally:
            process.kill()
    assert [len(values(tmp_path / name)) for name in "ab"] == [700, 700]


#: Drops a writer whose disk hangs, and ends by SIGTERM meanwhile.
DROPPED = """
import os, signal, sys, threading, weakref
from forebay import SummaryWriter
folder = sys.argv[1]
os.mkfifo(f"{folder}/disk")
dropped = threading.Event()

# The thread that drops it has made it: without a GIL, another one would leave the drop to that one.
def drop():
    global seen
    writer = SummaryWriter(f"{folder}/run")
    writer._hang_on(f"{folder}/disk")
    for step in range(700):
        writer.add_scalar("x", step, step)
    seen = weakref.ref(writer, lambda _: dropped.set())

threading.Thread(target=drop, daemon=True).start()
dropped.wait()
os.kill(os.getpid(), signal.SIGTERM)
open(f"{folder}/disk", "w").close()
sum(iter(int, 1))
"""


def test_sigterm_has_a_writer_that_was_dropped_write_what_it_has(tmp_path):
    done = subprocess.run([sys.executable, "-c", DROPPED, tmp_path], timeout=WATCHDOG, check=False)
    assert done.returncode == -15
    assert len(values(tmp_path / "run")) == 700


def test_a_forked_child_ends_by_sigterm_at_once_and_the_parent_keeps_what_it_has(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "disk")
    writer.add_scalar("x", 1.0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(WATCHDOG)
        os.write(writing, b"!")
        while True:
            writer.add_scalar("x", 2.0)
    os.read(reading, 1)
    # A worker that is asked to end waits for no disk, which the parent's does.
    os.kill(child, signal.SIGTERM)
    assert os.waitpid(child, 0)[1] == signal.SIGTERM
    disk.let_go()
    writer.close()
    os.close(reading), os.close(writing)
    assert [value.simple_value for value in values(tmp_path / "run")] == [1.0]


def test_a_writer_is_not_opened_for_sigterm_where_it_is_refused_or_has_no_effect(tmp_path, monkeypatch):
    with SummaryWriter(tmp_path, flush_on_sigterm=False) as writer:
        assert not writer._watches_sigterm()
        assert not pickle.loads(pickle.dumps(writer))._watches_sigterm()
    with SummaryWriter(tmp_path) as writer:
        assert writer._watches_sigterm()
        monkeypatch.setattr(os, "getpid", lambda: 1)
        assert not writer._watches_sigterm()


AT_IMPORT = """
import multiprocessing, os, sys
from forebay import SummaryWriter
# A child imports this script before it begins its work.
writer = SummaryWriter(os.path.join(os.environ["FOLDER"], multiprocessing.current_process().name))
def work():
    # Too few to be delivered before the interval is over.
    for step in range(100):
        writer.add_scalar("x", step, step)
if __name__ == "__main__":
    process = multiprocessing.get_context(os.environ["METHOD"]).Process(target=work, name="child")
    process.start()
    process.join(60)
    sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_loses_nothing_of_a_writer_that_the_import_of_the_script_makes(method, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(AT_IMPORT)
    run(script, env={**os.environ, "FOLDER": str(tmp_path), "METHOD": method})
    if not (tmp_path / "child").exists():
        # Newer servers of forks import the script themselves: the child is a fork then.
        assert method == "forkserver" and sys.version_info >= (3, 13)
        return
    assert len(values(tmp_path / "child")) == 100


SCRIPT = """
import os, signal, sys
from forebay import SummaryWriter
writer = SummaryWriter(sys.argv[1])
for step in range(1000):
    writer.add_scalar("x", step, step)
how = sys.argv[2]
if how == "sys.exit":
    sys.exit(3)
if how == "exception":
    raise RuntimeError("the end")
if how == "SIGINT":
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
if how == "thread":
    import threading
    threading.Thread(target=lambda: writer.add_scalar("x", 0.0), daemon=True).start()
if how == "cycle":
    class Node: pass
    node = Node(); node.itself, node.writer = node, writer
    del node, writer
if how == "module":
    sys.modules["forebay"].kept = writer
    del writer
if how == "fork":
    if os.fork() == 0:
        writer.add_scalar("child", 1.0); writer.flush(); writer.close()
        sys.exit(0)
    os.wait()
"""


def run(*arguments, code=0, **options):
    """Runs a script, and returns what it prints."""
    options = {"timeout": WATCHDOG, "capture_output": True, "text": True, **options}
    done = subprocess.run([sys.executable, *map(str, arguments)], check=False, **options)
    assert done.returncode == code, done
    return done


@pytest.mark.parametrize(
    ("how", "code"),
    [("return", 0), ("sys.exit", 3), ("exception", 1), ("SIGINT", -2), ("thread", 0), ("cycle", 0), ("module", 0), ("fork", 0)],
)
def test_a_program_that_ends_without_a_close_loses_nothing(how, code, tmp_path):
    # From Python 3.12 on, `os.fork` warns where there are threads.
    done = run("-W", "ignore:This process:DeprecationWarning", "-c", SCRIPT, tmp_path, how, code=code)
    assert [value.tag for value in values(tmp_path)][:1000] == ["x"] * 1000
    assert "child" not in [value.tag for value in values(tmp_path)]
    if how not in ("exception", "SIGINT"):
        assert done.stderr == ""


def test_a_fork_within_other_threads_neither_hangs_nor_writes(tmp_path):
    import threading

    writer = SummaryWriter(tmp_path)
    stop = threading.Event()

    def add():
        while not stop.is_set():
            writer.add_scalar("parent", 1.0)

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(WATCHDOG)
                writer.add_scalar("child", 1.0)
                writer.add_histogram("child", bytes(8))
                writer.flush()
                writer.close()
                writer.add_scalar("child", 1.0)
                os._exit(0 if (writer.stats()["offered"], writer.stats()["ignored"]) == (0, 3) else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    writer.close()
    assert {value.tag for value in values(tmp_path)} == {"parent"}


def test_a_copy_is_the_same_writer_and_a_pickled_one_is_none(tmp_path):
    with SummaryWriter(tmp_path, filename_suffix=".mine") as writer:
        assert copy.copy(writer) is writer is copy.deepcopy([writer])[0]
        other = pickle.loads(pickle.dumps(writer))
        other.add_scalar("copy", 1.0)
        other.add_text("copy", "text")
        other.flush()
        assert (other.stats()["offered"], other.stats()["ignored"]) == (0, 2)
        assert (other.log_dir, other.filename_suffix) == (str(tmp_path), ".mine")
        assert (other.file_writer, repr(other)) == (None, f"<SummaryWriter of {str(tmp_path)!r}, closed: 0 added, 0 pending, 0 lost, 2 ignored>")
        other.close()
    assert values(tmp_path) == []


def test_a_thousand_writers_leave_no_thread_and_no_descriptor(tmp_path):
    def open_things():
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    SummaryWriter(tmp_path).close()
    before = open_things()
    for number in range(1000):
        writer = SummaryWriter(tmp_path)
        writer.add_scalar("x", number, number)
        if number % 2:
            writer.close()
        del writer
    # The system takes a thread off its list a moment after it has ended. Threads of earlier tests may end meanwhile.
    until = time.monotonic() + WATCHDOG
    while any(now > then for now, then in zip(open_things(), before, strict=True)):
        assert time.monotonic() < until, (open_things(), before)
    assert len(values(tmp_path)) == 1000
