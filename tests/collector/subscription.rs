//! Live subscriptions: what is delivered from then on, bounded, and nobody waits for them.

use std::time::Duration;

use crate::support::*;
use forebay::event::catalog::metrics::FeatureUsed;
use forebay::sink::{BreakerPolicy, DeadLetters, Hook, MemorySink, Sink, SinkExt};
use forebay::{Builder, Collector, Event, Record, subscription::RecvError};

fn scalars(collector: &Collector, name: &'static str, steps: std::ops::Range<u64>) {
    steps.for_each(|step| _ = collector.collect(Record::scalar(name, 0.5).with_step(step)));
}

fn manual() -> Collector {
    Collector::builder().flush(HOURLY).start().unwrap()
}

#[test]
fn a_subscriber_gets_what_fits_from_then_on_in_order() {
    let collector = manual();
    scalars(&collector, "a", 0..3);
    let _ = collector.flush().unwrap();
    let (some, all) = (collector.subscribe("a").unwrap(), collector.subscribe("*").unwrap());
    assert_eq!(some.try_recv(), Err(RecvError::Empty));
    scalars(&collector, "a", 3..5);
    scalars(&collector, "b", 0..2);
    let _ = collector.flush().unwrap();
    let steps = |subscription: &forebay::subscription::Subscription| -> Vec<u64> {
        std::iter::from_fn(|| subscription.try_recv().ok()).filter_map(|record| record.step()).collect()
    };
    assert_eq!((some.len(), all.len()), (2, 4));
    assert_eq!((steps(&some), steps(&all)), (vec![3, 4], vec![3, 4, 0, 1]));
    assert!(some.is_empty());
    collector.stop().unwrap();
    law(&collector, 7);
    // A stop is no end; the end of the collector is, behind what is queued.
    assert_eq!(some.recv_timeout(Duration::ZERO), Err(RecvError::Empty));
    collector.start().unwrap();
    scalars(&collector, "a", 5..6);
    collector.stop().unwrap();
    law(&collector, 8);
    drop(collector);
    assert_eq!(some.recv().unwrap().step(), Some(5));
    assert_eq!(some.recv(), Err(RecvError::Closed));
    assert_eq!(all.iter().count(), 1);
}

#[test]
fn a_subscriber_that_lags_loses_its_own_oldest_and_learns_it() {
    let memory = MemorySink::new();
    let collector = Collector::builder().flush(HOURLY).batch_size(4).sink(memory.clone()).start().unwrap();
    let (slow, other) = (collector.subscribe_with("*", 5).unwrap(), collector.subscribe("*").unwrap());
    scalars(&collector, "a", 0..20);
    let report = collector.flush().unwrap();
    assert!(report.is_clean(), "a slow subscriber is no failure");
    assert_eq!((memory.len(), other.len(), slow.len(), slow.evicted()), (20, 20, 5, 15));
    assert_eq!(slow.try_recv(), Err(RecvError::Lagged(15)));
    let kept: Vec<_> = std::iter::from_fn(|| slow.try_recv().ok()).map(|record| record.step()).collect();
    assert_eq!(kept, (15..20).map(Some).collect::<Vec<_>>());
    scalars(&collector, "a", 20..23);
    let _ = collector.flush().unwrap();
    assert_eq!(slow.try_recv().unwrap().step(), Some(20), "reported once");
    let one = collector.subscribe_with("*", 0).unwrap();
    scalars(&collector, "a", 23..26);
    let _ = collector.flush().unwrap();
    assert_eq!((one.recv(), one.recv().unwrap().step()), (Err(RecvError::Lagged(2)), Some(25)));
    collector.stop().unwrap();
    law(&collector, 26);
}

#[test]
fn a_subscriber_that_left_is_taken_out_and_its_events_end() {
    let collector = manual();
    let subscription = collector.subscribe("*").unwrap();
    let name = collector.sinks()[0].clone();
    assert!(name.starts_with("subscription-"), "{name}");
    scalars(&collector, "a", 0..3);
    let _ = collector.flush().unwrap();
    drop(subscription);
    scalars(&collector, "a", 3..4);
    let _ = collector.flush().unwrap();
    assert!(collector.sinks().is_empty());
    collector.stop().unwrap();
    law(&collector, 4);
}

#[test]
fn who_waits_is_woken_by_an_event_and_by_the_end() {
    let collector = Collector::builder().start().unwrap();
    let subscription = collector.subscribe("a").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (subscription.recv(), subscription.recv_timeout(LONG)));
        scalars(&collector, "b", 0..10);
        scalars(&collector, "a", 0..1);
        let _ = collector.flush().unwrap();
        law(&collector, 11);
        drop(collector);
        let (event, end) = waiting.join().unwrap();
        assert_eq!((event.unwrap().step(), end), (Some(0), Err(RecvError::Closed)));
    });
}

