//! What is delivered is in the stream, once, in order, and reads back.

use forebay::run::TrainingRun;
use forebay::sink::{DeadLetters, MemorySink, Sink, SinkExt};
use forebay::{Batch, Collector, Fields, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::server::RedisServer;
use crate::support::law;

fn tick(step: u64) -> Record {
    Record::scalar("tick", step as f64 / 8.0).with_step(step)
}

fn steps(records: &[Record]) -> Vec<u64> {
    records.iter().filter_map(Record::step).collect()
}

/// Returns the batches that a collector makes of these events, so many at once.
pub fn batches(events: u64, size: usize) -> Vec<Batch> {
    let memory = MemorySink::new();
    let builder = Collector::builder().flush(FlushStrategy::Size { events: size }).batch_size(size);
    let collector = builder.sink(memory.clone()).start().unwrap();
    (0..events).for_each(|step| _ = collector.collect(tick(step)));
    collector.stop().unwrap();
    law(&collector, events);
    memory.batches().iter().map(|batch| batch.with_events(batch.events().to_vec())).collect()
}

#[test]
fn what_is_collected_reads_back_in_order() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let sink = RedisSink::open(&server.url()).unwrap();
    let collector = Collector::builder().session_id("s").source("trainer").sink(sink).start().unwrap();
    (0..1000).for_each(|step| _ = collector.collect(tick(step)));
    collector.stop().unwrap();
    assert_eq!(law(&collector, 1000).processed, 1000);

    let history = RedisHistory::open(&server.url(), "forebay:s").unwrap();
    let records = history.query(&EventQuery::new()).unwrap();
    assert_eq!(steps(&records), (0..1000).collect::<Vec<_>>());
    assert_eq!(records[7], tick(7).with_time(records[7].time()));
    let last = history.query(&EventQuery::new().name("tick").newest_first().limit(2)).unwrap();
    assert_eq!(steps(&last), [999, 998]);
    let account = history.account().unwrap();
    assert_eq!((account.events, account.removed, account.absent, account.evicted), (1000, 0, 0, 0));
    assert_eq!(account.writers, 1);
    assert_eq!(account.entries, server.length("forebay:s"));
    // An entry says who wrote it, and its id follows from its first event.
    let redis::streams::StreamRangeReply { ids } =
        redis::cmd("XRANGE").arg("forebay:s").arg("-").arg("+").query(&mut server.connect()).unwrap();
    for entry in ids {
        assert_eq!(entry.id, format!("1-{}", entry.get::<u64>("first").unwrap() + 1));
        assert!(entry.get::<String>("origin").unwrap().contains("\"source\":\"trainer\""));
    }
}

#[test]
fn dead_letters_take_no_place_of_others() {
    let Some(server) = RedisServer::start(&[]) else { return };
    for is_by_event in [false, true] {
        let stream = if is_by_event { "events" } else { "batches" };
        let mut sink = RedisSink::open(&server.url()).unwrap().stream(stream);
        if is_by_event {
            sink = sink.entry_per_event();
        }
        let letters = DeadLetters::new(1000);
        let builder = Collector::builder().flush(FlushStrategy::Manual).batch_size(10);
        let collector = builder.sink(sink.dead_letters(&letters)).start().unwrap();
        let collect = |steps: std::ops::Range<u64>| {
            steps.for_each(|step| _ = collector.collect(tick(step)));
            _ = collector.flush();
        };
        collect(0..10);
        server.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
        // Letters of more than one offer, and of several batches.
        collect(10..250);
        assert_eq!(letters.len(), 240);
        server.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        letters.redrive(None);
        // They go before the next batch, and after it.
        collect(250..260);
        collect(260..300);
        collector.stop().unwrap();
        let sinks = law(&collector, 300).sinks;
        assert_eq!((sinks[0].delivered, sinks[0].redriven, letters.len()), (60, 240, 0));

        let history = RedisHistory::open(&server.url(), stream).unwrap();
        let mut found = steps(&history.query(&EventQuery::new().name("tick")).unwrap());
        assert_eq!(found.len(), 300);
        found.sort_unstable();
        assert_eq!(found, (0..300).collect::<Vec<_>>());
        let account = history.account().unwrap();
        assert_eq!((account.events, account.redriven, account.absent), (300, 240, 240));
    }
}

#[test]
fn a_process_that_comes_after_another_one_appends_behind_it() {
    let Some(server) = RedisServer::start(&[]) else { return };
    // A stream that somebody else has begun, whose ids are moments.
    server.run(&["XADD", "s", "1796067929000-0", "temperature", "20"]);
    server.run(&["XDEL", "s", "1796067929000-0"]);
    for life in 0..3 {
        let sink = RedisSink::open(&server.url()).unwrap().stream("s");
        let collector = Collector::builder().session_id("same").sink(sink).start().unwrap();
        (0..30).for_each(|step| _ = collector.collect(tick(100 * life + step)));
        collector.stop().unwrap();
        law(&collector, 30);
    }
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let all = (0..3).flat_map(|life| (0..30).map(move |step| 100 * life + step));
    assert_eq!(steps(&history.query(&EventQuery::new()).unwrap()), all.collect::<Vec<_>>());
    let account = history.account().unwrap();
    assert_eq!((account.writers, account.events, account.absent, account.removed), (3, 90, 0, 0));
}

