//! Two ways to do one thing, measured in turn in one run, so that a noisy machine hurts both.

use std::time::Duration;

/// The medians of both sides, in nanoseconds an event, and the median of the rounds' ratios.
pub(crate) struct Duel {
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    /// Ours by theirs.
    pub(crate) ratio: f64,
}

/// Runs both in turn; each takes one sample of `events` events and says how long that took. Who begins
/// alternates.
pub(crate) fn duel(
    rounds: usize,
    events: usize,
    mut ours: impl FnMut() -> Duration,
    mut theirs: impl FnMut() -> Duration,
) -> Duel {
    let nanos = |time: Duration| time.as_nanos() as f64 / events as f64;
    // Not counted: caches, pages and threads come to rest.
    let _ = (ours(), theirs());
    let (mut our_times, mut their_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (our_time, their_time) = if round % 2 == 0 {
            let our_time = ours();
            (our_time, theirs())
        } else {
            let their_time = theirs();
            (ours(), their_time)
        };
        our_times.push(nanos(our_time));
        their_times.push(nanos(their_time));
        ratios.push(our_time.as_secs_f64() / their_time.as_secs_f64());
    }
    Duel { ours: median(our_times), theirs: median(their_times), ratio: median(ratios) }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
