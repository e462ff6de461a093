//! A subscription as a channel: `select!` works, a full channel rejects the new event, and the account is exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::*;
use crossbeam_channel::{RecvTimeoutError, TryRecvError, after, bounded, select};
use forebay::sink::{DeadLetters, MemorySink, Sink, SinkError, SinkExt, channel};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy, Record};

fn scalars(collector: &Collector, name: &'static str, steps: std::ops::Range<u64>) {
    steps.for_each(|step| _ = collector.collect(Record::scalar(name, 0.5).with_step(step)));
}

fn steps(records: impl IntoIterator<Item = Record>) -> Vec<u64> {
    records.into_iter().filter_map(|record| record.step()).collect()
}

#[test]
fn select_waits_for_events_that_fit_and_for_other_channels() {
    let collector = Collector::builder().flush(HOURLY).start().unwrap();
    scalars(&collector, "train.loss", 0..5);
    let _ = collector.flush().unwrap();
    let losses = collector.subscribe_channel("*.loss", 1000).unwrap();
    let (stop, stopped) = bounded::<()>(1);
    let watcher = std::thread::spawn(move || {
        let mut seen = Vec::new();
        loop {
            select! {
                recv(losses) -> record => seen.push(record.unwrap().step().unwrap()),
                recv(stopped) -> _ => break,
                recv(after(LONG)) -> _ => panic!("neither an event nor the end"),
            }
        }
        // What `select!` left, in the order of delivery.
        seen.extend(steps(losses.try_iter()));
        seen
    });
    scalars(&collector, "train.loss", 5..50);
    scalars(&collector, "train.accuracy", 0..50);
    collector.stop().unwrap();
    stop.send(()).unwrap();
    assert_eq!(
        watcher.join().unwrap(),
        (5..50).collect::<Vec<_>>(),
        "from the subscription on, no other name"
    );
    law(&collector, 100);
}

