//! `forebay serve`: clients that are slow, heads alone, and what is no number.

use std::io::{Read, Write};
use std::net::TcpStream;

use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Batch, Histogram, Image, Record, Value};

use super::{Server, json, line};

/// Sends a question as it is, and returns the answer.
fn send(server: &Server, question: &str) -> String {
    let mut stream = TcpStream::connect(&server.1).unwrap();
    stream.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_head_is_that_of_the_whole_answer_and_has_no_body() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), line(1)).unwrap();
    let server = Server::of(&[folder.path().to_str().unwrap()]);
    for target in ["/", "/data?name=loss&runs=0:0", "/media?run=0", "/nowhere"] {
        let ask = |method: &str| {
            send(&server, &format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n\r\n", server.1))
        };
        let (whole, head) = (ask("GET"), ask("HEAD"));
        let (of_whole, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(!body.is_empty() && of_whole.contains(&format!("content-length: {}", body.len())));
        // A moment later.
        assert_eq!(head, format!("{of_whole}\r\n\r\n"), "{target}");
    }
    let events = send(&server, &format!("HEAD /events HTTP/1.1\r\nHost: {}\r\n\r\n", server.1));
    assert!(events.contains("text/event-stream") && events.ends_with("\r\n\r\n"), "{events}");
    let posted = send(&server, &format!("POST / HTTP/1.1\r\nHost: {}\r\n\r\n", server.1));
    assert!(posted.starts_with("HTTP/1.1 400 ") && posted.ends_with("GET and HEAD are answered here\n"));
}

/// Clients that never ask, that ask byte by byte, and that never read: most of the 32 places are theirs, and the others are answered. A place
/// is free again when its time is over.
#[test]
fn slow_clients_keep_nobody_waiting_and_lose_their_places() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), line(1)).unwrap();
    let server = Server::of(&[folder.path().to_str().unwrap()]);
    let connect = || TcpStream::connect(&server.1).unwrap();
    // Who is refused may be so before it has asked.
    let whole = || {
        let (mut stream, mut answer) = (connect(), Vec::new());
        _ = write!(stream, "GET /index HTTP/1.1\r\nHost: {}\r\n\r\n", server.1);
        _ = stream.read_to_end(&mut answer);
        answer
    };
    // A place is free a moment after its client has gone.
    let is_answered = || {
        let answered = (0..1_000).find(|_| whole().starts_with(b"HTTP/1.1 200 "));
        assert!(answered.is_some(), "nobody is answered any more");
    };
    // They never send anything, or never its end.
    let mut silent: Vec<TcpStream> = (0..28).map(|_| connect()).collect();
    for stream in &mut silent[15..] {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").unwrap();
    }
    // One that asks, and reads the answer byte by byte.
    let mut slow = server.connect("/", &server.1);
    let mut answer = Vec::new();
    for _ in 0..100 {
        let mut byte = [0];
        slow.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
        is_answered();
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    slow.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"</html>\n"));
    // One more than there are places for is refused at once. (The server counts a client a moment after it has come.)
    let mut more = vec![connect(), connect()];
    let mut told = false;
    while !told && more.len() < 100 {
        told = whole().starts_with(b"HTTP/1.1 503 ");
        more.push(connect());
    }
    assert!(told, "there is a limit");
    drop(more);
    // A byte now and then gains no time: the server closes each of them.
    for stream in &mut silent {
        let mut rest = Vec::new();
        // It ends, or it is reset.
        _ = stream.write_all(b"x");
        _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "it has asked for nothing");
    }
    is_answered();
}

#[test]
fn pictures_distributions_and_long_texts_are_answered_for_the_run_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap();
    let text = format!("begin {} end", "x".repeat(1_000));
    let records = |step: u64| {
        vec![
            Record::with_value("sample", Value::Image(Box::new(Image::rgb(1, 1, vec![255, 0, 0]).unwrap()))),
            Record::with_value("weights", Histogram::from_values(&[1.0, 2.0, 2.0], 4)).with_step(step),
            Record::with_value("note", text.as_str()),
            Record::with_value("short", "a"),
        ]
    };
    sink.write_batch(&Batch::from_events(records(1))).unwrap();
    let server = Server::of(&[folder.path().to_str().unwrap()]);
    let ask = |target: &str| server.ask(target, &server.1);
    // The index is small: it has none of it.
    let index = json(&ask("/index").1);
    let notes = |others: &serde_json::Value, name: &str| {
        others.as_array().unwrap().iter().find(|other| other["name"] == name).unwrap().clone()
    };
    let others = &index["runs"][0]["others"];
    assert_eq!(notes(others, "note")["last"].as_str().unwrap().len(), 200);
    assert!(notes(others, "sample")["image"].is_null() && notes(others, "note")["text"].is_null());
    let media = json(&ask("/media?run=0").1);
    assert_eq!(notes(&media, "note")["text"], text.as_str());
    assert!(notes(&media, "short")["text"].is_null());
    assert_eq!(notes(&media, "sample")["image"]["width"], 1);
    assert_eq!(notes(&media, "weights")["heat"]["steps"], serde_json::json!([1]));
    // What comes later is there when it is asked for again.
    sink.write_batch(&Batch::from_events(records(2))).unwrap();
    assert_eq!(notes(&json(&ask("/media?run=0").1), "weights")["heat"]["steps"], serde_json::json!([1, 2]));
    assert_eq!(ask("/media?run=7"), ("200".to_owned(), "[]".to_owned()));
    assert_eq!(ask("/media?run=x").0, "400");
}

#[test]
fn a_file_of_somebody_else_is_no_empty_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), "hello\nworld\n").unwrap();
    let path = folder.path().to_str().unwrap();
    let server = Server::of(&[path]);
    let index = json(&server.ask("/index", &server.1).1);
    assert_eq!(index["runs"][0]["status"], "unreadable");
    assert!(index["runs"][0]["error"].as_str().unwrap().ends_with(" holds no events of forebay"));
    let once = super::text(&super::forebay(&["top", path, "--once", "--width", "80", "--height", "24"]));
    assert!(once.contains("unreadable") && once.contains("no events of forebay"), "{once}");
}
