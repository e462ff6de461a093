//! Files that are replaced, moved, hidden or removed under a sink are noticed, and what comes after is found at the path.
#![allow(unsafe_code, reason = "libc")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::*;
use forebay::sink::{JsonLinesSink, Sink, SqliteSink, TensorBoardSink};
use forebay::{Batch, Collector, FlushStrategy, ManualClock, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory, SqliteHistory};

const LINES: &str = "events.jsonl";
const DATABASE: &str = "events.db";

/// Returns a collector with all three file sinks, in one folder.
fn collector(folder: &Path) -> Collector {
    Collector::builder()
        .flush(HOURLY)
        .sink(JsonLinesSink::create(folder.join(LINES)).unwrap())
        .sink(SqliteSink::create(folder.join(DATABASE)).unwrap())
        .sink(TensorBoardSink::create(folder).unwrap())
        .start()
        .unwrap()
}

/// Delivers one event.
#[track_caller]
fn deliver(collector: &Collector, name: &'static str, step: u64) {
    collector.collect(Record::scalar(name, 0.5).with_step(step));
    let report = collector.flush().unwrap();
    assert!(report.is_clean(), "{report:?}");
}

fn event_files(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.to_str().unwrap().contains("tfevents")).collect();
    files.sort();
    files
}

fn in_lines(path: &Path, name: &str) -> usize {
    JsonLinesHistory::new(path).query(&EventQuery::new().name(name)).unwrap().len()
}

fn in_database(path: &Path, name: &str) -> usize {
    SqliteHistory::open(path).unwrap().query(&EventQuery::new().name(name)).unwrap().len()
}

fn in_event_files(folder: &Path, name: &str) -> usize {
    let count = |path: PathBuf| {
        fs::read(path).unwrap().windows(name.len()).filter(|part| *part == name.as_bytes()).count()
    };
    event_files(folder).into_iter().map(count).sum()
}

/// Returns how many events of that name are found in the files of each sink.
fn found(folder: &Path, name: &str) -> [usize; 3] {
    [
        in_lines(&folder.join(LINES), name),
        in_database(&folder.join(DATABASE), name),
        in_event_files(folder, name),
    ]
}

fn batch(name: &'static str, step: u64) -> Batch {
    Batch::from_events(vec![Record::scalar(name, 0.5).with_step(step)])
}

/// Moves the file away as logrotate does by default.
fn rotate_as_logrotate(path: &Path) {
    let old = path.with_extension("1");
    fs::rename(path, &old).unwrap();
    fs::File::create(path).unwrap();
    fs::remove_file(old).unwrap();
}

#[test]
fn what_comes_after_a_file_was_replaced_is_found_at_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let collector = collector(folder);
    deliver(&collector, "before", 0);
    let mut step = 1;
    // Several times in a row.
    for _ in 0..3 {
        rotate_as_logrotate(&folder.join(LINES));
        rotate_as_logrotate(&folder.join(DATABASE));
        for file in event_files(folder) {
            rotate_as_logrotate(&file);
        }
        for _ in 0..5 {
            deliver(&collector, "after", step);
            step += 1;
        }
        assert_eq!(found(folder, "after"), [5, 5, 5]);
    }
    collector.stop().unwrap();
    law(&collector, step);
    assert_eq!(found(folder, "after"), [5, 5, 5]);
}

#[test]
fn a_file_that_is_removed_behind_the_last_look_takes_no_batch_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut lines = JsonLinesSink::create(folder.join(LINES)).unwrap();
    let mut database = SqliteSink::create(folder.join(DATABASE)).unwrap();
    let mut board = TensorBoardSink::create(folder).unwrap();
    let mut write = |name, step| {
        lines.write_batch(&batch(name, step)).unwrap();
        database.write_batch(&batch(name, step)).unwrap();
        board.write_batch(&batch(name, step)).unwrap();
    };
    write("before", 0);
    // No second passes, and nobody flushes.
    for file in fs::read_dir(folder).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    write("after", 1);
    assert_eq!(found(folder, "after"), [1, 1, 1]);
    assert_eq!(found(folder, "before"), [0, 0, 0]);
}

