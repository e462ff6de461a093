//! The files of PyTorch's writer: see `tests/torch-writer`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;
use tfevents::{
    Category, Chart, ChartContent, DataType, Domain, EXPERIMENT, Encoder, FieldValue, Fields, HparamInfo,
    HparamType, LAYOUT, Mesh, MeshTensor, MetricInfo, SESSION_END, SESSION_START, SessionStatus, Setting,
    Summary, masked_crc32c,
};

/// A file and its events as JSON.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) events: Vec<Json>,
}

/// Returns all files, in the order of their paths.
pub(crate) fn files() -> Vec<File> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torch-writer");
    let json = std::fs::read_to_string(format!("{folder}/events.json")).unwrap();
    let Json::Object(files) = serde_json::from_str(&json).unwrap() else { panic!("no object") };
    let read = |(path, events): (String, Json)| {
        let bytes = std::fs::read(format!("{folder}/{path}")).unwrap();
        let Json::Array(events) = events else { panic!("no list") };
        File { path, bytes, events }
    };
    let files: Vec<File> = files.into_iter().map(read).collect();
    assert_eq!(files.len(), 20);
    files
}

/// Returns the data of all records, after a look at their framing.
pub(crate) fn records(mut file: &[u8]) -> Vec<&[u8]> {
    let mut records = Vec::new();
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let checksum = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let data = &file[12..12 + length];
        assert_eq!((checksum(8), checksum(12 + length)), (masked_crc32c(&file[..8]), masked_crc32c(data)));
        records.push(data);
        file = &file[16 + length..];
    }
    records
}

/// Number of a field, and its bytes without the length.
type Field = (u32, Vec<u8>);

/// Returns the fields of a message, in the order of their numbers, as the order in which they are written means nothing.
fn fields(message: &[u8]) -> Vec<Field> {
    let bytes = |value| match value {
        FieldValue::Varint(number) => number.to_le_bytes().to_vec(),
        FieldValue::Fixed64(bytes) => bytes.to_vec(),
        FieldValue::Bytes(bytes) => bytes.to_vec(),
        FieldValue::Fixed32(bytes) => bytes.to_vec(),
    };
    let mut fields: Vec<Field> = Fields::new(message)
        .map(|field| {
            let (number, value) = field.unwrap();
            (number, bytes(value))
        })
        .collect();
    fields.sort_by_key(|(number, _)| *number);
    fields
}

/// Returns the one field of that number.
fn field(message: &[u8], number: u32) -> Vec<u8> {
    let mut found = fields(message).into_iter().filter(|field| field.0 == number);
    let (_, bytes) = found.next().unwrap_or_else(|| panic!("no field {number}"));
    assert!(found.next().is_none(), "more than one field {number}");
    bytes
}

/// Returns a value without what PyTorch and we write differently, on purpose.
fn comparable(value: &[u8]) -> Vec<(u32, Vec<Field>)> {
    const METADATA: u32 = 9;
    const TENSOR: u32 = 8;
    let mut tag = Vec::new();
    let mut comparable: Vec<(u32, Vec<Field>)> = Vec::new();
    for (number, bytes) in fields(value) {
        match number {
            1 => tag = bytes,
            METADATA => {
                // Ours tell the class of the data, which loaders else take from the name of the plugin.
                comparable
                    .push((number, fields(&bytes).into_iter().filter(|(field, _)| *field != 4).collect()));
            }
            // The loaders find no hyper-parameters without a tensor, and PyTorch's readers no tensor with them.
            TENSOR if tag.starts_with(b"_hparams_/") => {}
            TENSOR => {
                let tensor = fields(&bytes).into_iter().filter_map(|(field, bytes)| match field {
                    // The shape of one number; without any it has the same.
                    2 if bytes.is_empty() => None,
                    // Packed floats are what the content is.
                    5 => Some((4, bytes)),
                    field => Some((field, bytes)),
                });
                comparable.push((number, tensor.collect()));
            }
            // A number has no fields.
            2 => comparable.push((number, vec![(0, bytes)])),
            _ => comparable.push((number, fields(&bytes))),
        }
    }
    comparable.push((1, vec![(0, tag)]));
    comparable
}

/// Returns what a `Summary` message has for its one value.
fn encode(tag: &str, summary: Summary<'_>) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.begin_file(0.0, 0);
    encoder.clear();
    encoder.add(1.5, 7, tag, summary).unwrap();
    let bytes = encoder.take();
    let records = records(&bytes);
    assert_eq!(records.len(), 1);
    field(&field(records[0], 5), 1)
}

