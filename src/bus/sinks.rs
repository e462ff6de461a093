//! The sinks of a bus that has no threads: called by whoever emits.

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::event::Record;
use crate::sink::Sink;
use crate::sync::{Mutex, guarded};

/// Sinks, and records that wait for them. One thread at a time has the sinks, out of the lock, and writes for those that
/// come meanwhile: so a sink may emit, and nobody waits for another's.
#[derive(Default)]
pub(super) struct InlineSinks(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None` while a thread has them.
    sinks: Option<Vec<Box<dyn Sink<Record>>>>,
    waiting: VecDeque<Record>,
}

/// To be asked for.
struct Flush;

/// While a sink hangs, the oldest make room.
const MOST_WAITING: usize = 10_000;

impl InlineSinks {
    pub(super) fn new(sinks: Vec<Box<dyn Sink<Record>>>) -> Self {
        Self(Mutex::new(State { sinks: Some(sinks), waiting: VecDeque::new() }))
    }

    pub(super) fn write(&self, record: &Record) {
        let record = record.clone();
        let mut state = self.0.lock();
        state.waiting.push_back(record);
        let lost = if state.waiting.len() > MOST_WAITING { state.waiting.pop_front() } else { None };
        drop(state);
        // Foreign code: not under the lock.
        drop(lost);
        self.work(None);
    }

    pub(super) fn flush(&self) {
        self.work(Some(Flush));
    }

    /// Writes until nothing waits, flushes if that is asked for, and writes what came meanwhile; unless another thread has
    /// the sinks, which goes on for this one.
    fn work(&self, mut last: Option<Flush>) {
        let Some(mut sinks) = self.0.lock().sinks.take() else { return };
        loop {
            let mut state = self.0.lock();
            let records: Vec<Record> = state.waiting.drain(..).collect();
            if records.is_empty() && last.is_none() {
                state.sinks = Some(sinks);
                return;
            }
            drop(state);
            // As a sink that fails under a collector: the others go on.
            if records.is_empty() {
                last = None;
                for sink in &mut sinks {
                    let _ = guarded(|| sink.flush());
                }
                continue;
            }
            let batch = Batch::from_events(records);
            for sink in &mut sinks {
                let _ = guarded(|| sink.write_batch(&batch));
            }
            let _ = guarded(|| drop(batch));
        }
    }
}
