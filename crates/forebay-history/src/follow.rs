//! Files that grow, read as they do: lines that are whole, once each, through rotation.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use forebay::event::catalog::training;
use forebay::parts::{Closed, ClosedFiles, closed, decode, resolve};
use forebay::{Event, Record};
use forebay_sync::unix::{FileId, file_id, open_read};

use crate::json_lines::{files_of, is_alone};

/// Size of the pieces in which a file is read.
const PIECE: usize = 1 << 20;

/// Longest line that is read. A longer one is passed over, and counted.
const MAX_LINE: usize = 64 << 20;

/// Bytes by which a file is known again, and its first line read.
const HEAD: usize = 4096;

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
pub(crate) struct Identity {
    id: Option<FileId>,
    /// When it was made, where the file system knows: the id of a file that was removed is soon that of another.
    made: Option<SystemTime>,
}

impl Identity {
    pub(crate) fn of(data: &Metadata) -> Self {
        Self { id: file_id(data), made: data.created().ok() }
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
    /// The same, closed between two looks.
    Released { identity: Identity, read: u64, head: Vec<u8> },
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

    /// Closes the file that grows, until the next look. What is written to it meanwhile is lost if it is removed by then.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        if let Some(Open { source, .. }) = &mut self.open
            && let Source::Last { file, read, head } = source
        {
            let identity = Identity::of(&file.metadata()?);
            *source = Source::Released { identity, read: *read, head: std::mem::take(head) };
        }
        Ok(())
    }

    /// Returns the last `count` lines, of all files, of which `read` makes something, oldest first. They are read from the end. The next
    /// look goes on behind them. To be called before the first.
    pub(crate) fn last<T>(
        &mut self,
        count: usize,
        read: impl FnMut(&[u8]) -> Option<T>,
    ) -> io::Result<VecDeque<T>> {
        let path = resolve(&self.path)?;
        self.folder = Some(folder_of(&path)?);
        let mut last = Last { found: VecDeque::new(), count, read };
        let mut before = VecDeque::new();
        let open = loop {
            self.queue(files_of(&path)?);
            before.append(&mut self.closed);
            let number = self.number;
            match self.next_file(&path)? {
                // The last file was closed before it could be opened: it is among the closed ones by now.
                Some(Open { source: Source::Closed(_), .. }) => {
                    self.closed.clear();
                    self.number = number;
                }
                open => break open,
            }
        };
        self.open = open;
        if let Some(Open { source: Source::Last { file, read, head }, .. }) = &mut self.open {
            *read = last.backward(file)?;
            let size = usize::try_from(*read).unwrap_or(HEAD).min(HEAD);
            *head = head_of(file, size, *read)?;
        }
        while last.has_room()
            && let Some(closed) = before.pop_back()
        {
            let plain = if closed.is_compressed { None } else { File::open(&closed.path).ok() };
            let seen = match plain {
                Some(mut file) => last.backward(&mut file).map(|_| ()),
                None => open_closed(&closed).and_then(|file| file.map_or(Ok(()), |file| last.forward(file))),
            };
            self.skipped += u64::from(seen.is_err());
        }
        Ok(last.found)
    }

