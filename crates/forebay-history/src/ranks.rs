//! `RankReducer`: the steps of a job, reduced over its ranks, from records as they come.
//!
//! A step is complete when every rank that is waited for has gone on to a later one: its *watermark*, the highest step of its present
//! session, is beyond. Wall clocks decide nothing, since those of two machines may be an hour apart.
//!
//! A batch delivers critical records first. So they move no watermark.

mod read;
mod step;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Included};
use std::time::Duration;

use forebay::event::catalog::training;
use forebay::parts::{add_to_run, run_of};
use forebay::run::{RunEnd, RunInfo};
use forebay::{Event, Pattern, Priority, Record};
use forebay_sync::sync::Arc;

use crate::runs::is_of;
use crate::tables::numbers;
use crate::{EventQuery, Straggler};

pub use read::{RankSteps, reduce_ranks};
use step::Held;
pub use step::{RankStep, Reduced, Slowest};

/// Steps by which the others may be ahead of a rank that stands still, by default.
const MAX_LAG: u64 = 100;

/// Steps that are held after they were given, by default.
const HOLD: usize = 100;

/// Cells of all steps that are held, by default: 64 MB.
const MAX_CELLS: usize = 8_000_000;

/// Names that are reduced.
const MAX_NAMES: usize = 10_000;

/// How far a clock may be away from the others before it is called wrong, in seconds.
const MAX_OFFSET: f64 = 60.0;

/// Reduces the steps of a job over its ranks, in bounded memory.
///
/// Records are pushed as they come, those of each rank in their order; after each, the steps that are [complete](Self::next_step) are taken.
/// [`reduce_ranks`] does both for ranks that have a [`History`](crate::History).
///
/// # What becomes of whom
///
/// | a rank | then |
/// |---|---|
/// | stands still while the middle one of the others goes on by more than [`max_lag`](Self::max_lag) steps | it has [vanished](RankStatus::Vanished), and is not waited for until it reports a step again |
/// | reports a step that was given | it is folded in, and the step is given again, as long as it is [held](Self::hold); later, its numbers count as [`late`](RankInfo::late) |
/// | begins again (`training.started`, or [`begin_session`](Self::begin_session)) | what it reported of steps from its new first one on is taken out, and counts as [`superseded`](RankInfo::superseded) |
/// | goes back without that | the last number of a name and a step counts, and the others as [`replaced`](RankInfo::replaced) |
/// | ends | it is not waited for any more |
///
/// Every number has one fate: [`account`](Self::account).
///
/// # Examples
///
/// ```
/// use forebay::Record;
/// use forebay_history::{RankReducer, Reduce};
///
/// let mut job = RankReducer::new();
/// let ranks = ["rank-0", "rank-1"].map(|name| job.add_rank(name));
/// let mut means = Vec::new();
/// for step in 0..3 {
///     for (number, rank) in ranks.into_iter().enumerate() {
///         job.push(rank, &Record::scalar("loss", (step + 2 * number as u64) as f64).with_step(step));
///     }
///     // A step is complete once all ranks have begun a later one.
///     means.extend(job.next_step().and_then(|step| step.values[0].get(Reduce::Mean)));
/// }
/// job.finish();
/// means.extend(job.next_step().and_then(|step| step.values[0].get(Reduce::Mean)));
/// assert_eq!(means, [1.0, 2.0, 3.0]);
/// ```
#[derive(Debug)]
pub struct RankReducer {
    query: EventQuery,
    /// The same, of all names.
    around: EventQuery,
    timer: Option<Pattern>,
    max_lag: u64,
    hold: usize,
    max_cells: usize,
    is_once: bool,
    is_finished: bool,

    sources: Vec<Source>,
    ranks: Vec<Rank>,
    keys: HashMap<(String, u64), usize>,
    names: Vec<Arc<str>>,
    places: HashMap<Arc<str>, usize>,
    steps: BTreeMap<i64, Held>,
    /// The steps that are to be given.
    changed: BTreeSet<i64>,
    cells: usize,
    /// The highest step that was let go.
    gone: Option<i64>,

