//! Paths that lead to something else than a plain file of one's own: links, pipes, devices, sockets, descriptors, files that
//! can only be written to, and other people's files beside it.
#![allow(unsafe_code, reason = "libc")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{self, name_of};
use forebay::sink::{JsonLinesSink, Sink, SyncPolicy, TensorBoardSink};
use forebay::{Batch, Collector, Record};
use forebay_history::{EventQuery, History, JsonLinesHistory};

fn batch(step: u64) -> Batch {
    Batch::from_events(vec![Record::scalar("a", 1.0).with_step(step)])
}

fn steps(path: &Path) -> Vec<u64> {
    let records = JsonLinesHistory::new(path).query(&EventQuery::new()).unwrap();
    records.iter().filter_map(Record::step).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Returns the steps of whole lines.
fn read_steps(lines: impl Read) -> Vec<u64> {
    let record = |line: std::io::Result<String>| serde_json::from_str::<Record>(&line.unwrap()).unwrap();
    BufReader::new(lines).lines().filter_map(|line| record(line).step()).collect()
}

/// Returns a sink that closes its file with every batch, if it may.
fn eager(path: impl AsRef<Path>) -> JsonLinesSink {
    let sink = JsonLinesSink::create(path).unwrap().rotate_at(1).rotate_every(Duration::ZERO);
    sink.keep_closed(2).sync(SyncPolicy::AtFlush)
}

#[test]
fn a_link_stays_and_files_are_closed_beside_what_it_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    fs::create_dir(&small).unwrap();
    // It leads over another one to a file that does not exist, in a folder that does not exist.
    symlink("second.jsonl", small.join("events.jsonl")).unwrap();
    symlink("../large/events.jsonl", small.join("second.jsonl")).unwrap();
    let link = small.join("events.jsonl");
    let collector = Collector::builder().sink(eager(&link)).start().unwrap();
    for step in 0..5 {
        collector.collect(Record::scalar("a", 1.0).with_step(step));
        assert!(collector.flush().unwrap().is_clean());
    }
    collector.stop().unwrap();
    support::law(&collector, 5);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(names(&small), ["events.jsonl", "second.jsonl"]);
    assert_eq!(names(&large), ["events.jsonl", "events.jsonl.000003", "events.jsonl.000004"]);
    assert_eq!(steps(&link), [2, 3, 4], "read through the link as well");
    assert_eq!(steps(&large.join("events.jsonl")), [2, 3, 4]);
}

#[test]
fn links_that_lead_in_a_circle_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    symlink("b", folder.path().join("a")).unwrap();
    symlink("a", folder.path().join("b")).unwrap();
    let error = JsonLinesSink::create(folder.path().join("a")).unwrap_err();
    assert!(error.to_string().contains("symbolic links"), "{error}");
}

fn make_pipe(path: &Path) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the path ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

fn open_pipe(path: &Path) -> File {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

#[test]
fn a_pipe_without_a_reader_is_refused_at_once_and_one_that_loses_its_reader_fails_by_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    make_pipe(&path);
    let error = JsonLinesSink::create(&path).unwrap_err();
    assert!(error.to_string().contains("the pipe has no reader"), "{error}");
    let reader = open_pipe(&path);
    let collector = Collector::builder().sink(eager(&path)).start().unwrap();
    let deliver = |step| {
        collector.collect(Record::scalar("a", 1.0).with_step(step));
        collector.flush().unwrap()
    };
    assert!(deliver(0).is_clean() && deliver(1).is_clean());
    let mut bytes = [0; 4096];
    let length = (&reader).read(&mut bytes).unwrap();
    assert_eq!(read_steps(&bytes[..length]), [0, 1]);
    // Were the sink a reader itself, nobody would tell it.
    drop(reader);
    let report = deliver(2);
    assert_eq!(report.sinks[0].failed, 1, "{report:?}");
    let mut reader = open_pipe(&path);
    assert!(deliver(3).is_clean());
    collector.stop().unwrap();
    support::law(&collector, 4);
    drop(collector);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(read_steps(text.as_bytes()), [3]);
    assert!(text.contains("forebay.gap"), "{text}");
    assert_eq!(names(folder.path()), ["events.jsonl"]);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
    // A query does not wait for somebody who writes.
    assert!(JsonLinesHistory::new(&path).query(&EventQuery::new()).is_err());
}

