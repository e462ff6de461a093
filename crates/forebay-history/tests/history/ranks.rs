//! Ranks of a job as one: complete steps are reduced, and what vanishes, comes late or begins again is named.

use std::collections::BTreeMap;

use forebay::event::catalog::training::{Completed, Failed, Started};
use forebay::sink::Sink;
use forebay::{Batch, Fields, Priority, Record, Value};
use forebay_history::{
    EventQuery, History, HistoryError, RankInfo, RankReducer, RankStatus, RankStep, Recent, Records, Reduce,
    RunEnd, reduce_ranks,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// An hour after the begin of 1970, so that a clock may be behind.
const NOON: u64 = 12 * 3_600 * SECOND;

/// The loss of a step, of which each takes a second.
fn loss(step: u64, value: f64) -> Record {
    Record::scalar("loss", value).with_step(step).with_unix_nanos(NOON + step * SECOND)
}

/// The begin of one of four ranks of a run.
fn begin(rank: u64, generation: u64, first_step: Option<u64>) -> Record {
    let started = Started { run_id: "job".to_owned(), config: Fields::new(), model_type: None };
    let record = Record::from(started)
        .with_field("rank", rank)
        .with_field("world_size", 4_u64)
        .with_field("generation", generation);
    match first_step {
        Some(step) => record.with_field("first_step", step),
        None => record,
    }
}

/// Makes a job of so many ranks, `rank-0` and so on.
fn job(reducer: RankReducer, ranks: usize) -> RankReducer {
    let mut job = reducer;
    (0..ranks).for_each(|rank| _ = job.add_rank(format!("rank-{rank}")));
    job
}

fn taken(job: &mut RankReducer) -> Vec<RankStep> {
    std::iter::from_fn(|| job.next_step()).collect()
}

fn steps(rows: &[RankStep]) -> Vec<i64> {
    rows.iter().map(|row| row.step).collect()
}

fn mean(row: &RankStep) -> f64 {
    row.values[0].get(Reduce::Mean).unwrap()
}

fn info(job: &RankReducer, rank: usize) -> RankInfo {
    job.ranks().nth(rank).unwrap()
}

#[track_caller]
fn law(job: &RankReducer) {
    let account = job.account();
    assert!(account.is_balanced(), "{account:?}");
}

#[test]
fn a_step_is_complete_once_every_rank_has_begun_a_later_one() {
    let mut job = job(RankReducer::new(), 3);
    for (rank, value) in [1.0, 2.0, 6.0].into_iter().enumerate() {
        job.push(rank, &loss(0, value));
    }
    job.push(0, &loss(1, 1.0));
    job.push(1, &loss(1, 1.0));
    assert_eq!(taken(&mut job), []);
    job.push(2, &loss(1, 1.0));
    let rows = taken(&mut job);
    assert_eq!(steps(&rows), [0]);
    let row = &rows[0];
    assert_eq!((row.is_complete, row.ranks, row.missing.len(), row.revision), (true, 3, 0, 0));
    let value = &row.values[0];
    let of = |reduce| value.get(reduce).unwrap();
    assert_eq!([of(Reduce::Mean), of(Reduce::Sum), of(Reduce::Min), of(Reduce::Max)], [3.0, 9.0, 1.0, 6.0]);
    assert_eq!((value.count, value.min, value.max), (3, Some((1.0, 0)), Some((6.0, 2))));
    job.finish();
    assert_eq!(steps(&taken(&mut job)), [1]);
    law(&job);
}

#[test]
fn numbers_that_are_not_finite_are_counted_and_in_no_mean() {
    let mut job = job(RankReducer::new(), 4);
    for (rank, value) in [1.0, f64::NAN, f64::INFINITY, 2.0].into_iter().enumerate() {
        job.push(rank, &loss(0, value));
    }
    job.push(0, &Record::scalar("all.nan", f64::NAN).with_step(0));
    job.push(0, &Record::scalar("nowhere", 1.0));
    job.finish();
    let row = job.next_step().unwrap();
    let names: Vec<&str> = row.values.iter().map(|value| &*value.name).collect();
    assert_eq!(names, ["all.nan", "loss"]);
    assert_eq!((row.values[0].count, row.values[0].finite, row.values[0].mean), (1, 0, None));
    assert_eq!((row.values[1].count, row.values[1].finite, row.values[1].mean), (4, 2, Some(1.5)));
    assert_eq!(job.account().without_step, 1);
    law(&job);
}

#[test]
fn critical_records_overtake_others_and_move_no_watermark() {
    let mut job = job(RankReducer::new(), 2);
    for step in 0..3 {
        job.push(0, &loss(step, 1.0));
    }
    // Of the same batch as the losses of the steps before.
    job.push(1, &Record::new("checkpoint").with_step(2).with_priority(Priority::Critical));
    assert_eq!(taken(&mut job), []);
    (0..3).for_each(|step| job.push(1, &loss(step, 3.0)));
    assert_eq!(taken(&mut job).iter().map(mean).collect::<Vec<_>>(), [2.0, 2.0]);
    law(&job);
}

#[test]
fn a_rank_that_stands_still_has_vanished_and_the_others_go_on_without_it() {
    let mut job = job(RankReducer::new().max_lag(5), 4);
    let mut rows = Vec::new();
    for step in 0..20 {
        for rank in 0..4 {
            if rank != 2 || step < 7 {
                job.push(rank, &loss(step, rank as f64));
            }
            rows.extend(taken(&mut job));
        }
        // It is waited for as long as it may come back.
        let has_vanished = info(&job, 2).status == RankStatus::Vanished;
        assert_eq!(has_vanished, step > 12, "{step}");
        let given = if step <= 6 || has_vanished { step } else { 6 };
        assert_eq!(rows.len() as u64, given, "{step}");
    }
    assert!(rows[..7].iter().all(|row| row.missing.is_empty() && row.ranks == 4 && mean(row) == 1.5));
    assert!(rows[7..].iter().all(|row| row.missing == [2] && row.is_complete));
    assert!(rows[7..].iter().all(|row| (mean(row) - 4.0 / 3.0).abs() < 1e-12));
    assert_eq!(info(&job, 2).last_step, Some(6));
    law(&job);
}

#[test]
fn a_late_rank_is_folded_in_while_its_steps_are_held_and_counted_afterwards() {
    let mut job = job(RankReducer::new().max_lag(5).hold(4), 3);
    let mut rows = Vec::new();
    for step in 0..20 {
        (0..2).for_each(|rank| job.push(rank, &loss(step, 1.0)));
        rows.extend(taken(&mut job));
    }
    // The last four and that which is not complete are held.
    assert_eq!((rows.len(), info(&job, 2).status), (19, RankStatus::Silent));
    rows.clear();
    for step in 10..20 {
        job.push(2, &loss(step, 4.0));
        rows.extend(taken(&mut job));
    }
    job.finish();
    rows.extend(taken(&mut job));
    let last: BTreeMap<i64, &RankStep> = rows.iter().map(|row| (row.step, row)).collect();
    let found: Vec<_> = last.values().map(|row| (row.step, row.revision, row.ranks, mean(row))).collect();
    assert_eq!(found, [(16, 1, 3, 2.0), (17, 1, 3, 2.0), (18, 1, 3, 2.0), (19, 0, 3, 2.0)]);
    let late = info(&job, 2);
    assert_eq!((late.late, late.first_step, late.returns, job.account().late), (6, Some(10), 1, 6));
    law(&job);
}

#[test]
fn a_rank_that_begins_again_supersedes_its_own_steps_from_its_first_one_on() {
    let mut job = job(RankReducer::new(), 2);
    let mut rows = Vec::new();
    (0..2).for_each(|rank| job.push(rank, &begin(rank as u64, 1, None)));
    for step in 0..10 {
        (0..2).for_each(|rank| job.push(rank, &loss(step, 1.0)));
        rows.extend(taken(&mut job));
    }
    assert_eq!((steps(&rows), rows[8].generation), ((0..9).collect(), 1));
    rows.clear();
    job.push(1, &begin(1, 2, Some(6)));
    for step in 6..12 {
        job.push(1, &loss(step, 3.0));
        rows.extend(taken(&mut job));
    }
    // Those that were given are given again, with the steps of the other rank.
    let found: Vec<_> =
        rows.iter().map(|row| (row.step, row.generation, row.revision, row.ranks, mean(row))).collect();
    assert_eq!(found, [(6, 2, 1, 2, 2.0), (7, 2, 1, 2, 2.0), (8, 2, 1, 2, 2.0)]);
    let restarted = info(&job, 1);
    assert_eq!((restarted.restarts, restarted.superseded, restarted.generation), (1, 4, 2));
    assert_eq!((restarted.number, restarted.last_step), (Some(1), Some(11)));
    law(&job);
}

#[test]
fn a_job_that_begins_again_is_reduced_again_also_where_its_steps_are_held_no_longer() {
    let mut job = job(RankReducer::new().hold(3), 2);
    let mut rows = Vec::new();
    for step in 0..20 {
        (0..2).for_each(|rank| job.push(rank, &loss(step, 1.0)));
        rows.extend(taken(&mut job));
    }
    rows.clear();
    // The first step of its new session is not reported: that of its first record is it.
    (0..2).for_each(|rank| job.push(rank, &begin(rank as u64, 2, None)));
    for step in 5..8 {
        (0..2).for_each(|rank| job.push(rank, &loss(step, 2.0)));
        rows.extend(taken(&mut job));
    }
    let found: Vec<_> = rows.iter().map(|row| (row.step, row.generation, row.ranks, mean(row))).collect();
    assert_eq!(found, [(5, 2, 2, 2.0), (6, 2, 2, 2.0)]);
    law(&job);
    // Of one rank alone, they would take the place of what all had.
    job.push(0, &begin(0, 3, Some(1)));
    (1..30).for_each(|step| job.push(0, &loss(step, 9.0)));
    job.finish();
    let rows = taken(&mut job);
    assert!(rows.iter().all(|row| row.step > 4), "{rows:?}");
    assert!(info(&job, 0).late >= 4, "{:?}", info(&job, 0));
    law(&job);
}

#[test]
fn a_session_in_another_history_is_of_the_same_rank() {
    let mut job = job(RankReducer::new(), 3);
    // The third history is the second session of rank 0.
    for (place, rank) in [(0, 0), (1, 1)] {
        job.push(place, &begin(rank, 1, None));
        (0..10).for_each(|step| job.push(place, &loss(step, 1.0)));
    }
    job.push(2, &begin(0, 2, Some(8)));
    (8..12).for_each(|step| job.push(2, &loss(step, 3.0)));
    // Its first session goes on for a moment.
    job.push(0, &loss(10, 1.0));
    job.push(1, &loss(10, 1.0));
    job.finish();
    let rows = taken(&mut job);
    let found: Vec<_> = rows[7..].iter().map(|row| (row.step, row.ranks, mean(row))).collect();
    assert_eq!(found, [(7, 2, 1.0), (8, 2, 2.0), (9, 2, 2.0), (10, 2, 2.0), (11, 1, 3.0)]);
    assert_eq!(rows[11].missing, [1]);
    let ranks: Vec<_> = job.ranks().map(|rank| (rank.number, rank.status, rank.superseded)).collect();
    let (going, joined) = (RankStatus::Going, RankStatus::Joined);
    assert_eq!(ranks, [(Some(0), going, 3), (Some(1), going, 0), (Some(0), joined, 0)]);
    law(&job);
}

#[test]
fn a_rank_that_has_ended_is_not_waited_for_and_says_why() {
    let mut job = job(RankReducer::new(), 2);
    (0..2).for_each(|rank| job.push(rank, &begin(rank as u64, 1, None)));
    (0..3).for_each(|step| (0..2).for_each(|rank| job.push(rank, &loss(step, 1.0))));
    let failed = Failed { error: "out of memory".to_owned(), ..Failed::default() };
    job.push(1, &Record::from(failed).with_field("run_id", "job").with_field("generation", 1));
    // The end of another run is none of its own.
    job.push(
        0,
        &Record::from(Completed::default()).with_field("run_id", "other").with_field("generation", 1),
    );
    (3..5).for_each(|step| job.push(0, &loss(step, 1.0)));
    let rows = taken(&mut job);
    assert_eq!((steps(&rows), rows[3].missing.clone()), (vec![0, 1, 2, 3], vec![1]));
    assert_eq!(info(&job, 1).end, Some(RunEnd::Failed { error: "out of memory".to_owned() }));
    assert_eq!((info(&job, 1).status, info(&job, 0).status), (RankStatus::Ended, RankStatus::Going));
    law(&job);
}

#[test]
fn a_wrong_clock_is_found_and_the_slowest_rank_is_known_by_its_own_clock() {
    let mut job = job(RankReducer::new(), 4);
    for step in 0..50_u64 {
        for rank in 0..4_usize {
            // The third one takes 1.1 s a step and the others one; the first one has a clock that is an hour ahead.
            let nanos = match rank {
                0 => NOON + 3_600 * SECOND + step * SECOND,
                2 => NOON + step * (SECOND + SECOND / 10),
                _ => NOON + step * SECOND,
            };
            job.push(rank, &loss(step, 1.0).with_unix_nanos(nanos));
        }
    }
    job.finish();
    let rows = taken(&mut job);
    assert!(rows[1..].iter().all(|row| row.slowest.is_some_and(|slowest| slowest.rank == 2)), "{rows:?}");
    assert_eq!(rows[1].slowest.unwrap().behind.as_millis(), 100);
    let ranks: Vec<RankInfo> = job.ranks().collect();
    assert_eq!([0, 1, 2, 3].map(|rank| ranks[rank].behind.last), [0, 0, 49, 0]);
    assert_eq!(ranks[2].behind.mean().as_millis(), 100);
    let wrong: Vec<bool> = ranks.iter().map(|rank| rank.clock.unwrap().is_wrong()).collect();
    assert_eq!(wrong, [true, false, false, false]);
    assert!((ranks[0].clock.unwrap().mean - 3_600.0).abs() < 0.1, "{:?}", ranks[0].clock);
    law(&job);
}

#[test]
fn a_timer_says_what_a_rank_took_where_all_wait_for_each_other() {
    let mut job = job(RankReducer::new().query(EventQuery::new().name("loss")).timer("compute"), 3);
    for step in 0..10 {
        for rank in 0..3 {
            job.push(rank, &loss(step, 1.0));
            let seconds = if rank == 1 { 0.9 } else { 0.5 };
            job.push(rank, &Record::scalar("compute", seconds).with_step(step).with_unix_nanos(NOON));
        }
    }
    job.finish();
    let rows = taken(&mut job);
    assert!(rows.iter().all(|row| row.values.len() == 1), "{rows:?}");
    assert_eq!(rows[0].slowest.map(|slowest| (slowest.rank, slowest.behind.as_millis())), Some((1, 400)));
    assert_eq!([0, 1, 2].map(|rank| info(&job, rank).behind.last), [0, 10, 0]);
    law(&job);
}

#[test]
fn a_rank_that_goes_back_without_a_session_counts_by_its_last_number() {
    let mut job = job(RankReducer::new(), 2);
    for step in [0, 1, 2, 3, 1, 2, 3, 4] {
        job.push(0, &loss(step, step as f64));
    }
    (0..6).for_each(|step| job.push(1, &loss(step, step as f64)));
    job.finish();
    assert_eq!(taken(&mut job).iter().map(mean).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    let back = info(&job, 0);
    assert_eq!((back.backward_steps, back.went_back, back.replaced), (1, Some((3, 1)), 3));
    law(&job);
}

#[test]
fn memory_has_a_limit_and_what_goes_over_it_is_counted() {
    // One rank never comes, and the lag is not what ends the wait.
    let mut job = job(RankReducer::new().max_lag(u64::MAX).max_cells(300), 10);
    let mut rows = Vec::new();
    for step in 0..100 {
        (0..9).for_each(|rank| job.push(rank, &loss(step, 1.0)));
        rows.extend(taken(&mut job));
    }
    // A step takes 30 cells.
    assert_eq!((rows.len(), job.account().held, job.account().incomplete_steps), (90, 90, 90));
    assert!(rows.iter().all(|row| !row.is_complete && row.missing == [9]));
    law(&job);
    // Nobody takes the steps.
    (100..200).for_each(|step| (0..9).for_each(|rank| job.push(rank, &loss(step, 1.0))));
    assert!(job.account().refused > 0 && job.account().held <= 200, "{:?}", job.account());
    law(&job);
}

/// Makes a history of records.
fn history(records: Vec<Record>) -> Recent<10_000> {
    let mut recent = Recent::new();
    recent.write_batch(&Batch::from_events(records)).unwrap();
    recent
}

/// History that breaks off.
struct Broken(Recent<10_000>, usize);

impl History for Broken {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, query: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let records = self.0.query(query)?.into_iter().take(self.1).map(Ok);
        Ok(Box::new(records.chain([Err(HistoryError::new("rank-1", "the disk is gone"))])))
    }
}

#[test]
fn histories_are_read_side_by_side_and_what_was_superseded_is_left_out() {
    let first: Vec<Record> = [begin(0, 1, None)]
        .into_iter()
        .chain((0..80).map(|step| loss(step, 1.0)))
        .chain([begin(0, 2, Some(50))])
        .chain((50..100).map(|step| loss(step, 3.0)))
        .collect();
    // Two sessions of rank 1 in histories of their own; the second one does not say where it begins.
    let second = [begin(1, 1, None)].into_iter().chain((0..70).map(|step| loss(step, 1.0))).collect();
    let third = [begin(1, 2, None)].into_iter().chain((50..100).map(|step| loss(step, 3.0))).collect();
    let all = [first, second, third].map(history);
    let named = all.iter().zip(["a", "b", "c"]).map(|(history, name)| (name, history as &dyn History));
    let mut job = reduce_ranks(named, RankReducer::new().hold(2));
    let rows: Vec<RankStep> = job.by_ref().map(Result::unwrap).collect();
    assert_eq!(steps(&rows), (0..100).collect::<Vec<_>>());
    for row in &rows {
        let expected = if row.step < 50 { (1.0, 1) } else { (3.0, 2) };
        assert_eq!((mean(row), row.generation, row.ranks), (expected.0, expected.1, 2), "{row:?}");
    }
    assert_eq!(job.job().account().superseded, 30 + 20);
    assert_eq!(info(job.job(), 2).status, RankStatus::Joined);
    law(job.job());
}

#[test]
fn a_history_that_cannot_be_read_is_an_error_and_the_others_go_on() {
    let whole = || history((0..20).map(|step| loss(step, 1.0)).collect());
    let (one, other) = (whole(), Broken(whole(), 5));
    let named: [(&str, &dyn History); 2] = [("rank-0", &one), ("rank-1", &other)];
    let mut job = reduce_ranks(named, RankReducer::new().max_lag(5));
    let (rows, errors): (Vec<_>, Vec<_>) = job.by_ref().partition(Result::is_ok);
    let rows: Vec<RankStep> = rows.into_iter().map(Result::unwrap).collect();
    assert_eq!((rows.len(), errors.len()), (20, 1));
    assert_eq!((rows[4].ranks, rows[5].ranks, rows[5].missing.clone()), (2, 1, vec![1]));
    assert_eq!(info(job.job(), 1).status, RankStatus::Vanished);
    law(job.job());
}

proptest! {
    /// Against a table of all that was pushed: of each rank, step and name the last number of the last session.
    #[test]
    fn whatever_comes_the_account_adds_up_and_the_sums_are_those_of_a_table(
        pushes in proptest::collection::vec((0..4_usize, 0..12_u64, 0..3_u8, -9..9_i8, 0..30_u8), 0..300),
    ) {
        let mut job = job(RankReducer::new().max_lag(u64::MAX).hold(1_000).once(), 4);
        let mut table: BTreeMap<(u64, u8, usize), f64> = BTreeMap::new();
        let mut generations = [1; 4];
        for (rank, step, name, value, kind) in pushes {
            if kind == 0 {
                generations[rank] += 1;
                job.push(rank, &begin(rank as u64, generations[rank], Some(step)));
                table.retain(|(of, _, by), _| *of < step || *by != rank);
            }
            let record = Record::scalar(["a", "b", "c"][usize::from(name)], f64::from(value)).with_step(step);
            job.push(rank, &record);
            table.insert((step, name, rank), f64::from(value));
            prop_assert_eq!(job.next_step(), None);
            prop_assert!(job.account().is_balanced(), "{:?}", job.account());
        }
        job.finish();
        let rows = taken(&mut job);
        prop_assert!(job.account().is_balanced() && job.account().held == 0, "{:?}", job.account());
        let mut sums: BTreeMap<(u64, u8), f64> = BTreeMap::new();
        table.iter().for_each(|((step, name, _), value)| *sums.entry((*step, *name)).or_default() += value);
        let mut found = BTreeMap::new();
        for row in &rows {
            for value in &row.values {
                found.insert((row.step as u64, value.name.as_bytes()[0] - b'a'), value.sum.unwrap());
            }
        }
        prop_assert_eq!(found, sums);
    }
}

#[test]
fn numbers_of_fields_have_names_of_their_own() {
    let mut job = job(RankReducer::new(), 2);
    for rank in 0..2 {
        let fields = Fields::from([("loss", Value::from(0.5)), ("note", Value::from("text"))]);
        job.push(rank, &Record::fields("eval", fields).with_step(7));
    }
    job.finish();
    let row = job.next_step().unwrap();
    assert_eq!((&*row.values[0].name, row.values.len(), row.values[0].sum), ("eval/loss", 1, Some(1.0)));
    law(&job);
}
