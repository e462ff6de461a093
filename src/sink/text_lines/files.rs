//! Names of files by day and part, and which of them are ours.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::super::append::Append;
use super::super::numbers::{MAX_GAP, next, numbered, parse};
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

/// The day of a file, empty where files have none, and the number of its part, 0 for the first. In the order of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) day: String,
    pub(super) part: u64,
}

/// Something in the folder that has a name of this sink.
#[derive(Debug)]
struct Existing {
    place: Place,
    path: PathBuf,
    /// `None` where it cannot be looked at.
    kind: Option<fs::FileType>,
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

    /// Begins the next part of the day of the file that is open, under a name that nothing has.
    pub(super) fn begin_part(&self, open: &Place) -> io::Result<(Place, Append)> {
        let mut place = self
            .existing(open)?
            .into_iter()
            .map(|other| other.place)
            .fold(open.clone(), |last, other| if other.day == open.day { last.max(other) } else { last });
        loop {
            let Some(part) = next(place.part) else {
                return Err(io::Error::other(format!(
                    "no number is left for a part of {}",
                    self.path.display()
                )));
            };
            place.part = part;
            let path = self.path_of(&place);
            match fs::OpenOptions::new().append(true).create_new(true).open(&path) {
                // Somebody else was here meanwhile, or what has the name is nobody's part.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(cannot_write(&path, error)),
                Ok(_) => {
                    let opened = self.open(&place);
                    if opened.is_err() {
                        _ = fs::remove_file(&path);
                    }
                    return opened.map(|file| (place, file));
                }
            }
        }
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
            name = format!("{name}.{}", numbered(place.part));
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

    /// Returns the last part of a day that is there and is no folder, or the first that no folder has. `open` is what is open.
    pub(super) fn last_part(&self, day: String, open: &Place) -> io::Result<Place> {
        let mut parts = self.existing(open)?;
        parts.retain(|other| other.place.day == day);
        let is_folder = |other: &Existing| other.kind.is_some_and(|kind| kind.is_dir());
        let last = parts.iter().rfind(|other| !is_folder(other)).map(|last| last.place.part);
        let is_taken = parts.first().is_some_and(|first| first.place.part == 0);
        let first = || if is_taken { next(parts.last()?.place.part) } else { None };
        Ok(Place { part: last.or_else(first).unwrap_or(0), day })
    }

    /// Removes the oldest files, so that so many stay, the one that is open among them. What is later than that stays in addition: others
    /// write to it, or a clock was ahead.
    pub(super) fn retain(&self, keep: usize, open: &Place) -> io::Result<()> {
        let is_file = |kind: &fs::FileType| kind.is_file();
        let mut older = self.existing(open)?;
        older.retain(|other| other.place < *open && other.kind.as_ref().is_some_and(is_file));
        let too_many = (older.len() + 1).saturating_sub(keep);
        let mut outcome = Ok(());
        for Existing { path, .. } in older.into_iter().take(too_many) {
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

    /// Returns what has a name of this sink in the folder, in the order of time. A number far above the lower ones of its day, and far from
    /// the file that is open, is somebody else's.
    fn existing(&self, open: &Place) -> io::Result<Vec<Existing>> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut found = Vec::new();
        for entry in fs::read_dir(real_folder(folder)?)? {
            let entry = entry?;
            let place = entry.file_name().to_str().and_then(|name| self.place_of(name));
            if let Some(place) = place {
                found.push(Existing { place, path: entry.path(), kind: entry.file_type().ok() });
            }
        }
        found.sort_by(|one, other| one.place.cmp(&other.place));
        let mut last = Place::default();
        found.retain(|Existing { place, .. }| {
            if place.day != last.day {
                last = Place { day: place.day.clone(), part: 0 };
            }
            let is_near =
                |other: &Place| other.day == place.day && other.part.abs_diff(place.part) <= MAX_GAP;
            let is_ours = is_near(&last) || is_near(open);
            if is_ours {
                last.part = place.part;
            }
            is_ours
        });
        Ok(found)
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
            place.part = parse(part)?;
            rest = "";
        }
        rest.is_empty().then_some(place)
    }
}

/// Adds the path to an error.
pub(super) fn cannot_write(path: &Path, error: io::Error) -> io::Error {
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
            "app.log.000001",
            "app.1.log",
            "app.000000.log",
            "app.0000001.log",
            "app.8080.log",
            "app.202611.log",
            "app.20261130.log",
            "app..log",
            "app.2026-11-30.log",
            "apple.log",
            "app.000001log",
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
            "app.000001.log",
            "app.2026-11-30.1.log",
            "app.2026-11-30",
            "app.2026-11-3x.log",
            "app.2026-11-30.x.log",
            "app.2026-11-30-1.log",
            "app.äöüäöü.log",
        ] {
            assert_eq!(files.place_of(other), None, "{other}");
        }
        let bare = Files { path: "/logs/app".into(), is_daily: true };
        assert_eq!(bare.path_of(&place("2026-11-30", 2)), Path::new("/logs/app.2026-11-30.000002"));
        assert_eq!(bare.place_of("app.2026-11-30.000002"), Some(place("2026-11-30", 2)));
    }

    #[test]
    fn a_number_far_above_the_others_is_not_ours_but_near_the_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::of(&folder.path().join("app.log")).unwrap();
        let part = |part| Place { day: String::new(), part };
        for number in [3, 100_003, 500_000, 500_001] {
            fs::write(files.path_of(&part(number)), "").unwrap();
        }
        assert_eq!(files.last_part(String::new(), &part(0)).unwrap(), part(100_003));
        let (next, file) = files.begin_part(&part(3)).unwrap();
        assert_eq!((next, file.path().exists()), (part(100_004), true));
        // Each passes over a name that is taken.
        assert_eq!(files.begin_part(&part(499_999)).unwrap().0, part(500_002));
        files.retain(1, &part(500_001)).unwrap();
        let left = files.existing(&part(500_001)).unwrap();
        assert_eq!(
            left.into_iter().map(|left| left.place).collect::<Vec<_>>(),
            [part(500_001), part(500_002)]
        );
        assert!(files.begin_part(&part(1_899_999)).is_err());
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
