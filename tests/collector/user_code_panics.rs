//! User code panics wherever a sink calls it, and the account says what it would say of an error.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::*;
use forebay::log::{LogEntry, LogTopic};
use forebay::sink::{ConsoleSink, DeadLetters, Hook, JsonLinesSink, MemorySink, Sink, SinkError, SinkExt};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy};
use serde::{Serialize, Serializer};

/// Panics wherever it is asked, if its number is five.
#[derive(Debug, PartialEq)]
struct Five(u64);

impl Five {
    fn asked(&self) -> u64 {
        assert!(self.0 % 10 != 5, "on purpose");
        self.0
    }
}

impl Event for Five {
    fn name(&self) -> &str {
        if self.asked().is_multiple_of(2) { "even" } else { "odd" }
    }
}

impl Serialize for Five {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Half of it is encoded by then.
        let mut list = serializer.serialize_seq(None)?;
        serde::ser::SerializeSeq::serialize_element(&mut list, &1)?;
        serde::ser::SerializeSeq::serialize_element(&mut list, &self.asked())?;
        serde::ser::SerializeSeq::end(list)
    }
}

impl fmt::Display for Five {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half ")?;
        self.asked().fmt(f)
    }
}

impl Clone for Five {
    fn clone(&self) -> Self {
        Self(self.asked())
    }
}

fn fives() -> Builder<Five> {
    hush();
    Builder::new().flush(FlushStrategy::Manual)
}

/// Collects ten of them, and flushes; whether that was clean.
fn deliver(collector: &Collector<Five>, from: u64) -> bool {
    (from..from + 10).for_each(|number| _ = collector.collect(Five(number)));
    collector.flush().unwrap().is_clean()
}

#[test]
fn an_event_whose_serialize_panics_fails_alone_and_the_file_tells() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let said = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&said);
    let collector = fives()
        .on_log(move |entry: &LogEntry| hears.lock().unwrap().push(entry.topic))
        .sink(JsonLinesSink::create(&path).unwrap())
        .start()
        .unwrap();
    assert!(!deliver(&collector, 0));
    assert!(!deliver(&collector, 10));
    collector.stop().unwrap();
    let stats = law(&collector, 20);
    let sink = stats.sink("json_lines").unwrap();
    assert_eq!((sink.delivered, sink.failed, sink.panics, sink.errors), (18, 2, 2, 0));
    assert!(sink.last_error.as_ref().unwrap().contains("Serialize panicked: on purpose"), "{sink:?}");
    assert_eq!(said.lock().unwrap()[..], [LogTopic::SinkPanicked]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[4], lines[5]), (19, "[1,0]", "[1,4]", "[1,6]"), "{text}");
    assert!(lines[9].contains("forebay.gap") && lines[9].ends_with("\"integer\":1}"), "{text}");
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_event_whose_display_panics_fails_alone_and_leaves_no_half_line() {
    let paper = Paper::default();
    let collector = fives().sink(ConsoleSink::to_writer("x", paper.clone())).start().unwrap();
    assert!(!deliver(&collector, 0));
    collector.stop().unwrap();
    let stats = law(&collector, 10);
    let sink = stats.sink("console").unwrap();
    assert_eq!((sink.delivered, sink.failed, sink.panics), (9, 1, 1));
    let text = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    assert_eq!(text.lines().count(), 9);
    assert!(text.lines().all(|line| line.starts_with("[x] half ")) && !text.contains("half [x]"), "{text}");
}

