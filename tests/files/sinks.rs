//! The sinks that come with the crate.

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::*;
use forebay::sink::{ConsoleSink, JsonLinesSink, MemorySink, Sink};
use forebay::{Batch, Collector, FlushStrategy, Record};

fn read(path: &std::path::Path) -> Vec<Record> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn memory_waits_keeps_and_clears() {
    let memory = MemorySink::new();
    let collector = ticks().flush(FlushStrategy::Size { events: 1 }).sink(memory.clone()).start().unwrap();
    assert!(!memory.wait_for(1, Duration::ZERO));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| memory.wait_for(2, LONG));
        collector.collect_batch([tick(0), tick(1)]);
        assert!(waiting.join().unwrap());
    });
    memory.clear();
    assert!(memory.is_empty() && memory.batches().is_empty());
    assert_eq!(memory.received(), 2, "received stays");
    assert!(memory.wait_for(2, Duration::ZERO));
    collector.stop().unwrap();
    law(&collector, 2);
}

#[test]
fn memory_that_keeps_the_last_is_bounded() {
    let mut memory = MemorySink::new().keep_last(10);
    for begin in (0..100).step_by(4) {
        memory.write_batch(&Batch::from_events((begin..begin + 4).map(tick).collect())).unwrap();
        assert!(memory.len() <= 13);
    }
    assert_eq!(numbers(&memory.events()), (88..100).collect::<Vec<_>>());
    assert_eq!(memory.received(), 100);
}

/// Text that a console would show.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<Vec<u8>>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_console_shows_a_line_an_event_in_one_write_a_batch() {
    let screen = Screen::default();
    let sink = ConsoleSink::to_writer("train", screen.clone());
    let collector = Collector::builder().flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    collector.collect(Record::scalar("train.loss", 0.5).with_step(3));
    collector.collect(Record::text("note", "two\nlines\r"));
    collector.collect(Record::new("epoch").with_field("n", 1).with_field("done", true));
    collector.stop().unwrap();
    let writes = screen.0.lock().unwrap();
    assert_eq!(writes.len(), 1);
    assert_eq!(
        String::from_utf8_lossy(&writes[0]),
        "[train] train.loss = 0.5 (step 3)\n[train] note = two\\nlines\\r\n[train] epoch = {n: 1, done: true}\n"
    );
    collector.stats().check_law(3).unwrap();
}

#[test]
fn the_console_escapes_what_would_move_the_cursor_and_marks_gaps() {
    let screen = Screen::default();
    let sink = ConsoleSink::to_writer("a\nb", screen.clone()).named("screen");
    let collector = Collector::builder().capacity(1).flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    collector.collect(Record::new("old"));
    collector.collect(Record::text("clear", "\u{1b}[2J"));
    collector.stop().unwrap();
    let shown = screen.0.lock().unwrap().concat();
    assert_eq!(
        String::from_utf8_lossy(&shown),
        "[a\\nb] 1 events were evicted here\n[a\\nb] clear = \\u{1b}[2J\n"
    );
    collector.stats().check_law(2).unwrap();
}

#[test]
fn an_event_that_cannot_be_displayed_fails_alone() {
    struct Odd(bool);
    impl std::fmt::Display for Odd {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("half")?;
            if self.0 { Err(std::fmt::Error) } else { Ok(()) }
        }
    }
    let screen = Screen::default();
    let mut sink = ConsoleSink::to_writer("x", screen.clone());
    let error = sink.write_batch(&Batch::from_events(vec![Odd(false), Odd(true), Odd(false)])).unwrap_err();
    assert_eq!(error.failed_events(), Some(1));
    assert_eq!(screen.0.lock().unwrap().concat(), b"[x] half\n[x] half\n");
}

#[test]
fn a_console_that_is_gone_is_an_error_not_a_panic() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = ConsoleSink::to_writer("x", Broken);
    let error = sink.write_batch(&Batch::from_events(vec![Record::new("x")])).unwrap_err();
    assert!(!error.is_transient(), "{error}");
}

/// Takes as many bytes as the script says, or fails as it says.
struct Scripted(Vec<Result<usize, io::ErrorKind>>, Screen);

