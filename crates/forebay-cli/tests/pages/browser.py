"""Chromium without a window, driven by its DevTools protocol over a pipe: https://chromedevtools.github.io/devtools-protocol.

The pipe needs no WebSocket, and so no package. A command is a JSON object with a zero byte behind it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Longest time that a page needs for what it is to do, in seconds.
PATIENCE = 30.0


class BrowserGone(Exception):
    """Chromium hangs, or has ended: no page can be asked any more."""


#: Runs in every page before its own scripts: counts what is drawn, and notes what should not happen.
WATCH = """
window.seen = { lines: 0, strokes: 0, errors: [], dialogs: 0, blocked: [] };
for (const it of [Path2D, CanvasRenderingContext2D]) {
  const lineTo = it.prototype.lineTo;
  it.prototype.lineTo = function (...place) { seen.lines += 1; return lineTo.apply(this, place); };
}
const stroke = CanvasRenderingContext2D.prototype.stroke;
CanvasRenderingContext2D.prototype.stroke = function (...path) { seen.strokes += 1; return stroke.apply(this, path); };
addEventListener("error", (event) => seen.errors.push(String(event.message || event.target)), true);
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => seen.blocked.push(event.blockedURI));
for (const name of ["alert", "confirm", "prompt"]) window[name] = () => { seen.dialogs += 1; };
"""


class Browser:
    """A process of Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._out = os.pipe()
        self._in, answers = os.pipe()
        command = [
            program, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
            "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb",
        ]  # fmt: skip
        # It reads commands from descriptor 3, and answers to 4. All its processes are one group, which can be killed.
        shell = ["bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", *command]
        with open(profile / "log", "wb") as log:
            self._process = subprocess.Popen(shell, pass_fds=(commands, answers), stdout=log, stderr=log, start_new_session=True)
        self._log = profile / "log"
        os.close(commands)
        os.close(answers)
        os.set_blocking(self._out, False)
        self._rest, self._number, self._answers = b"", 0, {}
        #: What has happened, and was not looked at yet.
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its answer."""
        self._number += 1
        number = self._number
        command = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        until = time.monotonic() + PATIENCE
        self._write(json.dumps(command).encode() + b"\0", until, method)
        while number not in self._answers:
            self._read(until, method)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _write(self, message: bytes, until: float, what: str) -> None:
        while message:
            _, ready, _ = select.select([], [self._out], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise self._gone(f"reads no command for {PATIENCE:g} s", what)
            try:
                message = message[os.write(self._out, message) :]
            except BrokenPipeError:
                raise self._gone("has ended", what) from None

    def _read(self, until: float, what: str) -> None:
        ready, _, _ = select.select([self._in], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            raise self._gone(f"does not answer for {PATIENCE:g} s", what)
        piece = os.read(self._in, 1 << 20)
        if not piece:
            raise self._gone("has ended", what)
        *messages, self._rest = (self._rest + piece).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self.events.append(message)

    def _gone(self, how: str, what: str) -> BrowserGone:
        """Kills it, and returns the error that says why."""
        self.kill()
        log = self._log.read_text(errors="replace")[-2000:].strip()
        return BrowserGone(f"Chromium {how} and was killed: {what}" + (f"\n{log}" if log else ""))

    def kill(self) -> None:
        """Ends it with all its processes, whatever they do."""
        # The first of them is not waited for yet, so that its number is that of no other group.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def open(self, address: str, **size: Any) -> Page:
        """Opens a page and waits until it is loaded."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ["Page", "Runtime", "Network"]:
            page.call(f"{domain}.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.size(**size)
        page.call("Page.navigate", url=address)
        page.until("document.readyState === 'complete' && window.forebay !== undefined")
        return page

    def close(self) -> None:
        """Ends it."""
        try:
            if self._process.returncode is None:
                self.call("Browser.close")
        finally:
            self.kill()
            os.close(self._out)
            os.close(self._in)


#: Places of a way at which a mouse or a finger is seen.
PARTS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)


