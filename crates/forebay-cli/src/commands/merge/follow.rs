//! `forebay merge --follow`: the steps of a job as its ranks reach them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_history::{HistoryError, RankInfo, RankReducer, RankStatus, RecordFollower};

use super::printed::Printed;
use super::remarks::{max_lag, remark, remarks};
use crate::args::Merge;
use crate::broker::{self, Poll};
use crate::error::Error;
use crate::folder;
use crate::out::{complain, note};

/// Time between two looks, where nothing is new.
const INTERVAL: Duration = Duration::from_millis(200);

/// Looks between two searches for folders of ranks that began since.
const SEARCH: u32 = 10;

/// Bytes of files that are read of all ranks together in a round, and the fewest of one; and events of a stream. Ranks are read side by
/// side, so that none seems to stand still because another one is read first.
const ROUND: usize = 32 << 20;
const MIN_BYTES: usize = 8 << 10;
const EVENTS: usize = 500;

/// Rank that is followed.
struct Feed {
    place: usize,
    path: PathBuf,
    records: Source,
    /// What was said last of what went wrong.
    said: String,
}

enum Source {
    /// It cannot be opened yet.
    None,
    Files(Box<RecordFollower>),
    Stream(Poll),
}

impl Source {
    fn open(path: &Path) -> Result<Self, Error> {
        if broker::is_stream(path) {
            return Ok(Self::Stream(broker::follow(path)?));
        }
        Ok(Self::Files(Box::new(RecordFollower::open(path)?)))
    }
}

impl Feed {
    fn new(name: &str, path: &Path, job: &mut RankReducer) -> Self {
        let place = job.add_rank(name);
        Self { place, path: path.to_owned(), records: Source::None, said: String::new() }
    }

    /// Pushes a part of what is new. Returns whether there is more.
    fn round(&mut self, max_bytes: usize, job: &mut RankReducer) -> bool {
        let read = self.read(max_bytes, job);
        match read {
            Ok(has_more) => {
                if has_more {
                    self.said.clear();
                }
                has_more
            }
            Err(error) => {
                let text = error.to_string();
                if self.said != text {
                    complain(&error);
                    self.said = text;
                }
                false
            }
        }
    }

    fn read(&mut self, max_bytes: usize, job: &mut RankReducer) -> Result<bool, Error> {
        if matches!(self.records, Source::None) {
            self.records = Source::open(&self.path)?;
        }
        let place = self.place;
        match &mut self.records {
            Source::None => Ok(false),
            Source::Files(follower) => Ok(!follower.look(max_bytes, &mut |record| job.push(place, &record))?),
            Source::Stream(poll) => {
                for _ in 0..EVENTS {
                    let next: Result<_, HistoryError> = poll(true);
                    match next? {
                        Some(record) => job.push(place, &record),
                        None => return Ok(false),
                    }
                }
                Ok(true)
            }
        }
    }
}

/// Prints steps as they are complete, until every rank has reported its end.
pub(super) fn follow(
    places: &[(String, PathBuf)],
    asked: &Merge,
    mut job: RankReducer,
    mut printed: Printed<'_>,
) -> Result<u8, Error> {
    let mut feeds: Vec<Feed> = places.iter().map(|(name, path)| Feed::new(name, path, &mut job)).collect();
    let mut known: HashSet<PathBuf> = places.iter().map(|(_, path)| path.clone()).collect();
    let (mut said, mut idle) = (HashSet::new(), 0_u32);
    loop {
        let max_bytes = (ROUND / feeds.len().max(1)).max(MIN_BYTES);
        let mut has_more = false;
        for feed in &mut feeds {
            has_more |= feed.round(max_bytes, &mut job);
        }
        while let Some(step) = job.next_step() {
            printed.step(&step)?;
        }
        printed.flush()?;
        let infos: Vec<RankInfo> = job.ranks().collect();
        let is_over = !has_more
            && !infos.is_empty()
            && infos.iter().all(|rank| matches!(rank.status, RankStatus::Ended | RankStatus::Joined));
        if is_over {
            job.finish();
            while let Some(step) = job.next_step() {
                printed.step(&step)?;
            }
            let code = printed.end(&infos)?;
            remark(&infos, &job);
            return Ok(code);
        }
        for (what, line) in remarks(&infos, max_lag(asked)) {
            if said.insert(what) {
                note(&line);
            }
        }
        if has_more {
            continue;
        }
        if idle % SEARCH == 0 {
            for (name, path) in folder::find_new(&asked.paths, &known) {
                feeds.push(Feed::new(&name, &path, &mut job));
                known.insert(path);
            }
        }
        idle = idle.wrapping_add(1);
        std::thread::sleep(INTERVAL);
    }
}
