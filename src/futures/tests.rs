use std::task::Waker;

use super::*;
use crate::config::{FlushStrategy, Overflow};
use crate::sync::{Arc, OnceLock, Ordering, PlainU64};
use crate::unix::Orphan;
use crate::{Builder, wake::Phase};

/// Event whose code acts like a fork when its size is asked the second time: its collector is then that of a parent.
struct Forks {
    asked: PlainU64,
    phase: Arc<OnceLock<Arc<Phase>>>,
}

impl Event for Forks {
    fn size_hint(&self) -> usize {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 1 {
            self.phase.get().unwrap().set_orphaned();
        }
        0
    }
}

/// Returns a full collector, and an event that finds itself in a child once it is measured again, in order to wait.
fn full() -> (Collector<Forks>, Forks) {
    let builder = Builder::<Forks>::new().capacity(1).flush(FlushStrategy::Size { events: 100 });
    let collector = builder.overflow(Overflow::Block { timeout: std::time::Duration::MAX }).build().unwrap();
    let phase = Arc::new(OnceLock::new());
    phase.set(Arc::clone(&collector.shared.phase)).unwrap();
    let event = |asked| Forks { asked: PlainU64::new(asked), phase: Arc::clone(&phase) };
    assert_eq!(collector.collect(event(9)), Outcome::Queued);
    let forks = event(0);
    (collector, forks)
}

#[test]
fn an_event_that_forks_when_it_is_measured_again_takes_no_lock_of_the_parent() {
    let (collector, event) = full();
    // A thread of the parent holds the lock for ever.
    let held = collector.shared.space_waiters.lock();
    let mut collecting = Box::pin(collector.collect_async(event));
    let polled = collecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(Outcome::Forked));
    drop((held, collecting));
    let (collector, event) = full();
    let held = collector.shared.space_waiters.lock();
    assert_eq!(collector.collect(event), Outcome::Forked);
    drop(held);
}
