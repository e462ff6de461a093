//! Lines of text: in one file, in one a day, in parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::*;
use forebay::sink::{Sink, TextLinesSink};
use forebay::{Batch, Collector, FlushStrategy, ManualClock, Record};

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// Returns the names of the files in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A clock that a test moves: seconds since 1970.
#[derive(Clone)]
struct Time(Arc<AtomicU64>);

/// 2026-11-30T23:59:50Z.
const EVENING: u64 = 1_796_083_190;

impl Time {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(EVENING)))
    }

    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn clock(&self) -> impl FnMut() -> SystemTime + Send + 'static {
        let time = self.clone();
        move || SystemTime::UNIX_EPOCH + Duration::from_secs(time.0.load(Ordering::Relaxed))
    }
}

/// Returns a daily sink by that clock.
fn daily(folder: &Path, time: &Time) -> TextLinesSink {
    TextLinesSink::create(folder.join("app.log")).unwrap().dated_by(time.clock()).unwrap().daily().unwrap()
}

/// Returns the name of a part of `app.log`.
fn part(number: u32) -> String {
    format!("app.{number:06}.log")
}

/// Writes one line of ten bytes: its number.
fn line(sink: &mut TextLinesSink, number: u32) {
    sink.write_batch(&Batch::from_events(vec![Record::new(format!("{number:09}"))])).unwrap();
}

/// Returns the numbers of the lines in a file.
fn numbers(path: impl AsRef<Path>) -> Vec<u32> {
    text(path).lines().map(|line| line.parse().unwrap()).collect()
}

/// Delivers one event.
#[track_caller]
fn deliver(collector: &Collector, name: &'static str) {
    collector.collect(Record::new(name));
    let report = collector.flush().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn a_file_of_each_day_in_utc_begins_with_its_first_batch_and_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (path, time) = (folder.path(), Time::new());
    let others = ["app.log.1", "app.2026-11-28.txt", "other.2026-11-01.log"];
    for other in others {
        fs::write(path.join(other), "somebody else's").unwrap();
    }
    fs::write(path.join("app.2026-11-01.log"), "an earlier run\n").unwrap();
    let sink = daily(path, &time).keep(2);
    assert_eq!(sink.path().file_name().unwrap(), "app.2026-11-30.log");
    let collector = Collector::builder().sink(sink).start().unwrap();
    deliver(&collector, "evening");
    time.advance(10);
    deliver(&collector, "midnight");
    deliver(&collector, "later");
    // The clock goes back.
    time.0.store(EVENING, Ordering::Relaxed);
    deliver(&collector, "earlier");
    time.0.store(EVENING + 3 * 86_400, Ordering::Relaxed);
    deliver(&collector, "third");
    collector.stop().unwrap();
    law(&collector, 5);
    let ours = ["app.2026-12-01.log", "app.2026-12-03.log"];
    assert_eq!(names(path), [others[1], ours[0], ours[1], others[0], others[2]]);
    assert_eq!(text(path.join(ours[0])), "midnight\nlater\nearlier\n");
    assert_eq!(text(path.join(ours[1])), "third\n");
    assert!(others.iter().all(|other| text(path.join(other)) == "somebody else's"));
}

#[test]
fn a_file_without_an_event_is_not_left_behind_and_one_of_somebody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let (path, time) = (folder.path(), Time::new());
    drop(daily(path, &time));
    assert_eq!(names(path), ["app.2026-11-30.log"], "neither app.log nor that of the real day");
    fs::write(path.join("app.log"), "").unwrap();
    drop(daily(path, &time));
    assert_eq!(names(path), ["app.2026-11-30.log", "app.log"]);
}

#[test]
fn a_file_that_would_grow_too_large_is_followed_by_another_part_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (path, time) = (folder.path(), Time::new());
    let run = |batches: usize| {
        let mut sink = daily(path, &time).roll_at(20).keep(3);
        for _ in 0..batches {
            sink.write_batch(&Batch::from_events(vec![Record::new("123456789")])).unwrap();
        }
    };
    run(2);
    assert_eq!(names(path), ["app.2026-11-30.log"]);
    run(3);
    assert_eq!(names(path), ["app.2026-11-30.000001.log", "app.2026-11-30.000002.log", "app.2026-11-30.log"]);
    run(1);
    assert_eq!(text(path.join("app.2026-11-30.000002.log")), "123456789\n123456789\n");
    time.advance(10);
    run(1);
    // A daily file begins without a number, and the sink that has begun it removes the oldest.
    assert_eq!(names(path).last().unwrap(), "app.2026-12-01.log");
}

