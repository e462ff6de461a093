//! `Out`: where answers are written. Text of others is made harmless on its way: a name may hold what a terminal would obey.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::path::Path;

use forebay::Record;
use serde_json::json;
use unicode_width::UnicodeWidthChar;

use crate::error::Error;
use crate::progress;

/// Standard output.
pub(crate) struct Out {
    stdout: BufWriter<Answer>,
    is_terminal: bool,
}

/// Standard output, before which the line of progress goes away where people read both.
struct Answer {
    stdout: Stdout,
    is_file: bool,
}

impl Write for Answer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_file {
            progress::end();
        }
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

impl Out {
    pub(crate) fn new(stdout: Stdout) -> Self {
        let is_terminal = stdout.is_terminal();
        // A pager is behind a pipe.
        let is_file = !is_terminal && std::fs::metadata("/dev/stdout").is_ok_and(|data| data.is_file());
        Self { stdout: BufWriter::new(Answer { stdout, is_file }), is_terminal }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: impl Display) -> Result<(), Error> {
        writeln!(self.stdout, "{line}")?;
        Ok(())
    }

    /// Writes a value as one line of JSON. What a terminal would obey is written as JSON escapes it.
    pub(crate) fn json(&mut self, value: impl Display) -> Result<(), Error> {
        let text = value.to_string();
        let mut line = String::with_capacity(text.len());
        for letter in text.chars() {
            // Outside of texts, JSON has none of these.
            if letter != ' ' && harmless(letter.encode_utf8(&mut [0; 4])).starts_with('\u{fffd}') {
                line.push_str(&format!("\\u{:04x}", u32::from(letter)));
            } else {
                line.push(letter);
            }
        }
        self.line(line)
    }

    /// Writes a line of CSV: as it is, unless a terminal shows it.
    pub(crate) fn csv(&mut self, cells: &[String]) -> Result<(), Error> {
        if self.is_terminal {
            let cells: Vec<String> = cells.iter().map(|cell| harmless(cell)).collect();
            return self.line(csv(&cells));
        }
        self.line(csv(cells))
    }

    /// Writes a table. Numbers are to be in the columns from `first_number` on.
    pub(crate) fn table(
        &mut self,
        head: &[&str],
        first_number: usize,
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Result<(), Error> {
        let head = head.iter().map(|cell| harmless(cell)).collect();
        let rows: Vec<Vec<String>> = std::iter::once(head)
            .chain(rows.into_iter().map(|row| row.iter().map(|cell| harmless(cell)).collect()))
            .collect();
        let mut widths = Vec::new();
        for row in &rows {
            widths.resize(row.len().max(widths.len()), 0);
            widths.iter_mut().zip(row).for_each(|(all, cell)| *all = width(cell).max(*all));
        }
        for row in rows {
            let mut line = String::new();
            for (place, (cell, column)) in row.iter().zip(&widths).enumerate() {
                let room = " ".repeat(column - width(cell));
                let (before, behind) = if place >= first_number { (&*room, "") } else { ("", &*room) };
                line.extend([before, cell, behind, "  "]);
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        Ok(self.stdout.flush()?)
    }

    /// Returns whether a terminal shows it, and colours are welcome (<https://no-color.org>).
    pub(crate) fn has_colours(&self) -> bool {
        self.is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stdout.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Returns how many columns of a terminal a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|letter| letter.width().unwrap_or(0)).sum()
}

/// Writes an error to standard error, in one line.
pub(crate) fn complain(error: &Error) {
    note(&error.to_string());
}

/// Writes a remark to standard error: the answer is on standard output.
pub(crate) fn note(remark: &str) {
    progress::aside(&format!("forebay: {}", harmless(remark)));
}

/// Returns a text without what moves a cursor, begins a line, or turns the direction of what stands behind it.
pub(crate) fn harmless(text: &str) -> String {
    let is_harmful = |char: char| {
        char.is_control()
            || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if is_harmful(char) { '\u{fffd}' } else { char }).collect()
}

/// Returns a line of values that commas part: <https://www.rfc-editor.org/rfc/rfc4180>. What a spreadsheet would take for a formula has a
/// `'` in front: <https://owasp.org/www-community/attacks/CSV_Injection>.
pub(crate) fn csv(cells: &[impl AsRef<str>]) -> String {
    let cell = |cell: &str| {
        let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
        let cell = if is_formula { format!("'{cell}") } else { cell.to_owned() };
        match cell.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell,
        }
    };
    cells.iter().map(|it| cell(it.as_ref())).collect::<Vec<_>>().join(",")
}

/// Returns an event as a line of JSON Lines, with the name of its run where there are several.
pub(crate) fn json_of(record: &Record, run: Option<&str>) -> String {
    let Some(run) = run else { return serde_json::to_string(record).unwrap_or_default() };
    let mut line = serde_json::to_value(record).unwrap_or_default();
    if let Some(fields) = line.as_object_mut() {
        fields.insert("run".to_owned(), run.into());
    }
    line.to_string()
}

/// What a command has written.
pub(crate) struct Written<'a> {
    pub(crate) path: &'a Path,
    /// What it consists of, as one of them is called: `event` or `value`.
    pub(crate) what: &'static str,
    pub(crate) count: u64,
    pub(crate) runs: usize,
    /// What the form that was asked for cannot hold.
    pub(crate) left_out: u64,
}

impl Written<'_> {
    /// Says it, in words or as a JSON object.
    pub(crate) fn report(&self, is_json: bool, out: &mut Out) -> Result<(), Error> {
        let Self { path, what, count: number, runs, left_out } = self;
        if is_json {
            let all = json!({ "path": path.display().to_string(), format!("{what}s"): number, "runs": runs, "left_out": left_out });
            return out.json(all);
        }
        let (what, of) = (count(*number, what), count(*runs as u64, "run"));
        out.line(format_args!("{} ({what} of {of})", path.display()))
    }
}

