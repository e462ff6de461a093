//! SQLite in a process that forks.
//!
//! SQLite has locks of its own that all connections of a process share, and a list of all files that are open. A child that is
//! forked while another thread is inside of SQLite would wait for these locks for ever. So every call is a section that a fork
//! waits for ([`unforked`]); where a call takes longer than forks wait, the child is refused. The connections and files of the
//! parent stay in that list: a child must neither use nor close them, nor open the same file, of which its SQLite would believe
//! that it holds the locks of the parent.

use std::fs;
use std::path::Path;

use crate::sink::SinkError;
use crate::sync::{Home, PlainMutex, unforked};
use crate::unix::{FileId, file_id, is_without_lost_threads};

/// Reason why a forked child cannot use SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error(
        "sqlite cannot be used in this forked child: another thread of the parent was inside it during the fork"
    )]
    Lost,
    #[error("the connection is that of the parent of this forked child")]
    Parents,
    #[error("the database is open in the parent of this forked child, which shares its locks")]
    Open,
}

impl From<Refused> for SinkError {
    fn from(refused: Refused) -> Self {
        Self::unavailable(refused.to_string()).with_source(refused).permanent()
    }
}

/// Runs `body`, which calls SQLite with what was made in `home`.
pub fn inside<R>(home: Home, body: impl FnOnce() -> R) -> Result<R, Refused> {
    if home.is_left() {
        return Err(Refused::Parents);
    }
    if !is_without_lost_threads() {
        return Err(Refused::Lost);
    }
    Ok(unforked(body))
}

/// The databases that are open. Used by [`with_open`] alone.
static OPEN: PlainMutex<Vec<(FileId, Home)>> = PlainMutex::fixed(Vec::new());

/// Calls `body` with the databases that are open. A fork waits for that, so that no child finds the list locked.
fn with_open<R>(body: impl FnOnce(&mut Vec<(FileId, Home)>) -> R) -> R {
    unforked(|| body(&mut OPEN.lock()))
}

/// Makes known that a database is open, until it is dropped.
#[derive(Debug)]
pub(crate) struct Open(Option<(FileId, Home)>);

impl Open {
    /// Registers the open database at `path`.
    pub(crate) fn at(path: &Path) -> Self {
        let open = id_at(path).map(|id| (id, Home::here()));
        with_open(|list| list.extend(open));
        Self(open)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(own) = self.0.filter(|(_, home)| !home.is_left()) {
            with_open(|list| {
                if let Some(place) = list.iter().position(|it| *it == own) {
                    list.swap_remove(place);
                }
            });
        }
    }
}

/// Refuses a database that the parent of this forked child has open.
pub fn refuse_inherited(path: &Path) -> Result<(), Refused> {
    let is_inherited = |id| with_open(|list| list.iter().any(|(other, home)| *other == id && home.is_left()));
    if id_at(path).is_some_and(is_inherited) { Err(Refused::Open) } else { Ok(()) }
}

fn id_at(path: &Path) -> Option<FileId> {
    fs::metadata(path).ok().as_ref().and_then(file_id)
}
