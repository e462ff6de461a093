//! Batches in the file of a spill: kept while a sink is away, replayed in order, bounded, and there after the process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::sink::{DeadLetters, MemorySink, Sink, SinkError, SinkExt, from_fn};
use forebay::stats::SinkStats;
use forebay::{Batch, Collector, Event, ManualClock, Record};
use tempfile::TempDir;

use crate::support::*;

/// A sink that is there or not, what it got, and how often it was asked.
struct Remote {
    is_there: Arc<AtomicBool>,
    memory: MemorySink,
    calls: Arc<AtomicU64>,
}

impl Remote {
    fn new() -> Self {
        Self { is_there: Arc::new(AtomicBool::new(false)), memory: MemorySink::new(), calls: Arc::default() }
    }

    fn set(&self, is_there: bool) {
        self.is_there.store(is_there, Ordering::Relaxed);
    }

    fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    fn steps(&self) -> Vec<u64> {
        self.memory.events().iter().filter_map(Record::step).collect()
    }

    fn sink(&self) -> impl Sink + 'static {
        let (is_there, calls) = (Arc::clone(&self.is_there), Arc::clone(&self.calls));
        let mut memory = self.memory.clone();
        from_fn("remote", move |batch: &Batch| {
            calls.fetch_add(1, Ordering::Relaxed);
            match is_there.load(Ordering::Relaxed) {
                true => memory.write_batch(batch),
                false => Err(SinkError::unavailable("nobody is there")),
            }
        })
    }
}

fn place() -> (TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/spill.jsonl");
    (folder, path)
}

fn collector(sink: impl Sink + 'static) -> Collector {
    Collector::builder().flush(HOURLY).sink(sink).start().unwrap()
}

/// Collects these steps, and flushes: a batch of its own.
fn batch(collector: &Collector, steps: std::ops::Range<u64>) {
    for step in steps {
        collector.collect(Record::scalar("tick", 1.0 / (step + 1) as f64).with_step(step));
    }
    _ = collector.flush();
}

fn remote(collector: &Collector) -> SinkStats {
    collector.stats().sink("remote").unwrap().clone()
}

#[test]
fn what_a_sink_does_not_take_is_replayed_in_order_once_it_does() {
    let ((_folder, path), away) = (place(), Remote::new());
    let clock = ManualClock::new();
    let sink = away.sink().spill(&path).unwrap().manual_clock(&clock);
    let collector = collector(sink);
    away.set(true);
    batch(&collector, 0..10);
    away.set(false);
    for first in [10, 20, 30] {
        batch(&collector, first..first + 10);
    }
    let sink = remote(&collector);
    assert_eq!((sink.offered, sink.delivered, sink.in_flight, sink.failed), (40, 10, 30, 0));
    // Every flush has asked for it, and says that something waits.
    assert!(sink.flush_errors > 0 && sink.retries > 0);
    assert!(sink.last_error.unwrap().contains("batches wait in"), "{:?}", remote(&collector).last_error);
    // What reads JSON Lines reads it.
    let lines = std::fs::read_to_string(&path).unwrap();
    let records: Vec<Record> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.iter().filter(|record| Event::name(*record) == "tick").count(), 30);
    assert_eq!(records.iter().filter(|record| Event::name(*record) == "forebay.batch").count(), 3);

    away.set(true);
    batch(&collector, 40..50);
    assert_eq!(away.steps(), (0..50).collect::<Vec<_>>());
    assert_eq!(audit(&away.memory), 0, "with the headers that they had");
    let sink = remote(&collector);
    assert_eq!((sink.delivered, sink.in_flight), (50, 0));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 128, "nothing is left of it");
    collector.stop().unwrap();
    law(&collector, 50);
}

