//! Letting in a part.

use std::time::Duration;

use super::table::{Window, hash, mix};
use crate::sync::{Ordering, PlainU64};

/// Which part of the events is let in. Counted by name; of some ten thousand names, two may share a counter.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Sampling {
    /// Each by chance, but of every name at least so many in each window.
    Rate {
        /// The chance of an event, 0 to 1.
        rate: f64,
        /// How many of a name are let in first in each window, whatever chance says.
        min_per_window: u32,
        /// How long a window is: a millisecond to a day.
        window: Duration,
    },
    /// The first of a name, then every nth.
    Every {
        /// Which: 1 is every one. At least 1.
        nth: u32,
    },
    /// The first of a name, so many, then every nth.
    FirstThenEvery {
        /// How many.
        first: u32,
        /// Then which. At least 1.
        every: u32,
    },
    /// All events of a correlation id, or none, by chance; the same in every process. Events without an id are let in.
    Keyed {
        /// The chance of an id, 0 to 1.
        rate: f64,
    },
}

impl Sampling {
    /// The value that is not allowed, and what is.
    pub(super) fn check(&self) -> Result<(), (String, &'static str)> {
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

/// A sampling at work, in numbers that can change one by one.
#[derive(Debug)]
pub(super) struct Sampler {
    kind: PlainU64,
    /// The bits of a rate.
    rate: PlainU64,
    first: PlainU64,
    /// Nanoseconds of a window, or the number of a turn.
    every: PlainU64,
}

const ALL: u64 = 0;
const RATE: u64 = 1;
const TURNS: u64 = 2;
const KEYED: u64 = 3;

impl Sampler {
    pub(super) fn all() -> Self {
        let number = || PlainU64::new(0);
        Self { kind: number(), rate: number(), first: number(), every: number() }
    }

    pub(super) fn of(sampling: &Sampling) -> Self {
        let sampler = Self::all();
        sampler.set(Some(sampling));
        sampler
    }

    pub(super) fn set(&self, sampling: Option<&Sampling>) {
        let (kind, rate, first, every) = match sampling {
            None => (ALL, 0.0, 0, 1),
            Some(Sampling::Rate { rate, min_per_window, window }) => {
                (RATE, *rate, u64::from(*min_per_window), window.as_nanos() as u64)
            }
            Some(Sampling::Every { nth }) => (TURNS, 0.0, 1, u64::from(*nth)),
            Some(Sampling::FirstThenEvery { first, every }) => {
                (TURNS, 0.0, u64::from(*first), u64::from(*every))
            }
            Some(Sampling::Keyed { rate }) => (KEYED, *rate, 0, 1),
        };
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
        self.first.store(first, Ordering::Relaxed);
        self.every.store(every, Ordering::Relaxed);
        self.kind.store(kind, Ordering::Relaxed);
    }

    /// Whether an event is let in, by the counter of its name, the time, chance, and its correlation id.
    pub(super) fn keeps<'a>(
        &self,
        window: impl FnOnce() -> &'a Window,
        now: impl FnOnce() -> u64,
        by_chance: impl FnOnce() -> f64,
        id: impl FnOnce() -> Option<&'a str>,
    ) -> bool {
        let rate = || f64::from_bits(self.rate.load(Ordering::Relaxed));
        let first = self.first.load(Ordering::Relaxed);
        let every = self.every.load(Ordering::Relaxed).max(1);
        match self.kind.load(Ordering::Relaxed) {
            RATE => {
                let number = now() / every;
                if first == 0 {
                    return by_chance() < rate();
                }
                let window = window();
                if window.is_among_first(number, first) {
                    return true;
                }
                let is_in = by_chance() < rate();
                if is_in {
                    window.count(number);
                }
                is_in
            }
            TURNS => {
                let before = window().next_turn();
                before < first || (before - first + 1).is_multiple_of(every)
            }
            KEYED => id().is_none_or(|id| chance(hash(id)) < rate()),
            _ => true,
        }
    }
}

/// A number from 0 to 1, without 1, from 64 bits that need not be random.
pub(super) fn chance(bits: u64) -> f64 {
    (mix(bits) >> 11) as f64 / (1u64 << 53) as f64
}
