//! The files of tensorboardX's and of TensorBoard's own writer, value by value: see `tests/tensorboardx-writer`.

use std::path::PathBuf;

use tfevents::{
    DataType, Event, EventContent, FieldValue, Fields, Hparams, Metadata, Reader, SessionStatus, Setting,
    Skipped, Value, ValueContent,
};

const T: f64 = 1_700_000_000.25;

/// The picture as TensorBoard reads it: PNG of red and green above blue and white.
const PICTURE: &[u8] =
    b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x02\x00\x00\x00\x02\x08\x02\x00\x00\x00\
    \xfd\xd4\x9as\x00\x00\x00\x16IDATx\x9cc\xf8\xcf\xc0\xc0\xf0\x9f\x81\x91\x81\xe1\xff\xff\xff\x0c\
    \x00\x1e\xf6\x04\xfd\x09\xed4>\x00\x00\x00\x00IEND\xaeB`\x82";

/// Returns the bytes of the one event file of a folder.
fn file(folder: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let paths = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.to_str().unwrap().contains(".tfevents.")).collect();
    assert_eq!(files.len(), 1);
    std::fs::read(files.remove(0)).unwrap()
}

/// Calls `check` with each event behind the first one, its number, and the one value in it. Returns how many there are.
fn values(folder: &str, mut check: impl FnMut(usize, &Event<'_>, &Value<'_>)) -> usize {
    let file = file(folder);
    let mut reader = Reader::new(&file[..]);
    let first = reader.next_event().unwrap().unwrap();
    assert_eq!(first.content, EventContent::FileVersion("brain.Event:2"));
    let mut count = 0;
    while let Some(event) = reader.next_event().unwrap() {
        let EventContent::Summary(mut values) = event.content.clone() else { panic!("{event:?}") };
        let value = values.next().unwrap();
        assert_eq!(values.next(), None);
        check(count, &event, &value);
        count += 1;
    }
    assert_eq!((reader.offset(), reader.skipped()), (file.len() as u64, Skipped::default()));
    count
}

#[test]
fn every_value_of_tensorboardx_is_read() {
    let count = values("tensorboardx-writer", |number, event, value| {
        let at = (event.step, event.wall_time, value.tag);
        match number {
            0..4 => {
                assert_eq!(at, (number as i64, T + number as f64, "train/loss"));
                let ValueContent::Scalar(found) = value.content else { panic!("{value:?}") };
                let expected = [0.5, -1.0, f32::NAN, f32::INFINITY][number];
                assert!(found == expected || found.is_nan() && expected.is_nan(), "{found}, not {expected}");
            }
            4 => {
                assert_eq!(at, (-1, T, "shown"));
                let metadata =
                    Metadata { display_name: "Shown", description: "**what** it is", ..Metadata::default() };
                assert_eq!((value.metadata, value.plugin()), (Some(metadata), Some("scalars")));
                assert_eq!(value.content, ValueContent::Scalar(1.5));
            }
            5 => {
                assert_eq!((at, value.plugin()), ((3, T, "weights"), Some("histograms")));
                let ValueContent::Histogram(histogram) = &value.content else { panic!("{value:?}") };
                let sums =
                    (histogram.min, histogram.max, histogram.num, histogram.sum, histogram.sum_squares);
                assert_eq!(sums, (0.5, 9.0, 4.0, 12.5, 85.75));
                assert_eq!(histogram.limits().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 10.0]);
                assert_eq!(histogram.counts().collect::<Vec<_>>(), [0.0, 1.0, 2.0, 1.0]);
            }
            6 => {
                assert_eq!((at, value.plugin()), ((4, T, "note/text_summary"), Some("text")));
                let ValueContent::Tensor(tensor) = &value.content else { panic!("{value:?}") };
                assert_eq!(
                    (tensor.dtype, tensor.shape().collect::<Vec<_>>()),
                    (Some(DataType::String), vec![1])
                );
                assert_eq!(tensor.strings().collect::<Vec<_>>(), [b"hello **world**"]);
            }
            7 => {
                assert_eq!((at, value.plugin()), ((5, T, "picture"), Some("images")));
                let image = value.image().unwrap();
                assert_eq!((image.width, image.height, image.colorspace), (2, 2, 3));
                assert_eq!(image.encoded, PICTURE);
            }
            _ => panic!("{value:?}"),
        }
    });
    assert_eq!(count, 8);
}

#[test]
fn the_same_values_are_read_in_the_form_of_tensorboard() {
    let count = values("tensorboard-writer", |number, event, value| {
        let ValueContent::Tensor(tensor) = &value.content else { panic!("{value:?}") };
        let at = (event.step, event.wall_time, value.tag, value.plugin().unwrap());
        match number {
            0..4 => {
                assert_eq!(at, (number as i64, T + number as f64, "train/loss", "scalars"));
                let (found, expected) =
                    (value.scalar().unwrap(), [0.5, -1.0, f64::NAN, f64::INFINITY][number]);
                assert!(found == expected || found.is_nan() && expected.is_nan(), "{found}, not {expected}");
            }
            4 => {
                assert_eq!((at, value.scalar()), ((-1, T, "shown", "scalars"), Some(1.5)));
                let metadata = value.metadata.unwrap();
                assert_eq!((metadata.display_name, metadata.description), ("Shown", "**what** it is"));
            }
            5 => {
                assert_eq!(at, (3, T, "weights", "histograms"));
                let bins: Vec<_> = value.bins().unwrap().collect();
                assert_eq!(bins, [(0.5, 1.0, 1.0), (1.0, 2.0, 2.0), (2.0, 9.0, 1.0)]);
            }
            6 => {
                assert_eq!(at, (4, T, "note/text_summary", "text"));
                assert_eq!(tensor.strings().collect::<Vec<_>>(), [b"hello **world**"]);
            }
            7 => {
                assert_eq!(at, (5, T, "picture", "images"));
                let image = value.image().unwrap();
                assert_eq!((image.width, image.height, image.encoded), (2, 2, PICTURE));
            }
            _ => panic!("{value:?}"),
        }
    });
    assert_eq!(count, 8);
}

/// Returns the first field of that number in a message of protocol buffers.
fn field(message: &[u8], number: u32) -> &[u8] {
    let mut fields = Fields::new(message).map(Result::unwrap);
    let Some((_, FieldValue::Bytes(bytes))) = fields.find(|(found, _)| *found == number) else {
        panic!("no field {number} in {message:?}")
    };
    bytes
}

#[test]
fn hyper_parameters_of_tensorboardx_are_read() {
    // In tensorboardX's order, which is that of a hash table.
    let settings =
        [("amp", Setting::Bool(true)), ("opt", Setting::Text("sgd")), ("lr", Setting::Number(0.1))];
    let count = values("tensorboardx-writer/trial", |number, event, value| {
        let hparams = value.metadata.and_then(|metadata| metadata.hparams().unwrap());
        assert!(number == 3 || value.content == ValueContent::Nothing, "{value:?}");
        match (value.tag, hparams) {
            ("_hparams_/experiment", Some(Hparams::Experiment(experiment))) => {
                let infos = Fields::new(experiment).map(Result::unwrap);
                let names: Vec<_> = infos
                    .map(|info| match info {
                        (4, FieldValue::Bytes(hparam)) => field(hparam, 1),
                        // A metric is named by a group and a tag.
                        (5, FieldValue::Bytes(metric)) => field(field(metric, 1), 2),
                        other => panic!("{other:?}"),
                    })
                    .collect();
                assert_eq!((number, names), (0, vec![&b"lr"[..], b"opt", b"amp", b"acc"]));
            }
            ("_hparams_/session_start_info", Some(Hparams::SessionStart { group, settings: found, .. })) => {
                assert_eq!((number, group, found.collect::<Vec<_>>()), (1, "", settings.to_vec()));
            }
            ("_hparams_/session_end_info", Some(Hparams::SessionEnd { status, .. })) => {
                assert_eq!((number, status), (2, Some(SessionStatus::Success)));
            }
            ("acc", None) => {
                assert_eq!((number, event.step), (3, 6));
                assert_eq!(value.content, ValueContent::Scalar(0.75));
            }
            other => panic!("{other:?}"),
        }
    });
    assert_eq!(count, 4);
}

#[test]
fn other_writers_left_scalars_in_both_forms() {
    let mut forms = (0, 0);
    for file in crate::torch::files() {
        let mut reader = Reader::new(&file.bytes[..]);
        while let Some(event) = reader.next_event().unwrap() {
            let EventContent::Summary(values) = event.content else { continue };
            for value in values.filter(|value| value.plugin() == Some("scalars")) {
                match value.content {
                    ValueContent::Scalar(_) => forms.0 += 1,
                    ValueContent::Tensor(_) => forms.1 += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    forms.0 +=
        values("tensorboardx-writer", |number, _, value| assert_eq!(value.scalar().is_some(), number < 5))
            .min(5);
    assert_eq!(forms, (24, 2));
}