impl Write for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = if self.0.is_empty() { bytes.len() } else { self.0.remove(0)? };
        self.1.write(&bytes[..most.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_console_waits_for_space_and_completes_a_line_that_it_could_not_end() {
    let screen = Screen::default();
    let events =
        |names: &[&'static str]| Batch::from_events(names.iter().map(|name| Record::new(*name)).collect());
    let (wait, gone) = (Err(io::ErrorKind::WouldBlock), Err(io::ErrorKind::Other));
    let script = vec![wait, Ok(3), wait, Err(io::ErrorKind::Interrupted), Ok(9), gone, Ok(1), gone];
    let mut sink = ConsoleSink::to_writer("x", Scripted(script, screen.clone()));
    let shown = || String::from_utf8(screen.0.lock().unwrap().concat()).unwrap();
    assert!(sink.write_batch(&events(&["first", "second", "third"])).is_err());
    assert_eq!(shown(), "[x] first\n[x", "the writer waited for space, and then failed");
    assert!(sink.write_batch(&events(&["fourth"])).is_err(), "one byte of the rest");
    sink.write_batch(&events(&["fifth"])).unwrap();
    assert_eq!(shown(), "[x] first\n[x] second\n[x] fifth\n");
}

#[test]
fn json_lines_creates_folders_and_writes_a_line_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/events.jsonl");
    let sink = JsonLinesSink::create(&path).unwrap();
    assert_eq!(sink.path(), path);
    let collector = Collector::builder().sink(sink).start().unwrap();
    for step in 0..1000 {
        collector.collect(Record::scalar("train.loss", step as f64 / 7.0).with_step(step));
    }
    collector.stop().unwrap();
    let records = read(&path);
    assert_eq!(records.len(), 1000);
    for (step, record) in records.iter().enumerate() {
        assert_eq!(record.step(), Some(step as u64));
        assert_eq!(record.value().as_f64(), Some(step as f64 / 7.0), "to the last bit");
    }
    collector.stats().check_law(1000).unwrap();
}

#[test]
fn json_lines_continues_a_file_and_closes_a_torn_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let write = |number| {
        let mut sink = JsonLinesSink::create(&path).unwrap();
        sink.write_batch(&Batch::from_events(vec![Record::integer("n", number)])).unwrap();
    };
    write(0);
    write(1);
    assert_eq!(read(&path).len(), 2, "nothing was overwritten");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    write(2);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().map(serde_json::from_str::<Record>).collect();
    assert!(lines[0].is_ok() && lines[1].is_err() && lines[2].is_ok(), "{text}");
    assert_eq!(lines.len(), 3);
}

#[test]
fn json_lines_marks_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let collector = Collector::builder()
        .capacity(2)
        .flush(FlushStrategy::Manual)
        .sink(JsonLinesSink::create(&path).unwrap())
        .start()
        .unwrap();
    for number in 0..5 {
        collector.collect(Record::integer("n", number));
    }
    collector.stop().unwrap();
    let reported: Vec<_> = read(&path).iter().map(ToString::to_string).collect();
    assert_eq!(reported, ["forebay.gap = 3", "n = 3", "n = 4"]);
    collector.stats().check_law(5).unwrap();
}

