"""Arguments that are wrong, each with its error; and data of every kind that is right."""

import array
import ctypes
import decimal
import fractions
import os
import re
from pathlib import Path

import numpy as np
import pytest
from support import events, values

import forebay
from forebay import SummaryWriter, _arrays


@pytest.fixture
def writer(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        yield writer


class Tensor:
    """A tensor as PyTorch's are, as far as they are asked."""

    def __init__(self, data, dtype=None):
        self.data, self.dtype, self.shape = data, dtype or f"torch.{data.dtype}", data.shape

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return Tensor(self.data.astype(np.float32))

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.data

    def item(self):
        return self.data.item()


@pytest.mark.parametrize(
    "value",
    [2, 2.0, True + 1, np.float32(2), np.int8(2), np.float64(2), np.array(2), np.array([[2.0]]), "2.0",
     decimal.Decimal(2), fractions.Fraction(4, 2), Tensor(np.array(2.0)), Tensor(np.array([2.0])),
     memoryview(bytes([2])), memoryview(np.array([[2.0]])), memoryview(np.array(2.0)),
     memoryview(ctypes.c_double(2.0)), memoryview(bytes([2])).cast("c")],
    ids=str,
)  # fmt: skip
def test_a_scalar_may_be_any_number(writer, tmp_path, value):
    writer.add_scalar("x", value)
    writer.flush()
    assert [value.simple_value for value in values(tmp_path)] == [2.0]


@pytest.mark.parametrize("step", [3, 3.9, np.int64(3), np.array(3), "3"], ids=repr)
def test_a_step_is_what_int_makes_of_it(writer, tmp_path, step):
    writer.add_scalar("x", 1.0, step)
    writer.flush()
    assert [event.step for event in events(tmp_path)] == [3]


def raises(kind, match, call, *arguments, **named):
    with pytest.raises(kind, match=match):
        call(*arguments, **named)


def test_a_scalar_that_is_none_is_refused_as_pytorch_does(writer):
    match = r"Tensor should contain one element \(0 dimensions\)\. {13}Was given size: 3 and 1 dimensions\."
    raises(AssertionError, match, writer.add_scalar, "x", np.zeros(3))
    raises(AssertionError, "one element", writer.add_scalar, "x", np.zeros((2, 2)))
    raises(AssertionError, "one element", writer.add_scalar, "x", np.zeros(0))
    raises(NotImplementedError, "Got <class 'list'>, but numpy array or torch tensor", writer.add_scalar, "x", [1])
    raises(NotImplementedError, "Got <class 'NoneType'>", writer.add_scalar, "x", None)
    raises(ValueError, "could not convert string to float", writer.add_scalar, "x", "two")
    raises(TypeError, None, writer.add_scalar, "x", 1j)
    raises(TypeError, "tag", writer.add_scalar, 5, 1.0)
    raises(TypeError, "unexpected keyword", writer.add_scalar, "x", 1.0, steps=3)
    raises(ValueError, r"global_step must be in -2\*\*63", writer.add_scalar, "x", 1.0, 2**63)
    raises(ValueError, None, writer.add_scalar, "x", 1.0, "three")
    raises(TypeError, None, writer.add_scalar, "x", 1.0, walltime="now")
    raises(UnicodeEncodeError, "surrogates", writer.add_scalar, "\ud800", 1.0)


def test_arguments_of_the_other_methods_are_checked(writer):
    raises(TypeError, "hparam_dict and metric_dict should be dictionary.", writer.add_hparams, [], {})
    raises(ValueError, "should be one of int, float, str, bool", writer.add_hparams, {"a": object()}, {})
    domain = {"a": [1, "b"]}
    raises(TypeError, r"hparam_domain_discrete\[a\] should be a list", writer.add_hparams, {"a": 1}, {}, domain)
    raises(ValueError, "The input has no element.", writer.add_histogram, "h", np.zeros(0))
    raises(NotImplementedError, "numpy array or torch tensor", writer.add_histogram, "h", [1, 2])
    raises(ValueError, "increase monotonically", writer.add_histogram, "h", np.ones(2), bins=[2, 1])
    raises(ValueError, "max_bins must be 1 or more, got 0", writer.add_histogram, "h", np.ones(2), max_bins=0)
    match = r"len\(bucket_limits\) != len\(bucket_counts\)"
    raises(ValueError, match, writer.add_histogram_raw, "h", 0, 1, 1, 1, 1, [1], [1, 2])
    raises(AssertionError, "same dimension shorthand twice", writer.add_image, "i", np.ones((3, 2, 2)), dataformats="HHW")
    raises(AssertionError, "size of input tensor and input format", writer.add_image, "i", np.ones((2, 2)))
    raises(ValueError, r"an image must have 1, 2, 3 or 4 channels, got 5: the shape \(5, 2, 2\) as 'CHW'", writer.add_image, "i", np.ones((5, 2, 2)))
    raises(ValueError, r"images must have 1 or 3 channels, got 2: the shape \(1, 2, 2, 2\) as 'NCHW'", writer.add_images, "i", np.ones((1, 2, 2, 2)))
    raises(ValueError, "letters HW, CHW or NCHW", writer.add_image, "i", np.ones((3, 2, 2)), dataformats="CHX")
    raises(ValueError, "must have pixels", writer.add_image, "i", np.ones((3, 0, 2)))
    raises(ValueError, "5 dimensions", writer.add_video, "v", np.ones((3, 2, 2)))
    raises(ValueError, r"a video must have 1, 3 or 4 channels, got 2: \(1, 1, 2, 4, 4\)", writer.add_video, "v", np.ones((1, 1, 2, 4, 4)))
    for shape in ((0, 1, 3, 4, 4), (1, 0, 3, 4, 4), (1, 1, 3, 0, 4)):
        raises(ValueError, "a video must have frames with pixels, got none", writer.add_video, "v", np.ones(shape))
    raises(AssertionError, "input tensor should be 1 dimensional.", writer.add_audio, "a", np.ones((2, 5)))
    raises(AssertionError, "Expected 3 tags, got 1.", writer.add_custom_scalars_marginchart, ["a"])
    raises(AssertionError, "len(.tags.) != 3", writer.add_custom_scalars, {"c": {"t": ["Margin", ["a"]]}})
    raises(ValueError, "same number of elements", writer.add_pr_curve, "p", np.ones(2), np.ones(3))
    raises(ValueError, "same shape", writer.add_pr_curve_raw, "p", [1], [1], [1], [1], [1], [1, 2])
    raises(ValueError, "vertices must have the shape", writer.add_mesh, "m", np.ones((3, 3)))
    raises(AssertionError, "mat should be 2D", writer.add_embedding, np.ones(3))
    raises(AssertionError, "#labels should equal", writer.add_embedding, np.eye(3), metadata=["a"])
    raises(TypeError, "real numbers", writer.add_histogram, "h", np.ones(3, complex))
    raises(ValueError, "could not convert", writer.add_histogram, "h", np.array(["a"], object))


def test_a_folder_that_cannot_be_written_is_an_error_at_construction(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    raises(OSError, "file", SummaryWriter, file / "run")
    raises(ValueError, "log_dir must be on a local file system, got 's3://bucket/run': write there and copy it", SummaryWriter, "s3://bucket/run")
    raises(ValueError, "in_child must be 'ignore' or 'reopen', got 'write'", SummaryWriter, tmp_path, in_child="write")
    assert os.listdir(tmp_path) == ["file"]
    raises(OSError, "suffix", SummaryWriter, tmp_path / "run", filename_suffix="a/b")


METHODS = [name for name in vars(SummaryWriter) if name.startswith("add_")] + ["add_scalar"]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_refuses_arguments_that_it_does_not_have(writer, method):
    raises(TypeError, "unexpected keyword argument 'steps'|missing", getattr(writer, method), steps=3)
    raises(TypeError, "argument", getattr(writer, method))


ONES = np.ones((1, 3, 2), np.float32)

#: A call of each method that has a tag, but for the tag.
TAGGED = {
    "add_scalar": (1.0,), "add_scalars": ({"a": 1.0},), "add_tensor": (ONES,), "add_histogram": (ONES,),
    "add_histogram_raw": (0, 1, 1, 1, 1, [1], [1]), "add_image": (np.ones((3, 2, 2)),), "add_images": (np.ones((1, 3, 2, 2)),),
    "add_image_with_boxes": (np.ones((3, 2, 2)), np.ones((1, 4))), "add_video": (np.ones((1, 1, 3, 2, 2)),), "add_audio": (np.ones(5),),
    "add_text": ("x",), "add_pr_curve": (np.ones(2), np.ones(2)), "add_pr_curve_raw": ([1], [1], [1], [1], [1], [1]),
    "add_mesh": (np.ones((1, 3, 3)),),
}  # fmt: skip


@pytest.mark.parametrize("method", TAGGED)
def test_a_tag_is_a_text_and_a_step_a_number(writer, method):
    call = getattr(writer, method)
    raises((TypeError, AttributeError), None, call, 5, *TAGGED[method])
    raises((TypeError, ValueError), None, call, "x", *TAGGED[method], global_step="three")
    raises(TypeError, None, call, "x", *TAGGED[method], walltime="now")
    call("x", *TAGGED[method], global_step=1)


def test_scalars_and_metrics_have_one_element_each(writer):
    raises(AssertionError, "one element", writer.add_scalars, "x", {"a": np.zeros(3)})
    raises(NotImplementedError, "numpy array or torch tensor", writer.add_scalars, "x", {"a": None})
    raises(AssertionError, "one element", writer.add_hparams, {"lr": 0.1}, {"loss": np.zeros(3)})
    raises(ValueError, "should be one of int, float, str, bool", writer.add_hparams, {"lr": np.zeros(3)}, {"loss": 0.1})
    raises((TypeError, AttributeError), None, writer.add_scalars, "x", [1.0])


def test_what_is_not_finite_is_written(writer, tmp_path):
    writer.add_scalar("nan", float("nan"))
    writer.add_scalar("inf", float("-inf"))
    writer.add_histogram("h", np.array([1.0, np.nan, np.inf]))
    writer.flush()
    nan, inf, histogram = values(tmp_path)
    assert np.isnan(nan.simple_value)
    assert inf.simple_value == -np.inf
    assert histogram.histo.num == 3
    assert sum(histogram.histo.bucket) == 1


def test_a_run_refuses_what_is_wrong_before_it_has_a_folder(tmp_path):
    runs = tmp_path / "runs"
    raises(TypeError, None, forebay.init, 5)
    raises(TypeError, None, forebay.init, runs, name=5)
    raises(TypeError, None, forebay.init, runs, config=5)
    raises(ValueError, "dir must be on a local file system, got 'gs://bucket/runs'", forebay.init, "gs://bucket/runs")
    assert not runs.exists()
    raises(ValueError, "unknown|capasity", forebay.init, runs, capasity=5)
    raises(ValueError, "unknown setting: bus", forebay.init, runs, bus={"workers": 2})
    raises(ValueError, "unknown setting: workerCount", forebay.Collector, workerCount=2)
    (tmp_path / "file").write_text("")
    raises(OSError, "file", forebay.init, tmp_path / "file")
    for sink in (forebay.sinks.JsonLines("s3://bucket/x"), forebay.sinks.TensorBoard("s3://bucket/x")):
        raises(ValueError, "must be on a local file system, got 's3://bucket/x'", forebay.Collector, [sink])
    with forebay.init(runs) as run:
        raises(TypeError, "cannot convert dictionary|not iterable", run.log, 5)
        raises(TypeError, None, run.log, {3: 1.0})
        raises(ValueError, "invalid literal", run.log, {"x": 1.0}, step="three")
        raises(TypeError, None, run.event)
        raises(ValueError, "status must be 'finished', 'stopped', 'failed' or 'preempted', got 'good'", run.finish, "good")
        report = run.collector.stats()
    # None of these calls left half of its values behind.
    assert report.offered == 1


@pytest.mark.parametrize("has_numpy", [True, False])
def test_an_element_of_a_list_that_is_no_number_is_named_with_its_place(has_numpy, writer, tmp_path, monkeypatch):
    monkeypatch.setattr(_arrays, "_has_numpy", lambda: has_numpy)
    itself = [1.0]
    itself.append(itself)
    for error, said, call in [
        (TypeError, "values[0][0] must be a number, got NoneType", lambda: forebay.Histogram([[None, 1]])),
        (TypeError, "values[1][0][2] must be a number, got str", lambda: forebay.Histogram([[[1, 2, 3]], [[4, 5, "6"]]])),
        (TypeError, "values[1] must be a number, got NoneType", lambda: forebay.Histogram([1, None])),
        (ValueError, "inhomogeneous" if has_numpy else "values must have the same number", lambda: forebay.Histogram([[1, 2], [3]])),
        (ValueError, "inhomogeneous" if has_numpy else "values must have the same number", lambda: forebay.Histogram([[1], 2])),
        (ValueError, "nested lists must have at most 64 levels, got more", lambda: forebay.Histogram(itself)),
        (TypeError, "bins[1] must be a number, got NoneType", lambda: writer.add_histogram("h", np.ones(2), bins=[0, None])),
        (TypeError, "bucket_limits[0] must be a number, got NoneType", lambda: writer.add_histogram_raw("h", 0, 1, 1, 1, 1, [None], [1])),
        (TypeError, "bucket_counts[0] must be a number, got str", lambda: writer.add_histogram_raw("h", 0, 1, 1, 1, 1, [1], ["1"])),
        (TypeError, "recall[0] must be a number, got NoneType", lambda: writer.add_pr_curve_raw("p", [1], [1], [1], [1], [1], [None])),
        (TypeError, "vertices[0][1][2] must be a number, got NoneType", lambda: writer.add_mesh("m", [[[1, 2, 3], [1, 2, None]]])),
        (TypeError, "faces[0][0][0] must be a number, got str", lambda: writer.add_mesh("m", np.ones((1, 3, 3)), faces=[[["1", 2, 0]]])),
        (TypeError, "mat[1][0] must be a number, got NoneType", lambda: writer.add_embedding([[1.0, 2.0], [None, 3.0]])),
        (TypeError, "box_tensor[0][3] must be a number, got NoneType", lambda: writer.add_image_with_boxes("b", np.ones((3, 4, 4)), [[1, 2, 3, None]])),
    ]:  # fmt: skip
        with pytest.raises(error, match=re.escape(said)):
            call()
    writer.default_bins = [0.0, "1"]
    raises(TypeError, re.escape("default_bins[1] must be a number, got str"), writer.add_histogram, "h", np.ones(2))
    writer.add_pr_curve_raw("p", *[[np.float32(1), True, decimal.Decimal(1)]] * 6)
    writer.add_mesh("m", [[[1, np.float32(2), np.array(3)]]])
    writer.flush()
    assert [value.tag for value in values(tmp_path)] == ["p", "m_VERTEX"]


class OnCuda:
    """An array of CuPy, as far as it is asked."""

    __cuda_array_interface__ = {}
    shape = (2,)


class OnDevice:
    """A tensor of a library that copies nothing to the host by itself."""

    device = "gpu:1"
    shape = (2,)


class OnDeviceByDLPack(OnDevice):
    def __dlpack__(self, **options):
        raise AssertionError("the data must not be asked for")

    def __dlpack_device__(self):
        return 2, 1


class OnCudaAndRefused(OnCuda):
    """An array of CuPy, whole: it has the method, and that raises."""

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")


class OnCudaAndCopied(OnCuda):
    """An array of JAX on a GPU: it copies itself to the host."""

    def __array__(self, *arguments, **options):
        return np.array([1.0, 3.0])


def test_an_array_on_a_device_that_copies_itself_is_taken(writer, tmp_path):
    writer.add_histogram("h", OnCudaAndCopied())
    writer.add_tensor("t", OnCudaAndCopied())
    writer.flush()
    histogram, tensor = values(tmp_path)
    assert histogram.histo.sum == 4
    assert np.frombuffer(tensor.tensor.tensor_content) == pytest.approx([1.0, 3.0])
    assert repr(forebay.Histogram(OnCudaAndCopied())) == "<Histogram of 2 values in 64 bins>"


def test_what_cannot_become_an_array_says_why(writer):
    class Wrong:
        shape = (2,)

        def __array__(self, *arguments, **options):
            raise TypeError("no data yet")

    raises(TypeError, "no data yet", writer.add_tensor, "t", Wrong())


@pytest.mark.parametrize(
    ("kind", "where"), [(OnCuda, "a device"), (OnCudaAndRefused, "a device"), (OnDevice, "gpu:1"), (OnDeviceByDLPack, "gpu:1")]
)
def test_data_on_a_device_is_refused_with_what_to_do(writer, kind, where):
    match = f"data must be in the memory of the host, got <class '.*{kind.__name__}'> on {where}: copy it to the host first"
    raises(TypeError, match, writer.add_histogram, "h", kind())
    raises(TypeError, match, writer.add_image, "i", kind())
    raises(TypeError, match, writer.add_tensor, "t", kind())
    raises(TypeError, match, forebay.Histogram, kind())


class Interface:
    """An array that has `__array__` alone."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1.0, 2.0])


class DLPack:
    """An array that has `__dlpack__` alone."""

    data = np.array([1.0, 2.0])

    def __dlpack__(self, **options):
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()


def read_only():
    numbers = np.array([1.0, 2.0])
    numbers.flags.writeable = False
    return numbers


@pytest.mark.parametrize(
    "numbers",
    [np.array([1, 2], dtype) for dtype in ("f2", "f4", "f8", "i1", "i8", "u1", "u8", ">f8", ">i2", "g", object)]
    + [array.array(code, [1, 2]) for code in "bBhHiIlLqQfd"]
    + [bytes([1, 2]), memoryview(bytes([1, 0, 2]))[::2], np.array([2.0, 1.0])[::-1], np.asfortranarray([[1.0, 2.0]])]
    + [read_only(), Interface(), DLPack(), Tensor(np.array([1.0, 2.0])), Tensor(np.array([1.0, 2.0]), "torch.bfloat16")],
    ids=lambda numbers: f"{type(numbers).__name__}-{getattr(numbers, 'dtype', getattr(numbers, 'typecode', ''))}",
)
def test_arrays_of_every_kind_are_taken_as_they_are(writer, tmp_path, numbers):
    writer.add_histogram("h", numbers, bins=[0.5, 1.5, 2.5])
    writer.flush()
    (value,) = values(tmp_path)
    histo = value.histo
    assert (histo.min, histo.max, histo.num, histo.sum) == (1, 2, 2, 3)
    assert list(histo.bucket) == [0, 1, 1]


def test_the_layout_of_an_image_in_memory_does_not_matter(tmp_path):
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    kept = np.zeros((3, 8, 5), np.uint8)
    kept[:, ::2] = image
    still = image.copy()
    still.flags.writeable = False
    layouts = [image, kept[:, ::2], np.asfortranarray(image), still, image[:, ::-1][:, ::-1]]
    with SummaryWriter(tmp_path) as writer:
        for layout in layouts:
            writer.add_image("i", layout)
            writer.add_image("f", (layout / 255).astype(">f4"))
    found = values(tmp_path)
    assert len({value.image.encoded_image_string for value in found if value.tag == "i"}) == 1
    assert len({value.image.encoded_image_string for value in found if value.tag == "f"}) == 1
    assert len(found) == 10


def test_a_scalar_of_bfloat16_is_a_number(writer, tmp_path):
    writer.add_scalar("x", Tensor(np.array(2.0, np.float32), "torch.bfloat16"))
    writer.flush()
    assert [value.simple_value for value in values(tmp_path)] == [2.0]


def test_bins_are_bounded():
    for bins in (0, 65_537):
        with pytest.raises(ValueError, match=f"bins must be 1..=65536, got {bins}"):
            forebay.Histogram(np.ones(2), bins=bins)


@pytest.mark.parametrize(
    ("name", "said"),
    [("..", "run_name must be a folder within"), ("../other", "run_name must be a folder within"), ("/elsewhere", "run_name must be a folder within"),
     ("x" * 256, "a sub-run must be a relative path without empty parts")],
)  # fmt: skip
def test_the_folder_of_a_trial_must_lie_in_that_of_the_run(writer, name, said):
    with pytest.raises(ValueError, match=said):
        writer.add_hparams({"lr": 0.1}, {"loss": 1.0}, run_name=name)
    assert writer.stats()["failed"] == 0


def test_a_trial_may_be_the_run_itself(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_hparams({"lr": 0.1}, {"loss": 1.0}, run_name=".")
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, run_name=str(tmp_path))
        writer.add_hparams({"lr": 0.2}, {"loss": 2.0}, run_name="a//./b/")
    tags = [value.tag for value in values(tmp_path)]
    assert tags.count("loss") == tags.count("accuracy") == 1
    assert [value.simple_value for value in values(tmp_path / "a/b") if value.tag == "loss"] == [2.0]


def test_the_keys_of_scalars_are_names_of_folders(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalars("loss", {"a/": 1.0, "b": 2.0})
        for key in ("/../x", "x" * 256):
            with pytest.raises(ValueError, match="a sub-run must be a relative path without empty parts"):
                writer.add_scalars("loss", {key: 1.0})
        assert writer.stats()["failed"] == 0
    assert len(values(tmp_path / "loss_a")) == len(values(tmp_path / "loss_b")) == 1


def test_arguments_of_a_writer_that_are_none_are_named(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match="flush_secs must be a number of seconds, got nan"):
        SummaryWriter(folder, flush_secs=float("nan"))
    for name, value, allowed in [
        ("log_dir", 5, "a path"), ("log_dir", b"run", "a path"), ("logdir", 5, "a path"), ("purge_step", "a", "a number"), ("max_queue", "a", "a number"),
        ("max_queue", None, "a number"), ("flush_secs", "a", "a number"), ("flush_secs", [1], "a number"), ("comment", None, "a str"),
        ("filename_suffix", 3, "a str"), ("write_to_disk", "no", "True or False"), ("flush_on_sigterm", None, "True or False"),
        ("comet_config", "no", "a dict or None"),
    ]:  # fmt: skip
        arguments = {name: value} if name in ("log_dir", "logdir", "comment") else {"log_dir": folder, name: value}
        shown = name.replace("logdir", "log_dir")
        with pytest.raises(TypeError, match=re.escape(f"{shown} must be {allowed}, got {value!r}")):
            SummaryWriter(**arguments)
    with pytest.raises(ValueError, match="in_child must be 'ignore' or 'reopen', got 3"):
        SummaryWriter(folder, in_child=3)
    assert not folder.exists()
    SummaryWriter(folder, "", np.int64(3), np.float32(10), np.array(1), write_to_disk=np.bool_(True)).close()
    with SummaryWriter(folder) as writer:
        video, sound = np.zeros((1, 2, 1, 4, 4), np.uint8), np.zeros(8)
        for error, said, call in [
            (ValueError, r"box_tensor must have the shape \(boxes, 4\), got \(2, 3\)", lambda: writer.add_image_with_boxes("b", np.ones((3, 4, 4)), np.ones((2, 3)))),
            (ValueError, r"box_tensor must have the shape \(boxes, 4\), got \(4,\)", lambda: writer.add_image_with_boxes("b", np.ones((3, 4, 4)), np.ones(4))),
            (ValueError, "fps must be more than 0, got 0", lambda: writer.add_video("v", video, fps=0)),
            (ValueError, "sample_rate must be from 1 to 4294967295, got -1", lambda: writer.add_audio("a", sound, sample_rate=-1)),
            (ValueError, "`bins` must have two edges or more", lambda: writer.add_histogram("h", sound, bins=[1.0])),
            (ValueError, "`bins` must have two edges or more", lambda: writer.add_histogram("h", sound, bins=[])),
            (TypeError, "values must be real numbers, got datetime64", lambda: writer.add_histogram("h", np.zeros(2, "datetime64[s]"))),
        ]:
            with pytest.raises(error, match=said):
                call()
        writer.add_histogram("h", sound, bins=np.int64(5))


@pytest.mark.parametrize("path", ["s3://bucket/run", Path("s3://bucket/run"), "s3:/bucket/run", "gs://bucket"], ids=repr)
def test_an_address_is_no_folder_anywhere(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (SummaryWriter, forebay.init, forebay.read, forebay.runs):
        with pytest.raises(ValueError, match="must be on a local file system, got '(s3|gs):/"):
            call(path)
    assert list(tmp_path.iterdir()) == []


def test_a_first_step_is_none_below_0(tmp_path):
    with pytest.raises(ValueError, match="first_step must be 0 or more, got -1"):
        forebay.init(tmp_path / "runs", first_step=-1)
    assert not (tmp_path / "runs").exists()
