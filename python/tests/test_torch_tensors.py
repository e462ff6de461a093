"""Tensors of PyTorch as arguments, and the writer of the PyTorch that is installed, method by method."""

import io
import math
import warnings

import numpy as np
import pytest
import test_torch as cases
from PIL import Image
from support import all_events, events, law, values

import forebay
from forebay import Collector, SummaryWriter, sinks

torch = pytest.importorskip("torch")

T = cases.T

SCALARS = {
    "float16": lambda: torch.tensor(1.5, dtype=torch.float16),
    "bfloat16": lambda: torch.tensor(1.5, dtype=torch.bfloat16),
    "float32": lambda: torch.tensor(1.5),
    "float64": lambda: torch.tensor(1.5, dtype=torch.float64),
    "requires_grad": lambda: torch.tensor(1.5, requires_grad=True),
    "of a graph": lambda: torch.tensor([0.5, 1.0], requires_grad=True).sum(),
    "one element": lambda: torch.tensor([[1.5]]),
    "parameter": lambda: torch.nn.Parameter(torch.tensor(1.5)),
    "inference": lambda: torch.inference_mode()(lambda: torch.tensor(1.5) + 0)(),
    "a view": lambda: torch.arange(6.0)[3] * 0.5,
    "numpy": lambda: np.float32(1.5),
}


