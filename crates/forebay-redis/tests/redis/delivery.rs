//! What is delivered is in the stream, once, in order, and reads back.

use forebay::sink::{MemorySink, Sink};
use forebay::{Batch, Collector, FlushStrategy, Record};
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
    assert_eq!(account.entries, server.length("forebay:s"));
    // An entry says who wrote it, and its id follows from its first event.
    let redis::streams::StreamRangeReply { ids } =
        redis::cmd("XRANGE").arg("forebay:s").arg("-").arg("+").query(&mut server.connect()).unwrap();
    for entry in ids {
        assert_eq!(entry.id, format!("0-{}", entry.get::<u64>("first").unwrap() + 1));
        assert!(entry.get::<String>("origin").unwrap().contains("\"source\":\"trainer\""));
    }
}

#[test]
fn a_batch_that_is_offered_again_is_appended_once() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    for batch in &batches(30, 10) {
        sink.write_batch(batch).unwrap();
        sink.write_batch(batch).unwrap();
    }
    assert_eq!(server.length("s"), 3);
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    assert_eq!(steps(&history.query(&EventQuery::new()).unwrap()), (0..30).collect::<Vec<_>>());
    // Entries of single events are found one by one.
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("single").entry_per_event();
    for batch in &batches(30, 10) {
        sink.write_batch(batch).unwrap();
        sink.write_batch(batch).unwrap();
    }
    assert_eq!((server.length("single"), server.length("single:late")), (30, 0));
}

#[test]
fn a_batch_that_comes_late_is_not_lost() {
    let Some(server) = RedisServer::start(&[]) else { return };
    for is_by_event in [false, true] {
        let stream = if is_by_event { "events" } else { "batches" };
        let mut sink = RedisSink::open(&server.url()).unwrap().stream(stream);
        if is_by_event {
            sink = sink.entry_per_event();
        }
        let batches = batches(30, 10);
        for place in [0, 2, 1] {
            sink.write_batch(&batches[place]).unwrap();
        }
        let history = RedisHistory::open(&server.url(), stream).unwrap();
        let mut found = steps(&history.query(&EventQuery::new()).unwrap());
        assert_eq!(found[10..20], (20..30).collect::<Vec<_>>());
        found.sort_unstable();
        assert_eq!(found, (0..30).collect::<Vec<_>>());
        let account = history.account().unwrap();
        assert_eq!((account.events, account.late, account.absent), (30, 10, 10));
    }
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