#[test]
fn a_sink_that_has_failed_is_left_alone_for_the_pause() {
    let ((_folder, path), away) = (place(), Remote::new());
    let clock = ManualClock::new();
    let mut sink = away.sink().spill(&path).unwrap().manual_clock(&clock).pause(Duration::from_secs(10));
    let batch = |step: u64| Batch::from_events(vec![Record::new("tick").with_step(step)]);
    for step in 0..5 {
        sink.write_batch(&batch(step)).unwrap();
    }
    assert_eq!((away.calls(), sink.batches()), (1, 5));
    clock.advance(Duration::from_secs(10));
    sink.write_batch(&batch(5)).unwrap();
    assert_eq!((away.calls(), sink.batches()), (2, 6));
    away.set(true);
    sink.write_batch(&batch(6)).unwrap();
    assert_eq!((away.calls(), sink.batches()), (2, 7), "it is left alone");
    clock.advance(Duration::from_secs(10));
    sink.write_batch(&batch(7)).unwrap();
    assert_eq!((away.steps(), sink.batches()), ((0..8).collect(), 0));
}

#[test]
fn the_batch_that_failed_is_offered_again_as_it_was_and_before_any_other() {
    let (_folder, path) = place();
    let (seen, clock) = (Arc::new(Mutex::new(Vec::new())), ManualClock::new());
    let (seen_by_sink, taken) = (Arc::clone(&seen), Arc::new(AtomicBool::new(false)));
    let takes = Arc::clone(&taken);
    let sink = from_fn("remote", move |batch: &Batch| {
        let number: Vec<_> = batch.iter().filter_map(Record::step).collect();
        seen_by_sink.lock().unwrap().push((number, batch.time(), batch.events().as_ptr() as usize));
        match takes.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(SinkError::unavailable("no answer")),
        }
    });
    let mut sink = sink.spill(&path).unwrap().manual_clock(&clock).pause(Duration::ZERO);
    let batch = |step: u64| Batch::from_events(vec![Record::new("tick").with_step(step)]);
    let first = batch(0);
    sink.write_batch(&first).unwrap();
    sink.write_batch(&batch(1)).unwrap();
    taken.store(true, Ordering::Relaxed);
    sink.write_batch(&batch(2)).unwrap();
    let seen = seen.lock().unwrap();
    let steps: Vec<u64> = seen.iter().map(|(steps, ..)| steps[0]).collect();
    assert_eq!(steps, [0, 0, 0, 1, 2]);
    // The very same events, not those that were read from the file.
    assert!(seen[..3].iter().all(|(_, time, place)| (*time, *place) == (seen[0].1, seen[0].2)));
}

#[test]
fn what_is_in_the_file_survives_the_process_and_is_replayed_first() {
    let (folder, path) = place();
    let away = Remote::new();
    let first = Collector::builder().session_id("first").flush(HOURLY);
    let first = first.sink(away.sink().spill(&path).unwrap()).start().unwrap();
    for begin in [0, 10, 20] {
        batch(&first, begin..begin + 10);
    }
    // One process at a time.
    let error = away.sink().spill(&path).unwrap_err().to_string();
    assert!(error.contains("spill.jsonl") && error.contains("has it open"), "{error}");
    let report = first.stop().unwrap();
    assert_eq!(report.stats.sinks[0].in_flight, 30);
    law(&first, 30);
    drop(first);

    // It takes the first of them, and its process dies before that was noted; the last one was being written.
    let whole = std::fs::read(&path).unwrap();
    for torn in [0, 1, 200] {
        let (away, path) = (Remote::new(), folder.path().join(format!("torn{torn}")));
        std::fs::write(&path, &whole[..whole.len() - torn]).unwrap();
        away.set(true);
        let second = Collector::builder().session_id("second").flush(HOURLY);
        let second = second.sink(away.sink().spill(&path).unwrap()).start().unwrap();
        batch(&second, 100..110);
        second.stop().unwrap();
        let sink = remote(&second);
        let replayed = if torn == 0 { 30 } else { 20 };
        assert_eq!((sink.offered, sink.delivered, sink.redriven, sink.in_flight), (10, 10, replayed, 0));
        law(&second, 10);
        assert_eq!(away.steps(), (0..replayed).chain(100..110).collect::<Vec<_>>(), "{torn}");
        let batches = away.memory.batches();
        let headers: Vec<_> = batches
            .iter()
            .map(|batch| (batch.session(), batch.number(), batch.first_event(), batch.is_replayed()))
            .collect();
        assert_eq!(headers[..2], [("first", 0, 0, true), ("first", 1, 10, true)]);
        assert_eq!(headers.last(), Some(&("second", 0, 0, false)));
        assert_eq!(batches[0].origin().pid, std::process::id());
    }
}

