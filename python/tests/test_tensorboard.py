"""Both loaders of the real TensorBoard show what each method was given."""

import importlib.util
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import types
import urllib.error
import urllib.parse
import urllib.request
import wave
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from forebay import SummaryWriter

matplotlib.use("Agg")
# TensorBoard needs it to show anything. It is not imported here: it has handlers of forks, and other tests fork.
if importlib.util.find_spec("grpc") is None:
    pytest.skip("could not import 'grpc'", allow_module_level=True)

METHODS = sorted(name for name in dir(SummaryWriter) if name.startswith("add_"))

LOADERS = ("fast", "python")

#: What a method was called with, by its name. A case calls the method, and returns what looks at a board.
CASES = {}


def case(adds):
    CASES[adds.__name__] = adds
    return adds


class Board:
    """A running TensorBoard, of which `run` is looked at."""

    def __init__(self, folder, loader):
        command = [sys.executable, str(Path(__file__).with_name("board.py")), str(folder), loader]
        self.loader, self.run, self.said = loader, None, tempfile.TemporaryFile()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.said}
        self.process = subprocess.Popen(command, text=True, **pipes)

    def listens(self):
        self.url = self.process.stdout.readline().strip()
        self.said.seek(0)
        assert self.url, self.said.read().decode()
        # The fast loader answers while it reads. The other one has read everything by now.
        self.deadline = time.monotonic() + (20 if self.loader == "fast" else 0)

    def end(self):
        self.process.kill()
        self.process.communicate()

    def raw(self, path, data=None, **query):
        url = f"{self.url}data/{path}?{urllib.parse.urlencode(query)}"
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def ask(self, path, data=None, **query):
        return json.loads(self.raw(path, data, **query))

    def tags(self, plugin):
        """The tags of the run that a plugin shows."""
        return set(self.ask(f"plugin/{plugin}/tags").get(self.run, ()))

    def scalars(self, tag, run=None):
        points = self.ask("plugin/scalars/scalars", run=run or self.run, tag=tag)
        return {int(step): value for _, step, value in points}

    def histograms(self, tag):
        points = self.ask("plugin/histograms/histograms", run=self.run, tag=tag)
        return {int(step): buckets for _, step, buckets in points}

    def files(self, plugin, view, tag):
        """The entries of pictures or sounds, each with its bytes."""
        entries = self.ask(f"plugin/{plugin}/{plugin}", run=self.run, tag=tag, sample=0)
        queries = [dict(urllib.parse.parse_qsl(entry["query"])) for entry in entries]
        return [(entry, self.raw(f"plugin/{plugin}/{view}", **query)) for entry, query in zip(entries, queries)]

    def images(self, tag):
        """The images of a tag: step, and what Pillow opens."""
        opened = []
        for entry, content in self.files("images", "individualImage", tag):
            opened.append((entry["step"], Image.open(io.BytesIO(content))))
        return opened

    def pixels(self, tag):
        """The step of the one image of a tag, and its pixels."""
        ((step, image),) = self.images(tag)
        return step, np.asarray(image).tolist()

    def layout(self, category):
        """The charts of a category: TensorBoard shows those of all runs as one."""
        found = self.ask("plugin/custom_scalars/layout")["category"]
        (charts,) = (each["chart"] for each in found if each["title"] == category)
        return charts


@case
def add_scalar(writer):
    writer.add_scalar("loss", 0.5, 1)
    writer.add_scalar("loss", np.float32(0.1), 2)
    writer.add_scalar("as_tensor", 1.5, -3, new_style=True)
    writer.add_scalar("double", 2.5, 2**40, new_style=True, double_precision=True)
    writer.add_scalar("without_a_step", 7)
    writer.add_scalar("described", 8, 6, display_name="Title", summary_description="**what** it is")
    writer.add_scalar("back", 5.0, 5)
    writer.add_scalar("back", 3.0, 3)

    def look(board):
        # The fast loader shows no scalar of 64 bits, whoever wrote it.
        double = {"double": {2**40: 2.5}} if board.loader == "python" else {}
        assert board.tags("scalars") == {"loss", "as_tensor", "without_a_step", "described", "back", *double}
        assert board.scalars("loss") == {1: 0.5, 2: float(np.float32(0.1))}
        assert board.scalars("as_tensor") == {-3: 1.5}
        for tag, points in double.items():
            assert board.scalars(tag) == points
        assert board.scalars("without_a_step") == {0: 7.0}
        assert board.scalars("described") == {6: 8.0}
        described = {"displayName": "Title", "description": "<p><strong>what</strong> it is</p>"}
        assert board.ask("plugin/scalars/tags")[board.run]["described"] == described
        # The fast loader deletes the points from such a step on.
        assert board.scalars("back") == ({3: 3.0} if board.loader == "fast" else {5: 5.0, 3: 3.0})

    return look


