//! Entries of a stream: their ids and fields.

use std::fmt;
use std::str::FromStr;

/// Id of an entry: the generation, and as a rule one more than the number of its first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Id {
    pub(crate) generation: u64,
    pub(crate) number: u64,
}

impl Id {
    /// Returns the next id that there can be.
    pub(crate) fn next(self) -> Self {
        match self.number.checked_add(1) {
            Some(number) => Self { number, ..self },
            None => Self { generation: self.generation.saturating_add(1), number: 0 },
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.number)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (generation, number) = text.split_once('-').ok_or(())?;
        Ok(Self { generation: generation.parse().map_err(drop)?, number: number.parse().map_err(drop)? })
    }
}

pub(crate) const WRITER: &str = "writer";
pub(crate) const FIRST: &str = "first";
pub(crate) const COUNT: &str = "count";
pub(crate) const GAP: &str = "gap";
pub(crate) const REDRIVEN: &str = "redriven";
pub(crate) const REPLAYED: &str = "replayed";
pub(crate) const ORIGIN: &str = "origin";
pub(crate) const EVENTS: &str = "events";

/// Events that go into one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Number of the first event.
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) gap: u64,
    /// Where the lines begin and end.
    pub(crate) lines: (usize, usize),
}