    /// Gives every line that is new to `take`, without its end. Ends after about `max_bytes`.
    pub(crate) fn look(&mut self, max_bytes: usize, mut take: impl FnMut(&[u8])) -> io::Result<Look> {
        let path = resolve(&self.path)?;
        let folder = folder_of(&path)?;
        match self.folder {
            None => {
                self.folder = Some(folder);
                self.queue(files_of(&path)?);
            }
            Some(known) if known == folder => {}
            Some(_) => return Ok(self.restart()),
        }
        if let Some(look) = self.reopen(&path)? {
            return Ok(look);
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
                Fate::Replaced => return Ok(self.restart()),
                Fate::Closed(found) => {
                    self.number = self.number.saturating_add(1);
                    self.queue(found);
                    // What came between its end and the rotation is read before the next.
                    self.open = self.open.take().map(Open::close);
                }
            }
        }
    }

    /// Opens a released file again, wherever it is by now. Returns what ends the look, if the file is not there.
    fn reopen(&mut self, path: &Path) -> io::Result<Option<Look>> {
        let Some(Open { source: Source::Released { identity, read, head }, .. }) = &self.open else {
            return Ok(None);
        };
        let there = match open_read(path) {
            Ok(file) => Some((file.metadata()?, file)),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let is_there = there.is_some();
        let own = there.filter(|(data, _)| Identity::of(data) == *identity);
        let source = if let Some((data, file)) = own {
            if data.len() < *read || head_of(&file, head.len(), *read)? != *head {
                return Ok(Some(self.restart()));
            }
            Some(Source::Last { file, read: *read, head: head.clone() })
        } else {
            let found = closed(path)?;
            if !is_there && found.next.is_none_or(|next| next <= self.number) {
                // Just closed, and not yet under its new name.
                return Ok(Some(Look::UpToDate));
            }
            if found.next.is_none_or(|next| next <= self.number) {
                match next_of(head, path)? {
                    Next::None => return Ok(Some(Look::UpToDate)),
                    Next::Own => {}
                    Next::Other => return Ok(Some(self.restart())),
                }
            }
            let own = found.files.iter().find(|closed| closed.number == self.number);
            let mut file = own.map_or(Ok(None), open_closed)?;
            if let Some(file) = &mut file {
                let mut begin = Vec::new();
                file.by_ref().take(head.len() as u64).read_to_end(&mut begin)?;
                if begin != *head {
                    return Ok(Some(self.restart()));
                }
                io::copy(&mut file.by_ref().take(read.saturating_sub(head.len() as u64)), &mut io::sink())?;
            }
            // It is gone, and perhaps lines that were not read yet.
            self.skipped += u64::from(file.is_none());
            self.number = self.number.saturating_add(1);
            self.queue(found);
            file.map(Source::Closed)
        };
        self.open = match (source, self.open.take()) {
            (Some(source), Some(open)) => Some(Open { source, ..open }),
            _ => None,
        };
        Ok(None)
    }

    fn restart(&mut self) -> Look {
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
                    // Nothing else is asked for.
                    Err(error) if is_alone(path) => return Err(error),
                    Err(_) => self.skipped += 1,
                }
                continue;
            }
            if is_alone(path) {
                return Ok(None);
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
        if own.len() < *read || head_of(file, head.len(), *read)? != *head {
            return Ok(Fate::Replaced);
        }
        if there.as_ref().is_some_and(|there| Identity::of(there) == Identity::of(&own)) {
            return Ok(Fate::Same);
        }
        let found = closed(path)?;
        if found.next.is_some_and(|next| next > self.number) {
            return Ok(Fate::Closed(found));
        }
        // Where no closed files are kept, the next one is there alone.
        Ok(match there.map_or(Ok(Next::None), |_| next_of(head, path))? {
            Next::None => Fate::Same,
            Next::Own => Fate::Closed(found),
            Next::Other => Fate::Replaced,
        })
    }
}

/// Collector of the last lines that are something.
struct Last<T, F> {
    found: VecDeque<T>,
    count: usize,
    read: F,
}

impl<T, F: FnMut(&[u8]) -> Option<T>> Last<T, F> {
    fn has_room(&self) -> bool {
        self.found.len() < self.count
    }

    fn see(&mut self, line: &[u8]) {
        if self.has_room() {
            (self.read)(line).into_iter().for_each(|it| self.found.push_front(it));
        }
    }

