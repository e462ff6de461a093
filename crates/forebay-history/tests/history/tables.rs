//! Tests that tables of every place that keeps records are those of a plain count, and that ranks are merged in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use forebay::sink::Sink;
use forebay::{Batch, Record, Value};
use forebay_history::{
    Aggregate, Aggregator, EventQuery, History, HistoryError, LastPerName, MergeOrder, Pivot, Recent,
    Records, Reduce, Sample, Window, WindowStart, merge, stragglers, values,
};
use proptest::prelude::*;

use crate::query::{Places, begins, expected, queries, records, reported};

/// Number of a record, with its name, its step and its moment.
type Number = (String, f64, Option<i64>, u64);

/// Returns the numbers of records.
fn numbers(records: &[Record]) -> Vec<Number> {
    let mut numbers = Vec::new();
    for record in records {
        values(record, &mut |name, value, step| {
            let number = match value {
                Value::Bool(is) => Some(f64::from(*is)),
                value => value.as_f64(),
            };
            numbers.extend(number.map(|number| (name.to_owned(), number, step, record.unix_nanos())));
        });
    }
    numbers
}

fn windows() -> impl Strategy<Value = Window> {
    prop_oneof![
        Just(Window::All),
        prop_oneof![0..5u64, Just(u64::MAX)].prop_map(Window::Steps),
        (0..5u64).prop_map(|seconds| Window::Time(Duration::from_secs(seconds))),
        Just(Window::Time(Duration::MAX)),
    ]
}

/// Returns whether a window that begins there has the number in it.
fn is_in(start: WindowStart, window: Window, number: &Number) -> bool {
    match (start, window) {
        (WindowStart::All, _) => true,
        (WindowStart::Step(first), Window::Steps(width)) => number.2.is_some_and(|step| {
            let (first, width) = (i128::from(first), i128::from(width.max(1)));
            // The first window may begin before all steps, where it has a start of its own.
            let end = first.div_euclid(width) * width + width;
            (first..end).contains(&i128::from(step))
        }),
        (WindowStart::Time(first), Window::Time(width)) => {
            number.3 >= first && u128::from(number.3) < u128::from(first) + width.as_nanos().max(1)
        }
        _ => false,
    }
}