#[test]
fn a_device_is_written_to_and_stays_where_it_is() {
    // A terminal, because nobody can rename one by mistake, as root might /dev/null.
    // SAFETY: the calls are given what those before have returned; the name ends with a zero.
    let (terminal, path) = unsafe {
        let terminal = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        assert!(terminal >= 0 && libc::grantpt(terminal) == 0 && libc::unlockpt(terminal) == 0);
        let name = std::ffi::CStr::from_ptr(libc::ptsname(terminal));
        (File::from_raw_fd(terminal), PathBuf::from(name.to_str().unwrap()))
    };
    // What was written is lost when nobody holds the terminal any more.
    let held = fs::OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(&path).unwrap();
    let collector = Collector::builder().sink(eager(&path)).start().unwrap();
    for step in 0..3 {
        collector.collect(Record::scalar("a", 1.0).with_step(step));
        assert!(collector.flush().unwrap().is_clean());
    }
    collector.stop().unwrap();
    support::law(&collector, 3);
    // They come one by one, and the end never comes.
    let lines = BufReader::new(&terminal).lines().take(3).map(|line| line.unwrap() + "\n");
    assert_eq!(read_steps(lines.collect::<String>().as_bytes()), [0, 1, 2]);
    drop(held);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_char_device());
}

#[test]
fn a_socket_is_connected_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sink = eager(&path);
    (0..3).for_each(|step| sink.write_batch(&batch(step)).unwrap());
    drop(sink);
    assert_eq!(read_steps(listener.accept().unwrap().0), [0, 1, 2]);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
}

/// Tests what `/dev/stdout` leads to, for any descriptor.
#[test]
fn a_socket_whose_queue_is_full_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // SAFETY: it changes how many may wait at a socket of our own.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let mut waiting = Vec::new();
    let error = loop {
        match JsonLinesSink::create(&path) {
            Ok(sink) => waiting.push(sink),
            Err(error) => break error,
        }
        assert!(waiting.len() < 100, "the queue has no end");
    };
    assert!(error.to_string().contains("cannot write to"), "{error}");
    // There is space again, and a connection waits for space as ever.
    let (mut accepted, _) = listener.accept().unwrap();
    let mut sink = waiting.remove(0);
    sink.write_batch(&batch(1)).unwrap();
    drop(sink);
    assert_eq!(read_steps(&mut accepted), [1]);
    JsonLinesSink::create(&path).unwrap();
}

fn path_of(descriptor: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/dev/fd/{}", descriptor.as_raw_fd()))
}

#[test]
fn a_descriptor_with_a_plain_file_behind_it_is_appended_to_together_with_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    fs::write(&path, "\"a torn line").unwrap();
    // Not for appending: whoever shares it goes on where it ends.
    let mut out = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let link = folder.path().join("stdout");
    symlink(path_of(&out), &link).unwrap();
    let mut sink = eager(&link);
    sink.write_batch(&batch(0)).unwrap();
    out.write_all(b"printed\n").unwrap();
    sink.write_batch(&batch(1)).unwrap();
    Sink::<Record>::flush(&mut sink).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines[0], lines[2], lines.len()), ("\"a torn line", "printed", 4), "{text}");
    assert!(lines[1].starts_with('{') && lines[3].starts_with('{'), "{text}");
    assert_eq!(names(folder.path()), ["out", "stdout"]);
}

#[test]
fn a_descriptor_with_a_pipe_or_socket_behind_it_is_written_to_although_it_does_not_wait() {
    const EVENTS: u64 = 5_000;
    let (read, write) = std::io::pipe().unwrap();
    // SAFETY: the descriptor is open, and the call only changes how it waits.
    unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    let (other, socket) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let path = path_of(&write);
    deliver_all(EVENTS, &path, write, read);
    let path = path_of(&socket);
    deliver_all(EVENTS, &path, socket, other);
}

/// Delivers events into a stream, of which the test closes its own end, to a reader.
fn deliver_all(events: u64, path: &Path, write: impl AsRawFd, read: impl Read + Send) {
    let collector = Collector::builder().capacity(8_192).sink(eager(path)).start().unwrap();
    drop(write);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| read_steps(read));
        for step in 0..events {
            collector.collect(Record::scalar("a", 1.0).with_step(step));
        }
        assert!(collector.flush().unwrap().is_clean());
        collector.stop().unwrap();
        support::law(&collector, events);
        drop(collector);
        assert!(reader.join().unwrap().into_iter().eq(0..events));
    });
}

/// Set in a process of its own, to the folder that it works in.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";

/// Runs one of the tests below in a process of its own, and asserts that it ended well.
#[track_caller]
fn in_a_process(test: &str, folder: &Path, stdout: Stdio) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(FOLDER, folder).stdout(stdout);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// Runs only in the process that its parent test starts.
#[test]
fn into_its_standard_output() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    // What /dev/stdout is, which root might rename by mistake.
    let link = Path::new(&folder).join("stdout");
    symlink("/dev/fd/1", &link).unwrap();
    let mut sink = eager(link);
    for step in 0..10 {
        println!("printed {step}");
        sink.write_batch(&batch(step)).unwrap();
    }
}

