//! `forebay query` and `tail`: tables, ranks, standard input and SQL.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forebay::sink::{Sink, SqliteSink};
use forebay::{Batch, Record};

use super::{cells, forebay, json, line, said, text};

/// Runs the program with something on its standard input.
fn with_stdin(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_forebay"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who has ended reads nothing more.
    _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A line of a metric, at a second of one minute.
fn at(name: &str, second: i32, step: i32, value: f64) -> String {
    let time = format!("2026-11-21T08:00:{second:02}.000000000Z");
    format!(r#"{{"name":"{name}","time":"{time}","step":{step},"scalar":{value}}}"#) + "\n"
}

/// Makes two ranks with two metrics of four steps. The second one is a second late.
fn ranks(folder: &Path) -> String {
    for rank in 0..2 {
        let mut lines = String::new();
        for step in 0..4 {
            lines += &at("loss", 2 * step + rank, step, f64::from(step + 10 * rank));
            if step % 2 == 0 {
                lines += &at("acc", 2 * step + rank, step, 0.5);
            }
        }
        let folder = folder.join(format!("rank-{rank}"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("events.jsonl"), lines).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

#[test]
fn a_query_aggregates_over_windows_of_steps_and_of_time_and_over_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}/rank-0", ranks(folder.path()));
    let head = "name,from,count,finite,mean,min,min_step,max,max_step,last,last_step";
    let steps = text(&forebay(&["query", &path, "-n", "loss", "--per", "2", "--csv"]));
    assert_eq!(steps, format!("{head}\nloss,0,2,2,0.5,0,0,1,1,1,1\nloss,2,2,2,2.5,2,2,3,3,3,3\n"));
    let time = text(&forebay(&["query", &path, "-n", "acc", "--per", "3s", "--csv"]));
    let rows = "acc,2026-11-21T08:00:00Z,1,1,0.5,0.5,0,0.5,0,0.5,0\nacc,2026-11-21T08:00:03Z,1,1,0.5,0.5,2,0.5,2,0.5,2\n";
    assert_eq!(time, format!("{head}\n{rows}"));
    let all = text(&forebay(&["query", &path, "--per", "all", "--json"]));
    let rows: Vec<_> = all.lines().map(json).collect();
    assert_eq!((&rows[0]["name"], &rows[1]["name"], rows.len()), (&"acc".into(), &"loss".into(), 2));
    assert_eq!(
        (&rows[1]["mean"], &rows[1]["max"], &rows[1]["max_step"]),
        (&1.5.into(), &3.0.into(), &3.into())
    );
    assert_eq!(rows[1]["from"], serde_json::Value::Null);
    for window in ["0", "x", "0s", "-5"] {
        let output = forebay(&["query", &path, &format!("--per={window}")]);
        let expected = format!(
            "forebay: invalid window: {window:?} (expected a number of steps such as 100, a time such as 10min, or all)\n"
        );
        assert_eq!((output.status.code(), said(&output)), (Some(2), expected));
    }
}

#[test]
fn a_query_has_a_row_for_each_step_and_a_column_for_each_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = ranks(folder.path());
    let one = text(&forebay(&["query", &format!("{path}/rank-0"), "--pivot", "--csv"]));
    assert_eq!(one, "step,acc,loss\n0,0.5,0\n1,,1\n2,0.5,2\n3,,3\n");
    let several = text(&forebay(&["query", &path, "--pivot", "--csv", "--steps", "1..3"]));
    assert_eq!(several, "run,step,acc,loss\nrank-0,1,,1\nrank-0,2,0.5,2\nrank-1,1,,11\nrank-1,2,0.5,12\n");
    for (reduce, losses) in
        [("mean", [5.0, 6.0]), ("sum", [10.0, 12.0]), ("min", [0.0, 1.0]), ("max", [10.0, 11.0])]
    {
        let args =
            ["query", &path, "--pivot", "--reduce", reduce, "--merge", "step", "--steps", "..2", "--json"];
        let rows = text(&forebay(&args));
        let rows: Vec<_> = rows.lines().map(json).collect();
        assert_eq!([&rows[0]["loss"], &rows[1]["loss"]], losses.each_ref(), "{reduce}");
        assert_eq!(rows[1]["acc"], serde_json::Value::Null);
    }
    // A name may be that of another column; and a number without a step is in no row.
    let odd =
        [at("step", 0, 7, 1.0), at("step_2", 0, 7, 2.0), at("loss", 0, 7, 3.0).replace(r#""step":7,"#, "")];
    let output = with_stdin(&["query", "-", "--pivot", "--csv"], &odd.concat());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "step,step_3,step_2\n7,1,2\n");
    let left_out = "forebay: 1 number left out: without a step\n";
    assert_eq!(said(&output), left_out);
    let output = with_stdin(&["query", "-", "--per", "10", "--csv"], &odd.concat());
    assert_eq!(
        (String::from_utf8_lossy(&output.stdout).lines().count(), said(&output)),
        (3, left_out.to_owned())
    );
}

#[test]
fn ranks_are_merged_by_step_and_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = ranks(folder.path());
    for (order, expected) in [("step", [0, 0, 1, 1, 2, 2, 3, 3]), ("time", [0, 0, 1, 1, 2, 2, 3, 3])] {
        let csv = text(&forebay(&["query", &path, "-n", "loss", "--merge", order, "--csv"]));
        let rows: Vec<Vec<&str>> = csv.lines().skip(1).map(|row| row.split(',').collect()).collect();
        let steps: Vec<i32> = rows.iter().map(|row| row[2].parse().unwrap()).collect();
        assert_eq!(steps, expected);
        assert_eq!([rows[0][0], rows[1][0]], ["rank-0", "rank-1"]);
    }
    let last = text(&forebay(&["query", &path, "--merge", "time", "--last", "--csv"]));
    assert!(last.starts_with("time,step,name,value\n") && last.ends_with(",3,loss,13\n"), "{last}");
    let each = text(&forebay(&["query", &path, "--last", "-n", "loss", "--csv"]));
    let ends: Vec<&str> = each.lines().map(|row| &row[row.len() - 9..]).collect();
    assert_eq!(ends[1..], [",3,loss,3", "3,loss,13"]);
    let all = text(&forebay(&["query", &path, "--merge", "step", "--per", "all", "-n", "loss", "--csv"]));
    assert_eq!(all.lines().nth(1), Some("loss,,8,8,6.5,0,0,13,3,13,3"));
    let behind = text(&forebay(&["query", &path, "--stragglers", "--csv"]));
    assert_eq!(behind, "run,steps,last,mean,max,max_step\nrank-0,4,0,0,0,0\nrank-1,4,4,1,1,0\n");
    // The last events of all ranks, in the order of their moments.
    let tail = text(&forebay(&["tail", &path, "--merge", "-n", "3", "--pattern", "loss"]));
    let rows = cells(&tail);
    let runs: Vec<_> = rows.iter().map(|row| (row[1], row[2])).collect();
    assert_eq!(runs, [("rank-1", "2"), ("rank-0", "3"), ("rank-1", "3")]);
    let output = forebay(&["query", &path, "--merge", "step", "--newest", "--limit", "1"]);
    assert_eq!(output.status.code(), Some(2));
}

/// A limit counts events: a table of the first ones would look like one of all.
#[test]
fn a_table_is_made_of_all_events_or_of_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let path = ranks(folder.path());
    for table in [&["--last"][..], &["--per", "all"], &["--pivot"], &["--pivot", "--merge", "step"]] {
        let output = forebay(&[&["query", &path, "--limit", "2"], table].concat());
        let expected =
            "forebay: --limit with a table must come with --newest: it would cut off the newest events\n";
        assert_eq!((output.status.code(), said(&output).as_str()), (Some(2), expected), "{table:?}");
    }
    assert_eq!(forebay(&["query", &path, "--limit", "2", "--stragglers"]).status.code(), Some(2));
    let newest = ["query", &path, "--limit", "2", "--newest", "--per", "all", "-n", "loss", "--csv"];
    let rows = text(&forebay(&newest));
    let means: Vec<&str> = rows.lines().skip(1).map(|row| row.split(',').nth(5).unwrap()).collect();
    assert_eq!(means, ["2.5", "12.5"]);
    // Of rows, those of each run, or of all together.
    let rows = |more: &[&str]| {
        let args = [&["query", &path, "--limit", "3", "--csv"], more].concat();
        text(&forebay(&args)).lines().count() - 1
    };
    assert_eq!((rows(&[]), rows(&["--merge", "step"])), (6, 3));
}

/// Makes a rank that cannot be read behind its first closed file.
fn damaged(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join("events.jsonl.000001"), at("loss", 1, 0, 20.0)).unwrap();
    std::fs::write(folder.join("events.jsonl.000002.zst"), "no zstd").unwrap();
    std::fs::write(folder.join("events.jsonl"), at("loss", 9, 4, 24.0)).unwrap();
}

