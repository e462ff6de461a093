//! A training run tells its begin and its end, whatever that is, and readers can tell what became of it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use crate::support::*;
use forebay::run::{HEARTBEAT, Rank, RunError, TrainingRun};
use forebay::sink::{JsonLinesSink, MemorySink, from_fn};
use forebay::{Batch, Builder, Collector, Event, Fields, Outcome, Priority, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, Recent, RunEnd, RunInfo, RunStatus, runs};

const NO_FIELDS: [(&str, f64); 0] = [];

fn names(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.name()).collect()
}

fn text<'a>(record: &'a Record, field: &str) -> Option<&'a str> {
    record.value().as_fields()?.get(field)?.as_str()
}

/// Returns a collector that delivers nothing by itself, and what it has delivered.
fn collector() -> (Collector, Recent<1000>) {
    let recent = Recent::new();
    (Collector::builder().flush(HOURLY).sink(recent.clone()).start().unwrap(), recent)
}

fn all(recent: &Recent<1000>) -> Vec<Record> {
    recent.query(&EventQuery::new()).unwrap()
}

/// Event that is made of a record.
#[derive(Debug)]
struct Wrapped(Record);

impl Event for Wrapped {
    fn name(&self) -> &str {
        Event::name(&self.0)
    }

    fn priority(&self) -> Priority {
        self.0.priority()
    }
}

impl From<Record> for Wrapped {
    fn from(record: Record) -> Self {
        Self(record)
    }
}

#[test]
fn a_run_of_a_users_own_events_reports_the_same() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let sink = from_fn("names", move |batch: &Batch<Wrapped>| {
        kept.lock().unwrap().extend(batch.iter().map(|event| Event::name(&event.0).to_owned()));
        Ok(())
    });
    let collector: Collector<Wrapped> = Builder::new().sink(sink).start().unwrap();
    let run = TrainingRun::builder().start(&collector).unwrap();
    run.epoch(1, 1).completed(NO_FIELDS);
    run.collector().collect(Record::new("own"));
    run.completed(NO_FIELDS).unwrap();
    collector.stop().unwrap();
    let expected =
        ["started", "epoch_started", "epoch_completed", "completed"].map(|name| format!("training.{name}"));
    let mut seen = seen.lock().unwrap().clone();
    seen.retain(|name| *name != "own");
    assert_eq!(seen, expected);
    law(&collector, 5);
}

#[test]
fn a_run_is_recorded_from_its_begin_to_its_end_in_order() {
    let (collector, recent) = collector();
    collector.collect(Record::new("before"));
    let run = TrainingRun::builder()
        .run_id("7")
        .config([("learning_rate", 0.1)])
        .model_type("mlp")
        .start(&collector)
        .unwrap();
    assert_eq!((run.run_id(), run.generation(), run.rank()), ("7", 1, Rank::default()));
    let epoch = run.epoch(1, 2);
    for step in 0..3 {
        run.batch_completed(step, 0.5, NO_FIELDS);
    }
    run.new_best_model(1, 0.25);
    epoch.completed([("val_loss", 0.25)]);
    run.completed([("val_accuracy", 0.97)]).unwrap();
    let reported = all(&recent);
    let expected = [
        "before",
        "training.started",
        "training.epoch_started",
        "training.new_best_model",
        "training.epoch_completed",
        "training.completed",
    ];
    // Low events keep their order among themselves, and stand between begin and end.
    let (batches, reported): (Vec<Record>, Vec<Record>) = reported
        .into_iter()
        .enumerate()
        .map(|(place, record)| {
            assert!(record.name() != "training.batch_completed" || (2..8).contains(&place));
            record
        })
        .partition(|record| record.name() == "training.batch_completed");
    assert!(batches.iter().filter_map(Record::step).eq(0..3));
    assert_eq!(names(&reported), expected);
    let (started, completed) = (&reported[1], &reported[5]);
    let fields = started.value().as_fields().unwrap();
    assert_eq!(fields.get("config").unwrap().as_fields(), Some(&Fields::from([("learning_rate", 0.1)])));
    assert_eq!((text(started, "run_id"), text(started, "model_type")), (Some("7"), Some("mlp")));
    assert_eq!(&*started.extra().unwrap().session_id.clone().unwrap(), collector.session_id());
    assert_eq!(completed.step(), Some(2), "where the loop was");
    assert_eq!((reported[4].step(), reported[2].step()), (Some(2), Some(0)), "the step that it begins with");
    let report = collector.flush().unwrap();
    assert_eq!(report.processed, 9, "its own flushes leave the report to whoever asks");
    collector.stop().unwrap();
    law(&collector, 9);
}

