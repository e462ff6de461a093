"""The demonstration: a network that learns digits, and its run."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig

import pytest
from support import law, values

import forebay


def test_the_demonstration_learns_and_logs_and_says_where_to_look(tmp_path, capsys):
    report = forebay.demo(tmp_path, epochs=3)
    said = capsys.readouterr().out
    assert report.is_clean
    # The begin and the end of the run, a text, two numbers a step, and five values an epoch.
    steps = 3 * 2048 // 32
    law(report, 2 + 1 + 2 * steps + 5 * 3)
    assert f"tensorboard --logdir {tmp_path}" in said
    assert f"{report.offered:,} offered = {report.offered:,} processed + 0 lost + 0 pending" in said
    (info,) = forebay.runs(tmp_path)
    assert (info.name, info.status) == ("demo", "finished")
    assert str(info.folder) in said

    records = forebay.read(info.folder)
    losses = records.scalars("train.loss")[1]
    assert len(losses) == steps
    assert losses[-1] < losses[0] / 2
    assert records.scalars("test.accuracy")[1][-1] > 0.7
    by_name = {record.name: record for record in records}
    accuracy = by_name["training.completed"].value["final_metrics"]["accuracy"]
    assert accuracy == records.scalars("test.accuracy")[1][-1]

    # The first value of a tag says what it is.
    plugins = {value.tag: value.metadata.plugin_data.plugin_name for value in reversed(values(info.folder))}
    shown = {tag: plugins.get(tag) for tag in ("about", "weights/first", "test/mistakes")}
    assert shown == {"about": "text", "weights/first": "histograms", "test/mistakes": "images"}
    assert "hparams" in plugins.values()


def test_the_same_seed_draws_the_same_digits(tmp_path):
    for folder in ("a", "b"):
        forebay.demo(tmp_path / folder, epochs=1, seed=5)
    (a,), (b,) = forebay.runs(tmp_path / "a"), forebay.runs(tmp_path / "b")
    assert forebay.read(a.folder).scalars("train.loss") == forebay.read(b.folder).scalars("train.loss")


def test_without_numpy_the_demonstration_names_it(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numpy" else found(name))
    with pytest.raises(ModuleNotFoundError, match="forebay.demo needs NumPy, which is not installed: pip install numpy") as raised:
        forebay.demo(tmp_path)
    assert raised.value.name == "numpy"
    assert list(tmp_path.iterdir()) == []


def test_the_demonstration_is_a_command_as_well(tmp_path):
    def command(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "forebay", *arguments], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
        )

    done = command("demo", "--epochs", "1")
    assert done.returncode == 0, done
    assert "tensorboard --logdir runs" in done.stdout
    assert [info.status for info in forebay.runs(tmp_path / "runs")] == ["finished"]
    assert command("demo", "--epochs", "0").stderr == "error: epochs must be 1 or more, got 0\n"
    assert "demo" in command("demo", "--help").stdout


def test_other_commands_are_those_of_the_program(tmp_path):
    def command(*arguments):
        environment = {**os.environ, "PATH": str(tmp_path)}
        return subprocess.run([sys.executable, "-m", "forebay", *arguments], capture_output=True, text=True, check=False, env=environment)

    beside = shutil.which("forebay", path=sysconfig.get_path("scripts"))
    if not beside:
        missing = command("runs")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "come with the package forebay-cli" in missing.stderr
        assert "forebay-cli" in command("--help").stdout
    program = tmp_path / "forebay"
    program.write_text('#!/bin/sh\necho "got: $*"\nexit 3\n')
    program.chmod(0o755)
    done = command("best", "loss", "--min")
    if beside:
        assert "got" not in done.stdout, "the one beside the interpreter comes first"
    else:
        assert (done.returncode, done.stdout) == (3, "got: best loss --min\n")
