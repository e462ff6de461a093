"""`forebay.integrations.transformers`, with a real `Trainer` where transformers is installed; else against its documented interface."""

import json

import pytest
from stand_ins import adapter
from support import law, law_of_run, values

import forebay
from forebay import SummaryWriter


class Config:
    def to_dict(self):
        return {"hidden_size": 8, "id2label": {0: "no", 1: "yes"}, "dtype": type(self)}


class Model:
    config = Config()


class Calls:
    """The calls that a `Trainer` makes, as the documentation of callbacks names them."""

    def __init__(self, callback, library, folder, **state):
        self.callback = callback
        self.args = library.TrainingArguments(output_dir=str(folder))
        self.state = library.TrainerState(**state)
        self.control = library.TrainerControl()

    def __getattr__(self, name):
        def call(**kwargs):
            getattr(self.callback, name)(self.args, self.state, self.control, model=Model(), **kwargs)

        return call

    def log(self, step, **logs):
        self.state.global_step = step
        self.on_log(logs=logs)

    def save(self, step):
        (folder := self.folder(step)).mkdir(parents=True)
        self.state.global_step = step
        self.on_save()
        return folder

    def folder(self, step):
        from pathlib import Path

        return Path(self.args.output_dir, f"checkpoint-{step}")


@pytest.fixture
def contract(monkeypatch):
    return adapter("transformers", monkeypatch)


def test_a_training_is_a_run(contract, tmp_path):
    module, library = contract
    callback = module.ForebayCallback(name="digits")
    trainer = Calls(callback, library, tmp_path)
    trainer.on_train_begin()
    trainer.state.epoch = 1.0
    trainer.log(10, loss=0.5, learning_rate=1e-4)
    trainer.log(10, eval_loss=0.75)
    trainer.on_evaluate(metrics={"eval_loss": 0.75})
    trainer.save(10)
    trainer.log(20, train_runtime=3.5, train_loss=0.6, note="text")
    trainer.state.best_metric = 0.75
    trainer.on_train_end()
    law_of_run(callback.run, 9)
    assert callback.run.folder.parent == tmp_path / "runs"
    (info,) = forebay.runs(tmp_path / "runs")
    assert (info.name, info.status, info.last_step) == ("digits", "finished", 10 if info.last_step == 10 else 20)
    records = forebay.read(callback.run.folder)
    assert records.scalars("train.loss") == ([10], [0.5])
    assert records.scalars("eval.loss") == ([10], [0.75])
    assert records.scalars("train.train_runtime") == ([20], [3.5])
    by_name = {record.name: record.value for record in records}
    config = by_name["training.started"]["config"]
    assert (config["learning_rate"], config["model"]["hidden_size"], config["model_class"]) == (5e-5, 8, "Model")
    assert config["model"]["id2label"] == {"0": "no", "1": "yes"}
    saved = by_name["model.checkpoint_saved"]
    assert (saved["path"], saved["epoch"]) == (str(tmp_path / "checkpoint-10"), 1)
    assert by_name["training.completed"]["final_metrics"] == {"global_step": 20, "best_metric": 0.75}
    assert sum(value.tag == "train/loss" for value in values(callback.run.folder)) == 1


def test_an_evaluation_after_the_training_adds_to_its_run(contract, tmp_path):
    module, library = contract
    callback = module.ForebayCallback()
    trainer = Calls(callback, library, tmp_path)
    trainer.on_train_begin()
    trainer.log(10, loss=0.5)
    trainer.on_train_end()
    trainer.log(10, eval_loss=0.25)
    trainer.on_evaluate(metrics={"eval_loss": 0.25})
    trainer.on_predict(metrics={"test_loss": 0.125})
    law_of_run(callback.run, 3)
    found = forebay.runs(tmp_path / "runs")
    assert [(run.generation, run.status) for run in found] == [(1, "finished"), (2, "finished"), (3, "finished")]
    assert {run.folder for run in found} == {callback.run.folder}
    records = forebay.read(callback.run.folder)
    for name, value in (("train.loss", 0.5), ("eval.loss", 0.25), ("test.loss", 0.125)):
        assert records.scalars(name) == ([10], [value])
    # TensorBoard hides nothing of it.
    assert {value.tag for value in values(callback.run.folder)} >= {"train/loss", "eval/loss", "test/loss"}


def test_a_training_that_is_resumed_goes_on_in_its_run(contract, tmp_path):
    module, library = contract
    first = module.ForebayCallback(name="digits")
    trainer = Calls(first, library, tmp_path)
    trainer.on_train_begin()
    trainer.log(10, loss=0.5)
    folder = trainer.save(10)
    assert json.loads((folder / "forebay.json").read_text()) == {"run": str(first.run.folder)}
    trainer.log(20, loss=0.4)
    first.run.flush()
    # The process is gone, and another one goes on from the checkpoint.
    second = module.ForebayCallback()
    trainer = Calls(second, library, tmp_path, global_step=10)
    trainer.on_train_begin()
    trainer.log(20, loss=0.3)
    trainer.on_train_end()
    assert second.run.folder == first.run.folder
    found = forebay.runs(tmp_path / "runs")
    assert [(run.generation, run.name) for run in found] == [(1, "digits"), (2, "digits")]
    started = [record.value for record in forebay.read(second.run.folder) if record.name == "training.started"]
    assert [each.get("first_step") for each in started] == [None, 11]
    first.run.finish("preempted")
    for report in (first.run.finish(), second.run.finish()):
        law(report, report.offered)


