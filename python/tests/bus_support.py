"""What the tests of the bus share."""

import faulthandler
import time

import pytest
from forebay.bus import EventBus


@pytest.fixture(autouse=True)
def watchdog():
    """Ends the process with the stacks of all threads where a test hangs."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def bus():
    with EventBus(timeout=60) as bus:
        yield bus
    law(bus)


def law(bus):
    """Checks that every event of a bus at rest has exactly one fate, and so at every handler."""
    assert bus._core.check_law() is None
    metrics = bus.metrics()
    assert metrics.pending == 0
    for handler in [*metrics.handlers, metrics.gone]:
        assert handler.in_flight == 0, handler


def until(is_so):
    """Waits until something is so. The watchdog ends what never is."""
    while not is_so():
        time.sleep(0.001)
