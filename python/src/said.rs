//! `Said`: what a collector says of itself.

use std::collections::VecDeque;

use forebay::log::{LogEntry, LogTopic};
use forebay_sync::sync::{Arc, Mutex};

/// Messages of a collector, until somebody calls from Python: the worker never does. It keeps the last 32.
#[derive(Clone, Default)]
pub(crate) struct Said(Arc<Mutex<Messages>>);

#[derive(Default)]
struct Messages {
    kept: VecDeque<String>,
    /// Whether a value was ever left out. The sinks refuse it, and nothing else in these words.
    is_left_out: bool,
}

impl Said {
    const MAX: usize = 32;

    /// Returns a hook that hears what the collector says.
    pub(crate) fn hook(&self) -> impl Fn(&LogEntry) + Send + Sync + 'static {
        let said = self.clone();
        move |entry| {
            let is_known = match entry.topic {
                // That an earlier run has written to the folder is usual for PyTorch's writer.
                LogTopic::EarlierRun => true,
                LogTopic::SinkFailed => said.is_left_out(&entry.message),
                _ => false,
            };
            if !is_known {
                said.push(entry.to_string());
            }
        }
    }

    /// Says that there is no memory for what a value takes. The sinks say nothing more of it.
    pub(crate) fn leave_out(&self, name: &str) {
        self.push(format!("there is no memory to encode {name:?}: it is not written"));
        if let Ok(mut messages) = self.0.enter() {
            messages.is_left_out = true;
        }
    }

    /// Returns whether that is how a sink refuses the value that was left out: in the words of TensorBoard's sink, or of JSON Lines.
    fn is_left_out(&self, message: &str) -> bool {
        let is_refusal = message.contains(" is nested too deep") || message.contains(" levels deep");
        is_refusal && self.0.enter().is_ok_and(|messages| messages.is_left_out)
    }

    pub(crate) fn push(&self, what: String) {
        if let Ok(mut messages) = self.0.enter() {
            if messages.kept.len() == Self::MAX {
                messages.kept.pop_front();
            }
            messages.kept.push_back(what);
        }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        self.0.enter().map(|mut messages| messages.kept.drain(..).collect()).unwrap_or_default()
    }
}
