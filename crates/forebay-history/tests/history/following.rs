//! Runs that are read while they are written: every event once, whatever becomes of the files.

use std::path::Path;

use forebay::sink::{JsonLinesSink, Sink, TensorBoardSink};
use forebay::{Batch, Record};
use forebay_history::{Feed, Format, HistoryError, RecordFollower, Run, find_runs};

/// A writer of steps, a batch each.
struct Writer<S> {
    sink: S,
    next: u64,
}

impl<S: Sink<Record>> Writer<S> {
    fn new(sink: S) -> Self {
        Self { sink, next: 0 }
    }

    fn write(&mut self, steps: u64) {
        for step in self.next..self.next + steps {
            let record = Record::scalar("loss", step as f64).with_step(step);
            self.sink.write_batch(&Batch::from_events(vec![record])).unwrap();
        }
        self.next += steps;
        self.sink.flush().unwrap();
    }
}

/// Reads what is new, and checks that every step was read once, in its order.
fn follow(follower: &mut RecordFollower, steps: &mut Vec<u64>, written: u64) {
    follower.poll(&mut |record| steps.push(record.step().unwrap())).unwrap();
    assert_eq!(*steps, (0..written).collect::<Vec<_>>());
}

/// Lines of about 90 bytes: a file is closed after about ten of them.
fn rotating(file: &Path) -> JsonLinesSink {
    JsonLinesSink::create(file).unwrap().rotate_at(1_000)
}

/// Returns a sink that compresses the files that it has closed, if it is to.
fn compressing(sink: JsonLinesSink, _is_to: bool) -> JsonLinesSink {
    #[cfg(feature = "zstd")]
    if _is_to {
        return sink.compress_closed();
    }
    sink
}

/// Writes one record to a sink that is closed then.
fn write_one(mut sink: impl Sink<Record>, record: Record) {
    sink.write_batch(&Batch::from_events(vec![record])).unwrap();
    sink.flush().unwrap();
}

#[test]
fn every_line_is_read_once_through_any_number_of_rotations_between_two_looks() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(rotating(&folder.path().join("events.jsonl")).keep_closed(1_000));
    writer.write(1);
    let (mut follower, mut steps) = (RecordFollower::open(folder.path()).unwrap(), Vec::new());
    // Within a file, one rotation, many of them, none.
    for more in [3, 15, 200, 0, 1, 40] {
        writer.write(more);
        follow(&mut follower, &mut steps, writer.next);
    }
}

#[test]
fn a_rotation_while_the_files_before_are_read_loses_nothing_and_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(rotating(&folder.path().join("events.jsonl")).keep_closed(1_000));
    writer.write(25);
    let (mut follower, mut steps) = (RecordFollower::open(folder.path()).unwrap(), Vec::new());
    // While the first line is handed out, the sink goes on through several files.
    let mut is_first = true;
    follower
        .poll(&mut |record| {
            if std::mem::take(&mut is_first) {
                writer.write(60);
            }
            steps.push(record.step().unwrap());
        })
        .unwrap();
    writer.write(30);
    follow(&mut follower, &mut steps, writer.next);
}

#[test]
fn a_sink_that_keeps_no_closed_file_loses_no_line_that_was_there_to_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(rotating(&folder.path().join("events.jsonl")).keep_closed(0));
    writer.write(1);
    let mut run = Run::open(folder.path()).unwrap();
    for _ in 0..100 {
        writer.write(1);
        while run.poll().unwrap() {}
    }
    assert_eq!(run.series("loss").unwrap().count(), 101);
}

