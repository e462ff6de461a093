"""What tensorboardX's writer has beyond PyTorch's."""

import inspect
import json
import math
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest
from support import all_events, events, forked, handling, values
from tensorboard.compat.proto import event_pb2, graph_pb2, summary_pb2

import forebay.tensorboard
from forebay import SummaryWriter, _export, _global_writer
from forebay.tensorboard import FileWriter, GlobalSummaryWriter

#: The public methods of tensorboardX 2.6.5 and their parameters, written down from its source.
SIGNATURES = {
    SummaryWriter: {
        "__init__": "logdir=None, comment='', purge_step=None, max_queue=10, flush_secs=120, filename_suffix='', write_to_disk=True, "
        "log_dir=None, comet_config={'disabled': True}, **kwargs",
        "add_hparams": "hparam_dict, metric_dict, name=None, global_step=None",
        "add_scalar": "tag, scalar_value, global_step=None, walltime=None, display_name='', summary_description=''",
        "add_scalars": "main_tag, tag_scalar_dict, global_step=None, walltime=None",
        "export_scalars_to_json": "path",
        "add_histogram": "tag, values, global_step=None, bins='tensorflow', walltime=None, max_bins=None",
        "add_histogram_raw": "tag, min, max, num, sum, sum_squares, bucket_limits, bucket_counts, global_step=None, walltime=None",
        "add_image": "tag, img_tensor, global_step=None, walltime=None, dataformats='CHW'",
        "add_images": "tag, img_tensor, global_step=None, walltime=None, dataformats='NCHW'",
        "add_image_with_boxes": "tag, img_tensor, box_tensor, global_step=None, walltime=None, dataformats='CHW', labels=None, **kwargs",
        "add_figure": "tag, figure, global_step=None, close=True, walltime=None",
        "add_video": "tag, vid_tensor, global_step=None, fps=4, walltime=None, dataformats='NTCHW'",
        "add_audio": "tag, snd_tensor, global_step=None, sample_rate=44100, walltime=None",
        "add_text": "tag, text_string, global_step=None, walltime=None",
        "add_onnx_graph": "onnx_model_file",
        "add_openvino_graph": "xmlname",
        "add_graph": "model, input_to_model=None, verbose=False, use_strict_trace=True",
        "add_embedding": "mat, metadata=None, label_img=None, global_step=None, tag='default', metadata_header=None",
        "add_pr_curve": "tag, labels, predictions, global_step=None, num_thresholds=127, weights=None, walltime=None",
        "add_pr_curve_raw": "tag, true_positive_counts, false_positive_counts, true_negative_counts, false_negative_counts, precision, recall, "
        "global_step=None, num_thresholds=127, weights=None, walltime=None",
        "add_custom_scalars_multilinechart": "tags, category='default', title='untitled'",
        "add_custom_scalars_marginchart": "tags, category='default', title='untitled'",
        "add_custom_scalars": "layout",
        "add_mesh": "tag, vertices, colors=None, faces=None, config_dict=None, global_step=None, walltime=None",
        "flush": "",
        "close": "",
        "use_metadata": "*, global_step=None, walltime=None",
    },
    FileWriter: {
        "get_logdir": "",
        "add_event": "event, step=None, walltime=None",
        "add_summary": "summary, global_step=None, walltime=None",
        "add_graph": "graph_profile, walltime=None",
        "add_onnx_graph": "graph, walltime=None",
        "add_openvino_graph": "graph, walltime=None",
        "flush": "",
        "close": "",
        "reopen": "",
        "use_metadata": "*, global_step=None, walltime=None",
    },
    GlobalSummaryWriter: {
        "__init__": "logdir=None, comment='', purge_step=None, max_queue=10, flush_secs=120, filename_suffix='', write_to_disk=True, "
        "log_dir=None, coalesce_process=True, **kwargs",
        "add_scalar": "tag, scalar_value, walltime=None",
        "add_image": "tag, img_tensor, walltime=None, dataformats='CHW'",
        "add_text": "tag, text_string, walltime=None",
        "getSummaryWriter": "",
        "close": "",
    },
}  # fmt: skip

#: What PyTorch's writer has at the same place: here, tensorboardX's is given by name.
BY_NAME = {
    "SummaryWriter.__init__": {"log_dir", "comet_config"},
    "SummaryWriter.add_scalar": {"display_name", "summary_description"},
    "SummaryWriter.add_hparams": {"name", "global_step"},
    "SummaryWriter.add_image_with_boxes": {"dataformats", "labels"},
}

