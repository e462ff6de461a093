//! Identity of the training run that the events of a collector belong to.

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use crate::sync::Arc;

/// Identity of a training run, the same in every file, table and report.
///
/// A [`TrainingRun`](crate::run::TrainingRun) gives it to its collector. From then on every batch carries it
/// ([`Batch::run`](crate::Batch::run)), until the next run of that collector begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunIdentity {
    /// The id of the run. All of its generations have the same.
    pub run_id: String,
    /// The name that people gave to the run, if they did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The generation: 1 for the first process that works on the run, and one more with each resumption.
    pub generation: u64,
}

/// The run that a collector works on, if one was given. A clone is the same.
///
/// Read once a batch, and written when a run begins. No lock: a forked child could find it held.
#[derive(Debug, Clone, Default)]
pub(crate) struct CurrentRun(Arc<ArcSwapOption<RunIdentity>>);

impl CurrentRun {
    /// Changes the run, and returns the one before.
    pub(crate) fn replace(&self, run: Option<Arc<RunIdentity>>) -> Option<Arc<RunIdentity>> {
        self.0.swap(run)
    }

    /// Returns the run.
    pub(crate) fn get(&self) -> Option<Arc<RunIdentity>> {
        self.0.load_full()
    }
}
