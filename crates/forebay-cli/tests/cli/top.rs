//! `forebay top`, and what other commands say on the way, in a pseudo-terminal, as a person sees it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use unicode_width::UnicodeWidthChar;

use super::{forebay, line, text};

/// Longest time that the program needs for what it is to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a terminal shows of what is written to it, as far as `top` uses it.
struct Terminal {
    cells: Vec<Vec<char>>,
    at: (usize, usize),
    /// What was not read to its end.
    rest: Vec<u8>,
    is_other_screen: bool,
    has_cursor: bool,
    has_mouse: bool,
    clears: usize,
    frames: usize,
}

impl Terminal {
    fn new(columns: usize, rows: usize) -> Self {
        let cells = vec![vec![' '; columns]; rows];
        let (is_other_screen, has_cursor, has_mouse) = (false, true, false);
        let (at, rest, clears, frames) = ((0, 0), Vec::new(), 0, 0);
        Self { cells, at, rest, is_other_screen, has_cursor, has_mouse, clears, frames }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.rest);
        let whole = match std::str::from_utf8(&bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap(),
        };
        let mut text = whole;
        while let Some(letter) = text.chars().next() {
            if letter != '\x1b' {
                match letter {
                    // A screen is drawn by places alone.
                    '\r' if !self.is_other_screen => self.at.1 = 0,
                    '\n' if !self.is_other_screen => self.at.0 += 1,
                    _ => {
                        assert!(!letter.is_control(), "{letter:?}");
                        self.put(letter);
                    }
                }
                text = &text[letter.len_utf8()..];
                continue;
            }
            let Some(end) = text.find(|it: char| it.is_ascii_alphabetic()) else { break };
            self.obey(&text[1..=end]);
            text = &text[end + 1..];
        }
        self.rest = [text.as_bytes(), &bytes[whole.len()..]].concat();
    }

    fn put(&mut self, letter: char) {
        let (row, column) = self.at;
        let size = letter.width().unwrap();
        assert!(column + size <= self.cells[row].len(), "beyond the end of line {row}");
        self.cells[row][column] = letter;
        if size == 2 {
            self.cells[row][column + 1] = '\0';
        }
        self.at.1 += size;
    }

    fn obey(&mut self, sequence: &str) {
        match sequence {
            "[?1049h" => self.is_other_screen = true,
            "[?1049l" => self.is_other_screen = false,
            "[?25l" => self.has_cursor = false,
            "[?25h" => self.has_cursor = true,
            "[2J" => {
                self.clears += 1;
                self.cells.iter_mut().for_each(|row| row.fill(' '));
            }
            "[K" => {
                let (row, column) = self.at;
                self.cells[row][column..].fill(' ');
            }
            "[?2026l" => self.frames += 1,
            "[?1000h" => self.has_mouse = true,
            "[?1000l" => self.has_mouse = false,
            "[?7l" | "[?7h" | "[?2026h" | "[?1006h" | "[?1006l" => {}
            other if other.ends_with('m') => {}
            other => {
                let place = other.strip_prefix('[').and_then(|it| it.strip_suffix('H')).unwrap();
                let (row, column) = place.split_once(';').unwrap();
                self.at = (row.parse::<usize>().unwrap() - 1, column.parse::<usize>().unwrap() - 1);
            }
        }
    }

    fn lines(&self) -> Vec<String> {
        let line = |row: &Vec<char>| row.iter().filter(|letter| **letter != '\0').collect::<String>();
        self.cells.iter().map(|row| line(row).trim_end().to_owned()).collect()
    }
}

/// A command in a pseudo-terminal.
struct Session {
    child: Child,
    keys: File,
    /// The end of the program, open so that the terminal lives on when it has ended.
    own: File,
    output: Receiver<Vec<u8>>,
    terminal: Terminal,
}

impl Session {
    /// Begins `forebay top`.
    fn begin(folder: &Path, columns: u16, rows: u16) -> Self {
        Self::of(&["top", folder.to_str().unwrap()], columns, rows, None)
    }