#[test]
fn the_standard_output_may_be_a_plain_file_that_is_printed_to_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    in_a_process(name_of!(into_its_standard_output), folder.path(), File::create(&path).unwrap().into());
    let text = fs::read_to_string(&path).unwrap();
    let lines: String = text.lines().filter(|line| line.starts_with('{')).flat_map(|l| [l, "\n"]).collect();
    assert!(read_steps(lines.as_bytes()).into_iter().eq(0..10), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("printed")).count(), 10, "{text}");
    assert!(text.contains("test result: ok"), "{text}");
    assert_eq!(names(folder.path()), ["out", "stdout"]);
}

/// Runs only in the process that its parent test starts.
#[test]
fn with_sigpipe() {
    let Some(_) = std::env::var_os(FOLDER) else { return };
    // SAFETY: the default effect is to end the process: that is what is tested.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (read, write) = std::io::pipe().unwrap();
    let collector = Collector::builder().sink(eager(path_of(&write))).start().unwrap();
    drop(read);
    for step in 0..3 {
        collector.collect(Record::scalar("a", 1.0).with_step(step));
        assert_eq!(collector.flush().unwrap().sinks[0].failed, 1);
    }
    collector.stop().unwrap();
    support::law(&collector, 3);
    // Nothing is left behind for the program.
    // SAFETY: the call only writes a set of ours.
    let pending = unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut pending);
        libc::sigismember(&raw const pending, libc::SIGPIPE)
    };
    assert_eq!(pending, 0);
}

#[test]
fn a_reader_that_goes_away_does_not_end_a_program_that_does_not_ignore_sigpipe() {
    let folder = tempfile::tempdir().unwrap();
    in_a_process(name_of!(with_sigpipe), folder.path(), Stdio::null());
}

/// Becomes somebody without privileges, if it has any.
fn drop_privileges() {
    // SAFETY: the calls change numbers of this process alone, which is one of the test's own.
    unsafe {
        if libc::geteuid() == 0 {
            assert!(libc::setgid(65_534) == 0 && libc::setuid(65_534) == 0);
        }
    }
}

/// Runs only in the process that its parent test starts.
#[test]
fn into_a_file_that_cannot_be_read() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let path = Path::new(&folder).join("events.jsonl");
    drop_privileges();
    assert_eq!(File::open(&path).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let mut sink = JsonLinesSink::create(&path).unwrap();
    (0..3).for_each(|step| sink.write_batch(&batch(step)).unwrap());
}

#[test]
fn a_file_that_can_only_be_written_to_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    fs::write(&path, "{\"name\":\"torn\"").unwrap();
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } == 0 {
        std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
        std::os::unix::fs::chown(folder.path(), Some(65_534), Some(65_534)).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o200)).unwrap();
    in_a_process(name_of!(into_a_file_that_cannot_be_read), folder.path(), Stdio::null());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(steps(&path), [0, 1, 2], "behind the line that was torn");
}

#[test]
fn files_of_other_people_beside_it_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let others = [
        "events.jsonl.1",
        "events.jsonl.1.gz",
        "events.jsonl.12",
        "events.jsonl.00001",
        "events.jsonl.0000001",
        "events.jsonl.000000",
        "events.jsonl.20261128",
        "events.jsonl.20261129",
        "events.jsonl.20261128.zst",
        "events.jsonl.202611",
        "events.jsonl.261128",
        "events.jsonl.2026332",
        "events.jsonl.18446744073709551615",
        "events.jsonl.18446744073709551616",
        "events.jsonl.1.zst.new",
        "events.jsonl.000001.bak",
        "more.jsonl.000001",
    ];
    for other in others {
        fs::write(folder.path().join(other), other).unwrap();
    }
    // A folder of a name of ours: it is passed over.
    fs::create_dir(folder.path().join("events.jsonl.000002")).unwrap();
    let mut sink = eager(&path);
    #[cfg(feature = "zstd")]
    {
        sink = sink.compress_closed();
    }
    for step in 0..8 {
        sink.write_batch(&batch(step)).unwrap();
        Sink::<Record>::flush(&mut sink).unwrap();
    }
    drop(sink);
    for other in others {
        assert_eq!(fs::read_to_string(folder.path().join(other)).unwrap(), other);
    }
    assert!(folder.path().join("events.jsonl.000002").is_dir());
    assert_eq!(steps(&path), [5, 6, 7]);
    let own = names(folder.path()).len() - others.len() - 1;
    assert_eq!(own, 3, "{:?}", names(folder.path()));
}

