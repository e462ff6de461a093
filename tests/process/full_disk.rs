//! Sinks on a full disk. The limit that stands for it holds for the whole process.
#![allow(unsafe_code, reason = "libc")]

use std::ops::Range;
use std::path::Path;

use crate::support::alone;
use forebay::sink::Sink;
use forebay::{Batch, Record};

/// Limits the size of files of this process, until it is dropped.
struct FileLimit(libc::rlimit);

impl FileLimit {
    fn set(bytes: u64) -> Self {
        let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls are given a structure of theirs; the signal is one that a write past the limit
        // would otherwise end the process with.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut before), 0);
            let limit = libc::rlimit { rlim_cur: bytes, ..before };
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
        }
        Self(before)
    }
}

impl Drop for FileLimit {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const self.0) };
    }
}

fn batch(steps: Range<u64>) -> Batch {
    Batch::from_events(steps.map(|step| Record::scalar("a", 1.0).with_step(step)).collect())
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Returns the lengths of the records of an event file, which must be whole.
#[cfg(feature = "tensorboard")]
fn records(path: &Path) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    let (mut at, mut lengths) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        at += 16 + length;
        assert!(at <= bytes.len(), "a torn record");
        lengths.push(length);
    }
    lengths
}

#[cfg(feature = "tensorboard")]
#[test]
fn tensorboard_leaves_whole_records_and_goes_on_in_a_new_file_when_there_is_space() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let mut sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
    sink.write_batch(&batch(0..1)).unwrap();
    let first = sink.path().to_owned();
    // A file that may grow by no more than a part of the next batch stands for a disk with little room.
    let limit = FileLimit::set(length(&first) + 100);
    let error = sink.write_batch(&batch(1..100)).unwrap_err();
    drop(limit);
    // No room for the head of a file either: no try leaves an empty one.
    let limit = FileLimit::set(10);
    assert!(sink.write_batch(&batch(1..2)).is_err() && sink.write_batch(&batch(1..2)).is_err());
    drop(limit);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!(error.failed_events(), None, "all of them");
    assert!(error.is_transient(), "{error}");
    assert_eq!(records(&first).len(), 3, "version, session, the first batch; no part of the second");
    sink.write_batch(&batch(100..102)).unwrap();
    assert!(*sink.path() > *first);
    assert_eq!(records(sink.path()).len(), 4);
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_rolls_the_batch_back_and_goes_on_when_there_is_space() {
    alone!();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let mut sink = forebay::sink::SqliteSink::create(&path).unwrap();
    sink.write_batch(&batch(0..10)).unwrap();
    let limit = FileLimit::set(length(&folder.path().join("events.db-wal")) + 100);
    let error = sink.write_batch(&batch(10..1_000)).unwrap_err();
    drop(limit);
    assert_eq!(error.failed_events(), None, "{error}");
    assert!(error.is_transient(), "{error}");
    sink.write_batch(&batch(1_000..1_001)).unwrap();
    let number = |sql: &str| -> i64 {
        rusqlite::Connection::open(&path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(number("SELECT count(*) FROM scalars"), 11);
    assert_eq!(number("SELECT value FROM log WHERE name = 'forebay.gap'"), 990);
    let database = rusqlite::Connection::open(&path).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}
