//! Counters, gauges and histograms through the facade.

use std::sync::Barrier;
use std::time::Duration;

use forebay::sink::MemorySink;
use forebay::{Collector, Histogram, ManualClock, Overflow, Record, Value};
use forebay_metrics::{Builder, InstallError, MetricsRecorder, Sampler};
use metrics::{Unit, counter, describe_counter, describe_histogram, gauge, histogram, with_local_recorder};

use crate::support::{HOURLY, LONG, law, until};

const HOUR: Duration = Duration::from_secs(3600);

struct Scene {
    memory: MemorySink,
    collector: Collector,
    recorder: MetricsRecorder,
    sampler: Sampler,
}

/// Starts a recorder that only the test samples.
fn scene(with: impl FnOnce(Builder) -> Builder) -> Scene {
    let memory = MemorySink::new();
    let collector = Collector::builder().flush(HOURLY).sink(memory.clone()).start().unwrap();
    let (recorder, sampler) = with(Builder::new().interval(HOUR)).start(&collector).unwrap();
    Scene { memory, collector, recorder, sampler }
}

impl Scene {
    /// Returns the events of a sample.
    fn sample(&self) -> Vec<Record> {
        let taken = self.sampler.sample();
        self.collector.flush().unwrap();
        let events = self.memory.events();
        self.memory.clear();
        assert_eq!(events.len() as u64, taken);
        events
    }

    fn within<R>(&self, body: impl FnOnce() -> R) -> R {
        with_local_recorder(&self.recorder, body)
    }
}

fn metadata<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    record.extra()?.metadata.get(name)
}

fn text<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    metadata(record, name)?.as_str()
}

#[test]
fn a_counter_that_is_bumped_often_is_one_event_a_sample() {
    let scene = scene(|builder| builder);
    scene.within(|| {
        let requests = counter!("requests", "route" => "/", "method" => "GET");
        (0..1_000_000).for_each(|_| requests.increment(1));
    });
    let events = scene.sample();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].name(), events[0].value()), ("requests", &Value::Integer(1_000_000)));
    assert_eq!((text(&events[0], "route"), text(&events[0], "method")), (Some("/"), Some("GET")));
    assert_eq!(text(&events[0], "metric.kind"), Some("counter"));
    assert!(metadata(&events[0], "metric.since").and_then(Value::as_i64).is_some_and(|since| since > 0));
    assert!(scene.sample().is_empty(), "nothing has changed");
    scene.within(|| counter!("requests", "route" => "/", "method" => "GET").increment(1));
    assert_eq!(scene.sample()[0].value(), &Value::Integer(1_000_001), "the total");
    scene.within(|| counter!("requests", "route" => "/", "method" => "GET").absolute(5));
    assert!(scene.sample().is_empty(), "a counter does not fall");
    scene.within(|| counter!("large").absolute(u64::MAX - 1));
    assert_eq!(scene.sample()[0].value(), &Value::Scalar(u64::MAX as f64));
    drop(scene.sampler);
    scene.collector.stop().unwrap();
    law(&scene.collector, 3);
}

#[test]
fn a_gauge_is_its_last_number_and_a_series_is_a_name_with_its_labels_and_its_kind() {
    let scene = scene(|builder| builder);
    scene.within(|| {
        gauge!("queue", "shard" => "1").set(4.0);
        gauge!("queue", "shard" => "1").increment(2.5);
        gauge!("queue", "shard" => "1").decrement(1.0);
        gauge!("queue", "shard" => "2").set(f64::NAN);
        counter!("queue", "shard" => "1").increment(0);
    });
    let mut events = scene.sample();
    events.sort_by_key(|event| {
        (text(event, "metric.kind").unwrap().to_owned(), text(event, "shard").unwrap().to_owned())
    });
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].value(), &Value::Integer(0), "a counter that was registered is there");
    assert_eq!(events[1].value(), &Value::Scalar(5.5));
    assert!(events[2].value().as_f64().is_some_and(f64::is_nan));
    assert!(scene.sample().is_empty(), "NaN as well has not changed");
    assert_eq!((scene.recorder.series(), scene.recorder.refused()), (3, 0));
}

