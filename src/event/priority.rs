//! `Priority`: the lane of an event.

/// Priority of an event, which chooses its lane.
///
/// # Examples
///
/// ```
/// use forebay::{Collector, Priority, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).build()?;
/// collector.collect(Record::new("normal"));
/// collector.collect(Record::new("failed").with_priority(Priority::Critical));
/// collector.start()?;
/// collector.stop()?;
/// assert_eq!(memory.events()[0].name(), "failed", "critical events come first");
/// # Ok(())
/// # }
/// ```
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Priority {
    /// Delivered at once and before all others; never evicted, never sampled out. For the few events that must
    /// arrive: a run started, completed, failed.
    Critical = 0,
    /// The default.
    #[default]
    Normal = 1,
    /// Delivered last, at least one for every two normal ones.
    Low = 2,
}