#[test]
fn a_place_in_the_file_says_what_was_taken() {
    let ((_folder, path), away) = (place(), Remote::new());
    let mut sink = away.sink().spill(&path).unwrap().pause(Duration::ZERO);
    let batch = |step: u64| Batch::from_events(vec![Record::new("tick").with_step(step)]);
    (0..5).for_each(|step| sink.write_batch(&batch(step)).unwrap());
    drop(sink);
    // One that takes two batches, and is killed.
    let (left, memory) = (Arc::new(AtomicU64::new(2)), away.memory.clone());
    let mut kept = memory.clone();
    let takes_two = from_fn("remote", move |batch: &Batch| {
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
            Ok(_) => kept.write_batch(batch),
            Err(_) => Err(SinkError::unavailable("nobody is there")),
        }
    });
    let mut sink = takes_two.spill(&path).unwrap().pause(Duration::ZERO);
    sink.write_batch(&batch(5)).unwrap();
    assert_eq!((away.steps(), sink.batches()), (vec![0, 1], 4));
    // Nothing is done when it ends.
    std::mem::forget(sink);
    let copy = path.with_extension("copy");
    std::fs::copy(&path, &copy).unwrap();
    away.set(true);
    let mut sink = away.sink().spill(&copy).unwrap();
    Sink::<Record>::flush(&mut sink).unwrap();
    assert_eq!(away.steps(), (0..6).collect::<Vec<_>>());
}

#[test]
fn what_is_beyond_the_bytes_of_the_file_fails_and_is_marked() {
    let ((_folder, path), away) = (place(), Remote::new());
    let collector = collector(away.sink().spill(&path).unwrap().max_bytes(5_000).pause(Duration::ZERO));
    for begin in 0..50 {
        batch(&collector, begin * 10..begin * 10 + 10);
    }
    let sink = remote(&collector);
    assert!(sink.in_flight > 0 && sink.failed > 0 && sink.in_flight.is_multiple_of(10), "{sink:?}");
    assert_eq!(sink.in_flight + sink.failed, 500);
    assert!(std::fs::metadata(&path).unwrap().len() <= 5_000);
    let kept = sink.in_flight;
    away.set(true);
    batch(&collector, 500..510);
    assert_eq!(away.steps(), (0..kept).chain(500..510).collect::<Vec<_>>());
    let last = away.memory.batches().last().unwrap().gap();
    assert_eq!(last, sink.failed, "the next batch tells what failed");
    collector.stop().unwrap();
    let stats = law(&collector, 510);
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].failed), (kept + 10, 500 - kept));
    let errors = stats.sinks[0].errors;
    assert!(errors > 0 && stats.sinks[0].in_flight == 0);
}

