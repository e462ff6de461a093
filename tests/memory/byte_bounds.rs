//! P2, by bytes: what holds events, names or encoded batches keeps to its bound, whatever passed through it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::allocator::{ASKED_FOR, IN_USE, turn};
use crate::support::*;
use forebay::sink::{ConsoleSink, DeadLetters, JsonLinesSink, Sink, SinkError, SinkExt, from_fn};
use forebay::{Batch, Builder, Collector, Event, Fields, Outcome, Record, Value, subscription::RecvError};
use forebay_history::{EventQuery, History, JsonLinesReader, Recent};

const MIB: usize = 1 << 20;

/// Runs one test at a time: the counts are of the whole process.
fn alone<R>(body: impl FnOnce() -> R) -> R {
    let _turn = turn();
    body()
}

fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed)
}

fn text(bytes: usize) -> Record {
    Record::text("frame", "\u{1}".repeat(bytes))
}

fn manual() -> forebay::Builder {
    Collector::builder().flush(HOURLY)
}

#[test]
fn what_one_large_batch_needed_is_given_back_when_it_is_written() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let json = JsonLinesSink::create(folder.path().join("events.jsonl")).unwrap();
        let console = ConsoleSink::to_writer("x", std::io::sink());
        let sinks: Vec<Box<dyn Sink>> = vec![
            Box::new(json),
            Box::new(console),
            Box::new(from_fn("none", |_: &Batch<Record>| Ok(()))),
            #[cfg(feature = "tensorboard")]
            Box::new(forebay::sink::TensorBoardSink::create(folder.path()).unwrap()),
            #[cfg(feature = "sqlite")]
            Box::new(forebay::sink::SqliteSink::create(folder.path().join("events.db")).unwrap()),
        ];
        for sink in sinks {
            let name = sink.name().to_owned();
            let collector = manual().sink(sink).start().unwrap();
            collector.collect(Record::scalar("x", 0.5));
            let _ = collector.flush().unwrap();
            let before = in_use();
            assert_eq!(collector.collect(text(20 * MIB)), Outcome::Queued);
            assert!(collector.flush().unwrap().is_clean());
            let kept = in_use().saturating_sub(before);
            assert!(kept < 4 * MIB, "{name} keeps {kept} bytes");
            collector.stop().unwrap();
            law(&collector, 2);
        }
    });
}

#[test]
fn what_one_batch_of_many_events_needed_is_given_back() {
    alone(|| {
        const EVENTS: u64 = 200_000;
        let collector = manual().capacity(EVENTS as usize).batch_size(EVENTS as usize).start().unwrap();
        let _ = collector.flush().unwrap();
        let before = in_use();
        (0..EVENTS).for_each(|step| _ = collector.collect(Record::scalar("x", 0.5).with_step(step)));
        let _ = collector.flush().unwrap();
        let kept = in_use().saturating_sub(before);
        assert!(kept < 2 * MIB, "{kept} bytes");
        collector.stop().unwrap();
        law(&collector, EVENTS);
    });
}

#[test]
fn a_reader_gives_a_large_line_back_with_the_next() {
    alone(|| {
        let lines: String = [text(4 * MIB), Record::scalar("x", 0.5)]
            .iter()
            .map(|record| serde_json::to_string(record).unwrap() + "\n")
            .collect();
        let mut reader = JsonLinesReader::new(lines.as_bytes());
        let before = in_use();
        assert!(reader.by_ref().all(|record| record.is_ok()));
        let kept = in_use().saturating_sub(before);
        assert!(kept < 2 * MIB, "{kept} bytes");
    });
}

/// Returns a sink that fails until it is set not to.
fn down(works: &'static AtomicBool) -> impl Sink {
    from_fn(
        "down",
        |_: &Batch<Record>| {
            if works.load(Ordering::Relaxed) { Ok(()) } else { Err(SinkError::unavailable("down")) }
        },
    )
}

