//! Subjects of NATS in the place of a run.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use forebay::{Collector, Record};
use forebay_nats::NatsSink;

use crate::nats_server::NatsServer;
use crate::support::law;
use crate::{forebay, said, text};

fn collect(server: &NatsServer, rank: u64, steps: std::ops::Range<u64>) {
    let sink = NatsSink::open(&server.url()).unwrap().subject(format!("forebay.job.{rank}"));
    let collector = Collector::builder().sink(sink).start().unwrap();
    let count = steps.end - steps.start;
    for step in steps {
        collector.collect(Record::scalar("loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    collector.stop().unwrap();
    law(&collector, count);
}

#[test]
fn a_subject_is_queried_and_followed_as_a_run_is() {
    let Some(mut server) = NatsServer::start(&[]) else { return };
    collect(&server, 0, 0..100);
    let url = format!("{}/forebay.job.0", server.url());
    let lines = text(&forebay(&["query", &url, "--steps", "10..20", "--json"]));
    assert_eq!(lines.lines().count(), 10, "{lines}");
    assert!(lines.starts_with("{\"name\":\"loss\""), "{lines}");
    let last = text(&forebay(&["query", &url, "--last"]));
    assert!(last.contains("99") && last.contains("0.01"), "{last}");
    assert_eq!(text(&forebay(&["tail", &url, "-n", "3"])).lines().count(), 3);
    assert_eq!(forebay(&["tail", &url, "-p", "nothing"]).status.code(), Some(1));
    // Of all ranks.
    collect(&server, 1, 0..7);
    let all = format!("{}/forebay.job.*", server.url());
    assert_eq!(text(&forebay(&["query", &all, "--json"])).lines().count(), 107);

    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    let command = command.args(["tail", "-f", "-n", "1", "--json", &url]);
    let mut tail = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("\"step\":99"));
    // Of another process, as far as the stream knows, and of one that comes behind a message of somebody else and a restart.
    collect(&server, 0, 100..101);
    server.request("forebay.job.0", b"temperature 20");
    server.kill();
    server.restart();
    collect(&server, 0, 101..102);
    let found: Vec<String> = lines.take(2).map(Result::unwrap).collect();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(found[0].contains("\"step\":100") && found[1].contains("\"step\":101"), "{found:?}");
}

#[test]
fn a_subject_that_cannot_be_read_is_one_line_without_its_password() {
    let Some(mut server) = NatsServer::start(&[]) else { return };
    let url = server.url().replace("//", "//u:secret@");
    server.kill();
    for (command, url) in
        [("query", format!("{url}/s")), ("tail", format!("{url}/s")), ("query", url.clone()), ("tail", url)]
    {
        let output = forebay(&[command, &url]);
        let said = said(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(!said.contains("secret") && output.stdout.is_empty(), "{said}");
    }
}

#[test]
fn a_subject_is_shown_as_a_run_by_what_shows_runs() {
    let Some(server) = NatsServer::start(&[]) else { return };
    collect(&server, 0, 0..100);
    let url = format!("{}/forebay.job.0", server.url());
    let top = text(&forebay(&["top", &url, "--once", "--width", "120", "--height", "30"]));
    assert!(top.contains("1 run") && top.contains("forebay.job.0") && top.contains("loss"), "{top}");
    let output = forebay(&["report", &url, "-o", "-"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"count\":100"));
}
