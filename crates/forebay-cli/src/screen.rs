//! The terminal.

/// Returns the columns and rows of the terminal that standard output is, if it is one.
#[cfg(unix)]
pub(crate) fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

#[cfg(not(unix))]
pub(crate) fn size() -> Option<(usize, usize)> {
    None
}
