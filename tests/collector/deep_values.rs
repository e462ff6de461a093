//! Values nested to any depth: none exhausts a stack, and what a sink counts as delivered reads back.

use std::fmt;
use std::time::{Duration, SystemTime};

use forebay::sink::{ConsoleSink, DeadLetters, JsonLinesSink, MemorySink, Sink, SinkExt};
use forebay::{Collector, Config, Fields, Outcome, Priority, Record, Value, event::List};
use forebay_history::{EventQuery, History, JsonLinesReader, Recent};
use serde::de::Deserialize;

use crate::support::{failing, law};
use endless::Endless;

#[path = "../support/endless.rs"]
mod endless;

const MOST: usize = Value::MAX_DEPTH;

/// Far more than any stack holds.
const FAR: usize = 1_000_000;

/// Function that wraps a value in one more level.
type Wrap = fn(Value) -> Value;

/// Every way to nest a value, with the levels that each adds to it.
const WRAPS: [(&str, Wrap, usize); 6] = [
    ("fields", |inner| Fields::new().with("k", inner).into(), 1),
    ("fields of a dollar", |inner| Fields::new().with("$k", inner).into(), 2),
    (
        "collected fields",
        |inner| [("a", Value::from(1)), ("k", inner)].into_iter().collect::<Fields>().into(),
        1,
    ),
    ("replaced field", |inner| Fields::new().with("k", 1).with("k", inner).into(), 1),
    ("list", |inner| vec![inner].into(), 1),
    (
        "pushed list",
        |inner| {
            let mut list = List::new();
            list.push(1);
            list.push(inner);
            list.into()
        },
        1,
    ),
];

fn nested(wrap: Wrap, times: usize) -> Value {
    (0..times).fold(Value::from("leaf"), |inner, _| wrap(inner))
}

fn deep(levels: usize) -> Value {
    nested(WRAPS[0].1, levels)
}

/// Runs with a small stack, as threads of other libraries have it.
fn on_a_small_stack(body: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(512 << 10).spawn(body).unwrap().join().unwrap();
}

#[test]
fn a_value_of_any_depth_is_compared_cloned_shown_and_dropped() {
    on_a_small_stack(|| {
        for (kind, wrap, _) in WRAPS {
            let value = nested(wrap, FAR);
            assert!(value.depth() > MOST, "{kind}");
            let record = Record::with_value("d", value.clone()).with_metadata("m", value.clone());
            assert_eq!(value, value.clone());
            assert_eq!(record, record.clone());
            for shown in
                [format!("{value}"), format!("{value:?}"), format!("{record}"), format!("{record:#?}")]
            {
                assert!(!shown.is_empty() && shown.len() < 1 << 20, "{kind}: {} bytes", shown.len());
            }
            assert!(serde_json::to_string(&value).is_err(), "{kind}: it would not read back");
            assert!(serde_json::to_string(&record).is_err(), "{kind}: it would not read back");
            assert!(!EventQuery::new().contains("other", value).matches(&record));
        }
    });
}

#[test]
fn every_way_to_nest_reads_back_up_to_the_limit_and_is_refused_beyond() {
    for (kind, wrap, levels) in WRAPS {
        let memory = MemorySink::new();
        let collector = Collector::builder().sink(memory.clone()).start().unwrap();
        for (times, fits) in [(MOST / levels - 1, true), (MOST / levels, true), (MOST / levels + 1, false)] {
            let value = nested(wrap, times);
            assert_eq!(value.depth() <= MOST, fits, "{kind} {times}");
            for record in [
                Record::with_value("d", value.clone()),
                Record::new("d").with_metadata("$m", 1).with_step(times as u64),
            ] {
                let line = serde_json::to_string(&record);
                if fits {
                    assert_eq!(
                        serde_json::from_str::<Record>(&line.unwrap()).unwrap(),
                        record,
                        "{kind} {times}"
                    );
                }
            }
            let expected = if fits { Outcome::Queued } else { Outcome::Oversize };
            assert_eq!(collector.collect(Record::with_value("d", value)), expected, "{kind} {times}");
        }
        collector.stop().unwrap();
        assert_eq!(law(&collector, 3).oversize, 1);
        assert_eq!(memory.len(), 2);
    }
}

