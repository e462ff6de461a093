//! Files that are read while they are written.

use std::io::{self, Read};

use tfevents::{DamageReason, Encoder, OnDamage, ReadError, Reader, Summary};

/// Source of which the first `there` bytes are there, in pieces of up to `piece` bytes.
pub(crate) struct Growing<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) there: usize,
    pub(crate) read: usize,
    pub(crate) piece: usize,
}

impl<'a> Growing<'a> {
    pub(crate) fn new(bytes: &'a [u8], there: usize, piece: usize) -> Self {
        Self { bytes, there, read: 0, piece }
    }
}

impl Read for Growing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = (self.there - self.read).min(self.piece).min(buffer.len());
        buffer[..bytes].copy_from_slice(&self.bytes[self.read..self.read + bytes]);
        self.read += bytes;
        Ok(bytes)
    }
}

/// A small file: its bytes, and where each record begins.
pub(crate) fn small_file() -> (Vec<u8>, Vec<usize>) {
    let mut encoder = Encoder::new();
    encoder.begin_file(1.0, 0);
    encoder.add(1.0, 1, "loss", Summary::Scalar(0.5)).unwrap();
    encoder.add(1.0, 2, "loss", Summary::Scalar(0.25)).unwrap();
    encoder.add(1.0, 3, "note", Summary::Text("hello")).unwrap();
    encoder.add(1.0, 4, "bins", Summary::Histogram { edges: &[0.0, 1.0, 2.0], counts: &[3, 4] }).unwrap();
    encoder.add(1.0, 5, "loss", Summary::Scalar(0.125)).unwrap();
    let file = encoder.take();
    let mut begins = Vec::new();
    let mut reader = Reader::new(&file[..]);
    while let Some(record) = reader.next_record().unwrap() {
        begins.push(record.offset as usize);
    }
    assert_eq!(begins.len(), 7);
    (file, begins)
}

#[test]
fn an_event_is_there_with_its_last_byte() {
    let (file, begins) = small_file();
    for on_damage in [OnDamage::Stop, OnDamage::Resync] {
        let mut reader = Reader::new(Growing::new(&file, 0, 1)).on_damage(on_damage);
        let mut events = 0;
        for there in 0..=file.len() {
            reader.source_mut().there = there;
            while reader.next_event().unwrap().is_some() {
                events += 1;
            }
            let whole = begins[1..].iter().chain([&file.len()]).filter(|end| **end <= there).count();
            assert_eq!(events, whole, "{there} bytes");
        }
        assert_eq!(reader.skipped().bytes, 0);
    }
}

#[test]
fn an_error_of_the_source_is_told_and_the_reader_goes_on() {
    struct Failing<'a>(Growing<'a>, u32);
    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 % 3 {
                0 => Err(io::ErrorKind::Interrupted.into()),
                1 => Err(io::ErrorKind::WouldBlock.into()),
                _ => self.0.read(buffer),
            }
        }
    }
    let (file, begins) = small_file();
    let mut reader = Reader::new(Failing(Growing::new(&file, file.len(), 7), 0));
    let (mut events, mut errors) = (0, 0);
    while events < begins.len() {
        match reader.next_event() {
            Ok(event) => events += usize::from(event.is_some()),
            Err(ReadError::Io(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                errors += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(errors > 10);
    assert_eq!(reader.offset(), file.len() as u64);
}

#[test]
fn a_source_that_claims_more_than_it_was_given_room_for_does_no_harm() {
    struct Liar;
    impl Read for Liar {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len() + 1)
        }
    }
    let mut reader = Reader::new(Liar);
    assert!(matches!(reader.next_event(), Err(ReadError::Damaged(_))));
}

#[test]
fn a_short_end_is_damage_once_the_file_is_finished() {
    let (file, begins) = small_file();
    for end in 0..file.len() {
        let whole = begins[1..].iter().filter(|begin| **begin <= end).count();
        let is_short = !begins.contains(&end);
        for on_damage in [OnDamage::Stop, OnDamage::Resync] {
            let mut reader = Reader::new(&file[..end]).on_damage(on_damage);
            (0..whole).for_each(|_| assert!(reader.next_event().unwrap().is_some()));
            assert!(reader.next_event().unwrap().is_none());
            reader.finish();
            let last = reader.next_event().map(|event| event.is_some());
            match last {
                Err(ReadError::Damaged(damage)) if is_short && on_damage == OnDamage::Stop => {
                    assert_eq!(
                        (damage.offset, damage.reason),
                        (begins[whole] as u64, DamageReason::Truncated)
                    );
                }
                Ok(false) => assert!(!is_short || on_damage == OnDamage::Resync),
                other => panic!("{other:?}"),
            }
            if on_damage == OnDamage::Resync {
                let begin = begins.get(whole).copied().unwrap_or(file.len());
                assert_eq!(reader.skipped().bytes, (end - begin) as u64);
            }
        }
    }
}
