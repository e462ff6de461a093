//! TensorBoard's files, read back by a second implementation: prost, with the messages written here by hand. The real
//! TensorBoard reads them in `tests/interop`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support;
use forebay::event::catalog::{model, training};
use forebay::event::{Encoded, ImageFormat};
use forebay::run::{HEARTBEAT, TrainingRun};
use forebay::sink::{
    BackwardStep, EarlierPoints, MemorySink, MissingStep, Sink, SinkExt, Tags, TensorBoardSink,
};
use forebay::{Batch, Collector, Fields, Histogram, Image, Record, Value};
use proptest::prelude::*;
use prost::Message;
use tfevents::{EncodeError, Encoder, FieldValue, Fields as MessageFields, Summary};

#[allow(unreachable_pub, reason = "derived")]
mod proto {
    //! The parts of event.proto, summary.proto, tensor.proto and hparams' plugin_data.proto that are used.
    use std::collections::HashMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Event {
        #[prost(double, tag = "1")]
        pub wall_time: f64,
        #[prost(int64, tag = "2")]
        pub step: i64,
        #[prost(oneof = "What", tags = "3, 5, 7")]
        pub what: Option<What>,
        #[prost(message, optional, tag = "10")]
        pub source_metadata: Option<SourceMetadata>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum What {
        #[prost(string, tag = "3")]
        FileVersion(String),
        #[prost(message, tag = "5")]
        Summary(Summary),
        #[prost(message, tag = "7")]
        SessionLog(SessionLog),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SourceMetadata {
        #[prost(string, tag = "1")]
        pub writer: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionLog {
        #[prost(int32, tag = "1")]
        pub status: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        #[prost(message, repeated, tag = "1")]
        pub value: Vec<Value>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Value {
        #[prost(string, tag = "1")]
        pub tag: String,
        #[prost(message, optional, tag = "9")]
        pub metadata: Option<Metadata>,
        #[prost(oneof = "Shown", tags = "2, 8")]
        pub shown: Option<Shown>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Shown {
        #[prost(float, tag = "2")]
        SimpleValue(f32),
        #[prost(message, tag = "8")]
        Tensor(Tensor),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metadata {
        #[prost(message, optional, tag = "1")]
        pub plugin_data: Option<PluginData>,
        #[prost(int32, tag = "4")]
        pub data_class: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct PluginData {
        #[prost(string, tag = "1")]
        pub plugin_name: String,
        #[prost(bytes = "vec", tag = "2")]
        pub content: Vec<u8>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Tensor {
        #[prost(int32, tag = "1")]
        pub dtype: i32,
        #[prost(message, optional, tag = "2")]
        pub shape: Option<Shape>,
        #[prost(bytes = "vec", tag = "4")]
        pub tensor_content: Vec<u8>,
        #[prost(bytes = "vec", repeated, tag = "8")]
        pub string_val: Vec<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Shape {
        #[prost(message, repeated, tag = "2")]
        pub dim: Vec<Dim>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Dim {
        #[prost(int64, tag = "1")]
        pub size: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct HParams {
        #[prost(int32, tag = "1")]
        pub version: i32,
        #[prost(message, optional, tag = "3")]
        pub start: Option<SessionStart>,
        #[prost(message, optional, tag = "4")]
        pub end: Option<SessionEnd>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionStart {
        #[prost(map = "string, message", tag = "1")]
        pub hparams: HashMap<String, Setting>,
        #[prost(string, tag = "4")]
        pub group_name: String,
        #[prost(double, tag = "5")]
        pub start_time_secs: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SessionEnd {
        #[prost(int32, tag = "1")]
        pub status: i32,
        #[prost(double, tag = "2")]
        pub end_time_secs: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Setting {
        #[prost(oneof = "SettingKind", tags = "2, 3, 4")]
        pub kind: Option<SettingKind>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum SettingKind {
        #[prost(double, tag = "2")]
        Number(f64),
        #[prost(string, tag = "3")]
        Text(String),
        #[prost(bool, tag = "4")]
        Bool(bool),
    }
}

use proto::{Shown, What};

/// Computes a masked CRC-32C bit by bit, so that not the same code checks itself.
fn masked(data: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Reads a file to its end; every record must be whole.
#[track_caller]
fn decode(mut bytes: &[u8]) -> Vec<proto::Event> {
    let mut events = Vec::new();
    while !bytes.is_empty() {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().unwrap()), masked(&bytes[..8]));
        let payload = &bytes[12..12 + length];
        let checksum = &bytes[12 + length..16 + length];
        assert_eq!(u32::from_le_bytes(checksum.try_into().unwrap()), masked(payload));
        events.push(proto::Event::decode(payload).unwrap());
        bytes = &bytes[16 + length..];
    }
    events
}

/// Returns the files of a folder in the order of their names.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

/// Returns the events of one file behind its head, whose form is checked. Also the step at which its session starts.
#[track_caller]
pub(crate) fn read(path: &Path) -> (i64, Vec<proto::Event>) {
    let mut events = decode(&std::fs::read(path).unwrap());
    assert!(events.iter().all(|event| event.wall_time.is_finite()));
    assert_eq!(events[0].what, Some(What::FileVersion("brain.Event:2".to_owned())));
    assert!(events[0].source_metadata.as_ref().unwrap().writer.starts_with("forebay"));
    let first_step = events[1].step;
    assert_eq!(events[1].what, Some(What::SessionLog(proto::SessionLog { status: 1 })));
    (first_step, events.split_off(2))
}

/// Returns all values of a folder with their steps, in order.
#[track_caller]
fn values(folder: &Path) -> Vec<(i64, proto::Value)> {
    let events = files(folder).into_iter().flat_map(|path| read(&path).1);
    events
        .flat_map(|event| summary(event.what).value.into_iter().map(move |value| (event.step, value)))
        .collect()
}

#[track_caller]
fn summary(what: Option<What>) -> proto::Summary {
    match what {
        Some(What::Summary(summary)) => summary,
        other => panic!("{other:?}"),
    }
}

/// Returns the scalars of a folder, by tag.
#[track_caller]
pub(crate) fn scalars(folder: &Path) -> BTreeMap<String, Vec<(i64, f32)>> {
    let mut scalars = BTreeMap::<_, Vec<_>>::new();
    for (step, value) in values(folder) {
        if let Some(Shown::SimpleValue(number)) = value.shown {
            scalars.entry(value.tag).or_default().push((step, number));
        }
    }
    scalars
}

fn scalar(tag: &str, step: u64, value: f64) -> Record {
    Record::scalar(tag.to_owned(), value).with_step(step)
}

#[test]
fn scalars_of_one_step_share_an_event_and_all_numbers_are_scalars() {
    let folder = tempfile::tempdir().unwrap();
    let collector =
        Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
    for step in 0..3 {
        collector.collect(scalar("train.loss", step, 0.1 * step as f64));
        collector.collect(Record::integer("train.batch", 7).with_step(step));
        collector.collect(Record::boolean("train.is_best", step == 1).with_step(step));
    }
    collector.collect(scalar("train.loss", 3, f64::NAN));
    collector.collect(scalar("train.loss", 4, f64::INFINITY));
    collector.stop().unwrap();
    support::law(&collector, 11);
    let (first_step, events) = read(&files(folder.path())[0]);
    assert_eq!(first_step, 0);
    assert_eq!(events.iter().map(|event| event.step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(summary(events[1].what.clone()).value.len(), 3);
    let scalars = scalars(folder.path());
    let loss = &scalars["train/loss"];
    assert_eq!(loss[1], (1, 0.1f64 as f32));
    assert!(loss[3].1.is_nan() && loss[4].1.is_infinite());
    assert_eq!(scalars["train/batch"], [(0, 7.0), (1, 7.0), (2, 7.0)]);
    assert_eq!(scalars["train/is_best"], [(0, 0.0), (1, 1.0), (2, 0.0)]);
}

#[test]
fn values_of_one_step_keep_times_that_are_far_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let at = |millis: u64| scalar("loss", 7, 1.0).with_unix_nanos(millis * 1_000_000);
    sink.write_batch(&Batch::from_events([1_000, 1_050, 3_000, 2_000].map(at).to_vec())).unwrap();
    let (_, events) = read(&files(folder.path())[0]);
    assert_eq!(events.iter().map(|event| event.wall_time).collect::<Vec<_>>(), [1.0, 3.0, 2.0]);
}

#[test]
fn text_histograms_images_and_fields_are_what_the_plugins_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let pixels = Image { width: 2, height: 1, format: ImageFormat::Rgb8, bytes: vec![255, 0, 0, 0, 0, 255] };
    let values_of = Histogram::from_values(&[0.0, 1.0, 2.0, 4.0, f64::NAN], 2);
    let metrics = Fields::from([("train.loss", Value::from(0.5)), ("note", Value::from("good"))]);
    let written = sink.write_batch(&Batch::from_events(vec![
        Record::text("notes.first", "**bold**").with_step(1),
        Record::histogram("weights", values_of).with_step(1),
        Record::image("picture", pixels).with_step(1),
        Record::fields("epoch", Fields::new().with("metrics", metrics).with("list", vec![1, 2])).with_step(1),
        Record::new("nothing to show").with_step(1),
        Record::text("notes.first", "again").with_step(2),
    ]));
    written.unwrap();
    let values = values(folder.path());
    let tags: Vec<&str> = values.iter().map(|(_, value)| &*value.tag).collect();
    let expected = [
        "notes/first",
        "weights",
        "weights/non_finite",
        "picture",
        "epoch/metrics/train/loss",
        "epoch/metrics/note",
        "notes/first",
    ];
    assert_eq!(tags, expected);
    let plugin = |at: usize| {
        let metadata = values[at].1.metadata.as_ref().unwrap();
        (metadata.plugin_data.as_ref().unwrap().plugin_name.as_str(), metadata.data_class)
    };
    let tensor = |at: usize| match values[at].1.shown.clone() {
        Some(Shown::Tensor(tensor)) => tensor,
        other => panic!("{other:?}"),
    };
    let shape = |at: usize| tensor(at).shape.unwrap().dim.iter().map(|dim| dim.size).collect::<Vec<_>>();
    assert_eq!((plugin(0), tensor(0).dtype, shape(0)), (("text", 2), 7, vec![]));
    assert_eq!(tensor(0).string_val, [b"**bold**"]);
    assert_eq!((plugin(1), tensor(1).dtype, shape(1)), (("histograms", 2), 2, vec![2, 3]));
    let doubles: Vec<f64> = tensor(1)
        .tensor_content
        .chunks(8)
        .map(|bytes| f64::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert_eq!(doubles, [0.0, 2.0, 2.0, 2.0, 4.0, 2.0]);
    assert_eq!(values[2].1.shown, Some(Shown::SimpleValue(1.0)));
    assert_eq!((plugin(3), tensor(3).dtype, shape(3)), (("images", 3), 7, vec![3]));
    assert_eq!(tensor(3).string_val[..2], [b"2", b"1"]);
    let png = png::Decoder::new(std::io::Cursor::new(tensor(3).string_val[2].clone()));
    let mut reader = png.read_info().unwrap();
    let mut decoded = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut decoded).unwrap();
    assert_eq!(decoded[..6], [255, 0, 0, 0, 0, 255]);
    assert_eq!(values[6].1.metadata, None, "metadata once a file and tag");
}

#[test]
fn the_life_of_a_run_is_a_row_of_the_table_of_hyper_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let config = Fields::new().with("rate", 0.1).with("layers", 3).with("name", "mlp").with("fast", true);
    let started = training::Started { run_id: "run 7".to_owned(), config, model_type: None };
    let failed = training::Failed { error: "NaN".to_owned(), traceback: None, epoch: None };
    sink.write_batch(&Batch::<Record>::from_events(vec![started.into(), failed.into()])).unwrap();
    let content = |tag: &str| {
        let (_, value) = values(folder.path()).into_iter().find(|(_, value)| value.tag == tag).unwrap();
        let data = value.metadata.unwrap().plugin_data.unwrap();
        assert_eq!(data.plugin_name, "hparams");
        proto::HParams::decode(&*data.content).unwrap()
    };
    let start = content("_hparams_/session_start_info").start.unwrap();
    assert_eq!(start.group_name, "", "a row of its own, whatever the run is called");
    assert!(start.start_time_secs > 1.7e9);
    let setting = |name: &str| start.hparams[name].kind.clone().unwrap();
    assert_eq!(setting("rate"), proto::SettingKind::Number(0.1));
    assert_eq!(setting("layers"), proto::SettingKind::Number(3.0));
    assert_eq!(setting("name"), proto::SettingKind::Text("mlp".to_owned()));
    assert_eq!(setting("fast"), proto::SettingKind::Bool(true));
    assert_eq!(content("_hparams_/session_end_info").end.unwrap().status, 2);
}

#[test]
fn a_training_run_shows_its_metrics_under_their_own_names_and_no_other_scalar() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::create(folder.path()).unwrap();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(sink).sink(memory.clone()).start().unwrap();
    let run = TrainingRun::builder()
        .config([("learning_rate", 0.1)])
        .model_type("mlp")
        .heartbeat(Duration::from_millis(1))
        .start(&collector)
        .unwrap();
    for number in 1..=2_u64 {
        let epoch = run.epoch(number, 2);
        for batch in 10 * number..10 * number + 3 {
            collector.collect(scalar("train.loss", batch, 0.5));
            run.batch_completed(batch, 0.25, [("accuracy", 0.75)]);
        }
        run.new_best_model(number, 0.125);
        let metrics = Fields::from([("val_loss", 0.5)]);
        let saved = model::CheckpointSaved {
            path: "best.bin".to_owned(),
            epoch: number,
            metrics: metrics.clone(),
            size_mb: Some(3.0),
        };
        collector.collect(saved);
        collector.collect(model::CheckpointLoaded { path: "best.bin".to_owned(), restored_epoch: number });
        // `loss` has the name of the batches' metric, and is delivered before theirs, which are of low priority.
        epoch.completed(metrics.with("loss", 2.0));
    }
    support::until("a heartbeat", || memory.events().iter().any(|record| record.name() == HEARTBEAT));
    run.completed([("val_accuracy", 0.97)]).unwrap();
    assert_eq!(collector.stop().unwrap().failed(), 0, "no step goes backward");
    let names: BTreeSet<String> = memory.events().iter().map(|record| record.name().to_owned()).collect();
    let reported =
        ["started", "epoch_started", "batch_completed", "new_best_model", "epoch_completed", "completed"];
    assert!(reported.iter().all(|reported| names.contains(&format!("training.{reported}"))), "{names:?}");

    let scalars = scalars(folder.path());
    let tags: Vec<&str> = scalars.keys().map(|tag| &**tag).collect();
    let expected = [
        "batch/accuracy",
        "batch/loss",
        "checkpoint/val_loss",
        "loss",
        "train/loss",
        "val_accuracy",
        "val_loss",
    ];
    assert_eq!(tags, expected);
    let steps = |tag: &str| scalars[tag].iter().map(|(step, _)| *step).collect::<Vec<_>>();
    assert_eq!(steps("batch/loss"), [10, 11, 12, 20, 21, 22]);
    assert_eq!(scalars["loss"], [(12, 2.0), (22, 2.0)]);
    assert_eq!(scalars["checkpoint/val_loss"], [(1, 0.5), (2, 0.5)], "at the number of its epoch");
    assert_eq!(scalars["val_loss"], [(12, 0.5), (22, 0.5)], "at the step of the loop");
    assert_eq!(scalars["val_accuracy"], [(22, 0.97)]);
    let settings: Vec<String> = settings(folder.path()).into_keys().collect();
    assert_eq!(settings, ["learning_rate", "model_type"]);
    let others = values(folder.path()).into_iter().map(|(_, value)| value.tag);
    let others: BTreeSet<String> = others.filter(|tag| !tags.contains(&&**tag)).collect();
    assert_eq!(Vec::from_iter(others), ["_hparams_/session_end_info", "_hparams_/session_start_info"]);
}

#[test]
fn epochs_are_the_steps_of_a_run_that_tells_none_and_the_reason_of_its_end_is_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let epoch = |epoch| training::EpochCompleted {
        epoch,
        metrics: [("val.loss", 1.0 / epoch as f64)].into(),
        ..Default::default()
    };
    let error = training::Failed {
        error: "the loss is NaN".to_owned(),
        traceback: Some("src/main.rs:7:5".to_owned()),
        epoch: Some(2),
    };
    // Made by hand, without `metrics`.
    let flat = Fields::new().with("epoch", 3).with("duration", 1.5).with("loss", 0.5);
    sink.write_batch(&Batch::from_events(vec![
        epoch(1).into(),
        epoch(2).into(),
        Record::fields(training::EpochCompleted::NAME, flat),
        training::EarlyStopped { epoch: 2, reason: "converged".to_owned() }.into(),
        training::Preempted { reason: "SIGTERM".to_owned(), epoch: Some(2) }.into(),
        error.into(),
    ]))
    .unwrap();
    let scalars = scalars(folder.path());
    assert_eq!(scalars.keys().collect::<Vec<_>>(), ["loss", "val/loss"]);
    assert_eq!((&scalars["val/loss"], &scalars["loss"]), (&vec![(1, 1.0), (2, 0.5)], &vec![(3, 0.5)]));
    let texts = values(folder.path()).into_iter().filter_map(|(_, value)| match value.shown {
        Some(Shown::Tensor(tensor)) if !tensor.string_val.is_empty() => {
            Some((value.tag, String::from_utf8(tensor.string_val[0].clone()).unwrap()))
        }
        _ => None,
    });
    let expected = [
        ("training/early_stopped", "converged"),
        ("training/preempted", "SIGTERM"),
        ("training/failed", "the loss is NaN\n\n```\nsrc/main.rs:7:5\n```"),
    ];
    let expected = expected.map(|(tag, text)| (tag.to_owned(), text.to_owned()));
    assert_eq!(texts.collect::<Vec<_>>(), expected);
}

#[test]
fn metrics_may_have_the_names_of_bookkeeping() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let saved = model::CheckpointSaved {
        path: "best.bin".to_owned(),
        epoch: 3,
        metrics: Fields::from([("duration", 3.5), ("epoch", 5.0), ("generation", 7.0), ("run_id", 9.0)]),
        size_mb: None,
    };
    // Made by hand: a generation without a run is none of a run.
    let genetic = Fields::new().with("epoch", 4).with("generation", 12);
    sink.write_batch(&Batch::from_events(vec![
        saved.into(),
        Record::fields(training::EpochCompleted::NAME, genetic.clone()),
        Record::fields(training::EpochCompleted::NAME, genetic.with("epoch", 5).with("run_id", "a")),
    ]))
    .unwrap();
    let expected = [
        ("checkpoint/duration", (3, 3.5)),
        ("checkpoint/epoch", (3, 5.0)),
        ("checkpoint/generation", (3, 7.0)),
        ("checkpoint/run_id", (3, 9.0)),
        ("generation", (4, 12.0)),
    ];
    assert_eq!(scalars(folder.path()), expected.map(|(tag, point)| (tag.to_owned(), vec![point])).into());
}

/// Returns the settings of the only run in a folder, as the table of hyper-parameters gets them.
#[track_caller]
fn settings(folder: &Path) -> BTreeMap<String, proto::SettingKind> {
    let mut starts =
        values(folder).into_iter().filter(|(_, value)| value.tag == "_hparams_/session_start_info");
    let data = starts.next().unwrap().1.metadata.unwrap().plugin_data.unwrap();
    let start = proto::HParams::decode(&*data.content).unwrap().start.unwrap();
    start.hparams.into_iter().map(|(name, setting)| (name, setting.kind.unwrap())).collect()
}

#[test]
fn nested_settings_appear_under_their_path_and_lists_as_text() {
    use proto::SettingKind::{Bool, Number, Text};
    let folder = tempfile::tempdir().unwrap();
    let schedule = Fields::new().with("kind", "cosine").with("warm.up", 10).with("none", ());
    let optimizer = Fields::new().with("name", "adam").with("lr", 0.1).with("schedule", schedule);
    let config = Fields::new()
        .with("batch", 32)
        .with("optimizer", optimizer)
        .with("layers", vec![64, 32])
        .with("grid", vec![vec![1, 2], vec![]])
        .with("stages", vec![Value::from(Fields::new().with("a", true)), "b".into(), Value::Empty])
        .with("nothing", ())
        .with("no_fields", Fields::new())
        .with("no_list", Vec::<i64>::new())
        .with("nan", f64::NAN)
        .with("inf", f64::INFINITY)
        .with("amp", true)
        .with("weights", Histogram::from_values(&[1.0, 2.0], 1));
    let collector =
        Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
    collector.collect(training::Started { run_id: "7".to_owned(), config, model_type: None });
    collector.stop().unwrap();
    let sink = &support::law(&collector, 1).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (1, 0), "{:?}", sink.last_error);
    let text = |text: &str| Text(text.to_owned());
    let expected = [
        ("amp", Bool(true)),
        ("batch", Number(32.0)),
        ("grid", text("[[1, 2], []]")),
        ("inf", text("inf")),
        ("layers", text("[64, 32]")),
        ("nan", text("NaN")),
        ("no_fields", text("{}")),
        ("no_list", text("[]")),
        ("optimizer/lr", Number(0.1)),
        ("optimizer/name", text("adam")),
        ("optimizer/schedule/kind", text("cosine")),
        ("optimizer/schedule/warm.up", Number(10.0)),
        ("stages", text("[{a: true}, b, -]")),
        ("weights", text("histogram of 2 in 1..2")),
    ];
    assert_eq!(settings(folder.path()), expected.map(|(name, kind)| (name.to_owned(), kind)).into());
}

#[test]
fn settings_whose_path_is_taken_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let config = Fields::new()
        .with("a/b", 1)
        .with("a", Fields::new().with("b", 2).with("c", 3))
        .with("a/c", "late")
        .with("long", Fields::new().with("x".repeat(2 << 20), 1).with("y", 2));
    let collector =
        Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
    collector.collect(training::Started { run_id: "7".to_owned(), config, model_type: None });
    collector.stop().unwrap();
    let sink = &support::law(&collector, 1).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (0, 1));
    let said = sink.last_error.as_ref().unwrap();
    assert!(said.contains("4 settings were left out"), "{said}");
    let expected = [("a/b", 1.0), ("a/c", 3.0)];
    let expected = expected.map(|(name, number)| (name.to_owned(), proto::SettingKind::Number(number)));
    assert_eq!(settings(folder.path()), expected.into());
}

#[test]
fn what_cannot_be_shown_is_refused_and_counted_and_the_rest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::create(folder.path()).unwrap().max_tags(3);
    let collector = Collector::builder().sink(sink).start().unwrap();
    let broken = Image { width: 2, height: 2, format: ImageFormat::Gray8, bytes: vec![0; 3] };
    for record in [
        scalar("a", 5, 1.0),
        Record::text("a", "another kind").with_step(6),
        scalar("a", 4, 1.0),
        Record::image("c", broken).with_step(5),
        scalar("c", 5, 1.0),
        scalar("d", i64::MAX as u64, 1.0),
        scalar("one too many", 5, 1.0),
        scalar("a", 5, 2.0),
    ] {
        collector.collect(record);
    }
    collector.stop().unwrap();
    let stats = support::law(&collector, 8);
    let sink = stats.sink("tensorboard").unwrap();
    assert_eq!((sink.delivered, sink.failed), (4, 4), "{sink:?}");
    let scalars = scalars(folder.path());
    assert_eq!(scalars["a"], [(5, 1.0), (5, 2.0)]);
    assert_eq!(scalars["d"], [(i64::MAX, 1.0)]);
    assert_eq!(scalars.keys().collect::<Vec<_>>(), ["a", "c", "d"]);
}

#[test]
fn names_of_every_kind_are_tags() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let names = ["", "a/b", "\"quoted\"", "two\nlines", "zero\0byte", "\u{1f984}", "..", "a.b.c"];
    let records = names.iter().map(|name| scalar(name, 0, 1.0)).collect();
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let tags: Vec<String> = values(folder.path()).into_iter().map(|(_, value)| value.tag).collect();
    assert_eq!(tags, names.map(|name| name.replace('.', "/")));
}

#[test]
fn routes_say_what_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap().route("train.*").route("*.best");
    let names = ["train.loss", "test.loss", "model.best"];
    sink.write_batch(&Batch::from_events(names.map(|name| scalar(name, 0, 1.0)).to_vec())).unwrap();
    assert_eq!(scalars(folder.path()).keys().collect::<Vec<_>>(), ["model/best", "train/loss"]);
}

#[test]
fn records_without_a_step_count_on_tag_by_tag() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let records = vec![
        Record::scalar("a", 1.0),
        scalar("b", 7, 1.0),
        Record::scalar("a", 2.0),
        Record::scalar("b", 2.0),
    ];
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let scalars = scalars(folder.path());
    assert_eq!(
        (&scalars["a"][..], &scalars["b"][..]),
        (&[(0, 1.0), (1, 2.0)][..], &[(7, 1.0), (8, 2.0)][..])
    );
}

#[test]
fn a_step_backward_begins_a_new_file_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap().backward_steps(BackwardStep::NewFile);
    let records = vec![scalar("a", 10, 1.0), scalar("b", 11, 1.0), scalar("a", 8, 2.0), scalar("b", 8, 2.0)];
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let files = files(folder.path());
    let steps = |at: usize| {
        let (first, events) = read(&files[at]);
        (first, events.iter().map(|event| event.step).collect::<Vec<_>>())
    };
    assert_eq!((steps(0), steps(1)), ((0, vec![10, 11]), (8, vec![8])));
    assert_eq!(files.len(), 2);
}

#[test]
fn steps_may_be_negative_missing_ones_zero_and_backward_ones_written_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::create(folder.path())
        .unwrap()
        .missing_steps(MissingStep::Zero)
        .backward_steps(BackwardStep::Write);
    let collector = Collector::builder().sink(sink).start().unwrap();
    for step in [-1, 5, 3, i64::MIN + 1] {
        collector.collect(Record::scalar("a", 1.0).with_signed_step(step));
    }
    for value in [1.0, 2.0] {
        collector.collect(Record::scalar("b", value));
        collector.collect(Record::histogram("c", Histogram::from_values(&[value, f64::NAN], 1)));
    }
    assert_eq!(collector.stop().unwrap().failed(), 0);
    support::law(&collector, 8);
    assert_eq!(files(folder.path()).len(), 1);
    let scalars = scalars(folder.path());
    assert_eq!(scalars["a"], [(-1, 1.0), (5, 1.0), (3, 1.0), (i64::MIN + 1, 1.0)]);
    assert_eq!(scalars["b"], [(0, 1.0), (0, 2.0)]);
    assert_eq!(scalars["c/non_finite"], [(0, 1.0), (0, 1.0)]);
}

#[test]
fn a_histogram_among_fields_leaves_the_steps_of_the_others_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let histogram = Histogram::from_values(&[1.0, f64::NAN], 1);
    let fields = Fields::new().with("hist", histogram).with("loss", 0.5);
    let losses = (0..3).map(|_| Record::scalar("loss", 1.0));
    let records = losses.chain([Record::fields("all", fields.clone()), Record::fields("all", fields)]);
    sink.write_batch(&Batch::from_events(records.collect())).unwrap();
    // The histogram of another name is further on than the number beside it.
    let hist = Record::fields("all", Fields::new().with("hist", Histogram::from_values(&[2.0], 1)));
    let both = Fields::new().with("hist", Histogram::from_values(&[3.0, f64::NAN], 1)).with("loss", 0.25);
    sink.write_batch(&Batch::from_events(vec![hist, Record::fields("all", both)])).unwrap();
    let scalars = scalars(folder.path());
    assert_eq!(scalars["all/loss"], [(0, 0.5), (1, 0.5), (2, 0.25)]);
    assert_eq!(
        scalars["all/hist/non_finite"],
        [(0, 1.0), (1, 1.0), (3, 1.0)],
        "at the step of its histogram"
    );
}

