#!/usr/bin/env python3
"""random_mutants.py [N [SEED]]: how many random bugs in the protocol files do the models and the fast native tests report?

Makes N mutants (10): an ordering is weaker by one step, a statement is dropped, or two neighbours change places. They are the same
for one SEED (1) and one tree. Each is put into a copy of the tree, and goes through the models of its crate under loom (those of a
bus with threads under shuttle), with one preemption less as in `run quick`, and, where these do not report it, through fast native
tests of that crate.

First the tree as it is goes through all of that, and the script ends where it fails. A mutant that does not compile is not counted.
One is killed by an assertion that fails, a deadlock, or a program that hangs: nothing of it runs. That a model has more or fewer
schedules than it has floors for kills nobody. What fails in another way, or takes too long while it runs, is undecided: the tail of
its output is printed, and a person decides. Survivors are printed as diffs.

`--list` prints the mutants and runs nothing. `--files PART` takes those of files whose path has PART alone. `--from DIR` takes those that
native tests missed when cargo-mutants wrote its results there, and puts them through the models alone; it fails if one survives. What is
built is kept in `loom-tests/target/random`.
"""

import argparse
import difflib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The protocol files of each crate; their models (the folder below loom-tests, the features, the test); and fast native tests.
CORE = {
    "files": [
        "src/wake.rs", "src/worker.rs", "src/worker_state.rs", "src/worker/*.rs", "src/mailbox.rs", "src/mailbox/*.rs", "src/ring.rs",
        "src/lanes.rs", "src/lanes/*.rs", "src/dispatch.rs", "src/reply.rs", "src/futures.rs", "src/collector/collect.rs",
        "src/collector/flush.rs", "src/collector/lifecycle.rs", "src/collector/producer.rs",
    ],
    "models": [("", "", ["protocol", "waiters", "lanes"])],
    "native": ["--lib", "--test collector -- p3_ p4_ p5_ futures::"],
}
POOL = {
    "files": ["crates/forebay-sync/src/pool.rs", "crates/forebay-sync/src/pool/*.rs"],
    "models": [("", "", ["pool", "lanes"])],
    "native": ["-p forebay-sync --lib"],
}
TASK = {
    "files": [f"crates/forebay-task/src/{name}.rs" for name in
              ["cancel", "channel", "results", "sender", "source", "state", "task", "worker", "state/*", "worker/*"]],
    "models": [("", "task", ["task"])],
    "native": ["-p forebay-task --lib --test task"],
}
BUS = {
    "files": [f"crates/forebay-bus/src/{name}.rs" for name in
              ["calls", "completion", "dispatch", "in_flight", "mailbox", "retry_queue", "scheduler", "stop", "worker_pool"]],
    "models": [("", "bus", ["bus"]), ("shuttle", "bus,shuttle", ["pooled_bus"])],
    "native": ["-p forebay-bus --lib --test bus"],
}
# Of calls of a bus and of a task.
PERMIT = {
    "files": ["crates/forebay-sync/src/permit.rs"],
    "models": [("", "bus,task", ["bus", "task"])],
    "native": BUS["native"] + TASK["native"],
}
GROUPS = {"core": CORE, "pool": POOL, "task": TASK, "bus": BUS, "permit": PERMIT}

# Each ordering, and those that are one step weaker.
WEAKER = {"SeqCst": ["AcqRel", "Acquire", "Release"], "AcqRel": ["Acquire", "Release"], "Acquire": ["Relaxed"], "Release": ["Relaxed"]}

# Schedules of each kind of a model under shuttle: a quarter of the usual.
SCHEDULES = "500"

# What a program says that has found a bug, but for the counts of schedules.
PANIC = re.compile(r"panicked at [^\n]*\n([^\n]*)\n")
FLOOR = re.compile(r"only \d+ executions, expected at least|raise the floor to")


class Mutant:
    """One change of one file."""

    def __init__(self, group, path, line, sort, said, text):
        self.group, self.path, self.line, self.sort, self.said, self.text = group, path, line, sort, said, text

    def __str__(self):
        return f"{self.path}:{self.line}: {self.said}"

    def diff(self):
        before = (ROOT / self.path).read_text().splitlines(keepends=True)
        return "".join(difflib.unified_diff(before, self.text.splitlines(keepends=True), f"a/{self.path}", f"b/{self.path}"))


def is_statement(line):
    """Says whether a line is one statement, complete, that something remains without."""
    text = line.strip()
    if not text.endswith(";") or re.match(r"(//|#|use |pub |let |mod |const |static |type |return\b|break\b|continue\b|\}|\)|\.|debug_assert)", text):
        return text.startswith("let _ = ") and text.endswith(";") and is_balanced(text)
    return is_balanced(text)


