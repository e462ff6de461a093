"""Compares forebay with other loggers of Python, in one run.

    python compare.py [--quick] [--rounds N] [--only NAME ...] [--out FOLDER]

Each round measures every logger that is installed, in a process of its own, in an order that moves on by one from round to round. What is
not installed is named. Writes `results.json` (the quantiles of every round, and what machine it was), `table.md` and `chart.svg`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import charts
from rivals import RIVALS, Rival

HERE = Path(__file__).parent

#: How much is measured a round: calls, steps and seconds.
FULL = {
    "warm_up": 200, "warm_up_seconds": 1.0, "burst": 20_000, "burst_seconds": 2.0, "ticks": 3_000, "loop_seconds": 4.0, "steps": 3_000,
    "training_seconds": 4.0, "small_histograms": 50, "large_histograms": 10,
}  # fmt: skip
#: Enough to see that it works.
QUICK = {
    "warm_up": 2, "warm_up_seconds": 1.0, "burst": 50, "burst_seconds": 1.0, "ticks": 20, "loop_seconds": 1.0, "steps": 20,
    "training_seconds": 1.0, "small_histograms": 2, "large_histograms": 1,
}  # fmt: skip


def measured(rival: type[Rival], settings: dict[str, Any]) -> dict[str, Any]:
    """Measures a logger in a new process and a new folder."""
    with tempfile.TemporaryDirectory(prefix="forebay-bench-") as folder:
        command = [sys.executable, "-W", "ignore", str(HERE / "measure.py"), rival.name, json.dumps(settings), folder]
        # The network is not what is compared, and one thread of the mathematics leaves the other core to the loggers.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"{rival.name} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """What it was measured on."""
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "load_before": os.getloadavg()[0],
    }


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The median of each quantile over the rounds, and the greatest of all times."""
    found: dict[str, dict[str, Any]] = {}
    for name in rounds[0]:
        found[name] = {}
        for scenario in rounds[0][name]:
            rows = [each[name][scenario] for each in rounds]
            found[name][scenario] = {key: median(row[key] for row in rows) for key in rows[0]}
            found[name][scenario]["max"] = max(row["max"] for row in rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Compares forebay with other loggers of Python.")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these loggers alone")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder for results.json, table.md and chart.svg")
    arguments = parser.parse_args()
    settings = QUICK if arguments.quick else FULL

    wanted = [rival for rival in RIVALS if not arguments.only or rival.name in arguments.only]
    versions = {rival.name: rival.version() for rival in wanted}
    present = [rival for rival in wanted if versions[rival.name]]
    missing = [rival.name for rival in wanted if not versions[rival.name]]
    facts = {**machine(), "versions": versions, "stores": {rival.name: rival.stores for rival in wanted}, "settings": settings}
    rounds: list[dict[str, dict[str, Any]]] = []
    for number in range(1 if arguments.quick else arguments.rounds):
        found = {}
        for place in range(len(present)):
            rival = present[(place + number) % len(present)]
            print(f"round {number + 1}: {rival.name}", flush=True)
            found[rival.name] = measured(rival, settings)
        rounds.append({rival.name: found[rival.name] for rival in present})

    results = {"machine": facts, "missing": missing, "summary": summary(rounds), "rounds": rounds}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (arguments.out / "table.md").write_text(charts.table(results))
    (arguments.out / "chart.svg").write_text(charts.chart(results))
    print(charts.table(results))
    print(charts.aims(results))


if __name__ == "__main__":
    main()
