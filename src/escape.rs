//! `OneLine`: foreign text on one line of a terminal or of a log.

use std::fmt::{self, Display, Write};

/// Display wrapper that escapes what may break the line, move the cursor or turn the direction of reading.
#[derive(Debug)]
pub struct OneLine<T>(pub T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Writer that escapes like [`OneLine`].
pub(crate) struct Escaping<'a, W>(pub(crate) &'a mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (place, character) in text.char_indices().filter(|(_, character)| is_escaped(*character)) {
            self.0.write_str(&text[plain..place])?;
            match C0.get(character as usize) {
                Some(escape) => self.0.write_str(escape)?,
                None => write!(self.0, "{}", character.escape_default())?,
            }
            plain = place + character.len_utf8();
        }
        self.0.write_str(&text[plain..])
    }
}

/// Escapes of the first 32 characters, as `char::escape_default` returns them. A table, because a text may consist of
/// millions of them.
const C0: [&str; 32] = [
    "\\u{0}", "\\u{1}", "\\u{2}", "\\u{3}", "\\u{4}", "\\u{5}", "\\u{6}", "\\u{7}", "\\u{8}", "\\t", "\\n",
    "\\u{b}", "\\u{c}", "\\r", "\\u{e}", "\\u{f}", "\\u{10}", "\\u{11}", "\\u{12}", "\\u{13}", "\\u{14}",
    "\\u{15}", "\\u{16}", "\\u{17}", "\\u{18}", "\\u{19}", "\\u{1a}", "\\u{1b}", "\\u{1c}", "\\u{1d}",
    "\\u{1e}", "\\u{1f}",
];

/// Maximum number of bytes that are kept of the last message of a sink or a handler.
const MAX_SAID: usize = 4096;

/// Returns the beginning of a message that is kept for as long as its sink.
pub fn shortened(mut text: String) -> String {
    if text.len() > MAX_SAID {
        let end = (0..=MAX_SAID).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
        text.shrink_to_fit();
    }
    text
}

/// Returns whether a character is escaped: control characters (C0, DEL, C1), the separators of lines and paragraphs,
/// and the controls of the Unicode bidirectional algorithm (UAX #9, section 2), which can show a text as another one.
fn is_escaped(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_the_standard_library_says() {
        for (character, escape) in ('\0'..=' ').zip(C0) {
            assert_eq!(*escape, character.escape_default().to_string());
        }
    }
}