    /// Begins a command; its input is the terminal unless another one is given.
    fn of(args: &[&str], columns: u16, rows: u16, input: Option<Stdio>) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let own = File::options().read(true).write(true).open(name).unwrap();
        let end = || Stdio::from(OwnedFd::from(own.try_clone().unwrap()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(args).stdin(input.unwrap_or_else(end)).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let keys = File::from(master);
        let (mut from, (send, output)) = (keys.try_clone().unwrap(), channel());
        std::thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while let Ok(size) = from.read(&mut bytes) {
                if size == 0 || send.send(bytes[..size].to_vec()).is_err() {
                    break;
                }
            }
        });
        let terminal = Terminal::new(columns.into(), rows.into());
        Self { child, keys, own, output, terminal }
    }

    /// Reads on until the screen is as it is expected.
    fn until(&mut self, what: &str, is_so: impl Fn(&Terminal) -> bool) {
        while !is_so(&self.terminal) {
            match self.output.recv_timeout(PATIENCE) {
                Ok(bytes) => self.terminal.write(&bytes),
                Err(_) => panic!("{what} did not come:\n{}", self.terminal.lines().join("\n")),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end, and checks that the terminal is as it was.
    fn end(mut self, code: i32) {
        self.until("the first screen", |terminal| !terminal.is_other_screen && terminal.has_cursor);
        assert!(!self.terminal.has_mouse);
        assert_eq!(self.child.wait().unwrap().code(), Some(code));
        let modes = tcgetattr(&self.own).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Makes two runs with three metrics, of a time that is past.
fn two(folder: &Path) {
    for run in ["a", "b"] {
        std::fs::create_dir(folder.join(run)).unwrap();
        let mut lines = String::new();
        for step in 0..100 {
            for name in ["loss", "acc", "lr"] {
                lines += &line(step)
                    .replace("\"loss\"", &format!("\"{name}\""))
                    .replace("0.5", &format!("{}.5", step % 9));
            }
        }
        std::fs::write(folder.join(run).join("events.jsonl"), lines).unwrap();
    }
}

#[test]
fn what_top_shows_is_what_it_prints_once_at_three_sizes_and_the_terminal_is_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    two(folder.path());
    for (columns, rows, end) in [(80, 24, "q"), (120, 40, "\x03"), (20, 5, "q")] {
        let size = [columns.to_string(), rows.to_string()];
        let path = folder.path().to_str().unwrap();
        let once = text(&forebay(&["top", path, "--once", "--width", &size[0], "--height", &size[1]]));
        let mut expected: Vec<String> = once.lines().map(str::to_owned).collect();
        expected.resize(rows.into(), String::new());
        assert!(
            once.contains("acc") && once.chars().any(|letter| ('\u{2801}'..'\u{2900}').contains(&letter)),
            "{once}"
        );
        let mut session = Session::begin(folder.path(), columns, rows);
        session.until("what is printed once", |terminal| terminal.lines() == expected);
        session.press(end);
        session.end(0);
    }
}

#[test]
fn keys_change_what_is_shown_and_what_comes_is_drawn_without_a_flicker() {
    let folder = tempfile::tempdir().unwrap();
    two(folder.path());
    let mut session = Session::begin(folder.path(), 80, 24);
    let has = |what: &'static str| move |terminal: &Terminal| terminal.lines().join("\n").contains(what);
    let lacks = |what: &'static str| move |terminal: &Terminal| !terminal.lines().join("\n").contains(what);
    session.until("a status", has("acc"));
    let clears = session.terminal.clears;
    session.press("/lo");
    session.until("the filter", |terminal| has("/lo_")(terminal) && lacks("acc")(terminal));
    session.press("\r");
    session.until("the end of the filter", has("/lo  h help"));
    session.press("ls");
    session.until("a logarithmic axis", has("log  smooth 0.6"));
    session.press("?");
    session.until("the help", has("any key closes this"));
    session.press(" ");
    session.until("the charts", has("loss"));
    session.press("+\x1b[D");
    session.until("a part", has("part"));
    session.press("0 j a");
    session.until("all", lacks("part"));
    let mut lines = File::options().append(true).open(folder.path().join("a/events.jsonl")).unwrap();
    lines.write_all(line(777).as_bytes()).unwrap();
    session.until("the new step", has("777"));
    assert_eq!(session.terminal.clears, clears, "a screen that is cleared flickers");
    // The terminal becomes smaller, then far too small.
    for (columns, rows) in [(60, 20), (3, 2), (80, 24)] {
        session.terminal = Terminal::new(columns.into(), rows.into());
        session.terminal.is_other_screen = true;
        session.terminal.has_cursor = false;
        tcsetwinsize(&session.keys, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 })
            .unwrap();
        session.until("another size", |terminal| terminal.frames > 0);
        assert!(session.terminal.clears == 1 && !session.terminal.lines().concat().is_empty());
    }
    let id = session.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    session.end(0);
}

#[test]
fn the_mouse_chooses_runs_and_charts_and_its_wheel_zooms() {
    let folder = tempfile::tempdir().unwrap();
    two(folder.path());
    let mut session = Session::begin(folder.path(), 100, 24);
    let has = |what: &'static str| move |terminal: &Terminal| terminal.lines().join("\n").contains(what);
    let lacks = |what: &'static str| move |terminal: &Terminal| !terminal.lines().join("\n").contains(what);
    session.until("the charts", |terminal| has("acc")(terminal) && has("lr")(terminal));
    assert!(session.terminal.has_mouse);
    // The second run is chosen, and then its mark hides it.
    session.press("\x1b[<0;5;3M\x1b[<0;5;3m");
    session.until("the other run", |terminal| {
        let lines = terminal.lines();
        lines.iter().rposition(|line| line == "b" || line.starts_with("b ")).is_some_and(|row| row > 10)
    });
    session.press("\x1b[<0;1;3M");
    session.until("a run that is hidden", has("○ b"));
    session.press("\x1b[<0;1;3M");
    session.until("both runs", lacks("○"));
    // The wheel over a chart zooms in around the pointer, and out again.
    session.press("\x1b[<64;60;5M");
    session.until("a part", has("part"));
    session.press("\x1b[<65;60;5M");
    session.until("all of it", lacks("part"));
    // A click chooses a chart, and another one shows it alone.
    let place = |terminal: &Terminal, what: &str| {
        let lines = terminal.lines();
        let row = lines.iter().position(|line| line.contains(what)).unwrap();
        (lines[row].chars().collect::<String>().find(what).unwrap(), row)
    };
    let (_, row) = place(&session.terminal, "loss");
    // The list of runs is at the left, and each chart has its name at its left end.
    let column = session.terminal.lines()[row].chars().take_while(|letter| *letter != 'l').count();
    let click = format!("\x1b[<0;{};{}M", column + 1, row + 1);
    session.press(&click);
    session.press(&click);
    session.until("one chart", |terminal| has("loss")(terminal) && lacks("acc")(terminal));
    session.press("q");
    session.end(0);
}

#[test]
fn a_snapshot_is_an_object_for_each_run_with_what_the_machine_did() {
    let folder = tempfile::tempdir().unwrap();
    two(folder.path());
    let usage = r#"{"name":"system.memory_usage","time":"2026-11-21T08:00:00.000000000Z","fields":{"percentage":62.5,"used_mb":100.0}}"#;
    let mut lines = File::options().append(true).open(folder.path().join("b/events.jsonl")).unwrap();
    writeln!(lines, "{usage}").unwrap();
    std::fs::create_dir(folder.path().join("c")).unwrap();
    std::fs::write(folder.path().join("c/events.jsonl"), "hello\n").unwrap();
    let path = folder.path().to_str().unwrap();
    let said = text(&forebay(&["top", path, "--json", "--filter", "LO"]));
    let runs: Vec<serde_json::Value> = said.lines().map(super::json).collect();
    assert_eq!(runs.iter().map(|run| run["name"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(runs[0]["metrics"].as_object().unwrap().keys().collect::<Vec<_>>(), ["loss"]);
    assert_eq!(
        (&runs[0]["metrics"]["loss"]["last"]["step"], &runs[0]["system"]),
        (&99.into(), &serde_json::json!({}))
    );
    let system = serde_json::json!({"memory_usage/percentage": 62.5, "memory_usage/used_mb": 100.0});
    assert_eq!(runs[1]["system"], system);
    assert!(runs[2]["error"].as_str().unwrap().ends_with("no events of forebay"), "{said}");
    // On the screen, they are with the run that is chosen, and their charts come behind all others.
    let once = text(&forebay(&["top", &format!("{path}/b"), "--once", "--width", "100", "--height", "40"]));
    assert!(once.contains("memory_usage/percentage 62.5"), "{once}");
    let at = |what: &str| once.find(what).unwrap_or_else(|| panic!("no {what} in {once}"));
    assert!(at("lr") < at("system.memory_usage/percentage"), "{once}");
}

/// A link to memory of no address can be opened and not read, also by root.
#[cfg(target_os = "linux")]
#[test]
fn a_snapshot_names_what_cannot_be_read_and_is_an_error_where_nothing_can() {
    let folder = tempfile::tempdir().unwrap();
    two(folder.path());
    let file = folder.path().join("a/events.jsonl");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &file).unwrap();
    let path = |run: &str| folder.path().join(run).to_str().unwrap().to_owned();
    for command in ["top", "runs"] {
        for (asked, code) in [(path(""), 0), (path("a"), 2), (path("b"), 0)] {
            let output = forebay(&[command, &asked, "--json"]);
            assert_eq!(output.status.code(), Some(code), "{command} {asked}");
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let broken = said.lines().map(super::json).filter(|run| !run["error"].is_null()).count();
            assert_eq!(broken, usize::from(asked != path("b")), "{said}");
        }
    }
}

#[test]
fn top_without_a_terminal_says_so() {
    let folder = tempfile::tempdir().unwrap();
    two(folder.path());
    let output = forebay(&["top", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "forebay: top needs a terminal: --once prints what it would show\n");
}

#[test]
fn what_takes_more_than_a_second_says_so_on_the_terminal_until_it_answers() {
    // Standard input has no end yet: the program waits.
    let mut session = Session::of(&["query", "-", "--last"], 80, 10, Some(Stdio::piped()));
    let mut input = session.child.stdin.take().unwrap();
    input.write_all(line(1).as_bytes()).unwrap();
    session.until("what is read", |terminal| terminal.lines()[0].starts_with("reading: 0.0 MB"));
    drop(input);
    session.until("the answer", |terminal| terminal.lines()[1].contains("loss"));
    let lines = session.terminal.lines();
    assert!(lines[0].starts_with("time ") && !lines.join("\n").contains("reading"), "{lines:?}");
    assert_eq!(session.child.wait().unwrap().code(), Some(0));
}