def test_a_checkpoint_of_another_run_is_no_reason_to_fail(contract, tmp_path):
    module, library = contract
    callback = module.ForebayCallback()
    trainer = Calls(callback, library, tmp_path, global_step=10)
    for wrong in (None, "no JSON", "[]", json.dumps({"run": str(tmp_path / "gone")})):
        if wrong is not None:
            trainer.folder(10).mkdir(exist_ok=True)
            (trainer.folder(10) / "forebay.json").write_text(wrong)
        trainer.on_train_begin()
        trainer.on_train_end()
    assert [run.generation for run in forebay.runs(tmp_path / "runs")] == [1, 1, 1, 1]


def test_other_processes_than_the_first_log_nothing(contract, tmp_path):
    module, library = contract
    callback = module.ForebayCallback()
    trainer = Calls(callback, library, tmp_path, is_world_process_zero=False)
    trainer.on_train_begin()
    trainer.log(10, loss=0.5)
    trainer.on_evaluate(metrics={})
    trainer.on_predict(metrics={"test_loss": 1.0})
    trainer.save(10)
    trainer.on_train_end()
    assert callback.run is None
    assert not (tmp_path / "runs").exists()


def test_a_run_that_was_given_goes_on(contract, tmp_path):
    module, library = contract
    with forebay.init(tmp_path / "mine") as run:
        trainer = Calls(module.ForebayCallback(run=run), library, tmp_path)
        trainer.on_train_begin()
        trainer.log(10, loss=0.5)
        trainer.on_train_end()
        run.log({"after": 1.0}, step=11)
    law_of_run(run, 5)
    assert not (tmp_path / "runs").exists()


def test_a_value_that_cannot_be_logged_is_left_out(contract, tmp_path, caplog):
    class Broken:
        def __str__(self):
            raise ValueError("no words")

    module, library = contract
    callback = module.ForebayCallback()
    trainer = Calls(callback, library, tmp_path)
    trainer.on_train_begin()
    for step in range(3):
        trainer.log(step, loss=0.5, broken=Broken())
    trainer.on_train_end()
    law_of_run(callback.run, 5)
    assert forebay.read(callback.run.folder).scalars("train.loss")[0] == [0, 1, 2]
    assert caplog.text.count("train.broken is not logged: ValueError: no words") == 1


# With the real library.


@pytest.fixture
def trainer_of():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def make(folder, callbacks, **arguments):
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=16
        )
        model = transformers.BertForSequenceClassification(config)
        rows = [{"input_ids": [each % 32] * 8, "labels": each % 2} for each in range(64)]
        settings = {
            "output_dir": str(folder), "report_to": [], "use_cpu": True, "per_device_train_batch_size": 8, "logging_steps": 2,
            "save_steps": 4, "eval_strategy": "steps", "eval_steps": 4, "disable_tqdm": True, "max_steps": 8, **arguments,
        }  # fmt: skip
        args = transformers.TrainingArguments(**settings)
        return transformers.Trainer(model=model, args=args, train_dataset=rows, eval_dataset=rows[:16], callbacks=callbacks)

    return make


def test_a_real_trainer_trains_is_resumed_and_evaluates(trainer_of, tmp_path):
    from forebay.integrations.transformers import ForebayCallback

    callback = ForebayCallback(name="real")
    trainer = trainer_of(tmp_path, [callback])
    trainer.train()
    run = callback.run
    records = forebay.read(run.folder)
    assert records.scalars("train.loss")[0] == [2, 4, 6, 8]
    assert records.scalars("eval.loss")[0] == [4, 8]
    history = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert records.scalars("train.loss")[1] == [pytest.approx(float(loss)) for loss in history]
    names = [record.name for record in records]
    assert names.count("model.checkpoint_saved") == 2
    started = next(record.value for record in records if record.name == "training.started")
    assert (started["config"]["max_steps"], started["config"]["model"]["hidden_size"]) == (8, 8)
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset)
    assert records.scalars("eval.loss")[0] == [4, 8, 8]
    assert records.scalars("test.loss")[0] == [8]

    callback = ForebayCallback()
    trainer_of(tmp_path, [callback], max_steps=12).train(resume_from_checkpoint=True)
    assert callback.run.folder == run.folder
    assert records.scalars("train.loss")[0] == [2, 4, 6, 8, 10, 12]
    found = forebay.runs(tmp_path / "runs")
    assert [each.status for each in found] == ["finished"] * 4
    assert [each.generation for each in found] == [1, 2, 3, 4]
    assert {each.name for each in found} == {"real"}


def test_the_callback_of_tensorboard_takes_our_writer(trainer_of, tmp_path):
    from transformers.integrations import TensorBoardCallback

    writer = SummaryWriter(tmp_path / "board")
    trainer_of(tmp_path / "out", [TensorBoardCallback(tb_writer=writer)]).train()
    tags = [value.tag for value in values(tmp_path / "board")]
    assert tags.count("train/loss") == 4
    assert tags.count("eval/loss") == 2
    assert {"args/text_summary", "model_config/text_summary"} <= set(tags)
    assert writer.file_writer is None
