//! An iterator that reports the time of each item.

use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use crate::clock::{Clock, ManualClock};
use crate::collector::Collector;
use crate::event::catalog::data::BatchLoaded;
use crate::event::catalog::system::BottleneckDetected;
use crate::event::{Event, Record};

/// Reports how long each `next` of an iterator takes, as a [`BatchLoaded`] for every item. Use it for the loader of a
/// training loop.
///
/// ```
/// use std::time::Duration;
/// use forebay::run::timed;
/// use forebay::{Collector, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// let batches = [vec![1, 2], vec![3]];
/// for batch in timed(batches, &collector, "train_loader").size(Vec::len).warn_above(Duration::from_secs(60)) {
///     assert!(!batch.is_empty());
/// }
/// collector.stop()?;
/// let loaded = memory.events();
/// assert_eq!(loaded.len(), 2);
/// assert_eq!(loaded[0].name(), "data.batch_loaded");
/// assert_eq!(loaded[0].value().as_fields().and_then(|fields| fields.get("batch_size")?.as_i64()), Some(2));
/// # Ok(())
/// # }
/// ```
///
/// # What it costs
///
/// An item costs two readings of the clock and one record of low priority, whose fields allocate. Nothing else
/// allocates until there is a warning. A record is made also where the collector's gate filters it out.
pub fn timed<I: IntoIterator, E: Event + From<Record>>(
    items: I,
    collector: &Collector<E>,
    component: impl Into<String>,
) -> Timed<I::IntoIter> {
    let collector = collector.clone();
    Timed {
        items: items.into_iter(),
        collect: Box::new(move |record| _ = collector.collect(record)),
        component: component.into(),
        size: None,
        warn_above: None,
        is_slow: false,
        clock: Clock::System,
    }
}

/// Iterator that reports the time of each item. Made by [`timed`].
#[must_use = "an iterator does nothing until it is asked"]
pub struct Timed<I: Iterator> {
    items: I,
    /// Holds a handle of the collector, of whatever events.
    collect: Box<dyn Fn(Record) + Send>,
    component: String,
    size: Option<Size<I::Item>>,
    warn_above: Option<Duration>,
    /// The item before took longer than that.
    is_slow: bool,
    clock: Clock,
}

/// Function that returns how many samples an item has.
type Size<T> = Box<dyn FnMut(&T) -> usize + Send>;

impl<I: Iterator> Timed<I> {
    /// Sets how many samples an item has, for the `batch_size` of its record. Defaults to 1.
    pub fn size(mut self, size: impl FnMut(&I::Item) -> usize + Send + 'static) -> Self {
        self.size = Some(Box::new(size));
        self
    }

    /// Warns when an item takes longer, by a [`BottleneckDetected`] of this component. Only the first of
    /// several such items in a row is reported, because every item's time is in its own record. Defaults to no warning.
    pub fn warn_above(mut self, threshold: Duration) -> Self {
        self.warn_above = Some(threshold);
        self
    }

    /// Goes by a clock that is moved by hand, for tests.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Clock::Manual(clock.clone());
        self
    }

    fn tell(&mut self, batch_size: u64, load_time: Duration) {
        let loaded = BatchLoaded { batch_size, load_time, ..BatchLoaded::default() };
        (self.collect)(loaded.into());
        let threshold = self.warn_above.filter(|threshold| load_time > *threshold);
        let was_slow = std::mem::replace(&mut self.is_slow, threshold.is_some());
        let Some(threshold) = threshold.filter(|_| !was_slow) else { return };
        let warning = BottleneckDetected {
            component: self.component.clone(),
            description: format!("an item took {load_time:?}, more than {threshold:?}"),
            suggestions: vec![
                "make items ahead, on other threads".to_owned(),
                "look for what is slow in between: disk, network, decoding".to_owned(),
            ],
        };
        (self.collect)(warning.into());
    }
}

impl<I: Iterator> Iterator for Timed<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let begun = self.clock.nanos();
        // The end is no item, however long it takes.
        let item = self.items.next()?;
        let load_time = Duration::from_nanos(self.clock.nanos().saturating_sub(begun));
        let size = self.size.as_mut().map_or(1, |size| size(&item));
        self.tell(size as u64, load_time);
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl<I: ExactSizeIterator> ExactSizeIterator for Timed<I> {}

impl<I: FusedIterator> FusedIterator for Timed<I> {}

impl<I: Iterator> fmt::Debug for Timed<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed")
            .field("component", &self.component)
            .field("warn_above", &self.warn_above)
            .finish_non_exhaustive()
    }
}
