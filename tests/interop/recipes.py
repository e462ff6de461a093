"""Runs every recipe of docs/reading.md, and those of the README, on the files that write.rs wrote.

usage: recipes.py FOLDER        (see ./run, which makes all that it needs)
"""

import os
import re
import shutil
import sqlite3
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")

# What a recipe needs to print, by a piece of it: so that none passes because it found nothing.
EXPECTED = [
    ("@csv", ["999,0.001"]),
    ("uniq -c", ["1000 train.loss", "2000 data.batch"]),
    ("map(select", ["100"]),
    ("fromjson?", ['"training.completed"', '"val_accuracy":0.97']),
    ("steps, the best:", ["1000 steps, the best: 0.001"]),
    ("pivot_table", ["train.gradient_norm", "0.001001", "inf"]),
    ("ORDER BY step;", ["999|0.001"]),
    ("min(value)", ["999|0.001"]),
    ("ROWS 9 PRECEDING", ["0|1.0"]),
    ("max(time)", ["data.batch|2000|2"]),
    ("json_extract", ["1|0.4"]),
    ("coalesce", ["100"]),
    ("FROM runs", ["|20"]),
    ("read_sql", ["999   0.001"]),
    ("EventAccumulator", ["train/loss", "train/gradient_norm"]),
    ("@tsv", ["\t1\tdigits\t0.1", '"steps": 1000']),
    ("json_normalize", ["digits 0.1", "1000", "999"]),
    ("FROM run_info;", ["digits|1|finished|2", "|0.1"]),
    ("GROUP BY run_info.id", ["|digits|999|0.001"]),
    ("from END", ["[998,0.00", "[999,0.001]", "998|0.00", "999|0.001", "0.001000\nName: scalar"]),
]


def output(kind, code, folder):
    """What the recipe prints."""
    if kind == "sql":
        with sqlite3.connect(os.path.join(folder, "runs/1/events.db")) as database:
            rows = database.execute(code).fetchall()
        return "\n".join("|".join("" if cell is None else str(cell) for cell in row) for row in rows)
    command = [sys.executable, "-c", code] if kind == "python" else ["bash", "-euo", "pipefail", "-c", code]
    # So that `python3` in a script is the one that has pandas.
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"a recipe failed:\n{code}\n{done.stdout}{done.stderr}")
    return done.stdout


def recipes():
    """The blocks of code, by language."""
    with open(os.path.join(ROOT, "docs/reading.md")) as page:
        yield from re.findall(r"^```(sh|sql|python)\n(.*?)^```", page.read(), re.M | re.S)
    with open(os.path.join(ROOT, "README.md")) as page:
        section = page.read().split("## Read it back")[1].split("\n## ")[0]
        found = re.findall(r"^```(sh)\n(.*?)^```", section, re.M | re.S)
        # The mark by which it is found in EXPECTED.
        yield from ((kind, code + "# from END\n") for kind, code in found)


def main(folder):
    missing = [tool for tool in ("jq", "sqlite3") if not shutil.which(tool)]
    if missing:
        print(f"skipped: recipes that need {' and '.join(missing)}")
        # As for the tests in Rust: in CI, that is a failure.
        if os.environ.get("FOREBAY_NO_SKIPS"):
            sys.exit(1)
    # The README reads the newest run of its first program, and not that of its second, which is newer.
    readme = os.path.join(folder, "readme")
    os.makedirs(os.path.join(readme, "runs/2"))
    os.symlink(os.path.join(folder, "runs/1"), os.path.join(readme, "runs/20260102-030405"))
    passed = 0
    for kind, code in recipes():
        if kind == "sh" and missing:
            continue
        text = output(kind, code, readme if code.endswith("# from END\n") else folder)
        # The last one: the marks of the README's are more than one.
        mark, expected = [line for line in EXPECTED if line[0] in code][-1]
        for piece in expected:
            if piece not in text:
                sys.exit(f"{piece!r} is not in what a recipe prints:\n{code}\n{text}")
        passed += 1
    if passed < (len(EXPECTED) if not missing else 10):
        sys.exit(f"only {passed} recipes were found")
    print(f"{passed} recipes print what they should")


main(sys.argv[1])
