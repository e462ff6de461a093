//! `Point`: what the writers of this package collect.

use std::fmt;

use forebay::{Event, Priority, Record, Value};
use serde::{Serialize, Serializer};

use crate::array::has_memory;

/// Record, and the work that is left to do on it. The loop hands over a copy of the data that it was given; the worker bins it, encodes
/// it or computes from it what the sinks write.
///
/// A clone has the record alone, as it is at that moment.
pub(crate) struct Point {
    record: Record,
    work: Option<Box<Work>>,
}

/// Work on a record, behind one thin pointer: most points have none.
struct Work {
    /// Size of the data that the work holds, in bytes.
    bytes: usize,
    /// About the most that it takes beside them, in bytes.
    makes: usize,
    run: Box<Run>,
}

type Run = dyn FnOnce(&mut Record) + Send + Sync;

impl Point {
    /// Makes a point of a record that needs no work.
    #[inline]
    pub(crate) fn new(record: Record) -> Self {
        Self { record, work: None }
    }

    /// Makes a point that `run` completes on the worker. It holds so many `bytes` until then, and takes about `makes` more then.
    pub(crate) fn with_work(
        record: Record,
        bytes: usize,
        makes: usize,
        run: impl FnOnce(&mut Record) + Send + Sync + 'static,
    ) -> Self {
        Self { record, work: Some(Box::new(Work { bytes, makes, run: Box::new(run) })) }
    }

    /// Changes the record.
    #[inline]
    pub(crate) fn map(self, change: impl FnOnce(Record) -> Record) -> Self {
        Self { record: change(self.record), work: self.work }
    }

    /// Returns the record, as it is at that moment.
    pub(crate) fn into_record(self) -> Record {
        self.record
    }

    /// Does the work that is left, on the worker. Returns `false` where there is no memory for it: the record has a value then that every
    /// sink refuses, and counts as failed.
    ///
    /// Memory that is refused ends the process, wherever it is asked for: in the encoders of images and of messages as well, which are of
    /// other crates. So all of it is asked for before, at once, and given back. What another thread takes in between may still end it.
    pub(crate) fn complete(&mut self) -> bool {
        // A file of an image, or lines of JSON, where a character may take six; and copies of that until it is on the disk.
        let makes = (self.record.size_hint() - size_of::<Record>()).saturating_mul(8);
        let work = self.work.take();
        if !has_memory(work.as_ref().map_or(makes, |work| work.makes.max(makes))) {
            // No sink has it from `collect`, which rejects it.
            self.record.set_value(Value::TooDeep);
            return false;
        }
        if let Some(work) = work {
            (work.run)(&mut self.record);
        }
        true
    }
}

impl From<Record> for Point {
    #[inline]
    fn from(record: Record) -> Self {
        Self::new(record)
    }
}

impl AsRef<Record> for Point {
    fn as_ref(&self) -> &Record {
        &self.record
    }
}

impl Clone for Point {
    fn clone(&self) -> Self {
        Self::new(self.record.clone())
    }
}

impl Event for Point {
    fn name(&self) -> &str {
        self.record.name()
    }

    #[inline]
    fn priority(&self) -> Priority {
        self.record.priority()
    }

    fn made_at(&self) -> Option<u64> {
        self.record.made_at()
    }

    fn correlation_id(&self) -> Option<&str> {
        self.record.correlation_id()
    }

    #[inline]
    fn size_hint(&self) -> usize {
        let owned = self.record.size_hint() - size_of::<Record>();
        let work = self.work.as_ref().map_or(0, |work| size_of::<Work>() + work.bytes);
        size_of::<Self>() + owned + work
    }

    #[inline]
    fn is_too_deep(&self) -> bool {
        self.record.is_too_deep()
    }
}

impl Serialize for Point {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.record.serialize(serializer)
    }
}

impl fmt::Display for Point {
    /// Fails for a value that there was no memory for: the console counts it as failed, as the other sinks do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.record.value(), Value::TooDeep) {
            return Err(fmt::Error);
        }
        self.record.fmt(f)
    }
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Point")
            .field("record", &self.record)
            .field("work", &self.work.as_ref().map(|work| work.bytes))
            .finish()
    }
}
