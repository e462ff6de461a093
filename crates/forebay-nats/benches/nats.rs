//! Batches of a hundred scalars into a stream: through the sink, and by the same client and serde_json in a bare loop. Both make a message of a
//! batch and wait for its answer; they take turns. The loop does it as the sink does, with an id and the last message of the subject, which must
//! give at least 0.8; and as plainly as it can. `cargo bench -p forebay-nats` prints both and the ratio; `-- --test` runs through.
#![allow(clippy::print_stdout, reason = "its output is for a person")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]

#[path = "../../../benches/budget/duel.rs"]
mod duel;
#[path = "../tests/nats/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::panic, reason = "shared with the tests")]
mod server;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use async_nats::jetstream::message::PublishMessage;
use forebay::sink::{MemorySink, Sink};
use forebay::{Batch, Collector, FlushStrategy, Record};
use forebay_nats::NatsSink;

use duel::duel;
use server::NatsServer;

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
    let Some(server) = NatsServer::start(&[]) else { return };
    let all = batches(count);
    // On threads as the sink has them.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let client = runtime.block_on(async_nats::connect(server.url())).unwrap();
    let jetstream = runtime.block_on(async { async_nats::jetstream::new(client) });
    let bare = |round: usize, is_fenced: bool| {
        let (begun, mut last) = (Instant::now(), 0);
        for (number, batch) in all.iter().enumerate() {
            let mut lines = Vec::new();
            for record in batch {
                serde_json::to_writer(&mut lines, record).unwrap();
                lines.push(b'\n');
            }
            let mut message = PublishMessage::build().payload(lines.into());
            if is_fenced {
                message =
                    message.message_id(format!("{round}/{number}")).expected_last_subject_sequence(last);
            }
            let subject = format!("forebay.bare{round}");
            let place = async { jetstream.send_publish(subject, message).await.unwrap().await };
            last = runtime.block_on(place).unwrap().sequence;
        }
        begun.elapsed()
    };
    // (Both keep one connection: the server reads more at once from one that it knows.)
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.ours");
    sink.write_batch(&all[0]).unwrap();
    let mut ours = || {
        let begun = Instant::now();
        all.iter().for_each(|batch| sink.write_batch(batch).unwrap());
        begun.elapsed()
    };
    // A subject of its own for each round.
    let mut of_bare = 0..;
    for (what, is_fenced) in [("with an id and a fence", true), ("without", false)] {
        let duel = duel(rounds, BATCH * count, &mut ours, || bare(of_bare.next().unwrap(), is_fenced));
        println!("sink                             {:.0} events/s", 1e9 / duel.ours);
        println!("bare loop {what:<22} {:.0} events/s", 1e9 / duel.theirs);
        println!("ratio                            {:.2} (median of {rounds} rounds)", 1.0 / duel.ratio);
    }
}
