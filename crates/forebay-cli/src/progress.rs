//! `Progress`: a line on the terminal that says how far a command is, once it has taken a second.
//!
//! It is on standard error, and there alone where that is a terminal. It goes away as soon as something is printed where people may read it,
//! which is progress by itself, and which a pager would show on the same screen.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time that a command may take without saying so.
const FIRST: Duration = Duration::from_secs(1);

/// Time between two lines.
const NEXT: Duration = Duration::from_millis(200);

/// Width of the bar.
const BAR: usize = 20;

/// What the terminal has of it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    None,
    Shown,
    /// Other things are printed there: it does not come again.
    Over,
}

static LINE: Mutex<Line> = Mutex::new(Line::None);

/// Work that may take long. Its line goes away with it.
pub(crate) struct Progress {
    runs: Arc<Runs>,
    /// What draws the line, and what ends it.
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

/// How many runs there are, and which one is read: 1 is the first.
#[derive(Default)]
struct Runs {
    at: AtomicUsize,
    of: AtomicUsize,
}

impl Progress {
    /// Begins to read files, or the files of runs.
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        if !io::stderr().is_terminal() {
            return Self { runs: Arc::default(), thread: None };
        }
        let paths: Vec<&PathBuf> = paths.into_iter().collect();
        let is_typed = paths.iter().any(|path| path.as_os_str() == "-") && io::stdin().is_terminal();
        if is_typed {
            return Self { runs: Arc::default(), thread: None };
        }
        Self::begin(paths.into_iter().cloned().collect())
    }

    fn begin(paths: Vec<PathBuf>) -> Self {
        let runs = Arc::<Runs>::default();
        // Relaxed here and below: each number is shown by itself.
        runs.of.store(paths.len(), Ordering::Relaxed);
        let (began, read_before, own) = (Instant::now(), bytes_read(), Arc::clone(&runs));
        let (end, ended) = channel();
        let watch = move || {
            let (mut wait, mut all) = (FIRST, None);
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                wait = NEXT;
                let all = *all.get_or_insert_with(|| paths.iter().map(|path| size_of(path)).sum());
                let read = bytes_read().zip(read_before).map(|(now, before)| now.saturating_sub(before));
                let at = own.at.load(Ordering::Relaxed);
                let text = said(read, all, (at, own.of.load(Ordering::Relaxed)), began.elapsed());
                show(&text);
            }
        };
        // Without a thread, nothing is said.
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn(watch).ok();
        Self { runs, thread: thread.map(|thread| (end, thread)) }
    }

    /// Says that the next run is read.
    pub(crate) fn step(&self) {
        self.runs.at.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            drop(end);
            _ = thread.join();
            hide(&mut line());
        }
    }
}

fn line() -> std::sync::MutexGuard<'static, Line> {
    LINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(text: &str) {
    let mut line = line();
    if *line != Line::Over {
        let columns = columns().unwrap_or(80);
        let text: String = text.chars().take(columns.saturating_sub(1)).collect();
        *line = Line::Shown;
        _ = write!(io::stderr(), "\r{text}\x1b[K");
    }
}

fn clear(line: &mut Line, next: Line) {
    if std::mem::replace(line, next) == Line::Shown {
        _ = write!(io::stderr(), "\r\x1b[K");
    }
}

/// Takes the line away, until there is the next one.
fn hide(line: &mut Line) {
    let next = if *line == Line::Over { Line::Over } else { Line::None };
    clear(line, next);
}

/// Writes something else to standard error, in a line of its own.
pub(crate) fn aside(text: &str) {
    let mut line = line();
    hide(&mut line);
    // Nobody is left to say it to where that fails.
    _ = writeln!(io::stderr(), "{text}");
}

/// Takes the line away for good, before an answer is printed.
pub(crate) fn end() {
    clear(&mut line(), Line::Over);
}

/// Returns the columns of the terminal that standard error is.
#[cfg(unix)]
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr()).ok()?;
    (size.ws_col > 0).then_some(size.ws_col.into())
}

#[cfg(not(unix))]
fn columns() -> Option<usize> {
    None
}

/// Returns what this process has read so far, where the system says it.
fn bytes_read() -> Option<u64> {
    let all = std::fs::read_to_string("/proc/self/io").ok()?;
    all.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

/// Returns the size of a file, or of those of a run; 0 where it is not known.
fn size_of(path: &Path) -> u64 {
    let is_of_run =
        |name: &str| name.starts_with("events.") || name.contains(".tfevents.") || name.ends_with(".wandb");
    match std::fs::metadata(path) {
        Ok(data) if data.is_dir() => std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| is_of_run(&entry.file_name().to_string_lossy()))
            .filter_map(|entry| entry.metadata().ok().filter(std::fs::Metadata::is_file))
            .map(|data| data.len())
            .sum(),
        Ok(data) if data.is_file() => data.len(),
        _ => 0,
    }
}

/// Returns the line: how much is read, of how much if that is known, and which of several runs.
fn said(read: Option<u64>, all: u64, (at, of): (usize, usize), took: Duration) -> String {
    let run = if of > 1 && at > 0 { format!(", run {at} of {of}") } else { String::new() };
    match read {
        // What is read twice has no end that is known.
        Some(read) if 0 < all && read <= all => {
            let part = read as f64 / all as f64;
            let full = (part * BAR as f64) as usize;
            let bar = "#".repeat(full) + &"-".repeat(BAR - full);
            format!("reading [{bar}] {:.0} % of {}{run}", part * 100.0, bytes(all))
        }
        Some(read) => format!("reading: {}{run}", bytes(read)),
        None => format!("reading: {} s{run}", took.as_secs()),
    }
}

fn bytes(number: u64) -> String {
    match number {
        0..10_000_000 => format!("{:.1} MB", number as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{} MB", number / 1_000_000),
        _ => format!("{} GB", number / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_is_read_of_what_and_no_more_than_is_known() {
        let took = Duration::from_secs(12);
        let said = |read, all, runs| said(read, all, runs, took);
        assert_eq!(said(Some(0), 100, (1, 1)), "reading [--------------------] 0 % of 0.0 MB");
        assert_eq!(
            said(Some(5_100_000_000), 20_000_000_000, (3, 12)),
            "reading [#####---------------] 26 % of 20 GB, run 3 of 12"
        );
        assert_eq!(
            said(Some(40_000_000), 40_000_000, (1, 1)),
            "reading [####################] 100 % of 40 MB"
        );
        // Read twice; a pipe; and where nobody counts.
        assert_eq!(said(Some(41_000_000), 40_000_000, (1, 1)), "reading: 41 MB");
        assert_eq!(said(Some(1_500_000), 0, (0, 1)), "reading: 1.5 MB");
        assert_eq!(said(None, 0, (2, 3)), "reading: 12 s, run 2 of 3");
    }

    #[test]
    fn the_size_of_a_run_is_that_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        for (name, size) in [
            ("events.jsonl", 10),
            ("events.jsonl.000001.zst", 20),
            ("events.out.tfevents.1.host", 40),
            ("model.bin", 80),
        ] {
            std::fs::write(folder.path().join(name), vec![0; size]).unwrap();
        }
        assert_eq!(size_of(folder.path()), 70);
        assert_eq!(size_of(&folder.path().join("model.bin")), 80);
        assert_eq!(size_of(Path::new("-")), 0);
    }
}
