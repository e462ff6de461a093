//! A database that can be asked while the run goes on.

mod child;
mod error;
mod files;
mod schema;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, OpenFlags, params};

use super::missing::Missing;
use super::panics::Panics;
use super::target::{in_real_folder, resolve};
use super::{Hook, Sink, SinkError};
use crate::batch::Batch;
use crate::event::{Event, Record};
use crate::origin::RunIdentity;
use crate::sync::{Home, unforked};
use error::failed;
use files::Left;

pub use child::{inside, refuse_inherited};
pub use files::{Live, open_fixed, open_to_read};
pub use schema::{row_to_record, version};

/// Sink that inserts records into an SQLite database, one transaction a batch.
///
/// The database is in WAL mode with `synchronous = NORMAL`: readers and this sink do not wait for each other, a process
/// that is killed loses nothing that was delivered, and a power cut may lose the last batches but leaves no broken file.
/// One writer a file; give every rank a file of its own.
///
/// Records stand in the order of delivery: of each batch, critical ones come first, and low ones take turns with normal
/// ones. `time` tells when each was made.
///
/// It takes every event that has a [`Record`] inside: `AsRef<Record>`. An event whose `AsRef` panics fails alone.
///
/// # Schema
///
/// Version 3, stored in `PRAGMA user_version`; `PRAGMA application_id` is `0x666f7265`. An older version is brought up to
/// date when the database is opened, a newer one is refused.
///
/// | table | columns |
/// |---|---|
/// | `runs` | `id`; `session`, the session id of the collector; `run_id`, `generation` and `name` of the training run, without one the session id, 1 and NULL; `began`, nanoseconds since 1970; `origin` (the source), `host`, `pid`, `rank`, as [`Origin`](crate::collector::Origin) reported them first: a session that goes on elsewhere keeps them |
/// | `names` | `id`; `name` |
/// | `events` | `id`, ascending in the order of delivery; `run`; `name`, an id; `time`, nanoseconds since 1970; `step` or NULL; `priority`, 0 critical, 1 normal, 2 low; `kind`; `value`; `source`; `correlation`; `record` |
///
/// `kind` is `scalar`, `integer`, `bool`, `text`, `empty` or `other`. `value` is a REAL, an INTEGER, or a TEXT; NaN, which
/// SQLite cannot store, is the text `NaN` of kind `scalar`. `record` is the whole record as JSON, where it has more than
/// these columns hold (fields, histograms, images, encoded messages, lists, sub-run, metadata, tags), else NULL.
///
/// Views: `scalars (run, name, step, time, value)` and `log (id, session, name, time, step, priority, kind, value,
/// source, correlation, record, run)`, with names instead of ids; and `run_info`, one row a run: `id`, to which `run`
/// in the other views refers; `run_id`, `name`, `generation`; `status` as [`RunStatus`](crate::run::RunStatus) has it,
/// in lower case, NULL without a training run; `started`, `ended` and `last_seen` (its last begin,
/// heartbeat or end) in nanoseconds since 1970; `reason`, why it ended; `config`, as JSON; `model_type`; `session`,
/// `origin`, `host`, `pid`, `rank`, `world_size`. Indices: by name and time, by name and step, by correlation id.
///
/// ```sql
/// SELECT step, value FROM scalars WHERE name = 'train.loss' ORDER BY step;
/// ```
///
/// # What can go wrong
///
/// * Events that are missing are reported by an event `forebay.gap` whose integer is their number, as in JSON Lines.
/// * Values nested deeper than [`Value::MAX_DEPTH`](crate::Value::MAX_DEPTH) (which `collect` refuses, but a hook may make)
///   cannot be stored and read back: that event is refused and counted.
/// * Another process holds the database: the batch waits for [`busy_timeout`](Self::busy_timeout) and fails. So it does when
///   the disk is full. Both are transient: the next batch is tried.
/// * The file is read-only, broken, or not a database of ours, or a text is larger than SQLite allows (a billion bytes):
///   permanent.
/// * The file is removed, moved, hidden or replaced, alone or with its folder: what was committed goes with it, out of the log
///   into the database, and the sink goes on in the database at the path, or creates a new one. Each batch looks before and
///   after it is inserted. What is at the path and no database of ours is refused and left as it is.
/// * A symbolic link, at the end of the path or in it, is followed once, by [`create`](Self::create).
/// * `-wal` or `-shm` beside it is removed or replaced: the database is opened again, with all that was committed. A file in the
///   place of `-wal` that is no log is refused and left as it is.
/// * In both cases a reader that is in the middle of a query can keep the log from being emptied. Batches fail until it is
///   done, which is transient, and a flush is an error. A sink that is dropped meanwhile leaves the log in place.
/// * The process forks: the fork waits until no sink is inside of SQLite, a second at most, and a child opens databases of its
///   own. Where a call took longer, [`create`](Self::create) is refused in the child. So is a database that the parent has open:
///   its locks would be taken for the child's. A sink of the parent is neither used nor closed in the child.
/// * A file that cannot be looked at, because the process has dropped its privileges, stays in use.
///
/// A batch that fails is rolled back as a whole.
pub struct SqliteSink {
    name: String,
    /// Path as it was given.
    path: PathBuf,
    /// Path without symbolic links.
    target: PathBuf,
    /// `None` after its files were removed or replaced, until it is begun anew.
    live: Option<Live>,
    /// Ids of names that are committed.
    names: Names,
    /// The run at hand.
    run: Option<Run>,
    /// Events that were lost on the way into this database and are not reported in it yet.
    missing: Missing,
    busy_timeout: Duration,
    /// True if the database had events when the sink was created.
    has_earlier_run: bool,
    /// The process that may use and close it.
    home: Home,
}

