//! A console whose pipe is full and in non-blocking mode, or has no reader any more.
#![allow(unsafe_code, reason = "signal")]

use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use crate::support::*;
use forebay::sink::ConsoleSink;
use forebay::{Collector, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Set in the process that writes: to which of its streams.
const WRITER: &str = "FOREBAY_TEST_WRITER";

const EVENTS: u64 = 5_000;

/// Runs only in the process that writes.
#[test]
fn writes_into_a_pipe_without_space() {
    let Some(stream) = std::env::var_os(WRITER) else { return };
    let sink = if stream == "stdout" { ConsoleSink::new("x") } else { ConsoleSink::stderr("x") };
    // With one processor the harness has begun a line with the name of this test.
    println!();
    let collector = Collector::builder().sink(sink).start().unwrap();
    for n in 0..EVENTS {
        collector.collect(Record::integer("event", n as i64));
    }
    collector.stop().unwrap();
    let stats = law(&collector, EVENTS);
    let is_delivered = stats.sinks[0].delivered == EVENTS && stats.sinks[0].errors == 0;
    // Before the harness writes to the same pipe, and takes the refusal for a reason to panic.
    std::process::exit(i32::from(!is_delivered));
}

fn lines_stay_whole(stream: &str) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(writer.as_fd(), true).unwrap();
    let probe = writer.try_clone().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name_of!(writes_into_a_pipe_without_space), "--nocapture"]).env(WRITER, stream);
    match stream {
        "stdout" => command.stdout(writer).stderr(Stdio::null()),
        _ => command.stderr(writer).stdout(Stdio::null()),
    };
    let child = Killed(command.spawn().unwrap());
    drop(command);
    // The lines take more than a pipe holds, so the writer comes to a full one while nothing is read.
    let has_room = || {
        let mut watched = [PollFd::new(&probe, PollFlags::OUT)];
        poll(&mut watched, Some(&Timespec::default())).unwrap() > 0
    };
    until("the pipe is full", || !has_room());
    drop(probe);
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    let lines: Vec<&str> = all.lines().filter(|line| line.starts_with("[x]")).collect();
    let expected: Vec<String> = (0..EVENTS).map(|n| format!("[x] event = {n}")).collect();
    assert_eq!(lines, expected);
    assert_eq!(child.code(), Some(0), "every event is delivered");
}

#[test]
fn lines_stay_whole_on_a_standard_output_that_does_not_block() {
    lines_stay_whole("stdout");
}

#[test]
fn lines_stay_whole_on_a_standard_error_that_does_not_block() {
    lines_stay_whole("stderr");
}

/// Writes to a reader that went away, in a program that has left SIGPIPE its default effect: the end of the process. Does
/// nothing unless it was asked to.
#[test]
fn writes_to_a_reader_that_went_away() {
    let Some(stream) = std::env::var_os(WRITER) else { return };
    // SAFETY: it changes what a signal does to this process, which is one of the test's own.
    assert_ne!(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) }, libc::SIG_ERR);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let sink = match stream.to_str().unwrap() {
        "stdout" => ConsoleSink::new("x"),
        "stderr" => ConsoleSink::stderr("x"),
        _ => ConsoleSink::to_writer("x", writer),
    };
    println!("\nready");
    eprintln!("\nready");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    for n in 0..3 {
        collector.collect(Record::integer("event", n));
        _ = collector.flush().unwrap();
    }
    collector.stop().unwrap();
    let stats = law(&collector, 3);
    std::process::exit(i32::from(stats.sinks[0].failed != 3));
}

#[test]
fn a_reader_that_went_away_is_an_error_although_sigpipe_has_its_default_effect() {
    for stream in ["stdout", "stderr", "writer"] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name_of!(writes_to_a_reader_that_went_away), "--nocapture"])
            .env(WRITER, stream)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let readers: [Box<dyn Read>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for reader in readers {
            let is_ready = BufReader::new(reader).lines().any(|line| line.unwrap() == "ready");
            assert!(is_ready, "{stream}");
        }
        // Both readers are gone: it may go on.
        drop(child.stdin.take());
        assert_eq!(
            child.wait().unwrap().code(),
            Some(0),
            "{stream}: the process lives, all three are counted"
        );
    }
}
