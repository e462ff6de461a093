//! A server that is killed at any moment, and answers that are lost.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forebay::sink::{RetryPolicy, Sink, SinkExt};
use forebay::{Collector, FlushStrategy, Overflow, Record};
use forebay_history::{EventQuery, History};
use forebay_nats::{NatsHistory, NatsSink, NatsStream};
use serde_json::json;

use crate::delivery::batches;
use crate::proxy::{Fate, is_ack, proxy};
use crate::server::NatsServer;
use crate::support::{Killed, LONG, law, until};

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
    let Some(mut server) = NatsServer::start(&[]) else { return };
    let sink = NatsSink::open(&server.url())
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
    let history = NatsHistory::open(&server.url(), "forebay.s.0").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..step as u64).collect::<Vec<_>>());
    let account = history.account().unwrap();
    assert_eq!((account.redriven, account.absent, account.removed), (0, 0, 0));
    let Some(found) = server.read_in_python("forebay.s.0") else { return };
    assert_eq!((&found["doubles"], &found["holes"]), (&json!(0), &json!(0)));
    assert_eq!(found["steps"], json!((0..step).collect::<Vec<_>>()));
}

/// Collects into the server whose URL it is given, for the test below, until it is killed.
#[test]
fn collects_until_it_is_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let sink = NatsSink::open(&url).unwrap().subject("forebay.s").max_message_bytes(500);
    let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
    let collector = builder.overflow(Overflow::Block { timeout: LONG }).sink(sink).start().unwrap();
    for step in 0.. {
        collector.collect(Record::integer("tick", step).with_step(step as u64));
    }
}

/// The variable with that URL.
const URL: &str = "FOREBAY_NATS_URL_OF_A_TEST";

#[test]
fn a_producer_that_is_killed_leaves_whole_batches_without_a_hole() {
    let Some(server) = NatsServer::start(&[]) else { return };
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
        until("it has delivered something", || server.length("forebay.s") > enough);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        written = server.length("forebay.s");
    }
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap();
    let account = history.account().unwrap();
    assert_eq!((account.writers, account.absent, account.removed), (kills(), 0, 0));
    // Each one begins with 0, goes on without a hole, and leaves whole batches.
    let mut expected = 0;
    for record in history.query(&EventQuery::new()).unwrap() {
        let step = record.step().unwrap();
        let is_next_process = step == 0 && expected > 0 && expected % 10 == 0;
        assert!(step == expected || is_next_process, "{step} in the place of {expected}");
        expected = step + 1;
    }
    let Some(found) = server.read_in_python("forebay.s") else { return };
    assert_eq!((&found["doubles"], &found["holes"]), (&json!(0), &json!(0)));
    assert_eq!((&found["writers"], &found["events"]), (&json!(kills()), &json!(account.events)));
}

/// Loses a quarter of all answers that a batch is there.
fn loses_acks(port: u16) -> (u16, std::sync::Arc<AtomicU64>) {
    let acks = AtomicU64::new(0);
    proxy(port, move |bytes| {
        let is_lost = |ack: u64| (ack.wrapping_mul(2_654_435_761) >> 9).is_multiple_of(4);
        match is_ack(bytes) && is_lost(acks.fetch_add(1, Ordering::Relaxed)) {
            true => Fate::HangsUp,
            false => Fate::Comes,
        }
    })
}

#[test]
fn an_answer_that_is_lost_doubles_nothing() {
    let Some(server) = NatsServer::start(&[]) else { return };
    type Kind = (&'static str, fn(NatsSink) -> NatsSink);
    let kinds: [Kind; 3] = [
        ("batches", |sink| sink),
        ("events", NatsSink::message_per_event),
        ("parts", |sink| sink.max_message_bytes(200)),
    ];
    // Within the window of duplicates, and without one; with several messages at once, and one after the other.
    for (window, is_atomic) in [("short", true), ("short", false), ("long", true), ("long", false)] {
        for (kind, make) in kinds {
            let subject = format!("forebay.{kind}.{window}.{is_atomic}");
            server.ask("STREAM.DELETE.forebay", &json!({}));
            let settings = json!({
                "name": "forebay", "subjects": ["forebay.>"], "allow_atomic": is_atomic,
                "duplicate_window": if window == "short" { 100_000_000_u64 } else { 60_000_000_000 },
            });
            server.ask("STREAM.CREATE.forebay", &settings);
            let (port, lost) = loses_acks(server.port());
            let sink = NatsSink::open(&format!("nats://127.0.0.1:{port}")).unwrap().subject(&*subject);
            let sink = make(sink).retry(patient()).isolated(10_000).flush_timeout(LONG);
            let builder = Collector::builder().flush(FlushStrategy::Size { events: 10 }).batch_size(10);
            let collector = builder.sink(sink).start().unwrap();
            (0..200)
                .for_each(|step| _ = collector.collect(Record::integer("tick", step).with_step(step as u64)));
            collector.stop_timeout(LONG).unwrap();
            assert_eq!(law(&collector, 200).processed, 200);
            assert!(lost.load(Ordering::Relaxed) > 3);
            let history = NatsHistory::open(&server.url(), &*subject).unwrap();
            let found: Vec<_> =
                history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
            assert_eq!(found, (0..200).collect::<Vec<_>>(), "{subject}");
        }
    }
}

#[test]
fn a_batch_that_was_given_up_and_is_there_after_all_stops_none_that_comes_after() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let left = AtomicU64::new(0);
    let (port, lost) = proxy(server.port(), move |bytes| {
        // The second answer, and the one to its retry: the batch is given up.
        if is_ack(bytes) && left.fetch_add(1, Ordering::Relaxed) == 1 { Fate::Vanishes } else { Fate::Comes }
    });
    let sink = NatsSink::open(&format!("nats://127.0.0.1:{port}")).unwrap().subject("forebay.s");
    let mut sink = sink.timeout(Duration::from_millis(200)).stream(NatsStream::new());
    let all = batches(40, 10);
    sink.write_batch(&all[0]).unwrap();
    let error = sink.write_batch(&all[1]).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no answer within"), "{error}");
    assert_eq!((lost.load(Ordering::Relaxed), server.length("forebay.s")), (1, 2));
    sink.write_batch(&all[2]).unwrap();
    sink.write_batch(&all[3]).unwrap();
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap();
    let records = history.query(&EventQuery::new().name("tick")).unwrap();
    assert_eq!(records.iter().filter_map(Record::step).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
}