#[test]
fn dead_letters_hold_50_mib_by_default_and_the_oldest_make_space() {
    static WORKS: AtomicBool = AtomicBool::new(false);
    alone(|| {
        let letters = DeadLetters::new(10_000);
        let collector = manual().sink(down(&WORKS).dead_letters(&letters)).start().unwrap();
        let before = in_use();
        for step in 0..120 {
            collector.collect(text(MIB).with_step(step));
            assert!(collector.flush().is_ok());
        }
        assert!(in_use().saturating_sub(before) < 55 * MIB);
        assert_eq!(letters.len() as u64 + letters.evicted(), 120);
        assert!((48..=50).contains(&letters.len()), "{}", letters.len());
        // Those that are offered again in vain come back, within the bound.
        letters.redrive(None);
        assert!(collector.flush().is_ok());
        assert!((48..=50).contains(&letters.len()), "{}", letters.len());
        WORKS.store(true, Ordering::Relaxed);
        letters.redrive(None);
        assert!(collector.flush().is_ok());
        assert!(letters.is_empty());
        collector.stop().unwrap();
        assert_eq!(law(&collector, 120).sinks[0].offered, 120);
    });
}

#[test]
fn the_bytes_of_dead_letters_can_be_set_and_errors_count() {
    alone(|| {
        let long = "e".repeat(4_000);
        let broken = || {
            let long = long.clone();
            from_fn("broken", move |_: &Batch<Record>| Err(SinkError::write_failed(long.clone()).permanent()))
        };
        // By the events, and by the errors.
        for (payload, most, expected) in [(100_000, 1_120_000, 10), (1, 42_000, 10), (100_000, 0, 1)] {
            let letters = DeadLetters::new(1000).max_bytes(most);
            let collector = manual().sink(broken().dead_letters(&letters)).start().unwrap();
            for step in 0..50 {
                collector.collect(Record::text("t", "x".repeat(payload)).with_step(step));
                assert!(collector.flush().is_ok());
            }
            assert_eq!(
                (letters.len(), letters.evicted()),
                (expected, 50 - expected as u64),
                "{payload} {most}"
            );
            let newest = letters.entries().last().map(|letter| letter.event.step());
            assert_eq!(newest, Some(Some(49)), "the oldest go");
            // Less room lets go of more, at once.
            let _ = letters.clone().max_bytes(0);
            assert_eq!((letters.len(), letters.evicted()), (1, 49));
            assert_eq!(letters.purge().len(), 1);
            collector.stop().unwrap();
            law(&collector, 50);
        }
    });
}

#[test]
fn recent_holds_50_mib_by_default_and_what_is_set() {
    alone(|| {
        let recent = Recent::<1000>::new();
        let small = Recent::<1000>::new().named("small").max_bytes(10 * MIB);
        let before = in_use();
        let collector = manual().sink(recent.clone()).sink(small.clone()).start().unwrap();
        for step in 0..100 {
            collector.collect(text(MIB).with_step(step));
            assert!(collector.flush().is_ok());
        }
        assert!(in_use().saturating_sub(before) < 66 * MIB);
        for (recent, most) in [(&recent, 50), (&small, 10)] {
            assert!((most - 2..=most).contains(&recent.len()), "{}", recent.len());
            assert_eq!(recent.len() as u64 + recent.evicted(), 100);
            let newest = recent.query(&EventQuery::new().newest_first().limit(1)).unwrap();
            assert_eq!(newest[0].step(), Some(99));
        }
        // By number alone, nothing counts as evicted.
        let few = Recent::<3>::new();
        few.clone().write_batch(&Batch::from_events(vec![Record::scalar("x", 0.5); 10])).unwrap();
        assert_eq!((few.len(), few.evicted()), (3, 0));
        collector.stop().unwrap();
        law(&collector, 100);
    });
}

#[test]
fn a_subscription_that_nobody_reads_holds_50_mib_by_default_and_what_is_set() {
    alone(|| {
        let collector = manual().start().unwrap();
        let all = collector.subscribe("*").unwrap();
        let small = collector.subscribe("frame").unwrap().max_bytes(10 * MIB);
        let before = in_use();
        for step in 0..100 {
            collector.collect(text(MIB).with_step(step));
            collector.collect(Record::scalar("x", 0.5).with_step(step));
            assert!(collector.flush().unwrap().is_clean());
        }
        assert!(in_use().saturating_sub(before) < 55 * MIB);
        for (subscription, most, sent) in [(&all, 2 * 50, 200), (&small, 10, 100)] {
            assert!((most - 4..=most).contains(&subscription.len()), "{}", subscription.len());
            assert_eq!(subscription.len() as u64 + subscription.evicted(), sent);
            assert_eq!(subscription.try_recv(), Err(RecvError::Lagged(subscription.evicted())));
            let received = std::iter::from_fn(|| subscription.try_recv().ok()).count() as u64;
            assert_eq!(received + subscription.evicted(), sent);
        }
        // One batch is always kept, however large.
        let one = collector.subscribe("*").unwrap().max_bytes(0);
        collector.collect(text(MIB));
        assert!(collector.flush().unwrap().is_clean());
        assert_eq!((one.len(), one.evicted()), (1, 0));
        drop((all, small, one));
        collector.stop().unwrap();
        law(&collector, 201);
    });
}

