//! The three files of a live database: itself, its write-ahead log (`-wal`) and the index of that (`-shm`).
//!
//! SQLite finds them by name when it opens the database, and trusts the names from then on. Should one of them be removed or
//! replaced, what is committed is found by nobody, and closing the database removes files that belong to another one.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::child::Open;
use crate::sink::SinkError;
use crate::sink::presence::{Found, look};
use crate::unix::{FileId, file_id, is_unlinked, open_handle, open_read};

/// Live database, and what its files were when it was opened.
#[derive(Debug)]
pub struct Live {
    /// The connection.
    pub connection: Connection,
    database: Part,
    log: Part,
    index: Part,
    /// The database itself, to ask whether it has a name. `None` where the platform has no such descriptors.
    handle: Option<File>,
    /// Dropped behind the connection.
    _open: Open,
}

#[derive(Debug)]
pub(super) struct Part {
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

    /// Returns whether the file is still there. One without a known identity, or that cannot be looked at, is not missed.
    fn is_found(&self) -> bool {
        self.id.is_none() || matches!(self.look(), Found::Own(_) | Found::Unknown)
    }

    fn remove_own(&self) {
        if self.id.is_some() && matches!(self.look(), Found::Own(_)) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Number of times that it is opened anew because it was replaced meanwhile.
const MAX_TRIES: u32 = 3;

impl Live {
    /// Opens a database, and takes note of its files.
    pub(super) fn open(
        path: &Path,
        open: impl Fn(&Path) -> Result<Connection, SinkError>,
    ) -> Result<Self, SinkError> {
        for _ in 0..MAX_TRIES {
            let before = Part::of(path.to_owned()).id;
            let live = Self::of(path, open(path)?);
            if before.is_none() || before == live.database.id {
                return Ok(live);
            }
            // Nothing was written to it.
            live.close();
        }
        Err(SinkError::unavailable("the database was replaced while it was opened"))
    }

    /// Opens a database once. Should it be replaced meanwhile, it is not found from the first look on.
    pub fn open_once<E>(path: &Path, open: impl FnOnce() -> Result<Connection, E>) -> Result<Self, E> {
        let before = Part::of(path.to_owned()).id;
        let mut live = Self::of(path, open()?);
        live.database.id = before.or(live.database.id);
        Ok(live)
    }

    /// Takes note of the files of a database that was opened at `path`.
    fn of(path: &Path, connection: Connection) -> Self {
        let database = Part::of(path.to_owned());
        let is_same = |file: &File| file.metadata().is_ok_and(|data| file_id(&data) == database.id);
        Self {
            connection,
            handle: open_handle(path).ok().filter(is_same),
            database,
            log: Part::of(beside(path, "-wal")),
            index: Part::of(beside(path, "-shm")),
            _open: Open::at(path),
        }
    }

    /// Returns whether a reader that opens the path finds what is committed here.
    pub fn is_found(&self) -> bool {
        let is_there = match self.database.id {
            Some(_) => self.database.is_found() && !self.is_unlinked(),
            None => self.database.look() != Found::Nothing,
        };
        is_there && self.log.is_found() && self.index.is_found()
    }

    fn is_unlinked(&self) -> bool {
        self.handle.as_ref().is_some_and(is_unlinked)
    }

    /// Leaves a database of which a file was removed or replaced. What is committed comes from the log into the database,
    /// wherever that is now; no file of another database is removed.
    ///
    /// Fails, and gives the database back, as long as a reader or an error keeps something in the log.
    pub(super) fn leave(self) -> Result<Left, Box<(Self, SinkError)>> {
        let is_unlinked = self.is_unlinked();
        let is_moved = is_unlinked || !self.database.is_found();
        // Should somebody have begun another log for the same database, theirs is newer.
        let has_successor = !is_moved
            && self.log.look() == Found::Other
            && fs::symlink_metadata(&self.log.path).is_ok_and(|data| data.len() > 0)
            && refuse_foreign_log(&self.database.path).is_ok();
        let is_lost = is_unlinked || has_successor;
        let is_known = self.handle.is_some();
        if !is_lost && let Err(error) = self.empty_log(is_moved) {
            return Err(Box::new((self, error)));
        }
        let (log, index) = self.close();
        if is_moved {
            // The next database at the path would take them for its own.
            log.remove_own();
            index.remove_own();
        }
        // Without a handle, nobody knows whether a database that is not at the path has a name elsewhere.
        Ok(if is_lost || is_moved && !is_known { Left::Lost } else { Left::Kept })
    }

    /// Copies all that is in the log into the database. Where readers stop that, waits for them, as long as the busy timeout
    /// says.
    fn empty_log(&self, is_moved: bool) -> Result<(), SinkError> {
        // Readers know the log by the common index, and go on in the one that they have open. A database that goes on with
        // another log must begin that anew, for which no reader may use the old one.
        let ways: &[&str] = if is_moved { &["PASSIVE", "FULL"] } else { &["TRUNCATE"] };
        let mut outcome = Ok(());
        for way in ways {
            let sql = format!("PRAGMA wal_checkpoint({way})");
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            };
            outcome = match self.connection.query_row(&sql, [], row) {
                Ok((0, frames, copied)) if frames == copied => return Ok(()),
                Ok(_) => {
                    let why = "a file of the database was moved, removed or replaced, and a reader of the old state \
                        keeps its log from being emptied";
                    Err(SinkError::unavailable(why))
                }
                Err(error) => {
                    let why =
                        format!("the log of a database that was moved or replaced was not emptied: {error}");
                    Err(SinkError::unavailable(why).with_source(error))
                }
            };
        }
        outcome
    }

    /// Closes the connection and leaves all files as they are; returns the two beside the database.
    pub(super) fn close(self) -> (Part, Part) {
        // Otherwise SQLite copies what it can, and removes the log by its name.
        _ = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        drop(self.connection);
        (self.log, self.index)
    }
}

/// Fate of all that is committed in a database that was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The content is in the database, at the path or wherever that was moved.
    Kept,
    /// Nobody finds it.
    Lost,
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

/// First bytes of a log: <https://sqlite.org/fileformat.html#walformat>. One that a power cut has taken is full of zeros.
const LOG_LITTLE_ENDIAN: u32 = 0x377f_0682;
const LOG_BIG_ENDIAN: u32 = 0x377f_0683;

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

const TO_READ: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// Opens a database for reading alone. Where SQLite can neither find nor make the files that readers and writers share, as on a disk that is
/// read-only, and no log has anything that is not in the database, opens it as one that does not change. Returns whether it is one of these.
pub fn open_to_read(path: &Path) -> Result<(Connection, bool), rusqlite::Error> {
    let database = Connection::open_with_flags(path, TO_READ)?;
    match database.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())) {
        Err(error)
            if matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                && !fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) =>
        {
            Ok((open_fixed(path)?, true))
        }
        // Whatever else it is comes again with the first question.
        _ => Ok((database, false)),
    }
}

/// Opens a database that does not change.
pub fn open_fixed(path: &Path) -> Result<Connection, rusqlite::Error> {
    // What has a meaning in a URI (RFC 3986).
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Connection::open_with_flags(format!("file:{path}?immutable=1"), TO_READ | OpenFlags::SQLITE_OPEN_URI)
}
