//! The program's collector and its macro.

use std::time::Duration;

use crate::support::alone;
use forebay::collector::{current, get_or_init, scoped};
use forebay::sink::MemorySink;
use forebay::{Collector, Outcome, Priority, global, init, track_event};

#[test]
fn without_a_collector_no_argument_is_evaluated_and_then_every_thread_has_it() {
    alone!();
    // One test, because a program has one global collector.
    fn boom() -> f64 {
        panic!("evaluated although nobody listens")
    }
    assert!(global().is_none() && current().is_none());
    assert_eq!(track_event!("nobody.listens", loss = boom()), None);

    let memory = MemorySink::new();
    init(Collector::builder().sink(memory.clone()).start().unwrap()).unwrap();
    assert_eq!(track_event!("plain"), Some(Outcome::Queued));
    let epoch = 3;
    std::thread::spawn(move || track_event!("training.epoch_completed", epoch = epoch, loss = 0.12,))
        .join()
        .unwrap();
    track_event!(priority: Priority::Critical, "training.failed", error = "NaN");
    let name = String::from("made.at.run.time");
    track_event!(name);

    let second = Collector::builder().start().unwrap();
    let error = init(second).unwrap_err();
    assert_eq!(error.to_string(), "a global collector is installed already");
    assert!(error.0.is_running(), "it comes back as it was");
    let same = get_or_init(|| -> Result<Collector, ()> { unreachable!("there is one") }).unwrap();
    assert_eq!(same.session_id(), global().unwrap().session_id());

    let collector: &'static Collector = global().unwrap();
    assert_eq!(current().unwrap().session_id(), collector.session_id());
    let _ = collector.flush().unwrap();
    let mut shown: Vec<String> = memory.events().iter().map(ToString::to_string).collect();
    shown.sort();
    assert_eq!(
        shown,
        [
            "made.at.run.time",
            "plain",
            "training.epoch_completed = {epoch: 3, loss: 0.12}",
            "training.failed = {error: NaN}"
        ]
    );
    let critical = memory.events().iter().filter(|e| e.priority() == Priority::Critical).count();
    assert_eq!(critical, 1);
    collector.stop_timeout(Duration::from_secs(60)).unwrap();
    collector.stats().check_law(4).unwrap();
}

#[test]
fn a_scoped_collector_is_seen_by_its_thread_and_scope_alone() {
    alone!();
    let (outer, inner) = (MemorySink::new(), MemorySink::new());
    let make = |memory: &MemorySink| Collector::builder().sink(memory.clone()).start().unwrap();
    let (outer_collector, inner_collector) = (make(&outer), make(&inner));
    scoped(&outer_collector, || {
        track_event!("outer");
        assert_eq!(current().unwrap().session_id(), outer_collector.session_id());
        assert!(
            global().is_none_or(|all| all.session_id() != outer_collector.session_id()),
            "not for the program"
        );
        let panicked = std::panic::catch_unwind(|| {
            scoped(&inner_collector, || {
                track_event!("inner");
                panic!("on purpose");
            })
        });
        assert!(panicked.is_err());
        track_event!("outer again");
    });
    for (collector, memory, names) in
        [(outer_collector, outer, &["outer", "outer again"][..]), (inner_collector, inner, &["inner"][..])]
    {
        collector.stop().unwrap();
        assert_eq!(memory.events().iter().map(|e| e.name().to_owned()).collect::<Vec<_>>(), names);
        collector.stats().check_law(names.len() as u64).unwrap();
    }
}
