"""Workers of PyTorch's `DataLoader`, with all start methods: nothing hangs, and what is logged is written or counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import values

import forebay

pytest.importorskip("torch")

#: The most seconds of a script: a worker that is spawned imports PyTorch, which takes seconds on a machine that is busy.
WATCHDOG = 900

ITEMS, EPOCHS, WORKERS, BATCHES = 64, 2, 2, 16

#: What a worker adds in an epoch: its scalars, and the histograms of every 16th item.
SCALARS = ITEMS // WORKERS


def loaded(method, holder, folder):
    """Runs `loaders.py`, and returns what it counted."""
    script = Path(__file__).with_name("loaders.py")
    settings = {"METHOD": method, "HOLDER": holder, "FOLDER": str(folder)}
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, **settings}, capture_output=True, text=True, timeout=WATCHDOG, check=False
    )
    assert done.returncode == 0, done
    counted = json.loads(done.stdout.splitlines()[-1])
    assert counted["items"] == EPOCHS * ITEMS
    return counted


def tags(folder):
    return [value.tag for value in values(folder)]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("holder", ["global", "dataset", "reopen", "worker", "run"])
def test_no_worker_hangs_and_nothing_is_lost_silently(method, holder, tmp_path):
    counted = loaded(method, holder, tmp_path)
    ignored = sum(counted["ignored"].values())
    if holder == "run":
        # In a fork, the run of the parent counts it; elsewhere, there is no run.
        (info,) = forebay.runs(tmp_path)
        records = forebay.read(info.folder)
        assert (info.status, len(records.scalars("batch")[0]), records.scalars("item")) == ("finished", BATCHES, ([], []))
        assert ignored == ITEMS
        return
    own = {"reopen": tmp_path.glob("pid_*"), "worker": tmp_path.glob("worker_*")}.get(holder, ())
    written = tags(tmp_path)
    in_own = [tag for folder in own for tag in tags(folder)]
    assert written.count("batch") == (0 if holder == "worker" else BATCHES)
    if holder == "global" and method != "fork":
        # Each worker of each epoch has made a writer of its own in that folder. From Python 3.13 on, the server of forks may have made
        # one that its forks inherit.
        allowed = [(EPOCHS * ITEMS, 0)] + [(0, ITEMS + ITEMS // 16)] * (method == "forkserver")
        assert (written.count("item"), ignored) in allowed
    elif holder in ("reopen", "worker"):
        assert (written.count("item"), in_own.count("item"), ignored) == (0, EPOCHS * ITEMS, 0)
        assert in_own.count("tensor") == EPOCHS * ITEMS // 16
    else:
        # The workers of the last epoch have added 64 scalars, and 4 histograms.
        assert written.count("item") == 0
        assert ignored == ITEMS + ITEMS // 16
