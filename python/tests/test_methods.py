"""Methods for which PyTorch's writer left no file to compare with, and what is ours alone."""

import io
import logging
import pickle
import threading

import matplotlib
import numpy as np
import pytest
from PIL import Image
from support import events, values
from tensorboard.util import tensor_util

import forebay
from forebay import SummaryWriter, _forebay

matplotlib.use("Agg")


def written(tmp_path, add):
    """The values that a call writes."""
    with SummaryWriter(tmp_path) as writer:
        add(writer)
    return values(tmp_path)


def pixels(value):
    return np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))


def test_a_figure_is_drawn_without_its_fourth_channel(tmp_path):
    from matplotlib import pyplot

    figure = pyplot.figure(figsize=(1, 2), dpi=50, facecolor="red")
    (value,) = written(tmp_path, lambda writer: writer.add_figure("f", figure, 1))
    assert (value.image.width, value.image.height, value.image.colorspace) == (50, 100, 3)
    assert pixels(value)[0, 0].tolist() == [255, 0, 0]
    assert not pyplot.fignum_exists(figure.number)


def test_figures_are_tiled(tmp_path):
    from matplotlib import pyplot

    figures = [pyplot.figure(figsize=(1, 1), dpi=50, facecolor=colour) for colour in ("red", "blue")]
    (value,) = written(tmp_path, lambda writer: writer.add_figure("f", figures, 1, close=False))
    assert pixels(value).shape == (50, 100, 3)
    assert pixels(value)[0, [0, 50]].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert pyplot.fignum_exists(figures[0].number)
    pyplot.close("all")


def test_a_video_is_a_gif_of_its_frames(tmp_path):
    video = np.zeros((3, 5, 3, 4, 6), np.uint8)
    video[1, :, 0] = 255
    (value,) = written(tmp_path, lambda writer: writer.add_video("v", video, 1, fps=10))
    gif = Image.open(io.BytesIO(value.image.encoded_image_string))
    # Three videos make a row of four, whose last place is black.
    assert (gif.format, gif.size) == ("GIF", (24, 4))
    first = np.asarray(gif.convert("RGB"))
    assert (first[0, 6].tolist(), first[0, 18].tolist()) == ([255, 0, 0], [0, 0, 0])


def test_labels_are_drawn_beside_boxes(tmp_path):
    image, boxes = np.ones((3, 60, 80), np.float32), np.array([[5, 5, 70, 50]])

    def add(writer):
        writer.add_image_with_boxes("plain", image, boxes)
        writer.add_image_with_boxes("labelled", image, boxes, labels="cat")
        writer.add_image_with_boxes("large", image, boxes, rescale=2, labels=["one", "too many"])

    plain, labelled, large = map(pixels, written(tmp_path, add))
    assert plain[5, 30].tolist() == [255, 0, 0]
    dark = [int((image.sum(axis=2) < 128).sum()) for image in (plain, labelled)]
    assert dark[0] == 0 < dark[1]
    assert large.shape == (120, 160, 3)


def test_gray_and_transparent_images_keep_their_channels(tmp_path):
    def add(writer):
        writer.add_image("gray", np.full((1, 2, 2), 0.5))
        writer.add_image("rgba", np.full((2, 2, 4), 7, np.uint8), dataformats="HWC")
        writer.add_images("batch", np.zeros((9, 2, 2, 1)), dataformats="NHWC")

    gray, rgba, batch = map(pixels, written(tmp_path, add))
    assert gray[0, 0].tolist() == [127, 127, 127]
    assert rgba[0, 0].tolist() == [7, 7, 7, 7]
    assert batch.shape == (4, 16, 3)