#[test]
fn a_number_far_above_all_others_is_somebody_elses_and_stops_nothing() {
    // What is there before; what the sink closes next, and what stays.
    for (others, closed) in [
        (vec!["1899999"], vec!["000002", "000003", "1899999"]),
        (vec!["000007", "1700000"], vec!["000009", "000010", "1700000"]),
        (vec!["000007", "1700000", "1899999"], vec!["000009", "000010", "1700000", "1899999"]),
        // The only one may be the last of many.
        (vec!["1700000"], vec!["1700002", "1700003"]),
        (vec!["100007", "100008"], vec!["100010", "100011"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        for number in &others {
            fs::write(folder.path().join(format!("events.jsonl.{number}")), "{}\n").unwrap();
        }
        let mut sink = eager(&path);
        for step in 0..4 {
            sink.write_batch(&batch(step)).unwrap();
        }
        let mut expected = vec!["events.jsonl".to_owned()];
        expected.extend(closed.iter().map(|number| format!("events.jsonl.{number}")));
        assert_eq!(names(folder.path()), expected, "beside {others:?}");
        assert_eq!(steps(&path), [1, 2, 3], "beside {others:?}");
    }
}

#[cfg(feature = "zstd")]
#[test]
fn a_closed_file_is_as_private_compressed_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    for (number, mode) in [(1, 0o600), (2, 0o640), (3, 0o444)] {
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).compress_closed();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        sink.write_batch(&batch(0)).unwrap();
        // It closes the file of the batch before.
        sink.write_batch(&batch(1)).unwrap();
        let compressed = folder.path().join(format!("events.jsonl.{number:06}.zst"));
        support::until("it is compressed", || compressed.exists());
        assert_eq!(fs::metadata(&compressed).unwrap().permissions().mode() & 0o777, mode);
        drop(sink);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_closed_file_is_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    // The last numbers that there are. (One alone would be somebody else's.)
    for number in [1_899_998, 1_899_999] {
        fs::write(folder.path().join(format!("events.jsonl.{number}")), "").unwrap();
    }
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
    sink.write_batch(&batch(0)).unwrap();
    let error = sink.write_batch(&batch(1)).unwrap_err();
    assert_eq!(error.failed_events(), Some(0), "{error}");
    assert!(error.to_string().contains("no number is left"), "{error}");
    // It is not tried, and reported, again with every batch.
    sink.write_batch(&batch(2)).unwrap();
    assert_eq!(names(folder.path()).len(), 3);
    assert_eq!(steps(&path), [0, 1, 2]);
}

#[test]
fn what_has_the_name_of_an_event_file_and_is_no_plain_file_is_somebody_elses_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    make_pipe(&pipe);
    // What makes one at a path.
    type Kind = (&'static str, fn(&Path, &Path));
    let kinds: [Kind; 3] = [
        ("a pipe", |_, path| make_pipe(path)),
        ("a link to a pipe", |pipe, path| symlink(pipe, path).unwrap()),
        ("a folder", |_, path| fs::create_dir(path).unwrap()),
    ];
    for (kind, make) in kinds {
        let runs = tempfile::tempdir().unwrap();
        let run = runs.path().to_owned();
        make(&pipe, &run.join("events.out.tfevents.7.x"));
        let created = std::thread::spawn(move || TensorBoardSink::create(run).unwrap());
        support::until(kind, || created.is_finished());
        let collector = Collector::builder().sink(created.join().unwrap()).start().unwrap();
        collector.collect(Record::scalar("a", 1.0));
        let report = collector.stop().unwrap();
        assert!(report.stats.sinks[0].earlier_run.is_some(), "{kind}");
        support::law(&collector, 1);
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_lies_where_a_link_leads_to_and_is_a_plain_file() {
    use forebay::sink::SqliteSink;
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small"), folder.path().join("large"));
    fs::create_dir(&small).unwrap();
    symlink("../large/events.db", small.join("events.db")).unwrap();
    let mut sink = SqliteSink::create(small.join("events.db")).unwrap();
    sink.write_batch(&batch(0)).unwrap();
    assert_eq!(names(&small), ["events.db"]);
    assert_eq!(names(&large), ["events.db", "events.db-shm", "events.db-wal"]);
    // The link leads on to the same place when the database is begun anew.
    fs::remove_dir_all(&large).unwrap();
    sink.write_batch(&batch(1)).unwrap();
    drop(sink);
    assert_eq!((names(&small), names(&large)), (vec!["events.db".to_owned()], vec!["events.db".to_owned()]));
    // A pipe, which SQLite would wait for.
    let pipe = folder.path().join("pipe");
    make_pipe(&pipe);
    let error = SqliteSink::create(&pipe).unwrap_err();
    assert!(error.to_string().contains("must be a plain file"), "{error}");
}
