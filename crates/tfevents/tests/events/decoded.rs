//! What the reader finds in the files of PyTorch, held against the JSON beside them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use tfevents::{
    DataType, Encoder, Event, EventContent, Hparams, Reader, SessionState, SessionStatus, Setting, Summary,
    Tensor, Value, ValueContent,
};

use crate::torch::files;

/// Adds a key, but for a zero, an empty text or an empty list, as is usual in the JSON of protocol buffers.
fn put(object: &mut Map<String, Json>, key: &str, value: Json) {
    let is_default = match &value {
        Json::Null => true,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty() || text == "0",
        Json::Array(list) => list.is_empty(),
        Json::Bool(_) | Json::Object(_) => false,
    };
    if !is_default {
        object.insert(key.to_owned(), value);
    }
}

fn base64(bytes: &[u8]) -> Json {
    STANDARD.encode(bytes).into()
}

fn double(number: f64) -> Json {
    if number.is_nan() {
        "NaN".into()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        number.into()
    }
}

fn float(number: f32) -> Json {
    double(f64::from(number))
}

fn tensor(tensor: &Tensor<'_>, is_shape_told: bool) -> Json {
    let mut object = Map::new();
    let (name, numbers) = match tensor.dtype {
        Some(DataType::Float32) => ("DT_FLOAT", "float_val"),
        Some(DataType::Float64) => ("DT_DOUBLE", "double_val"),
        Some(DataType::String) => ("DT_STRING", ""),
        other => panic!("{other:?}"),
    };
    object.insert("dtype".to_owned(), name.into());
    if !numbers.is_empty() {
        let is_float = tensor.dtype == Some(DataType::Float32);
        let number = |number: f64| if is_float { float(number as f32) } else { double(number) };
        put(&mut object, numbers, tensor.numbers().map(number).collect());
    }
    put(&mut object, "string_val", tensor.strings().map(base64).collect());
    let dimensions: Vec<Json> = tensor.shape().map(|size| json!({ "size": size.to_string() })).collect();
    if dimensions.is_empty() && is_shape_told {
        object.insert("tensor_shape".to_owned(), json!({}));
    } else if !dimensions.is_empty() {
        object.insert("tensor_shape".to_owned(), json!({ "dim": dimensions }));
    }
    object.into()
}

fn value(value: &Value<'_>) -> Json {
    let mut object = Map::new();
    put(&mut object, "tag", value.tag.into());
    if let Some(metadata) = value.metadata {
        let mut plugin = Map::new();
        put(&mut plugin, "plugin_name", metadata.plugin.into());
        put(&mut plugin, "content", base64(metadata.plugin_content));
        object.insert("metadata".to_owned(), json!({ "plugin_data": plugin }));
    }
    let mut inner = Map::new();
    let key = match &value.content {
        ValueContent::Nothing => return object.into(),
        ValueContent::Scalar(scalar) => {
            object.insert("simple_value".to_owned(), float(*scalar));
            return object.into();
        }
        ValueContent::Tensor(content) => {
            // PyTorch's scalars have no shape at all, which means the same as an empty one.
            let is_shape_told = value.plugin() != Some("scalars");
            object.insert("tensor".to_owned(), tensor(content, is_shape_told));
            return object.into();
        }
        ValueContent::Image(image) => {
            put(&mut inner, "width", image.width.into());
            put(&mut inner, "height", image.height.into());
            put(&mut inner, "colorspace", image.colorspace.into());
            put(&mut inner, "encoded_image_string", base64(image.encoded));
            "image"
        }
        ValueContent::Histogram(histogram) => {
            put(&mut inner, "min", double(histogram.min));
            put(&mut inner, "max", double(histogram.max));
            put(&mut inner, "num", double(histogram.num));
            put(&mut inner, "sum", double(histogram.sum));
            put(&mut inner, "sum_squares", double(histogram.sum_squares));
            put(&mut inner, "bucket_limit", histogram.limits().map(double).collect());
            put(&mut inner, "bucket", histogram.counts().map(double).collect());
            "histo"
        }
        ValueContent::Audio(audio) => {
            put(&mut inner, "sample_rate", float(audio.sample_rate));
            put(&mut inner, "num_channels", audio.channels.to_string().into());
            put(&mut inner, "length_frames", audio.frames.to_string().into());
            put(&mut inner, "encoded_audio_string", base64(audio.encoded));
            put(&mut inner, "content_type", audio.content_type.into());
            "audio"
        }
        other => panic!("{other:?}"),
    };
    object.insert(key.to_owned(), inner.into());
    object.into()
}

