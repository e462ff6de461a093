"""Every method writes what PyTorch's writer writes for the same call."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from PIL import Image
from support import all_events, events
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.plugins.mesh.plugin_data_pb2 import MeshPluginData
from tensorboard.plugins.pr_curve.plugin_data_pb2 import PrCurvePluginData
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.util import tensor_util

from forebay import SummaryWriter

T = 1_700_000_000.25
GOLDEN = json.loads(Path(__file__).with_name("data").joinpath("torch_writer.json").read_text())

# The inputs, drawn as they were for PyTorch.
rng = np.random.default_rng(2750)
VALUES = rng.normal(size=1000).astype(np.float32)
IMAGE = rng.random((3, 8, 6)).astype(np.float32)
LABELS, PREDICTIONS = rng.integers(0, 2, 50), rng.random(50)
POINTS = rng.random((4, 3)).astype(np.float32)


def golden(folder):
    """The events with values that PyTorch wrote into a folder."""
    files = sorted(name for name in GOLDEN if str(Path(name).parent) == folder)
    found = [ParseDict(event, Event()) for name in files for event in GOLDEN[name]]
    return [event for event in found if event.HasField("summary")]


def plain(found, with_time=True):
    """What the values of events say, in a form in which two that say the same are equal.

    Values of one step share an event in our files, as far as they follow one another.
    """
    return [
        {"step": event.step, "time": event.wall_time if with_time else None, **plain_value(value)}
        for event in found
        for value in event.summary.value
    ]


CONTENT = {"hparams": HParamsPluginData, "mesh": MeshPluginData, "pr_curves": PrCurvePluginData}


def plain_value(value):
    plugin = value.metadata.plugin_data
    said = {"tag": value.tag, "plugin": plugin.plugin_name}
    if plugin.plugin_name in CONTENT:
        content = CONTENT[plugin.plugin_name].FromString(plugin.content)
        if plugin.plugin_name == "hparams":
            # PyTorch leaves the times out.
            content.session_start_info.start_time_secs = 0
            content.session_end_info.end_time_secs = 0
            kind = content.WhichOneof("data")
            content = getattr(content, kind)
        said["content"] = MessageToDict(content)
    match value.WhichOneof("value"):
        case "simple_value":
            said["number"] = repr(value.simple_value)
        case "histo":
            histo = value.histo
            numbers = [histo.min, histo.max, histo.num, histo.sum, histo.sum_squares]
            # A sum in another order.
            said["histo"] = [f"{number:.11g}" for number in numbers]
            said["limits"] = list(histo.bucket_limit)
            said["counts"] = list(histo.bucket)
        case "image":
            image = value.image
            said["size"] = (image.height, image.width, image.colorspace)
            said["pixels"] = np.asarray(Image.open(io.BytesIO(image.encoded_image_string))).tolist()
        case "audio":
            said["audio"] = MessageToDict(value.audio)
        case "tensor" if plugin.plugin_name == "custom_scalars":
            said["layout"] = MessageToDict(Layout.FromString(value.tensor.string_val[0]))
        case "tensor" if plugin.plugin_name != "hparams":
            array = tensor_util.make_ndarray(value.tensor)
            said["tensor"] = (str(array.dtype), array.shape, array.tolist())
    return said


def same(ours, folder, theirs, with_time=True):
    found = plain(events(ours / folder), with_time)
    wanted = plain(golden(theirs), with_time)
    assert wanted, theirs
    assert found == wanted


def scalar(writer):
    for step, value in enumerate([0.5, -1.0, math.nan, math.inf, 1e-40, 3]):
        writer.add_scalar("train/loss", value, step, walltime=T + step)
    writer.add_scalar("no_step", 1.0, walltime=T)
    writer.add_scalar("neg.step", 2.0, -1, walltime=T)
    writer.add_scalar("new", 1.5, 1, walltime=T, new_style=True)
    writer.add_scalar("dbl", 1.5, 1, walltime=T, new_style=True, double_precision=True)
    writer.add_scalar("tensor", np.array([2.5]), 3, walltime=T)
    writer.add_scalar("back", 1.0, 5, walltime=T)
    writer.add_scalar("back", 2.0, 3, walltime=T + 1)


def histogram(writer):
    writer.add_histogram("w/tf", VALUES, 1, walltime=T)
    writer.add_histogram("w/auto", VALUES, 2, bins="auto", walltime=T)
    writer.add_histogram("w/fd", VALUES, 3, bins="fd", max_bins=16, walltime=T)
    writer.add_histogram("w/const", np.ones(10), 4, walltime=T)
    writer.add_histogram("w/int", np.arange(10), 5, walltime=T)
    writer.add_histogram("w/one", np.array([3.0]), 6, walltime=T)
    writer.add_histogram_raw("w/raw", 0, 4, 6, 10, 30, [1.0, 2.0, 4.0], [1, 2, 3], 7, walltime=T)


def image(writer):
    bytes_of_image = (IMAGE.transpose(1, 2, 0) * 255).astype(np.uint8)
    writer.add_image("chw", IMAGE, 1, walltime=T)
    writer.add_image("hwc", bytes_of_image, 2, dataformats="HWC", walltime=T)
    writer.add_image("hw", IMAGE[0], 3, dataformats="HW", walltime=T)
    writer.add_images("nchw", np.stack([IMAGE, IMAGE * 0.5]), 4, walltime=T)
    writer.add_image_with_boxes("boxes", IMAGE, np.array([[1, 1, 4, 5]]), 5, walltime=T)


def text(writer):
    writer.add_text("note", "hello **world**\n| a | b |", 2, walltime=T)


def audio(writer):
    tone = np.sin(np.arange(400) / 10).astype(np.float32)[np.newaxis]
    writer.add_audio("tone", tone, 1, sample_rate=8000, walltime=T)


def pr(writer):
    writer.add_pr_curve("pr", LABELS, PREDICTIONS, 1, num_thresholds=11, walltime=T)


def mesh(writer):
    vertices = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]])
    colors = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])
    faces = np.array([[[0, 1, 2]]])
    writer.add_mesh("mesh", vertices=vertices, colors=colors, faces=faces, global_step=1, walltime=T)


def tensor(writer):
    writer.add_tensor("t", np.arange(6).reshape(2, 3).astype(np.float32), 1, walltime=T)


@pytest.mark.parametrize("method", [scalar, histogram, image, text, audio, pr, mesh, tensor])
def test_a_method_writes_what_pytorch_writes(method, tmp_path):
    with SummaryWriter(tmp_path) as writer:
        method(writer)
    same(tmp_path, "", method.__name__)


def test_scalars_have_a_run_of_their_own_each(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalars("loss/split", {"train": 0.5, "val": 0.7}, 4, walltime=T)
    for run in ("loss_split_train", "loss_split_val"):
        same(tmp_path, run, f"scalars/{run}")
    assert not events(tmp_path)


def test_a_layout_is_what_pytorch_writes(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        charts = {"both": ["Multiline", ["loss/a", "loss/b"]], "band": ["Margin", ["m/v", "m/lo", "m/hi"]]}
        writer.add_custom_scalars({"Losses": charts})
    same(tmp_path, "", "layout", with_time=False)


def test_hyper_parameters_have_a_run_of_their_own(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_hparams(
            {"lr": 0.1, "bsize": 3, "opt": "sgd", "amp": True},
            {"hparam/acc": 0.9, "hparam/loss": 0.2},
            run_name="r1",
            hparam_domain_discrete={"opt": ["sgd", "adam"]},
        )
    same(tmp_path, "r1", "hparams/r1", with_time=False)


def test_a_purge_step_begins_a_session_there(tmp_path):
    with SummaryWriter(tmp_path, purge_step=3) as writer:
        writer.add_scalar("x", 1.0, 3, walltime=T)
    same(tmp_path, "", "purge")
    starts = [event for event in all_events(tmp_path) if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in starts] == [(3, 1)]


def test_without_a_purge_step_earlier_points_stay(tmp_path):
    for first in (0, 3):
        with SummaryWriter(tmp_path) as writer:
            writer.add_scalar("x", first, first, walltime=T)
            writer.add_scalars("y", {"z": first}, first, walltime=T)
            writer.close()
            writer.add_scalar("x", first + 1, first + 1, walltime=T)
    for folder in (tmp_path, tmp_path / "y_z"):
        assert not any(event.HasField("session_log") for event in all_events(folder))
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("x")
    assert [(point.step, point.value) for point in shown] == [(step, step) for step in (0, 1, 3, 4)]


def test_a_suffix_ends_the_name_of_the_file(tmp_path):
    with SummaryWriter(tmp_path, filename_suffix=".mine") as writer:
        writer.add_scalar("x", 1.0, 1, walltime=T)
    same(tmp_path, "", "suffix")
    (file,) = tmp_path.iterdir()
    assert file.name.endswith(".mine")


def test_a_writer_that_was_closed_begins_a_new_file(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.add_scalar("x", 1.0, 1, walltime=T)
    assert writer.file_writer is not None
    writer.close()
    assert (writer.file_writer, writer.all_writers) == (None, None)
    writer.close()
    writer.add_scalar("x", 2.0, 2, walltime=T)
    writer.close()
    same(tmp_path, "", "reopen")
    assert len(list(tmp_path.iterdir())) == 2


def test_an_embedding_is_files_for_the_projector(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_embedding(POINTS, metadata=["a", "b", "c", "d"], global_step=1, tag="emb")
    assert (tmp_path / "00001/emb/metadata.tsv").read_text() == "a\nb\nc\nd\n"
    rows = [line.split("\t") for line in (tmp_path / "00001/emb/tensors.tsv").read_text().splitlines()]
    assert [[float(each) for each in row] for row in rows] == POINTS.astype(float).tolist()
    assert (tmp_path / "projector_config.pbtxt").read_text() == (
        'embeddings {\n  tensor_name: "emb:00001"\n  metadata_path: "00001/emb/metadata.tsv"\n'
        '  tensor_path: "00001/emb/tensors.tsv"\n}\n'
    )


def test_a_graph_is_handed_on_as_pytorch_makes_it(tmp_path):
    (name,) = (name for name in GOLDEN if name.startswith("graph/"))
    graph, metadata = (ParseDict(event, Event()) for event in GOLDEN[name][1:])

    class Message:
        def __init__(self, content):
            self.content = content

        def SerializeToString(self):
            return self.content

    with SummaryWriter(tmp_path) as writer:
        run_metadata = Message(metadata.tagged_run_metadata.run_metadata)
        writer._get_file_writer().add_graph((Message(graph.graph_def), run_metadata), walltime=T)
    found = [event for event in all_events(tmp_path) if event.WhichOneof("what") in ("graph_def", "tagged_run_metadata")]
    assert [event.graph_def for event in found] == [graph.graph_def, b""]
    assert found[1].tagged_run_metadata == metadata.tagged_run_metadata
    assert [(event.step, event.wall_time) for event in found] == [(0, T), (0, T)]