#[test]
fn a_restart_goes_on_in_the_last_part_and_keeps_the_newest_also_without_days() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let run = |lines: std::ops::Range<u32>| {
        let mut sink = TextLinesSink::create(path.join("app.log")).unwrap().roll_at(20).keep(3);
        lines.for_each(|number| line(&mut sink, number));
        sink.path().file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(run(0..12), part(5));
    assert_eq!(names(path), [part(3), part(4), part(5)]);
    assert_eq!(run(12..15), part(7));
    assert_eq!(names(path), [part(5), part(6), part(7)]);
    assert_eq!(run(0..0), part(7), "what is open is known before the first line");
    assert_eq!(run(15..16), part(7));
    let kept: Vec<_> = names(path).iter().flat_map(|name| numbers(path.join(name))).collect();
    assert_eq!(kept, [10, 11, 12, 13, 14, 15]);
}

#[test]
fn sinks_on_one_path_begin_parts_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let sink = || TextLinesSink::create(path.join("app.log")).unwrap().roll_at(20);
    let (mut one, mut other) = (sink(), sink());
    (0..5).for_each(|number| line(&mut one, number));
    assert_eq!(one.path(), path.join(part(2)));
    line(&mut other, 5);
    assert_eq!(other.path(), path.join(part(3)), "neither the oldest nor what the first sink writes");
    assert_eq!((numbers(path.join(part(2))), numbers(path.join(part(3)))), (vec![4], vec![5]));
}

#[test]
fn what_a_clock_that_was_ahead_has_left_costs_no_newer_line() {
    let folder = tempfile::tempdir().unwrap();
    let (path, time) = (folder.path(), Time::new());
    let file = |day: &str| path.join(format!("app.{day}.log"));
    for day in ["2026-11-28", "2026-11-29", "2099-01-01"] {
        fs::write(file(day), "an earlier run\n").unwrap();
    }
    let mut sink = daily(path, &time).roll_at(20).keep(2);
    (0..3).for_each(|number| line(&mut sink, number));
    assert_eq!((numbers(file("2026-11-30")), numbers(sink.path())), (vec![0, 1], vec![2]));
    time.advance(10);
    line(&mut sink, 3);
    assert_eq!(numbers(file("2026-12-01")), [3]);
    assert_eq!(names(path).len(), 3, "two, and the one from the future: {:?}", names(path));
}

#[test]
fn files_of_others_with_a_number_in_their_name_are_neither_continued_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Of another rank, of a day, of a month, of a port, of a process, and a folder.
    let others =
        ["1", "01", "20261130", "202611", "261130", "8080", "234567", "234568", "1899999", "2000000"];
    let others: Vec<_> = others.iter().map(|other| path.join(format!("app.{other}.log"))).collect();
    for other in &others {
        fs::write(other, "somebody else's").unwrap();
    }
    for run in 0..2 {
        let mut sink = TextLinesSink::create(path.join("app.log")).unwrap().roll_at(20).keep(1);
        (0..5).for_each(|number| line(&mut sink, 10 * run + number));
    }
    assert!(others.iter().all(|other| text(other) == "somebody else's"));
    assert_eq!(names(path).len(), others.len() + 1);
}

#[test]
fn a_name_that_is_taken_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir(path.join(part(1))).unwrap();
    let mut sink = TextLinesSink::create(path.join("app.log")).unwrap().roll_at(20);
    (0..3).for_each(|number| line(&mut sink, number));
    assert_eq!((numbers(path.join("app.log")), numbers(path.join(part(2)))), (vec![0, 1], vec![2]));
    let time = Time::new();
    fs::create_dir(path.join("app.2026-11-30.log")).unwrap();
    line(&mut daily(path, &time), 3);
    assert_eq!(numbers(path.join("app.2026-11-30.000001.log")), [3]);
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_once_when_the_sink_is_created() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1"), folder.path().join("2"));
    let latest = folder.path().join("latest");
    let run = |folder: &Path| {
        fs::create_dir(folder).unwrap();
        symlink(folder, &latest).unwrap();
        let mut sink = TextLinesSink::create(latest.join("app.log")).unwrap().roll_at(10).keep(2);
        (0..2).for_each(|number| line(&mut sink, number));
        sink
    };
    let mut sink = run(&first);
    fs::remove_file(&latest).unwrap();
    let _next = run(&second);
    (2..5).for_each(|number| line(&mut sink, number));
    assert_eq!(
        (names(&first), names(&second)),
        (vec![part(3), part(4)], vec![part(1), "app.log".to_owned()])
    );
    assert_eq!((numbers(second.join("app.log")), numbers(second.join(part(1)))), (vec![0], vec![1]));
    // And one at the end of the path: the parts lie beside the file.
    let link = folder.path().join("link.log");
    symlink(first.join("app.log"), &link).unwrap();
    let mut sink = TextLinesSink::create(&link).unwrap().roll_at(10);
    line(&mut sink, 5);
    assert_eq!(names(&first), [part(3), part(4), part(5)]);
}

