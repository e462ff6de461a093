//! P9 with SQLite, whose locks are those of the process: a forked child opens a database of its own, whatever the threads of its
//! parent are doing, or learns why it cannot.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::child::in_child;
use crate::support::*;
use forebay::sink::{Sink, SqliteSink};
use forebay::{Batch, Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History, SqliteHistory};

/// One test at a time: what a thread of this process does inside of SQLite is felt in the children of all tests.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes some events into a database of its own, and reads them back.
fn keeps_its_own(path: &Path) -> bool {
    let own = Collector::builder().sink(SqliteSink::create(path).unwrap()).start().unwrap();
    (0..10).for_each(|number| _ = own.collect(Record::integer("child", number)));
    own.stop().unwrap();
    law(&own, 10);
    drop(own);
    SqliteHistory::open(path).unwrap().query(&EventQuery::new()).unwrap().len() == 10
}

#[test]
fn a_child_opens_a_database_of_its_own_while_threads_of_its_parent_are_inside_sqlite() {
    alone!();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parent.db");
    let often = FlushStrategy::Hybrid { events: 64, interval: Duration::from_millis(1) };
    let collector =
        Collector::builder().flush(often).sink(SqliteSink::create(&path).unwrap()).start().unwrap();
    let is_over = AtomicBool::new(false);
    let mut offered = 0;
    std::thread::scope(|scope| {
        let raise = Raise(&is_over);
        let producer = scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                collector.collect(Record::integer("parent", number));
                number += 1;
                if number % 64 == 0 {
                    let _ = collector.flush().unwrap();
                }
            }
            number as u64
        });
        scope.spawn(|| {
            let history = SqliteHistory::open(&path).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                assert!(history.query(&EventQuery::new().limit(10)).unwrap().len() <= 10);
            }
        });
        for number in 0..100 {
            let own = folder.path().join(format!("{number}.db"));
            assert_eq!(in_child(|| keeps_its_own(&own)), Some(0), "child {number} hangs or failed");
        }
        drop(raise);
        offered = producer.join().unwrap();
    });
    collector.stop().unwrap();
    let stats = law(&collector, offered);
    assert_eq!(stats.sinks[0].failed, 0);
    let kept = SqliteHistory::open(&path).unwrap().query(&EventQuery::new()).unwrap();
    assert_eq!(kept.iter().filter(|record| record.name() == "parent").count() as u64, stats.processed);
}

#[test]
fn a_child_opens_a_database_while_threads_of_its_parent_begin_and_end_others() {
    alone!();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let [path, other, own] = ["parent.db", "other.db", "own.db"].map(|name| folder.path().join(name));
    for path in [&path, &other, &own] {
        drop(SqliteSink::create(path).unwrap());
    }
    // So that it takes long to find one in the list of all.
    let _open: Vec<_> = (0..300).map(|_| SqliteHistory::open(&other).unwrap()).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _raise = Raise(&is_over);
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(SqliteHistory::open(&path).unwrap());
            }
        });
        for number in 0..300 {
            let status = in_child(|| SqliteHistory::open(&own).is_ok());
            assert_eq!(status, Some(0), "child {number} hangs or failed");
        }
    });
}

#[test]
fn a_child_neither_uses_nor_closes_a_database_that_its_parent_has_open() {
    alone!();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parent.db");
    let collector = Collector::builder().sink(SqliteSink::create(&path).unwrap()).start().unwrap();
    collector.collect(Record::integer("parent", 0));
    let _ = collector.flush().unwrap();
    let history = Cell::new(Some(SqliteHistory::open(&path).unwrap()));
    let unused = Cell::new(Some(SqliteSink::create(folder.path().join("unused.db")).unwrap()));
    let status = in_child(|| {
        let open = "open in the parent of this forked child";
        assert!(SqliteSink::create(&path).unwrap_err().to_string().contains(open));
        assert!(SqliteHistory::open(&path).unwrap_err().source.to_string().contains(open));
        let history = history.take().unwrap();
        let refused = history.query(&EventQuery::new()).unwrap_err().source.to_string();
        assert!(refused.contains("the connection is that of the parent"), "{refused}");
        drop(history);
        let mut unused = unused.take().unwrap();
        let refused = unused.write_batch(&Batch::from_events(vec![Record::new("child")])).unwrap_err();
        assert!(refused.to_string().contains("the connection is that of the parent"), "{refused}");
        assert!(!refused.is_transient());
        drop((unused, collector.clone()));
        keeps_its_own(&folder.path().join("own.db"))
    });
    assert_eq!(status, Some(0));
    assert!(folder.path().join("parent.db-wal").exists(), "the child has closed it");
    collector.collect(Record::integer("parent", 1));
    let _ = collector.flush().unwrap();
    assert_eq!(history.take().unwrap().query(&EventQuery::new()).unwrap().len(), 2);
    collector.stop().unwrap();
    law(&collector, 2);
}

#[test]
fn a_fork_waits_a_second_for_sqlite_and_then_the_child_learns_why_it_is_refused() {
    alone!();
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("parent.db");
    let sink = SqliteSink::create(&path).unwrap().busy_timeout(LONG).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    // Another one holds the database: the worker waits inside of SQLite.
    let holder = rusqlite::Connection::open(&path).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    collector.collect(Record::integer("parent", 0));
    until("the worker is inside of SQLite", || {
        let status = in_child(|| {
            match SqliteSink::create(folder.path().join("own.db")) {
            Ok(_) => false,
            Err(error) => error.to_string().contains(
                "sqlite cannot be used in this forked child: another thread of the parent was inside it during the fork",
            ),
        }
        });
        assert!(status.is_some(), "the child hangs");
        status == Some(0)
    });
    let refused = in_child(|| SqliteHistory::open(folder.path().join("own.db")).is_err());
    assert_eq!(refused, Some(0));
    holder.execute_batch("COMMIT").unwrap();
    collector.stop().unwrap();
    let stats = law(&collector, 1);
    assert_eq!(stats.sinks[0].delivered, 1, "the parent does not notice");
}
