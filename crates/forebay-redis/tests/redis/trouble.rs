//! Servers that refuse, and what that means for a batch: one outcome each.

use std::time::Duration;

use forebay::sink::{Sink, SinkError, SinkExt};
use forebay::{Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::child::in_child;
use crate::delivery::batches;
use crate::kills::patient;
use crate::server::RedisServer;
use crate::support::{alone, law, until};

/// Offers a batch, which must be refused.
fn refusal(sink: &mut RedisSink) -> SinkError {
    sink.write_batch(&batches(3, 3)[0]).unwrap_err()
}

#[test]
fn a_url_that_cannot_be_used_is_refused_without_its_password() {
    for url in
        ["", "127.0.0.1", "http://:secret@host/", "redis://:secret@host:port/", "redis://:secret@host/db"]
    {
        let error = RedisSink::open(url).unwrap_err().to_string();
        assert!(error.starts_with("invalid url") && error.contains("expected redis://"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn a_server_that_is_not_there_fails_the_batch_for_now() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    server.kill();
    let error = refusal(&mut sink);
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains(&server.port().to_string()), "{error}");
    server.restart();
    sink.write_batch(&batches(3, 3)[0]).unwrap();
    // A connection that broke meanwhile is made again at once.
    server.kill();
    server.restart();
    sink.write_batch(&batches(3, 3)[0]).unwrap();
}

#[test]
fn a_wrong_password_fails_for_good_and_is_not_shown() {
    let Some(server) = RedisServer::start(&["--requirepass", "right"]) else { return };
    let url = server.url();
    for url in [url.replace("//", "//:wrong-secret@"), url] {
        let mut sink = RedisSink::open(&url).unwrap().stream("s");
        let error = refusal(&mut sink);
        assert!(!error.is_transient(), "{error}");
        let shown = format!("{error} {error:?} {sink:?}");
        assert!(!shown.contains("wrong-secret"), "{shown}");
    }
}

#[test]
fn a_key_of_another_type_fails_for_good() {
    let Some(server) = RedisServer::start(&[]) else { return };
    server.run(&["SET", "s", "text"]);
    let error = refusal(&mut RedisSink::open(&server.url()).unwrap().stream("s"));
    assert!(!error.is_transient() && error.to_string().contains("WRONGTYPE"), "{error}");
    assert_eq!(error.failed_events(), None, "the whole batch");
}

#[test]
fn a_server_without_memory_or_that_may_not_write_fails_the_batch_for_now() {
    let Some(server) = RedisServer::start(&["--maxmemory-policy", "noeviction"]) else { return };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s").max_entry_bytes(100);
    for (begins, ends, said) in [
        (&["CONFIG", "SET", "maxmemory", "1"][..], &["CONFIG", "SET", "maxmemory", "0"][..], "memory"),
        (&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"], "read only"),
        (
            &["CONFIG", "SET", "min-replicas-to-write", "1"],
            &["CONFIG", "SET", "min-replicas-to-write", "0"],
            "replicas",
        ),
    ] {
        server.run(begins);
        let error = refusal(&mut sink);
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().to_lowercase().contains(said), "{said}: {error}");
        server.run(ends);
    }
    assert_eq!(server.length("s"), 0);
    sink.write_batch(&batches(3, 3)[0]).unwrap();
    assert_eq!(RedisHistory::open(&server.url(), "s").unwrap().account().unwrap().events, 3);
}

#[test]
fn a_server_that_cannot_save_fails_the_batch_for_now() {
    // What it saves to is a folder: as a full disk, that is an error of every save.
    let Some(server) = RedisServer::start(&["--dbfilename", "saved", "--save", "3600 1"]) else { return };
    let saved = server.folder().join("saved");
    let save = |outcome: &str| {
        server.run(&["BGSAVE"]);
        let status = format!("rdb_last_bgsave_status:{outcome}");
        let info = || format!("{:?}", server.run(&["INFO", "persistence"]));
        until("it has saved, or not", || {
            info().contains("rdb_bgsave_in_progress:0") && info().contains(&status)
        });
    };
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    let all = batches(20, 10);
    sink.write_batch(&all[0]).unwrap();
    std::fs::create_dir(&saved).unwrap();
    save("err");
    let error = sink.write_batch(&all[1]).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("MISCONF"), "{error}");
    std::fs::remove_dir(&saved).unwrap();
    save("ok");
    sink.write_batch(&all[1]).unwrap();
    assert_eq!(RedisHistory::open(&server.url(), "s").unwrap().account().unwrap().events, 20);
}

#[test]
fn a_server_that_came_back_empty_goes_on_with_the_next_batch() {
    // It keeps nothing.
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let sink = RedisSink::open(&server.url()).unwrap().stream("s").retry(patient()).isolated(1_000);
    let builder = Collector::builder().flush(FlushStrategy::Manual).batch_size(10);
    let collector = builder.sink(sink.flush_timeout(crate::support::LONG)).start().unwrap();
    let collect = |steps: std::ops::Range<u64>| {
        steps.for_each(|step| _ = collector.collect(Record::integer("tick", 0).with_step(step)));
        collector.flush_timeout(crate::support::LONG).unwrap();
    };
    collect(0..20);
    server.kill();
    server.restart();
    collect(20..40);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 40).sinks[0].delivered, 40);
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    // What it lost were its own; the numbers tell how many.
    assert_eq!(found, (20..40).collect::<Vec<_>>());
    assert_eq!(history.account().unwrap().absent, 20);
}

