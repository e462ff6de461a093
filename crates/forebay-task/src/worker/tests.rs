//! Unit tests of the thread of a source.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use forebay::{Collector, Record};
use forebay_sync::clock::deadline_in;

use super::*;
use crate::source::{of_receiver, of_subscription};

/// Ends a task whose workers could not be started, while its source waits. Fails unless the source ends at once.
fn end_without_workers<T: Send + 'static>(source: Source<T>, is_waiting: impl Fn() -> bool) {
    let shared = Arc::new(Shared::new());
    feed(&shared, source).unwrap();
    shared.begin(1);
    let give_up_at = deadline_in(Duration::from_secs(60));
    while shared.lock().feeding != Feeding::Asking || !is_waiting() {
        assert!(give_up_at > deadline_in(Duration::ZERO), "the source is not asked");
        std::thread::yield_now();
    }
    assert!(shared.dismiss(1));
    let summary = shared.end();
    assert_eq!(summary.sent, 0);
    while shared.lock().feeding != Feeding::Over {
        assert!(give_up_at > deadline_in(Duration::ZERO), "the source outlives its task");
        std::thread::yield_now();
    }
}

#[test]
fn a_receiver_of_a_task_without_workers_takes_nothing_from_others() {
    let (sender, receiver) = crossbeam_channel::unbounded();
    end_without_workers(of_receiver(receiver.clone()), || true);
    sender.send(7).unwrap();
    assert_eq!(receiver.try_recv(), Ok(7));
}

#[test]
fn a_subscription_of_a_task_without_workers_ends() {
    let collector = Collector::<Record>::builder().start().unwrap();
    let mut source = of_subscription(collector.subscribe("**").unwrap());
    let polls = Arc::new(Mutex::new(0_u32));
    let own = Arc::clone(&polls);
    let source: Source<Record> = Box::new(move |context| {
        *own.lock() += 1;
        source(context)
    });
    end_without_workers(source, || *polls.lock() == 1);
}