#[test]
fn a_panic_is_recorded_with_its_words_and_its_place_and_goes_on() {
    let (collector, recent) = collector();
    let end = std::panic::catch_unwind(|| {
        let run = TrainingRun::builder().start(&collector).unwrap();
        let _epoch = run.epoch(3, 10);
        std::panic::panic_any("on purpose");
    });
    assert_eq!(end.unwrap_err().downcast_ref(), Some(&"on purpose"));
    let reported = all(&recent);
    let failed = reported.last().unwrap();
    assert_eq!(failed.name(), "training.failed");
    assert_eq!(text(failed, "error"), Some("panicked: on purpose"));
    assert!(text(failed, "traceback").unwrap().contains("training_run.rs:"));
    assert_eq!(failed.value().as_fields().unwrap().get("epoch").unwrap().as_i64(), Some(3));
    let info = runs(&recent).unwrap();
    assert_eq!(info[0].end, Some(RunEnd::Failed { error: "panicked: on purpose".to_owned() }));
    // The next one does not inherit the words.
    drop(TrainingRun::builder().start(&collector).unwrap());
    let reported = all(&recent);
    assert_eq!(text(reported.last().unwrap(), "error"), Some("dropped before its end was reported"));
    collector.stop().unwrap();
    law(&collector, 5);
}

#[test]
fn an_error_of_the_body_is_recorded_and_comes_back() {
    let (collector, recent) = collector();
    let start = || TrainingRun::builder().start(&collector).unwrap();
    let result: Result<(), String> = start().within(|_| Err("no data".to_owned()));
    assert_eq!(result, Err("no data".to_owned()));
    let result: Result<u64, String> = start().within(|run| Ok(run.generation()));
    assert_eq!(result, Ok(1));
    start().early_stopped("converged").unwrap();
    start().preempted("SIGTERM").unwrap();
    start().failed("the loss is NaN").unwrap();
    let ends: Vec<RunEnd> = runs(&recent).unwrap().into_iter().map(|run| run.end.unwrap()).collect();
    let expected = [
        RunEnd::Failed { error: "no data".to_owned() },
        RunEnd::Completed,
        RunEnd::EarlyStopped { reason: "converged".to_owned() },
        RunEnd::Preempted { reason: "SIGTERM".to_owned() },
        RunEnd::Failed { error: "the loss is NaN".to_owned() },
    ];
    assert_eq!(ends, expected);
    let now = std::time::SystemTime::now();
    let status: Vec<RunStatus> = runs(&recent).unwrap().iter().map(|run| run.status(now)).collect();
    use RunStatus::{Failed, Finished, Preempted};
    assert_eq!(status, [Failed, Finished, Finished, Preempted, Failed]);
    collector.stop().unwrap();
    law(&collector, 10);
}

#[test]
fn a_heart_beats_at_the_step_of_the_loop_until_the_run_ends() {
    let (collector, recent) = collector();
    let run = TrainingRun::builder().heartbeat(Duration::from_millis(1)).start(&collector).unwrap();
    let beats = || recent.query(&EventQuery::new().name(HEARTBEAT)).unwrap();
    // Nothing else would deliver them within the hour.
    until("three beats", || beats().len() >= 3);
    run.set_step(41);
    until("a beat at that step", || beats().last().unwrap().step() == Some(41));
    let (other, is_over) = (collector.clone(), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        // Against the end, from another thread.
        scope.spawn(|| {
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                _ = other.flush();
            }
        });
        let _raise = Raise(&is_over);
        run.completed(NO_FIELDS).unwrap();
    });
    let reported = all(&recent);
    assert_eq!(reported.last().unwrap().name(), "training.completed", "the heart stands still");
    assert_eq!(runs(&recent).unwrap()[0].last_step, Some(41));
    collector.stop().unwrap();
    law(&collector, reported.len() as u64);
}

