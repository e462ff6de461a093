use super::*;
use crate::bus::{Bus, Handler};

fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
}

#[test]
fn threads_that_have_gone_home_are_not_kept() {
    let bus = Bus::builder().workers(16).start().unwrap();
    let crew = &bus.shared.engine.crew;
    bus.scale_workers(1).unwrap();
    until(|| crew.line.lock().workers == 1);
    let kept = crew.line.lock().threads.len();
    assert!(kept <= 2, "{kept}: the one that works, and the last that went");
    bus.stop().unwrap();
    assert_eq!(crew.line.lock().threads.len(), 0);
}

#[test]
fn a_turn_that_ends_by_a_panic_is_over() {
    let bus = Bus::builder().inline().start().unwrap();
    bus.subscribe(Handler::new("a.b", |_| ()).at_once(1)).unwrap().keep();
    let engine = &bus.shared.engine;
    let subscriber = Arc::clone(&engine.table().subscribers[0]);
    subscriber.mailbox.lock().turns += 1;
    // What panics there is none of ours to name: the clock, a lock, the allocator.
    let died = guarded(|| {
        let _turn = engine.turn(&subscriber);
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(died.is_err());
    assert_eq!(subscriber.mailbox.lock().turns, 0);
    assert_eq!(bus.emit_sync("a.b", ()).unwrap().calls.unwrap().handled, 1);
    bus.stop().unwrap().stats.check_law(1).unwrap();
}
