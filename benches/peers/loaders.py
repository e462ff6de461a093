"""Compares how long forebay and TensorBoard take to read a folder of event files.

    python loaders.py [--runs 1000] [--points 1000] [--forebay target/release/forebay] [--rounds 3]

The files are written by TensorBoard's own writer: of each run, so many points of two metrics. Each reader is a process of its own, and they take
turns. It prints the medians of the time that passed, of processor time, and of the largest memory. Needs GNU time, and the packages
tensorboard and, for its fast loader, tensorboard-data-server.

    runs           `forebay runs`: last values, status and counts of every run
    query          `forebay query --per all`: count, mean, lowest, highest and last value of every metric of every run
    accumulator    TensorBoard's `EventAccumulator`, run by run, with all points kept
    fast loader    TensorBoard's data server, with all points kept, until its first load is over
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ACCUMULATOR = """
import sys
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

last = 0.0
for run in sorted(Path(sys.argv[1]).iterdir()):
    accumulator = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    last += accumulator.Scalars("loss")[-1].value
print(last)
"""


def write(folder: Path, runs: int, points: int) -> None:
    """Writes one run, and copies it: what is in a file does not change how long it takes to read."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    first = folder / "run-00000"
    writer = EventFileWriter(str(first))
    for step in range(points):
        values = [Summary.Value(tag=tag, simple_value=1 / (step + 1)) for tag in ("loss", "accuracy")]
        for value in values:
            writer.add_event(Event(wall_time=1_700_000_000 + step, step=step, summary=Summary(value=[value])))
    writer.close()
    for run in range(1, runs):
        shutil.copytree(first, folder / f"run-{run:05}")


def measured(command: list[str], memory: Path, until: str | None = None) -> tuple[float, float, float]:
    """Runs a command, or until it says something. Returns seconds, seconds of processor time, and MB.

    A process counts the memory of the one that started it, until it runs its own program: that of GNU time is small, and that of this one
    is not. It writes what it finds to `memory`.
    """
    began = time.perf_counter()
    child = subprocess.Popen(
        ["/usr/bin/env", "time", "-f", "%M", "-o", str(memory), *command],
        # It ignores what ends its command.
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if until else subprocess.DEVNULL,
        text=True,
    )
    if until:
        assert child.stderr is not None
        said = ""
        for line in child.stderr:
            said += line
            if until in line:
                break
        else:
            sys.exit(f"{command[0]} did not say {until!r}, but:\n{said}")
        took = time.perf_counter() - began
        os.killpg(child.pid, signal.SIGINT)
    _, status, usage = os.wait4(child.pid, 0)
    if not until:
        took = time.perf_counter() - began
        if status != 0:
            sys.exit(f"{' '.join(command)} failed")
    child.returncode = 0
    kilobytes = int(memory.read_text().splitlines()[-1])
    return took, usage.ru_utime + usage.ru_stime, kilobytes * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--points", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--forebay", default="target/release/forebay")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(Path(temporary) / "runs")
        write(Path(folder), asked.runs, asked.points)
        commands: dict[str, tuple[list[str], str | None]] = {
            "runs": ([asked.forebay, "runs", folder, "--json"], None),
            "query": ([asked.forebay, "query", folder, "--per", "all", "--csv"], None),
            "accumulator": ([sys.executable, "-c", ACCUMULATOR, folder], None),
        }
        try:
            from tensorboard_data_server import server_binary
        except ImportError:
            print("tensorboard-data-server is not installed: no fast loader", file=sys.stderr)
        else:
            keep = ["--samples-per-plugin", "scalars=all", "--reload", "once", "--port", "0", "-v"]
            commands["fast loader"] = ([server_binary(), "--logdir", folder, *keep], "Finished load cycle")
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for _ in range(asked.rounds):
            for name, (command, until) in commands.items():
                found[name].append(measured(command, Path(temporary) / "memory", until))
                print(name, *(f"{each:.2f}" for each in found[name][-1]), file=sys.stderr, flush=True)
        print(f"{asked.runs} runs, 2 metrics, {asked.points} points of each")
        print("| reader | seconds | processor seconds | MB |\n|---|--:|--:|--:|")
        for name, rounds in found.items():
            took, used, memory = (median(each) for each in zip(*rounds, strict=True))
            print(f"| {name} | {took:.2f} | {used:.2f} | {memory:.0f} |")


if __name__ == "__main__":
    main()