/// Collects so many rounds of 8,000 events, with a rare one among them, and has each round delivered as one batch.
fn rare_among_many(collector: &Collector, rounds: u64) {
    for round in 0..rounds {
        for step in 0..8_000 {
            collector.collect(Record::scalar("train.loss", 0.5).with_step(step));
            if step == 250 {
                collector.collect(Record::scalar("rare.event", 0.5).with_step(round));
            }
        }
        assert!(collector.flush().unwrap().is_clean());
    }
}

#[test]
fn a_subscription_to_rare_events_does_not_hold_the_batches_in_which_they_lie() {
    alone(|| {
        let collector = manual().capacity(16_384).batch_size(8_192).start().unwrap();
        rare_among_many(&collector, 1);
        let rare = collector.subscribe("rare.event").unwrap().max_bytes(MIB);
        let before = in_use();
        rare_among_many(&collector, 100);
        let held = in_use().saturating_sub(before);
        assert!(held < 2 * MIB, "{held}");
        let steps: Vec<_> = std::iter::from_fn(|| rare.try_recv().ok()).map(|event| event.step()).collect();
        assert_eq!((steps, rare.evicted()), ((0..100).map(Some).collect(), 0));
        collector.stop().unwrap();
        law(&collector, 101 * 8_001);
    });
}

/// An event that owns nothing, and takes 4 KiB itself.
#[derive(Clone)]
struct Wide([u8; 4096]);

impl Event for Wide {}

fn wide() -> Builder<Wide> {
    Builder::new().flush(HOURLY).capacity(64)
}

#[test]
fn what_events_take_themselves_counts_in_a_subscription() {
    alone(|| {
        let collector = wide().start().unwrap();
        let all = collector.subscribe_with("*", 100_000).unwrap().max_bytes(MIB);
        let before = in_use();
        for _ in 0..100 {
            (0..32).for_each(|_| _ = collector.collect(Wide([1; 4096])));
            assert!(collector.flush().unwrap().is_clean());
        }
        let held = in_use().saturating_sub(before);
        assert!(held < 2 * MIB, "{held}");
        assert!(all.len() >= 128, "{}", all.len());
        assert_eq!(all.len() as u64 + all.evicted(), 3_200);
        assert!(std::iter::from_fn(|| all.recv_timeout(LONG / 60_000).ok()).all(|event| event.0[7] == 1));
        collector.stop().unwrap();
        law(&collector, 3_200);
    });
}

#[test]
fn what_events_take_themselves_counts_in_the_queue_of_an_isolated_sink() {
    alone(|| {
        let gate = Gate::closed();
        let hung = gate.sink().isolated(100_000).max_bytes(MIB).flush_timeout(std::time::Duration::ZERO);
        let collector = wide().sink(hung).start().unwrap();
        let before = in_use();
        for _ in 0..100 {
            (0..32).for_each(|_| _ = collector.collect(Wide([1; 4096])));
            assert!(!collector.flush().unwrap().is_clean());
        }
        let held = in_use().saturating_sub(before);
        gate.open();
        assert!(held < 2 * MIB, "{held}");
        until("its queue is empty", || collector.stats().sinks[0].in_flight == 0);
        // A stop waits for no isolated sink whose flush has no time: whether it is found busy is a matter of luck.
        let _ = collector.stop();
        let stats = law(&collector, 3_200);
        assert!(stats.sinks[0].evicted >= 2_000, "{}", stats.sinks[0].evicted);
    });
}

