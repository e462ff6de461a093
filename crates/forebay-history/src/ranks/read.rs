//! `reduce_ranks`: histories that are there already, read side by side.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::ControlFlow;

use forebay::event::catalog::training;
use forebay::parts::run_of;
use forebay::{Event, Priority, Record};

use super::{RankReducer, RankStep};
use crate::{EventQuery, History, HistoryError, Records};

/// Iterator of the steps of a job, from the histories of its ranks: made by [`reduce_ranks`].
pub struct RankSteps<'a> {
    job: RankReducer,
    sources: Vec<Source<'a>>,
    /// The next record of each history, by its step.
    next: BinaryHeap<Reverse<(i64, usize)>>,
    /// The histories that are asked for their next record before another is pushed.
    asked: Vec<usize>,
}

impl std::fmt::Debug for RankSteps<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RankSteps").field("histories", &self.sources.len()).finish_non_exhaustive()
    }
}

struct Source<'a> {
    place: usize,
    records: Records<'a>,
    head: Option<Record>,
    /// Of each of its sections, the first step, as far as it is known, and that from which on a later session has taken its place.
    sections: Vec<(Option<i64>, Option<i64>)>,
    /// The section that it is in.
    section: usize,
    step: i64,
}

/// Part of a history, from one begin of a run until the next; or what is before the first one.
#[derive(Debug)]
struct Section {
    history: usize,
    /// Run and rank, of a job of several ranks.
    key: Option<(String, u64)>,
    generation: u64,
    unix_nanos: u64,
    first_step: Option<i64>,
    superseded_from: Option<i64>,
}

/// Reduces what the histories of the ranks of a job have, each with its name: a step at a time, in their order, each once. What becomes of
/// ranks that vanish, come late or begin again is in the documentation of [`RankReducer`], which has the settings.
///
/// Every history is read twice: first for the begins of its runs, so that what a later session has superseded is left out (and once more, where
/// one does not say its first step). They are read
/// side by side, by step. In memory are the next record of each, what [`History::iter`] says, and what the reducer holds.
///
/// A history that cannot be read is an error among the items; the others go on. At the end, [`RankSteps::job`] has the account.
///
/// # Examples
///
/// ```
/// use forebay::sink::Sink;
/// use forebay::{Batch, Record};
/// use forebay_history::{History, RankReducer, Recent, Reduce, reduce_ranks};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ranks = [Recent::<100>::new(), Recent::<100>::new()];
/// for (number, rank) in ranks.iter_mut().enumerate() {
///     let records = (0..3).map(|step| Record::scalar("loss", (number + 1) as f64).with_step(step));
///     rank.write_batch(&Batch::from_events(records.collect()))?;
/// }
/// let named = ranks.iter().enumerate().map(|(number, rank)| (number.to_string(), rank as &dyn History));
/// let mut steps = reduce_ranks(named, RankReducer::new());
/// for step in &mut steps {
///     let step = step?;
///     assert_eq!((step.ranks, step.values[0].get(Reduce::Sum)), (2, Some(3.0)));
/// }
/// assert!(steps.job().account().is_balanced());
/// # Ok(())
/// # }
/// ```
pub fn reduce_ranks<'a>(
    histories: impl IntoIterator<Item = (impl Into<String>, &'a dyn History)>,
    reducer: RankReducer,
) -> RankSteps<'a> {
    let mut job = reducer.once();
    let (names, histories): (Vec<String>, Vec<&'a dyn History>) =
        histories.into_iter().map(|(name, history)| (name.into(), history)).unzip();
    let mut sections = sections_of(&histories);
    supersede(&mut sections, &histories);
    let mut sources = Vec::new();
    for (number, (name, history)) in names.into_iter().zip(histories).enumerate() {
        let place = job.add_rank(name);
        let records =
            history.iter(&EventQuery::new()).unwrap_or_else(|error| Box::new(std::iter::once(Err(error))));
        let own = sections.iter().filter(|section| section.history == number);
        let own = own.map(|section| (section.first_step, section.superseded_from)).collect();
        sources.push(Source { place, records, head: None, sections: own, section: 0, step: i64::MIN });
    }
    let asked = (0..sources.len()).rev().collect();
    RankSteps { job, sources, next: BinaryHeap::new(), asked }
}

/// Finds where runs begin in each history. One that cannot be read says so when it is read for its numbers.
fn sections_of(histories: &[&dyn History]) -> Vec<Section> {
    let mut sections = Vec::new();
    for (history, place) in histories.iter().zip(0..) {
        let leading = Section {
            history: place,
            key: None,
            generation: 0,
            unix_nanos: 0,
            first_step: None,
            superseded_from: None,
        };
        sections.push(leading);
        let (begins, mut before) = (EventQuery::new().name(training::Started::NAME), 0);
        _ = history.visit(&begins, &mut |record| {
            let run = run_of(&record);
            let first_step = record.value().as_fields().and_then(|fields| fields.get("first_step")?.as_i64());
            // Clocks may be set back; the order within a history holds.
            before = run.generation.max(before + 1);
            sections.push(Section {
                history: place,
                key: (run.world_size > 1).then_some((run.run_id, run.rank)),
                generation: before,
                unix_nanos: record.unix_nanos(),
                first_step,
                superseded_from: None,
            });
            ControlFlow::Continue(())
        });
    }
    sections
}

