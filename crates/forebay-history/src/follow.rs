//! Files that grow, read as they do: lines that are whole, once each, through rotation.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::{Path, PathBuf};

use forebay::parts::{Closed, ClosedFiles, closed, decode, resolve};
use forebay_sync::unix::open_read;

/// Size of the pieces in which a file is read.
const PIECE: usize = 1 << 20;

/// Longest line that is read. A longer one is passed over, and counted.
const MAX_LINE: usize = 64 << 20;

/// Bytes by which a file is known again. The first line of a run has its name and its time in them.
const HEAD: usize = 64;

/// What a look at the files has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// There is nothing more for now.
    UpToDate,
    /// There is more: the look has ended at its limit.
    More,
    /// The file was cut or replaced by that of another run: what was read is none of it.
    Replaced,
}

/// What a file is, whatever its name is by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    #[cfg(unix)]
    pub(crate) fn of(data: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self(data.dev(), data.ino())
    }

    /// Elsewhere, the moment when it was made.
    #[cfg(not(unix))]
    pub(crate) fn of(data: &Metadata) -> Self {
        let made = data.created().ok().and_then(|made| made.duration_since(std::time::UNIX_EPOCH).ok());
        Self(0, made.map_or(0, |made| made.as_nanos() as u64))
    }
}

/// Follower of the files of a `JsonLinesSink`: those that it has closed, oldest first, then the one that it writes to, for as long as it
/// grows. It polls, since network file systems notify nobody.
#[derive(Debug)]
pub(crate) struct LineFollower {
    path: PathBuf,
    /// The folder that the files lie in. Another one at its path has another run.
    folder: Option<Identity>,
    /// Closed files that are not read yet.
    closed: VecDeque<Closed>,
    /// The number that the file gets that the sink writes to, when it is closed.
    number: u64,
    open: Option<Open>,
    /// Lines that were too long, and lines and files that ended too early.
    skipped: u64,
}

/// File that is being read.
struct Open {
    source: Source,
    /// Bytes of a line whose end was not read yet.
    rest: Vec<u8>,
    /// Whether that line is too long, and its begin is dropped.
    is_too_long: bool,
}

enum Source {
    /// A file that is closed, and does not change any more.
    Closed(Box<dyn BufRead + Send>),
    /// The file that the sink writes to.
    Last {
        file: File,
        read: u64,
        /// Its first bytes, as far as they were read.
        head: Vec<u8>,
    },
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Open").finish_non_exhaustive()
    }
}