@pytest.mark.parametrize("kind", SCALARS)
def test_a_tensor_of_one_element_is_a_number(kind, tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("x", SCALARS[kind](), 1)
    assert [value.simple_value for value in values(tmp_path)] == [1.5]
    path = tmp_path / "events.jsonl"
    with Collector([sinks.JsonLines(path)]) as collector:
        collector.log({"x": SCALARS[kind]()}, step=1)
    law(collector.stop(), 1)
    assert forebay.read(path).scalars("x") == ([1], [1.5])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool"])
def test_an_integer_is_a_number(dtype, tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("x", torch.tensor(1, dtype=getattr(torch, dtype)), 1)
    assert [value.simple_value for value in values(tmp_path)] == [1.0]


def base():
    return torch.arange(24.0).reshape(4, 6) - 12


LARGE = {
    "plain": base,
    "transposed": lambda: base().t(),
    "strided": lambda: base()[::2, 1::2],
    "expanded": lambda: torch.tensor([1.0, 2.0]).expand(3, 2),
    "requires_grad": lambda: base().requires_grad_(),
    "of a graph": lambda: base().requires_grad_() * 2,
    "float16": lambda: base().half(),
    "bfloat16": lambda: base().bfloat16(),
    "float64": lambda: base().double(),
    "int16": lambda: base().short(),
    "negated when it is read": lambda: torch.view_as_complex(base().reshape(12, 2)).conj().imag,
}


@pytest.mark.parametrize("kind", LARGE)
def test_a_tensor_of_any_layout_is_its_values(kind, tmp_path):
    tensor = LARGE[kind]()
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("h", tensor, 1)
        writer.add_tensor("t", tensor, 1)
    histogram, whole = values(tmp_path)
    numbers = tensor.detach().double()
    assert (histogram.histo.num, histogram.histo.min, histogram.histo.max) == (tensor.numel(), numbers.min(), numbers.max())
    assert histogram.histo.sum == pytest.approx(numbers.sum().item())
    found = cases.tensor_util.make_ndarray(whole.tensor)
    assert found.shape == tuple(tensor.shape)
    assert found.astype(np.float64).tolist() == numbers.tolist()


def test_a_tensor_without_dimensions_is_a_whole_tensor_too(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_tensor("t", torch.tensor(1.5), 1)
        writer.add_histogram("h", torch.tensor(1.5), 1)
    whole, histogram = values(tmp_path)
    assert cases.tensor_util.make_ndarray(whole.tensor).shape == ()
    assert histogram.histo.num == 1


def test_what_is_no_number_is_refused(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        with pytest.raises(AssertionError, match="one element"):
            writer.add_scalar("x", torch.zeros(2))
        with pytest.raises(AssertionError, match="one element"):
            writer.add_scalar("x", torch.zeros(0))
        with pytest.raises(TypeError, match="real numbers"):
            writer.add_histogram("x", torch.zeros(2, dtype=torch.complex64))
        with pytest.raises(Exception, match="(?i)meta"):
            writer.add_histogram("x", torch.zeros(2, device="meta"))
        with pytest.raises(Exception, match="(?i)meta"):
            writer.add_scalar("x", torch.zeros((), device="meta"))
        # A sparse tensor is what PyTorch refuses as well.
        with pytest.raises(TypeError):
            writer.add_histogram("x", torch.eye(3).to_sparse())


# The same calls to PyTorch's writer and to ours.


@pytest.fixture
def both(tmp_path):
    module = pytest.importorskip("torch.utils.tensorboard")

    def run(call, *, sub_runs=(""), with_time=True):
        for name, kind in (("theirs", module.SummaryWriter), ("ours", SummaryWriter)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with kind(str(tmp_path / name)) as writer:
                    call(writer)
        for sub_run in sub_runs or ("",):
            theirs, ours = (cases.plain(events(tmp_path / name / sub_run), with_time) for name in ("theirs", "ours"))
            assert theirs
            assert ours == theirs
        return tmp_path / "theirs", tmp_path / "ours"

    return run


@pytest.mark.parametrize("method", ["scalar", "histogram", "image", "text", "audio", "pr", "mesh", "tensor"])
def test_a_method_writes_what_the_installed_pytorch_writes(method, both):
    if method == "mesh":
        vertices, colors, faces = torch.rand(1, 4, 3), torch.randint(255, (1, 4, 3)), torch.tensor([[[0, 1, 2]]])
        both(lambda writer: writer.add_mesh("m", vertices, colors=colors, faces=faces, global_step=1, walltime=T))
    elif method == "tensor":
        # TensorBoard cannot read what PyTorch writes for smaller integers.
        dtypes = (torch.float32, torch.float64, torch.int64, torch.int32)
        tensors = {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in dtypes}
        both(lambda writer: [writer.add_tensor(name, tensor, 1, walltime=T) for name, tensor in tensors.items()])
    else:
        both(getattr(cases, method))


def test_tensors_are_written_as_the_installed_pytorch_does(both):
    torch.manual_seed(0)
    weights, picture = torch.randn(64, 64, requires_grad=True), torch.rand(3, 16, 12)

    def call(writer):
        writer.add_scalar("x", (weights**2).mean(), 1, walltime=T)
        writer.add_histogram("w", weights, 1, walltime=T)
        writer.add_histogram("t", weights.t()[::3], 1, bins="auto", walltime=T)
        writer.add_histogram("h", weights.half(), 1, walltime=T)
        writer.add_image("p", picture, 1, walltime=T)
        writer.add_image("hwc", picture.permute(1, 2, 0), 1, dataformats="HWC", walltime=T)
        writer.add_images("n", torch.stack([picture] * 5), 1, walltime=T)
        writer.add_audio("a", torch.sin(torch.arange(100) / 5)[None], 1, walltime=T)
        writer.add_pr_curve("c", torch.randint(0, 2, (50,), generator=torch.Generator().manual_seed(1)), torch.linspace(0, 1, 50), 1, walltime=T)

    both(call)


def test_runs_below_are_written_as_the_installed_pytorch_does(both):
    both(lambda writer: writer.add_scalars("a/b", {"x": 1.0, "y": torch.tensor(2.0)}, 1, walltime=T), sub_runs=("a_b_x", "a_b_y"))


def test_hyper_parameters_are_written_as_the_installed_pytorch_does(both):
    settings = {"lr": 0.1, "n": 3, "flag": True, "opt": "sgd", "t": torch.tensor([0.5])}
    metrics = {"loss": torch.tensor(0.25), "accuracy": 0.5}
    both(lambda writer: writer.add_hparams(settings, metrics, run_name="h", global_step=7), sub_runs=("h",), with_time=False)


def test_layouts_are_written_as_the_installed_pytorch_does(both):
    def call(writer):
        writer.add_custom_scalars({"a": {"b": ["Multiline", ["x", "y"]], "c": ["Margin", ["x", "y", "z"]]}})

    both(call, with_time=False)


def test_figures_and_videos_are_written_as_the_installed_pytorch_does(both, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    def call(writer):
        figure, axes = pyplot.subplots(figsize=(2, 1), dpi=40)
        axes.plot([1, 2, 3])
        writer.add_figure("f", figure, 1, walltime=T)

    both(call)


def test_a_graph_is_written_as_the_installed_pytorch_does(tmp_path):
    module = pytest.importorskip("torch.utils.tensorboard")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    graphs = {}
    for name, kind in (("theirs", module.SummaryWriter), ("ours", SummaryWriter)):
        with kind(str(tmp_path / name)) as writer:
            writer.add_graph(model, torch.zeros(1, 4))
        graphs[name] = [(event.graph_def, event.step) for event in all_events(tmp_path / name) if event.HasField("graph_def")]
    assert graphs["theirs"][0][0]
    assert graphs["ours"] == graphs["theirs"][:1] + graphs["ours"][1:]
    assert all(graph == b"" for graph, _ in graphs["ours"][1:])


def test_an_embedding_is_written_as_the_installed_pytorch_does(tmp_path):
    module = pytest.importorskip("torch.utils.tensorboard")
    points, pictures = torch.arange(12.0).reshape(4, 3), torch.rand(4, 3, 4, 4)
    files = {}
    for name, kind in (("theirs", module.SummaryWriter), ("ours", SummaryWriter)):
        with kind(str(tmp_path / name)) as writer:
            writer.add_embedding(points, metadata=["a", "b", "c", "d"], label_img=pictures, global_step=1, tag="e")
            writer.add_embedding(points * 2, global_step=2, tag="e")
        found = [path for path in (tmp_path / name).rglob("*") if path.is_file() and "tfevents" not in path.name]
        files[name] = {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in found}
    assert set(files["ours"]) == set(files["theirs"])
    for name, content in files["theirs"].items():
        ours = files["ours"][name]
        if name.endswith(".png"):
            content, ours = (np.asarray(Image.open(io.BytesIO(each))).tolist() for each in (content, ours))
        elif name.endswith("tensors.tsv"):
            content, ours = ([[float(each) for each in row.split(b"\t")] for row in file.splitlines()] for file in (content, ours))
        assert ours == content, name


def test_bfloat16_keeps_its_range(tmp_path):
    # PyTorch's writer makes it float16, where this is infinite.
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("h", torch.tensor([1e30], dtype=torch.bfloat16), 1)
    (value,) = values(tmp_path)
    assert math.isclose(value.histo.max, 1e30, rel_tol=0.01)
