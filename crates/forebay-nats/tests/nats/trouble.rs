//! Servers that refuse, and what that means for a batch: one outcome each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay::sink::{MemorySink, Sink, SinkError, SinkExt};
use forebay::{Batch, Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_nats::{NatsHistory, NatsSink, NatsStream};
use serde_json::json;

use crate::child::in_child;
use crate::delivery::batches;
use crate::kills::patient;
use crate::proxy::{Fate, proxy};
use crate::server::NatsServer;
use crate::support::{alone, law, until};

/// Offers a batch, which must be refused.
fn refusal(sink: &mut NatsSink) -> SinkError {
    sink.write_batch(&batches(3, 3)[0]).unwrap_err()
}

#[test]
fn a_url_that_cannot_be_used_is_refused_without_its_password() {
    for url in [
        "",
        "127.0.0.1",
        "http://u:secret@host/",
        "nats://u:secret@host:port",
        "nats://u:secret@",
        "nats://:secret@host",
        "nats://u:secret%zz@host",
        "nats://host,ws://u:secret@host",
    ] {
        let error = NatsSink::open(url).unwrap_err().to_string();
        assert!(error.starts_with("invalid url") && error.contains("expected nats://"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_server_that_is_not_there_fails_the_batch_for_now() {
    let Some(mut server) = NatsServer::start(&[]) else { return };
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    server.kill();
    let error = refusal(&mut sink);
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains(&server.port().to_string()), "{error}");
    server.restart();
    let all = batches(30, 10);
    sink.write_batch(&all[0]).unwrap();
    // A connection that broke meanwhile is made again at once.
    server.kill();
    server.restart();
    sink.write_batch(&all[1]).unwrap();
    assert_eq!(NatsHistory::open(&server.url(), "forebay.s").unwrap().account().unwrap().events, 20);
}

#[test]
fn a_wrong_password_fails_for_good_and_is_not_shown() {
    for arguments in [&["--user", "u", "--pass", "right"][..], &["--auth", "right"]] {
        let Some(server) = NatsServer::start(arguments) else { return };
        let url = server.url();
        let right = if arguments.len() == 4 { "//u:right@" } else { "//right@" };
        for url in [url.replace("//", &right.replace("right", "wrong-secret")), url.clone()] {
            let mut sink = NatsSink::open(&url).unwrap().subject("forebay.s");
            let error = refusal(&mut sink);
            assert!(!error.is_transient(), "{error}");
            let shown = format!("{error} {error:?} {sink:?}");
            assert!(!shown.contains("wrong-secret"), "{shown}");
        }
        // (Percent signs are those of URLs.)
        let url = url.replace("//", &right.replace("right", "r%69ght"));
        NatsSink::open(&url).unwrap().subject("forebay.s").write_batch(&batches(3, 3)[0]).unwrap();
    }
}

/// A pair of the documentation of NATS: the public key, and the seed.
#[cfg(feature = "nkeys")]
const NKEY: [&str; 2] = [
    "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4",
    "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY",
];

#[cfg(feature = "nkeys")]
#[test]
fn an_nkey_logs_in_and_what_is_none_fails_for_good_and_is_not_shown() {
    let lines = format!("authorization {{ users = [{{ nkey: {} }}] }}", NKEY[0]);
    let Some(server) = NatsServer::with_config(&lines) else { return };
    let sink = || NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    sink().nkey(NKEY[1]).write_batch(&batches(3, 3)[0]).unwrap();
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap().nkey(NKEY[1]);
    assert_eq!(history.account().unwrap().events, 3);
    for mut sink in [sink(), sink().nkey("SUSECRET")] {
        let error = refusal(&mut sink);
        assert!(!error.is_transient(), "{error}");
        assert!(!format!("{error} {error:?} {sink:?}").contains("SUSECRET"), "{error}");
    }
    let error = sink().credentials("SUSECRET").unwrap_err().to_string();
    assert!(error.contains("a JWT and a seed") && !error.contains("SUSECRET"), "{error}");
}

#[test]
fn a_user_who_may_not_write_is_refused_for_good_in_the_words_of_the_server() {
    let lines = r#"authorization { users = [{ user: u, password: p, permissions: {
        publish: ["$JS.API.>"], subscribe: ["_INBOX.>"] } }] }"#;
    let Some(server) = NatsServer::with_config(lines) else { return };
    let url = server.url().replace("//", "//u:p@");
    let error = refusal(&mut NatsSink::open(&url).unwrap().subject("forebay.s"));
    let said = error.to_string().to_lowercase();
    assert!(!error.is_transient() && said.contains("permissions violation"), "{error}");
}

