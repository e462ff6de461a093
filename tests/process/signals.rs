//! SIGTERM and SIGINT: everything that was collected is delivered, the run is marked as preempted, and the process ends by
//! the signal.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::support::*;
use forebay::run::{Signals, SignalsError, TrainingRun};
use forebay::sink::{JsonLinesSink, from_fn};
use forebay::{Batch, Collector, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, RunEnd, runs};

/// Set in the process that gets the signals: its folder, and what it does.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";
const WHAT: &str = "FOREBAY_TEST_WHAT";

/// Runs only in the process that gets the signals.
#[test]
fn a_process_that_is_to_be_ended() {
    let (Some(folder), Ok(what)) = (std::env::var_os(FOLDER), std::env::var(WHAT)) else { return };
    let sink = JsonLinesSink::create(Path::new(&folder).join("events.jsonl")).unwrap();
    let gate = Gate::closed();
    let builder = Collector::builder().flush(HOURLY).sink(sink);
    let hangs = what == "hung";
    let watched = Arc::new(OnceLock::<Signals>::new());
    let late = Arc::clone(&watched);
    let late = from_fn("late", move |_: &Batch| {
        if let Some(signals) = late.get() {
            until("the signal comes", || signals.received().is_some());
        }
        Ok(())
    });
    let builder = if what == "race" { builder.sink(late) } else { builder };
    let collector = if hangs { builder.sink(gate.sink()) } else { builder }.start().unwrap();
    let collector = &collector;
    let run =
        if hangs || what == "alone" { None } else { Some(TrainingRun::builder().start(collector).unwrap()) };
    let builder = Signals::builder(collector).also(libc::SIGUSR1);
    let builder = run.iter().fold(builder, |builder, run| builder.run(run));
    let builder = match &*what {
        "cooperative" | "forwarded" | "later" | "waits" => builder.leave_time().grace(LONG),
        "stubborn" => builder.leave_time().grace(Duration::from_millis(300)),
        "twice" => builder.leave_time().grace(LONG * 60),
        "hung" => builder.grace(Duration::from_millis(100)),
        _ => builder,
    };
    let signals = builder.start().unwrap();
    match &*what {
        "dropped" => {
            drop(signals);
            // Nobody flushes for it when the signal comes.
            assert!(collector.flush().unwrap().is_clean());
        }
        // The second of two, one after the other, is as good as the first.
        "again" => {
            drop(signals);
            let signals = Signals::builder(collector).run(run.as_ref().unwrap()).start().unwrap();
            (0..2000)
                .for_each(|step| _ = collector.collect(Record::scalar("train.loss", 1.0).with_step(step)));
            println!("ready");
            stay();
            drop(signals);
        }
        // It cannot be watched: no descriptor is left.
        "refused" => {
            drop(signals);
            // SAFETY: a structure of ours.
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) };
            // A process of its own listener: that of the parent does not count here.
            if unsafe { libc::fork() } == 0 {
                let refused = Signals::builder(&Collector::builder().build().unwrap()).start();
                unsafe {
                    libc::_exit(if matches!(refused, Err(SignalsError::System(_))) {
                        libc::raise(libc::SIGTERM)
                    } else {
                        1
                    })
                };
            }
            let mut status = 0;
            unsafe { libc::wait(&mut status) };
            assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM, "{status}");
            println!("ready");
            return;
        }
        // A signal that was seen to long ago is none of a later child.
        "later" => {
            println!("ready");
            until("the signal comes", || signals.received().is_some());
            for _ in 0..20 {
                // SAFETY: the child does nothing but end.
                if unsafe { libc::fork() } == 0 {
                    unsafe { libc::_exit(7) };
                }
                let mut status = 0;
                unsafe { libc::wait(&mut status) };
                assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
            }
            return;
        }
        // The parent was signalled as well, and forwards it.
        "forwarded" => {
            println!("ready");
            until("the signal comes", || signals.received().is_some());
            // A few, well within the second, however long the system has this thread wait in between.
            let begun = Instant::now();
            for _ in 0..100 {
                if begun.elapsed() < Duration::from_millis(100) {
                    // SAFETY: it takes a number.
                    unsafe { libc::raise(libc::SIGTERM) };
                    std::thread::yield_now();
                }
            }
            run.unwrap().preempted("SIGTERM, more than once").unwrap();
            drop(signals);
            // Nobody watches any more when the last of them is looked at.
            for _ in 0..100 {
                let signals = Signals::builder(collector).leave_time().grace(LONG).start().unwrap();
                for _ in 0..3 {
                    // SAFETY: it takes a number.
                    unsafe { libc::raise(libc::SIGTERM) };
                    until("the signal comes", || signals.received().is_some());
                }
            }
            return;
        }
        // A thread waits for the signal, and so does a child, for which none comes.
        "waits" => {
            assert_eq!(signals.wait_timeout(Duration::ZERO), None);
            assert_eq!(signals.wait_timeout(Duration::from_millis(1)), None);
            // SAFETY: the child waits for nothing, and ends.
            if unsafe { libc::fork() } == 0 {
                let waited = (signals.wait(), signals.wait_timeout(LONG));
                unsafe { libc::_exit(if waited == (None, None) { 7 } else { 1 }) };
            }
            let mut status = 0;
            unsafe { libc::wait(&mut status) };
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
            std::thread::scope(|scope| {
                let waiting = [(); 3].map(|()| scope.spawn(|| signals.wait()));
                println!("ready");
                assert!(waiting.into_iter().all(|thread| thread.join().unwrap() == Some("SIGTERM")));
            });
            assert_eq!(signals.wait(), Some("SIGTERM"), "it has come");
            assert_eq!(signals.wait_timeout(Duration::ZERO), Some("SIGTERM"));
            run.unwrap().preempted("SIGTERM, waited for").unwrap();
            return;
        }
        // The run ends by itself, and has not quite when the signal comes.
        "race" => {
            _ = watched.set(signals);
            println!("ready");
            run.unwrap().completed([("a", 1.0)]).ok();
            stay();
        }
        "fork" => {
            // SAFETY: the children do nothing but wait for their end.
            for _ in 0..20 {
                let child = unsafe { libc::fork() };
                if child == 0 {
                    loop {
                        unsafe { libc::pause() };
                    }
                }
                // At once, before it knows that it is a child, or later.
                unsafe { libc::kill(child, libc::SIGTERM) };
                let mut status = 0;
                assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
                assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM);
            }
            assert_eq!(signals.received(), None, "the parent got none");
            run.unwrap().completed([("a", 1.0)]).unwrap();
            println!("ready");
            return;
        }
        _ => {
            println!("ready");
            for step in 0.. {
                if !collector.collect(Record::scalar("train.loss", 1.0).with_step(step)).is_queued() {
                    // It is stopped, and the process about to end.
                    stay();
                }
                if step % 1000 == 0 {
                    println!("collected {step}");
                }
                if let ("cooperative", Some(signal)) = (&*what, signals.received()) {
                    let run = run.unwrap();
                    run.preempted(format!("{signal}, checkpoint at {step}")).unwrap();
                    println!("collected {step}");
                    return;
                }
                // Nothing is to be evicted, and something always pending.
                if step % 500 == 499 {
                    let _ = collector.flush_timeout(Duration::from_millis(10));
                }
            }
        }
    }
    println!("ready");
    stay();
}