#[test]
fn an_event_that_no_server_takes_fails_for_good_and_those_behind_it_follow() {
    let Some(server) = RedisServer::start(&["--proto-max-bulk-len", "1mb"]) else { return };
    let all = batches(20, 10);
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    sink.write_batch(&all[0]).unwrap();
    let long = Record::text("long", "x".repeat(3 << 20));
    let error = sink.write_batch(&all[1].with_events(vec![long])).unwrap_err();
    assert!(!error.is_transient(), "it would be tried for ever: {error}");
    sink.write_batch(&all[1]).unwrap();
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..20).collect::<Vec<_>>());
}

#[test]
fn clocks_that_differ_by_an_hour_change_neither_order_nor_ids() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let hour = Duration::from_secs(3600);
    let all = batches(40, 10);
    let mut steps = 0;
    // Each process goes on behind the one before, and its clock is an hour behind that.
    for life in 0..4_u32 {
        let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
        let batch = &all[0];
        let events = batch.iter().map(|record| {
            steps += 1;
            record.clone().with_step(steps).with_time(record.time() - life * hour)
        });
        sink.write_batch(&batch.with_events(events.collect())).unwrap();
    }
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (1..=40).collect::<Vec<_>>());
    // A question for a time is one for what the producer said.
    let since = EventQuery::new().since(all[0].events()[0].time() - hour);
    assert_eq!(history.query(&since).unwrap().len(), 20);
    let account = history.account().unwrap();
    assert_eq!((account.writers, account.absent), (4, 0));
}

#[test]
fn a_user_with_the_rights_that_the_page_names_may_do_all_that_there_is() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let page = include_str!("../../../../docs/redis.md");
    let begin = page.find("`+xadd").unwrap() + 1;
    let rights: Vec<&str> =
        page[begin..].split('`').next().unwrap().split(' ').chain(["+select", "+scan"]).collect();
    let user = [&["ACL", "SETUSER", "u", "on", ">p", "~forebay:*"], &rights[..]].concat();
    server.run(&user);
    let url = server.url().replace("//", "//u:p@") + "1";
    for number in 0..2 {
        let sink = RedisSink::open(&url).unwrap().stream("forebay:s").entry_per_event();
        let mut sink = sink.max_len(1_000);
        batches(20, 10).iter().for_each(|batch| sink.write_batch(batch).unwrap());
        let history = RedisHistory::open(&url, "forebay:s").unwrap();
        assert_eq!(history.account().unwrap().events, 20 * (number + 1));
    }
    assert_eq!(RedisHistory::streams(&url, "forebay:").unwrap(), ["forebay:s"]);
    // It has no right to other keys.
    let error = refusal(&mut RedisSink::open(&url).unwrap().stream("other"));
    assert!(!error.is_transient() && error.to_string().contains("NOPERM"), "{error}");
}

#[test]
fn of_two_producers_the_later_one_stays_and_the_other_is_told_who_it_is() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let all = batches(40, 10);
    // The same session, and so the same stream.
    let mut first = RedisSink::open(&server.url()).unwrap();
    let mut second = RedisSink::open(&server.url()).unwrap();
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
    let stream = format!("forebay:{}", all[0].session());
    let account = RedisHistory::open(&server.url(), &*stream).unwrap().account().unwrap();
    assert_eq!((account.writers, account.events, account.absent), (2, 50, 0));
    // It does not come back where the other one's entries are gone.
    server.run(&["DEL", &stream]);
    first.write_batch(&all[0]).unwrap_err();
    second.write_batch(&all[0]).unwrap();
}

#[test]
fn a_user_who_may_use_no_transaction_gets_each_part_counted_once() {
    let Some(server) = RedisServer::start(&[]) else { return };
    server.run(&["ACL", "SETUSER", "u", "on", ">p", "~*", "+xadd", "+xrange", "+xrevrange", "+xinfo"]);
    let url = server.url().replace("//", "//u:p@");
    let mut sink = RedisSink::open(&url).unwrap().stream("s").entry_per_event();
    sink.write_batch(&batches(30, 30)[0]).unwrap();
    assert_eq!(server.length("s"), 30);
    // And one who may not even append is refused for good, in the server's words.
    server.run(&["ACL", "SETUSER", "u", "-xadd"]);
    let error = refusal(&mut sink);
    assert!(!error.is_transient() && error.to_string().contains("NOPERM"), "{error}");
}

