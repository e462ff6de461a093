"""Measures one logger, in a process of its own: `measure.py NAME SETTINGS FOLDER` prints what it found as JSON. `compare.py` calls it."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from rivals import RIVALS, Rival

#: Scalars of a training step.
SCALARS = 20


def quantiles(nanoseconds: list[int]) -> dict[str, float]:
    """The quantiles of times, in microseconds."""
    times = sorted(nanoseconds)

    def at(share: float) -> float:
        return times[min(len(times) - 1, int(share * len(times)))] / 1000

    return {"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": times[-1] / 1000, "calls": len(times)}


def burst(rival: Rival, settings: dict[str, Any]) -> dict[str, Any]:
    """Calls in a row, until there are enough or the time is over; then a flush."""
    clock, times = time.perf_counter_ns, []
    until = clock() + int(settings["burst_seconds"] * 1e9)
    for step in range(settings["warm_up"], settings["warm_up"] + settings["burst"]):
        began = clock()
        rival.scalar(step, step * 0.5)
        ended = clock()
        times.append(ended - began)
        if ended > until:
            break
    began = clock()
    rival.flush()
    flushed = {"flush_ms": (clock() - began) / 1e6} if type(rival).flush is not Rival.flush else {}
    return {**quantiles(times), **flushed}


def loop(rival: Rival, settings: dict[str, Any]) -> dict[str, Any]:
    """A call each millisecond, between which the loop computes in Python: it has the GIL all the time."""
    clock, times = time.perf_counter_ns, []
    next_call = clock()
    until = next_call + int(settings["loop_seconds"] * 1e9)
    for step in range(settings["warm_up"], settings["warm_up"] + settings["ticks"]):
        next_call += 1_000_000
        while clock() < next_call:
            pass
        began = clock()
        rival.scalar(step, step * 0.5)
        times.append(clock() - began)
        # One long call delays the next, and does not make it come at once.
        next_call = max(next_call, clock() - 1_000_000)
        if next_call > until:
            break
    return quantiles(times)


class Training:
    """A step of a network with two layers, in NumPy: about a quarter of a millisecond."""

    def __init__(self) -> None:
        import numpy as np

        draw = np.random.default_rng(1)
        self.np = np
        self.inputs = draw.normal(size=(64, 64)).astype(np.float32)
        self.targets = np.eye(10, dtype=np.float32)[draw.integers(0, 10, 64)]
        self.first = draw.normal(size=(64, 128)).astype(np.float32) * 0.1
        self.second = draw.normal(size=(128, 10)).astype(np.float32) * 0.1

    def step(self) -> float:
        np = self.np
        hidden = np.maximum(self.inputs @ self.first, 0)
        scores = hidden @ self.second
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        loss = -np.log((odds * self.targets).sum(axis=1) + 1e-9).mean()
        slope = (odds - self.targets) / len(odds)
        back = (slope @ self.second.T) * (hidden > 0)
        self.second -= 0.01 * (hidden.T @ slope)
        self.first -= 0.01 * (self.inputs.T @ back)
        return float(loss)


def training(rival: Rival, settings: dict[str, Any]) -> dict[str, Any]:
    """Steps of a training loop, each of which logs its scalars."""
    network, names = Training(), [f"train/metric_{number}" for number in range(SCALARS)]
    for _ in range(50):
        network.step()
    clock, times = time.perf_counter_ns, []
    until = clock() + int(settings["training_seconds"] * 1e9)
    for step in range(settings["warm_up"], settings["warm_up"] + settings["steps"]):
        began = clock()
        loss = network.step()
        rival.scalars(step, dict.fromkeys(names, loss))
        ended = clock()
        times.append(ended - began)
        if ended > until:
            break
    return {**quantiles(times), "mean": sum(times) / len(times) / 1000}


def histograms(size: int, calls: str) -> Any:
    def measured(rival: Rival, settings: dict[str, Any]) -> dict[str, Any]:
        """Distributions of arrays that are there already."""
        import numpy as np

        values = np.random.default_rng(size).normal(size=size).astype(np.float32)
        first = settings["warm_up"]
        rival.histogram(first, values)
        rival.flush()
        times = []
        for step in range(first + 1, first + 1 + settings[calls]):
            began = time.perf_counter_ns()
            rival.histogram(step, values)
            times.append(time.perf_counter_ns() - began)
            # As between epochs: what is logged is written before the next.
            rival.flush()
        return quantiles(times)

    return measured


SCENARIOS = {
    "burst": burst,
    "loop": loop,
    "training": training,
    "histogram_1e4": histograms(10_000, "small_histograms"),
    "histogram_1e6": histograms(1_000_000, "large_histograms"),
}


def measure(kind: type[Rival], settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measures a logger in all scenarios, each with a new logger that has been used a little."""
    found: dict[str, Any] = {}
    for name, scenario in SCENARIOS.items():
        if name.startswith("histogram") and not kind.has_histograms:
            continue
        rival = kind(folder / name)
        until = time.monotonic() + settings["warm_up_seconds"]
        for step in range(settings["warm_up"]):
            rival.scalar(step, 0.0)
            if time.monotonic() > until:
                break
        rival.flush()
        gc.collect()
        found[name] = scenario(rival, settings)
        began = time.perf_counter_ns()
        rival.close()
        found[name]["close_ms"] = (time.perf_counter_ns() - began) / 1e6
    return found


if __name__ == "__main__":
    (chosen,) = (kind for kind in RIVALS if kind.name == sys.argv[1])
    found = measure(chosen, json.loads(sys.argv[2]), Path(sys.argv[3]))
    # On a line of its own: some loggers print.
    print("\n" + json.dumps(found))