#[test]
fn what_a_resumed_run_tells_again_supersedes_and_both_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let history = JsonLinesHistory::new(&path);
    let generation = |steps: std::ops::Range<u64>, loss: f64, earlier: Option<&RunInfo>| {
        let sink = JsonLinesSink::create(&path).unwrap();
        let collector = Collector::builder().flush(HOURLY).sink(sink).start().unwrap();
        let builder = TrainingRun::builder().rank(Rank::default());
        let builder = match earlier {
            Some(earlier) => builder.resume(earlier, steps.start),
            None => builder.run_id("digits"),
        };
        let run = builder.start(&collector).unwrap();
        for step in steps {
            collector.collect(Record::scalar("loss", loss).with_step(step));
        }
        run.preempted("SIGTERM").unwrap();
        collector.stop().unwrap();
    };
    generation(0..10, 1.0, None);
    let first = runs(&history).unwrap().pop().unwrap();
    generation(6..12, 2.0, Some(&first));
    let second = runs(&history).unwrap().pop().unwrap();
    assert_eq!((&*second.run_id, second.generation), ("digits", 2));
    generation(8..10, 3.0, Some(&second));
    let ask = |query: EventQuery| -> Vec<(u64, f64)> {
        let found = history.query(&query.name("loss")).unwrap();
        found.iter().map(|record| (record.step().unwrap(), record.value().as_f64().unwrap())).collect()
    };
    let reported =
        |steps: std::ops::Range<u64>, loss| steps.map(move |step| (step, loss)).collect::<Vec<_>>();
    assert_eq!(ask(EventQuery::new().generation(1)), reported(0..10, 1.0));
    assert_eq!(ask(EventQuery::new().generation(2)), reported(6..12, 2.0));
    assert_eq!(ask(EventQuery::new().generation(3)), reported(8..10, 3.0));
    assert_eq!(ask(EventQuery::new()).len(), 10 + 6 + 2);
    let current = [reported(0..6, 1.0), reported(6..8, 2.0), reported(8..10, 3.0)].concat();
    assert_eq!(ask(EventQuery::new().current()), current);
    assert_eq!(ask(EventQuery::new().current().newest_first().limit(3)), [(9, 3.0), (8, 3.0), (7, 2.0)]);
    let info = runs(&history).unwrap();
    assert_eq!(info.iter().map(|run| run.generation).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn what_is_not_allowed_is_named_with_what_is() {
    let (collector, _) = collector();
    let said = |builder: forebay::run::RunBuilder| builder.start(&collector).unwrap_err().to_string();
    assert_eq!(
        said(TrainingRun::builder().run_id("")),
        "invalid run_id: \"\" (expected a text that is not empty)"
    );
    assert_eq!(
        said(TrainingRun::builder().name("")),
        "invalid name: \"\" (expected a text that is not empty)"
    );
    assert_eq!(
        said(TrainingRun::builder().heartbeat(Duration::ZERO)),
        "invalid heartbeat: 0ns (expected a millisecond or more)"
    );
    collector.stop().unwrap();
    let refused = TrainingRun::builder().start(&collector);
    assert!(matches!(refused, Err(RunError::NotCollected(Outcome::Stopped))));
    assert_eq!(collector.current_run(), None, "a run that did not begin is nobody's");
    law(&collector, 1);
}

#[test]
fn a_run_that_outlives_its_collector_ends_without_a_word() {
    let (collector, recent) = collector();
    let run = TrainingRun::builder().start(&collector).unwrap();
    collector.stop().unwrap();
    drop(run);
    assert_eq!(names(&all(&recent)), ["training.started"]);
    law(&collector, 2);
}

/// Set in the process that is to be killed.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";

/// Runs only in the process that is to be killed.
#[test]
fn a_run_that_never_ends() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let memory = MemorySink::new();
    let sink = JsonLinesSink::create(Path::new(&folder).join("events.jsonl")).unwrap();
    let collector = Collector::builder().flush(HOURLY).sink(sink).sink(memory.clone()).start().unwrap();
    let _run = TrainingRun::builder().heartbeat(Duration::from_millis(5)).start(&collector).unwrap();
    until("a heartbeat", || memory.events().iter().any(|record: &Record| record.name() == HEARTBEAT));
    println!("it beats");
    stay();
}