#[test]
fn every_way_to_collect_refuses_what_is_too_deep_and_counts_it() {
    let collector = Collector::builder()
        .config(Config::default().with_max_bytes(None))
        .sink(MemorySink::new())
        .start()
        .unwrap();
    let mut metadata = Record::new("in the metadata");
    metadata.extra_mut().metadata = Fields::new().with("m", deep(MOST));
    let records = || {
        [
            Record::with_value("a value", deep(MOST + 1)),
            Record::with_value("a list", vec![deep(MOST)]),
            Record::with_value("far", deep(FAR)).with_priority(Priority::Critical),
            Record::with_value("low", deep(3_000)).with_priority(Priority::Low),
            Record::new("a field").with_field("f", deep(MOST)),
            Record::new("in the metadata").with_metadata("m", deep(MOST)),
            Record::with_value("a part of another", deep(FAR).as_fields().unwrap().get("k").unwrap().clone()),
            Record::with_value("that alone", Value::TooDeep),
            metadata.clone(),
        ]
    };
    for record in records() {
        assert_eq!(collector.collect(record.clone()), Outcome::Oversize, "{record}");
        let refused = collector.try_collect(record.clone()).unwrap_err();
        assert_eq!(
            (refused.event.name(), refused.reason),
            (record.name(), forebay::collector::Refusal::Oversize)
        );
    }
    let outcome = collector.collect_batch(records());
    assert_eq!((outcome.queued, outcome.rejected), (0, 9));
    assert_eq!(collector.collect(Record::with_value("fits", deep(MOST))), Outcome::Queued);
    collector.stop().unwrap();
    let stats = law(&collector, 28);
    assert_eq!((stats.oversize, stats.processed), (27, 1));
}

#[test]
fn a_field_that_is_replaced_takes_its_depth_with_it() {
    let mut fields = Fields::new().with("a", deep(FAR)).with("b", deep(7));
    assert!(fields.depth() > MOST);
    fields.set("a", 1);
    assert_eq!(fields.depth(), 8);
    fields.set("b", deep(3));
    assert_eq!(fields.depth(), 4);
    fields.set("b", 0);
    assert_eq!(fields.depth(), 1);
    assert_eq!((Value::from(fields.clone()).depth(), Fields::new().depth(), List::new().len()), (1, 1, 0));
    assert_eq!(fields, Fields::from([("a", 1), ("b", 0)]));
}

/// Collects values at the limit and around it, and returns how many are to be delivered.
fn around_the_limit(collector: &Collector) -> u64 {
    let mut offered = 0;
    for levels in [MOST - 1, MOST, MOST + 1, 127, 128, 3_000, 50_000] {
        for (kind, wrap, _) in WRAPS {
            collector.collect(Record::with_value(kind, nested(wrap, levels)).with_step(offered));
            collector
                .collect(Record::new(kind).with_metadata("m", nested(wrap, levels - 1)).with_step(offered));
            offered += 2;
        }
    }
    // All but the dollars (two levels each) have two depths that fit, as a value and in the metadata.
    assert_eq!(law(collector, offered).oversize, offered - 2 * 2 * 5);
    offered
}

/// Checks that each of them is delivered, and nothing else.
fn delivered(collector: &Collector, offered: u64) -> u64 {
    collector.stop().unwrap();
    let stats = law(collector, offered);
    let sink = &stats.sinks[0];
    assert_eq!((sink.failed, sink.delivered), (0, 20), "{:?}", sink.last_error);
    sink.delivered
}

