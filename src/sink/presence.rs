//! Check of whether the file that a sink has open is the one at its path.
//!
//! A file that was removed, moved or replaced takes writes as ever, and nobody finds them. That *something* is at the path
//! tells nothing: logrotate puts an empty file there. So the file at the path must have the device and the inode of the open
//! one. Where a platform has no such numbers, it has to do that something is there.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::unix::{FileId, file_id};

/// State of the path of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// The open file, which is so many bytes long.
    Own(u64),
    /// Another file.
    Other,
    Nothing,
    /// The path cannot be looked at: privileges were dropped, or the disk fails. That does not make the open file a
    /// bad one.
    Unknown,
}

/// Looks once a second and after a flush, because it asks the system. Goes by the worker's clock.
#[derive(Debug)]
pub(super) struct Presence {
    /// Id of the open file.
    id: Option<FileId>,
    /// `None` has the next batch look.
    looked_at: Option<u64>,
}

const INTERVAL_NANOS: u64 = 1_000_000_000;

impl Presence {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self { id: file_id(&file.metadata()?), looked_at: None })
    }

    /// Returns whether it is time to look, and takes note that the caller does.
    pub(super) fn is_due(&mut self, now: u64) -> bool {
        // A clock that began anew tells nothing.
        let is_due =
            self.looked_at.is_none_or(|then| now.checked_sub(then).is_none_or(|ago| ago >= INTERVAL_NANOS));
        if is_due {
            self.looked_at = Some(now);
        }
        is_due
    }

    /// Makes the next batch look.
    pub(super) fn doubt(&mut self) {
        self.looked_at = None;
    }

    /// Returns whether another descriptor leads to the open file.
    #[cfg(feature = "tensorboard")]
    pub(super) fn is_of(&self, file: &File) -> bool {
        self.id.is_none() || file.metadata().is_ok_and(|data| file_id(&data) == self.id)
    }

    /// Looks what is at `path`, where no symbolic link is followed: it was when the file was opened.
    pub(super) fn look(&self, path: &Path) -> Found {
        look(self.id, path)
    }
}

/// Looks for the file of that identity at `path`.
pub(super) fn look(id: Option<FileId>, path: &Path) -> Found {
    match fs::symlink_metadata(path) {
        Ok(data) if id.is_none() || file_id(&data) == id => Found::Own(data.len()),
        Ok(_) => Found::Other,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Found::Nothing
        }
        Err(_) => Found::Unknown,
    }
}