#[test]
fn a_missing_step_is_zero_also_where_that_goes_backward_which_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap().missing_steps(MissingStep::Zero);
    let epoch = training::EpochCompleted { epoch: 2, metrics: [("loss", 0.5)].into(), ..Default::default() };
    let records = vec![scalar("a", 3, 1.0), Record::scalar("a", 2.0), epoch.into()];
    let error = sink.write_batch(&Batch::from_events(records)).unwrap_err();
    assert_eq!(error.failed_events(), Some(1), "{error}");
    assert_eq!(scalars(folder.path())["loss"], [(2, 0.5)], "the number of its epoch, as ever");
}

#[test]
fn tags_are_what_the_caller_makes_of_names() {
    let fields = Fields::new().with("a.b", 1.0).with("c", Fields::new().with("d.e", 2.0));
    let epoch =
        training::EpochCompleted { epoch: 1, metrics: [("val.loss", 0.5)].into(), ..Default::default() };
    let records =
        vec![scalar("train.loss", 0, 1.0), Record::fields("x.y", fields).with_step(0), epoch.into()];
    let shout = Tags::mapped(|name| name.to_uppercase());
    for (tags, expected) in [
        (Tags::Slashes, ["train/loss", "val/loss", "x/y/a/b", "x/y/c/d/e"]),
        (Tags::Verbatim, ["train.loss", "val.loss", "x.y/a.b", "x.y/c/d.e"]),
        (shout, ["TRAIN.LOSS", "VAL.LOSS", "X.Y/A.B", "X.Y/C/D.E"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::create(folder.path()).unwrap().tags(tags);
        sink.write_batch(&Batch::from_events(records.clone())).unwrap();
        assert_eq!(scalars(folder.path()).keys().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_mapping_of_tags_that_panics_fails_its_record_alone() {
    support::hush();
    let folder = tempfile::tempdir().unwrap();
    let tags = Tags::mapped(|name| if name == "bad" { panic!("no {name} tags") } else { name.to_owned() });
    let sink = TensorBoardSink::create(folder.path()).unwrap().tags(tags);
    let collector = Collector::builder().sink(sink).start().unwrap();
    collector.collect(scalar("good", 0, 1.0));
    collector.collect(scalar("bad", 0, 1.0));
    collector.collect(Record::fields("fields", Fields::new().with("bad", 1.0).with("c", 2.0)).with_step(1));
    collector.collect(scalar("good", 1, 1.0));
    collector.stop().unwrap();
    let sink = &support::law(&collector, 4).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (2, 2));
    assert!(sink.last_error.as_ref().unwrap().contains("no bad tags"), "{:?}", sink.last_error);
    assert_eq!(scalars(folder.path()).keys().collect::<Vec<_>>(), ["fields/c", "good"]);
}

#[test]
fn names_of_files_end_with_the_suffix() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::resume(folder.path(), 7).unwrap().filename_suffix(".mine").unwrap();
    let mut sink = sink.backward_steps(BackwardStep::NewFile);
    sink.write_batch(&Batch::from_events(vec![scalar("a", 7, 1.0), scalar("a", 6, 1.0)])).unwrap();
    let files = files(folder.path());
    assert!(
        files.len() == 2 && files.iter().all(|path| path.to_str().unwrap().ends_with(".mine")),
        "{files:?}"
    );
    assert_eq!([read(&files[0]).0, read(&files[1]).0], [7, 6]);
    assert_eq!(sink.path(), files[1]);
    for bad in ["a/b", "..\\x", "\0"] {
        let error = TensorBoardSink::create(folder.path()).unwrap().filename_suffix(bad).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
    }
}

#[test]
fn the_hook_gets_every_new_file() {
    support::hush();
    let folder = tempfile::tempdir().unwrap();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let hooked = Arc::clone(&reported);
    let sink = TensorBoardSink::create(folder.path())
        .unwrap()
        .on_file(move |path| {
            hooked.lock().unwrap().push(path.to_owned());
            panic!("on purpose");
        })
        .filename_suffix(".mine")
        .unwrap()
        .backward_steps(BackwardStep::NewFile);
    let records = [
        scalar("a", 7, 1.0),
        scalar("a", 6, 2.0),
        scalar("b", 1, 3.0).with_sub_run("sub"),
        scalar("a", 8, 4.0),
    ];
    let collector = Collector::builder().flush(forebay::FlushStrategy::Manual).sink(sink).start().unwrap();
    for record in records {
        collector.collect(record);
    }
    collector.flush().unwrap();
    // The panics are reported, and fail no event.
    let stats = collector.stats();
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].failed), (4, 0));
    assert_eq!(stats.sinks[0].panics, 1);
    let error = stats.sinks[0].last_error.as_deref().unwrap();
    assert_eq!(error, "write failed: the hook of on_file panicked: on purpose");
    support::law(&collector, 4);
    collector.collect(scalar("a", 9, 5.0));
    assert_eq!(collector.stop().unwrap().stats.sinks[0].panics, 1);
    let reported = std::mem::take(&mut *reported.lock().unwrap());
    // The very first one has got its suffix since.
    let (first, begun) = reported.split_first().unwrap();
    assert!(!first.exists());
    let mut expected = files(folder.path());
    expected.extend(files(&folder.path().join("sub")));
    let expected: Vec<_> = expected.iter().map(|path| path.canonicalize().unwrap()).collect();
    assert_eq!(begun, expected);
    assert_eq!(scalars(folder.path())["a"], [(7, 1.0), (6, 2.0), (8, 4.0), (9, 5.0)]);
    assert_eq!(scalars(&folder.path().join("sub"))["b"], [(1, 3.0)]);
}