#[test]
fn a_file_that_is_never_empty_does_not_grow() {
    let ((_folder, path), away) = (place(), Remote::new());
    // Once three wait, it takes one with each that comes.
    let (turn, mut memory) = (Arc::new(AtomicU64::new(0)), away.memory.clone());
    let sink = from_fn("remote", move |batch: &Batch| match turn.fetch_add(1, Ordering::Relaxed) {
        turn if turn < 3 || turn.is_multiple_of(2) => Err(SinkError::unavailable("busy")),
        _ => memory.write_batch(batch),
    });
    let mut sink = sink.spill(&path).unwrap().max_bytes(3_000).pause(Duration::ZERO);
    let batch = |step: u64| Batch::from_events(vec![Record::new("tick").with_step(step)]);
    for step in 0..200 {
        sink.write_batch(&batch(step)).unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() <= 3_000);
        assert_eq!(sink.batches(), 3.min(step + 1));
    }
    while sink.batches() > 0 {
        _ = Sink::<Record>::flush(&mut sink);
    }
    assert_eq!(away.steps(), (0..200).collect::<Vec<_>>());
}

#[test]
fn a_batch_that_fails_for_good_fails_and_the_next_ones_follow() {
    let ((_folder, path), away) = (place(), Remote::new());
    let (is_there, mut memory) = (Arc::clone(&away.is_there), away.memory.clone());
    let sink = from_fn("remote", move |batch: &Batch| {
        if !is_there.load(Ordering::Relaxed) {
            return Err(SinkError::unavailable("nobody is there"));
        }
        match batch.number() {
            1 => Err(SinkError::write_failed("too large").permanent()),
            2 => panic!("a sink that panics"),
            3 => Err(SinkError::write_failed("two of them").permanent().with_failed_events(2)),
            _ => memory.write_batch(batch),
        }
    });
    let collector = collector(sink.spill(&path).unwrap());
    for begin in 0..5 {
        batch(&collector, begin * 10..begin * 10 + 10);
    }
    away.set(true);
    collector.stop().unwrap();
    let stats = law(&collector, 50);
    let sink = &stats.sinks[0];
    assert_eq!((sink.delivered, sink.failed, sink.panics, sink.in_flight), (28, 22, 1, 0));
    assert_eq!(away.steps(), (0..10).chain(40..50).collect::<Vec<_>>());
}

#[test]
fn dead_letters_outside_of_a_spill_get_what_it_has_no_space_for() {
    let ((_folder, path), away, letters) = (place(), Remote::new(), DeadLetters::new(1_000));
    let spill = away.sink().spill(&path).unwrap().max_bytes(2_000).pause(Duration::ZERO);
    let collector = collector(spill.dead_letters(&letters));
    for begin in 0..10 {
        batch(&collector, begin * 10..begin * 10 + 10);
    }
    let (sink, waiting) = (remote(&collector), letters.len() as u64);
    assert_eq!((sink.dead_lettered, sink.in_flight, sink.failed), (waiting, 100 - waiting, 0));
    assert!(waiting > 0);
    letters.redrive(None);
    _ = collector.flush();
    assert_eq!(letters.len() as u64, waiting, "they do not overtake what is in the file");
    away.set(true);
    _ = collector.flush();
    letters.redrive(None);
    collector.stop().unwrap();
    let stats = law(&collector, 100);
    assert_eq!((stats.sinks[0].redriven, stats.sinks[0].delivered), (waiting, 100 - waiting));
    let mut steps = away.steps();
    steps.sort_unstable();
    assert_eq!(steps, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let own = |what: &[u8]| {
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, what).unwrap();
        let error = Remote::new().sink().spill(&path).unwrap_err().to_string();
        assert!(error.contains("events.jsonl") && error.contains("must be one of a spill"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), what);
    };
    own(b"{\"name\":\"a\",\"time\":\"2026-11-21T08:00:00Z\"}\n");
    own(&[b'x'; 500]);
    own("{\"name\":\"forebay.spill\"".repeat(20).as_bytes());
    // What is behind the first line is somebody's.
    let path = folder.path().join("spill");
    drop(Remote::new().sink().spill(&path).unwrap());
    let mut begin = std::fs::read(&path).unwrap();
    begin.extend_from_slice(b"hello\nhello\n");
    own(&begin);
    assert!(Remote::new().sink().spill(Path::new("/")).is_err());
}
