//! Streaming reader of event files: which bytes are a record, what to do about those that are none.
//!
//! A file may be read while it is written, so an end in the middle of a record says nothing: the rest may be on its way. It may
//! also be broken: a writer was killed and another one appended, a disk lost a block. Both checksums of a record are checked, so
//! that nothing is handed out which was not written; where one is wrong, the reader stops, or looks for the next record byte by
//! byte, as its owner has chosen.
//!
//! The bytes of a damaged record are searched as well, because a torn one has whole ones behind it that its length claims. A file
//! made on purpose could make that take the square of its size. So checksums that were in vain are counted, and where they exceed
//! what a gap has room for, a damaged record is passed over as a whole.

use std::fmt;
use std::io::{self, Read};

use crate::event::Event;
use crate::fields::DecodeError;
use crate::wire::{HEAD_BYTES, RECORD_BYTES, checked_length, masked_crc32c};

/// Size in bytes of the pieces in which a source is read.
const CHUNK: usize = 64 << 10;

/// Times that the bytes of a gap may be checked for being a record.
const MAX_CHECKS: u64 = 8;

/// What a [`Reader`] does about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDamage {
    /// The reader ends with an error, now and whenever it is asked again.
    #[default]
    Stop,
    /// The reader goes on with the next record whose checksums are right, and notes what it skipped:
    /// [`skipped`](Reader::skipped).
    Resync,
}

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DamageReason {
    /// The length of a record does not have its checksum.
    #[error("the checksum of a length is wrong")]
    LengthChecksum,
    /// The data of a record does not have its checksum.
    #[error("the checksum of the data is wrong")]
    DataChecksum,
    /// The record is larger than the reader may hold. It is passed over, under either policy.
    #[error("a record takes more bytes than allowed")]
    TooLarge,
    /// The checksums are right, but the data is no event.
    #[error("the data is no event: {0}")]
    NoEvent(DecodeError),
    /// The source ends within a record, and was said not to grow.
    #[error("the file ends within a record")]
    Truncated,
}

/// Place in a source that holds no record, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("damaged at byte {offset}: {reason}")]
pub struct Damage {
    /// The first damaged byte, counted from where the reader began.
    pub offset: u64,
    /// The reason.
    pub reason: DamageReason,
}

/// Error of a [`Reader`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The source could not be read. The reader can be asked again.
    #[error("the source could not be read: {0}")]
    Io(#[from] io::Error),
    /// The source is damaged, and the reader was to stop there.
    #[error(transparent)]
    Damaged(#[from] Damage),
}

/// What a [`Reader`] skipped so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Skipped {
    /// The number of skipped bytes.
    pub bytes: u64,
    /// The number of places without a record that counts: stretches of damaged bytes between two records, records that are too
    /// large, and records that are no events.
    pub places: u64,
    /// The number of records in those places whose end was known: each was skipped as a whole.
    pub records: u64,
    /// The first place.
    pub first: Option<Damage>,
    /// The last place.
    pub last: Option<Damage>,
}

impl Skipped {
    fn note(&mut self, damage: Damage) {
        self.places += 1;
        self.first.get_or_insert(damage);
        self.last = Some(damage);
    }
}

/// Place at which a reader has stopped, and another one goes on in the same source: [`Reader::position`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Position {
    offset: u64,
    to_pass: u64,
    gap: Option<Gap>,
    skipped: Skipped,
}

impl Position {
    /// Returns the first byte that was not read, counted from the begin of the source.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns what was skipped before it.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Returns whether it is within a record that is too large, of which more is to come.
    pub fn is_within_record(&self) -> bool {
        self.to_pass > 0
    }
}

/// Record of a file: what its checksums vouch for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its first byte, counted from where the reader began.
    pub offset: u64,
    /// The whole record: length, checksum, data, checksum. It can be written to another file as it is.
    pub bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Returns the data, which [`Event::decode`] reads.
    pub fn data(&self) -> &'a [u8] {
        self.bytes.get(HEAD_BYTES..self.bytes.len() - (RECORD_BYTES - HEAD_BYTES)).unwrap_or_default()
    }
}

