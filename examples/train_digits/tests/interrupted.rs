//! P8 with a training run: what it had recorded survives a kill, Ctrl-C and an error, and a resumed run ends as one that went on.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../../tests/support/mod.rs"]
mod support;
#[path = "../../../tests/support/whole_records.rs"]
mod whole_records;

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use forebay::Record;
use forebay_history::{EventQuery, History, JsonLinesHistory, RunEnd, runs};
use support::*;
use whole_records::whole_records;

fn example() -> &'static str {
    env!("CARGO_BIN_EXE_train_digits")
}

#[test]
fn the_example_killed_in_mid_run_keeps_everything_older_than_one_interval() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let child = Command::new(example())
        .args(["--epochs", "1000000", "--batch-size", "8", "--out"])
        .arg(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    until("a thousand lines are written", || path.exists() && whole_records(&path).len() > 1000);
    let killed_at = SystemTime::now();
    child.0.kill().unwrap();
    child.0.wait().unwrap();

    let records = whole_records(&path);
    assert_eq!(records[0].name(), "training.started", "critical, so first and at once");
    let losses = records.iter().filter(|record| record.name() == "train.loss");
    let steps: Vec<u64> = losses.filter_map(Record::step).collect();
    assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>(), "no hole before the end");
    // The interval is one second. Ten, because the machine may have something else to do.
    let age = killed_at.duration_since(records.last().unwrap().time()).unwrap_or_default();
    assert!(age < Duration::from_secs(10), "the last line is {age:?} old");
}

#[test]
fn ctrl_c_ends_the_example_with_everything_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let child = Command::new(example())
        .args(["--epochs", "1000000", "--out"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    until("a hundred lines are written", || path.exists() && whole_records(&path).len() > 100);
    let interrupted = Command::new("kill").args(["-INT", &child.0.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let mut report = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut report).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(130));
    assert!(report.contains("(interrupted)") && report.contains("+ 0 pending"), "{report}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with('\n') && text.contains("training.preempted"));
    let lines = text.lines().count();
    let offered: String =
        report.split("events ").nth(1).unwrap().trim_start().chars().take_while(|c| *c != ' ').collect();
    assert_eq!(offered.replace(',', ""), lines.to_string(), "every event is a line");
}

/// Returns what the run in a folder trained, by step, as it holds in the end.
fn losses(folder: &Path) -> Vec<(Option<u64>, Option<f64>)> {
    let history = JsonLinesHistory::new(folder.join("events.jsonl"));
    // And the histograms of the weights, of which the steps are enough.
    let query = EventQuery::new().name("{train.loss,weights.first}").current();
    let records = history.query(&query).unwrap();
    records.iter().map(|record| (record.step(), record.value().as_f64())).collect()
}

#[test]
fn a_training_that_was_killed_and_resumed_ends_as_one_that_was_not() {
    let train = |folder: &Path, args: &[&str]| {
        let output = Command::new(example()).args(args).arg(folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let child = Command::new(example())
        .args(["--epochs", "1000000", "--seed", "11", "--out"])
        .arg(killed.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    until("an epoch is done", || killed.path().join("checkpoint.json").exists());
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let checkpoint = std::fs::read_to_string(killed.path().join("checkpoint.json")).unwrap();
    let done = checkpoint.split("\"epoch\":").nth(1).unwrap().split(',').next().unwrap();
    let epochs = done.parse::<usize>().unwrap() + 1;
    let output =
        Command::new(example()).args(["--epochs", done, "--resume"]).arg(killed.path()).output().unwrap();
    let expected = format!("train_digits: {done} epochs are done, --epochs must be more\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    train(killed.path(), &["--epochs", &epochs.to_string(), "--resume"]);
    train(whole.path(), &["--epochs", &epochs.to_string(), "--seed", "11", "--out"]);
    let losses_of_both = (losses(whole.path()), losses(killed.path()));
    assert_eq!(losses_of_both.0.len(), epochs * 46);
    assert_eq!(losses_of_both.0, losses_of_both.1, "to the last bit, each step once");
    let runs = runs(&JsonLinesHistory::new(killed.path().join("events.jsonl"))).unwrap();
    let reported: Vec<_> = runs.iter().map(|run| (run.generation, run.end.clone())).collect();
    assert_eq!(reported, [(1, None), (2, Some(RunEnd::Completed))]);
    assert_eq!(runs[0].run_id, runs[1].run_id);
}

#[test]
fn bad_options_of_the_example_get_one_clear_line_and_code_2() {
    let cases = [
        (&["--epochs", "0"][..], "--epochs is \"0\", allowed is a whole number of 1 or more"),
        (&["--epochs", "many"], "--epochs is \"many\", allowed is a whole number of 1 or more"),
        (&["--batch-size", "1438"], "--batch-size is \"1438\", allowed is a whole number from 1 to 1437"),
        (&["--learning-rate", "NaN"], "--learning-rate is \"NaN\", allowed is a number above 0"),
        (&["--overflow", "spill"], "--overflow is \"spill\", allowed is drop-oldest, drop-newest or block"),
        (&["--seed"], "missing argument for option '--seed'"),
        (&["--resume", ".", "--no-collect"], "--resume and --no-collect do not go together"),
        (&["--speed", "9"], "invalid option '--speed'"),
    ];
    for (args, expected) in cases {
        let output = Command::new(example()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("train_digits: {expected}\n"));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_training_that_fails_says_so_in_its_file_and_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(example())
        .args(["--learning-rate", "1e300", "--epochs", "2", "--out"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let records = whole_records(&folder.path().join("events.jsonl"));
    let failed = records.iter().find(|record| record.name() == "training.failed").unwrap();
    assert!(failed.value().to_string().contains("the loss is"), "{failed}");
    // The loss that is not a number reads back as what it was.
    let losses: Vec<f64> =
        records.iter().filter(|r| r.name() == "train.loss").filter_map(|r| r.value().as_f64()).collect();
    assert!(!losses.last().unwrap().is_finite(), "{losses:?}");
}
