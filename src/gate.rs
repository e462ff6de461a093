//! `Gate`: which events are accepted. The collecting thread decides, before the ring and without a lock.
//!
//! A gate that accepts everything is not asked: one relaxed load of [`Settings`](crate::settings) says so. A
//! configured gate checks, in this order: the switch, the names, the priority, the size, the sampling, the rate.
//! Critical events pass all checks but the switch.

mod sampling;
mod table;

use crate::clock::Clock;
use crate::config::GateConfig;
use crate::event::{Event, Priority};
use crate::outcome::Refusal;
use crate::pattern::Pattern;
use crate::rate::Rate;
use crate::sync::{OnceLock, Ordering, PlainU64, fetch_update};
use sampling::{Sampler, chance};
use table::{Table, Windows, hash};

/// Gate with its state. Every number is Relaxed, because each stands for itself.
#[derive(Debug)]
pub(crate) struct Gate {
    names: Names,
    clock: Clock,
    seed: Option<u64>,
    /// Number of random decisions so far, where a seed makes them the same in every run.
    decisions: PlainU64,
    /// Counters of windows and turns, by name, of what `sampler` samples. They exist once it does.
    windows: OnceLock<Windows>,
    /// The same of what a rule samples.
    rule_windows: OnceLock<Windows>,
    is_enabled: PlainU64,
    /// The number of the lowest priority that is accepted; more important priorities have lower numbers.
    lowest: PlainU64,
    sampler: Sampler,
    /// Events a second, 0 without a limit.
    per_second: PlainU64,
    due: PlainU64,
    /// `u64::MAX` without a limit.
    max_bytes: PlainU64,
}

/// Names that are accepted.
#[derive(Debug)]
struct Names {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    rules: Vec<(Pattern, Option<Priority>, Option<Sampler>)>,
    /// Earlier verdicts, by the hash of the name. `None` where the general settings decide for every name.
    table: Option<Table>,
}

/// Verdict of the patterns on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Denied,
    Allowed,
    /// Allowed by the rule with that index.
    Rule(usize),
}

impl Gate {
    pub(crate) fn new(config: &GateConfig, clock: Clock) -> Self {
        let rules = config
            .rules
            .iter()
            .map(|rule| (rule.pattern.clone(), rule.min_priority, rule.sampling.as_ref().map(Sampler::of)));
        let is_asked = !(config.allow.is_empty() && config.deny.is_empty() && config.rules.is_empty());
        let names = Names {
            allow: config.allow.clone(),
            deny: config.deny.clone(),
            rules: rules.collect(),
            table: is_asked.then(Table::default),
        };
        let gate = Self {
            names,
            clock,
            seed: config.seed,
            decisions: PlainU64::new(0),
            windows: OnceLock::new(),
            rule_windows: OnceLock::new(),
            is_enabled: PlainU64::new(1),
            lowest: PlainU64::new(0),
            sampler: Sampler::all(),
            per_second: PlainU64::new(0),
            due: PlainU64::new(0),
            max_bytes: PlainU64::new(u64::MAX),
        };
        gate.set(config);
        gate
    }

