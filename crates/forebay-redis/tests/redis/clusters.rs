//! Servers of which others say where they are: nodes of a cluster, and the master that sentinels name.

use std::process::{Command, Stdio};
use std::time::Duration;

use forebay::sink::{Sink, SinkExt};
use forebay::{Collector, FlushStrategy, Record};
use forebay_history::{EventQuery, History};
use forebay_redis::{RedisHistory, RedisSink};

use crate::delivery::batches;
use crate::kills::patient;
use crate::server::{RedisServer, free_port};
use crate::support::{Killed, LONG, law, skipped, until};

fn steps(url: &str, stream: &str) -> Vec<u64> {
    let history = RedisHistory::open(url, stream).unwrap();
    history.query(&EventQuery::new()).unwrap().iter().filter_map(Record::step).collect()
}

fn node(bus: u16) -> Option<RedisServer> {
    RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()])
}

#[test]
fn any_node_of_a_cluster_leads_to_the_one_that_has_the_stream() {
    let buses = [free_port(), free_port()];
    let (Some(first), Some(second)) = (node(buses[0]), node(buses[1])) else { return };
    first.run(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    second.run(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    first.run(&["CLUSTER", "MEET", "127.0.0.1", &second.port().to_string(), &buses[1].to_string()]);
    for node in [&first, &second] {
        until("the cluster is whole", || {
            let info = format!("{:?}", node.run(&["CLUSTER", "INFO"]));
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    // A node that is not there is passed over.
    let (nobody, port) = (free_port(), first.port());
    let all = batches(30, 10);
    let urls = [first.url(), second.url(), format!("redis+cluster://127.0.0.1:{nobody},127.0.0.1:{port}")];
    let streams: Vec<String> = (0..6).map(|number| format!("forebay:s{number}")).collect();
    for (number, stream) in streams.iter().enumerate() {
        let sink = RedisSink::open(&urls[number % 3]).unwrap().stream(stream);
        // A transaction of several entries as well as one.
        let mut sink = if number % 2 == 0 { sink } else { sink.entry_per_event() };
        all.iter().for_each(|batch| sink.write_batch(batch).unwrap());
        for url in &urls {
            assert_eq!(steps(url, stream), (0..30).collect::<Vec<_>>(), "{stream} by {url}");
        }
    }
    let of = |node: &RedisServer| RedisHistory::streams(&node.url(), "forebay:").unwrap();
    assert!(!of(&first).is_empty() && !of(&second).is_empty(), "both have some");
    assert_eq!(RedisHistory::streams(&urls[2], "forebay:").unwrap(), streams);

    // A node that is gone takes its slots with it: that passes, or so it is hoped.
    drop(second);
    let lost = streams.iter().find(|stream| !of(&first).contains(stream)).unwrap();
    let mut sink = RedisSink::open(&urls[2]).unwrap().stream(lost).timeout(Duration::from_millis(500));
    let error = sink.write_batch(&all[0]).unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[test]
fn sentinels_lead_to_the_next_master_when_the_first_one_is_gone() {
    let (Some(mut first), Some(second)) = (RedisServer::start(&[]), RedisServer::start(&[])) else { return };
    second.run(&["REPLICAOF", "127.0.0.1", &first.port().to_string()]);
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let config = folder.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor it 127.0.0.1 {} 1\nsentinel down-after-milliseconds it 200\nsentinel failover-timeout it 2000\n",
        folder.path().display(),
        first.port()
    );
    std::fs::write(&config, text).unwrap();
    let sentinel = Command::new("redis-server").arg(&config).arg("--sentinel").stdout(Stdio::null()).spawn();
    let Ok(sentinel) = sentinel else { return skipped("no sentinel") };
    let _sentinel = Killed(sentinel);
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let ask = |words: &[&str]| -> redis::RedisResult<redis::Value> {
        let mut command = redis::cmd("SENTINEL");
        words.iter().for_each(|word| _ = command.arg(*word));
        command.query(&mut client.get_connection()?)
    };
    let knows = |part: String| {
        move |answer: redis::RedisResult<redis::Value>| {
            answer.is_ok_and(|answer| format!("{answer:?}").contains(&part))
        }
    };
    let knows_replica = knows(second.port().to_string());
    until("the sentinel knows the replica", || knows_replica(ask(&["REPLICAS", "it"])));
    until("the replica follows", || {
        format!("{:?}", second.run(&["INFO", "replication"])).contains("master_link_status:up")
    });

    // A sentinel that is not there is passed over.
    let url = format!("redis+sentinel://127.0.0.1:{},127.0.0.1:{port}/it", free_port());
    let sink = RedisSink::open(&url).unwrap().stream("s").timeout(Duration::from_millis(500));
    let sink = sink.retry(patient()).isolated(10_000).flush_timeout(LONG);
    let builder = Collector::builder().flush(FlushStrategy::Manual).batch_size(10);
    let collector = builder.sink(sink).start().unwrap();
    let collect = |steps: std::ops::Range<u64>| {
        steps.for_each(|step| _ = collector.collect(Record::integer("tick", 0).with_step(step)));
        collector.flush_timeout(LONG).unwrap();
    };
    collect(0..50);
    until("the replica has them", || second.length("s") == 5);
    first.kill();
    // It is held until the sentinel has chosen.
    collect(50..100);
    collector.stop().unwrap();
    assert_eq!(law(&collector, 100).sinks[0].delivered, 100);
    assert_eq!(steps(&second.url(), "s"), (0..100).collect::<Vec<_>>());
    assert_eq!(steps(&url, "s"), (0..100).collect::<Vec<_>>());
    let error = RedisSink::open(&url.replace("/it", "/other")).unwrap().stream("s");
    let error = { error }.write_batch(&batches(3, 3)[0]).unwrap_err();
    assert!(error.to_string().contains("no sentinel knows the master"), "{error}");
}
