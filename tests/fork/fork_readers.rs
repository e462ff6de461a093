//! P9 for whoever reads: subscriptions, the last records, dead letters and events in memory are the parent's. In a forked child
//! they refuse at once, whatever lock a thread of the parent held.
#![allow(unsafe_code, reason = "fork and waitpid")]

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::child::in_child;
use crate::support::*;
use forebay::sink::{BreakerPolicy, DeadLetters, MemorySink, Sink, SinkError, SinkExt, from_fn};
use forebay::subscription::{RecvError, Subscription};
use forebay::{Batch, Collector, ManualClock, Record};
use forebay_history::{EventQuery, History, Recent};

#[test]
fn a_subscription_refuses_at_once_in_a_child() {
    alone!();
    let collector = Collector::builder().start().unwrap();
    let subscription = Cell::new(Some(collector.subscribe("**").unwrap()));
    let child = |take_from: fn(&mut Subscription)| {
        in_child(|| {
            let mut own = subscription.take().unwrap();
            take_from(&mut own);
            drop(own);
            true
        })
    };
    let ways: &[fn(&mut Subscription)] = &[
        |own| assert_eq!(own.recv(), Err(RecvError::Forked)),
        |own| assert_eq!(own.recv_timeout(LONG), Err(RecvError::Forked)),
        |own| assert_eq!(own.try_recv(), Err(RecvError::Forked)),
        |own| assert_eq!(own.iter().next(), None),
        #[cfg(feature = "futures")]
        |own| {
            use futures::{FutureExt, StreamExt};
            assert_eq!(own.next().now_or_never(), Some(None));
        },
        |own| assert_eq!((own.len(), own.evicted(), format!("{own:?}").is_empty()), (0, 0, false)),
    ];
    for way in ways {
        assert_eq!(child(*way), Some(0), "the child hangs or failed");
    }
    collector.collect(Record::integer("parent", 1));
    collector.stop().unwrap();
    law(&collector, 1);
    assert_eq!(subscription.take().unwrap().recv().unwrap().value().as_i64(), Some(1));
}

#[test]
fn a_sink_that_waits_for_its_own_events_is_refused() {
    alone!();
    let (give, get) = mpsc::channel::<Subscription>();
    let (say, said) = mpsc::channel();
    let sink = from_fn("waits", move |_: &Batch<Record>| {
        if let Ok(own) = get.try_recv() {
            // What there is, it gets; it does not wait for what it holds up itself.
            say.send((own.recv().is_ok(), own.recv(), own.recv_timeout(LONG), own.iter().next())).unwrap();
        }
        Ok(())
    });
    let collector = Collector::builder().flush(HOURLY).start().unwrap();
    give.send(collector.subscribe("**").unwrap()).unwrap();
    collector.add_sink(sink).unwrap();
    collector.collect(Record::integer("parent", 1));
    collector.stop().unwrap();
    law(&collector, 1);
    let on_worker = Err(RecvError::OnWorker);
    assert_eq!(said.recv().unwrap(), (true, on_worker.clone(), on_worker, None));
}

#[test]
fn what_keeps_events_is_the_parents_and_no_child_waits_for_its_lock() {
    alone!();
    let (recent, letters, memory) = (Recent::<500>::new(), DeadLetters::new(500), MemorySink::new());
    let broken = from_fn("broken", |_: &Batch<Record>| Err(SinkError::unavailable("on purpose")));
    let breaker = from_fn("guarded", |_: &Batch<Record>| Ok(())).breaker(BreakerPolicy::default());
    let (watch, clock) = (breaker.watch(), ManualClock::new());
    let collector = Collector::builder()
        .sink(recent.clone())
        .sink(broken.dead_letters(&letters))
        .sink(memory.clone().keep_last(500))
        .sink(breaker)
        .manual_clock(&clock)
        .flush(HOURLY)
        .start()
        .unwrap();
    (0..1000).for_each(|number| _ = collector.collect(Record::integer("parent", number)));
    let _ = collector.flush().unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _raise = Raise(&is_over);
        // All that they do is done under those locks.
        let read: [Box<dyn Fn() + Send + '_>; 5] = [
            Box::new(|| assert_eq!(recent.query(&EventQuery::new()).unwrap().len(), 500)),
            Box::new(|| assert_eq!(letters.entries().len(), 500)),
            Box::new(|| assert!(memory.batches().len() + memory.len() > 0)),
            Box::new(|| assert_eq!(watch.opened(), 0)),
            Box::new(|| clock.advance(Duration::ZERO)),
        ];
        for read in read {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    (0..10).for_each(|_| read());
                    look_again();
                }
            });
        }
        for _ in 0..50 {
            let status = in_child(|| {
                assert!(recent.query(&EventQuery::new()).is_err());
                assert_eq!((recent.len(), recent.evicted()), (0, 0));
                assert_eq!((letters.len(), letters.evicted(), letters.redrive(None)), (0, 0, 0));
                assert!(letters.entries().is_empty() && letters.purge().is_empty());
                assert_eq!((memory.len(), memory.received(), memory.batches().len()), (0, 0, 0));
                memory.clear();
                assert!(!memory.wait_for(1, LONG));
                assert_eq!(watch.opened(), 0);
                clock.advance(Duration::from_secs(1));
                let text = format!("{recent:?} {letters:?} {memory:?} {watch:?} {clock:?} {collector:?}");
                drop((recent.clone(), letters.clone(), memory.clone()));
                !text.is_empty()
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
    });
    assert_eq!((recent.len(), letters.len(), letters.evicted()), (500, 500, 500));
    collector.stop().unwrap();
    law(&collector, 1000);
}

