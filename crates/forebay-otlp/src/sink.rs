//! `OtlpSink`: batches become requests.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use forebay::sink::{Missing, Sink, SinkError};
use forebay::{Batch, Event, Pattern, Record};

use crate::client::{Client, FailureKind};
use crate::error::shown;
use crate::logs::log_record;
use crate::metrics::{Metrics, is_metric};
use crate::request::{envelope, resource};
use crate::wire::Wire;

/// Sink that sends batches to a collector of OpenTelemetry, by OTLP/HTTP with protocol buffers.
///
/// One request a batch, for logs; with [`metrics`](crate::OtlpBuilder::metrics) also one for numbers and histograms; more only where a batch has
/// more than [`max_request_bytes`](crate::OtlpBuilder::max_request_bytes). The mapping, the variables and what happens with each answer are in
/// `docs/otlp.md`.
///
/// A request waits for its answer. Put the sink behind a [`retry`](forebay::sink::SinkExt::retry), which gives it a thread of its own: then a
/// collector that is slow or away delays no other sink, and the wait that it asks for is honoured.
///
/// ```no_run
/// use forebay::sink::{RetryPolicy, SinkExt};
/// use forebay::{Collector, Record};
/// use forebay_otlp::OtlpSink;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let otlp = OtlpSink::from_env()?.retry(RetryPolicy::default());
/// let collector = Collector::builder().source("checkout").sink(otlp).start()?;
/// collector.collect(Record::new("order.placed").with_field("items", 3));
/// collector.stop()?;
/// # Ok(())
/// # }
/// ```
pub struct OtlpSink {
    name: String,
    logs: Client,
    metrics: Option<Client>,
    sums: Vec<Pattern>,
    resource: BTreeMap<String, String>,
    max_request_bytes: usize,
    missing: Missing,
    /// What was done of the batch that failed last, if a part of it was.
    progress: Option<Progress>,
    /// The encoded resource, an event, the events of a request, and the request: kept for the next ones.
    buffers: Buffers,
}

#[derive(Default)]
struct Buffers {
    resource: Vec<u8>,
    event: Vec<u8>,
    events: Vec<u8>,
    metrics: Metrics,
    request: Vec<u8>,
}

/// Signals, in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Logs,
    Metrics,
}

/// Progress in a batch.
#[derive(Debug, Clone)]
struct State {
    signal: Signal,
    /// The event that comes next for this signal.
    next: usize,
    /// Number of events that are missing before the batch, as long as no request has said so.
    gap: u64,
    /// A request that said so was not taken.
    is_gap_refused: bool,
    /// A request was taken. It may have had the gap alone.
    is_begun: bool,
    /// Number of events that cannot be delivered.
    failed: u64,
    /// Number of events that were.
    delivered: u64,
    /// First thing that went wrong, or a warning.
    message: Option<String>,
}

/// Progress in a batch that may be offered again.
struct Progress {
    /// The batch. It is kept so that no other one has its address.
    _batch: Box<dyn Any + Send>,
    /// Number of the batch, and the address and the number of its events.
    id: (u64, usize, usize),
    state: State,
}

fn id_of<E>(batch: &Batch<E>) -> (u64, usize, usize) {
    (batch.number(), batch.events().as_ptr().addr(), batch.len())
}

/// Records of the events of a batch, and its time. `None` for an event whose `as_ref` panicked: it fails alone.
struct Records<'a> {
    records: Vec<Option<&'a Record>>,
    time: SystemTime,
}

impl<'a> Records<'a> {
    fn of<E: AsRef<Record>>(batch: &'a Batch<E>) -> Self {
        let record = |event: &'a E| {
            let panicked = match catch_unwind(AssertUnwindSafe(|| event.as_ref())) {
                Ok(record) => return Some(record),
                Err(panicked) => panicked,
            };
            // What was thrown may panic again when it is dropped.
            std::mem::forget(catch_unwind(AssertUnwindSafe(|| drop(panicked))));
            None
        };
        Self { records: batch.iter().map(record).collect(), time: batch.time() }
    }
}

