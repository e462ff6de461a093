"""`forebay.integrations.accelerate`, in a real loop where accelerate is installed; else against its documented interface."""

import pytest
from stand_ins import adapter
from support import law_of_run

import forebay


@pytest.fixture
def contract(monkeypatch):
    return adapter("accelerate", monkeypatch)


def test_a_tracker_keeps_the_contract(contract, tmp_path):
    module, _ = contract
    tracker = module.ForebayTracker("digits", tmp_path)
    assert (tracker.name, tracker.requires_logging_directory, tracker.main_process_only) == ("forebay", False, True)
    assert tracker.tracker is None
    tracker.store_init_configuration({"lr": 0.1, "layers": (8, 2), "path": tmp_path})
    run = tracker.tracker
    for step in range(3):
        tracker.log({"loss": 1 / (step + 1), "text": "x"}, step=step)
    tracker.log({"last": 1}, step=3, log_kwargs={})
    tracker.finish()
    law_of_run(run, 9)
    records = forebay.read(run.folder)
    assert records.scalars("loss") == ([0, 1, 2], [1.0, 0.5, 1 / 3])
    started = next(record.value for record in records if record.name == "training.started")
    assert started["config"] == {"lr": 0.1, "layers": [8, 2], "path": str(tmp_path)}
    (info,) = forebay.runs(tmp_path)
    assert (info.name, info.status) == ("digits", "finished")


def test_a_tracker_works_without_a_configuration(contract, tmp_path):
    module, _ = contract
    tracker = module.ForebayTracker(dir=tmp_path)
    tracker.log({"loss": 0.5})
    tracker.store_init_configuration({"lr": 0.1})
    run = tracker.tracker
    tracker.finish()
    law_of_run(run, 4)


def test_other_processes_than_the_main_one_log_nothing(contract, tmp_path, monkeypatch):
    module, accelerate = contract
    state = accelerate.PartialState if hasattr(accelerate, "PartialState") else __import__("stand_ins").PartialState
    monkeypatch.setattr(state, "is_main_process", False)
    monkeypatch.setattr(state, "use_distributed", True, raising=False)
    tracker = module.ForebayTracker(dir=tmp_path)
    tracker.store_init_configuration({"lr": 0.1})
    tracker.log({"loss": 0.5}, step=0)
    tracker.finish()
    assert tracker.tracker is None
    assert list(tmp_path.iterdir()) == []


def test_a_real_accelerator_logs_to_a_run(tmp_path):
    torch = pytest.importorskip("torch")
    accelerate = pytest.importorskip("accelerate")
    from forebay.integrations.accelerate import ForebayTracker

    tracker = ForebayTracker("real", tmp_path)
    accelerator = accelerate.Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("ignored", config={"lr": 0.1, "batch": 4})
    assert accelerator.get_tracker("forebay") is tracker
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    data = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=4)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)
    losses = []
    for step, batch in enumerate(data):
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
        accelerator.log({"train.loss": loss}, step=step)
    run = accelerator.get_tracker("forebay", unwrap=True)
    assert run is tracker.tracker
    accelerator.end_training()
    law_of_run(run, 8 + 2)
    assert forebay.read(run.folder).scalars("train.loss") == (list(range(8)), losses)
    (info,) = forebay.runs(tmp_path)
    assert (info.name, info.status) == ("real", "finished")
