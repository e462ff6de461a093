//! Commands, one a file. Each gets what was asked, and returns the exit code.

pub(crate) mod best;
pub(crate) mod compare;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod merge;
pub(crate) mod plot;
pub(crate) mod query;
pub(crate) mod report;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod tail;
pub(crate) mod top;
