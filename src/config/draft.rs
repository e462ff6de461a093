//! Settings while layers are laid one upon the other.
//!
//! `Overflow` and `FlushStrategy` carry what belongs to a choice inside of it. Outside of Rust, the choice and what belongs
//! to it are settings side by side, which may stand in different layers; a draft holds them apart until a layer is
//! complete. What a lower layer said of a choice that is not taken is kept for a higher layer that takes it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::delivery::{FlushStrategy, Overflow};
use super::error::ConfigError;
use super::keys::{KEYS, Key};
use super::settings::Config;
use crate::bus::BusConfig;

/// Which overflow policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    DropOldest,
    DropNewest,
    Block,
}

/// Which flush strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    Time,
    Size,
    Hybrid,
    Manual,
}

/// Every setting in a place of its own.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// All but `overflow` and `flush`, which are behind the fields below until [`settle`](Self::settle).
    pub(super) config: Config,
    pub(super) policy: Policy,
    pub(super) overflow_timeout: Option<Duration>,
    pub(super) strategy: Strategy,
    pub(super) events: Option<usize>,
    pub(super) interval: Option<Duration>,
    /// All of a bus but its collector, which is `config`.
    pub(super) bus: BusConfig,
}

impl Draft {
    pub(super) fn new(config: Config) -> Self {
        let (policy, overflow_timeout) = match config.overflow {
            Overflow::DropOldest => (Policy::DropOldest, None),
            Overflow::DropNewest => (Policy::DropNewest, None),
            Overflow::Block { timeout } => (Policy::Block, Some(timeout)),
        };
        let strategy = match config.flush {
            FlushStrategy::Time { .. } => Strategy::Time,
            FlushStrategy::Size { .. } => Strategy::Size,
            FlushStrategy::Hybrid { .. } => Strategy::Hybrid,
            FlushStrategy::Manual => Strategy::Manual,
        };
        let (events, interval) = (config.flush.events(), config.flush.interval());
        Self { config, policy, overflow_timeout, strategy, events, interval, bus: BusConfig::default() }
    }

    pub(super) fn of_bus(bus: BusConfig) -> Self {
        Self { bus: bus.clone(), ..Self::new(bus.collector) }
    }

    /// Replaces all settings.
    pub(super) fn over(self, lower: Self) -> Self {
        Self {
            overflow_timeout: self.overflow_timeout.or(lower.overflow_timeout),
            events: self.events.or(lower.events),
            interval: self.interval.or(lower.interval),
            ..self
        }
    }

    /// The settings that are wanted, in the tables of a file. Those that are not there are null.
    pub(super) fn to_table(&self, is_wanted: impl Fn(&Key) -> bool) -> Map<String, Value> {
        let mut root = Map::new();
        for key in KEYS.iter().filter(|key| is_wanted(key)) {
            insert(&mut root, key.name, (key.get)(self));
        }
        root
    }

    /// Makes the choices of what belongs to them.
    pub(super) fn settle(&mut self) -> Result<(), ConfigError> {
        let need =
            |field, allowed| move || ConfigError::Invalid { field, value: "missing".to_owned(), allowed };
        let events =
            self.events.ok_or_else(need("flush.events", "a number with the strategies size and hybrid"));
        let interval = self
            .interval
            .ok_or_else(need("flush.interval", "a duration with the strategies time and hybrid"));
        let timeout =
            self.overflow_timeout.ok_or_else(need("overflow_timeout", "a duration where overflow is block"));
        self.config.flush = match self.strategy {
            Strategy::Time => FlushStrategy::Time { interval: interval? },
            Strategy::Size => FlushStrategy::Size { events: events? },
            Strategy::Hybrid => FlushStrategy::Hybrid { events: events?, interval: interval? },
            Strategy::Manual => FlushStrategy::Manual,
        };
        self.config.overflow = match self.policy {
            Policy::DropOldest => Overflow::DropOldest,
            Policy::DropNewest => Overflow::DropNewest,
            Policy::Block => Overflow::Block { timeout: timeout? },
        };
        Ok(())
    }

    /// The settings that nothing comes of with the choices that are taken, and what would be allowed.
    pub(super) fn unused(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let has_events = matches!(self.strategy, Strategy::Size | Strategy::Hybrid);
        let has_interval = matches!(self.strategy, Strategy::Time | Strategy::Hybrid);
        let blocks = self.policy == Policy::Block;
        let all = [
            ("flush.events", has_events || self.events.is_none(), "none with the strategies time and manual"),
            (
                "flush.interval",
                has_interval || self.interval.is_none(),
                "none with the strategies size and manual",
            ),
            ("overflow_timeout", blocks || self.overflow_timeout.is_none(), "none unless overflow is block"),
        ];
        all.into_iter().filter(|(_, is_fine, _)| !is_fine).map(|(name, _, allowed)| (name, allowed))
    }
}

/// Puts a value into the table that its name says.
fn insert(table: &mut Map<String, Value>, name: &str, value: Value) {
    let Some((outer, inner)) = name.split_once('.') else {
        table.insert(name.to_owned(), value);
        return;
    };
    if let Value::Object(next) = table.entry(outer).or_insert_with(|| Map::new().into()) {
        insert(next, inner, value);
    }
}
