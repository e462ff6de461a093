"""What holds for all adapters: copies and forked children, the rank of a process, and a run that cannot begin."""

import copy
import json
import logging
import pickle
import sys
import threading
import types
from types import SimpleNamespace

import pytest
from stand_ins import lines, stand_in
from support import forked, law, law_of_run

import forebay
from forebay.sinks import JsonLines

ADAPTERS = ("accelerate", "keras", "lightning", "transformers")

#: The most seconds until a child that hangs is killed.
WATCHDOG = 60


class Model:
    name = None


class Driver:
    """Drives the adapter of a library as the library does."""

    def __init__(self, name, module, library):
        self.name, self.module, self.library = name, module, library

    def make(self, folder, **settings):
        kind = {"accelerate": "ForebayTracker", "lightning": "ForebayLogger"}.get(self.name, "ForebayCallback")
        key = "save_dir" if self.name == "lightning" else "dir"
        return getattr(self.module, kind)(**{key: folder}, **settings)

    def call(self, made, hook, *rest):
        args = self.library.TrainingArguments(output_dir=str(made._output_dir))
        getattr(made, hook)(args, self.library.TrainerState(), self.library.TrainerControl(), *rest)

    def begin(self, made):
        match self.name:
            case "accelerate":
                made.store_init_configuration({"lr": 0.1})
            case "keras":
                made.set_params({"lr": 0.1})
                made.set_model(Model())
                made.on_train_begin()
            case "lightning":
                made.log_hyperparams({"lr": 0.1})
            case "transformers":
                self.call(made, "on_train_begin")

    def log(self, made, value):
        match self.name:
            case "accelerate":
                made.log({"loss": value}, step=0)
            case "keras":
                made.on_epoch_end(0, {"loss": value})
            case "lightning":
                made.log_metrics({"loss": value}, 0)
            case "transformers":
                self.call(made, "on_log")
                made.on_log(None, self.library.TrainerState(), None, {"loss": value})

    def log_late(self, made, value):
        """Logs a value without a begin."""
        if self.name == "keras":
            made.set_model(Model())
            made.on_test_end({"loss": value})
        else:
            self.log(made, value)

    def end(self, made):
        match self.name:
            case "accelerate":
                made.finish()
            case "keras":
                made.on_train_end()
            case "lightning":
                made.finalize("success")
            case "transformers":
                self.call(made, "on_train_end")

    def train(self, made, value):
        self.begin(made)
        self.log(made, value)
        self.end(made)


@pytest.fixture(params=ADAPTERS)
def driver(request, monkeypatch):
    module, library = stand_in(request.param, monkeypatch)
    # By which a copy is found.
    monkeypatch.setitem(sys.modules, f"forebay.integrations.{request.param}", module)
    return Driver(request.param, module, library)


def losses(folder):
    """The losses in each folder of a run, in the order in which the runs began."""
    folders = dict.fromkeys(info.folder for info in forebay.runs(folder))
    return [[line["scalar"] for line in lines(each) if line["name"].endswith("loss")] for each in folders]