#[test]
fn a_file_that_was_moved_away_is_noticed_within_a_second_without_a_flush() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let clock = ManualClock::new();
    let collector = Collector::builder()
        .manual_clock(&clock)
        .flush(FlushStrategy::Size { events: 1 })
        .sink(JsonLinesSink::create(folder.join(LINES)).unwrap())
        .sink(TensorBoardSink::create(folder).unwrap())
        .start()
        .unwrap();
    let deliver = |name, step| {
        collector.collect(Record::scalar(name, 0.5).with_step(step));
        until("it is delivered", || collector.stats().processed == step + 1);
    };
    deliver("before", 0);
    let moved = folder.join("moved");
    fs::create_dir(&moved).unwrap();
    for path in [folder.join(LINES), event_files(folder).remove(0)] {
        fs::rename(&path, moved.join(path.file_name().unwrap())).unwrap();
    }
    deliver("meanwhile", 1);
    assert_eq!((in_lines(&moved.join(LINES), "meanwhile"), in_event_files(&moved, "meanwhile")), (1, 1));
    clock.advance(Duration::from_secs(1));
    deliver("after", 2);
    assert_eq!((in_lines(&folder.join(LINES), "after"), in_event_files(folder, "after")), (1, 1));
    collector.stop().unwrap();
    law(&collector, 3);
}

/// Numbers by the rule of Knuth's MMIX: the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Takes the end of the last record, or appends half of one.
fn cut_or_append(path: &Path, is_cut: bool) {
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    if is_cut {
        file.set_len(file.metadata().unwrap().len().saturating_sub(5)).unwrap();
    } else {
        file.write_all(b"{\"name\":\"torn").unwrap();
    }
}

/// Changes the files as somebody else might, and returns what it did.
fn disturb(chance: &mut Chance, folder: &Path, away: &Path, number: usize) -> String {
    let board = event_files(folder).pop().unwrap();
    let paths = [
        folder.join(LINES),
        folder.join(DATABASE),
        folder.join(format!("{DATABASE}-wal")),
        folder.join(format!("{DATABASE}-shm")),
        board,
    ];
    let path = &paths[chance.below(paths.len())];
    let is_of_database = path.to_str().unwrap().contains(DATABASE);
    let moved = away.join(format!("{number}"));
    let remove = || _ = fs::remove_file(path);
    let what = chance.below(9);
    match what {
        0 => remove(),
        1 => _ = fs::rename(path, &moved),
        2 => {
            remove();
            fs::write(path, "").unwrap();
        }
        3 => {
            _ = fs::rename(path, &moved);
            fs::write(path, "").unwrap();
        }
        4 if !is_of_database => {
            remove();
            fs::write(path, "without an end").unwrap();
        }
        // As logrotate does with `copytruncate`.
        5 if !is_of_database => fs::write(path, "").unwrap(),
        7 if !is_of_database => cut_or_append(path, true),
        8 if !is_of_database => cut_or_append(path, false),
        6 => {
            fs::rename(folder, &moved).unwrap();
            fs::create_dir(folder).unwrap();
        }
        _ => {}
    }
    format!("{what} to {}", path.display())
}

#[test]
fn whatever_others_do_to_the_files_the_next_event_is_found_at_the_path() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, away) = (parent.path().join("run"), parent.path().join("away"));
    fs::create_dir(&away).unwrap();
    let collector = collector(&folder);
    let mut chance = Chance(15);
    let mut done = Vec::new();
    deliver(&collector, "first", 0);
    for number in 1..=300 {
        done.push(disturb(&mut chance, &folder, &away, number));
        let name: &'static str = format!("event-{number}-").leak();
        deliver(&collector, name, number as u64);
        assert_eq!(found(&folder, name), [1, 1, 1], "after {done:#?}");
    }
    collector.stop().unwrap();
    law(&collector, 301);
    drop(collector);
    assert_eq!(found(&folder, "event-300-"), [1, 1, 1], "after {done:#?}");
    let check = rusqlite::Connection::open(folder.join(DATABASE)).unwrap();
    let check: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[test]