    /// Sees the lines of a file, the last one first, while there is room. Returns where the last whole line ends.
    fn backward(&mut self, file: &mut File) -> io::Result<u64> {
        let mut at = file.seek(SeekFrom::End(0))?;
        let (mut end, mut piece) = (None, vec![0; PIECE]);
        // What is read of the line that begins before `at`, and whether that is too long.
        let (mut rest, mut is_too_long) = (Vec::new(), false);
        while at > 0 && (self.has_room() || end.is_none()) {
            let size = usize::try_from(at).unwrap_or(PIECE).min(PIECE);
            at -= size as u64;
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut piece[..size])?;
            let mut stop = size;
            for place in memchr::memrchr_iter(b'\n', &piece[..size]) {
                if end.is_none() {
                    // What is behind it is being written.
                    end = Some(at + place as u64 + 1);
                } else if !std::mem::take(&mut is_too_long) {
                    rest.splice(..0, piece[place + 1..stop].iter().copied());
                    self.see(&rest);
                }
                rest.clear();
                stop = place;
            }
            if end.is_some() && !is_too_long {
                rest.splice(..0, piece[..stop].iter().copied());
                is_too_long = rest.len() > MAX_LINE;
            }
        }
        if at == 0 && end.is_some() && !is_too_long {
            self.see(&rest);
        }
        Ok(end.unwrap_or(0))
    }

    /// Sees the lines of a file that has no end to begin with.
    fn forward(&mut self, file: Box<dyn BufRead + Send>) -> io::Result<()> {
        let (mut open, mut piece) = (Open::new(Source::Closed(file)), vec![0; PIECE]);
        let (mut own, room) = (VecDeque::new(), self.count - self.found.len());
        let result = loop {
            match open.read(&mut piece) {
                Ok(0) => break Ok(()),
                Ok(size) => open.lines(&piece[..size], &mut 0, &mut |line| {
                    own.extend((self.read)(line));
                    if own.len() > room {
                        own.pop_front();
                    }
                }),
                // What is before the damage counts.
                Err(error) => break Err(error),
            }
        };
        own.append(&mut self.found);
        self.found = own;
        result
    }
}

/// Returns what the folder of a file is.
fn folder_of(path: &Path) -> io::Result<Identity> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::metadata(folder).map(|data| Identity::of(&data))
}

/// What became of a file.
enum Fate {
    Same,
    /// It was closed, as one of those.
    Closed(ClosedFiles),
    Replaced,
}

/// What a file is that is in the place of another one.
enum Next {
    /// Nothing can be told yet.
    None,
    /// The one that the same writer goes on with.
    Own,
    /// That of another run.
    Other,
}

/// Finds out whether the file at a path goes on where one with that head was, by the first record of each: a run begins, or a step is no
/// later than the first one before.
fn next_of(head: &[u8], path: &Path) -> io::Result<Next> {
    let mut begin = Vec::new();
    match open_read(path) {
        Ok(file) => file.take(HEAD as u64).read_to_end(&mut begin)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Next::None),
        Err(error) => return Err(error),
    };
    let first = |head: &[u8]| -> Option<Record> {
        serde_json::from_slice(&head[..memchr::memchr(b'\n', head)?]).ok()
    };
    if begin.len() < HEAD && !begin.contains(&b'\n') {
        return Ok(Next::None);
    }
    let (Some(before), Some(now)) = (first(head), first(&begin)) else { return Ok(Next::Own) };
    let is_begun = Event::name(&now) == training::Started::NAME;
    let is_back = before.signed_step().zip(now.signed_step()).is_some_and(|(before, now)| now <= before);
    Ok(if is_begun || is_back { Next::Other } else { Next::Own })
}

/// Returns the first bytes of a file, and leaves its reader at `at`.
fn head_of(mut file: &File, size: usize, at: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.take(size as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(at))?;
    Ok(head)
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
            other => other,
        };
        Self { source, ..self }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match &mut self.source {
            Source::Closed(file) => file.read(piece),
            // It is opened before anything is read.
            Source::Released { .. } => Ok(0),
            Source::Last { file, read, head } => {
                let size = file.read(piece)?;
                *read += size as u64;
                if head.len() < HEAD {
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