    /// How many of the ranks that are waited for have which watermark.
    watermarks: BTreeMap<i64, u64>,
    waited: u64,
    /// The watermark of the middle rank when they were judged last, and the steps that it has gone by then.
    middle: i64,
    progress: u64,
    has_new_steps: bool,
    account: RankAccount,
}

/// History of a rank: the files of a process, the stream of a session.
#[derive(Debug, Clone, Copy)]
struct Source {
    rank: usize,
    /// The session of its rank that it tells of.
    session: u64,
    generation: u64,
}

/// Session that is older than the present one of its rank.
const OLDER: u64 = 0;

/// Why a number is in no step.
#[derive(Debug, Clone, Copy)]
enum Refused {
    Late,
    Superseded,
    NoSpace,
}

#[derive(Debug)]
struct Rank {
    info: RankInfo,
    /// Counts the sessions. Only the records of the present one move the watermark.
    session: u64,
    /// The first step of the present session. `None` until it is known.
    session_from: Option<i64>,
    /// The run of the present session, where it has reported one.
    run: Option<RunInfo>,
    watermark: Option<i64>,
    is_waited: bool,
    /// The watermark when the ranks were judged last, and the progress when it moved last.
    judged: Option<i64>,
    moved_at: u64,
    /// The step of the last record.
    at: Option<i64>,
    /// The highest step of its session, and the moment of its first record.
    arrived: Option<(i64, u64)>,
    /// How many sources have more to come.
    open: u64,
}

/// What is known of a rank.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RankInfo {
    /// The name of its history, the first one where it has several.
    pub name: String,
    /// Its number, where it has reported a run.
    pub number: Option<u64>,
    /// The generation that it is in: 1 where it reports none.
    pub generation: u64,
    /// How it stands.
    pub status: RankStatus,
    /// Its end, once it has reported it.
    pub end: Option<RunEnd>,
    /// The first step of all.
    pub first_step: Option<i64>,
    /// The highest step of its present session.
    pub last_step: Option<i64>,
    /// How many steps the middle one of the ranks has gone since this one moved last.
    pub lag: u64,
    /// How often it began again.
    pub restarts: u64,
    /// How often it reported a step after it had vanished.
    pub returns: u64,
    /// How often a step was lower than the one before, without a new session.
    pub backward_steps: u64,
    /// The first such place: from which step to which.
    pub went_back: Option<(i64, i64)>,
    /// Numbers of steps that are held no longer.
    pub late: u64,
    /// Numbers that a later session has taken the place of.
    pub superseded: u64,
    /// Numbers that a later one of the same name and step has taken the place of.
    pub replaced: u64,
    /// How much longer it took than the fastest rank, step by step, by its own clock. The steps that are held are not in it yet.
    pub behind: Straggler,
    /// How far its clock is away from those of the others, where three or more were at the same step.
    pub clock: Option<ClockOffset>,
}

/// How a rank stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RankStatus {
    /// It has reported no step.
    #[default]
    Silent,
    /// It goes on, or its history ends where those of the others do.
    Going,
    /// It stands still, and reported no end.
    Vanished,
    /// It has reported its end.
    Ended,
    /// It is a part of the rank of the same number that another history began with.
    Joined,
}

/// Distance of a clock from the middle one of those of all ranks, in seconds, as the first records of the same steps tell it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct ClockOffset {
    /// The number of steps.
    pub steps: u64,
    /// The mean.
    pub mean: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl ClockOffset {
    fn add(this: &mut Option<Self>, seconds: f64) {
        let it = this.get_or_insert(Self { steps: 0, mean: 0.0, min: seconds, max: seconds });
        it.steps += 1;
        it.mean += (seconds - it.mean) / it.steps as f64;
        it.min = it.min.min(seconds);
        it.max = it.max.max(seconds);
    }

    /// Returns whether the clock is wrong: by more than a minute at every step, and by about as much at each. A rank that is behind by more
    /// than that and catches up has a right one.
    pub fn is_wrong(&self) -> bool {
        self.mean.abs() > MAX_OFFSET
            && self.min.abs().min(self.max.abs()) > MAX_OFFSET
            && self.max - self.min <= self.mean.abs() / 2.0
    }
}

