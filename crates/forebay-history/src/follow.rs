//! Files that grow, read as they do: lines that are whole, once each, through rotation.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::{Path, PathBuf};

use forebay::parts::{Closed, closed, decode, resolve};
use forebay_sync::unix::open_read;

/// Size of the pieces in which a file is read.
const PIECE: usize = 1 << 20;

/// Longest line that is read. A longer one is passed over, and counted.
const MAX_LINE: usize = 64 << 20;

/// What a look at the files has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// So many lines, and nothing more for now.
    UpToDate(u64),
    /// So many lines, and there are more: the look has ended at its limit.
    More(u64),
    /// The file was cut or replaced by another: what was read is none of it.
    Replaced,
}

/// Follower of the files of a `JsonLinesSink`: those that it has closed, oldest first, then the one that it writes to, for as long as it
/// grows. It polls, since network file systems notify nobody.
#[derive(Debug)]
pub(crate) struct LineFollower {
    path: PathBuf,
    /// Closed files that are not read yet.
    closed: VecDeque<Closed>,
    /// The number that the open file gets when it is closed.
    number: u64,
    open: Option<Open>,
    /// Lines that were too long.
    pub(crate) skipped: u64,
    is_begun: bool,
}

/// File that is being read.
struct Open {
    file: Box<dyn Read + Send>,
    /// Of a plain file: what it is on its disk, and how much was read.
    plain: Option<(File, u64)>,
    /// Bytes of a line whose end was not read yet.
    rest: Vec<u8>,
    /// Whether that line is too long, and its begin is dropped.
    is_too_long: bool,
    /// Whether it is the file that the sink writes to.
    is_last: bool,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").field("is_last", &self.is_last).finish_non_exhaustive()
    }
}

impl LineFollower {
    /// Makes a follower of the sink that writes to `path`. Nothing is opened yet.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            closed: VecDeque::new(),
            number: 0,
            open: None,
            skipped: 0,
            is_begun: false,
        }
    }

    /// Gives every line that is new to `take`, without its end. Ends after about `max_bytes`.
    pub(crate) fn look(&mut self, max_bytes: usize, mut take: impl FnMut(&[u8])) -> io::Result<Look> {
        let path = resolve(&self.path)?;
        if !self.is_begun {
            let found = closed(&path)?;
            (self.closed, self.number) = (found.files.into(), found.next.unwrap_or(u64::MAX));
            self.is_begun = true;
        }
        let (mut lines, mut bytes) = (0, 0);
        let mut piece = vec![0; PIECE];
        loop {
            let Some(open) = &mut self.open else {
                match self.next_file(&path)? {
                    Some(open) => self.open = Some(open),
                    None => return Ok(Look::UpToDate(lines)),
                }
                continue;
            };
            if bytes >= max_bytes {
                return Ok(Look::More(lines));
            }
            match open.file.read(&mut piece) {
                Ok(0) => {}
                Ok(size) => {
                    bytes += size;
                    if let Some((_, read)) = &mut open.plain {
                        *read += size as u64;
                    }
                    lines += open.lines(&piece[..size], &mut self.skipped, &mut take);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            // The end, for now.
            if !open.is_last {
                self.skipped += u64::from(!open.rest.is_empty());
                self.open = None;
                continue;
            }
            match self.fate(&path)? {
                Fate::Same => return Ok(Look::UpToDate(lines)),
                Fate::Replaced => {
                    *self = Self::new(std::mem::take(&mut self.path));
                    return Ok(Look::Replaced);
                }
                Fate::Closed(later) => {
                    // What came between the end and the rotation is read before the next.
                    self.number = later.1;
                    self.closed = later.0;
                    if let Some(open) = &mut self.open {
                        open.is_last = false;
                    }
                }
            }
        }
    }

    /// Opens the next file: a closed one, or the one that the sink writes to. `None` where there is none yet.
    fn next_file(&mut self, path: &Path) -> io::Result<Option<Open>> {
        while let Some(next) = self.closed.pop_front() {
            if let Some(open) = open_closed(&next)? {
                return Ok(Some(open));
            }
        }
        match open_read(path) {
            Ok(file) if file.metadata()?.is_file() => Ok(Some(Open {
                plain: Some((file.try_clone()?, 0)),
                is_last: true,
                ..Open::new(Box::new(file))
            })),
            Ok(_) => Err(io::Error::new(ErrorKind::InvalidInput, "what is read must be a plain file")),
            Err(error) if error.kind() == ErrorKind::NotFound && self.number > 1 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds out what became of the file that is read, at its end.
    fn fate(&self, path: &Path) -> io::Result<Fate> {
        let Some((file, read)) = self.open.as_ref().and_then(|open| open.plain.as_ref()) else {
            return Ok(Fate::Same);
        };
        let own = file.metadata()?;
        let there = match std::fs::metadata(path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if there.as_ref().is_some_and(|there| is_same(&own, there)) {
            return Ok(if own.len() < *read { Fate::Replaced } else { Fate::Same });
        }
        let found = closed(path)?;
        if let Some(next) = found.next.filter(|next| *next > self.number) {
            let later = found.files.into_iter().filter(|closed| closed.number > self.number).collect();
            return Ok(Fate::Closed((later, next)));
        }
        // Without a successor, it was removed, and what is written to it may go on.
        Ok(if there.is_some() { Fate::Replaced } else { Fate::Same })
    }
}

/// What became of a file.
enum Fate {
    Same,
    /// It was closed; so were those, and the number of the one that is written to.
    Closed((VecDeque<Closed>, u64)),
    Replaced,
}

#[cfg(unix)]
fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere a file that is open cannot be replaced.
#[cfg(not(unix))]
fn is_same(one: &std::fs::Metadata, other: &std::fs::Metadata) -> bool {
    one.created().ok() == other.created().ok()
}

fn open_closed(closed: &Closed) -> io::Result<Option<Open>> {
    let mut compressed = closed.path.clone().into_os_string();
    if !closed.is_compressed {
        match File::open(&closed.path) {
            Ok(file) => return Ok(Some(Open::new(Box::new(file)))),
            // It may just have been compressed.
            Err(error) if error.kind() == ErrorKind::NotFound => compressed.push(".zst"),
            Err(error) => return Err(error),
        }
    }
    match File::open(compressed) {
        Ok(file) => Ok(Some(Open::new(Box::new(Decoded(decode(file)?))))),
        // The sink keeps only so many.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reader of what a buffered one has.
struct Decoded(Box<dyn BufRead + Send>);

impl Read for Decoded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Open {
    fn new(file: Box<dyn Read + Send>) -> Self {
        Self { file, plain: None, rest: Vec::new(), is_too_long: false, is_last: false }
    }

    /// Hands out the lines that end in a piece, and keeps what is behind the last end.
    fn lines(&mut self, piece: &[u8], skipped: &mut u64, take: &mut impl FnMut(&[u8])) -> u64 {
        let (mut lines, mut begin) = (0, 0);
        for end in memchr::memchr_iter(b'\n', piece) {
            let line = &piece[begin..end];
            begin = end + 1;
            if std::mem::take(&mut self.is_too_long) {
                *skipped += 1;
            } else if self.rest.is_empty() {
                take(line);
            } else {
                self.rest.extend_from_slice(line);
                take(&self.rest);
                self.rest.clear();
            }
            lines += 1;
        }
        if !self.is_too_long {
            self.rest.extend_from_slice(&piece[begin..]);
            if self.rest.len() > MAX_LINE {
                self.is_too_long = true;
                self.rest = Vec::new();
            }
        }
        lines
    }
}
