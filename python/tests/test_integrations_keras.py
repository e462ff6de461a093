"""`forebay.integrations.keras`, with Keras on the backend of JAX; without it, against a stand-in of its documented interface."""

import importlib.util
import os
import pickle

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import pytest
from stand_ins import adapter
from support import law_of_run, values

import forebay


def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    return x, (x.sum(1, keepdims=True) > 0).astype("float32")


def model_of(keras):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1, "sigmoid")], name="tiny")
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture
def keras():
    return pytest.importorskip("keras")


def test_keras_trains_and_evaluates_into_one_run(keras, tmp_path):
    from forebay.integrations.keras import ForebayCallback

    callback = ForebayCallback(tmp_path, update_freq=2)
    model, (x, y) = model_of(keras), data()
    history = model.fit(x, y, batch_size=16, epochs=3, validation_data=(x, y), callbacks=[callback], verbose=0).history
    # 3 epochs of 5 values, 6 of 12 batches of 2 values, begin and end.
    law_of_run(callback.run, 3 * 5 + 6 * 2 + 2)
    records = forebay.read(callback.run.folder)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert records.scalars(f"epoch.{name}") == ([0, 1, 2], history[name])
    assert records.scalars("epoch.learning_rate")[1] == pytest.approx([0.01] * 3)
    assert records.scalars("batch.loss")[0] == [0, 2, 4, 6, 8, 10]
    by_name = {record.name: record.value for record in records}
    config = by_name["training.started"]["config"]
    assert (config["epochs"], config["optimizer"]["class"], config["loss"]) == (3, "Adam", "binary_crossentropy")
    assert config["parameters"] == 4 * 8 + 8 + 8 + 1
    assert by_name["training.completed"]["final_metrics"] == {name: history[name][-1] for name in history}
    assert sum(value.tag == "epoch/loss" for value in values(callback.run.folder)) == 3

    measured = model.evaluate(x, y, callbacks=[callback], verbose=0, return_dict=True)
    assert records.scalars("evaluation.loss") == ([2], [measured["loss"]])
    assert records.scalars("epoch.loss")[0] == [0, 1, 2]
    found = forebay.runs(tmp_path)
    assert [(run.name, run.generation, run.status) for run in found] == [("tiny", 1, "finished"), ("tiny", 2, "finished")]
    assert len({run.run_id for run in found}) == 1


def test_a_second_fit_is_a_run_of_its_own_and_an_error_a_failure(keras, tmp_path):
    from forebay.integrations.keras import ForebayCallback

    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise ValueError("no data")

    callback = ForebayCallback(tmp_path)
    model, (x, y) = model_of(keras), data()
    with pytest.raises(ValueError, match="no data"):
        model.fit(x, y, epochs=2, callbacks=[callback, Fails()], verbose=0)
    model.fit(x, y, epochs=1, callbacks=[callback], verbose=0)
    assert [run.status for run in forebay.runs(tmp_path)] == ["failed", "finished"]


def test_a_run_that_was_given_goes_on(keras, tmp_path):
    from forebay.integrations.keras import ForebayCallback

    model, (x, y) = model_of(keras), data()
    with forebay.init(tmp_path) as run:
        model.fit(x, y, epochs=1, callbacks=[ForebayCallback(run=run)], verbose=0)
        run.log({"after": 1}, step=0)
    names = [record.name for record in forebay.read(run.folder)]
    assert [name for name in names if name != "training.heartbeat"] == [
        "training.started", "training.configured", "epoch.accuracy", "epoch.loss", "epoch.learning_rate", "after", "training.completed",
    ]  # fmt: skip


def test_a_copy_of_a_callback_trains_into_a_run_of_its_own(keras, tmp_path):
    from forebay.integrations.keras import ForebayCallback

    callback = ForebayCallback(tmp_path, name="mine")
    model, (x, y) = model_of(keras), data()
    model.fit(x, y, epochs=1, callbacks=[callback], verbose=0)
    other = pickle.loads(pickle.dumps(callback))
    assert other.run is None and other.model is None
    model.fit(x, y, epochs=1, callbacks=[other], verbose=0)
    assert [(run.name, run.status, run.generation) for run in forebay.runs(tmp_path)] == [("mine", "finished", 1)] * 2
    law_of_run(other.run, 3 + 2)


def test_the_contract_of_a_callback_is_kept(tmp_path, monkeypatch):
    """The calls that the documentation of Keras names, made by hand."""
    module, _ = adapter("keras", monkeypatch)

    class Model:
        name = "by_hand"

    callback = module.ForebayCallback(tmp_path, update_freq="batch")
    callback.set_params({"epochs": 2, "steps": 1, "verbose": 0})
    callback.set_model(Model())
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_train_batch_end(0, {"loss": 0.5})
        callback.on_test_end({"loss": 0.75})
        callback.on_epoch_end(epoch, {"loss": 0.5, "val_loss": np.float32(0.75)})
    callback.on_train_end({"loss": 0.5})
    law_of_run(callback.run, 2 * 3 + 2)
    records = forebay.read(callback.run.folder)
    assert records.scalars("epoch.val_loss") == ([0, 1], [0.75, 0.75])
    assert records.scalars("batch.loss") == ([0, 1], [0.5, 0.5])
    for wrong in (0, -1, "never", True, 2.5):
        with pytest.raises(ValueError, match="update_freq must be"):
            module.ForebayCallback(tmp_path, update_freq=wrong)


def test_keras_is_real_where_it_is_installed():
    if importlib.util.find_spec("keras") is None:
        pytest.skip("could not import 'keras': only its stand-in was used")
    import keras

    assert keras.backend.backend() == "jax"
