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

/// Returns what is wrong with arguments in one line, from the paragraphs that clap makes of it: what it is, tips, the usage, and where help
/// is.
pub(crate) fn one_line(text: &str) -> String {
    let mut said = Vec::new();
    let mut help = "forebay".to_owned();
    for paragraph in text.trim().split("\n\n") {
        if let Some(usage) = paragraph.strip_prefix("Usage: ") {
            // The command without its arguments.
            let command = usage.split_whitespace().take_while(|word| word.starts_with(char::is_alphabetic));
            help = command.collect::<Vec<_>>().join(" ");
        } else if !paragraph.starts_with("For more information") {
            let lines: Vec<&str> = paragraph.lines().map(str::trim).collect();
            said.push(lines.join(" "));
        }
    }
    let said = said.join("; ");
    format!("{} (see `{help} --help`)", said.strip_prefix("error: ").unwrap_or(&said))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_arguments_is_one_line() {
        for (text, line) in [
            (
                "error: unrecognized subcommand 'run'\n\n  tip: a similar subcommand exists: 'runs'\n\nUsage: forebay <COMMAND>\n\nFor more information, try '--help'.\n",
                "unrecognized subcommand 'run'; tip: a similar subcommand exists: 'runs' (see `forebay --help`)",
            ),
            (
                "error: the following required arguments were not provided:\n  <METRIC>\n\nUsage: forebay best <METRIC> [PATHS]...\n",
                "the following required arguments were not provided: <METRIC> (see `forebay best --help`)",
            ),
            (
                "error: invalid value 'x' for '--form <FORM>'\n  [possible values: text, json]\n\nFor more information, try '--help'.\n",
                "invalid value 'x' for '--form <FORM>' [possible values: text, json] (see `forebay --help`)",
            ),
        ] {
            assert_eq!(one_line(text), line);
        }
    }
}