COPIES = {"pickle": lambda made: pickle.loads(pickle.dumps(made)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_copy_has_the_settings_and_begins_a_run_of_its_own(driver, copied, tmp_path):
    made = driver.make(tmp_path / "runs", name="digits", sinks=[JsonLines(tmp_path / "events.jsonl")], gate={"deny": ["note"]})
    other = copied(made)
    driver.train(other, 0.5)
    assert made._session.run is None
    run = other._session.run
    assert (run.name, run.collector.collect("note")) == ("digits", "stopped")
    driver.train(made, 0.25)
    assert made._session.run.run_id != run.run_id
    # Both wrote to the sink that was given, by the gate that was given.
    assert [info.name for info in forebay.runs(tmp_path)] == ["digits", "digits"]
    assert losses(tmp_path) == [[0.5, 0.25]]
    for each in (made, other):
        assert each._session._settings == {"gate": {"deny": ["note"]}}
        report = each._session.run.finish()
        law(report, report.offered)


def test_an_open_run_does_not_travel(driver, tmp_path):
    made = driver.make(tmp_path)
    driver.begin(made)
    driver.log(made, 0.5)
    other = pickle.loads(pickle.dumps(made))
    assert other._session.run is None
    driver.train(other, 0.25)
    driver.log(made, 0.75)
    driver.end(made)
    assert sorted(losses(tmp_path)) == [[0.25], [0.5, 0.75]]
    assert [info.status for info in forebay.runs(tmp_path)] == ["finished", "finished"]
    assert made._session.run.folder != other._session.run.folder
    law_of_run(made._session.run, 4)
    law_of_run(other._session.run, 3)


def test_a_copy_of_an_adapter_with_a_run_of_the_user_logs_nothing_and_says_so(driver, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(forebay._run, "_has_warned", False, raising=False)
    with forebay.init(tmp_path) as run:
        other = pickle.loads(pickle.dumps(driver.make(tmp_path / "none", run=run)))
        with caplog.at_level(logging.WARNING, "forebay"):
            for _ in range(2):
                driver.train(other, 0.25)
    law_of_run(run, 2)
    assert not (tmp_path / "none").exists()
    assert [record.getMessage() for record in caplog.records] == [
        "nothing is logged in this process, which has no run: call forebay.init in it"
    ]


def test_a_copy_in_the_same_process_shares_the_run_of_the_user(driver, tmp_path):
    with forebay.init(tmp_path) as run:
        made = driver.make(tmp_path / "none", run=run)
        for each in (copy.deepcopy(made), copy.copy(made)):
            driver.begin(each)
            driver.log(each, 0.25)
            driver.end(each)
    assert losses(tmp_path) == [[0.25, 0.25]]
    report = run.finish()
    law(report, report.offered)


def test_a_forked_child_writes_nothing_to_the_run_of_its_parent(driver, tmp_path):
    made = driver.make(tmp_path)
    driver.begin(made)
    driver.log(made, 0.5)

    def work():
        driver.log(made, 0.25)
        return made._session.run.collector.stats().stats["rejected"]["forked"]

    assert forked(work) == 1
    driver.end(made)
    assert losses(tmp_path) == [[0.5]]


def test_a_training_in_a_forked_child_is_a_run_of_its_own(driver, tmp_path, monkeypatch):
    made = driver.make(tmp_path)
    driver.begin(made)
    driver.log(made, 0.5)
    parent = made._session.run

    def work():
        # Lightning has no hook where a training begins. Its children are joined.
        monkeypatch.setitem(sys.modules, "torch.distributed", joined(rank=0))
        driver.train(made, 0.25)
        return str(made._session.run.folder)

    child = forked(work)
    assert child != str(parent.folder)
    driver.end(made)
    assert sorted(losses(tmp_path)) == [[0.25], [0.5]]
    assert [info.status for info in forebay.runs(tmp_path)] == ["finished", "finished"]


def test_a_forked_child_does_not_go_on_with_a_run_that_its_parent_ended(driver, tmp_path):
    made = driver.make(tmp_path)
    driver.train(made, 0.5)
    parent = made._session.run

    def work():
        driver.log_late(made, 0.25)
        driver.end(made)
        return str(made._session.run.folder)

    child = forked(work)
    assert child != str(parent.folder)
    assert sorted(losses(tmp_path)) == [[0.25], [0.5]]
    assert [(info.status, info.generation) for info in forebay.runs(tmp_path)] == [("finished", 1)] * 2
    law_of_run(parent, 3)


# A run that cannot begin.


@pytest.fixture
def blocked(tmp_path):
    """A folder that cannot be made, until the file in its place is gone."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "runs"


# Lightning has no hook for loggers where a training begins.
@pytest.mark.parametrize("driver", [name for name in ADAPTERS if name != "lightning"], indirect=True)
def test_where_a_training_begins_the_run_says_loudly_that_it_cannot(driver, blocked):
    made = driver.make(blocked)
    with pytest.raises(OSError, match="file"):
        driver.begin(made)
    # What the library calls nevertheless ends nothing.
    driver.log(made, 0.5)
    driver.end(made)
    blocked.parent.unlink()
    driver.train(made, 0.25)
    assert losses(blocked) == [[0.25]]


def test_a_run_that_begins_late_and_cannot_is_told_of_once(driver, blocked, caplog):
    made = driver.make(blocked)
    with caplog.at_level(logging.WARNING, "forebay"):
        for _ in range(3):
            driver.log_late(made, 0.5)
        driver.end(made)
    (record,) = caplog.records
    assert "the training is not logged" in record.getMessage() and str(blocked.parent) in record.getMessage()
    # A second training begins anew.
    blocked.parent.unlink()
    driver.log_late(made, 0.25)
    driver.end(made)
    assert losses(blocked) == [[0.25]]


def test_a_checkpoint_and_an_experiment_of_a_run_that_cannot_begin_end_no_training(blocked, monkeypatch, caplog):
    module, _ = stand_in("lightning", monkeypatch)
    logger = module.ForebayLogger(blocked)
    logger.log_hyperparams({"lr": 0.1})
    logger.log_graph(SimpleNamespace(example_input_array=[1.0]))
    logger.experiment.log({"x": 1.0}, step=0)
    logger.experiment.event("x")
    with logger.experiment.timer("x"):
        pass
    assert logger.experiment.flush() is True
    logger.after_save_checkpoint(SimpleNamespace(best_model_path="x"))
    logger.log_metrics({"loss": 0.5}, "no step")
    logger.save()
    logger.finalize("failed")
    assert len([record for record in caplog.records if "the training is not logged" in record.getMessage()]) == 1


def test_a_file_without_a_run_in_the_folder_is_gone_on_with(monkeypatch, tmp_path):
    """A process that was killed before its run began has left it."""
    module, _ = stand_in("lightning", monkeypatch)
    (tmp_path / "version_0").mkdir()
    (tmp_path / "version_0" / "events.jsonl").write_text("")
    logger = module.ForebayLogger(tmp_path, version=0)
    logger.log_metrics({"loss": 0.5}, 0)
    logger.finalize("success")
    assert losses(tmp_path) == [[0.5]]


def test_wrong_settings_are_refused_where_the_adapter_is_made(driver, tmp_path):
    with pytest.raises(ValueError, match="unknown key capacities in the given settings"):
        driver.make(tmp_path, capacities=5)
    with pytest.raises(ValueError, match="invalid capacity: 0"):
        driver.make(tmp_path, capacity=0)
    with pytest.raises(TypeError, match="sinks must be of forebay.sinks"):
        driver.make(tmp_path, sinks=["events.jsonl"])
    with pytest.raises(ValueError, match="must be on a local file system, got 's3://bucket/runs'"):
        driver.make("s3://bucket/runs")
    assert list(tmp_path.iterdir()) == []


class Refusing:
    """Settings that cannot be read."""

    def __getattr__(self, name):
        if name in ("to_dict", "get_config", "count_params"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self):
        raise RuntimeError("not now")

    __str__ = _refuse


def test_settings_that_cannot_be_read_end_no_training(driver, tmp_path):
    made = driver.make(tmp_path)
    match driver.name:
        case "transformers":
            args = SimpleNamespace(output_dir=str(tmp_path), to_dict=Refusing().to_dict)
            model = SimpleNamespace(config=Refusing())
            made.on_train_begin(args, driver.library.TrainerState(), None, model=model)
        case "keras":
            made.set_model(SimpleNamespace(optimizer=Refusing(), loss=Refusing(), built=True, count_params=Refusing().count_params))
            made.on_train_begin()
        case "accelerate":
            made.store_init_configuration({"x": Refusing()})
        case "lightning":
            made.log_hyperparams({"x": Refusing()})
    driver.log(made, 0.5)
    driver.end(made)
    assert losses(tmp_path) == [[0.5]]


# Ranks.


def joined(rank, size=2):
    """PyTorch, once it has joined processes."""
    made = types.ModuleType("torch.distributed")
    vars(made).update(
        is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: rank, get_world_size=lambda: size
    )  # fmt: skip
    return made


@pytest.fixture
def alone(monkeypatch):
    """The environment of a process that nobody has joined with others."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TF_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("torch.distributed", "torch.utils.data"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return monkeypatch


def tf_config(kind, index, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


TWO = ["a:1", "b:1"]

PLACES = [
    ({}, True),
    ({"RANK": "0", "WORLD_SIZE": "2"}, True),
    ({"RANK": "1", "WORLD_SIZE": "2"}, False),
    ({"RANK": "1"}, False),
    ({"RANK": ""}, True),
    # A word of somebody else's.
    ({"RANK": "major"}, True),
    ({"RANK": "major", "LOCAL_RANK": "1"}, False),
    # What Lightning sets in the first process.
    ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, True),
    ({"WORLD_SIZE": "2"}, True),
    (tf_config("worker", 0, worker=TWO), True),
    (tf_config("worker", 1, worker=TWO), False),
    (tf_config("worker", "1", worker=TWO), False),
    (tf_config("chief", 0, chief=["a:1"], worker=TWO), True),
    (tf_config("worker", 0, chief=["a:1"], worker=TWO), False),
    (tf_config("ps", 0, worker=TWO, ps=["c:1"]), False),
    (tf_config("evaluator", 0, worker=TWO), False),
    # A type that nobody knows says nothing.
    (tf_config("client", 0, worker=TWO), True),
    ({"RANK": "1", **tf_config("client", 0, worker=TWO)}, False),
    ({"TF_CONFIG": "{}"}, True),
    ({"TF_CONFIG": "no JSON"}, True),
    ({"TF_CONFIG": "[]"}, True),
    ({"TF_CONFIG": '{"cluster": 1, "task": null}'}, True),
]


@pytest.mark.parametrize(("variables", "is_first"), PLACES, ids=[json.dumps(variables) for variables, _ in PLACES])
def test_the_first_process_alone_logs_as_the_environment_tells(variables, is_first, alone, tmp_path):
    driver = Driver("keras", *stand_in("keras", alone))
    for name, value in variables.items():
        alone.setenv(name, value)
    driver.train(driver.make(tmp_path), 0.5)
    assert losses(tmp_path) == [[0.5]] * is_first


@pytest.mark.parametrize("name", ADAPTERS)
@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_logs_as_pytorch_tells(name, rank, alone, tmp_path):
    driver = Driver(name, *stand_in(name, alone))
    alone.setitem(sys.modules, "torch.distributed", joined(rank, size=3))
    # Left of somebody else.
    alone.setenv("RANK", "1")
    made = driver.make(tmp_path)
    driver.train(made, 0.5)
    if rank:
        assert losses(tmp_path) == []
        return
    assert losses(tmp_path) == [[0.5]]
    started = next(line for line in lines(made._session.run.folder) if line["name"] == "training.started")
    assert (started["fields"]["rank"], started["fields"]["world_size"]) == (0, 3)


@pytest.mark.parametrize("index", [0, 1])
def test_the_first_process_alone_logs_as_jax_tells(index, alone, tmp_path):
    driver = Driver("keras", *stand_in("keras", alone))
    jax = types.ModuleType("jax")
    jax.process_index, jax.process_count = lambda: index, lambda: 2
    jax.distributed = SimpleNamespace(is_initialized=lambda: True)
    alone.setitem(sys.modules, "jax", jax)
    driver.train(driver.make(tmp_path), 0.5)
    assert losses(tmp_path) == [[0.5]] * (index == 0)


def test_a_word_of_one_that_is_broken_counts_as_none(alone, tmp_path):
    driver = Driver("keras", *stand_in("keras", alone))
    alone.setitem(sys.modules, "torch.distributed", types.ModuleType("torch.distributed"))
    alone.setitem(sys.modules, "torch.utils.data", types.ModuleType("torch.utils.data"))
    driver.train(driver.make(tmp_path), 0.5)
    assert losses(tmp_path) == [[0.5]]


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_worker_of_a_data_loader_begins_no_run(name, alone, tmp_path):
    driver = Driver(name, *stand_in(name, alone))
    data = types.ModuleType("torch.utils.data")
    data.get_worker_info = lambda: SimpleNamespace(id=0)
    alone.setitem(sys.modules, "torch.utils.data", data)
    before = forebay._run._ignored
    made = driver.make(tmp_path)
    driver.train(made, 0.5)
    assert losses(tmp_path) == []
    assert forebay._run._ignored > before


# Versions of Lightning.


def test_two_trainings_that_begin_at_once_have_a_version_each(monkeypatch, tmp_path):
    module, _ = stand_in("lightning", monkeypatch)
    first, second = (module.ForebayLogger(tmp_path, name="x") for _ in range(2))
    assert (first.version, second.version) == (0, 1)
    for logger, loss in ((first, 0.5), (second, 0.25)):
        logger.log_metrics({"loss": loss}, 0)
    for logger in (first, second):
        logger.finalize("success")
        law_of_run(logger._session.run, 3)
    assert losses(tmp_path / "x") == [[0.5], [0.25]]


def test_many_threads_get_a_version_each(monkeypatch, tmp_path):
    module, _ = stand_in("lightning", monkeypatch)
    barrier, found = threading.Barrier(8), []

    def claim():
        logger = module.ForebayLogger(tmp_path)
        barrier.wait(WATCHDOG)
        found.append(logger.version)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WATCHDOG)
    assert sorted(found) == list(range(8))


def test_a_file_in_the_place_of_a_version_is_passed_over(monkeypatch, tmp_path):
    module, _ = stand_in("lightning", monkeypatch)
    (tmp_path / "version_0").write_text("")
    assert module.ForebayLogger(tmp_path).version == 1


def test_a_process_that_is_not_the_first_makes_no_folder_for_its_version(monkeypatch, tmp_path):
    module, _ = stand_in("lightning", monkeypatch)
    monkeypatch.setattr(module.rank_zero_only, "rank", 1, raising=False)
    assert module.ForebayLogger(tmp_path).version == 0
    assert list(tmp_path.iterdir()) == []


def test_a_copy_keeps_the_version_unless_its_run_goes_on(monkeypatch, tmp_path):
    module, _ = stand_in("lightning", monkeypatch)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    logger = module.ForebayLogger(tmp_path)
    assert logger.version == 0
    assert pickle.loads(pickle.dumps(logger)).version == 0
    logger.log_metrics({"loss": 0.5}, 0)
    assert pickle.loads(pickle.dumps(logger)).version == 1
    logger.finalize("success")
    # What comes after the training, in another process: a test.
    other = pickle.loads(pickle.dumps(logger))
    other.log_metrics({"loss": 0.25}, 0)
    other.finalize("success")
    assert other.version == 0
    assert losses(tmp_path) == [[0.5, 0.25]]
