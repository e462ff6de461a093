//! What is delivered is in the stream, once, in order, and reads back.

use std::time::SystemTime;

use forebay::run::TrainingRun;
use forebay::sink::{DeadLetters, MemorySink, Sink, SinkExt};
use forebay::{Batch, Collector, Fields, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_nats::{NatsHistory, NatsReader, NatsSink, NatsStream};
use serde_json::json;

use crate::server::NatsServer;
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
    let Some(server) = NatsServer::start(&[]) else { return };
    let sink = NatsSink::open(&server.url()).unwrap();
    let collector = Collector::builder().session_id("s").source("trainer").sink(sink).start().unwrap();
    (0..1000).for_each(|step| _ = collector.collect(tick(step)));
    collector.stop().unwrap();
    assert_eq!(law(&collector, 1000).processed, 1000);

    let history = NatsHistory::open(&server.url(), "forebay.s.0").unwrap();
    let records = history.query(&EventQuery::new()).unwrap();
    assert_eq!(steps(&records), (0..1000).collect::<Vec<_>>());
    assert_eq!(records[7], tick(7).with_time(records[7].time()));
    let last = history.query(&EventQuery::new().name("tick").newest_first().limit(2)).unwrap();
    assert_eq!(steps(&last), [999, 998]);
    let account = history.account().unwrap();
    assert_eq!((account.events, account.removed, account.absent, account.evicted), (1000, 0, 0, 0));
    assert_eq!(account.writers, 1);
    assert_eq!(account.messages, server.length("forebay.s.0"));
    // A stream was made, of that name.
    let info = server.ask("STREAM.INFO.forebay", &json!({}));
    assert_eq!(info["config"]["subjects"], json!(["forebay.>"]));
}

#[test]
fn dead_letters_take_no_place_of_others() {
    let Some(server) = NatsServer::start(&[]) else { return };
    for is_by_event in [false, true] {
        let subject = if is_by_event { "forebay.events" } else { "forebay.batches" };
        let mut sink = NatsSink::open(&server.url()).unwrap().subject(subject);
        if is_by_event {
            sink = sink.message_per_event();
        }
        sink = sink.stream(NatsStream::new().refuse_when_full());
        let letters = DeadLetters::new(1000);
        let builder = Collector::builder().flush(FlushStrategy::Manual).batch_size(10);
        let collector = builder.sink(sink.dead_letters(&letters)).start().unwrap();
        let collect = |steps: std::ops::Range<u64>| {
            steps.for_each(|step| _ = collector.collect(tick(step)));
            _ = collector.flush();
        };
        collect(0..10);
        server.set("max_bytes", json!(1));
        // Letters of more than one offer, and of several batches.
        collect(10..250);
        assert_eq!(letters.len(), 240);
        server.set("max_bytes", json!(-1));
        letters.redrive(None);
        // They go before the next batch, and after it.
        collect(250..260);
        collect(260..300);
        collector.stop().unwrap();
        let sinks = law(&collector, 300).sinks;
        assert_eq!((sinks[0].delivered, sinks[0].redriven, letters.len()), (60, 240, 0));

        let history = NatsHistory::open(&server.url(), subject).unwrap();
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
    let Some(server) = NatsServer::start(&[]) else { return };
    // A stream that somebody else has made, and written to.
    server.ask("STREAM.CREATE.forebay", &json!({ "name": "forebay", "subjects": ["forebay.>", "other.>"] }));
    server.request("other.s", b"temperature 20");
    for life in 0..3 {
        let sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
        let collector = Collector::builder().session_id("same").sink(sink).start().unwrap();
        (0..30).for_each(|step| _ = collector.collect(tick(100 * life + step)));
        collector.stop().unwrap();
        law(&collector, 30);
    }
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap();
    let all = (0..3).flat_map(|life| (0..30).map(move |step| 100 * life + step));
    assert_eq!(steps(&history.query(&EventQuery::new()).unwrap()), all.collect::<Vec<_>>());
    let account = history.account().unwrap();
    assert_eq!((account.writers, account.events, account.absent, account.removed), (3, 90, 0, 0));
}

#[test]
fn a_run_and_a_rank_are_in_the_subject_and_the_run_is_found_there() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let collector = |rank| {
        let sink = NatsSink::open(&server.url()).unwrap();
        Collector::builder().rank(rank).sink(sink).start().unwrap()
    };
    let first = collector(3);
    let run = TrainingRun::builder().run_id("digits v1.2/a").start(&first).unwrap();
    first.collect(tick(0));
    run.completed(Fields::new()).unwrap();
    first.stop().unwrap();
    let subject = "forebay.digits%20v1%2E2%2Fa.3";
    let history = NatsHistory::open(&server.url(), subject).unwrap();
    let earlier = forebay_history::runs(&history).unwrap().remove(0);
    assert_eq!((earlier.run_id.as_str(), earlier.generation), ("digits v1.2/a", 1));
    // It goes on in another process, and behind what is there.
    let second = collector(3);
    let run = TrainingRun::builder().resume(&earlier, 1).start(&second).unwrap();
    second.collect(tick(1));
    run.completed(Fields::new()).unwrap();
    second.stop().unwrap();
    assert_eq!(steps(&history.query(&EventQuery::new().name("tick")).unwrap()), [0, 1]);
    assert_eq!(history.account().unwrap().writers, 2);
    // All ranks of a run.
    let third = collector(4);
    let run = TrainingRun::builder().resume(&earlier, 1).start(&third).unwrap();
    third.collect(tick(7));
    run.completed(Fields::new()).unwrap();
    third.stop().unwrap();
    let all = NatsHistory::open(&server.url(), "forebay.digits%20v1%2E2%2Fa.*").unwrap();
    assert_eq!(steps(&all.query(&EventQuery::new().name("tick")).unwrap()), [0, 1, 7]);
    let account = all.account().unwrap();
    assert_eq!((account.writers, account.absent, account.removed), (3, 0, 0));
}