    /// Applies those settings that can change.
    pub(crate) fn set(&self, config: &GateConfig) {
        let max_bytes = config.max_event_bytes.map_or(u64::MAX, |bytes| bytes as u64);
        self.is_enabled.store(u64::from(config.enabled), Ordering::Relaxed);
        self.lowest.store(config.min_priority as u64, Ordering::Relaxed);
        if config.sampling.is_some() {
            self.windows.get_or_init(Windows::default);
        }
        if config.rules.iter().any(|rule| rule.sampling.is_some()) {
            self.rule_windows.get_or_init(Windows::default);
        }
        if self.sampler.is_of_other_kind(config.sampling.as_ref())
            && let Some(windows) = self.windows.get()
        {
            // The number of a window is no number of turns.
            windows.clear();
        }
        self.sampler.set(config.sampling.as_ref());
        self.per_second.store(config.rate_limit.map_or(0, u64::from), Ordering::Relaxed);
        self.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// Returns whether an event is accepted, or why not.
    pub(crate) fn admit<E: Event>(&self, priority: Priority, event: &E) -> Result<(), Refusal> {
        if self.is_enabled.load(Ordering::Relaxed) == 0 {
            return Err(Refusal::Filtered);
        }
        if priority == Priority::Critical {
            return Ok(());
        }
        let Some((lowest, of_rule)) = self.settings_of(event.name()) else { return Err(Refusal::Filtered) };
        // 0 is critical, 2 is low.
        if priority as u64 > lowest {
            return Err(Refusal::Filtered);
        }
        let max_bytes = self.max_bytes.load(Ordering::Relaxed);
        if max_bytes != u64::MAX && event.size_hint() as u64 > max_bytes {
            return Err(Refusal::Oversize);
        }
        let (sampler, windows) = match of_rule {
            Some(sampler) => (sampler, &self.rule_windows),
            None => (&self.sampler, &self.windows),
        };
        if let Some(windows) = windows.get()
            && !sampler.keeps(
                || windows.of(hash(event.name())),
                || self.clock.fast_nanos(),
                || self.chance(),
                || event.correlation_id(),
            )
        {
            return Err(Refusal::SampledOut);
        }
        if !self.is_within_rate() {
            return Err(Refusal::RateLimited);
        }
        Ok(())
    }

    /// Returns whether an event of that name and priority may be accepted.
    pub(crate) fn enabled(&self, name: &str, priority: Priority) -> bool {
        self.is_enabled.load(Ordering::Relaxed) != 0
            && (priority == Priority::Critical
                || self.settings_of(name).is_some_and(|(lowest, _)| priority as u64 <= lowest))
    }

    /// Returns the number of the lowest priority that is accepted under that name, and the sampling of its rule, if that has one.
    /// Returns `None` if nothing is accepted.
    fn settings_of(&self, name: &str) -> Option<(u64, Option<&Sampler>)> {
        let rule = match self.names.verdict(name) {
            Verdict::Denied => return None,
            Verdict::Allowed => None,
            Verdict::Rule(rule) => self.names.rules.get(rule),
        };
        let (lowest, sampler) = rule.map_or((None, None), |(_, lowest, sampler)| (*lowest, sampler.as_ref()));
        let lowest = lowest.map_or_else(|| self.lowest.load(Ordering::Relaxed), |lowest| lowest as u64);
        Some((lowest, sampler))
    }

    /// Returns a random number from 0 to 1, without 1.
    fn chance(&self) -> f64 {
        match self.seed {
            None => fastrand::f64(),
            Some(seed) => chance(seed.wrapping_add(self.decisions.fetch_add(1, Ordering::Relaxed))),
        }
    }

    fn is_within_rate(&self) -> bool {
        let per_second = self.per_second.load(Ordering::Relaxed) as u32;
        if per_second == 0 {
            return true;
        }
        let (rate, now) = (Rate::new(per_second, per_second), self.clock.fast_nanos());
        fetch_update(&self.due, |due| rate.next(due, now).ok())
    }
}

impl Names {
    fn verdict(&self, name: &str) -> Verdict {
        let Some(table) = &self.table else { return Verdict::Allowed };
        let code = table.get_or_put(hash(name), || match self.decide(name) {
            Verdict::Denied => 0,
            Verdict::Allowed => 1,
            Verdict::Rule(rule) => 2 + rule as u16,
        });
        match code {
            0 => Verdict::Denied,
            1 => Verdict::Allowed,
            rule => Verdict::Rule(usize::from(rule - 2)),
        }
    }

    fn decide(&self, name: &str) -> Verdict {
        let fits = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        if fits(&self.deny) || !self.allow.is_empty() && !fits(&self.allow) {
            return Verdict::Denied;
        }
        let rule = self.rules.iter().position(|(pattern, ..)| pattern.matches(name));
        rule.map_or(Verdict::Allowed, Verdict::Rule)
    }
}
