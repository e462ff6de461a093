//! A run that is started where an earlier one has written learns it, and goes on.

use std::path::Path;
use std::sync::{Arc, Mutex};

use forebay::log::{LogEntry, LogLevel, LogTopic};
use forebay::run::{self, TrainingRun};
#[cfg(feature = "sqlite")]
use forebay::sink::SqliteSink;
use forebay::sink::{JsonLinesSink, Sink, SinkExt, TensorBoardSink};
use forebay::stats::StopReport;
use forebay::{Batch, Collector, Record};

/// Runs a training whose files lie in `folder`. Returns what was said of it, and the report.
fn train(folder: &Path) -> (Vec<LogEntry>, StopReport) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&said);
    let builder = Collector::builder()
        .on_log(move |entry: &LogEntry| hook.lock().unwrap().push(entry.clone()))
        .sink(JsonLinesSink::create(folder.join("events.jsonl")).unwrap())
        .sink(TensorBoardSink::create(folder).unwrap());
    #[cfg(feature = "sqlite")]
    let builder = builder.sink(SqliteSink::create(folder.join("events.db")).unwrap());
    let collector = builder.start().unwrap();
    let run = TrainingRun::builder().start(&collector).unwrap();
    collector.collect(Record::scalar("train.loss", 0.5).with_step(1));
    run.completed([("val_loss", 0.25)]).unwrap();
    let report = collector.stop().unwrap();
    let said = said.lock().unwrap().clone();
    (said, report)
}

/// Returns the path in which each sink found an earlier run.
fn found(report: &StopReport) -> Vec<(&str, Option<&str>)> {
    report.stats.sinks.iter().map(|sink| (&*sink.name, sink.earlier_run.as_deref())).collect()
}

#[test]
fn a_second_run_in_one_folder_is_reported_by_every_file_sink() {
    let runs = tempfile::tempdir().unwrap();
    let folder = run::folder(runs.path().canonicalize().unwrap()).unwrap();
    let (said, report) = train(&folder);
    assert!(said.is_empty() && found(&report).iter().all(|(_, path)| path.is_none()), "{said:?}");

    let (said, report) = train(&folder);
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let mut expected =
        vec![("json_lines", path("events.jsonl")), ("tensorboard", folder.to_str().unwrap().to_owned())];
    if cfg!(feature = "sqlite") {
        expected.push(("sqlite", path("events.db")));
    }
    let reported = expected.iter().map(|(name, path)| (*name, Some(&**path))).collect::<Vec<_>>();
    assert_eq!(found(&report), reported);
    for ((name, path), entry) in expected.iter().zip(&said) {
        assert_eq!((entry.level, entry.topic), (LogLevel::Info, LogTopic::EarlierRun));
        let text = format!("info: {name}: goes on where an earlier run has written: {path}");
        assert_eq!(entry.to_string(), text);
        assert!(
            report.stats.to_string().contains(&format!("(goes on where an earlier run has written: {path})"))
        );
    }
    assert_eq!(said.len(), expected.len(), "{said:?}");

    // It is no error: all that was collected is there.
    let lines = std::fs::read_to_string(folder.join("events.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"train.loss\"")).count(), 2);

    // A folder of its own has none.
    let (said, report) = train(&run::folder(runs.path()).unwrap());
    assert!(said.is_empty() && found(&report).iter().all(|(_, path)| path.is_none()), "{said:?}");
}