#[test]
fn a_file_that_is_replaced_has_nothing_of_the_one_before() {
    let line = |step: u64| {
        format!(r#"{{"name":"loss","time":"2026-11-21T08:00:00.000000000Z","step":{step},"scalar":0.5}}"#)
            + "\n"
    };
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("run");
    let file = runs.join("events.jsonl");
    std::fs::create_dir(&runs).unwrap();
    std::fs::write(&file, line(1) + &line(2)).unwrap();
    let mut run = Run::open(&runs).unwrap();
    let count = |run: &mut Run| {
        while run.poll().unwrap() {}
        run.series("loss").map_or(0, |series| series.count())
    };
    assert_eq!(count(&mut run), 2);
    // Cut, and shorter.
    std::fs::write(&file, line(7)).unwrap();
    assert_eq!(count(&mut run), 1);
    // Cut, and longer by now.
    std::fs::write(&file, line(8) + &line(9) + &line(10)).unwrap();
    assert_eq!(count(&mut run), 3);
    // The folder of another run in its place.
    std::fs::remove_dir_all(&runs).unwrap();
    std::fs::create_dir(&runs).unwrap();
    std::fs::write(&file, line(1)).unwrap();
    assert_eq!(count(&mut run), 1);
    // A line that grows is read when it has its end.
    let whole = line(2);
    let (begin, end) = whole.split_at(30);
    std::fs::write(&file, line(1) + begin).unwrap();
    assert_eq!((count(&mut run), run.is_torn()), (1, true));
    std::fs::write(&file, line(1) + begin + end).unwrap();
    assert_eq!((count(&mut run), run.is_torn()), (2, false));
}

#[test]
fn a_closed_file_that_is_damaged_costs_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(rotating(&folder.path().join("events.jsonl")).keep_closed(1_000));
    writer.write(35);
    let broken = folder.path().join("events.jsonl.000002");
    assert!(broken.exists());
    std::fs::write(&broken, [0xff; 100]).unwrap();
    let mut run = Run::open(folder.path()).unwrap();
    while run.poll().unwrap() {}
    let count = run.series("loss").unwrap().count();
    assert!((20..35).contains(&count), "{count}");
    assert!(run.not_read() > 0);
    assert_eq!(run.series("loss").unwrap().last().unwrap().step, 34);
}

#[test]
fn event_files_are_followed_and_what_is_none_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(TensorBoardSink::create(folder.path()).unwrap());
    writer.write(5);
    let mut run = Run::open(folder.path()).unwrap();
    // A pipe would hang, and a folder is no file.
    std::fs::create_dir(folder.path().join("x.tfevents.1")).unwrap();
    #[cfg(unix)]
    assert!(
        std::process::Command::new("mkfifo")
            .arg(folder.path().join("x.tfevents.2"))
            .status()
            .unwrap()
            .success()
    );
    for more in [0, 3, 100] {
        writer.write(more);
        while run.poll().unwrap() {}
        assert_eq!(run.series("loss").unwrap().count(), writer.next);
    }
    assert!(run.not_read() >= 1);
}

#[test]
fn runs_are_found_below_a_folder_and_sub_runs_belong_to_theirs() {
    let folder = tempfile::tempdir().unwrap();
    for (path, file) in [
        ("a", "events.jsonl"),
        ("a/eval", "events.out.tfevents.1.x"),
        ("b/deep", "events.out.tfevents.1.x"),
        ("b/deep/below", "events.out.tfevents.1.x"),
        ("c", "events.jsonl.000001.zst"),
        ("c-not", "events.jsonl.lock"),
        ("none", "notes.txt"),
    ] {
        std::fs::create_dir_all(folder.path().join(path)).unwrap();
        std::fs::write(folder.path().join(path).join(file), "").unwrap();
    }
    let found = find_runs(folder.path()).unwrap();
    let found: Vec<_> =
        found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
    assert_eq!(found, ["a", "b/deep", "b/deep/below", "c"]);
}

#[test]
fn a_run_whose_files_are_closed_between_two_looks_is_read_as_one_whose_files_are_open() {
    for is_compressed in [false, cfg!(feature = "zstd")] {
        let folder = tempfile::tempdir().unwrap();
        let sink = rotating(&folder.path().join("events.jsonl")).keep_closed(1_000);
        let mut writer = Writer::new(compressing(sink, is_compressed));
        writer.write(1);
        let mut run = Run::open(folder.path()).unwrap();
        // Within a file, one rotation, many of them, none.
        for more in [3, 5, 15, 200, 0, 1, 40] {
            while run.poll().unwrap() {}
            run.release();
            writer.write(more);
            while run.poll().unwrap() {}
            let loss = run.series("loss").unwrap();
            let seen = (loss.count(), loss.last().unwrap().step as u64, loss.backward_steps());
            assert_eq!(seen, (writer.next, writer.next - 1, 0), "{is_compressed}");
            assert_eq!(run.not_read(), 0);
        }
    }
}

#[test]
fn a_file_that_was_removed_while_it_was_closed_is_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(rotating(&folder.path().join("events.jsonl")).keep_closed(0));
    writer.write(1);
    let mut run = Run::open(folder.path()).unwrap();
    while run.poll().unwrap() {}
    run.release();
    writer.write(100);
    while run.poll().unwrap() {}
    assert!(run.not_read() > 0);
    assert_eq!(run.series("loss").unwrap().last().unwrap().step as u64, writer.next - 1);
}