@case
def add_scalars(writer):
    writer.add_scalars("loss", {"train": 0.5, "test": 0.75}, 4)

    def look(board):
        assert board.tags("scalars") == set()
        for key, value in (("train", 0.5), ("test", 0.75)):
            run = f"{board.run}/loss_{key}"
            assert board.ask("plugin/scalars/tags")[run].keys() == {"loss"}
            assert board.scalars("loss", run) == {4: value}

    return look


@case
def add_tensor(writer):
    tensors = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, -2], np.int64), np.array(True)]
    for step, tensor in enumerate(tensors):
        writer.add_tensor(f"t{step}", tensor, step)

    def look(board):
        for step, tensor in enumerate(tensors):
            shown = [step, str(tensor.dtype), list(tensor.shape), tensor.tolist()]
            assert board.ask("plugin/tensor/tensors", run=board.run, tag=f"t{step}") == [shown]

    return look


@case
def add_histogram(writer):
    values = np.random.default_rng(0).normal(size=1000)
    writer.add_histogram("edges", np.array([0.5, 1.5, 1.5, 9.0]), 1, bins=[0, 1, 2, 10])
    writer.add_histogram("default", values, 2)

    def look(board):
        assert board.tags("histograms") == {"edges", "default"}
        # The outermost edges are the least and the greatest value. The fast loader shows the empty bin below them, too.
        below = [[0.5, 0.0, 0.0]] if board.loader == "fast" else []
        least = 0.0 if below else 0.5
        assert board.histograms("edges") == {1: [*below, [least, 1.0, 1.0], [1.0, 2.0, 2.0], [2.0, 9.0, 1.0]]}
        ((step, buckets),) = board.histograms("default").items()
        edges = [left for left, _, _ in buckets] + [buckets[-1][1]]
        assert (step, edges[0], edges[-1]) == (2, np.float32(values.min()), np.float32(values.max()))
        counts = [count for _, _, count in buckets]
        assert (len(counts) > 100, sum(counts)) == (True, 1000)
        assert counts == np.histogram(values, [-np.inf, *edges[1:-1], np.inf])[0].tolist()

    return look


@case
def add_histogram_raw(writer):
    writer.add_histogram_raw("raw", 0, 4, 6, 10, 30, [1.0, 2.0, 4.0], [1, 2, 3], 7)

    def look(board):
        assert board.histograms("raw") == {7: [[0.0, 1.0, 1.0], [1.0, 2.0, 2.0], [2.0, 4.0, 3.0]]}

    return look


IMAGE = np.arange(36, dtype=np.uint8).reshape(3, 4, 3) * 7


@case
def add_image(writer):
    writer.add_image("hwc", IMAGE, 1, dataformats="HWC")
    writer.add_image("chw", IMAGE.transpose(2, 0, 1) / np.float32(255), 2)
    writer.add_image("hw", IMAGE[:, :, 0], 3, dataformats="HW")

    def look(board):
        assert board.tags("images") == {"hwc", "chw", "hw"}
        assert board.pixels("hwc") == (1, IMAGE.tolist())
        # As in PyTorch, the numbers are cut off and not rounded.
        assert board.pixels("chw") == (2, (IMAGE / np.float32(255) * np.float32(255)).astype(np.uint8).tolist())
        assert board.pixels("hw") == (3, IMAGE[:, :, [0, 0, 0]].tolist())

    return look


