//! The three files of a live database: itself, its write-ahead log (`-wal`) and the index of that (`-shm`).
//!
//! SQLite finds them by name when it opens the database, and trusts the names from then on. Should one of them be removed or
//! replaced, what is committed is found by nobody, and closing the database removes files that belong to another one.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::child::Open;
use crate::sink::SinkError;
use crate::sink::presence::{Found, look};
use crate::unix::{FileId, file_id, open_read};

/// A live database, and what its files were when it was opened.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    database: Part,
    log: Part,
    index: Part,
    /// Dropped behind the connection.
    _open: Open,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    id: Option<FileId>,
}

impl Part {
    fn of(path: PathBuf) -> Self {
        let id = fs::symlink_metadata(&path).ok().as_ref().and_then(file_id);
        Self { path, id }
    }

    fn look(&self) -> Found {
        look(self.id, &self.path)
    }

    /// A file that is not known by its identity, and what cannot be looked at, is not missed.
    fn is_found(&self) -> bool {
        self.id.is_none() || matches!(self.look(), Found::Own(_) | Found::Unknown)
    }

    fn remove_own(&self) {
        if self.id.is_some() && matches!(self.look(), Found::Own(_)) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// How often it is opened anew because it was replaced meanwhile.
const MAX_TRIES: u32 = 3;

impl Live {
    /// Opens a database, and takes note of its files.
    pub(super) fn open(
        path: &Path,
        open: impl Fn(&Path) -> Result<Connection, SinkError>,
    ) -> Result<Self, SinkError> {
        for _ in 0..MAX_TRIES {
            let before = Part::of(path.to_owned()).id;
            let live = Self {
                connection: open(path)?,
                database: Part::of(path.to_owned()),
                log: Part::of(beside(path, "-wal")),
                index: Part::of(beside(path, "-shm")),
                _open: Open::at(path),
            };
            if before.is_none() || before == live.database.id {
                return Ok(live);
            }
            live.leave();
        }
        Err(SinkError::unavailable("the database was replaced while it was opened"))
    }

    /// Returns whether a reader that opens the path finds what is committed here.
    pub(super) fn is_found(&self) -> bool {
        let is_there = match self.database.id {
            Some(_) => self.database.is_found(),
            None => self.database.look() != Found::Nothing,
        };
        is_there && self.log.is_found() && self.index.is_found()
    }

    /// Leaves a database of which a file was removed or replaced. What is committed comes from the log into the database,
    /// wherever that is now; no file of another database is removed.
    pub(super) fn leave(self) {
        let is_moved = !self.database.is_found();
        // Should somebody have begun another log for the same database, theirs is newer.
        let has_successor = !is_moved
            && self.log.look() == Found::Other
            && fs::symlink_metadata(&self.log.path).is_ok_and(|data| data.len() > 0)
            && refuse_foreign_log(&self.database.path).is_ok();
        if !has_successor {
            _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
        // Otherwise SQLite removes the log by its name.
        _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        drop(self.connection);
        if is_moved {
            // The next database at the path would take them for its own.
            self.log.remove_own();
            self.index.remove_own();
        }
    }
}

/// Refuses what lies in the place of a database or its log and is neither: SQLite would wait for a pipe, and write over what
/// it does not know.
pub(super) fn refuse_foreign(path: &Path) -> Result<(), SinkError> {
    if fs::metadata(path).is_ok_and(|data| !data.is_file()) {
        let message = format!("the database must be a plain file, got {}", path.display());
        return Err(SinkError::write_failed(message).permanent());
    }
    Ok(())
}

/// Refuses to go on beside a file that is no log.
pub(super) fn refuse_foreign_log(path: &Path) -> Result<(), SinkError> {
    let path = beside(path, "-wal");
    let Ok(data) = fs::metadata(&path) else { return Ok(()) };
    let mut begin = [0; 4];
    let is_log = data.is_file()
        && (data.len() == 0
            || open_read(&path).and_then(|mut log| log.read_exact(&mut begin)).is_ok()
                && matches!(u32::from_be_bytes(begin), 0 | LOG_BIG_ENDIAN | LOG_LITTLE_ENDIAN));
    if is_log {
        return Ok(());
    }
    let message = format!("{} must be a write-ahead log of SQLite, and is none", path.display());
    Err(SinkError::write_failed(message).permanent())
}

/// How a log begins: <https://sqlite.org/fileformat.html#walformat>. One that a power cut has taken is full of zeros.
const LOG_LITTLE_ENDIAN: u32 = 0x377f_0682;
const LOG_BIG_ENDIAN: u32 = 0x377f_0683;

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
