//! `Origin`: where events come from, stored once a batch.

mod identity;
mod rank;
pub(crate) use identity::CurrentRun;
pub use identity::RunIdentity;
pub use rank::{Rank, RankError};

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::unix;

/// Origin of the events of a batch. Every batch carries it, once for all of its events.
///
/// # Examples
///
/// ```
/// use forebay::sink::from_fn;
/// use forebay::{Batch, Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, seen) = std::sync::mpsc::channel();
/// let sink = from_fn("origin", move |batch: &Batch| {
///     _ = sender.send(batch.origin().source.clone());
///     Ok(())
/// });
/// let collector = Collector::builder().source("trainer").sink(sink).start()?;
/// collector.collect(Record::new("tick"));
/// collector.stop()?;
/// assert_eq!(seen.recv()?.as_deref(), Some("trainer"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Origin {
    /// The session of the collector.
    pub session_id: String,
    /// The program that collects: [`Config::source`](crate::Config::source).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The name of the machine: [`Config::host`](crate::Config::host), or the system's host name.
    pub host: String,
    /// The number of the process.
    pub pid: u32,
    /// The number of the process in its run: [`Config::rank`](crate::Config::rank), or the variable `RANK`, as
    /// torchrun and others set it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
}

/// Returns a new id that sorts by time, to the millisecond: a UUID of version 7. `Uuid::now_v7` also sorts those of
/// one millisecond, but by a lock. A forked child may find that lock held by a thread that it does not have.
///
/// The random bytes come from the keys of hash maps, which the system gives to each thread. A forked child has the keys of
/// its parent, so the process and the time are hashed with them.
pub fn new_uuid() -> Uuid {
    let (keys, time) = (RandomState::new(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let hash = |part: u8| keys.hash_one((std::process::id(), time, part)).to_be_bytes();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&hash(0));
    random[8..].copy_from_slice(&hash(1)[..2]);
    Builder::from_unix_timestamp_millis(time.as_millis() as u64, &random).into_uuid()
}

/// Returns a new id as text.
pub(crate) fn new_id() -> String {
    new_uuid().to_string()
}

/// Returns the name of this machine. Miri has none: its answer to `uname` is not initialised.
pub(crate) fn host_name() -> String {
    if cfg!(miri) { "miri".to_owned() } else { unix::host_name() }
}

impl Origin {
    /// Returns the origin of a collector: what its settings say, and the system where they say nothing.
    pub(crate) fn new(
        session_id: Option<String>,
        source: Option<String>,
        host: Option<String>,
        rank: Option<u64>,
    ) -> Self {
        let session_id = session_id.unwrap_or_else(new_id);
        let host = host.unwrap_or_else(host_name);
        Self { session_id, source, host, pid: std::process::id(), rank: rank.or_else(Rank::if_set) }
    }

    /// Returns the origin of a batch that is made by hand.
    pub(crate) fn of_test() -> Self {
        Self { session_id: "test".to_owned(), source: None, host: "test".to_owned(), pid: 0, rank: None }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_of_version_7_and_differ_within_a_millisecond() {
        let all: HashSet<Uuid> = (0..4_000).map(|_| new_uuid()).collect();
        assert_eq!(all.len(), 4_000);
        assert!(all.iter().all(|id| id.get_version_num() == 7));
        // The random parts differ as well, but for the bits of version and variant.
        let random: HashSet<u64> = all.iter().map(|id| id.as_u64_pair().1).collect();
        assert_eq!(random.len(), 4_000);
    }
}
