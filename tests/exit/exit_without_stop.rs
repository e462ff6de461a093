//! A program that ends without a stop keeps what its global collector was given. Without a test harness, because the
//! program under test is this file's own `main`, and how that ends is what is tested.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[cfg(unix)]
fn main() {
    // A harness that runs one test at a time asks for their names first, and then for those to be ignored.
    if std::env::args().any(|word| word == "--list") {
        if !std::env::args().any(|word| word == "--ignored") {
            println!("exit_without_stop: test");
        }
        return;
    }
    match std::env::var(unix::HOW) {
        Ok(how) => unix::end(&how),
        Err(_) => unix::check_all(),
    }
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
#[path = "../support/mod.rs"]
mod support;

#[cfg(unix)]
mod unix {
    #![allow(unsafe_code, reason = "fork")]

    use std::path::Path;
    use std::process::{Command, exit};

    use forebay::sink::{JsonLinesSink, from_fn};
    use forebay::{Batch, Collector, Record, track_event};

    use super::support::*;

    /// Set in the program that ends: how, and where its file is.
    pub(super) const HOW: &str = "FOREBAY_TEST_HOW";
    const FILE: &str = "FOREBAY_TEST_FILE";

    const EVENTS: u64 = 1000;

    /// Ends the process without a stop, after it has collected.
    pub(super) fn end(how: &str) {
        let sink = JsonLinesSink::create(std::env::var_os(FILE).unwrap()).unwrap();
        let gate = Gate::closed();
        let builder = Collector::builder().flush(HOURLY).sink(sink);
        let builder = match how {
            "hung" => builder.sink(gate.sink()).drop_timeout(std::time::Duration::from_millis(100)),
            "sink" => builder.sink(from_fn("exits", |_: &Batch| exit(7))),
            _ => builder,
        };
        let make = || builder.start();
        match how {
            "get_or_init" => _ = forebay::collector::get_or_init(make).unwrap(),
            _ => forebay::init(make().unwrap()).unwrap(),
        }
        for _ in 0..EVENTS {
            track_event!("tick");
        }
        match how {
            "exit" => exit(7),
            "thread" => std::thread::spawn(|| exit(7)).join().unwrap(),
            "panic" => panic!("on purpose"),
            "sink" => _ = forebay::global().unwrap().flush(),
            "fork" => {
                // SAFETY: the child ends at once, as a child of a process with threads must; but by `exit`, which says
                // the last word.
                if unsafe { libc::fork() } == 0 {
                    exit(0);
                }
                let mut status = 0;
                unsafe { libc::wait(&mut status) };
                assert_eq!(status, 0);
            }
            _ => {}
        }
    }

    pub(super) fn check_all() {
        // How, and the code that it ends with.
        let cases = [
            ("return", 0),
            ("get_or_init", 0),
            ("exit", 7),
            ("thread", 7),
            ("panic", 101),
            ("fork", 0),
            // The first sink has them by then, whatever the second does.
            ("hung", 0),
            // It exits from the worker thread, which cannot wait for itself; its batch was delivered to the first.
            ("sink", 7),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (how, code) in cases {
            let file = folder.path().join(how);
            let child = Command::new(std::env::current_exe().unwrap())
                .env(HOW, how)
                .env(FILE, &file)
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            let mut child = Killed(child);
            let stderr = child.0.stderr.take().unwrap();
            let said = std::io::read_to_string(stderr).unwrap();
            assert_eq!(child.code(), Some(code), "{how}: {said}");
            assert!(how == "panic" || said.is_empty(), "{how} says {said}");
            let lines = lines(&file);
            // A batch that was under way may be all there is.
            let least = if how == "hung" || how == "sink" { 100 } else { EVENTS };
            assert!(lines >= least, "{how}: {lines} of {EVENTS} events are there");
            assert!(lines <= EVENTS, "{how}: some are there twice");
            println!("{how}: {lines} lines, code {code}");
        }
    }

    fn lines(file: &Path) -> u64 {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().filter(|line| serde_json::from_str::<Record>(line).is_ok()).count() as u64
    }
}