struct Process {
    child: Killed,
    reported: BufReader<ChildStdout>,
}

impl Process {
    /// Starts it, and waits until it is ready.
    fn new(folder: &Path, what: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name_of!(a_process_that_is_to_be_ended), "--nocapture"])
            .env(FOLDER, folder)
            .env(WHAT, what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let mut reported = BufReader::new(child.0.stdout.take().unwrap());
        assert!(reported.by_ref().lines().map_while(Result::ok).any(|line| line.contains("ready")), "{what}");
        Self { child, reported }
    }

    fn lines(&mut self) -> impl Iterator<Item = u64> {
        let lines = self.reported.by_ref().lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("collected ")?.parse().ok())
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Waits for the end of the process, and returns it with the last step that it reported as collected.
    #[track_caller]
    fn end(mut self) -> (ExitStatus, Option<u64>) {
        let last = self.lines().last();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                return (status, last);
            }
            assert!(begun.elapsed() < LONG, "the process does not end");
            std::thread::yield_now();
        }
    }
}

/// Checks that every step up to `last` is in the file.
#[track_caller]
fn check_steps(history: &JsonLinesHistory, last: u64) {
    let found = history.query(&EventQuery::new().name("train.loss")).unwrap();
    let steps: Vec<u64> = found.iter().filter_map(Record::step).collect();
    assert!(steps.iter().copied().eq(0..steps.len() as u64), "a hole");
    assert!(steps.len() as u64 > last, "{last} were collected, {} are there", steps.len());
}

fn preempted(reason: &str) -> Option<RunEnd> {
    Some(RunEnd::Preempted { reason: reason.to_owned() })
}