#[test]
fn a_file_that_was_rotated_away_is_one_of_an_earlier_run_and_a_resumed_folder_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(folder.path().join("events.jsonl.000001"), "{}\n").unwrap();
    let build = |sink: Box<dyn Sink>| Collector::builder().sinks([sink]).build().unwrap();
    let earlier = |collector: Collector| collector.stats().sinks[0].earlier_run.clone();
    assert!(earlier(build(Box::new(JsonLinesSink::create(&path).unwrap()))).is_some());
    // As every wrapper passes it on.
    let isolated = SinkExt::<Record>::isolated(JsonLinesSink::create(&path).unwrap(), 4);
    let collector = build(Box::new(isolated));
    // Its own thread opens it.
    collector.start().unwrap();
    collector.stop().unwrap();
    assert!(earlier(collector).is_some());
    // A file without a value is none of an earlier run.
    drop(TensorBoardSink::create(folder.path()).unwrap());
    std::fs::write(folder.path().join("events.out.tfevents.7.host.1.0"), "").unwrap();
    let mut sink = TensorBoardSink::create(folder.path()).unwrap();
    sink.write_batch(&Batch::from_events(vec![Record::scalar("loss", 0.5)])).unwrap();
    assert_eq!(earlier(build(Box::new(sink))), None);
    assert!(earlier(build(Box::new(TensorBoardSink::create(folder.path()).unwrap()))).is_some());
    let resumed = TensorBoardSink::resume(folder.path(), 7).unwrap();
    assert_eq!(earlier(build(Box::new(resumed))), None);
}

#[test]
fn one_value_of_a_writer_that_begins_no_session_is_an_earlier_run() {
    let earlier = |folder: &Path| {
        let collector = Collector::builder().sink(TensorBoardSink::create(folder).unwrap()).build().unwrap();
        collector.stats().sinks[0].earlier_run.is_some()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::resume(folder.path(), 300).unwrap();
    let head = std::fs::read(sink.path()).unwrap();
    assert!(!earlier(folder.path()), "a session that begins at a step has no value");
    sink.write_batch(&Batch::from_events(vec![Record::scalar("loss", 0.5)])).unwrap();
    let whole = std::fs::read(sink.path()).unwrap();
    let (version, value) = (16 + usize::from(head[0]), &whole[head.len()..]);
    // As PyTorch's `SummaryWriter` has it: the first value behind the version.
    let foreign = [&head[..version], value].concat();
    for (bytes, expected) in [
        (&foreign[..version], false),
        // A value that is torn is not shown.
        (&foreign[..foreign.len() - 1], false),
        (&foreign[..], true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("events.out.tfevents.7.host.1.0"), bytes).unwrap();
        assert_eq!(earlier(folder.path()), expected, "{} bytes", bytes.len());
    }
}

#[test]
fn a_large_folder_hides_no_sub_run_and_the_folders_that_are_opened_are_bounded() {
    let earlier = |folder: &Path| {
        let collector = Collector::builder().sink(TensorBoardSink::create(folder).unwrap()).build().unwrap();
        collector.stats().sinks[0].earlier_run.is_some()
    };
    let write = |folder: &Path| {
        let mut sink = TensorBoardSink::create(folder).unwrap();
        sink.write_batch(&Batch::from_events(vec![Record::scalar("loss", 0.5)])).unwrap();
    };
    // Whatever the order in which the system lists them.
    let folder = tempfile::tempdir().unwrap();
    drop(TensorBoardSink::create(folder.path()).unwrap());
    let large = folder.path().join("checkpoints");
    std::fs::create_dir(&large).unwrap();
    for number in 0..1_500 {
        std::fs::write(large.join(number.to_string()), "").unwrap();
    }
    write(&large.join("loss_train"));
    assert!(earlier(folder.path()));

    // The folders directly below come first, then those in them: 100 in all.
    for (others, is_found) in [(98, true), (99, false)] {
        let folder = tempfile::tempdir().unwrap();
        drop(TensorBoardSink::create(folder.path()).unwrap());
        for number in 0..others {
            std::fs::create_dir(folder.path().join(number.to_string())).unwrap();
        }
        write(&folder.path().join("loss/train"));
        assert_eq!(earlier(folder.path()), is_found, "{others} other folders");
    }
}

#[cfg(unix)]
#[test]
fn what_is_in_a_file_behind_a_descriptor_is_no_earlier_run() {
    use std::os::fd::AsRawFd;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    std::fs::write(&path, "said by somebody\n").unwrap();
    let out = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    let sink = JsonLinesSink::create(format!("/dev/fd/{}", out.as_raw_fd())).unwrap();
    let collector = Collector::builder().sink(sink).build().unwrap();
    assert_eq!(collector.stats().sinks[0].earlier_run, None);
}