#[test]
fn a_query_ends_where_the_stream_ended_when_it_began() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let all = batches(300, 10);
    all[..20].iter().for_each(|batch| sink.write_batch(batch).unwrap());
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap();
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
    let Some(server) = NatsServer::start(&[]) else { return };
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s").max_message_bytes(1000);
    let long = Record::text("long", "x".repeat(5000));
    let mut events: Vec<Record> = (0..50).map(tick).collect();
    events.insert(20, long.clone());
    let batch = batches(51, 51).remove(0).with_events(events);
    sink.write_batch(&batch).unwrap();
    assert!(server.length("forebay.s") > 5, "{}", server.length("forebay.s"));
    let records = NatsHistory::open(&server.url(), "forebay.s").unwrap().query(&EventQuery::new()).unwrap();
    assert_eq!(records.len(), 51);
    assert_eq!((records[20].name(), steps(&records)), ("long", (0..50).collect::<Vec<_>>()));
}

#[test]
fn evicted_events_are_told_apart_from_those_that_the_server_removed() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let sink = NatsSink::open(&server.url()).unwrap().stream(NatsStream::new().max_messages(4));
    let builder = Collector::builder().session_id("s").capacity(10).sink(sink);
    let collector = builder.flush(FlushStrategy::Size { events: 1 }).batch_size(1).build().unwrap();
    // Nobody takes the first of them.
    (0..100).for_each(|step| _ = collector.collect(tick(step)));
    collector.start().unwrap();
    collector.stop().unwrap();
    let stats = law(&collector, 100);
    assert_eq!((stats.evicted, stats.processed), (90, 10));
    let history = NatsHistory::open(&server.url(), "forebay.s.0").unwrap();
    let account = history.account().unwrap();
    let kept = account.events;
    assert_eq!(kept, 4, "{account:?}");
    // The message with the evictions is among those that were removed.
    assert_eq!((account.removed, account.evicted, account.absent), (100 - kept, 0, 0));

    let Some(server) = NatsServer::start(&[]) else { return };
    let sink = NatsSink::open(&server.url()).unwrap();
    let collector = Collector::builder().session_id("t").capacity(10).sink(sink).build().unwrap();
    (0..100).for_each(|step| _ = collector.collect(tick(step)));
    collector.start().unwrap();
    collector.stop().unwrap();
    law(&collector, 100);
    let history = NatsHistory::open(&server.url(), "forebay.t.0").unwrap();
    let account = history.account().unwrap();
    assert_eq!((account.removed, account.evicted, account.events), (0, 90, 10));
    let gaps = history.query(&EventQuery::new().name("forebay.gap")).unwrap();
    assert_eq!(gaps[0].value(), &forebay::Value::Integer(90));
}

#[test]
fn evictions_behind_the_last_event_are_told() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let [first, second] = <[Batch; 2]>::try_from(batches(20, 10)).unwrap();
    sink.write_batch(&first).unwrap();
    // A batch of a gap alone, and then one whose first event has the number of that.
    let mut gap = second.with_events(Vec::<Record>::new());
    gap.add_gap(1);
    sink.write_batch(&gap).unwrap();
    sink.write_batch(&second).unwrap();
    assert_eq!(server.length("forebay.s"), 2 + 1);
    assert_eq!(NatsHistory::open(&server.url(), "forebay.s").unwrap().account().unwrap().events, 20);
}

#[test]
fn a_reader_begins_in_the_middle_and_counts_nothing_before_as_missing() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let all = batches(30, 10);
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    sink.write_batch(&all[0]).unwrap();
    let reader = || NatsReader::open(&server.url(), "forebay.s").unwrap();
    let mut first = reader();
    while first.poll().unwrap().is_some() {}
    let (next, time) = (first.next_message().unwrap(), SystemTime::now());
    all[1..].iter().for_each(|batch| sink.write_batch(batch).unwrap());
    for mut reader in [reader().from_message(next), reader().from_time(time)] {
        let found: Vec<Record> = std::iter::from_fn(|| reader.poll().unwrap()).collect();
        assert_eq!(steps(&found), (10..30).collect::<Vec<_>>());
        let account = reader.account();
        assert_eq!((account.messages, account.absent, account.removed), (2, 0, 0));
    }
    // One that follows needs no other place.
    assert_eq!(std::iter::from_fn(|| first.poll().unwrap()).count(), 20);
}