/// Row of the table of runs.
struct Run {
    session: Box<str>,
    /// `None` for a collector without a training run.
    identity: Option<RunIdentity>,
    id: i64,
}

impl Run {
    fn is_of<E>(&self, batch: &Batch<E>) -> bool {
        *self.session == *batch.session() && self.identity.as_ref() == batch.run()
    }
}

/// Ids of names. When they are too many, or too long, all are dropped and asked of the database again.
struct Names {
    ids: HashMap<Box<str>, i64>,
    /// Bytes that the names take, and that they may take.
    bytes: usize,
    max_bytes: usize,
}

/// Maximum number of names that are remembered.
const MAX_NAMES: usize = 100_000;

impl Names {
    fn insert(&mut self, name: &str, id: i64) {
        if name.len() > self.max_bytes {
            return;
        }
        if self.ids.len() >= MAX_NAMES || self.bytes + name.len() > self.max_bytes {
            self.clear();
        }
        self.bytes += name.len();
        self.ids.insert(name.into(), id);
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.bytes = 0;
    }
}

const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

const INSERT: &str =
    "INSERT INTO events (run, name, time, step, priority, kind, value, source, correlation, record)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

impl SqliteSink {
    /// Creates a sink named `sqlite` on the database at `path`, which is created if it is missing, with its parent folders.
    ///
    /// # Errors
    ///
    /// The file cannot be opened or written to, or it is not a database of ours, or one of a newer version; or this is a forked
    /// child that cannot use SQLite, or not for this file. The text names the path.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, SinkError> {
        let path = path.as_ref();
        Self::open(path).map_err(|error| error.with_path(path))
    }

    fn open(path: &Path) -> Result<Self, SinkError> {
        // Whatever the process makes its working directory later.
        let path = std::path::absolute(path)?;
        let target = in_real_folder(&resolve(&path)?)?;
        let home = Home::here();
        let (live, has_earlier_run) = inside(home, || {
            let live = Live::open(&target, |path| open(path, BUSY_TIMEOUT))?;
            let has_earlier_run = schema::has_events(&live.connection)?;
            Ok::<_, SinkError>((live, has_earlier_run))
        })??;
        Ok(Self {
            name: "sqlite".to_owned(),
            path,
            target,
            live: Some(live),
            names: Names { ids: HashMap::new(), bytes: 0, max_bytes: 16 << 20 },
            run: None,
            missing: Missing::default(),
            busy_timeout: BUSY_TIMEOUT,
            has_earlier_run,
            home,
        })
    }

    /// Sets the name that it is counted under, `sqlite` by default.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets how long a batch waits for another process that holds the database. Other sinks wait with it. Defaults to
    /// 100 ms.
    ///
    /// # Errors
    ///
    /// SQLite does not allow it.
    pub fn busy_timeout(mut self, timeout: Duration) -> Result<Self, SinkError> {
        // SQLite counts milliseconds in 31 bits.
        let timeout = timeout.min(Duration::from_millis(i32::MAX as u64));
        if let Some(live) = &self.live {
            inside(self.home, || live.connection.busy_timeout(timeout))?.map_err(failed)?;
        }
        self.busy_timeout = timeout;
        Ok(self)
    }

    /// Changes how many bytes of names are remembered, so that their ids need not be looked up. Defaults to 16 MiB.
    pub fn max_name_bytes(mut self, bytes: usize) -> Self {
        self.names.max_bytes = bytes;
        self
    }

    /// Returns where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the database if it is not the one at the path any more. Returns what became of what is committed, if it was left.
    fn leave_if_lost(&mut self) -> Result<Option<Left>, SinkError> {
        let Some(live) = self.live.take_if(|live| !live.is_found()) else { return Ok(None) };
        match live.leave() {
            Ok(left) => {
                self.names.clear();
                self.run = None;
                Ok(Some(left))
            }
            Err(stayed) => {
                let (live, error) = *stayed;
                self.live = Some(live);
                Err(error)
            }
        }
    }

    /// Goes on in the database at the path, if that is not the one that is open.
    fn find_again(&mut self) -> Result<(), SinkError> {
        // Before another one is opened: in one process, SQLite has two of the same file share what they know of it.
        self.leave_if_lost()?;
        if self.live.is_none() {
            self.names.clear();
            self.run = None;
            self.target = in_real_folder(&resolve(&self.target)?)?;
            self.live = Some(Live::open(&self.target, |path| open(path, self.busy_timeout))?);
        }
        Ok(())
    }

    /// Inserts a batch so that whoever opens the path, or the database that was moved meanwhile, finds it.
    fn insert_found(
        &mut self,
        batch: &Batch<&Record>,
        missing: u64,
    ) -> Result<Option<(u64, String)>, SinkError> {
        self.insert_found_by(batch, missing, || {})
    }

    fn insert_found_by(
        &mut self,
        batch: &Batch<&Record>,
        missing: u64,
        after_commit: impl FnOnce(),
    ) -> Result<Option<(u64, String)>, SinkError> {
        self.find_again()?;
        let inserted = self.insert(batch, missing).map_err(failed)?;
        after_commit();
        if !self.is_lost_meanwhile() {
            return Ok(inserted);
        }
        self.find_again()?;
        self.insert(batch, missing).map_err(failed)
    }

    /// Returns whether the batch that was just committed went with a file that was removed meanwhile.
    fn is_lost_meanwhile(&mut self) -> bool {
        // Should it fail, the batch is in the log: the next one tries again, and tells why.
        matches!(self.leave_if_lost(), Ok(Some(Left::Lost)))
    }

    /// Inserts a batch, and before it how many events are missing; how many of its events cannot be stored, and why
    /// the first cannot.
    fn insert(
        &mut self,
        batch: &Batch<&Record>,
        missing: u64,
    ) -> Result<Option<(u64, String)>, rusqlite::Error> {
        // Whoever calls has opened it.
        let Some(live) = &mut self.live else { return Err(rusqlite::Error::InvalidQuery) };
        let transaction =
            live.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        // Known again with the commit. Without it, or after a panic, names may be those of a transaction that was rolled back.
        let known = self.run.take();
        if known.is_none() {
            self.names.clear();
        }
        let run = match &known {
            Some(run) if run.is_of(batch) => run.id,
            _ => {
                let origin = batch.origin();
                // Without a training run, the session is one.
                let run_id = batch.run().map_or(&*origin.session_id, |run| &run.run_id);
                let generation = batch.run().map_or(1, |run| run.generation);
                let generation = i64::try_from(generation).unwrap_or(i64::MAX);
                let began = batch.time().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i64;
                transaction
                    .prepare_cached(
                        "INSERT INTO runs (session, began, origin, host, pid, rank, run_id, generation, name)
                        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
                    )?
                    .execute(params![
                        origin.session_id,
                        began,
                        origin.source,
                        origin.host,
                        origin.pid,
                        origin.rank.and_then(|rank| i64::try_from(rank).ok()),
                        run_id,
                        generation,
                        batch.run().and_then(|run| run.name.as_deref()),
                    ])?;
                transaction
                    .prepare_cached(
                        "SELECT id FROM runs WHERE session = ?1 AND run_id = ?2 AND generation = ?3",
                    )?
                    .query_row(params![batch.session(), run_id, generation], |row| row.get(0))?
            }
        };
        let mut refused = None;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            let mut add = |record: &Record| -> Result<bool, rusqlite::Error> {
                let name = Event::name(record);
                let id = match self.names.ids.get(name) {
                    Some(id) => *id,
                    None => {
                        let id = schema::intern(&transaction, name)?;
                        self.names.insert(name, id);
                        id
                    }
                };
                schema::insert(&mut insert, run, id, record)
            };
            if missing > 0 {
                let missing = i64::try_from(missing).unwrap_or(i64::MAX);
                add(&Record::integer("forebay.gap", missing).with_time(batch.time()))?;
            }
            for record in batch {
                if !add(record)? {
                    let name = Event::name(*record);
                    let why = || format!("{name:?} has values nested too deep");
                    refused = refused.map(|(events, why)| (events + 1, why)).or_else(|| Some((1, why())));
                }
            }
        }
        transaction.commit()?;
        self.run = Some(Run { session: batch.session().into(), identity: batch.run().cloned(), id: run });
        Ok(refused)
    }
}