#[test]
fn a_collector_that_is_stopped_and_started_again_writes_on() {
    let folder = tempfile::tempdir().unwrap();
    let collector =
        Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
    for round in 0..3 {
        collector.start().unwrap();
        for step in 10 * round..10 * round + 10 {
            collector.collect(scalar("a", step, 1.0));
            collector.collect(scalar("a", step, 1.0).with_sub_run("sub"));
        }
        assert_eq!(collector.stop().unwrap().failed(), 0);
    }
    support::law(&collector, 60);
    let expected: Vec<(i64, f32)> = (0..30).map(|step| (step, 1.0)).collect();
    assert_eq!(scalars(folder.path())["a"], expected);
    assert_eq!(scalars(&folder.path().join("sub"))["a"], expected);
}

#[test]
fn jpeg_and_gif_files_are_written_as_they_are() {
    let gif = b"GIF89a\x03\0\x02\0\x80\0\0\0\0\0\xff\xff\xff";
    let jpeg = b"\xff\xd8\xff\xc0\0\x0b\x08\0\x02\0\x03\x01\x01\x11\0";
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let records = vec![
        Record::image("a", Image::gif(*gif).unwrap()).with_step(0),
        Record::image("a", Image::jpeg(*jpeg).unwrap()).with_step(1),
    ];
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let tensors = values(folder.path()).into_iter().map(|(_, value)| match value.shown {
        Some(Shown::Tensor(tensor)) => tensor.string_val,
        other => panic!("{other:?}"),
    });
    let expected = [&gif[..], &jpeg[..]].map(|file| vec![b"3".to_vec(), b"2".to_vec(), file.to_vec()]);
    assert_eq!(tensors.collect::<Vec<_>>(), expected);
}

