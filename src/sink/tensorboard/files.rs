//! Names of event files. TensorBoard reads those of a folder in the order of their names, so they must sort in the
//! order in which they were begun: also when two begin in one second, or the clock was set back.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tfevents::{EventContent, Reader};

use crate::origin::host_name;
use crate::unix::open_read;

const PREFIX: &str = "events.out.tfevents.";

/// Begins a file that sorts behind all others in `folder`, which is created if it is missing. Its name ends with `suffix`.
pub(super) fn create(folder: &Path, suffix: &str) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(folder)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut seconds = now.max(last(folder)?.map_or(0, |last| last + 1));
    loop {
        let name = format!("{PREFIX}{seconds:010}.{}.{}.000{suffix}", file_host(), std::process::id());
        let path = folder.join(name);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            // Somebody else writes here, against the rules.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => seconds += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Returns whether this process has begun a file in `folder`, in that second since 1970 or later.
pub(super) fn is_begun_since(folder: &Path, second: u64) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    let own = format!(".{}.{}.000", file_host(), std::process::id());
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        seconds_in(&name).is_some_and(|begun| begun >= second) && name.to_string_lossy().contains(&own)
    })
}

/// Returns the name of this machine, as it stands in the name of a file.
fn file_host() -> String {
    host_name().replace(['/', '\\', ':'], "-")
}

/// Returns the largest number of seconds in a name in `folder`.
fn last(folder: &Path) -> io::Result<Option<u64>> {
    let mut last = None;
    for entry in fs::read_dir(folder)? {
        last = last.max(seconds_in(&entry?.file_name()));
    }
    Ok(last)
}

/// Returns the number of seconds in the name of an event file, and `None` for another file.
fn seconds_in(name: &OsStr) -> Option<u64> {
    let seconds = name.to_str()?.strip_prefix(PREFIX)?.split('.').next()?.parse().ok();
    // Ten digits, with room for files to come; what is larger is not a moment.
    seconds.filter(|seconds| *seconds < 9_999_000_000)
}

/// Returns whether a program that began a file in `folder` wrote a value: there, or in the folder of a sub-run below it. What lies less deep
/// is looked at first, within [`MAX_OPENED_BELOW`] and [`MAX_LISTED_BELOW`].
pub(super) fn has_earlier_run(folder: &Path) -> io::Result<bool> {
    let (mut has_file, mut below) = (false, VecDeque::new());
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_event_file(&entry) {
            if is_written(&entry) {
                return Ok(true);
            }
            has_file = true;
        } else if is_folder(&entry) {
            below.push_back(entry.path());
        }
    }
    // Without a file of its own, it is a folder of runs, and no run.
    let mut folders_left = if has_file { MAX_OPENED_BELOW } else { 0 };
    let mut files_left = MAX_OPENED_BELOW;
    while folders_left > 0
        && let Some(folder) = below.pop_front()
    {
        folders_left -= 1;
        for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_LISTED_BELOW) {
            if is_event_file(&entry) {
                if files_left == 0 {
                    return Ok(false);
                }
                if is_written(&entry) {
                    return Ok(true);
                }
                files_left -= 1;
            } else if below.len() < folders_left && is_folder(&entry) {
                below.push_back(entry.path());
            }
        }
    }
    Ok(false)
}

/// Most folders, and most event files without a value, that are opened below the folder of a run to look for a sub-run: a begin must
/// not wait long for a network.
const MAX_OPENED_BELOW: usize = 100;

/// Most entries of one of these folders that are looked at. One that is full of other files hides none of the other folders.
const MAX_LISTED_BELOW: usize = 5_000;

fn is_event_file(entry: &DirEntry) -> bool {
    seconds_in(&entry.file_name()).is_some()
}

/// Returns whether that is a folder, and not a link, which may lead back.
fn is_folder(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

/// Returns whether an event file has a value. One that cannot be read has been written by somebody.
fn is_written(entry: &DirEntry) -> bool {
    has_values(&entry.path()).unwrap_or(true)
}

/// Returns whether an event file has more than its head: the version of the format and, from a writer that begins sessions, the
/// begin of one. (PyTorch's begins none.)
fn has_values(path: &Path) -> io::Result<bool> {
    let data = fs::metadata(path)?;
    // A pipe is not opened: a writer that waits at its other end would go on, and lose its reader.
    if !data.is_file() {
        return Ok(true);
    }
    // It may have become a pipe since.
    let mut reader = Reader::new(open_read(path)?).max_record_bytes(MAX_HEAD_BYTES);
    for may_be_log in [false, true] {
        let Ok(event) = reader.next_event() else { return Ok(true) };
        match event.map(|event| event.content) {
            // The writer was killed before it had written its head, unless what is there is larger than any.
            None => return Ok(reader.skipped().bytes > 0),
            Some(EventContent::SessionLog { .. }) => {}
            Some(_) if may_be_log => return Ok(true),
            Some(_) => {}
        }
    }
    Ok(reader.offset() < data.len())
}

/// Most bytes that a record of the head of a file takes. It holds the name of a program, or of a checkpoint.
const MAX_HEAD_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_sort_in_the_order_in_which_files_begin() {
        let folder = tempfile::tempdir().unwrap();
        // A clock that was set back since.
        fs::write(folder.path().join("events.out.tfevents.4000000000.other.1.0"), "").unwrap();
        fs::write(folder.path().join("events.jsonl"), "").unwrap();
        // Behind it, no name would be left.
        fs::write(folder.path().join("events.out.tfevents.9999999999.other.1.0"), "").unwrap();
        let begun: Vec<PathBuf> =
            ["", ".mine", ""].iter().map(|suffix| create(folder.path(), suffix).unwrap().0).collect();
        assert!(begun.is_sorted());
        assert!(begun[0].file_name().unwrap() > "events.out.tfevents.4000000000.other.1.0");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
    }
}
