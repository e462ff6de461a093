//! What is wrong with the ranks of a job, in words.

use forebay::run::RunEnd;
use forebay_history::{RankInfo, RankReducer, RankStatus};

use crate::args::Merge;
use crate::out::{count, note, number};

/// Names of ranks in a remark.
const MAX_NAMED: usize = 8;

/// Returns by how many steps the others may be ahead of a rank that stands still.
pub(super) fn max_lag(asked: &Merge) -> u64 {
    asked.max_lag.unwrap_or(if asked.follow { 100 } else { 10 })
}

/// Returns how a rank stands, in a word.
pub(super) fn status(rank: &RankInfo) -> &'static str {
    match (rank.status, &rank.end) {
        (RankStatus::Silent, _) => "silent",
        (RankStatus::Vanished, _) => "vanished",
        (RankStatus::Ended, Some(RunEnd::Failed { .. })) => "failed",
        (RankStatus::Ended, Some(RunEnd::Preempted { .. })) => "preempted",
        (RankStatus::Ended, _) => "finished",
        (RankStatus::Joined, _) => "joined",
        _ => "running",
    }
}

/// Returns what is wrong with ranks, each with a key under which it is said once. One that has reported no step yet is silent once the
/// others have gone so many steps.
pub(super) fn remarks(ranks: &[RankInfo], min_silent: u64) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut of = |what: &str, is: &dyn Fn(&RankInfo) -> u64, say: &dyn Fn(&RankInfo) -> String| {
        let found: Vec<&RankInfo> = ranks.iter().filter(|rank| is(rank) > 0).collect();
        for rank in found.iter().take(MAX_NAMED) {
            all.push((format!("{} {what} {}", rank.name, is(rank)), format!("{} {}", rank.name, say(rank))));
        }
        if let Some(more) = found.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
            let line = format!("{} more: {what} (see --ranks)", count(more as u64, "rank"));
            all.push((line.clone(), line));
        }
    };
    let last =
        |rank: &RankInfo| rank.last_step.map_or_else(|| "no step".to_owned(), |step| format!("step {step}"));
    let is = |rank: &RankInfo, status: RankStatus| u64::from(rank.status == status);
    let is_silent = |rank: &RankInfo| u64::from(rank.status == RankStatus::Silent && rank.lag >= min_silent);
    of("silent", &is_silent, &|_| "has reported no step".to_owned());
    of("vanished", &|rank| is(rank, RankStatus::Vanished), &|rank| {
        format!("vanished after {}: the others went on by {}", last(rank), count(rank.lag, "step"))
    });
    of("ended early", &|rank| u64::from(matches!(status(rank), "failed" | "preempted")), &|rank| {
        format!("{} after {}", status(rank), last(rank))
    });
    of("began again", &|rank| rank.restarts, &|rank| {
        let (times, numbers) = (count(rank.restarts, "time"), count(rank.superseded, "number"));
        format!("began again ({times}), and took the place of {numbers}; generation {}", rank.generation)
    });
    of("went back", &|rank| rank.backward_steps.min(1), &|rank| {
        let (from, to) = rank.went_back.unwrap_or_default();
        let (times, numbers) = (count(rank.backward_steps, "time"), count(rank.replaced, "number"));
        format!(
            "went back without a new session ({times}; first from step {from} to {to}; {numbers} replaced)"
        )
    });
    of("late", &|rank| rank.late.min(1), &|rank| {
        format!("was late: {} in no step", count(rank.late, "number"))
    });
    of("came back", &|rank| rank.returns, &|rank| {
        format!("came back after it had vanished ({})", count(rank.returns, "time"))
    });
    let is_wrong = |rank: &RankInfo| u64::from(rank.clock.is_some_and(|clock| clock.is_wrong()));
    of("wrong clock", &is_wrong, &|rank| {
        let off = rank.clock.map_or(0.0, |clock| clock.mean);
        let which = if off > 0.0 { "ahead of" } else { "behind" };
        format!("has a wrong clock: {} s {which} those of the others", number(off.abs()))
    });
    all
}

/// Names the ranks with which something is wrong, and says what is in no step.
pub(super) fn remark(ranks: &[RankInfo], job: &RankReducer) {
    remarks(ranks, 0).iter().for_each(|(_, line)| note(line));
    let account = job.account();
    for (numbers, why) in [
        (account.without_step, "without a step"),
        (account.refused, "of more names than 10,000, or for want of space"),
    ] {
        if numbers > 0 {
            note(&format!("{} left out: {why}", count(numbers, "number")));
        }
    }
    if account.incomplete_steps > 0 {
        note(&format!("{} incomplete, for want of space", count(account.incomplete_steps, "step")));
    }
}