#[test]
fn a_subject_that_is_none_and_one_of_another_stream_fail_for_good() {
    let Some(server) = NatsServer::start(&[]) else { return };
    for subject in ["", "a..b", "a.*", "a b", "forebay.>"] {
        let error = refusal(&mut NatsSink::open(&server.url()).unwrap().subject(subject));
        assert!(!error.is_transient() && error.to_string().contains("a subject must be"), "{error}");
    }
    server.ask("STREAM.CREATE.other", &json!({ "name": "other", "subjects": ["forebay.s"] }));
    let sink = || NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let error = refusal(&mut sink().stream(NatsStream::new().named("mine")));
    assert!(!error.is_transient() && error.to_string().contains("belongs to stream \"other\""), "{error}");
    let error = refusal(&mut sink().subject("forebay.t").stream(NatsStream::new().named("a b")));
    assert!(!error.is_transient() && error.to_string().contains("name of a stream must be"), "{error}");
    // A stream that is there is used as it is.
    sink().write_batch(&batches(3, 3)[0]).unwrap();
}

#[test]
fn a_server_without_jetstream_fails_the_batch_for_now_and_says_why() {
    // An account of its own, without it.
    let lines =
        "accounts { A { users: [{ user: a, password: a }] }, S { users: [{ user: s, password: s }] } }
        system_account: S";
    let Some(server) = NatsServer::with_config(lines) else { return };
    let url = server.url().replace("//", "//a:a@");
    let error = refusal(&mut NatsSink::open(&url).unwrap().subject("forebay.s"));
    assert!(error.to_string().to_lowercase().contains("jetstream"), "{error}");
}

#[test]
fn a_full_stream_that_keeps_what_it_has_fails_the_batch_for_now() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let stream = NatsStream::new().max_bytes(100_000).refuse_when_full();
    // Parts of one batch: all of them, or none.
    let sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s").max_message_bytes(2_000);
    let mut sink = sink.stream(stream);
    let all = batches(4_000, 400);
    let full = all.iter().position(|batch| {
        let before = server.length("forebay.s");
        let Err(error) = sink.write_batch(batch) else { return false };
        assert!(error.is_transient() && error.to_string().contains("maximum bytes"), "{error}");
        assert_eq!(server.length("forebay.s"), before);
        true
    });
    let full = full.unwrap();
    server.set("max_bytes", json!(-1));
    all[full..].iter().for_each(|batch| sink.write_batch(batch).unwrap());
    let account = NatsHistory::open(&server.url(), "forebay.s").unwrap().account().unwrap();
    assert_eq!((account.events, account.absent, account.removed), (4_000, 0, 0));
}

#[test]
fn of_two_producers_the_later_one_stays_and_the_other_learns_who_it_is() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let all = batches(40, 10);
    // The same session, and so the same subject.
    let mut first = NatsSink::open(&server.url()).unwrap();
    let mut second = NatsSink::open(&server.url()).unwrap();
    first.write_batch(&all[0]).unwrap();
    second.write_batch(&all[0]).unwrap();
    for batch in &all[1..] {
        let error = first.write_batch(batch).unwrap_err();
        assert!(!error.is_transient(), "{error}");
        let pid = format!("\"pid\":{}", std::process::id());
        assert!(
            error.to_string().contains("another producer") && error.to_string().contains(&pid),
            "{error}"
        );
        second.write_batch(batch).unwrap();
    }
    let subject = format!("forebay.{}.0", all[0].session());
    let account = NatsHistory::open(&server.url(), &*subject).unwrap().account().unwrap();
    assert_eq!((account.writers, account.events, account.absent), (2, 50, 0));
    // It does not come back where the other one's messages are gone.
    server.ask("STREAM.PURGE.forebay", &json!({}));
    first.write_batch(&all[0]).unwrap_err();
    second.write_batch(&all[0]).unwrap();
}