def is_balanced(text):
    return all(text.count(left) == text.count(right) for left, right in ["()", "[]", "{}"])


def mutants_of(group, path):
    """Makes all mutants of a file."""
    lines = (ROOT / path).read_text().splitlines(keepends=True)
    end = next((number for number, line in enumerate(lines) if line.startswith("#[cfg(test)]")), len(lines))
    found = []

    def add(number, sort, said, new):
        found.append(Mutant(group, path, number + 1, sort, said, "".join(new)))

    for number, line in enumerate(lines[:end]):
        if line.strip().startswith(("//", "#")):
            continue
        for ordering in re.finditer(r"\b(SeqCst|AcqRel|Acquire|Release)\b", "" if line.startswith("use ") else line):
            for weaker in WEAKER.get(ordering[1], []):
                changed = line[: ordering.start(1)] + weaker + line[ordering.end(1) :]
                add(number, "weaker", f"{ordering[1]} is {weaker}", lines[:number] + [changed] + lines[number + 1 :])
        # The end of a chain that began above is no statement.
        begins = number > 0 and re.search(r"[;{}]\s*$|^\s*//|^\s*#", lines[number - 1])
        if begins and is_statement(line):
            add(number, "dropped", "a statement is dropped", lines[:number] + lines[number + 1 :])
            after = lines[number + 1] if number + 1 < end else ""
            # A `let` without a call only gives a name.
            is_let = re.match(r"let (?!_ ).*\(", after.strip()) and after.strip().endswith(";") and is_balanced(after)
            if indent(after) == indent(line) and (is_statement(after) or is_let):
                add(number, "swapped", "two neighbours have changed places", lines[:number] + [after, line] + lines[number + 2 :])
    return found


def indent(line):
    return len(line) - len(line.lstrip())


def choose(every, number, chance):
    """Chooses mutants, of each kind in turn: most are statements that are dropped."""
    kinds = [[mutant for mutant in every if mutant.sort == sort] for sort in ("weaker", "dropped", "swapped")]
    for kind in kinds:
        chance.shuffle(kind)
    turns = [mutant for turn in range(len(every)) for kind in kinds for mutant in kind[turn : turn + 1]]
    return turns[:number]


def missed(results):
    """Makes the mutants that the native tests missed, of the results of cargo-mutants."""
    found = []
    for outcome in json.loads((Path(results) / "outcomes.json").read_text())["outcomes"]:
        if outcome["summary"] != "MissedMutant":
            continue
        about = outcome["scenario"]["Mutant"]
        path = about["file"]
        with tempfile.NamedTemporaryFile("w+") as changed:
            changed.write((ROOT / path).read_text())
            changed.flush()
            diff = Path(results) / outcome["diff_path"]
            subprocess.run(["patch", "-s", changed.name, diff], check=True)
            text = Path(changed.name).read_text()
        crate = re.match(r"crates/forebay-(bus|task|sync)/", path)
        group = {"bus": "bus", "task": "task", "sync": "pool"}[crate[1]] if crate else "core"
        group = "permit" if path.endswith("/permit.rs") else group
        found.append(Mutant(group, path, about["span"]["start"]["line"], "missed", about["name"].split(": ", 1)[-1], text))
    return found


