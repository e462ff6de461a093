//! A server that is killed at any moment, and answers that are lost.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use forebay::sink::{RetryPolicy, Sink, SinkExt};
use forebay::{Collector, FlushStrategy, Overflow, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::delivery::batches;
use crate::server::RedisServer;
use crate::support::{Killed, LONG, law, until};

/// Tries again for as long as a test may take.
pub fn patient() -> RetryPolicy {
    RetryPolicy::fixed(Duration::from_millis(2), 100_000)
}

/// Number of kills: 10, or as many as `FOREBAY_KILLS` says.
pub fn kills() -> u64 {
    std::env::var("FOREBAY_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
}

/// Has redis-py read a stream, by a program that knows nothing of forebay: it fails where a number is there twice, or is missing. Returns the steps.
pub fn read_by_redis_py(server: &RedisServer, stream: &str) -> Option<Vec<u64>> {
    let of_ci = || {
        let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target").to_owned();
        std::env::var("CARGO_TARGET_DIR").unwrap_or(own) + "/servers/bin/python"
    };
    let python = std::env::var("FOREBAY_REDIS_PYTHON").unwrap_or_else(|_| of_ci());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_stream.py");
    let Ok(output) = Command::new(python).args([script, &server.url(), stream]).output() else {
        crate::support::skipped("no redis-py: `.ci/servers` installs it");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    Some(found["steps"].as_array().unwrap().iter().filter_map(serde_json::Value::as_u64).collect())
}

#[test]
fn a_server_that_is_killed_loses_nothing_and_doubles_nothing() {
    // It answers once the disk has it.
    let Some(mut server) = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    let sink = RedisSink::open(&server.url())
        .unwrap()
        .timeout(Duration::from_secs(2))
        .retry(patient())
        .isolated(10_000)
        .flush_timeout(LONG);
    let builder =
        Collector::builder().session_id("s").flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.sink(sink).start().unwrap();
    let mut step = 0;
    for kill in 0..kills() {
        // Another number each time, so that it is killed now in the middle of a batch, now between two.
        for _ in 0..100 + kill * 37 % 101 {
            collector.collect(Record::integer("tick", step).with_step(step as u64));
            step += 1;
        }
        server.kill();
        for _ in 0..10 {
            collector.collect(Record::integer("tick", step).with_step(step as u64));
            step += 1;
        }
        server.restart();
    }
    collector.stop_timeout(LONG).unwrap();
    assert_eq!(law(&collector, step as u64).processed, step as u64);
    let history = RedisHistory::open(&server.url(), "forebay:s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..step as u64).collect::<Vec<_>>());
    let account = history.account().unwrap();
    assert_eq!((account.redriven, account.absent, account.removed), (0, 0, 0));
    if let Some(found) = read_by_redis_py(&server, "forebay:s") {
        assert_eq!(found, (0..step as u64).collect::<Vec<_>>());
    }
}

/// Collects into the server whose URL it is given, for the test below, until it is killed.
#[test]
fn collects_until_it_is_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let sink = RedisSink::open(&url).unwrap().stream("s").max_entry_bytes(500);
    let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.overflow(Overflow::Block { timeout: LONG }).sink(sink).start().unwrap();
    for step in 0.. {
        collector.collect(Record::integer("tick", step).with_step(step as u64));
    }
}

/// The variable with that URL.
const URL: &str = "FOREBAY_REDIS_URL_OF_A_TEST";

#[test]
fn a_producer_that_is_killed_leaves_whole_batches_without_a_hole() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut written = 0;
    for kill in 0..kills() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kills::collects_until_it_is_killed", "--nocapture"])
            .env(URL, server.url())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let enough = written + 10 + kill * 37 % 50;
        until("it has delivered something", || server.length("s") > enough);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        written = server.length("s");
    }
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let account = history.account().unwrap();
    assert_eq!((account.writers, account.absent, account.removed), (kills(), 0, 0));
    // Each one begins with 0, and goes on without a hole.
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    let mut expected = 0;
    for step in &found {
        assert!(*step == expected || *step == 0 && expected > 0, "{step} in the place of {expected}");
        expected = step + 1;
    }
    if let Some(by_redis_py) = read_by_redis_py(&server, "s") {
        assert_eq!(by_redis_py, found);
    }
}

/// Passes on what comes to it, but of some answers that are so numbered: there it hangs up.
pub fn proxy(port: u16, loses: impl Fn(u64) -> bool + Send + Sync + 'static) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let (answers, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (seen, loses) = (Arc::clone(&lost), Arc::new(loses));
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            // The test is over, and the server gone.
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (mut requests, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || _ = std::io::copy(&mut requests, &mut to_server));
            let (answers, lost, loses) = (Arc::clone(&answers), Arc::clone(&lost), Arc::clone(&loses));
            thread::spawn(move || {
                let mut buffer = [0; 65536];
                while let Ok(bytes @ 1..) = server.read(&mut buffer) {
                    if loses(answers.fetch_add(1, Ordering::Relaxed)) {
                        lost.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    if client.write_all(&buffer[..bytes]).is_err() {
                        break;
                    }
                }
                _ = client.shutdown(std::net::Shutdown::Both);
                _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (own, seen)
}

#[test]
fn an_answer_that_is_lost_doubles_nothing() {
    let Some(server) = RedisServer::start(&[]) else { return };
    type Kind = (&'static str, fn(RedisSink) -> RedisSink);
    let kinds: [Kind; 3] = [
        ("batches", |sink| sink),
        ("events", RedisSink::entry_per_event),
        ("parts", |sink| sink.max_entry_bytes(200)),
    ];
    for (stream, kind) in kinds {
        let (port, lost) = proxy(server.port(), |answer| (answer.wrapping_mul(2_654_435_761) >> 9) % 4 == 0);
        let sink = kind(RedisSink::open(&format!("redis://127.0.0.1:{port}/")).unwrap().stream(stream));
        let sink = sink.retry(patient()).isolated(10_000).flush_timeout(LONG);
        let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
        let collector = builder.sink(sink).start().unwrap();
        (0..1000)
            .for_each(|step| _ = collector.collect(Record::integer("tick", step).with_step(step as u64)));
        collector.stop_timeout(LONG).unwrap();
        assert_eq!(law(&collector, 1000).processed, 1000);
        assert!(lost.load(Ordering::Relaxed) > 10);
        let history = RedisHistory::open(&server.url(), stream).unwrap();
        let found: Vec<_> =
            history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
        assert_eq!(found, (0..1000).collect::<Vec<_>>(), "{stream}");
    }
}

#[test]
fn an_answer_that_is_lost_counts_although_the_entry_is_gone() {
    let Some(server) = RedisServer::start(&["--stream-node-max-entries", "2"]) else { return };
    let to_lose = Arc::new(AtomicU64::new(0));
    let left = Arc::clone(&to_lose);
    let is_lost =
        move |_| left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
    let (port, lost) = proxy(server.port(), is_lost);
    let sink = RedisSink::open(&format!("redis://127.0.0.1:{port}/")).unwrap().stream("s");
    // The limit removes the first events of a batch before all of it is there.
    let mut sink = sink.entry_per_event().max_len(4);
    let all = batches(40, 10);
    sink.write_batch(&all[0]).unwrap();
    to_lose.store(1, Ordering::Relaxed);
    sink.write_batch(&all[1]).unwrap();
    assert_eq!(lost.load(Ordering::Relaxed), 1);
    assert!((4..8).contains(&server.length("s")));
    // The answer, and that to the next connection. Before the batch is offered again, a reader takes all.
    to_lose.store(2, Ordering::Relaxed);
    let error = sink.write_batch(&all[2]).unwrap_err();
    assert!(error.is_transient(), "{error}");
    server.run(&["XTRIM", "s", "MAXLEN", "0"]);
    sink.write_batch(&all[2]).unwrap();
    assert_eq!(server.length("s"), 0);
    sink.write_batch(&all[3]).unwrap();
    assert!((4..8).contains(&server.length("s")));
}

#[test]
fn a_server_that_has_become_a_replica_is_left() {
    let (Some(old), Some(new)) = (RedisServer::start(&[]), RedisServer::start(&[])) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let target = Arc::new(AtomicU64::new(u64::from(old.port())));
    let leads_to = Arc::clone(&target);
    // A name that leads to the old server, and then to the new one.
    thread::spawn(move || {
        for client in listener.incoming() {
            let port = u16::try_from(leads_to.load(Ordering::Relaxed)).unwrap();
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port))) else { return };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                thread::spawn(move || _ = std::io::copy(&mut from, &mut to));
            }
        }
    });
    for (number, kind) in [RedisSink::entry_per_event as fn(_) -> _, |sink| sink].into_iter().enumerate() {
        target.store(u64::from(old.port()), Ordering::Relaxed);
        old.run(&["REPLICAOF", "NO", "ONE"]);
        let mut sink = kind(RedisSink::open(&url).unwrap().stream(format!("s{number}")));
        let all = batches(30, 10);
        sink.write_batch(&all[0]).unwrap();
        // It keeps its connections.
        old.run(&["REPLICAOF", "127.0.0.1", "1"]);
        target.store(u64::from(new.port()), Ordering::Relaxed);
        let error = sink.write_batch(&all[1]).unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("READONLY"), "{error}");
        sink.write_batch(&all[1]).unwrap();
        let history = RedisHistory::open(&new.url(), format!("s{number}")).unwrap();
        assert_eq!(history.account().unwrap().events, 10);
    }
}