#: Parameters at the same place that have PyTorch's name.
RENAMED = {"SummaryWriter.__init__": {"logdir": "log_dir"}, "SummaryWriter.add_onnx_graph": {"onnx_model_file": "prototxt"}}


def parameters_of(method):
    found = inspect.signature(method).parameters.values()
    return [each for each in found if each.name != "self" and each.kind is not each.VAR_KEYWORD]


METHODS = [(kind, name) for kind, methods in SIGNATURES.items() for name in methods]


@pytest.mark.parametrize(("kind", "name"), METHODS, ids=[f"{kind.__name__}.{name}" for kind, name in METHODS])
def test_a_method_has_the_parameters_of_tensorboardx(kind, name):
    wanted = parameters_of(eval(f"lambda {SIGNATURES[kind][name]}: None"))
    own = parameters_of(getattr(kind, name))
    places = {each.name: place for place, each in enumerate(own)}
    for place, each in enumerate(wanted):
        key = f"{kind.__name__}.{name}"
        there = RENAMED.get(key, {}).get(each.name, each.name)
        assert there in places, each
        found = own[places[there]]
        assert found.default == each.default or each.name == "comet_config", each
        if each.name not in BY_NAME.get(key, ()):
            assert found.kind == each.kind, each
            assert places[there] == place or each.kind is each.KEYWORD_ONLY, each


def test_the_table_is_that_of_tensorboardx():
    theirs = pytest.importorskip("tensorboardX")
    if not theirs.__version__.startswith("2.6.5"):
        pytest.skip("another version")
    for kind, methods in SIGNATURES.items():
        there = getattr(theirs, kind.__name__)
        public = {name for name, value in vars(there).items() if callable(getattr(there, name)) and not name.startswith("_")}
        if kind is GlobalSummaryWriter:
            public.discard("file_writer")
        assert public == {name for name in methods if not name.startswith("_")}
        for name, signature in methods.items():
            shown = [(each.name, each.default) for each in parameters_of(getattr(there, name))]
            assert shown == [(each.name, each.default) for each in parameters_of(eval(f"lambda {signature}: None"))], name


def exported(writer, path):
    writer.export_scalars_to_json(path)
    return json.loads(path.read_text())


def test_scalars_are_exported_by_tag_once_each(tmp_path):
    file, folder = tmp_path / "scalars.json", tmp_path / "run"
    with SummaryWriter(folder) as writer:
        writer.add_scalar("loss", 0.5, 1, 10.25)
        writer.add_scalar("loss", 0.25, -2, 11.0)
        writer.add_scalar("new", 1.5, 3, 12.0, new_style=True)
        writer.add_scalar("double", 0.1, 4, 13.0, new_style=True, double_precision=True)
        writer.add_scalar("shown", 2.0, 5, 14.0, display_name="Shown", summary_description="scalars")
        writer.add_scalars("a/b", {"k": 3.0, "l": 4.0}, 2**40, 15.0)
        writer.add_histogram("h", np.ones(4))
        writer.add_tensor("one", np.ones(()))
        writer.add_text("t", "text")
        writer.add_image("large", np.random.default_rng(0).integers(0, 255, (3, 700, 700), np.uint8))
        writer.add_scalar("last", 6.0, 6, 16.0)
        at_once = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=7) for tag in "pq"])
        writer._get_file_writer().add_summary(at_once, 7, 17.0)
        assert exported(writer, file) == {
            "loss": [[10.25, 1, 0.5], [11.0, -2, 0.25]],
            "new": [[12.0, 3, 1.5]],
            "double": [[13.0, 4, 0.1]],
            "shown": [[14.0, 5, 2.0]],
            "last": [[16.0, 6, 6.0]],
            "p": [[17.0, 7, 7.0]],
            "q": [[17.0, 7, 7.0]],
            f"{folder}/a/b/k": [[15.0, 2**40, 3.0]],
            f"{folder}/a/b/l": [[15.0, 2**40, 4.0]],
        }
        assert exported(writer, file) == {}
        writer.add_scalar("loss", math.nan, 3, 18.0)
        writer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, run_name="trial", global_step=1)
        both = exported(writer, file)
    assert np.isnan(both["loss"][0][2])
    assert [point[1:] for point in both[f"{folder}/trial/accuracy"]] == [[1, 0.5]]


def test_what_was_closed_is_exported_and_what_others_wrote_is_not(tmp_path):
    file, folder = tmp_path / "scalars.json", tmp_path / "run"
    folder.mkdir()
    stranger = forked(lambda: SummaryWriter(folder, filename_suffix=".other").add_scalar("stranger", 1.0))
    assert stranger is None
    writer = SummaryWriter(folder)
    writer.add_scalar("x", 1.0, 1, 1.0)
    writer.close()
    writer.add_scalar("x", 2.0, 2, 2.0)
    writer.close()
    assert exported(writer, file) == {"x": [[1.0, 1, 1.0], [2.0, 2, 2.0]]}
    assert not writer._is_open
    assert exported(SummaryWriter(folder, write_to_disk=False), file) == {}