#[test]
fn json_lines_reads_back_all_that_it_counts_as_delivered() {
    let folder = tempfile::tempdir().unwrap();
    for (path, with_origin) in [("a.jsonl", false), ("b.jsonl", true)] {
        let path = folder.path().join(path);
        let sink = JsonLinesSink::create(&path).unwrap();
        let collector =
            Collector::builder().sink(if with_origin { sink.with_origin() } else { sink }).start().unwrap();
        let offered = around_the_limit(&collector);
        let delivered = delivered(&collector, offered);
        let mut reader = JsonLinesReader::open(&path).unwrap();
        assert_eq!((reader.by_ref().map(Result::unwrap).count() as u64, reader.skipped()), (delivered, 0));
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn sqlite_reads_back_all_that_it_counts_as_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.db");
    let sink = forebay::sink::SqliteSink::create(&path).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    let offered = around_the_limit(&collector);
    let delivered = delivered(&collector, offered);
    let history = forebay_history::SqliteHistory::open(&path).unwrap();
    assert_eq!(history.query(&EventQuery::new()).unwrap().len() as u64, delivered);
}

#[test]
fn memory_console_and_recent_take_all_that_is_let_in() {
    let (memory, recent) = (MemorySink::new(), Recent::<1000>::new());
    for sink in [
        Box::new(memory.clone()) as Box<dyn Sink>,
        Box::new(recent.clone()),
        Box::new(ConsoleSink::to_writer("x", std::io::sink())),
    ] {
        let collector = Collector::builder().sink(sink).start().unwrap();
        let offered = around_the_limit(&collector);
        delivered(&collector, offered);
    }
    assert_eq!((memory.len(), recent.query(&EventQuery::new()).unwrap().len()), (20, 20));
}

#[test]
fn dead_letters_and_subscriptions_hold_what_is_let_in() {
    let letters = DeadLetters::new(1000);
    let collector = Collector::builder().sink(failing("down").dead_letters(&letters)).start().unwrap();
    let subscription = collector.subscribe("*").unwrap();
    let offered = around_the_limit(&collector);
    collector.stop().unwrap();
    law(&collector, offered);
    drop(collector);
    assert_eq!((letters.entries().len(), letters.purge().len(), subscription.iter().count()), (20, 20, 20));
}

#[cfg(feature = "tensorboard")]
#[test]
fn tensorboard_shows_all_that_it_counts_as_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let sink = forebay::sink::TensorBoardSink::create(folder.path()).unwrap();
    let path = sink.path().to_owned();
    let collector = Collector::builder().sink(sink).start().unwrap();
    let mut offered = 0;
    for levels in [MOST - 1, MOST, MOST + 1, 127, 128, 3_000, FAR] {
        collector.collect(Record::with_value(format!("at{levels}"), deep(levels)));
        offered += 1;
    }
    collector.stop().unwrap();
    assert_eq!(law(&collector, offered).sinks[0].delivered, 2);
    let bytes = std::fs::read(path).unwrap();
    let shows = |levels: usize| {
        let tag = format!("at{levels}{}", "/k".repeat(levels));
        bytes.windows(tag.len()).any(|window| window == tag.as_bytes())
    };
    assert_eq!([MOST - 1, MOST, MOST + 1].map(shows), [true, true, false]);
}

#[test]
fn reading_ends_at_the_limit_whatever_the_deserializer_allows() {
    on_a_small_stack(|| {
        for (key, most) in [(None, MOST), (Some("k"), MOST), (Some("$k"), MOST / 2)] {
            for (levels, fits) in [(most - 1, true), (most, true), (most + 1, false), (FAR, false)] {
                let read = Value::deserialize(Endless { levels, key });
                assert_eq!(read.is_ok(), fits, "{key:?} {levels}: {:?}", read.err());
                if key.is_some() {
                    assert_eq!(
                        Fields::deserialize(Endless { levels, key }).is_ok(),
                        fits,
                        "{key:?} {levels}"
                    );
                } else {
                    assert_eq!(List::deserialize(Endless { levels, key }).is_ok(), fits, "{levels}");
                }
            }
        }
        for key in ["$fields", "$scalar", "$histogram", "$image"] {
            assert!(Value::deserialize(Endless { levels: FAR, key: Some(key) }).is_err(), "{key}");
        }
        // Each as a key of a record: those that are known, and one that is passed over.
        for key in ["name", "list", "fields", "metadata", "tags", "histogram", "image", "unknown"] {
            assert!(Record::deserialize(Endless { levels: FAR, key: Some(key) }).is_err(), "{key}");
        }
    });
}

#[test]
fn a_line_of_any_depth_is_skipped_and_the_next_is_read() {
    on_a_small_stack(|| {
        let time = "\"time\":\"2026-11-21T08:00:00Z\"";
        let nested = |open: &str, close: &str, levels: usize| {
            format!("{}1{}", open.repeat(levels), close.repeat(levels))
        };
        let mut lines = String::new();
        for key in ["list", "fields", "metadata", "unknown", "tags", "origin"] {
            for (open, close) in [("[", "]"), ("{\"k\":", "}"), ("{\"$fields\":", "}")] {
                lines +=
                    &format!("{{\"name\":\"deep\",{time},\"{key}\":{}}}\n", nested(open, close, FAR / 10));
            }
        }
        lines += &format!("{{\"name\":\"good\",{time},\"list\":{}}}\n", nested("[", "]", MOST));
        let mut reader = JsonLinesReader::new(lines.as_bytes());
        let records: Vec<Record> = reader.by_ref().map(Result::unwrap).collect();
        let good = records.last().unwrap();
        assert_eq!((good.name(), good.value().depth()), ("good", MOST));
        assert_eq!(records.len() as u64 + reader.skipped(), 19);
        assert!(reader.skipped() >= 12, "only what nobody asks for may be passed over");
    });
}