pub(crate) fn number(json: &Json) -> f64 {
    match json {
        Json::Null => 0.0,
        Json::Number(number) => number.as_f64().unwrap(),
        Json::String(text) if text == "Infinity" => f64::INFINITY,
        Json::String(text) => text.parse().unwrap(),
        other => panic!("{other} is no number"),
    }
}

pub(crate) fn numbers(json: &Json) -> Vec<f64> {
    json.as_array().map_or(Vec::new(), |all| all.iter().map(number).collect())
}

pub(crate) fn bytes(json: &Json) -> Vec<u8> {
    json.as_str().map_or(Vec::new(), |text| STANDARD.decode(text).unwrap())
}

pub(crate) fn shape(tensor: &Json) -> Vec<u64> {
    let sizes = tensor["tensor_shape"]["dim"].as_array();
    sizes.map_or(Vec::new(), |all| all.iter().map(|size| number(&size["size"]) as u64).collect())
}

/// Calls `check` with each value of every file: its path, its JSON, and its bytes.
fn values(mut check: impl FnMut(&str, &Json, &[u8])) {
    for file in files() {
        let records = records(&file.bytes);
        assert_eq!(records.len(), file.events.len(), "{}", file.path);
        for (record, event) in records.into_iter().zip(&file.events) {
            let Some(all) = event["summary"]["value"].as_array() else { continue };
            let encoded: Vec<Field> = fields(&field(record, 5));
            assert_eq!(encoded.len(), all.len());
            for (value, (_, bytes)) in all.iter().zip(encoded) {
                check(&file.path, value, &bytes);
            }
        }
    }
}

#[test]
fn every_value_is_encoded_as_by_torch() {
    let mut checked = 0;
    values(|path, json, theirs| {
        let tag = json["tag"].as_str().unwrap();
        let check = |summary: Summary<'_>| {
            assert_eq!(comparable(&encode(tag, summary)), comparable(theirs), "{path}, {tag}");
        };
        let plugin = json["metadata"]["plugin_data"]["plugin_name"].as_str();
        let tensor = &json["tensor"];
        match plugin {
            Some("hparams") => return,
            Some("scalars") if tensor["dtype"] == "DT_FLOAT" => {
                check(Summary::ScalarTensor(number(&tensor["float_val"][0]) as f32));
            }
            Some("scalars") => check(Summary::DoubleTensor(number(&tensor["double_val"][0]))),
            Some("text") => {
                let text = String::from_utf8(bytes(&tensor["string_val"][0])).unwrap();
                check(Summary::Texts(&[&text]));
            }
            Some("tensor") => {
                let numbers = numbers(&tensor["float_val"]).into_iter();
                let content: Vec<u8> = numbers.flat_map(|number| (number as f32).to_le_bytes()).collect();
                check(Summary::Tensor { dtype: DataType::Float32, shape: &shape(tensor), content: &content });
            }
            Some("pr_curves") => {
                let numbers: Vec<f32> = numbers(&tensor["float_val"]).into_iter().map(|n| n as f32).collect();
                let rows: Vec<&[f32]> = numbers.chunks(11).collect();
                check(Summary::PrCurve { rows: rows.try_into().unwrap() });
            }
            Some("custom_scalars") => {
                assert_eq!(tag, LAYOUT);
                let both = ChartContent::Multiline(&["loss/a", "loss/b"]);
                let margin = tfevents::Margin { value: "m/v", lower: "m/lo", upper: "m/hi" };
                let charts = [
                    Chart { title: "both", content: both },
                    Chart { title: "band", content: ChartContent::Margin(&[margin]) },
                ];
                check(Summary::Layout(&[Category { title: "Losses", charts: &charts, is_closed: false }]));
            }
            Some("mesh") => {
                let all = Mesh {
                    name: "mesh",
                    config: "{}",
                    vertices: MeshTensor {
                        shape: [1, 3, 3],
                        values: &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
                    },
                    faces: Some(MeshTensor { shape: [1, 1, 3], values: &[0.0, 1.0, 2.0] }),
                    colors: Some(MeshTensor {
                        shape: [1, 3, 3],
                        values: &[255.0, 0.0, 0.0, 0.0, 255.0, 0.0, 0.0, 0.0, 255.0],
                    }),
                };
                let (_, summary) = all.summaries().find(|(part, _)| part == tag).unwrap();
                check(summary);
            }
            Some(other) => panic!("plugin {other}"),
            None if json.get("simple_value").is_some() => {
                let scalar = number(&json["simple_value"]) as f32;
                check(Summary::Scalar(scalar));
                // To the last byte, as all of it is in order.
                assert_eq!(encode(tag, Summary::Scalar(scalar)), theirs);
            }
            None if json.get("histo").is_some() => {
                let histogram = &json["histo"];
                let of = |name| number(&histogram[name]);
                let (limits, counts) = (numbers(&histogram["bucket_limit"]), numbers(&histogram["bucket"]));
                let summary = Summary::LegacyHistogram {
                    min: of("min"),
                    max: of("max"),
                    num: of("num"),
                    sum: of("sum"),
                    sum_squares: of("sum_squares"),
                    limits: &limits,
                    counts: &counts,
                };
                check(summary);
                assert_eq!(encode(tag, summary), theirs);
            }
            None if json.get("image").is_some() => {
                let image = &json["image"];
                let of = |name| number(&image[name]) as u32;
                let encoded = bytes(&image["encoded_image_string"]);
                let (width, height, colorspace) = (of("width"), of("height"), of("colorspace"));
                let summary = Summary::LegacyImage { width, height, colorspace, encoded: &encoded };
                check(summary);
                assert_eq!(encode(tag, summary), theirs);
            }
            None => {
                let audio = &json["audio"];
                let summary = Summary::LegacyAudio {
                    sample_rate: number(&audio["sample_rate"]) as f32,
                    channels: number(&audio["num_channels"]) as u32,
                    frames: number(&audio["length_frames"]) as u64,
                    encoded: &bytes(&audio["encoded_audio_string"]),
                    content_type: audio["content_type"].as_str().unwrap(),
                };
                check(summary);
                assert_eq!(encode(tag, summary), theirs);
            }
        }
        checked += 1;
    });
    assert_eq!(checked, 41);
}