def test_writers_of_one_folder_export_what_each_has_added(tmp_path):
    file, folder, link = tmp_path / "scalars.json", tmp_path / "run", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    with SummaryWriter(folder) as one, SummaryWriter(link) as two:
        for value in (1.0, 2.0):
            for writer, tag in ((one, "one"), (two, "two")):
                writer.add_scalar(tag, value, 0, 0.0)
                writer.add_scalars("both", {tag: value}, 0, 0.0)
                # Both have sub-runs of the same name.
                writer.add_scalars("both", {"shared": value + (writer is two) / 2}, 0, 0.0)
                # It goes on in a new file.
                writer.close()
        for writer, tag, more in ((one, "one", 0.0), (two, "two", 0.5)):
            path = folder if writer is one else link
            assert exported(writer, file) == {
                tag: [[0.0, 0, 1.0], [0.0, 0, 2.0]],
                f"{path}/both/{tag}": [[0.0, 0, 1.0], [0.0, 0, 2.0]],
                f"{path}/both/shared": [[0.0, 0, 1.0 + more], [0.0, 0, 2.0 + more]],
            }
        later = SummaryWriter(folder)
        assert exported(later, file) == {}
        later.close()


def test_a_child_exports_its_own_files(tmp_path):
    file = tmp_path / "scalars.json"
    with SummaryWriter(tmp_path / "run", in_child="reopen") as writer:
        writer.add_scalar("parents", 1.0, 1, 1.0)
        writer.flush()

        def in_child():
            writer.add_scalar("own", 2.0, 2, 2.0)
            assert exported(writer, file) == {"own": [[2.0, 2, 2.0]]}
            writer.close()

        assert forked(in_child) is None
        assert exported(writer, file) == {"parents": [[1.0, 1, 1.0]]}


def test_an_export_keeps_few_points_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_export, "MAX_POINTS", 7)
    kept = []
    put = _export._put

    def counted(spool, rows, last):
        kept.append(sum(map(len, rows.values())) // 24)
        put(spool, rows, last)

    monkeypatch.setattr(_export, "_put", counted)
    with SummaryWriter(tmp_path / "run") as writer:
        for step in range(100):
            writer.add_scalar(f"x{step % 3}", step, step, float(step))
        found = exported(writer, tmp_path / "scalars.json")
    assert found == {f"x{kind}": [[float(step), step, float(step)] for step in range(kind, 100, 3)] for kind in range(3)}
    assert max(kept) == 7 and sum(kept) == 100


def test_an_export_that_fails_forgets_nothing(tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        writer.add_scalar("x", 1.0, 1, 1.0)
        with pytest.raises(OSError, match="none"):
            writer.export_scalars_to_json(tmp_path / "none" / "scalars.json")
        assert exported(writer, tmp_path / "scalars.json") == {"x": [[1.0, 1, 1.0]]}


def test_an_event_that_is_half_written_is_left_for_the_next_export(tmp_path):
    with SummaryWriter(tmp_path / "run") as writer:
        writer.add_scalar("x", 1.0, 1, 1.0)
    (file,) = (tmp_path / "run").iterdir()
    whole = file.read_bytes()
    for cut in range(1, 20):
        file.write_bytes(whole[:-cut])
        assert exported(writer, tmp_path / "scalars.json") == {}
    file.write_bytes(whole)
    assert exported(writer, tmp_path / "scalars.json") == {"x": [[1.0, 1, 1.0]]}


def test_a_scalar_has_a_title_and_a_description(tmp_path):
    long = "d" * 300
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("x", 0.5, 1, display_name="The x", summary_description=long)
        writer.add_scalar("y", 0.5, 1, new_style=True, display_name="The y")
        writer.add_scalar("z", 0.1, 1, new_style=True, double_precision=True, summary_description="of z")
        with pytest.raises(TypeError):
            writer.add_scalar("x", 0.5, 1, None, False, False, "The x")
    x, y, z = values(tmp_path)
    assert (x.simple_value, x.metadata.display_name, x.metadata.summary_description) == (0.5, "The x", long)
    assert (y.metadata.display_name, y.metadata.plugin_data.plugin_name, list(y.tensor.float_val)) == ("The y", "scalars", [0.5])
    assert (z.metadata.summary_description, z.metadata.plugin_data.plugin_name, list(z.tensor.double_val)) == ("of z", "scalars", [0.1])


def test_what_is_added_within_use_metadata_has_its_step_and_its_moment(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        with writer.use_metadata(global_step=np.int64(7), walltime=5.5) as inner:
            assert inner is writer
            writer.add_scalar("all", 1.0)
            writer.add_scalar("own", 1.0, 8)
            writer.add_text("t", "text", walltime=6.5)
            writer.add_scalars("m", {"k": 1.0})
            writer.add_hparams({"lr": 0.1}, {"loss": 1.0}, run_name="trial")
            writer.add_embedding([[1.0, 2.0]])
            with pytest.raises(AssertionError, match="already set"), writer.use_metadata(global_step=1):
                pass
        with pytest.raises(AssertionError, match="At least one"), writer.use_metadata():
            pass
        with pytest.raises(ZeroDivisionError), writer.use_metadata(walltime=9.0):
            writer.add_scalar("moment", 1.0)
            raise ZeroDivisionError
        files = writer._get_file_writer()
        with files.use_metadata(global_step=3) as inner:
            assert inner is files
            inner.add_event(event_pb2.Event(summary=summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="event")])))
            inner.add_event(event_pb2.Event(step=4, summary=summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="event")])))
        writer.add_scalar("after", 1.0)
    found = [(event.summary.value[0].tag, event.step, event.wall_time) for event in events(tmp_path)]
    assert found[:4] == [("all", 7, 5.5), ("own", 8, 5.5), ("t/text_summary", 7, 6.5), ("moment", 0, 9.0)]
    assert [each[:2] for each in found[4:]] == [("event", 3), ("event", 4), ("after", 0)]
    assert abs(found[-1][2] - time.time()) < 1000
    assert [(event.step, event.wall_time) for event in events(tmp_path / "m_k")] == [(7, 5.5)]
    assert {event.step for event in events(tmp_path / "trial")} == {7}
    assert (tmp_path / "00007" / "default").is_dir()