#[test]
fn a_line_that_is_a_little_too_deep_is_skipped_whatever_it_nests() {
    // What other programs write: fields without a dollar, which take one level more than they seem to.
    let ways: [(&str, &str, usize); 4] = [
        ("[{\"$fields\":{\"$a\":", "}}]", 3),
        ("[[{\"k\":", "}]]", 3),
        ("{\"$a\":[", "]}", 3),
        ("[", "]", 1),
    ];
    for (open, close, levels) in ways {
        for key in ["list", "fields", "metadata"] {
            for times in MOST / levels - 3..MOST / levels + 4 {
                let nested = format!("{}1{}", open.repeat(times), close.repeat(times));
                let line = match (key, open.starts_with('[')) {
                    ("list", true) => format!("\"list\":{nested}"),
                    (key, _) => format!("\"{key}\":{{\"k\":{nested}}}"),
                };
                let line = format!("{{\"name\":\"x\",\"time\":\"2026-11-21T08:00:00Z\",{line}}}\n");
                for record in JsonLinesReader::new(line.as_bytes()) {
                    let record = record.unwrap();
                    let metadata = record.extra().map_or(0, |extra| extra.metadata.depth());
                    assert!(record.value().depth().max(metadata) <= MOST, "{open} {key} {times}");
                }
            }
        }
    }
}

#[cfg(feature = "config")]
#[test]
fn settings_of_any_depth_are_an_error() {
    on_a_small_stack(|| {
        for key in ["capacity", "gate", "flush", "unknown"] {
            assert!(Config::deserialize(Endless { levels: FAR, key: Some(key) }).is_err(), "{key}");
        }
        assert!(Config::deserialize(Endless { levels: FAR, key: None }).is_err());
    });
}

#[cfg(feature = "config")]
#[test]
fn a_file_of_settings_of_any_depth_is_an_error() {
    on_a_small_stack(|| {
        let many = |text: &str| text.repeat(100_000);
        for text in [
            format!("gate = {}{}", many("["), many("]")),
            format!("gate = {}1{}", many("{a="), many("}")),
            format!("{}a = 1", many("a.")),
            format!("gate.{}a = 1", many("a.")),
            format!("[gate.{}a]", many("a.")),
            format!("[[gate.{}a]]", many("a.")),
            format!("gate = {{ {}a = 1 }}", many("a.")),
        ] {
            assert!(Config::from_toml(&text).is_err(), "{}", &text[..20]);
        }
    });
}

/// An event of another crate that is as deep as it likes.
struct UserEvent(usize);

impl forebay::Event for UserEvent {
    fn size_hint(&self) -> usize {
        size_of::<Self>() + self.0
    }

    fn is_too_deep(&self) -> bool {
        self.0 > 3
    }
}

impl fmt::Display for UserEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[test]
fn an_event_of_another_type_says_by_itself_that_it_is_too_deep() {
    let collector = forebay::Builder::<UserEvent>::new()
        .sink(ConsoleSink::to_writer("x", std::io::sink()))
        .start()
        .unwrap();
    let outcomes = [0, 3, 4, 1000].map(|depth| collector.collect(UserEvent(depth)));
    assert_eq!(outcomes, [Outcome::Queued, Outcome::Queued, Outcome::Oversize, Outcome::Oversize]);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 4).oversize, 2);
}

#[test]
fn what_completes_events_may_make_one_too_deep_and_it_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let collector = Collector::builder()
        .enrich(|record: &mut Record, _| {
            if record.name() == "deep" {
                *record = record.clone().with_field("more", deep(FAR));
            }
        })
        .sink(JsonLinesSink::create(&path).unwrap())
        .start()
        .unwrap();
    for name in ["a", "deep", "b"] {
        collector.collect(Record::new(name).with_time(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
    }
    collector.stop().unwrap();
    let sink = &law(&collector, 3).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (2, 1));
    assert_eq!(JsonLinesReader::open(&path).unwrap().map(Result::unwrap).count(), 2);
}
