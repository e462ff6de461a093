//! `OtlpError`: a setting that cannot be.

use std::fmt;

/// Error of a setting, which names it, its value and what is allowed. Neither the value nor the name of a header is ever shown.
///
/// # Examples
///
/// ```
/// use forebay_otlp::OtlpSink;
///
/// let error = OtlpSink::builder().endpoint("localhost:4318").build().unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "the endpoint must be a URL that begins with http:// or https://, got \"localhost:4318\""
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} must be {allowed}, got {value}")]
#[non_exhaustive]
pub struct OtlpError {
    /// Name of the environment variable, or of the setting.
    pub setting: String,
    /// What it may be.
    pub allowed: String,
    /// The value it has, or a word about it where it may be secret.
    pub value: String,
}

impl OtlpError {
    pub(crate) fn new(
        setting: impl Into<String>,
        allowed: impl Into<String>,
        value: impl fmt::Display,
    ) -> Self {
        Self { setting: setting.into(), allowed: allowed.into(), value: value.to_string() }
    }
}

/// Returns a text as errors show it: in quotes, with its control characters escaped, and cut.
pub(crate) fn shown(text: &str) -> String {
    const MAX_CHARS: usize = 200;
    let cut: String = text.chars().take(MAX_CHARS).collect();
    let rest = if cut.len() < text.len() { " and more" } else { "" };
    format!("{cut:?}{rest}")
}
