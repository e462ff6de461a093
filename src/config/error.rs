//! `ConfigError`: what is wrong with a setting, and where it was found.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

crate::sync::from_forked!(ConfigError);

/// Error of a setting that is not allowed, or that cannot change any more.
///
/// # Examples
///
/// ```
/// use forebay::Config;
///
/// let error = Config::default().with_batch_size(0).validate().unwrap_err();
/// assert_eq!(error.to_string(), "invalid batch_size: 0 (expected 1 or more)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The value is not allowed.
    #[error("invalid {field}: {value} (expected {expected})")]
    #[non_exhaustive]
    Invalid {
        /// The setting, as a field of [`Config`](crate::Config) or of another builder. It is `flush.events` for a
        /// field of the strategy, and `overflow_timeout` for that of the policy.
        field: &'static str,
        /// The value it has.
        value: String,
        /// The values it may have.
        expected: Cow<'static, str>,
    },
    /// A value from outside of the program is not allowed.
    #[error("invalid {key}: {value} (expected {expected}) in {place}")]
    #[non_exhaustive]
    InvalidAt {
        /// The name that was used there: a key, one of its aliases, or a variable.
        key: String,
        /// Place of the value.
        place: ConfigPlace,
        /// The setting.
        field: &'static str,
        /// The value it has.
        value: String,
        /// The values it may have.
        expected: Box<str>,
    },
    /// No setting has this name.
    #[error("unknown key {key} in {place}")]
    #[non_exhaustive]
    UnknownKey {
        /// The key, with its tables (`flush.interval`), or the variable.
        key: String,
        /// Place of the value.
        place: ConfigPlace,
    },
    /// Two names of one setting have different values in one place.
    #[error("{} is {}, but {} is {} in {place}: they are one setting", keys.0, values.0, keys.1, values.1)]
    #[non_exhaustive]
    Contradiction {
        /// The names.
        keys: Box<(String, String)>,
        /// Their values.
        values: Box<(String, String)>,
        /// Place of the second value.
        place: ConfigPlace,
    },
    /// The text is no TOML.
    #[error("no TOML in {place}: {why}")]
    #[non_exhaustive]
    Syntax {
        /// Place of the error.
        place: ConfigPlace,
        /// The reason.
        why: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    #[non_exhaustive]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The message of the system.
        why: String,
    },
    /// The setting cannot change once the collector is built.
    #[error("{field} cannot change once the collector is built")]
    Immutable {
        /// The setting, as a field of [`Config`](crate::Config).
        field: &'static str,
    },
    /// This process is a forked child, which has nothing left to change. Build a new collector here.
    #[error("this process is a fork of the one that built the collector")]
    Forked,
}

/// Warning about a setting that is allowed but does not do what its number says, or about a variable that is not
/// ours.
///
/// # Examples
///
/// ```
/// use forebay::Config;
///
/// let warnings = Config::default().with_capacity(100).with_batch_size(1000).warnings();
/// assert_eq!((warnings[0].field, warnings[0].used.as_str()), ("batch_size", "100"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, used is {used}: {why}")]
#[non_exhaustive]
pub struct ConfigWarning {
    /// The setting, as a field of [`Config`](crate::Config).
    pub field: &'static str,
    /// Its value. For `ignored_variables`, the name of one.
    pub value: String,
    /// The value that is used instead. For `ignored_variables`, `none`.
    pub used: String,
    /// The reason.
    pub why: &'static str,
}

/// Place where a setting was found. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigPlace {
    /// Place in a file.
    #[non_exhaustive]
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The character in the line.
        column: usize,
    },
    /// Place in a text from the program.
    #[non_exhaustive]
    Text {
        /// The line.
        line: usize,
        /// The character in the line.
        column: usize,
    },
    /// Variable of the environment.
    Environment,
    /// Place in a value to deserialize.
    Given,
}

impl fmt::Display for ConfigPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Text { line, column } => write!(f, "line {line}, column {column}"),
            Self::Environment => f.write_str("the environment"),
            Self::Given => f.write_str("the given settings"),
        }
    }
}

/// Returns an error that names field, value and allowed values, unless the value is allowed.
pub fn check(
    field: &'static str,
    value: impl ToString,
    expected: &'static str,
    is_allowed: bool,
) -> Result<(), ConfigError> {
    if is_allowed {
        return Ok(());
    }
    Err(ConfigError::Invalid { field, value: value.to_string(), expected: expected.into() })
}
