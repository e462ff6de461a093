"""Unusual arguments, each with what PyTorch's writer makes of it: the same value, or an error of the same class."""

import io
import math
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image
from support import values
from tensorboard.util import tensor_util

from forebay import SummaryWriter

matplotlib.use("Agg")


@pytest.fixture
def writer(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        yield writer


def written(writer, tmp_path):
    """The values that a writer has written so far."""
    writer.flush()
    return values(tmp_path)


def pixels(value):
    return np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))


def test_a_histogram_without_bins_and_a_curve_without_points_are_written(writer, tmp_path):
    writer.add_histogram_raw("h", 0, 0, 0, 0, 0, [], [])
    writer.add_histogram_raw("tensors", 0, 0, 0, 0, 0, np.zeros(0), np.zeros(0))
    writer.add_pr_curve_raw("p", *[[]] * 6)
    empty, tensors, curve = written(writer, tmp_path)
    assert (empty.tag, len(empty.histo.bucket), len(tensors.histo.bucket_limit)) == ("h", 0, 0)
    assert [dim.size for dim in curve.tensor.tensor_shape.dim] == [6, 0]


def test_a_sum_that_is_not_known_is_0_and_a_text_is_none(writer, tmp_path):
    writer.add_histogram_raw("h", None, np.float32(4), 2, np.array(6), None, [1.0], [2])
    (value,) = written(writer, tmp_path)
    histo = value.histo
    assert (histo.min, histo.max, histo.num, histo.sum, histo.sum_squares) == (0, 4, 2, 6, 0)
    for text in ("4", b"4"):
        with pytest.raises(TypeError, match=re.escape(f"max must be a number, got {text!r}")):
            writer.add_histogram_raw("h", 0, text, 2, 6, 20, [1.0], [2])


def test_a_histogram_has_any_number_of_bins_at_most(writer, tmp_path):
    writer.add_histogram("many", np.ones(3), bins=50, max_bins=10**30)
    writer.add_histogram("all", np.ones(3), bins=50)
    many, all_ = written(writer, tmp_path)
    assert many.histo == all_.histo


def test_edges_are_checked_wherever_they_come_from(writer):
    for edges, said in [
        (np.ones((2, 2)), "must be 1d, when an array, got the shape (2, 2)"),
        ([2, 1], "must increase monotonically, when an array"),
        ([], "must have two edges or more, got []"),
    ]:
        with pytest.raises(ValueError, match=re.escape(f"`bins` {said}")):
            writer.add_histogram("h", np.ones(3), bins=edges)
    for edges, said in [([2, 1], "must increase monotonically"), ([], "must have two edges or more, got []")]:
        writer.default_bins = edges
        with pytest.raises(ValueError, match=re.escape(f"`default_bins` {said}")):
            writer.add_histogram("h", np.ones(3))
    assert writer.stats()["offered"] == 0


def test_boxes_may_have_scores_behind_their_edges(writer, tmp_path):
    image = np.full((3, 20, 20), 0.5, np.float32)
    writer.add_image_with_boxes("edges", image, np.array([[2, 3, 10, 12]]))
    writer.add_image_with_boxes("scores", image, np.array([[2, 3, 10, 12, 0.9, 7]]))
    edges, scores = map(pixels, written(writer, tmp_path))
    assert np.array_equal(edges, scores)
    assert edges[3, 2].tolist() == [255, 0, 0]


def test_a_box_whose_label_is_none_has_none(writer, tmp_path):
    image, boxes = np.full((3, 40, 40), 0.5, np.float32), np.array([[2, 3, 10, 12], [15, 15, 38, 38]])
    writer.add_image_with_boxes("none", image, boxes, labels=[None, "a"])
    writer.add_image_with_boxes("empty", image, boxes, labels=["", "a"])
    writer.add_image_with_boxes("without", image, boxes)
    none, empty, without = map(pixels, written(writer, tmp_path))
    assert np.array_equal(none, empty)
    assert not np.array_equal(none, without)


def test_what_is_no_figure_is_refused(writer):
    from matplotlib import pyplot

    _, axes = pyplot.subplots(figsize=(1, 1), dpi=20)
    for figure in (None, "f", axes, [axes]):
        kind = type(figure[0] if isinstance(figure, list) else figure).__name__
        with pytest.raises(TypeError, match=f"figure must be a figure of Matplotlib or a list of them, got {kind}"):
            writer.add_figure("f", figure)
    pyplot.close("all")


def test_weights_of_a_curve_may_be_a_list(writer, tmp_path):
    labels, predictions, weights = np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.6]), [1.0, 2, 0.5, 3]
    writer.add_pr_curve("list", labels, predictions, weights=weights)
    writer.add_pr_curve("array", labels, predictions, weights=np.array(weights))
    listed, array = (tensor_util.make_ndarray(value.tensor) for value in written(writer, tmp_path))
    assert np.array_equal(listed, array)
    # The true positives above 0: all of them, each with its weight.
    assert listed[0, 0] == 2.5


def test_labels_that_are_not_known_leave_a_curve_without_recall(writer, tmp_path):
    writer.add_pr_curve("p", np.array([0, math.nan]), np.array([0.2, 0.3]), num_thresholds=5)
    (value,) = written(writer, tmp_path)
    *_, misses, precision, recall = tensor_util.make_ndarray(value.tensor).tolist()
    # As NumPy computes it: all of recall needs the sum, and precision what is above a threshold.
    assert np.isnan([*misses, *precision[:2], *recall]).all()
    assert precision[2:] == [0, 0, 0]


def test_a_hyper_parameter_that_is_no_number_is_a_value_error(writer):
    for value in (np.zeros(2), np.zeros(0), np.datetime64("2026-11-30"), np.zeros((), "f4,f4"), [1], b"x"):
        with pytest.raises(ValueError, match="value should be one of int, float, str, bool, or torch.Tensor"):
            writer.add_hparams({"lr": value}, {"loss": 1.0})
    assert writer.stats()["offered"] == 0


def test_a_type_without_a_place_in_a_file_is_a_value_error(writer):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="t has unsupported tensor dtype torch.float8_e4m3fn"):
        writer.add_tensor("t", torch.ones(2).to(torch.float8_e4m3fn))


def test_a_first_step_has_64_bits(tmp_path):
    for step in (1 << 63, -(1 << 63) - 1, 1e30):
        with pytest.raises(ValueError, match=re.escape(f"purge_step must be in -2**63..=2**63-1, got {step}")):
            SummaryWriter(tmp_path / "run", purge_step=step)
    for step in (math.nan, math.inf):
        with pytest.raises((ValueError, OverflowError), match="cannot convert float"):
            SummaryWriter(tmp_path / "run", purge_step=step)
    assert not (tmp_path / "run").exists()
