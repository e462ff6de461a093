//! `Pattern`: patterns for names, such as `training.*`, `*.failed`, `model.{saved,loaded}`.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Pattern for names, in the manner of file names in a shell.
///
/// * `*` stands for any number of characters, dots included, and for none.
/// * `?` stands for one character.
/// * `[abc]`, `[a-z]`, `[!abc]` and `[^abc]` stand for one character that is, or is not, among them. A `]` that comes
///   first, and a `-` that comes first or last, stand for themselves.
/// * `{a,b}` stands for one of several patterns; braces may be nested.
/// * Every other character stands for itself; `[*]` is a star.
///
/// Matching allocates nothing. At worst, its time is proportional to the length of the name times that of the pattern
/// without its braces.
///
/// ```
/// use forebay::Pattern;
///
/// let pattern = Pattern::new("model.checkpoint_{saved,loaded}")?;
/// assert!(pattern.matches("model.checkpoint_saved"));
/// assert!(!pattern.matches("model.checkpoint_removed"));
/// assert!(Pattern::new("training.*")?.matches("training.epoch.completed"));
/// # Ok::<(), forebay::event::PatternError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    /// The patterns to which the braces expand; one if there are none.
    branches: Vec<Vec<Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token {
    Char(char),
    One,
    Many,
    Class { is_negated: bool, ranges: Vec<(char, char)> },
}

/// Error of a text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pattern {pattern:?}: {why}")]
#[non_exhaustive]
pub struct PatternError {
    /// The text.
    pub pattern: String,
    /// The reason.
    pub why: &'static str,
}

impl Pattern {
    /// The most patterns to which the braces of one may expand.
    const MAX_BRANCHES: usize = 1_000;

    /// The most characters, and the deepest nesting of braces.
    const MAX_CHARS: usize = 1_000;
    const MAX_DEPTH: usize = 16;

    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// A bracket or a brace is not closed, a range runs backward, or a limit is exceeded. Braces may expand to 1,000
    /// patterns and be nested 16 deep, and a pattern may have 1,000 characters.
    pub fn new(pattern: impl Into<String>) -> Result<Self, PatternError> {
        let text = pattern.into();
        let chars: Vec<char> = text.chars().collect();
        let all = if chars.len() > Self::MAX_CHARS {
            Err("it has more than 1,000 characters")
        } else {
            expand(&chars, 0)
        };
        match all.and_then(|all| all.iter().map(|chars| tokens(chars)).collect()) {
            Ok(branches) => Ok(Self { text, branches }),
            Err(why) => Err(PatternError { pattern: text, why }),
        }
    }

    /// Returns whether the pattern matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.branches.iter().any(|tokens| fits(tokens, name))
    }

    /// Returns the name that the pattern matches, if there is only one.
    #[doc(hidden)]
    pub fn as_name(&self) -> Option<String> {
        let [tokens] = &self.branches[..] else { return None };
        let chars = tokens.iter().map(|token| match token {
            Token::Char(char) => Some(*char),
            Token::One | Token::Many | Token::Class { .. } => None,
        });
        chars.collect()
    }

    /// Returns the text of the pattern.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Pattern {
    /// Makes a pattern. A text that is no pattern matches only itself.
    fn from(text: &str) -> Self {
        let literal = || vec![text.chars().map(Token::Char).collect()];
        Self::new(text).unwrap_or_else(|_| Self { text: text.to_owned(), branches: literal() })
    }
}

impl Serialize for Pattern {
    /// Returns the text of the pattern.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    /// Reads a pattern from a text, without the spaces around it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(text.trim()).map_err(|error| D::Error::custom(format_args!("a pattern: {}", error.why)))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

/// Returns the index of the `]` of the class that begins at `open`.
fn end_of_class(chars: &[char], open: usize) -> Result<usize, &'static str> {
    let first = open + 1 + usize::from(matches!(chars.get(open + 1), Some('!' | '^')));
    // A bracket that comes first stands for itself.
    let from = (first + 1).min(chars.len());
    let length = chars[from..].iter().position(|c| *c == ']').ok_or("a [ is not closed")?;
    Ok(from + length)
}

/// Expands a pattern with braces into patterns without.
fn expand(chars: &[char], depth: usize) -> Result<Vec<Vec<char>>, &'static str> {
    let mut all: Vec<Vec<char>> = vec![Vec::new()];
    let mut at = 0;
    while at < chars.len() {
        let (next, parts) = match chars[at] {
            '[' => {
                let end = end_of_class(chars, at)?;
                (end + 1, vec![chars[at..=end].to_vec()])
            }
            '{' => {
                let (end, parts) = alternatives(chars, at, depth + 1)?;
                (end + 1, parts)
            }
            '}' => return Err("a } has no {"),
            char => {
                all.iter_mut().for_each(|begun| begun.push(char));
                at += 1;
                continue;
            }
        };
        if all.len() * parts.len() > Pattern::MAX_BRANCHES {
            return Err("its braces expand to more than 1,000 patterns");
        }
        all = all.iter().flat_map(|begun| parts.iter().map(|part| [&begun[..], part].concat())).collect();
        at = next;
    }
    Ok(all)
}

