//! `Append`: a file that grows by whole lines, and is found at its path.
//!
//! A batch gets into the file as a whole, or not at all: a write that failed half-way is cut off again. A file that was removed, moved or
//! replaced is left, and what is at the path is continued.

use std::io;
use std::path::Path;

use super::presence::{Found, Presence};
use super::target::Target;

/// A file of lines that is open for appending.
#[derive(Debug)]
pub(super) struct Append {
    target: Target,
    /// The length of the file after our last write, as far as we know: where a failed write began.
    length: u64,
    /// A failed write could not be cut off: the next one closes the torn line first.
    is_torn: bool,
    /// The file was left, and another could not be opened: nothing is written to it any more.
    is_left: bool,
    /// True if another file was opened since that was last asked.
    has_changed: bool,
}

impl Append {
    /// Opens what `path` leads to.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let target = Target::open(path)?;
        let (length, is_torn) = target.examine()?;
        Ok(Self { target, length, is_torn, is_left: false, has_changed: false })
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn path(&self) -> &Path {
        self.target.path()
    }

    pub(super) fn presence(&self) -> &Presence {
        self.target.presence()
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn is_left(&self) -> bool {
        self.is_left
    }

    /// Returns whether another file was opened since this was last asked.
    pub(super) fn take_change(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// Makes the next batch look.
    pub(super) fn doubt(&mut self) {
        self.target.doubt();
    }

    /// Goes on in what is at the path, if that is not the file that is open. `leave` is called with that file before.
    pub(super) fn find_again(&mut self, now: u64, leave: impl FnOnce(&Target)) -> io::Result<()> {
        if self.is_left || self.target.is_look_due(now) && !self.is_found() {
            // Should the rest fail, the next batch looks again.
            self.target.doubt();
            leave(&self.target);
            self.open_again()?;
        }
        Ok(())
    }

    /// Looks whether what is written is found at the path.
    pub(super) fn is_found(&mut self) -> bool {
        match self.target.look() {
            Found::Own(length) => {
                if self.target.is_own_file() && length != self.length {
                    // Others append to it, or have cut it, maybe in the middle of a line.
                    (self.length, self.is_torn) = self.target.examine().unwrap_or((length, true));
                }
                true
            }
            Found::Unknown => true,
            Found::Other | Found::Nothing => false,
        }
    }

    /// Leaves the file, and opens what is at its path.
    pub(super) fn open_again(&mut self) -> io::Result<()> {
        self.is_left = true;
        self.target = Target::open(self.target.path())?;
        (self.length, self.is_torn) = self.target.examine()?;
        self.has_changed = true;
        self.is_left = false;
        Ok(())
    }

    /// Writes lines so that somebody can find them. The first byte of `lines` is a line break, which closes a torn line, and is left out
    /// where there is none.
    pub(super) fn write_found(&mut self, lines: &[u8]) -> io::Result<()> {
        self.write_lines(lines)?;
        if !self.target.is_unlinked() {
            return Ok(());
        }
        // Nobody can read what was removed meanwhile.
        self.target.doubt();
        self.open_again()?;
        self.write_lines(lines)?;
        if self.target.is_unlinked() {
            // Once more. The next batch looks again.
            self.target.doubt();
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }

    /// Writes lines, all of them or nothing.
    fn write_lines(&mut self, lines: &[u8]) -> io::Result<()> {
        // The first byte closes a torn line.
        let begin = usize::from(!self.is_torn);
        let mut written = begin;
        while written < lines.len() {
            match self.target.write(&lines[written..]) {
                Ok(0) => return self.cut_back(written - begin, io::ErrorKind::WriteZero.into()),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.cut_back(written - begin, error),
            }
        }
        self.is_torn = false;
        self.length = self.length.saturating_add((written - begin) as u64);
        Ok(())
    }

    /// Cuts the file back after a write that failed after `written` bytes: they would stay as a torn line in the
    /// middle of the file.
    fn cut_back(&mut self, written: usize, error: io::Error) -> io::Result<()> {
        // Another file may be at the path by now.
        self.target.doubt();
        let file = self.target.file();
        let length = file.metadata().map(|data| data.len());
        let is_ours = self.target.is_own_file()
            && matches!(length, Ok(length) if length == self.length + written as u64);
        // Should the file be of another length than we left it with, somebody else writes to it or has cut
        // it: then nothing is cut off, lest it be theirs.
        if written > 0 && !(is_ours && file.set_len(self.length).is_ok()) {
            self.is_torn = true;
        }
        self.length = file.metadata().map_or(self.length, |data| data.len());
        Err(error)
    }
}
