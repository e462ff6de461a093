//! `Error`: one line that says what could not be done.

use std::error::Error as _;
use std::fmt;
use std::io;

use forebay_history::HistoryError;

/// What went wrong. It is written in one line.
#[derive(Debug)]
pub(crate) enum Error {
    Read(HistoryError),
    Write(io::Error),
    /// Something that was asked for cannot be.
    Asked(String),
    /// There is none of what was asked for.
    NotFound(String),
}

/// What there is in a file of somebody else.
pub(crate) const FOREIGN: &str = "no events of forebay";

impl Error {
    /// Makes the error of a file of somebody else.
    pub(crate) fn foreign(place: impl fmt::Display) -> Self {
        Self::Asked(format!("{place} holds {FOREIGN}"))
    }

    /// Returns the exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            // Who reads has enough: `forebay tail | head`.
            _ if self.is_broken_pipe() => 0,
            Self::NotFound(_) => 1,
            _ => 2,
        }
    }

    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => {
                let cause = error.source().map_or_else(String::new, |cause| format!(": {cause}"));
                write!(f, "{error}{cause}")
            }
            Self::Write(error) => write!(f, "cannot write: {error}"),
            Self::Asked(what) | Self::NotFound(what) => f.write_str(what),
        }
    }
}

impl From<HistoryError> for Error {
    fn from(error: HistoryError) -> Self {
        Self::Read(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}
