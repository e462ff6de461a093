"""Asks the real TensorBoard, with both of its loaders, what it sees in the runs that write.rs wrote.

usage: check.py FOLDER FOLDER-OF-ENCODED        (see ./run, which makes all that it needs)
"""

import io
import json
import math
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from PIL import Image


class Board:
    """A running TensorBoard."""

    def __init__(self, folder, fast):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder, "--port", str(self.port)]
        command += ["--load_fast", "true" if fast else "false", "--reload_interval", "1"]
        command += ["--samples_per_plugin", "scalars=1000000,images=100,text=100,histograms=100"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def raw(self, path, data=None, **query):
        url = f"http://127.0.0.1:{self.port}/data/{path}?{urllib.parse.urlencode(query)}"
        headers = {"Content-Type": "application/json"}
        body = None if data is None else json.dumps(data).encode()
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
            return answer.read()

    def ask(self, path, data=None, **query):
        return json.loads(self.raw(path, data, **query))

    def wait(self, runs):
        """Until all runs are there and stay as they are."""
        before = None
        for _ in range(120):
            try:
                tags = self.ask("plugin/scalars/tags")
                # A loader that has little time reads long files piece by piece.
                points = [len(self.scalars(run, tag)) for run in tags for tag in tags[run]]
                now = (sorted(self.ask("runs")), tags, points)
            except OSError:
                now = None
            if now and now == before and now[0] == runs:
                return
            before = now
            time.sleep(1.5)
        sys.exit(f"TensorBoard never showed {runs}, but {before}")

    def scalars(self, run, tag):
        points = self.ask("plugin/scalars/scalars", run=run, tag=tag)
        return {int(step): float(value) for _, step, value in points}


def bits(step):
    """The value of a step in write.rs, as 32 bits."""
    return step * 0x9E3779B9 % 2**32


def same(expected, seen):
    (expected,) = struct.unpack("<f", struct.pack("<I", expected))
    return expected == seen or math.isnan(expected) and math.isnan(seen)


def check(what, holds, shown=""):
    if not holds:
        sys.exit(f"{what}: {shown}")
    print(f"  {what}")


def check_all(board, fast):
    as_torch = ["as_torch", "as_torch/eval/fold_1", "as_torch/loss_train"]
    runs = as_torch + ["everything", "far", "ranks/0", "ranks/1", "resumed", "torn"]
    board.wait(runs)
    seen = board.scalars("everything", "train/bits")
    wrong = [step for step in range(5000) if step not in seen or not same(bits(step), seen[step])]
    check("5,000 scalars equal to the last bit of f32, NaN and infinities among them", not wrong, wrong[:5])
    seen = board.scalars("far", "far")
    check("steps beyond 2^53", seen == {2**53: 1.0, 2**53 + 1: 1.0}, seen)

    seen = board.ask("plugin/histograms/histograms", run="everything", tag="weights")
    steps = [point[1] for point in seen]
    totals = [sum(bucket[2] for bucket in point[2]) for point in seen]
    edges = [(point[2][0][0], point[2][-1][1]) for point in seen]
    expected = [(0.0, 99.0 * (step + 1)) for step in range(3)]
    check("histograms", (steps, totals, edges) == ([0, 1, 2], [100.0] * 3, expected), seen)

    seen = board.ask("plugin/text/text", run="everything", tag="notes")
    texts = [(point["step"], point["text"]) for point in seen]
    expected = [(step, f"<p>step <strong>{step}</strong></p>") for step in range(3)]
    check("text, rendered as Markdown", texts == expected, texts)

    seen = board.ask("plugin/images/images", run="everything", tag="picture", sample=0)
    check("three images", [point["step"] for point in seen] == [0, 1, 2], seen)
    query = dict(urllib.parse.parse_qsl(seen[2]["query"]))
    image = Image.open(io.BytesIO(board.raw("plugin/images/individualImage", **query)))
    expected = bytes((n * 7 + 2) % 256 for n in range(36))
    check("pixels of an image", image.size == (4, 3) and image.tobytes() == expected, image)

    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    data = {"experimentName": "", "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 100}
    data["colParams"] = [{"hparam": "rate"}]
    groups = board.ask("plugin/hparams/session_groups", data)["sessionGroups"]
    expected = {"rate": 0.125, "layers": 3.0, "name": "mlp", "fast": True}
    check("one row of hyper-parameters", len(groups) == 1 and groups[0]["hparams"] == expected, groups)
    session = groups[0]["sessions"][0]
    check("which ended well", session["status"] == "STATUS_SUCCESS", session)

    seen = board.scalars("resumed", "train/loss")
    expected = {step: 1.0 if step < 6 else 2.0 for step in range(12)}
    check("a resumed run: the new points take the place of the old ones", seen == expected, seen)
    seen = board.scalars("torn", "train/loss")
    check("a torn tail, then a file that goes on", seen == {step: 1.0 for step in range(20)}, seen)
    for rank in range(2):
        seen = board.scalars(f"ranks/{rank}", "train/loss")
        check(f"rank {rank}", seen == {step: float(rank) for step in range(10)}, seen)


    seen = board.scalars("as_torch", "val.loss")
    check("verbatim tags and negative steps", seen == {step: 0.5 for step in range(-1, 3)}, seen)
    seen = board.scalars("as_torch", "no.step")
    check("missing steps as step 0", seen == {0: 2.0}, seen)
    seen = board.scalars("as_torch", "back")
    # The fast loader deletes the points from such a step on.
    check("a backward step as it is", seen == ({3: 3.0} if fast else {5: 5.0, 3: 3.0}), seen)
    seen = board.ask("plugin/images/images", run="as_torch", tag="gif", sample=0)
    query = dict(urllib.parse.parse_qsl(seen[0]["query"]))
    image = Image.open(io.BytesIO(board.raw("plugin/images/individualImage", **query)))
    check("a GIF file", (image.format, image.size) == ("GIF", (2, 1)), image)
    for name, value in [("loss_train", 1.0), ("eval/fold_1", 2.0)]:
        seen = board.scalars(f"as_torch/{name}", "loss")
        check(f"sub-run {name}", seen == {step: value for step in range(10)}, seen)


def shown(board, run):
    """All that the plugins show of a run, by plugin and tag."""
    shown = {}
    plugins = ["scalars", "histograms", "text", "images", "audio", "pr_curves", "mesh"]
    views = ["scalars", "histograms", "text", "images", "audio", "pr_curves", "meshes"]
    for plugin, view in zip(plugins, views):
        for tag in board.ask(f"plugin/{plugin}/tags").get(run, []):
            query = {"run": run, "tag": tag, "sample": 0}
            seen = board.ask(f"plugin/{plugin}/{view}", **query)
            if plugin == "pr_curves":
                seen = seen[run]
            if plugin == "mesh":
                # The parts of one step come in any order.
                seen.sort(key=lambda part: (part["step"], part["content_type"]))
            for point in seen:
                # Which file it is: a name that has the run in it.
                if isinstance(point, dict):
                    blob = dict(urllib.parse.parse_qsl(point.pop("query", "")))
                    if blob:
                        view_of = {"images": "individualImage", "audio": "individualAudio"}[plugin]
                        point["blob"] = board.raw(f"plugin/{plugin}/{view_of}", **blob)
            shown[plugin, tag] = seen
    return shown


def graph(board, run):
    try:
        return board.raw("plugin/graphs/graph", run=run)
    except urllib.error.HTTPError as error:
        return error.code


def without_moments(value):
    """Values of one step share the moment of the first, so moments differ."""
    if isinstance(value, dict):
        return {key: without_moments(of) for key, of in value.items() if key not in ("wall_time", "wallTime")}
    if isinstance(value, list):
        # Scalars and histograms are lists, which begin with the moment.
        begins = value[1:] if value and isinstance(value[0], float) and value[0] > 1e9 else value
        return [without_moments(of) for of in begins]
    return value


def check_encoded(board, folder):
    methods = sorted(os.path.relpath(root, folder) for root, _, files in os.walk(folder) if files)
    board.wait(methods)
    plugins = set()
    for original in methods:
        if not original.startswith("original/"):
            continue
        passed = original.replace("original/", "passed/", 1)
        expected, seen = shown(board, original), shown(board, passed)
        expected, seen = ({key: without_moments(of) for key, of in one.items()} for one in (expected, seen))
        check(f"torch's {original[9:]}: {sorted(expected)}", expected == seen, (expected, seen))
        check("and its graph", graph(board, original) == graph(board, passed))
        plugins.update(plugin for plugin, _ in expected)
    expected = {"scalars", "histograms", "text", "images", "audio", "pr_curves", "mesh"}
    check("every plugin showed something", plugins == expected, plugins)


def main():
    for fast, name in [(True, "the fast loader (rustboard)"), (False, "the Python loader")]:
        print(name)
        with Board(sys.argv[1], fast) as board:
            check_all(board, fast)
        with Board(sys.argv[2], fast) as board:
            check_encoded(board, sys.argv[2])


main()
