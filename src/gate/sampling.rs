//! `Sampler`: accepts a part of the events.

use super::table::{Window, hash, mix};
use crate::config::Sampling;
use crate::sync::{Ordering, PlainU64};

/// Sampling as numbers that can change one by one.
#[derive(Debug)]
pub(super) struct Sampler {
    kind: PlainU64,
    /// The bits of a rate.
    rate: PlainU64,
    first: PlainU64,
    /// Nanoseconds of a window, or the length of a cycle in events.
    every: PlainU64,
}

const ALL: u64 = 0;
const RATE: u64 = 1;
const CYCLES: u64 = 2;
const KEYED: u64 = 3;

/// Returns the number of a kind of sampling. Each kind makes something else of the word of a name.
fn kind_of(sampling: Option<&Sampling>) -> u64 {
    match sampling {
        None => ALL,
        Some(Sampling::Rate { .. }) => RATE,
        Some(Sampling::Every { .. } | Sampling::FirstThenEvery { .. }) => CYCLES,
        Some(Sampling::Keyed { .. }) => KEYED,
    }
}

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

    /// Returns whether `sampling` counts by other words than the present one.
    pub(super) fn is_of_other_kind(&self, sampling: Option<&Sampling>) -> bool {
        self.kind.load(Ordering::Relaxed) != kind_of(sampling)
    }

    pub(super) fn set(&self, sampling: Option<&Sampling>) {
        let (rate, first, every) = match sampling {
            None => (0.0, 0, 1),
            Some(Sampling::Rate { rate, min_per_window, window }) => {
                (*rate, u64::from(*min_per_window), window.as_nanos() as u64)
            }
            Some(Sampling::Every { nth }) => (0.0, 1, u64::from(*nth)),
            Some(Sampling::FirstThenEvery { first, every }) => (0.0, u64::from(*first), u64::from(*every)),
            Some(Sampling::Keyed { rate }) => (*rate, 0, 1),
        };
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
        self.first.store(first, Ordering::Relaxed);
        self.every.store(every, Ordering::Relaxed);
        self.kind.store(kind_of(sampling), Ordering::Relaxed);
    }

    /// Returns whether an event is accepted, by the counter of its name, the time, chance, and its correlation id.
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
            CYCLES => {
                let before = window().next_turn();
                before < first || (before - first + 1).is_multiple_of(every)
            }
            KEYED => id().is_none_or(|id| chance(hash(id)) < rate()),
            _ => true,
        }
    }
}

/// Returns a number from 0 to 1, without 1, made of 64 bits that need not be random.
pub(super) fn chance(bits: u64) -> f64 {
    (mix(bits) >> 11) as f64 / (1u64 << 53) as f64
}
