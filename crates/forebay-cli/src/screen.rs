//! The terminal: its size, its keys, and a screen that leaves it as it was, whatever happens.

#[cfg(unix)]
pub(crate) use unix::{Screen, size};

#[cfg(not(unix))]
pub(crate) fn size() -> Option<(usize, usize)> {
    None
}

/// Key that was pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Letter(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Tab,
    /// Ctrl-C, Ctrl-D.
    Interrupt,
    /// The left button of the mouse, pressed at a column and a row from 0 on.
    Click(usize, usize),
    /// The wheel of the mouse, turned up or down there.
    WheelUp(usize, usize),
    WheelDown(usize, usize),
}

/// Longest sequence of a terminal that is read to its end, in bytes. Of a longer one, the begin is kept.
const MAX_SEQUENCE: usize = 64;

/// Waits after which nobody expects the rest of a sequence any more: a second.
const MAX_WAITS: u32 = 10;

/// What a terminal sends, read as keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The begin of a key that is not complete.
    rest: Vec<u8>,
    /// Reads in a row that had nothing.
    waits: u32,
}

impl Keys {
    /// Reads on: what came within a tenth of a second, or nothing.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<Key> {
        self.waits = if bytes.is_empty() { self.waits.saturating_add(1) } else { 0 };
        self.rest.extend_from_slice(bytes);
        let (keys, read) = keys_of(&self.rest, self.waits);
        self.rest.drain(..read);
        if self.rest.len() > MAX_SEQUENCE {
            // It is a sequence without an end, which it keeps waiting for: its begin says where that is.
            self.rest.truncate(3);
        }
        keys
    }
}

