//! Batches of a hundred scalars into a stream: through the sink, and by the same client and serde_json in a bare loop. Both make an entry of a
//! batch and wait for its answer; they take turns. And a call of `collect` while the server is stopped, beside one with a sink that does nothing.
//! `cargo bench -p forebay-redis` prints both and the ratio; `-- --test` runs through.
#![allow(clippy::print_stdout, reason = "its output is for a person")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]

#[path = "../../../benches/budget/duel.rs"]
mod duel;
#[path = "../tests/redis/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::panic, reason = "shared with the tests")]
mod server;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use forebay::sink::{MemorySink, RetryPolicy, Sink, SinkExt, from_fn};
use forebay::{Batch, Collector, FlushStrategy, Record};
use forebay_redis::RedisSink;

use duel::duel;
use server::RedisServer;

const BATCH: usize = 100;

/// Batches as a collector makes them.
fn batches(count: usize) -> Vec<Batch> {
    let memory = MemorySink::new();
    let builder = Collector::builder().flush(FlushStrategy::Size { events: BATCH }).batch_size(BATCH);
    let collector = builder.capacity(2 * BATCH * count).sink(memory.clone()).start().unwrap();
    for step in 0..(BATCH * count) as u64 {
        collector.collect(Record::scalar("train.loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    collector.stop().unwrap();
    memory.batches().iter().map(|batch| batch.with_events(batch.events().to_vec())).collect()
}

/// Calls in a row: they fit into the ring.
const CALLS: u64 = 4_000;

/// Returns how long so many calls of `collect` take, and waits until the worker has taken their events.
fn collect(collector: &Collector) -> Duration {
    let begun = Instant::now();
    for step in 0..CALLS {
        collector.collect(Record::scalar("train.loss", 0.5).with_step(step));
    }
    let took = begun.elapsed();
    while collector.stats().pending > 0 {
        std::thread::yield_now();
    }
    took
}

/// Measures a call while the server takes nothing, and its connection is open.
fn stalled(rounds: usize, server: &RedisServer) {
    let builder = || Collector::builder().flush(FlushStrategy::Size { events: BATCH }).batch_size(BATCH);
    let sink = RedisSink::open(&server.url()).unwrap().stream("stalled").timeout(Duration::from_secs(1));
    let ours =
        builder().sink(sink.retry(RetryPolicy::fixed(Duration::from_millis(100), 1_000))).start().unwrap();
    // The connection is made before.
    collect(&ours);
    while server.length("stalled") == 0 {
        std::thread::yield_now();
    }
    server.signal(libc::SIGSTOP);
    let null = builder().sink(from_fn("null", |_: &Batch| Ok(()))).start().unwrap();
    let duel = duel(rounds, CALLS as usize, || collect(&ours), || collect(&null));
    let evicted = ours.stats().sinks[0].evicted;
    server.signal(libc::SIGCONT);
    println!("collect, server stopped  {:.1} ns (its queue evicted {evicted} events)", duel.ours);
    println!("collect, sink that does nothing  {:.1} ns", duel.theirs);
    println!("ratio  {:.2} (median of {rounds} rounds)", duel.ratio);
}

fn main() {
    let is_test = std::env::args().any(|arg| arg == "--test");
    let (rounds, count) = if is_test { (1, 2) } else { (31, 100) };
    let Some(server) = RedisServer::start(&[]) else { return };
    let all = batches(count);
    let mut connection = server.connect();
    let mut lines = Vec::new();
    let mut bare = |round: usize| {
        let begun = Instant::now();
        for batch in &all {
            lines.clear();
            for record in batch {
                serde_json::to_writer(&mut lines, record).unwrap();
                lines.push(b'\n');
            }
            let mut command = redis::cmd("XADD");
            command.arg(format!("bare{round}")).arg("*").arg("events").arg(&lines);
            command.query::<String>(&mut connection).unwrap();
        }
        begun.elapsed()
    };
    let ours = |round: usize| {
        let mut sink = RedisSink::open(&server.url()).unwrap().stream(format!("ours{round}"));
        // The connection is made before.
        sink.write_batch(&all[0]).unwrap();
        let begun = Instant::now();
        all.iter().for_each(|batch| sink.write_batch(batch).unwrap());
        begun.elapsed()
    };
    // A stream of its own for each round.
    let (mut of_ours, mut of_bare) = (0.., 0..);
    let ours = || ours(of_ours.next().unwrap());
    let duel = duel(rounds, BATCH * count, ours, || bare(of_bare.next().unwrap()));
    println!("sink       {:.0} events/s", 1e9 / duel.ours);
    println!("bare loop  {:.0} events/s", 1e9 / duel.theirs);
    println!("ratio      {:.2} (median of {rounds} rounds; at least 0.8)", 1.0 / duel.ratio);
    stalled(10 * rounds, &server);
}