/// Returns the messages of the records of a file.
fn messages(path: &Path) -> Vec<Vec<u8>> {
    let (bytes, mut messages, mut at) = (std::fs::read(path).unwrap(), Vec::new(), 0);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        messages.push(bytes[at + 12..at + 12 + length].to_vec());
        at += 16 + length;
    }
    messages
}

/// Returns what events say but for the moment: their steps, and the bytes of each value, or of their other parts.
fn said(path: &Path) -> Vec<(i64, Vec<u8>)> {
    let mut said = Vec::new();
    for message in messages(path) {
        let (mut step, mut parts) = (0, Vec::new());
        let (mut fields, mut begin) = (MessageFields::new(&message), 0);
        while let Some(field) = fields.next() {
            match field.unwrap() {
                (1 | 3 | 10, _) => {}
                (2, FieldValue::Varint(number)) => step = number as i64,
                (5, FieldValue::Bytes(summary)) => {
                    let (mut values, mut from) = (MessageFields::new(summary), 0);
                    while values.next().is_some() {
                        parts.push(summary[from..values.position()].to_vec());
                        from = values.position();
                    }
                }
                _ => parts.push(message[begin..fields.position()].to_vec()),
            }
            begin = fields.position();
        }
        said.extend(parts.into_iter().map(|part| (step, part)));
    }
    said
}