/// Streaming reader of event files, of TensorBoard, PyTorch, tensorboardX or this crate.
///
/// The source may grow: [`next_event`](Self::next_event) returns `None` where no whole record is there *yet*, and goes on when it
/// is asked again. It takes at most [`max_record_bytes`](Self::max_record_bytes) and 64 KiB of memory, whatever the source holds.
///
/// ```
/// use tfevents::{Encoder, EventContent, Reader, Summary};
///
/// let mut encoder = Encoder::new();
/// encoder.begin_file(1_700_000_000.0, 0);
/// encoder.add(1_700_000_000.5, 3, "train/loss", Summary::Scalar(0.25))?;
/// let file = encoder.take();
///
/// let mut reader = Reader::new(&file[..]);
/// let mut scalars = Vec::new();
/// while let Some(event) = reader.next_event()? {
///     if let EventContent::Summary(values) = event.content {
///         scalars.extend(values.map(|value| (event.step, value.tag.to_owned(), value.scalar())));
///     }
/// }
/// assert_eq!(scalars, [(3, "train/loss".to_owned(), Some(0.25))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader<R> {
    source: R,
    on_damage: OnDamage,
    max_record_bytes: usize,
    /// Bytes of the source, from `begin` to `end`. It is as long as it ever had to be.
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    /// The place of `begin` in the source.
    offset: u64,
    /// The size of the record that was handed out last: the next call drops it.
    handed_out: usize,
    /// Bytes of a record that is too large, which are still to be passed over.
    to_pass: u64,
    /// The open place without a record.
    gap: Option<Gap>,
    skipped: Skipped,
    /// Damage that the reader stopped at.
    stopped: Option<Damage>,
    is_complete: bool,
}

/// Stretch of bytes without a record, so far.
#[derive(Debug, Clone, Copy)]
struct Gap {
    damage: Damage,
    /// Bytes that were checked in vain for being the data of a record.
    checked: u64,
}

/// What is at the begin of the buffer.
enum Found {
    /// A record of so many bytes.
    Record(usize),
    /// No whole record yet, or none any more.
    Nothing,
}

impl<R: Read> Reader<R> {
    /// Creates a reader that stops at damage and holds records of up to 64 MiB.
    pub fn new(source: R) -> Self {
        Self {
            source,
            on_damage: OnDamage::default(),
            max_record_bytes: 64 << 20,
            buffer: Vec::new(),
            begin: 0,
            end: 0,
            offset: 0,
            handed_out: 0,
            to_pass: 0,
            gap: None,
            skipped: Skipped::default(),
            stopped: None,
            is_complete: false,
        }
    }

    /// Sets what to do about damage. Defaults to [`OnDamage::Stop`].
    pub fn on_damage(mut self, what: OnDamage) -> Self {
        self.on_damage = what;
        self
    }

