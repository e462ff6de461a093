//! P9: after `fork()`, the child neither hangs nor writes the parent's events twice.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::child::in_child;
use crate::support::*;
use forebay::collector::{FlushError, StartError, State, StopError};
use forebay::config::Lanes;
use forebay::run::{RunError, TrainingRun};
use forebay::sink::{JsonLinesSink, MemorySink};
use forebay::{Collector, Outcome, Record};

#[test]
fn a_child_of_a_busy_parent_knows_it_and_neither_hangs_nor_writes() {
    alone!();
    fork_busy(Lanes::Shared);
}

#[test]
fn a_child_of_a_busy_parent_with_lanes_knows_it_and_neither_hangs_nor_writes() {
    alone!();
    fork_busy(Lanes::PerThread { max: 2 });
}

fn fork_busy(lanes: Lanes) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let builder = Collector::builder().capacity(64).lanes(lanes);
    let collector = builder.sink(JsonLinesSink::create(&path).unwrap()).start().unwrap();
    let is_over = AtomicBool::new(false);
    let mut offered = 0;
    std::thread::scope(|scope| {
        // Producers and worker are in the middle of whatever they do when the fork catches them: slots
        // half-written, locks held.
        let producers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut number = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        collector.collect(Record::integer("parent", number as i64));
                        number += 1;
                        if number % 1000 == 0 {
                            look_again();
                        }
                    }
                    number
                })
            })
            .collect();
        let raise = Raise(&is_over);
        for _ in 0..50 {
            let status = in_child(|| {
                for _ in 0..1000 {
                    assert_eq!(collector.collect(Record::new("child")), Outcome::Forked);
                }
                assert_eq!(collector.local().collect(Record::new("child")), Outcome::Forked);
                assert_eq!(collector.state(), State::Forked);
                assert_eq!(collector.flush().unwrap_err(), FlushError::Forked);
                assert_eq!(collector.stop().unwrap_err(), StopError::Forked);
                assert!(matches!(collector.start(), Err(StartError::Forked)));
                assert!(collector.add_sink(MemorySink::new()).is_err());
                assert!(collector.remove_sink("json_lines").is_err());
                assert_eq!(collector.update_config(|_| ()), Err(forebay::config::ConfigError::Forked));
                assert_eq!(collector.config().capacity, 64);
                assert!(collector.stats().rejected.forked >= 1000);
                // The child's last handle, as when it exits in an orderly way.
                drop(collector.clone());
                true
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
        drop(raise);
        offered = producers.into_iter().map(|producer| producer.join().unwrap()).sum();
    });
    collector.stop().unwrap();
    let stats = law(&collector, offered);
    assert_eq!(stats.rejected.forked, 0, "the parent has nothing of it");
    let text = std::fs::read_to_string(&path).unwrap();
    let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.iter().all(|record| record.name() != "child"));
    let own = records.iter().filter(|record| record.name() == "parent").count() as u64;
    assert_eq!(own, stats.processed, "every line once");
}

#[test]
fn a_child_of_a_busy_parent_may_exit_or_become_another_program() {
    alone!();
    use std::os::unix::process::CommandExt;

    let memory = MemorySink::new();
    let collector = ticks().capacity(64).sink(memory.clone()).start().unwrap();
    let is_over = AtomicBool::new(false);
    let mut offered = 0;
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                collector.collect(tick(number));
                number += 1;
            }
            number
        });
        let raise = Raise(&is_over);
        for _ in 0..20 {
            // With the destructors of the process, and with the child's handle still alive.
            let exits = in_child(|| {
                assert_eq!(collector.collect(tick(0)), Outcome::Forked);
                // SAFETY: no other thread of this process exists.
                unsafe { libc::exit(3) }
            });
            assert_eq!(exits, Some(3));
            let execs = in_child(|| {
                assert_eq!(collector.collect(tick(0)), Outcome::Forked);
                let error = std::process::Command::new("sh").args(["-c", "exit 4"]).exec();
                panic!("{error}");
            });
            assert_eq!(execs, Some(4));
            // The same in one go, as programs are usually started.
            let spawned = std::process::Command::new("sh").args(["-c", "exit 5"]).status().unwrap();
            assert_eq!(spawned.code(), Some(5));
        }
        drop(raise);
        offered = producer.join().unwrap();
    });
    collector.stop().unwrap();
    let stats = law(&collector, offered);
    assert_eq!(stats.rejected.forked, 0);
    assert_eq!(audit(&memory), stats.evicted);
}

#[test]
fn a_child_does_not_drop_the_sinks_of_a_collector_that_is_not_running() {
    alone!();
    /// Writes what it holds when it is dropped, as a `BufWriter` does.
    struct Buffered(std::path::PathBuf);
    impl forebay::sink::Sink<Tick> for Buffered {
        fn name(&self) -> &str {
            "buffered"
        }
        fn write_batch(&mut self, _: &forebay::Batch<Tick>) -> Result<(), forebay::sink::SinkError> {
            Ok(())
        }
    }
    impl Drop for Buffered {
        fn drop(&mut self) {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new().append(true).create(true).open(&self.0).unwrap();
            file.write_all(b"header\n").unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut collector = Some(ticks().sink(Buffered(path.clone())).build().unwrap());
    let status = in_child(|| {
        drop(collector.take());
        true
    });
    assert_eq!(status, Some(0));
    assert!(!path.exists(), "the child wrote what is the parent's");
    drop(collector);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "header\n");
}

#[test]
fn a_fork_while_others_build_collectors_misses_none() {
    alone!();
    let collector = ticks().start().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _raise = Raise(&is_over);
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    drop(ticks().capacity(1).low_capacity(1).critical_capacity(1).build().unwrap());
                }
            });
        }
        for _ in 0..300 {
            assert_eq!(in_child(|| collector.collect(tick(0)) == Outcome::Forked), Some(0));
        }
    });
    collector.stop().unwrap();
    law(&collector, 0);
}

#[test]
fn collectors_that_are_gone_are_not_looked_for() {
    alone!();
    for round in 0..100 {
        let collector = ticks().start().unwrap();
        collector.collect(tick(round));
        drop(collector);
    }
    let collector = ticks().start().unwrap();
    assert_eq!(in_child(|| collector.collect(tick(0)) == Outcome::Forked), Some(0));
    collector.stop().unwrap();
    law(&collector, 0);
}

#[test]
fn a_training_run_that_was_begun_before_the_fork_ends_in_the_parent_alone() {
    alone!();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let run = TrainingRun::builder().heartbeat(Duration::from_millis(1)).start(&collector).unwrap();
    let begun = std::cell::Cell::new(Some(run));
    for _ in 0..20 {
        // Its heart beats in the parent, and may hold any lock.
        let status = in_child(|| {
            let run = begun.take().unwrap();
            assert_eq!(run.batch_completed(1, 0.5, [("a", 1.0)]), Outcome::Forked);
            match std::process::id() % 2 {
                0 => drop(run),
                _ => assert!(matches!(
                    run.completed([("a", 1.0)]),
                    Err(RunError::EndNotCollected(Outcome::Forked))
                )),
            }
            true
        });
        assert_eq!(status, Some(0));
    }
    begun.take().unwrap().completed([("a", 1.0)]).unwrap();
    let ends =
        memory.events().iter().filter(|record: &&Record| record.name() == "training.completed").count();
    assert_eq!(ends, 1);
    let offered = memory.len() as u64;
    collector.stop().unwrap();
    law(&collector, offered);
}
