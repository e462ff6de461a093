"""`forebay.integrations.lightning`, with a real `Trainer` where Lightning is installed; else against its documented interface."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
from stand_ins import adapter
from support import events, law_of_run, values

import forebay
from forebay import SummaryWriter

#: The most seconds of a script with processes of its own. Five of them import PyTorch and Lightning: 8 s of a processor each, and a minute and
#: a half where ten other programs want it.
WATCHDOG = 1200


@pytest.fixture
def contract(monkeypatch):
    return adapter("lightning", monkeypatch)


def test_a_training_is_a_run_in_a_version(contract, tmp_path):
    module, _ = contract
    logger = module.ForebayLogger(tmp_path, name="digits", prefix="a.")
    assert (logger.name, logger.version, logger.save_dir) == ("digits", 0, str(tmp_path))
    assert logger.log_dir == str(tmp_path / "digits" / "version_0")
    logger.log_hyperparams({"lr": 0.1, "layers": (8, 2)})
    # Lightning looks at it before the hyper-parameters come.
    assert repr(logger.experiment) == "<Run that has not begun>"
    assert not hasattr(logger.experiment, "__len__")
    logger.log_hyperparams(Namespace(batch=16))
    for step in range(3):
        logger.log_metrics({"loss": 1 / (step + 1)}, step=step)
    assert logger.experiment is logger.experiment
    logger.experiment.event("note", text="x")
    assert isinstance(logger.experiment, forebay.Run)
    logger.log_hyperparams({"late": 1})
    callback = SimpleNamespace(last_model_path="", best_model_path="best.ckpt", current_score=0.5, monitor="loss")
    logger.after_save_checkpoint(callback)
    logger.save()
    run = logger.experiment
    logger.finalize("success")
    law_of_run(run, 8)
    assert str(run.folder) == logger.log_dir
    records = forebay.read(run.folder)
    assert records.scalars("a.loss") == ([0, 1, 2], [1.0, 0.5, 1 / 3])
    by_name = {record.name: record.value for record in records}
    assert by_name["training.started"]["config"] == {"lr": 0.1, "layers": [8, 2], "batch": 16}
    assert by_name["training.configured"] == {"late": 1}
    assert by_name["model.checkpoint_saved"] == {"path": "best.ckpt", "metrics": {"loss": 0.5}}
    (info,) = forebay.runs(tmp_path / "digits")
    assert (info.name, info.status) == ("digits", "finished")
    assert module.ForebayLogger(tmp_path, name="digits").version == 1
    assert module.ForebayLogger(tmp_path).log_dir == str(tmp_path / "version_0")


def test_a_version_that_exists_goes_on_from_its_first_step(contract, tmp_path):
    module, _ = contract
    first = module.ForebayLogger(tmp_path, version="mine")
    for step in range(10):
        first.log_metrics({"loss": step}, step)
    first.finalize("failed")
    second = module.ForebayLogger(tmp_path, version="mine")
    assert second.experiment is second.experiment
    second.log_metrics({"loss": 0.5}, 5)
    second.finalize("success")
    assert [(run.generation, run.status) for run in forebay.runs(tmp_path)] == [(1, "failed"), (2, "finished")]
    started = [record.value for record in forebay.read(tmp_path / "mine") if record.name == "training.started"]
    assert [each.get("first_step") for each in started] == [None, 5]


def test_a_folder_that_cannot_be_listed_raises_nothing(contract, tmp_path, caplog):
    module, _ = contract
    # Longer than a name may be.
    logger = module.ForebayLogger(tmp_path / ("x" * 300))
    assert logger.version == 0
    logger.log_metrics({"loss": 0.5}, 0)
    logger.finalize("success")
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["the training is not logged"]


def test_every_training_that_cannot_begin_is_told_of_once(contract, tmp_path, caplog):
    module, _ = contract
    logger = module.ForebayLogger(tmp_path / ("x" * 300))
    for training in range(1, 4):
        for step in range(3):
            logger.log_metrics({"loss": 0.5}, step)
        logger.finalize("success")
        assert caplog.text.count("the training is not logged") == training == len(caplog.records)


def test_what_comes_after_the_training_adds_to_its_run(contract, tmp_path):
    module, _ = contract
    logger = module.ForebayLogger(tmp_path)
    logger.log_metrics({"loss": 0.5}, 9)
    logger.finalize("success")
    logger.log_metrics({"test_loss": 0.25}, 9)
    logger.finalize("success")
    records = forebay.read(logger.log_dir)
    assert (records.scalars("loss"), records.scalars("test_loss")) == (([9], [0.5]), ([9], [0.25]))
    assert {value.tag for value in values(logger.log_dir)} >= {"loss", "test_loss"}
    started = [record.value for record in records if record.name == "training.started"]
    # The last step of the training stays.
    assert [each.get("first_step") for each in started] == [None, 10]


@pytest.mark.parametrize(("error", "status"), [(ValueError("no data"), "failed"), (KeyboardInterrupt(), "preempted")])
def test_a_training_that_fails_says_why(contract, error, status, tmp_path):
    module, _ = contract
    logger = module.ForebayLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    try:
        raise error
    except BaseException:
        logger.finalize("failed")
    (info,) = forebay.runs(tmp_path)
    assert info.status == status
    assert type(error).__name__ in info.reason


def test_other_processes_than_the_first_log_nothing(contract, tmp_path, monkeypatch):
    module, _ = contract
    monkeypatch.setattr(module.rank_zero_only, "rank", 1, raising=False)
    logger = module.ForebayLogger(tmp_path)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"loss": 0.5}, 0)
    logger.experiment.log({"loss": 0.5})
    logger.after_save_checkpoint(SimpleNamespace(best_model_path="x"))
    logger.save()
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_given_goes_on(contract, tmp_path):
    module, _ = contract
    with forebay.init(tmp_path) as run:
        logger = module.ForebayLogger(tmp_path / "none", run=run)
        assert logger.log_dir == str(run.folder)
        logger.log_hyperparams({"lr": 0.1})
        logger.log_metrics({"loss": 0.5}, 0)
        logger.finalize("success")
        run.log({"after": 1.0}, step=1)
    law_of_run(run, 5)


def test_the_logger_of_tensorboard_has_our_writer(contract, tmp_path):
    module, _ = contract
    logger = module.TensorBoardLogger(tmp_path, name="x", version=3, filename_suffix=".mine")
    assert isinstance(logger.experiment, SummaryWriter)
    logger.log_metrics({"loss": 0.5}, step=1)
    logger.experiment.add_scalar("more", 1.0, 1)
    logger.finalize("success")
    folder = tmp_path / "x" / "version_3"
    assert {value.tag for value in values(folder)} >= {"loss", "more"}
    assert all(".mine" in path.name for path in folder.glob("events.*"))


# With the real library.


@pytest.fixture
def real():
    torch = pytest.importorskip("torch")
    lightning = pytest.importorskip("lightning")
    import warnings

    warnings.filterwarnings("ignore", category=UserWarning)

    class Tiny(lightning.LightningModule):
        def __init__(self, fails_at=None, width=4):
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(width, 1)
            self.example_input_array = torch.zeros(1, width)

        def forward(self, x):
            return self.layer(x)

        def training_step(self, batch, index):
            if self.global_step == self.hparams.fails_at:
                raise ValueError("no data")
            loss = self(batch).pow(2).mean()
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch, index):
            self.log("val_loss", self(batch).pow(2).mean())

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(logger, folder, epochs=2, ckpt_path=None, **model):
        torch.manual_seed(0)
        data = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=4)
        trainer = lightning.Trainer(
            max_epochs=epochs, logger=logger, default_root_dir=folder, accelerator="cpu", enable_progress_bar=False,
            enable_model_summary=False, log_every_n_steps=2,
        )  # fmt: skip
        trainer.fit(Tiny(**model), data, data, ckpt_path=ckpt_path)
        trainer.test(trainer.model, data, verbose=False)
        return trainer

    return fit


def test_a_real_trainer_fits_tests_and_is_resumed(real, tmp_path):
    from forebay.integrations.lightning import ForebayLogger

    logger = ForebayLogger(tmp_path, name="real", log_graph=True)
    trainer = real(logger, tmp_path)
    records = forebay.read(logger.log_dir)
    assert records.scalars("train_loss")[0] == [1, 3, 5, 7, 9, 11, 13, 15]
    # One at the end of each epoch, and one of the test.
    assert records.scalars("val_loss")[0] == [7, 15, 16]
    started = [record.value for record in records if record.name == "training.started"]
    assert started[0]["config"]["width"] == 4
    saved = [record.value for record in records if record.name == "model.checkpoint_saved"]
    # A checkpoint is in the folder of its run.
    assert all(each["path"].startswith(logger.log_dir) for each in saved) and saved
    assert [each.status for each in forebay.runs(tmp_path / "real")] == ["finished", "finished"]
    graphs = [path for path in (tmp_path / "real" / "version_0").glob("*.graph")]
    assert len(graphs) == 1

    again = ForebayLogger(tmp_path, name="real", version=0)
    real(again, tmp_path, epochs=3, ckpt_path=trainer.checkpoint_callback.best_model_path)
    assert records.scalars("train_loss")[0] == [*range(1, 16, 2), *range(17, 24, 2)]
    assert [each.generation for each in forebay.runs(tmp_path / "real")] == [1, 2, 3, 4]


def test_a_real_trainer_that_fails_says_why(real, tmp_path):
    from forebay.integrations.lightning import ForebayLogger

    logger = ForebayLogger(tmp_path)
    with pytest.raises(ValueError, match="no data"):
        real(logger, tmp_path, fails_at=5)
    (info,) = forebay.runs(tmp_path)
    assert info.status == "failed"
    assert "ValueError: no data" in info.reason and "training_step" in info.reason


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp"])
def test_two_real_processes_log_as_one_run(real, strategy, tmp_path):
    script = Path(__file__).with_name("lightning_processes.py")
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, script, tmp_path, strategy], env=environment, capture_output=True, text=True, timeout=WATCHDOG, check=False
    )
    assert done.returncode == 0, done
    # Two trainings, of which the parent has logged to the second before it began: where processes are new ones, that is a run of its own.
    first, *others = sorted((tmp_path / "x").iterdir())
    for folder in (first, others[-1]):
        losses = forebay.read(folder).scalars("train_loss")[0]
        assert losses == [0, 1, 2, 3]
    (info,) = forebay.runs(first)
    assert info.status == "finished"
    started = next(record.value for record in forebay.read(first) if record.name == "training.started")
    assert (started["rank"], started["world_size"], started["config"]["width"]) == (0, 2, 4)
    before = [folder for folder in (tmp_path / "x").iterdir() if forebay.read(folder).scalars("before") == ([0], [1.0])]
    assert before == [first.with_name("version_1")]
    assert len(others) == (1 if strategy == "ddp" else 2)


def test_the_real_logger_of_tensorboard_has_our_writer(real, tmp_path):
    from forebay.integrations.lightning import TensorBoardLogger

    logger = TensorBoardLogger(tmp_path, name="x", log_graph=True, default_hp_metric=True)
    real(logger, tmp_path)
    assert isinstance(logger.experiment, SummaryWriter)
    tags = [value.tag for value in values(logger.log_dir)]
    assert tags.count("train_loss") == 8
    # By `experiment._get_file_writer().add_summary(..)`.
    plugins = {value.metadata.plugin_data.plugin_name for value in values(logger.log_dir)}
    assert "hparams" in plugins
    assert events(logger.log_dir)