class Gate:
    """A copy of the tree, and what its mutants must pass."""

    def __init__(self, work, is_native):
        self.is_native = is_native
        self.tree = Path(work) / "tree"
        self.tree.mkdir()
        files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
        archive = subprocess.run(["tar", "--null", "-T", "-", "-c"], cwd=ROOT, input=files, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-m", "-C", self.tree], input=archive, check=True)
        drop = [name for name in os.environ if name.startswith("SHUTTLE_") or name in ("RUSTFLAGS", "LOOM_MAX_PERMUTATIONS", "LOOM_MAX_DURATION")]
        self.env = {name: value for name, value in os.environ.items() if name not in drop}
        target = os.environ.get("CARGO_TARGET_DIR", ROOT / "loom-tests/target")
        self.env |= {"CARGO_INCREMENTAL": "1", "FOREBAY_QUICK": "1", "FOREBAY_SCHEDULES": SCHEDULES,
                     "CARGO_TERM_COLOR": "never", "RUST_BACKTRACE": "0", "CARGO_TARGET_DIR": str(Path(target) / "random")}
        # Seconds that each command took on the tree as it is.
        self.usual = {}

    def commands(self, group):
        """Yields the sort, the folder and the command of each check of a group, quick to fail first."""
        for folder, features, tests in GROUPS[group]["models"]:
            names = " ".join(f"--test {test}" for test in tests)
            yield "model", f"loom-tests/{folder}", (
                f"cargo test --quiet --profile mutants --no-fail-fast --no-default-features --features '{features}' {names} -- --nocapture")
        for native in GROUPS[group]["native"] if self.is_native else []:
            yield "native", "", f"cargo test --quiet --no-fail-fast {native}"

    def check(self, sort, folder, command):
        """Runs one check. Returns "passed", "killed", "broken" or "undecided", and why."""
        build = re.sub(r"( -- .*)?$", " --no-run", command, count=1)
        built = subprocess.run(build, shell=True, cwd=self.tree / folder, env=self.env, capture_output=True, text=True)
        if built.returncode != 0:
            return ("broken" if "could not compile" in built.stderr else "undecided"), built.stdout + built.stderr
        begun = time.monotonic()
        limit = 120 + 10 * self.usual.get((folder, command), 600)
        with tempfile.TemporaryFile() as log:
            run = subprocess.Popen(command, shell=True, cwd=self.tree / folder, env=self.env, stdout=log, stderr=log, start_new_session=True)
            hangs = None
            # What a model has found is known at once: the other models are not waited for.
            while run.poll() is None and not (sort == "model" and findings(read(log))):
                if time.monotonic() - begun > limit:
                    hangs = not any(is_running(run.pid) or time.sleep(1) for _ in range(20))
                    break
                time.sleep(0.5)
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
            output = read(log)
        self.usual.setdefault((folder, command), time.monotonic() - begun)
        if hangs is not None:
            return ("killed", "hangs") if hangs else ("undecided", f"ran for more than {limit:.0f} s\n{output[-2000:]}")
        if run.returncode == 0:
            return "passed", ""
        reasons = findings(output)
        if reasons:
            return "killed", reasons[0][:140]
        if FLOOR.search(output):
            return "passed", "with other numbers of schedules"
        return "undecided", output[-2000:]


def read(log):
    # Not by `seek`, which would move where the program writes.
    return os.pread(log.fileno(), 1 << 26, 0).decode(errors="replace")


def findings(output):
    """Returns what panicked, but for what a test throws on purpose, and for numbers of schedules."""
    return [said for said in PANIC.findall(output) if not said.startswith("on purpose") and not FLOOR.search(said)]


def is_running(session):
    """Says whether a thread of a process of this session runs, or could."""
    for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] in "RD":
            return True
    return False


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("number", nargs="?", type=int, default=10)
    arguments.add_argument("seed", nargs="?", type=int, default=1)
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--files", default="")
    arguments.add_argument("--from", dest="results")
    options = arguments.parse_args()

    every = [mutant for group in GROUPS for pattern in GROUPS[group]["files"] for path in sorted(ROOT.glob(pattern))
             if path.name != "tests.rs" and options.files in str(path.relative_to(ROOT))
             for mutant in mutants_of(group, str(path.relative_to(ROOT)))]
    if options.results:
        chosen = missed(options.results)
        print(f"{len(chosen)} mutants that native tests missed", flush=True)
    else:
        chosen = choose(every, options.number, random.Random(options.seed))
        print(f"{len(chosen)} of {len(every)} mutants, seed {options.seed}", flush=True)
    if options.list:
        print("\n".join(map(str, chosen)))
        return 0

    with tempfile.TemporaryDirectory() as work:
        gate = Gate(work, not options.results)
        for group in sorted({mutant.group for mutant in chosen}):
            for check in gate.commands(group):
                result, why = gate.check(*check)
                print(f"{result:<10}{group}, unchanged: {check[2]}", flush=True)
                if result != "passed" or why:
                    print(f"the tree as it is must pass\n{why}")
                    return 1
        ends = {"model": [], "native": [], "survived": [], "undecided": [], "broken": []}
        for mutant in chosen:
            place, before = gate.tree / mutant.path, (ROOT / mutant.path).read_text()
            place.write_text(mutant.text)
            end, why = "survived", ""
            for check in gate.commands(mutant.group):
                result, why = gate.check(*check)
                if result != "passed":
                    end = check[0] if result == "killed" else result
                    break
            place.write_text(before)
            ends[end].append(mutant)
            by = {"model": "killed by a model", "native": "killed by a native test", "broken": "does not compile"}.get(end, end)
            print(f"{by}: {mutant}: {'' if end in ('broken', 'undecided') else why}", flush=True)
            if end in ("survived", "undecided"):
                print(mutant.diff() + (why if end == "undecided" else ""), flush=True)
    killed = len(ends["model"]) + len(ends["native"])
    print(f"{killed} of {killed + len(ends['survived'])} killed: {len(ends['model'])} by models, {len(ends['native'])} by native tests alone; "
          f"{len(ends['undecided'])} undecided, {len(ends['broken'])} did not compile")
    return 1 if options.results and ends["survived"] + ends["undecided"] else 0


if __name__ == "__main__":
    sys.exit(main())
