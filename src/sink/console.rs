//! Writes events to the terminal, one a line.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use super::{Sink, SinkError};
use crate::batch::Batch;

/// A sink that writes `[prefix] name = value (step n)` for every event, one write a batch.
///
/// It takes every event that can be displayed. What cannot be written (a closed pipe, say) is an error
/// that is counted, not a panic. Line breaks inside an event are written as `\n`, so that one event stays
/// one line.
pub struct ConsoleSink {
    name: String,
    prefix: String,
    out: Box<dyn Write + Send>,
    text: String,
}

impl ConsoleSink {
    /// A sink named `console` that writes to the standard output.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self::to_writer(prefix, io::stdout())
    }

    /// The same to the standard error, for programs whose output is data.
    pub fn stderr(prefix: impl Into<String>) -> Self {
        Self::to_writer(prefix, io::stderr())
    }

    /// The same to any writer.
    pub fn to_writer(prefix: impl Into<String>, out: impl Write + Send + 'static) -> Self {
        Self { name: "console".to_owned(), prefix: prefix.into(), out: Box::new(out), text: String::new() }
    }

    /// Gives it another name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Writes one line to the text. Formatting into a `String` fails only where a `Display` does.
    fn line(&mut self, shown: &dyn Display) -> Result<(), SinkError> {
        let bad_display = |_| SinkError::write_failed("the event's Display failed").permanent();
        write!(self.text, "[{}] ", self.prefix).map_err(bad_display)?;
        write!(OneLine(&mut self.text), "{shown}").map_err(bad_display)?;
        self.text.push('\n');
        Ok(())
    }
}

impl<E: Display> Sink<E> for ConsoleSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        self.text.clear();
        if batch.gap() > 0 {
            self.line(&format_args!("{} events were evicted here", batch.gap()))?;
        }
        for event in batch {
            self.line(event)?;
        }
        self.out.write_all(self.text.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }
}

/// Passes text on, line breaks as `\n`.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(['\n', '\r']) {
            match part.strip_suffix(['\n', '\r']) {
                Some(line) => {
                    self.0.push_str(line);
                    self.0.push_str(if part.ends_with('\n') { "\\n" } else { "\\r" });
                }
                None => self.0.push_str(part),
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ConsoleSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSink")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
