//! A TensorBoard sink on a full disk. A test of its own, because the limit that stands for it holds for the whole
//! process.
#![allow(clippy::unwrap_used, clippy::panic, unsafe_code, reason = "tests; libc")]
#![cfg(all(feature = "tensorboard", target_os = "linux"))]

use std::path::Path;

use forebay::sink::{Sink, TensorBoardSink};
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

/// The lengths of the records of a file, which must be whole.
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

#[test]
fn a_full_disk_leaves_whole_records_and_the_sink_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    let batch = |steps: std::ops::Range<u64>| {
        Batch::from_events(steps.map(|step| Record::scalar("a", 1.0).step(step)).collect())
    };
    sink.write_batch(&batch(0..1)).unwrap();
    let first = sink.path().to_owned();
    // A file that may grow by no more than a part of the next batch stands for a disk with little room.
    let limit = FileLimit::set(std::fs::metadata(&first).unwrap().len() + 100);
    let error = sink.write_batch(&batch(1..100)).unwrap_err();
    assert_eq!(error.failed_events(), None, "all of them");
    assert!(error.is_transient(), "{error}");
    assert_eq!(records(&first).len(), 3, "version, session, the first batch; no part of the second");
    drop(limit);
    sink.write_batch(&batch(100..102)).unwrap();
    assert!(*sink.path() > *first);
    assert_eq!(records(sink.path()).len(), 4);
}
