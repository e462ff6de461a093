"""The examples run, and learn."""

import importlib.util
from pathlib import Path

import pytest
from support import law_of_run, values

import forebay

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_of_jax_logs_to_a_run(tmp_path):
    pytest.importorskip("jax")
    accuracy, run = example("jax_spirals").main(tmp_path)
    assert accuracy >= 0.9
    # 60 of 600 steps with 2 values, 6 histograms, begin and end.
    law_of_run(run, 2 * 60 + 6 + 2)
    (info,) = forebay.runs(tmp_path)
    assert (info.name, info.status) == ("spirals", "finished")
    losses = forebay.read(info.folder).scalars("train.loss")[1]
    assert losses[-1] < losses[0] / 2


def test_the_example_of_flax_logs_to_a_run(tmp_path):
    pytest.importorskip("flax")
    accuracy, run = example("flax_spirals").main(tmp_path)
    assert accuracy >= 0.9
    # 40 epochs with 2 values, 4 of them with 6 histograms, begin and end.
    law_of_run(run, 2 * 40 + 4 * 6 + 2)
    (info,) = forebay.runs(tmp_path)
    assert (info.name, info.status, info.last_step) == ("spirals", "finished", 39)
    records = forebay.read(info.folder)
    losses = records.scalars("train.loss")[1]
    assert losses[-1] < losses[0] / 2
    assert {"weights.first.kernel", "weights.last.bias"} <= {record.name for record in records}


def test_the_example_of_pytorch_has_one_line_about_forebay(tmp_path, capsys):
    source = (EXAMPLES / "torch_spirals.py").read_text().split('"""', 2)[2]
    assert [line for line in source.splitlines() if "forebay" in line] == ["from forebay import SummaryWriter"]
    pytest.importorskip("torch")
    example("torch_spirals").main(tmp_path / "spirals", epochs=20)
    assert "accuracy" in capsys.readouterr().out
    found = values(tmp_path / "spirals")
    losses = [value.simple_value for value in found if value.tag == "train/loss"]
    assert len(losses) == 20 * 8
    assert losses[-1] < losses[0] / 2
    assert sum(value.HasField("histo") for value in found) == 20 * 6