impl OtlpSink {
    pub(crate) fn new(
        name: String,
        logs: Client,
        metrics: Option<Client>,
        sums: Vec<Pattern>,
        resource: BTreeMap<String, String>,
        max_request_bytes: usize,
    ) -> Self {
        let (missing, progress, buffers) = (Missing::default(), None, Buffers::default());
        Self { name, logs, metrics, sums, resource, max_request_bytes, missing, progress, buffers }
    }

    fn signal_of(&self, record: Option<&Record>) -> Signal {
        if self.metrics.is_some() && record.is_some_and(is_metric) { Signal::Metrics } else { Signal::Logs }
    }

    /// Puts the next request of a signal together, and moves on behind its events. Returns how many are in it, without the gap.
    fn fill(&mut self, batch: &Records<'_>, state: &mut State) -> u64 {
        let mut buffers = std::mem::take(&mut self.buffers);
        buffers.events.clear();
        buffers.metrics.clear();
        // What is around the events has a few bytes beside the resource.
        let space = self.max_request_bytes.saturating_sub(buffers.resource.len() + 100);
        let (mut used, mut taken) = (0, 0);
        if state.gap > 0 && !state.is_gap_refused && state.signal == Signal::Logs {
            let missing = i64::try_from(state.gap).unwrap_or(i64::MAX);
            let gap =
                Record::integer("forebay.gap", missing).with_time(batch.time).with_metadata("level", "WARN");
            buffers.events.message(2, |out| log_record(out, &gap, batch.time));
            used = buffers.events.len();
        }
        while let Some(record) = batch.records.get(state.next).copied() {
            if self.signal_of(record) != state.signal {
                state.next += 1;
                continue;
            }
            let Some(record) = record else {
                state.next += 1;
                state.failed += 1;
                state.message.get_or_insert("the `as_ref` of an event panicked".to_owned());
                continue;
            };
            let left = space.saturating_sub(used);
            let added = match state.signal {
                Signal::Logs => {
                    buffers.event.clear();
                    buffers.event.message(2, |out| log_record(out, record, batch.time));
                    let size = buffers.event.len();
                    if size > left {
                        Err(size)
                    } else {
                        buffers.events.extend_from_slice(&buffers.event);
                        Ok(size)
                    }
                }
                Signal::Metrics => buffers.metrics.add(record, &self.sums, left),
            };
            match added {
                Ok(size) => used += size,
                Err(size) if size > space => {
                    state.next += 1;
                    state.failed += 1;
                    let name = shown(record.name());
                    let message =
                        format!("event {name} must have at most {space} bytes in a request, got {size}");
                    state.message.get_or_insert(message);
                    continue;
                }
                Err(_) => break,
            }
            state.next += 1;
            taken += 1;
        }
        buffers.request.clear();
        match state.signal {
            Signal::Logs if buffers.events.is_empty() => {}
            Signal::Logs => envelope(&mut buffers.request, &buffers.resource, |out| {
                out.extend_from_slice(&buffers.events)
            }),
            Signal::Metrics if buffers.metrics.is_empty() => {}
            Signal::Metrics => {
                envelope(&mut buffers.request, &buffers.resource, |out| buffers.metrics.write(out))
            }
        }
        self.buffers = buffers;
        taken
    }

