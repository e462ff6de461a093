//! `GateConfig`: which events are accepted.

use super::setters::setters;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use super::error::{ConfigError, check};
use crate::event::Priority;
use crate::pattern::Pattern;

/// Settings of the gate, which decides which events are accepted: a part of [`Config`](crate::Config). By default all
/// are.
///
/// Only [`enabled`](Self::enabled) rejects critical events. Names, sampling, rate and size are not asked for them.
///
/// ```
/// use std::time::Duration;
/// use forebay::config::{GateConfig, NameRule, Sampling};
/// use forebay::{Collector, Outcome, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = GateConfig::default()
///     .with_deny(vec!["*.debug".into()])
///     .with_rules(vec![NameRule::new("gradients.*").with_sampling(Sampling::Every { nth: 100 })]);
/// let collector = Collector::builder().gate(gate).start()?;
/// assert_eq!(collector.collect(Record::scalar("loader.debug", 1.0)), Outcome::Filtered);
/// assert_eq!(collector.collect(Record::scalar("train.loss", 1.0)), Outcome::Queued);
/// assert!(!collector.enabled("loader.debug"));
/// let stats = collector.stop()?.stats;
/// assert_eq!((stats.filtered, stats.processed), (1, 1));
/// # Ok(())
/// # }
/// ```
///
/// A rejected event is counted by its reason in [`Stats`](crate::Stats), and its destructor runs on the collecting
/// thread. A gate costs some tens of nanoseconds. One that is not configured costs nothing that can be measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GateConfig {
    /// The switch. If it is off, all events are rejected, critical ones included. Can change at run time. Defaults to
    /// true.
    pub enabled: bool,
    /// Patterns of accepted names. If there are any, other names are rejected. Cannot change. Defaults to none, which
    /// accepts all.
    pub allow: Vec<Pattern>,
    /// Names that match one of these patterns are rejected, even if `allow` accepts them. Critical events pass. Cannot
    /// change. Defaults to none.
    pub deny: Vec<Pattern>,
    /// Other settings for some names. The first rule that matches a name applies. 10,000 rules at most. Cannot change.
    /// Defaults to none.
    pub rules: Vec<NameRule>,
    /// Events of a lower priority are rejected. Can change at run time. Defaults to `Low`, which accepts all.
    pub min_priority: Priority,
    /// Accepts a part of the events. Can change at run time. Defaults to all.
    pub sampling: Option<Sampling>,
    /// Maximum number of events a second, over all names, by the generic cell rate algorithm. Up to a second's worth
    /// may come at once. At least 1. Can change at run time. Defaults to no limit.
    pub rate_limit: Option<u32>,
    /// Maximum [`size_hint`](crate::Event::size_hint) of an event, in bytes. At least 1. Can change at run time.
    /// Defaults to no limit.
    pub max_event_bytes: Option<usize>,
    /// Seed that makes random decisions the same in every run, for tests. The decisions then cost a counter that all
    /// threads share. Cannot change. Defaults to none.
    pub seed: Option<u64>,
}

setters! {
    GateConfig:
    with_enabled, enabled: bool;
    with_allow, allow: Vec<Pattern>;
    with_deny, deny: Vec<Pattern>;
    with_rules, rules: Vec<NameRule>;
    with_min_priority, min_priority: Priority;
    with_sampling, sampling: Option<Sampling>;
    with_rate_limit, rate_limit: Option<u32>;
    with_max_event_bytes, max_event_bytes: Option<usize>;
    with_seed, seed: Option<u64>;
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: Vec::new(),
            deny: Vec::new(),
            rules: Vec::new(),
            min_priority: Priority::Low,
            sampling: None,
            rate_limit: None,
            max_event_bytes: None,
            seed: None,
        }
    }
}

/// Settings of a gate for some names, in the place of the general ones.
///
/// # Examples
///
/// ```
/// use forebay::config::{GateConfig, NameRule};
/// use forebay::{Collector, Outcome, Priority, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let quiet = NameRule::new("loader.*").with_min_priority(Priority::Normal);
/// let collector = Collector::builder().gate(GateConfig::default().with_rules(vec![quiet])).start()?;
/// let low = |name: &'static str| collector.collect(Record::new(name).with_priority(Priority::Low));
/// assert_eq!((low("loader.read"), low("train.step")), (Outcome::Filtered, Outcome::Queued));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table with pattern, min_priority and sampling, which a variable cannot hold"
)]
#[non_exhaustive]
pub struct NameRule {
    /// The names to which it applies.
    pub pattern: Pattern,
    /// Replaces [`GateConfig::min_priority`], if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_priority: Option<Priority>,
    /// Replaces [`GateConfig::sampling`], if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
}

impl NameRule {
    /// Creates a rule that changes nothing for these names yet. A text that is no [`Pattern`] matches only itself.
    pub fn new(pattern: impl Into<Pattern>) -> Self {
        Self { pattern: pattern.into(), min_priority: None, sampling: None }
    }
}

