//! JSON Lines in several files: none too large, none lost, all read as one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support;
use forebay::sink::{JsonLinesSink, Sink, SyncPolicy};
use forebay::{Batch, Collector, ManualClock, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory};

fn batch(steps: std::ops::Range<u64>) -> Batch {
    Batch::from_events(steps.map(|step| Record::scalar("a", 1.0).with_step(step)).collect())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn steps(path: &Path) -> Vec<u64> {
    let records = JsonLinesHistory::new(path).query(&EventQuery::new()).unwrap();
    records.iter().filter_map(Record::step).collect()
}

#[test]
fn no_file_grows_beyond_its_size_and_all_are_read_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let sink = JsonLinesSink::create(&path).unwrap().rotate_at(2_000);
    let collector = Collector::builder().batch_size(7).sink(sink).start().unwrap();
    for step in 0..1_000 {
        collector.collect(Record::scalar("a", 1.0).with_step(step));
    }
    collector.stop().unwrap();
    support::law(&collector, 1_000);
    let files = files(folder.path());
    assert!(files.len() > 20, "{files:?}");
    assert!(files.iter().all(|file| std::fs::metadata(file).unwrap().len() <= 2_000));
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names[..3], ["events.jsonl", "events.jsonl.000001", "events.jsonl.000002"]);
    assert!(steps(&path).into_iter().eq(0..1_000));
    // The next process goes on with the same numbers.
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    sink.write_batch(&batch(1_000..1_001)).unwrap();
    assert!(steps(&path).into_iter().eq(0..1_001));
    assert_eq!(self::files(folder.path()).len(), files.len() + 1);
}

#[test]
fn a_batch_larger_than_a_file_is_not_split_and_an_empty_file_is_not_closed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    sink.write_batch(&batch(0..100)).unwrap();
    sink.write_batch(&batch(100..200)).unwrap();
    assert_eq!(files(folder.path()).len(), 2);
    assert!(steps(&path).into_iter().eq(0..200));
}

#[test]
fn the_oldest_files_leave_and_others_in_the_folder_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    for other in ["events.jsonl.bak", "events.jsonl.12", "more.jsonl.000001"] {
        std::fs::write(folder.path().join(other), "").unwrap();
    }
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_every(Duration::ZERO).keep_closed(2);
    for step in 0..6 {
        sink.write_batch(&batch(step..step + 1)).unwrap();
    }
    assert_eq!(steps(&path), [3, 4, 5]);
    assert_eq!(files(folder.path()).len(), 3 + 3);
}

#[test]
fn whoever_reads_meanwhile_sees_a_beginning_without_a_hole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(500);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0;
            while !is_over.load(Ordering::SeqCst) {
                let seen = steps(&path);
                let expected: Vec<u64> = (0..seen.len() as u64).collect();
                assert_eq!(seen, expected);
                reads += 1;
            }
            reads
        });
        for step in 0..2_000 {
            sink.write_batch(&batch(step..step + 1)).unwrap();
        }
        is_over.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
    });
    assert_eq!(steps(&path).len(), 2_000);
}

#[test]
fn a_file_that_was_taken_away_is_begun_anew_and_reported_without_a_failed_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    sink.write_batch(&batch(0..1)).unwrap();
    std::fs::remove_file(&path).unwrap();
    let error = sink.write_batch(&batch(1..2)).unwrap_err();
    assert_eq!(error.failed_events(), Some(0), "{error}");
    assert_eq!(steps(&path), [1]);
}

#[test]
fn synced_at_a_flush_or_after_a_while_it_writes_the_same() {
    for policy in [SyncPolicy::AtFlush, SyncPolicy::Every(Duration::ZERO), SyncPolicy::Every(Duration::MAX)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let sink = JsonLinesSink::create(&path).unwrap().sync(policy);
        let collector = Collector::builder().sink(sink).start().unwrap();
        collector.collect(Record::scalar("a", 1.0).with_step(0));
        assert!(collector.flush().unwrap().is_clean());
        collector.stop().unwrap();
        support::law(&collector, 1);
        assert_eq!(steps(&path), [0]);
    }
}

