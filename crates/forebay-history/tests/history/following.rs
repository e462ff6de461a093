//! Runs that are read while they are written: every event once, whatever becomes of the files.

use std::path::Path;

use forebay::sink::{JsonLinesSink, Sink, TensorBoardSink};
use forebay::{Batch, Record};
use forebay_history::{RecordFollower, Run, find_runs};

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
fn a_file_that_is_begun_anew_has_nothing_of_the_one_before() {
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
        ("none", "notes.txt"),
    ] {
        std::fs::create_dir_all(folder.path().join(path)).unwrap();
        std::fs::write(folder.path().join(path).join(file), "").unwrap();
    }
    let found = find_runs(folder.path()).unwrap();
    let found: Vec<_> =
        found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
    assert_eq!(found, ["a", "b/deep", "b/deep/below"]);
}
