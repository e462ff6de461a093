//! The rule for names of events.

pub(super) const NAME_RULE: &str =
    "one or more words of letters, digits, _ and -, separated by dots, 200 bytes at most";

/// Returns whether an event may have that name.
pub(super) fn is_name(name: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    name.len() <= 200 && name.split('.').all(is_word)
}
