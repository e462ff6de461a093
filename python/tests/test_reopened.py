"""Writers that are written again after a close, or in another process, also where their file cannot be opened."""

import json
import logging
import os
import pickle
import shutil
import time

import pytest
from support import forked, values

from forebay import SummaryWriter

WATCHDOG = 60

#: The account of a writer to which nothing was added.
NOTHING = dict.fromkeys(("offered", "processed", "pending", "evicted", "rejected", "failed", "waits", "ignored"), 0)


def block(folder):
    """Has a file where the folder of a run would be: no user may write there, not even root."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.write_text("")


def add_all(writer):
    """Calls methods of every kind, and returns how many calls it were."""
    writer.add_scalar("x", 1.0)
    writer.add_scalars("x", {"a": 1.0, "b": 2.0})
    writer.add_histogram("h", bytes(8))
    writer.add_text("t", "text")
    writer.add_hparams({"lr": 0.1}, {})
    writer.add_embedding([[1.0, 2.0]])
    writer.file_writer and writer.flush()
    return 7


def test_a_closed_writer_that_cannot_be_opened_again_counts_and_warns_once(tmp_path, caplog):
    writer = SummaryWriter(tmp_path / "run")
    writer.add_scalar("x", 1.0)
    writer.close()
    block(tmp_path / "run")
    caplog.set_level(logging.WARNING, "forebay")
    added = add_all(writer) + add_all(writer)
    writer.flush()
    writer.close()
    assert writer.file_writer is None
    (record,) = caplog.records
    assert record.getMessage().startswith(f"what is added to {tmp_path / 'run'} is ignored until it can be opened: FileExistsError: ")
    assert (writer.stats()["ignored"], writer.stats()["offered"]) == (added, 1)
    # It is tried again a moment later.
    (tmp_path / "run").unlink()
    until = time.monotonic() + WATCHDOG
    while writer.file_writer is None:
        writer.add_scalar("later", 1.0)
        assert time.monotonic() < until
    writer.add_scalar("later", 2.0)
    writer.close()
    assert [value.simple_value for value in values(tmp_path / "run")] == [1.0, 2.0]
    assert len(caplog.records) == 1


def test_a_folder_that_is_gone_is_made_again(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    writer.close()
    shutil.rmtree(tmp_path / "run")
    writer.add_scalar("x", 1.0)
    writer.close()
    assert len(values(tmp_path / "run")) == 1
    assert writer.stats()["ignored"] == 0


def test_a_child_or_a_copy_that_cannot_open_its_own_folder_counts(tmp_path, caplog):
    writer = SummaryWriter(tmp_path / "run", in_child="reopen")
    copy = pickle.loads(pickle.dumps(writer))
    block(tmp_path / "run")

    def work():
        added = add_all(writer)
        writer.close()
        return writer.stats()["ignored"] - added

    assert forked(work) == 0
    assert copy._folder == tmp_path / "run" / f"pid_{os.getpid()}"
    added = add_all(copy)
    copy.close()
    assert copy.stats() == NOTHING | {"ignored": added}
    assert len(caplog.records) == 1
    writer.close()


def test_where_a_process_writes_nothing_an_embedding_has_no_files(tmp_path):
    writer = SummaryWriter(tmp_path / "run")

    def work():
        writer.add_embedding([[1.0, 2.0]])
        return writer.stats()["ignored"]

    assert forked(work) == 1
    copy = pickle.loads(pickle.dumps(writer))
    copy.add_embedding([[1.0, 2.0]])
    assert copy.stats() == NOTHING | {"ignored": 1}
    none = SummaryWriter(tmp_path / "none", write_to_disk=False)
    none.add_embedding([[1.0, 2.0]])
    assert none.stats() == NOTHING | {"ignored": 1}
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name.split(".")[0] for path in (tmp_path / "run").iterdir()] == ["events"]


def test_an_embedding_that_cannot_be_written_counts(tmp_path, caplog):
    with SummaryWriter(tmp_path) as writer:
        (tmp_path / "00000").symlink_to(tmp_path / "none")
        writer.add_embedding([[1.0, 2.0]])
        assert writer.stats()["ignored"] == 1
    (record,) = caplog.records
    assert record.getMessage().startswith("an embedding is not written: ")


def test_a_child_that_reopens_has_its_own_embeddings(tmp_path):
    writer = SummaryWriter(tmp_path, in_child="reopen")
    writer.add_embedding([[1.0, 2.0]], tag="parent")

    def work():
        writer.add_embedding([[1.0, 2.0]], tag="child")
        return writer.close()

    assert forked(work) is None
    (folder,) = tmp_path.glob("pid_*")
    shown = [(path / "projector_config.pbtxt").read_text() for path in (tmp_path, folder)]
    assert ["parent" in text for text in shown] == [True, False]
    assert ["child" in text for text in shown] == [False, True]
    writer.close()


def test_the_account_of_a_closed_writer_is_that_of_its_last_file(tmp_path):
    writer = SummaryWriter(tmp_path)
    assert writer.stats()["offered"] == 0
    for number in (3, 5):
        for step in range(number):
            writer.add_scalar("x", step, step)
        writer.add_scalar("x", 1.0)
        writer.close()
        stats = writer.stats()
        assert (stats["offered"], stats["processed"], stats["pending"]) == (number + 1, number + 1, 0)
        assert set(stats) == set(NOTHING)
        assert repr(writer).endswith(f"closed: {number + 1} added, 0 pending, 0 lost>")
        writer.close()
        assert writer.stats() == stats
    # A child has none of it.
    assert forked(writer.stats) == NOTHING


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_a_handler_of_a_signal_raises_is_raised(tmp_path, monkeypatch, error):
    writer = SummaryWriter(tmp_path)
    writer.close()

    def interrupt(*_):
        raise error

    monkeypatch.setattr(SummaryWriter, "_watches_sigterm", interrupt)
    with pytest.raises(error):
        writer.add_scalar("x", 1.0)
    monkeypatch.undo()
    writer.add_scalar("x", 1.0)
    writer.close()
    assert writer.stats()["ignored"] == 0


def test_a_writer_stays_in_its_folder_where_the_program_goes_to_another(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    monkeypatch.chdir(here)
    writer = SummaryWriter("run", in_child="reopen")
    writer.add_scalar("x", 1.0, 0)
    writer.add_scalars("y", {"k": 1.0}, 0)
    monkeypatch.chdir(there)
    writer.add_embedding([[1.0, 2.0]])
    writer.add_hparams({"lr": 0.1}, {}, run_name=here / "run" / "trial")
    writer.export_scalars_to_json("all.json")
    writer.close()
    writer.add_scalar("x", 2.0, 1)
    copy = pickle.loads(pickle.dumps(writer))
    writer.close()
    assert writer.log_dir == writer.get_logdir() == copy.log_dir == "run"
    assert copy._folder == here / "run" / f"pid_{os.getpid()}"
    assert [path.name for path in there.iterdir()] == ["all.json"]
    assert sorted(json.loads((there / "all.json").read_text())) == ["run/y/k", "x"]
    assert [value.simple_value for value in values(here / "run")] == [1.0, 2.0]
    assert {path.name for path in (here / "run").iterdir() if path.is_dir()} == {"00000", "y_k", "trial"}


def test_a_child_has_the_account_of_what_it_added_itself(tmp_path):
    writer = SummaryWriter(tmp_path, in_child="reopen")
    writer.add_scalar("x", 1.0)
    open_ = SummaryWriter(tmp_path / "open")
    open_.add_scalar("x", 1.0)
    writer.close()

    def work():
        open_.add_scalar("x", 1.0)
        # That it reopens replaces the account that the parent has locked for good.
        writer.add_scalar("x", 1.0)
        writer.add_scalar("x", 2.0)
        writer.close()
        return writer.stats(), open_.stats()

    assert forked(work) == [NOTHING | {"offered": 2, "processed": 2}, NOTHING | {"ignored": 1}]
    assert writer.stats() == NOTHING | {"offered": 1, "processed": 1}
    open_.close()


def test_to_ask_for_the_writer_of_events_counts_nothing(tmp_path):
    writer = SummaryWriter(tmp_path / "run")
    writer.close()
    block(tmp_path / "run")
    writer._get_file_writer().add_onnx_graph(Graph())
    assert writer.stats()["ignored"] == 1


class Graph:
    """A message of a graph, as far as it is asked."""

    def SerializeToString(self):  # noqa: N802
        return b""
