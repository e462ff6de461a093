//! Closed files of a sink: `events.jsonl.000001` and so on beside `events.jsonl`, the oldest with the lowest number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The closed files beside `path`, oldest first, with their numbers.
pub(crate) fn closed(path: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(folder), Some(name)) = (folder(path), path.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let mut closed = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|other| other.strip_prefix(name))
            .and_then(|rest| rest.strip_prefix('.'))
            .filter(|digits| digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok());
        closed.extend(number.map(|number: u64| (number, entry.path())));
    }
    closed.sort();
    Ok(closed)
}

/// Closes the file at `path`: it gets the next number. Of the closed ones, the last `keep` stay.
pub(super) fn close(path: &Path, keep: Option<usize>) -> io::Result<()> {
    let before = closed(path)?;
    let number = before.last().map_or(1, |(number, _)| number + 1);
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number:06}"));
    fs::rename(path, name)?;
    let too_many = keep.map_or(0, |keep| (before.len() + 1).saturating_sub(keep));
    for (_, old) in before.into_iter().take(too_many) {
        fs::remove_file(old)?;
    }
    Ok(())
}

fn folder(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}