/// Fates of the numbers that were pushed. They add up to [`offered`](Self::offered).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RankAccount {
    /// The numbers that were asked for, of all records.
    pub offered: u64,
    /// Those in steps that were let go: given, and not to be changed any more.
    pub reduced: u64,
    /// Those in steps that are held.
    pub held: u64,
    /// Those of steps that were held no longer.
    pub late: u64,
    /// Those that a later session has taken the place of.
    pub superseded: u64,
    /// Those that a later number of the same name and step has taken the place of.
    pub replaced: u64,
    /// Those without a step.
    pub without_step: u64,
    /// Those for which there was no space: of more than 10,000 names, or since no steps were taken.
    pub refused: u64,
    /// Steps that were given before they were complete, for want of space. (They are no fate of a number.)
    pub incomplete_steps: u64,
}

impl RankAccount {
    /// Returns whether the fates add up.
    pub fn is_balanced(&self) -> bool {
        let Self { reduced, held, late, superseded, replaced, without_step, refused, .. } = self;
        self.offered == reduced + held + late + superseded + replaced + without_step + refused
    }
}

impl Default for RankReducer {
    fn default() -> Self {
        Self::new()
    }
}

impl RankReducer {
    /// Makes one without ranks, for all numbers.
    pub fn new() -> Self {
        Self {
            query: EventQuery::new(),
            around: EventQuery::new(),
            timer: None,
            max_lag: MAX_LAG,
            hold: HOLD,
            max_cells: MAX_CELLS,
            is_once: false,
            is_finished: false,
            sources: Vec::new(),
            ranks: Vec::new(),
            keys: HashMap::new(),
            names: Vec::new(),
            places: HashMap::new(),
            steps: BTreeMap::new(),
            changed: BTreeSet::new(),
            cells: 0,
            gone: None,
            watermarks: BTreeMap::new(),
            waited: 0,
            middle: i64::MIN,
            progress: 0,
            has_new_steps: false,
            account: RankAccount::default(),
        }
    }

    /// Reduces the numbers of these records alone. What a query asks of run, generation, order and limit is not heeded: restarted ranks
    /// are what this is for.
    pub fn query(mut self, query: EventQuery) -> Self {
        self.around = EventQuery { name: None, ..query.clone() };
        self.query = query;
        self
    }

    /// Takes numbers of these names as the seconds that a rank took for a step. By default, that is the time since its step before, by its
    /// own clock. Where ranks wait for each other at every step, that is the same for all: then it takes a timer of what is before the wait.
    pub fn timer(mut self, names: impl Into<Pattern>) -> Self {
        self.timer = Some(names.into());
        self
    }

    /// Sets by how many steps the others may be ahead of a rank that stands still, before it is not waited for any more. Steps that
    /// somebody has reported count, whatever their distance is. Defaults to 100.
    pub fn max_lag(mut self, steps: u64) -> Self {
        self.max_lag = steps;
        self
    }

    /// Sets how many of the last steps are held, so that late and restarted ranks can be folded in. Defaults to 100.
    pub fn hold(mut self, steps: usize) -> Self {
        self.hold = steps;
        self
    }

    /// Limits the memory. A cell is a number of a rank, 8 bytes; each rank takes two more a step for its times. Of more than that, the oldest step
    /// is let go, complete or not. Defaults to 8,000,000.
    pub fn max_cells(mut self, cells: usize) -> Self {
        self.max_cells = cells;
        self
    }

