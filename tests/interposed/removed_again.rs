//! Tests of a file that is removed by another program, as often as it is made. This program answers `write` itself, to
//! remove the file right behind every write.
#![allow(unsafe_code, reason = "interposed functions of the C library")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Batch, Record};

/// Writes to files of the folder behind which the file is still to be removed.
static REMOVALS: AtomicU64 = AtomicU64::new(0);
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Replaces the function of the C library.
///
/// # Safety
///
/// As for that: there are so many bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(
    descriptor: libc::c_int,
    bytes: *const libc::c_void,
    count: libc::size_t,
) -> libc::ssize_t {
    // SAFETY: the caller gives what it would give the C library.
    let written = unsafe { libc::syscall(libc::SYS_write, descriptor, bytes, count) as libc::ssize_t };
    if REMOVALS.load(Ordering::SeqCst) > 0 && written > 0 {
        remove(descriptor);
    }
    written
}

/// Removes the file of the folder that has this descriptor.
fn remove(descriptor: libc::c_int) {
    // SAFETY: the call is given a structure of ours, for which zeros are a value like others.
    let inode = unsafe {
        let mut data: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(descriptor, &raw mut data), 0);
        data.st_ino
    };
    let folder = FOLDER.lock().unwrap().clone().unwrap();
    for entry in files(&folder) {
        if fs::metadata(&entry).unwrap().ino() == inode {
            fs::remove_file(entry).unwrap();
            REMOVALS.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Writes a batch to a sink whose file is removed so often. The error is how many events failed, `None` for all of the batch.
fn write_to(sink: &mut impl Sink<Record>, records: Vec<Record>, removals: u64) -> Result<(), Option<u64>> {
    REMOVALS.store(removals, Ordering::SeqCst);
    let written = sink.write_batch(&Batch::from_events(records));
    assert_eq!(REMOVALS.swap(0, Ordering::SeqCst), 0);
    written.map_err(|error| error.failed_events())
}

#[test]
fn a_file_of_json_lines_that_is_removed_twice_within_a_batch_has_none_of_it() {
    let _turn = crate::turn();
    let folder = tempfile::tempdir().unwrap();
    *FOLDER.lock().unwrap() = Some(folder.path().to_owned());
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap();
    let records = || vec![Record::scalar("a", 1.0), Record::scalar("b", 1.0)];
    assert_eq!(write_to(&mut sink, records(), 1), Ok(()));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    assert_eq!(write_to(&mut sink, records(), 2), Err(None));
    assert!(!path.exists());
    // The next batch reports what is missing.
    assert_eq!(write_to(&mut sink, records(), 0), Ok(()));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!((text.lines().count(), text.contains("forebay.gap")), (3, true), "{text}");
}

#[cfg(feature = "tensorboard")]
#[test]
fn a_file_of_tensorboard_that_is_removed_twice_within_a_batch_has_none_of_it() {
    use forebay::sink::TensorBoardSink;
    let _turn = crate::turn();
    for sub_run in [None, Some("eval")] {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join(sub_run.unwrap_or_default());
        fs::create_dir_all(&below).unwrap();
        *FOLDER.lock().unwrap() = Some(below.clone());
        let mut sink = TensorBoardSink::create(folder.path()).unwrap();
        let record = |tag: &'static str, step| {
            let record = Record::scalar(tag, 1.0).with_step(step);
            sub_run.map_or(record.clone(), |name| record.with_sub_run(name))
        };
        let records = |step| vec![record("a", step), record("b", step)];
        assert_eq!(write_to(&mut sink, records(0), 0), Ok(()));
        assert_eq!(write_to(&mut sink, records(1), 1), Ok(()));
        assert_eq!(files(&below).len(), 1);
        // The new one is removed behind its head.
        assert_eq!(write_to(&mut sink, records(2), 2), Err(None));
        assert!(files(&below).is_empty());
        assert_eq!(write_to(&mut sink, records(2), 0), Ok(()));
        assert_eq!(files(&below).len(), 1);
    }
}