/// Returns the end of the brace that begins at `open`, and its alternatives.
fn alternatives(
    chars: &[char],
    open: usize,
    depth_of_all: usize,
) -> Result<(usize, Vec<Vec<char>>), &'static str> {
    if depth_of_all > Pattern::MAX_DEPTH {
        return Err("its braces are nested more than 16 deep");
    }
    let (mut parts, mut begin, mut at, mut depth) = (Vec::new(), open + 1, open + 1, 0);
    while at < chars.len() {
        match chars[at] {
            '[' => at = end_of_class(chars, at)?,
            '{' => depth += 1,
            ',' if depth == 0 => {
                parts.extend(expand(&chars[begin..at], depth_of_all)?);
                begin = at + 1;
            }
            '}' if depth == 0 => {
                parts.extend(expand(&chars[begin..at], depth_of_all)?);
                return Ok((at, parts));
            }
            '}' => depth -= 1,
            _ => {}
        }
        if parts.len() > Pattern::MAX_BRANCHES {
            return Err("its braces expand to more than 1,000 patterns");
        }
        at += 1;
    }
    Err("a { is not closed")
}

fn tokens(chars: &[char]) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        match chars[at] {
            '*' => {
                if tokens.last() != Some(&Token::Many) {
                    tokens.push(Token::Many);
                }
            }
            '?' => tokens.push(Token::One),
            '[' => {
                let end = end_of_class(chars, at)?;
                tokens.push(class(&chars[at + 1..end])?);
                at = end;
            }
            char => tokens.push(Token::Char(char)),
        }
        at += 1;
    }
    Ok(tokens)
}

fn class(chars: &[char]) -> Result<Token, &'static str> {
    let is_negated = matches!(chars.first(), Some('!' | '^'));
    let mut chars = &chars[usize::from(is_negated)..];
    let mut ranges = Vec::new();
    while let [first, rest @ ..] = chars {
        chars = match rest {
            ['-', last, rest @ ..] => {
                if first > last {
                    return Err("a range runs backward");
                }
                ranges.push((*first, *last));
                rest
            }
            _ => {
                ranges.push((*first, *first));
                rest
            }
        };
    }
    Ok(Token::Class { is_negated, ranges })
}

/// Returns whether the tokens match the name. At a mismatch the last star takes one character more. What lies before
/// it matches already, so an earlier star need never take more.
fn fits(tokens: &[Token], name: &str) -> bool {
    let (mut token, mut rest) = (0, name.chars());
    let mut retry = None;
    loop {
        let before = rest.clone();
        let fits = match (tokens.get(token), rest.next()) {
            (Some(Token::Many), _) => {
                token += 1;
                retry = Some((token, before.clone()));
                rest = before;
                continue;
            }
            (None, None) => return true,
            (Some(Token::Char(wanted)), Some(char)) => *wanted == char,
            (Some(Token::One), Some(_)) => true,
            (Some(Token::Class { is_negated, ranges }), Some(char)) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != *is_negated
            }
            (None, Some(_)) | (Some(_), None) => false,
        };
        if fits {
            token += 1;
            continue;
        }
        let Some((after_star, from)) = &mut retry else { return false };
        if from.next().is_none() {
            return false;
        }
        (token, rest) = (*after_star, from.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_patterns_stand_for() {
        let truths: &[(&str, &[&str], &[&str])] = &[
            ("training.*", &["training.", "training.a", "training.a.b"], &["training", "model.training.a"]),
            ("*.failed", &["training.failed", ".failed", "a.b.failed"], &["failed", "a.failed.b"]),
            ("model.checkpoint_*", &["model.checkpoint_saved"], &["model.checkpoint"]),
            ("*", &["", "a", "a.b", "ä/\n"], &[]),
            ("", &[""], &["a"]),
            ("a?c", &["abc", "a.c", "aäc"], &["ac", "abbc"]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
            ("[!a-c]x", &["dx", ".x"], &["ax"]),
            ("[]]", &["]"], &["["]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[-a]", &["a", "-"], &["b"]),
            ("[*]", &["*"], &["a"]),
            ("{a,b}.{c,d}", &["a.c", "b.d"], &["a.b", "a"]),
            ("{a,b{c,d}}", &["a", "bc", "bd"], &["b"]),
            ("x{,y}", &["x", "xy"], &["xyy"]),
            ("{[,],a}", &[",", "a"], &["b"]),
            ("*a*b*", &["ab", "xaxbx", "aab"], &["ba"]),
        ];
        for (text, inside, outside) in truths {
            let pattern = Pattern::new(*text).unwrap();
            assert!(inside.iter().all(|name| pattern.matches(name)), "{text} {inside:?}");
            assert!(!outside.iter().any(|name| pattern.matches(name)), "{text} {outside:?}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        let many = "{a,b}".repeat(10);
        for (text, why) in [
            ("[a", "a [ is not closed"),
            ("[]", "a [ is not closed"),
            ("{a", "a { is not closed"),
            ("a}", "a } has no {"),
            ("[b-a]", "a range runs backward"),
            (&many, "its braces expand to more than 1,000 patterns"),
            (
                &format!("{{{}}}", ",{a,b}{a,b}{a,b}{a,b}{a,b}".repeat(35)),
                "its braces expand to more than 1,000 patterns",
            ),
            (&format!("{}a{}", "{".repeat(300), "}".repeat(300)), "its braces are nested more than 16 deep"),
            (&"{".repeat(20_000), "it has more than 1,000 characters"),
        ] {
            let error = Pattern::new(text).unwrap_err();
            assert_eq!(error, PatternError { pattern: text.to_owned(), why });
        }
    }

    #[test]
    fn a_text_that_is_no_pattern_stands_for_itself() {
        let pattern = Pattern::from("a[*");
        assert!(pattern.matches("a[*") && !pattern.matches("a[b"));
        assert!(Pattern::from("a*").matches("ab"));
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        let pattern = Pattern::new(format!("{}b", "a*".repeat(50))).unwrap();
        assert!(!pattern.matches(&"a".repeat(10_000)));
    }
}