impl LineFollower {
    /// Makes a follower of the sink that writes to `path`. Nothing is opened yet.
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), folder: None, closed: VecDeque::new(), number: 0, open: None, skipped: 0 }
    }

    /// Returns how many lines and files were not read, or not to their end.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Returns whether the last line has no end yet: it is being written, or its writer was killed.
    pub(crate) fn is_torn(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.rest.is_empty() || open.is_too_long)
    }

    /// Gives every line that is new to `take`, without its end. Ends after about `max_bytes`.
    pub(crate) fn look(&mut self, max_bytes: usize, mut take: impl FnMut(&[u8])) -> io::Result<Look> {
        let path = resolve(&self.path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = Identity::of(&fs::metadata(folder)?);
        match self.folder {
            None => {
                self.folder = Some(folder);
                self.queue(closed(&path)?);
            }
            Some(known) if known == folder => {}
            Some(_) => return Ok(self.start_anew()),
        }
        let (mut bytes, mut piece) = (0, vec![0; PIECE]);
        loop {
            let Some(open) = &mut self.open else {
                match self.next_file(&path)? {
                    Some(open) => self.open = Some(open),
                    None => return Ok(Look::UpToDate),
                }
                continue;
            };
            if bytes >= max_bytes {
                return Ok(Look::More);
            }
            match open.read(&mut piece) {
                Ok(0) => {}
                Ok(size) => {
                    bytes += size;
                    open.lines(&piece[..size], &mut self.skipped, &mut take);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                // Nobody will mend it. What comes behind it is whole.
                Err(_) if matches!(open.source, Source::Closed(_)) => self.skipped += 1,
                Err(error) => return Err(error),
            }
            if matches!(open.source, Source::Closed(_)) {
                self.skipped += u64::from(self.is_torn());
                self.open = None;
                continue;
            }
            match self.fate(&path)? {
                Fate::Same => return Ok(Look::UpToDate),
                Fate::Replaced => return Ok(self.start_anew()),
                Fate::Closed(found) => {
                    self.number = self.number.saturating_add(1);
                    self.queue(found);
                    // What came between its end and the rotation is read before the next.
                    self.open = self.open.take().map(Open::close);
                }
            }
        }
    }

    fn start_anew(&mut self) -> Look {
        *self = Self::new(std::mem::take(&mut self.path));
        Look::Replaced
    }

    /// Notes the closed files that are not read yet.
    fn queue(&mut self, found: ClosedFiles) {
        self.closed.extend(found.files.into_iter().filter(|closed| closed.number >= self.number));
        self.number = self.number.max(found.next.unwrap_or(u64::MAX));
    }

    /// Opens the next file: a closed one, or the one that the sink writes to. `None` where there is none yet.
    fn next_file(&mut self, path: &Path) -> io::Result<Option<Open>> {
        loop {
            if let Some(next) = self.closed.pop_front() {
                match open_closed(&next) {
                    // The sink keeps only so many.
                    Ok(None) => {}
                    Ok(Some(file)) => return Ok(Some(Open::new(Source::Closed(file)))),
                    Err(_) => self.skipped += 1,
                }
                continue;
            }
            let file = match open_read(path) {
                Ok(file) => file,
                // Just closed, and the next one not begun.
                Err(error) if error.kind() == ErrorKind::NotFound && self.number > 1 => return Ok(None),
                Err(error) => return Err(error),
            };
            if !file.metadata()?.is_file() {
                return Err(io::Error::new(ErrorKind::InvalidInput, "what is read must be a plain file"));
            }
            // Should one have been closed before this one was opened, it comes first.
            let found = closed(path)?;
            if found.next.is_some_and(|next| next > self.number) {
                self.queue(found);
                continue;
            }
            return Ok(Some(Open::new(Source::Last { file, read: 0, head: Vec::new() })));
        }
    }

    /// Finds out what became of the file that is read, at its end.
    fn fate(&self, path: &Path) -> io::Result<Fate> {
        let Some(Open { source: Source::Last { file, read, head }, .. }) = &self.open else {
            return Ok(Fate::Same);
        };
        let own = file.metadata()?;
        let there = match fs::metadata(path) {
            Ok(there) => Some(there),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if own.len() < *read || head_of(file, head.len())? != *head {
            return Ok(Fate::Replaced);
        }
        if there.as_ref().is_some_and(|there| Identity::of(there) == Identity::of(&own)) {
            return Ok(Fate::Same);
        }
        let found = closed(path)?;
        // Where no closed files are kept, the next one is there alone.
        if there.is_some() || found.next.is_some_and(|next| next > self.number) {
            return Ok(Fate::Closed(found));
        }
        Ok(Fate::Same)
    }
}

/// What became of a file.
enum Fate {
    Same,
    /// It was closed, as one of those.
    Closed(ClosedFiles),
    Replaced,
}

/// Returns the first bytes of a file, wherever its reader is.
#[cfg(unix)]
fn head_of(file: &File, size: usize) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut head = vec![0; size];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(Vec::new()),
        result => result.map(|()| head),
    }
}

/// Elsewhere, none: a file there cannot be replaced while it is open.
#[cfg(not(unix))]
fn head_of(_: &File, _: usize) -> io::Result<Vec<u8>> {
    Ok(Vec::new())
}

/// Opens a closed file, unless it is not there any more.
fn open_closed(closed: &Closed) -> io::Result<Option<Box<dyn BufRead + Send>>> {
    let mut compressed = closed.path.clone().into_os_string();
    if !closed.is_compressed {
        match File::open(&closed.path) {
            Ok(file) => return Ok(Some(Box::new(io::BufReader::new(file)))),
            // It may just have been compressed.
            Err(error) if error.kind() == ErrorKind::NotFound => compressed.push(".zst"),
            Err(error) => return Err(error),
        }
    }
    match File::open(compressed) {
        Ok(file) => decode(file).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Open {
    fn new(source: Source) -> Self {
        Self { source, rest: Vec::new(), is_too_long: false }
    }

    /// Returns it as one that does not change any more.
    fn close(self) -> Self {
        let source = match self.source {
            Source::Last { file, .. } => Source::Closed(Box::new(io::BufReader::new(file))),
            closed => closed,
        };
        Self { source, ..self }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Closed(file) => file.read(piece),
            Source::Last { file, read, head } => {
                let size = file.read(piece)?;
                *read += size as u64;
                if cfg!(unix) && head.len() < HEAD {
                    let more = size.min(HEAD - head.len());
                    head.extend_from_slice(&piece[..more]);
                }
                Ok(size)
            }
        }
    }

    /// Hands out the lines that end in a piece, and keeps what is behind the last end.
    fn lines(&mut self, piece: &[u8], skipped: &mut u64, take: &mut impl FnMut(&[u8])) {
        let mut begin = 0;
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
        }
        if !self.is_too_long {
            self.rest.extend_from_slice(&piece[begin..]);
            if self.rest.len() > MAX_LINE {
                self.is_too_long = true;
                self.rest = Vec::new();
            }
        }
    }
}
