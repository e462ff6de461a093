//! Tests of what is synced to the disk when files are closed, moved away, and begun anew. This program answers
//! `fdatasync` and `fsync` itself, to see which files are synced.
#![allow(unsafe_code, reason = "interposed functions of the C library")]

use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::support::*;
use forebay::sink::{JsonLinesSink, Sink, SyncPolicy};
use forebay::{Batch, Collector, FlushStrategy, ManualClock, Record};

/// The inodes of all that was synced.
static SYNCED: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Lets one test run at a time: an inode that it leaves may be another one's next.
fn alone() -> MutexGuard<'static, ()> {
    let alone = crate::turn();
    SYNCED.lock().unwrap().clear();
    alone
}

fn note(descriptor: libc::c_int) -> libc::c_int {
    // SAFETY: the call is given a structure of ours, for which zeros are a value like others.
    let inode = unsafe {
        let mut data: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(descriptor, &raw mut data), 0);
        data.st_ino
    };
    if BROKEN.load(Ordering::Relaxed) == inode {
        // SAFETY: it is the error number of this thread.
        unsafe { *libc::__errno_location() = libc::EIO };
        return -1;
    }
    SYNCED.lock().unwrap().push(inode);
    0
}

/// The inode that cannot be synced.
static BROKEN: AtomicU64 = AtomicU64::new(0);

/// File that cannot be created, because the disk is full.
static NOT_CREATED: Mutex<Option<CString>> = Mutex::new(None);

/// Replaces the function of the C library.
///
/// # Safety
///
/// As for that: `path` ends with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(
    path: *const libc::c_char,
    flags: libc::c_int,
    mode: libc::mode_t,
) -> libc::c_int {
    // SAFETY: the caller gives what it would give the C library.
    unsafe {
        let is_new = flags & libc::O_CREAT != 0;
        if is_new && NOT_CREATED.lock().unwrap().as_deref() == Some(CStr::from_ptr(path)) {
            *libc::__errno_location() = libc::ENOSPC;
            return -1;
        }
        libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, mode) as libc::c_int
    }
}

/// Replaces the function of the C library.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(descriptor: libc::c_int) -> libc::c_int {
    note(descriptor)
}

/// Replaces the function of the C library.
#[unsafe(no_mangle)]
extern "C" fn fsync(descriptor: libc::c_int) -> libc::c_int {
    note(descriptor)
}

/// Returns how often a file or folder was synced.
fn syncs(path: &Path) -> usize {
    let inode = fs::metadata(path).unwrap().ino();
    SYNCED.lock().unwrap().iter().filter(|synced| **synced == inode).count()
}

fn closed(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end != "jsonl")).collect()
}

fn batch(step: u64) -> Batch {
    Batch::from_events(vec![Record::scalar("a", 1.0).with_step(step)])
}

#[test]
fn a_flush_has_synced_every_file_that_was_closed_before_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sink = JsonLinesSink::create(&path).unwrap().rotate_at(2_000).sync(SyncPolicy::AtFlush);
    let collector = Collector::builder().batch_size(10).sink(sink).start().unwrap();
    (0..500).for_each(|step| _ = collector.collect(Record::scalar("a", 1.0).with_step(step)));
    assert!(collector.flush().unwrap().is_clean());
    let closed = closed(folder.path());
    assert!(closed.len() > 10);
    assert!(closed.iter().all(|file| syncs(file) > 0));
    assert!(syncs(&path) > 0);
    collector.stop().unwrap();
    law(&collector, 500);
}

#[test]
fn a_file_is_synced_before_it_is_closed_and_its_new_name_with_the_next_sync() {
    let _alone = alone();
    for policy in [SyncPolicy::AtFlush, SyncPolicy::Every(Duration::from_secs(3600))] {
        SYNCED.lock().unwrap().clear();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/run/events.jsonl");
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).sync(policy);
        // That they exist, to begin with.
        let folders = [folder.path().to_owned(), folder.path().join("new"), folder.path().join("new/run")];
        assert!(folders.iter().all(|folder| syncs(folder) == 1));
        sink.write_batch(&batch(0)).unwrap();
        assert_eq!(syncs(&path), 0);
        sink.write_batch(&batch(1)).unwrap();
        assert_eq!((syncs(&path.with_extension("jsonl.000001")), syncs(&path)), (1, 0));
        Sink::<Record>::flush(&mut sink).unwrap();
        assert_eq!((syncs(&path), syncs(&folders[2])), (1, 2));
        // A process that comes later closes what this one has left.
        sink.write_batch(&batch(2)).unwrap();
        drop(sink);
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).sync(policy);
        sink.write_batch(&batch(3)).unwrap();
        assert!(syncs(&path.with_extension("jsonl.000003")) > 0);
    }
}

