"""How long the calls of the event bus take: `python benches/bus.py [CALLS]`.

A call emits an event with two numbers. `emit` comes in rounds of 100, each of which is flushed outside of the measurement, so that the
handlers of a round run beside it; `emit_sync` and `await emit` wait for their handlers. Prints a table of microseconds.
"""

import asyncio
import sys
import time

from forebay.bus import EventBus

CALLS = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000


def subscribe(bus, handlers):
    for _ in range(handlers):
        bus.subscribe("training.*", lambda event: None)


def row(name, handlers, times):
    times.sort()
    at = [times[int(len(times) * part)] / 1000 for part in (0.5, 0.99, 0.999)]
    print(f"| `{name}` | {handlers} | " + " | ".join(f"{microseconds:,.1f}" for microseconds in at) + " |", flush=True)


def emit(bus, calls):
    clock, times = time.perf_counter_ns, []
    for i in range(calls):
        begun = clock()
        bus.emit("training.batch_completed", {"batch": i, "loss": 0.5})
        times.append(clock() - begun)
        if i % 100 == 99:
            bus.flush()
    return times


def emit_sync(bus, calls):
    clock, times = time.perf_counter_ns, []
    for i in range(calls):
        begun = clock()
        bus.emit_sync("training.batch_completed", {"batch": i, "loss": 0.5})
        times.append(clock() - begun)
    return times


async def await_emit(bus, calls):
    async def handler(event):
        pass

    bus.subscribe("training.*", handler)
    clock, times = time.perf_counter_ns, []
    for i in range(calls):
        begun = clock()
        await bus.emit("training.batch_completed", {"batch": i, "loss": 0.5})
        times.append(clock() - begun)
    await bus.shutdown()
    return times


def main():
    print("| call | handlers | p50 | p99 | p99.9 |\n|---|---|---|---|---|")
    for name, function in (("emit", emit), ("emit_sync", emit_sync)):
        for handlers in (0, 1, 10):
            with EventBus(timeout=60) as bus:
                subscribe(bus, handlers)
                function(bus, 200)
                row(name, handlers, function(bus, CALLS))
    row("await emit", "1, on the loop", asyncio.run(await_emit(EventBus(timeout=60), CALLS)))


if __name__ == "__main__":
    main()