#[cfg(feature = "futures")]
#[test]
fn as_a_stream_it_is_awaited_on_any_executor() {
    use futures::StreamExt;
    let collector = Collector::builder().start().unwrap();
    let stream = collector.subscribe("a").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| futures::executor::block_on(stream.collect::<Vec<Record>>()));
        for step in 0..100 {
            scalars(&collector, "a", step..step + 1);
            let _ = collector.flush().unwrap();
        }
        law(&collector, 100);
        drop(collector);
        let steps: Vec<u64> = waiting.join().unwrap().iter().filter_map(Record::step).collect();
        assert_eq!(steps, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn foreign_code_of_an_event_runs_without_a_lock() {
    /// Event whose name, clone and end look at the subscription that has it.
    struct Odd(std::sync::Arc<std::sync::OnceLock<forebay::subscription::Subscription<Odd>>>);
    impl Event for Odd {
        fn name(&self) -> &str {
            _ = self.0.get().map(|subscription| subscription.len());
            "odd"
        }
    }
    impl Clone for Odd {
        fn clone(&self) -> Self {
            _ = self.0.get().map(|subscription| subscription.len());
            Self(self.0.clone())
        }
    }
    impl Drop for Odd {
        fn drop(&mut self) {
            _ = self.0.get().map(|subscription| subscription.len());
        }
    }
    let collector = Builder::<Odd>::new().flush(HOURLY).start().unwrap();
    let place = std::sync::Arc::new(std::sync::OnceLock::new());
    assert!(place.set(collector.subscribe_with("*", 2).unwrap()).is_ok());
    for _ in 0..5 {
        collector.collect(Odd(place.clone()));
        let _ = collector.flush().unwrap();
    }
    let subscription = place.get().unwrap();
    assert_eq!(subscription.try_recv().err(), Some(RecvError::Lagged(3)));
    assert!(subscription.try_recv().is_ok() && subscription.try_recv().is_ok());
    collector.stop().unwrap();
    law(&collector, 5);
}

#[test]
fn a_subscription_holds_a_thousand_events_by_default() {
    let collector = Collector::builder().flush(HOURLY).batch_size(1).start().unwrap();
    let live = collector.subscribe("*").unwrap();
    scalars(&collector, "a", 0..1_001);
    let _ = collector.flush().unwrap();
    assert_eq!((live.len(), live.try_recv()), (1_000, Err(RecvError::Lagged(1))));
    collector.stop().unwrap();
    law(&collector, 1_001);
}

#[test]
fn a_subscriber_that_leaves_an_idle_collector_is_taken_out_without_an_event_or_a_flush() {
    let collector = manual();
    let kept = collector.subscribe("*").unwrap();
    for is_admitted in [false, true] {
        let many: Vec<_> = (0..100).map(|_| collector.subscribe("*").unwrap()).collect();
        let mut offered = 0;
        if is_admitted {
            // The worker has them only now.
            scalars(&collector, "a", 0..1);
            let _ = collector.flush().unwrap();
            offered = 1;
        }
        until_asleep(&collector);
        drop(many);
        until("all but one are taken out", || collector.sinks().len() == 1);
        law(&collector, offered);
    }
    assert_eq!(kept.len(), 1);
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_subscriber_that_leaves_a_collector_without_a_worker_is_taken_out_at_once() {
    let collector = Collector::builder().build().unwrap();
    for _ in 0..100 {
        drop(collector.subscribe("*").unwrap());
    }
    assert!(collector.sinks().is_empty(), "it was never started");
    let (early, late) = (collector.subscribe("*").unwrap(), collector.subscribe("*").unwrap());
    collector.start().unwrap();
    scalars(&collector, "a", 0..2);
    drop(early);
    collector.stop().unwrap();
    assert_eq!(collector.sinks().len(), 1, "a stop takes out who left before");
    assert_eq!(late.len(), 2);
    drop(late);
    assert!(collector.sinks().is_empty(), "it is stopped");
    for _ in 0..100 {
        drop(collector.subscribe("*").unwrap());
    }
    assert!(collector.sinks().is_empty());
    collector.start().unwrap();
    scalars(&collector, "a", 0..1);
    collector.stop().unwrap();
    law(&collector, 3);
}

#[test]
fn a_subscriber_that_leaves_beside_starts_that_fail_is_taken_out() {
    // No machine has such a stack.
    let collector = Collector::builder().thread_stack_size(1 << 46).build().unwrap();
    for _ in 0..200 {
        let many: Vec<_> = (0..4).map(|_| collector.subscribe("*").unwrap()).collect();
        std::thread::scope(|scope| {
            let starts = scope.spawn(|| (0..4).all(|_| collector.start().is_err()));
            many.into_iter().for_each(drop);
            assert!(starts.join().unwrap());
        });
        assert!(collector.sinks().is_empty());
    }
    law(&collector, 0);
}

#[test]
fn a_subscriber_that_leaves_while_a_sink_hangs_waits_for_nobody() {
    let gate = Gate::closed();
    let collector = stalled(ticks(), &gate);
    let many: Vec<_> = (0..10).map(|_| collector.subscribe("*").unwrap()).collect();
    drop(many);
    assert_eq!(collector.sinks().len(), 1, "the worker never had them");
    gate.open();
    collector.stop().unwrap();
    law(&collector, 1);
}

#[test]
fn a_subscription_may_outlive_its_collector_and_leave_from_the_worker() {
    let collector = manual();
    let outlives = collector.subscribe("*").unwrap();
    let leaves = std::sync::Mutex::new(Some(collector.subscribe("*").unwrap()));
    let sink = forebay::sink::from_fn("drops it", move |_: &forebay::Batch<Record>| {
        leaves.lock().unwrap().take();
        Ok(())
    });
    collector.add_sink(sink).unwrap();
    scalars(&collector, "a", 0..3);
    let _ = collector.flush().unwrap();
    assert_eq!(collector.sinks().len(), 2);
    collector.stop().unwrap();
    law(&collector, 3);
    drop(collector);
    assert_eq!(outlives.iter().count(), 3);
}

/// A sink that nobody wants any more once it has had an event, or a flush.
struct Once(bool);

impl forebay::sink::Sink for Once {
    fn name(&self) -> &str {
        "once"
    }
    fn write_batch(&mut self, _: &forebay::Batch<Record>) -> Result<(), forebay::sink::SinkError> {
        self.0 = true;
        Ok(())
    }
    fn flush(&mut self) -> Result<(), forebay::sink::SinkError> {
        self.0 = true;
        Ok(())
    }
    fn hook(&mut self, hook: Hook<'_>) {
        if let Hook::IsOver(is_over) = hook {
            *is_over = self.0;
        }
    }
}

#[test]
fn a_sink_that_is_over_is_taken_out_through_every_wrapper() {
    let letters = DeadLetters::new(10);
    let wrapped: [(&str, Box<dyn Sink>); 8] = [
        ("filter", Box::new(Once(false).filter(|_| true))),
        ("route", Box::new(Once(false).route("**"))),
        ("map", Box::new(Once(false).map(Record::clone))),
        ("letters", Box::new(Once(false).dead_letters(&letters))),
        ("breaker", Box::new(Once(false).breaker(BreakerPolicy::default()))),
        ("isolated", Box::new(Once(false).isolated(4))),
        ("may wait", Box::new(Once(false).rate_limited(1_000_000).route("**"))),
        ("two", Box::new(Once(false).filter(|_| true).isolated(4).route("**"))),
    ];
    for (name, sink) in wrapped {
        let collector = Collector::builder().flush(HOURLY).sink(sink).start().unwrap();
        collector.collect(Record::new("x"));
        let _ = collector.flush().unwrap();
        // The first call of one with a thread of its own may end behind the question.
        let _ = collector.flush().unwrap();
        assert!(collector.sinks().is_empty(), "{name}");
        collector.stop().unwrap();
        law(&collector, 1);
    }
}

#[test]
fn a_sink_that_is_over_is_taken_out_at_a_flush_as_well() {
    let collector = Collector::builder().flush(HOURLY).sink(Once(false)).start().unwrap();
    let report = collector.flush().unwrap();
    assert_eq!(report.sinks.len(), 1, "it is reported once more");
    assert!(collector.sinks().is_empty());
    collector.stop().unwrap();
    law(&collector, 0);
}

fn feature_used(feature: &str, action: &str) -> Record {
    FeatureUsed { feature: feature.to_owned(), action: action.to_owned(), success: true }.into()
}

#[test]
fn a_subscriber_gets_the_event_that_was_collected() {
    let collector = Collector::builder().start().unwrap();
    let subscriber = collector.subscribe("*").unwrap();
    let event = feature_used("test", "action");
    collector.collect(event.clone());
    let _ = collector.flush().unwrap();
    assert_eq!(subscriber.try_recv(), Ok(event));
    collector.stop().unwrap();
    law(&collector, 1);
}