@case
def add_images(writer):
    writer.add_images("two", np.stack([IMAGE, 255 - IMAGE]), 4, dataformats="NHWC")

    def look(board):
        assert board.pixels("two") == (4, np.concatenate([IMAGE, 255 - IMAGE], axis=1).tolist())

    return look


@case
def add_image_with_boxes(writer):
    writer.add_image_with_boxes("box", np.zeros((3, 14, 14), np.uint8), np.array([[4, 3, 11, 9]]), 5)

    def look(board):
        step, pixels = board.pixels("box")
        red = {(x, y) for y in range(14) for x in range(14) if pixels[y][x] == [255, 0, 0]}
        edges = {(x, y) for y in range(3, 10) for x in range(4, 12) if x in (4, 11) or y in (3, 9)}
        # The lines are two pixels wide.
        around = {(x + right, y + down) for x, y in edges for right in (-1, 0, 1) for down in (-1, 0, 1)}
        assert step == 5
        assert edges <= red <= around

    return look


@case
def add_figure(writer):
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(1, 2), dpi=20)
    figure.add_subplot().plot([1, 3, 2])
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[:, :, :3].tolist()
    writer.add_figure("figure", figure, 6)

    def look(board):
        assert board.pixels("figure") == (6, drawn)

    return look


@case
def add_video(writer):
    video = np.zeros((1, 3, 3, 2, 4), np.uint8)
    for frame in range(3):
        video[0, frame, frame] = 255
    writer.add_video("video", video, 7, fps=10)

    def look(board):
        ((step, gif),) = board.images("video")
        frames = []
        for frame in range(gif.n_frames):
            gif.seek(frame)
            frames.append((gif.info["duration"], np.asarray(gif.convert("RGB"))[1, 3].tolist()))
        assert (step, gif.format, gif.size) == (7, "GIF", (4, 2))
        assert frames == [(100, [255, 0, 0]), (100, [0, 255, 0]), (100, [0, 0, 255])]

    return look


@case
def add_audio(writer):
    tone = np.array([0.0, 0.5, -0.5, 1.0, -1.0], np.float32)
    writer.add_audio("tone", tone[np.newaxis], 8, sample_rate=8000)

    def look(board):
        ((entry, content),) = board.files("audio", "individualAudio", "tone")
        with wave.open(io.BytesIO(content)) as sound:
            assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (8000, 1, 2)
            samples = np.frombuffer(sound.readframes(10), "<i2").tolist()
        assert (entry["step"], samples) == (8, [int(sample * 32767) for sample in tone])

    return look


@case
def add_text(writer):
    writer.add_text("note", "hello **world**", 9)

    def look(board):
        assert board.tags("text") == {"note/text_summary"}
        (entry,) = board.ask("plugin/text/text", run=board.run, tag="note/text_summary")
        # A table of one cell: PyTorch writes a list of one text, too.
        cells = re.findall("<td>(.*)</td>", entry["text"])
        assert (entry["step"], cells) == (9, ["<p>hello <strong>world</strong></p>"])

    return look


class Graph:
    """Stand-ins of PyTorch's modules that make a graph: TensorBoard's own messages, as PyTorch makes them."""

    def __init__(self):
        from tensorboard.compat.proto.config_pb2 import RunMetadata
        from tensorboard.compat.proto.graph_pb2 import GraphDef

        self.graph, self.run = GraphDef(), RunMetadata()
        self.graph.node.add(name="net/x", op="IO Node")
        self.graph.node.add(name="net/y", op="aten::mul", input=["net/x"])
        self.run.step_stats.dev_stats.add(device="/device:CPU:0")

    def instead(self, patch, module, **functions):
        parts = f"torch.utils.tensorboard.{module}".split(".")
        for end in range(1, len(parts)):
            patch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType("stand-in"))
        made = types.ModuleType(module)
        made.__dict__.update(functions)
        patch.setitem(sys.modules, ".".join(parts), made)

    def look(self, board):
        from google.protobuf import text_format

        shown = text_format.Parse(board.raw("plugin/graphs/graph", run=board.run), type(self.graph)())
        nodes = [(node.name, node.op, list(node.input)) for node in shown.node]
        assert nodes == [("net/x", "IO Node", []), ("net/y", "aten::mul", ["net/x"])]