#[test]
fn the_place_of_a_batch_that_failed_is_marked() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let all = batches(30, 10);
    let sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let mut sink = sink.stream(NatsStream::new().refuse_when_full());
    sink.write_batch(&all[0]).unwrap();
    server.set("max_bytes", json!(1));
    sink.write_batch(&all[1]).unwrap_err();
    server.set("max_bytes", json!(-1));
    sink.write_batch(&all[2]).unwrap();
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap();
    let records = history.query(&EventQuery::new()).unwrap();
    assert_eq!((records[10].name(), records[10].value()), ("forebay.gap", &forebay::Value::Integer(10)));
    assert_eq!((records.len(), history.account().unwrap().absent), (21, 10));
}

#[test]
fn an_event_above_the_limit_of_the_server_fails_alone() {
    let Some(server) = NatsServer::with_config("max_payload: 10000") else { return };
    let batch: Batch = batches(400, 400).remove(0);
    let mut events: Vec<Record> = batch.events().to_vec();
    events.insert(50, Record::text("long", "x".repeat(20_000)));
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let error = sink.write_batch(&batch.with_events(events)).unwrap_err();
    assert_eq!(error.failed_events(), Some(1), "{error}");
    assert!(!error.is_transient() && error.to_string().contains("an event must have at most"), "{error}");
    // The rest of the batch is longer than a message, too.
    assert!(server.length("forebay.s") > 1);
    let records = NatsHistory::open(&server.url(), "forebay.s").unwrap().query(&EventQuery::new()).unwrap();
    let steps: Vec<_> = records.iter().filter_map(Record::step).collect();
    assert_eq!(steps, (0..400).collect::<Vec<_>>());
}

#[test]
fn a_forked_child_leaves_the_connection_to_its_parent() {
    alone!();
    let Some(server) = NatsServer::start(&[]) else { return };
    let all = batches(30, 10);
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    sink.write_batch(&all[0]).unwrap();
    let mut reader = NatsHistory::open(&server.url(), "forebay.s").unwrap().reader().unwrap();
    assert!(reader.poll().unwrap().is_some());
    let mut in_parent = Some(sink);
    let status = in_child(|| {
        let mut sink = in_parent.take().unwrap();
        let error = sink.write_batch(&all[1]).unwrap_err();
        let is_refused = !error.is_transient() && error.to_string().contains("forked child");
        // It waits for no thread of the parent.
        drop(sink);
        // A reader connects by itself.
        let others = std::iter::from_fn(|| reader.poll().unwrap()).count();
        is_refused && others == 9
    });
    assert_eq!(status, Some(0));
    assert_eq!(server.length("forebay.s"), 1);
    let mut sink = in_parent.unwrap();
    sink.write_batch(&all[1]).unwrap();
    assert_eq!(std::iter::from_fn(|| reader.poll().unwrap()).count(), 19);
}

#[test]
fn a_stream_that_was_deleted_and_a_server_that_came_back_empty_begin_again() {
    let Some(mut server) = NatsServer::start(&[]) else { return };
    let all = batches(50, 10);
    let mut sink = NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let mut reader = NatsHistory::open(&server.url(), "forebay.s").unwrap().reader().unwrap();
    let mut follow =
        || std::iter::from_fn(|| reader.poll().unwrap()).filter_map(|record| record.step()).count();
    sink.write_batch(&all[0]).unwrap();
    sink.write_batch(&all[1]).unwrap();
    assert_eq!(follow(), 20);
    server.ask("STREAM.DELETE.forebay", &json!({}));
    sink.write_batch(&all[2]).unwrap();
    assert_eq!(follow(), 10);
    server.kill();
    server.forget();
    server.restart();
    sink.write_batch(&all[3]).unwrap();
    assert_eq!(follow(), 10);
    sink.write_batch(&all[4]).unwrap();
    assert_eq!(follow(), 10);
    let account = NatsHistory::open(&server.url(), "forebay.s").unwrap().account().unwrap();
    // The server has forgotten that it had messages.
    assert_eq!((account.events, account.removed, account.absent), (20, 0, 30));
}

