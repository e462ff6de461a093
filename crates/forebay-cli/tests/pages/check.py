"""The pages of `forebay report` and `forebay serve` in Chromium: what is drawn, what a mouse and a keyboard do, what is live, and that
texts are only texts. Called by .ci/pages: check.py FOREBAY CHROMIUM FOLDER-FOR-SCREENSHOTS [PART-OF-A-NAME]
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import runs
from browser import Browser, BrowserGone, Page

#: Points of the largest run, and the place of the one that is far above the others.
POINTS, SPIKE = 1_000_000, 654_321

#: Longest time that a check takes, in seconds. It takes seconds, unless the machine does other things.
LIMIT = 300.0

CHECKS: list[Callable[[Context], None]] = []


def check(function: Callable[[Context], None]) -> Callable[[Context], None]:
    CHECKS.append(function)
    return function


class Context:
    """What all checks use: the programs, and the folders."""

    def __init__(self, forebay: str, browser: Browser, folder: Path, shots: Path) -> None:
        self.forebay, self.browser, self.folder, self.shots = forebay, browser, folder, shots
        self._reports: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self, name: str) -> None:
        """Begins to write the report of a folder, beside what else is done."""
        command = [self.forebay, "report", self.folder / name, "-o", self.folder / f"{name}.html"]
        self._reports[name] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def report(self, name: str) -> str:
        """Returns the address of the report of a folder, once it is written."""
        if name not in self._reports:
            self.begin(name)
        assert self._reports[name].wait() == 0, f"there is no report of {name}"
        return (self.folder / f"{name}.html").as_uri()

    def end(self) -> None:
        """Ends what is not done, and not asked for any more."""
        for report in self._reports.values():
            report.kill()
            report.wait()

    def open(self, name: str, **size: Any) -> Page:
        """Opens the report of a folder."""
        return self.browser.open(self.report(name), **size)


def chart(page: Page, name: str) -> str:
    """Returns the chart of a metric as an expression, once it is in view and drawn."""
    it = f"forebay.plots.get({json.dumps(name)})"
    page.value(f"document.querySelector('[data-name=' + CSS.escape({json.dumps(name)}) + ']').scrollIntoView({{ block: 'center' }})")
    page.until(f"{it} && {it}.status === 1")
    page.frames()
    return it


def place(page: Page, chart: str, across: float, down: float = 0.5) -> tuple[float, float]:
    """Returns where a part of a chart is in the window."""
    box = page.value(f"(() => {{ const {{ x, y, width, height }} = {chart}.over.getBoundingClientRect(); return [x, y, width, height]; }})()")
    return (box[0] + box[2] * across, box[1] + box[3] * down)


def pixels(page: Page, chart: str, colour: tuple[int, int, int]) -> list[int]:
    """Returns the rows of the pixels of a chart that have a colour, each once."""
    return page.value(
        "((plot, wanted) => { const { width, height } = plot.ctx.canvas;"
        " const data = plot.ctx.getImageData(0, 0, width, height).data, rows = new Set();"
        " for (let at = 0; at < data.length; at += 4)"
        "  if (data[at + 3] > 128 && wanted.every((part, place) => Math.abs(data[at + place] - part) < 24)) rows.add(Math.floor(at / 4 / width));"
        f" return [...rows]; }})({chart}, {list(colour)})"
    )


def range_of(page: Page, chart: str) -> list[float]:
    """Returns what is seen of the axis from left to right."""
    return page.value(f"[{chart}.scales.x.min, {chart}.scales.x.max]")


def is_clean(page: Page) -> None:
    """Checks that no script failed and nothing was asked of a network."""
    seen = page.value("seen")
    assert seen["errors"] == [] and seen["dialogs"] == 0 and seen["blocked"] == [], seen


BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)


@check
def charts_are_drawn_and_say_what_they_show(it: Context) -> None:
    page = it.open("trained")
    for name in ["train.loss", "train.lr", "test.accuracy"]:
        plot = chart(page, name)
        for colour in [BLUE, ORANGE]:
            # A curve that falls has pixels in many rows.
            assert len(pixels(page, plot, colour)) > 30, f"{name} has no curve of {colour}"
    labels = page.value("[...document.querySelectorAll('.u-wrap-here')].map((it) => it.getAttribute('aria-label'))")
    assert labels == ["chart of test.accuracy: 80 points", "chart of train.loss: 800 points", "chart of train.lr: 800 points"], labels
    text = page.value("document.body.innerText")
    for part in ["2 runs", "finished", "failed", "out of memory", "lr", "0.02", "0.05"]:
        assert part in text, f"{part} is not on the page"
    # Settings that are the same in both are not shown, unless they are asked for.
    assert page.value("document.getElementById('settings').innerText.includes('batch')") is False
    page.value("document.getElementById('differ').click()")
    assert page.value("document.getElementById('settings').innerText.includes('batch')") is True
    # Distributions and pictures have something in them.
    media = page.value("[...document.querySelectorAll('#media canvas')].map((it) => it.getContext('2d').getImageData(0, 0, it.width, it.height).data.some((part) => part > 0))")
    assert media == [True] * 4, media
    # A long text is whole once it is opened.
    page.value("document.querySelector('#others details').open = true")
    assert page.value("document.querySelector('#others details div').textContent.length") == len("A **small** network. " * 20)
    is_clean(page)
    assert page.asked() == [it.report("trained")], page.asked()
    page.value("document.querySelector('#others details').open = false")
    page.shoot(it.shots / "report-light.png")
    page.close()


@check
def the_mouse_zooms_and_shows_values(it: Context) -> None:
    page = it.open("trained")
    plot = chart(page, "train.loss")
    assert range_of(page, plot) == [0, 399]
    page.mouse("Moved", place(page, plot, 0.5))
    page.until(f"{plot}.cursor.idx !== null")
    at = page.value(f"{plot}.cursor.idx")
    assert 190 <= at <= 210, at
    said = page.value(f"[...{plot}.root.querySelectorAll('.u-legend .u-value')].map((it) => Number(it.textContent))")
    wanted = page.value(f"{plot}.data.map((column) => Number(column[{at}].toPrecision(6)))")
    assert said == wanted and said[0] == at, (said, wanted)
    page.shoot(it.shots / "report-hover.png", whole=False)
    page.drag(place(page, plot, 0.25), place(page, plot, 0.5))
    page.until(f"{plot}.scales.x.max < 399")
    low, high = range_of(page, plot)
    assert 90 < low < 110 and 190 < high < 210, (low, high)
    # The chart is drawn at its new size, with both curves.
    assert min(len(pixels(page, plot, colour)) for colour in [BLUE, ORANGE]) > 10
    page.click(place(page, plot, 0.5), clicks=2)
    page.until(f"{plot}.scales.x.max === 399 && {plot}.scales.x.min === 0")
    # A click on a name of the legend hides its curve.
    page.value(f"{plot}.root.querySelectorAll('.u-legend .u-series')[1].querySelector('.u-label, .u-marker').click()")
    page.until(f"{plot}.series[1].show === false")
    assert pixels(page, plot, BLUE) == []
    is_clean(page)
    page.close()


@check
def fingers_zoom_move_and_show_values(it: Context) -> None:
    page = it.open("trained", width=390, height=844, scale=2, mobile=True)
    plot = chart(page, "train.loss")
    assert range_of(page, plot) == [0, 399]
    # One finger on a chart that is seen whole moves nothing: it has the values shown.
    page.swipe((place(page, plot, 0.3), place(page, plot, 0.5)))
    page.until(f"{plot}.cursor.idx !== null && Math.abs({plot}.cursor.idx - 199.5) < 10")
    assert range_of(page, plot) == [0, 399]
    # Two fingers that part zoom, and what they are on stays below them. One of them is lifted last, and moves nothing.
    ways = [(place(page, plot, 0.4), place(page, plot, 0.2)), (place(page, plot, 0.6), place(page, plot, 0.8))]
    page.swipe(*ways)
    page.until(f"{plot}.scales.x.max < 399")
    low, high = range_of(page, plot)
    assert abs(low - 133) < 4 and abs(high - 266) < 4, (low, high)
    assert min(len(pixels(page, plot, colour)) for colour in [BLUE, ORANGE]) > 10
    page.shoot(it.shots / "phone-zoomed.png", whole=False)
    # One finger moves what is seen by as much as it moves: half of the chart.
    page.swipe((place(page, plot, 0.75), place(page, plot, 0.25)))
    page.until(f"{plot}.scales.x.min > {low + 50}")
    moved = range_of(page, plot)
    assert abs(moved[0] - low - (high - low) / 2) < 4 and abs(moved[1] - moved[0] - (high - low)) < 1e-6, (low, high, moved)
    # No finger moves it beyond its points.
    for _ in range(4):
        page.swipe((place(page, plot, 0.9), place(page, plot, 0.1)))
    page.until(f"{plot}.scales.x.max === 399")
    assert abs(range_of(page, plot)[0] - (399 - (high - low))) < 1e-6, range_of(page, plot)
    # Fingers one above the other zoom as well, and those that meet zoom back.
    before = range_of(page, plot)
    page.swipe((place(page, plot, 0.5, 0.1), place(page, plot, 0.5, 0.3)), (place(page, plot, 0.5, 0.9), place(page, plot, 0.5, 0.7)))
    page.until(f"Math.abs({plot}.scales.x.max - {plot}.scales.x.min - {(before[1] - before[0]) * 2}) < 4")
    # A finger that lifts while another stays moves nothing.
    page.touch("Start", place(page, plot, 0.3), place(page, plot, 0.7))
    before = range_of(page, plot)
    page.touch("End", place(page, plot, 0.3))
    page.touch("End")
    page.frames()
    assert range_of(page, plot) == before, (before, range_of(page, plot))
    # A tap shows the values of its place, and moves nothing. Two show all again, also in a browser that makes no mouse of fingers.
    page.value("for (const it of ['dblclick', 'mousemove', 'mousedown']) addEventListener(it, (event) => event.stopImmediatePropagation(), true)")
    page.tap(place(page, plot, 0.25))
    page.until(f"Math.abs({plot}.cursor.left / {plot}.over.clientWidth - 0.25) < 0.05")
    assert range_of(page, plot) == before, (before, range_of(page, plot))
    page.frames(60)
    page.tap(place(page, plot, 0.5), times=2)
    page.until(f"{plot}.scales.x.min === 0 && {plot}.scales.x.max === 399")
    # Up and down, a finger scrolls the page and leaves the chart; and the browser enlarges no page of which a chart is zoomed.
    page.swipe(*ways)
    page.until(f"{plot}.scales.x.max < 399")
    before, scrolled = range_of(page, plot), page.value("scrollY")
    page.swipe((place(page, plot, 0.5, 0.9), place(page, plot, 0.5, -0.3)))
    page.until(f"scrollY > {scrolled + 50}")
    assert range_of(page, plot) == before, (before, range_of(page, plot))
    assert page.value("visualViewport.scale") == 1
    is_clean(page)
    page.close()


@check
def controls_change_what_is_drawn(it: Context) -> None:
    page = it.open("trained")
    plot = chart(page, "train.loss")
    rough = page.value(f"{plot}.data[1].slice(1).reduce((sum, value, at) => sum + Math.abs(value - {plot}.data[1][at]), 0)")
    page.value("(() => { const it = document.getElementById('smoothing'); it.value = 0.9; it.dispatchEvent(new Event('input')); })()")
    smooth = page.value(f"{plot}.data[1].slice(1).reduce((sum, value, at) => sum + Math.abs(value - {plot}.data[1][at]), 0)")
    assert smooth < rough / 2, (smooth, rough)
    page.value("document.getElementById('log').click()")
    plot = chart(page, "train.loss")
    assert page.value(f"{plot}.scales.y.distr") == 3
    for axis, wanted in [("relative", [0, 199.5]), ("wall", [1795248000, 1795248199.5]), ("step", [0, 399])]:
        page.value(f"(() => {{ const it = document.getElementById('axis'); it.value = '{axis}'; it.dispatchEvent(new Event('input')); }})()")
        plot = chart(page, "train.loss")
        assert range_of(page, plot) == wanted, (axis, range_of(page, plot))
    page.value("(() => { const it = document.getElementById('filter'); it.value = 'LOSS'; it.dispatchEvent(new Event('input')); })()")
    assert page.value("[...document.querySelectorAll('.card h3')].map((it) => it.textContent)") == ["train.loss"]
    # Without the first run, the other keeps its colour.
    page.value("document.querySelector('#runs input').click()")
    plot = chart(page, "train.loss")
    assert pixels(page, plot, BLUE) == [] and len(pixels(page, plot, ORANGE)) > 30
    is_clean(page)
    page.close()


@check
def the_keyboard_reaches_and_steers_everything(it: Context) -> None:
    page = it.open("trained")
    chart(page, "train.loss")
    reached = []
    for _ in range(30):
        page.press("Tab")
        what = page.value("(() => { const it = document.activeElement; return it.id || it.getAttribute('aria-label') || it.tagName; })()")
        reached.append(what)
        if what.startswith("chart of train.loss"):
            break
    assert reached[-1].startswith("chart of train.loss"), reached
    for part in ["runs-box", "show a", "show b", "differ", "filter", "smoothing", "axis", "log"]:
        assert part in reached, (part, reached)
    # What has the focus can be seen.
    assert page.value("getComputedStyle(document.activeElement).outlineStyle") != "none"
    plot = chart(page, "train.loss")
    page.press("+", "+")
    page.until(f"{plot}.scales.x.max - {plot}.scales.x.min < 101")
    low, high = range_of(page, plot)
    page.press("ArrowRight")
    said = page.value("document.activeElement.closest('.card').querySelector('output').textContent")
    step = page.value(f"{plot}.data[0][{plot}.cursor.idx]")
    assert low <= step <= high and said.startswith(f"step {step}, a 0.") and ", b 0." in said, (said, low, high)
    page.press("ArrowRight")
    assert page.value(f"{plot}.data[0][{plot}.cursor.idx]") == step + 1
    page.press("ArrowLeft")
    assert page.value(f"{plot}.data[0][{plot}.cursor.idx]") == step
    page.press("0")
    page.until(f"{plot}.scales.x.max - {plot}.scales.x.min === 399")
    assert high - low < 101
    # A box is ticked by the space bar.
    page.value("document.querySelector('#runs input').focus()")
    page.press(" ")
    assert page.value("document.querySelector('#runs input').checked") is False
    is_clean(page)
    page.close()


@check
def texts_are_only_texts(it: Context) -> None:
    page = it.open("hostile")
    names = page.value("[...document.querySelectorAll('.card h3')].map((it) => it.textContent)")
    assert sorted(names) == sorted(runs.HOSTILE), names
    for name in runs.HOSTILE:
        assert len(pixels(page, chart(page, name), BLUE)) > 10, f"{name} has no curve"
    page.value("for (const it of document.querySelectorAll('details')) it.open = true")
    text = page.value("document.body.textContent")
    for part in runs.HOSTILE:
        assert part in text, f"{part} is not shown as it is"
    assert page.value("document.title").startswith(str(it.folder / "hostile"))
    # Nothing became an element, and nothing ran. (The page has four scripts of its own.)
    count = page.value("['script', 'iframe', 'svg', 'link', 'a', 'body style', '#runs img', '#curves img', '#others img'].map((it) => document.querySelectorAll(it).length)")
    assert count == [4, 0, 0, 0, 0, 0, 0, 0, 0], count
    page.frames(10)
    assert page.value("window.hacked === undefined && getComputedStyle(document.body).display !== 'none'")
    seen = page.value("seen")
    # A picture that is none is an error of that picture.
    assert seen["dialogs"] == 0 and seen["blocked"] == [] and seen["errors"] in ([], ["[object HTMLImageElement]"]), seen
    assert [address for address in page.asked() if not address.startswith("data:")] == [it.report("hostile")], page.asked()
    page.shoot(it.shots / "report-hostile.png")
    page.close()


@check
def a_served_page_is_live_and_keeps_what_the_reader_has_chosen(it: Context) -> None:
    folder = it.folder / "live"
    lines = [runs.begin("a", {"lr": 0.1})] + [runs.event("loss", step, step=step, scalar=1 / (step + 1)) for step in range(100)]
    runs.write(folder / "a", lines)
    server = subprocess.Popen([it.forebay, "serve", folder, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        address = server.stdout.readline().split()[0]
        page = it.browser.open(address)
        page.until("document.getElementById('live').textContent === 'Live.'")
        page.until("forebay.plots.get('loss')?.data[0].length === 100")
        plot = chart(page, "loss")
        page.drag(place(page, plot, 0.25), place(page, plot, 0.5))
        page.until(f"{plot}.scales.x.max < 99")
        before = range_of(page, plot)
        page.value("document.querySelector('#runs input').focus()")
        with open(folder / "a/events.jsonl", "a") as file:
            file.writelines(runs.event("loss", step, step=step, scalar=0.5) for step in range(100, 150))
        page.until("forebay.plots.get('loss')?.data[0].length === 150")
        assert range_of(page, plot) == before, (range_of(page, plot), before)
        assert page.value("document.activeElement.getAttribute('aria-label')") == "show a"
        page.until("document.getElementById('runs').innerText.includes('149')")
        # A new metric, and a run that comes later, with names that are only names.
        runs.hostile(folder / "<img src=x onerror=window.hacked=9>")
        with open(folder / "a/events.jsonl", "a") as file:
            file.write(runs.event("accuracy", 151, step=150, scalar=0.9))
        page.until("document.querySelectorAll('#runs tbody tr').length === 2")
        page.until(f"[...document.querySelectorAll('.card h3')].length === {2 + len(runs.HOSTILE)}")
        assert page.value(f"{chart(page, 'accuracy')}.data[0]") == [150]
        page.value("for (const it of document.querySelectorAll('details')) it.open = true")
        page.until(f"document.getElementById('others').textContent.includes({json.dumps(runs.HOSTILE[1] * 20)})")
        page.value("(() => { const it = document.getElementById('pictured'); it.value = '1'; it.dispatchEvent(new Event('change')); })()")
        page.until(f"document.querySelectorAll('#media figure').length === {len(runs.HOSTILE) + 2}")
        page.frames(10)
        assert page.value("window.hacked === undefined && document.querySelectorAll('script').length === 4")
        page.shoot(it.shots / "serve.png")
        page.value("seen.errors = seen.errors.filter((it) => it !== '[object HTMLImageElement]')")
        is_clean(page)
        # The server ends: the page says so, and keeps what it has.
        server.terminate()
        server.wait()
        page.until("document.getElementById('live').textContent.startsWith('Not live')")
        assert page.value("forebay.plots.get('loss').data[0].length") == 150
        page.close()
    finally:
        server.kill()
        server.wait()


#: Of each text: its colour, and that of the first background behind it that is one.
CONTRASTS = """
(() => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((part) => { part /= 255; return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const own = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE", "OPTION"].includes(own.tagName) || !own.checkVisibility()) continue;
    let behind = own;
    while (behind && (parts(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
    const [one, other] = [light(parts(getComputedStyle(own).color)), behind ? light(parts(getComputedStyle(behind).backgroundColor)) : 1];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (contrast < 4.5) found.push([walker.currentNode.textContent.trim().slice(0, 40), Math.round(contrast * 10) / 10]);
  }
  return found;
})()
"""


@check
def dark_and_light_can_be_read(it: Context) -> None:
    page = it.open("trained")
    grounds = []
    for scheme in ["light", "dark"]:
        page.scheme(scheme)
        chart(page, "train.loss")
        grounds.append(page.value("getComputedStyle(document.body).backgroundColor"))
        assert page.value("document.querySelectorAll('.card').length") == 3
        # https://www.w3.org/TR/WCAG22/#contrast-minimum
        assert page.value(CONTRASTS) == [], (scheme, page.value(CONTRASTS))
        faint = page.value("getComputedStyle(document.documentElement).getPropertyValue('--faint').trim()")
        assert page.value("forebay.plots.get('train.loss').axes[1].stroke()") == faint, "the axes have the colour of the other scheme"
    assert grounds[0] != grounds[1], grounds
    page.shoot(it.shots / "report-dark.png")
    is_clean(page)
    page.close()


@check
def a_phone_has_all_of_it_without_a_scroll_aside(it: Context) -> None:
    for name in ["trained", "hostile"]:
        page = it.open(name, width=390, height=844, scale=2, mobile=True)
        names = page.value("[...document.querySelectorAll('.card')].map((it) => it.dataset.name)")
        for metric in names[:3]:
            chart(page, metric)
        wide = page.value("[document.scrollingElement.scrollWidth, innerWidth]")
        assert wide == [390, 390], wide
        outside = page.value(
            "[...document.querySelectorAll('.card, canvas, figure, input, select, label, h1, h2, p')].filter((it) => it.checkVisibility()"
            " && !it.closest('.wide') && (it.getBoundingClientRect().right > 391 || it.getBoundingClientRect().left < -1)).map((it) => it.outerHTML.slice(0, 80))"
        )
        assert outside == [], outside
        # A column of texts is no column of letters.
        narrow = page.value("[...document.querySelectorAll('td.long')].filter((it) => it.textContent && it.clientWidth < 140).length")
        assert narrow == 0, narrow
        page.value("scrollTo(0, 0)")
        page.shoot(it.shots / f"phone-{name}.png")
        page.close()


@check
def a_million_points_stay_within_a_budget_of_calls_and_a_spike_is_seen(it: Context) -> None:
    page = it.open("large")
    plot = chart(page, "loss")
    assert f"{POINTS:,} points" in page.value("document.querySelector('.card .hint').textContent")
    # The spike is at the top of the chart, and nothing else is: it is one point of a million.
    assert page.value(f"{plot}.data[0].find((_, at) => {plot}.data[1][at] === 100)") == SPIKE
    rows = pixels(page, plot, BLUE)
    top, height = page.value(f"[{plot}.bbox.top, {plot}.bbox.height]")
    # (uPlot leaves room above the highest point; all others are in the lowest tenth.)
    assert min(rows) < top + height * 0.2 and len([row for row in rows if row < top + height * 0.9]) > height / 2, (min(rows), top, height)
    width = page.value(f"{plot}.bbox.width")

    def calls(act: Callable[[], None]) -> int:
        page.value("seen.lines = 0")
        act()
        page.frames()
        return page.value("seen.lines")

    # Lines for each column of pixels: its first and last point, the lowest and the highest; and what the axes take.
    budget = 4 * width + 200
    whole = calls(lambda: page.value(f"{plot}.redraw(true)"))
    assert 0 < whole <= budget, (whole, budget)
    # To drag draws no curve again before the button is released, and then once.
    dragged: list[int] = []

    def note() -> None:
        page.frames()
        dragged.append(page.value("seen.lines"))

    def drag() -> None:
        page.drag(place(page, plot, 0.6), place(page, plot, 0.7), before_release=note)
        page.until(f"{plot}.scales.x.max < {POINTS - 1}")

    zoomed = calls(drag)
    assert dragged == [0] and 0 < zoomed <= budget, (dragged, zoomed, budget)
    low, high = range_of(page, plot)
    assert abs(low / POINTS - 0.6) < 0.02 and abs(high / POINTS - 0.7) < 0.02, (low, high)
    # To move the mouse draws no curve again.
    hovered = calls(lambda: [page.mouse("Moved", place(page, plot, part / 40)) for part in range(5, 35)] and None)
    assert hovered == 0, hovered
    page.click(place(page, plot, 0.5), clicks=2)
    page.until(f"{plot}.scales.x.max === {POINTS - 1}")
    is_clean(page)
    page.shoot(it.shots / "report-million.png")
    page.close()


class Late(Exception):
    """A check has taken too long, whatever it waits for."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Ends what is done in it by `Late` after some time."""

    def end(*_: object) -> None:
        raise Late(f"not done after {seconds:g} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> int:
    forebay, chromium, shots, *part = sys.argv[1:]
    Path(shots).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        runs.trained(folder / "trained/a", 0.02, 1)
        runs.trained(folder / "trained/b", 0.05, 2, error="CUDA error: out of memory\ntried to allocate 2 GiB")
        runs.hostile(folder / "hostile/<img src=x onerror=window.hacked=9>")
        runs.large(folder / "large/a", POINTS, SPIKE)
        profile = folder / "profile"
        profile.mkdir()
        browser = Browser(chromium, profile)
        context, failed, count = Context(forebay, browser, folder, Path(shots)), 0, 0
        # What was ended in the middle of something, or is gone, cannot be asked any more: no other check follows.
        is_over = False
        checks = [it for it in CHECKS if not part or part[0] in it.__name__]
        # An unoptimized program takes seconds for it.
        if a_million_points_stay_within_a_budget_of_calls_and_a_spike_is_seen in checks:
            context.begin("large")
        try:
            for function in checks:
                if is_over:
                    break
                count, began = count + 1, time.monotonic()
                try:
                    with limited(LIMIT):
                        function(context)
                    print(f"{time.monotonic() - began:5.1f} s  {function.__name__}", flush=True)
                except (AssertionError, RuntimeError, BrowserGone, Late) as error:
                    failed += 1
                    is_over = isinstance(error, (BrowserGone, Late))
                    line = error.__traceback__
                    while line is not None and line.tb_next is not None and line.tb_next.tb_frame.f_code.co_filename == __file__:
                        line = line.tb_next
                    print(f"FAILED {function.__name__}, line {line.tb_lineno if line else '?'}: {error}", flush=True)
        finally:
            context.end()
            if is_over:
                browser.kill()
            browser.close()
    left = ", the others were not begun" if is_over else ""
    print(f"{count} checks of the pages, {failed} failed{left}; screenshots are in {shots}")
    return 1 if failed or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