    /// Sets the largest data of a record that is read, in bytes. A larger record is skipped, and noted. Defaults to 64 MiB.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        // Sizes are sums with the frame of a record.
        self.max_record_bytes = bytes.min(isize::MAX as usize / 2);
        self
    }

    /// Goes on where another reader of the same source has stopped, perhaps within damage, which then counts once. The source must begin at the
    /// [offset](Position::offset) of that place. Places are counted from where the first reader began.
    ///
    /// ```
    /// use tfevents::{Encoder, Reader, Summary};
    ///
    /// let mut encoder = Encoder::new();
    /// encoder.begin_plain_file(1_700_000_000.0);
    /// for step in 0..3 {
    ///     encoder.add(1_700_000_000.5, step, "train/loss", Summary::Scalar(0.25))?;
    /// }
    /// let file = encoder.take();
    ///
    /// let mut reader = Reader::new(&file[..]);
    /// reader.next_event()?;
    /// let position = reader.position();
    ///
    /// let mut reader = Reader::new(&file[position.offset() as usize..]).at(position);
    /// let mut events = 0;
    /// while reader.next_event()?.is_some() {
    ///     events += 1;
    /// }
    /// assert_eq!((events, reader.offset()), (3, file.len() as u64));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn at(mut self, position: Position) -> Self {
        Position { offset: self.offset, to_pass: self.to_pass, gap: self.gap, skipped: self.skipped } =
            position;
        self
    }

    /// Returns the place of the next record, and what is to be known there of what came before.
    pub fn position(&self) -> Position {
        Position { offset: self.offset(), to_pass: self.to_pass, gap: self.gap, skipped: self.skipped }
    }

    /// Says that the source grows no more: what is left at its end without being a whole record is damaged.
    ///
    /// Behind a torn record there may be whole ones, of a program that appended to the file: under [`OnDamage::Resync`] they are
    /// found now.
    pub fn finish(&mut self) {
        self.is_complete = true;
    }

    /// Returns what was skipped so far.
    pub fn skipped(&self) -> Skipped {
        self.skipped
    }

    /// Returns the place of the next record, in bytes from where the reader began: all before it was handed out or skipped.
    pub fn offset(&self) -> u64 {
        self.offset + self.handed_out as u64
    }

    /// Borrows the source.
    pub fn source(&self) -> &R {
        &self.source
    }

    /// Borrows the source for changes: one that was read to its end may get more.
    pub fn source_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// Returns the next record, whatever it holds; `None` where no whole one is there yet.
    ///
    /// # Errors
    ///
    /// [`ReadError::Io`] if the source could not be read, and, under [`OnDamage::Stop`], [`ReadError::Damaged`].
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        match self.find()? {
            Found::Nothing => Ok(None),
            Found::Record(size) => Ok(Some(self.record(size))),
        }
    }

    /// Returns the next event; `None` where no whole one is there yet.
    ///
    /// # Errors
    ///
    /// As for [`next_record`](Self::next_record). A record that is no event is damage.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, ReadError> {
        let size = loop {
            let Found::Record(size) = self.find()? else { return Ok(None) };
            let event = Event::decode(self.record(size).data());
            let Err(error) = event else { break size };
            let damage = Damage { offset: self.offset, reason: DamageReason::NoEvent(error) };
            self.stop_at(damage)?;
            self.skipped.note(damage);
            self.skipped.records += 1;
            self.skipped.bytes += size as u64;
        };
        // It was checked as a whole. A second look is cheap; to keep the first one, the borrow checker would have to know that
        // the loop ends with it.
        Ok(Event::read(self.record(size).data()).ok())
    }

    /// Returns the record at the begin of the buffer.
    fn record(&self, size: usize) -> Record<'_> {
        Record { offset: self.offset, bytes: &self.buffer[self.begin..self.begin + size] }
    }

    /// Drops the record that was handed out last and finds the next.
    fn find(&mut self) -> Result<Found, ReadError> {
        if let Some(damage) = self.stopped {
            return Err(damage.into());
        }
        let handed_out = std::mem::take(&mut self.handed_out);
        self.consume(handed_out);
        loop {
            while self.to_pass > 0 {
                if !self.fill(1)? {
                    return Ok(Found::Nothing);
                }
                let held = usize::try_from(self.to_pass).unwrap_or(usize::MAX).min(self.end - self.begin);
                self.to_pass -= held as u64;
                self.skip(held);
            }
            if !self.fill(HEAD_BYTES)? {
                if self.is_at_end()? {
                    return Ok(Found::Nothing);
                }
                continue;
            }
            let Some(length) = checked_length(&self.buffer[self.begin..self.end]) else {
                self.damaged(DamageReason::LengthChecksum)?;
                self.skip(1);
                continue;
            };
            if length > self.max_record_bytes as u64 {
                self.close_gap();
                self.skipped.note(Damage { offset: self.offset, reason: DamageReason::TooLarge });
                self.skipped.records += 1;
                self.to_pass = length.saturating_add(RECORD_BYTES as u64);
                continue;
            }
            // At most the allowed size, which is one of memory.
            let size = length as usize + RECORD_BYTES;
            if !self.fill(size)? {
                if self.is_at_end()? {
                    return Ok(Found::Nothing);
                }
                continue;
            }
            if self.has_data_checksum(size) {
                self.close_gap();
                self.handed_out = size;
                return Ok(Found::Record(size));
            }
            if self.on_damage == OnDamage::Resync && !self.is_complete && !self.fill(size + HEAD_BYTES)? {
                // The record may be on its way, as in a file whose space was set aside before.
                return Ok(Found::Nothing);
            }
            self.damaged(DamageReason::DataChecksum)?;
            let is_followed = self.fill(size + HEAD_BYTES)?
                && checked_length(&self.buffer[self.begin + size..self.end]).is_some();
            let is_last = self.end - self.begin == size;
            if is_followed || is_last || !self.may_search(size) {
                self.skipped.records += 1;
                self.skip(size);
            } else {
                self.skip(1);
            }
        }
    }

    /// Returns whether the record of that size has the checksum of its data.
    fn has_data_checksum(&self, size: usize) -> bool {
        let (record, checksum) =
            self.buffer[self.begin..self.begin + size].split_at(size - (RECORD_BYTES - HEAD_BYTES));
        masked_crc32c(&record[HEAD_BYTES..]).to_le_bytes() == checksum
    }

    /// Returns whether a damaged record may be searched for others, and counts it.
    fn may_search(&mut self, size: usize) -> bool {
        let Some(gap) = &mut self.gap else { return true };
        gap.checked += size as u64;
        let room = self.offset - gap.damage.offset + size as u64;
        gap.checked <= MAX_CHECKS.saturating_mul(room)
    }

    /// Returns whether the reader is done for now: the source has no more, and what is left may still become a record, or is
    /// nothing. Else one byte is skipped.
    fn is_at_end(&mut self) -> Result<bool, ReadError> {
        if !self.is_complete {
            return Ok(true);
        }
        if self.begin == self.end {
            self.close_gap();
            return Ok(true);
        }
        self.damaged(DamageReason::Truncated)?;
        self.skip(1);
        Ok(false)
    }

    /// Notes damage at the begin of the buffer.
    fn damaged(&mut self, reason: DamageReason) -> Result<(), ReadError> {
        if self.gap.is_none() {
            let damage = Damage { offset: self.offset, reason };
            self.stop_at(damage)?;
            self.skipped.note(damage);
            self.gap = Some(Gap { damage, checked: 0 });
        }
        Ok(())
    }

    /// Fails with damage, for good, if the reader is to stop there.
    fn stop_at(&mut self, damage: Damage) -> Result<(), ReadError> {
        match self.on_damage {
            OnDamage::Resync => Ok(()),
            OnDamage::Stop => {
                self.stopped = Some(damage);
                self.handed_out = 0;
                Err(damage.into())
            }
        }
    }

    fn close_gap(&mut self) {
        self.gap = None;
    }

    fn skip(&mut self, bytes: usize) {
        self.skipped.bytes += bytes as u64;
        self.consume(bytes);
    }

    fn consume(&mut self, bytes: usize) {
        self.begin += bytes;
        self.offset += bytes as u64;
    }

    /// Reads on until so many bytes are there; `false` if the source has no more for now.
    fn fill(&mut self, size: usize) -> io::Result<bool> {
        while self.end - self.begin < size {
            if self.begin > 0 {
                self.buffer.copy_within(self.begin..self.end, 0);
                (self.begin, self.end) = (0, self.end - self.begin);
            }
            if self.end == self.buffer.len() {
                // Twice as much each time, but never more than the largest record needs.
                let max = self.max_record_bytes + RECORD_BYTES + HEAD_BYTES + CHUNK;
                let length = (2 * self.end).clamp(CHUNK, max);
                self.buffer.reserve_exact(length - self.end);
                self.buffer.resize(length, 0);
            }
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                // A source that claims more than it was given room for has none of it.
                Ok(bytes) => self.end = self.end.saturating_add(bytes).min(self.buffer.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("on_damage", &self.on_damage)
            .field("offset", &self.offset)
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frame;

    #[test]
    fn memory_is_bounded_by_the_largest_record_that_is_allowed() {
        let max = 100_000;
        let mut file = Vec::new();
        for size in [max, max + 1, 10 * max, 5, max] {
            Frame::default().push_record(&mut file, |data| data.resize(data.len() + size, 7));
        }
        let mut reader = Reader::new(&file[..]).max_record_bytes(max);
        let mut sizes = Vec::new();
        while let Some(record) = reader.next_record().unwrap() {
            sizes.push(record.data().len());
        }
        assert_eq!(sizes, [max, 5, max]);
        assert!(reader.buffer.capacity() <= max + CHUNK + RECORD_BYTES + HEAD_BYTES);
        let skipped = reader.skipped();
        assert_eq!((skipped.records, skipped.bytes), (2, 11 * max as u64 + 1 + 32));
        // A length without data behind it draws none.
        let mut reader = Reader::new(&file[..12]);
        assert!(reader.next_record().unwrap().is_none());
        assert!(reader.buffer.capacity() <= CHUNK);
    }

    #[test]
    fn a_reader_that_goes_on_at_a_position_finds_what_one_alone_finds() {
        let mut file = Vec::new();
        for size in [10, 300, 20, 150] {
            // The third is damaged, and the second and the fourth are too large.
            Frame::default().push_record(&mut file, |data| data.resize(data.len() + size, 7));
            if size == 20 {
                *file.last_mut().unwrap() ^= 1;
                file.extend([0xff; 50]);
            }
        }
        Frame::default().push_record(&mut file, |data| data.resize(data.len() + 30, 9));
        let read = |reader: &mut Reader<&[u8]>, sizes: &mut Vec<usize>| {
            while let Some(record) = reader.next_record().unwrap() {
                sizes.push(record.data().len());
            }
        };
        let new = |bytes| Reader::new(bytes).max_record_bytes(100).on_damage(OnDamage::Resync);
        let (mut alone, mut expected) = (new(&file[..]), Vec::new());
        read(&mut alone, &mut expected);
        assert_eq!((&expected[..], alone.skipped().places), (&[10, 30][..], 3));
        for cut in 0..file.len() {
            let (mut first, mut sizes) = (new(&file[..cut]), Vec::new());
            read(&mut first, &mut sizes);
            let position = first.position();
            let mut second = new(&file[position.offset() as usize..]).at(position);
            read(&mut second, &mut sizes);
            assert_eq!((sizes, second.skipped()), (expected.clone(), alone.skipped()), "{cut}");
            assert_eq!(second.position().offset(), file.len() as u64);
        }
    }
}
