"""The table and the chart of what `compare.py` has measured."""

from __future__ import annotations

import math
from html import escape
from typing import Any

Results = dict[str, Any]


def _time(microseconds: float | None) -> str:
    """A time with two digits, in the unit that fits."""
    if microseconds is None:
        return "-"
    for unit, factor in (("us", 1), ("ms", 1e3), ("s", 1e6)):
        shown = microseconds / factor
        # What rounds to a thousand has the next unit.
        if shown < 999.5 or unit == "s":
            digits = max(0, 1 - math.floor(math.log10(shown))) if shown > 0 else 0
            return f"{shown:.{min(digits, 2)}f} {unit}"
    raise AssertionError


def _four(row: dict[str, float]) -> str:
    return " / ".join(_time(row[key]) for key in ("p50", "p99", "p99.9", "max"))


def table(results: Results) -> str:
    """Returns the tables in Markdown."""
    machine, found = results["machine"], results["summary"]
    bare = found.get("nothing", {}).get("training")
    lines = [
        "| a call of one scalar: p50 / p99 / p99.9 / max | in a burst | once a millisecond, in a loop that holds the GIL |",
        "|---|---|---|",
    ]
    loggers = [name for name in found if name != "nothing"]
    lines += [f"| {name} | {_four(found[name]['burst'])} | {_four(found[name]['loop'])} |" for name in loggers]
    lines += ["", "| | a step with 20 scalars, p50 | more than without | histogram of 10^4 | of 10^6 | flush | close |", "|---|---|---|---|---|---|---|"]
    for name in found:
        rows = found[name]
        step = rows["training"]["p50"]
        more = f"{100 * (step / bare['p50'] - 1):+.0f} %" if bare and name != "nothing" else "-"
        small, large = (rows.get(f"histogram_{size}", {}).get("p50") for size in ("1e4", "1e6"))
        flush, close = (rows["burst"].get(key) if name != "nothing" else None for key in ("flush_ms", "close_ms"))
        ends = [_time(None if end is None else 1000 * end) for end in (flush, close)]
        lines.append(f"| {name} | {_time(step)} | {more} | {_time(small)} | {_time(large)} | {' | '.join(ends)} |")
    lines += ["", "| | version | stores |", "|---|---|---|"]
    lines += [f"| {name} | {machine['versions'][name]} | {machine['stores'][name]} |" for name in loggers]
    lines += ["", f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, {machine['date']};"]
    rounds = len(results["rounds"])
    lines.append(f"medians of {rounds} round{'s' if rounds > 1 else ''}, and the greatest of all maxima.")
    if results["missing"]:
        lines.append(f"Not installed here: {', '.join(results['missing'])}.")
    return "\n".join(lines) + "\n"


def aims(results: Results) -> str:
    """Returns what the package aims at, and whether this run reached it."""
    found = results["summary"]
    ours = found.get("forebay add_scalar")
    other = next((name for name in ("PyTorch SummaryWriter", "TensorBoard EventFileWriter") if name in found), None)
    if ours is None:
        return ""
    rows = [("p50 of add_scalar in a burst at most 0.5 us", ours["burst"]["p50"], 0.5)]
    if "histogram_1e6" in ours:
        rows.append(("add_histogram of 10^6 values at most 2 ms", ours["histogram_1e6"]["p50"], 2000))
    lines = [f"{aim}: {_time(is_)}, {'reached' if is_ <= limit else 'missed'}" for aim, is_, limit in rows]
    if other is not None:
        theirs = found[other]
        for aim, wanted, ratio in (
            (f"50 x as fast as {other} (p50 in a burst)", 50, theirs["burst"]["p50"] / ours["burst"]["p50"]),
            (f"p99.9 in the loop at most 1/20 of that of {other}", 20, theirs["loop"]["p99.9"] / ours["loop"]["p99.9"]),
        ):
            lines.append(f"{aim}: {ratio:.0f} x, {'reached' if ratio >= wanted else 'missed'}")
    return "\n".join(lines) + "\n"


#: Sizes of the chart, in pixels.
LEFT, WIDTH, ROW, TOP = 220, 420, 24, 54


def chart(results: Results) -> str:
    """Returns a chart of the calls in the loop: from p50 to p99.9, on a logarithmic axis."""
    found = results["summary"]
    rows = sorted(((name, found[name]["loop"]) for name in found if name != "nothing"), key=lambda row: row[1]["p99.9"])
    low = math.floor(math.log10(min(max(row["p50"], 0.01) for _, row in rows)))
    high = math.ceil(math.log10(max(row["p99.9"] for _, row in rows)))
    high = max(high, low + 1)

    def x(microseconds: float) -> float:
        return LEFT + WIDTH * (math.log10(max(microseconds, 10.0**low)) - low) / (high - low)

    height = TOP + ROW * len(rows) + 30
    bottom = TOP + ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 90} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{LEFT + WIDTH + 90}" height="{height}" fill="white"/>',
        '<text x="10" y="20" font-size="14" font-weight="bold">What a call costs a loop that holds the GIL</text>',
        '<text x="10" y="38" fill="#555">one scalar a millisecond: from p50 (dot) to p99.9 (end of the bar)</text>',
    ]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="{TOP - 6}" x2="{at:.1f}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555">{_power(power)}</text>')
    for number, (name, row) in enumerate(rows):
        middle = TOP + ROW * number + ROW / 2
        colour = "#0b6e99" if name.startswith("forebay") else "#999"
        begin, end = x(row["p50"]), x(row["p99.9"])
        parts += [
            f'<text x="{LEFT - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(name)}</text>',
            f'<line x1="{begin:.1f}" y1="{middle:.1f}" x2="{end:.1f}" y2="{middle:.1f}" stroke="{colour}" stroke-width="8" stroke-opacity="0.45"/>',
            f'<circle cx="{begin:.1f}" cy="{middle:.1f}" r="5" fill="{colour}"/>',
            f'<text x="{end + 8:.1f}" y="{middle + 4:.1f}" fill="#555">{_time(row["p99.9"])}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _power(power: int) -> str:
    return _time(10.0**power).replace(".0 ", " ").replace("0.10", "0.1") if power >= -2 else f"{10**(power + 3):g} ns"
