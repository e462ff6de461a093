//! A server that is killed at any moment, and answers that are lost.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use forebay::sink::{RetryPolicy, SinkExt};
use forebay::{Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::server::RedisServer;
use crate::support::law;

/// Tries again for as long as a test may take.
pub fn patient() -> RetryPolicy {
    RetryPolicy::fixed(Duration::from_millis(2), 100_000)
}

/// Number of kills: 10, or as many as `FOREBAY_KILLS` says.
fn kills() -> u64 {
    std::env::var("FOREBAY_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(10)
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
        .flush_timeout(crate::support::LONG);
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
    collector.stop_timeout(crate::support::LONG).unwrap();
    assert_eq!(law(&collector, step as u64).processed, step as u64);
    let history = RedisHistory::open(&server.url(), "forebay:s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..step as u64).collect::<Vec<_>>());
    let account = history.account().unwrap();
    assert_eq!((account.late, account.absent, account.removed), (0, 0, 0));
}

/// Passes on what comes to it, but of some answers that are so numbered: there it hangs up.
fn proxy(port: u16, loses: fn(u64) -> bool) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let (answers, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&lost);
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            // The test is over, and the server gone.
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (mut requests, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || _ = std::io::copy(&mut requests, &mut to_server));
            let (answers, lost) = (Arc::clone(&answers), Arc::clone(&lost));
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
    let (port, lost) = proxy(server.port(), |answer| (answer.wrapping_mul(2_654_435_761) >> 9) % 4 == 0);
    let sink = RedisSink::open(&format!("redis://127.0.0.1:{port}/"))
        .unwrap()
        .retry(patient())
        .isolated(10_000)
        .flush_timeout(crate::support::LONG);
    let builder =
        Collector::builder().session_id("s").flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.sink(sink).start().unwrap();
    (0..1000).for_each(|step| _ = collector.collect(Record::integer("tick", step).with_step(step as u64)));
    collector.stop_timeout(crate::support::LONG).unwrap();
    assert_eq!(law(&collector, 1000).processed, 1000);
    assert!(lost.load(Ordering::Relaxed) > 10);
    let history = RedisHistory::open(&server.url(), "forebay:s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..1000).collect::<Vec<_>>());
    assert_eq!(server.length("forebay:s:late"), 0);
}
