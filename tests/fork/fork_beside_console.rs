//! P9 beside a console: a worker that waits for a full terminal or pipe holds no lock that a child needs.
#![allow(unsafe_code, reason = "fork, waitpid and dup2")]

use std::io::{Read, Write};
use std::os::fd::AsRawFd;

use crate::child::in_child;
use crate::support::*;
use forebay::sink::ConsoleSink;
use forebay::{Collector, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Has a descriptor lead to where another one does.
fn lead(descriptor: i32, to: i32) {
    // SAFETY: both are open, and nobody owns the standard output.
    assert_eq!(unsafe { libc::dup2(to, descriptor) }, descriptor);
}

#[test]
fn a_child_prints_although_a_console_waits_for_a_full_pipe() {
    alone!();
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: the number is that of an open descriptor.
    let terminal = unsafe { libc::dup(1) };
    lead(1, writer.as_raw_fd());
    let collector = Collector::builder().sink(ConsoleSink::new("x")).start().unwrap();
    collector.collect(Record::text("text", "a".repeat(1 << 20)));
    let has_room = || {
        let mut watched = [PollFd::new(&writer, PollFlags::OUT)];
        poll(&mut watched, Some(&Timespec::default())).unwrap() > 0
    };
    // The one write of the batch fills the pipe, and waits.
    until("the pipe is full", || !has_room());
    let null = std::fs::File::create("/dev/null").unwrap();
    let status = in_child(|| {
        lead(1, null.as_raw_fd());
        // Not `println!`, which the harness may hold back.
        writeln!(std::io::stdout(), "the child prints").is_ok()
    });
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    collector.stop().unwrap();
    // The last descriptors of the pipe.
    lead(1, terminal);
    drop(writer);
    assert_eq!(status, Some(0), "the child hangs");
    assert_eq!(read.join().unwrap().unwrap(), format!("[x] text = {}\n", "a".repeat(1 << 20)));
    let stats = law(&collector, 1);
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].errors), (1, 0));
}