@case
def add_graph(writer):
    made = Graph()
    with pytest.MonkeyPatch.context() as patch:
        made.instead(patch, "_pytorch_graph", graph=lambda *_: (made.graph, made.run))
        writer.add_graph("a model")

    def look(board):
        from google.protobuf import text_format

        made.look(board)
        assert "step1" in board.ask("plugin/graphs/info")[board.run]["tags"]
        shown = board.raw("plugin/graphs/run_metadata", run=board.run, tag="step1")
        assert text_format.Parse(shown, type(made.run)()) == made.run

    return look


@case
def add_onnx_graph(writer):
    made = Graph()
    with pytest.MonkeyPatch.context() as patch:
        made.instead(patch, "_onnx_graph", load_onnx_graph=lambda _: made.graph)
        writer.add_onnx_graph("model.onnx")
    return made.look


MODEL = """<net><layers><layer id="0" name="net/x" type="IO Node"/><layer id="1" name="net/y" type="aten::mul"/></layers>
<edges><edge from-layer="0" to-layer="1"/></edges></net>"""


@case
def add_openvino_graph(writer):
    model = Path(writer.log_dir, "model.xml")
    model.write_text(MODEL)
    writer.add_openvino_graph(model)
    return Graph().look


@case
def add_embedding(writer):
    points = np.arange(6, dtype=np.float32).reshape(3, 2) / 4
    images = np.zeros((3, 3, 2, 2), np.float32)
    images[0, 0] = 1.0
    writer.add_embedding(points, ["a", "b", "c"], images, 10, tag="points")

    def look(board):
        query = {"run": board.run, "name": "points:00010"}
        (embedding,) = board.ask("plugin/projector/info", run=board.run)["embeddings"]
        assert (embedding["tensorName"], embedding["tensorShape"]) == (query["name"], [3, 2])
        assert np.frombuffer(board.raw("plugin/projector/tensor", **query), "<f4").tolist() == points.ravel().tolist()
        assert board.raw("plugin/projector/metadata", **query) == b"a\nb\nc\n"
        sprite = np.asarray(Image.open(io.BytesIO(board.raw("plugin/projector/sprite_image", **query))))
        assert (sprite.shape, sprite[0, 0].tolist(), sprite[0, 2].tolist()) == ((4, 4, 3), [255, 0, 0], [0, 0, 0])

    return look


@case
def add_pr_curve(writer):
    labels, predictions = np.array([1, 0, 1, 1]), np.array([0.9, 0.6, 0.2, 0.55])
    writer.add_pr_curve("curve", labels, predictions, 11, num_thresholds=3)

    def look(board):
        (point,) = board.ask("plugin/pr_curves/pr_curves", run=board.run, tag="curve")[board.run]
        # All, those of 0.5 and more, and none: the last one has no precision, and is not shown.
        assert (point["step"], point["thresholds"]) == (11, [0.0, 0.5])
        assert (point["true_positives"], point["false_positives"]) == ([3, 2], [1, 1])
        assert (point["true_negatives"], point["false_negatives"]) == ([0, 0], [0, 1])
        assert point["precision"] == pytest.approx([3 / 4, 2 / 3])
        assert point["recall"] == pytest.approx([1, 2 / 3])

    return look


@case
def add_pr_curve_raw(writer):
    names = ("true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall")
    rows = [[75, 64], [150, 105], [0, 45], [0, 11], [0.25, 0.5], [1.0, 0.75]]
    writer.add_pr_curve_raw("curve", *rows, 12, num_thresholds=2)

    def look(board):
        (point,) = board.ask("plugin/pr_curves/pr_curves", run=board.run, tag="curve")[board.run]
        assert (point["step"], [point[name] for name in names]) == (12, rows)

    return look


@case
def add_custom_scalars(writer):
    charts = {"both": ["Multiline", ["loss/a", "loss/b"]], "band": ["Margin", ["m/v", "m/lo", "m/hi"]]}
    writer.add_custom_scalars({"Losses": charts})

    def look(board):
        band = {"value": "m/v", "lower": "m/lo", "upper": "m/hi"}
        assert board.layout("Losses") == [
            {"title": "both", "multiline": {"tag": ["loss/a", "loss/b"]}},
            {"title": "band", "margin": {"series": [band]}},
        ]

    return look


