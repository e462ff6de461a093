"""What the processes of `test_processes.py` run."""

import os
import signal
import sys
import threading

from forebay import SummaryWriter

ENDS = ("return", "exception", "sys.exit", "os._exit", "SIGTERM", "SIGKILL")
HOLDERS = ("global", "local", "attribute")

#: What a child adds before a flush, and after it.
FLUSHED, UNFLUSHED = 300, 700

HELD = None


class Holder:
    """Holds a writer, as a dataset does."""

    def __init__(self, writer):
        self.writer = writer


def end(how):
    match how:
        case "exception":
            # Its traceback is no part of what is tested.
            sys.stderr = open(os.devnull, "w")
            raise RuntimeError("the end of a child")
        case "sys.exit":
            sys.exit(3)
        case "os._exit":
            os._exit(4)
        case "SIGTERM" | "SIGKILL":
            os.kill(os.getpid(), getattr(signal, how))
            # SIGTERM has what was added written first, on another thread.
            threading.Event().wait()


def add(writer):
    for step in range(FLUSHED):
        writer.add_scalar("x", step, step)
    writer.flush()
    for step in range(FLUSHED, FLUSHED + UNFLUSHED):
        writer.add_scalar("x", step, step)


def own(folder, holder, how):
    """Adds to a writer that the child makes."""
    global HELD
    writer = SummaryWriter(folder)
    if holder == "global":
        HELD = writer
    elif holder == "attribute":
        # As long-lived as the process: nothing closes it but the end.
        Holder.kept = Holder(writer)
    add(writer)
    end(how)


def inherited(holder, how, given, counted):
    """Adds to the writer of the parent: a global of this module where the child is a fork, and else an argument."""
    writer = HELD if given is None else given
    writer = writer.writer if holder == "attribute" else writer
    add(writer)
    writer.flush()
    counted.put(writer.stats())
    counted.close()
    counted.join_thread()
    end(how)


def log_without_a_run(counted):
    """Logs to the run that goes on: that of the parent where the child is a fork, and else none."""
    import forebay

    for step in range(10):
        forebay.log({"child": 1.0, "other": 2.0}, step=step)
    forebay.event("child.event", value=1)
    with forebay.timer("child.seconds"):
        forebay.summary()["child"] = 1
    report = forebay.finish()
    forebay.log({"child": 1.0})
    counted.put((report.offered - report.processed - report.pending, forebay.finish().lost - report.lost))
    counted.close()
    counted.join_thread()


def log_to_a_run(folder, how):
    """Logs to a run of its own, and ends."""
    import forebay

    run = forebay.init(folder)
    forebay.log({"loss": 0.5}, step=3)
    run.log({"loss": 0.25}, step=4)
    if how == "KeyboardInterrupt":
        sys.stderr = open(os.devnull, "w")
        raise KeyboardInterrupt
    if how == "sys.exit(0)":
        sys.exit(0)
    end(how)


def late(folder, how):
    """Adds from another thread once the child has done its work and ends."""
    import multiprocessing.util
    from concurrent.futures import ThreadPoolExecutor

    global HELD
    HELD = SummaryWriter(folder)
    HELD.add_scalar("first", 0.0, 0)
    ends = threading.Event()
    multiprocessing.util.Finalize(None, ends.set, exitpriority=200)

    def add_late():
        ends.wait()
        for step in range(UNFLUSHED):
            HELD.add_scalar("x", step, step)

    if how == "pool":
        ThreadPoolExecutor(1).submit(add_late)
    else:
        threading.Thread(target=add_late).start()