#[test]
fn a_file_that_was_moved_away_is_synced_when_it_is_left() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("events.jsonl"), folder.path().join("moved"));
    let mut sink = JsonLinesSink::create(&path).unwrap().sync(SyncPolicy::AtFlush);
    sink.write_batch(&batch(0)).unwrap();
    fs::rename(&path, &moved).unwrap();
    fs::File::create(&path).unwrap();
    Sink::<Record>::flush(&mut sink).unwrap();
    assert_eq!((syncs(&moved), syncs(&path)), (1, 0));
    sink.write_batch(&batch(1)).unwrap();
    Sink::<Record>::flush(&mut sink).unwrap();
    assert!(syncs(&path) > 0);
}

#[test]
fn nothing_is_synced_where_nobody_asked_for_it() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    (0..4).for_each(|step| sink.write_batch(&batch(step)).unwrap());
    Sink::<Record>::flush(&mut sink).unwrap();
    let all = closed(folder.path()).into_iter().chain([path, folder.path().to_owned()]);
    assert_eq!(all.map(|file| syncs(&file)).sum::<usize>(), 0);
}

#[test]
fn it_is_synced_by_the_clock_of_the_worker_and_by_no_other() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let clock = ManualClock::new();
    let sink = JsonLinesSink::create(&path).unwrap().sync(SyncPolicy::Every(Duration::from_secs(10)));
    let collector = Collector::builder().manual_clock(&clock).flush(FlushStrategy::Size { events: 1 });
    let collector = collector.sink(sink).start().unwrap();
    // Every event is a batch of its own.
    let collect = |steps: std::ops::Range<u64>| {
        for step in steps {
            collector.collect(Record::scalar("a", 1.0).with_step(step));
            until_delivered_without_a_flush(&collector, step + 1);
        }
        syncs(&path)
    };
    assert_eq!(collect(0..5), 0, "the clock stands still");
    clock.advance(Duration::from_secs(9));
    assert_eq!(collect(5..10), 0);
    clock.advance(Duration::from_secs(1));
    assert_eq!(collect(10..15), 1);
    clock.advance(Duration::from_secs(10));
    assert_eq!(collect(15..20), 2);
    collector.stop().unwrap();
    law(&collector, 20);
}

#[track_caller]
fn until_delivered_without_a_flush(collector: &Collector, events: u64) {
    until("it is delivered", || collector.stats().processed == events);
}

#[test]
fn the_name_of_a_file_is_synced_by_a_later_flush_when_its_folder_could_not_be_and_that_is_reported_once() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    BROKEN.store(fs::metadata(folder.path()).unwrap().ino(), Ordering::Relaxed);
    let mut sink =
        JsonLinesSink::create(folder.path().join("events.jsonl")).unwrap().sync(SyncPolicy::AtFlush);
    let flush = |sink: &mut JsonLinesSink| Sink::<Record>::flush(sink).is_ok();
    assert_eq!([flush(&mut sink), flush(&mut sink), flush(&mut sink)], [false, true, true]);
    BROKEN.store(0, Ordering::Relaxed);
    assert!(flush(&mut sink));
    assert_eq!(syncs(folder.path()), 1);
    assert!(flush(&mut sink));
    assert_eq!(syncs(folder.path()), 1, "it is known to be on the disk");
}

#[test]
fn no_event_goes_into_a_closed_file_when_another_cannot_be_begun() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    let batch = |step| Batch::from_events(vec![Record::scalar("a", 1.0).with_step(step)]);
    sink.write_batch(&batch(0)).unwrap();
    *NOT_CREATED.lock().unwrap() = Some(CString::new(path.to_str().unwrap()).unwrap());
    let closed = folder.path().join("events.jsonl.000001");
    for step in 1..4 {
        let error = sink.write_batch(&batch(step)).unwrap_err();
        assert_eq!(error.failed_events(), None, "all of the batch: {error}");
        assert_eq!(fs::read_to_string(&closed).unwrap().lines().count(), 1);
    }
    *NOT_CREATED.lock().unwrap() = None;
    sink.write_batch(&batch(4)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\"name\":\"forebay.gap\"") && text.contains("\"integer\":3"), "{text}");
    assert_eq!((text.lines().count(), fs::read_dir(folder.path()).unwrap().count()), (2, 2));
}
