//! The encoder of scalars as it was before it kept what stands before a number: the same bytes, by a hash for each scalar. What the
//! encoder of today is measured against; nothing else uses it.

use std::collections::HashMap;

use tfevents::masked_crc32c;

/// Largest number of values in one event, and the size at which it takes no further one.
const MAX_VALUES: usize = 64;
const MAX_EVENT_BYTES: usize = 1 << 20;

struct Tag {
    last_step: Option<i64>,
    largest_step: i64,
    described_in: u64,
}

struct Open {
    wall_time: f64,
    step: i64,
    values: usize,
}

#[derive(Default)]
pub(crate) struct FormerEncoder {
    out: Vec<u8>,
    tags: HashMap<Box<str>, Tag>,
    tag_bytes: usize,
    file: u64,
    values: Vec<u8>,
    open: Option<Open>,
}

/// Why a scalar was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refused {
    NotFinite,
    Backward,
    TooManyTags,
}

impl FormerEncoder {
    pub(crate) fn add(&mut self, wall_time: f64, step: i64, tag: &str, scalar: f32) -> Result<(), Refused> {
        if !wall_time.is_finite() {
            return Err(Refused::NotFinite);
        }
        let has_room = self.tags.len() < 100_000;
        let _is_new = match self.tags.get_mut(tag) {
            Some(known) => {
                if known.last_step.filter(|last| step < *last).is_some() {
                    return Err(Refused::Backward);
                }
                known.last_step = Some(step);
                known.largest_step = known.largest_step.max(step);
                std::mem::replace(&mut known.described_in, self.file) != self.file
            }
            None if !has_room || tag.len() > (16_usize << 20).saturating_sub(self.tag_bytes) => {
                return Err(Refused::TooManyTags);
            }
            None => {
                self.tag_bytes += tag.len();
                let known = Tag { last_step: Some(step), largest_step: step, described_in: self.file };
                self.tags.insert(tag.into(), known);
                true
            }
        };
        match &mut self.open {
            Some(open)
                if open.step == step && open.values < MAX_VALUES && self.values.len() < MAX_EVENT_BYTES =>
            {
                open.values += 1;
            }
            _ => {
                self.close_event();
                self.open = Some(Open { wall_time, step, values: 1 });
            }
        }
        push_scalar(&mut self.values, tag, scalar);
        Ok(())
    }

    pub(crate) fn bytes(&mut self) -> &[u8] {
        self.close_event();
        &self.out
    }

    pub(crate) fn clear(&mut self) {
        reset(&mut self.out);
        reset(&mut self.values);
        self.open = None;
    }

    fn close_event(&mut self) {
        let Some(open) = self.open.take() else { return };
        push_record(&mut self.out, |event| {
            fixed64(event, 1, open.wall_time);
            if open.step != 0 {
                event.push(2 << 3);
                push_varint(event, open.step as u64);
            }
            bytes(event, 5, &self.values);
        });
        reset(&mut self.values);
    }
}

fn reset(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(1 << 20);
}

fn push_scalar(values: &mut Vec<u8>, tag: &str, scalar: f32) {
    const SIMPLE_VALUE: usize = 5;
    let tag_length = 1 + varint_size(tag.len() as u64) + tag.len();
    values.reserve(tag_length + SIMPLE_VALUE + 11);
    values.push(1 << 3 | 2);
    push_varint(values, (tag_length + SIMPLE_VALUE) as u64);
    bytes(values, 1, tag.as_bytes());
    values.push(2 << 3 | 5);
    values.extend_from_slice(&scalar.to_le_bytes());
}

fn fixed64(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    push_varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint_size(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn push_record(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    const HEADER: usize = 12;
    let begin = out.len();
    out.extend_from_slice(&[0; HEADER]);
    write(out);
    let length = ((out.len() - begin - HEADER) as u64).to_le_bytes();
    out[begin..begin + 8].copy_from_slice(&length);
    out[begin + 8..begin + HEADER].copy_from_slice(&masked_crc32c(&length).to_le_bytes());
    let checksum = masked_crc32c(&out[begin + HEADER..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}
