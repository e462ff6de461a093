"""What holds for every test."""

import os
import re
import signal
from collections import Counter

import pytest

# A shell that starts the tests in the background has them, and the programs that they start, ignore the keyboard's signal.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: What is too large to install for every check, or does what something else does that is installed. Tests of it run where it is there.
OPTIONAL = ("accelerate", "flax", "grpc", "jax", "keras", "lightning", "polars", "pyarrow", "tensorboardX", "torch", "transformers")

#: Tests that did not run, by the reason.
_skipped = Counter()


def pytest_runtest_logreport(report):
    _note(report)


def pytest_collectreport(report):
    _note(report)


def _note(report):
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped[reason.removeprefix("Skipped: ")] += 1


def _missing(reason):
    """The module that a test needs, and that is not there."""
    found = re.search(r"could not import '(\w+)", reason)
    return found and found[1]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session, exitstatus):
    # As for the tests in Rust: a test that cannot run says so, and in CI that is a failure.
    unknown = [reason for reason in _skipped if _missing(reason) not in OPTIONAL]
    if unknown and exitstatus == 0 and os.environ.get("FOREBAY_NO_SKIPS"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """Says what did not run, in the form that `.ci/run` gathers."""
    for reason, count in sorted(_skipped.items()):
        terminalreporter.write_line(f"skipped: {_missing(reason) or reason} is not there, for {count} tests or files of them")
