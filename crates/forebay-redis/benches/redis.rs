//! Batches of a hundred scalars into a stream: through the sink, and by the same client and serde_json in a bare loop. Both make an entry of a
//! batch and wait for its answer; they take turns. `cargo bench -p forebay-redis` prints both and the ratio; `-- --test` runs through.
#![allow(clippy::print_stdout, reason = "its output is for a person")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]

#[path = "../tests/redis/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::panic, reason = "shared with the tests")]
mod server;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use forebay::sink::{MemorySink, Sink};
use forebay::{Batch, Collector, FlushStrategy, Record};
use forebay_redis::RedisSink;

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
    let (mut mine, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (own, other) = if round % 2 == 0 {
            (ours(round), bare(round))
        } else {
            let other = bare(round);
            (ours(round), other)
        };
        mine.push(own.as_secs_f64());
        theirs.push(other.as_secs_f64());
        ratios.push(other.as_secs_f64() / own.as_secs_f64());
    }
    let events = (BATCH * count) as f64;
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let rate =
        |seconds: f64| format!("{:.0} events/s", events / Duration::from_secs_f64(seconds).as_secs_f64());
    println!("sink       {}", rate(median(&mut mine)));
    println!("bare loop  {}", rate(median(&mut theirs)));
    println!("ratio      {:.2} (median of {rounds} rounds; at least 0.8)", median(&mut ratios));
}
