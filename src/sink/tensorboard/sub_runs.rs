//! Folders below that of the run, for records that name a sub-run.
//!
//! A program may name any number of them. So they hold few descriptors, few of them are remembered, and all of them together
//! have as many tags as one run may have. What is given up is the sub-run that was written to least recently: its file is
//! closed, and opened again where it comes again; or it is forgotten, and begins a new file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Component, Path};

use super::files;
use super::folder::{Fates, RunFolder};
use super::settings::{EarlierPoints, Settings};
use crate::sink::SinkError;
use crate::sync::Arc;

/// Most sub-runs that are remembered beside the one at hand. Each takes about a kilobyte, and its tags.
const MAX_REMEMBERED: usize = 4_096;

/// Longest name of a sub-run in bytes, and of a part of it: what common file systems allow.
const MAX_NAME_BYTES: usize = 2_048;
const MAX_PART_BYTES: usize = 255;

/// Sub-runs of one sink.
#[derive(Default)]
pub(super) struct SubRuns {
    /// The one that was written to last. It is none of the others.
    current: Option<SubRun>,
    pub(super) others: Others,
    /// Names of those that have a record in the batch at hand. One may be there twice.
    touched: Vec<Arc<str>>,
}

struct SubRun {
    name: Arc<str>,
    folder: Box<RunFolder>,
}

/// Sub-runs but for the current one, by their last use.
#[derive(Default)]
pub(super) struct Others {
    folders: HashMap<Arc<str>, Other>,
    /// Those that may hold a descriptor, and those that hold none, by the number of their last use.
    open: BTreeMap<u64, Arc<str>>,
    closed: BTreeMap<u64, Arc<str>>,
    /// Number of the last use.
    uses: u64,
    /// Number of their tags, and of the bytes of these.
    tags: usize,
    tag_bytes: usize,
    /// Step behind all that went to sub-runs that are forgotten; `None` if none is.
    forgotten_until: Option<i64>,
    /// Fates of the events of the batch at hand that went to folders which are forgotten, or to none.
    fates: Fates,
    /// Names of those that were forgotten in the batch at hand, and whose file was removed meanwhile: they are written again.
    lost: HashSet<Arc<str>>,
}

struct Other {
    folder: Box<RunFolder>,
    used: u64,
}

impl SubRuns {
    /// Returns the folder of that name below `run`, for a record of batch number `batch`, and the other folders. `None` for a name
    /// that is refused.
    pub(super) fn enter(
        &mut self,
        name: &str,
        batch: u64,
        run: &Path,
        settings: &Settings,
    ) -> Option<(&mut RunFolder, &mut Others)> {
        if self.current.as_ref().is_none_or(|current| *current.name != *name) {
            self.others.put(self.current.take());
            let known = self.others.take(name);
            self.current = match known {
                Some(known) => Some(known),
                None => Some(self.others.make(name, run, settings)?),
            };
            while self.others.open.len() >= settings.max_open_runs.max(1) {
                self.others.close_oldest();
            }
        }
        let current = self.current.as_mut()?;
        if current.folder.batch() != batch {
            self.touched.push(Arc::clone(&current.name));
        }
        self.others.limit(&mut current.folder, settings);
        Some((&mut current.folder, &mut self.others))
    }

    /// Writes batch number `batch` to its end in every folder that has records of it.
    pub(super) fn finish(&mut self, batch: u64) {
        let Self { current, others, touched } = self;
        for name in touched {
            if let Some(folder) = get(current, others, name)
                && folder.batch() == batch
            {
                folder.finish();
                // Each may have needed a megabyte.
                folder.encoder.free_buffers();
            }
        }
    }

    /// Returns whether a folder has to be written again.
    pub(super) fn is_any_lost(&mut self) -> bool {
        let Self { current, others, touched } = self;
        !others.lost.is_empty()
            || touched.iter().any(|name| get(current, others, name).is_some_and(|folder| folder.is_lost()))
    }

    /// Returns whether the records of that name wait until the batch is written again.
    pub(super) fn is_put_off(&self, name: &str) -> bool {
        self.others.lost.contains(name)
    }

    /// Returns whether the folder of that name is written again, by batch number `batch`.
    pub(super) fn is_again(&mut self, name: &str, batch: u64) -> bool {
        self.others.lost.contains(name)
            || get(&mut self.current, &mut self.others, name).is_some_and(|folder| folder.is_again(batch))
    }

    /// Returns the fates of the events of the batch at hand, which is over.
    pub(super) fn take_fates(&mut self) -> Fates {
        let mut fates = std::mem::take(&mut self.others.fates);
        self.others.lost.clear();
        for name in std::mem::take(&mut self.touched) {
            let Some(folder) = get(&mut self.current, &mut self.others, &name) else { continue };
            fates.add(folder.take_fates());
            if !folder.has_begun() {
                // Nothing could be made at its path.
                self.current.take_if(|current| current.name == name);
                self.others.take(&name);
            }
        }
        fates
    }