#[test]
fn a_run_has_its_generation_in_the_ids_and_is_found_in_the_stream() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let to = |stream: &str| {
        let sink = RedisSink::open(&server.url()).unwrap().stream(stream);
        Collector::builder().sink(sink).start().unwrap()
    };
    let history = |stream: &str| RedisHistory::open(&server.url(), stream).unwrap();
    let collector = to("first");
    let run = TrainingRun::builder().run_id("r").start(&collector).unwrap();
    run.completed(Fields::new()).unwrap();
    collector.stop().unwrap();
    let earlier = forebay_history::runs(&history("first")).unwrap().remove(0);
    assert_eq!((earlier.run_id.as_str(), earlier.generation), ("r", 1));

    let collector = to("second");
    // It goes on when events were delivered already.
    collector.collect(tick(0));
    collector.flush().unwrap();
    let run = TrainingRun::builder().resume(&earlier, 1).start(&collector).unwrap();
    collector.collect(tick(1));
    run.completed(Fields::new()).unwrap();
    collector.stop().unwrap();
    let redis::streams::StreamRangeReply { ids } =
        redis::cmd("XRANGE").arg("second").arg("-").arg("+").query(&mut server.connect()).unwrap();
    let generations: Vec<_> = ids.iter().map(|entry| entry.id.split_once('-').unwrap().0).collect();
    assert_eq!((generations[0], generations.last()), ("1", Some(&"2")));
    assert_eq!(steps(&history("second").query(&EventQuery::new().name("tick")).unwrap()), [0, 1]);
}

#[test]
fn a_query_ends_where_the_stream_ended_when_it_began() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    let all = batches(300, 10);
    all[..20].iter().for_each(|batch| sink.write_batch(batch).unwrap());
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let query = EventQuery::new();
    let mut records = history.iter(&query).unwrap();
    assert!(records.next().is_some());
    all[20..].iter().for_each(|batch| sink.write_batch(batch).unwrap());
    assert_eq!(records.count(), 199);
    // A reader goes on.
    let mut reader = history.reader().unwrap();
    assert_eq!(std::iter::from_fn(|| reader.poll().unwrap()).count(), 300);
}

#[test]
fn a_large_batch_is_split_between_two_events() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s").max_entry_bytes(1000);
    let long = Record::text("long", "x".repeat(5000));
    let mut events: Vec<Record> = (0..50).map(tick).collect();
    events.insert(20, long.clone());
    let batch = batches(51, 51).remove(0).with_events(events);
    sink.write_batch(&batch).unwrap();
    assert!(server.length("s") > 5, "{}", server.length("s"));
    let records = RedisHistory::open(&server.url(), "s").unwrap().query(&EventQuery::new()).unwrap();
    assert_eq!(records.len(), 51);
    assert_eq!((records[20].name(), steps(&records)), ("long", (0..50).collect::<Vec<_>>()));
}

#[test]
fn evicted_events_are_told_apart_from_those_that_the_server_removed() {
    let Some(server) = RedisServer::start(&["--stream-node-max-entries", "2"]) else { return };
    let sink = RedisSink::open(&server.url()).unwrap().max_len(4);
    let builder = Collector::builder().session_id("s").capacity(10).sink(sink);
    let collector = builder.flush(FlushStrategy::Size { events: 1 }).batch_size(1).build().unwrap();
    // Nobody takes the first of them.
    (0..100).for_each(|step| _ = collector.collect(tick(step)));
    collector.start().unwrap();
    collector.stop().unwrap();
    let stats = law(&collector, 100);
    assert_eq!((stats.evicted, stats.processed), (90, 10));
    let history = RedisHistory::open(&server.url(), "forebay:s").unwrap();
    let account = history.account().unwrap();
    let kept = account.events;
    assert!((4..8).contains(&kept), "{account:?}");
    // The entry with the evictions is among those that were removed.
    assert_eq!((account.removed, account.evicted, account.absent), (100 - kept, 0, 0));

    let sink = RedisSink::open(&server.url()).unwrap();
    let collector = Collector::builder().session_id("t").capacity(10).sink(sink).build().unwrap();
    (0..100).for_each(|step| _ = collector.collect(tick(step)));
    collector.start().unwrap();
    collector.stop().unwrap();
    law(&collector, 100);
    let history = RedisHistory::open(&server.url(), "forebay:t").unwrap();
    let account = history.account().unwrap();
    assert_eq!((account.removed, account.evicted, account.events), (0, 90, 10));
    let gaps = history.query(&EventQuery::new().name("forebay.gap")).unwrap();
    assert_eq!(gaps[0].value(), &forebay::Value::Integer(90));
}

#[test]
fn evictions_behind_the_last_event_are_told() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    let [first, second] = <[Batch; 2]>::try_from(batches(20, 10)).unwrap();
    sink.write_batch(&first).unwrap();
    // A batch of a gap alone, and then one whose first event has the number of that.
    let mut gap = second.with_events(Vec::<Record>::new());
    gap.add_gap(1);
    sink.write_batch(&gap).unwrap();
    sink.write_batch(&second).unwrap();
    assert_eq!(server.length("s"), 2 + 1);
    assert_eq!(RedisHistory::open(&server.url(), "s").unwrap().account().unwrap().events, 20);
}
