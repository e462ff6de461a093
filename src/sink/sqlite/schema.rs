//! The tables, and how a record becomes a row and a record again.

use rusqlite::types::{ToSqlOutput, Value as Cell, ValueRef};
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Row, Transaction};

use super::error::failed;
use crate::event::{Event, Priority, Record, Value};
use crate::sink::SinkError;

/// `fore`, in ASCII.
const APPLICATION: i64 = 0x666f_7265;

/// Statements that bring a database of version n to version n + 1, from 0, which is an empty one.
///
/// Any SQLite from 3.8.3 on must be able to read what stays in the database: see `docs/reading.md`. One view with newer
/// syntax makes the whole file unreadable for it.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        session TEXT NOT NULL UNIQUE,
        began INTEGER NOT NULL
    );
    CREATE TABLE names (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    );
    CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        run INTEGER NOT NULL REFERENCES runs (id),
        name INTEGER NOT NULL REFERENCES names (id),
        time INTEGER NOT NULL,
        step INTEGER,
        priority INTEGER NOT NULL,
        kind TEXT NOT NULL,
        value,
        source TEXT,
        correlation TEXT,
        record TEXT
    );
    CREATE INDEX events_by_time ON events (name, time);
    CREATE INDEX events_by_step ON events (name, step) WHERE step IS NOT NULL;
    CREATE INDEX events_by_correlation ON events (correlation) WHERE correlation IS NOT NULL;
    CREATE VIEW scalars AS
        SELECT run, names.name AS name, step, time, value
        FROM events JOIN names ON names.id = events.name WHERE kind = 'scalar';
    CREATE VIEW log AS
        SELECT events.id AS id, session, names.name AS name, time, step, priority, kind, value, source, correlation,
            record
        FROM events JOIN names ON names.id = events.name JOIN runs ON runs.id = events.run;
",
    "
    ALTER TABLE runs ADD COLUMN origin TEXT;
    ALTER TABLE runs ADD COLUMN host TEXT;
    ALTER TABLE runs ADD COLUMN pid INTEGER;
    ALTER TABLE runs ADD COLUMN rank INTEGER;
