//! Streams of a server in the place of a run.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use forebay::run::TrainingRun;
use forebay::{Collector, Record};
use forebay_redis::RedisSink;

use crate::server::RedisServer;
use crate::support::law;
use crate::{forebay, said, text};

fn collect(server: &RedisServer, steps: std::ops::Range<u64>) {
    let sink = RedisSink::open(&server.url()).unwrap().stream("forebay:job/0");
    let collector = Collector::builder().sink(sink).start().unwrap();
    let count = steps.end - steps.start;
    for step in steps {
        collector.collect(Record::scalar("loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    collector.stop().unwrap();
    law(&collector, count);
}

#[test]
fn a_stream_is_queried_and_followed_as_a_run_is() {
    let Some(server) = RedisServer::start(&[]) else { return };
    collect(&server, 0..100);
    let url = format!("{}forebay:job/0", server.url());
    let lines = text(&forebay(&["query", &url, "--steps", "10..20", "--json"]));
    assert_eq!(lines.lines().count(), 10, "{lines}");
    assert!(lines.starts_with("{\"name\":\"loss\""), "{lines}");
    let last = text(&forebay(&["query", &url, "--last"]));
    assert!(last.contains("99") && last.contains("0.01"), "{last}");
    assert_eq!(text(&forebay(&["tail", &url, "-n", "3"])).lines().count(), 3);
    assert_eq!(forebay(&["tail", &url, "-p", "nothing"]).status.code(), Some(1));

    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    let mut tail =
        command.args(["tail", "-f", "-n", "1", "--json", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"step\":99"));
    // Of another process, as far as the stream knows.
    collect(&server, 100..102);
    let found: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(found[0].contains("\"step\":100") && found[1].contains("\"step\":101"), "{found:?}");
}

#[test]
fn a_stream_is_followed_across_an_entry_of_somebody_else_and_a_restart_of_the_server() {
    let Some(mut server) = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]) else {
        return;
    };
    collect(&server, 0..3);
    server.run(&["XADD", "forebay:job/0", "*", "temperature", "20"]);
    collect(&server, 3..6);
    let url = format!("{}forebay:job/0", server.url());
    let output = forebay(&["tail", &url]);
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 6);
    assert_eq!(said(&output).lines().count(), 1, "{}", said(&output));

    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    let command = command.args(["tail", "-f", "-n", "1", "--json", &url]);
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"step\":5"));
    server.kill();
    server.restart();
    collect(&server, 6..7);
    let next = lines.next().unwrap().unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(next.contains("\"step\":6"), "{next}");
}

#[test]
fn a_stream_that_cannot_be_read_is_one_line_without_its_password() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    let url = server.url().replace("//", "//:secret@");
    server.kill();
    for (command, url) in
        [("query", format!("{url}s")), ("tail", format!("{url}s")), ("query", url.clone()), ("tail", url)]
    {
        let output = forebay(&[command, &url]);
        let said = said(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(!said.contains("secret") && output.stdout.is_empty(), "{said}");
    }
    let output = forebay(&["query", "redis://127.0.0.1/s", "--sql", "SELECT 1"]);
    assert!(said(&output).contains("--sql asks a database"), "{}", said(&output));
}

/// Has a rank write a run into a stream of its own, which ends if asked to.
fn rank(server: &RedisServer, rank: u64, ends: bool) {
    let sink = RedisSink::open(&server.url()).unwrap().stream(format!("forebay:job:{rank}"));
    let collector = Collector::builder().sink(sink).start().unwrap();
    let run = TrainingRun::builder().config([("rank", rank as f64)]).start(&collector).unwrap();
    for step in 0..100_u64 {
        let loss = (rank + 1) as f64 / (step + 1) as f64;
        collector.collect(Record::scalar("loss", loss).with_step(step));
    }
    if ends {
        run.completed([("accuracy", 0.5)]).unwrap();
    } else {
        run.failed("out of memory").unwrap();
    }
    collector.stop().unwrap();
    law(&collector, 102);
}

#[test]
fn streams_are_shown_as_runs_by_all_that_show_runs() {
    let Some(server) = RedisServer::start(&[]) else { return };
    rank(&server, 0, true);
    rank(&server, 1, false);
    server.run(&["SET", "forebay:job:text", "no stream"]);
    server.run(&["XADD", "other", "*", "temperature", "20"]);
    let of = |what: &str| format!("{}{what}", server.url());
    // By a pattern, and where no stream is named, those of forebay.
    for url in [of("forebay:job:*"), server.url(), of("0"), of("forebay:job:{0,1}")] {
        let url = if url.ends_with("/0") { format!("{url}/") } else { url };
        let runs = text(&forebay(&["runs", &url]));
        assert_eq!(runs.lines().count(), 3, "{url}: {runs}");
        assert!(runs.contains("forebay:job:0") && runs.contains("finished"), "{runs}");
        assert!(runs.contains("out of memory"), "{runs}");
    }
    let top = text(&forebay(&["top", &of("forebay:job:*"), "--once", "--width", "120", "--height", "30"]));
    for part in ["2 runs", "loss", "● forebay:job:0", "finished", "failed"] {
        assert!(top.contains(part), "{part}: {top}");
    }
    let best = text(&forebay(&["best", "loss", &of("forebay:job:*")]));
    assert!(best.lines().nth(1).unwrap().contains("forebay:job:0"), "{best}");
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let url = of("forebay:job:*").replace("//", "//default:@");
    let said = text(&forebay(&["report", &url, "-o", page.to_str().unwrap()]));
    assert!(said.contains("2 runs"), "{said}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("\"name\":\"forebay:job:1\"") && page.contains("\"count\":100"));
    assert!(!page.contains("default:@"), "a user and a password are not shown");
    let lines = text(&forebay(&["export", &of("forebay:job:1"), "--to", "json", "-o", "-"]));
    assert_eq!(lines.lines().count(), 102);
    // Of several streams, events are merged as of ranks.
    let merged = text(&forebay(&["query", &of("forebay:job:*"), "--merge", "step", "-n", "loss", "--json"]));
    assert_eq!(merged.lines().count(), 200);

    let output = forebay(&["top", &of("nobody:*"), "--once"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said_once(&output).contains("no stream that fits \"nobody:*\""));
    let output = forebay(&["report", &of("other"), "-o", "-"]);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("no events of forebay")
    );
}

fn said_once(output: &std::process::Output) -> String {
    let said = said(output);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_report_passes_over_an_entry_of_somebody_else_and_fails_without_a_server() {
    let Some(mut server) = RedisServer::start(&[]) else { return };
    collect(&server, 0..3);
    server.run(&["XADD", "forebay:job/0", "*", "temperature", "20"]);
    collect(&server, 3..6);
    let url = format!("{}forebay:job/0", server.url().replace("//", "//:secret@"));
    // The server has no password to ask for.
    server.run(&["CONFIG", "SET", "requirepass", "secret"]);
    let runs = text(&forebay(&["runs", "--json", &url]));
    assert!(runs.contains("\"events\":6"), "{runs}");
    server.kill();
    let output = forebay(&["report", &url, "-o", "-"]);
    let page = String::from_utf8_lossy(&output.stdout);
    assert!(page.contains("\"status\":\"unreadable\""), "the run is named, with the reason");
    assert!(!page.contains("secret"));
}