#[test]
fn what_torch_has_encoded_is_passed_through_method_by_method() {
    let origin = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tfevents/tests/torch-writer");
    let mut written = 0;
    let (mut folders, mut paths) = (vec![origin], Vec::new());
    while let Some(folder) = folders.pop() {
        paths.extend(files(&folder));
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    paths.retain(|path| path.file_name().unwrap().to_str().unwrap().contains("tfevents"));
    assert_eq!(paths.len(), 20, "{paths:?}");
    for path in paths {
        let folder = tempfile::tempdir().unwrap();
        let collector =
            Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
        let expected = said(&path);
        for (step, part) in &expected {
            // A value of a summary is a field 1 in it; other parts have the number that they have in an event.
            let encoded = if part[0] == 1 << 3 | 2 { Encoded::Summary } else { Encoded::Event };
            let record = Record::with_value("any", encoded(part.clone().into()));
            collector.collect(record.with_signed_step(*step));
        }
        assert_eq!(collector.stop().unwrap().failed(), 0, "{path:?}");
        support::law(&collector, expected.len() as u64);
        let read = said(&files(folder.path())[0]);
        // Behind the start of a session.
        assert_eq!(read[1..], expected, "{path:?}");
        written += expected.len();
    }
    assert!(written > 30, "{written}");
}

#[test]
fn bytes_that_are_no_message_are_refused_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let collector =
        Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
    let encoded = |encoded: Encoded| Record::with_value("encoded", encoded).with_step(0);
    // The last is whole, but its tag is no text.
    for bad in [&b"\x0a\x05abc"[..], b"\x12\0", b"\xff", b"\x0a\x03\x0a\x01\xff"] {
        collector.collect(encoded(Encoded::Summary(bad.into())));
    }
    // A part that is cut, and a step, which is that of the record.
    for bad in [&b"\x22\x05abc"[..], b"\x10\x07"] {
        collector.collect(encoded(Encoded::Event(bad.into())));
    }
    collector.collect(encoded(Encoded::Summary(Box::new([]))));
    collector.collect(scalar("a", 0, 1.0));
    collector.stop().unwrap();
    let sink = &support::law(&collector, 8).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (2, 6), "{:?}", sink.last_error);
    assert_eq!(said(&files(folder.path())[0]).len(), 2, "the start of a session, and the scalar");
}