/// Returns a sink that takes nothing, so that all events are to become dead letters.
fn broken(name: &'static str) -> impl Sink + 'static {
    from_fn(name, |_: &Batch<Record>| Err(SinkError::unavailable("on purpose").permanent()))
}

#[test]
fn events_that_a_child_cannot_keep_among_the_letters_of_its_parent_are_counted_as_failed() {
    alone!();
    let letters = DeadLetters::new(100);
    let made_before = Cell::new(Some(broken("before").dead_letters(&letters)));
    let status = in_child(|| {
        let own = Collector::builder()
            .sink(broken("child").dead_letters(&letters))
            .sink(made_before.take().unwrap())
            .start()
            .unwrap();
        (0..10).for_each(|number| _ = own.collect(Record::integer("child", number)));
        assert_eq!(letters.redrive(None), 0);
        let report = own.flush().unwrap();
        assert!(!report.is_clean());
        assert!(report.sinks.iter().all(|sink| sink.error.as_deref().unwrap().contains("forked child")));
        own.stop().unwrap();
        for sink in law(&own, 10).sinks {
            assert_eq!((sink.failed, sink.dead_lettered, sink.dead_letters), (10, 0, 0), "{}", sink.name);
        }
        true
    });
    assert_eq!(status, Some(0), "the child hangs or failed");
    // The parent goes on with both.
    let sinks = [made_before.take().unwrap(), broken("parent").dead_letters(&letters)];
    let collector = sinks.into_iter().fold(Collector::builder(), forebay::Builder::sink).start().unwrap();
    collector.collect(Record::integer("parent", 1));
    collector.stop().unwrap();
    law(&collector, 1);
    assert_eq!(letters.len(), 2);
}

#[cfg(feature = "testing")]
#[test]
fn a_sink_of_a_child_waits_for_no_lock_that_a_thread_of_its_parent_held() {
    alone!();
    let (letters, scripted) = (DeadLetters::new(500), forebay::testing::ScriptedSink::new("scripted", []));
    let breaker = || from_fn("guarded", |_: &Batch<Record>| Ok(())).breaker(BreakerPolicy::default());
    let collector = Collector::builder().sink(broken("parent").dead_letters(&letters)).start().unwrap();
    (0..1000).for_each(|number| _ = collector.collect(Record::integer("parent", number)));
    let _ = collector.flush().unwrap();
    let shared = breaker();
    let (watch, shared) = (shared.watch(), Cell::new(Some(shared)));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _raise = Raise(&is_over);
        let read: [Box<dyn Fn() + Send + '_>; 3] = [
            Box::new(|| assert_eq!(letters.entries().len(), 500)),
            Box::new(|| assert_eq!(watch.opened(), 0)),
            Box::new(|| assert_eq!(scripted.calls(), 0)),
        ];
        for read in read {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    (0..10).for_each(|_| read());
                    look_again();
                }
            });
        }
        for _ in 0..50 {
            let status = in_child(|| {
                let own = Collector::builder()
                    .sink(broken("letters").dead_letters(&letters))
                    .sink(shared.take().unwrap())
                    .sink(scripted.clone())
                    .start()
                    .unwrap();
                own.collect(Record::integer("child", 1));
                let _ = own.flush().unwrap();
                let text = format!("{:?} {:?} {watch:?}", own.stats(), own.health());
                own.stop().unwrap();
                law(&own, 1);
                drop(own);
                assert_eq!(scripted.calls(), 0, "it is the parent's");
                !text.is_empty()
            });
            assert_eq!(status, Some(0), "the child hangs or failed");
        }
    });
    collector.stop().unwrap();
    law(&collector, 1000);
}

