//! Errors of statements, and what they mean for a sink.

use rusqlite::ErrorCode;

use crate::sink::SinkError;

/// Returns what an error of SQLite means for whoever might try again.
pub(super) fn failed(error: rusqlite::Error) -> SinkError {
    let said = error.to_string();
    let is = |codes: &[ErrorCode]| error.sqlite_error_code().is_some_and(|code| codes.contains(&code));
    if is(&[ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked]) {
        SinkError::unavailable(said).with_source(error)
    } else if is(&[
        ErrorCode::ReadOnly,
        ErrorCode::NotADatabase,
        ErrorCode::DatabaseCorrupt,
        ErrorCode::PermissionDenied,
        ErrorCode::CannotOpen,
        ErrorCode::TooBig,
    ]) {
        SinkError::write_failed(said).with_source(error).permanent()
    } else {
        SinkError::write_failed(said).with_source(error)
    }
}