/// Checks rows against the numbers that they are made of, in the order of their delivery.
fn check_rows(rows: &[Aggregate], window: Window, numbers: &[Number]) -> Result<(), TestCaseError> {
    let with_step = |number: &&Number| !matches!(window, Window::Steps(_)) || number.2.is_some();
    let total: u64 = rows.iter().map(|row| row.count).sum();
    prop_assert_eq!(total, numbers.iter().filter(with_step).count() as u64);
    for (place, row) in rows.iter().enumerate() {
        if let Some(next) = rows.get(place + 1) {
            prop_assert!((&row.name, row.start) < (&next.name, next.start), "{:?} {:?}", row, next);
        }
        let own: Vec<&Number> = numbers
            .iter()
            .filter(|number| number.0 == *row.name && is_in(row.start, window, number))
            .collect();
        prop_assert_eq!(row.count, own.len() as u64);
        let finite: Vec<&&Number> = own.iter().filter(|number| number.1.is_finite()).collect();
        prop_assert_eq!(row.finite, finite.len() as u64);
        let all: Vec<f64> = finite.iter().map(|number| number.1).collect();
        let end = |is_better: fn(f64, f64) -> bool| {
            let first = finite.first().copied();
            finite.iter().copied().fold(first, |best, number| match best {
                Some(best) if is_better(number.1, best.1) => Some(number),
                best => best,
            })
        };
        let of = |sample: Sample| (sample.value.to_bits(), sample.step, sample.unix_nanos);
        let of_number = |number: &Number| (number.1.to_bits(), number.2, number.3);
        let low = end(|one, best| one < best).map(|number| of_number(number));
        let high = end(|one, best| one > best).map(|number| of_number(number));
        prop_assert_eq!((row.min.map(of), row.max.map(of)), (low, high));
        let last = own.last().map(|number| of_number(number)).unwrap();
        prop_assert_eq!(of(row.last).1, last.1);
        prop_assert!(of(row.last).0 == last.0 || row.last.value.is_nan());
        prop_assert_eq!(row.mean.is_some(), !all.is_empty());
        if let Some(mean) = row.mean {
            let count = all.len() as f64;
            let (exact, size) = (
                all.iter().map(|value| value / count).sum::<f64>(),
                all.iter().fold(0.0, |size: f64, value| size.max(value.abs())),
            );
            prop_assert!((mean - exact).abs() <= size * 1e-12, "{} {} {:?}", mean, exact, all);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 150, ..Default::default() })]

    #[test]
    fn all_places_make_the_tables_that_a_plain_count_makes(
        records in prop::collection::vec(prop_oneof![8 => records(), 1 => begins()], 0..60),
        batch in 1..20usize,
        queries in prop::collection::vec((queries(), windows()), 5),
    ) {
        let places = Places::new(&records, batch);
            for (query, window) in &queries {
                let mut asked = expected(query, &records);
                if format!("{query:?}").contains("is_newest_first: true") {
                    asked.reverse();
                }
                let numbers = numbers(&asked);
                let last: BTreeMap<&str, &Record> =
                    asked.iter().map(|record| (record.name(), record)).collect();
                let last: Vec<Record> = last.into_values().cloned().collect();
                let mut cells: BTreeMap<(i64, &str), u64> = BTreeMap::new();
                for (name, value, step, _) in &numbers {
                    step.iter().for_each(|step| _ = cells.insert((*step, name), value.to_bits()));
                }
                for (name, place) in places.histories() {
                    let table = place.aggregate(query, *window).unwrap();
                    check_rows(&table.rows, *window, &numbers)?;
                    let without_step = numbers.iter().filter(|number| number.2.is_none()).count() as u64;
                    let left_out = if matches!(window, Window::Steps(_)) { without_step } else { 0 };
                    prop_assert_eq!(table.left_out, left_out);
                    prop_assert_eq!(
                        reported(&place.last_per_name(query).unwrap()), reported(&last), "{}, {:?}", name, query
                    );
                    let table = place.pivot(query, Reduce::Last).unwrap();
                    let steps: BTreeSet<i64> = cells.keys().map(|(step, _)| *step).collect();
                    let names: BTreeSet<&str> = cells.keys().map(|(_, name)| *name).collect();
                    let own: Vec<&str> = table.names.iter().map(|name| &**name).collect();
                    prop_assert_eq!(own, Vec::from_iter(names));
                    let own: Vec<i64> = table.rows.iter().map(|row| row.step).collect();
                    prop_assert_eq!(own, Vec::from_iter(steps));
                    prop_assert_eq!(table.left_out, without_step);
                    for row in &table.rows {
                        prop_assert_eq!(row.values.len(), table.names.len());
                        for (name, value) in table.names.iter().zip(&row.values) {
                            let expected = cells.get(&(row.step, name)).map(|bits| f64::from_bits(*bits));
                            let is_nan = |value: Option<f64>| value.is_some_and(f64::is_nan);
                            prop_assert!(*value == expected || is_nan(*value) && is_nan(expected));
                        }
                    }
                }
            }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 40, ..Default::default() })]

    /// A merge loses nothing and keeps the order of each rank. What it gives is no later than what comes next in any other.
    #[test]
    fn ranks_are_merged_by_time_and_each_keeps_its_order(
        ranks in prop::collection::vec(prop::collection::vec(records(), 0..30), 0..5),
        query in queries(),
        batch in 1..20usize,
    ) {
        let written: Vec<Places> = ranks.iter().map(|rank| Places::new(rank, batch)).collect();
        let mut whole: Vec<Vec<Record>> = Vec::new();
        for rank in &ranks {
            let mut own = expected(&query.clone().limit(usize::MAX), rank);
            if format!("{query:?}").contains("is_newest_first: true") {
                own.reverse();
            }
            whole.push(own);
        }
        let total: usize = whole.iter().map(Vec::len).sum();
        let limit = format!("{query:?}");
        let limit = limit.split("limit: Some(").nth(1).map(|rest| rest.split(')').next().unwrap().parse().unwrap());
        let mut first = None;
        for kind in 0..Places::new(&[], 1).histories().len() {
            for order in [MergeOrder::Time, MergeOrder::Step] {
                let histories: Vec<&dyn History> = written.iter().map(|it| it.histories()[kind].1).collect();
                let merged: Result<Vec<_>, _> = merge(histories, &query, order).collect();
                let merged = merged.unwrap();
                prop_assert_eq!(merged.len(), total.min(limit.unwrap_or(usize::MAX)));
                let mut given = vec![0; ranks.len()];
                for (rank, record) in &merged {
                    let own = &whole[*rank][given[*rank]];
                    prop_assert_eq!(serde_json::to_string(record).unwrap(), serde_json::to_string(own).unwrap());
                    for (other, next) in whole.iter().enumerate().filter_map(|(other, all)| Some((other, all.get(given[other])?))) {
                        let key = |rank, record: &Record| (record.unix_nanos(), rank);
                        prop_assert!(order == MergeOrder::Step || key(*rank, record) <= key(other, next));
                    }
                    given[*rank] += 1;
                }
                if order == MergeOrder::Time {
                    let places: Vec<usize> = merged.iter().map(|(rank, _)| *rank).collect();
                    let first = first.get_or_insert_with(|| places.clone());
                    prop_assert_eq!(&places, first);
                }
            }
        }
    }
}

