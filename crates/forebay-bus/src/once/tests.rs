//! The end of a wait while the call runs that ends it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::mpsc::channel;

use super::*;

#[test]
fn a_wait_that_ends_while_its_call_runs_returns_the_event() {
    let bus = Bus::new().unwrap();
    let arrival = Arc::new(Arrival::default());
    let notifier = Notifier(Arc::clone(&arrival));
    let ((begun, begins), (opener, gate)) = (channel(), channel());
    let gate = Mutex::new(gate);
    let handler = Handler::new("a.b", move |event: &Delivery| {
        begun.send(()).unwrap();
        gate.lock().recv().unwrap();
        notifier.arrive(event);
    });
    let id = bus.subscribe(at_most_once(handler)).unwrap().keep();
    let engine = &bus.shared.engine;
    let subscriber = Arc::clone(&engine.table().subscribers[0]);
    bus.emit("a.b", 7).unwrap();
    begins.recv().unwrap();
    let event = std::thread::scope(|scope| {
        let ends = scope.spawn(|| arrival.end(engine, id));
        while !subscriber.mailbox.lock().has_waiters && !ends.is_finished() {
            std::thread::yield_now();
        }
        opener.send(()).unwrap();
        ends.join().unwrap()
    });
    assert_eq!(event.unwrap().value().as_i64(), Some(7));
    let stats = bus.stop().unwrap().stats;
    stats.check_law(1).unwrap();
    assert_eq!(stats.gone.handled, 1);
}
