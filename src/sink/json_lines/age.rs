//! Age of a file. It survives a restart: a short program that is started again and again closes its file for its age as
//! well.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::super::target::Target;

/// The age of a file, measured by the worker's clock from the first time that it is asked for.
#[derive(Debug, Default)]
pub(super) struct Age(Option<Known>);

#[derive(Debug)]
struct Known {
    /// Age of the file at that moment.
    age: Duration,
    at: u64,
}

impl Age {
    /// Returns the age of a file that gets its first line now.
    pub(super) fn begins(now: u64) -> Self {
        Self(Some(Known { age: Duration::ZERO, at: now }))
    }

    /// Returns whether the file is `max_age` old or older.
    pub(super) fn is_over(&mut self, max_age: Duration, now: u64, target: &Target) -> bool {
        // A clock that began anew tells nothing.
        let known = self.0.take().filter(|known| known.at <= now);
        let known = known.unwrap_or_else(|| {
            let age = begun(target).map_or(Duration::ZERO, |begun| age(begun, SystemTime::now(), max_age));
            Known { age, at: now }
        });
        let age = known.age.saturating_add(Duration::from_nanos(now - known.at));
        self.0 = Some(known);
        age >= max_age
    }
}

/// Returns how old something is that began then. The system's clock was set if that lies in the future: the age is not known
/// then, and may be too much.
fn age(begun: SystemTime, now: SystemTime, max_age: Duration) -> Duration {
    now.duration_since(begun).unwrap_or_else(|ahead| {
        // Another machine, which keeps the file, may be ahead by a little.
        if ahead.duration() < max_age { Duration::ZERO } else { max_age }
    })
}

/// Returns when the file was begun: as the file system tells it, or its first line, or when it was last written to.
fn begun(target: &Target) -> Option<SystemTime> {
    let data = target.file().metadata().ok()?;
    data.created().ok().or_else(|| first_line(target)).or_else(|| data.modified().ok())
}

/// Returns the time in the first line.
fn first_line(target: &Target) -> Option<SystemTime> {
    let mut line = Vec::new();
    BufReader::new(target.reader().ok()?).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).ok()?;
    time_of(&line)
}

/// A longer first line is not looked through.
const MAX_LINE_BYTES: u64 = 1 << 20;

fn time_of(line: &[u8]) -> Option<SystemTime> {
    #[derive(Deserialize)]
    struct Line {
        time: String,
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    humantime::parse_rfc3339_weak(&line.time).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_begin_in_the_future_is_a_clock_that_was_set_or_one_that_is_a_little_ahead() {
        let now = SystemTime::now();
        let seconds = Duration::from_secs;
        let age = |begun| age(begun, now, seconds(10));
        assert_eq!(age(now - seconds(3)), seconds(3));
        assert_eq!(age(now + seconds(3)), Duration::ZERO);
        assert!(age(now + seconds(172_800)) >= seconds(10));
    }

    #[test]
    fn the_first_line_tells_when_a_file_was_begun() {
        let record = crate::Record::scalar("a", 1.0);
        let line = serde_json::to_vec(&record).unwrap();
        let reported = time_of(&line).unwrap().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(reported.as_nanos(), u128::from(record.unix_nanos()));
        assert_eq!(time_of(b"{\"a\":1}\n"), None);
        assert_eq!(time_of(b"{\"time\":\"2026-11-28T"), None);
    }
}