    /// Gives each step once, when it is held no longer. By default, a step is given as soon as it is complete, and again when it is changed.
    pub fn once(mut self) -> Self {
        self.is_once = true;
        self
    }

    /// Adds a history of the job, by its name, and returns its place. It is a rank by itself, unless it begins with a run whose rank another
    /// history has begun with: then both are of one rank.
    pub fn add_rank(&mut self, name: impl Into<String>) -> usize {
        let place = self.sources.len();
        let rank = self.ranks.len();
        let info = RankInfo { name: name.into(), generation: 1, ..RankInfo::default() };
        self.sources.push(Source { rank, session: OLDER + 1, generation: 1 });
        self.ranks.push(Rank {
            info,
            session: OLDER + 1,
            session_from: None,
            run: None,
            watermark: None,
            is_waited: false,
            judged: None,
            moved_at: self.progress,
            at: None,
            arrived: None,
            open: 1,
        });
        self.wait_for(rank, true);
        place
    }

    /// Pushes the next record of a history. A place that there is none at is not heeded.
    pub fn push(&mut self, source: usize, record: &Record) {
        match Event::name(record) {
            training::Started::NAME => self.see_begin(source, record),
            training::Completed::NAME
            | training::EarlyStopped::NAME
            | training::Failed::NAME
            | training::Preempted::NAME => self.see_end(source, record),
            _ => {}
        }
        let Some(&source) = self.sources.get(source) else { return };
        if let Some(step) = record.signed_step().filter(|_| record.priority() != Priority::Critical) {
            if source.session == self.ranks[source.rank].session {
                self.reach(source, step, record);
            } else if self.around.matches(record) {
                self.arrive(source, step, record.unix_nanos(), None);
            }
        }
        if self.query.matches(record) {
            numbers(record, &mut |name, value, step| self.number(source, name, value, step));
        }
        if let Some(timer) = &self.timer
            && self.around.matches(record)
        {
            let mut took = None;
            numbers(record, &mut |name, value, step| {
                if timer.matches(name) {
                    took = step.zip(Duration::try_from_secs_f64(value).ok());
                }
            });
            if let Some((step, took)) = took
                && let Ok(held) = self.held(source, step)
            {
                held.took(source.rank, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX - 1));
            }
        }
    }

    /// Begins a later session of the rank that a history tells of: for readers that know of it otherwise than by `training.started`, such as
    /// those of a stream that has the session of its writer. With its first step, where that is known.
    pub fn begin_session(&mut self, source: usize, first_step: Option<i64>) {
        let Some(source) = self.sources.get_mut(source) else { return };
        let (rank, it) = (source.rank, &mut self.ranks[source.rank]);
        it.session += 1;
        source.session = it.session;
        (it.session_from, it.arrived, it.at) = (None, None, None);
        it.info.restarts += 1;
        it.info.end = None;
        match first_step {
            Some(first) => self.begin_at(rank, first),
            // Until it is known, nothing is complete.
            None => self.move_to(rank, None),
        }
        self.wait_for(rank, true);
    }

    /// Counts numbers of a record that a later session has taken the place of, for who knows that before it is pushed.
    fn supersede(&mut self, source: usize, record: &Record) {
        let Some(rank) = self.sources.get(source).map(|source| source.rank) else { return };
        if self.query.matches(record) {
            let mut count = 0;
            numbers(record, &mut |_, _, _| count += 1);
            self.account.offered += count;
            self.account.superseded += count;
            self.ranks[rank].info.superseded += count;
        }
    }

    /// Says that a history has no more to come: its rank is not waited for, unless it has another one.
    pub fn end(&mut self, source: usize) {
        let Some(rank) = self.sources.get(source).map(|source| source.rank) else { return };
        self.ranks[rank].open = self.ranks[rank].open.saturating_sub(1);
        if self.ranks[rank].open == 0 {
            self.judge();
            self.wait_for(rank, false);
        }
    }

    /// Says that nothing more comes from anywhere: every step that is held is complete.
    pub fn finish(&mut self) {
        self.has_new_steps = true;
        self.judge();
        self.is_finished = true;
    }

    /// Returns the next step that is complete, or held no longer; and after [`finish`](Self::finish), all that are left. To be called after every
    /// record, or after some, until it returns `None`.
    pub fn next_step(&mut self) -> Option<RankStep> {
        self.judge();
        while let Some((&step, _)) = self.steps.first_key_value() {
            let is_complete = self.is_complete(step);
            let is_over = is_complete && (self.steps.len() > self.hold || self.is_finished);
            if !is_over && self.cells <= self.max_cells {
                break;
            }
            if let Some(row) = self.leave(step, is_complete) {
                return Some(row);
            }
        }
        if self.is_once {
            return None;
        }
        let step =
            self.changed.iter().copied().find(|step| {
                self.steps.get(step).is_some_and(|held| !held.is_again || self.is_whole(held))
            })?;
        if !self.is_complete(step) {
            return None;
        }
        self.changed.remove(&step);
        let row = self.row(step, true);
        let held = self.steps.get_mut(&step)?;
        held.is_changed = false;
        held.revision += 1;
        row.or_else(|| self.next_step())
    }

    /// Returns what is known of the ranks, in the order of their places: those of [`RankStep::missing`].
    pub fn ranks(&self) -> impl ExactSizeIterator<Item = RankInfo> {
        self.ranks.iter().map(|rank| {
            let mut info = rank.info.clone();
            let is_still = rank.watermark == rank.judged && rank.watermark < Some(self.middle);
            info.lag = if is_still { self.progress - rank.moved_at } else { 0 };
            info.status = match info.status {
                RankStatus::Joined => RankStatus::Joined,
                _ if info.end.is_some() => RankStatus::Ended,
                _ if info.first_step.is_none() => RankStatus::Silent,
                _ if info.lag > self.max_lag => RankStatus::Vanished,
                _ => RankStatus::Going,
            };
            info
        })
    }

    /// Returns what became of the numbers.
    pub fn account(&self) -> RankAccount {
        self.account
    }

    /// Sees the begin of a run: of the rank that its history is known for, or of one that another history has begun with.
    fn see_begin(&mut self, place: usize, record: &Record) {
        let Some(&source) = self.sources.get(place) else { return };
        let run = run_of(record);
        let first_step = record.value().as_fields().and_then(|fields| fields.get("first_step")?.as_i64());
        let key = (run.world_size > 1).then(|| (run.run_id.clone(), run.rank));
        let own = &self.ranks[source.rank];
        let is_new = own.run.is_none() && own.info.first_step.is_none();
        let other =
            key.as_ref().and_then(|key| self.keys.get(key)).copied().filter(|rank| *rank != source.rank);
        let rank = match other.filter(|_| is_new) {
            Some(rank) => {
                self.wait_for(source.rank, false);
                self.ranks[source.rank].info.status = RankStatus::Joined;
                self.ranks[source.rank].info.number = Some(run.rank);
                let it = &mut self.ranks[rank];
                it.open += 1;
                let is_older = it.run.as_ref().is_some_and(|known| known.generation > run.generation);
                self.sources[place] = Source { rank, session: OLDER, generation: run.generation };
                if is_older {
                    return;
                }
                self.begin_session(place, first_step);
                rank
            }
            None if !is_new => {
                self.begin_session(place, first_step);
                source.rank
            }
            None => {
                self.ranks[source.rank].session_from = first_step;
                source.rank
            }
        };
        let it = &mut self.ranks[rank];
        it.info.number = (run.world_size > 1).then_some(run.rank);
        let least = it.run.as_ref().map_or(1, |before| before.generation.saturating_add(1));
        it.info.generation = run.generation.max(least);
        self.sources[place].generation = it.info.generation;
        it.run = Some(run);
        if let Some(key) = key {
            self.keys.entry(key).or_insert(rank);
        }
    }

    /// Sees the end of a run, if it is that of the present session.
    fn see_end(&mut self, source: usize, record: &Record) {
        let Some(&Source { rank, session, .. }) = self.sources.get(source) else { return };
        let it = &mut self.ranks[rank];
        let mut run = it.run.clone().unwrap_or_else(|| run_of(record));
        if session == it.session && is_of(record, &run) {
            add_to_run(&mut run, record);
            it.info.end = run.end;
            self.wait_for(rank, false);
        }
    }

    /// Begins the present session of a rank at a step: takes out what it reported of that and of later ones.
    fn begin_at(&mut self, rank: usize, first: i64) {
        let mut superseded = 0;
        for (step, held) in self.steps.range_mut(first..) {
            superseded += held.clear(rank);
            if held.is_changed {
                self.changed.insert(*step);
            }
        }
        self.account.held -= superseded;
        self.account.superseded += superseded;
        self.ranks[rank].info.superseded += superseded;
        self.ranks[rank].session_from = Some(first);
        self.move_to(rank, first.checked_sub(1));
    }

    /// Notes that a rank has reached a step, in its present session.
    fn reach(&mut self, source: Source, step: i64, record: &Record) {
        let rank = source.rank;
        if self.ranks[rank].session_from.is_none() {
            if self.ranks[rank].info.restarts > 0 {
                self.begin_at(rank, step);
            } else {
                self.ranks[rank].session_from = Some(step);
            }
        }
        let it = &mut self.ranks[rank];
        if let Some(before) = it.at.replace(step).filter(|before| step < *before) {
            it.info.backward_steps += 1;
            it.info.went_back.get_or_insert((before, step));
        }
        it.info.first_step = Some(it.info.first_step.map_or(step, |first| first.min(step)));
        if it.watermark.is_none_or(|before| step > before) {
            it.info.last_step = Some(step);
            self.move_to(rank, Some(step));
            self.take_back(rank, step);
        }
        if !self.around.matches(record) {
            return;
        }
        let (nanos, it) = (record.unix_nanos(), &mut self.ranks[rank]);
        let mut took = None;
        if it.arrived.is_none_or(|(before, _)| step > before)
            && let Some((before, then)) = it.arrived.replace((step, nanos))
        {
            // Of steps that are far from each other, the time of one.
            let steps = u64::try_from(i128::from(step) - i128::from(before)).unwrap_or(u64::MAX);
            took = nanos.checked_sub(then).map(|all| all / steps.max(1));
        }
        let took = took.filter(|_| self.timer.is_none());
        self.arrive(source, step, nanos, took);
    }

    /// Notes that a rank is in a step, if that is held.
    fn arrive(&mut self, source: Source, step: i64, unix_nanos: u64, took: Option<u64>) {
        if let Ok(held) = self.held(source, step)
            && held.arrive(source.rank, unix_nanos, took)
        {
            self.changed.insert(step);
        }
    }

    /// Waits for a rank again that had vanished, once it is not far behind the others.
    fn take_back(&mut self, rank: usize, step: i64) {
        let it = &self.ranks[rank];
        if it.is_waited || it.open == 0 || it.info.end.is_some() {
            return;
        }
        let is_near = step >= self.middle || {
            let ahead = self.steps.range((Excluded(step), Included(self.middle))).count();
            self.gone.is_none_or(|gone| step > gone) && ahead as u64 <= self.max_lag
        };
        if is_near {
            self.ranks[rank].info.returns += 1;
            self.wait_for(rank, true);
        }
    }

    /// Returns the step that a number, or a moment, of a history belongs to.
    fn held(&mut self, source: Source, step: i64) -> Result<&mut Held, Refused> {
        let it = &self.ranks[source.rank];
        let is_present = source.session == it.session;
        let is_of_session = it.session_from.is_some_and(|from| step >= from);
        if !is_present && is_of_session {
            return Err(Refused::Superseded);
        }
        let is_gone = self.gone.is_some_and(|gone| step <= gone);
        if is_gone && !(is_present && is_of_session && it.info.restarts > 0) {
            return Err(Refused::Late);
        }
        let ranks = self.ranks.len();
        if !self.steps.contains_key(&step) {
            if self.is_full() {
                return Err(Refused::NoSpace);
            }
            let mut held = Held::new(ranks);
            held.is_again = is_gone;
            self.cells += held.cells();
            self.steps.insert(step, held);
            self.changed.insert(step);
            self.has_new_steps = true;
        }
        let held = self.steps.get_mut(&step).ok_or(Refused::NoSpace)?;
        if held.places() < ranks {
            let before = held.cells();
            held.grow(ranks);
            self.cells += held.cells() - before;
        }
        held.generation = held.generation.max(source.generation);
        Ok(held)
    }

    /// Returns whether twice the cells are held that may be: nobody takes the steps.
    fn is_full(&self) -> bool {
        self.cells / 2 > self.max_cells
    }

    fn number(&mut self, source: Source, name: &str, value: f64, step: Option<i64>) {
        self.account.offered += 1;
        let Some(step) = step else {
            self.account.without_step += 1;
            return;
        };
        let name = match self.places.get(name) {
            Some(place) => *place,
            None if self.names.len() >= MAX_NAMES => {
                self.account.refused += 1;
                return;
            }
            None => {
                let (place, name): (usize, Arc<str>) = (self.names.len(), name.into());
                self.names.push(Arc::clone(&name));
                self.places.insert(name, place);
                place
            }
        };
        let is_full = self.is_full();
        let set = self.held(source, step).and_then(|held| {
            if is_full && !held.has_column(name) {
                return Err(Refused::NoSpace);
            }
            let before = held.cells();
            Ok((held.set(name, source.rank, value), held.cells() - before))
        });
        let info = &mut self.ranks[source.rank].info;
        match set {
            Ok((is_replaced, cells)) => {
                self.cells += cells;
                self.changed.insert(step);
                self.account.replaced += u64::from(is_replaced);
                info.replaced += u64::from(is_replaced);
                self.account.held += u64::from(!is_replaced);
            }
            Err(Refused::Late) => {
                self.account.late += 1;
                info.late += 1;
            }
            Err(Refused::Superseded) => {
                self.account.superseded += 1;
                info.superseded += 1;
            }
            Err(Refused::NoSpace) => self.account.refused += 1,
        }
    }

    /// Moves the watermark of a rank.
    fn move_to(&mut self, rank: usize, watermark: Option<i64>) {
        let is_waited = self.ranks[rank].is_waited;
        self.wait_for(rank, false);
        self.ranks[rank].watermark = watermark;
        self.wait_for(rank, is_waited);
    }

    /// Begins or ends to wait for a rank.
    fn wait_for(&mut self, rank: usize, is_waited: bool) {
        let it = &mut self.ranks[rank];
        if it.is_waited == is_waited {
            return;
        }
        it.is_waited = is_waited;
        self.waited = if is_waited { self.waited + 1 } else { self.waited - 1 };
        let at = it.watermark.unwrap_or(i64::MIN);
        if is_waited {
            *self.watermarks.entry(at).or_default() += 1;
        } else if let Some(count) = self.watermarks.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                self.watermarks.remove(&at);
            }
        }
    }

    /// Returns whether every rank that is waited for has gone on to a later step.
    fn is_complete(&self, step: i64) -> bool {
        self.is_finished || self.watermarks.first_key_value().is_none_or(|(least, _)| *least > step)
    }

    /// Returns whether every rank that is waited for is in a step.
    fn is_whole(&self, held: &Held) -> bool {
        if held.ranks < self.waited {
            return false;
        }
        let mut waited = self.ranks.iter().enumerate().filter(|(_, rank)| rank.is_waited);
        waited.all(|(place, _)| held.has(place))
    }

    /// Finds the ranks that have vanished: once a step.
    fn judge(&mut self) {
        if !std::mem::take(&mut self.has_new_steps) || self.is_finished {
            return;
        }
        let (all, mut before) = (self.waited, 0);
        let middle = self.watermarks.iter().find(|(_, count)| {
            before += **count;
            before > all / 2
        });
        let Some((&middle, _)) = middle else { return };
        // After a restart of the job, it goes back.
        if middle > self.middle {
            self.progress += self.steps.range((Excluded(self.middle), Included(middle))).count() as u64;
        }
        self.middle = middle;
        for place in 0..self.ranks.len() {
            let it = &mut self.ranks[place];
            if it.watermark != it.judged {
                (it.judged, it.moved_at) = (it.watermark, self.progress);
            } else if it.is_waited
                && it.watermark.is_none_or(|watermark| watermark < middle)
                && self.progress - it.moved_at > self.max_lag
            {
                self.wait_for(place, false);
            }
        }
    }

    /// Lets a step go, and returns it if it is to be given.
    fn leave(&mut self, step: i64, is_complete: bool) -> Option<RankStep> {
        let row = if self.steps.get(&step)?.is_changed { self.row(step, is_complete) } else { None };
        let held = self.steps.remove(&step)?;
        self.changed.remove(&step);
        self.cells -= held.cells();
        self.account.held -= held.numbers;
        // A part of the ranks would take the place of all.
        if held.is_again && !self.is_whole(&held) {
            self.account.late += held.numbers;
            for (place, rank) in self.ranks.iter_mut().enumerate() {
                rank.info.late += held.numbers_of(place);
            }
            return None;
        }
        self.gone = self.gone.max(Some(step));
        self.account.reduced += held.numbers;
        self.account.incomplete_steps += u64::from(!is_complete);
        self.compare(step, &held);
        row
    }

    /// Adds what a step says of times.
    fn compare(&mut self, step: i64, held: &Held) {
        if let Some((middle, arrivals)) = held.arrivals() {
            for (rank, nanos) in arrivals {
                let seconds = (nanos as f64 - middle as f64) / 1e9;
                ClockOffset::add(&mut self.ranks[rank].info.clock, seconds);
            }
        }
        let ends = held.times().fold(None, |ends: Option<(u64, u64)>, (_, nanos)| {
            Some(ends.map_or((nanos, nanos), |(least, most)| (least.min(nanos), most.max(nanos))))
        });
        let Some((least, most)) = ends.filter(|_| held.times().nth(1).is_some()) else { return };
        for (rank, nanos) in held.times() {
            let it = &mut self.ranks[rank].info.behind;
            let behind = Duration::from_nanos(nanos - least);
            it.steps += 1;
            it.last += u64::from(nanos == most && most > least);
            it.total = it.total.saturating_add(behind);
            if it.max.is_none_or(|(max, _)| behind > max) {
                it.max = Some((behind, step));
            }
        }
    }

    /// Makes the row of a step. `None` of one that has no numbers, and had none.
    fn row(&self, step: i64, is_complete: bool) -> Option<RankStep> {
        let held = self.steps.get(&step)?;
        if held.numbers == 0 && held.revision == 0 {
            return None;
        }
        let is_missing = |(place, rank): &(usize, &Rank)| {
            let has_passed = rank.watermark.is_some_and(|watermark| watermark >= step)
                && rank.info.first_step.is_some_and(|first| first <= step);
            !has_passed && !held.has(*place) && rank.info.status != RankStatus::Joined
        };
        Some(RankStep {
            step,
            generation: held.generation,
            revision: held.revision,
            is_complete,
            ranks: held.ranks,
            missing: self.ranks.iter().enumerate().filter(is_missing).map(|(place, _)| place).collect(),
            values: held.reduced(&self.names),
            slowest: held.slowest(),
        })
    }
}
