//! The commands, as a person runs them: the program, with its output captured.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[cfg(feature = "redis")]
mod broker;
mod doctor;
mod merge;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "nats")]
#[path = "../../../forebay-nats/tests/nats/server.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the tests of that crate")]
mod nats_server;
mod query;
mod serve;
#[cfg(feature = "redis")]
#[path = "../../../forebay-redis/tests/redis/server.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with the tests of that crate")]
mod server;
#[path = "../../../../tests/support/mod.rs"]
mod support;
#[cfg(unix)]
mod top;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forebay::run::TrainingRun;
use forebay::sink::{JsonLinesSink, SqliteSink};
use forebay::{Collector, Record};

fn forebay(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).args(args).output().unwrap()
}

/// Makes the folder of a run whose loss falls to `best` at step 50 and rises again.
fn run(folder: &Path, lr: f64, best: f64, end: impl FnOnce(TrainingRun)) {
    std::fs::create_dir_all(folder).unwrap();
    let sink = JsonLinesSink::create(folder.join("events.jsonl")).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    let run = TrainingRun::builder().config([("lr", lr)]).start(&collector).unwrap();
    for step in 0..100_u64 {
        let loss = best + (step as f64 - 50.0).abs() / 100.0;
        collector.collect(Record::scalar("loss", loss).with_step(step));
    }
    end(run);
    collector.stop().unwrap().stats.check_law(102).unwrap();
}

/// Returns what went to standard error.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Returns the cells of each line, which two spaces part.
fn cells(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines();
    lines.map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

fn three(folder: &Path) -> String {
    run(&folder.join("a"), 0.1, 0.25, |run| run.completed([("accuracy", 0.5)]).unwrap());
    run(&folder.join("b"), 0.2, 0.125, |run| run.failed("out of memory").unwrap());
    run(&folder.join("c"), 0.1, 0.5, |run| run.preempted("SIGTERM").unwrap());
    folder.to_str().unwrap().to_owned()
}

#[test]
fn runs_are_listed_with_their_status_steps_and_last_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let output = forebay(&["runs", &path]);
    assert_eq!(output.status.code(), Some(0));
    let text = text(&output);
    let rows = cells(&text);
    assert_eq!(rows[0], ["run", "status", "step", "events", "lost", "age", "why", "last values"]);
    assert_eq!(rows[1][..5], ["a", "finished", "99", "102", "0"], "{text}");
    assert_eq!(rows[1][6], "accuracy 0.5, loss 0.74");
    assert_eq!(rows[2][..2], ["b", "failed"]);
    assert_eq!(rows[3][..2], ["c", "preempted"]);
}

#[test]
fn the_best_run_is_the_first_line_and_losses_are_best_low() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let best = text(&forebay(&["best", "loss", &path]));
    assert_eq!(cells(&best)[1], ["b", "0.125", "50", "0.615", "99", "failed"], "{best}");
    let worst = text(&forebay(&["best", "loss", &path, "--max"]));
    assert_eq!(cells(&worst)[1][..3], ["c", "1", "0"], "{worst}");
    let json = text(&forebay(&["best", "loss", &path, "--json"]));
    let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!((&first["name"], &first["best"]), (&"b".into(), &0.125.into()));
}

#[test]
fn a_metric_that_is_not_there_is_named_with_those_that_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let output = forebay(&["best", "los", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "forebay: no run has the metric \"los\" (there are: loss, accuracy)\n"
    );
    // A new user is somewhere else.
    let output =
        Command::new(env!("CARGO_BIN_EXE_forebay")).arg("runs").current_dir(folder.path()).output().unwrap();
    assert_eq!(
        (output.status.code(), said(&output).as_str()),
        (Some(2), "forebay: there is no folder `runs` here: name the folder of your runs, or that of one\n")
    );
}

#[test]
fn a_comparison_has_the_settings_that_differ_and_the_reasons() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let all = text(&forebay(&["compare", &of("a"), &of("b")]));
    let rows = cells(&all);
    let row = |name: &str| rows.iter().find(|row| row[0] == name).map(|row| row[1..].to_vec());
    assert_eq!(row("status"), Some(vec!["finished", "failed"]));
    assert_eq!(row("reason"), Some(vec!["-", "out of memory"]));
    assert_eq!(row("lr"), Some(vec!["0.1", "0.2"]));
    assert_eq!(row("loss (min)"), Some(vec!["0.25 @ 50", "0.125 @ 50"]));
    // Both fall and rise again, the other one an eighth lower.
    let curves = row("loss (curve)").unwrap();
    let ends = |curve: &str| [0, 10, 19].map(|place| curve.chars().nth(place).unwrap());
    assert_eq!((curves.len(), ends(curves[0]), ends(curves[1])), (2, ['█', '▂', '█'], ['▇', '▁', '▇']));
    let same = text(&forebay(&["compare", &of("a"), &of("c")]));
    assert!(!cells(&same).iter().any(|row| row[0] == "lr"), "{same}");
}

#[test]
fn the_doctor_finds_what_is_wrong_and_nothing_in_a_run_that_is_well() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let well = forebay(&["doctor", &of("a")]);
    assert_eq!((well.status.code(), text(&well)), (Some(0), format!("{}: well\n", of("a"))));
    let output = forebay(&["doctor", &of("b")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("  failed: out of memory\n"));
    // A line that its writer did not end, alone and with others behind it.
    let file = folder.path().join("a/events.jsonl");
    let mut lines = std::fs::read_to_string(&file).unwrap();
    for (end, kind) in [("{\"name\":\"to", "torn"), ("\n", "damage")] {
        lines.push_str(end);
        std::fs::write(&file, &lines).unwrap();
        let output = forebay(&["doctor", "--json", &of("a")]);
        assert_eq!(output.status.code(), Some(1));
        let found: serde_json::Value = serde_json::from_str(text(&output).trim()).unwrap();
        assert_eq!(found["kind"], kind);
    }
}

#[test]
fn a_folder_of_another_program_is_read_as_well() {
    let torch = concat!(env!("CARGO_MANIFEST_DIR"), "/../tfevents/tests/torch-writer/scalar");
    let text = text(&forebay(&["runs", torch]));
    assert_eq!(cells(&text).len(), 2, "{text}");
}

