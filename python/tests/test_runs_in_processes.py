"""Runs in forks and children of `multiprocessing`, and in interpreters below the main one. Whatever hangs is killed, and fails."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import children
import pytest
from support import forked, law_of_run
from test_processes import METHODS, WATCHDOG, ended

import forebay


def test_a_forked_child_counts_what_it_logs_to_the_run_of_its_parent(tmp_path):
    run = forebay.init(tmp_path)
    run.log({"loss": 0.5}, step=0)

    def child():
        for step in range(100):
            forebay.log({"child": 1.0}, step=step)
        forebay.event("child")
        run.flush(1.0)
        report = forebay.finish()
        # Also after it.
        forebay.log({"child": 1.0})
        return report.stats["rejected"]["forked"], run.collector.stats().stats["rejected"]["forked"]

    assert forked(child) == [101, 102]
    run.log({"loss": 0.25}, step=1)
    law_of_run(run, 4)
    assert [record.name for record in forebay.read(run.folder)] == ["training.started", "loss", "loss", "training.completed"]


def test_a_forked_child_begins_a_run_of_its_own(tmp_path):
    run = forebay.init(tmp_path / "parent")

    def child():
        with forebay.init(tmp_path / "child"):
            forebay.log({"child": 1.0}, step=0)

    forked(child)
    forebay.log({"loss": 0.5}, step=0)
    law_of_run(run, 3)
    (info,) = forebay.runs(tmp_path / "child")
    assert (info.status, forebay.read(info.folder).scalars("child")) == ("finished", ([0], [1.0]))


@pytest.mark.parametrize("method", METHODS)
def test_a_child_without_a_run_counts_what_it_logs(method, tmp_path):
    context = multiprocessing.get_context(method)
    counted = context.Queue()
    with forebay.init(tmp_path) as run:
        process = context.Process(target=children.log_without_a_run, args=(counted,))
        process.start()
        # 10 steps of 2 values, an event and a timer; and one after the end.
        assert counted.get(timeout=WATCHDOG) == (22, 1)
        assert ended({"child": process}) == {"child": 0}
    law_of_run(run, 2)
    assert "child" not in run.summary


def test_without_a_run_the_first_process_is_told_so():
    with pytest.raises(RuntimeError, match="there is no run: call forebay.init first"):
        forebay.log({"loss": 0.5})


def test_threads_without_a_run_lose_no_count():
    nowhere = forebay._run._NoRun(has_warned=True)
    before = nowhere.finish().offered
    other = threading.Thread(target=nowhere.event, args=("other",))

    class Slow(int):
        def __radd__(self, counted):
            other.start()
            # It ends while this one counts, unless it waits for it.
            other.join(0.2)
            return counted + int(self)

    nowhere._ignore(Slow(1))
    other.join(WATCHDOG)
    assert nowhere.finish().offered - before == 2


def test_a_fork_within_a_count_hangs_nobody():
    child = None
    nowhere = forebay._run._NoRun(has_warned=True)

    class Forks(int):
        def __radd__(self, counted):
            nonlocal child
            forking = threading.Thread(target=fork)
            forking.start()
            forking.join(WATCHDOG)
            return counted + int(self)

    def fork():
        nonlocal child
        child = os.fork()
        if child == 0:
            # The thread that holds the lock is not there.
            code = 1
            try:
                signal.alarm(WATCHDOG)
                nowhere.event("child")
                code = 0 if nowhere.finish().offered == 1 else 2
            finally:
                os._exit(code)

    nowhere._ignore(Forks(1))
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_a_child_says_how_it_ended(method, tmp_path):
    statuses = {
        "return": "finished", "exception": "failed", "sys.exit": "failed", "sys.exit(0)": "finished", "KeyboardInterrupt": "preempted",
    }  # fmt: skip
    # From Python 3.13 on, multiprocessing leaves an exit code alone.
    leaves_exception = sys.version_info < (3, 13)
    if not leaves_exception:
        statuses["KeyboardInterrupt"] = "failed"
    context = multiprocessing.get_context(method)
    processes = {how: context.Process(target=children.log_to_a_run, args=(tmp_path / how, how)) for how in statuses}
    for process in processes.values():
        process.start()
    ended(processes)
    for how, status in statuses.items():
        (info,) = forebay.runs(tmp_path / how)
        assert (how, info.status, info.last_step) == (how, status, 4)
        assert forebay.read(info.folder).scalars("loss") == ([3, 4], [0.5, 0.25])
        if how == "exception":
            if leaves_exception:
                assert "the end of a child" in info.reason and "Traceback" in info.reason
            else:
                assert info.reason == "the process ended with exit code 1"


INTERPRETER = """
import sys
import forebay  # as it is in the main one
if sys.version_info >= (3, 13):
    import _interpreters as interpreters
else:
    import _xxsubinterpreters as interpreters
script = '''
try:
    import forebay
except ImportError as error:
    print(error)
else:
    print("imported")
'''
ids = [interpreters.create()]
if sys.version_info >= (3, 13):
    ids.append(interpreters.create("isolated"))
for each in ids:
    said = interpreters.run_string(each, script)
    if said is not None:
        print("raised", said)
    interpreters.destroy(each)
with forebay.SummaryWriter(sys.argv[1]) as writer:
    writer.add_scalar("x", 1.0)
print(writer.stats().get("offered", writer.stats()), "done")
"""


def test_an_interpreter_below_the_main_one_is_refused_with_a_reason(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETER, tmp_path], capture_output=True, text=True, timeout=WATCHDOG, check=True
    )
    *said, last = done.stdout.splitlines()
    assert said and set(said) == {"forebay cannot be imported in a sub-interpreter: import it in the main interpreter"}
    assert last.endswith("done")
