//! Ranks of the example, each of which streams into Redis what it writes into its files.
#![cfg(feature = "redis")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../../crates/forebay-redis/tests/redis/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of that crate")]
mod server;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::process::{Command, Stdio};

use forebay::Record;
use forebay_history::{EventQuery, History, JsonLinesHistory, RunEnd, runs};
use forebay_redis::RedisHistory;
use server::RedisServer;

#[test]
fn each_rank_has_a_stream_with_all_that_is_in_its_file() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_train_digits"))
        .args(["--ranks", "2", "--epochs", "2", "--redis", &server.url(), "--out"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let streams = RedisHistory::streams(&server.url(), "forebay:digits:").unwrap();
    assert_eq!(streams, ["forebay:digits:0", "forebay:digits:1"]);
    let mut losses = Vec::new();
    for (rank, stream) in streams.iter().enumerate() {
        let history = RedisHistory::open(&server.url(), stream).unwrap();
        let (all, query) = (history.query(&EventQuery::new()).unwrap(), EventQuery::new());
        let file = folder.path().join(format!("rank-{rank:05}/events.jsonl"));
        assert_eq!(all, JsonLinesHistory::open(file).unwrap().query(&query).unwrap());
        let run = runs(&history).unwrap().remove(0);
        assert!(matches!(run.end, Some(RunEnd::Completed)), "{run:?}");
        losses.push(
            all.iter().filter(|it| it.name() == "train.loss").map(Record::value).cloned().collect::<Vec<_>>(),
        );
    }
    assert_ne!(losses[0], losses[1], "each has a seed of its own");
}