/// Copies what PyTorch wrote: a run, and a session of its hyper-parameters in a folder of this name.
fn of_pytorch(folder: &Path, session: &str) -> String {
    let torch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tfevents/tests/torch-writer");
    let run = folder.join("a");
    std::fs::create_dir_all(run.join(session)).unwrap();
    for (from, to) in [("scalar", run.clone()), ("hparams/r1", run.join(session))] {
        for file in std::fs::read_dir(torch.join(from)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_session_that_pytorch_named_after_the_time_belongs_to_its_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_pytorch(folder.path(), "1795892296.5192404");
    let output = text(&forebay(&["runs", "--json", &path]));
    let run: serde_json::Value = serde_json::from_str(output.trim()).unwrap();
    assert_eq!((&run["name"], &run["status"], &run["lost"]), (&"a".into(), &"-".into(), &().into()));
    // A truth value is a number for PyTorch.
    let config = serde_json::json!({"bsize": 3.0, "amp": 1.0, "lr": 0.1, "opt": "sgd"});
    assert_eq!(run["config"], config);
    assert!(run["metrics"]["hparam/acc"]["last"]["value"].is_number(), "{output}");
    assert!(!output.contains("_hparams_/"), "settings are no metrics: {output}");
    let doctor = text(&forebay(&["runs", "--json", &path, "-m", "*"]));
    assert_eq!(doctor, output);
}

#[test]
fn a_session_of_another_name_is_a_run_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_pytorch(folder.path(), "r1");
    let output = text(&forebay(&["runs", "--json", &path]));
    let runs: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |run: usize| (runs[run]["name"].as_str().unwrap(), runs[run]["status"].as_str().unwrap());
    assert_eq!((runs.len(), of(0), of(1)), (2, ("a", "-"), ("a/r1", "-")));
    assert_eq!((&runs[0]["config"], &runs[1]["config"]["opt"]), (&serde_json::json!({}), &"sgd".into()));
}

#[test]
fn several_sessions_of_a_run_and_what_lies_in_one_are_runs_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = of_pytorch(folder.path(), "1795892296.5192404");
    let names = || {
        let output = text(&forebay(&["runs", "--json", &path]));
        let name = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].to_string();
        output.lines().map(name).collect::<Vec<String>>()
    };
    let session = folder.path().join("a/1795892296.5192404");
    run(&session.join("below"), 0.1, 0.25, |run| run.completed([("a", 0.5)]).unwrap());
    assert_eq!(names(), ["\"a\"", "\"a/1795892296.5192404/below\""]);
    of_pytorch(folder.path(), "1795892297.25");
    assert_eq!(names().len(), 4);
}

#[test]
fn a_name_that_no_event_has_is_said_with_those_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    run(&folder.path().join("a"), 0.1, 0.25, |run| run.completed([("val_loss", 0.5)]).unwrap());
    let path = folder.path().to_str().unwrap();
    for (args, why) in [
        (vec!["query", path, "-n", "lost"], "forebay: no event is named \"lost\" (there are: "),
        (
            vec!["query", path, "-n", "val_loss", "--last"],
            "is named \"val_loss\": it is in the events training.completed\n",
        ),
        (vec!["tail", path, "-p", "val*"], "is named \"val*\": it is in the events training.completed\n"),
        (vec!["compare", path, "-m", "lost"], "no run has the metric \"lost\" (there are: loss"),
        (vec!["runs", path, "-m", "lost"], "no run has the metric \"lost\" (there are: loss"),
    ] {
        let output = forebay(&args);
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{args:?}");
        assert!(said(&output).contains(why), "{args:?}: {}", said(&output));
    }
}

#[test]
fn a_run_that_diverged_does_not_flatten_the_curves_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let far = JsonLinesSink::create(folder.path().join("c/events.jsonl")).unwrap();
    let collector = Collector::builder().sink(far).start().unwrap();
    collector.collect(Record::scalar("loss", 1e9).with_step(99));
    collector.stop().unwrap().stats.check_law(1).unwrap();
    let compared = text(&forebay(&["compare", &path, "-m", "loss"]));
    let compared = cells(&compared);
    let curve = compared.iter().find(|row| row[0] == "loss (curve)").unwrap();
    assert!(curve[1].starts_with('█') && curve[2].contains('▁'), "{curve:?}");
    let plotted = forebay(&["plot", "loss", &path]);
    assert!(said(&plotted).contains("to 1.0000e9, far beyond most"), "{}", said(&plotted));
}

#[test]
fn a_plot_says_which_values_it_cannot_draw() {
    let torch = concat!(env!("CARGO_MANIFEST_DIR"), "/../tfevents/tests/torch-writer/scalar");
    let output = forebay(&["plot", "*", torch]);
    assert_eq!(output.status.code(), Some(0));
    assert!(said(&output).contains(" not finite, from step "), "{}", said(&output));
}

#[test]
fn the_last_events_are_printed_in_their_order_and_gaps_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let last = text(&forebay(&["tail", "-n", "2", "-p", "loss", &format!("{path}/a")]));
    let steps: Vec<&str> = last.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(steps, ["98", "99"], "{last}");
    let json = text(&forebay(&["tail", "-n", "1", "--form", "json", &format!("{path}/b")]));
    let record: Record = serde_json::from_str(json.trim()).unwrap();
    assert_eq!(record.name(), "training.failed");
}

#[test]
fn a_query_finds_by_name_and_step_and_answers_in_three_shapes() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let csv =
        text(&forebay(&["query", &format!("{path}/a"), "-n", "loss", "--steps", "50..52", "--shape", "csv"]));
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "time,step,name,value"));
    assert!(lines[1].ends_with(",50,loss,0.25") && lines[2].ends_with(",51,loss,0.26"), "{csv}");
    let json = text(&forebay(&["query", &path, "-n", "training.failed", "--shape", "json"]));
    let found: serde_json::Value = serde_json::from_str(json.trim()).unwrap();
    assert_eq!((&found["run"], &found["fields"]["error"]), (&"b".into(), &"out of memory".into()));
    let table = text(&forebay(&["query", &path, "-n", "loss", "--limit", "1", "--newest"]));
    assert_eq!(cells(&table).len(), 4, "{table}");
    for (steps, line) in [
        ("5..x", "forebay: invalid steps: \"5..x\" (expected FIRST..END, FIRST.., ..END or ONE)\n"),
        ("..0", "forebay: invalid steps: \"..0\" (the END is not among them, so it must be 1 or more)\n"),
    ] {
        let output = forebay(&["query", &path, "--steps", steps]);
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()),
            (Some(2), line.to_owned())
        );
    }
}