#[test]
fn an_event_at_which_a_map_a_filter_or_a_route_panics_fails_alone_and_is_reported_inside() {
    let (mapped, filtered, routed) = (MemorySink::new(), MemorySink::new(), MemorySink::new());
    let collector = fives()
        .sink(mapped.clone().named("map").map(|event: &Five| event.asked()))
        .sink(filtered.clone().named("filter").filter(|event: &Five| event.asked() < 7))
        .sink(routed.clone().named("route").route("even"))
        .start()
        .unwrap();
    assert!(!deliver(&collector, 0));
    assert!(!deliver(&collector, 10));
    collector.stop().unwrap();
    let stats = law(&collector, 20);
    for name in ["map", "filter", "route"] {
        let sink = stats.sink(name).unwrap();
        assert_eq!((sink.delivered, sink.failed, sink.panics, sink.errors), (18, 2, 2, 0), "{name}");
    }
    assert_eq!(mapped.events()[..9], [0, 1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!((filtered.len(), routed.len()), (6, 10));
    let gaps = |gaps: Vec<u64>| gaps.iter().sum::<u64>();
    assert_eq!(gaps(mapped.batches().iter().map(Batch::gap).collect()), 2);
    assert_eq!(gaps(filtered.batches().iter().map(Batch::gap).collect()), 2);
    assert_eq!(gaps(routed.batches().iter().map(Batch::gap).collect()), 2);
}

#[test]
fn a_letter_at_which_user_code_panics_again_is_reported_as_missing_once() {
    hush();
    let bad = |event: &Tick| assert!(event.number != 1, "on purpose");
    let memory = MemorySink::new();
    for (name, letters) in [("map", DeadLetters::new(10)), ("filter", DeadLetters::new(10))] {
        memory.clear();
        let inner = memory.clone().named(name);
        let sink: Box<dyn Sink<Tick>> = match name {
            "map" => Box::new(inner.map(move |event: &Tick| {
                bad(event);
                *event
            })),
            _ => Box::new(inner.filter(move |event: &Tick| {
                bad(event);
                event.number < 9
            })),
        };
        let collector =
            ticks().flush(FlushStrategy::Manual).sink(sink.dead_letters(&letters)).start().unwrap();
        collector.collect(tick(1));
        let _ = collector.flush().unwrap();
        for _ in 0..3 {
            assert_eq!(letters.redrive(None), 1, "{name}");
            let _ = collector.flush().unwrap();
        }
        collector.collect(tick(2));
        collector.stop().unwrap();
        law(&collector, 2);
        let gaps: u64 = memory.batches().iter().map(Batch::gap).sum();
        assert_eq!((gaps, letters.len()), (1, 1), "{name}");
    }
}

#[test]
fn a_panic_in_a_map_over_a_thread_of_its_own_and_over_one_that_fails_keeps_the_law() {
    let (memory, letters) = (MemorySink::new(), DeadLetters::new(100));
    let collector = fives()
        .sink(memory.clone().isolated(10).map(|event: &Five| tick(event.asked())))
        .sink(failing::<Tick>("letters").dead_letters(&letters).map(|event: &Five| tick(event.asked())))
        .sink(failing::<Tick>("failing").map(|event: &Five| tick(event.asked())))
        .start()
        .unwrap();
    assert!(!deliver(&collector, 0));
    collector.stop().unwrap();
    let stats = law(&collector, 10);
    let fates = |name| {
        let sink = stats.sink(name).unwrap();
        (sink.delivered, sink.failed, sink.dead_lettered)
    };
    assert_eq!((fates("memory"), fates("letters"), fates("failing")), ((9, 1, 0), (0, 1, 9), (0, 10, 0)));
    assert_eq!((memory.len(), letters.len()), (9, 9));
}

#[test]
fn a_subscription_gets_every_event_but_those_whose_name_panics() {
    let collector = fives().start().unwrap();
    let subscription = collector.subscribe("even").unwrap();
    assert!(!deliver(&collector, 0));
    assert!(!deliver(&collector, 10));
    assert_eq!(subscription.len(), 10);
    collector.stop().unwrap();
    let stats = law(&collector, 20);
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].failed, stats.sinks[0].panics), (18, 2, 2));
}

