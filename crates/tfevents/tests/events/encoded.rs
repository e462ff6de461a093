//! Messages that were encoded elsewhere, and what the encoder refuses.

use tfevents::{DataType, EncodeError, Encoder, FieldValue, Fields, Mesh, MeshTensor, Summary};

use crate::torch::records;

/// A `Summary` message with one scalar.
fn scalar(tag: &str, value: f32) -> Vec<u8> {
    let mut summary = vec![0x0a, 7 + tag.len() as u8, 0x0a, tag.len() as u8];
    summary.extend_from_slice(tag.as_bytes());
    summary.push(0x15);
    summary.extend_from_slice(&value.to_le_bytes());
    summary
}

/// Returns the last field of an event: what is neither its time nor its step.
fn content(record: &[u8]) -> (u32, &[u8]) {
    match Fields::new(record).last() {
        Some(Ok((number, FieldValue::Bytes(bytes)))) => (number, bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn encoded_summaries_share_the_event_of_their_step_as_they_are() {
    let mut encoder = Encoder::new();
    encoder.add(1.0, 5, "a", Summary::Scalar(1.0)).unwrap();
    let two = [scalar("b", 2.0), scalar("c", 3.0)].concat();
    encoder.add(2.0, 5, "ignored", Summary::Encoded(&two)).unwrap();
    // Of another kind than before, and at an earlier step: both are the business of who encoded it.
    encoder.add(2.0, 4, "ignored", Summary::Encoded(&scalar("a", 4.0))).unwrap();
    encoder.add(2.0, 4, "ignored", Summary::Encoded(&[])).unwrap();
    encoder.add(3.0, 5, "a", Summary::Scalar(5.0)).unwrap();
    let bytes = encoder.take();
    let summaries: Vec<&[u8]> = records(&bytes).into_iter().map(|record| content(record).1).collect();
    assert_eq!(summaries, [[scalar("a", 1.0), two].concat(), scalar("a", 4.0), scalar("a", 5.0)]);
}

#[test]
fn a_value_of_another_time_has_an_event_to_itself_where_that_is_asked_for() {
    for (allowed, times) in [(f64::INFINITY, vec![1.0]), (0.1, vec![1.0, 1.5, 7.0, 6.0])] {
        let mut encoder = Encoder::new().with_shared_time(allowed);
        for time in [1.0, 1.0625, 1.5, 7.0, 6.0, 6.0] {
            encoder.add(time, 5, "a", Summary::Scalar(1.0)).unwrap();
        }
        let bytes = encoder.take();
        let written: Vec<f64> = records(&bytes)
            .into_iter()
            .map(|record| match Fields::new(record).next() {
                Some(Ok((1, FieldValue::Fixed64(bytes)))) => f64::from_le_bytes(bytes),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(written, times);
    }
}

#[test]
fn an_event_holds_64_values_at_most_but_for_an_encoded_one_that_has_more() {
    let mut encoder = Encoder::new();
    let values = |n| scalar("b", 2.0).repeat(n);
    for n in [1, 63, 1, 100, 1] {
        encoder.add(1.0, 5, "", Summary::Encoded(&values(n))).unwrap();
    }
    let bytes = encoder.take();
    let counts: Vec<usize> =
        records(&bytes).into_iter().map(|record| Fields::new(content(record).1).count()).collect();
    assert_eq!(counts, [64, 1, 100, 1]);
}

#[test]
fn a_broken_summary_is_refused_and_leaves_nothing() {
    let good = scalar("a", 1.0);
    let only = "a summary must have values (field 1) alone";
    let ends = "a field must end within the message";
    for (bytes, at, rule) in [
        ([&good[..], &good[..5]].concat(), 12, ends),
        ([&good[..], &[0x0a]].concat(), 11, ends),
        ([&good[..], &[0x12, 0]].concat(), 10, only),
        ([&good[..], &[0x08, 0]].concat(), 10, only),
        (vec![0x0b], 0, "the type of a field must be 0, 1, 2 or 5"),
    ] {
        let mut encoder = Encoder::new();
        let refused = encoder.add(1.0, 0, "run", Summary::Encoded(&bytes));
        assert_eq!(refused, Err(EncodeError::Malformed { tag: "run".to_owned(), at, rule }));
        assert!(encoder.bytes().is_empty());
    }
    let text = EncodeError::Malformed { tag: "run".to_owned(), at: 10, rule: only }.to_string();
    assert_eq!(text, format!("the encoded message of tag \"run\" is broken at byte 10: {only}"));
}

#[test]
fn an_encoded_event_stands_alone_behind_what_came_before() {
    let mut encoder = Encoder::new();
    encoder.add(1.0, 5, "a", Summary::Scalar(1.0)).unwrap();
    let log = [0x3a, 0x02, 0x08, 0x01];
    encoder.add_event(2.0, -3, &log).unwrap();
    encoder.add(3.0, 5, "a", Summary::Scalar(2.0)).unwrap();
    let bytes = encoder.take();
    let records = records(&bytes);
    assert_eq!(records.iter().map(|record| content(record).0).collect::<Vec<_>>(), [5, 7, 5]);
    let fields: Vec<_> = Fields::new(records[1]).map(Result::unwrap).collect();
    let time = FieldValue::Fixed64(2.0_f64.to_le_bytes());
    assert_eq!(fields, [(1, time), (2, FieldValue::Varint(-3_i64 as u64)), (7, FieldValue::Bytes(&[8, 1]))]);
}

#[test]
fn a_broken_event_is_refused_and_leaves_nothing() {
    let own = "the time and the step must not be among the fields";
    for (parts, at, rule) in [
        (&[0x3a, 0x02, 0x08, 0x01, 0x10, 0x05][..], 4, own),
        (&[0x09, 0, 0, 0, 0, 0, 0, 0, 0], 0, own),
        (&[0x3a, 0x02, 0x08], 2, "a field must end within the message"),
    ] {
        let mut encoder = Encoder::new();
        let refused = encoder.add_event(1.0, 0, parts);
        assert_eq!(refused, Err(EncodeError::Malformed { tag: String::new(), at, rule }));
        assert!(encoder.bytes().is_empty());
    }
    let mut encoder = Encoder::new();
    for time in [f64::NAN, f64::INFINITY] {
        assert!(matches!(encoder.add_event(time, 0, &[]), Err(EncodeError::NotFinite { .. })));
        assert!(matches!(encoder.add_graph(time, 0, &[]), Err(EncodeError::NotFinite { .. })));
        assert!(matches!(encoder.add_run_metadata(time, 0, "", &[]), Err(EncodeError::NotFinite { .. })));
        let encoded = encoder.add(time, 0, "", Summary::Encoded(&[]));
        assert!(matches!(encoded, Err(EncodeError::NotFinite { .. })));
    }
    assert!(encoder.bytes().is_empty());
}

#[test]
fn steps_go_backward_where_that_is_allowed() {
    let mut encoder = Encoder::new();
    encoder.add(1.0, 5, "a", Summary::Scalar(1.0)).unwrap();
    let refused = encoder.add(1.0, 4, "a", Summary::Scalar(1.0));
    assert_eq!(refused, Err(EncodeError::Backward { tag: "a".to_owned(), step: 4, last: 5 }));
    let mut encoder = encoder.with_backward_steps(true);
    encoder.add(1.0, 4, "a", Summary::Scalar(1.0)).unwrap();
    encoder.add(1.0, -4, "a", Summary::Scalar(1.0)).unwrap();
    assert_eq!(records(encoder.bytes()).len(), 3);
    // Values without a step still go on behind all others.
    assert_eq!(encoder.next_step("a"), 6);
}

#[test]
fn a_tensor_must_have_the_numbers_of_its_shape() {
    let mut encoder = Encoder::new();
    let mut add = |dtype, shape: &[u64], content: &[u8]| {
        encoder.add(1.0, 0, "t", Summary::Tensor { dtype, shape, content })
    };
    let wrong = |due, got| Err(EncodeError::WrongLength { tag: "t".to_owned(), due, got });
    assert_eq!(add(DataType::Float32, &[2, 3], &[0; 23]), wrong(24, 23));
    assert_eq!(add(DataType::Float64, &[], &[0; 4]), wrong(8, 4));
    assert_eq!(add(DataType::Uint8, &[u64::MAX, u64::MAX], &[]), wrong(u64::MAX, 0));
    assert_eq!(add(DataType::String, &[0], &[]), Err(EncodeError::Strings { tag: "t".to_owned() }));
    assert_eq!(add(DataType::Float32, &[2, 3], &[0; 24]), Ok(()));
    assert_eq!(add(DataType::Float32, &[2, 0], &[]), Ok(()));
    let vertices = MeshTensor { shape: [1, 2, 3], values: &[0.0; 5] };
    let mesh = Mesh { name: "m", config: "{}", vertices, faces: None, colors: None };
    let all: Vec<_> = mesh.summaries().collect();
    assert_eq!(all.iter().map(|(tag, _)| &**tag).collect::<Vec<_>>(), ["m_VERTEX"]);
    let refused = encoder.add(1.0, 0, "m_VERTEX", all[0].1);
    assert_eq!(refused, Err(EncodeError::WrongLength { tag: "m_VERTEX".to_owned(), due: 24, got: 20 }));
}

#[test]
fn a_tag_keeps_the_form_of_its_kind() {
    let mut encoder = Encoder::new();
    let image = Summary::Image { width: 1, height: 1, encoded: b"GIF89a" };
    let legacy = Summary::LegacyImage { width: 1, height: 1, colorspace: 3, encoded: b"GIF89a" };
    encoder.add(1.0, 0, "image", image).unwrap();
    let refused = encoder.add(1.0, 0, "image", legacy);
    assert_eq!(refused, Err(EncodeError::OtherKind { tag: "image".to_owned() }));
    // The forms of scalars mix, because the tensors tell their plugin each time.
    encoder.clear();
    encoder.add(1.0, 0, "loss", Summary::Scalar(1.0)).unwrap();
    for _ in 0..2 {
        encoder.add(1.0, 0, "loss", Summary::ScalarTensor(1.0)).unwrap();
    }
    let plugins = encoder.bytes().windows(7).filter(|bytes| *bytes == b"scalars").count();
    assert_eq!(plugins, 2);
}