#[test]
fn the_last_records_are_read_from_the_end_through_closed_files_and_then_what_comes() {
    for is_compressed in [false, cfg!(feature = "zstd")] {
        let folder = tempfile::tempdir().unwrap();
        let sink = rotating(&folder.path().join("events.jsonl")).keep_closed(1_000);
        let mut writer = Writer::new(compressing(sink, is_compressed));
        writer.write(105);
        for count in [0, 1, 5, 10, 50, 105, 1_000] {
            let mut follower = RecordFollower::open(folder.path()).unwrap();
            let last = follower.last(count, &mut |_| true).unwrap();
            let mut steps: Vec<u64> = last.iter().map(|record| record.step().unwrap()).collect();
            let first = writer.next - writer.next.min(count as u64);
            assert_eq!(steps, (first..writer.next).collect::<Vec<_>>(), "{is_compressed} {count}");
            writer.write(20);
            follower.poll(&mut |record| steps.push(record.step().unwrap())).unwrap();
            assert_eq!(steps, (first..writer.next).collect::<Vec<_>>(), "{is_compressed} {count}");
        }
        let mut follower = RecordFollower::open(folder.path()).unwrap();
        let tens = follower.last(3, &mut |record| record.step().unwrap() % 10 == 0).unwrap();
        let tens: Vec<_> = tens.iter().map(|record| record.step().unwrap()).collect();
        assert_eq!(tens, [220, 230, 240], "{is_compressed}");
    }
}