#[test]
fn a_full_channel_rejects_the_new_event_which_is_counted() {
    let memory = MemorySink::new();
    let collector = Collector::builder().flush(HOURLY).sink(memory.clone()).start().unwrap();
    let few = collector.subscribe_channel("**", 3).unwrap();
    scalars(&collector, "a", 0..10);
    assert!(!collector.flush().unwrap().is_clean(), "the report tells what was rejected");
    assert_eq!((few.len(), memory.len()), (3, 10));
    assert_eq!(steps(few.try_iter()), [0, 1, 2]);
    scalars(&collector, "a", 10..12);
    assert!(collector.flush().unwrap().is_clean());
    let stats = law(&collector, 12);
    let name = collector.sinks().into_iter().find(|name| name.starts_with("subscription-")).unwrap();
    let sink = stats.sink(&name).unwrap();
    assert_eq!((sink.offered, sink.delivered, sink.rejected, sink.evicted), (12, 5, 7, 0));
    // It ends with the collector, and what is in it can be received.
    let report = collector.stop().unwrap();
    assert_eq!((report.failed(), report.stats.sink(&name).unwrap().rejected), (0, 7));
    assert_eq!(few.recv_timeout(LONG).unwrap().step(), Some(10));
    drop(collector);
    assert_eq!(steps(&few), [11]);
    assert_eq!(few.try_recv(), Err(TryRecvError::Disconnected));
    assert_eq!(few.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
}

#[test]
fn events_in_a_channel_own_no_more_bytes_than_were_allowed_but_for_one() {
    let (sink, events) = channel(1000);
    let collector = Collector::builder().flush(HOURLY).sink(sink.max_bytes(5_000)).start().unwrap();
    let text = |bytes: usize| Record::text("a", "x".repeat(bytes));
    (0..10).for_each(|_| _ = collector.collect(text(2_000)));
    let _ = collector.flush().unwrap();
    assert_eq!(events.len(), 2, "three own more than that");
    assert_eq!(events.try_iter().count(), 2);
    [6_000, 10].into_iter().for_each(|bytes| _ = collector.collect(text(bytes)));
    let _ = collector.flush().unwrap();
    assert_eq!(events.len(), 1, "one is always taken, and is all then");
    assert_eq!(events.try_iter().count(), 1);
    (0..2).for_each(|_| _ = collector.collect(text(2_000)));
    let _ = collector.flush().unwrap();
    assert_eq!(events.len(), 2, "what was received has made room");
    collector.stop().unwrap();
    let sink = &law(&collector, 14).sinks[0];
    assert_eq!((sink.delivered, sink.rejected), (5, 9));
}

#[test]
fn the_sink_is_over_when_the_last_receiver_is_gone() {
    let collector = Collector::builder().flush(HOURLY).start().unwrap();
    for _ in 0..100 {
        drop(collector.subscribe_channel("nothing.of.that.name", 10).unwrap());
    }
    until("they are taken out, although nothing fitted", || collector.sinks().is_empty());
    let events = collector.subscribe_channel("**", 10).unwrap();
    let other = events.clone();
    drop(events);
    scalars(&collector, "a", 0..2);
    let _ = collector.flush().unwrap();
    assert_eq!((collector.sinks().len(), other.len()), (1, 2));
    drop(other);
    until("it is taken out", || collector.sinks().is_empty());
    // One that was made by hand goes with the next batch or flush.
    let (sink, events) = channel::<Record>(10);
    collector.add_sink(sink.named("by hand")).unwrap();
    assert_eq!(collector.sinks(), ["by hand"]);
    drop(events);
    let _ = collector.flush().unwrap();
    assert!(collector.sinks().is_empty());
    collector.stop().unwrap();
    law(&collector, 2);
}

/// Panics when it is cloned, if its number is odd.
struct Odd(u64);

impl Event for Odd {}

impl Clone for Odd {
    fn clone(&self) -> Self {
        assert!(self.0.is_multiple_of(2), "on purpose");
        Self(self.0)
    }
}

#[test]
fn an_event_whose_clone_panics_fails_alone() {
    hush();
    let (sink, events) = channel(10);
    let collector = Builder::<Odd>::new().flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    (0..5).for_each(|number| _ = collector.collect(Odd(number)));
    assert!(!collector.flush().unwrap().is_clean());
    assert_eq!(events.try_iter().map(|odd| odd.0).collect::<Vec<_>>(), [0, 2, 4]);
    collector.stop().unwrap();
    let sink = &law(&collector, 5).sinks[0];
    assert_eq!((sink.delivered, sink.failed, sink.panics), (3, 2, 1));
}

#[test]
fn dead_letters_that_a_full_channel_does_not_take_stay_letters() {
    hush();
    let (sink, events) = channel(10);
    let letters = DeadLetters::new(100);
    let is_broken = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&is_broken);
    let mapped = sink.map(move |record: &Record| {
        assert!(!seen.load(Ordering::Relaxed), "on purpose");
        record.clone()
    });
    let collector = Collector::builder().flush(HOURLY).sink(mapped.dead_letters(&letters)).start().unwrap();
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    assert_eq!(letters.len(), 10);
    is_broken.store(false, Ordering::Relaxed);
    scalars(&collector, "a", 10..20);
    let _ = collector.flush().unwrap();
    assert_eq!(events.len(), 10, "the channel is full");
    let errors = collector.stats().sinks[0].errors;
    assert_eq!(letters.redrive(None), 10);
    let _ = collector.flush().unwrap();
    let sink = &law(&collector, 20).sinks[0];
    assert_eq!((sink.delivered, sink.dead_lettered, sink.redriven, sink.rejected), (10, 10, 0, 0));
    assert_eq!(letters.len(), 10);
    assert_eq!(sink.errors - errors, 2, "all at once, and the first; the others are not tried");
    assert!(letters.entries().iter().all(|letter| letter.attempts == 2));
    // There is space for a part of them: the others stay.
    assert_eq!(steps(events.try_iter().take(4)), [10, 11, 12, 13]);
    letters.redrive(None);
    let _ = collector.flush().unwrap();
    let sink = &law(&collector, 20).sinks[0];
    assert_eq!((sink.redriven, letters.len(), letters.evicted()), (4, 6, 0));
    assert_eq!(steps(events.try_iter()), [14, 15, 16, 17, 18, 19, 0, 1, 2, 3]);
    // There is space for all.
    assert_eq!(letters.redrive(None), 6);
    let _ = collector.flush().unwrap();
    let sink = &law(&collector, 20).sinks[0];
    assert_eq!((sink.redriven, letters.len(), letters.evicted()), (10, 0, 0));
    assert_eq!(steps(events.try_iter()), [4, 5, 6, 7, 8, 9]);
    collector.stop().unwrap();
}

/// A wrapper of somebody else.
struct Foreign<S>(S);

impl<S: Sink> Sink for Foreign<S> {
    fn name(&self) -> &str {
        "foreign"
    }

    fn write_batch(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.0.write_batch(batch)
    }
}

#[test]
fn inside_of_somebody_elses_wrapper_what_is_rejected_has_failed() {
    let (sink, events) = channel(4);
    let collector = Collector::builder().flush(HOURLY).sink(Foreign(sink)).start().unwrap();
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    assert_eq!(steps(events.try_iter()), [0, 1, 2, 3]);
    collector.stop().unwrap();
    let sink = &law(&collector, 10).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (4, 6));
    assert_eq!(events.recv_timeout(Duration::ZERO).ok().map(|record| record.step()), None);
}

#[test]
fn inside_of_somebody_elses_wrapper_a_sink_without_receivers_stays_until_it_is_removed() {
    let (sink, events) = channel(4);
    let collector = Collector::builder().flush(HOURLY).sink(Foreign(sink)).start().unwrap();
    drop(events);
    scalars(&collector, "a", 0..10);
    let _ = collector.flush().unwrap();
    assert_eq!(collector.sinks(), ["foreign"]);
    let sink = &law(&collector, 10).sinks[0];
    assert_eq!((sink.delivered, sink.failed, sink.rejected), (10, 0, 0));
    let _ = collector.remove_sink("foreign").unwrap();
    assert!(collector.sinks().is_empty());
    collector.stop().unwrap();
    law(&collector, 10);
}
