//! `LineWriter`: lines that are formatted already, and written on another thread.

use std::fmt;
use std::io::{self, Write};
use std::ops::Deref;

use forebay::bridge::{Bridge, Guard};
use forebay::collector::StartError;
use forebay::sink::{Missing, Sink, SinkError};
use forebay::{Batch, Builder, Collector, Event};
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes of a buffer that are kept from one batch to the next.
const KEPT_BYTES: usize = 1 << 20;

/// What a formatter has written at once: the event of a collector of lines.
///
/// # Examples
///
/// ```
/// let line = forebay_tracing::Line::from(&b"epoch done\n"[..]);
/// assert_eq!(line.len(), 11);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Line(Box<[u8]>);

impl From<&[u8]> for Line {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl From<Vec<u8>> for Line {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Deref for Line {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Event for Line {
    fn name(&self) -> &str {
        "line"
    }

    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.0.len()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), f)
    }
}

/// Writer for the formatters of tracing-subscriber that never waits for the disk: what [`non_blocking`](crate::non_blocking) returns. Lines
/// have no level here, and none of them is critical.
///
/// What a formatter writes by way of [`make_writer`](MakeWriter::make_writer) is one event of the collector, in any number of writes. A
/// call of `write` of this writer itself is one event each. Neither fails. What is lost, the collector counts, and [`LinesSink`] marks
/// where.
#[derive(Debug, Clone)]
pub struct LineWriter(Bridge<Line>);

impl LineWriter {
    pub(crate) fn new(collector: Collector<Line>) -> (Self, Guard<Line>) {
        let bridge = Bridge::new(collector);
        let guard = bridge.guard();
        (Self(bridge), guard)
    }

    fn push(&self, line: impl Into<Line>) {
        if let Some(_entered) = self.0.enter() {
            self.0.collector().collect(line);
        }
    }
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: the collector delivers by itself. To wait for it, use [`Collector::flush`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a formatter writes one event to. It goes to the [`LineWriter`] as a whole, when this is dropped.
#[derive(Debug)]
pub struct LineWriterRef<'a> {
    writer: &'a LineWriter,
    text: Vec<u8>,
}

impl Write for LineWriterRef<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Does nothing: the event is not at its end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriterRef<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.writer.push(std::mem::take(&mut self.text));
        }
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = LineWriterRef<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriterRef { writer: self, text: Vec::new() }
    }
}

/// Sink that writes lines to a writer, one write a batch.
///
/// Lines that are missing leave one in their place: `forebay: 17 lines were lost here`. They were evicted, or an earlier write
/// failed. A batch that is offered again, as by [`retry`](forebay::sink::SinkExt::retry), and gets in then is not missing. [`gap_line`](Self::gap_line) writes something else, for a formatter of JSON, say.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use forebay::Builder;
/// use forebay_tracing::{Line, LinesSink};
/// use tracing_subscriber::prelude::*;
///
/// let sink = LinesSink::new(std::io::stderr()).gap_line(|lost| format!("{{\"lost\":{lost}}}\n"));
/// let (writer, guard) = forebay_tracing::lines(Builder::<Line>::new().capacity(1 << 12).sink(sink).start()?);
/// let format = tracing_subscriber::fmt::layer().json().with_writer(writer);
/// tracing::subscriber::with_default(tracing_subscriber::registry().with(format), || tracing::info!("ready"));
/// assert_eq!(guard.stop().lost(), 0);
/// # Ok(())
/// # }
/// ```
pub struct LinesSink<W> {
    name: String,
    out: W,
    gap_line: GapLine,
    /// The lines of a batch. It keeps [`KEPT_BYTES`] at most.
    text: Vec<u8>,
    missing: Missing,
    /// True if a write ended within a line.
    is_torn: bool,
}

type GapLine = Box<dyn FnMut(u64) -> String + Send>;

impl<W: Write + Send> LinesSink<W> {
    /// Creates a sink named `lines`.
    pub fn new(out: W) -> Self {
        let gap_line = Box::new(|lost| format!("forebay: {lost} lines were lost here\n"));
        let (name, missing) = ("lines".to_owned(), Missing::default());
        Self { name, out, gap_line, text: Vec::new(), missing, is_torn: false }
    }

    /// Sets the name that it is counted under, `lines` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets what is written where lines are missing, with the line break at its end.
    pub fn gap_line(mut self, line: impl FnMut(u64) -> String + Send + 'static) -> Self {
        self.gap_line = Box::new(line);
        self
    }

    /// Writes the text, and returns how many bytes got out.
    fn write_text(&mut self) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < self.text.len() {
            match self.out.write(&self.text[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, self.out.flush())
    }
}

impl<W: Write + Send> Sink<Line> for LinesSink<W> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<Line>) -> Result<(), SinkError> {
        // A panic of the writer has left it as it was.
        self.text.clear();
        if self.is_torn {
            self.text.push(b'\n');
        }
        let lost = self.missing.before(batch);
        if lost > 0 {
            self.text.extend_from_slice((self.gap_line)(lost).as_bytes());
        }
        let begin = self.text.len();
        batch.iter().for_each(|line| self.text.extend_from_slice(line));
        let (written, outcome) = self.write_text();
        if let Some(last) = self.text[..written].last() {
            self.is_torn = *last != b'\n';
        }
        self.text.clear();
        self.text.shrink_to(KEPT_BYTES);
        let Err(error) = outcome else {
            self.missing.mark_reported(0);
            return Ok(());
        };
        let mut end = begin;
        let whole = batch.iter().take_while(|line| {
            end += line.len();
            end <= written
        });
        let failed = batch.len() as u64 - whole.count() as u64;
        if written < begin {
            self.missing.add(batch);
        } else {
            // Offered again, the batch has its mark already.
            self.missing.mark_reported(failed);
        }
        if batch.is_empty() && written == begin {
            // An error would be about no event, and a retry would write the mark twice. `flush` tries again.
            return Ok(());
        }
        Err(SinkError::from(error).with_failed_events(failed))
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(self.out.flush()?)
    }
}

impl<W> fmt::Debug for LinesSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinesSink").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Starts a collector of lines with default settings.
pub(crate) fn start(sink: impl Sink<Line> + 'static) -> Result<(LineWriter, Guard<Line>), StartError> {
    Ok(LineWriter::new(Builder::<Line>::new().sink(sink).start()?))
}
