//! Runs the real collector beside the reference, operation by operation, and compares all that can be seen.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use forebay::collector::Producer;
use forebay::collector::{FlushError, SinkChangeError, StartError, State, StopError};
use forebay::futures::{CollectAsync, FlushAsync};
use forebay::sink::{Sink, SinkError};
use forebay::{Batch, Collector, Config, ManualClock, Outcome, Priority};

use crate::primitives::{Condvar, Mutex, yield_now};
use crate::reference::{self, Answer, ECHO, HANDLES, Manner, Reference, Seen, echo};
use crate::support::{LONG, Tick, ticks};

/// A failure is repeated for every case that it may shrink to.
/// Less than the park after which a worker looks by itself, so that a missing wake-up shows.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tasks have producers from here on. An event that waits for space is overtaken by those that need not, and an
/// echo is made by every sink that hears it: what they collect is in the order of the reference, not in that of
/// their numbers.
const TASK: u32 = ECHO / 2;

/// Operation of a case.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Collect(u32, Priority),
    TryCollect(u32, Priority),
    CollectBatch(Vec<(u32, Priority)>),
    CollectAsync(u32, Priority),
    /// Polls the oldest event that waits for space.
    PollCollect,
    DropCollect,
    Flush,
    /// Gives up the newest flush that is not answered.
    DropFlush,
    Start,
    Stop,
    AddSink(usize, Manner),
    RemoveSink(usize),
    Reconfigure(Change),
    Advance(Duration),
    OpenGate,
    CloseGate,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Flush(forebay::FlushStrategy),
    Overflow(forebay::Overflow),
    BatchSize(Option<usize>),
    CriticalTimeout(Duration),
    FlushTimeout(Duration),
}

impl Change {
    fn apply(self, config: &mut Config) {
        match self {
            Change::Flush(flush) => config.flush = flush,
            Change::Overflow(overflow) => config.overflow = overflow,
            Change::BatchSize(batch_size) => config.batch_size = batch_size,
            Change::CriticalTimeout(wait) => config.critical_timeout = wait,
            Change::FlushTimeout(timeout) => config.flush_timeout = timeout,
        }
    }
}

/// Gate where a slow sink waits; the driver sees whether it does.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    is_closed: bool,
    is_occupied: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.is_occupied = state.is_closed;
        while state.is_closed {
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn close(&self) {
        self.0.0.lock().unwrap().is_closed = true;
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = GateState::default();
        self.0.1.notify_all();
    }

    fn is_occupied(&self) -> bool {
        self.0.0.lock().unwrap().is_occupied
    }
}

/// Gives way until something holds.
#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never happened: {what}");
        yield_now();
    }
}

/// Record of what a real sink has seen.
#[derive(Default)]
struct Log {
    seen: Vec<Seen>,
    echoes: Vec<Outcome>,
}

struct Scripted {
    name: String,
    manner: Manner,
    log: Arc<Mutex<Log>>,
    gate: Gate,
    handle: Arc<Mutex<Option<Collector<Tick>>>>,
}

impl Sink<Tick> for Scripted {
    fn name(&self) -> &str {
        &self.name
    }