fn x(step: i64) -> Record {
    Record::scalar("x", 0.5).with_signed_step(step)
}

fn begin(generation: i64, first_step: i64) -> Record {
    let begin = Record::new("training.started").with_field("run_id", "a");
    begin.with_field("generation", generation).with_field("first_step", first_step)
}

fn recent(records: Vec<Record>) -> Recent<1000> {
    let mut recent = Recent::new();
    recent.write_batch(&Batch::from_events(records)).unwrap();
    recent
}

/// A rank that went back waits for those that have not.
#[test]
fn ranks_are_merged_by_generation_and_step_though_no_begin_is_asked_for() {
    let fast = recent(vec![begin(1, 0), x(0), x(1), begin(2, 1), x(1), x(2)]);
    let slow = recent(vec![begin(1, 0), x(0), Record::scalar("x", 9.0), x(3), begin(2, 1), x(1)]);
    let ranks: [&dyn History; 2] = [&fast, &slow];
    let steps = |query: &EventQuery| -> Vec<(usize, Option<i64>)> {
        let merged: Result<Vec<_>, _> = merge(ranks, query, MergeOrder::Step).collect();
        merged.unwrap().iter().map(|(rank, record)| (*rank, record.signed_step())).collect()
    };
    let all = [
        (0, Some(0)),
        (1, Some(0)),
        (1, None),
        (0, Some(1)),
        (1, Some(3)),
        (0, Some(1)),
        (1, Some(1)),
        (0, Some(2)),
    ];
    assert_eq!(steps(&EventQuery::new().name("x")), all);
    assert_eq!(steps(&EventQuery::new().name("x").limit(3)), all[..3]);
    let current = [(0, Some(0)), (1, Some(0)), (1, None), (0, Some(1)), (1, Some(1)), (0, Some(2))];
    assert_eq!(steps(&EventQuery::new().name("x").current()), current);
}

/// A rank is behind at the steps that another has reached, in the same generation, and by its first record of a step.
#[test]
fn a_rank_is_behind_the_first_one_at_each_step() {
    let at = |step, second: u64| x(step).with_unix_nanos(second * 1_000_000_000);
    let fast =
        recent(vec![begin(1, 0), at(0, 10), at(1, 20), at(2, 30), begin(2, 1), at(1, 100), at(3, 120)]);
    let slow = recent(vec![
        begin(1, 0),
        at(0, 13),
        at(0, 11),
        Record::scalar("x", 0.5).with_unix_nanos(1),
        // Of an earlier step, and so nothing of the one that is reached.
        at(1, 25),
        at(0, 5),
        begin(2, 1),
        at(1, 100),
        at(2, 110),
    ]);
    let alone = recent(vec![begin(1, 0), at(9, 1)]);
    let query = EventQuery::new().name("x");
    let found = stragglers([&fast as &dyn History, &slow, &alone], &query).unwrap();
    let seconds = Duration::from_secs;
    let of = |place: usize| (found[place].steps, found[place].last, found[place].total, found[place].max);
    assert_eq!(of(0), (3, 0, seconds(0), Some((seconds(0), 0))));
    assert_eq!(of(1), (3, 2, seconds(6), Some((seconds(5), 1))));
    assert_eq!((of(2), found[1].mean()), ((0, 0, seconds(0), None), seconds(2)));
    assert!(stragglers([], &query).unwrap().is_empty());
}