fn a_folder_that_is_moved_away_and_back_has_what_was_delivered_while_it_was_there() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, away) = (parent.path().join("run"), parent.path().join("away"));
    let collector = collector(&folder);
    deliver(&collector, "first", 0);
    fs::rename(&folder, &away).unwrap();
    deliver(&collector, "second", 1);
    assert_eq!(found(&folder, "second"), [1, 1, 1]);
    assert_eq!(found(&away, "first"), [1, 1, 1], "whole, without what lies beside");
    // Back again, as if a mount had hidden it.
    fs::rename(&folder, parent.path().join("other")).unwrap();
    fs::rename(&away, &folder).unwrap();
    deliver(&collector, "third", 2);
    assert_eq!(found(&folder, "first"), [1, 1, 1]);
    assert_eq!(found(&folder, "third"), [1, 1, 1]);
    collector.stop().unwrap();
    law(&collector, 3);
    assert_eq!(found(&parent.path().join("other"), "second"), [1, 1, 1]);
}

#[test]
fn a_link_in_the_path_that_is_pointed_elsewhere_leads_no_sink_into_the_files_of_another_run() {
    let parent = tempfile::tempdir().unwrap();
    let (one, two, latest) =
        (parent.path().join("1"), parent.path().join("runs/2"), parent.path().join("latest"));
    fs::create_dir(&one).unwrap();
    std::os::unix::fs::symlink("1", &latest).unwrap();
    // Also where folders are created behind the link.
    let first = [collector(&latest), collector(&latest.join("a/b"))];
    first.iter().for_each(|collector| deliver(collector, "one", 0));
    fs::create_dir_all(&two).unwrap();
    fs::remove_file(&latest).unwrap();
    std::os::unix::fs::symlink("runs/2", &latest).unwrap();
    let second = [collector(&latest), collector(&latest.join("a/b"))];
    for step in 1..4 {
        second.iter().for_each(|collector| deliver(collector, "two", step - 1));
        first.iter().for_each(|collector| deliver(collector, "one", step));
    }
    // Whose folder is removed begins it anew, where it was.
    fs::remove_dir_all(one.join("a")).unwrap();
    deliver(&first[1], "again", 4);
    assert_eq!(found(&one.join("a/b"), "again"), [1, 1, 1]);
    first.iter().chain(&second).for_each(|collector| _ = collector.stop().unwrap());
    law(&first[0], 4);
    law(&first[1], 5);
    second.iter().for_each(|collector| _ = law(collector, 3));
    assert_eq!((found(&one, "one"), found(&one, "two")), ([4; 3], [0; 3]));
    for folder in [two.clone(), two.join("a/b")] {
        assert_eq!((found(&folder, "one"), found(&folder, "two")), ([0; 3], [3; 3]));
        assert_eq!(event_files(&folder).len(), 1);
    }
}

#[test]
fn a_foreign_file_at_the_path_is_continued_and_never_cut() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let collector = collector(folder);
    deliver(&collector, "before", 0);
    let board = event_files(folder).remove(0);
    for path in [&folder.join(LINES), &board] {
        fs::remove_file(path).unwrap();
        fs::write(path, "somebody else's, without an end").unwrap();
    }
    deliver(&collector, "after", 1);
    collector.stop().unwrap();
    law(&collector, 2);
    let lines = fs::read_to_string(folder.join(LINES)).unwrap();
    assert!(lines.starts_with("somebody else's, without an end\n{"), "{lines}");
    assert_eq!(in_lines(&folder.join(LINES), "after"), 1);
    // Event files are never shared.
    assert_eq!(fs::read_to_string(&board).unwrap(), "somebody else's, without an end");
    assert_eq!(in_event_files(folder, "after"), 1);
}