    fn write_batch(&mut self, batch: &Batch<Tick>) -> Result<(), SinkError> {
        self.log.lock().unwrap().seen.push(Seen {
            number: batch.number(),
            first_event: batch.first_event(),
            gap: batch.gap(),
            events: batch.events().to_vec(),
        });
        match self.manner {
            Manner::Good => Ok(()),
            Manner::Slow => {
                self.gate.pass();
                Ok(())
            }
            Manner::Failing => Err(SinkError::write_failed("as it was set to")),
            Manner::LosesOne => Err(SinkError::write_failed("as it was set to").with_failed_events(1)),
            Manner::Panicking => panic!("on purpose"),
            Manner::Reentrant => {
                let handle = self.handle.lock().unwrap();
                if let Some(collector) = &*handle {
                    for event in batch.iter().filter_map(echo) {
                        let outcome = collector.collect(event);
                        self.log.lock().unwrap().echoes.push(outcome);
                    }
                    // What would wait for the worker says so.
                    assert_eq!(collector.flush(), Err(FlushError::OnWorker));
                    assert_eq!(collector.stop().unwrap_err(), StopError::OnWorker);
                }
                Ok(())
            }
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        match self.manner {
            Manner::Failing => Err(SinkError::flush_failed("as it was set to")),
            Manner::Panicking => panic!("on purpose"),
            _ => Ok(()),
        }
    }
}

type Boxed<F> = Pin<Box<F>>;

pub(crate) struct Lockstep {
    real: Collector<Tick>,
    /// Handles of the first producers, where threads have lanes.
    handles: Vec<Producer<Tick>>,
    model: Reference,
    clock: ManualClock,
    gate: Gate,
    handle: Arc<Mutex<Option<Collector<Tick>>>>,
    /// Logs of all sinks that ever were, by id.
    logs: Vec<Arc<Mutex<Log>>>,
    next_flush: u64,
    flushes: Vec<(u64, Arc<WakeCounter>, Boxed<FlushAsync<Tick>>)>,
    collecting: Vec<(Tick, Arc<WakeCounter>, Boxed<CollectAsync<Tick>>)>,
    next_number: BTreeMap<u32, u64>,
}

/// Counts how often it is woken.
#[derive(Default)]
struct WakeCounter(AtomicU64);

impl Wake for WakeCounter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl WakeCounter {
    fn was_woken(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

fn poll<F: Future>(future: &mut Boxed<F>, counter: &Arc<WakeCounter>) -> Option<F::Output> {
    match future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(counter)))) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

impl Lockstep {
    /// Builds both, with one sink a manner.
    pub(crate) fn new(config: &Config, manners: &[Manner]) -> Self {
        let clock = ManualClock::new();
        let (gate, handle) = (Gate::default(), Arc::new(Mutex::new(None)));
        let mut logs = Vec::new();
        let mut builder = ticks().config(config.clone()).manual_clock(&clock);
        let mut sinks = Vec::new();
        for (&manner, name) in manners.iter().zip(NAMES) {
            let log = Arc::new(Mutex::new(Log::default()));
            sinks.push(reference::Sink::new(logs.len(), name, manner));
            logs.push(Arc::clone(&log));
            let (name, gate, handle) = (name.to_owned(), gate.clone(), Arc::clone(&handle));
            builder = builder.sink(Scripted { name, manner, log, gate, handle });
        }
        let real = builder.build().unwrap();
        *handle.lock().unwrap() = Some(real.clone());
        let model = Reference::new(config, sinks);
        let handles = if model.has_handles() { HANDLES } else { 0 };
        let handles = (0..handles).map(|_| real.local()).collect();
        Self {
            real,
            handles,
            model,
            clock,
            gate,
            handle,
            logs,
            next_flush: 0,
            flushes: Vec::new(),
            collecting: Vec::new(),
            next_number: BTreeMap::new(),
        }
    }

    fn event(&mut self, producer: u32, priority: Priority) -> Tick {
        let number = self.next_number.entry(producer).or_default();
        *number += 1;
        Tick { producer, number: *number, priority }
    }

