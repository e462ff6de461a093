//! `Event`: what every event says about itself.

use super::Priority;

/// Event that can be collected. Every method has a default: `impl Event for MyEvent {}` is enough.
///
/// The thread that collects an event moves it into a ring, once. Sinks see it by reference. Its destructor runs on
/// the worker thread. If it is evicted or rejected, the destructor runs on the collecting thread, and is part of the
/// cost of `collect`.
///
/// File sinks take events of your own: JSON Lines those that implement `Serialize`, TensorBoard and SQLite those that
/// contain a [`Record`](crate::Record), by `AsRef<Record>`.
///
/// ```
/// use forebay::{Builder, Event, sink::MemorySink};
///
/// #[derive(Debug, Clone, Copy, PartialEq)]
/// struct Tick(u64);
///
/// impl Event for Tick {}
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Builder::<Tick>::new().sink(memory.clone()).start()?;
/// collector.collect(Tick(1));
/// collector.stop()?;
/// assert_eq!(memory.events(), [Tick(1)]);
/// # Ok(())
/// # }
/// ```
pub trait Event: Send + Sync + 'static {
    /// Returns the name by which the event is routed and filtered. Defaults to the name of its type.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// Returns the priority, which chooses the lane. The thread that collects the event asks once. Defaults to
    /// [`Priority::Normal`].
    fn priority(&self) -> Priority {
        Priority::Normal
    }

    /// Returns the id of what the event belongs to, across sources. [`Sampling::Keyed`](crate::config::Sampling)
    /// accepts all events of an id, or none. Defaults to none.
    fn correlation_id(&self) -> Option<&str> {
        None
    }

    /// Returns when the event was made, in nanoseconds since 1970, by the clock of this process at that moment. The
    /// latency in [`Stats`](crate::Stats) needs it. Return none for an event whose moment came from elsewhere, such
    /// as an imported one; it is then left out. Make it cheap, because the worker calls it. Defaults to none.
    fn made_at(&self) -> Option<u64> {
        None
    }

    /// Returns about how many bytes the event occupies, including what it owns on the heap. The part beyond the size
    /// of its type counts against [`Config::max_bytes`](crate::Config::max_bytes). Defaults to the size of its type.
    ///
    /// Make it cheap, and return the same value until a sink has the event. It is called on the collecting thread,
    /// and again when the event leaves the ring.
    #[inline]
    fn size_hint(&self) -> usize {
        size_of_val(self)
    }

    /// Returns whether `collect` rejects the event as [`Outcome::Oversize`](crate::Outcome::Oversize), whatever the
    /// settings allow. A [`Record`](crate::Record) is rejected when its values are nested deeper than
    /// [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH). It is called only where [`size_hint`](Self::size_hint) is more
    /// than the size of the type. Defaults to false.
    ///
    /// Sinks that write by `Serialize` or `Display` call these of your type on the worker thread. One that recurses
    /// over data of any depth exhausts the stack there, which no library can catch. Limit that depth here, or give
    /// the worker a larger [`thread_stack_size`](crate::Config::thread_stack_size).
    #[inline]
    fn is_too_deep(&self) -> bool {
        false
    }
}
