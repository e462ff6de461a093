"""A disk that hangs, and what that costs the loop."""

import numpy as np
from support import Disk, values

from forebay import SummaryWriter


def fill(writer):
    """Adds scalars until one of them has waited in vain, and returns how many there were."""
    for step in range(200_000):
        writer.add_scalar("x", 0.5, step)
        if writer.stats()["rejected"]:
            return step + 1
    raise AssertionError("the queue never was full")


def checked(writer, added):
    """Returns the statistics, whose fates add up to what was added."""
    stats = writer.stats()
    fates = ("processed", "pending", "evicted", "rejected")
    assert stats["offered"] == sum(stats[fate] for fate in fates) == added, stats
    return stats


def test_a_disk_that_hangs_has_one_call_wait_and_the_others_drop(tmp_path, caplog):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "first")
    added = fill(writer) + 1
    for step in range(5):
        writer.add_scalar("x", 0.5, step)
    stats = checked(writer, added + 5)
    assert (stats["waits"], stats["rejected"]) == (1, 6)
    disk.let_go()
    writer.flush()
    assert "the queue was full for 1s" in caplog.text
    # There is space again, so that a call waits once more where there is none.
    writer.add_scalar("x", 0.5)
    disk = Disk(writer, tmp_path / "second")
    before = writer.stats()["offered"]
    for step in range(200_000):
        writer.add_scalar("x", 0.5, step)
        if writer.stats()["waits"] == 2:
            break
    stats = checked(writer, before + step + 1)
    assert (stats["waits"], stats["rejected"]) == (2, 7)
    disk.let_go()
    writer.flush()
    stats = checked(writer, before + step + 1)
    writer.close()
    assert len(values(tmp_path / "run")) == stats["processed"] - 2


def test_a_close_that_takes_long_leaves_the_account(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "disk")
    writer.add_scalar("x", 0.5)
    work = writer._close(60.0)
    assert writer.stats()["offered"] == 2
    disk.let_go()
    work.result()
    assert writer.stats()["processed"] == 2


def test_large_values_do_not_wait_again_because_small_ones_still_fit(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    disk = Disk(writer, tmp_path / "disk")
    large = np.zeros(4 << 20)
    added = 1
    while not writer.stats()["rejected"]:
        writer.add_histogram("h", large)
        added += 1
    for step in range(3):
        writer.add_scalar("x", 0.5, step)
        writer.add_histogram("h", large, step)
    stats = checked(writer, added + 6)
    assert (stats["waits"], stats["rejected"]) == (1, 4)
    disk.let_go()
    # On a busy machine, one flush may not be enough for so many values.
    while writer.stats()["pending"]:
        writer.flush()
    writer.close()
    assert len(values(tmp_path / "run")) == added + 6 - 4 - 1
