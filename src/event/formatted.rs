//! `Formatted`: the text of something that user code formats, bounded, and without its panics.

use std::cell::Cell;
use std::fmt::{self, Write};

use super::Text;
use crate::buffer::empty_text;
use crate::sync::catch_panic;

thread_local! {
    /// The buffer that the next text is written to. Code that formats may come back here: then it is empty, and a new one is made.
    static SCRATCH: Cell<String> = const { Cell::new(String::new()) };
}

/// Text of something that user code formats: for a bridge that gets values it knows nothing of, as loggers do.
///
/// A `Debug` or `Display` that panics ends here. One that writes without an end is stopped by an error of its next write: code that
/// ignores errors goes on, and nothing of what it writes is kept. One allocation of the length of the text is made, and one for the
/// [`Text`] itself.
///
/// # Examples
///
/// ```
/// use forebay::event::Formatted;
///
/// let whole = Formatted::of(100, format_args!("loss is {}", f64::NAN));
/// assert_eq!((&*whole.text, whole.is_cut, whole.has_panicked), ("loss is NaN", false, false));
/// let cut = Formatted::of(4, format_args!("loss is {}", f64::NAN));
/// assert_eq!((&*cut.text, cut.is_cut), ("loss…", true));
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Formatted {
    /// The text. A panic leaves `(panicked: MESSAGE)`.
    pub text: Text,
    /// True if it was longer than allowed. A `…` stands at its end.
    pub is_cut: bool,
    /// True if it panicked.
    pub has_panicked: bool,
    /// True if it returned an error of its own. A `(failed)` stands behind what it had written.
    pub has_failed: bool,
}

impl Formatted {
    /// Formats `arguments` into at most `max_bytes`, not counting the mark of a cut.
    pub fn of(max_bytes: usize, arguments: fmt::Arguments<'_>) -> Self {
        Self::of_known(max_bytes, arguments, None)
    }

    /// Formats as [`of`](Self::of) does. Where the text turns out to be `known`, that is taken, and nothing is allocated: a place that
    /// logs says the same most of the time.
    ///
    /// ```
    /// use forebay::event::Formatted;
    ///
    /// static KNOWN: &str = "step done";
    /// let same = Formatted::of_known(100, format_args!("step {}", "done"), Some(&KNOWN));
    /// assert_eq!(same.text.as_ptr(), KNOWN.as_ptr());
    /// ```
    pub fn of_known(
        max_bytes: usize,
        arguments: fmt::Arguments<'_>,
        known: Option<&'static &'static str>,
    ) -> Self {
        let mut writer = Writer { text: Written::new(known), left: max_bytes, is_cut: false };
        let outcome = catch_panic(|| writer.write_fmt(arguments));
        let Writer { mut text, is_cut, .. } = writer;
        let has_failed = matches!(outcome, Ok(Err(fmt::Error))) && !is_cut;
        // Code that takes an error of its own for a panic has been stopped here.
        let said = outcome.err().filter(|_| !is_cut);
        let has_panicked = said.is_some();
        if is_cut {
            text.own().push('…');
        }
        if has_failed {
            text.own().push_str("(failed)");
        }
        if let Some(said) = said {
            text.own().clear();
            let mut writer = Writer { text, left: max_bytes, is_cut: false };
            // What does not fit is cut.
            _ = write!(writer, "(panicked: {said})");
            text = writer.text;
        }
        Self { text: text.into_text(known), is_cut, has_panicked, has_failed }
    }
}

/// What was written so far: the beginning of a known text, of which nothing is copied, or something else.
struct Written {
    known: &'static str,
    /// Bytes of `known` that were written.
    bytes: usize,
    /// All that was written, once that is no longer the beginning of `known`.
    own: Option<String>,
}

impl Written {
    fn new(known: Option<&'static &'static str>) -> Self {
        Self { known: known.map_or("", |known| known), bytes: 0, own: None }
    }

    #[inline]
    fn push_str(&mut self, more: &str) {
        let rest = self.known.as_bytes().get(self.bytes..).unwrap_or_default();
        if self.own.is_none() && rest.starts_with(more.as_bytes()) {
            self.bytes += more.len();
        } else {
            self.own().push_str(more);
        }
    }

    fn own(&mut self) -> &mut String {
        self.own.get_or_insert_with(|| {
            let mut text = SCRATCH.try_with(Cell::take).unwrap_or_default();
            text.push_str(self.known.get(..self.bytes).unwrap_or_default());
            text
        })
    }

    fn into_text(mut self, known: Option<&'static &'static str>) -> Text {
        if let Some(known) = known.filter(|known| self.own.is_none() && self.bytes == known.len()) {
            return Text::from_static(known);
        }
        let mut own = std::mem::take(self.own());
        let text = Text::from(&*own);
        empty_text(&mut own);
        _ = SCRATCH.try_with(|scratch| scratch.set(own));
        text
    }
}

/// Writer that ends with an error where the text would be too long.
struct Writer {
    text: Written,
    left: usize,
    is_cut: bool,
}

impl Write for Writer {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if more.len() <= self.left {
            self.text.push_str(more);
            self.left -= more.len();
            return Ok(());
        }
        let end = (0..=self.left).rev().find(|end| more.is_char_boundary(*end)).unwrap_or(0);
        self.text.push_str(&more[..end]);
        (self.left, self.is_cut) = (0, true);
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shown<F>(F);

    impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> fmt::Display for Shown<F> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            (self.0)(f)
        }
    }

    fn of(max_bytes: usize, shown: impl Fn(&mut fmt::Formatter<'_>) -> fmt::Result) -> (String, bool, bool) {
        let formatted = Formatted::of(max_bytes, format_args!("{}", Shown(shown)));
        (formatted.text.to_string(), formatted.is_cut, formatted.has_panicked)
    }

    #[test]
    fn a_panic_leaves_its_message_and_nothing_of_what_was_written() {
        let formatted = of(100, |f| {
            f.write_str("half")?;
            panic!("no {}", "way")
        });
        assert_eq!(formatted, ("(panicked: no way)".to_owned(), false, true));
        assert_eq!(of(100, |f| f.write_str("whole")), ("whole".to_owned(), false, false));
    }

    #[test]
    fn what_writes_without_an_end_is_stopped_between_two_characters() {
        let endless = of(7, |f| {
            loop {
                f.write_str("äöü")?;
            }
        });
        assert_eq!(endless, ("äöü…".to_owned(), true, false));
        // Code that cannot live with an error.
        let (text, is_cut, has_panicked) = of(2, |f| {
            f.write_str("long").unwrap();
            Ok(())
        });
        assert_eq!((&*text, is_cut, has_panicked), ("lo…", true, false));
    }

    #[test]
    fn an_error_leaves_a_mark_behind_what_was_written() {
        let failed = |f: &mut fmt::Formatter<'_>| f.write_str("half").and(Err(fmt::Error));
        let formatted = Formatted::of(100, format_args!("a {}", Shown(failed)));
        assert_eq!(
            (&*formatted.text, formatted.has_failed, formatted.is_cut),
            ("a half(failed)", true, false)
        );
        let cut = Formatted::of(2, format_args!("{}", Shown(failed)));
        assert_eq!((&*cut.text, cut.has_failed, cut.is_cut), ("ha…", false, true));
    }

    #[test]
    fn code_that_formats_may_format() {
        let nested = of(100, |f| write!(f, "<{}>", of(3, |f| f.write_str("inner")).0));
        assert_eq!(nested.0, "<inn…>");
    }
}