def test_an_image_of_two_channels_is_gray_with_opacity(tmp_path):
    levels = np.array([[[10, 20]], [[255, 128]]], np.uint8)

    def add(writer):
        writer.add_image("plain", levels)
        writer.add_image_with_boxes("boxes", levels, np.zeros((0, 4)))

    for value in written(tmp_path, add):
        assert (value.image.height, value.image.width, value.image.colorspace) == (1, 2, 2)
        image = Image.open(io.BytesIO(value.image.encoded_image_string))
        assert (image.mode, image.tobytes()) == ("LA", bytes([10, 255, 20, 128]))
    assert repr(forebay.Image(levels)) == "<Image of 2 x 1 pixels>"


def test_a_raw_curve_is_written_as_it_is(tmp_path):
    rows = [[3, 1], [2, 1], [0, 1], [0, 2], [0.6, 0.5], [1.0, 0.3]]
    (value,) = written(tmp_path, lambda writer: writer.add_pr_curve_raw("pr", *rows, num_thresholds=2))
    assert value.metadata.plugin_data.plugin_name == "pr_curves"
    assert tensor_util.make_ndarray(value.tensor).tolist() == np.array(rows, np.float32).tolist()


def test_weights_of_a_curve_count(tmp_path):
    labels, predictions = np.array([1, 0, 1, 1]), np.array([0.9, 0.8, 0.2, 2.0])

    def add(writer):
        writer.add_pr_curve("one", labels, predictions, num_thresholds=3, weights=0.5)
        writer.add_pr_curve("each", labels, predictions, num_thresholds=3, weights=np.array([4, 3, 2, 1]))

    one, each = (tensor_util.make_ndarray(value.tensor) for value in written(tmp_path, add))
    # What is not within 0 and 1 is left out.
    assert one[0].tolist() == [1.0, 0.5, 0.0]
    assert each[:2].tolist() == [[6, 4, 0], [3, 3, 0]]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", ">f4", ">i2"])
def test_a_tensor_keeps_its_type_and_shape(dtype, tmp_path):
    tensor = np.arange(6).reshape(2, 3).astype(dtype)[:, ::2]
    (value,) = written(tmp_path, lambda writer: writer.add_tensor("t", tensor))
    array = tensor_util.make_ndarray(value.tensor)
    assert array.dtype == tensor.dtype.newbyteorder("=")
    assert array.tolist() == tensor.tolist()


def test_charts_of_several_scalars_are_laid_out(tmp_path):
    def add(writer):
        writer.add_custom_scalars_multilinechart(["a", "b"], category="c", title="t")
        writer.add_custom_scalars_marginchart(["v", "lo", "hi"])

    lines, margin = (value.tensor.string_val[0] for value in written(tmp_path, add))
    assert lines == b"\x12\x10\x0a\x01c\x12\x0b\x0a\x01t\x12\x06\x0a\x01a\x0a\x01b"
    assert all(part in margin for part in (b"default", b"untitled", b"lo", b"hi"))


def test_an_embedding_has_images_headers_and_several_entries(tmp_path):
    def add(writer):
        images = np.zeros((3, 3, 4, 4), np.float32)
        images[2, 1] = 1.0
        labels = [["a", 1], ["b", 2], ["c", 3]]
        writer.add_embedding(np.eye(3), labels, images, tag="x/y", metadata_header=["name", "number"])
        writer.add_embedding(np.eye(2), global_step=7)

    written(tmp_path, add)
    folder = tmp_path / "00000/x%2fy"
    assert (folder / "metadata.tsv").read_text() == "name\tnumber\na\t1\nb\t2\nc\t3\n"
    sprite = np.asarray(Image.open(folder / "sprite.png"))
    assert (sprite.shape, sprite[4, 0].tolist()) == ((8, 8, 3), [0, 255, 0])
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert config.count("embeddings {") == 2
    assert '  sprite {\n    image_path: "00000/x%2fy/sprite.png"\n    single_image_dim: 4' in config
    assert 'tensor_name: "default:00007"' in config