#[test]
fn a_histogram_is_of_the_numbers_since_the_last_sample() {
    let scene = scene(|builder| builder);
    let of = |events: Vec<Record>| -> Histogram {
        assert_eq!(events.len(), 1);
        assert_eq!(text(&events[0], "metric.kind"), Some("histogram"));
        let Value::Histogram(histogram) = events[0].value() else { panic!("{events:?}") };
        (**histogram).clone()
    };
    scene.within(|| {
        for number in 1..=1000 {
            histogram!("latency").record(f64::from(number) / 1000.0);
        }
    });
    let histogram = of(scene.sample());
    assert_eq!((histogram.count(), histogram.min(), histogram.max()), (1000, 0.001, 1.0));
    assert!((histogram.sum() - 500.5).abs() < 1e-9);
    // Half of the numbers lie below a half, as exactly as the bins are wide.
    let below: u64 = histogram
        .edges()
        .iter()
        .skip(1)
        .zip(histogram.counts())
        .filter(|(upper, _)| **upper <= 0.5)
        .map(|(_, count)| count)
        .sum();
    assert!((440..=500).contains(&below), "{below}");
    assert!(scene.sample().is_empty());
    scene.within(|| histogram!("latency").record_many(2.0, 7));
    assert_eq!((of(scene.sample())).count(), 7);
}

#[test]
fn a_sample_has_one_time_at_which_the_next_one_begins() {
    let scene = scene(|builder| builder);
    let record = || {
        scene.within(|| {
            (0..50).for_each(|number| histogram!("latency", "number" => number.to_string()).record(1.0));
            counter!("requests").increment(1);
        });
        let events = scene.sample();
        assert_eq!(events.len(), 51);
        let times: std::collections::HashSet<_> = events.iter().map(Record::unix_nanos).collect();
        let of_histogram = events.iter().find(|event| event.name() == "latency").unwrap();
        let since = metadata(of_histogram, "metric.since").and_then(Value::as_i64).unwrap();
        (times, since as u64)
    };
    let (first, since) = record();
    let (second, then) = record();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(first.contains(&then) && since <= then);
}

#[test]
fn units_are_with_each_record_and_a_description_comes_once() {
    let scene = scene(|builder| builder);
    scene.within(|| {
        describe_counter!("sent", Unit::Bytes, "what went out");
        describe_histogram!("latency", Unit::Seconds, "of a request");
        describe_counter!("sent", Unit::Count, "a second description is ignored");
        counter!("sent").increment(3);
    });
    let (described, series): (Vec<_>, Vec<_>) =
        scene.sample().into_iter().partition(|event| event.name() == "metrics.described");
    let fields = |record: &Record| {
        let fields = record.value().as_fields().unwrap().clone();
        ["name", "kind", "unit", "description"]
            .map(|name| fields.get(name).unwrap().as_str().unwrap().to_owned())
    };
    let mut described: Vec<_> = described.iter().map(fields).collect();
    described.sort();
    assert_eq!(
        described,
        [["latency", "histogram", "s", "of a request"], ["sent", "counter", "By", "what went out"]]
    );
    assert_eq!((series.len(), text(&series[0], "metric.unit")), (1, Some("By")));
    scene.within(|| counter!("sent").increment(1));
    assert_eq!(scene.sample().len(), 1);
}