#[test]
fn a_file_that_others_cut_or_append_to_in_the_middle_of_a_record_is_read_back_from_the_next_event_on() {
    for is_cut in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let collector = collector(folder);
        for step in 0..3 {
            deliver(&collector, "before", step);
        }
        let board = event_files(folder).remove(0);
        cut_or_append(&folder.join(LINES), is_cut);
        cut_or_append(&board, is_cut);
        let length = fs::metadata(&board).unwrap().len();
        for step in 3..5 {
            deliver(&collector, "after", step);
        }
        collector.stop().unwrap();
        law(&collector, 5);
        let lines = folder.join(LINES);
        assert_eq!((in_lines(&lines, "before"), in_lines(&lines, "after")), (3 - usize::from(is_cut), 2));
        assert_eq!(fs::metadata(&board).unwrap().len(), length, "nobody reads on behind half a record");
        assert_eq!(in_event_files(folder, "after"), 2);
    }
}

#[test]
fn a_file_that_was_replaced_is_not_closed_in_place_of_the_own_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LINES);
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    sink.write_batch(&batch("before", 0)).unwrap();
    fs::rename(&path, folder.path().join("moved")).unwrap();
    fs::write(&path, "{\"name\":\"foreign\",\"time\":\"2026-11-28T00:00:00Z\"}\n").unwrap();
    let error = sink.write_batch(&batch("after", 1)).unwrap_err();
    assert_eq!(error.failed_events(), Some(0), "reported, and no event has failed: {error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing was renamed");
    assert_eq!((in_lines(&path, "foreign"), in_lines(&path, "after")), (1, 1));
}

#[test]
fn a_database_goes_on_when_a_file_beside_it_is_removed_or_replaced() {
    for (end, is_replaced) in [("-wal", false), ("-wal", true), ("-shm", false), ("-shm", true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let beside = folder.path().join(format!("{DATABASE}{end}"));
        let collector = Collector::builder().sink(SqliteSink::create(&path).unwrap()).start().unwrap();
        deliver(&collector, "before", 0);
        fs::remove_file(&beside).unwrap();
        if is_replaced {
            fs::File::create(&beside).unwrap();
        }
        for step in 1..4 {
            deliver(&collector, "after", step);
        }
        let found = |name| in_database(&path, name);
        assert_eq!((found("before"), found("after")), (1, 3), "{end}, while it lives");
        collector.stop().unwrap();
        law(&collector, 4);
        drop(collector);
        assert_eq!((found("before"), found("after")), (1, 3), "{end}");
        let check = rusqlite::Connection::open(&path).unwrap();
        let check: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{end}");
    }
}

#[test]
fn an_open_history_reads_what_is_at_the_path_after_others_moved_removed_or_replaced_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join(DATABASE), folder.path().join("old.db"));
    let mut sink = SqliteSink::create(&path).unwrap();
    sink.write_batch(&batch("before", 0)).unwrap();
    let link = folder.path().join("latest.db");
    std::os::unix::fs::symlink("old.db", &link).unwrap();
    let history = SqliteHistory::open(&path).unwrap();
    let count = |history: &SqliteHistory, name| history.query(&EventQuery::new().name(name)).unwrap().len();
    fs::rename(&path, &old).unwrap();
    assert!(history.query(&EventQuery::new()).is_err(), "there is nothing at the path");
    sink.write_batch(&batch("after", 1)).unwrap();
    assert_eq!((count(&history, "before"), count(&history, "after")), (0, 1));
    // A path that is a link, to one and then to the other.
    let by_link = SqliteHistory::open(&link).unwrap();
    assert_eq!((count(&by_link, "before"), count(&by_link, "after")), (1, 0));
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(DATABASE, &link).unwrap();
    assert_eq!((count(&by_link, "before"), count(&by_link, "after")), (0, 1));
    // What lies beside it.
    for (round, end) in ["-wal", "-shm", "-wal"].into_iter().enumerate() {
        fs::remove_file(folder.path().join(format!("{DATABASE}{end}"))).unwrap();
        for step in 0..40 {
            sink.write_batch(&batch("after", step)).unwrap();
        }
        assert_eq!(count(&history, "after"), 41 + 40 * round, "{end}");
        assert_eq!(count(&by_link, "after"), 41 + 40 * round, "{end}");
    }
    drop(sink);
    assert_eq!(count(&history, "after"), 121);
}