def test_use_metadata_counts_in_a_child_as_well(tmp_path):
    writer = SummaryWriter(tmp_path, in_child="reopen")
    with writer.use_metadata(global_step=7):
        assert forked(lambda: writer.add_scalar("x", 1.0) or writer.close()) is None
    writer.close()
    (folder,) = tmp_path.glob("pid_*")
    assert [event.step for event in events(folder)] == [7]


MODEL = """<net name="m" version="11"><layers>
<layer id="0" name="in" type="Parameter"/><layer id="1" name="weights" type="Const"/><layer id="2" name="mul" type="MatMul"/>
</layers><edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/><edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
</edges></net>"""


def test_a_graph_of_openvino_has_a_node_for_each_layer(tmp_path):
    model = tmp_path / "model.xml"
    model.write_text(MODEL)
    with SummaryWriter(tmp_path / "run") as writer:
        writer.add_openvino_graph(model)
        graph = graph_pb2.GraphDef()
        graph.node.add(name="n" * 200)
        writer._get_file_writer().add_openvino_graph(graph)
        for wrong in ("<net>", "<net/>", MODEL.replace('to-layer="2"', 'to-layer="9"'), MODEL.replace('name="in"', "")):
            model.write_text(wrong)
            with pytest.raises(ValueError, match="xmlname must be the XML file of a model of OpenVINO, got '.*model.xml': "):
                writer.add_openvino_graph(model)
        with pytest.raises(FileNotFoundError):
            writer.add_openvino_graph(tmp_path / "none.xml")
    graphs = [graph_pb2.GraphDef.FromString(event.graph_def) for event in all_events(tmp_path / "run") if event.graph_def]
    shown = [(node.name, node.op, list(node.input)) for node in graphs[0].node]
    assert shown == [("in", "Parameter", []), ("weights", "Const", []), ("mul", "MatMul", ["in", "weights"])]
    assert graphs[0].versions.producer == 22
    assert graphs[1].node[0].name == "n" * 200


def test_images_may_be_a_list_and_a_video_may_have_its_dimensions_in_any_order(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 3, 3, 8, 9), np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.add_images("i", list(pixels[0]), dataformats="CHW")
        writer.add_images("i", pixels[0])
        writer.add_video("v", pixels)
        writer.add_video("v", pixels.transpose(4, 1, 3, 0, 2), dataformats="WTHNC")
        with pytest.raises(AssertionError):
            writer.add_images("i", list(pixels[0]))
        for letters in ("NTCH", "NTCHX", "CHW"):
            with pytest.raises(ValueError, match=f"dataformats must have the letters NTCHW in any order, got '{letters}'"):
                writer.add_video("v", pixels, dataformats=letters)
    first, second, third, fourth = (value.image.encoded_image_string for value in values(tmp_path))
    assert first == second and third == fourth