/// Returns what the plugin of the hyper-parameters keeps of a value: a field of its own for each kind.
fn hparams(value: &[u8], kind: u32) -> Vec<Field> {
    let plugin = field(&field(value, 9), 1);
    assert_eq!(field(&plugin, 1), b"hparams");
    fields(&field(&field(&plugin, 2), kind))
}

#[test]
fn hyper_parameters_are_encoded_as_by_torch() {
    let opt = [Setting::Text("sgd"), Setting::Text("adam")];
    let info = |name, kind| HparamInfo { name, kind, ..HparamInfo::default() };
    let hparam_infos = [
        info("lr", HparamType::Number),
        info("bsize", HparamType::Number),
        HparamInfo { domain: Some(Domain::Discrete(&opt)), ..info("opt", HparamType::Text) },
        info("amp", HparamType::Number),
    ];
    let metric = |tag| MetricInfo { tag, ..MetricInfo::default() };
    let metric_infos = [metric("hparam/acc"), metric("hparam/loss")];
    // In PyTorch's order, which is that of a hash table. A truth value is a number there.
    let settings = [
        ("bsize", Setting::Number(3.0)),
        ("amp", Setting::Number(1.0)),
        ("lr", Setting::Number(0.1)),
        ("opt", Setting::Text("sgd")),
    ];
    let mut checked = 0;
    values(|_, json, theirs| {
        let tag = json["tag"].as_str().unwrap();
        let (summary, kind) = match tag {
            EXPERIMENT => (Summary::Experiment { hparams: &hparam_infos, metrics: &metric_infos }, 2),
            SESSION_START => (Summary::SessionStart { group: "", settings: &settings, began_at: 1.0 }, 3),
            SESSION_END => (Summary::SessionEnd { status: SessionStatus::Success, ended_at: 1.0 }, 4),
            _ => return,
        };
        let mut ours = hparams(&encode(tag, summary), kind);
        // PyTorch tells no times, and no group.
        match tag {
            SESSION_START => ours.retain(|(field, _)| *field == 1),
            SESSION_END => ours.retain(|(field, _)| *field == 1),
            _ => {}
        }
        assert_eq!(ours, hparams(theirs, kind), "{tag}");
        checked += 1;
    });
    assert_eq!(checked, 3);
}

#[test]
fn graphs_and_metadata_of_runs_are_encoded_as_by_torch() {
    let file = files().into_iter().find(|file| file.path.starts_with("graph/")).unwrap();
    let records = records(&file.bytes);
    let mut encoder = Encoder::new();
    let (graph, run) = (&file.events[1], &file.events[2]);
    encoder.add_graph(number(&graph["wall_time"]), 0, &bytes(&graph["graph_def"])).unwrap();
    let metadata = bytes(&run["tagged_run_metadata"]["run_metadata"]);
    encoder.add_run_metadata(number(&run["wall_time"]), 0, "step1", &metadata).unwrap();
    let ours = encoder.take();
    let ours = self::records(&ours);
    assert_eq!(ours.len(), 2);
    assert_eq!((fields(ours[0]), fields(ours[1])), (fields(records[1]), fields(records[2])));
}
