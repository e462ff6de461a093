//! Scalars take a path of their own: it must write what a plain encoder writes, byte by byte.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tfevents::{Encoder, Summary, masked_crc32c};

/// An encoder as simple as can be.
#[derive(Default)]
struct Simple {
    file: Vec<u8>,
    last_steps: HashMap<String, i64>,
    open: Option<(f64, i64, usize)>,
    values: Vec<u8>,
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(out: &mut Vec<u8>, key: u8, content: &[u8]) {
    out.push(key);
    number(out, content.len() as u64);
    out.extend_from_slice(content);
}

impl Simple {
    fn add(&mut self, time: f64, step: i64, tag: &str, scalar: f32) -> bool {
        if self.last_steps.get(tag).is_some_and(|last| step < *last) {
            return false;
        }
        self.last_steps.insert(tag.to_owned(), step);
        match &mut self.open {
            Some((_, open, values)) if *open == step && *values < 64 => *values += 1,
            _ => {
                self.close();
                self.open = Some((time, step, 1));
            }
        }
        let mut value = Vec::new();
        message(&mut value, 0x0a, tag.as_bytes());
        value.push(0x15);
        value.extend_from_slice(&scalar.to_le_bytes());
        message(&mut self.values, 0x0a, &value);
        true
    }

    fn close(&mut self) {
        let Some((time, step, _)) = self.open.take() else { return };
        let mut event = vec![0x09];
        event.extend_from_slice(&time.to_le_bytes());
        if step != 0 {
            event.push(0x10);
            number(&mut event, step as u64);
        }
        message(&mut event, 0x2a, &self.values);
        self.values.clear();
        let length = (event.len() as u64).to_le_bytes();
        for part in
            [&length[..], &masked_crc32c(&length).to_le_bytes(), &event, &masked_crc32c(&event).to_le_bytes()]
        {
            self.file.extend_from_slice(part);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn scalars_of_any_tags_in_any_order_are_written_as_by_a_simple_encoder(
        tags in vec(any::<String>(), 1..6),
        all in vec((any::<prop::sample::Index>(), 0_i64..4, any::<u32>()), 0..400),
        first in prop_oneof![Just(0_i64), Just(-2), Just(126), any::<i64>().prop_map(|step| step / 2)],
        time in any::<f64>().prop_filter("finite", |time| time.is_finite()),
    ) {
        let (mut encoder, mut simple) = (Encoder::new(), Simple::default());
        for (n, (tag, step, bits)) in all.iter().enumerate() {
            // Mostly forward; what goes backward in its tag is refused by both.
            let step = first + n as i64 / 8 + step;
            let (tag, scalar) = (&*tags[tag.index(tags.len())], f32::from_bits(*bits));
            let is_added = encoder.add(time, step, tag, Summary::Scalar(scalar)).is_ok();
            prop_assert_eq!(is_added, simple.add(time, step, tag, scalar));
        }
        simple.close();
        prop_assert_eq!(encoder.bytes(), &*simple.file);
    }
}

#[test]
fn tags_that_come_in_turn_and_then_otherwise_keep_their_names() {
    let tags: Vec<String> = (0..50).map(|n| format!("tag/{n}")).collect();
    let (mut encoder, mut simple) = (Encoder::new(), Simple::default());
    let mut add = |step: i64, tag: &str| {
        encoder.add(1.0, step, tag, Summary::Scalar(step as f32)).unwrap();
        simple.add(1.0, step, tag, step as f32);
    };
    for step in 0..10 {
        tags.iter().for_each(|tag| add(step, tag));
    }
    for step in 10..20 {
        tags.iter().rev().for_each(|tag| add(step, tag));
        tags.iter().step_by(7).for_each(|tag| add(step, tag));
        // One that begins like another, and one of the same length.
        add(step, "tag/");
        add(step, "tag/1x");
        add(step, "");
    }
    simple.close();
    assert_eq!(encoder.bytes(), simple.file);
}