",
    // SQLite changes no constraint of a table: it is made anew. `ALTER TABLE ... RENAME` would fail where a view or a trigger of
    // the user reads what is replaced. A session of several runs gets a row for each run. The first run keeps the old row and
    // its id, and has the events from before it began.
    "
    CREATE TEMP TABLE begins (
        id INTEGER PRIMARY KEY,
        run INTEGER,
        run_id TEXT,
        generation INTEGER,
        time INTEGER
    );
    INSERT INTO temp.begins
        SELECT events.id, run, coalesce(json_extract(record, '$.fields.run_id'), session),
            coalesce(json_extract(record, '$.fields.generation'), 1), time
        FROM main.events JOIN main.names ON names.id = events.name JOIN main.runs ON runs.id = run
        WHERE names.name = 'training.started';
    CREATE INDEX temp.begins_by_run ON begins (run);
    CREATE TEMP TABLE old_runs AS SELECT * FROM main.runs;
    DROP VIEW scalars;
    DROP VIEW log;
    DROP TABLE runs;
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        session TEXT NOT NULL,
        run_id TEXT NOT NULL,
        generation INTEGER NOT NULL,
        name TEXT,
        began INTEGER NOT NULL,
        origin TEXT,
        host TEXT,
        pid INTEGER,
        rank INTEGER,
        UNIQUE (session, run_id, generation)
    );
    INSERT INTO main.runs
        -- With min and max, SQLite takes the other columns from the row in which it found that.
        WITH first AS (SELECT min(id), run, run_id, generation FROM temp.begins GROUP BY run)
        SELECT id, session, coalesce(first.run_id, session), coalesce(first.generation, 1), NULL, began, origin, host,
            pid, rank
        FROM temp.old_runs LEFT JOIN first ON first.run = old_runs.id;
    INSERT OR IGNORE INTO main.runs (session, run_id, generation, began, origin, host, pid, rank)
        SELECT session, run_id, generation, time, origin, host, pid, rank
        FROM temp.begins JOIN temp.old_runs ON old_runs.id = begins.run ORDER BY begins.id;
    UPDATE main.events SET run = (
            SELECT runs.id FROM temp.begins JOIN temp.old_runs ON old_runs.id = begins.run
                JOIN main.runs ON runs.session = old_runs.session AND runs.run_id = begins.run_id
                    AND runs.generation = begins.generation
            WHERE begins.run = events.run AND begins.id <= events.id ORDER BY begins.id DESC LIMIT 1
        )
        WHERE id >= (SELECT min(id) FROM temp.begins WHERE begins.run = events.run)
            AND run IN (SELECT run FROM temp.begins GROUP BY run HAVING count(*) > 1);
    DROP TABLE temp.begins;
    DROP TABLE temp.old_runs;
    CREATE VIEW scalars AS
        SELECT run, names.name AS name, step, time, value
        FROM events JOIN names ON names.id = events.name WHERE kind = 'scalar';
    CREATE VIEW log AS
        SELECT events.id AS id, session, names.name AS name, time, step, priority, kind, value, source, correlation,
            record, events.run AS run
        FROM events JOIN names ON names.id = events.name JOIN runs ON runs.id = events.run;
    CREATE VIEW run_info AS
        WITH life AS (
            -- These events name their run, because another one may have begun before they were written. Events that were made
            -- by hand may name a run that the collector does not know. Without `run_id`, their `generation` is a field of their own.
            SELECT coalesce(runs.id, written.id) AS run, events.id AS id, names.name AS name, time, record
            FROM events JOIN names ON names.id = events.name JOIN runs AS written ON written.id = events.run
                LEFT JOIN runs ON runs.session = written.session
                    AND runs.run_id = coalesce(json_extract(record, '$.fields.run_id'), written.run_id)
                    AND runs.generation = CASE
                        WHEN json_extract(record, '$.fields.run_id') IS NULL THEN written.generation
                        ELSE coalesce(json_extract(record, '$.fields.generation'), written.generation)
                    END
            WHERE names.name IN ('training.started', 'training.heartbeat', 'training.completed', 'training.early_stopped',
                'training.failed', 'training.preempted')
                AND (runs.id IS NOT NULL OR written.run_id = written.session)
        ),
        -- With min and max, SQLite takes the other columns from the row in which it found that.
        begins AS (
            SELECT run, min(id), time, record FROM life WHERE name IN ('training.started', 'training.heartbeat')
            GROUP BY run
        ),
        ends AS (
            SELECT run, max(id), name, time, record FROM life
            WHERE name NOT IN ('training.started', 'training.heartbeat') GROUP BY run
        ),
        last AS (SELECT run, max(id), time FROM life GROUP BY run),
        states AS (
            SELECT runs.*, ends.name AS ending, ends.time AS ended, last.time AS last_seen,
                coalesce(begins.time, began) AS started,
                -- Readers take a run for vanished after three heartbeats.
                3000000000 * json_extract(begins.record, '$.fields.heartbeat') AS max_silence,
                CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000000 AS now,
                coalesce(json_extract(ends.record, '$.fields.error'), json_extract(ends.record, '$.fields.reason'))
                    AS reason,
                json_extract(begins.record, '$.fields.config') AS config,
                json_extract(begins.record, '$.fields.model_type') AS model_type,
                json_extract(begins.record, '$.fields.world_size') AS world_size
            FROM runs LEFT JOIN begins ON begins.run = runs.id LEFT JOIN ends ON ends.run = runs.id
                LEFT JOIN last ON last.run = runs.id
        )
        SELECT id, run_id, name, generation,
            CASE
                WHEN ending IN ('training.completed', 'training.early_stopped') THEN 'finished'
                WHEN ending = 'training.failed' THEN 'failed'
                WHEN ending = 'training.preempted' THEN 'preempted'
                WHEN now - last_seen > max_silence THEN 'vanished'
                WHEN last_seen - now > max_silence THEN 'unclear'
                WHEN last_seen IS NOT NULL THEN 'running'
            END AS status,
            started, ended, last_seen, reason, config, model_type, session, origin, host, pid, rank, world_size
        FROM states;
",
];

/// Makes a database ours: its mode, and its tables in the newest version.
pub(super) fn prepare(database: &mut Connection) -> Result<(), SinkError> {
    // Before anything is changed: it may be somebody else's.
    let known = version(database)?;
    // Where the file system has no shared memory, SQLite keeps to another mode, which is slower but as safe.
    let _: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    database.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
    // Every id that is inserted was just looked up: checking it again would be a third of the time.
    database.pragma_update(None, "foreign_keys", false).map_err(failed)?;
    // The last pages of the indices of many names: 16 MiB at most.
    database.pragma_update(None, "cache_size", -16_384).map_err(failed)?;
    if known == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction =
        database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).map_err(failed)?;
    // Another process may have been here meanwhile.
    let known = version(&transaction)?;
    refuse_taken(&transaction, known)?;
    let attached = take_attached(&transaction)?;
    for migration in MIGRATIONS.iter().skip(known) {
        transaction.execute_batch(migration).map_err(failed)?;
    }
    attach(&transaction, attached)?;
    // After some errors SQLite rolls everything back by itself. What follows would then be committed alone, and give the new
    // version to the old tables.
    if transaction.is_autocommit() {
        return Err(SinkError::write_failed("SQLite rolled back the new version of the tables"));
    }
    transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64).map_err(failed)?;
    transaction.commit().map_err(failed)
}