    /// Performs one operation on both, waits until the real worker rests, and compares.
    pub(crate) fn step(&mut self, op: &Op) {
        if cfg!(forebay_loom) && self.times_out(op) {
            return;
        }
        match op {
            Op::Collect(producer, priority) => {
                let event = self.event(*producer, *priority);
                let outcome = match self.handles.get(*producer as usize) {
                    None => self.real.collect(event),
                    Some(handle) => handle.collect(event),
                };
                assert_eq!(outcome, self.model.collect(event, true));
            }
            Op::TryCollect(producer, priority) => {
                let event = self.event(*producer, *priority);
                let result = match self.handles.get(*producer as usize) {
                    None => self.real.try_collect(event),
                    Some(handle) => handle.try_collect(event),
                };
                let outcome = result.unwrap_or_else(|refused| {
                    assert_eq!(refused.event, event);
                    refused.reason.into()
                });
                assert_eq!(outcome, self.model.collect(event, false));
            }
            Op::CollectBatch(events) => self.collect_batch(events),
            Op::CollectAsync(producer, priority) => {
                let event = self.event(TASK + *producer, *priority);
                self.collecting.push((event, Arc::default(), Box::pin(self.real.collect_async(event))));
                self.poll_collect(self.collecting.len() - 1, true);
            }
            Op::PollCollect if !self.collecting.is_empty() => self.poll_collect(0, false),
            Op::DropCollect if !self.collecting.is_empty() => drop(self.collecting.remove(0)),
            Op::PollCollect | Op::DropCollect => {}
            Op::Flush => self.flush(),
            Op::DropFlush => {
                if let Some((number, _, future)) = self.flushes.pop() {
                    drop(future);
                    self.model.abandon_flush(number);
                }
            }
            Op::Start => {
                let answer = match self.real.start() {
                    Ok(()) => Answer::Done,
                    Err(StartError::StillStopping) => Answer::StillStopping,
                    Err(other) => panic!("{other}"),
                };
                assert_eq!(answer, self.model.start());
            }
            Op::Stop => self.stop(),
            Op::AddSink(name, manner) => self.add_sink(NAMES[*name], *manner),
            Op::RemoveSink(name) => self.remove_sink(NAMES[*name]),
            Op::Reconfigure(change) => self.reconfigure(*change),
            Op::Advance(by) => {
                self.clock.advance(*by);
                self.model.advance(*by);
            }
            Op::OpenGate => {
                self.gate.open();
                self.model.set_gate(true);
            }
            Op::CloseGate => {
                self.gate.close();
                self.model.set_gate(false);
            }
        }
        self.rest();
        self.hear_answers();
        self.compare();
    }

    /// Says whether an operation ends by its time limit, which never comes where the primitives are those of a model.
    fn times_out(&self, op: &Op) -> bool {
        let mut model = self.model.clone();
        match op {
            Op::Collect(producer, priority) => {
                _ = model.collect(Tick { producer: *producer, number: 0, priority: *priority }, true);
                model.waits > self.model.waits
            }
            // Where the worker can come in between, each is a step of its own.
            Op::CollectBatch(events) if model.is_deaf() => {
                for &(producer, priority) in events {
                    _ = model.collect(Tick { producer, number: 0, priority }, true);
                }
                model.waits > self.model.waits
            }
            Op::Stop => model.stop() == Answer::TimedOut,
            Op::RemoveSink(name) => model.remove_sink(NAMES[*name]) == Answer::TimedOut,
            _ => false,
        }
    }

    /// Collects in one call where the worker cannot come in between, else one by one.
    fn collect_batch(&mut self, events: &[(u32, Priority)]) {
        if !self.model.is_deaf() || !self.handles.is_empty() {
            for (producer, priority) in events {
                self.step(&Op::Collect(*producer, *priority));
            }
            return;
        }
        let events: Vec<Tick> =
            events.iter().map(|(producer, priority)| self.event(*producer, *priority)).collect();
        let outcome = self.real.collect_batch(events.iter().copied());
        let outcomes: Vec<Outcome> =
            events.into_iter().map(|event| self.model.collect(event, true)).collect();
        let queued = outcomes.iter().filter(|outcome| outcome.is_queued()).count();
        let evicted = outcomes.iter().filter(|outcome| **outcome == Outcome::QueuedEvicting).count();
        assert_eq!((outcome.queued, outcome.evicted), (queued as u64, evicted as u64));
        assert_eq!(outcome.rejected, (outcomes.len() - queued) as u64);
        assert_eq!(outcome.first_rejection, outcomes.into_iter().find(|outcome| !outcome.is_queued()));
    }

    fn poll_collect(&mut self, at: usize, is_first: bool) {
        let (event, counter, future) = &mut self.collecting[at];
        *counter = Arc::default();
        let outcome = poll(future, counter);
        assert_eq!(outcome, self.model.poll_collect(*event, is_first));
        if outcome.is_some() {
            drop(self.collecting.remove(at));
        }
    }

    fn flush(&mut self) {
        let number = self.next_flush;
        self.next_flush += 1;
        let mut future = Box::pin(self.real.flush_async());
        let counter = Arc::default();
        let at_once = poll(&mut future, &counter);
        match self.model.flush(number) {
            Answer::NotStarted => assert_eq!(at_once, Some(Err(FlushError::NotStarted))),
            Answer::Stopped => assert_eq!(at_once, Some(Err(FlushError::Stopped))),
            // Answered now or later; a quick worker may have done so already.
            _ => match at_once {
                Some(answer) => self.hear(number, answer.unwrap()),
                None => self.flushes.push((number, counter, future)),
            },
        }
    }