/// Rows are those of all ranks, as far as they can be read; what is made of all ranks would be wrong without one.
#[test]
fn a_damaged_rank_ends_no_other_and_no_table_is_made_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = ranks(folder.path());
    damaged(&folder.path().join("rank-2"));
    let answer_of = |output: &Output| {
        assert_eq!(output.status.code(), Some(2));
        let said = said(output);
        assert!(said.lines().count() == 1 && said.contains("rank-2"), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for more in [&["--merge", "step"][..], &["--merge", "time"], &[]] {
        let output = forebay(&[&["query", &path, "-n", "loss", "--csv"], more].concat());
        assert_eq!(answer_of(&output).lines().count(), 1 + 4 + 4 + 1, "{more:?}");
    }
    let tables = [&["--last"][..], &["--per", "all"], &["--pivot"], &["--per", "2", "--json"]];
    let tables = tables.map(|table| [table, &["--merge", "step"]].concat());
    for more in tables.iter().map(Vec::as_slice).chain([&["--stragglers"][..]]) {
        let output = forebay(&[&["query", &path], more].concat());
        assert_eq!(answer_of(&output), "", "{more:?}");
        if !more.contains(&"--json") {
            assert_eq!(answer_of(&forebay(&[&["query", &path, "--csv"], more].concat())), "", "{more:?}");
        }
    }
    // Each run by itself has its table.
    let output = forebay(&["query", &path, "--per", "all", "-n", "loss", "--csv"]);
    assert_eq!(answer_of(&output).lines().count(), 3);
}

#[test]
fn standard_input_is_a_file_that_can_be_named() {
    let lines = line(1) + &line(2) + &line(3);
    let csv = text(&with_stdin(&["query", "-", "--steps", "2..", "--csv"], &lines));
    assert_eq!(csv.lines().count(), 3, "{csv}");
    let newest = text(&with_stdin(&["query", "-", "--newest", "--limit", "1", "--json"], &lines));
    assert_eq!(json(newest.trim())["step"], 3);
    let merged = text(&with_stdin(&["query", "-", "--merge", "step", "--per", "all", "--json"], &lines));
    assert_eq!(json(merged.trim())["count"], 3);
    assert_eq!(text(&with_stdin(&["tail", "-", "-n", "2"], &lines)).lines().count(), 2);
    assert_eq!(text(&with_stdin(&["tail", "-f", "-"], &lines)).lines().count(), 3);
    // A torn end is no event; a file without any event is an error.
    assert_eq!(text(&with_stdin(&["query", "-", "--csv"], &(line(1) + "{\"na"))).lines().count(), 2);
    for command in ["query", "tail"] {
        let output = with_stdin(&[command, "-"], "hello\nworld\n");
        assert_eq!(
            (output.status.code(), said(&output)),
            (Some(2), "forebay: standard input holds no events of forebay\n".to_owned())
        );
        assert_eq!(with_stdin(&[command, "-"], "").status.code(), Some(1));
    }
    let output = forebay(&["runs", "-"]);
    let expected =
        "forebay: - is standard input, which query, tail and import read; a folder of that name is ./-\n";
    assert_eq!((output.status.code(), said(&output)), (Some(2), expected.to_owned()));
}

#[test]
fn what_other_programs_print_is_imported() {
    let folder = tempfile::tempdir().unwrap();
    let to = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for (form, input) in [
        ("csv", "step,loss\n1,0.5\n2,0.25\n"),
        ("json", "{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":0.25}\n"),
    ] {
        let output = with_stdin(&["import", "-", "--from", form, "-o", &to(form), "--json"], input);
        let told = json(text(&output).trim());
        assert_eq!((&told["events"], &told["runs"], &told["left_out"]), (&2.into(), &1.into(), &0.into()));
        assert_eq!(cells(&text(&forebay(&["best", "loss", &to(form)])))[1][1..3], ["0.25", "2"]);
    }
    let output = with_stdin(&["import", "-", "-o", &to("x")], "");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(said(&output), "forebay: standard input takes --from csv or --from json\n");
}

#[test]
fn what_was_drawn_and_what_was_written_is_told_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = ranks(folder.path());
    let curves = text(&forebay(&["plot", "loss", &path, "--json"]));
    let curves: Vec<_> = curves.lines().map(json).collect();
    assert_eq!(
        (curves.len(), &curves[1]["run"], &curves[1]["across"]),
        (2, &"rank-1".into(), &"step".into())
    );
    assert_eq!(curves[0]["points"], serde_json::json!([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]));
    let to = folder.path().join("all.csv");
    let told = json(text(&forebay(&["export", &path, "-o", to.to_str().unwrap(), "--json"])).trim());
    assert_eq!((&told["values"], &told["runs"], &told["left_out"]), (&12.into(), &2.into(), &0.into()));
    let to = folder.path().join("tensorboard");
    let args = ["export", &path, "--to", "tensorboard", "-o", to.to_str().unwrap(), "--json"];
    assert_eq!(json(text(&forebay(&args)).trim())["events"], 12);
    // A table of numbers has no texts.
    let path = format!("{path}/rank-0");
    let mut file = std::fs::OpenOptions::new().append(true).open(format!("{path}/events.jsonl")).unwrap();
    writeln!(file, "{}", serde_json::to_string(&Record::with_value("note", "a")).unwrap()).unwrap();
    let to = folder.path().join("more.csv");
    let told = json(text(&forebay(&["export", &path, "-o", to.to_str().unwrap(), "--json"])).trim());
    assert_eq!((&told["values"], &told["left_out"]), (&6.into(), &1.into()));
}

