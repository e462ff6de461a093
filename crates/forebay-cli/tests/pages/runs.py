"""Runs to look at, as files of JSON Lines."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

#: What a name, a text or a setting must not do: each would set `hacked`, or ask for an address.
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    "\"><svg onload='window.hacked = 3'>",
    "javascript:window.hacked=4",
    "<iframe srcdoc='<script>parent.hacked = 5</script>'></iframe>",
    "&lt;img src=x onerror=window.hacked=6&gt;",
    "{{constructor.constructor('window.hacked=7')()}}",
    "<style>body{display:none}</style>",
    "<a href='https://forebay.invalid/'>x</a><link rel=stylesheet href='https://forebay.invalid/x.css'>",
    "/*{page.js}*/ \u2028 \u2029 <!-- ]]>",
    "__proto__",
    "constructor",
]


def event(name: str, second: float, **rest: Any) -> str:
    """Returns a line of a run that began at a time that is past."""
    minutes, seconds = divmod(second, 60)
    hours, minutes = divmod(int(minutes), 60)
    return json.dumps({"name": name, "time": f"2026-11-21T{8 + hours:02}:{minutes:02}:{seconds:012.9f}Z", **rest}) + "\n"


def begin(run: str, config: dict[str, Any]) -> str:
    """Returns the begin of a run with settings."""
    fields = {"run_id": run, "generation": 1, "rank": 0, "world_size": 1, "heartbeat": 5.0, "config": config}
    return event("training.started", 0, priority="critical", fields=fields)


def end(second: float, error: str | None = None) -> str:
    """Returns the end of a run: why it failed, or that it is complete."""
    if error is not None:
        return event("training.failed", second, priority="critical", fields={"error": error})
    return event("training.completed", second, priority="critical", fields={"final_metrics": {}, "total_duration": second})


def write(folder: Path, lines: list[str]) -> None:
    """Writes a run."""
    folder.mkdir(parents=True)
    (folder / "events.jsonl").write_text("".join(lines))


def trained(folder: Path, lr: float, seed: int, steps: int = 400, error: str | None = None) -> None:
    """Writes a run as people have them: curves, distributions, a picture, a text."""
    lines = [begin(folder.name, {"lr": lr, "batch": 32, "optimizer": "adam" if seed % 2 else "sgd", "layers": [64, 32]})]
    for step in range(steps):
        second = step * 0.5
        noise = math.sin(step * (1.7 + seed)) * math.cos(step * 0.37 * (seed + 1))
        loss = 2.3 * math.exp(-step * lr) + 0.15 + 0.05 * noise
        lines.append(event("train.loss", second, step=step, scalar=loss))
        lines.append(event("train.lr", second, step=step, scalar=lr * (1 - step / 400)))
        if step % 10 == 0:
            lines.append(event("test.accuracy", second, step=step, scalar=1 - loss / 2.6))
            edges = [-1 + place / 8 for place in range(17)]
            counts = [int(200 * math.exp(-(((edge - noise / 3) * (1 + step / 60)) ** 2))) for edge in edges[1:]]
            histogram = {"edges": edges, "counts": counts, "sum": 0.0, "sum_of_squares": 1.0}
            lines.append(event("weights.first", second, step=step, histogram=histogram))
    pixels = bytes((x * 8, y * 8, 128 if (x + y) % 2 else 200)[part] for y in range(32) for x in range(32) for part in range(3))
    image = {"width": 32, "height": 32, "format": "rgb8", "bytes": base64.b64encode(pixels).decode()}
    lines.append(event("sample", steps * 0.5, step=steps - 1, image=image))
    lines.append(event("note", steps * 0.5, text="A **small** network. " * 20))
    lines.append(end(steps * 0.5, error))
    write(folder, lines)


def hostile(folder: Path) -> None:
    """Writes a run all of whose texts would do harm, were they markup."""
    lines = [begin(HOSTILE[0], {name: HOSTILE[(place + 1) % len(HOSTILE)] for place, name in enumerate(HOSTILE)})]
    for place, text in enumerate(HOSTILE):
        lines += [event(text, place, step=step, scalar=step / 7) for step in range(5)]
        lines.append(event(f"note {text}", place, text=text))
        lines.append(event(f"long {text}", place, text=text * 20))
        lines.append(event(f"fields {text}", place, fields={text: text}))
        histogram = {"edges": [0.0, 1.0], "counts": [1], "sum": 0.0, "sum_of_squares": 1.0}
        lines.append(event(f"weights {text}", place, step=1, histogram=histogram))
    pixel = {"width": 1, "height": 1, "format": "rgb8", "bytes": base64.b64encode(b"\xff\0\0").decode()}
    lines.append(event(HOSTILE[1], 20, step=1, image=pixel))
    svg = base64.b64encode(b"<svg xmlns='http://www.w3.org/2000/svg' onload='parent.hacked=8'/>").decode()
    lines.append(event("no picture", 20, step=1, image={"width": 1, "height": 1, "format": "png", "bytes": svg}))
    lines.append(end(21, "Traceback\n" + "\n".join(HOSTILE)))
    write(folder, lines)


def large(folder: Path, points: int, spike: int) -> None:
    """Writes a run with one curve of so many points, one of which is far above the others."""
    folder.mkdir(parents=True)
    with open(folder / "events.jsonl", "w") as file:
        # Each second has a thousand steps.
        for second in range(points // 1000):
            time = f"2026-11-21T{8 + second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
            wave = math.sin(second / 60)
            file.writelines(
                f'{{"name":"loss","time":"{time}.{place:03}000000Z","step":{second * 1000 + place},"scalar":{100.0 if second * 1000 + place == spike else wave + place % 7 / 9}}}\n'
                for place in range(1000)
            )