#[test]
fn an_event_that_cannot_be_copied_stays_in_its_batch_and_the_panic_is_none_of_the_loop() {
    /// Event whose first clone panics.
    struct Brittle(u32, std::sync::Arc<AtomicBool>);
    impl Event for Brittle {
        fn name(&self) -> &str {
            if self.0 == 7 { "rare" } else { "usual" }
        }
    }
    impl Clone for Brittle {
        fn clone(&self) -> Self {
            assert!(self.1.swap(true, Ordering::SeqCst), "the clone panics");
            Self(self.0, self.1.clone())
        }
    }
    alone(|| {
        let cloned = std::sync::Arc::new(AtomicBool::new(false));
        let collector = Builder::<Brittle>::new().flush(HOURLY).batch_size(4_096).start().unwrap();
        let rare = collector.subscribe("rare").unwrap();
        (0..4_000).for_each(|number| _ = collector.collect(Brittle(number, cloned.clone())));
        assert!(collector.flush().unwrap().is_clean());
        assert!(cloned.load(Ordering::SeqCst), "a copy was tried");
        assert_eq!(rare.try_recv().unwrap().0, 7);
        collector.stop().unwrap();
        law(&collector, 4_000);
    });
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_remembers_16_mib_of_names_by_default_and_what_is_set() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        for (path, most) in [("a.db", None), ("b.db", Some(MIB)), ("c.db", Some(10))] {
            let path = folder.path().join(path);
            let mut sink = forebay::sink::SqliteSink::create(&path).unwrap();
            if let Some(most) = most {
                sink = sink.max_name_bytes(most);
            }
            let collector = manual().sink(sink).start().unwrap();
            let before = in_use();
            for round in 0..2 {
                for number in 0..1_500 {
                    let name = format!("{number}{}", "n".repeat(20_000));
                    collector.collect(Record::scalar(name, 0.5).with_step(round));
                    if number % 100 == 0 {
                        assert!(collector.flush().unwrap().is_clean());
                    }
                }
            }
            assert!(collector.flush().unwrap().is_clean());
            let kept = in_use().saturating_sub(before);
            assert!(kept < most.unwrap_or(16 * MIB) + 2 * MIB, "{kept} bytes");
            collector.stop().unwrap();
            law(&collector, 3_000);
            let history = forebay_history::SqliteHistory::open(&path).unwrap();
            assert_eq!(history.query(&EventQuery::new()).unwrap().len(), 3_000);
        }
    });
}

#[cfg(feature = "tensorboard")]
#[test]
fn tensorboard_has_16_mib_of_tags_by_default_and_what_is_set_and_counts_the_rest() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        for most in [None, Some(MIB)] {
            let mut sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
            if let Some(most) = most {
                sink = sink.max_tag_bytes(most);
            }
            let collector = manual().sink(sink).start().unwrap();
            let before = in_use();
            for number in 0..1_500 {
                collector.collect(Record::scalar(format!("{number:010}{}", "n".repeat(19_990)), 0.5));
                if number % 100 == 0 {
                    assert!(collector.flush().is_ok());
                }
            }
            assert!(collector.flush().is_ok());
            let kept = in_use().saturating_sub(before);
            assert!(kept < most.unwrap_or(16 * MIB) + 4 * MIB, "{kept} bytes");
            collector.stop().unwrap();
            let delivered = (most.unwrap_or(16 * MIB) / 20_000) as u64;
            let sink = &law(&collector, 1_500).sinks[0];
            assert_eq!((sink.delivered, sink.failed), (delivered, 1_500 - delivered));
        }
    });
}

#[cfg(feature = "tensorboard")]
#[test]
fn sub_runs_of_tensorboard_take_no_more_memory_the_more_there_are() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap().max_tags(100);
        let collector = manual().sink(sink).start().unwrap();
        // Each has two tags. The last have a text that a run would keep buffers for, and 32 of them are open.
        let (before, mut used) = (in_use(), Vec::new());
        for round in 0..3 {
            for run in 0..100 {
                let name = format!("{round}/{run:03}");
                let long = "x".repeat(if run >= 66 { MIB / 4 } else { 10 });
                collector.collect(Record::text("text", long).with_sub_run(name.clone()));
                collector.collect(Record::scalar("loss", 0.5).with_sub_run(name));
                if run % 20 == 19 {
                    assert!(collector.flush().unwrap().is_clean());
                }
            }
            used.push(in_use().saturating_sub(before));
        }
        let grown = used[2].saturating_sub(used[0]);
        assert!(grown < MIB / 2, "{grown} bytes more for 200 sub-runs more: {used:?}");
        assert!(used[0] < 8 * MIB, "no buffers of 32 files: {used:?}");
        collector.stop().unwrap();
        law(&collector, 600);
    });
}