/// Writes a database of ten events.
fn database(path: &Path) {
    let mut sink = SqliteSink::create(path).unwrap();
    let records = (0..10).map(|step| Record::scalar("loss", 0.5).with_step(step));
    sink.write_batch(&Batch::from_events(records.collect())).unwrap();
}

#[test]
fn sql_asks_one_database_alone_and_every_column_has_a_name_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    database(&folder.path().join("events.db"));
    let other = folder.path().join("other.db");
    for sql in [format!("ATTACH '{}' AS other", other.display()), "ATTACH ':memory:' AS other".to_owned()] {
        let output = forebay(&["query", path, "--sql", &sql]);
        assert_eq!(output.status.code(), Some(2), "{sql}");
        assert!(said(&output).contains("too many attached databases"), "{}", said(&output));
    }
    assert!(!other.exists());
    let sql = "SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a";
    let answer = text(&forebay(&["query", path, "--sql", sql, "--json"]));
    assert_eq!(json(answer.trim()), serde_json::json!({"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}));
    assert_eq!(text(&forebay(&["query", path, "--sql", sql, "--csv"])), "a,a_3,a_2,a_4\n1,2,3,4\n");
    // JSON has no infinity; and nothing is no question.
    let answer = text(&forebay(&["query", path, "--sql", "SELECT 1e999 AS a, -1e999 AS b", "--json"]));
    assert_eq!(json(answer.trim()), serde_json::json!({"a": "Infinity", "b": "-Infinity"}));
    let output = forebay(&["query", path, "--sql", " "]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(said(&output), "forebay: --sql must be a question, got an empty text\n");
}

/// On a disk that is read-only, SQLite cannot make the file that readers and writers share. A link in its place, which SQLite does not follow,
/// stands for that: it cannot be made there by anybody.
#[cfg(unix)]
#[test]
fn sql_reads_a_database_where_nothing_can_be_written() {
    for name in ["events.db", "runs.sqlite"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        database(&path);
        let beside = |end: &str| folder.path().join(format!("{name}{end}"));
        for end in ["-wal", "-shm"] {
            _ = std::fs::remove_file(beside(end));
        }
        std::os::unix::fs::symlink(folder.path().join("nowhere"), beside("-shm")).unwrap();
        let args = ["query", path.to_str().unwrap(), "--sql", "SELECT count(*) AS n FROM events", "--csv"];
        assert_eq!(text(&forebay(&args)), "n\n10\n", "{name}");
        // What a writer has left beside it cannot be read then, and is not passed over.
        std::fs::write(beside("-wal"), [0; 32]).unwrap();
        let output = forebay(&args);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(said(&output).contains("unable to open database file"), "{}", said(&output));
    }
}
