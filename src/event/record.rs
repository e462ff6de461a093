//! `Record`: the event type for most programs.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Event, EventId, Fields, Histogram, Image, Name, Priority, Text, Value};
use crate::clock;

/// Event with a name, a value, a moment and a priority. It may have a step and, rarely, more.
///
/// It has 56 bytes, so that a slot of a ring fills one cache line. Making one with a number and a literal name
/// allocates nothing and costs one reading of the clock. Text, histograms, images, lists and fields live on the heap.
///
/// ```
/// use forebay::{Priority, Record, Value};
///
/// let loss = Record::scalar("train.loss", 0.25).with_step(7);
/// assert_eq!(loss.name(), "train.loss");
/// assert_eq!(loss.value(), &Value::Scalar(0.25));
/// assert_eq!(loss.step(), Some(7));
///
/// let failed = Record::new("training.failed")
///     .with_field("error", "loss is NaN")
///     .with_field("epoch", 3)
///     .with_priority(Priority::Critical);
/// assert_eq!(failed.value().as_fields().map(|fields| fields.len()), Some(2));
/// ```
///
/// # JSON
///
/// A record is one object, readable, and exact both ways:
///
/// ```json
/// {"name":"train.loss","time":"2026-11-21T08:00:00.123456789Z","step":3,"scalar":0.25}
/// ```
///
/// The kind of a value is the key under which it stands: `scalar`, `integer`, `bool`, `text`, `histogram`,
/// `image`, `encoded`, `list` or `fields`; a record without a value has none of them. A scalar that is not finite is a
/// string: `"NaN"`, `"Infinity"` or `"-Infinity"`. `priority`, `source`, `correlation_id`, `session_id`, `sub_run`,
/// `metadata` and `tags` are there when they are set, `event_id` (`SESSION:NUMBER`) where a bus (`forebay-bus`) gave the record
/// one.
///
/// Inside of lists and fields, values are plain JSON: a number with a point or an exponent is a scalar, one without
/// is an integer. A value that plain JSON cannot express is an object with one key: `{"$scalar": "NaN"}` for a scalar
/// that is not finite, `$histogram`, `$image`, `$encoded`, or `$fields` for fields whose first name begins with `$`. Readers
/// ignore unknown keys.
#[derive(Debug, Clone)]
pub struct Record {
    name: Name,
    value: Value,
    step: Step,
    stamp: Stamp,
    extra: Option<Box<Extra>>,
}

impl PartialEq for Record {
    /// Compares all but the id of the event. Parts that are all empty are like none.
    fn eq(&self, other: &Self) -> bool {
        let Self { name, value, step, stamp, extra } = self;
        let is_same_extra = match (extra, &other.extra) {
            (Some(extra), Some(other)) => extra == other,
            (Some(one), None) | (None, Some(one)) => **one == Extra::default(),
            (None, None) => true,
        };
        is_same_extra && (name, value, step, stamp) == (&other.name, &other.value, &other.step, &other.stamp)
    }
}

/// Parts that few records have. All are empty by default.
///
/// # Examples
///
/// ```
/// use forebay::Record;
///
/// let record = Record::new("user.login").with_source("web").with_metadata("host", "a").with_tag("audit");
/// let extra = record.extra().unwrap();
/// assert_eq!(extra.source.as_deref(), Some("web"));
/// assert_eq!((extra.metadata.len(), extra.tags.len()), (1, 1));
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Extra {
    /// The maker of the record.
    pub source: Option<Text>,
    /// The id of what it belongs to, across sources.
    pub correlation_id: Option<Text>,
    /// A session other than the collector's.
    pub session_id: Option<Text>,
    /// The folder below the run's folder that the record belongs to: see [`Record::with_sub_run`].
    pub sub_run: Option<Name>,
    /// Anything else.
    pub metadata: Fields,
    /// Labels.
    pub tags: Vec<Name>,
    /// The id that a bus gave it. No part of what the record says.
    event_id: EventId,
}

impl Extra {
    /// Returns about how many bytes it occupies.
    fn heap_size(&self) -> usize {
        let texts = [&self.source, &self.correlation_id, &self.session_id];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len()).sum();
        let tags: usize = self.tags.iter().map(|tag| size_of::<Name>() + tag.heap_size()).sum();
        let sub_run = self.sub_run.as_ref().map_or(0, Name::heap_size);
        size_of::<Self>() + texts + sub_run + self.metadata.heap_size() + tags
    }
}

