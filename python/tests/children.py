"""What the processes of `test_processes.py` run."""

import os
import signal
import sys

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