#[test]
fn an_event_that_cannot_be_serialised_fails_alone() {
    #[derive(serde::Serialize)]
    #[serde(untagged)]
    enum Odd {
        Fine(u32),
        /// A map whose keys JSON cannot express.
        Bad(std::collections::BTreeMap<Vec<u8>, u8>),
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap();
    let bad = Odd::Bad([(vec![1], 1)].into());
    let error = sink.write_batch(&Batch::from_events(vec![Odd::Fine(1), bad, Odd::Fine(2)])).unwrap_err();
    assert_eq!(error.failed_events(), Some(1));
    assert!(!error.is_transient());
    assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
}

#[test]
fn a_path_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.join("below/events.jsonl"), folder.path().to_owned()] {
        let error = JsonLinesSink::create(&path).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_fails_the_batch_and_the_next_is_tried() {
    let sink = JsonLinesSink::create("/dev/full").unwrap();
    let memory = MemorySink::new();
    let collector = Collector::builder().sink(sink).sink(memory.clone()).start().unwrap();
    for step in 0..3 {
        collector.collect(Record::new("x").with_step(step));
        let report = collector.flush().unwrap();
        assert!(!report.is_clean());
    }
    collector.stop().unwrap();
    let stats = collector.stats();
    stats.check_law(3).unwrap();
    let full = stats.sink("json_lines").unwrap();
    assert_eq!((full.failed, full.errors), (3, 3));
    assert!(full.last_error.as_ref().unwrap().contains("No space left"), "{full:?}");
    assert_eq!(memory.len(), 3);
}

/// Set in a process that may write only so much into a file.
const FILE: &str = "FOREBAY_TEST_FILE";

#[test]
#[cfg(unix)]
fn a_write_that_failed_half_way_is_cut_off_and_what_it_lost_is_marked() {
    let Some(path) = std::env::var_os(FILE).map(std::path::PathBuf::from) else {
        // In a process of its own, whose files may not grow beyond one block.
        let folder = tempfile::tempdir().unwrap();
        let this = std::env::current_exe().unwrap();
        let test = name_of!(a_write_that_failed_half_way_is_cut_off_and_what_it_lost_is_marked);
        let script = format!("trap '' XFSZ; ulimit -f 1; exec '{}' --exact {test}", this.display());
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .env(FILE, folder.path().join("small.jsonl"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    };
    let mut sink = JsonLinesSink::create(&path).unwrap();
    let batch = || Batch::from_events((0..3).map(|n| Record::integer("number", n)).collect());
    let mut batches = 0;
    let error = loop {
        match sink.write_batch(&batch()) {
            Ok(()) => batches += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.failed_events(), None, "the whole batch");
    assert_eq!(read(&path).len(), batches * 3, "what did not fit was cut off");
    assert!(sink.write_batch(&batch()).is_err());
    assert_eq!(read(&path).len(), batches * 3);
    // Tried again, a batch is missing once, and no more when it gets in.
    let again = batch();
    assert!(sink.write_batch(&again).is_err() && sink.write_batch(&again).is_err());
    // Somebody makes space.
    fs::write(&path, "").unwrap();
    sink.write_batch(&again).unwrap();
    let reported: Vec<_> = read(&path).iter().map(ToString::to_string).collect();
    assert_eq!(reported, ["forebay.gap = 6", "number = 0", "number = 1", "number = 2"]);
}

#[test]
#[cfg(unix)]
fn a_failed_write_cuts_off_nothing_of_somebody_elses() {
    let Some(path) = std::env::var_os(FILE).map(std::path::PathBuf::from) else {
        let folder = tempfile::tempdir().unwrap();
        let this = std::env::current_exe().unwrap();
        let test = name_of!(a_failed_write_cuts_off_nothing_of_somebody_elses);
        let script = format!("trap '' XFSZ; ulimit -f 1; exec '{}' --exact {test}", this.display());
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .env(FILE, folder.path().join("shared.jsonl"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    };
    let (mut ours, mut theirs) =
        (JsonLinesSink::create(&path).unwrap(), JsonLinesSink::create(&path).unwrap());
    let batch = |name: &'static str| Batch::from_events(vec![Record::new(name)]);
    ours.write_batch(&batch("ours")).unwrap();
    theirs.write_batch(&batch("theirs")).unwrap();
    while ours.write_batch(&batch("ours")).is_ok() {}
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("theirs"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn json_lines_makes_one_write_a_batch() {
    // The kernel counts our write calls; reading the count makes none.
    fn writes() -> u64 {
        let Ok(io) = fs::read_to_string("/proc/thread-self/io") else { return 0 };
        let line = io.lines().find(|line| line.starts_with("syscw")).unwrap();
        line.split(' ').next_back().unwrap().parse().unwrap()
    }
    let folder = tempfile::tempdir().unwrap();
    let mut sink = JsonLinesSink::create(folder.path().join("events.jsonl")).unwrap();
    let batch = Batch::from_events((0..1000).map(|n| Record::integer("n", n)).collect());
    let before = writes();
    for _ in 0..10 {
        sink.write_batch(&batch).unwrap();
    }
    if before > 0 {
        assert_eq!(writes() - before, 10);
    }
}

#[test]
fn errors_say_what_they_are() {
    let texts = [
        forebay::sink::SinkError::unavailable("no route"),
        forebay::sink::SinkError::write_failed("disk full"),
        forebay::sink::SinkError::flush_failed("disk full"),
    ]
    .map(|error| error.to_string());
    assert_eq!(texts, ["sink unavailable: no route", "write failed: disk full", "flush failed: disk full"]);
}