#[test]
fn a_file_in_the_place_of_a_log_that_is_none_is_refused_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (folder.path().join(DATABASE), folder.path().join(format!("{DATABASE}-wal")));
    let mut sink = SqliteSink::create(&path).unwrap();
    sink.write_batch(&batch("before", 0)).unwrap();
    fs::remove_file(&log).unwrap();
    fs::write(&log, "somebody's notes").unwrap();
    for step in 1..3 {
        let error = sink.write_batch(&batch("refused", step)).unwrap_err();
        assert!(error.to_string().contains("write-ahead log") && !error.is_transient(), "{error}");
    }
    assert_eq!(fs::read_to_string(&log).unwrap(), "somebody's notes");
    fs::remove_file(&log).unwrap();
    sink.write_batch(&batch("after", 3)).unwrap();
    let found = |name| in_database(&path, name);
    assert_eq!((found("before"), found("refused"), found("after"), found("forebay.gap")), (1, 0, 1, 1));
}

#[test]
fn a_foreign_file_in_the_place_of_a_log_is_refused_at_create_and_a_log_of_ours_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, log) = (folder.path().join(DATABASE), folder.path().join(format!("{DATABASE}-wal")));
    for has_database in [false, true] {
        fs::write(&log, "somebody's notes").unwrap();
        let error = SqliteSink::create(&path).unwrap_err();
        assert!(error.to_string().contains("write-ahead log") && !error.is_transient(), "{error}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "somebody's notes");
        fs::remove_file(&log).unwrap();
        if !has_database {
            SqliteSink::create(&path).unwrap().write_batch(&batch("before", 0)).unwrap();
        }
    }
    // What a process leaves that is killed.
    let killed = tempfile::tempdir().unwrap();
    let mut sink = SqliteSink::create(&path).unwrap();
    sink.write_batch(&batch("killed", 1)).unwrap();
    for name in [DATABASE.to_owned(), format!("{DATABASE}-wal")] {
        fs::copy(folder.path().join(&name), killed.path().join(&name)).unwrap();
    }
    let copy = killed.path().join(DATABASE);
    SqliteSink::create(&copy).unwrap().write_batch(&batch("after", 2)).unwrap();
    let found = |name| in_database(&copy, name);
    assert_eq!((found("before"), found("killed"), found("after")), (1, 1, 1));
}

/// Reads from the database until it gets the order to end. Does nothing unless it was asked to.
#[test]
fn with_a_snapshot() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let reader = rusqlite::Connection::open(Path::new(&folder).join(DATABASE)).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
    let count: u64 = reader.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap();
    println!("\nreads {count}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    reader.execute_batch("COMMIT").unwrap();
}

/// A reader of the database in the folder that is in the middle of a query.
enum Snapshot {
    /// Sink in a process of its own.
    Other(Child),
    Here(rusqlite::Connection),
}

impl Snapshot {
    fn begin(folder: &Path, is_here: bool) -> Self {
        if is_here {
            let reader = rusqlite::Connection::open(folder.join(DATABASE)).unwrap();
            reader.execute_batch("BEGIN; SELECT count(*) FROM events").unwrap();
            return Self::Here(reader);
        }
        let mut reader = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name_of!(with_a_snapshot), "--nocapture"])
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(reader.stdout.as_mut().unwrap()).lines();
        assert!(lines.map(Result::unwrap).any(|line| line.starts_with("reads ")));
        Self::Other(reader)
    }

    fn end(self) {
        match self {
            Self::Other(mut reader) => {
                drop(reader.stdin.take());
                assert!(reader.wait().unwrap().success());
            }
            Self::Here(reader) => reader.execute_batch("COMMIT").unwrap(),
        }
    }
}

fn check_integrity(path: &Path) {
    let check = rusqlite::Connection::open(path).unwrap();
    let check: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{}", path.display());
}

