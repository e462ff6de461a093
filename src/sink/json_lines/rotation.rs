//! Closed files of a sink: `events.jsonl.000001` and so on beside `events.jsonl`, the oldest with the lowest number; some
//! with `.zst` behind it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A closed file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Closed {
    pub(crate) number: u64,
    /// A file that is there in both forms is not done being compressed.
    pub(crate) is_compressed: bool,
    pub(crate) path: PathBuf,
}

/// The closed files beside `path`, oldest first, each once.
pub(crate) fn closed(path: &Path) -> io::Result<Vec<Closed>> {
    let (Some(folder), Some(name)) = (folder(path), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut closed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let other = entry.file_name();
        let Some(end) = other.to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.')) else {
            continue;
        };
        let (digits, is_compressed) = match end.strip_suffix(".zst") {
            Some(digits) => (digits, true),
            None => (end, false),
        };
        let is_number = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if let Some(number) = digits.parse().ok().filter(|_| is_number) {
            closed.push(Closed { number, is_compressed, path: entry.path() });
        }
    }
    closed.sort();
    // The plain one of two comes first.
    closed.dedup_by_key(|closed| closed.number);
    Ok(closed)
}

/// Closes the file at `path`: it gets the next number. Of the closed ones, the last `keep` stay.
pub(super) fn close(path: &Path, keep: Option<usize>) -> io::Result<()> {
    let number = closed(path)?.last().map_or(1, |last| last.number + 1);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    fs::rename(path, name)?;
    let Some(keep) = keep else { return Ok(()) };
    let closed = closed(path)?;
    let too_many = closed.len().saturating_sub(keep);
    for old in closed.into_iter().take(too_many) {
        match fs::remove_file(&old.path) {
            // It was just compressed: the next time.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}