setters! {
    NameRule:
    with_min_priority, min_priority: Option<Priority>;
    with_sampling, sampling: Option<Sampling>;
}

/// Maximum number of rules. More would not fit into the table of names.
const MAX_RULES: usize = 10_000;

impl GateConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let rules = self.rules.len();
        check("gate.rules", format!("{rules} rules"), "10000 rules or less", rules <= MAX_RULES)?;
        let sampled =
            self.rules.iter().filter_map(|rule| rule.sampling.map(|it| ("gate.rules.sampling", it)));
        for (field, sampling) in sampled.chain(self.sampling.map(|it| ("gate.sampling", it))) {
            sampling.check().or_else(|(value, allowed)| check(field, value, allowed, false))?;
        }
        check("gate.rate_limit", 0, "1 or more", self.rate_limit != Some(0))?;
        check("gate.max_event_bytes", 0, "1 or more", self.max_event_bytes != Some(0))
    }

    /// Returns whether all events are accepted.
    pub(crate) fn is_open(&self) -> bool {
        let open = Self { seed: self.seed, ..Self::default() };
        *self == open
    }
}

/// Part of the events that is accepted. Events are counted by name; of some ten thousand names, two may share a
/// counter.
///
/// # Examples
///
/// ```
/// use forebay::config::{GateConfig, Sampling};
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = GateConfig::default().with_sampling(Sampling::Every { nth: 10 });
/// let collector = Collector::builder().gate(gate).start()?;
/// for step in 0..100 {
///     collector.collect(Record::scalar("gradients.norm", 1.0).with_step(step));
/// }
/// let stats = collector.stop()?.stats;
/// assert_eq!((stats.processed, stats.sampled_out), (10, 90));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "SamplingParts")]
#[non_exhaustive]
pub enum Sampling {
    /// Each event by chance, but of every name at least some in each window.
    Rate {
        /// The chance of an event, 0 to 1.
        rate: f64,
        /// The number of events of a name that are accepted first in each window, whatever chance says.
        min_per_window: u32,
        /// Length of a window: a millisecond to a day.
        #[serde(with = "super::duration")]
        window: Duration,
    },
    /// The first event of a name, then every nth.
    Every {
        /// The n. At least 1, which accepts every one.
        #[serde(rename = "every")]
        nth: u32,
    },
    /// The first events of a name, then every nth.
    FirstThenEvery {
        /// The number of first events.
        first: u32,
        /// The n. At least 1.
        every: u32,
    },
    /// All events of a correlation id, or none, by chance. The choice is the same in every process. Events without an
    /// id are accepted.
    Keyed {
        /// The chance of an id, 0 to 1.
        #[serde(rename = "keyed")]
        rate: f64,
    },
}

impl Sampling {
    /// Checks the values. The error holds the value that is not allowed, and what is allowed.
    fn check(&self) -> Result<(), (String, &'static str)> {
        const RATE: &str = "a rate from 0 to 1";
        const WINDOW: &str = "a window of a millisecond to a day";
        let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
        match *self {
            Self::Rate { rate, .. } | Self::Keyed { rate } if !(0.0..=1.0).contains(&rate) => {
                Err((format!("a rate of {rate}"), RATE))
            }
            Self::Rate { window, .. } if !(shortest..=longest).contains(&window) => {
                Err((format!("a window of {window:?}"), WINDOW))
            }
            Self::Every { nth: 0 } | Self::FirstThenEvery { every: 0, .. } => {
                Err(("every 0th".to_owned(), "every 1st, or a later one"))
            }
            _ => Ok(()),
        }
    }
}

/// Sampling in the form of a file.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "rate (with min_per_window and window), or every, or first and every, or keyed"
)]
struct SamplingParts {
    rate: Option<f64>,
    min_per_window: Option<u32>,
    #[serde(default, with = "duration::option")]
    window: Option<Duration>,
    every: Option<u32>,
    first: Option<u32>,
    keyed: Option<f64>,
}

impl TryFrom<SamplingParts> for Sampling {
    type Error = &'static str;

    fn try_from(parts: SamplingParts) -> Result<Self, Self::Error> {
        let SamplingParts { rate, min_per_window, window, every, first, keyed } = parts;
        match (rate, every, first, keyed, min_per_window, window) {
            (Some(rate), None, None, None, least, window) => Ok(Self::Rate {
                rate,
                min_per_window: least.unwrap_or(0),
                window: window.unwrap_or(Duration::from_secs(1)),
            }),
            (None, Some(nth), None, None, None, None) => Ok(Self::Every { nth }),
            (None, Some(every), Some(first), None, None, None) => Ok(Self::FirstThenEvery { first, every }),
            (None, None, None, Some(rate), None, None) => Ok(Self::Keyed { rate }),
            _ => Err("rate (with min_per_window and window), or every, or first and every, or keyed"),
        }
    }
}
