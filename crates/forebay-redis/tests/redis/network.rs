//! Connections that are half open or slow, and a failover to a replica that has not seen all.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use forebay::sink::{MemorySink, Sink, SinkExt};
use forebay::{Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::delivery::batches;
use crate::kills::patient;
use crate::server::RedisServer;
use crate::support::{LONG, law, until};

/// What a link does with a piece of bytes that comes from the server.
enum Pass {
    Now,
    /// Later: a slow line.
    After(Duration),
    /// Never, and neither does the line close: as if all packets were dropped.
    Never,
}

/// Link to a server whose port may change. Returns its own port.
fn link(target: Arc<AtomicU16>, pass: impl Fn() -> Pass + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, pass) = (listener.local_addr().unwrap().port(), Arc::new(pass));
    thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(client) = client else { return };
            let Ok(server) = TcpStream::connect(("127.0.0.1", target.load(Ordering::Relaxed))) else {
                // Nobody is there: it is refused.
                continue;
            };
            let (mut requests, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || _ = std::io::copy(&mut requests, &mut to_server));
            let pass = Arc::clone(&pass);
            thread::spawn(move || answers(server, client, &*pass));
        }
    });
    own
}

fn answers(mut server: TcpStream, mut client: TcpStream, pass: &dyn Fn() -> Pass) {
    let (mut buffer, mut is_dead) = ([0; 65536], false);
    while let Ok(size @ 1..) = server.read(&mut buffer) {
        match pass() {
            _ if is_dead => {}
            Pass::Now => {}
            Pass::After(time) => thread::sleep(time),
            Pass::Never => is_dead = true,
        }
        if !is_dead && client.write_all(&buffer[..size]).is_err() {
            break;
        }
    }
    _ = client.shutdown(Shutdown::Both);
    _ = server.shutdown(Shutdown::Both);
}

fn steps(url: &str, stream: &str) -> Vec<u64> {
    let history = RedisHistory::open(url, stream).unwrap();
    history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect()
}

#[test]
fn a_connection_that_is_half_open_is_given_up_and_nothing_is_doubled() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (answers, dead) = (AtomicU64::new(0), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&dead);
    let port = link(Arc::new(AtomicU16::new(server.port())), move || {
        if answers.fetch_add(1, Ordering::Relaxed) % 10 != 9 {
            return Pass::Now;
        }
        seen.fetch_add(1, Ordering::Relaxed);
        Pass::Never
    });
    let sink = RedisSink::open(&format!("redis://127.0.0.1:{port}/")).unwrap().stream("s");
    let sink = sink.timeout(Duration::from_millis(100)).retry(patient()).isolated(10_000);
    let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.sink(sink.flush_timeout(LONG)).start().unwrap();
    (0..500).for_each(|step| _ = collector.collect(Record::integer("tick", 0).with_step(step)));
    collector.stop_timeout(LONG).unwrap();
    let stats = law(&collector, 500);
    assert_eq!(stats.sinks[0].delivered, 500);
    assert!(dead.load(Ordering::Relaxed) > 3 && stats.sinks[0].retries > 3);
    assert_eq!(steps(&server.url(), "s"), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_line_of_200_ms_delays_batches_and_neither_the_loop_nor_others() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let late = Duration::from_millis(200);
    let port = link(Arc::new(AtomicU16::new(server.port())), move || Pass::After(late));
    let sink = RedisSink::open(&format!("redis://127.0.0.1:{port}/")).unwrap().stream("s");
    let other = MemorySink::new();
    let builder = Collector::builder().flush(FlushStrategy::Size { events: 100 }).batch_size(100);
    let collector = builder.sink(sink.retry(patient())).sink(other.clone()).start().unwrap();
    let begun = Instant::now();
    (0..1_000).for_each(|step| _ = collector.collect(Record::integer("tick", 0).with_step(step)));
    until("the other sink has all", || other.len() == 1_000);
    // The first answers are those to the look at the stream and to the first batch.
    let delivered = collector.stats().sinks[0].delivered;
    assert!(delivered < 1_000 || begun.elapsed() > late, "{delivered} in {:?}", begun.elapsed());
    collector.stop_timeout(LONG).unwrap();
    let stats = law(&collector, 1_000);
    assert_eq!((stats.sinks[0].delivered, stats.sinks[0].retries), (1_000, 0), "it is slow, and not down");
    assert_eq!(steps(&server.url(), "s"), (0..1_000).collect::<Vec<_>>());
}

#[test]
fn a_replica_that_lags_and_takes_over_goes_on_and_shows_what_it_has_not_got() {
    let (Some(mut old), Some(new)) = (RedisServer::start(&[]), RedisServer::start(&[])) else { return };
    let port = old.port().to_string();
    new.run(&["REPLICAOF", "127.0.0.1", &port]);
    let target = Arc::new(AtomicU16::new(old.port()));
    let link = link(Arc::clone(&target), || Pass::Now);
    let mut sink = RedisSink::open(&format!("redis://127.0.0.1:{link}/")).unwrap().stream("s");
    let all = batches(50, 10);
    sink.write_batch(&all[0]).unwrap();
    sink.write_batch(&all[1]).unwrap();
    until("the replica has them", || new.length("s") == 2);
    // From here on it gets nothing more.
    new.run(&["REPLICAOF", "NO", "ONE"]);
    sink.write_batch(&all[2]).unwrap();
    old.kill();
    target.store(new.port(), Ordering::Relaxed);
    sink.write_batch(&all[3]).or_else(|_| sink.write_batch(&all[3])).unwrap();
    sink.write_batch(&all[4]).unwrap();
    assert_eq!(steps(&new.url(), "s"), (0..20).chain(30..50).collect::<Vec<_>>());
    // What the old server had acknowledged, and the new one never saw.
    let account = RedisHistory::open(&new.url(), "s").unwrap().account().unwrap();
    assert_eq!((account.events, account.absent, account.writers), (40, 10, 1));
}