#[test]
fn a_server_that_does_not_answer_holds_up_neither_the_loop_nor_what_comes_after() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let sink = NatsSink::open(&server.url()).unwrap().timeout(Duration::from_millis(50)).retry(patient());
    let builder = Collector::builder().session_id("s").flush(FlushStrategy::Size { events: 10 });
    let other = MemorySink::new();
    let collector = builder.sink(sink).sink(other.clone()).start().unwrap();
    let collect = |steps: std::ops::Range<i64>| {
        steps.for_each(|step| _ = collector.collect(Record::integer("tick", step).with_step(step as u64)));
    };
    collect(0..100);
    until("the first are there", || server.length("forebay.s.0") > 0);
    server.signal(libc::SIGSTOP);
    collect(100..200);
    // The other sink gets all of them meanwhile.
    until("the other sink has all", || other.len() == 200);
    server.signal(libc::SIGCONT);
    collector.stop_timeout(crate::support::LONG).unwrap();
    assert_eq!(law(&collector, 200).processed, 200);
    let history = NatsHistory::open(&server.url(), "forebay.s.0").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_connection_that_is_half_open_is_left_and_one_that_is_slow_is_used() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let (is_cut, is_slow) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (cut, slow) = (Arc::clone(&is_cut), Arc::clone(&is_slow));
    let (port, _) = proxy(server.port(), move |_| {
        if slow.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(200));
        }
        if cut.load(Ordering::Relaxed) { Fate::Vanishes } else { Fate::Comes }
    });
    let all = batches(40, 10);
    let mut sink = NatsSink::open(&format!("nats://127.0.0.1:{port}")).unwrap().subject("forebay.s");
    sink.write_batch(&all[0]).unwrap();
    sink = sink.timeout(Duration::from_millis(200));
    is_cut.store(true, Ordering::Relaxed);
    let error = sink.write_batch(&all[1]).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("no answer within"), "{error}");
    is_cut.store(false, Ordering::Relaxed);
    sink.write_batch(&all[1]).unwrap();
    is_slow.store(true, Ordering::Relaxed);
    sink = sink.timeout(Duration::from_secs(20));
    all[2..].iter().for_each(|batch| sink.write_batch(batch).unwrap());
    let history = NatsHistory::open(&server.url(), "forebay.s").unwrap();
    let account = history.account().unwrap();
    assert_eq!((account.events, account.absent), (40, 0));
}

#[test]
fn a_message_of_somebody_else_is_an_error_in_its_place() {
    let Some(server) = NatsServer::start(&[]) else { return };
    let all = batches(20, 10);
    let sink = || NatsSink::open(&server.url()).unwrap().subject("forebay.s");
    let mut first = sink();
    first.write_batch(&all[0]).unwrap();
    server.request("forebay.s", b"temperature 20");
    let mut reader = NatsHistory::open(&server.url(), "forebay.s").unwrap().reader().unwrap();
    for _ in 0..10 {
        assert!(reader.poll().unwrap().is_some());
    }
    let error = reader.poll().unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("message 2"), "{error:?}");
    // It goes on behind it, as the stream grows.
    assert!(reader.poll().unwrap().is_none());
    // The subject is somebody else's now.
    let error = first.write_batch(&all[1]).unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("none of forebay's"), "{error}");
    sink().write_batch(&all[1]).unwrap();
    for _ in 0..10 {
        assert!(reader.poll().unwrap().is_some());
    }
    assert_eq!((reader.poll().unwrap(), reader.account().events), (None, 20));
}

/// A server for TLS with a certificate of its own, and that certificate.
fn with_tls() -> Option<(NatsServer, String)> {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let server = NatsServer::start(&["--tls", "--tlscert", cert, "--tlskey", key])?;
    Some((server, certified.cert.pem()))
}

#[test]
fn a_server_whose_certificate_is_trusted_gets_the_batch_and_no_other_does() {
    let Some((server, pem)) = with_tls() else { return };
    // The server asks for it, whatever the URL says.
    for url in [server.url(), server.url().replace("nats://", "tls://")] {
        let mut sink = NatsSink::open(&url).unwrap().subject("forebay.s").root_certificate(&pem).unwrap();
        sink.write_batch(&batches(3, 3)[0]).unwrap();
        let history = NatsHistory::open(&url, "forebay.s").unwrap().root_certificate(&*pem).unwrap();
        assert!(history.account().unwrap().events > 0);
        // By the roots of the system, and by another root.
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap().cert.pem();
        let sinks =
            [NatsSink::open(&url).unwrap(), NatsSink::open(&url).unwrap().root_certificate(other).unwrap()];
        for mut sink in sinks {
            let error = refusal(&mut sink);
            assert!(error.to_string().contains("certificate"), "{error}");
        }
    }
    NatsSink::open(&server.url()).unwrap().root_certificate("no certificate").unwrap_err();
}