/// Refuses an old database in which the user has taken the name of our new view.
fn refuse_taken(transaction: &Transaction<'_>, known: usize) -> Result<(), SinkError> {
    if known == MIGRATIONS.len() {
        return Ok(());
    }
    let sql =
        "SELECT type, name FROM sqlite_schema WHERE name = 'run_info' COLLATE NOCASE AND type != 'trigger'";
    let taken = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let taken: Option<(String, String)> = transaction.query_row(sql, [], taken).optional().map_err(failed)?;
    taken.map_or(Ok(()), |(kind, name)| {
        let newest = MIGRATIONS.len();
        let message =
            format!("the database has a {kind} named {name:?}, which version {newest} needs for a view: rename the {kind}");
        Err(SinkError::unavailable(message).permanent())
    })
}

/// Trigger or index.
struct Attached {
    kind: &'static str,
    name: String,
    sql: String,
}

/// Drops the triggers of a database, and returns its triggers and indices.
///
/// Users attach them to our tables and views. A table or view that is made anew loses its own, and a trigger may refuse what a
/// migration changes.
fn take_attached(transaction: &Transaction<'_>) -> Result<Vec<Attached>, SinkError> {
    let of = |kind: &'static str| -> Result<Vec<Attached>, rusqlite::Error> {
        let sql = "SELECT name, sql FROM sqlite_schema WHERE type = ?1 AND sql IS NOT NULL ORDER BY rowid";
        let rows = &mut transaction.prepare(sql)?;
        rows.query_map([kind], |row| Ok(Attached { kind, name: row.get(0)?, sql: row.get(1)? }))?.collect()
    };
    let mut attached = of("trigger").map_err(failed)?;
    for trigger in &attached {
        let sql = format!("DROP TRIGGER main.\"{}\"", trigger.name.replace('"', "\"\""));
        transaction.execute_batch(&sql).map_err(failed)?;
    }
    attached.extend(of("index").map_err(failed)?);
    Ok(attached)
}

/// Creates again what is gone of these triggers and indices.
fn attach(transaction: &Transaction<'_>, attached: Vec<Attached>) -> Result<(), SinkError> {
    for Attached { kind, name, sql } in attached {
        // A trigger may have the name of a table.
        let is_gone = "SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = ?1 AND name = ?2)";
        if !transaction.query_row(is_gone, [kind, &name], |row| row.get(0)).map_err(failed)? {
            continue;
        }
        match transaction.execute_batch(&sql) {
            // A unique index that the new rows violate is left out: it must not keep the database from being opened.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {}
            result => result.map_err(failed)?,
        }
    }
    Ok(())
}

/// Returns the version of a database of ours; 0 for an empty one.
pub fn version(database: &Connection) -> Result<usize, SinkError> {
    let number = |sql: &str| -> Result<i64, SinkError> {
        database.query_row(sql, [], |row| row.get(0)).map_err(failed)
    };
    if number("SELECT count(*) FROM sqlite_schema")? > 0 && number("PRAGMA application_id")? != APPLICATION {
        return Err(SinkError::unavailable("the database holds tables of something else").permanent());
    }
    let version = number("PRAGMA user_version")?;
    let newest = MIGRATIONS.len();
    match usize::try_from(version) {
        Ok(version) if version <= newest => Ok(version),
        _ => {
            let message =
                format!("the database has version {version}, this program knows versions up to {newest}");
            Err(SinkError::unavailable(message).permanent())
        }
    }
}

/// Returns whether a database of ours holds any event.
pub(super) fn has_events(database: &Connection) -> Result<bool, SinkError> {
    database.query_row("SELECT EXISTS (SELECT 1 FROM events)", [], |row| row.get(0)).map_err(failed)
}

/// Returns the id of a name, which is new to the sink but may be known to the database.
pub(super) fn intern(transaction: &Transaction<'_>, name: &str) -> Result<i64, rusqlite::Error> {
    let known = transaction
        .prepare_cached("SELECT id FROM names WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    match known {
        Some(id) => Ok(id),
        None => transaction.prepare_cached("INSERT INTO names (name) VALUES (?1)")?.insert([name]),
    }
}