#[test]
fn a_letter_that_cannot_be_cloned_fails_and_one_that_cannot_be_cloned_again_stays() {
    /// Event that can be cloned as long as the switch is on, unless its number is five.
    struct Fragile(u64, Arc<AtomicBool>);
    impl Event for Fragile {}
    impl Clone for Fragile {
        fn clone(&self) -> Self {
            assert!(self.0 != 5 && (self.0 != 3 || self.1.load(Ordering::SeqCst)), "on purpose");
            Self(self.0, Arc::clone(&self.1))
        }
    }
    hush();
    let (works, letters) = (Arc::new(AtomicBool::new(false)), DeadLetters::new(100));
    let (is_cloned, taken) = (Arc::new(AtomicBool::new(true)), MemorySink::new());
    let (up, mut inner) = (Arc::clone(&works), taken.clone());
    let sink =
        forebay::sink::from_fn("remote", move |batch: &Batch<Fragile>| match up.load(Ordering::SeqCst) {
            true => inner.write_batch(batch),
            false => Err(SinkError::unavailable("nobody is there")),
        });
    let collector = Builder::<Fragile>::new()
        .flush(FlushStrategy::Manual)
        .sink(sink.dead_letters(&letters))
        .start()
        .unwrap();
    (0..10).for_each(|number| _ = collector.collect(Fragile(number, Arc::clone(&is_cloned))));
    assert!(!collector.flush().unwrap().is_clean());
    let stats = law(&collector, 10);
    let sink = &stats.sinks[0];
    assert_eq!((sink.dead_lettered, sink.failed, letters.len()), (9, 1, 9));
    works.store(true, Ordering::SeqCst);
    is_cloned.store(false, Ordering::SeqCst);
    assert_eq!(letters.redrive(None), 9);
    assert!(!collector.flush().unwrap().is_clean());
    assert_eq!((letters.len(), letters.evicted(), taken.len()), (1, 0, 8), "one stays, none is lost");
    is_cloned.store(true, Ordering::SeqCst);
    assert_eq!(letters.redrive(None), 1);
    let _ = collector.flush().unwrap();
    assert_eq!((letters.len(), taken.len()), (0, 9));
    collector.stop().unwrap();
    law(&collector, 10);
}

/// Panics in one of its methods, and does nothing else.
#[derive(Clone)]
struct Panics(&'static str, Arc<AtomicBool>);

impl Panics {
    fn new(method: &'static str) -> Self {
        Self(method, Arc::new(AtomicBool::new(true)))
    }

    fn is(&self, method: &str) {
        assert!(self.0 != method || !self.1.load(Ordering::SeqCst), "on purpose");
    }
}

impl<E> Sink<E> for Panics {
    fn name(&self) -> &str {
        self.is("name");
        self.0
    }

    fn write_batch(&mut self, _: &Batch<E>) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.is("flush");
        Ok(())
    }

    fn hook(&mut self, hook: Hook<'_>) {
        self.is(match hook {
            Hook::Open(_) => "open",
            Hook::MayWait(_) => "may_wait",
            Hook::BeginFlush(_) => "begin_flush",
            Hook::IsOver(_) => "is_over",
            _ => return,
        });
    }
}

#[test]
fn a_panic_in_any_method_of_a_sink_is_counted_and_makes_the_flush_unclean() {
    hush();
    for method in ["name", "open", "may_wait", "flush", "begin_flush", "is_over"] {
        for is_added in [false, true] {
            let sink = Panics::new(method);
            let builder = ticks().flush(FlushStrategy::Manual);
            let collector = match is_added {
                true => {
                    let collector = builder.start().unwrap();
                    collector.add_sink(sink.clone()).unwrap();
                    collector
                }
                false => builder.sink(sink.clone()).start().unwrap(),
            };
            collector.collect(tick(1));
            let report = collector.flush().unwrap();
            assert!(!report.is_clean(), "{method}");
            assert_eq!(report.sinks[0].error.as_deref(), Some("panicked: on purpose"), "{method}");
            // It is reported once, and the sink stays in service.
            sink.1.store(false, Ordering::SeqCst);
            collector.collect(tick(2));
            assert!(collector.flush().unwrap().is_clean(), "{method}");
            collector.stop().unwrap();
            let stats = law(&collector, 2);
            let sink = &stats.sinks[0];
            // That one is asked behind every batch and at every flush.
            let panics = if method == "is_over" { 2 } else { 1 };
            assert_eq!((sink.panics, sink.delivered), (panics, 2), "{method}");
            assert_eq!(sink.name, if method == "name" { "unnamed" } else { method });
            assert_eq!(sink.flush_errors, u64::from(method.contains("flush")), "{method}");
        }
    }
}

#[test]
fn a_panic_in_a_sink_on_a_thread_of_its_own_is_counted_and_makes_the_flush_unclean() {
    hush();
    for method in ["name", "open", "flush", "begin_flush"] {
        let sink = Panics::new(method);
        let collector = ticks().flush(FlushStrategy::Manual).sink(sink.clone().isolated(10)).start().unwrap();
        collector.collect(tick(1));
        assert!(!collector.flush().unwrap().is_clean(), "{method}");
        sink.1.store(false, Ordering::SeqCst);
        collector.collect(tick(2));
        assert!(collector.flush().unwrap().is_clean(), "{method}");
        collector.stop().unwrap();
        let stats = law(&collector, 2);
        assert_eq!((stats.sinks[0].panics, stats.sinks[0].delivered), (1, 2), "{method}");
    }
}