impl PartialEq for Extra {
    /// Compares all but the id of the event.
    fn eq(&self, other: &Self) -> bool {
        let Self { source, correlation_id, session_id, sub_run, metadata, tags, event_id: _ } = self;
        (source, correlation_id, session_id) == (&other.source, &other.correlation_id, &other.session_id)
            && (sub_run, metadata, tags) == (&other.sub_run, &other.metadata, &other.tags)
    }
}

/// Step with its sign bit flipped. That is 0 for `i64::MIN` alone, which stands for the absence of a step and so costs no
/// space. The other steps keep their order.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Step(Option<NonZeroU64>);

impl Step {
    const SIGN: u64 = 1 << 63;

    /// Makes a step of a number from 0 on; one that is too large becomes the largest.
    #[inline]
    fn unsigned(step: u64) -> Self {
        Self(NonZeroU64::new(step.min(i64::MAX as u64) | Self::SIGN))
    }

    /// Makes a step of any number; the one that stands for none becomes the smallest.
    #[inline]
    fn signed(step: i64) -> Self {
        Self(NonZeroU64::new(step.max(i64::MIN + 1) as u64 ^ Self::SIGN))
    }

    #[inline]
    fn get(self) -> Option<i64> {
        self.0.map(|step| (step.get() ^ Self::SIGN) as i64)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Moment, priority, and whether the caller set the moment, in one word. A byte of its own would cost the record
/// eight, and the ring slot its cache line.
///
/// | lowest two bits | moment | the other bits |
/// |---|---|---|
/// | 0, 1 or 2: the priority | set by the caller | nanoseconds since 1970: 62 bits, until the year 2116 |
/// | 3 | taken from the clock | nanoseconds since 1970 as well, in fours: 60 bits; below them two bits of priority |
///
/// Four nanoseconds are less than a reading of the clock takes.
#[derive(Debug, Clone, Copy)]
struct Stamp(u64);

impl Stamp {
    const MAX_NANOS: u64 = (1 << 62) - 1;
    /// Value in the place of a priority.
    const FROM_CLOCK: u64 = 3;

    /// Returns a stamp of the present.
    #[inline]
    fn now(priority: Priority) -> Self {
        Self::from_clock(clock::unix_nanos(), priority)
    }

    /// Makes a stamp of a reading of the clock, at most `MAX_NANOS`. It has no branch, so that the compiler knows the
    /// priority of a record that is made and collected in one place.
    #[inline]
    fn from_clock(nanos: u64, priority: Priority) -> Self {
        Self((nanos & !3) << 2 | (priority as u64) << 2 | Self::FROM_CLOCK)
    }

    #[inline]
    fn set_by_caller(nanos: u64, priority: Priority) -> Self {
        Self(nanos.min(Self::MAX_NANOS) << 2 | priority as u64)
    }

    #[inline]
    fn is_from_clock(self) -> bool {
        self.0 & 3 == Self::FROM_CLOCK
    }

    fn nanos(self) -> u64 {
        if self.is_from_clock() { self.0 >> 4 << 2 } else { self.0 >> 2 }
    }

    #[inline]
    fn priority(self) -> Priority {
        let bits = if self.is_from_clock() { self.0 >> 2 } else { self.0 };
        match bits & 3 {
            0 => Priority::Critical,
            2 => Priority::Low,
            _ => Priority::Normal,
        }
    }

    #[inline]
    fn with_priority(self, priority: Priority) -> Self {
        let place = if self.is_from_clock() { 2 } else { 0 };
        Self(self.0 & !(3 << place) | (priority as u64) << place)
    }
}

impl PartialEq for Stamp {
    /// Compares without looking at who set the moment, so that a record equals its copy from a file.
    fn eq(&self, other: &Self) -> bool {
        (self.nanos(), self.priority()) == (other.nanos(), other.priority())
    }
}

impl Record {
    /// Makes a record without a value: something happened. Like all constructors, stamps it with the present.
    pub fn new(name: impl Into<Name>) -> Self {
        Self::with_value(name, Value::Empty)
    }

    /// Makes a record of any value.
    #[inline]
    pub fn with_value(name: impl Into<Name>, value: impl Into<Value>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            step: Step::default(),
            stamp: Stamp::now(Priority::Normal),
            extra: None,
        }
    }

    /// Makes a record of a floating-point number.
    #[inline]
    pub fn scalar(name: impl Into<Name>, value: impl Into<f64>) -> Self {
        Self::with_value(name, Value::Scalar(value.into()))
    }

    /// Makes a record of a whole number.
    #[inline]
    pub fn integer(name: impl Into<Name>, value: i64) -> Self {
        Self::with_value(name, Value::Integer(value))
    }

    /// Makes a record of a boolean.
    #[inline]
    pub fn boolean(name: impl Into<Name>, value: bool) -> Self {
        Self::with_value(name, Value::Bool(value))
    }

    /// Makes a record of a text.
    pub fn text(name: impl Into<Name>, text: impl Into<Text>) -> Self {
        Self::with_value(name, text.into())
    }

    /// Makes a record of a distribution.
    pub fn histogram(name: impl Into<Name>, histogram: Histogram) -> Self {
        Self::with_value(name, histogram)
    }

    /// Makes a record of an image.
    pub fn image(name: impl Into<Name>, image: Image) -> Self {
        Self::with_value(name, image)
    }

    /// Makes a record of fields.
    pub fn fields(name: impl Into<Name>, fields: impl Into<Fields>) -> Self {
        Self::with_value(name, fields.into())
    }

    /// Sets the step: the position in the run that the value belongs to. A step beyond `i64::MAX` becomes `i64::MAX`, the
    /// largest that files keep.
    #[inline]
    pub fn with_step(mut self, step: u64) -> Self {
        self.step = Step::unsigned(step);
        self
    }

    /// Sets a step that may be negative, as some programs have it for what comes before the first one. The step `i64::MIN`
    /// becomes `i64::MIN + 1`.
    ///
    /// ```
    /// use forebay::Record;
    ///
    /// let before = Record::scalar("val.loss", 2.5).with_signed_step(-1);
    /// assert_eq!((before.signed_step(), before.step()), (Some(-1), None));
    /// ```
    #[inline]
    pub fn with_signed_step(mut self, step: i64) -> Self {
        self.step = Step::signed(step);
        self
    }

    /// Sets the priority, which chooses the lane. Defaults to [`Priority::Normal`].
    #[inline]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.stamp = self.stamp.with_priority(priority);
        self
    }