#[test]
fn a_run_that_is_resumed_begins_a_file_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    for (first, sink) in [
        (0, TensorBoardSink::create(folder.path()).unwrap()),
        (5, TensorBoardSink::resume(folder.path(), 5).unwrap()),
    ] {
        let mut sink = sink;
        sink.write_batch(&Batch::from_events(vec![scalar("a", first + 1, 1.0)])).unwrap();
        assert_eq!(read(sink.path()).0, first as i64);
    }
    assert_eq!(scalars(folder.path())["a"], [(1, 1.0), (6, 1.0)]);
}

/// Returns the steps at which the files of a folder start a session, by file.
fn sessions(folder: &Path) -> Vec<Option<i64>> {
    let start = |event: proto::Event| matches!(event.what, Some(What::SessionLog(_))).then_some(event.step);
    let of = |path: PathBuf| decode(&std::fs::read(path).unwrap()).into_iter().find_map(start);
    files(folder).into_iter().map(of).collect()
}

#[test]
fn points_of_earlier_files_are_kept_where_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    for step in [0, 5] {
        let sink = TensorBoardSink::create(folder.path()).unwrap().backward_steps(BackwardStep::NewFile);
        let mut sink = sink.earlier_points(EarlierPoints::Keep).unwrap();
        let sub_run = scalar("a", step, 1.0).with_sub_run("eval");
        sink.write_batch(&Batch::from_events(vec![scalar("a", step, 1.0), sub_run])).unwrap();
    }
    assert_eq!(sessions(folder.path()), [None, None]);
    assert_eq!(sessions(&folder.path().join("eval")), [None, None]);

    // What the caller asked to be hidden is.
    let sink = TensorBoardSink::create(folder.path()).unwrap().backward_steps(BackwardStep::NewFile);
    let mut sink = sink.earlier_points(EarlierPoints::Keep).unwrap();
    sink.write_batch(&Batch::from_events(vec![scalar("a", 9, 1.0), scalar("a", 7, 1.0)])).unwrap();
    assert_eq!(sessions(folder.path()), [None, None, None, Some(7)]);
    let sink =
        TensorBoardSink::resume(folder.path(), 8).unwrap().earlier_points(EarlierPoints::Keep).unwrap();
    drop(sink.earlier_points(EarlierPoints::Hide).unwrap());
    assert_eq!(sessions(folder.path()), [None, None, None, Some(7), Some(8)]);
}