def test_labels_may_be_arrays(tmp_path):
    def add(writer):
        writer.add_embedding(np.eye(3), metadata=np.arange(3))
        writer.add_embedding(np.eye(2), np.array([["a", "b"], ["c", "d"]]), tag="pairs", metadata_header=np.array(["x", "y"]))
        boxes = np.array([[1, 1, 3, 3], [0, 0, 2, 2]], np.float32)
        writer.add_image_with_boxes("boxes", np.zeros((3, 8, 8), np.uint8), boxes, labels=np.array(["one", "two"]))

    written(tmp_path, add)
    assert (tmp_path / "00000/default/metadata.tsv").read_text() == "0\n1\n2\n"
    assert (tmp_path / "00000/pairs/metadata.tsv").read_text() == "x\ty\na\tb\nc\td\n"
    assert [value.tag for value in values(tmp_path)] == ["boxes"]


def test_messages_that_others_have_made_are_written(tmp_path):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag="mine", simple_value=2.0)])

    def add(writer):
        writer.file_writer.add_summary(summary, 3, walltime=5.0)
        writer._get_file_writer().add_event(Event(step=9, wall_time=1.0, summary=summary), walltime=6.0)

    written(tmp_path, add)
    assert [(event.step, event.wall_time) for event in events(tmp_path)] == [(3, 5.0), (9, 6.0)]


def test_a_second_kind_under_a_tag_is_written_as_well(tmp_path):
    def add(writer):
        writer.add_scalar("loss", 1.0, 1)
        writer.add_histogram("loss", np.arange(3.0), 1)
        writer.add_scalar("loss", 2.0, 2)
        writer.flush()
        assert writer.stats()["failed"] == 0

    kinds = [value.WhichOneof("value") for value in written(tmp_path, add)]
    assert kinds == ["simple_value", "histo", "simple_value"]


def test_the_default_bins_are_those_of_tensorflow_and_can_be_replaced(tmp_path):
    def add(writer):
        assert (len(writer.default_bins), writer.default_bins[774]) == (1549, 0)
        assert writer.default_bins == sorted(writer.default_bins)
        writer.default_bins = [0, 1, 2]
        writer.add_histogram("h", np.array([0.5, 1.5, 1.5, 9.0]))

    (value,) = written(tmp_path, add)
    assert (list(value.histo.bucket_limit), list(value.histo.bucket)) == ([0, 1, 2], [0, 1, 2])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_counts_are_those_of_numpy(size, tmp_path):
    rng = np.random.default_rng(size)
    edges = np.sort(rng.normal(size=20))
    numbers = np.concatenate([rng.normal(size=size), edges, [np.nan, np.inf, -np.inf]])
    (value,) = written(tmp_path, lambda writer: writer.add_histogram("h", numbers, bins=edges))
    counts = np.histogram(numbers, edges)[0]
    assert list(value.histo.bucket) == [0, *counts]
    assert value.histo.num == len(numbers)


@pytest.mark.parametrize("bins", ["tensorflow", "the same, given"])
def test_a_number_at_an_edge_or_beside_it_is_in_the_bin_that_numpy_finds(bins, tmp_path):
    with SummaryWriter(tmp_path) as writer:
        edges = np.array(_forebay.default_edges())
        near = [edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf), edges * 1.05]
        # Each another number of times than at its neighbours.
        near = [np.repeat(numbers, (np.arange(len(edges)) + place) % 4) for place, numbers in enumerate(near)]
        beyond = [0.0, -0.0, 5e-324, -5e-324, 1e-13, -1e-13, 1e20, -1e20, 1e300, -1e300, np.inf, -np.inf, np.nan, -np.nan]
        numbers = np.concatenate([*near, beyond])
        writer.add_histogram("h", numbers, bins="tensorflow" if bins == "tensorflow" else edges)
    (value,) = values(tmp_path)
    counts = np.histogram(numbers, bins=edges)[0]
    found = {limit: count for limit, count in zip(value.histo.bucket_limit, value.histo.bucket, strict=True) if count}
    assert found == {edge: count for edge, count in zip(edges[1:], counts, strict=True) if count}


