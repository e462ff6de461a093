//! Files that were changed at random, by numbers that are the same in every run.
//!
//! One run takes a file that PyTorch or this crate wrote, changes it, and reads it in pieces, under a policy and a bound. Half of the
//! changed files get new checksums, so that what lies behind those is changed too.

use std::collections::HashSet;
use std::io::{self, Read};

use tfevents::{EventContent, Fields, OnDamage, ReadError, Reader, ValueContent, masked_crc32c};

/// Numbers that look random: SplitMix64.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ number >> 31
    }

    /// Returns a number below `end`, and 0 for 0.
    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }
}

/// Source that gives pieces of any size, and now and then an error.
struct Pieces<'a> {
    bytes: &'a [u8],
    numbers: Numbers,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.numbers.below(16) == 0 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = 1 << self.numbers.below(14);
        let size = (1 + self.numbers.below(most)).min(buffer.len());
        self.bytes.read(&mut buffer[..size])
    }
}

/// The files that are changed.
pub(crate) struct Corpus {
    files: Vec<Vec<u8>>,
    /// The data of all records in them.
    known: HashSet<Vec<u8>>,
}

impl Corpus {
    pub(crate) fn new(files: Vec<Vec<u8>>) -> Self {
        let mut known = HashSet::new();
        for file in &files {
            let mut reader = Reader::new(&file[..]);
            while let Ok(Some(record)) = reader.next_record() {
                known.insert(record.data().to_vec());
            }
        }
        assert!(known.len() > 20, "too few records: {}", known.len());
        Self { files, known }
    }

    /// Changes one file and reads it; panics where a promise does not hold. Returns how many events were found.
    pub(crate) fn run(&self, seed: u64) -> u64 {
        let mut numbers = Numbers(seed);
        let is_reframed = numbers.below(2) == 0;
        let file = if is_reframed { self.reframed(&mut numbers) } else { self.changed(&mut numbers) };
        let on_damage = if numbers.below(4) == 0 { OnDamage::Stop } else { OnDamage::Resync };
        let max = [0, 1, 64, 1_000, 64 << 20][numbers.below(5)];
        let at_once = self.read(&file[..], &file, on_damage, max, is_reframed, seed);
        let pieces = Pieces { bytes: &file, numbers };
        let in_pieces = self.read(pieces, &file, on_damage, max, is_reframed, seed);
        assert_eq!(at_once, in_pieces, "seed {seed}: read at once and in pieces");
        at_once.len() as u64
    }

    /// Returns the place and size of every record that is an event.
    fn read(
        &self,
        source: impl Read,
        file: &[u8],
        on_damage: OnDamage,
        max: usize,
        is_reframed: bool,
        seed: u64,
    ) -> Vec<(u64, u64)> {
        let mut reader = Reader::new(source).on_damage(on_damage).max_record_bytes(max);
        let (mut found, mut handed_out, mut last) = (Vec::new(), 0, 0);
        for is_finished in [false, true] {
            if is_finished {
                reader.finish();
            }
            loop {
                match reader.next_event() {
                    Ok(None) => break,
                    Ok(Some(event)) => walk(&event.content),
                    Err(ReadError::Damaged(damage)) => {
                        assert!(on_damage == OnDamage::Stop, "seed {seed}: {damage}");
                        assert_eq!(reader.offset(), damage.offset, "seed {seed}");
                        return found;
                    }
                    Err(other) => panic!("seed {seed}: {other}"),
                }
                let end = reader.offset();
                assert!(end > last && end <= file.len() as u64, "seed {seed}");
                let record = {
                    let skipped = reader.skipped().bytes;
                    let begin = skipped + handed_out;
                    &file[begin as usize..end as usize]
                };
                handed_out += record.len() as u64;
                last = end;
                let data = &record[12..record.len() - 4];
                assert!(data.len() <= max, "seed {seed}");
                // Without new checksums, all that is handed out was written so.
                assert!(is_reframed || self.known.contains(data), "seed {seed}: a wrong record");
                found.push((end - record.len() as u64, record.len() as u64));
            }
            assert_eq!(handed_out + reader.skipped().bytes, reader.offset(), "seed {seed}");
        }
        if on_damage == OnDamage::Resync {
            assert_eq!(reader.offset(), file.len() as u64, "seed {seed}");
        }
        found
    }

    fn file(&self, numbers: &mut Numbers) -> &[u8] {
        &self.files[numbers.below(self.files.len())]
    }

    /// Returns a file with some changes anywhere.
    fn changed(&self, numbers: &mut Numbers) -> Vec<u8> {
        let mut file = self.file(numbers).to_vec();
        for _ in 0..1 + numbers.below(4) {
            let at = numbers.below(file.len());
            let other = self.file(numbers);
            change(&mut file, at, other, numbers);
        }
        file
    }

    /// Returns a file whose records were changed, with the checksums that belong to them.
    fn reframed(&self, numbers: &mut Numbers) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reader = Reader::new(self.file(numbers));
        while let Ok(Some(record)) = reader.next_record() {
            let mut data = record.data().to_vec();
            for _ in 0..numbers.below(4) {
                let at = numbers.below(data.len());
                let other = self.file(numbers);
                change(&mut data, at, other, numbers);
            }
            let length = (data.len() as u64).to_le_bytes();
            out.extend_from_slice(&length);
            out.extend_from_slice(&masked_crc32c(&length).to_le_bytes());
            out.extend_from_slice(&data);
            out.extend_from_slice(&masked_crc32c(&data).to_le_bytes());
        }
        out
    }
}

fn change(bytes: &mut Vec<u8>, at: usize, other: &[u8], numbers: &mut Numbers) {
    let some = numbers.below(40);
    let end = (at + some).min(bytes.len());
    let from = numbers.below(other.len());
    let donor = &other[from..(from + some).min(other.len())];
    match numbers.below(9) {
        0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
        1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 0x08, 0x0a, 0x42][numbers.below(8)],
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end)),
        4 => drop(bytes.splice(at..at, donor.iter().copied())),
        5 => drop(bytes.splice(at..end, donor.iter().copied())),
        6 => bytes[at..end].fill(numbers.next() as u8),
        7 => bytes.extend_from_within(at..end),
        8 => bytes[at..end].rotate_left(some.min(end - at) / 2),
        _ => bytes.push(numbers.next() as u8),
    }
}

/// Looks at everything in an event.
fn walk(content: &EventContent<'_>) {
    let EventContent::Summary(values) = content else { return };
    for value in values.clone() {
        let _ = (value.plugin(), value.scalar(), value.image());
        let _ = value.bins().map(Iterator::count);
        match &value.content {
            ValueContent::Tensor(tensor) => {
                let _ = (tensor.numbers().count(), tensor.shape().count(), tensor.strings().count());
            }
            ValueContent::Histogram(histogram) => {
                let _ = (histogram.limits().count(), histogram.counts().count());
            }
            _ => {}
        }
        if let Some(metadata) = &value.metadata {
            if let Ok(Some(tfevents::Hparams::SessionStart { settings, .. })) = metadata.hparams() {
                let _ = settings.count();
            }
            let _ = Fields::new(metadata.plugin_content).count();
        }
    }
}