    fn hear(&self, number: u64, report: forebay::stats::FlushReport) {
        let report = reference::Report {
            processed: report.processed,
            evicted: report.evicted,
            sinks: report.sinks.into_iter().map(|sink| (sink.name, sink.delivered, sink.failed)).collect(),
        };
        assert_eq!(Some(&report), self.model.answers.get(&number), "flush {number}");
    }

    fn hear_answers(&mut self) {
        for (number, counter, mut future) in std::mem::take(&mut self.flushes) {
            let is_answered = self.model.answers.contains_key(&number);
            assert_eq!(counter.was_woken(), is_answered, "flush {number} is answered: {is_answered}");
            if is_answered {
                self.hear(number, poll(&mut future, &counter).unwrap().unwrap());
            } else {
                self.flushes.push((number, counter, future));
            }
        }
        // A task that could go on by now was woken.
        for (event, counter, _) in &self.collecting {
            let waits = self.model.clone().poll_collect(*event, false).is_none();
            assert!(waits || counter.was_woken(), "nobody woke the task of {event:?}");
        }
    }

    fn stop(&mut self) {
        let answer = self.model.stop();
        let timeout = if answer == Answer::Done { LONG } else { Duration::ZERO };
        match self.real.stop_timeout(timeout) {
            Ok(report) => {
                assert_eq!(answer, Answer::Done);
                assert_eq!((report.left_behind, report.stats.pending), (self.model.discarded, 0));
                report.stats.check_law(self.model.offered).unwrap();
            }
            Err(StopError::TimedOut { .. }) => assert_eq!(answer, Answer::TimedOut),
            Err(other) => panic!("{other}"),
        }
    }

