//! `Config`: all settings of a collector, their defaults and their limits.

use super::setters::setters;
use std::time::Duration;

use super::delivery::{FlushStrategy, Lanes, Overflow};
use super::error::{ConfigError, ConfigWarning, check};
use super::gate::GateConfig;
use super::health::HealthConfig;
use crate::sync::processors;

/// Longest wait where nobody makes space, so that it ends by itself.
const MAX_MANUAL_WAIT: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of slots of a lane.
const MAX_CAPACITY: usize = 1 << 30;

/// Limit of the stack size. The standard library rounds up to pages, and panics where the sum is beyond the address
/// space.
const MAX_STACK: usize = isize::MAX as usize & !0xffff;

/// Maximum number of rings. With more, the worker would spend its time looking at empty ones.
const MAX_SHARDS: usize = 64;

/// Maximum number of lanes of threads.
const MAX_LANES: usize = 1024;

/// Settings of a collector: public fields with defaults, and a setter for each.
///
/// [`loader`](Self::loader) reads them from a preset, a file and the environment.
///
/// ```
/// use forebay::{Collector, Config};
///
/// # fn main() -> Result<(), forebay::collector::StartError> {
/// let config = Config::default().with_capacity(50_000);
/// let collector = Collector::new(config)?;
/// assert_eq!(collector.config().capacity, 50_000);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Slots of the normal lane, in events. All slots are allocated when the collector is built; each has the size of
    /// an event plus 8 bytes. Where the system refuses the memory, the build fails
    /// ([`BuildError::OutOfMemory`](crate::collector::BuildError::OutOfMemory)). 1 to 2^30. Defaults to 10,000.
    pub capacity: usize,
    /// Slots of the critical lane, in events. 1 to 2^30. Defaults to 1,000.
    pub critical_capacity: usize,
    /// Slots of the low lane, in events. 1 to 2^30. Defaults to 10,000.
    pub low_capacity: usize,
    /// Number of rings of the normal lane: a power of two, 1 to 64. Defaults to 1.
    ///
    /// Threads that collect at full speed into one ring wait for each other's cache lines: two at once pay two to
    /// four times what one pays. With several rings they meet less or not at all. Threads are numbered in the order
    /// in which they first collect, over all collectors of the process, and the numbers are assigned to the rings in
    /// turn. Use about as many rings as threads that collect at full speed, not more. Several rings change three
    /// things:
    ///
    /// * Each ring has its part of `capacity` (rounded up), and evicts, rejects or waits by itself. A thread that is
    ///   alone cannot use more than that part.
    /// * "Pending" in a flush strategy means the fullest ring times their number, and "half a lane" means half a
    ///   ring. So a thread that is alone sets off a delivery with a part of the events that the strategy says, and
    ///   wakes the worker that many times more often. Raise `flush.events` with the number of rings.
    /// * The events of one thread keep their order. Those of one task that moves from thread to thread need not.
    pub shards: usize,
    /// How normal events travel to the worker. Defaults to [`Lanes::Shared`]. With lanes of threads, `shards` is 1.
    pub lanes: Lanes,
    /// Limit of bytes that events own beyond their slots, while they are queued or with the worker. These are texts,
    /// images, histograms, fields, and names made at run time ([`Event::size_hint`](crate::Event::size_hint)). An
    /// eighth is reserved for critical events. 1 or more; `None` is no limit. Defaults to 50 MiB.
    ///
    /// The overflow policy applies to an event that does not fit. [`Overflow::DropOldest`] evicts the oldest low
    /// events, then, for a normal event, normal ones, at most 128. If that is not enough, the event is rejected, as
    /// if its lane were full. An event larger than the limit for its priority is rejected as oversize. Half of the
    /// limit, or an event that does not fit, sets off a delivery, as a full lane does.
    ///
    /// Behind the worker, other limits apply, each of 50 MiB by default and with a setter named `max_bytes`: for the
    /// queue of an [isolated sink](crate::sink::Isolated::max_bytes), [dead
    /// letters](crate::sink::DeadLetters::max_bytes), a [subscription](crate::subscription::Subscription::max_bytes),
    /// and `Recent` of the crate `forebay-history`. Where batches wait, their buffers count as well. Names and
    /// tags that a sink remembers take 16 MiB.
    pub max_bytes: Option<usize>,
    /// Maximum number of events of one batch, at least 1. Defaults to 100, or to the number of events that sets off a
    /// delivery if that is more. A smaller one splits such a delivery into several batches.
    pub batch_size: Option<usize>,
    /// Policy of a full lane. Defaults to [`Overflow::DropOldest`].
    pub overflow: Overflow,
    /// Gate, which selects the events that are accepted. Defaults to all.
    pub gate: GateConfig,
    /// Thresholds of alerts. Defaults to those of [`HealthConfig`].
    pub health: HealthConfig,
    /// Strategy that says when events are delivered. Defaults to [`FlushStrategy::Hybrid`] with 100 events and one second.
    pub flush: FlushStrategy,
    /// Longest nap of the worker while events keep coming, under [`FlushStrategy::Size`] and [`FlushStrategy::Hybrid`] with
    /// more than one event, where half of the normal and half of the low lane are more than a batch. It naps for about as
    /// long as the next two batches take to fill, so that the loop that collects need not wake it, which is a system call; a
    /// batch that is full waits for the end of the nap. A critical event, a `flush`, a `stop`, half a lane of events, or half
    /// of `max_bytes` ends it. After a nap without events, the worker sleeps until it is woken: so it does between steps that
    /// are longer than the nap, and where a batch takes eight naps to fill. Zero for no naps. Defaults to 20 ms.
    pub max_nap: Duration,
    /// Longest wait of `collect` for a critical event whose lane is full. Zero never waits. Defaults to 100 ms.
    pub critical_timeout: Duration,
    /// The deadline of `flush`. Defaults to 10 s.
    pub flush_timeout: Duration,
    /// The deadline of `stop`. Defaults to 10 s.
    pub stop_timeout: Duration,
    /// The deadline of the stop that happens when the last handle is dropped. Defaults to 1 s.
    pub drop_timeout: Duration,
    /// The session id that every batch carries. `None` makes a new UUID (version 7). Not empty. Defaults to `None`.
    pub session_id: Option<String>,
    /// The program that collects; every batch carries it ([`Origin`](crate::collector::Origin)). Defaults to `None`.
    pub source: Option<String>,
    /// The name of the machine; every batch carries it. `None` asks the system. Defaults to `None`.
    pub host: Option<String>,
    /// The number of this process in its run; every batch carries it. `None` reads the variable `RANK`, if it is set.
    /// Defaults to `None`.
    pub rank: Option<u64>,
    /// The name of the worker thread, without NUL. Linux shows its first 15 bytes. Defaults to `forebay-worker`.
    pub thread_name: String,
    /// The stack size of the worker thread in bytes; the sinks run on it. Less than half of the address space. `None`
    /// is the platform's default. Defaults to `None`.
    pub thread_stack_size: Option<usize>,
    /// Variables that begin with `FOREBAY_` and are not ours, as the loader found them. [`warnings`](Self::warnings)
    /// lists them; they have no other effect. Defaults to none.
    pub ignored_variables: Vec<String>,
}

