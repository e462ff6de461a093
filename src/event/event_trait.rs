//! What every event tells of itself.

use super::Priority;

/// Something that can be collected. Every method has a default: `impl Event for MyEvent {}` is enough.
///
/// An event is moved into a ring, once, by the thread that collects it, and seen by sinks by reference.
/// Its destructor runs on the worker thread or, when it is evicted or refused, on the collecting thread:
/// there it is part of the price of `collect`.
///
/// Sinks of files take events of your own: JSON Lines what implements `Serialize`, TensorBoard and SQLite what has a
/// [`Record`](crate::Record) inside, by `AsRef<Record>`.
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
    /// The name by which the event is routed and filtered. Defaults to the name of its type.
    fn name(&self) -> &str {
        std::any::type_name::<Self>()
    }

    /// The lane it takes. Asked once, by the thread that collects it. Defaults to [`Priority::Normal`].
    fn priority(&self) -> Priority {
        Priority::Normal
    }

    /// What it belongs to, across sources: [`Sampling::Keyed`](crate::config::Sampling) lets in all events of an id, or none. Defaults
    /// to none.
    fn correlation_id(&self) -> Option<&str> {
        None
    }

    /// When it was made, in nanoseconds since 1970, by the clock of this process at that moment: for the latency that
    /// [`Stats`](crate::Stats) tell. None leaves the event out: return none for an event whose moment came from elsewhere,
    /// such as one that is imported. Cheap: asked by the worker. Defaults to none.
    fn made_at(&self) -> Option<u64> {
        None
    }

    /// About how many bytes it occupies, what it owns on the heap included: what goes beyond the size of its type counts
    /// against [`Config::max_bytes`](crate::Config::max_bytes). Defaults to the size of its type.
    ///
    /// Cheap, and the same whenever it is asked until a sink has the event: it is asked on the collecting thread, and again
    /// when the event leaves the ring.
    #[inline]
    fn size_hint(&self) -> usize {
        size_of_val(self)
    }

    /// Returns whether `collect` refuses the event as [`Outcome::Oversize`](crate::Outcome::Oversize), whatever the settings
    /// allow. A [`Record`](crate::Record) is refused when its values are nested deeper than [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH). Asked only where
    /// [`size_hint`](Self::size_hint) is more than the size of the type. Defaults to false.
    ///
    /// Sinks that write by `Serialize` or `Display` call these of your type on the worker thread: one that recurses over data
    /// of any depth exhausts the stack there, which no library can catch. Limit that depth here, or give the worker a larger
    /// [`thread_stack_size`](crate::Config::thread_stack_size).
    #[inline]
    fn is_too_deep(&self) -> bool {
        false
    }
}
