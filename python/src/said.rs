//! `Said`: what a collector says of itself.

use std::collections::VecDeque;

use forebay::log::{LogEntry, LogTopic};
use forebay_sync::sync::{Arc, Mutex};

/// Messages of a collector, until somebody calls from Python: the worker never does. It keeps the last 32.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    const MAX: usize = 32;

    /// Returns a hook that hears what the collector says.
    pub(crate) fn hook(&self) -> impl Fn(&LogEntry) + Send + Sync + 'static {
        let said = self.clone();
        move |entry| {
            // That an earlier run has written to the folder is usual for PyTorch's writer.
            if entry.topic != LogTopic::EarlierRun {
                said.push(entry.to_string());
            }
        }
    }

    /// Says that there is no memory for what a value takes.
    pub(crate) fn leave_out(&self, name: &str) {
        self.push(format!("there is no memory to encode {name:?}: it is not written"));
    }

    /// Says that an event is not written because it is too large.
    pub(crate) fn refuse(&self, name: &str, bytes: usize, max: usize) {
        self.push(format!(
            "{name:?} has {bytes} bytes, and an event may have {max}: it is not written; others that are too large are counted only"
        ));
    }

    pub(crate) fn push(&self, what: String) {
        if let Ok(mut messages) = self.0.enter() {
            if messages.len() == Self::MAX {
                messages.pop_front();
            }
            messages.push_back(what);
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.0.enter().map(|mut messages| messages.drain(..).collect()).unwrap_or_default()
    }
}