#[test]
fn files_are_closed_for_their_age_by_the_clock_of_the_worker() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let clock = ManualClock::new();
    let sink = JsonLinesSink::create(&path).unwrap().rotate_every(Duration::from_secs(3600));
    let collector = Collector::builder().manual_clock(&clock).sink(sink).start().unwrap();
    for step in 0..40 {
        collector.collect(Record::scalar("a", 1.0).with_step(step));
        assert!(collector.flush().unwrap().is_clean());
        clock.advance(Duration::from_secs(600));
    }
    collector.stop().unwrap();
    support::law(&collector, 40);
    // Six events an hour.
    assert_eq!(files(folder.path()).len(), 7);
    assert!(steps(&path).into_iter().eq(0..40));
}

#[test]
fn the_age_of_a_file_survives_the_process_that_began_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    // Stands still, so that no file grows older while a process writes it.
    let clock = ManualClock::new();
    let longest = Duration::from_millis(300);
    let run = |step| {
        let sink = JsonLinesSink::create(&path).unwrap().rotate_every(longest);
        let collector = Collector::builder().manual_clock(&clock).sink(sink).start().unwrap();
        for _ in 0..3 {
            collector.collect(Record::scalar("a", 1.0).with_step(step));
            assert!(collector.flush().unwrap().is_clean());
        }
        collector.stop().unwrap();
        support::law(&collector, 3);
    };
    for step in 0..3 {
        run(step);
        assert_eq!(files(folder.path()).len() as u64, step + 1);
        let begun = std::fs::metadata(&path).unwrap();
        let begun = begun.created().or_else(|_| begun.modified()).unwrap();
        support::until("the file is old", || begun.elapsed().is_ok_and(|age| age >= longest));
    }
    assert_eq!(steps(&path), [0, 0, 0, 1, 1, 1, 2, 2, 2]);
}

#[test]
fn every_line_of_every_file_tells_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(500).with_origin();
    (0..20).for_each(|step| sink.write_batch(&batch(step..step + 1)).unwrap());
    std::fs::remove_file(&path).unwrap();
    Sink::<Record>::flush(&mut sink).unwrap();
    (20..40).for_each(|step| sink.write_batch(&batch(step..step + 1)).unwrap());
    let files = files(folder.path());
    assert!(files.len() > 10);
    for line in files.iter().flat_map(|file| {
        std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    }) {
        assert!(line.contains("\"origin\":{\"session_id\":\"test\""), "{line}");
    }
}

#[cfg(feature = "zstd")]
mod compressed {
    use super::*;

    fn ends(folder: &Path, end: &str) -> usize {
        files(folder).iter().filter(|file| file.to_str().unwrap().ends_with(end)).count()
    }