impl<E: AsRef<Record>> Sink<E> for SqliteSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::Open(account) = hook
            && self.has_earlier_run
        {
            account.note_earlier_run(&self.path);
        }
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let mut panics = Panics::of("an event's AsRef<Record>");
        let records = panics.records(batch);
        // Those were found by user code, which may have forked.
        batch.check()?;
        let missing = self.missing.before(batch);
        match inside(self.home, || self.insert_found(&records, missing))? {
            Ok(refused) => {
                let refused_events = refused.as_ref().map_or(0, |(events, _)| *events);
                self.missing.mark_reported(refused_events.saturating_add(panics.events()));
                let rest = match refused {
                    None => Ok(()),
                    Some((events, why)) => {
                        Err(SinkError::write_failed(why).permanent().with_failed_events(events))
                    }
                };
                panics.join(rest, records.len())
            }
            Err(error) => {
                // The transaction was rolled back, with its names and its run.
                self.names.clear();
                self.run = None;
                self.missing.add(batch);
                Err(error)
            }
        }
    }

    /// Checks whether the files are still there. Nothing is to be written; but should they have been moved, all that is
    /// committed goes with them.
    fn flush(&mut self) -> Result<(), SinkError> {
        inside(self.home, || self.leave_if_lost())??;
        Ok(())
    }
}

