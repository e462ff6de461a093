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

/// Reads keys from what a terminal sends: <https://www.xfree86.org/current/ctlseqs.html>. Returns how many bytes were read: the rest is not
/// complete yet. An escape alone is a key where `is_over`.
pub(crate) fn keys_of(bytes: &[u8], is_over: bool) -> (Vec<Key>, usize) {
    let (mut keys, mut at) = (Vec::new(), 0);
    while let Some(first) = bytes.get(at) {
        let rest = &bytes[at + 1..];
        let (key, size) = match first {
            0x1b => match rest {
                [] if !is_over => break,
                [b'[' | b'O', rest @ ..] => {
                    // Numbers and signs, and a letter that ends it.
                    let Some(end) = rest.iter().position(|byte| (0x40..0x7f).contains(byte)) else {
                        if is_over {
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
                        ([b'<', mouse @ ..], b'M') => mouse_of(mouse),
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
                    None if is_over => (None, 1),
                    None => break,
                }
            }
        };
        keys.extend(key);
        at += size;
    }
    (keys, at)
}

/// Reads what the mouse did: the button and whether Shift or the like is held, the column and the row from 1 on, in the form 1006 (SGR).
fn mouse_of(text: &[u8]) -> Option<Key> {
    let mut numbers = std::str::from_utf8(text).ok()?.split(';').map(|number| number.parse::<usize>().ok());
    let (button, column, row) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let (column, row) = (column.checked_sub(1)?, row.checked_sub(1)?);
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

    use super::{Key, keys_of};
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
        rest: Vec<u8>,
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
            let screen = Self { before, shown: None, has_colours, rest: Vec::new(), empty: 0, is_ended };
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
            self.rest.extend_from_slice(&bytes[..size]);
            let (keys, read) = keys_of(&self.rest, size == 0);
            self.rest.drain(..read);
            Ok(Some(keys))
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
        _ = tcsetattr(stdin(), OptionalActions::Now, before);
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

    /// What a panic says is read on the screen that was there before. The test runs itself in a terminal, and there it panics.
    #[cfg(unix)]
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was_and_then_says_why() {
        use std::fs::File;
        use std::io::Read;
        use std::os::fd::OwnedFd;
        use std::process::{Command, Stdio};

        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        use rustix::termios::{LocalModes, tcgetattr};

        const NAME: &str = "FOREBAY_TEST_IN_A_TERMINAL";
        if std::env::var_os(NAME).is_some() {
            let _screen = Screen::take(false).unwrap().unwrap();
            panic!("on purpose");
        }
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let own = File::options().read(true).write(true).open(path).unwrap();
        let end = || Stdio::from(OwnedFd::from(own.try_clone().unwrap()));
        let before = tcgetattr(&own).unwrap().local_modes;
        let test = "screen::tests::a_panic_leaves_the_terminal_as_it_was_and_then_says_why";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(NAME, "").env("RUST_BACKTRACE", "0");
        let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        drop(command);
        let reader = std::thread::spawn(move || {
            let (mut master, mut said, mut bytes) = (File::from(master), Vec::new(), [0; 4096]);
            // The end of a terminal is an error.
            while let Ok(size @ 1..) = master.read(&mut bytes) {
                said.extend_from_slice(&bytes[..size]);
            }
            String::from_utf8_lossy(&said).into_owned()
        });
        assert!(!child.wait().unwrap().success());
        assert_eq!(tcgetattr(&own).unwrap().local_modes, before);
        assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG));
        drop(own);
        let said = reader.join().unwrap();
        let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("{what:?} is not in {said:?}"));
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"));
        assert!(at("\x1b[?25h\x1b[?1049l") < at("on purpose"), "{said:?}");
    }

    #[test]
    fn keys_are_read_whole_however_they_come() {
        let bytes = "q\x1b[A\x1b[5~\x1b[1;5Cé損\x03\r\x7f\x1bOB\x1b[<0;3;200M\x1b[<0;3;200m\x1b[<64;1;1M\x1b[<65;9;9M".as_bytes();
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
        ];
        assert_eq!(keys_of(bytes, false), (all.to_vec(), bytes.len()));
        for cut in 0..bytes.len() {
            let (mut keys, read) = keys_of(&bytes[..cut], false);
            keys.extend(keys_of(&bytes[read..], false).0);
            assert_eq!(keys, all, "{cut}");
        }
        assert_eq!(keys_of(b"\x1b", false), (vec![], 0));
        assert_eq!(keys_of(b"\x1b", true), (vec![Key::Escape], 1));
        assert_eq!(keys_of(b"\x1b[\xff\xc3", true).1, 4);
        for odd in ["<0;0;1M", "<0;1M", "<M", "<0;99999999999999999999;1M", "<2;1;1M", "<?;1;1M"] {
            let bytes = format!("\x1b[{odd}");
            assert_eq!(keys_of(bytes.as_bytes(), false), (vec![], bytes.len()), "{odd}");
        }
    }
}
