//! The writer for formatters: the lines of tracing-appender, and a line where some are missing.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::sink::{RetryPolicy, SinkExt};
use forebay::{Builder, FlushStrategy};
use forebay_tracing::{Line, LinesSink};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::prelude::*;

use crate::support::{Gate, LONG, law};

/// Bytes that a test reads back.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Logs through a formatter without time, to that writer.
fn log_to(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static, body: impl FnOnce()) {
    let format = tracing_subscriber::fmt::layer().without_time().with_ansi(false).with_writer(writer);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(format), body);
}

fn workload() {
    let _span = tracing::info_span!("epoch", epoch = 3).entered();
    for number in 0..100 {
        tracing::info!(number, text = "a\u{1b}\nb", "line {number}");
    }
    tracing::error!("the last");
}

#[test]
fn the_lines_are_those_of_tracing_appender() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours) = (folder.path().join("theirs.log"), folder.path().join("ours.log"));
    let create = |path| std::fs::File::create(path).unwrap();
    {
        let (writer, _guard) = tracing_appender::non_blocking(create(&theirs));
        log_to(writer, workload);
    }
    let (writer, guard) = forebay_tracing::non_blocking(create(&ours)).unwrap();
    log_to(writer, workload);
    let collector = guard.collector().clone();
    assert_eq!(guard.stop().lost(), 0);
    law(&collector, 101);
    let [theirs, ours] = [theirs, ours].map(|path| std::fs::read_to_string(path).unwrap());
    assert_eq!(ours, theirs);
    assert_eq!(ours.lines().count(), 101);
}

#[test]
fn the_file_of_today_is_that_of_tracing_appender_with_the_same_lines() {
    use tracing_appender::rolling::{RollingFileAppender, Rotation};
    // Once more, should midnight come between the two.
    let is_same = (0..2).any(|_| {
        let (theirs, ours) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        {
            let rolling = RollingFileAppender::builder().rotation(Rotation::DAILY);
            let rolling = rolling.filename_prefix("app").filename_suffix("log").build(theirs.path()).unwrap();
            let (writer, _guard) = tracing_appender::non_blocking(rolling);
            log_to(writer, workload);
        }
        let file = forebay_tracing::file(ours.path().join("app.log")).unwrap().daily().unwrap().keep(7);
        let collector = Builder::new().sink(file).start().unwrap();
        let (writer, guard) = forebay_tracing::lines(collector.clone());
        log_to(writer, workload);
        assert_eq!(guard.stop().lost(), 0);
        law(&collector, 101);
        let [theirs, ours] = [theirs, ours].map(|folder| {
            let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
            let files = files.map(|file| (file.file_name(), std::fs::read_to_string(file.path()).unwrap()));
            files.collect::<Vec<_>>()
        });
        ours.len() == 1 && ours == theirs
    });
    assert!(is_same);
}

#[test]
fn lines_that_are_missing_leave_one_at_their_place_with_their_number() {
    let (out, gate) = (Shared::default(), Gate::closed());
    let collector = Builder::<Line>::new()
        .capacity(4)
        .flush(FlushStrategy::Size { events: 1 })
        .sink(LinesSink::new(out.clone()))
        .sink(gate.sink())
        .start()
        .unwrap();
    let (mut writer, guard) = forebay_tracing::lines(collector.clone());
    writeln!(writer, "first").unwrap();
    gate.await_arrivals(1);
    for number in 0..10 {
        writer.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
    gate.open();
    collector.flush_timeout(LONG).unwrap();
    writeln!(writer, "last").unwrap();
    let report = guard.stop();
    let stats = law(&collector, 12);
    assert_eq!((stats.evicted, report.lost()), (6, 6));
    let text = out.text();
    assert_eq!(text, "first\nforebay: 6 lines were lost here\n6\n7\n8\n9\nlast\n");
}

#[test]
fn a_writer_with_default_settings_holds_ten_thousand_lines_or_fifty_mebibytes() {
    let (_writer, guard) = forebay_tracing::non_blocking(io::sink()).unwrap();
    let config = guard.collector().config();
    assert_eq!((config.capacity, config.max_bytes), (10_000, Some(50 << 20)));
    law(guard.collector(), 0);
}

#[test]
fn lines_of_several_threads_that_are_written_in_pieces_stay_whole() {
    const THREADS: usize = 4;
    const LINES: usize = 500;
    let out = Shared::default();
    let (writer, guard) = forebay_tracing::non_blocking(out.clone()).unwrap();
    let barrier = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (writer, barrier) = (&writer, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for line in 0..LINES {
                    let mut one = writer.make_writer();
                    for piece in [&*format!("{thread} "), &*format!("{line}"), "\n"] {
                        one.write_all(piece.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    let collector = guard.collector().clone();
    assert_eq!(guard.stop().lost(), 0);
    law(&collector, (THREADS * LINES) as u64);
    let text = out.text();
    for thread in 0..THREADS {
        let begin = format!("{thread} ");
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(&begin)).collect();
        assert_eq!(lines, (0..LINES).map(|line| line.to_string()).collect::<Vec<_>>());
    }
    assert_eq!(text.lines().count(), THREADS * LINES);
}

/// A writer that takes so many bytes, and fails once then.
struct Fails {
    out: Shared,
    left: usize,
}

impl Write for Fails {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.left = usize::MAX;
            return Err(io::Error::other("disk full"));
        }
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        self.out.write(&bytes[..taken])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_batch_that_gets_in_by_a_retry_is_marked_once_and_none_of_its_lines_as_missing() {
    for (left, expected) in [
        (0, "6 lost\none 6\none 7\none 8\none 9\n"),
        (4, "6 lo\n6 lost\none 6\none 7\none 8\none 9\n"),
        // The mark got out.
        (9, "6 lost\non\none 6\none 7\none 8\none 9\n"),
    ] {
        let out = Shared::default();
        let sink = LinesSink::new(Fails { out: out.clone(), left }).gap_line(|lost| format!("{lost} lost\n"));
        let sink = sink.retry(RetryPolicy::list([Duration::ZERO]));
        let collector = Builder::<Line>::new().capacity(4).sink(sink).build().unwrap();
        let (mut writer, guard) = forebay_tracing::lines(collector.clone());
        for number in 0..10 {
            writer.write_all(format!("one {number}\n").as_bytes()).unwrap();
        }
        // In one batch.
        collector.start().unwrap();
        let report = guard.stop();
        law(&collector, 10);
        assert_eq!((report.lost(), report.stats.sinks[0].retries), (6, 1));
        assert_eq!(out.text(), expected, "{left}");
    }
}

#[test]
fn a_write_that_fails_half_way_loses_the_lines_that_did_not_get_out_and_marks_them() {
    let out = Shared::default();
    let sink = LinesSink::new(Fails { out: out.clone(), left: 9 }).gap_line(|lost| format!("{lost} lost\n"));
    let collector = Builder::<Line>::new().sink(sink).build().unwrap();
    let (mut writer, guard) = forebay_tracing::lines(collector.clone());
    for number in 0..4 {
        writer.write_all(format!("one {number}\n").as_bytes()).unwrap();
    }
    // In one batch.
    collector.start().unwrap();
    collector.flush_timeout(LONG).unwrap();
    writer.write_all(b"after\n").unwrap();
    let report = guard.stop();
    law(&collector, 5);
    assert_eq!(report.lost(), 3);
    assert_eq!(out.text(), "one 0\none\n3 lost\nafter\n");
}