impl Drop for SqliteSink {
    fn drop(&mut self) {
        if self.home.is_left() {
            // A forked child must not close what is its parent's.
            return std::mem::forget(self.live.take());
        }
        unforked(|| {
            if self.leave_if_lost().is_err() {
                // What is in the log stays there.
                _ = self.live.take().map(Live::close);
            }
            drop(self.live.take());
        });
    }
}

fn open(path: &Path, busy_timeout: Duration) -> Result<Connection, SinkError> {
    files::refuse_foreign(path)?;
    files::refuse_foreign_log(path)?;
    refuse_inherited(path)?;
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Connection::open_with_flags(path, flags).map_err(failed)?;
    database.busy_timeout(busy_timeout).map_err(failed)?;
    schema::prepare(&mut database)?;
    Ok(database)
}

impl fmt::Debug for SqliteSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteSink")
            .field("name", &self.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn count(path: &Path) -> u64 {
        Connection::open(path)
            .unwrap()
            .query_row("SELECT count(*) FROM events", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn a_batch_is_inserted_once_although_a_file_goes_right_behind_the_commit() {
        // What goes, and how many events are in the database at the path and in the one that was moved.
        for (gone, counts) in
            [("-wal", (3, None)), ("-shm", (3, None)), ("moved", (1, Some(2))), ("", (2, None))]
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.db");
            let moved = folder.path().join("moved.db");
            let mut sink = SqliteSink::create(&path).unwrap();
            let batch = Batch::from_events(vec![Record::new("event")]);
            sink.write_batch(&batch).unwrap();
            let after_commit = || match gone {
                "moved" => fs::rename(&path, &moved).unwrap(),
                end => fs::remove_file(folder.path().join(format!("events.db{end}"))).unwrap(),
            };
            sink.insert_found_by(&batch.with_events(batch.iter().collect()), 0, after_commit).unwrap();
            sink.write_batch(&batch).unwrap();
            drop(sink);
            assert_eq!((count(&path), moved.exists().then(|| count(&moved))), counts, "{gone:?} goes");
        }
    }
}