def test_several_threads_share_a_writer(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        start = threading.Barrier(4)

        def add(name):
            start.wait()
            for step in range(1000):
                writer.add_scalar(name, step, step)

        threads = [threading.Thread(target=add, args=(str(number),)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        writer.flush()
        stats = writer.stats()
    assert (stats["offered"], stats["processed"], stats["ignored"]) == (4000, 4000, 0)
    assert len(values(tmp_path)) == 4000


def test_what_does_not_get_into_the_file_is_logged_at_the_close(tmp_path, caplog):
    writer = SummaryWriter(tmp_path)
    # The sink refuses what is no summary.
    writer._add_summary(b"\xff", 1, None)
    with caplog.at_level(logging.WARNING, "forebay"):
        writer.flush()
    assert "tensorboard" in caplog.text
    assert writer.stats()["failed"] == 1
    writer.close()


def test_a_writer_says_what_it_is(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.add_scalar("x", 1.0)
    writer.flush()
    assert repr(writer) == f"<SummaryWriter of {str(tmp_path)!r}, open: 1 added, 0 pending, 0 lost>"
    assert repr(writer.file_writer) == f"<FileWriter of {str(tmp_path)!r}>"
    assert writer.get_logdir() == writer.log_dir == tmp_path
    assert writer.file_writer.get_logdir() == str(tmp_path)
    assert list(writer.all_writers) == [str(tmp_path)]
    writer.close()
    assert repr(writer) == f"<SummaryWriter of {str(tmp_path)!r}, closed: 1 added, 0 pending, 0 lost>"


def test_the_default_folder_is_named_after_time_host_and_comment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    SummaryWriter(comment="_lr_0.1").close()
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("_lr_0.1")


def test_a_derived_class_has_arguments_of_its_own(tmp_path):
    class Mine(SummaryWriter):
        def __init__(self, settings):
            super().__init__(settings["folder"])

    with Mine({"folder": tmp_path}) as writer:
        writer.add_scalar("x", 1.0)
    assert len(values(tmp_path)) == 1
    with pytest.raises(RuntimeError, match="__init__"):
        Mine.__new__(Mine).add_scalar("x", 1.0)


class Named(SummaryWriter):
    """A derived class whose attributes lead back to it."""

    def __init__(self, folder, prefix):
        super().__init__(folder, purge_step=3, flush_secs=0.5)
        self.prefix = prefix
        self.owners = [self]
        self._lock = threading.Lock()


def test_a_copy_of_a_derived_class_has_its_attributes_but_for_private_ones(tmp_path):
    with Named(tmp_path, "a") as writer:
        copied = pickle.loads(pickle.dumps(writer))
    assert (copied.prefix, copied.flush_secs, copied.log_dir) == ("a", 0.5, str(tmp_path))
    assert copied.owners[0] is copied
    assert not hasattr(copied, "_lock")


def test_the_module_is_importable_under_the_name_of_the_library_it_replaces():
    from forebay.tensorboard import SummaryWriter as same

    assert same is forebay.SummaryWriter


def test_what_tensorboardx_takes_beyond(tmp_path, caplog):
    with SummaryWriter(logdir=tmp_path / "a", comet_config={"disabled": True}) as writer:
        writer.add_scalar("x", 1.0)
        writer.add_hparams({"lr": 0.1}, {"loss": 1.0}, name="trial")
    assert [value.tag for value in values(tmp_path / "a")] == ["x"]
    assert "loss" in [value.tag for value in values(tmp_path / "a" / "trial")]
    assert caplog.messages == []
    with SummaryWriter(tmp_path / "b", write_to_disk=False, comet_config={"project_name": "x"}) as writer:
        writer.add_scalar("x", 1.0)
        writer.add_histogram("h", np.zeros(4))
        writer.add_hparams({"lr": 0.1}, {"loss": 1.0})
        assert writer.stats()["ignored"] >= 3
    assert caplog.messages == ["comet_config has no effect: nothing is sent to Comet"]
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="log_dir and logdir are one argument, got 'c' and 'd'"):
        SummaryWriter("c", logdir="d")
