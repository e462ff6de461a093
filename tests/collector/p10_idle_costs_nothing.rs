//! P10: idle costs nothing: no polling.
//!
//! What is counted is how often the worker goes to sleep, which needs no quiet machine; the processor time
//! that an idle process takes is measured by `cargo bench --bench budget idle`.

use std::time::Duration;

use crate::support::*;
use forebay::FlushStrategy;

#[test]
fn an_idle_worker_sleeps_once_and_stays_asleep() {
    let interval = Duration::from_millis(1);
    let strategies = [
        FlushStrategy::Time { interval },
        FlushStrategy::Size { events: 10 },
        FlushStrategy::Hybrid { events: 10, interval },
        FlushStrategy::Manual,
    ];
    for strategy in strategies {
        let collector = ticks().flush(strategy).start().unwrap();
        collector.collect(tick(0));
        let _ = collector.flush().unwrap();
        // Once the interval after the last event is over there is nothing left to wait for: three hundred
        // intervals go by and the worker does not stir. A busy machine may be late in getting there, so it
        // has several tries; a worker that polls has none.
        let is_quiet = (0..10).any(|_| {
            until_asleep(&collector);
            let parks = collector.stats().parks;
            std::thread::park_timeout(Duration::from_millis(300));
            collector.stats().parks == parks
        });
        assert!(is_quiet, "{strategy:?}");
        collector.stop().unwrap();
        law(&collector, 1);
    }
}