#[test]
fn the_place_of_a_batch_that_failed_is_marked() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let all = batches(30, 10);
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    sink.write_batch(&all[0]).unwrap();
    server.run(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    sink.write_batch(&all[1]).unwrap_err();
    server.run(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    sink.write_batch(&all[2]).unwrap();
    let history = RedisHistory::open(&server.url(), "s").unwrap();
    let records = history.query(&EventQuery::new()).unwrap();
    assert_eq!((records[10].name(), records[10].value()), ("forebay.gap", &forebay::Value::Integer(10)));
    assert_eq!((records.len(), history.account().unwrap().absent), (21, 10));
}

#[test]
fn a_forked_child_leaves_the_connection_to_its_parent() {
    alone!();
    let Some(server) = RedisServer::start(&[]) else { return };
    let all = batches(30, 10);
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    sink.write_batch(&all[0]).unwrap();
    let status = in_child(|| {
        let error = sink.write_batch(&all[1]).unwrap_err();
        !error.is_transient() && error.to_string().contains("forked child")
    });
    assert_eq!(status, Some(0));
    assert_eq!(server.length("s"), 1);
    sink.write_batch(&all[1]).unwrap();
    assert_eq!(RedisHistory::open(&server.url(), "s").unwrap().account().unwrap().events, 20);
}

#[test]
fn a_stream_that_was_deleted_begins_again() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let all = batches(30, 10);
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    sink.write_batch(&all[0]).unwrap();
    server.run(&["DEL", "s"]);
    sink.write_batch(&all[1]).unwrap();
    sink.write_batch(&all[2]).unwrap();
    let account = RedisHistory::open(&server.url(), "s").unwrap().account().unwrap();
    // The server has forgotten that it had entries.
    assert_eq!((account.events, account.removed, account.absent), (20, 0, 10));
}

#[test]
fn a_server_that_does_not_answer_holds_up_neither_the_loop_nor_what_comes_after() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let sink = RedisSink::open(&server.url()).unwrap().timeout(Duration::from_millis(50)).retry(patient());
    let builder = Collector::builder().session_id("s").flush(FlushStrategy::Size { events: 10 });
    let other = forebay::sink::MemorySink::new();
    let collector = builder.sink(sink).sink(other.clone()).start().unwrap();
    let collect = |steps: std::ops::Range<i64>| {
        steps.for_each(|step| _ = collector.collect(Record::integer("tick", step).with_step(step as u64)));
    };
    collect(0..100);
    until("the first are there", || server.length("forebay:s") > 0);
    server.signal(libc::SIGSTOP);
    collect(100..200);
    // The other sink gets all of them meanwhile.
    until("the other sink has all", || other.len() == 200);
    server.signal(libc::SIGCONT);
    collector.stop_timeout(crate::support::LONG).unwrap();
    assert_eq!(law(&collector, 200).processed, 200);
    let history = RedisHistory::open(&server.url(), "forebay:s").unwrap();
    let found: Vec<_> = history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect();
    assert_eq!(found, (0..200).collect::<Vec<_>>());
}

#[test]
fn an_entry_of_somebody_else_is_an_error_in_its_place() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let all = batches(20, 10);
    let mut sink = RedisSink::open(&server.url()).unwrap().stream("s");
    sink.write_batch(&all[0]).unwrap();
    server.run(&["XADD", "s", "1-5", "temperature", "20"]);
    let mut reader = RedisHistory::open(&server.url(), "s").unwrap().reader().unwrap();
    for _ in 0..10 {
        assert!(reader.poll().unwrap().is_some());
    }
    let error = reader.poll().unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("entry 1-5"), "{error:?}");
    // It goes on behind it, as the stream grows.
    assert!(reader.poll().unwrap().is_none());
    sink.write_batch(&all[1]).unwrap();
    for _ in 0..10 {
        assert!(reader.poll().unwrap().is_some());
    }
    assert_eq!((reader.poll().unwrap(), reader.account().events), (None, 20));
}

/// A server for TLS with a certificate of its own, and that certificate.
#[cfg(feature = "tls")]
fn with_tls() -> Option<(RedisServer, String, String)> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let port = crate::server::free_port();
    let server = RedisServer::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        cert.to_str().unwrap(),
        "--tls-key-file",
        key.to_str().unwrap(),
        "--tls-ca-cert-file",
        cert.to_str().unwrap(),
        "--tls-auth-clients",
        "no",
    ])?;
    Some((server, format!("rediss://localhost:{port}/"), certified.cert.pem()))
}

#[cfg(feature = "tls")]
#[test]
fn a_server_whose_certificate_is_trusted_gets_the_batch_and_no_other_does() {
    let Some((_server, url, pem)) = with_tls() else { return };
    let mut sink = RedisSink::open(&url).unwrap().stream("s").root_certificate(&pem).unwrap();
    sink.write_batch(&batches(3, 3)[0]).unwrap();
    let history = RedisHistory::open(&url, "s").unwrap().root_certificate(pem).unwrap();
    assert_eq!(history.account().unwrap().events, 3);
    // By the roots of the system, and by another root.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap().cert.pem();
    let sinks =
        [RedisSink::open(&url).unwrap(), RedisSink::open(&url).unwrap().root_certificate(other).unwrap()];
    for mut sink in sinks {
        let error = refusal(&mut sink);
        assert!(error.to_string().contains("certificate"), "{error}");
    }
}