fn event(event: &Event<'_>) -> Json {
    let mut object = Map::new();
    put(&mut object, "wall_time", double(event.wall_time));
    put(&mut object, "step", event.step.to_string().into());
    if !event.writer.is_empty() {
        object.insert("source_metadata".to_owned(), json!({ "writer": event.writer }));
    }
    match &event.content {
        EventContent::Nothing => {}
        EventContent::FileVersion(version) => put(&mut object, "file_version", (*version).into()),
        EventContent::GraphDef(graph) => put(&mut object, "graph_def", base64(graph)),
        EventContent::Summary(values) => {
            let values: Vec<Json> = values.clone().map(|found| value(&found)).collect();
            object.insert("summary".to_owned(), json!({ "value": values }));
        }
        EventContent::SessionLog { state: SessionState::Start, .. } => {
            object.insert("session_log".to_owned(), json!({ "status": "START" }));
        }
        EventContent::TaggedRunMetadata { tag, run_metadata } => {
            let run = json!({ "tag": tag, "run_metadata": base64(run_metadata) });
            object.insert("tagged_run_metadata".to_owned(), run);
        }
        other => panic!("{other:?}"),
    }
    object.into()
}

/// Returns JSON with all its numbers as `f64`, as they compare. A 32-bit float stands there with the fewest digits that name it.
fn plain(json: &Json, is_float: bool) -> Json {
    match json {
        Json::Number(number) => {
            let number = number.as_f64().unwrap();
            if is_float { f64::from(number as f32).into() } else { number.into() }
        }
        Json::Array(list) => list.iter().map(|inner| plain(inner, is_float)).collect(),
        Json::Object(object) => {
            let is_float = |key: &str| matches!(key, "simple_value" | "float_val" | "sample_rate");
            let inner = object.iter().map(|(key, value)| (key.clone(), plain(value, is_float(key))));
            inner.collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

#[test]
fn files_of_torch_are_read_as_tensorboard_reads_them() {
    for file in files() {
        let mut reader = Reader::new(&file.bytes[..]);
        let mut events = Vec::new();
        while let Some(found) = reader.next_event().unwrap() {
            events.push(plain(&event(&found), false));
        }
        let theirs: Vec<Json> = file.events.iter().map(|event| plain(event, false)).collect();
        assert_eq!(events, theirs, "{}", file.path);
        assert_eq!(reader.offset(), file.bytes.len() as u64);
        assert_eq!(reader.skipped(), tfevents::Skipped::default());
    }
}

#[test]
fn records_are_handed_out_as_they_are() {
    let mut encoder = Encoder::new();
    encoder.begin_file(1.0, 0);
    encoder.add(1.0, 1, "a", Summary::Scalar(1.0)).unwrap();
    let file = encoder.take();
    let (mut reader, mut copy, mut offsets) = (Reader::new(&file[..]), Vec::new(), Vec::new());
    while let Some(record) = reader.next_record().unwrap() {
        assert_eq!(record.data().len() + 16, record.bytes.len());
        Event::decode(record.data()).unwrap();
        offsets.push(record.offset);
        copy.extend_from_slice(record.bytes);
    }
    assert_eq!(copy, file);
    assert_eq!(offsets.len(), 3);
    assert!(offsets.iter().all(|offset| file[*offset as usize + 1..][..7] == [0; 7]));
}

/// Calls `check` with the one value that comes back.
pub(crate) fn read_back(summary: Summary<'_>, check: impl FnOnce(&Value<'_>)) {
    let mut encoder = Encoder::new();
    encoder.add(1.0, 1, "tag", summary).unwrap();
    let file = encoder.take();
    let mut reader = Reader::new(&file[..]);
    let event = reader.next_event().unwrap().unwrap();
    let EventContent::Summary(mut values) = event.content else { panic!("{:?}", event.content) };
    check(&values.next().unwrap());
    assert_eq!(values.next(), None);
}

#[test]
fn both_forms_of_a_kind_are_read_as_one() {
    for summary in [Summary::Scalar(0.5), Summary::ScalarTensor(0.5), Summary::DoubleTensor(0.5)] {
        read_back(summary, |value| {
            assert_eq!((value.scalar(), value.plugin()), (Some(0.5), Some("scalars")));
            assert!(value.bins().is_none() && value.image().is_none());
        });
    }
    let bins = [(0.0, 1.0, 3.0), (1.0, 2.5, 0.0), (2.5, 4.0, 2.0)];
    let legacy = Summary::LegacyHistogram {
        min: 0.0,
        max: 4.0,
        num: 5.0,
        sum: 6.0,
        sum_squares: 7.0,
        // The last limit may lie anywhere behind the largest value.
        limits: &[1.0, 2.5, 1e300],
        counts: &[3.0, 0.0, 2.0],
    };
    for summary in [Summary::Histogram { edges: &[0.0, 1.0, 2.5, 4.0], counts: &[3, 0, 2] }, legacy] {
        read_back(summary, |value| {
            assert_eq!(value.plugin(), Some("histograms"));
            assert_eq!(value.bins().unwrap().collect::<Vec<_>>(), bins);
            assert!(value.image().is_none() && value.scalar().is_none());
        });
    }
    let (width, height, encoded) = (6, 8, &b"GIF89a"[..]);
    for summary in [
        Summary::Image { width, height, encoded },
        Summary::LegacyImage { width, height, colorspace: 3, encoded },
    ] {
        read_back(summary, |value| {
            assert_eq!(value.plugin(), Some("images"));
            let image = value.image().unwrap();
            assert_eq!((image.width, image.height, image.encoded), (width, height, encoded));
            assert!(value.bins().is_none() && value.scalar().is_none());
        });
    }
    for summary in [Summary::Text("12"), Summary::Texts(&["12", "8", "x"])] {
        read_back(summary, |value| {
            assert_eq!(value.plugin(), Some("text"));
            assert!(value.image().is_none() && value.bins().is_none() && value.scalar().is_none());
        });
    }
}

#[test]
fn hyper_parameters_are_read_without_those_that_no_table_has() {
    let settings =
        [("lr", Setting::Number(0.1)), ("amp", Setting::Bool(false)), ("opt", Setting::Text("sgd"))];
    read_back(Summary::SessionStart { group: "g", settings: &settings, began_at: 2.0 }, |value| {
        let hparams = value.metadata.unwrap().hparams().unwrap();
        let Some(Hparams::SessionStart { group, settings: found, began_at }) = hparams else {
            panic!("{hparams:?}")
        };
        assert_eq!((group, began_at, found.collect::<Vec<_>>()), ("g", 2.0, settings.to_vec()));
    });
    let status = SessionStatus::Running;
    read_back(Summary::SessionEnd { status, ended_at: 3.0 }, |value| {
        let hparams = value.metadata.unwrap().hparams().unwrap();
        assert_eq!(hparams, Some(Hparams::SessionEnd { status: Some(status), ended_at: 3.0 }));
    });
    // A `null`, and a list.
    let content = b"\x1a\x18\x0a\x08\x0a\x02no\x12\x02\x08\x00\x0a\x0c\x0a\x04list\x12\x04\x32\x02\x0a\x00";
    let metadata = tfevents::Metadata { plugin: "hparams", plugin_content: content, ..Default::default() };
    let Ok(Some(Hparams::SessionStart { mut settings, .. })) = metadata.hparams() else {
        panic!("{metadata:?}")
    };
    assert_eq!(settings.next(), None);
    let broken = tfevents::Metadata { plugin_content: &content[..20], ..metadata };
    assert!(broken.hparams().is_err());
    assert_eq!(tfevents::Metadata { plugin: "text", ..broken }.hparams(), Ok(None));
}