/// Returns how many there are of something: `1 run`, `2 runs`.
pub(crate) fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Returns a text in one line of about so many letters: the begin of its first line, and that of its last.
pub(crate) fn short(text: &str, max: usize) -> String {
    let cut = |line: &str| {
        let line = line.trim();
        if line.chars().count() <= max {
            line.to_owned()
        } else {
            line.chars().take(max).chain(['…']).collect()
        }
    };
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    match (lines.next(), lines.next_back()) {
        (Some(first), Some(last)) => format!("{} … {}", cut(first), cut(last)),
        (first, _) => cut(first.unwrap_or_default()),
    }
}

/// Returns a text in at most so many columns: a longer one without its middle. Names of ranks and of runs of one program differ at their
/// ends.
pub(crate) fn without_middle(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let fits = |letters: &mut dyn Iterator<Item = char>, mut columns: usize| -> Vec<char> {
        letters
            .map_while(|letter| {
                columns = columns.checked_sub(letter.width().unwrap_or(0))?;
                Some(letter)
            })
            .collect()
    };
    let left = max.saturating_sub(1);
    let begin = fits(&mut text.chars(), left / 2);
    let end = fits(&mut text.chars().rev(), left - left / 2);
    begin.into_iter().chain(['…']).chain(end.into_iter().rev()).collect()
}

/// Returns a number as people read it: six digits.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        value.to_string()
    } else if size != 0.0 && !(1e-4..1e9).contains(&size) {
        format!("{value:.4e}")
    } else if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        let digits = (5.0 - size.max(1e-9).log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{value:.digits$}");
        // Zeros behind the point say nothing; those before it do.
        if digits == 0 { text } else { text.trim_end_matches('0').trim_end_matches('.').to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_six_digits_and_no_noise() {
        let said: Vec<_> = [0.0, 1.0, -0.5, 0.1 + 0.2, 123_456.789, 1e12, 1e-7, f64::NAN, 0.000_123_456_7]
            .map(number)
            .into();
        let large: Vec<_> =
            [130_000.2, 120_000.4, 1_500_000.3, 999_999.6, 100_000.04, 99_999.96].map(number).into();
        assert_eq!(large, ["130000", "120000", "1500000", "1000000", "100000", "100000"]);
        assert_eq!(said, ["0", "1", "-0.5", "0.3", "123457", "1.0000e12", "1.0000e-7", "NaN", "0.000123457"]);
    }

    #[test]
    fn a_cell_is_a_number_or_a_text_and_never_a_formula() {
        let cells = ["-0.5", "+1e3", "-inf", "=1+1", "-1+1", "@x", "+", "a,b", "say \"no\"", "=a,b"];
        assert_eq!(csv(&cells), "-0.5,+1e3,-inf,'=1+1,'-1+1,'@x,'+,\"a,b\",\"say \"\"no\"\"\",\"'=a,b\"");
    }

    #[test]
    fn a_long_text_is_its_first_line_and_its_last() {
        assert_eq!(short("Traceback\n  a\n\nValueError: no\n", 60), "Traceback … ValueError: no");
        assert_eq!(short(&"x".repeat(100), 10), "xxxxxxxxxx…");
        assert_eq!((short("", 10), short("\n one \n", 10)), (String::new(), "one".to_owned()));
    }

    #[test]
    fn a_long_name_has_its_end() {
        assert_eq!(without_middle("forebay:digits:0", 15), "forebay…igits:0");
        assert_eq!(without_middle("日本語日本語", 8), "日…本語");
        assert_eq!(
            (without_middle("rank-0", 6), without_middle("rank-0", 1)),
            ("rank-0".to_owned(), "…".to_owned())
        );
    }

    #[test]
    fn what_a_terminal_would_obey_is_written_as_a_sign() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\u{202e}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}");
    }
}
