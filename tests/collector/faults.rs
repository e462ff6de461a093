//! Bad days that peers did not survive and that no other file names.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use crate::support::*;
use forebay::sink::{JsonLinesSink, MemorySink, from_fn};
use forebay::{Batch, Collector, FlushError, FlushStrategy, Outcome, Overflow, Record, State, StopError};

#[test]
fn sixty_four_producers_on_few_processors_keep_law_and_order() {
    const PRODUCERS: u32 = 64;
    const EVENTS: u64 = 2_000;
    for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block { timeout: LONG }] {
        let memory = MemorySink::new();
        let collector = ticks().capacity(64).overflow(overflow).sink(memory.clone()).start().unwrap();
        let queued = AtomicU64::new(0);
        let barrier = Barrier::new(PRODUCERS as usize);
        std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (collector, barrier, queued) = (&collector, &barrier, &queued);
                scope.spawn(move || {
                    barrier.wait();
                    for number in 0..EVENTS {
                        let outcome = collector.collect(Tick { producer, ..tick(number) });
                        queued.fetch_add(u64::from(outcome.is_queued()), Ordering::Relaxed);
                    }
                });
            }
        });
        let report = collector.stop().unwrap();
        let stats = law(&collector, u64::from(PRODUCERS) * EVENTS);
        assert_eq!(stats.processed + stats.evicted, queued.into_inner(), "{overflow:?}");
        report.stats.check_law(stats.offered).unwrap();
        assert_eq!(stats.delta(&report.stats).processed + stats.delta(&report.stats).evicted, 0);
        assert_eq!(audit(&memory), stats.evicted);
        let mut next = vec![0; PRODUCERS as usize];
        for event in memory.events() {
            let next = &mut next[event.producer as usize];
            assert!(event.number >= *next, "{overflow:?}: {event:?} comes after number {next}");
            *next = event.number + 1;
        }
        if matches!(overflow, Overflow::Block { .. }) {
            assert_eq!(stats.processed, stats.offered);
        }
    }
}

#[test]
fn a_sink_that_outlasts_every_deadline_holds_nobody_and_ends_by_itself() {
    let soon = Duration::from_millis(5);
    let gate = Gate::closed();
    let memory = MemorySink::new();
    let collector = stalled(ticks().capacity(8).sink(memory.clone()), &gate);
    for number in 0..100 {
        collector.collect(tick(number));
    }
    for _ in 0..3 {
        let late = collector.flush_timeout(soon).unwrap_err();
        assert!(
            matches!(&late, FlushError::TimedOut { busy_sink: Some(sink), .. } if sink == "gate"),
            "{late}"
        );
    }
    for _ in 0..3 {
        let Err(StopError::TimedOut { report }) = collector.stop_timeout(soon) else { panic!() };
        assert_eq!((report.left_behind, report.busy_sink.as_deref()), (9, Some("gate")));
    }
    assert_eq!(collector.state(), State::Draining);
    assert_eq!(collector.collect(tick(100)), Outcome::Stopped);
    // It comes back after all: what was left behind is delivered, and the next stop says so.
    gate.open();
    let report = collector.stop_timeout(LONG).unwrap();
    assert_eq!((report.left_behind, report.busy_sink), (0, None));
    let stats = law(&collector, 102);
    assert_eq!((stats.processed, stats.evicted, stats.rejected.stopped), (9, 92, 1));
    assert_eq!(memory.len(), 9);
    collector.start().unwrap();
    collector.stop().unwrap();
}

/// Set in a process that ends without a stop: the file it writes, and how it ends.
const FILE: &str = "FOREBAY_TEST_FILE";
const ENDING: &str = "FOREBAY_TEST_ENDING";

