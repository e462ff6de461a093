//! Names of files by day and part, and which of them are ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::append::Append;
use super::super::target::{real_folder, real_path};

/// Number of characters of a day: `2026-11-30`.
const DAY: usize = 10;

/// The files of a sink: `STEM.EXTENSION`, with the day and the part before the extension.
#[derive(Debug)]
pub(super) struct Files {
    /// Path without symbolic links: one that is named `latest`, say, leads elsewhere once the next run has begun.
    path: PathBuf,
    /// True if the name of a file has its day.
    pub(super) is_daily: bool,
}

/// The day of a file, empty where files have none, and its part. In the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) day: String,
    pub(super) part: u64,
}

impl Files {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        // Whatever the process makes its working directory later.
        let path = std::path::absolute(path)?;
        let real = real_path(&path).map_err(|error| cannot_write(&path, error))?;
        Ok(Self { path: real, is_daily: false })
    }

    /// Returns the day of a moment in UTC; nothing where files have none.
    pub(super) fn day(&self, time: SystemTime) -> String {
        if !self.is_daily {
            return String::new();
        }
        // A clock before 1970 or after 9999 is wrong; `humantime` would panic.
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds.min(LAST_SECOND));
        let mut day = humantime::format_rfc3339_seconds(time).to_string();
        day.truncate(DAY);
        day
    }

    /// Opens a file.
    pub(super) fn open(&self, place: &Place) -> io::Result<Append> {
        let path = self.path_of(place);
        Append::open(&path).map_err(|error| cannot_write(&path, error))
    }

    /// Returns whether nothing has the name of a file.
    pub(super) fn is_free(&self, place: &Place) -> bool {
        fs::symlink_metadata(self.path_of(place)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    fn path_of(&self, place: &Place) -> PathBuf {
        if *place == Place::default() {
            return self.path.clone();
        }
        let (stem, extension) = self.parts();
        let mut name = stem.to_owned();
        if !place.day.is_empty() {
            name = format!("{name}.{}", place.day);
        }
        if place.part > 0 {
            name = format!("{name}.{}", place.part);
        }
        if !extension.is_empty() {
            name = format!("{name}.{extension}");
        }
        self.path.with_file_name(name)
    }

    /// Returns the name before its last point, and what is behind that.
    fn parts(&self) -> (&str, &str) {
        let stem = self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        (stem, self.path.extension().and_then(|extension| extension.to_str()).unwrap_or_default())
    }

    /// Returns the last part of a day that is there, or its first.
    pub(super) fn last_part(&self, day: String) -> io::Result<Place> {
        let parts = self.existing()?.into_iter().map(|(place, _)| place).filter(|place| place.day == day);
        Ok(parts.max().unwrap_or(Place { day: day.clone(), part: 0 }))
    }

    /// Removes the oldest files, so that so many stay.
    pub(super) fn retain(&self, keep: usize) -> io::Result<()> {
        let mut files = self.existing()?;
        files.sort();
        let too_many = files.len().saturating_sub(keep);
        let mut outcome = Ok(());
        for (_, path) in files.into_iter().take(too_many) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound && outcome.is_ok() => {
                    let said = format!("cannot remove {}: {error}", path.display());
                    outcome = Err(io::Error::new(error.kind(), said));
                }
                _ => {}
            }
        }
        outcome
    }

    /// Returns the plain files in the folder that have a name of this sink.
    fn existing(&self) -> io::Result<Vec<(Place, PathBuf)>> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut files = Vec::new();
        for entry in fs::read_dir(real_folder(folder)?)? {
            let entry = entry?;
            let place = entry.file_name().to_str().and_then(|name| self.place_of(name));
            if let Some(place) = place
                && entry.file_type().is_ok_and(|kind| kind.is_file())
            {
                files.push((place, entry.path()));
            }
        }
        Ok(files)
    }

    /// Reads the place in a name, if it is one that this sink gives.
    fn place_of(&self, name: &str) -> Option<Place> {
        let (stem, extension) = self.parts();
        let mut rest = name.strip_prefix(stem)?;
        if !extension.is_empty() {
            rest = rest.strip_suffix(extension)?.strip_suffix('.')?;
        }
        let mut place = Place::default();
        if self.is_daily {
            let day = rest.strip_prefix('.')?.get(..DAY)?;
            let is_day = day.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            });
            if !is_day {
                return None;
            }
            place.day = day.to_owned();
            rest = &rest[1 + DAY..];
        }
        if let Some(part) = rest.strip_prefix('.') {
            let is_number = part.bytes().all(|byte| byte.is_ascii_digit()) && !part.starts_with('0');
            place.part = part.parse().ok().filter(|_| is_number)?;
            rest = "";
        }
        rest.is_empty().then_some(place)
    }
}

/// Adds the path to an error.
fn cannot_write(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to {}: {error}", path.display()))
}

/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_sink_gives_are_its_own() {
        let mut files = Files { path: "/logs/app.log".into(), is_daily: false };
        let place = |day: &str, part| Place { day: day.to_owned(), part };
        for place in [place("", 0), place("", 1), place("", 12)] {
            let path = files.path_of(&place);
            assert_eq!(files.place_of(path.file_name().unwrap().to_str().unwrap()), Some(place));
        }
        for other in [
            "app.log.1",
            "app.01.log",
            "app.0.log",
            "app..log",
            "app.2026-11-30.log",
            "apple.log",
            "app.1log",
            "app",
        ] {
            assert_eq!(files.place_of(other), None, "{other}");
        }
        files.is_daily = true;
        for place in [place("2026-11-30", 0), place("2026-12-01", 3)] {
            let path = files.path_of(&place);
            assert_eq!(files.place_of(path.file_name().unwrap().to_str().unwrap()), Some(place));
        }
        for other in [
            "app.log",
            "app.1.log",
            "app.2026-11-30",
            "app.2026-11-3x.log",
            "app.2026-11-30.x.log",
            "app.2026-11-30-1.log",
            "app.äöüäöü.log",
        ] {
            assert_eq!(files.place_of(other), None, "{other}");
        }
        let bare = Files { path: "/logs/app".into(), is_daily: true };
        assert_eq!(bare.path_of(&place("2026-11-30", 2)), Path::new("/logs/app.2026-11-30.2"));
        assert_eq!(bare.place_of("app.2026-11-30.2"), Some(place("2026-11-30", 2)));
    }

    #[test]
    fn a_day_is_that_of_utc_whatever_the_clock_says() {
        let files = Files { path: "/logs/app.log".into(), is_daily: true };
        let at = |seconds| SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        for (time, day) in [
            (at(0), "1970-01-01"),
            (at(86_399), "1970-01-01"),
            (at(86_400), "1970-01-02"),
            (at(1_796_083_199), "2026-11-30"),
            (at(1_796_083_200), "2026-12-01"),
            (at(LAST_SECOND + 1), "9999-12-31"),
            (SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1), "1970-01-01"),
        ] {
            assert_eq!(files.day(time), day);
        }
    }
}
