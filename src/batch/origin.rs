//! Where events come from: what need not be said of each.

use serde::Serialize;
use uuid::{NoContext, Timestamp, Uuid};

use crate::config::Config;
use crate::run::Rank;

/// Where the events of a batch come from. Every batch carries it, once for all of its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Origin {
    /// The session of the collector.
    pub session_id: String,
    /// Who collects: [`Config::source`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The name of the machine: [`Config::host`], else what the system says.
    pub host: String,
    /// The number of the process.
    pub pid: u32,
    /// Which process of a run it is: [`Config::rank`], else the variable `RANK`, as torchrun and others set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
}

/// A new id that sorts by time, to the millisecond: a UUID of version 7. Not `Uuid::now_v7`, which sorts those of one
/// millisecond as well, by a lock that a forked child may find held by a thread that it does not have.
pub(crate) fn new_uuid() -> Uuid {
    Uuid::new_v7(Timestamp::now(NoContext))
}

/// The same as text.
pub(crate) fn new_id() -> String {
    new_uuid().to_string()
}

impl Origin {
    /// What the settings say, and the system where they say nothing.
    pub(crate) fn of(config: &Config) -> Self {
        let session_id = config.session_id.clone().unwrap_or_else(new_id);
        let host =
            config.host.clone().unwrap_or_else(|| gethostname::gethostname().to_string_lossy().into_owned());
        let (source, pid) = (config.source.clone(), std::process::id());
        Self { session_id, source, host, pid, rank: config.rank.or_else(Rank::told) }
    }

    /// Of nobody: for a batch that is made by hand.
    pub(crate) fn of_test() -> Self {
        Self { session_id: "test".to_owned(), source: None, host: "test".to_owned(), pid: 0, rank: None }
    }
}