    /// Sets the moment. Moments before 1970 become 1970; those after 2115 become 2116. The record is left out of the
    /// [latency](crate::Stats::latency), which is measured from the clock alone.
    pub fn with_time(self, time: SystemTime) -> Self {
        let nanos = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.with_unix_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Sets the moment, in nanoseconds since 1970-01-01 UTC; see [`with_time`](Self::with_time).
    pub fn with_unix_nanos(mut self, nanos: u64) -> Self {
        self.stamp = Stamp::set_by_caller(nanos, self.stamp.priority());
        self
    }

    /// Adds a field. A value that is not a set of fields becomes the field `value` of one.
    pub fn with_field(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        let mut fields = match self.value {
            Value::Fields(fields) => fields,
            Value::Empty => Fields::new(),
            other => Fields::new().with("value", other),
        };
        fields.set(name, value);
        self.value = Value::Fields(fields);
        self
    }

    /// Sets the source: the maker of the record.
    pub fn with_source(mut self, source: impl Into<Text>) -> Self {
        self.extra_mut().source = Some(source.into());
        self
    }

    /// Sets the correlation id: what the record belongs to.
    pub fn with_correlation_id(mut self, id: impl Into<Text>) -> Self {
        self.extra_mut().correlation_id = Some(id.into());
        self
    }

    /// Sets the session, when it is not the collector's.
    pub fn with_session_id(mut self, id: impl Into<Text>) -> Self {
        self.extra_mut().session_id = Some(id.into());
        self
    }

    /// Sets the sub-run: the folder below the run's folder that the record belongs to, such as `"fold_1"` or `"eval/test"`.
    /// [`TensorBoardSink`](crate::sink::TensorBoardSink) writes it there, as a run of its own; other sinks keep the name with
    /// the record.
    ///
    /// The path is relative, with `/` between its parts. Nothing is checked here, so that collecting never fails: the sink
    /// refuses a name that leads out of the folder, and counts the record as failed.
    pub fn with_sub_run(mut self, name: impl Into<Name>) -> Self {
        self.extra_mut().sub_run = Some(name.into());
        self
    }

    /// Adds metadata.
    pub fn with_metadata(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.extra_mut().metadata.set(name, value);
        self
    }

    /// Adds a label.
    pub fn with_tag(mut self, tag: impl Into<Name>) -> Self {
        self.extra_mut().tags.push(tag.into());
        self
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Replaces the value: for a closure of [`Builder::enrich`](crate::Builder::enrich), which makes it on the worker.
    pub fn set_value(&mut self, value: impl Into<Value>) {
        self.value = value.into();
    }

    /// Returns the value and consumes the record.
    pub fn into_value(self) -> Value {
        self.value
    }

    /// Returns the step, if there is one and it is not negative. See [`signed_step`](Self::signed_step).
    pub fn step(&self) -> Option<u64> {
        self.signed_step().and_then(|step| u64::try_from(step).ok())
    }

    /// Returns the step, if there is one. It may be negative.
    pub fn signed_step(&self) -> Option<i64> {
        self.step.get()
    }

    /// Returns the sub-run, if there is one: see [`with_sub_run`](Self::with_sub_run).
    pub fn sub_run(&self) -> Option<&str> {
        self.extra.as_ref()?.sub_run.as_deref()
    }

    /// Returns the priority: the lane that the record takes.
    pub fn priority(&self) -> Priority {
        self.stamp.priority()
    }

    /// Returns the moment.
    pub fn time(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.unix_nanos())
    }

    /// Returns the moment, in nanoseconds since 1970-01-01 UTC.
    pub fn unix_nanos(&self) -> u64 {
        self.stamp.nanos()
    }

    /// Returns the parts that few records have.
    pub fn extra(&self) -> Option<&Extra> {
        self.extra.as_deref()
    }

    /// Returns these parts for changes, and adds them if the record has none.
    pub fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Returns the id that a bus (of the crate `forebay-bus`) gave it, if any, also for a record that was read back from its
    /// journal. Records that differ only in their id are equal.
    pub fn event_id(&self) -> Option<EventId> {
        self.extra().map(|extra| extra.event_id).filter(|id| id.is_given())
    }

    /// Sets the id of the event: for a bus that emits it, and for whoever reads it back.
    #[doc(hidden)]
    pub fn set_event_id(&mut self, id: EventId) {
        self.extra_mut().event_id = id;
    }

    /// Returns the name, to be shared.
    #[doc(hidden)]
    pub fn shared_name(&self) -> &Name {
        &self.name
    }
}

/// Access to the record, for sinks that take whatever has a record inside.
impl AsRef<Record> for Record {
    fn as_ref(&self) -> &Record {
        self
    }
}

impl Event for Record {
    fn name(&self) -> &str {
        &self.name
    }