    /// Sends what is left of a signal. Returns the failure after which the rest may be tried again.
    fn send(&mut self, batch: &Records<'_>, state: &mut State) -> Result<(), SinkError> {
        loop {
            let (before, failed) = (state.next, state.failed);
            let taken = self.fill(batch, state);
            if self.buffers.request.is_empty() {
                return Ok(());
            }
            // (Nothing is a metric without a client for metrics.)
            let metrics = self.metrics.as_ref().filter(|_| state.signal == Signal::Metrics);
            match metrics.unwrap_or(&self.logs).post(&self.buffers.request) {
                Ok(answer) => {
                    let rejected = answer.rejected.min(taken);
                    state.failed += rejected;
                    state.delivered += taken - rejected;
                    state.is_begun = true;
                    if state.signal == Signal::Logs && !state.is_gap_refused {
                        state.gap = 0;
                    }
                    let why = answer.message.map(|message| shown(&message));
                    let message = match (answer.rejected, why) {
                        (0, None) => continue,
                        (0, Some(why)) => format!("the collector warns: {why}"),
                        (rejected, why) => {
                            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                            format!("the collector rejected {rejected} of {taken} events{why}")
                        }
                    };
                    state.message.get_or_insert(message);
                }
                Err(failure) => match failure.kind {
                    FailureKind::Transient(after) => {
                        // The events are offered again from there. Those that are too large are counted then.
                        (state.next, state.failed) = (before, failed);
                        let error = SinkError::unavailable(failure.message);
                        return Err(match after {
                            Some(after) => error.with_retry_after(after),
                            None => error,
                        });
                    }
                    FailureKind::OfRequest => {
                        state.failed += taken;
                        // The next batch says it.
                        state.is_gap_refused = true;
                        state.message.get_or_insert(failure.message);
                    }
                    FailureKind::OfDestination => {
                        let rest = batch.records.iter().skip(state.next);
                        let rest = rest.filter(|record| self.signal_of(**record) == state.signal).count();
                        state.failed += taken + rest as u64;
                        state.next = batch.records.len();
                        state.message.get_or_insert(failure.message);
                        return Ok(());
                    }
                },
            }
        }
    }
}

impl<E: Event + AsRef<Record>> Sink<E> for OtlpSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<E>) -> Result<(), SinkError> {
        let missing = self.missing.before(batch);
        let resumed = self.progress.take().filter(|progress| progress.id == id_of(batch));
        let mut state = resumed.map_or(
            State {
                signal: Signal::Logs,
                next: 0,
                gap: missing,
                is_gap_refused: false,
                is_begun: false,
                failed: 0,
                delivered: 0,
                message: None,
            },
            |progress| progress.state,
        );
        self.buffers.resource.clear();
        resource(&mut self.buffers.resource, batch, &self.resource);
        let (offered, records) = (batch.len() as u64, Records::of(batch));
        // User code has found the records, and may have forked: the connection is the parent's.
        if batch.is_forked() {
            return Err(SinkError::forked());
        }
        loop {
            if let Err(error) = self.send(&records, &mut state) {
                let failed = offered - state.delivered.min(offered);
                if !state.is_begun {
                    self.missing.add(batch);
                    return Err(error);
                }
                self.missing.mark_written(state.gap, failed);
                let (id, batch) = (id_of(batch), Box::new(batch.clone()));
                self.progress = Some(Progress { _batch: batch, id, state });
                return Err(error.with_failed_events(failed).resumable());
            }
            match state.signal {
                Signal::Logs if self.metrics.is_some() => (state.signal, state.next) = (Signal::Metrics, 0),
                _ => break,
            }
        }
        if !state.is_begun && state.failed > 0 {
            self.missing.add(batch);
        } else {
            self.missing.mark_written(state.gap, state.failed);
        }
        match state.message {
            None => Ok(()),
            // Of what was offered, nothing failed: a warning.
            Some(message) => {
                Err(SinkError::write_failed(message).permanent().with_failed_events(state.failed))
            }
        }
    }
}

impl fmt::Debug for OtlpSink {
    /// Shows nothing that may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpSink")
            .field("name", &self.name)
            .field("logs", &self.logs)
            .field("metrics", &self.metrics)
            .field("max_request_bytes", &self.max_request_bytes)
            .finish_non_exhaustive()
    }
}