setters! {
    Config:
    with_capacity, capacity: usize;
    with_critical_capacity, critical_capacity: usize;
    with_low_capacity, low_capacity: usize;
    with_shards, shards: usize;
    with_lanes, lanes: Lanes;
    with_max_bytes, max_bytes: Option<usize>;
    with_batch_size, batch_size: Option<usize>;
    with_overflow, overflow: Overflow;
    with_gate, gate: GateConfig;
    with_health, health: HealthConfig;
    with_flush, flush: FlushStrategy;
    with_max_nap, max_nap: Duration;
    with_critical_timeout, critical_timeout: Duration;
    with_flush_timeout, flush_timeout: Duration;
    with_stop_timeout, stop_timeout: Duration;
    with_drop_timeout, drop_timeout: Duration;
    with_session_id, session_id: Option<String>;
    with_source, source: Option<String>;
    with_host, host: Option<String>;
    with_rank, rank: Option<u64>;
    with_thread_name, thread_name: String;
    with_thread_stack_size, thread_stack_size: Option<usize>;
    with_ignored_variables, ignored_variables: Vec<String>;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 10_000,
            critical_capacity: 1_000,
            low_capacity: 10_000,
            shards: 1,
            lanes: Lanes::default(),
            max_bytes: Some(50 << 20),
            batch_size: None,
            overflow: Overflow::default(),
            gate: GateConfig::default(),
            health: HealthConfig::default(),
            flush: FlushStrategy::default(),
            max_nap: Duration::from_millis(20),
            critical_timeout: Duration::from_millis(100),
            flush_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(10),
            drop_timeout: Duration::from_secs(1),
            session_id: None,
            source: None,
            host: None,
            rank: None,
            thread_name: "forebay-worker".to_owned(),
            thread_stack_size: None,
            ignored_variables: Vec::new(),
        }
    }
}

