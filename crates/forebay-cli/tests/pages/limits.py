"""The limits of the checks of the pages, tried with programs that are no browser: each is killed with all its processes, and an error says
why. Called by .ci/pages.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import browser
from browser import Browser, BrowserGone
from check import Late, limited

#: What a stand-in of a browser does, how long it may take (one that ends, as long as it needs), what is asked of it, and what the error says.
STAND_INS: list[tuple[str, float, Callable[[Browser], object], list[str]]] = [
    ("trap '' TERM; sleep 1000 & while :; do wait; done", 0.3, lambda it: it.call("Browser.getVersion"), ["does not answer for 0.3 s and was killed: Browser.getVersion"]),
    ("sleep 1000", 0.3, lambda it: it.call("Runtime.evaluate", expression="x" * 1_000_000), ["reads no command for 0.3 s and was killed: Runtime.evaluate"]),
    ("cat <&3 >/dev/null; sleep 1000", 0.3, Browser.close, ["does not answer for 0.3 s and was killed: Browser.close"]),
    ("echo 'no display' >&2; exit 3", 50, lambda it: it.call("Browser.getVersion"), ["has ended and was killed: Browser.getVersion", "no display"]),
    ("printf '{' >&4; exit", 50, lambda it: it.call("Browser.getVersion"), ["has ended and was killed"]),
]


def living(group: int) -> list[str]:
    """Returns the processes of a group, but for those that have ended and that nobody has asked about."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, _, its_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(its_group) == group and state not in "ZX":
                found.append(folder.name)
    return found


def main() -> None:
    for number, (script, browser.PATIENCE, ask, wanted) in enumerate(STAND_INS):
        with tempfile.TemporaryDirectory() as profile:
            program = Path(profile) / "browser"
            program.write_text(f"#!/usr/bin/env bash\n{script}\n")
            program.chmod(0o755)
            its = Browser(str(program), Path(profile))
            try:
                with limited(60):
                    ask(its)
            except BrowserGone as error:
                for part in wanted:
                    assert part in str(error), (number, part, str(error))
            else:
                raise AssertionError(f"stand-in {number} has answered")
            left = living(its._process.pid)
            assert left == [], (number, left)
    try:
        with limited(0.2):
            signal.pause()
    except Late as error:
        assert str(error) == "not done after 0.2 s", error
    else:
        raise AssertionError("there is no limit")
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0, "the limit goes on"
    print(f"the limits end {len(STAND_INS)} browsers that are none, and a check that waits for ever")


if __name__ == "__main__":
    main()
