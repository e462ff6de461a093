//! Whether a file is still there. One whose folder was removed takes writes as ever, and nobody reads them.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Looks once a second and after a flush, because it asks the system. Goes by the clock of the batches.
#[derive(Debug)]
pub(super) struct Presence {
    seen_at: SystemTime,
}

impl Default for Presence {
    fn default() -> Self {
        Self { seen_at: UNIX_EPOCH }
    }
}

impl Presence {
    /// Whether it was looked, and the file is gone.
    pub(super) fn is_lost(&mut self, path: &Path, now: SystemTime) -> bool {
        if now.duration_since(self.seen_at).is_ok_and(|ago| ago < Duration::from_secs(1)) {
            return false;
        }
        self.seen_at = now;
        !path.exists()
    }

    /// The next batch looks again.
    pub(super) fn doubt(&mut self) {
        self.seen_at = UNIX_EPOCH;
    }
}