#[test]
fn a_killed_process_is_found_to_have_vanished_from_its_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(a_run_that_never_ends), "--nocapture"])
        .env(FOLDER, folder.path())
        .envs([("RANK", "1"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let reported = BufReader::new(child.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(reported.into_iter().any(|line| line.contains("it beats")));
    drop(child);
    let runs = runs(&JsonLinesHistory::new(folder.path().join("events.jsonl"))).unwrap();
    let [run] = &runs[..] else { panic!("one run, not {}", runs.len()) };
    assert_eq!((run.rank, run.world_size, &run.end), (1, 2, &None));
    assert!(run.last_seen > run.began);
    let heartbeat = run.heartbeat.unwrap();
    assert_eq!(heartbeat, Duration::from_millis(5));
    assert_eq!(run.status(run.last_seen), RunStatus::Running);
    assert_eq!(run.status(run.last_seen + heartbeat * 3), RunStatus::Running);
    assert_eq!(run.status(run.last_seen + heartbeat * 4), RunStatus::Vanished);
}

/// Returns the runs that a file of these records tells, each with its moment in seconds.
fn runs_of(records: &[(u64, Record)]) -> Vec<RunInfo> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let lines = records.iter().map(|(seconds, record)| {
        let record = record.clone().with_unix_nanos(seconds * 1_000_000_000);
        serde_json::to_string(&record).unwrap() + "\n"
    });
    std::fs::write(&path, lines.collect::<String>()).unwrap();
    runs(&JsonLinesHistory::new(path)).unwrap()
}

/// Returns a record of a run that beats every ten seconds.
fn reported(name: &'static str, uptime: u64) -> Record {
    Record::new(name)
        .with_field("run_id", "1")
        .with_field("heartbeat", Duration::from_secs(10))
        .with_field("uptime", Duration::from_secs(uptime))
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

const DAYS: u64 = 2 * 86_400;

#[test]
fn the_last_word_of_a_run_counts_and_not_the_latest_moment() {
    // Begun while the clock was two days ahead; it was set right after the second heartbeat.
    let begun = 1_800_000_000;
    let runs = runs_of(&[
        (begun + DAYS, reported("training.started", 0)),
        (begun + DAYS + 10, reported(HEARTBEAT, 10)),
        (begun + DAYS + 20, reported(HEARTBEAT, 20)),
        (begun + 30, reported(HEARTBEAT, 30)),
        (begun + 40, reported(HEARTBEAT, 40)),
    ]);
    let [run] = &runs[..] else { panic!("one run, not {}", runs.len()) };
    assert_eq!((run.last_seen, run.uptime), (at(begun + 40), Some(Duration::from_secs(40))));
    assert_eq!(run.status(at(begun + 60)), RunStatus::Running);
    assert_eq!(run.status(at(begun + 71)), RunStatus::Vanished, "it is not taken for running for two days");
}

#[test]
fn a_last_word_from_the_future_is_neither_running_nor_vanished() {
    let begun = 1_800_000_000;
    let runs = runs_of(&[
        (begun + DAYS, reported("training.started", 0)),
        (begun + DAYS + 10, reported(HEARTBEAT, 10)),
    ]);
    let [run] = &runs[..] else { panic!("one run, not {}", runs.len()) };
    assert_eq!(run.status(at(begun)), RunStatus::Unclear);
    assert_eq!(run.status(at(begun + DAYS - 20)), RunStatus::Running, "clocks may differ by a heartbeat");
    // It ended by its own word, whatever the clock showed.
    let runs = runs_of(&[
        (begun + DAYS, reported("training.started", 0)),
        (begun, reported("training.completed", 0)),
    ]);
    assert_eq!(runs[0].status(at(begun - DAYS)), RunStatus::Finished);
}

#[test]
fn a_measurement_that_was_imported_tells_nothing_of_the_life_of_a_run() {
    let begun = 1_800_000_000;
    for imported in [begun - DAYS, begun + DAYS] {
        let runs = runs_of(&[
            (begun, reported("training.started", 0)),
            (begun + 10, reported(HEARTBEAT, 10)),
            (imported, Record::scalar("loss", 0.5)),
        ]);
        assert_eq!(runs[0].last_seen, at(begun + 10));
        assert_eq!(runs[0].status(at(begun + 20)), RunStatus::Running);
        assert_eq!(runs[0].status(at(begun + 50)), RunStatus::Vanished);
    }
    let runs =
        runs_of(&[(begun, reported("training.started", 0)), (begun + 29, Record::scalar("loss", 0.5))]);
    assert_eq!(runs[0].last_seen, at(begun + 29), "any event shows that it lives");
}

#[test]
fn an_end_that_finds_no_space_is_an_error() {
    let gate = Gate::closed();
    let collector = Collector::builder()
        .critical_capacity(1)
        .critical_timeout(Duration::ZERO)
        .flush_timeout(Duration::from_millis(10))
        .flush(HOURLY)
        .sink(gate.sink())
        .start()
        .unwrap();
    gate.open();
    let run = TrainingRun::builder().start(&collector).unwrap();
    gate.await_arrivals(1);
    gate.close();
    let critical = || collector.collect(Record::new("critical").with_priority(forebay::Priority::Critical));
    critical();
    gate.await_arrivals(2);
    // The worker is held up with that one, and this one fills the lane.
    assert_eq!(critical(), Outcome::Queued);
    let end = run.completed(NO_FIELDS);
    assert!(matches!(end, Err(RunError::EndNotCollected(Outcome::Full))), "{end:?}");
    gate.open();
    collector.stop().unwrap();
    law(&collector, 4);
}

#[test]
fn where_the_begin_is_not_kept_heartbeats_tell_the_run_and_resumes_supersede() {
    let recent = Recent::<30>::new();
    let collector = Collector::builder().flush(HOURLY).sink(recent.clone()).start().unwrap();
    let scalars = |steps: std::ops::Range<u64>| {
        steps.for_each(|step| _ = collector.collect(Record::scalar("loss", 0.5).with_step(step)));
    };
    let first = TrainingRun::builder().heartbeat(Duration::from_millis(1)).start(&collector).unwrap();
    scalars(0..100);
    collector.flush().map(drop).unwrap();
    until("its begin is forgotten, and it beats", || {
        recent.query(&EventQuery::new().name("training.started")).unwrap().is_empty()
            && !recent.query(&EventQuery::new().name(HEARTBEAT)).unwrap().is_empty()
    });
    let reported = runs(&recent).unwrap();
    assert_eq!((reported.len(), &*reported[0].run_id, reported[0].generation), (1, first.run_id(), 1));
    assert_eq!(reported[0].heartbeat, Some(Duration::from_millis(1)));
    first.preempted("SIGTERM").unwrap();
    scalars(100..110);
    let second = TrainingRun::builder().resume(&reported[0], 105).start(&collector).unwrap();
    assert_eq!(second.generation(), 2);
    let epoch = second.epoch(2, 3);
    scalars(105..107);
    epoch.completed(NO_FIELDS);
    second.completed(NO_FIELDS).unwrap();
    let found = recent.query(&EventQuery::new().name("loss").steps(100..).current()).unwrap();
    let steps: Vec<u64> = found.iter().filter_map(Record::step).collect();
    assert_eq!(steps, [100, 101, 102, 103, 104, 105, 106]);
    let epochs = recent.query(&EventQuery::new().name("training.epoch_started")).unwrap();
    assert_eq!(epochs[0].step(), Some(105), "so that a resume from there supersedes it");
    let offered = collector.stats().offered;
    collector.stop().unwrap();
    law(&collector, offered);
}

#[test]
fn threads_that_ask_at_once_get_folders_of_their_own() {
    let runs = tempfile::tempdir().unwrap();
    let ask = || forebay::run::folder(runs.path()).unwrap();
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8);
}