#[test]
fn a_file_that_is_replaced_moved_or_removed_is_left_and_what_is_at_the_path_continued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logs/app.log");
    let collector = Collector::builder().sink(TextLinesSink::create(&path).unwrap()).start().unwrap();
    deliver(&collector, "first");
    let moved = folder.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    deliver(&collector, "after the move");
    assert_eq!((text(&moved), text(&path)), ("first\n".into(), "after the move\n".into()));
    fs::remove_file(&path).unwrap();
    deliver(&collector, "after the removal");
    assert_eq!(text(&path), "after the removal\n");
    let other = folder.path().join("other");
    fs::write(&other, "theirs\ntorn").unwrap();
    fs::rename(&other, &path).unwrap();
    deliver(&collector, "after another took its place");
    assert_eq!(text(&path), "theirs\ntorn\nafter another took its place\n");
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    deliver(&collector, "after the folder went");
    assert_eq!(text(&path), "after the folder went\n");
    collector.stop().unwrap();
    law(&collector, 5);
}

#[test]
fn an_event_that_cannot_be_formatted_fails_alone_and_is_marked_with_what_was_evicted() {
    hush();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let mut sink = TextLinesSink::create_with(&path, |event: &u32, line| {
        line.extend_from_slice(format!("{event}").as_bytes());
        match event {
            3 => std::panic::panic_any("on purpose"),
            4 => Err(std::fmt::Error),
            _ => Ok(()),
        }
    })
    .unwrap();
    let error = sink.write_batch(&Batch::from_events(vec![1, 2, 3, 4, 5])).unwrap_err();
    assert_eq!(error.failed_events(), Some(2));
    assert_eq!(text(&path), "1\n2\n5\n");
    sink.write_batch(&Batch::from_events(vec![6])).unwrap();
    assert_eq!(text(&path), "1\n2\n5\nforebay: 2 lines were lost here\n6\n");
}

#[test]
fn a_format_gets_at_no_other_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let mut sink = TextLinesSink::create_with(&path, |event: &u32, line| {
        line.clear();
        line.extend_from_slice(event.to_string().as_bytes());
        match event {
            2 => *line = b"two".to_vec(),
            3 => line.clear(),
            4 => {
                *line = Vec::new();
                return Err(std::fmt::Error);
            }
            _ => {}
        }
        Ok(())
    })
    .unwrap()
    .roll_at(1000);
    let mut batch = Batch::from_events(vec![1, 2, 3, 4]);
    batch.add_gap(5);
    assert_eq!(sink.write_batch(&batch).unwrap_err().failed_events(), Some(1));
    assert_eq!(text(&path), "forebay: 5 lines were lost here\n1\ntwo\n\n");
    assert_eq!(sink.write_batch(&Batch::from_events(vec![4])).unwrap_err().failed_events(), Some(1));
}

#[test]
fn a_gap_line_or_a_clock_that_panics_costs_no_event() {
    hush();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.log");
    let mut sink = TextLinesSink::create(&path).unwrap().gap_line(|_| std::panic::panic_any("on purpose"));
    let mut batch = Batch::from_events(vec![Record::new("first")]);
    batch.add_gap(2);
    let error = sink.write_batch(&batch).unwrap_err();
    assert_eq!(error.failed_events(), Some(0));
    assert!(error.to_string().contains("gap line"), "{error}");
    assert_eq!(text(&path), "forebay: 2 lines were lost here\nfirst\n");
    let (mut sink, mut reads) = (TextLinesSink::create(&path).unwrap(), 0);
    let clock = move || {
        reads += 1;
        if reads > 1 { std::panic::panic_any("on purpose") } else { SystemTime::UNIX_EPOCH }
    };
    sink = sink.daily().unwrap().dated_by(clock).unwrap();
    let error = sink.write_batch(&Batch::from_events(vec![Record::new("second")])).unwrap_err();
    assert_eq!(error.failed_events(), Some(0));
    assert!(error.to_string().contains("clock"), "{error}");
    assert_eq!(text(folder.path().join("app.1970-01-01.log")), "second\n");
}