@case
def add_custom_scalars_multilinechart(writer):
    writer.add_custom_scalars_multilinechart(["a", "b"], category="Lines", title="two")

    def look(board):
        assert board.layout("Lines") == [{"title": "two", "multiline": {"tag": ["a", "b"]}}]

    return look


@case
def add_custom_scalars_marginchart(writer):
    writer.add_custom_scalars_marginchart(["v", "lo", "hi"], category="Margins", title="one")

    def look(board):
        series = [{"value": "v", "lower": "lo", "upper": "hi"}]
        assert board.layout("Margins") == [{"title": "one", "margin": {"series": series}}]

    return look


@case
def add_mesh(writer):
    vertices = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0.5]]])
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    faces = np.array([[[0, 1, 2]]])
    writer.add_mesh("mesh", vertices, colors, faces, {"camera": {"fov": 75}}, 13)

    def look(board):
        query = {"run": board.run, "tag": "mesh", "sample": 0}
        parts = board.ask("plugin/mesh/meshes", **query)
        found = {(part["step"], part["content_type"], *part["data_shape"]) for part in parts}
        assert found == {(13, 1, 1, 3, 3), (13, 2, 1, 1, 3), (13, 3, 1, 3, 3)}
        assert [part["config"] for part in parts] == ['{"camera": {"fov": 75}}'] * 3
        for kind, type_of, given in (("VERTEX", "<f4", vertices), ("FACE", "<i4", faces), ("COLOR", "u1", colors)):
            seen = board.raw("plugin/mesh/data", **query, step=13, content_type=kind)
            assert np.frombuffer(seen, type_of).tolist() == given.ravel().tolist()

    return look


@case
def add_hparams(writer):
    hparams = {"lr": 0.125, "opt": "sgd", "amp": True}
    writer.add_hparams(hparams, {"accuracy": 0.75}, {"opt": ["sgd", "adam"]}, "trial", 14)

    def look(board):
        trial = f"{board.run}/trial"
        assert board.scalars("accuracy", trial) == {14: 0.75}
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
        data = {"experimentName": "", "allowedStatuses": statuses, "startIndex": 0, "sliceSize": 9, "colParams": []}
        (group,) = board.ask("plugin/hparams/session_groups", data)["sessionGroups"]
        assert group["hparams"] == hparams
        (session,) = group["sessions"]
        assert (session["name"], session["status"]) == (trial, "STATUS_SUCCESS")
        (metric,) = session["metricValues"]
        assert (metric["name"]["tag"], metric["value"], metric["trainingStep"]) == ("accuracy", 0.75, 14)
        experiment = board.ask("plugin/hparams/experiment", {"experimentName": ""})
        (opt,) = (info for info in experiment["hparamInfos"] if info["name"] == "opt")
        assert opt["domainDiscrete"] == ["sgd", "adam"]

    return look


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """A TensorBoard for each loader, and what looks at the run of each method: all runs are in one folder."""
    folder = tmp_path_factory.mktemp("runs")
    looks = {}
    for method, adds in CASES.items():
        with SummaryWriter(folder / method) as writer:
            looks[method] = adds(writer)
            writer.flush()
            stats = writer.stats()
            assert (stats["failed"], stats["ignored"]) == (0, 0)
    running = {loader: Board(folder, loader) for loader in LOADERS}
    try:
        for board in running.values():
            board.listens()
        yield running, looks
    finally:
        for board in running.values():
            board.end()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("method", METHODS)
def test_tensorboard_shows_what_a_method_was_given(method, loader, boards):
    assert method in CASES, f"{method} has no case here"
    running, looks = boards
    board = running[loader]
    board.run = method
    while True:
        try:
            return looks[method](board)
        except (AssertionError, KeyError, ValueError, urllib.error.HTTPError):
            if time.monotonic() >= board.deadline:
                raise
        time.sleep(0.05)
