"""Takes the picture of the README: the report of three runs of train_digits, as a browser shows it.

    for rate in 0.02 0.1 0.5; do cargo run --release -p train_digits -- --learning-rate $rate --out runs/rate-$rate; done
    python3 crates/forebay-cli/tests/pages/picture.py target/debug/forebay chromium docs/images/report.png runs
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from browser import Browser

#: Bytes: who opens the README waits for it.
MAX_SIZE = 120_000


def main() -> int:
    forebay, chromium, picture, *runs = sys.argv[1:]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "profile").mkdir()
        subprocess.run([forebay, "report", *runs, "-o", folder / "report.html"], check=True, stdout=subprocess.DEVNULL)
        browser = Browser(chromium, folder / "profile")
        try:
            page = browser.open((folder / "report.html").as_uri(), width=960, height=1010)
            page.until("[...document.querySelectorAll('.card')].slice(0, 4).every((it) => forebay.plots.has(it.dataset.name))")
            page.value("(() => { const it = document.getElementById('smoothing'); it.value = 0.9; it.dispatchEvent(new Event('input')); })()")
            page.shoot(Path(picture), whole=False)
        finally:
            browser.close()
    size = Path(picture).stat().st_size
    print(f"{picture}: {size} bytes")
    return 0 if size < MAX_SIZE else f"the picture has {size} bytes, {MAX_SIZE} at most"


if __name__ == "__main__":
    sys.exit(main())