    #[test]
    fn closed_files_are_compressed_and_read_as_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let sink = JsonLinesSink::create(&path).unwrap().rotate_at(2_000).compress_closed();
        let collector = Collector::builder().batch_size(7).sink(sink).start().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Whoever asks meanwhile misses nothing between two forms of a file, and sees nothing twice.
            let asking = scope.spawn(|| {
                let (mut seen, mut asked) = (0, 0);
                while !is_over.load(Ordering::Relaxed) || asked == 0 {
                    let steps = steps(&path);
                    assert!(steps.len() >= seen && steps.iter().copied().eq(0..steps.len() as u64));
                    (seen, asked) = (steps.len(), asked + 1);
                }
            });
            let raise = support::Raise(&is_over);
            for step in 0..3_000 {
                collector.collect(Record::scalar("a", 1.0).with_step(step));
            }
            assert!(collector.flush().unwrap().is_clean());
            drop(raise);
            asking.join().unwrap();
        });
        support::until("all but the open one are compressed", || {
            // What was closed when the thread was about to end waits for the next flush.
            assert!(collector.flush().unwrap().is_clean());
            ends(folder.path(), ".zst") == files(folder.path()).len() - 1
        });
        assert_eq!(collector.remove_sink("json_lines").unwrap().errors, 0);
        collector.stop().unwrap();
        support::law(&collector, 3_000);
        assert!(steps(&path).into_iter().eq(0..3_000));
        let files = files(folder.path()).len();
        assert!(files > 60);
        assert_eq!(ends(folder.path(), ".zst"), files - 1, "all but the open one");
    }

    #[test]
    fn what_an_earlier_process_left_is_compressed_with_the_next_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
        for step in 0..3 {
            sink.write_batch(&batch(step..step + 1)).unwrap();
        }
        drop(sink);
        // It died while it compressed the first, and between the two last acts for the second.
        std::fs::write(folder.path().join("events.jsonl.000001.zst.new"), "(\u{b5}/").unwrap();
        let second = std::fs::File::open(folder.path().join("events.jsonl.000002")).unwrap();
        std::fs::write(folder.path().join("events.jsonl.000002.zst"), zstd(second)).unwrap();
        assert_eq!(steps(&path), [0, 1, 2], "none twice");
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).compress_closed();
        sink.write_batch(&batch(3..4)).unwrap();
        until_compressed(sink, folder.path(), 4);
        assert_eq!((ends(folder.path(), ".zst"), files(folder.path()).len()), (3, 4));
        assert_eq!(steps(&path), [0, 1, 2, 3]);
    }

    /// Waits until all files but the open one are compressed, then drops the sink.
    fn until_compressed(mut sink: JsonLinesSink, folder: &Path, all: usize) {
        while ends(folder, ".zst") < all - 1 || files(folder).len() > all {
            Sink::<Record>::flush(&mut sink).unwrap();
            std::thread::yield_now();
        }
    }

    fn zstd(file: std::fs::File) -> Vec<u8> {
        zstd::encode_all(file, 1).unwrap()
    }

    #[test]
    fn compressed_files_count_among_those_that_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        for step in 0..20 {
            let sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).keep_closed(3).compress_closed();
            let mut sink = sink;
            sink.write_batch(&batch(step..step + 1)).unwrap();
            until_compressed(sink, folder.path(), 4.min(step as usize + 1));
        }
        assert_eq!(steps(&path), [16, 17, 18, 19]);
        assert_eq!(ends(folder.path(), ".zst"), 3);
    }

    #[test]
    fn a_file_that_cannot_be_compressed_stays_and_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        // Where the compressed file would go, there is a folder.
        std::fs::create_dir(folder.path().join("events.jsonl.000001.zst.new")).unwrap();
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).compress_closed();
        let mut reported = None;
        for step in 0.. {
            match sink.write_batch(&batch(step..step + 1)) {
                Ok(()) => std::thread::yield_now(),
                Err(error) => {
                    reported = Some((step, error));
                    break;
                }
            }
        }
        let (last, error) = reported.unwrap();
        assert_eq!(error.failed_events(), Some(0), "no event is lost");
        assert!(steps(&path).into_iter().eq(0..=last));
    }
}

#[test]
fn none_are_kept_where_none_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).keep_closed(0);
    (0..3).for_each(|step| sink.write_batch(&batch(step..step + 1)).unwrap());
    assert_eq!((steps(&path), files(folder.path()).len()), (vec![2], 1));
}

#[cfg(unix)]
#[test]
fn a_name_that_could_not_be_numbered_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let error = JsonLinesSink::create(folder.path().join(std::ffi::OsStr::from_bytes(b"\xff"))).unwrap_err();
    assert!(error.to_string().ends_with("the name of the file is not UTF-8"), "{error}");
}

#[cfg(not(feature = "zstd"))]
#[test]
fn a_compressed_file_is_not_passed_over_where_it_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "").unwrap();
    std::fs::write(folder.path().join("events.jsonl.000001.zst"), "").unwrap();
    let error = JsonLinesHistory::new(&path).query(&EventQuery::new()).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("takes the feature zstd"));
}
