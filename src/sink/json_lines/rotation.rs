//! Closed files of a sink: `events.jsonl.000001` and so on beside `events.jsonl`, the oldest with the lowest number; some
//! with `.zst` behind it.
//!
//! Others put files beside it as well: `events.jsonl.1`, `events.jsonl.20261128`. A file is ours only if its name is one that
//! [`close`] could have given it. What is not ours is never renamed, removed, compressed, read, or overwritten.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::numbers::{MAX_GAP, next, numbered, parse};
use super::super::presence::{Found, Presence};
use crate::unix::rename_new;

/// Closed file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Closed {
    /// Number of the file.
    pub number: u64,
    /// A file that is there in both forms is not done being compressed.
    pub is_compressed: bool,
    /// Path of the file.
    pub path: PathBuf,
}

/// The closed files beside a file.
#[derive(Debug, Default)]
pub struct ClosedFiles {
    /// Oldest first, each once.
    pub files: Vec<Closed>,
    /// The number that the next one gets; `None` when all are used up.
    pub next: Option<u64>,
    /// Files of a process that died while it compressed.
    pub(super) unfinished: Vec<PathBuf>,
}

/// Returns the highest of the numbers if it is somebody else's: it would use up the numbers of the sink.
fn stray(sorted: &[u64]) -> Option<u64> {
    let (&highest, others) = sorted.split_last()?;
    let below = match others.iter().rev().find(|number| **number < highest) {
        Some(below) => *below,
        // A sink that keeps one closed file has one, with any number.
        None if next(highest).is_some() => highest,
        None => 0,
    };
    (highest - below > MAX_GAP).then_some(highest)
}

/// Looks for the closed files beside `path`.
pub fn closed(path: &Path) -> io::Result<ClosedFiles> {
    let mut found = ClosedFiles::default();
    let (Some(folder), Some(name)) = (folder(path), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(found);
    };
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.file_name();
        let Some(end) = other.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.')) else {
            continue;
        };
        let (digits, end) = end.split_at(end.find('.').unwrap_or(end.len()));
        let Some(number) = parse(digits) else { continue };
        let path = entry.path();
        // A folder of such a name is nobody's closed file, but its number is taken.
        let is_file = || match entry.file_type() {
            Ok(kind) if kind.is_symlink() => fs::metadata(&path).is_ok_and(|data| data.is_file()),
            Ok(kind) => kind.is_file(),
            // It was just compressed: its other form is looked for.
            Err(_) => true,
        };
        match end {
            "" | ".zst" => {
                numbers.push(number);
                if is_file() {
                    found.files.push(Closed { number, is_compressed: !end.is_empty(), path });
                }
            }
            ".zst.new" if is_file() => found.unfinished.push(path),
            _ => {}
        }
    }
    numbers.sort_unstable();
    while let Some(stray) = stray(&numbers) {
        numbers.pop();
        found.files.retain(|closed| closed.number != stray);
    }
    found.files.sort();
    // The plain one of two comes first.
    found.files.dedup_by_key(|closed| closed.number);
    found.next = next(numbers.last().copied().unwrap_or(0));
    Ok(found)
}

/// Closes the file at `path`: it gets the next number. `false` if another file has come to the path meanwhile: that stays
/// there.
pub(super) fn close(path: &Path, presence: &Presence) -> io::Result<bool> {
    close_by(path, presence, rename_new)
}

fn close_by(
    path: &Path,
    presence: &Presence,
    mut rename: impl FnMut(&Path, &Path) -> io::Result<()>,
) -> io::Result<bool> {
    let mut number = closed(path)?.next;
    let is_own = |path: &Path| matches!(presence.look(path), Found::Own(_) | Found::Unknown);
    loop {
        let Some(free) = number else { return Err(io::Error::other("no number is left for a closed file")) };
        if !is_own(path) {
            return Ok(false);
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(numbered(free));
        let name = PathBuf::from(name);
        match rename(path, &name) {
            // Somebody else was here meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = next(free),
            Err(error) => return Err(error),
            Ok(()) if is_own(&name) => return Ok(true),
            // It was replaced between the two calls.
            Ok(()) => return rename_new(&name, path).map(|()| false),
        }
    }
}

/// Removes the oldest closed files but for the last `keep`. One that cannot be removed holds up no other; an error is reported
/// once for each of them, for which `reported` has their numbers.
pub(super) fn retain(path: &Path, keep: usize, reported: &mut BTreeSet<u64>) -> io::Result<()> {
    let closed = closed(path)?.files;
    reported.retain(|number| closed.iter().any(|closed| closed.number == *number));
    let too_many = closed.len().saturating_sub(keep);
    let mut outcome = Ok(());
    for old in closed.into_iter().take(too_many) {
        if let Err(error) = remove(&old)
            && reported.insert(old.number)
            && outcome.is_ok()
        {
            let said = format!("cannot remove {}: {error}", old.path.display());
            outcome = Err(io::Error::new(error.kind(), said));
        }
    }
    outcome
}

/// Removes a closed file, in both of its forms.
fn remove(closed: &Closed) -> io::Result<()> {
    let compressed = (!closed.is_compressed).then(|| with(&closed.path, ".zst"));
    for path in std::iter::once(&closed.path).chain(&compressed) {
        match fs::remove_file(path) {
            // It was just compressed, or never.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

/// Returns a path with something behind its name.
pub(super) fn with(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Creates a file of ours in a folder, and returns its path and presence.
    fn own(folder: &Path) -> (PathBuf, Presence) {
        let path = folder.join("events.jsonl");
        let presence = Presence::of(&fs::File::create(&path).unwrap()).unwrap();
        (path, presence)
    }

    #[test]
    fn a_file_that_comes_to_the_path_while_ours_is_closed_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, presence) = own(folder.path());
        // Held open, so that no other file gets its identity.
        let held = fs::File::open(&path).unwrap();
        let replace = |path: &Path| {
            fs::rename(path, folder.path().join("moved")).unwrap();
            fs::write(path, "somebody else's").unwrap();
        };
        // Right between the look and the rename.
        let rename = |from: &Path, to: &Path| {
            replace(from);
            rename_new(from, to)
        };
        assert!(!close_by(&path, &presence, rename).unwrap());
        // And before the look.
        assert!(!close(&path, &presence).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody else's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
        drop(held);
    }

    #[test]
    fn a_file_of_the_next_number_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (path, presence) = own(folder.path());
        let mut others = 0;
        // Somebody else takes the number, right before the rename.
        let rename = |from: &Path, to: &Path| {
            if others < 2 {
                others += 1;
                fs::write(to, "somebody else's").unwrap();
            }
            rename_new(from, to)
        };
        assert!(close_by(&path, &presence, rename).unwrap());
        let closed = closed(&path).unwrap();
        let lengths = closed.files.iter().map(|closed| fs::metadata(&closed.path).unwrap().len());
        assert_eq!(lengths.collect::<Vec<_>>(), [15, 15, 0]);
    }
}