#[test]
fn a_reader_in_the_middle_of_a_query_costs_a_moved_database_nothing_that_was_delivered() {
    for is_here in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join(DATABASE), folder.path().join("moved.db"));
        let mut sink = SqliteSink::create(&path).unwrap();
        sink.write_batch(&batch("before", 0)).unwrap();
        let reader = Snapshot::begin(folder.path(), is_here);
        for step in 1..200 {
            sink.write_batch(&batch("before", step)).unwrap();
        }
        fs::rename(&path, &moved).unwrap();
        let error = sink.write_batch(&batch("refused", 200)).unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("reader"), "{error}");
        assert!(Sink::<Record>::flush(&mut sink).is_err(), "what is delivered is not where it is looked for");
        reader.end();
        sink.write_batch(&batch("after", 201)).unwrap();
        drop(sink);
        assert_eq!((in_database(&moved, "before"), in_database(&moved, "after")), (200, 0));
        let found = |name| in_database(&path, name);
        assert_eq!((found("before"), found("refused"), found("after"), found("forebay.gap")), (0, 0, 1, 1));
        check_integrity(&moved);
        check_integrity(&path);
    }
}

#[test]
fn a_reader_in_the_middle_of_a_query_costs_a_database_nothing_when_a_file_beside_it_goes() {
    for (end, is_here) in [("-wal", false), ("-shm", false), ("-wal", true), ("-shm", true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(DATABASE);
        let mut sink = SqliteSink::create(&path).unwrap();
        sink.write_batch(&batch("event", 0)).unwrap();
        let mut delivered = 1;
        let reader = Snapshot::begin(folder.path(), is_here);
        let mut write = |steps: std::ops::Range<u64>| {
            for step in steps {
                delivered += usize::from(sink.write_batch(&batch("event", step)).is_ok());
            }
            delivered
        };
        write(1..20);
        fs::remove_file(folder.path().join(format!("{DATABASE}{end}"))).unwrap();
        write(20..25);
        reader.end();
        assert_eq!(write(25..45), 40, "{end}: only those between the two failed");
        Sink::<Record>::flush(&mut sink).unwrap();
        assert_eq!(in_database(&path, "event"), 40, "{end}");
        drop(sink);
        assert_eq!(in_database(&path, "event"), 40, "{end}");
        check_integrity(&path);
    }
}

#[test]
fn a_sink_that_is_dropped_while_a_reader_is_in_the_middle_of_a_query_leaves_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join(DATABASE), folder.path().join("moved.db"));
    let mut sink = SqliteSink::create(&path).unwrap();
    sink.write_batch(&batch("before", 0)).unwrap();
    let reader = Snapshot::begin(folder.path(), false);
    sink.write_batch(&batch("before", 1)).unwrap();
    fs::rename(&path, &moved).unwrap();
    drop(sink);
    fs::rename(&moved, &path).unwrap();
    assert_eq!(in_database(&path, "before"), 2);
    reader.end();
    assert_eq!(in_database(&path, "before"), 2);
    check_integrity(&path);
}

#[cfg(target_os = "linux")]
#[test]
fn a_reader_in_the_middle_of_a_query_does_not_hold_up_the_sink_when_the_database_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(DATABASE);
    let mut sink = SqliteSink::create(&path).unwrap();
    sink.write_batch(&batch("before", 0)).unwrap();
    let reader = Snapshot::begin(folder.path(), false);
    sink.write_batch(&batch("before", 1)).unwrap();
    fs::remove_file(&path).unwrap();
    sink.write_batch(&batch("after", 2)).unwrap();
    assert_eq!((in_database(&path, "before"), in_database(&path, "after")), (0, 1));
    reader.end();
    sink.write_batch(&batch("after", 3)).unwrap();
    assert_eq!(in_database(&path, "after"), 2);
}

