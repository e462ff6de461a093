//! A property: what was encoded is decoded as it was, whatever it is.

use proptest::collection::vec;
use proptest::prelude::*;
use tfevents::{
    Category, Chart, ChartContent, DataType, DatasetType, Domain, Encoder, EventContent, FieldValue, Fields,
    HparamInfo, HparamType, Hparams, Margin, Mesh, MeshTensor, MetricInfo, Reader, SessionStatus, Setting,
    Summary, Tensor, Value, ValueContent,
};

/// Encodes a value and calls `check` with what comes back.
fn round_trip(time: f64, step: i64, tag: &str, summary: Summary<'_>, check: impl FnOnce(&Value<'_>)) {
    let mut encoder = Encoder::new();
    encoder.add(time, step, tag, summary).unwrap();
    let file = encoder.take();
    let mut reader = Reader::new(&file[..]);
    let event = reader.next_event().unwrap().unwrap();
    assert_eq!((event.wall_time.to_bits(), event.step, event.writer), (time.to_bits(), step, ""));
    let EventContent::Summary(mut values) = event.content else { panic!("{:?}", event.content) };
    let value = values.next().unwrap();
    assert_eq!((value.tag, values.next()), (tag, None));
    check(&value);
    assert!(reader.next_event().unwrap().is_none());
}

fn tensor<'a>(value: &Value<'a>) -> Tensor<'a> {
    match value.content {
        ValueContent::Tensor(tensor) => tensor,
        ref other => panic!("{other:?}"),
    }
}

fn shape(value: &Value<'_>) -> Vec<u64> {
    tensor(value).shape().collect()
}

/// Numbers by their bits, so that NaN is itself.
fn bits(numbers: impl IntoIterator<Item = f64>) -> Vec<u64> {
    numbers.into_iter().map(f64::to_bits).collect()
}

fn floats(numbers: &[f32]) -> Vec<u64> {
    // Through the same conversion as the decoder: that of a NaN may change its bits.
    bits(numbers.iter().map(|number| f64::from(*number)))
}

fn any_f64() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

fn any_f32() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits)
}

fn finite() -> impl Strategy<Value = f64> {
    any_f64().prop_filter("finite", |number| number.is_finite())
}

/// Setting that owns its text.
#[derive(Debug, Clone)]
enum Owned {
    Number(f64),
    Bool(bool),
    Text(String),
}

impl Owned {
    fn borrow(&self) -> Setting<'_> {
        match self {
            Self::Number(number) => Setting::Number(*number),
            Self::Bool(is) => Setting::Bool(*is),
            Self::Text(text) => Setting::Text(text),
        }
    }
}

fn setting() -> impl Strategy<Value = Owned> {
    prop_oneof![
        finite().prop_map(Owned::Number),
        any::<bool>().prop_map(Owned::Bool),
        any::<String>().prop_map(Owned::Text)
    ]
}

fn dtype() -> impl Strategy<Value = DataType> {
    (0_u64..=23).prop_filter_map("a type of numbers", |number| {
        DataType::from_number(number).filter(|dtype| dtype.size().is_some())
    })
}

/// Returns the one message in a field, or all in order.
fn messages(message: &[u8], field: u32) -> Vec<&[u8]> {
    let found = Fields::new(message).filter_map(|found| match found.unwrap() {
        (number, FieldValue::Bytes(bytes)) if number == field => Some(bytes),
        _ => None,
    });
    found.collect()
}

fn text_in(message: &[u8], field: u32) -> &str {
    messages(message, field).first().map_or("", |bytes| std::str::from_utf8(bytes).unwrap())
}

