//! Folders of runs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Creates a new folder for a run in `runs`, named after the time in UTC: `runs/2026-11-28_14-30-05`.
///
/// A run that begins in the same second gets `runs/2026-11-28_14-30-05.2`, the next one `.3`. The folder is always a new one, also
/// where several processes ask at once. `runs` is created if it is missing.
///
/// # Errors
///
/// Returns the error of the system, with the path that it names.
///
/// ```
/// use forebay::{Collector, run, sink::JsonLinesSink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let parent = tempfile::tempdir()?;
/// # let runs = parent.path().join("runs");
/// let folder = run::folder(runs)?; // "runs"
/// let collector = Collector::builder().sink(JsonLinesSink::create(folder.join("events.jsonl"))?).start()?;
/// # collector.stop()?;
/// # Ok(())
/// # }
/// ```
pub fn folder(runs: impl AsRef<Path>) -> io::Result<PathBuf> {
    create(runs.as_ref(), None)
}

/// Creates a new folder in `runs`, named after the time, and after the run if that has a name.
pub(super) fn create(runs: &Path, name: Option<&str>) -> io::Result<PathBuf> {
    folder_at(runs, SystemTime::now(), name)
}

/// Length of the part of a folder's name that comes from the name of the run, in bytes. Most file systems allow 255 bytes for the whole
/// name, a few only 143.
const MAX_RUN_BYTES: usize = 120;

fn folder_at(runs: &Path, now: SystemTime, run: Option<&str>) -> io::Result<PathBuf> {
    let named = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("cannot create the folder {}: {error}", path.display()))
    };
    fs::create_dir_all(runs).map_err(|error| named(runs, error))?;
    // `2026-11-28T14:30:05Z`, without what a path may not have on every system. The format knows the years 1970 to 9999.
    let now = now.clamp(UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(253_402_300_799));
    let name = humantime::format_rfc3339_seconds(now).to_string();
    let mut name = name.trim_end_matches('Z').replace('T', "_").replace(':', "-");
    if let Some(run) = run {
        // Without what a name of a folder may not have somewhere, and no longer than every system allows.
        let allowed = |char: char| if char.is_alphanumeric() || "-_+=.,".contains(char) { char } else { '-' };
        name.push('_');
        let max_bytes = name.len() + MAX_RUN_BYTES;
        for char in run.chars().map(allowed) {
            if name.len() + char.len_utf8() > max_bytes {
                break;
            }
            name.push(char);
        }
    }
    let mut number = 1_u64;
    loop {
        let path = runs.join(if number == 1 { name.clone() } else { format!("{name}.{number}") });
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(named(&path, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_second_get_folders_of_their_own() {
        let parent = tempfile::tempdir().unwrap();
        let runs = parent.path().join("a/runs");
        let now = UNIX_EPOCH + Duration::from_millis(1_700_000_000_900);
        let names: Vec<_> = (0..3).map(|_| folder_at(&runs, now, None).unwrap()).collect();
        let expected = ["2023-11-14_22-13-20", "2023-11-14_22-13-20.2", "2023-11-14_22-13-20.3"];
        assert_eq!(names, expected.map(|name| runs.join(name)));
        assert!(names.iter().all(|path| path.is_dir()));
    }

    #[test]
    fn the_name_of_a_run_is_a_part_of_one_folder_whatever_it_is() {
        let runs = tempfile::tempdir().unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (run, expected) in [
            ("digits", "2023-11-14_22-13-20_digits"),
            ("digits", "2023-11-14_22-13-20_digits.2"),
            ("../a b\\c:d", "2023-11-14_22-13-20_..-a-b-c-d"),
            ("", "2023-11-14_22-13-20_"),
        ] {
            assert_eq!(folder_at(runs.path(), now, Some(run)).unwrap(), runs.path().join(expected));
        }
        let long = folder_at(runs.path(), now, Some(&"\u{1f}\u{1f600}ö".repeat(1000))).unwrap();
        assert!(long.is_dir() && long.parent() == Some(runs.path()));
        // Letters of four bytes: 60 of them would be too long for a name.
        let wide = folder_at(runs.path(), now, Some(&"\u{20000}".repeat(60))).unwrap();
        let expected = format!("2023-11-14_22-13-20_{}", "\u{20000}".repeat(30));
        assert_eq!(wide, runs.path().join(expected));
    }

    #[test]
    fn a_clock_beyond_all_years_gives_a_folder_all_the_same() {
        let runs = tempfile::tempdir().unwrap();
        for (now, name) in [
            (UNIX_EPOCH - Duration::from_secs(86_400), "1970-01-01_00-00-00"),
            (UNIX_EPOCH + Duration::from_secs(1 << 40), "9999-12-31_23-59-59"),
        ] {
            assert_eq!(folder_at(runs.path(), now, None).unwrap(), runs.path().join(name));
        }
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_it() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("runs");
        fs::write(&file, "").unwrap();
        let error = folder(&file).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
    }
}