    /// Looks for the files that are open, and has the next batch look again.
    pub(super) fn doubt(&mut self) {
        let current = self.current.as_mut().map(|current| &mut current.folder);
        let others = self.others.folders.values_mut().map(|other| &mut other.folder);
        current.into_iter().chain(others).for_each(|folder| folder.doubt());
    }
}

fn get<'a>(current: &'a mut Option<SubRun>, others: &'a mut Others, name: &str) -> Option<&'a mut RunFolder> {
    match current {
        Some(current) if *current.name == *name => Some(&mut current.folder),
        _ => others.folders.get_mut(name).map(|other| &mut *other.folder),
    }
}

impl Others {
    /// Adds one, as the one that was used last.
    fn put(&mut self, sub_run: Option<SubRun>) {
        let Some(SubRun { name, folder }) = sub_run else { return };
        self.uses += 1;
        self.tags += folder.encoder.tags();
        self.tag_bytes += folder.encoder.tag_bytes();
        let by_use = if folder.is_open() { &mut self.open } else { &mut self.closed };
        by_use.insert(self.uses, Arc::clone(&name));
        self.folders.insert(name, Other { folder, used: self.uses });
    }

    /// Takes one out.
    fn take(&mut self, name: &str) -> Option<SubRun> {
        let (name, Other { folder, used }) = self.folders.remove_entry(name)?;
        self.open.remove(&used).or_else(|| self.closed.remove(&used));
        self.tags -= folder.encoder.tags();
        self.tag_bytes -= folder.encoder.tag_bytes();
        Some(SubRun { name, folder })
    }

    /// Makes one that is not known; `None` for a name that is refused.
    fn make(&mut self, name: &str, run: &Path, settings: &Settings) -> Option<SubRun> {
        if let Err(why) = check(name) {
            self.fates.refuse(SinkError::write_failed(why).permanent());
            return None;
        }
        while self.folders.len() >= MAX_REMEMBERED {
            self.forget_oldest();
        }
        let folder = run.join(name);
        // One that was forgotten has points, which the head of the new file must not delete.
        let first_step = match self.forgotten_until {
            Some(until) if files::is_begun_since(&folder, settings.created_at) => {
                until.max(settings.first_step)
            }
            _ => settings.first_step,
        };
        let mut folder = RunFolder::new(folder, settings.encoder(), first_step);
        folder.keep_earlier(settings.earlier == EarlierPoints::Keep);
        folder.on_file(settings.on_file.clone());
        Some(SubRun { name: name.into(), folder: Box::new(folder) })
    }

    /// Has a folder that is none of these take the tags that they leave.
    pub(super) fn limit(&self, folder: &mut RunFolder, settings: &Settings) {
        folder.encoder.set_max_tags(settings.max_tags.saturating_sub(self.tags));
        folder.encoder.set_max_tag_bytes(settings.max_tag_bytes.saturating_sub(self.tag_bytes));
    }

    /// Closes the file that was used least recently.
    fn close_oldest(&mut self) {
        let Some((used, name)) = self.open.pop_first() else { return };
        if let Some(other) = self.folders.get_mut(&name) {
            other.folder.close();
        }
        self.closed.insert(used, name);
    }

    /// Forgets the one that was used least recently. Returns `false` if there is none.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let oldest = self.closed.first_key_value().or_else(|| self.open.first_key_value());
        let Some(name) = oldest.map(|(_, name)| Arc::clone(name)) else { return false };
        let Some(SubRun { mut folder, .. }) = self.take(&name) else { return false };
        folder.finish();
        let until = folder.encoder.last_step().map_or(0, |last| last.saturating_add(1));
        self.forgotten_until = self.forgotten_until.max(Some(until));
        let mut fates = std::mem::take(&mut folder.fates);
        // One that is lost is written again, once.
        if !folder.is_lost() || !self.lost.insert(name) {
            if folder.is_lost() {
                fates.fail_written(io::ErrorKind::NotFound.into());
            }
            self.fates.add(fates);
        }
        true
    }
}

/// Checks that a name leads to a folder below that of the run, and that no other name leads there.
pub fn check(name: &str) -> Result<(), String> {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= MAX_PART_BYTES;
    let parts = name.split('/').count();
    // Elsewhere, more separates parts than a slash.
    let is_plain = |path: &Path| {
        let mut components = path.components();
        components.by_ref().all(|part| matches!(part, Component::Normal(_)))
            && path.components().count() == parts
    };
    let is_good = name.len() <= MAX_NAME_BYTES && !name.contains('\0') && name.split('/').all(is_part);
    if is_good && is_plain(Path::new(name)) {
        return Ok(());
    }
    Err(format!(
        "a sub-run must be a relative path without empty parts, \".\" and \"..\", of at most {MAX_PART_BYTES} bytes a part, \
         got {:?}",
        crate::escape::shortened(name.to_owned())
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_or_twice_to_one_are_refused() {
        for good in ["a", "fold_1", "eval/test", "a b", "...", "-", "\u{1f984}", &"x".repeat(255)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "x/".repeat(1_024) + "x";
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "./a",
            "a/.",
            "..",
            "a/../b",
            "../a",
            "a\0",
            &"x".repeat(256),
            &long,
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