fn number_in(message: &[u8], field: u32) -> u64 {
    let found = Fields::new(message).find_map(|found| match found.unwrap() {
        (number, FieldValue::Varint(value)) if number == field => Some(value),
        _ => None,
    });
    found.unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn scalars(time in finite(), step in any::<i64>(), tag: String, scalar in any_f32(), double in any_f64()) {
        round_trip(time, step, &tag, Summary::Scalar(scalar), |value| {
            let ValueContent::Scalar(found) = value.content else { panic!("{value:?}") };
            assert_eq!((found.to_bits(), value.metadata), (scalar.to_bits(), None));
        });
        round_trip(time, step, &tag, Summary::ScalarTensor(scalar), |value| {
            assert_eq!(bits(value.scalar()), floats(&[scalar]));
        });
        round_trip(time, step, &tag, Summary::DoubleTensor(double), |value| {
            assert_eq!(bits(value.scalar()), bits([double]));
        });
    }

    #[test]
    fn texts(time in finite(), step in any::<i64>(), tag: String, texts in vec(any::<String>(), 0..5)) {
        let texts: Vec<&str> = texts.iter().map(|text| &**text).collect();
        round_trip(time, step, &tag, Summary::Texts(&texts), |value| {
            assert!(tensor(value).strings().eq(texts.iter().map(|text| text.as_bytes())));
            assert_eq!((shape(value), value.plugin()), (vec![texts.len() as u64], Some("text")));
        });
        if let Some(text) = texts.first() {
            round_trip(time, step, &tag, Summary::Text(text), |value| {
                assert!(tensor(value).strings().eq([text.as_bytes()]));
                assert!(shape(value).is_empty());
            });
        }
    }

    #[test]
    fn distributions(
        tag: String,
        bins in vec((any_f64(), 0_u64..1 << 53, any_f64()), 0..20),
        sums in any::<[u64; 5]>(),
    ) {
        let mut edges: Vec<f64> = bins.iter().map(|bin| bin.0).collect();
        let counts: Vec<u64> = bins.iter().map(|bin| bin.1).collect();
        let limits = edges.clone();
        edges.push(sums[0] as f64);
        round_trip(1.0, 2, &tag, Summary::Histogram { edges: &edges, counts: &counts }, |value| {
            let found: Vec<(u64, u64, f64)> =
                value.bins().unwrap().map(|(left, right, count)| (left.to_bits(), right.to_bits(), count)).collect();
            let due: Vec<(u64, u64, f64)> = edges
                .windows(2)
                .zip(&counts)
                .map(|(edges, count)| (edges[0].to_bits(), edges[1].to_bits(), *count as f64))
                .collect();
            assert_eq!(found, due);
        });
        let counts: Vec<f64> = bins.iter().map(|bin| bin.2).collect();
        let [min, max, num, sum, sum_squares] = sums.map(f64::from_bits);
        let summary =
            Summary::LegacyHistogram { min, max, num, sum, sum_squares, limits: &limits, counts: &counts };
        round_trip(1.0, 2, &tag, summary, |value| {
            let ValueContent::Histogram(found) = value.content else { panic!("{value:?}") };
            assert_eq!([found.min, found.max, found.num, found.sum, found.sum_squares].map(f64::to_bits), sums);
            assert_eq!((bits(found.limits()), bits(found.counts())), (bits(limits.clone()), bits(counts.clone())));
            assert_eq!(value.bins().unwrap().count(), counts.len());
        });
    }

    #[test]
    fn pictures_and_sounds(
        width: u32, height: u32, colorspace: u32, frames in 0..u64::MAX / 2, rate in any_f32(),
        encoded: Vec<u8>, content_type: String,
    ) {
        round_trip(1.0, 2, "t", Summary::Image { width, height, encoded: &encoded }, |value| {
            let found = value.image().unwrap();
            assert_eq!((found.width, found.height, found.encoded), (width, height, &*encoded));
            assert_eq!(shape(value), [3]);
        });
        round_trip(1.0, 2, "t", Summary::LegacyImage { width, height, colorspace, encoded: &encoded }, |value| {
            assert_eq!(value.image(), Some(tfevents::Image { width, height, colorspace, encoded: &encoded }));
        });
        round_trip(1.0, 2, "t", Summary::Audio { wav: &encoded }, |value| {
            assert!(tensor(value).strings().eq([&*encoded, b""]));
            assert_eq!((shape(value), value.plugin()), (vec![1, 2], Some("audio")));
        });
        let summary = Summary::LegacyAudio {
            sample_rate: rate, channels: width, frames, encoded: &encoded, content_type: &content_type,
        };
        round_trip(1.0, 2, "t", summary, |value| {
            let ValueContent::Audio(found) = value.content else { panic!("{value:?}") };
            assert_eq!((found.channels, found.frames), (u64::from(width), frames));
            assert_eq!(found.sample_rate.to_bits(), rate.to_bits());
            assert_eq!((found.encoded, found.content_type), (&*encoded, &*content_type));
        });
    }

    #[test]
    fn tensors(dtype in dtype(), dimensions in vec(0_u64..4, 0..4), seed: u8) {
        let size = dimensions.iter().product::<u64>() as usize * dtype.size().unwrap();
        let content: Vec<u8> = (0..size).map(|n| (n as u8).wrapping_mul(37).wrapping_add(seed)).collect();
        round_trip(1.0, 2, "t", Summary::Tensor { dtype, shape: &dimensions, content: &content }, |value| {
            let found = tensor(value);
            assert_eq!((found.dtype, found.content, shape(value)), (Some(dtype), &*content, dimensions.clone()));
            let is_complex = matches!(dtype, DataType::Complex64 | DataType::Complex128);
            let numbers = if is_complex { 0 } else { dimensions.iter().product::<u64>() };
            assert_eq!(found.numbers().count() as u64, numbers);
        });
    }

    #[test]
    fn curves_and_meshes(
        numbers in vec(any_f32(), 0..60), name: String, config: String, has_faces: bool, has_colors: bool,
    ) {
        let columns = numbers.len() / 6;
        let mut rows = [&numbers[..0]; 6];
        for (row, numbers) in rows.iter_mut().zip(numbers.chunks(columns.max(1))) {
            *row = &numbers[..columns];
        }
        round_trip(1.0, 2, "t", Summary::PrCurve { rows }, |value| {
            assert_eq!(shape(value), [6, columns as u64]);
            assert_eq!(bits(tensor(value).numbers()), floats(&rows.concat()));
            let content = value.metadata.unwrap().plugin_content;
            assert_eq!((number_in(content, 2), value.plugin()), (columns as u64, Some("pr_curves")));
        });
        let points = numbers.len() / 3;
        let part = MeshTensor { shape: [1, points as u64, 3], values: &numbers[..3 * points] };
        let faces = Some(part).filter(|_| has_faces);
        let colors = Some(part).filter(|_| has_colors);
        let mesh = Mesh { name: &name, config: &config, vertices: part, faces, colors };
        let mut parts = 0;
        for (tag, summary) in mesh.summaries() {
            parts += 1;
            round_trip(1.0, 2, &tag, summary, |value| {
                let content = value.metadata.unwrap().plugin_content;
                assert_eq!(bits(tensor(value).numbers()), floats(part.values));
                assert_eq!((shape(value), value.plugin()), (part.shape.to_vec(), Some("mesh")));
                assert_eq!((text_in(content, 2), text_in(content, 5)), (&*name, &*config));
                let there = 2 | u64::from(has_faces) << 2 | u64::from(has_colors) << 3;
                assert_eq!(number_in(content, 7), there);
                let kind = [(1, "_VERTEX"), (2, "_FACE"), (3, "_COLOR")][number_in(content, 3) as usize - 1];
                assert_eq!(tag, format!("{name}{}", kind.1));
            });
        }
        assert_eq!(parts, 1 + u64::from(has_faces) + u64::from(has_colors));
    }

    #[test]
    fn layouts(title: String, tags in vec(any::<String>(), 0..4), is_closed: bool) {
        let tags: Vec<&str> = tags.iter().map(|tag| &**tag).collect();
        let margins: Vec<Margin<'_>> =
            tags.iter().map(|tag| Margin { value: tag, lower: &title, upper: tag }).collect();
        let charts = [
            Chart { title: "lines", content: ChartContent::Multiline(&tags) },
            Chart { title: &title, content: ChartContent::Margin(&margins) },
        ];
        let category = Category { title: &title, charts: &charts, is_closed };
        round_trip(1.0, 0, tfevents::LAYOUT, Summary::Layout(&[category, category]), |value| {
            let layout = tensor(value).strings().next().unwrap();
            let categories = messages(layout, 2);
            assert_eq!((categories.len(), value.plugin()), (2, Some("custom_scalars")));
            for found in categories {
                assert_eq!((text_in(found, 1), number_in(found, 3)), (&*title, u64::from(is_closed)));
                let charts = messages(found, 2);
                assert_eq!((text_in(charts[0], 1), text_in(charts[1], 1)), ("lines", &*title));
                let lines = messages(messages(charts[0], 2)[0], 1);
                assert!(lines.into_iter().eq(tags.iter().map(|tag| tag.as_bytes())));
                let found: Vec<Margin<'_>> = messages(messages(charts[1], 3)[0], 1)
                    .into_iter()
                    .map(|series| Margin {
                        value: text_in(series, 1),
                        lower: text_in(series, 2),
                        upper: text_in(series, 3),
                    })
                    .collect();
                assert_eq!(found, margins);
            }
        });
    }

    #[test]
    fn hyper_parameters(
        group: String, all in vec((any::<String>(), setting()), 0..6), time in finite(), min in finite(), max in finite(),
    ) {
        let settings: Vec<(&str, Setting<'_>)> =
            all.iter().map(|(name, setting)| (&**name, setting.borrow())).collect();
        round_trip(1.0, 0, "t", Summary::SessionStart { group: &group, settings: &settings, began_at: time }, |value| {
            match value.metadata.unwrap().hparams() {
                Ok(Some(Hparams::SessionStart { group: found, settings: all, began_at })) => {
                    assert_eq!((found, began_at.to_bits()), (&*group, time.to_bits()));
                    assert_eq!(all.collect::<Vec<_>>(), settings);
                }
                other => panic!("{other:?}"),
            }
        });
        for status in [SessionStatus::Success, SessionStatus::Failure, SessionStatus::Running] {
            round_trip(1.0, 0, "t", Summary::SessionEnd { status, ended_at: time }, |value| {
                let found = value.metadata.unwrap().hparams();
                assert_eq!(found, Ok(Some(Hparams::SessionEnd { status: Some(status), ended_at: time })));
            });
        }
        let values: Vec<Setting<'_>> = settings.iter().map(|(_, setting)| *setting).collect();
        let domains = [None, Some(Domain::Discrete(&values)), Some(Domain::Interval { min, max })];
        let hparams = domains.map(|domain| HparamInfo {
            name: &group, display_name: "shown", description: "said", kind: HparamType::Number, domain,
        });
        let metric = MetricInfo {
            tag: &group, group: "g", display_name: "shown", description: "said", dataset: DatasetType::Validation,
        };
        round_trip(1.0, 0, "t", Summary::Experiment { hparams: &hparams, metrics: &[metric] }, |value| {
            let Ok(Some(Hparams::Experiment(experiment))) = value.metadata.unwrap().hparams() else { panic!() };
            let found = messages(experiment, 4);
            assert_eq!(found.len(), 3);
            for info in &found {
                let texts = (text_in(info, 1), text_in(info, 2), text_in(info, 3), number_in(info, 4));
                assert_eq!(texts, (&*group, "shown", "said", 3));
            }
            let list = messages(messages(found[1], 5)[0], 1);
            assert_eq!(list.len(), values.len());
            for (bytes, setting) in list.into_iter().zip(&values) {
                let due = match setting {
                    Setting::Number(number) => (2, FieldValue::Fixed64(number.to_le_bytes())),
                    Setting::Text(text) => (3, FieldValue::Bytes(text.as_bytes())),
                    Setting::Bool(is) => (4, FieldValue::Varint(u64::from(*is))),
                };
                assert_eq!(Fields::new(bytes).collect::<Vec<_>>(), [Ok(due)]);
            }
            let interval: Vec<_> = Fields::new(messages(found[2], 6)[0]).map(Result::unwrap).collect();
            let ends = [min, max].map(|end| FieldValue::Fixed64(end.to_le_bytes()));
            assert_eq!(interval, [(1, ends[0]), (2, ends[1])]);
            let found = messages(experiment, 5)[0];
            let name = messages(found, 1)[0];
            let texts = (text_in(name, 1), text_in(name, 2), text_in(found, 3), text_in(found, 4), number_in(found, 5));
            assert_eq!(texts, ("g", &*group, "shown", "said", 2));
        });
    }

    #[test]
    fn graphs_and_encoded_events(time in finite(), step: i64, tag: String, bytes: Vec<u8>) {
        let mut encoder = Encoder::new();
        encoder.begin_file(time, step);
        encoder.add_graph(time, step, &bytes).unwrap();
        encoder.add_run_metadata(time, step, &tag, &bytes).unwrap();
        encoder.add_event(time, step, b"\x3a\x04\x08\x02\x1a\x00").unwrap();
        let file = encoder.take();
        let mut reader = Reader::new(&file[..]);
        let version = reader.next_event().unwrap().unwrap();
        assert_eq!(version.content, EventContent::FileVersion("brain.Event:2"));
        assert!(version.writer.starts_with("tfevents "));
        let log = |state| EventContent::SessionLog { state, checkpoint_path: "", message: "" };
        for due in [
            log(tfevents::SessionState::Start),
            EventContent::GraphDef(&bytes),
            EventContent::TaggedRunMetadata { tag: &tag, run_metadata: &bytes },
            log(tfevents::SessionState::Stop),
        ] {
            let event = reader.next_event().unwrap().unwrap();
            assert_eq!((event.wall_time.to_bits(), event.step), (time.to_bits(), step));
            assert_eq!(event.content, due);
        }
        assert!(reader.next_event().unwrap().is_none());
    }

    #[test]
    fn many_values(all in vec((0_u8..5, 0_i64..3, any_f32()), 0..300)) {
        let mut encoder = Encoder::new().with_backward_steps(true);
        for (tag, step, scalar) in &all {
            encoder.add(1.5, *step, &format!("tag/{tag}"), Summary::Scalar(*scalar)).unwrap();
        }
        let file = encoder.take();
        let mut reader = Reader::new(&file[..]);
        let mut found = Vec::new();
        while let Some(event) = reader.next_event().unwrap() {
            let EventContent::Summary(values) = event.content else { panic!() };
            assert!(values.clone().count() <= 64);
            for value in values {
                let ValueContent::Scalar(scalar) = value.content else { panic!() };
                found.push((value.tag.to_owned(), event.step, scalar.to_bits()));
            }
        }
        let due: Vec<(String, i64, u32)> =
            all.iter().map(|(tag, step, scalar)| (format!("tag/{tag}"), *step, scalar.to_bits())).collect();
        assert_eq!(found, due);
    }
}