#[test]
fn a_file_that_cannot_be_opened_any_more_is_left_for_that_of_the_next_day() {
    let folder = tempfile::tempdir().unwrap();
    let (path, time) = (folder.path(), Time::new());
    let mut sink = daily(path, &time);
    fs::remove_file(sink.path()).unwrap();
    fs::create_dir(sink.path()).unwrap();
    for name in ["first", "second"] {
        let error = sink.write_batch(&Batch::from_events(vec![Record::new(name)])).unwrap_err();
        assert!(error.failed_events().is_none(), "{error}");
    }
    time.advance(10);
    sink.write_batch(&Batch::from_events(vec![Record::new("midnight")])).unwrap();
    assert_eq!(text(path.join("app.2026-12-01.log")), "forebay: 2 lines were lost here\nmidnight\n");
}

#[cfg(unix)]
#[test]
fn the_old_file_is_written_on_while_that_of_the_next_day_cannot_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (path, time, clock) = (folder.path(), Time::new(), ManualClock::new());
    let next = path.join("app.2026-12-01.log");
    // Nothing can be created below a plain file.
    fs::write(path.join("plain"), "").unwrap();
    std::os::unix::fs::symlink(path.join("plain/target"), &next).unwrap();
    let collector = Collector::builder()
        .manual_clock(&clock)
        .flush(FlushStrategy::Size { events: 1 })
        .sink(daily(path, &time))
        .start()
        .unwrap();
    let deliver = |name: &'static str, events| {
        collector.collect(Record::new(name));
        until("it is delivered", || collector.stats().processed == events);
    };
    deliver("evening", 1);
    time.advance(10);
    deliver("midnight", 2);
    fs::remove_file(&next).unwrap();
    deliver("at once", 3);
    assert_eq!(text(path.join("app.2026-11-30.log")), "evening\nmidnight\nat once\n");
    clock.advance(Duration::from_secs(1));
    deliver("later", 4);
    assert_eq!(text(&next), "later\n");
    collector.stop().unwrap();
    let sink = &collector.stats().sinks[0];
    assert_eq!((sink.errors, sink.failed), (1, 0));
    assert!(sink.last_error.as_ref().unwrap().contains("cannot write to"), "{sink:?}");
    law(&collector, 4);
}

#[test]
fn a_part_that_cannot_be_begun_is_reported_and_the_old_one_written_on() {
    let folder = tempfile::tempdir().unwrap();
    // The longest name that file systems take: no number has room in it.
    let path = folder.path().join(format!("{}.log", "a".repeat(251)));
    let mut sink = TextLinesSink::create(&path).unwrap().roll_at(1);
    let batch = |name: &'static str| Batch::from_events(vec![Record::new(name)]);
    sink.write_batch(&batch("first")).unwrap();
    let error = sink.write_batch(&batch("second")).unwrap_err();
    assert_eq!(error.failed_events(), Some(0));
    assert!(error.to_string().contains("aaa."), "the path is in it: {error}");
    sink.write_batch(&batch("at once")).unwrap();
    assert_eq!(text(&path), "first\nsecond\nat once\n");
}

#[test]
fn a_batch_that_a_full_disk_refuses_is_missing_where_it_was() {
    // On any file system: a folder at the path.
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("app.log");
    let mut sink = TextLinesSink::create(&path).unwrap().gap_line(|lost| format!("{lost} lost"));
    let batch = |name: &'static str| Batch::from_events(vec![Record::new(name), Record::new(name)]);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for _ in 0..2 {
        let error = sink.write_batch(&batch("refused")).unwrap_err();
        assert!(error.to_string().contains("app.log") && error.failed_events().is_none(), "{error}");
    }
    fs::remove_dir(&path).unwrap();
    sink.write_batch(&batch("last")).unwrap();
    assert_eq!(text(&path), "4 lost\nlast\nlast\n");
}

#[test]
fn lines_of_gaps_stand_where_events_were_evicted() {
    let folder = tempfile::tempdir().unwrap();
    let (path, gate) = (folder.path().join("app.log"), Gate::closed());
    let collector = Collector::builder()
        .capacity(4)
        .flush(forebay::FlushStrategy::Size { events: 1 })
        .sink(TextLinesSink::create(&path).unwrap())
        .sink(gate.sink())
        .start()
        .unwrap();
    collector.collect(Record::new("first"));
    gate.await_arrivals(1);
    for step in 0..10 {
        collector.collect(Record::new("number").with_step(step));
    }
    gate.open();
    collector.stop().unwrap();
    law(&collector, 11);
    let lines = "first\nforebay: 6 lines were lost here\nnumber (step 6)\nnumber (step 7)\nnumber (step 8)\nnumber (step 9)\n";
    assert_eq!(text(&path), lines);
}
