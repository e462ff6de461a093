//! Names of event files. TensorBoard reads those of a folder in the order of their names, so they must sort in the
//! order in which they were begun: also when two begin in one second, or the clock was set back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::origin::host_name;

const PREFIX: &str = "events.out.tfevents.";

/// Begins a file that sorts behind all others in `folder`, which is created if it is missing.
pub(super) fn create(folder: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(folder)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut seconds = now.max(last(folder)?.map_or(0, |last| last + 1));
    loop {
        let host = host_name().replace(['/', '\\', ':'], "-");
        let name = format!("{PREFIX}{seconds:010}.{host}.{}.000", std::process::id());
        let path = folder.join(name);
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            // Somebody else writes here, against the rules.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => seconds += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Returns the largest number of seconds in a name in `folder`.
pub(super) fn last(folder: &Path) -> io::Result<Option<u64>> {
    let mut last = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let seconds = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('.').next())
            .and_then(|seconds| seconds.parse().ok())
            // Ten digits, with room for files to come; what is larger is not a moment.
            .filter(|seconds| *seconds < 9_999_000_000);
        last = last.max(seconds);
    }
    Ok(last)
}

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
        let begun: Vec<PathBuf> = (0..3).map(|_| create(folder.path()).unwrap().0).collect();
        assert!(begun.is_sorted());
        assert!(begun[0].file_name().unwrap() > "events.out.tfevents.4000000000.other.1.0");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
    }
}
