"""Runs that go on with an earlier one."""

import pytest
from support import all_events, law, law_of_run

import forebay
from forebay import Collector, SummaryWriter, sinks


def test_a_run_goes_on_in_its_folder_as_the_next_generation(tmp_path):
    first = forebay.init(tmp_path, name="digits")
    for step in range(10):
        first.log({"loss": step}, step=step)
    first.finish("preempted", "the time is up")
    law_of_run(first, 12)
    second = forebay.init(resume=first.folder, first_step=5, config={"lr": 0.1})
    assert (second.folder, second.run_id) == (first.folder, first.run_id)
    for step in range(5, 8):
        second.log({"loss": 10 * step}, step=step)
    law_of_run(second, 5)
    found = forebay.runs(tmp_path)
    assert [(run.generation, run.status, run.name) for run in found] == [(1, "preempted", "digits"), (2, "finished", "digits")]
    assert forebay.read(first.folder).scalars("loss") == ([*range(10), 5, 6, 7], [*range(10), 50, 60, 70])
    # TensorBoard hides what was written of the fifth step and later ones before.
    starts = [event.step for event in all_events(first.folder) if event.HasField("session_log")]
    assert starts == [0, 5]


def test_the_last_run_of_a_folder_is_the_one_that_goes_on(tmp_path):
    first = forebay.init(tmp_path)
    first.finish()
    second = forebay.init(resume=first.folder, first_step=3)
    # The third finds it in the file, where it is a second later at the latest.
    second.flush()
    for run in (second, forebay.init(resume=first.folder, first_step=6)):
        run.finish()
    assert [run.generation for run in forebay.runs(tmp_path)] == [1, 2, 3]
    assert len({run.run_id for run in forebay.runs(tmp_path)}) == 1


def test_there_must_be_a_run_to_go_on_with(tmp_path):
    with pytest.raises(FileNotFoundError, match="resume must be the folder of a run, got .*it has no events.jsonl"):
        forebay.init(resume=tmp_path)
    (tmp_path / "events.jsonl").write_text("")
    with pytest.raises(ValueError, match="resume must name a run that has begun, got none in .*events.jsonl"):
        forebay.init(resume=tmp_path)
    with pytest.raises(ValueError, match="first_step must be 0 or more, got -1"):
        forebay.init(resume=tmp_path, first_step=-1)


def test_an_event_that_finds_no_place_is_rejected_at_once(tmp_path):
    # It would wait a minute otherwise.
    collector = Collector(
        capacity=2, critical_capacity=1, flush={"strategy": "manual"}, overflow="block", overflow_timeout="1m", critical_timeout="1m"
    )
    taken = [collector.try_collect("x", number, step=number) for number in range(3)]
    assert taken == ["queued", "queued", "full"]
    assert [collector.try_collect("x", priority="critical") for _ in range(2)] == ["queued", "full"]
    report = collector.stop()
    assert (report.processed, report.lost) == (3, 2)
    law(report, 5)
    assert collector.try_collect("x") == "stopped"


def earlier_run(folder):
    """What a collector says of the folder that its sink writes to."""
    with Collector([sinks.TensorBoard(folder)]) as collector:
        report = collector.stop()
    law(report, 0)
    return report.stats["sinks"][0]["earlier_run"]


def test_an_earlier_run_that_has_sub_runs_alone_is_one(tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        writer.add_scalars("loss", {"train": 0.5, "deep/er": 0.7}, 0)
    assert earlier_run(tmp_path / "run") == str(tmp_path / "run")
    # Neither the folder of all runs, nor one whose run wrote nothing, here or below.
    assert earlier_run(tmp_path) is None
    SummaryWriter(tmp_path / "empty").close()
    SummaryWriter(tmp_path / "empty" / "below").close()
    assert earlier_run(tmp_path / "empty") is None