def between(begin: tuple[float, float], end: tuple[float, float], part: float) -> tuple[float, float]:
    """Returns the place behind a part of a way."""
    return (begin[0] + (end[0] - begin[0]) * part, begin[1] + (end[1] - begin[1]) * part)


class Page:
    """One page."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser, self._target, self._session = browser, target, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command to this page."""
        return self._browser.call(method, self._session, **params)

    def value(self, expression: str) -> Any:
        """Returns the value of an expression, once it is there."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    def until(self, condition: str) -> None:
        """Waits until a condition holds."""
        millis = int(PATIENCE * 500)
        holds = self.value(
            "new Promise((done) => { const end = performance.now() + %d;"
            " const look = () => { let holds = false; try { holds = Boolean(%s); } catch { }"
            " if (holds || performance.now() > end) done(holds); else setTimeout(look, 10); }; look(); })" % (millis, condition)
        )
        assert holds, f"this did not become true: {condition}"

    def size(self, width: int = 1280, height: int = 900, scale: float = 1, mobile: bool = False) -> None:
        """Sets the size of the window in pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile, maxTouchPoints=2)

    def scheme(self, name: str) -> None:
        """Prefers a colour scheme: light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def mouse(self, kind: str, place: tuple[float, float], button: str = "none", clicks: int = 0) -> None:
        """Moves, presses or releases the mouse."""
        x, y = place
        self.call("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button=button, clickCount=clicks)

    def click(self, place: tuple[float, float], clicks: int = 1) -> None:
        """Clicks."""
        self.mouse("Moved", place)
        for click in range(1, clicks + 1):
            self.mouse("Pressed", place, "left", click)
            self.mouse("Released", place, "left", click)

    def drag(self, begin: tuple[float, float], end: tuple[float, float], before_release: Callable[[], None] = lambda: None) -> None:
        """Drags."""
        self.mouse("Moved", begin)
        self.mouse("Pressed", begin, "left", 1)
        for part in PARTS:
            x, y = between(begin, end, part)
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        before_release()
        self.mouse("Released", end, "left", 1)

    def touch(self, kind: str, *places: tuple[float, float]) -> None:
        """Puts fingers on the page (Start), moves them (Move), or lifts those that are not named (End)."""
        points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
        self.call("Input.dispatchTouchEvent", type=f"touch{kind}", touchPoints=points)

    def swipe(self, *ways: tuple[tuple[float, float], tuple[float, float]]) -> None:
        """Moves fingers over the page: each from one place to another, all at once."""
        self.touch("Start", *(begin for begin, _ in ways))
        for part in PARTS:
            self.touch("Move", *(between(begin, end, part) for begin, end in ways))
        self.touch("End")

    def tap(self, place: tuple[float, float], times: int = 1) -> None:
        """Touches a place shortly."""
        for _ in range(times):
            self.touch("Start", place)
            self.touch("End")

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other: letters, or names such as Tab."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            code = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
            params = {"key": key, "windowsVirtualKeyCode": code, "code": key if len(key) > 1 else ""}
            self.call("Input.dispatchKeyEvent", type="keyDown", **params, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **params)

    def frames(self, count: int = 2) -> None:
        """Waits until so many frames were drawn."""
        self.value(f"new Promise((done) => {{ let left = {count}; const next = () => (left -= 1) < 0 ? done() : requestAnimationFrame(next); next(); }})")

    def asked(self) -> list[str]:
        """Returns the addresses that the page has asked for."""
        sent = [it for it in self._browser.events if it["method"] == "Network.requestWillBeSent" and it.get("sessionId") == self._session]
        return [it["params"]["request"]["url"] for it in sent]

    def shoot(self, path: Path, whole: bool = True) -> None:
        """Writes a picture of the page."""
        self.frames()
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 4000), "scale": 1}}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"]))

    def close(self) -> None:
        """Closes it."""
        self._browser.call("Target.closeTarget", targetId=self._target)