    fn add_sink(&mut self, name: &str, manner: Manner) {
        let log = Arc::new(Mutex::new(Log::default()));
        let (gate, handle) = (self.gate.clone(), Arc::clone(&self.handle));
        let sink = Scripted { name: name.to_owned(), manner, log: Arc::clone(&log), gate, handle };
        let answer = match self.real.add_sink(sink) {
            Ok(()) => Answer::Done,
            Err(SinkChangeError::DuplicateSink { .. }) => Answer::Duplicate,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(answer, self.model.add_sink(reference::Sink::new(self.logs.len(), name, manner)));
        if answer == Answer::Done {
            self.logs.push(log);
        }
    }

    fn remove_sink(&mut self, name: &str) {
        let patient = self.real.config().flush_timeout;
        let is_hopeless = self.model.clone().remove_sink(name) == Answer::TimedOut;
        if is_hopeless {
            self.step(&Op::Reconfigure(Change::FlushTimeout(Duration::ZERO)));
        }
        let removed = self.real.remove_sink(name);
        let answer = self.model.remove_sink(name);
        match removed {
            Ok(stats) => {
                assert_eq!(answer, Answer::Done);
                same_account(&stats, self.model.retired.last().unwrap());
            }
            Err(SinkChangeError::UnknownSink { .. }) => assert_eq!(answer, Answer::Unknown),
            Err(SinkChangeError::Unanswered(FlushError::TimedOut { .. })) => {
                assert_eq!(answer, Answer::TimedOut);
            }
            Err(other) => panic!("{other}"),
        }
        if is_hopeless {
            self.rest();
            self.step(&Op::Reconfigure(Change::FlushTimeout(patient)));
        }
    }

    fn reconfigure(&mut self, change: Change) {
        self.real.update_config(|config| change.apply(config)).unwrap();
        self.model.update_config(|config| change.apply(config));
    }

    /// Waits until the worker has nothing left to do: it sleeps, waits at the gate, or has ended.
    ///
    /// `Asleep` alone says too little: a worker announces it before its second look, and may have a notification
    /// left over from earlier, with which it looks once more. Of two more rings, the second one's look began
    /// after the operation.
    fn rest(&self) {
        self.wait_for_rest();
        for _ in 0..6 {
            if self.real.state() == State::Asleep && !self.gate.is_occupied() {
                let parks = self.real.stats().parks;
                self.clock.advance(Duration::ZERO);
                let looked = || self.gate.is_occupied() || self.real.stats().parks > parks;
                until("the worker looks again", looked);
            }
            self.wait_for_rest();
        }
    }

    fn wait_for_rest(&self) {
        until("the worker rests", || {
            self.gate.is_occupied()
                || match self.real.state() {
                    State::Idle | State::Asleep => true,
                    State::Stopped => self.real.stop_timeout(Duration::ZERO).is_ok(),
                    _ => false,
                }
        });
    }

    fn compare(&self) {
        let (stats, model) = (self.real.stats(), &self.model);
        stats.check_law(model.offered).unwrap();
        let state = match stats.state {
            State::Idle => reference::State::Idle,
            State::Awake | State::Asleep => reference::State::Running,
            State::Draining => reference::State::Draining,
            State::Stopped => reference::State::Stopped,
            other => panic!("{other:?}"),
        };
        assert_eq!((state, self.gate.is_occupied()), (model.state, model.is_stalled()));
        let fates = |full, stopped, evicted, processed, pending| {
            BTreeMap::from([
                ("full", full),
                ("stopped", stopped),
                ("evicted", evicted),
                ("processed", processed),
                ("pending", pending),
            ])
        };
        assert_eq!(
            fates(stats.rejected.full, stats.rejected.stopped, stats.evicted, stats.processed, stats.pending),
            fates(
                model.rejected_full,
                model.rejected_stopped,
                model.evicted,
                model.processed,
                model.pending()
            )
        );
        assert_eq!((stats.flushes, stats.waits), (model.flushes, model.waits));
        let present = model.sinks.iter().chain(&model.added);
        assert!(self.real.sinks().into_iter().eq(present.clone().map(|sink| sink.name.clone())));
        assert_eq!(*self.real.config(), model.config);
        for sink in present.clone() {
            same_account(stats.sink(&sink.name).unwrap(), sink);
        }
        for sink in present.chain(&model.retired) {
            let log = self.logs[sink.id].lock().unwrap();
            assert_eq!((&log.seen, &log.echoes), (&sink.seen, &sink.echoes), "sink {}", sink.name);
            in_order(&log.seen);
        }
    }

    /// Opens the gate, stops both, and compares for the last time.
    pub(crate) fn finish(mut self) {
        self.step(&Op::OpenGate);
        self.step(&Op::Stop);
        assert!(self.flushes.is_empty(), "every flush is answered by now");
        let stats = self.real.stats();
        assert_eq!((stats.pending, stats.state), (0, State::Stopped));
        assert!(stats.sinks.iter().all(|sink| sink.in_flight == 0));
        // The handles in the sinks would keep the collector.
        self.handle.lock().unwrap().take();
    }
}

#[track_caller]
fn same_account(real: &forebay::stats::SinkStats, model: &reference::Sink) {
    let numbers = [real.offered, real.delivered, real.failed, real.in_flight];
    assert_eq!(
        numbers,
        [model.offered, model.delivered, model.failed, model.in_flight],
        "sink {}",
        real.name
    );
    let troubles = [real.errors, real.panics, real.flush_errors];
    assert_eq!(troubles, [model.errors, model.panics, model.flush_errors], "sink {}", real.name);
    assert_eq!(real.offered, real.delivered + real.failed + real.in_flight);
}

/// Checks what every sink sees, without regard to the reference: numbers without a hole but for the gaps, and the
/// events of one producer and priority in their order.
fn in_order(seen: &[Seen]) {
    let mut last = BTreeMap::new();
    for (one, next) in seen.iter().zip(seen.iter().skip(1)) {
        assert_eq!(next.number, one.number + 1);
        assert_eq!(next.first_event, one.first_event + one.events.len() as u64 + next.gap);
    }
    for event in seen.iter().flat_map(|batch| &batch.events) {
        let before = last.insert((event.producer, event.priority as u8), event.number);
        let is_later = before.is_none_or(|before| before < event.number);
        assert!(is_later || event.producer >= TASK, "{event:?} after number {before:?}");
    }
}