/// One rank of a job may report the run for all.
#[test]
fn a_rank_that_reports_no_run_meets_one_that_does() {
    let at = |step, second: u64| x(step).with_unix_nanos(second * 1_000_000_000);
    let first = recent(vec![begin(1, 0), at(0, 10), at(1, 20), begin(2, 1), at(1, 30)]);
    let second = recent(vec![at(0, 11), at(1, 22)]);
    let ranks: [&dyn History; 2] = [&first, &second];
    let query = EventQuery::new().name("x");
    let steps: Vec<_> = merge(ranks, &query, MergeOrder::Step)
        .map(|next| next.map(|(rank, record)| (rank, record.signed_step().unwrap())).unwrap())
        .collect();
    assert_eq!(steps, [(0, 0), (1, 0), (0, 1), (1, 1), (0, 1)]);
    let found = stragglers(ranks, &query).unwrap();
    assert_eq!((found[1].steps, found[1].last, found[1].total.as_secs()), (2, 2, 3));
    // What was written before the begin is of the same generation: the order does not go back there.
    let early = |second| recent(vec![at(5, second), begin(1, 0), at(1, second + 1), at(7, second + 2)]);
    let (one, other) = (early(10), early(14));
    let found = stragglers([&one as &dyn History, &other], &query).unwrap();
    assert_eq!((found[1].steps, found[1].last, found[1].total.as_secs()), (2, 2, 8));
}

#[test]
fn the_numbers_of_all_ranks_are_reduced_to_one_of_each_step() {
    let cell = |reduce| {
        let mut table = Pivot::new(reduce);
        for value in [4.0, f64::NAN, 1.0, 2.0] {
            table.add(&Record::scalar("x", value).with_step(7)).unwrap();
        }
        table.finish().rows[0].values[0].unwrap()
    };
    assert_eq!((cell(Reduce::Min), cell(Reduce::Max), cell(Reduce::Last)), (1.0, 4.0, 2.0));
    assert!(cell(Reduce::Mean).is_nan() && cell(Reduce::Sum).is_nan());
    let own = recent([4.0, 1.0].map(|value| Record::scalar("x", value).with_step(7)).into());
    let sum = own.pivot(&EventQuery::new().newest_first(), Reduce::Sum).unwrap();
    assert_eq!(sum.rows[0].values, [Some(5.0)]);
    for (reduce, expected) in [(Reduce::Mean, 1.5), (Reduce::Sum, 6.0)] {
        let mut table = Pivot::new(reduce);
        [3.0, 1.0, 0.5, 1.5]
            .iter()
            .for_each(|value| table.add(&Record::scalar("x", *value).with_step(7)).unwrap());
        assert_eq!(table.finish().rows[0].values, [Some(expected)]);
    }
}

/// An infinity is that of the mean, whether it comes first or later.
#[test]
fn the_mean_with_an_infinity_is_infinite_in_any_order() {
    let mean = |values: &[f64]| {
        let mut table = Pivot::new(Reduce::Mean);
        values.iter().for_each(|value| table.add(&Record::scalar("x", *value).with_step(7)).unwrap());
        table.finish().rows[0].values[0].unwrap()
    };
    let inf = f64::INFINITY;
    for values in [&[inf, 1.0, 2.0][..], &[1.0, inf, 2.0], &[1.0, 2.0, inf], &[inf, inf]] {
        assert_eq!(mean(values), inf, "{values:?}");
    }
    assert_eq!(mean(&[-inf, f64::MAX]), -inf);
    assert!(mean(&[inf, 1.0, -inf]).is_nan() && mean(&[inf, f64::NAN, 1.0]).is_nan());
}