#[test]
fn a_signal_delivers_what_was_collected_marks_the_run_and_ends_the_process() {
    for (number, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT"), (libc::SIGUSR1, "SIGUSR1")] {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Process::new(folder.path(), "plain");
        process.lines().find(|step| *step >= 3000).unwrap();
        process.signal(&format!("-{number}"));
        let (status, last) = process.end();
        assert_eq!(status.signal(), Some(number), "as shells and schedulers expect");
        let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
        check_steps(&history, last.unwrap_or(3000));
        assert_eq!(runs(&history).unwrap()[0].end, preempted(name));
    }
    // Nor does it take a run to deliver.
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::new(folder.path(), "alone");
    process.lines().find(|step| *step >= 3000).unwrap();
    process.signal("-TERM");
    let (status, last) = process.end();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    check_steps(&JsonLinesHistory::new(folder.path().join("events.jsonl")), last.unwrap_or(3000));
}

#[test]
fn a_loop_that_was_left_time_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "cooperative");
    process.signal("-TERM");
    let (status, last) = process.end();
    assert_eq!(status.code(), Some(0));
    let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
    check_steps(&history, last.unwrap());
    let reason = format!("SIGTERM, checkpoint at {}", last.unwrap());
    assert_eq!(runs(&history).unwrap()[0].end, preempted(&reason));
}

#[test]
fn a_caller_that_waits_for_a_signal_learns_which_and_a_forked_child_never_waits() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "waits");
    process.signal("-TERM");
    assert_eq!(process.end().0.code(), Some(0));
    let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
    assert_eq!(runs(&history).unwrap()[0].end, preempted("SIGTERM, waited for"));
}

#[test]
fn a_loop_that_does_not_end_is_ended_with_the_grace_period_or_by_a_second_signal() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "stubborn");
    process.signal("-TERM");
    let (status, last) = process.end();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
    check_steps(&history, last.unwrap_or(0));
    assert_eq!(runs(&history).unwrap()[0].end, preempted("SIGTERM"));

    let process = Process::new(folder.path(), "twice");
    process.signal("-INT");
    // Two that come together are one to the system: again, until one is the second.
    let begun = Instant::now();
    let mut process = process;
    while process.child.0.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < LONG, "the process does not end");
        process.signal("-INT");
    }
    assert_eq!(process.child.0.wait().unwrap().signal(), Some(libc::SIGINT));
}

#[test]
fn a_signal_that_comes_again_within_a_second_is_the_same_one() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "forwarded");
    process.signal("-TERM");
    assert_eq!(process.end().0.code(), Some(0));
    let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
    assert_eq!(runs(&history).unwrap()[0].end, preempted("SIGTERM, more than once"));
}

#[test]
fn a_hung_sink_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "hung");
    process.signal("-TERM");
    assert_eq!(process.end().0.signal(), Some(libc::SIGTERM));
}

#[test]
fn a_forked_child_and_a_process_that_let_go_of_its_signals_end_by_them() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "fork");
    assert_eq!(process.end().0.code(), Some(0));
    let process = Process::new(folder.path(), "dropped");
    process.signal("-TERM");
    assert_eq!(process.end().0.signal(), Some(libc::SIGTERM));
    let ends: Vec<_> = runs(&JsonLinesHistory::new(folder.path().join("events.jsonl"))).unwrap();
    assert_eq!(ends.iter().map(|run| &run.end).collect::<Vec<_>>(), [&Some(RunEnd::Completed), &None]);
}

#[test]
fn a_second_one_a_refused_one_and_a_signal_of_long_ago_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path(), "again");
    process.signal("-TERM");
    assert_eq!(process.end().0.signal(), Some(libc::SIGTERM));
    let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
    check_steps(&history, 1999);
    assert_eq!(runs(&history).unwrap()[0].end, preempted("SIGTERM"));
    let process = Process::new(folder.path(), "refused");
    assert_eq!(process.end().0.code(), Some(0));
    let process = Process::new(folder.path(), "later");
    process.signal("-USR1");
    assert_eq!(process.end().0.code(), Some(0));
}

#[test]
fn a_run_that_ends_while_a_signal_comes_tells_one_end() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::new(folder.path(), "race");
        process.signal("-TERM");
        assert_eq!(process.end().0.signal(), Some(libc::SIGTERM));
        let history = JsonLinesHistory::new(folder.path().join("events.jsonl"));
        let reported = history.query(&EventQuery::new().name("training.{completed,preempted}")).unwrap();
        assert_eq!(reported.len(), 1, "{reported:?}");
    }
}

#[test]
fn a_signal_that_cannot_be_watched_is_named_with_those_that_can() {
    let collector = Collector::builder().start().unwrap();
    let said = Signals::builder(&collector).also(libc::SIGKILL).start().unwrap_err().to_string();
    let allowed = "the number of SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 or SIGUSR2";
    assert_eq!(said, format!("invalid signal: 9 (expected {allowed})"));
}