/// Reads keys from what a terminal sends: <https://www.xfree86.org/current/ctlseqs.html>. Returns how many bytes were read: the rest is not
/// complete yet. An escape alone is a key after a wait, and what is never completed is dropped after a second.
fn keys_of(bytes: &[u8], waits: u32) -> (Vec<Key>, usize) {
    let (mut keys, mut at) = (Vec::new(), 0);
    while let Some(first) = bytes.get(at) {
        let rest = &bytes[at + 1..];
        let (key, size) = match first {
            0x1b => match rest {
                [] if waits == 0 => break,
                // The form of the mouse before 1006: three bytes behind it.
                [b'[', b'M', rest @ ..] => match rest {
                    [button, column, row, ..] => {
                        let number = |byte: &u8| usize::from(*byte).checked_sub(32);
                        (mouse_of([number(button), number(column), number(row)]), 6)
                    }
                    _ if waits >= MAX_WAITS => return (keys, bytes.len()),
                    _ => break,
                },
                [b'[' | b'O', rest @ ..] => {
                    // Numbers and signs, and a letter that ends it.
                    let Some(end) = rest.iter().position(|byte| (0x40..0x7f).contains(byte)) else {
                        if waits >= MAX_WAITS {
                            return (keys, bytes.len());
                        }
                        break;
                    };
                    let key = match (&rest[..end], rest[end]) {
                        (_, b'A') => Some(Key::Up),
                        (_, b'B') => Some(Key::Down),
                        (_, b'C') => Some(Key::Right),
                        (_, b'D') => Some(Key::Left),
                        (_, b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
                        (_, b'F') | (b"4" | b"8", b'~') => Some(Key::End),
                        (b"5", b'~') => Some(Key::PageUp),
                        (b"6", b'~') => Some(Key::PageDown),
                        ([b'<', mouse @ ..], b'M') => mouse_of_text(mouse),
                        _ => None,
                    };
                    (key, 3 + end)
                }
                _ => (Some(Key::Escape), 1),
            },
            0x03 | 0x04 => (Some(Key::Interrupt), 1),
            b'\r' | b'\n' => (Some(Key::Enter), 1),
            b'\t' => (Some(Key::Tab), 1),
            0x08 | 0x7f => (Some(Key::Backspace), 1),
            0x00..0x20 => (None, 1),
            _ => {
                let size = match first {
                    0xf0.. => 4,
                    0xe0.. => 3,
                    0xc0.. => 2,
                    _ => 1,
                };
                match bytes.get(at..at + size) {
                    Some(letter) => {
                        let letter = std::str::from_utf8(letter).ok().and_then(|text| text.chars().next());
                        (letter.map(Key::Letter), if letter.is_some() { size } else { 1 })
                    }
                    None if waits >= MAX_WAITS => (None, 1),
                    None => break,
                }
            }
        };
        keys.extend(key);
        at += size;
    }
    (keys, at)
}

/// Reads what the mouse did, in the form 1006 (SGR).
fn mouse_of_text(text: &[u8]) -> Option<Key> {
    let mut numbers = std::str::from_utf8(text).ok()?.split(';').map(|number| number.parse::<usize>().ok());
    mouse_of([numbers.next()?, numbers.next()?, numbers.next()?])
}

/// Reads what the mouse did: the button and whether Shift or the like is held, the column and the row from 1 on.
fn mouse_of([button, column, row]: [Option<usize>; 3]) -> Option<Key> {
    let (button, column, row) = (button?, column?.checked_sub(1)?, row?.checked_sub(1)?);
    match button {
        0 => Some(Key::Click(column, row)),
        64 => Some(Key::WheelUp(column, row)),
        65 => Some(Key::WheelDown(column, row)),
        _ => None,
    }
}

#[cfg(unix)]
mod unix {
    use std::fmt::Write as _;
    use std::io::{self, Read, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use rustix::stdio::{stdin, stdout};
    use rustix::termios::{
        OptionalActions, SpecialCodeIndex, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
    };

    use super::{Key, Keys};
    use crate::chart::{Cell, Grid, Style, escape};

    /// Another screen, without a cursor, where a line that is full does not begin the next; the mouse is reported.
    const BEGIN: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?1000h\x1b[?1006h\x1b[2J";
    const END: &str = "\x1b[?2026l\x1b[0m\x1b[?1006l\x1b[?1000l\x1b[?7h\x1b[?25h\x1b[?1049l";

    /// Reads in a row that end at once with nothing: the terminal is gone.
    const MAX_EMPTY: u32 = 100;

    /// Returns the columns and rows of the terminal that standard output is, if it is one.
    pub(crate) fn size() -> Option<(usize, usize)> {
        let size = tcgetwinsize(stdout()).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
    }

    /// Screen of a terminal.
    pub(crate) struct Screen {
        before: Termios,
        /// What it shows; nothing that is known before the first, or after its size has changed.
        shown: Option<Grid>,
        has_colours: bool,
        keys: Keys,
        empty: u32,
        is_ended: Arc<AtomicBool>,
    }

    impl Screen {
        /// Takes the terminal. `None` where standard input and output are none.
        pub(crate) fn take(has_colours: bool) -> io::Result<Option<Self>> {
            if !isatty(stdin()) || !isatty(stdout()) {
                return Ok(None);
            }
            let before = tcgetattr(stdin())?;
            let is_ended = Arc::new(AtomicBool::new(false));
            for signal in [1, 2, 15] {
                signal_hook::flag::register(signal, Arc::clone(&is_ended))?;
            }
            let (for_panic, previous) = (before.clone(), std::panic::take_hook());
            std::panic::set_hook(Box::new(move |panic| {
                restore(&for_panic);
                previous(panic);
            }));
            let mut raw = before.clone();
            raw.make_raw();
            // A read waits for a tenth of a second.
            raw.special_codes[SpecialCodeIndex::VMIN] = 0;
            raw.special_codes[SpecialCodeIndex::VTIME] = 1;
            tcsetattr(stdin(), OptionalActions::Now, &raw)?;
            let screen = Self { before, shown: None, has_colours, keys: Keys::default(), empty: 0, is_ended };
            write(BEGIN)?;
            Ok(Some(screen))
        }

        /// Returns the keys that were pressed within a tenth of a second. `None` once a signal, or the end of the terminal, ends the program.
        pub(crate) fn keys(&mut self) -> io::Result<Option<Vec<Key>>> {
            let (mut bytes, began) = ([0; 256], Instant::now());
            let size = match io::stdin().read(&mut bytes) {
                Ok(size) => size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(_) => return Ok(None),
            };
            let is_at_once = size == 0 && began.elapsed() < Duration::from_millis(20);
            self.empty = if is_at_once { self.empty + 1 } else { 0 };
            // Relaxed: it is a flag alone.
            if self.is_ended.load(Ordering::Relaxed) || self.empty > MAX_EMPTY {
                return Ok(None);
            }
            Ok(Some(self.keys.read(&bytes[..size])))
        }

        /// Shows a grid. What has not changed is not written; what has, in one piece.
        pub(crate) fn show(&mut self, grid: Grid) -> io::Result<()> {
            let mut out = String::new();
            let is_new =
                self.shown.as_ref().is_none_or(|it| (it.width, it.height) != (grid.width, grid.height));
            if is_new {
                out.push_str("\x1b[0m\x1b[2J");
            }
            let mut style = Style::default();
            for row in 0..grid.height {
                let cells = grid.row(row);
                let before = self.shown.as_ref().filter(|_| !is_new).map(|shown| shown.row(row));
                if before == Some(cells) {
                    continue;
                }
                let changed = |column: usize| before.is_none_or(|before| before[column] != cells[column]);
                let mut column = 0;
                let mut cursor = None;
                while column < cells.len() {
                    let Cell { letter, style: wanted } = cells[column];
                    // The second half of a letter goes with the first.
                    let size =
                        1 + usize::from(cells.get(column + 1).is_some_and(|next| next.letter.is_none()));
                    if !(column..column + size).any(changed) {
                        column += size;
                        continue;
                    }
                    if cursor != Some(column) {
                        _ = write!(out, "\x1b[{};{}H", row + 1, column + 1);
                    }
                    if style != wanted {
                        let plain = Style { colour: wanted.colour.filter(|_| self.has_colours), ..wanted };
                        out.push_str(&escape(plain));
                        style = wanted;
                    }
                    out.push(letter.unwrap_or(' '));
                    column += size;
                    cursor = Some(column);
                }
            }
            self.shown = Some(grid);
            if out.is_empty() {
                return Ok(());
            }
            // Terminals that know it show all of it at once: <https://contour-terminal.org/vt-extensions/synchronized-output>.
            write(&format!("\x1b[?2026h{out}\x1b[0m\x1b[?2026l"))
        }
    }

    impl Drop for Screen {
        fn drop(&mut self) {
            restore(&self.before);
        }
    }

    fn restore(before: &Termios) {
        // There is nobody to say it to where that fails.
        _ = write(END);
        // What was pressed and not read is not for the shell: reports of the mouse.
        _ = tcsetattr(stdin(), OptionalActions::Flush, before);
    }

    fn write(text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variable that says to a test that it runs in a terminal.
    #[cfg(unix)]
    const IN_A_TERMINAL: &str = "FOREBAY_TEST_IN_A_TERMINAL";

    /// Runs a test of this program in a terminal, with keys that were pressed before. Returns whether it passed, and what it wrote. The
    /// terminal is as it was then.
    #[cfg(unix)]
    fn run_in_a_terminal(test: &str, keys: &[u8]) -> (bool, String) {
        use std::fs::File;
        use std::io::{Read, Write};
        use std::os::fd::OwnedFd;
        use std::process::{Command, Stdio};

        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        use rustix::termios::{LocalModes, tcgetattr};

        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let own = File::options().read(true).write(true).open(path).unwrap();
        let end = || Stdio::from(OwnedFd::from(own.try_clone().unwrap()));
        let before = tcgetattr(&own).unwrap().local_modes;
        let mut master = File::from(master);
        master.write_all(keys).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        let test = format!("screen::tests::{test}");
        command.args(["--exact", &test, "--nocapture"]).env(IN_A_TERMINAL, "").env("RUST_BACKTRACE", "0");
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let reader = std::thread::spawn(move || {
            let (mut said, mut bytes) = (Vec::new(), [0; 4096]);
            // The end of a terminal is an error.
            while let Ok(size @ 1..) = master.read(&mut bytes) {
                said.extend_from_slice(&bytes[..size]);
            }
            String::from_utf8_lossy(&said).into_owned()
        });
        let has_passed = child.wait().unwrap().success();
        assert_eq!(tcgetattr(&own).unwrap().local_modes, before);
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        drop(own);
        (has_passed, reader.join().unwrap())
    }

    /// What a panic says is read on the screen that was there before.
    #[cfg(unix)]
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was_and_then_says_why() {
        if std::env::var_os(IN_A_TERMINAL).is_some() {
            let _screen = Screen::take(false).unwrap().unwrap();
            panic!("on purpose");
        }
        let test = "a_panic_leaves_the_terminal_as_it_was_and_then_says_why";
        let (has_passed, said) = run_in_a_terminal(test, b"");
        assert!(!has_passed);
        let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what:?} is not in {said:?}"));
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"));
        assert!(at("\x1b[?25h\x1b[?1049l") < at("on purpose"), "{said:?}");
    }

    #[cfg(unix)]
    #[test]
    fn what_was_pressed_and_not_read_is_not_for_the_shell() {
        use rustix::io::ioctl_fionread;
        use rustix::stdio::stdin;
        use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

        if std::env::var_os(IN_A_TERMINAL).is_some() {
            let screen = Screen::take(false).unwrap().unwrap();
            assert!(ioctl_fionread(stdin()).unwrap() > 0);
            drop(screen);
            // As a shell that edits lines does: it counts what it would read.
            let before = tcgetattr(stdin()).unwrap();
            let mut raw = before.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).unwrap();
            let left = ioctl_fionread(stdin()).unwrap();
            tcsetattr(stdin(), OptionalActions::Now, &before).unwrap();
            assert_eq!(left, 0);
            return;
        }
        let test = "what_was_pressed_and_not_read_is_not_for_the_shell";
        let (has_passed, said) = run_in_a_terminal(test, "\x1b[<65;10;5M".repeat(10).as_bytes());
        assert!(has_passed, "{said}");
    }

    #[test]
    fn keys_are_read_whole_however_they_come() {
        // The last ones have the form of the mouse before 1006, whose bytes are no text.
        let sequences = "q\x1b[A\x1b[5~\x1b[1;5Cé損\x03\r\x7f\x1bOB\x1b[<0;3;200M\x1b[<0;3;200m\x1b[<64;1;1M\x1b[<65;9;9M";
        let bytes = [sequences.as_bytes(), b"\x1b[M q!\x1b[M#q!\x1b[M`\xe9\xff\x1b[M  q"].concat();
        let all = [
            Key::Letter('q'),
            Key::Up,
            Key::PageUp,
            Key::Right,
            Key::Letter('é'),
            Key::Letter('損'),
            Key::Interrupt,
            Key::Enter,
            Key::Backspace,
            Key::Down,
            Key::Click(2, 199),
            Key::WheelUp(0, 0),
            Key::WheelDown(8, 8),
            Key::Click(80, 0),
            Key::WheelUp(200, 222),
        ];
        // With each byte by itself, and the others a moment before or behind.
        for waits in 0..MAX_WAITS {
            for cut in 0..=bytes.len() {
                let mut reader = Keys::default();
                let mut keys = reader.read(&bytes[..cut]);
                // A wait is what makes an escape alone a key.
                if bytes[..cut].last() != Some(&0x1b) {
                    (0..waits).for_each(|_| keys.extend(reader.read(&[])));
                }
                keys.extend(reader.read(&bytes[cut..]));
                assert_eq!((keys, reader.rest.len()), (all.to_vec(), 0), "{cut}, {waits}");
            }
        }
        assert_eq!(keys_of(b"\x1b", 0), (vec![], 0));
        assert_eq!(keys_of(b"\x1b", 1), (vec![Key::Escape], 1));
        for never in [&b"\x1b[\xff\xc3"[..], b"\x1b[<64;1", b"\x1b[M q", b"\x1b[M", b"\xc3"] {
            assert_eq!(keys_of(never, MAX_WAITS - 1), (vec![], 0), "{never:?}");
            assert_eq!(keys_of(never, MAX_WAITS), (vec![], never.len()), "{never:?}");
        }
        for odd in ["<0;0;1M", "<0;1M", "<M", "<0;99999999999999999999;1M", "<2;1;1M", "<?;1;1M"] {
            let bytes = format!("\x1b[{odd}");
            assert_eq!(keys_of(bytes.as_bytes(), 0), (vec![], bytes.len()), "{odd}");
        }
    }

    #[test]
    fn a_sequence_without_an_end_takes_little_and_is_no_key() {
        let mut reader = Keys::default();
        assert_eq!(reader.read(b"\x1b[<"), []);
        for _ in 0..1_000 {
            assert_eq!(reader.read(b"0;7;0"), []);
            assert!(reader.rest.len() <= MAX_SEQUENCE);
        }
        assert_eq!(reader.read(b"mq"), [Key::Letter('q')]);
    }
}