/// Notes of each section from which step on a later one of the same rank has taken its place.
fn supersede(sections: &mut [Section], histories: &[&dyn History]) {
    // Of a history, or of the histories of one rank.
    let mut ranks: HashMap<(String, u64), usize> = HashMap::new();
    let mut known_histories: HashMap<usize, usize> = HashMap::new();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (place, section) in sections.iter().enumerate() {
        let known = section.key.as_ref().and_then(|key| ranks.get(key)).copied();
        let group = known.or_else(|| known_histories.get(&section.history).copied()).unwrap_or_else(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        // What is before the first begin of a history belongs to it.
        known_histories.insert(section.history, group);
        if let Some(key) = &section.key {
            ranks.entry(key.clone()).or_insert(group);
        }
        groups[group].push(place);
    }
    for group in &mut groups {
        group.sort_by_key(|place| (sections[*place].generation, sections[*place].unix_nanos));
        let later = group.iter().filter(|place| sections[**place].generation > 0).skip(1);
        let unknown: BTreeSet<usize> = later
            .filter(|place| sections[**place].first_step.is_none())
            .map(|place| sections[*place].history)
            .collect();
        for number in unknown {
            if let Some(history) = histories.get(number) {
                find_first_steps(*history, number, sections);
            }
        }
        let mut from = None::<i64>;
        for place in group.iter().rev() {
            sections[*place].superseded_from = from;
            let own = sections[*place].first_step.filter(|_| sections[*place].generation > 0);
            from = [from, own].into_iter().flatten().min();
        }
    }
}

/// Finds the first steps of the sections of a history that do not say theirs.
fn find_first_steps(history: &dyn History, number: usize, sections: &mut [Section]) {
    let mut own: Vec<&mut Section> =
        sections.iter_mut().filter(|section| section.history == number).collect();
    let mut at = 0;
    _ = history.visit(&EventQuery::new(), &mut |record| {
        at += usize::from(Event::name(&record) == training::Started::NAME);
        if let Some(section) = own.get_mut(at).filter(|section| section.first_step.is_none())
            && record.priority() != Priority::Critical
        {
            section.first_step = record.signed_step();
        }
        ControlFlow::Continue(())
    });
}

impl Source<'_> {
    /// Goes on to the next record that is not superseded. Returns its step.
    fn advance(&mut self, job: &mut RankReducer) -> Result<Option<i64>, HistoryError> {
        loop {
            let Some(record) = self.records.next().transpose()? else { return Ok(None) };
            if Event::name(&record) == training::Started::NAME {
                self.section += 1;
                let first = self.sections.get(self.section).and_then(|(first, _)| *first);
                // Its steps may begin below those that are left out.
                self.step = first.unwrap_or(i64::MIN);
            }
            let step = record.signed_step();
            let from = self.sections.get(self.section).and_then(|(_, from)| *from);
            if step.zip(from).is_some_and(|(step, from)| step >= from) && !is_of_life(&record) {
                job.supersede(self.place, &record);
                continue;
            }
            // Critical records come before others of their batch, and an end before the begin of the next session.
            let step = step.filter(|_| record.priority() != Priority::Critical);
            self.step = step.map_or(self.step, |step| step.max(self.step));
            self.head = Some(record);
            return Ok(Some(self.step));
        }
    }
}

/// Returns whether a record tells that a run begins or ends: it is pushed, whatever its step is.
fn is_of_life(record: &Record) -> bool {
    record.priority() == Priority::Critical && Event::name(record).starts_with("training.")
}

impl RankSteps<'_> {
    /// Returns the reducer: what is known of the ranks, and the account.
    pub fn job(&self) -> &RankReducer {
        &self.job
    }
}

impl Iterator for RankSteps<'_> {
    type Item = Result<RankStep, HistoryError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(step) = self.job.next_step() {
                return Some(Ok(step));
            }
            while let Some(number) = self.asked.pop() {
                let source = self.sources.get_mut(number)?;
                let place = source.place;
                let next = source.advance(&mut self.job);
                if !matches!(next, Ok(Some(_))) {
                    self.job.end(place);
                }
                match next {
                    Ok(step) => self.next.extend(step.map(|step| Reverse((step, number)))),
                    // It has no next record any more, and is not asked again.
                    Err(error) => return Some(Err(error)),
                }
            }
            let Some(Reverse((_, number))) = self.next.pop() else {
                self.job.finish();
                return self.job.next_step().map(Ok);
            };
            let source = self.sources.get_mut(number)?;
            if let Some(record) = source.head.take() {
                self.job.push(source.place, &record);
            }
            self.asked.push(number);
        }
    }
}