#[test]
fn a_folder_that_is_removed_comes_back_with_a_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let mut sink = TensorBoardSink::create(&runs).unwrap();
    sink.write_batch(&Batch::from_events(vec![scalar("a", 1, 1.0), Record::text("t", "x").with_step(1)]))
        .unwrap();
    std::fs::remove_dir_all(&runs).unwrap();
    // In the way: no folder can be made here.
    std::fs::write(&runs, "").unwrap();
    // It looks once a second whether its file is there, and after a flush.
    Sink::<Record>::flush(&mut sink).unwrap();
    let error = sink.write_batch(&Batch::from_events(vec![scalar("a", 2, 1.0)])).unwrap_err();
    assert_eq!(error.failed_events(), None, "the whole batch: {error}");
    std::fs::remove_file(&runs).unwrap();
    sink.write_batch(&Batch::from_events(vec![scalar("a", 3, 1.0), Record::text("t", "y").with_step(3)]))
        .unwrap();
    let (first, events) = read(&files(&runs)[0]);
    assert_eq!((first, events.len()), (2, 1), "behind all that was written");
    let text = &summary(events[0].what.clone()).value[1];
    assert!(text.metadata.is_some(), "a new file describes its tags again");
}

#[test]
fn what_comes_without_a_step_goes_on_across_a_step_backward_and_a_resume() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap().backward_steps(BackwardStep::NewFile);
    let counted = || Record::scalar("counted", 1.0);
    let records = vec![counted(), counted(), scalar("a", 9, 1.0), scalar("a", 3, 1.0), counted()];
    sink.write_batch(&Batch::from_events(records)).unwrap();
    assert_eq!(scalars(folder.path())["counted"], [(0, 1.0), (1, 1.0), (2, 1.0)]);
    let mut sink = TensorBoardSink::resume(folder.path(), 20).unwrap();
    sink.write_batch(&Batch::from_events(vec![counted()])).unwrap();
    assert_eq!(scalars(folder.path())["counted"][3], (20, 1.0));
}

