//! Helpers for tests of programs that use a bus (feature `testing`): a bus that remembers, and [`assert_emitted!`].
//!
//! [`forebay::testing`] has more: sinks by script, and a collector that remembers.
//!
//! ```
//! use forebay_bus::assert_emitted;
//! use forebay_bus::testing::MockBus;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = MockBus::new()?;
//! bus.emit("training.epoch_completed", 3)?;
//! assert_emitted!(bus, "training.epoch_completed");
//! assert_emitted!(bus, "training.*", times = 1);
//! assert_emitted!(bus, "training.epoch_completed", |event| event.value().as_i64() == Some(3));
//! assert_emitted!(bus, "training.failed", times = 0);
//! # Ok(())
//! # }
//! ```

use std::ops::Deref;

use forebay::Record;
use forebay::collector::StartError;
use forebay::sink::MemorySink;

use super::builder::BusBuilder;
use super::envelope::Envelope;
use super::handle::Bus;

pub use forebay::assert_emitted;
pub use forebay::testing::Emitted;

/// A [`Bus`] that calls handlers on the thread that emits, and remembers every event. It is used as the bus that it is.
#[derive(Debug)]
pub struct MockBus {
    bus: Bus,
    memory: MemorySink<Envelope>,
}

impl MockBus {
    /// Starts a bus with the default settings.
    ///
    /// # Errors
    ///
    /// As for [`BusBuilder::start`].
    pub fn new() -> Result<Self, StartError> {
        Self::of(Bus::builder())
    }

    /// Starts a bus with these settings, but [inline](crate::Mode::Inline).
    ///
    /// # Errors
    ///
    /// As for [`BusBuilder::start`].
    pub fn of(builder: BusBuilder) -> Result<Self, StartError> {
        let memory = MemorySink::new();
        let bus = builder.inline().sink(memory.clone().named("mock")).start()?;
        Ok(Self { bus, memory })
    }

    /// Clears the events so far.
    pub fn clear(&self) {
        self.memory.clear();
    }
}

impl Deref for MockBus {
    type Target = Bus;

    fn deref(&self) -> &Bus {
        &self.bus
    }
}

impl Emitted for MockBus {
    fn emitted(&self) -> Vec<Record> {
        self.memory.events().into_iter().map(Envelope::into_record).collect()
    }
}