#[cfg(feature = "tensorboard")]
#[test]
fn one_event_does_not_cost_tensorboard_the_square_of_its_size() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let many = |fields: usize| (0..fields).map(|n| (format!("{n}"), n as f64)).collect::<Fields>();
        // A long name before many fields; many fields deep down; an image, a histogram and an empty list as well.
        let long = Record::fields("n".repeat(100_000), many(20_000));
        let deep = (0..90).fold(many(20_000), |inner, _| Fields::new().with("k".repeat(1_000), inner));
        let empty = Fields::from([("e".repeat(1_000_000), Value::from(forebay::event::List::new()))]);
        let empty = (0..50).fold(empty, |inner, _| {
            Fields::from([("x".repeat(100_000), Value::from(inner)), ("y".repeat(100_000), Value::Empty)])
        });
        let records = [long, Record::fields("deep", deep), Record::fields("empty", empty)];
        for record in records {
            let sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
            let collector = manual().sink(sink).start().unwrap();
            let before = ASKED_FOR.load(Ordering::Relaxed);
            collector.collect(record);
            collector.collect(Record::scalar("behind", 0.5));
            assert!(collector.flush().is_ok());
            let cost = ASKED_FOR.load(Ordering::Relaxed) - before;
            assert!(cost < 64 * MIB, "{cost} bytes");
            collector.stop().unwrap();
            let sink = &law(&collector, 2).sinks[0];
            assert_eq!((sink.delivered, sink.failed), (1, 1));
            assert!(sink.last_error.as_ref().is_some_and(|error| error.contains("4194304")), "{sink:?}");
        }
        // What fits is written: ten thousand parameters.
        let sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
        let collector = manual().sink(sink).start().unwrap();
        collector.collect(Record::fields("gradients", many(10_000)));
        collector.stop().unwrap();
        assert_eq!(law(&collector, 1).sinks[0].delivered, 1);
    });
}

#[cfg(feature = "tensorboard")]
#[test]
fn deep_settings_do_not_cost_the_table_the_square_of_their_size() {
    alone(|| {
        let folder = tempfile::tempdir().unwrap();
        let many: Fields = (0..20_000).map(|n| (format!("{n}"), n as f64)).collect();
        let config = (0..50).fold(many, |inner, _| Fields::new().with("k".repeat(1_000), inner));
        let sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
        let collector = manual().sink(sink).start().unwrap();
        let before = ASKED_FOR.load(Ordering::Relaxed);
        collector.collect(forebay::event::catalog::training::Started {
            run_id: "7".into(),
            config,
            model_type: None,
        });
        assert!(collector.flush().is_ok());
        let cost = ASKED_FOR.load(Ordering::Relaxed) - before;
        assert!(cost < 64 * MIB, "{cost} bytes");
        collector.stop().unwrap();
        assert_eq!(law(&collector, 1).sinks[0].failed, 1, "settings are left out");
    });
}

#[test]
fn what_a_sink_says_is_kept_up_to_4_kib() {
    alone(|| {
        let long = "é".repeat(MIB);
        let sink =
            from_fn("long", move |_: &Batch<Record>| Err(SinkError::write_failed(long.clone()).permanent()));
        let collector = manual().sink(sink).start().unwrap();
        collector.collect(Record::scalar("x", 0.5));
        assert!(collector.flush().is_ok());
        collector.stop().unwrap();
        let kept = law(&collector, 1).sinks[0].last_error.clone().unwrap();
        assert!(kept.len() < 4_200 && kept.ends_with("é…"), "{} bytes", kept.len());
    });
}

/// Tests each way to put many fields together: it is done in no time, or never.
#[test]
fn many_fields_are_put_together_and_read_in_time_that_grows_with_their_number() {
    alone(|| {
        const MANY: usize = 100_000;
        let name = |n: usize| format!("abcdefgh{n}");
        let pairs = || (0..MANY).map(|n| (name(n), n as i64));
        let collected: Fields = pairs().collect();
        let mut extended = Fields::new();
        extended.extend(pairs());
        // Again: every name is known.
        extended.extend(pairs());
        let chained = pairs().fold(Fields::new(), |all, (name, value)| all.with(name, value));
        assert_eq!((&collected, &collected), (&extended, &chained));
        assert!((0..MANY).all(|n| collected.get(&name(n)) == Some(&Value::Integer(n as i64))));
        assert_eq!((collected.get("other"), collected.len()), (None, MANY));
        assert!(collected.iter().map(|(_, value)| value.as_i64().unwrap()).eq(0..MANY as i64), "in order");

        let record = pairs().fold(Record::fields("a", collected.clone()), |record, (name, value)| {
            record.with_field(format!("f{name}"), value).with_metadata(name, value)
        });
        let line = serde_json::to_string(&record).unwrap() + "\n";
        let before = in_use();
        let read = JsonLinesReader::new(line.as_bytes()).next().unwrap().unwrap();
        let kept = in_use().saturating_sub(before);
        assert!(kept < 12 * line.len(), "{kept} bytes for a line of {}", line.len());
        assert_eq!(read, record);
        #[cfg(feature = "sqlite")]
        {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("events.db");
            let mut sink = forebay::sink::SqliteSink::create(&path).unwrap();
            sink.write_batch(&Batch::from_events(vec![record.clone()])).unwrap();
            let history = forebay_history::SqliteHistory::open(&path).unwrap();
            assert_eq!(history.query(&EventQuery::new()).unwrap(), [record]);
        }
        #[cfg(feature = "config")]
        {
            let text: String = pairs().map(|(name, value)| format!("{name} = {value}\n")).collect();
            assert_eq!(toml::from_str::<Fields>(&text).unwrap().len(), MANY);
        }
    });
}