#[test]
fn the_last_lines_of_a_file_are_found_whatever_their_length_and_a_torn_one_is_read_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.jsonl");
    let line = |step: usize, size: usize| {
        let text = "x".repeat(size);
        format!(r#"{{"name":"n","time":"2026-11-21T08:00:00.000000000Z","step":{step},"text":"{text}"}}"#)
            + "\n"
    };
    // Pieces of a file have 1 MiB.
    let sizes = [10, (1 << 20) - 70, 70, 2 << 20, 0, 5];
    let mut lines: String = sizes.iter().enumerate().map(|(step, size)| line(step, *size)).collect();
    let torn = line(6, 100);
    lines.push_str(&torn[..50]);
    std::fs::write(&file, &lines).unwrap();
    for count in [0, 1, 3, 4, 6, 7] {
        let mut follower = RecordFollower::open(folder.path()).unwrap();
        let last = follower.last(count, &mut |_| true).unwrap();
        let mut steps: Vec<u64> = last.iter().map(|record| record.step().unwrap()).collect();
        std::fs::write(&file, format!("{lines}{}", &torn[50..])).unwrap();
        follower.poll(&mut |record| steps.push(record.step().unwrap())).unwrap();
        assert_eq!(steps, (6_u64.saturating_sub(count as u64)..7).collect::<Vec<_>>());
        std::fs::write(&file, &lines).unwrap();
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_in_the_place_of_another_is_read_from_its_begin() {
    use forebay::sink::SqliteSink;

    let folder = tempfile::tempdir().unwrap();
    let of = |run: &str, steps: u64| {
        let folder = folder.path().join(run);
        std::fs::create_dir(&folder).unwrap();
        Writer::new(SqliteSink::create(folder.join("events.db")).unwrap()).write(steps);
        folder
    };
    let path = of("run", 50);
    let (mut run, mut follower) = (Run::open(&path).unwrap(), RecordFollower::open(&path).unwrap());
    while run.poll().unwrap() {}
    let mut steps: Vec<u64> = Vec::new();
    let last = follower.last(3, &mut |_| true).unwrap();
    assert_eq!(last.iter().map(Record::step).collect::<Vec<_>>(), [Some(47), Some(48), Some(49)]);
    // Fewer records, and more than before: their moments are others.
    for (place, records) in [("fewer", 20), ("more", 80)] {
        let other = of(place, records);
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::rename(&other, &path).unwrap();
        while run.poll().unwrap() {}
        assert_eq!(run.series("loss").unwrap().count(), records);
        steps.clear();
        follower.poll(&mut |record| steps.push(record.step().unwrap())).unwrap();
        assert_eq!(steps, (0..records).collect::<Vec<_>>());
        run.release();
    }
}

#[test]
fn a_run_keeps_no_more_points_than_it_may_and_its_extremes() {
    let folder = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for step in 0..1_000 {
        for name in 0..10 {
            let value = if step == 634 { 7.0 } else { f64::from(step % 7) / 7.0 };
            lines += &format!(
                r#"{{"name":"n{name}","time":"2026-11-21T08:00:00.000000000Z","step":{step},"scalar":{value}}}"#
            );
            lines.push('\n');
        }
    }
    std::fs::write(folder.path().join("events.jsonl"), lines).unwrap();
    for (max, least) in [(2_500, 30), (1_000, 12), (100, 8)] {
        let mut run = Run::open(folder.path()).unwrap().with_max_total(max);
        while run.poll().unwrap() {}
        let all: Vec<_> = run.names().filter_map(|name| run.series(name)).collect();
        let kept: usize = all.iter().map(|series| series.kept()).sum();
        // A series has 32 in any case.
        assert!(kept <= max.max(32 * 10), "{kept}");
        for series in all {
            assert_eq!((series.count(), series.max().unwrap().step), (1_000, 634));
            assert!(series.points().len() >= least, "{max}: {}", series.points().len());
            assert!(series.points().iter().any(|point| point.value == 7.0));
        }
    }
}

#[test]
fn an_event_file_alone_is_a_run_and_the_last_event_of_several_files_is_the_latest() {
    let folder = tempfile::tempdir().unwrap();
    Writer::new(TensorBoardSink::create(folder.path()).unwrap()).write(5);
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    for path in [folder.path(), &file] {
        let mut run = Run::open(path).unwrap();
        while run.poll().unwrap() {}
        assert_eq!(run.series("loss").unwrap().count(), 5, "{}", path.display());
    }
    let mut run = Run::open(folder.path()).unwrap();
    while run.poll().unwrap() {}
    let last = run.last_event();
    // A file with a later name and earlier events.
    let other = tempfile::tempdir().unwrap();
    let moment = std::time::UNIX_EPOCH + std::time::Duration::from_secs(9);
    let early = Record::scalar("eval", 1.0).with_step(1).with_time(moment);
    write_one(TensorBoardSink::create(other.path()).unwrap(), early);
    let from = std::fs::read_dir(other.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(from, folder.path().join("zz.tfevents.9")).unwrap();
    while run.poll().unwrap() {}
    assert_eq!((run.series("eval").unwrap().count(), run.last_event()), (1, last));
}

#[test]
fn a_file_in_the_place_of_a_removed_one_is_another_run_unless_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.jsonl");
    let write = |steps: std::ops::Range<u64>| {
        let line = |step: u64| {
            format!(r#"{{"name":"loss","time":"2026-11-21T08:00:00.000000000Z","step":{step},"scalar":0.5}}"#)
                + "\n"
        };
        std::fs::remove_file(&file).unwrap_or_default();
        std::fs::write(&file, steps.map(line).collect::<String>()).unwrap();
    };
    for is_released in [false, true] {
        write(0..100);
        let mut run = Run::open(folder.path()).unwrap();
        for (steps, count) in [(100..150, 150), (150..160, 160), (0..10, 10), (0..20, 20), (20..30, 30)] {
            while run.poll().unwrap() {}
            if is_released {
                run.release();
            }
            write(steps);
            while run.poll().unwrap() {}
            assert_eq!(run.series("loss").unwrap().count(), count, "{is_released}");
        }
    }
}

/// Returns a compressed text, as it is within one block: <https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1>.
#[cfg(feature = "zstd")]
fn compressed(text: &str) -> Vec<u8> {
    let size = u32::try_from(text.len()).unwrap();
    let block = (size << 3 | 1).to_le_bytes();
    let mut file = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    file.extend(size.to_le_bytes());
    file.extend(&block[..3]);
    file.extend(text.as_bytes());
    file
}

#[cfg(feature = "zstd")]
#[test]
fn a_compressed_file_that_is_named_by_itself_is_read_alone() {
    use forebay_history::EventQuery;

    let folder = tempfile::tempdir().unwrap();
    let line = |step: u64| {
        let record = Record::scalar("loss", step as f64).with_step(step);
        serde_json::to_string(&record).unwrap() + "\n"
    };
    let named = ["events.jsonl.000001.zst", "events.jsonl.000002.zst"].map(|name| folder.path().join(name));
    for (path, first) in named.iter().zip([0, 10]) {
        std::fs::write(path, compressed(&(first..first + 10).map(line).collect::<String>())).unwrap();
    }
    std::fs::write(folder.path().join("events.jsonl"), line(20)).unwrap();
    let mut steps: Vec<u64> = Vec::new();
    for path in &named {
        let before = steps.len();
        let (mut follower, mut read) = (RecordFollower::open(path).unwrap(), Vec::<u64>::new());
        follower.poll(&mut |record| read.push(record.step().unwrap())).unwrap();
        follower.poll(&mut |_| panic!("it does not grow")).unwrap();
        steps.extend(&read);
        assert!(before < steps.len());
        let last = RecordFollower::open(path).unwrap().last(2, &mut |_| true).unwrap();
        assert_eq!(
            last.iter().map(|record| record.step().unwrap()).collect::<Vec<_>>(),
            steps[steps.len() - 2..]
        );
        let asked = forebay_history::open(path).unwrap().query(&EventQuery::new()).unwrap();
        assert_eq!(asked.iter().map(|record| record.step().unwrap()).collect::<Vec<_>>(), read);
        let mut run = Run::open(path).unwrap();
        while run.poll().unwrap() {}
        assert_eq!((run.events(), run.not_read()), (read.len() as u64, 0));
    }
    assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>());
    // What is before the damage counts, and that there is more is said.
    let bytes = std::fs::read(&named[0]).unwrap();
    std::fs::write(&named[0], &bytes[..bytes.len() / 2]).unwrap();
    let mut run = Run::open(&named[0]).unwrap();
    while run.poll().unwrap() {}
    assert!(run.not_read() > 0);
    let error = forebay_history::open(&named[0]).unwrap().query(&EventQuery::new()).unwrap_err();
    assert!(error.to_string().contains("000001.zst"), "{error}");
    // Nothing of another name is in its place.
    std::fs::remove_file(&named[0]).unwrap();
    assert!(RecordFollower::open(&named[0]).is_err() && forebay_history::open(&named[0]).is_err());
}

/// A run that was resumed a day later took no day.
#[test]
fn a_run_took_what_its_processes_took_and_not_the_pause_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap();
    let at = |record: Record, second: u64| record.with_unix_nanos(second * 1_000_000_000);
    let begin = |generation: i64, second| {
        let begin = Record::new("training.started").with_field("run_id", "a");
        at(begin.with_field("generation", generation), second)
    };
    let x = |second| at(Record::scalar("x", 0.5), second);
    let mut run = Run::open(&path).unwrap();
    let mut took = |records: Vec<Record>| {
        sink.write_batch(&Batch::from_events(records)).unwrap();
        while run.poll().unwrap() {}
        run.took().map(|took| took.as_secs())
    };
    assert_eq!(took(vec![x(500)]), None);
    assert_eq!(took(vec![begin(1, 1_000), x(1_010), x(1_060)]), Some(60));
    assert_eq!(took(vec![begin(2, 87_000)]), Some(60));
    assert_eq!(took(vec![x(87_005)]), Some(65));
    // A clock that went back takes nothing away.
    assert_eq!(took(vec![x(86_000)]), Some(60));
    assert_eq!(took(vec![begin(3, 90_000), x(90_001)]), Some(61));
}

/// A place whose records come by script: a step, something that is no record, or nobody there.
#[derive(Debug)]
struct Script {
    next: std::vec::IntoIter<Result<u64, &'static str>>,
    not_read: u64,
}

impl Feed for Script {
    fn poll(&mut self) -> Result<Option<Record>, HistoryError> {
        match self.next.next() {
            None => Ok(None),
            Some(Ok(step)) => Ok(Some(Record::scalar("loss", 0.5).with_step(step))),
            Some(Err(why)) => {
                self.not_read += u64::from(why == "no record");
                Err(HistoryError::new("the script", why))
            }
        }
    }

    fn not_read(&self) -> u64 {
        self.not_read
    }
}

#[test]
fn a_feed_is_read_across_what_is_no_record_and_goes_on_after_an_error() {
    let script = || {
        let next = vec![Ok(0), Err("no record"), Ok(1), Err("nobody is there"), Ok(2)];
        Script { next: next.into_iter(), not_read: 0 }
    };
    let mut run = Run::of("it", script());
    let error = run.poll().unwrap_err();
    assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "nobody is there");
    assert_eq!((run.events(), run.not_read()), (2, 1));
    assert!(!run.poll().unwrap());
    assert_eq!((run.events(), run.series("loss").unwrap().count(), run.not_read()), (3, 3, 1));
    assert_eq!((run.format(), run.path()), (Format::Feed, Path::new("it")));
    run.release();
    run.close();
    assert!(!run.poll().unwrap() && !run.is_torn());

    let (mut follower, mut steps) = (RecordFollower::of("it", script()), Vec::new());
    let mut take = |record: Record| steps.extend(record.step());
    assert!(follower.poll(&mut take).is_err());
    follower.poll(&mut take).unwrap();
    assert_eq!((steps, follower.not_read()), (vec![0, 1, 2], 1));
}
