//! Writes events to the terminal, one a line.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::panics::Panics;
use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::buffer::empty_text;
use crate::escape::Escaping;
use crate::sync::unforked;
use crate::unix::{wait_until_writable, without_sigpipe, write_unlocked};

/// Sink that writes `[prefix] name = value (step n)` for every event, one write a batch.
///
/// It takes every event that can be displayed. What cannot be written (a closed pipe, say) is an error
/// that is counted, not a panic. Line breaks, other control characters and those that turn the direction of
/// reading are escaped inside an event: it stays one line, and shows what it holds. An event whose `Display` fails or panics
/// does so alone.
///
/// Lines stand in the order of delivery: of each batch, critical events come first, and low ones take turns with normal ones.
///
/// On Unix, lines go to the descriptor of the standard output or error itself, without the lock and the buffer of the standard
/// library. So nothing that the program prints waits for the sink, not even in a child that is forked while the sink waits for a
/// full pipe. What `println!` has printed before stands before. What `print!` has begun without a line break may stand behind.
///
/// A reader that went away is an error of each batch, and never the signal SIGPIPE, whatever the program has arranged for that.
///
/// A descriptor in non-blocking mode is written to as any other: the sink waits for space, 10 seconds at most in which
/// nothing is read. (The mode belongs to the open terminal or pipe, so another process that shares it may set it.) A line of
/// which only a part got out is completed by the next batch, so that lines stay whole.
///
/// # Examples
///
/// ```
/// use forebay::sink::ConsoleSink;
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().sink(ConsoleSink::new("train")).start()?;
/// collector.collect(Record::scalar("train.loss", 0.5).with_step(3)); // [train] train.loss = 0.5 (step 3)
/// assert_eq!(collector.stop()?.failed(), 0);
/// # Ok(())
/// # }
/// ```
pub struct ConsoleSink {
    name: String,
    prefix: String,
    out: Out,
    text: String,
    /// The rest of a line of which a part is written. It goes before all others.
    rest: Vec<u8>,
}

/// Destination of the lines.
enum Out {
    Stdout(Unlocked<io::Stdout>),
    Stderr(Unlocked<io::Stderr>),
    Writer(Box<dyn Write + Send>),
}

/// Standard stream without the lock that the standard library has for it. The worker would hold that lock while a full pipe
/// makes it wait, and a child that is forked meanwhile would find it locked for ever, in every `println!`.
struct Unlocked<T>(T);

impl Write for Unlocked<io::Stdout> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_unlocked(&mut self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Unlocked<io::Stderr> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_unlocked(&mut self.0, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The longest wait for space in which not a byte gets out.
const ROOM_TIMEOUT: Duration = Duration::from_secs(10);

impl Out {
    /// Calls the writer until it does not ask to wait any more, or its reader takes nothing for [`ROOM_TIMEOUT`].
    fn insist<R>(&mut self, mut call: impl FnMut(&mut dyn Write) -> io::Result<R>) -> io::Result<R> {
        let begun = Instant::now();
        loop {
            let outcome = without_sigpipe(|| match self {
                Self::Stdout(stdout) => call(stdout),
                Self::Stderr(stderr) => call(stderr),
                Self::Writer(writer) => call(writer),
            });
            match outcome {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = ROOM_TIMEOUT.saturating_sub(begun.elapsed());
                    if left.is_zero() {
                        return Err(error);
                    }
                    match self {
                        Self::Stdout(stdout) => wait_until_writable(Some(&stdout.0), left),
                        Self::Stderr(stderr) => wait_until_writable(Some(&stderr.0), left),
                        // Nobody knows its descriptor.
                        Self::Writer(_) => wait_until_writable(None::<&io::Stdout>, left),
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Writes `bytes`; how many were written is added to `written`.
    fn write_all(&mut self, bytes: &[u8], written: &mut usize) -> io::Result<()> {
        while *written < bytes.len() {
            // Not `write_all` of the writer: when that fails, nobody knows how much is written.
            match self.insist(|out| out.write(&bytes[*written..]))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                more => *written += more,
            }
        }
        self.insist(|out| out.flush())
    }
}

impl ConsoleSink {
    /// Creates a sink named `console` that writes to the standard output.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self::to(prefix, Out::Stdout(Unlocked(unforked(io::stdout))))
    }

    /// Creates a console sink that writes to the standard error, for programs whose output is data.
    pub fn stderr(prefix: impl Into<String>) -> Self {
        Self::to(prefix, Out::Stderr(Unlocked(io::stderr())))
    }

    /// Creates a console sink that writes to any writer.
    pub fn to_writer(prefix: impl Into<String>, out: impl Write + Send + 'static) -> Self {
        Self::to(prefix, Out::Writer(Box::new(out)))
    }

    fn to(prefix: impl Into<String>, out: Out) -> Self {
        let (name, prefix) = ("console".to_owned(), prefix.into());
        Self { name, prefix, out, text: String::new(), rest: Vec::new() }
    }

    /// Sets the name that it is counted under, `console` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Writes the text, behind the rest of an earlier line.
    fn write_text(&mut self) -> io::Result<()> {
        let mut written = 0;
        let completed = self.out.write_all(&self.rest, &mut written);
        self.rest.drain(..written);
        completed?;
        let mut written = 0;
        let result = self.out.write_all(self.text.as_bytes(), &mut written);
        let (done, left) = self.text.as_bytes().split_at(written);
        if result.is_err() && done.last().is_some_and(|last| *last != b'\n') {
            let end = left.iter().position(|byte| *byte == b'\n').map_or(left.len(), |end| end + 1);
            self.rest = left[..end].to_vec();
        }
        result
    }

    /// Writes one line to the text, and says whether it did; one that cannot be displayed leaves nothing behind.
    fn line(&mut self, shown: &dyn Display, panics: &mut Panics) -> bool {
        let begin = self.text.len();
        let written = panics.catch(|| write!(Escaping(&mut self.text), "[{}] {shown}", self.prefix));
        let is_whole = matches!(written, Some(Ok(())));
        if is_whole {
            self.text.push('\n');
        } else {
            self.text.truncate(begin);
        }
        is_whole
    }
}

impl<E: Display> Sink<E> for ConsoleSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        batch.check()?;
        self.text.clear();
        let (mut refused, mut panics) = (0, Panics::of("an event's Display"));
        if batch.gap() > 0 {
            self.line(&format_args!("{} events were evicted here", batch.gap()), &mut panics);
        }
        for event in batch {
            refused += u64::from(!self.line(event, &mut panics));
        }
        // Displayed by user code, which may have forked.
        batch.check()?;
        let written = self.write_text();
        empty_text(&mut self.text);
        written?;
        match refused {
            0 => Ok(()),
            _ if !panics.is_none() => Err(panics.error().with_failed_events(refused)),
            _ => Err(SinkError::write_failed("an event's Display failed")
                .permanent()
                .with_failed_events(refused)),
        }
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