#[test]
fn a_query_without_an_answer_is_told_by_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    for shape in ["table", "json", "csv"] {
        let output = forebay(&["query", &path, "-n", "no.such.name", "--shape", shape]);
        assert_eq!(output.status.code(), Some(1), "{shape}");
    }
    let output = forebay(&["query", &path, "--newest"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn numbers_that_are_none_are_words_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let nan = line(2).replace("0.5", "\"NaN\"");
    std::fs::write(folder.path().join("events.jsonl"), line(1) + &nan).unwrap();
    let path = folder.path().to_str().unwrap();
    let best = json(&text(&forebay(&["best", "loss", "--json", path])));
    assert_eq!((&best["best"], &best["last"]), (&0.5.into(), &"NaN".into()));
}

#[test]
fn a_database_is_a_run_like_the_others_and_sql_cannot_change_it() {
    let folder = tempfile::tempdir().unwrap();
    let sink = SqliteSink::create(folder.path().join("events.db")).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    for step in 0..10 {
        collector.collect(Record::scalar("loss", 1.0 / (step + 1) as f64).with_step(step));
    }
    collector.stop().unwrap().stats.check_law(10).unwrap();
    let path = folder.path().to_str().unwrap();
    let best = text(&forebay(&["best", "loss", path]));
    assert_eq!(cells(&best)[1][1..3], ["0.1", "9"], "{best}");
    assert_eq!(text(&forebay(&["tail", "-n", "3", path])).lines().count(), 3);
    let sql =
        text(&forebay(&["query", path, "--sql", "SELECT max(step) AS last FROM events", "--shape", "json"]));
    assert_eq!(sql, "{\"last\":9}\n");
    let copy = folder.path().join("copy.db");
    for sql in ["DELETE FROM events", &format!("VACUUM INTO '{}'", copy.display())] {
        assert_eq!(forebay(&["query", path, "--sql", sql]).status.code(), Some(2), "{sql}");
    }
    assert!(!copy.exists());
    let output = forebay(&["query", path, "--sql", "SELECT * FROM events WHERE step > 100"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(cells(&text(&forebay(&["runs", path])))[1][3], "10");
}

#[test]
fn a_report_is_one_file_without_a_network_and_names_are_only_names() {
    let folder = tempfile::tempdir().unwrap();
    three(folder.path());
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>/*{page.js}*/";
    let sink = JsonLinesSink::create(folder.path().join("d.jsonl")).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    collector.collect(Record::scalar(hostile, 0.5).with_step(1));
    collector.collect(Record::text("note", hostile));
    collector.stop().unwrap().stats.check_law(2).unwrap();
    let out = folder.path().join("report.html");
    let (path, file) = (folder.path().to_str().unwrap(), folder.path().join("d.jsonl"));
    let said = text(&forebay(&["report", path, file.to_str().unwrap(), "-o", out.to_str().unwrap()]));
    assert!(said.contains("(4 runs, "), "{said}");
    let page = std::fs::read_to_string(&out).unwrap();
    // The scripts of the page: its data, the charts, whether it is live, its own.
    assert_eq!(page.matches("<script").count(), 4);
    assert_eq!(page.matches("</script>").count(), 4);
    assert!(!page.contains("<img"));
    assert!(!page.contains("src=\"http") && !page.contains("href="), "it needs a network");
    assert!(page.contains("Permission is hereby granted"), "the licence of the charts is kept");
    let begin = page.find("id=\"data\">").unwrap() + 10;
    let end = begin + page[begin..].find("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(&page[begin..end]).unwrap();
    assert_eq!(data["runs"][3]["series"][hostile]["values"][0], 0.5);
    assert_eq!(data["runs"][1]["reason"], "out of memory");
    let piped = forebay(&["report", path, "-o", "-"]);
    assert!(piped.stdout.starts_with(b"<!doctype html>"));
}

/// A server on a free port, and what it says it is reached by.
struct Server(std::process::Child, String);

impl Server {
    fn of(args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["serve", "--port", "0"]).args(args);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("http://").and_then(|line| line.split('/').next()).unwrap();
        Self(child, address.to_owned())
    }

    /// Asks, and returns the status and the body.
    fn ask(&self, target: &str, host: &str) -> (String, String) {
        let mut stream = self.connect(target, host);
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    }

    fn connect(&self, target: &str, host: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn line(step: i32) -> String {
    format!(r#"{{"name":"loss","time":"2026-11-21T08:00:00.000000000Z","step":{step},"scalar":0.5}}"#) + "\n"
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// Events of a server, as they come.
struct Events(BufReader<TcpStream>);

impl Events {
    /// Waits for the next version.
    fn next(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
            if let Some(version) = line.strip_prefix("data: ") {
                return version.trim().to_owned();
            }
        }
    }
}

#[test]
fn a_page_is_served_and_gets_what_has_changed_alone() {
    let folder = tempfile::tempdir().unwrap();
    for run in ["a", "b"] {
        std::fs::create_dir(folder.path().join(run)).unwrap();
        std::fs::write(folder.path().join(run).join("events.jsonl"), line(1)).unwrap();
    }
    let server = Server::of(&[folder.path().to_str().unwrap()]);
    let host = server.1.clone();
    let (status, page) = server.ask("/", &host);
    assert_eq!(status, "200");
    assert!(page.contains("const isLive = true;"));
    // A name of somebody else that leads here.
    assert_eq!(server.ask("/index", "evil.example:80").0, "421");
    let mut events = Events(BufReader::new(server.connect("/events", &host)));
    let first = events.next();
    let ask = |target: &str| json(&server.ask(target, &host).1);
    let index = ask("/index?since=0");
    assert_eq!((&index["whole"], index["runs"].as_array().unwrap().len()), (&true.into(), 2));
    assert_eq!(index["runs"][1]["series"]["loss"]["count"], 1);
    assert!(index["runs"][1]["series"]["loss"]["steps"].is_null(), "an index has no points");
    let data = ask("/data?name=loss&runs=0:0,1:0");
    assert_eq!(data["runs"]["1"]["steps"], serde_json::json!([1]));
    let path = folder.path().join("b/events.jsonl");
    let mut lines = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    lines.write_all(line(2).as_bytes()).unwrap();
    assert!(events.next() > first);
    let index = ask(&format!("/index?since={first}"));
    let names: Vec<_> = index["runs"].as_array().unwrap().iter().map(|run| run["name"].clone()).collect();
    assert_eq!((&index["whole"], names), (&false.into(), vec!["b".into()]));
    let data = ask(&format!("/data?name=loss&runs=0:{first},1:{first},99:0,x"));
    assert_eq!(data["runs"], serde_json::json!({"1": data["runs"]["1"]}));
    assert_eq!(data["runs"]["1"]["steps"], serde_json::json!([1, 2]));
}

#[test]
fn more_runs_are_served_than_a_process_may_have_files_open() {
    let folder = tempfile::tempdir().unwrap();
    for run in 0..150 {
        let run = folder.path().join(format!("run-{run:03}"));
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("events.jsonl"), line(1)).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let program = env!("CARGO_BIN_EXE_forebay");
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n 100 && exec {program} serve --port 0 {path}")]);
    let server = Server::spawn(limited);
    let mut events = Events(BufReader::new(server.connect("/events", &server.1)));
    events.next();
    let mut lines =
        std::fs::OpenOptions::new().append(true).open(folder.path().join("run-149/events.jsonl")).unwrap();
    lines.write_all(line(2).as_bytes()).unwrap();
    events.next();
    let index = json(&server.ask("/index", &server.1).1);
    let runs = index["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 150);
    let counts: Vec<_> = runs.iter().map(|run| run["events"].as_u64().unwrap()).collect();
    assert_eq!((counts[..149].iter().sum::<u64>(), counts[149]), (149, 2));
}

#[test]
fn those_who_wait_for_events_leave_room_for_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), line(1)).unwrap();
    let server = Server::of(&[folder.path().to_str().unwrap()]);
    let mut waiting = Vec::new();
    for _ in 0..24 {
        let mut events = Events(BufReader::new(server.connect("/events", &server.1)));
        events.next();
        waiting.push(events);
    }
    assert_eq!(server.ask("/events", &server.1).0, "503");
    assert_eq!(server.ask("/index", &server.1).0, "200");
}

#[test]
fn a_server_has_four_pages_its_own_name_and_a_token_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let server = Server::of(&[&path, "--token", "secret-of-the-test"]);
    let host = server.1.clone();
    for (target, host, status) in [
        ("/index?token=secret-of-the-test", host.as_str(), "200"),
        ("/index", &host, "403"),
        ("/index?token=secret-of-the-tesu", &host, "403"),
        // Who knows the token may have any name for this machine.
        ("/index?token=secret-of-the-test", "node7.example:80", "200"),
        ("/../../etc/passwd?token=secret-of-the-test", &host, "404"),
        ("/a/events.jsonl?token=secret-of-the-test", &host, "404"),
    ] {
        assert_eq!(server.ask(target, host).0, status, "{target} {host}");
    }
    for token in ["", "short", "with a space in it"] {
        let output = forebay(&["serve", "--token", token, "--port", "0", &path]);
        assert_eq!(output.status.code(), Some(2), "{token:?}");
    }
    // The settings of a program ignore a variable of this name, and of no other.
    let mut with_variable = Command::new(env!("CARGO_BIN_EXE_forebay"));
    let output =
        with_variable.args(["serve", "--port", "0", &path]).env("FOREBAY_TOKEN", "short").output().unwrap();
    let said = "forebay: --token must have 16 characters or more, of A-Z a-z 0-9 - _\n";
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(2), said));
    let output = forebay(&["serve", "--address", "0.0.0.0", "--port", "0", &path]);
    assert_eq!(output.status.code(), Some(2));
    let said =
        "forebay: --address 0.0.0.0 lets other machines ask: give --token SECRET, which they must know\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), said);
}

#[test]
fn wrong_arguments_and_missing_folders_are_one_line_and_status_2() {
    for (args, line) in [
        (
            &["runs", "/no/such/folder"][..],
            "forebay: cannot read /no/such/folder: No such file or directory (os error 2)",
        ),
        (
            &["best"],
            "forebay: the following required arguments were not provided: <METRIC> (see `forebay best --help`)",
        ),
        (&["frobnicate"], "forebay: unrecognized subcommand 'frobnicate' (see `forebay --help`)"),
        (
            &["tail", "--form", "x\ny"],
            "forebay: invalid value 'x y' for '--form <FORM>' [possible values: text, json] (see `forebay --help`)",
        ),
    ] {
        let output = forebay(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(said(&output), format!("{line}\n"));
    }
    let empty = tempfile::tempdir().unwrap();
    let output = forebay(&["runs", empty.path().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("forebay: there is no run in "));
}

#[test]
fn a_name_cannot_move_the_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let line = r#"{"name":"a\u001b[2Jb","time":"2026-11-21T08:00:00.000000000Z","step":1,"scalar":0.5}"#;
    std::fs::write(folder.path().join("events.jsonl"), format!("{line}\n")).unwrap();
    let path = folder.path().to_str().unwrap();
    for args in [&["runs", path][..], &["tail", path], &["compare", path], &["doctor", path]] {
        assert!(!text(&forebay(args)).contains('\x1b'), "{args:?}");
    }
}

#[test]
fn a_chart_is_drawn_in_the_terminal_and_written_as_an_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let chart = text(&forebay(&["plot", "loss", &path, "--width", "60", "--height", "10"]));
    let lines: Vec<&str> = chart.lines().collect();
    assert_eq!(lines.len(), 14, "{chart}");
    assert_eq!(lines[0], "loss  (step)");
    assert!(lines[1].starts_with("     1 ") && lines[9].starts_with(" 0.125 "), "{chart}");
    assert!(lines[10].trim_start().starts_with("0 ") && lines[10].ends_with(" 99"), "{chart}");
    assert_eq!(lines[11..], ["A a  0.74", "B b  0.615", "C c  0.99"]);
    assert!(lines.iter().all(|line| line.chars().count() <= 60), "{chart}");
    let image = folder.path().join("loss.svg");
    let said = text(&forebay(&["plot", "loss", &path, "--log", "-o", image.to_str().unwrap()]));
    assert!(said.ends_with("loss.svg (3 curves)\n"), "{said}");
    let image = std::fs::read_to_string(image).unwrap();
    assert!(image.starts_with("<svg ") && image.matches("class=\"curve\"").count() == 3);
    let image = folder.path().join("loss.PNG");
    let said = text(&forebay(&["plot", "loss", &path, "-o", image.to_str().unwrap()]));
    assert!(said.ends_with("loss.PNG (3 curves)\n"), "{said}");
    assert!(std::fs::read(image).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
    for (args, code) in [
        (&["plot", "los", &path][..], 1),
        (&["plot", "loss", &path, "-o", "x.gif"], 2),
        (&["plot", "loss", &path, "--smooth", "2"], 2),
        (&["plot", "loss", &path, "--width", "0", "--height", "0"], 0),
    ] {
        assert_eq!(forebay(args).status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn what_is_exported_and_imported_again_is_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let best = |path: &str| {
        let best = json(text(&forebay(&["best", "loss", "--json", path])).lines().next().unwrap());
        (best["best"].clone(), best["step"].clone(), best["last"].clone())
    };
    // By event files, with numbers of 32 bits, and by tables and objects.
    let said = text(&forebay(&["export", &of("a"), "--to", "tensorboard", "-o", &of("x/tb")]));
    assert!(said.ends_with("x/tb (102 events of 1 run)\n"), "{said}");
    assert_eq!(best(&of("x/tb")).1, 50);
    // The settings of the run are among what has no value.
    let output = forebay(&["import", &of("x/tb"), "-o", &of("y/tb")]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(best(&of("y/tb")), best(&of("x/tb")));
    for end in ["csv", "jsonl"] {
        let file = of(&format!("a.{end}"));
        let said = text(&forebay(&["export", &of("a"), "-n", "loss", "-o", &file]));
        assert!(said.contains(" (100 "), "{said}");
        if end == "csv" {
            let to = of("y/csv");
            text(&forebay(&["import", &file, "-o", &to]));
            assert_eq!(best(&to), best(&of("a")), "{end}");
            let again = forebay(&["import", &file, "-o", &to]);
            assert_eq!(again.status.code(), Some(2), "a run that is there stays");
        } else {
            assert_eq!(best(&file), best(&of("a")), "{end}");
        }
    }
    let several = text(&forebay(&["export", &path, "-n", "loss", "--to", "csv", "-o", "-"]));
    assert_eq!(several.lines().filter(|line| line.starts_with("b,loss,")).count(), 100);
    let several = forebay(&["export", &of("a"), &of("b"), "--to", "tensorboard", "-o", &of("z")]);
    assert_eq!(several.status.code(), Some(0));
    assert_eq!(cells(&text(&forebay(&["runs", &of("z")]))).len(), 3);
    let full = forebay(&["export", &of("a"), "--to", "tensorboard", "-o", &of("z")]);
    assert_eq!(full.status.code(), Some(2));
    assert_eq!(forebay(&["export", &of("a"), "-n", "none", "-o", &of("none.csv")]).status.code(), Some(1));
}

/// What a file of Parquet has is read by the library that wrote it here, and by pyarrow and polars in `tests/interop/parquet.py`.
#[cfg(feature = "parquet")]
#[test]
fn parquet_has_the_rows_of_csv() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    // Without a step, a truth value, no number, and a text, which is left out; a number that 64 bits of a float have no place for, and a moment
    // that is later than a record has.
    let odd = [
        r#""name":"odd","time":"2026-11-21T08:00:00.000000004Z","integer":9007199254740993"#,
        r#""name":"odd","time":"2400-01-01T00:00:00.000000000Z","scalar":2"#,
        r#""name":"odd","time":"2026-11-21T08:00:00.000000001Z","bool":true"#,
        r#""name":"odd","time":"2026-11-21T08:00:00.000000002Z","step":-7,"scalar":"NaN""#,
        r#""name":"odd","time":"2026-11-21T08:00:00.000000003Z","text":"a""#,
    ];
    std::fs::create_dir(folder.path().join("d")).unwrap();
    // More rows than are in one group.
    let many = (0..100_000)
        .map(|step| format!(r#""name":"many","time":"2026-11-21T08:00:00Z","step":{step},"scalar":0.5"#));
    let lines: String =
        odd.map(str::to_owned).into_iter().chain(many).map(|it| format!("{{{it}}}\n")).collect();
    std::fs::write(folder.path().join("d/events.jsonl"), lines).unwrap();
    let of = |end: &str| folder.path().join(format!("out.{end}")).to_str().unwrap().to_owned();
    let said = text(&forebay(&["export", &path, "-o", &of("csv"), "--json"]));
    let parquet = text(&forebay(&["export", &path, "-o", &of("parquet"), "--json"]));
    assert_eq!(json(&said)["values"], json(&parquet)["values"]);
    assert_eq!(json(&said)["left_out"], json(&parquet)["left_out"]);
    let file = SerializedFileReader::new(std::fs::File::open(of("parquet")).unwrap()).unwrap();
    let rows: Vec<String> = file
        .get_row_iter(None)
        .unwrap()
        .map(|row| {
            let row = row.unwrap();
            let step = row.get_long(2).map_or_else(|_| String::new(), |step| step.to_string());
            // A moment of nanoseconds has no form of its own in that reader.
            let nanos = u64::try_from(row.get_long(3).unwrap()).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
            let time = humantime::format_rfc3339_nanos(time);
            let (run, name) = (row.get_string(0).unwrap(), row.get_string(1).unwrap());
            format!("{run},{name},{step},{time},{}", row.get_double(4).unwrap())
        })
        .collect();
    let csv = std::fs::read_to_string(of("csv")).unwrap();
    assert!(csv.contains("d,odd,,2116-02-20T23:53:38.427387903Z,2"), "the last moment of a record");
    let as_parquet = |row: &str| row.replace("9007199254740993", "9007199254740992");
    let as_floats = csv.lines().skip(1).map(as_parquet).collect::<Vec<_>>();
    assert!(rows == as_floats, "{:?}", rows.iter().zip(&as_floats).find(|(own, wanted)| own != wanted));
    assert!(
        file.num_row_groups() == 2
            && rows.len() > 100_300
            && rows.contains(&"d,odd,,2026-11-21T08:00:00.000000001Z,1".to_owned())
    );
    let output = forebay(&["export", &path, "-o", "-", "--to", "parquet"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        self::said(&output),
        "forebay: --out must name a file for --to parquet, which is no text, got -\n"
    );
    // Without a row, it is a file all the same.
    let output = forebay(&["export", &path, "-n", "none", "-o", &of("parquet")]);
    assert_eq!(output.status.code(), Some(1));
    let file = SerializedFileReader::new(std::fs::File::open(of("parquet")).unwrap()).unwrap();
    assert_eq!((file.num_row_groups(), file.metadata().file_metadata().num_rows()), (0, 0));
}

/// One of two event files is a folder: it cannot be read, also by root.
#[test]
fn one_of_several_event_files_that_cannot_be_read_is_an_error_and_damage_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = three(folder.path());
    let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let made = forebay(&["export", &of("a"), "-n", "loss", "--to", "tensorboard", "-o", &of("tb")]);
    assert_eq!(made.status.code(), Some(0), "{path}");
    std::fs::create_dir(folder.path().join("tb/z.tfevents.9")).unwrap();
    let ask = |to: &str| -> Vec<(Option<i32>, String, usize)> {
        let (tb, csv, runs) = (of("tb"), of(&format!("{to}.csv")), of(to));
        let all = [
            &["query", &tb, "--csv"][..],
            &["query", &tb, "--csv", "--newest", "--limit", "1000"],
            &["export", &tb, "-o", "-", "--to", "csv"],
            &["export", &tb, "-o", &csv],
            &["import", &tb, "-o", &runs],
            &["tail", &tb, "-n", "1000"],
        ];
        all.iter()
            .map(|args| {
                let output = forebay(args);
                (
                    output.status.code(),
                    self::said(&output),
                    output.stdout.split(|byte| *byte == b'\n').count(),
                )
            })
            .collect()
    };
    let asked = ask("x");
    for (code, said, _) in &asked {
        assert_eq!(*code, Some(2), "{said}");
        assert!(said.contains("z.tfevents.9: an event file must be a plain file"), "{said}");
    }
    // What the other file has is given.
    for place in [0, 2, 5] {
        assert!(asked[place].2 > 100, "{:?}", asked[place]);
    }
    assert!(!folder.path().join("x.csv").exists());
    std::fs::remove_dir(folder.path().join("tb/z.tfevents.9")).unwrap();
    let file = std::fs::read_dir(of("tb")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let asked = ask("y");
    for (place, (code, said, _)) in asked.iter().enumerate() {
        assert_eq!(*code, Some(0), "{said}");
        let is_said = (2..=4).contains(&place);
        assert_eq!(said.contains("1 place passed over"), is_said, "{place}: {said}");
    }
}

#[test]
fn tables_and_objects_of_other_programs_are_imported() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let import = |name: &str, text: &str| {
        std::fs::write(of(name), text).unwrap();
        let to = of(&format!("out-{name}"));
        let output = forebay(&["import", &of(name), "-o", &to]);
        let lines = std::fs::read_to_string(format!("{to}/events.jsonl")).unwrap_or_default();
        let records: Vec<Record> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let said: Vec<(String, Option<i64>, Option<f64>, u64)> = records
            .iter()
            .map(|it| {
                (it.name().to_owned(), it.signed_step(), it.value().as_f64(), it.unix_nanos() / 1_000_000)
            })
            .collect();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said, stderr)
    };
    let at =
        |name: &str, step: i64, value: f64, millis: u64| (name.to_owned(), Some(step), Some(value), millis);
    // TensorBoard's download: its metric has the name of the file.
    let (code, said, _) = import("loss.csv", "Wall time,Step,Value\n1700000000.5,7,0.25\n");
    assert_eq!((code, said), (0, vec![at("loss", 7, 0.25, 1_700_000_000_500)]));
    // A table of a loop, with a hole and a text.
    let (code, said, stderr) =
        import("table.csv", "step,timestamp,loss,note\r\n1.0,1700000000,0.5,\r\n2.0,1700000001,,\"a,b\"\r\n");
    assert_eq!((code, said), (0, vec![at("loss", 1, 0.5, 1_700_000_000_000)]));
    assert!(stderr.contains("1 value left out"), "{stderr}");
    // The history of wandb, as Python writes it.
    let history =
        r#"[{"_step": 3, "_timestamp": 1700000000, "_runtime": 9, "loss": NaN, "eval": {"acc": 0.5}}]"#;
    let (code, said, _) = import("history.json", history);
    assert_eq!((code, said.len()), (0, 2));
    assert_eq!(said[0], at("eval/acc", 3, 0.5, 1_700_000_000_000));
    assert!(said[1].0 == "loss" && said[1].2.unwrap().is_nan());
    for (name, text, line) in [
        ("a.csv", "step,loss\nx,0.5\n", "line 2: a step must be a whole number, got \"x\""),
        ("b.csv", "step,loss\n1,0.5,9\n", "line 2: it has 3 values, and the head has 2 names"),
        ("c.csv", "", "line 1: a table begins with the names of its columns"),
        ("d.jsonl", "{\"loss\":1}\n{\"loss\":", "line 2: EOF while parsing a value"),
        ("e.json", "[1]", "line 1: a row must be an object with the values of a step, got 1"),
        ("g.jsonl", "{\"step\":1.5,\"loss\":1}", "line 1: step must be a whole number, got 1.5"),
        ("f.json", "[", "line 1: EOF while parsing a list"),
    ] {
        let (code, _, stderr) = import(name, text);
        assert_eq!((code, stderr.lines().count()), (2, 1), "{name}");
        assert!(stderr.contains(line), "{stderr}");
    }
}

/// The files are those of the real wandb: tests/wandb-writer/make.py.
#[test]
fn what_wandb_wrote_is_imported() {
    let wandb = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wandb-writer");
    let folder = tempfile::tempdir().unwrap();
    let to = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let said = json(&text(&forebay(&["import", wandb, "-o", &to("runs"), "--json"])));
    assert_eq!((&said["runs"], &said["left_out"]), (&2.into(), &0.into()));
    let runs: Vec<_> = text(&forebay(&["runs", &to("runs"), "--json"])).lines().map(json).collect();
    let of = |name: &str| runs.iter().find(|run| run["name"] == name).unwrap();
    let (finished, failed) = (of("finished"), of("failed"));
    assert_eq!((&finished["status"], &failed["status"]), (&"finished".into(), &"failed".into()));
    assert_eq!(failed["reason"], "the process ended with exit code 3");
    let config = serde_json::json!({
        "lr": 0.02, "layers": [64, 32], "optimizer": {"name": "adam", "betas": [0.9, 0.999]}, "amp": true, "note": "größer",
        "lr_at_end": 0.002,
    });
    assert_eq!(finished["config"], config);
    let metrics = &finished["metrics"];
    assert_eq!(
        (&metrics["train/loss"]["count"], &metrics["train/loss"]["max"]["value"]),
        (&60.into(), &1.0.into())
    );
    assert_eq!(metrics["eval/accuracy"]["last"], serde_json::json!({"step": 100, "value": 0.97}));
    assert_eq!(metrics["nested/inner/value"]["last"]["value"], 20.0);
    // Of the summary, what was logged is there already.
    assert_eq!(metrics["best_accuracy"]["last"]["value"], 0.98);
    assert!(metrics["system.memory_percent"]["count"].as_u64() > Some(1), "{metrics}");
    let events = |name: &str| -> Vec<serde_json::Value> {
        let args = ["query", &to("runs/finished"), "--json", "-n", name];
        text(&forebay(&args)).lines().map(json).collect()
    };
    let weights = events("weights");
    assert_eq!(weights.len(), 3);
    assert_eq!(weights[0]["histogram"]["counts"], serde_json::json!([13, 12, 13, 12, 12, 13, 12, 13]));
    assert_eq!(events("text")[0]["text"], "x".repeat(40_000));
    assert_eq!(events("train/loss")[45]["scalar"], "NaN");
    // A run whose process was killed has no end: nobody knows what came of it. A byte that is wrong is damage.
    let whole = std::fs::read(format!("{wandb}/finished.wandb")).unwrap();
    let mut wrong = whole.clone();
    wrong[40_000] ^= 1;
    for (name, bytes, status, damaged) in
        [("torn", &whole[..60_000], "vanished", 0), ("wrong", &wrong, "finished", 1)]
    {
        let file = to(&format!("{name}.wandb"));
        std::fs::write(&file, bytes).unwrap();
        let output = forebay(&["import", &file, "-o", &to(name)]);
        assert_eq!(
            (output.status.code(), self::said(&output).contains("damaged")),
            (Some(0), damaged > 0),
            "{name}"
        );
        let run = json(&text(&forebay(&["runs", &to(name), "--json"])));
        assert_eq!(run["status"], status, "{name}");
        assert!(run["metrics"]["train/loss"]["count"].as_u64() > Some(5), "{run}");
    }
    // What is none.
    std::fs::write(to("none.wandb"), "hello").unwrap();
    let output = forebay(&["import", &to("none.wandb"), "-o", &to("none")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        self::said(&output)
            .ends_with("none.wandb: it must begin as a file of wandb does (version 0: [3a, 57, 26, 42, e1, be, 00]), got [68, 65, 6c, 6c, 6f]\n")
    );
    std::fs::create_dir(to("empty")).unwrap();
    let output = forebay(&["import", &to("empty"), "-o", &to("x")]);
    assert!(self::said(&output).contains("there are neither event files nor files of wandb in "));
}

#[test]
fn files_of_wandb_that_have_just_begun_or_lie_beside_others_end_no_import() {
    let wandb = |name: &str| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wandb-writer/").to_owned() + name;
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let put = |from: &str, to: &str| {
        std::fs::create_dir_all(folder.path().join(to).parent().unwrap()).unwrap();
        std::fs::copy(wandb(from), of(to)).unwrap();
    };
    let names = |path: &str| -> Vec<String> {
        let runs = text(&forebay(&["runs", path, "--json"]));
        runs.lines().map(|run| json(run)["name"].as_str().unwrap().to_owned()).collect()
    };
    // Of one file, a part of the head is there.
    put("finished.wandb", "w/run-a.wandb");
    put("failed.wandb", "w/offline-run-1/run-b.wandb");
    put("failed.wandb", "w/run-a/run-c.wandb");
    std::fs::write(of("w/run-d.wandb"), b":W&B").unwrap();
    std::fs::write(of("w/run-e.wandb"), b"").unwrap();
    let output = forebay(&["import", &of("w"), "-o", &of("runs"), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(json(&String::from_utf8_lossy(&output.stdout))["runs"], 3);
    assert_eq!(said(&output), "forebay: 2 runs without an event\n");
    assert_eq!(names(&of("runs")), ["offline-run-1", "run-a", "run-a-2"]);
    // What is none is said before anything is written; and what was named is read, whatever its name.
    std::fs::write(of("w/run-f.wandb"), b":W&C").unwrap();
    let output = forebay(&["import", &of("w"), "-o", &of("other")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("run-f.wandb: it must begin as") && !folder.path().join("other").exists());
    put("finished.wandb", "backup.bin");
    put("finished.wandb", "RUN.WANDB");
    text(&forebay(&["import", "--from", "wandb", &of("backup.bin"), "-o", &of("backup")]));
    text(&forebay(&["import", &of("RUN.WANDB"), "-o", &of("RUN")]));
    // An import that fails in its middle leaves nothing, and can be repeated.
    std::fs::write(of("t.csv"), "step,loss\n1,0.5\nx,0.5\n").unwrap();
    assert_eq!(forebay(&["import", &of("t.csv"), "-o", &of("t/u")]).status.code(), Some(2));
    assert!(!folder.path().join("t").exists());
    std::fs::write(of("t.csv"), "step,loss\n1,0.5\n2,0.5\n").unwrap();
    text(&forebay(&["import", &of("t.csv"), "-o", &of("t/u")]));
    assert_eq!(std::fs::read_dir(of("t/u")).unwrap().count(), 1);
    // Runs of TensorBoard lie within each other; those of forebay do not.
    for place in ["tb", "tb/eval"] {
        text(&forebay(&["export", &of("t/u"), "--to", "tensorboard", "-o", &of("one")]));
        std::fs::create_dir_all(of(place)).unwrap();
        let file = std::fs::read_dir(of("one")).unwrap().next().unwrap().unwrap().path();
        std::fs::rename(&file, folder.path().join(place).join(file.file_name().unwrap())).unwrap();
    }
    text(&forebay(&["import", &of("tb"), "-o", &of("from-tb")]));
    assert_eq!(names(&of("from-tb")), ["eval", "run"]);
    // A folder with files of both.
    put("finished.wandb", "tb/run-a.wandb");
    let output = forebay(&["import", &of("tb"), "-o", &of("both")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--from must be tensorboard or wandb where there are files of both"));
    text(&forebay(&["import", "--from", "wandb", &of("tb"), "-o", &of("both")]));
}

#[test]
fn numbers_keep_their_zeros() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), line(1).replace("0.5", "130000.2")).unwrap();
    let path = folder.path().to_str().unwrap();
    for args in
        [&["runs", path][..], &["tail", path], &["query", path], &["compare", path], &["best", "loss", path]]
    {
        let all = text(&forebay(args));
        assert!(all.contains("130000"), "{args:?}: {all}");
    }
}

#[test]
fn runs_that_diverged_or_cannot_be_read_are_listed_behind_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let make = |run: &str, lines: String| {
        std::fs::create_dir(folder.path().join(run)).unwrap();
        std::fs::write(folder.path().join(run).join("events.jsonl"), lines).unwrap();
    };
    make("good", line(1));
    make("nan", line(1).replace("0.5", "\"NaN\""));
    make("broken", "no event\n".to_owned());
    let path = folder.path().to_str().unwrap();
    let best = text(&forebay(&["best", "loss", path]));
    let rows = cells(&best);
    assert_eq!(rows[1][..2], ["good", "0.5"], "{best}");
    assert!(rows[2][0] == "broken" && rows[2][1].contains("holds no events of forebay"), "{best}");
    assert_eq!(rows[3][..2], ["nan", "no finite value"], "{best}");
    let best = text(&forebay(&["best", "loss", "--json", path]));
    let last = json(best.lines().last().unwrap());
    assert_eq!((&last["best"], &last["error"]), (&serde_json::Value::Null, &"no finite value".into()));
    let only = forebay(&["best", "loss", &format!("{path}/nan")]);
    assert_eq!((only.status.code(), text(&only).contains("no finite value")), (Some(1), true));
    // The others are answered for, and the exit code says that one could not be.
    let query = forebay(&["query", path, "--csv"]);
    assert_eq!(String::from_utf8_lossy(&query.stdout).lines().count(), 3);
    assert_eq!(forebay(&["runs", &format!("{path}/broken")]).status.code(), Some(2));
    let compare = forebay(&["compare", &format!("{path}/good"), &format!("{path}/broken")]);
    assert_eq!(compare.status.code(), Some(2));
    assert!(
        said(&compare).contains("holds no events")
            && String::from_utf8_lossy(&compare.stdout).contains("loss (min)")
    );
}

#[test]
fn every_curve_of_many_runs_keeps_points() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for step in 0..40 {
        for name in 0..30 {
            all += &line(step).replace("loss", &format!("m{name}"));
        }
    }
    for run in 0..400 {
        let path = folder.path().join(format!("r{run:04}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("events.jsonl"), if run == 200 { all.clone() } else { line(1) }).unwrap();
    }
    let page = forebay(&["report", folder.path().to_str().unwrap(), "-o", "-"]).stdout;
    let page = String::from_utf8(page).unwrap();
    let begin = page.find("id=\"data\">").unwrap() + 10;
    let end = begin + page[begin..].find("</script>").unwrap();
    let data = json(&page[begin..end]);
    assert_eq!(data["runs"].as_array().unwrap().len(), 400);
    for name in 0..30 {
        let series = &data["runs"][200]["series"][format!("m{name}")];
        assert_eq!((series["steps"].as_array().unwrap().len(), &series["count"]), (40, &40.into()), "{name}");
    }
}

#[test]
fn what_is_not_read_has_a_column_where_there_is_some() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.jsonl"), line(1) + "nothing\n" + &line(2)).unwrap();
    let runs = text(&forebay(&["runs", folder.path().to_str().unwrap()]));
    let rows = cells(&runs);
    assert_eq!(rows[0][3..6], ["events", "lost", "not read"], "{runs}");
    assert_eq!(rows[1][3..6], ["2", "0", "1"], "{runs}");
    let output = forebay(&["serve", "--address", "nowhere", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("it must be an address such as 127.0.0.1, or localhost"));
}

#[test]
fn a_traceback_is_short_in_tables_and_whole_where_the_doctor_tells_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let frames: Vec<String> =
        (0..30).map(|frame| format!("  File \"train.py\", line {frame}, in step")).collect();
    let reason = format!("Traceback (most recent call last):\n{}\nValueError: no", frames.join("\n"));
    run(&path, 0.1, 0.5, |run| run.failed(&reason).unwrap());
    let path = path.to_str().unwrap();
    for args in [&["runs", path][..], &["compare", path]] {
        let table = text(&forebay(args));
        assert!(table.contains("ValueError: no"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() < 200), "{table}");
    }
    let doctor = String::from_utf8(forebay(&["doctor", path]).stdout).unwrap();
    assert!(
        doctor.contains("\n        File \"train.py\", line 29, in step\n      ValueError: no\n"),
        "{doctor}"
    );
}

#[test]
fn a_run_that_is_removed_and_restarted_has_nothing_of_the_one_before_on_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let begin = |steps: std::ops::Range<i32>| {
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("events.jsonl"), steps.map(line).collect::<String>()).unwrap();
    };
    begin(0..100);
    let server = Server::of(&[folder.path().to_str().unwrap()]);
    let mut events = Events(BufReader::new(server.connect("/events", &server.1)));
    events.next();
    let run = |server: &Server| json(&server.ask("/index", &server.1).1)["runs"][0].clone();
    std::fs::remove_file(path.join("events.jsonl")).unwrap();
    begin(0..10);
    events.next();
    assert_eq!(run(&server)["series"]["loss"]["count"], 10);
    std::fs::remove_dir_all(&path).unwrap();
    events.next();
    assert_eq!(run(&server)["status"], "unreadable");
    begin(0..3);
    while run(&server)["events"] != 3 {
        events.next();
    }
}

#[test]
fn what_is_empty_hides_no_run_and_links_lead_to_runs_once() {
    let folder = tempfile::tempdir().unwrap();
    let torch = concat!(env!("CARGO_MANIFEST_DIR"), "/../tfevents/tests/torch-writer/scalar");
    let real = folder.path().join("real");
    std::fs::create_dir_all(&real).unwrap();
    for file in std::fs::read_dir(torch).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), real.join(file.file_name())).unwrap();
    }
    for empty in ["events.db", "events.jsonl"] {
        std::fs::write(real.join(empty), "").unwrap();
    }
    let runs = text(&forebay(&["runs", "--json", real.to_str().unwrap()]));
    assert!(json(runs.trim())["events"].as_u64().unwrap() > 0, "{runs}");
    #[cfg(unix)]
    {
        let logs = folder.path().join("logs");
        std::fs::create_dir(&logs).unwrap();
        for (from, to) in [(&real, "one"), (&real, "two"), (&logs, "loop")] {
            std::os::unix::fs::symlink(from, logs.join(to)).unwrap();
        }
        assert_eq!(text(&forebay(&["runs", "--json", logs.to_str().unwrap()])).lines().count(), 1);
    }
}

#[test]
fn a_report_has_the_pictures_and_distributions_of_runs_of_any_program() {
    use forebay::sink::{Sink, TensorBoardSink};
    use forebay::{Batch, Histogram, Value};

    let folder = tempfile::tempdir().unwrap();
    let pixels = forebay::Image::rgb(2, 1, vec![255, 0, 0, 0, 255, 0]).unwrap();
    let records = || {
        let mut records =
            vec![Record::with_value("sample", Value::Image(Box::new(pixels.clone()))).with_step(7)];
        for step in 0..3 {
            let values = [0.0, 1.0 + step as f64, 4.0];
            let histogram = Histogram::from_values(&values, 4);
            records
                .push(Record::with_value("weights", Value::Histogram(Box::new(histogram))).with_step(step));
        }
        Batch::from_events(records)
    };
    for run in ["lines", "tensorboard"] {
        std::fs::create_dir(folder.path().join(run)).unwrap();
    }
    JsonLinesSink::create(folder.path().join("lines/events.jsonl")).unwrap().write_batch(&records()).unwrap();
    TensorBoardSink::create(folder.path().join("tensorboard")).unwrap().write_batch(&records()).unwrap();
    let page =
        String::from_utf8(forebay(&["report", folder.path().to_str().unwrap(), "-o", "-"]).stdout).unwrap();
    let begin = page.find("id=\"data\">").unwrap() + 10;
    let end = begin + page[begin..].find("</script>").unwrap();
    let data = json(&page[begin..end]);
    for (run, form) in [(0, "rgb8"), (1, "png")] {
        let others = data["runs"][run]["others"].as_array().unwrap();
        let of = |name: &str| others.iter().find(|other| other["name"] == name).unwrap();
        let image = &of("sample")["image"];
        assert_eq!((&image["form"], &image["width"]), (&form.into(), &2.into()), "{run}");
        let heat = &of("weights")["heat"];
        assert_eq!(heat["steps"], serde_json::json!([0, 1, 2]), "{run}");
        assert_eq!((&heat["low"], &heat["high"]), (&0.0.into(), &4.0.into()), "{run}");
        let columns = heat["columns"].as_array().unwrap();
        for column in columns {
            let sum: u64 = column.as_array().unwrap().iter().map(|share| share.as_u64().unwrap()).sum();
            assert!((980..1020).contains(&sum), "{column}");
        }
    }
    // What is imported has them, too.
    let (from, to) = (folder.path().join("tensorboard"), folder.path().join("imported"));
    text(&forebay(&["import", from.to_str().unwrap(), "-o", to.to_str().unwrap()]));
    let lines = std::fs::read_to_string(to.join("events.jsonl")).unwrap();
    assert!(lines.contains("\"histogram\"") && lines.contains("\"image\""), "{lines}");
}

#[test]
fn a_pattern_stands_for_the_runs_that_fit_it_where_no_shell_has_read_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["logs/one", "logs/two", "logs/other", "logs/.hidden"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("events.jsonl"), line(1)).unwrap();
    }
    std::fs::create_dir_all(folder.path().join("logs/oak")).unwrap();
    std::fs::create_dir_all(folder.path().join("logs/a*")).unwrap();
    std::fs::write(folder.path().join("logs/a*/events.jsonl"), line(7)).unwrap();
    let path = |pattern: &str| folder.path().join(pattern).to_str().unwrap().to_owned();
    let names = |args: &[&str]| -> Vec<String> {
        let lines = text(&forebay(args));
        let name = |line: &str| json(line)["name"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        lines.lines().map(name).collect()
    };
    assert_eq!(names(&["runs", "--json", &path("logs/o*")]), ["one", "other"]);
    assert_eq!(names(&["runs", "--json", &path("l*/{one,two}"), &path("logs/one")]), ["one", "two"]);
    assert_eq!(names(&["runs", "--json", &path("logs/*")]), ["a*", "one", "other", "two"]);
    // A file of that name is that file.
    assert_eq!(names(&["runs", "--json", &path("logs/a*")]), ["a*"]);
    assert_eq!(text(&forebay(&["query", &path("logs/t?o"), "--last", "--csv"])).lines().count(), 2);
    assert_eq!(text(&forebay(&["tail", "--merge", &path("logs/o*")])).lines().count(), 2);
    for command in ["runs", "query", "tail"] {
        let output = forebay(&[command, &path("logs/x*")]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert_eq!(
            said(&output),
            format!("forebay: there is no run that fits the pattern {}\n", path("logs/x*"))
        );
    }
    let output = forebay(&["runs", &path("logs/[")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).starts_with("forebay: invalid pattern: \"[\""), "{}", said(&output));
}

#[test]
fn what_was_written_and_where_it_listens_is_said_in_json_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let runs = three(folder.path());
    let page = folder.path().join("page.html");
    let answer = json(&text(&forebay(&["report", &runs, "-o", page.to_str().unwrap(), "--json"])));
    assert_eq!(answer["bytes"], std::fs::metadata(&page).unwrap().len());
    assert_eq!((&answer["runs"], &answer["path"]), (&3.into(), &page.to_str().unwrap().into()));
    let output = forebay(&["report", &runs, "-o", "-", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(["serve", &runs, "--port", "0", "--json"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(json(&answer)["address"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{answer}");
}