/// A process whose worker hangs in a sink, whose threads collect without end, and which nobody stops. Does
/// nothing unless it was asked to.
#[test]
fn ends_without_a_stop() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let hung = Arc::new(AtomicBool::new(false));
    let is_hung = Arc::clone(&hung);
    let collector = Collector::builder()
        .flush(FlushStrategy::Size { events: 1 })
        .sink(JsonLinesSink::create(path).unwrap())
        .sink(from_fn("hangs", move |batch: &Batch<Record>| {
            while batch.iter().any(|record| record.name() == "last") {
                is_hung.store(true, Ordering::Relaxed);
                std::thread::park();
            }
            Ok(())
        }))
        .start()
        .unwrap();
    forebay::init(collector.clone()).unwrap();
    for number in 0..1_000 {
        collector.collect(Record::integer("number", number));
    }
    let _ = collector.flush().unwrap();
    collector.collect(Record::new("last"));
    until("the worker hangs", || hung.load(Ordering::Relaxed));
    for _ in 0..4 {
        std::thread::spawn(|| {
            while forebay::global().is_some_and(|all| all.collect(Record::new("more")).is_queued()) {}
        });
    }
    match std::env::var(ENDING).unwrap().as_str() {
        // As when `main` returns: destructors of the process run, other threads just end with it.
        "exit" => std::process::exit(7),
        "abort" => std::process::abort(),
        "exec" => exec(),
        other => panic!("{other}"),
    }
}

#[cfg(unix)]
fn exec() {
    use std::os::unix::process::CommandExt;
    let error = Command::new("sh").args(["-c", "exit 7"]).exec();
    panic!("{error}");
}

#[cfg(not(unix))]
fn exec() {
    std::process::exit(7);
}

fn end_without_a_stop(ending: &str, path: &Path) -> Option<i32> {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(ends_without_a_stop), "--nocapture"])
        .env(FILE, path)
        .env(ENDING, ending)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Killed(child).code()
}

#[test]
fn a_process_that_ends_without_a_stop_ends_and_keeps_what_was_delivered() {
    let folder = tempfile::tempdir().unwrap();
    for (ending, code) in [("exit", Some(7)), ("abort", None), ("exec", Some(7))] {
        let path = folder.path().join(ending);
        let ended = end_without_a_stop(ending, &path);
        // What code an abort leaves behind is the system's own affair.
        assert_eq!(ended.filter(|_| ending != "abort"), code, "{ending}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n'), "{ending}: a torn line");
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records.len(), 1_001, "{ending}");
        assert_eq!(records[1_000].name(), "last");
    }
}

#[test]
fn an_event_may_collect_and_flush_in_its_destructor_wherever_that_runs() {
    use std::sync::OnceLock;

    /// Collects a plain event, asks for a flush, when it is dropped.
    enum Loud {
        Plain,
        Echoing(Arc<OnceLock<Collector<Loud>>>),
    }
    static FLUSHED: Mutex<Vec<(bool, Result<u64, FlushError>)>> = Mutex::new(Vec::new());
    impl forebay::Event for Loud {}
    impl Drop for Loud {
        fn drop(&mut self) {
            if let Loud::Echoing(handle) = self
                && let Some(collector) = handle.get()
            {
                let is_queued = collector.collect(Loud::Plain).is_queued();
                // On the worker thread a panic would not be seen: it is looked at below.
                let flushed = collector.flush().map(|report| report.processed);
                FLUSHED.lock().unwrap().push((is_queued, flushed));
            }
        }
    }
    let handle = Arc::new(OnceLock::new());
    let builder = forebay::Builder::<Loud>::new().capacity(1).flush(FlushStrategy::Manual);
    let collector = builder.build().unwrap();
    assert!(handle.set(collector.clone()).is_ok());
    // Evicted on this thread: it evicts the event that took its place in turn.
    collector.collect(Loud::Echoing(Arc::clone(&handle)));
    assert_eq!(collector.collect(Loud::Plain), Outcome::QueuedEvicting);
    law(&collector, 3);
    // Destroyed on the worker, after its batch.
    collector.start().unwrap();
    collector.collect(Loud::Echoing(Arc::clone(&handle)));
    let _ = collector.flush().unwrap();
    let _ = collector.flush().unwrap();
    let stats = law(&collector, 5);
    assert_eq!((stats.processed, stats.evicted), (2, 3));
    let wants = [(true, Err(FlushError::NotStarted)), (true, Err(FlushError::OnWorker))];
    assert_eq!(*FLUSHED.lock().unwrap(), wants);
    collector.stop().unwrap();
}