#[test]
fn series_are_bounded_and_those_beyond_are_counted_in_the_stream() {
    let scene = scene(|builder| builder.max_series(100));
    scene.within(|| {
        for user in 0..150 {
            counter!("requests", "user" => user.to_string()).increment(1);
        }
        gauge!("queue").set(1.0);
        histogram!("latency").record(1.0);
        for user in 0..100 {
            describe_counter!(format!("described {user}"), "");
            describe_counter!(format!("and {user}"), "");
        }
    });
    assert_eq!((scene.recorder.series(), scene.recorder.refused()), (100, 52));
    let events = scene.sample();
    let of = |name: &str| events.iter().filter(|event| event.name() == name).collect::<Vec<_>>();
    assert_eq!((of("requests").len(), of("metrics.described").len()), (100, 100));
    assert_eq!(of("forebay.metrics.refused")[0].value(), &Value::Integer(52));
    assert_eq!(events.len(), 201);
    assert!(scene.sample().is_empty());
}

#[test]
fn a_series_has_a_bounded_number_of_bytes() {
    let scene = scene(|builder| builder);
    scene.within(|| {
        let of = |bytes: usize| counter!("name", "k" => "x".repeat(bytes)).increment(1);
        of(4096 - 5);
        of(4096 - 4);
        gauge!("x".repeat(4097)).set(1.0);
        histogram!("h", &[("k", "x".repeat(2048)), ("l", "x".repeat(2048))]).record(1.0);
        describe_counter!("name", "é".repeat(4096));
        describe_counter!("x".repeat(4097), "");
    });
    assert_eq!((scene.recorder.series(), scene.recorder.refused()), (1, 3));
    let events = scene.sample();
    let described: Vec<_> = events.iter().filter(|event| event.name() == "metrics.described").collect();
    assert_eq!((events.len(), described.len()), (3, 1));
    let fields = described[0].value().as_fields().unwrap();
    assert_eq!(fields.get("description").and_then(Value::as_str).unwrap(), "é".repeat(1024));
}

#[test]
fn every_interval_has_a_sample_and_the_end_the_last_one() {
    let (clock, memory) = (ManualClock::new(), MemorySink::new());
    let collector = Collector::builder().sink(memory.clone()).start().unwrap();
    let builder = Builder::new().interval(Duration::from_secs(10)).manual_clock(&clock);
    let (recorder, sampler) = builder.start(&collector).unwrap();
    for round in 1..=3 {
        with_local_recorder(&recorder, || counter!("rounds").increment(1));
        assert_eq!(memory.received(), round - 1, "nothing before the interval is over");
        // The thread may not sleep yet when the clock moves.
        until("there is a sample", || {
            clock.advance(Duration::from_secs(10));
            collector.flush().unwrap();
            memory.received() == round
        });
    }
    with_local_recorder(&recorder, || counter!("rounds").increment(1));
    sampler.stop();
    collector.stop().unwrap();
    let totals: Vec<_> = memory.events().iter().filter_map(|event| event.value().as_i64()).collect();
    assert_eq!(totals, [1, 2, 3, 4]);
    law(&collector, 4);
    // Handles that are left do nothing that anybody sees.
    with_local_recorder(&recorder, || counter!("rounds").increment(1));
    assert_eq!(recorder.sample(), 0, "there is no collector");
    law(&collector, 4);
}

#[test]
fn the_drop_of_the_last_handle_delivers_though_the_recorder_stays() {
    let memory = MemorySink::new();
    let collector = Collector::builder().flush(HOURLY).sink(memory.clone()).start().unwrap();
    let (recorder, sampler) = Builder::new().interval(HOUR).start(&collector).unwrap();
    with_local_recorder(&recorder, || counter!("requests").increment(3));
    collector.collect(Record::new("a"));
    drop(sampler);
    drop(collector);
    let names: Vec<_> = memory.events().iter().map(|event| event.name().to_owned()).collect();
    assert_eq!(names, ["a", "requests"]);
    assert_eq!(recorder.sample(), 0);
}