#[cfg(feature = "channel")]
#[test]
fn a_channel_is_the_parents_and_its_end_in_a_child_is_closed() {
    alone!();
    use forebay::sink::{EventReceiver, channel};

    let (sink, events) = channel(8);
    let collector = Collector::builder().sink(sink).start().unwrap();
    let shared = Cell::new(Some(events.clone()));
    let child = |take_from: fn(&EventReceiver)| {
        in_child(|| {
            // Dropped here, while the parent's worker may be in the middle of a send.
            let own = shared.take().unwrap();
            take_from(&own);
            drop((own.clone(), own));
            true
        })
    };
    let ways: [fn(&EventReceiver); 5] = [
        |own| assert!(own.recv().is_err()),
        |own| assert!(own.recv_timeout(LONG).is_err()),
        |own| assert_eq!((own.len(), own.iter().count(), own.try_iter().count()), (0, 0, 0)),
        |own| crossbeam_channel::select! { recv(own) -> record => assert!(record.is_err()) },
        |own| assert!(!format!("{own:?}").is_empty()),
    ];
    let (is_over, collected) = (AtomicBool::new(false), std::sync::atomic::AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _raise = Raise(&is_over);
        // The worker sends, and two threads receive, all the time.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                collector.collect(Record::integer("parent", 1));
                collected.fetch_add(1, Ordering::Relaxed);
                let _ = collector.flush_timeout(Duration::from_millis(1));
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = events.recv_timeout(Duration::from_millis(1));
                }
            });
        }
        for way in ways.iter().cycle().take(50) {
            assert_eq!(child(*way), Some(0), "the child hangs or failed");
        }
    });
    collector.stop().unwrap();
    let stats = law(&collector, collected.load(Ordering::Relaxed));
    assert_eq!(stats.sinks[0].delivered + stats.sinks[0].rejected, stats.processed);
}

#[cfg(feature = "channel")]
#[test]
fn a_loop_over_a_channel_that_began_before_a_fork_ends_in_the_child() {
    alone!();
    let (sink, events) = forebay::sink::channel(8);
    let collector = Collector::builder().sink(sink).start().unwrap();
    (0..6).for_each(|number| _ = collector.collect(Record::integer("parent", number)));
    let _ = collector.flush().unwrap();
    let loops: [Box<dyn Iterator<Item = Record> + '_>; 3] =
        [Box::new((&events).into_iter()), Box::new(events.iter()), Box::new(events.try_iter())];
    for (number, mut events) in loops.into_iter().enumerate() {
        assert!(events.next().is_some());
        assert_eq!(in_child(|| events.next().is_none()), Some(0), "{number}: the child hangs or reads on");
        assert!(events.next().is_some(), "{number}: the parent does not notice");
    }
    collector.stop().unwrap();
    law(&collector, 6);
}

#[cfg(feature = "channel")]
#[test]
fn a_sink_into_a_channel_leaves_that_of_its_parent_alone() {
    alone!();
    use crossbeam_channel::{Receiver, TryRecvError};
    use forebay::sink::Sink;

    let (sink, events) = forebay::sink::channel(8);
    // It knows no forks.
    let (inner, sink) = (Receiver::clone(&events), Cell::new(Some(sink)));
    let is_left_alone = || {
        let mut sink = sink.take().unwrap();
        let written = sink.write_batch(&forebay::Batch::from_events(vec![Record::new("child")]));
        drop(sink);
        written.is_err() && inner.try_recv() == Err(TryRecvError::Empty)
    };
    assert_eq!(in_child(is_left_alone), Some(0), "the child has sent, or closed the channel");
    assert_eq!(events.try_recv(), Err(TryRecvError::Empty));
    drop(sink);
    assert_eq!(events.try_recv(), Err(TryRecvError::Disconnected));
}
