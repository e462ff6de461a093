//! Writes events to the terminal, one a line.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use super::{Sink, SinkError};
use crate::batch::Batch;

/// A sink that writes `[prefix] name = value (step n)` for every event, one write a batch.
///
/// It takes every event that can be displayed. What cannot be written (a closed pipe, say) is an error
/// that is counted, not a panic. Line breaks and other control characters inside an event are escaped, so that
/// one event stays one line. An event whose `Display` fails does so alone.
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

    /// Writes one line to the text; one that cannot be displayed leaves nothing behind.
    fn line(&mut self, shown: &dyn Display) -> fmt::Result {
        let begin = self.text.len();
        let written = write!(OneLine(&mut self.text), "[{}] {shown}", self.prefix);
        match written {
            Ok(()) => self.text.push('\n'),
            Err(_) => self.text.truncate(begin),
        }
        written
    }
}

impl<E: Display> Sink<E> for ConsoleSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        self.text.clear();
        let mut refused = 0;
        if batch.gap() > 0 {
            refused +=
                u64::from(self.line(&format_args!("{} events were evicted here", batch.gap())).is_err());
        }
        for event in batch {
            refused += u64::from(self.line(event).is_err());
        }
        self.out.write_all(self.text.as_bytes())?;
        self.out.flush()?;
        match refused {
            0 => Ok(()),
            _ => Err(SinkError::write_failed("an event's Display failed").permanent().only(refused)),
        }
    }
}

/// Passes text on, control characters escaped: one event stays one line, and no event moves the cursor.
struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character.is_control() {
                true => self.0.extend(character.escape_default()),
                false => self.0.push(character),
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