#[test]
fn a_total_that_was_not_taken_is_sampled_again() {
    let memory = MemorySink::new();
    let collector = Collector::builder().flush(HOURLY).sink(memory.clone()).build().unwrap();
    let (recorder, sampler) = Builder::new().interval(HOUR).start(&collector).unwrap();
    collector.start().unwrap();
    collector.stop().unwrap();
    with_local_recorder(&recorder, || counter!("a").increment(7));
    assert_eq!(sampler.sample(), 0);
    collector.start().unwrap();
    assert_eq!(sampler.sample(), 1);
    collector.stop().unwrap();
    assert_eq!(memory.events()[0].value(), &Value::Integer(7));
    law(&collector, 2);
}

#[test]
fn a_sample_that_was_evicted_is_made_good_by_the_next_one() {
    let memory = MemorySink::new();
    let builder = Collector::builder().flush(HOURLY).capacity(16).overflow(Overflow::DropOldest);
    let collector = builder.sink(memory.clone()).build().unwrap();
    let (recorder, sampler) = Builder::new().interval(HOUR).start(&collector).unwrap();
    with_local_recorder(&recorder, || {
        describe_counter!("a", "what it counts");
        counter!("a").increment(7);
        gauge!("b").set(2.0);
    });
    // No thread takes events out yet.
    assert_eq!(sampler.sample(), 3);
    for step in 0..100 {
        collector.collect(Record::scalar("other", 0.0).with_step(step));
    }
    collector.start().unwrap();
    collector.flush().unwrap();
    assert!(memory.events().iter().all(|event| event.name() == "other"), "they were evicted");
    assert_eq!((sampler.sample(), sampler.sample()), (3, 0), "all of them, once");
    drop(sampler);
    collector.stop().unwrap();
    let events = memory.events();
    assert_eq!(events.iter().filter(|event| event.name() != "other").count(), 3);
    law(&collector, 106);
}

#[test]
fn labels_of_any_names_are_all_there() {
    let scene = scene(|builder| builder);
    scene.within(|| {
        let labels = [
            ("metric.kind", "gauge"),
            ("metric.since", "1"),
            ("metric.unit", "By"),
            ("key", "one"),
            ("key", "two"),
            ("label.key", "three"),
        ];
        counter!("requests", &labels).increment(1);
        counter!("requests", &[("key", "two"), ("key", "one")]).increment(1);
    });
    let mut events = scene.sample();
    events.sort_by_key(|event| event.extra().unwrap().metadata.len());
    let of = |event: usize, names: &[&str]| -> Vec<_> {
        names.iter().map(|name| text(&events[event], name).unwrap().to_owned()).collect()
    };
    assert_eq!(of(0, &["key", "label.key", "metric.kind"]), ["two", "one", "counter"]);
    let names =
        ["metric.kind", "label.metric.kind", "label.metric.since", "label.metric.unit", "key", "label.key"];
    assert_eq!(of(1, &names), ["counter", "gauge", "1", "By", "one", "two"]);
    assert_eq!(text(&events[1], "label.label.key"), Some("three"));
    assert!(metadata(&events[1], "metric.since").and_then(Value::as_i64).is_some());
}

#[test]
fn many_threads_lose_nothing_while_series_appear_and_samples_are_taken() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 2_000;
    let scene = scene(|builder| builder);
    let begin = Barrier::new(THREADS as usize + 3);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                scene.within(|| {
                    for round in 0..ROUNDS {
                        counter!("hits", "key" => (round % 100).to_string()).increment(1);
                        histogram!("sizes").record(round as f64);
                    }
                });
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                begin.wait();
                (0..200).for_each(|_| _ = scene.sampler.sample());
            });
        }
        begin.wait();
    });
    scene.sampler.sample();
    scene.collector.flush_timeout(LONG).unwrap();
    let events = scene.memory.events();
    assert_eq!(scene.recorder.series(), 101);
    let mut totals = std::collections::HashMap::new();
    let mut recorded = 0;
    for event in &events {
        if let Value::Histogram(histogram) = event.value() {
            recorded += histogram.count();
        } else {
            let total = event.value().as_i64().unwrap();
            let before = totals.insert(text(event, "key").unwrap(), total);
            assert!(before.is_none_or(|before| before < total), "a counter fell");
        }
    }
    assert_eq!(totals.values().sum::<i64>() as u64, THREADS * ROUNDS);
    assert_eq!(recorded, THREADS * ROUNDS);
    law(&scene.collector, events.len() as u64);
}