#[test]
fn a_database_in_the_place_of_another_is_used_if_it_is_ours_and_left_alone_if_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join(DATABASE), folder.path().join("other.db"));
    SqliteSink::create(&other).unwrap().write_batch(&batch("other", 0)).unwrap();
    let mut sink = SqliteSink::create(&path).unwrap();
    for step in 0..100 {
        sink.write_batch(&batch("before", step)).unwrap();
    }
    // The log of the old one still lies beside it.
    fs::rename(&path, folder.path().join("old.db")).unwrap();
    fs::rename(&other, &path).unwrap();
    sink.write_batch(&batch("after", 100)).unwrap();
    let found = |name| in_database(&path, name);
    assert_eq!((found("other"), found("before"), found("after")), (1, 0, 1));
    assert_eq!(in_database(&folder.path().join("old.db"), "before"), 100);
    // What is no database.
    fs::rename(&path, folder.path().join("old.db")).unwrap();
    fs::write(&path, "not a database, but somebody's notes, which are long enough").unwrap();
    for step in 101..103 {
        let error = sink.write_batch(&batch("refused", step)).unwrap_err();
        assert!(!error.is_transient(), "{error}");
    }
    assert!(fs::read_to_string(&path).unwrap().starts_with("not a database"));
    assert_eq!(in_database(&folder.path().join("old.db"), "after"), 1);
    fs::remove_file(&path).unwrap();
    sink.write_batch(&batch("again", 103)).unwrap();
    drop(sink);
    let found = |name| in_database(&path, name);
    assert_eq!((found("after"), found("again"), found("forebay.gap")), (0, 1, 1));
}

/// Set in a process of its own, to the folder that it works in.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";

/// Runs one of the tests below in a process of its own; behind `before`, which gets its command line.
#[track_caller]
fn in_a_process(before: &[&str], test: &str, folder: &Path) {
    let program = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = before.iter().map(std::ffi::OsStr::new).collect();
    words.push(program.as_os_str());
    let output = Command::new(words[0])
        .args(&words[1..])
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert!(text(&output.stdout).contains("1 passed"), "{}", text(&output.stdout));
}

/// Runs only in the process that its parent test starts.
#[test]
fn under_a_mount() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let run = |command: &str, args: &[&str]| {
        assert!(Command::new(command).args(args).arg(folder).status().unwrap().success(), "{command}");
    };
    let collector = collector(folder);
    deliver(&collector, "first", 0);
    run("mount", &["-t", "tmpfs", "none"]);
    deliver(&collector, "second", 1);
    assert_eq!(found(folder, "second"), [1, 1, 1]);
    run("umount", &["--lazy"]);
    deliver(&collector, "third", 2);
    assert_eq!(found(folder, "first"), [1, 1, 1]);
    assert_eq!(found(folder, "third"), [1, 1, 1]);
    collector.stop().unwrap();
    law(&collector, 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_a_mount_hides_is_found_again_when_it_is_uncovered() {
    let unshare = ["unshare", "--map-root-user", "--mount"];
    if !Command::new(unshare[0]).args(&unshare[1..]).arg("true").status().is_ok_and(|status| status.success())
    {
        println!("skipped: no namespaces for mounts here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    in_a_process(&unshare, name_of!(under_a_mount), folder.path());
    assert_eq!(found(folder.path(), "third"), [1, 1, 1]);
}

/// Becomes somebody who may not look into the folder of root. `false` for whoever is nobody already.
fn drop_privileges() -> bool {
    // SAFETY: both calls change numbers of this process alone, which is one of the test's own.
    unsafe { libc::setgid(65_534) == 0 && libc::setuid(65_534) == 0 }
}

/// Runs only in the process that its parent test starts.
#[test]
fn without_privileges() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let collector = collector(folder);
    deliver(&collector, "before", 0);
    // One more, of which no name is left: nothing may count as delivered there.
    let lost = folder.join("lost.jsonl");
    let mut gone = JsonLinesSink::create(&lost).unwrap();
    fs::remove_file(lost).unwrap();
    assert!(drop_privileges());
    assert_eq!(fs::metadata(folder.join(LINES)).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    for step in 1..4 {
        deliver(&collector, "after", step);
    }
    assert!(gone.write_batch(&batch("after", 4)).is_err());
    collector.stop().unwrap();
    law(&collector, 4);
}

#[test]
fn a_file_that_cannot_be_looked_at_stays_in_use() {
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root has privileges to drop");
        return;
    }
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("private");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    in_a_process(&["env"], name_of!(without_privileges), &folder);
    assert_eq!(found(&folder, "after"), [3, 3, 3]);
}