/// A mean is one also where a sum would leave what a number can be.
#[test]
fn a_mean_of_the_largest_numbers_is_one_of_them() {
    let mut rows = Aggregator::new(Window::All);
    for value in [f64::MAX, f64::MAX, -f64::MAX, f64::MAX] {
        rows.add(&Record::scalar("x", value)).unwrap();
    }
    let mean = rows.finish().rows[0].mean.unwrap();
    assert!((mean / f64::MAX - 0.5).abs() < 1e-12, "{mean}");
}

#[test]
fn a_table_that_would_be_too_large_is_an_error_that_says_so() {
    let mut rows = Aggregator::new(Window::Steps(10)).max_rows(2);
    for step in 0..20 {
        rows.add(&x(step)).unwrap();
    }
    let error = rows.add(&x(20)).unwrap_err();
    assert_eq!((error.what, error.max), ("rows", 2));
    assert_eq!(
        error.to_string(),
        "the table has more than 2 rows: ask for fewer names or steps, or for wider windows"
    );
    assert_eq!(rows.finish().rows.iter().map(|row| row.count).sum::<u64>(), 20);

    let mut table = Pivot::new(Reduce::Last).max_cells(4);
    for (name, step) in [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("a", 0)] {
        table.add(&Record::scalar(name, 1.0).with_step(step)).unwrap();
    }
    for (name, step) in [("c", 0), ("a", 2)] {
        assert_eq!(table.add(&Record::scalar(name, 1.0).with_step(step)).unwrap_err().what, "cells");
    }
    let table = table.finish();
    assert_eq!((table.names.len(), table.rows.len()), (2, 2));

    let mut last = LastPerName::new();
    for number in 0..10_000 {
        last.add(Record::new(format!("x{number}"))).unwrap();
    }
    last.add(Record::new("x0")).unwrap();
    assert_eq!(last.add(Record::new("y")).unwrap_err().what, "names");
    assert_eq!(last.finish().len(), 10_000);

    let many = recent((0..999).map(|step| Record::scalar("x", 1.0).with_step(step)).collect());
    assert_eq!(many.aggregate(&EventQuery::new(), Window::Steps(100)).unwrap().rows.len(), 10);
}

/// Place that keeps records and cannot be read behind them; or not at all.
struct Damaged(Option<Vec<Record>>);

impl History for Damaged {
    fn query(&self, query: &EventQuery) -> Result<Vec<Record>, HistoryError> {
        self.iter(query)?.collect()
    }

    fn iter<'a>(&'a self, _: &EventQuery) -> Result<Records<'a>, HistoryError> {
        let error = || HistoryError::new("a rank", "it is damaged");
        let records = self.0.as_ref().ok_or_else(error)?.iter().cloned().map(Ok);
        Ok(Box::new(records.chain([Err(error())])))
    }
}

#[test]
fn a_damaged_rank_ends_no_other_and_is_an_error_where_it_ends() {
    let whole = [recent(vec![x(0), x(1), x(2)]), recent(vec![x(0), x(1), x(2)])];
    let (cut, none) = (Damaged(Some(vec![x(0), x(1)])), Damaged(None));
    let ranks = || [&none as &dyn History, &whole[0], &cut, &whole[1]];
    let merged = |query: &EventQuery| -> Vec<(usize, i64)> {
        let place = |next: Result<(usize, Record), HistoryError>| {
            next.map_or((9, 9), |(rank, record)| (rank, record.signed_step().unwrap()))
        };
        merge(ranks(), query, MergeOrder::Step).map(place).collect()
    };
    let all = [(9, 9), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (9, 9), (3, 1), (1, 2), (3, 2)];
    assert_eq!(merged(&EventQuery::new()), all);
    // An error is none of the records that a limit counts.
    assert_eq!(merged(&EventQuery::new().limit(6)), all[..8]);
    assert!(stragglers(ranks(), &EventQuery::new()).is_err());
    assert!(stragglers([&whole[0] as &dyn History, &cut], &EventQuery::new()).is_err());
}