#[test]
fn dead_letters_keep_the_begin_of_a_long_error_and_never_all_of_it_for_each() {
    alone(|| {
        let says = || "é".repeat(MIB / 2);
        let panics = std::sync::Arc::new(AtomicBool::new(false));
        let own = std::sync::Arc::clone(&panics);
        let broken = from_fn("broken", move |_: &Batch<Record>| match own.load(Ordering::Relaxed) {
            true => std::panic::resume_unwind(Box::new(says())),
            false => Err(SinkError::unavailable(says()).permanent()),
        });
        let letters = DeadLetters::new(10_000).max_bytes(10 * MIB);
        let collector = manual().sink(broken.dead_letters(&letters)).start().unwrap();
        for is_panic in [false, true] {
            panics.store(is_panic, Ordering::Relaxed);
            let before = ASKED_FOR.load(Ordering::Relaxed);
            (0..200).for_each(|step| _ = collector.collect(Record::scalar("x", 0.5).with_step(step)));
            let _ = collector.flush().unwrap();
            // The sink makes its text, and some read it.
            let asked = ASKED_FOR.load(Ordering::Relaxed) - before;
            assert!(asked < 64 * MIB, "asked for {} MiB, panic: {is_panic}", asked / MIB);
            // As those that are offered again.
            letters.redrive(None);
            let _ = collector.flush().unwrap();
            for letter in letters.entries() {
                assert!(letter.error.len() < 4200 && letter.error.ends_with('…'), "{}", letter.error.len());
            }
        }
        assert_eq!((letters.len(), letters.evicted()), (400, 0));
        collector.stop().unwrap();
        law(&collector, 400);
    });
}

#[test]
fn recent_takes_no_more_space_than_its_number_of_records() {
    alone(|| {
        fn of<const N: usize>() -> usize {
            let before = in_use();
            let mut recent = Recent::<N>::new();
            let records = (0..1000).map(|step| Record::scalar("x", 0.5).with_step(step)).collect();
            let batch = Batch::from_events(records);
            for _ in 0..N.div_ceil(1000) + 3 {
                recent.write_batch(&batch).unwrap();
            }
            assert_eq!(recent.len(), N);
            drop(batch);
            in_use().saturating_sub(before) / size_of::<Record>()
        }
        for (most, used) in
            [(1, of::<1>()), (1000, of::<1000>()), (1 << 16, of::<65536>()), (100_000, of::<100_000>())]
        {
            assert!(used < most + most / 8 + 64, "{most} records take the room of {used}");
        }
    });
}

#[test]
fn a_field_is_replaced_in_time_that_does_not_grow_with_the_number_of_fields() {
    alone(|| {
        const MANY: usize = 100_000;
        let mut fields: Fields = (0..MANY).map(|n| (format!("f{n}"), 1.0)).collect();
        let (list, deeper) = (Value::from(vec![1.0]), Value::from(vec![Value::from(vec![1.0])]));
        // Each time, the deepest value leaves: for one as deep, for a deeper one, and for none.
        for value in [&list, &list, &deeper, &Value::Empty].into_iter().cycle().take(4 * MANY) {
            fields.set("f5", value.clone());
            assert_eq!(fields.depth(), 1 + value.depth());
        }
        fields.set("f7", list);
        for _ in 0..MANY {
            fields.set("f5", deeper.clone());
            assert_eq!(fields.depth(), 3);
            fields.set("f5", 0);
            assert_eq!(fields.depth(), 2);
        }
        assert_eq!(fields.len(), MANY);
    });
}
