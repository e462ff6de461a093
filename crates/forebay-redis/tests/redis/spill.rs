//! A local file that takes batches while the server is away: all of them arrive, in order, and none twice.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay::sink::{Sink, SinkExt, Spill};
use forebay::{Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::delivery::batches;
use crate::kills::{kills, proxy, read_by_redis_py};
use crate::server::RedisServer;
use crate::support::{LONG, law};

fn steps(server: &RedisServer, stream: &str) -> Vec<u64> {
    let history = RedisHistory::open(&server.url(), stream).unwrap();
    history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect()
}

fn spill(url: &str, stream: &str, path: &Path) -> Spill<RedisSink> {
    RedisSink::open(url).unwrap().stream(stream).spill(path).unwrap().pause(Duration::ZERO)
}

#[test]
fn a_server_that_is_down_at_the_start_gets_all_of_it_later() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    server.kill();
    let folder = tempfile::tempdir().unwrap();
    let sink = spill(&server.url(), "s", &folder.path().join("spill")).isolated(10_000).flush_timeout(LONG);
    let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.sink(sink).start().unwrap();
    for step in 0..1_000 {
        collector.collect(Record::integer("tick", step).with_step(step as u64));
    }
    _ = collector.flush();
    let sink = collector.stats().sinks[0].clone();
    assert_eq!((sink.in_flight, sink.failed), (1_000, 0), "{sink:?}");
    server.restart();
    collector.collect(Record::integer("tick", 1_000).with_step(1_000));
    collector.stop_timeout(LONG).unwrap();
    let stats = law(&collector, 1_001);
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].in_flight), (1_001, 0));
    assert_eq!(steps(&server, "s"), (0..=1_000).collect::<Vec<_>>());
    let account = RedisHistory::open(&server.url(), "s").unwrap().account().unwrap();
    assert_eq!((account.writers, account.absent, account.evicted), (1, 0, 0));
}

#[test]
fn a_server_that_is_killed_again_and_again_gets_each_event_once() {
    let Some(mut server) = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let sink = spill(&server.url(), "s", &folder.path().join("spill")).isolated(10_000).flush_timeout(LONG);
    let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.sink(sink).start().unwrap();
    let mut step = 0;
    for kill in 0..kills() {
        for _ in 0..100 + kill * 37 % 101 {
            collector.collect(Record::integer("tick", step).with_step(step as u64));
            step += 1;
        }
        server.kill();
        for _ in 0..30 {
            collector.collect(Record::integer("tick", step).with_step(step as u64));
            step += 1;
        }
        server.restart();
    }
    collector.stop_timeout(LONG).unwrap();
    let stats = law(&collector, step as u64);
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].failed), (step as u64, 0), "{:?}", stats.sinks[0]);
    let all: Vec<u64> = (0..step as u64).collect();
    assert_eq!(steps(&server, "s"), all);
    if let Some(found) = read_by_redis_py(&server, "s") {
        assert_eq!(found, all);
    }
}

#[test]
fn a_batch_whose_answer_was_lost_is_not_there_twice_whichever_process_replays_it() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    for (number, ends) in [false, true].into_iter().enumerate() {
        let (stream, path) = (format!("s{number}"), folder.path().join(format!("spill{number}")));
        let all = batches(40, 10);
        let to_lose = Arc::new(AtomicU64::new(0));
        let left = Arc::clone(&to_lose);
        let is_lost =
            move |_| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        let (port, _) = proxy(server.port(), is_lost);
        let mut sink = spill(&format!("redis://127.0.0.1:{port}/"), &stream, &path);
        sink.write_batch(&all[0]).unwrap();
        // The answer, and that to the next connection.
        to_lose.store(2, Ordering::Relaxed);
        sink.write_batch(&all[1]).unwrap();
        assert_eq!((sink.batches(), server.length(&stream)), (1, 2), "it is in both places");
        if ends {
            drop(sink);
            // Another process: it has an id of its own, and goes on with its own batches.
            let mut next = spill(&server.url(), &stream, &path);
            all[2..].iter().for_each(|batch| next.write_batch(batch).unwrap());
        } else {
            all[2..].iter().for_each(|batch| sink.write_batch(batch).unwrap());
        }
        assert_eq!(steps(&server, &stream), (0..40).collect::<Vec<_>>(), "{stream}");
    }
}

#[test]
fn batches_of_an_earlier_process_go_into_the_stream_of_its_session() {
    let Some(mut server) = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (path, url) = (folder.path().join("spill"), server.url());
    let start = |session: &str| {
        let sink = RedisSink::open(&url).unwrap().spill(&path).unwrap().pause(Duration::ZERO);
        let builder = Collector::builder().session_id(session).flush(FlushStrategy::Manual);
        builder.sink(sink.isolated(1_000).flush_timeout(LONG)).start().unwrap()
    };
    let collect = |collector: &Collector, steps: std::ops::Range<u64>| {
        steps.for_each(|step| _ = collector.collect(Record::integer("tick", 0).with_step(step)));
        _ = collector.flush();
    };
    let first = start("first");
    collect(&first, 0..10);
    server.kill();
    collect(&first, 10..20);
    collect(&first, 20..30);
    let report = first.stop_timeout(LONG).unwrap();
    assert_eq!(report.stats.sinks[0].in_flight, 20);
    law(&first, 30);
    drop(first);
    server.restart();
    let second = start("second");
    collect(&second, 100..110);
    second.stop_timeout(LONG).unwrap();
    let sink = &law(&second, 10).sinks[0];
    assert_eq!((sink.delivered, sink.redriven, sink.in_flight), (10, 20, 0));
    assert_eq!(steps(&server, "forebay:first"), (0..30).collect::<Vec<_>>());
    assert_eq!(steps(&server, "forebay:second"), (100..110).collect::<Vec<_>>());
    // Written by two, and yet the events of one.
    let account = RedisHistory::open(&server.url(), "forebay:first").unwrap().account().unwrap();
    assert_eq!((account.writers, account.events, account.absent), (1, 30, 0));
    if let Some(found) = read_by_redis_py(&server, "forebay:first") {
        assert_eq!(found, (0..30).collect::<Vec<_>>());
    }
}

#[test]
fn a_server_without_memory_gets_what_came_meanwhile_once_it_has_some() {
    let Some(server) = RedisServer::start(&["--maxmemory-policy", "noeviction"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut sink = spill(&server.url(), "s", &folder.path().join("spill"));
    let all = batches(40, 10);
    sink.write_batch(&all[0]).unwrap();
    server.run(&["CONFIG", "SET", "maxmemory", "1"]);
    sink.write_batch(&all[1]).unwrap();
    sink.write_batch(&all[2]).unwrap();
    assert_eq!((sink.batches(), server.length("s")), (2, 1));
    server.run(&["CONFIG", "SET", "maxmemory", "0"]);
    sink.write_batch(&all[3]).unwrap();
    assert_eq!((sink.batches(), steps(&server, "s")), (0, (0..40).collect()));
}