    #[inline]
    fn priority(&self) -> Priority {
        self.stamp.priority()
    }

    fn made_at(&self) -> Option<u64> {
        // A moment that the caller set says nothing about the wait.
        self.stamp.is_from_clock().then(|| self.unix_nanos())
    }

    fn correlation_id(&self) -> Option<&str> {
        self.extra.as_ref()?.correlation_id.as_deref()
    }

    #[inline]
    fn is_too_deep(&self) -> bool {
        let metadata = self.extra.as_ref().map_or(0, |extra| extra.metadata.depth());
        self.value.depth().max(metadata) > Value::MAX_DEPTH
    }

    #[inline]
    fn size_hint(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |extra| extra.heap_size());
        size_of::<Self>() + self.name.heap_size() + self.value.heap_size() + extra
    }
}

impl fmt::Display for Record {
    /// Writes `name = value (step n)`, without the parts that it does not have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.value != Value::Empty {
            write!(f, " = {}", self.value)?;
        }
        if let Some(step) = self.signed_step() {
            write!(f, " (step {step})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Encoded;

    #[test]
    fn a_record_leaves_room_for_the_stamp_of_its_ring_slot() {
        assert_eq!(size_of::<Record>(), 56);
        assert_eq!(size_of::<Name>(), 16);
        assert_eq!(size_of::<Value>(), 16);
    }

    #[test]
    fn records_that_differ_only_in_their_id_are_equal() {
        let plain = Record::new("a.b").with_unix_nanos(7);
        let mut with_id = plain.clone();
        with_id.set_event_id("67e55044-10b1-426f-9247-bb680e5fe0c8:1".parse().unwrap());
        assert_eq!(plain, with_id);
        let mut with_source = plain.clone();
        with_source.extra_mut().source = Some("web".into());
        assert!(plain != with_source && with_source != with_id && with_source == with_source.clone());
    }

    #[test]
    fn time_and_priority_share_a_word_and_do_not_disturb_each_other() {
        for priority in [Priority::Critical, Priority::Normal, Priority::Low] {
            for nanos in [0, 1, 1_763_700_000_123_456_789, Stamp::MAX_NANOS] {
                let record = Record::new("x").with_unix_nanos(nanos).with_priority(priority);
                assert_eq!((record.unix_nanos(), record.priority()), (nanos, priority));
                let record = record.with_unix_nanos(nanos);
                assert_eq!((record.unix_nanos(), record.priority()), (nanos, priority));
            }
        }
        assert_eq!(Record::new("x").with_unix_nanos(u64::MAX).unix_nanos(), Stamp::MAX_NANOS);
    }

    #[test]
    fn a_moment_from_the_clock_is_kept_to_four_nanoseconds_and_shares_its_word_with_the_priority() {
        for nanos in [0, 4, 1_795_000_000_123_456_788, Stamp::MAX_NANOS - 3] {
            for first in [Priority::Critical, Priority::Normal, Priority::Low] {
                let stamp = Stamp::from_clock(nanos + 3, first);
                assert_eq!((stamp.nanos(), stamp.priority(), stamp.is_from_clock()), (nanos, first, true));
                let set = Stamp::set_by_caller(nanos, first);
                assert!(!set.is_from_clock());
                assert_eq!(stamp, set, "who set it makes no difference");
                for second in [Priority::Critical, Priority::Normal, Priority::Low] {
                    for stamp in [stamp, set] {
                        let changed = stamp.with_priority(second);
                        assert_eq!((changed.nanos(), changed.priority()), (nanos, second));
                        assert_eq!(changed.is_from_clock(), stamp.is_from_clock());
                        assert_eq!(changed == stamp, first == second);
                    }
                }
            }
        }
        assert_eq!(Stamp::set_by_caller(u64::MAX, Priority::Low).nanos(), Stamp::MAX_NANOS);
    }

    #[test]
    fn only_a_moment_from_the_clock_tells_when_the_record_was_made() {
        let record = Record::scalar("x", 1.0);
        assert_eq!(record.made_at(), Some(record.unix_nanos()));
        let low = record.clone().with_priority(Priority::Low).with_step(3);
        assert_eq!(low.made_at(), Some(record.unix_nanos()));
        assert_eq!(low.clone().with_unix_nanos(low.unix_nanos()).made_at(), None);
        assert_eq!(record.with_time(SystemTime::now()).with_priority(Priority::Critical).made_at(), None);
    }

    #[test]
    fn every_step_but_the_very_first_differs_from_none() {
        let none = Record::new("x");
        assert_eq!((none.step(), none.signed_step()), (None, None));
        for step in [0, 1, i64::MAX as u64] {
            let record = none.clone().with_step(step);
            assert_eq!((record.step(), record.signed_step()), (Some(step), Some(step as i64)));
            assert_eq!(record, record.clone().with_signed_step(step as i64));
        }
        for step in [-1, i64::MIN + 1] {
            let record = none.clone().with_signed_step(step);
            assert_eq!((record.step(), record.signed_step()), (None, Some(step)));
        }
        for (record, nearest) in [
            (none.clone().with_step(u64::MAX), i64::MAX),
            (none.clone().with_step(1 << 63), i64::MAX),
            (none.clone().with_signed_step(i64::MIN), i64::MIN + 1),
        ] {
            assert_eq!(record.signed_step(), Some(nearest));
        }
        assert_eq!(none.with_signed_step(-1).to_string(), "x (step -1)");
    }

    #[test]
    fn a_size_hint_counts_what_lies_on_the_heap() {
        let small = Record::scalar("x", 1.0).size_hint();
        assert_eq!(small, 56);
        assert!(Record::text("x", "y".repeat(1000)).size_hint() >= 1000 + small);
        let tagged = Record::new("x").with_source("s").with_metadata("k", "v").with_tag("t");
        assert!(tagged.size_hint() > small + size_of::<Extra>());
        let of_sub_run = Record::new("x").with_sub_run("y".repeat(1000));
        assert!(of_sub_run.size_hint() >= 1000 + small + size_of::<Extra>());
        for encoded in [Encoded::Summary, Encoded::Event] {
            let encoded = Record::with_value("x", encoded(vec![0; 1000].into()));
            assert!(encoded.size_hint() >= 1000 + small);
        }
    }
}