#[test]
fn a_second_global_recorder_and_an_interval_of_zero_are_refused() {
    let collector = Collector::builder().start().unwrap();
    let error = Builder::new().interval(Duration::ZERO).start(&collector).unwrap_err();
    assert!(error.to_string().contains("0ns") || error.to_string().contains("more than 0"), "{error}");
    let sampler = Builder::new().interval(HOUR).install(&collector).unwrap();
    counter!("global").increment(2);
    let error = Builder::new().interval(HOUR).install(&collector).unwrap_err();
    assert!(matches!(error, InstallError::AlreadyInstalled));
    assert_eq!(sampler.sample(), 1, "the first one stays");
}

#[test]
fn statistics_of_a_collector_that_are_published_become_events() {
    let scene = scene(|builder| builder);
    let other = Collector::builder().start().unwrap();
    other.collect(Record::new("a"));
    other.stop().unwrap();
    scene.within(|| other.stats().publish());
    let events = scene.sample();
    let processed = events
        .iter()
        .find(|event| event.name() == "forebay_events_total" && text(event, "fate") == Some("processed"));
    assert_eq!(processed.unwrap().value(), &Value::Integer(1));
}

#[test]
fn a_sample_of_more_series_than_the_queue_holds_evicts_nothing() {
    const SERIES: u64 = 400;
    let memory = MemorySink::new();
    let collector = Collector::builder().capacity(64).flush(HOURLY).sink(memory.clone()).start().unwrap();
    let (recorder, sampler) = Builder::new().interval(HOUR).start(&collector).unwrap();
    with_local_recorder(&recorder, || {
        (0..SERIES).for_each(|number| counter!("requests", "user" => number.to_string()).increment(1));
    });
    assert_eq!(sampler.sample(), SERIES);
    sampler.stop();
    collector.flush().unwrap();
    let stats = law(&collector, SERIES);
    assert_eq!((stats.evicted, memory.len() as u64), (0, SERIES));
}

#[test]
fn histograms_of_chosen_bounds_can_be_added_up() {
    let scene =
        scene(|builder| builder.histogram_bounds([0.1, 1.0]).histogram_bounds_of("bytes", [1e3, 1e6, 1e9]));
    for number in [0.05, 0.5, 5.0] {
        scene.within(|| {
            histogram!("seconds").record(number);
            histogram!("bytes").record(number * 1e4);
        });
        for record in scene.sample() {
            let Value::Histogram(histogram) = record.value() else { panic!("{record:?}") };
            let (bounds, number) = if record.name() == "bytes" {
                (&[1e3, 1e6, 1e9][..], number * 1e4)
            } else {
                (&[0.1, 1.0][..], number)
            };
            let edges = histogram.edges();
            assert_eq!((&edges[1..edges.len() - 1], histogram.count()), (bounds, 1));
            let extremes =
                ["metric.min", "metric.max"].map(|name| metadata(&record, name).and_then(Value::as_f64));
            assert_eq!(extremes, [Some(number); 2]);
        }
    }
    law(&scene.collector, 6);
    for wrong in [&[][..], &[1.0, 1.0], &[2.0, 1.0], &[f64::NAN], &[0.0, f64::INFINITY]] {
        let error =
            Builder::new().histogram_bounds(wrong.iter().copied()).start(&scene.collector).unwrap_err();
        assert!(matches!(&error, InstallError::Bounds(bounds) if bounds.len() == wrong.len()), "{error}");
    }
}