impl Config {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The error names the first setting that is not allowed, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        const SLOTS: &str = "1..=1073741824";
        let lanes = [
            ("capacity", self.capacity),
            ("critical_capacity", self.critical_capacity),
            ("low_capacity", self.low_capacity),
        ];
        for (field, slots) in lanes {
            check(field, slots, SLOTS, (1..=MAX_CAPACITY).contains(&slots))?;
        }
        let is_allowed = self.shards.is_power_of_two() && self.shards <= MAX_SHARDS;
        check("shards", self.shards, "1, 2, 4, 8, 16, 32 or 64", is_allowed)?;
        if let Lanes::PerThread { max } = self.lanes {
            check("max_lanes", max, "0..=1024", max <= MAX_LANES)?;
            check("shards", self.shards, "1 with lanes of threads", self.shards == 1)?;
        }
        check("max_bytes", 0, "1 or more", self.max_bytes != Some(0))?;
        if let Some(events) = self.batch_size {
            check("batch_size", events, "1 or more", events >= 1)?;
        }
        if let Some(events) = self.flush.events() {
            check("flush.events", events, "1 or more", events >= 1)?;
        }
        if let Some(interval) = self.flush.interval() {
            let value = format!("{interval:?}");
            check("flush.interval", value, "more than zero", !interval.is_zero())?;
        }
        if self.flush == FlushStrategy::Manual {
            let allowed = "a day at most under the flush strategy Manual, because nobody makes space";
            let blocks = match self.overflow {
                Overflow::Block { timeout } => timeout,
                Overflow::DropOldest | Overflow::DropNewest => Duration::ZERO,
            };
            for (field, wait) in [("overflow_timeout", blocks), ("critical_timeout", self.critical_timeout)] {
                check(field, format!("{wait:?}"), allowed, wait <= MAX_MANUAL_WAIT)?;
            }
        }
        self.gate.validate()?;
        self.health.validate()?;
        if let Some(id) = &self.session_id {
            check("session_id", "empty", "a text that is not empty", !id.is_empty())?;
        }
        if let Some(bytes) = self.thread_stack_size {
            check("thread_stack_size", bytes, "less than half of the address space", bytes <= MAX_STACK)?;
        }
        let name = &self.thread_name;
        check("thread_name", format!("{name:?}"), "a text without NUL", !name.contains('\0'))
    }

    /// Checks that the settings that cannot change are those of `before`.
    pub(crate) fn keeps_what_is_fixed(&self, before: &Self) -> Result<(), ConfigError> {
        let fixed = [
            ("capacity", self.capacity == before.capacity),
            ("critical_capacity", self.critical_capacity == before.critical_capacity),
            ("low_capacity", self.low_capacity == before.low_capacity),
            ("shards", self.shards == before.shards),
            ("lanes", self.lanes == before.lanes),
            ("session_id", self.session_id == before.session_id),
            ("source", self.source == before.source),
            ("host", self.host == before.host),
            ("rank", self.rank == before.rank),
            ("gate.allow", self.gate.allow == before.gate.allow),
            ("gate.deny", self.gate.deny == before.gate.deny),
            ("gate.rules", self.gate.rules == before.gate.rules),
            ("gate.seed", self.gate.seed == before.gate.seed),
        ];
        match fixed.into_iter().find(|(_, is_kept)| !is_kept) {
            Some((field, _)) => Err(ConfigError::Immutable { field }),
            None => Ok(()),
        }
    }

    /// Returns the settings that are used with another value than their own, and the variables that are ignored.
    pub fn warnings(&self) -> Vec<ConfigWarning> {
        const FEWER: &str = "a lane of `capacity` events never holds more";
        const EVEN: &str = "every one of `shards` rings has the same number of slots";
        let slots = self.slots();
        let events = self.flush.events().map(|events| ("flush.events", events));
        let capped = [self.batch_size.map(|events| ("batch_size", events)), events].into_iter().flatten();
        let capped = capped.map(|(field, value)| (field, value, value.min(slots), FEWER));
        const KUBERNETES: &str = "Kubernetes sets it for a service; no setting has this name";
        let ignored = self.ignored_variables.iter().map(|name| ConfigWarning {
            field: "ignored_variables",
            value: name.clone(),
            used: "none".to_owned(),
            why: KUBERNETES,
        });
        [("capacity", self.capacity, slots, EVEN)]
            .into_iter()
            .chain(capped)
            .filter(|(_, value, used, _)| value != used)
            .map(|(field, value, used, why)| ConfigWarning {
                field,
                value: value.to_string(),
                used: used.to_string(),
                why,
            })
            .chain(ignored)
            .collect()
    }

    /// Returns the slots of the normal lane as used: the same number in every ring.
    fn slots(&self) -> usize {
        self.capacity.next_multiple_of(self.shards.max(1))
    }

    /// Returns the number of lanes of threads; `None` if normal events share rings.
    pub(crate) fn lane_count(&self) -> Option<usize> {
        match self.lanes {
            Lanes::Shared => None,
            Lanes::PerThread { max: 0 } => Some((4 * processors()).clamp(16, MAX_LANES)),
            Lanes::PerThread { max } => Some(max),
        }
    }

    /// Returns the slots of the smaller of the two lanes that may evict.
    pub(crate) fn fewest_slots(&self) -> u32 {
        // About 2^30 at most, so that it fits.
        self.slots().min(self.low_capacity) as u32
    }

    /// Returns the maximum number of events of one batch, as used.
    pub(crate) fn batch_limit(&self) -> usize {
        let by_default = self.flush.events().unwrap_or(1).max(100);
        self.batch_size.unwrap_or(by_default).min(self.slots())
    }

    /// Returns the number of pending events that sets off a delivery, as used; none for `Manual`.
    pub(crate) fn trigger(&self) -> Option<u32> {
        let events = match self.flush {
            FlushStrategy::Size { events } | FlushStrategy::Hybrid { events, .. } => events.min(self.slots()),
            FlushStrategy::Time { .. } => self.slots().div_ceil(2),
            FlushStrategy::Manual => return None,
        };
        // About 2^30 at most, so that it fits.
        Some(events as u32)
    }
}