/// Tells its size to its producer, and panics when the worker asks.
#[derive(Clone)]
struct Coy;

impl Event for Coy {
    fn size_hint(&self) -> usize {
        assert!(std::thread::current().name() != Some("forebay-worker"), "on purpose");
        size_of::<Self>() + 100
    }
}

#[test]
fn a_panic_in_the_size_of_an_event_is_counted_for_the_sink_that_asks_and_costs_no_event() {
    hush();
    let isolated = Builder::<Coy>::new()
        .flush(FlushStrategy::Manual)
        .sink(MemorySink::new().isolated(10))
        .start()
        .unwrap();
    let subscribed = Builder::<Coy>::new().flush(FlushStrategy::Manual).start().unwrap();
    let subscription = subscribed.subscribe("*").unwrap();
    for collector in [isolated, subscribed] {
        collector.collect(Coy);
        assert!(!collector.flush().unwrap().is_clean());
        collector.stop().unwrap();
        let stats = law(&collector, 1);
        assert_eq!((stats.sinks[0].panics, stats.sinks[0].delivered), (1, 1));
        assert!(stats.sinks[0].last_error.as_ref().unwrap().contains("on purpose"));
    }
    assert_eq!(subscription.iter().count(), 1);
}

#[test]
fn a_panic_in_is_over_is_counted_through_every_wrapper() {
    hush();
    let letters = DeadLetters::new(10);
    type Wrap = fn(Panics, &DeadLetters<Tick>) -> Box<dyn Sink<Tick>>;
    let wrap: [Wrap; 6] = [
        |sink, _| Box::new(sink.filter(|_| true)),
        |sink, _| Box::new(sink.route("*")),
        |sink, _| Box::new(sink.map(|event: &Tick| *event)),
        |sink, letters| Box::new(sink.dead_letters(letters)),
        |sink, _| Box::new(sink.breaker(forebay::sink::BreakerPolicy::default())),
        |sink, _| Box::new(sink.isolated(10)),
    ];
    for wrap in wrap {
        let sink = Panics::new("is_over");
        let collector =
            ticks().flush(FlushStrategy::Manual).sink(wrap(sink.clone(), &letters)).start().unwrap();
        collector.collect(tick(1));
        let _ = collector.flush().unwrap();
        // One with a thread of its own is asked there.
        let _ = collector.flush().unwrap();
        sink.1.store(false, Ordering::SeqCst);
        collector.stop().unwrap();
        let stats = law(&collector, 1);
        assert_eq!(stats.sinks[0].last_error.as_deref(), Some("panicked: on purpose"));
        assert!(stats.sinks[0].panics > 0);
        assert_eq!(stats.sinks[0].delivered, 1);
    }
}

#[test]
fn two_sinks_whose_names_panic_are_refused_like_two_of_one_name() {
    hush();
    let refused = ticks().sink(Panics::new("name")).sink(Panics::new("name")).build();
    assert!(refused.unwrap_err().to_string().contains("unnamed"));
}

#[test]
#[cfg(feature = "tensorboard")]
fn an_image_of_any_size_is_refused_alone() {
    use forebay::{Image, Record, event::ImageFormat};

    let folder = tempfile::tempdir().unwrap();
    let sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
    let collector = Collector::builder().flush(FlushStrategy::Manual).sink(sink).start().unwrap();
    for format in [ImageFormat::Gray8, ImageFormat::Rgb8, ImageFormat::Rgba8] {
        for (width, height) in [(u32::MAX, u32::MAX), (u32::MAX, 1 << 31), (0, u32::MAX), (1 << 31, 1 << 31)]
        {
            let image = Image { width, height, format, bytes: vec![0; 16] };
            collector.collect(Record::image("large", image));
        }
    }
    collector.collect(Record::scalar("loss", 0.5));
    assert!(!collector.flush().unwrap().is_clean());
    collector.stop().unwrap();
    let stats = law(&collector, 13);
    assert_eq!((stats.sinks[0].failed, stats.sinks[0].delivered, stats.sinks[0].panics), (12, 1, 0));
}