@pytest.fixture
def no_global_writer(monkeypatch, tmp_path):
    monkeypatch.setattr(_global_writer, "_writer", None)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("no_global_writer")
def test_the_writer_of_the_process_counts_the_steps_of_each_tag(tmp_path):
    writer = GlobalSummaryWriter.getSummaryWriter()
    assert writer is forebay.tensorboard.GlobalSummaryWriter.getSummaryWriter()
    for _ in range(3):
        writer.add_scalar("x", 1.0)
    writer.add_text("x", "text", 5.5)
    writer.add_image("i", np.ones((2, 2, 3)), dataformats="HWC")
    writer.add_scalar("y", 1.0, walltime=6.5)
    assert writer.file_writer.get_logdir().startswith("runs/")
    writer.close()
    writer.add_scalar("x", 1.0)
    writer.close()
    (folder,) = (tmp_path / "runs").iterdir()
    found = [(value.tag, event.step) for event in events(folder) for value in event.summary.value]
    assert found == [("x", 0), ("x", 1), ("x", 2), ("x/text_summary", 0), ("i", 0), ("y", 0), ("x", 3)]


@pytest.mark.usefixtures("no_global_writer")
def test_threads_get_one_writer_and_each_step_once(tmp_path):
    barrier, made = threading.Barrier(4), []

    def work():
        barrier.wait()
        writer = GlobalSummaryWriter.getSummaryWriter()
        made.append(writer)
        for _ in range(250):
            writer.add_scalar("x", 1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, made))) == 1
    made[0].close()
    (folder,) = (tmp_path / "runs").iterdir()
    assert sorted(event.step for event in events(folder)) == list(range(1000))


@pytest.mark.usefixtures("no_global_writer")
def test_a_child_makes_a_writer_although_the_lock_was_held_at_the_fork():
    with _global_writer._making:
        assert forked(lambda: GlobalSummaryWriter.getSummaryWriter().close()) is None


def test_a_global_writer_takes_the_settings_of_a_writer(tmp_path):
    writer = GlobalSummaryWriter(str(tmp_path / "a"), filename_suffix=".mine", coalesce_process=False, in_child="reopen")
    writer.add_scalar("x", 1.0)
    child = forked(lambda: writer.add_scalar("x", 1.0) or writer.close() or os.getpid())
    writer.close()
    assert [event.step for event in events(tmp_path / "a")] == [0]
    assert [event.step for event in events(tmp_path / "a" / f"pid_{child}")] == [1]
    with pytest.raises(TypeError, match="unexpected"):
        GlobalSummaryWriter(tmp_path / "b", unknown=1)


def test_a_copy_of_a_global_writer_in_another_process_goes_on_from_its_steps(tmp_path):
    writer = GlobalSummaryWriter(str(tmp_path))
    writer.add_scalar("x", 1.0)
    copied = pickle.loads(pickle.dumps(writer))
    writer.close()
    assert copied._steps == {("scalar", "x"): 1}
    # Counters of `itertools` can be pickled up to Python 3.13 alone.
    assert b"itertools" not in pickle.dumps(writer)


def test_arguments_that_tensorboardx_takes_as_none_are_taken(tmp_path):
    with SummaryWriter(tmp_path / "a", comment=None) as writer:
        writer.add_scalar("x", 1.0, display_name=None, summary_description=None)
    assert len(events(tmp_path / "a")) == 1
    with SummaryWriter(tmp_path / "b", write_to_disk=None) as writer:
        writer.add_scalar("x", 1.0)
    assert writer.stats()["ignored"] == 1 and not (tmp_path / "b").exists()


@pytest.mark.usefixtures("no_global_writer")
def test_the_handler_of_a_signal_gets_the_writer_of_the_process_while_it_is_made(monkeypatch):
    made, got = [], []

    class Interrupted(SummaryWriter):
        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            made.append(self)
            if len(made) == 1:
                signal.raise_signal(signal.SIGUSR1)
                while not got:
                    time.sleep(0.001)

    monkeypatch.setattr(_global_writer, "SummaryWriter", Interrupted)
    with handling(lambda *_: got.append(GlobalSummaryWriter.getSummaryWriter())):
        writer = GlobalSummaryWriter.getSummaryWriter()
    assert writer is got[0] is GlobalSummaryWriter.getSummaryWriter()
    assert [each._is_open for each in made] == [False, True]
    writer.close()