#[test]
fn a_batch_that_failed_may_come_again() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let mut sink = TensorBoardSink::create(&runs).unwrap();
    std::fs::remove_dir_all(&runs).unwrap();
    std::fs::write(&runs, "").unwrap();
    let batch = Batch::from_events((0..5).map(|step| scalar("a", step, 1.0)).collect());
    Sink::<Record>::flush(&mut sink).unwrap();
    assert!(sink.write_batch(&batch).is_err());
    std::fs::remove_file(&runs).unwrap();
    sink.write_batch(&batch).unwrap();
    assert_eq!(scalars(&runs)["a"].len(), 5);
}

#[test]
fn what_is_in_a_file_that_was_left_is_not_counted_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let mut sink = TensorBoardSink::create(&runs).unwrap().backward_steps(BackwardStep::NewFile);
    let aside = folder.path().join("aside");
    sink.write_batch(&Batch::from_events(vec![scalar("a", 0, 1.0)])).unwrap();
    // The file stays open, and no other can be begun.
    std::fs::rename(&runs, &aside).unwrap();
    std::fs::write(&runs, "").unwrap();
    let records = vec![scalar("a", 8, 1.0), scalar("a", 9, 1.0), scalar("a", 5, 1.0), scalar("a", 6, 1.0)];
    let error = sink.write_batch(&Batch::from_events(records)).unwrap_err();
    assert_eq!(error.failed_events(), Some(2), "{error}");
    assert_eq!(scalars(&aside)["a"], [(0, 1.0), (8, 1.0), (9, 1.0)]);
}

#[test]
fn the_encoder_refuses_what_would_end_a_file() {
    let mut encoder = Encoder::new();
    encoder.begin_file(0.0, 0);
    let refused = encoder.add(f64::NAN, 0, "a", Summary::Scalar(1.0)).unwrap_err();
    assert!(matches!(refused, EncodeError::NotFinite { .. }), "{refused}");
    assert_eq!(decode(&encoder.take()).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 300, ..Default::default() })]

    #[test]
    fn every_scalar_comes_back_to_the_last_bit(
        points in prop::collection::vec((0..3usize, 0..4i64, any::<f32>(), 0f64..4e9), 1..200)
    ) {
        let mut encoder = Encoder::new();
        encoder.begin_file(1.0, 0);
        let mut step = 0;
        let mut expected = Vec::new();
        for (tag, ahead, value, wall_time) in points {
            step += ahead;
            let tag = ["a", "b/c", "d"][tag];
            encoder.add(wall_time, step, tag, Summary::Scalar(value)).unwrap();
            expected.push((step, tag.to_owned(), value.to_bits()));
        }
        let mut read = Vec::new();
        for event in decode(&encoder.take()).split_off(2) {
            for value in summary(event.what).value {
                let Some(Shown::SimpleValue(number)) = value.shown else { panic!("{value:?}") };
                read.push((event.step, value.tag, number.to_bits()));
            }
        }
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn a_tag_of_exactly_the_bound_is_written_and_one_of_a_byte_more_is_refused() {
    // In one name, and in a field of a name. A field is counted with the path to it.
    let whole = |bytes| Record::scalar("x".repeat(bytes), 0.5);
    let nested = |bytes: usize| {
        let field = "x".repeat(bytes / 2 - 2);
        Record::fields("n".repeat(1 + bytes % 2), Fields::from_iter([(field, Value::Scalar(0.5))]))
    };
    let sizes = |extra: usize| [whole((4 << 20) + extra), nested((4 << 20) + 2 * extra)];
    for (extra, is_written) in [(0, true), (1, false)] {
        for record in sizes(extra) {
            let folder = tempfile::tempdir().unwrap();
            let mut sink = TensorBoardSink::create(folder.path()).unwrap();
            let outcome = sink.write_batch(&Batch::from_events(vec![record]));
            assert_eq!(outcome.is_ok(), is_written, "{extra} more");
            let length = std::fs::metadata(sink.path()).unwrap().len();
            assert_eq!(length > 1 << 20, is_written, "{extra} more: {length} bytes");
        }
    }
}