/// Inserts a record; `false` if it cannot be stored, or could not be read back.
pub(super) fn insert(
    statement: &mut CachedStatement<'_>,
    run: i64,
    name: i64,
    record: &Record,
) -> Result<bool, rusqlite::Error> {
    if record.is_too_deep() {
        return Ok(false);
    }
    let (kind, value) = match record.value() {
        // NaN would be stored as NULL.
        Value::Scalar(number) if number.is_nan() => ("scalar", ValueRef::Text(b"NaN")),
        Value::Scalar(number) => ("scalar", ValueRef::Real(*number)),
        Value::Integer(number) => ("integer", ValueRef::Integer(*number)),
        Value::Bool(is) => ("bool", ValueRef::Integer(i64::from(*is))),
        Value::Text(text) => ("text", ValueRef::Text(text.as_bytes())),
        Value::Empty => ("empty", ValueRef::Null),
        _ => ("other", ValueRef::Null),
    };
    let extra = record.extra();
    // A NaN with a payload, or a negative one, is a NaN.
    let whole = (kind == "other" || extra.is_some()).then(|| serde_json::to_string(record)).transpose();
    let whole = whole.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    statement.execute(rusqlite::params![
        run,
        name,
        record.unix_nanos() as i64,
        record.signed_step(),
        record.priority() as i64,
        kind,
        ToSqlOutput::Borrowed(value),
        extra.and_then(|extra| extra.source.as_deref()),
        extra.and_then(|extra| extra.correlation_id.as_deref()),
        whole,
    ])?;
    Ok(true)
}

/// Converts a row of `name, time, step, priority, kind, value, record` to the record that it was.
pub fn row_to_record(row: &Row<'_>) -> Result<Record, rusqlite::Error> {
    let broken = |column, what: &str| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, what.into())
    };
    if let Some(whole) = row.get_ref(6)?.as_str_or_null()? {
        return serde_json::from_str(whole).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, error.into())
        });
    }
    let name: String = row.get(0)?;
    let kind: String = row.get(4)?;
    let value = match (&*kind, row.get(5)?) {
        ("scalar", Cell::Real(number)) => Value::Scalar(number),
        ("scalar", Cell::Text(_)) => Value::Scalar(f64::NAN),
        ("integer", Cell::Integer(number)) => Value::Integer(number),
        ("bool", Cell::Integer(is)) => Value::Bool(is != 0),
        ("text", Cell::Text(text)) => Value::from(text),
        ("empty", Cell::Null) => Value::Empty,
        _ => return Err(broken(5, "a value that is not of its kind")),
    };
    let record = Record::with_value(name, value).with_unix_nanos(row.get::<_, i64>(1)? as u64);
    let record = match row.get::<_, Option<i64>>(2)? {
        Some(step) => record.with_signed_step(step),
        None => record,
    };
    Ok(record.with_priority(match row.get::<_, i64>(3)? {
        0 => Priority::Critical,
        2 => Priority::Low,
        _ => Priority::Normal,
    }))
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, ErrorCode};

    use super::{APPLICATION, MIGRATIONS, prepare};

    #[test]
    fn an_old_sqlite_can_read_what_stays_in_the_database() {
        // One of these words in one view makes the whole file unreadable for a release that does not know it.
        for word in [" MATERIALIZED", "RETURNING", "->", " OVER ", "FILTER", "STRICT", "GENERATED", "RENAME"]
        {
            assert!(MIGRATIONS.iter().all(|sql| !sql.contains(word)), "{word}");
        }
    }

    /// Returns a database of version 2 with runs and an index of the user.
    fn of_version_2() -> Connection {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch(&MIGRATIONS[..2].concat()).unwrap();
        let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 300)
            INSERT INTO runs (session, began, host) SELECT printf('%0100d', n), n, printf('%0200d', n) FROM n;
            CREATE INDEX runs_by_host ON runs (host, session)";
        database.execute_batch(sql).unwrap();
        database.pragma_update(None, "application_id", APPLICATION).unwrap();
        database.pragma_update(None, "user_version", 2).unwrap();
        database
    }

    fn number(database: &Connection, sql: &str) -> i64 {
        database.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_migration_that_finds_no_space_changes_nothing_wherever_that_is() {
        let index = "SELECT count(*) FROM sqlite_schema WHERE name = 'runs_by_host'";
        let first = number(&of_version_2(), "PRAGMA page_count");
        let mut refused = 0;
        for pages in first.. {
            let mut database = of_version_2();
            let _: i64 = database
                .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get(0))
                .unwrap();
            let result = prepare(&mut database);
            assert!(database.is_autocommit(), "{pages} pages");
            assert_eq!(number(&database, index), 1, "{pages} pages: {result:?}");
            let version = number(&database, "PRAGMA user_version");
            let has_view = number(&database, "SELECT count(*) FROM sqlite_schema WHERE name = 'run_info'");
            let Err(error) = result else {
                assert_eq!((version, has_view), (3, 1), "{pages} pages");
                break;
            };
            let cause =
                std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
            let code = cause.and_then(rusqlite::Error::sqlite_error_code);
            assert_eq!(code, Some(ErrorCode::DiskFull), "{pages} pages: {error}");
            assert_eq!((version, has_view), (2, 0), "{pages} pages");
            refused += 1;
        }
        assert!(refused > 0, "the limit was never reached");
    }
}
