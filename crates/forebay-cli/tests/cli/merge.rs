//! `forebay merge`: the ranks of a job as one.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::run::{Rank, RunInfo, TrainingRun};
use forebay::sink::JsonLinesSink;
use forebay::{Collector, Record};
use forebay_history::Run;

use crate::support::{Killed, law, stay};
use crate::{cells, forebay, json, said, text};

/// What a process that stands for a rank is to do: its number, how many steps it does, and from which one on.
const RANK: &str = "FOREBAY_TEST_RANK";

const RANKS: u64 = 64;
const STEPS: u64 = 40;

/// Ranks of the job that are not as the others are.
const VANISHED: u64 = 17;
const RESTARTED: u64 = 23;
const SLOW: u64 = 30;
const WRONG: u64 = 41;
const LATE: u64 = 50;

/// Moment of a step of a rank, by its own clock.
fn moment(rank: u64, step: u64) -> SystemTime {
    let took = Duration::from_millis(if rank == SLOW { 150 } else { 100 });
    let hour = Duration::from_secs(if rank == WRONG { 3_600 } else { 0 });
    let begin = Duration::from_secs(1_780_000_000 + if rank == LATE { 5 } else { 0 });
    UNIX_EPOCH + begin + hour + took * u32::try_from(step).unwrap()
}

/// Loss of a rank at a step: of the first generation, or of the second one.
fn loss(rank: u64, step: u64, generation: u64) -> f64 {
    (rank + step) as f64 + if generation > 1 { 1_000.0 } else { 0.0 }
}

/// Process of a rank that [`spawn`] starts. Does nothing unless it was asked to.
#[test]
fn works_as_a_rank() {
    let Ok(asked) = std::env::var(RANK) else { return };
    let asked: Vec<&str> = asked.splitn(4, ' ').collect();
    let number = |place: usize| asked[place].parse::<u64>().unwrap();
    let (rank, first, end, folder) = (number(0), number(1), number(2), Path::new(asked[3]));
    let sink = JsonLinesSink::create(folder.join("events.jsonl")).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    let builder = TrainingRun::builder()
        .run_id("job")
        .rank(Rank { rank, local_rank: None, world_size: RANKS })
        .heartbeat(Duration::from_secs(3_600));
    // A process that goes on begins at the step of its checkpoint.
    let run = match earlier(folder).filter(|_| first > 0) {
        Some(earlier) => builder.resume(&earlier, first),
        None => builder,
    };
    let run = run.start(&collector).unwrap();
    for step in first..end {
        let loss = loss(rank, step, run.generation());
        collector.collect(Record::scalar("loss", loss).with_step(step).with_time(moment(rank, step)));
    }
    collector.flush().unwrap();
    println!("written");
    if end < STEPS {
        stay();
    }
    run.completed([("accuracy", 0.5)]).unwrap();
    collector.stop().unwrap();
    law(&collector, end - first + 2);
}

fn earlier(folder: &Path) -> Option<RunInfo> {
    let mut run = Run::open(folder).unwrap();
    run.poll().unwrap();
    run.lives().last().cloned()
}

fn spawn(job: &Path, rank: u64, first: u64, end: u64) -> Killed {
    let folder = job.join(format!("rank-{rank:02}"));
    std::fs::create_dir_all(&folder).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "merge::works_as_a_rank", "--nocapture"])
        .env(RANK, format!("{rank} {first} {end} {}", folder.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Killed(child.unwrap())
}

/// Waits until a process has written all its steps. Its output stays open as long as what is returned.
fn await_written(child: &mut Child) -> BufReader<ChildStdout> {
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("written\n") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0, "the process has written nothing");
    }
    output
}

/// Runs a job of 64 processes. One is killed, one begins again, one comes last, one is slow and one has a wrong clock.
fn run_job(job: &Path) {
    let mut others: Vec<u64> =
        (0..RANKS).filter(|rank| ![VANISHED, RESTARTED, LATE].contains(rank)).collect();
    for (rank, end) in [(VANISHED, 21), (RESTARTED, 30)] {
        let mut child = spawn(job, rank, 0, end);
        let _output = await_written(&mut child.0);
        child.0.kill().unwrap();
        child.0.wait().unwrap();
    }
    others.push(RESTARTED);
    for some in others.chunks(8) {
        let children: Vec<Killed> = some
            .iter()
            .map(|rank| spawn(job, *rank, if *rank == RESTARTED { 20 } else { 0 }, STEPS))
            .collect();
        for mut child in children {
            drop(child.0.stdin.take());
            let _output = await_written(&mut child.0);
            assert_eq!(child.code(), Some(0));
        }
    }
    let mut child = spawn(job, LATE, 0, STEPS);
    let _output = await_written(&mut child.0);
    assert_eq!(child.code(), Some(0));
}

/// Returns the mean loss of a step over the ranks that are in it.
fn expected(step: u64) -> (u64, f64) {
    let ranks: Vec<u64> = (0..RANKS).filter(|rank| *rank != VANISHED || step < 21).collect();
    let of = |rank: &u64| loss(*rank, step, if *rank == RESTARTED && step >= 20 { 2 } else { 1 });
    (ranks.len() as u64, ranks.iter().map(of).sum::<f64>() / ranks.len() as f64)
}

#[test]
fn a_job_of_64_processes_is_reduced_right_and_those_that_went_wrong_are_named() {
    let folder = tempfile::tempdir().unwrap();
    run_job(folder.path());
    let job = folder.path().to_str().unwrap();
    let output = forebay(&["merge", job, "-n", "loss", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let rows: Vec<_> = String::from_utf8(output.stdout.clone()).unwrap().lines().map(json).collect();
    assert_eq!(rows.len() as u64, STEPS);
    for (step, row) in (0..).zip(&rows) {
        let (ranks, mean) = expected(step);
        assert_eq!(
            (&row["step"], &row["count"], &row["ranks"]),
            (&step.into(), &ranks.into(), &ranks.into())
        );
        assert_eq!((&row["missing"], &row["name"]), (&(RANKS - ranks).into(), &"loss".into()));
        assert!((row["mean"].as_f64().unwrap() - mean).abs() < 1e-9, "{row} {mean}");
    }
    let expected = [
        "forebay: rank-17 vanished after step 20: the others went on by 18 steps\n",
        "forebay: rank-23 began again (1 time), and took the place of 10 numbers; generation 2\n",
        "forebay: rank-41 has a wrong clock: 3600 s ahead of those of the others\n",
    ];
    let said = said(&output).replace("by 19 steps", "by 18 steps");
    assert_eq!(said, expected.concat());

    let table = forebay(&["merge", job, "--ranks", "--json"]);
    let ranks: Vec<_> = String::from_utf8(table.stdout).unwrap().lines().map(json).collect();
    assert_eq!(ranks.len() as u64, RANKS);
    for (rank, row) in (0..).zip(&ranks) {
        let status = if rank == VANISHED { "vanished" } else { "finished" };
        let last = if rank == VANISHED { 20 } else { STEPS - 1 };
        assert_eq!(
            (&row["rank"], &row["status"], &row["last_step"]),
            (&rank.into(), &status.into(), &last.into())
        );
        // By its own clock, that of the wrong one as well. The first step has no time, and the restarted one none at its new first step.
        assert_eq!(row["last"], if rank == SLOW { STEPS - 1 } else { 0 }, "{row}");
        let mean = row["mean"].as_f64().unwrap();
        assert!((mean - if rank == SLOW { 0.05 } else { 0.0 }).abs() < 1e-6, "{row}");
    }
}

#[test]
fn the_numbers_of_ranks_are_a_table_and_csv_and_a_pivot() {
    let folder = tempfile::tempdir().unwrap();
    for rank in 0..2 {
        let folder = folder.path().join(format!("rank-{rank}"));
        std::fs::create_dir(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("events.jsonl")).unwrap();
        for step in 0..3 {
            let time = format!("2026-11-21T08:00:0{step}.000000000Z");
            let value = step + 2 * rank;
            writeln!(file, r#"{{"name":"loss","time":"{time}","step":{step},"scalar":{value}.5}}"#).unwrap();
        }
    }
    let job = folder.path().to_str().unwrap();
    let csv = text(&forebay(&["merge", job, "--reduce", "mean", "--csv"]));
    let head = "step,generation,ranks,missing,name,count,finite,mean";
    assert_eq!(csv, format!("{head}\n0,1,2,0,loss,2,2,1.5\n1,1,2,0,loss,2,2,2.5\n2,1,2,0,loss,2,2,3.5\n"));
    let table = text(&forebay(&["merge", job, "--steps", "1"]));
    assert_eq!(
        cells(&table),
        [
            vec![
                "step",
                "generation",
                "ranks",
                "missing",
                "name",
                "count",
                "finite",
                "mean",
                "min",
                "max",
                "sum"
            ],
            vec!["1", "1", "2", "0", "loss", "2", "2", "2.5", "1.5", "3.5", "5"]
        ]
    );
    assert_eq!(
        text(&forebay(&["merge", job, "--pivot", "--reduce", "max", "--csv"])),
        "step,loss\n0,2.5\n1,3.5\n2,4.5\n"
    );
    // Each rank may be named by itself.
    let (one, two) = (format!("{job}/rank-0"), format!("{job}/rank-1"));
    let ranks = text(&forebay(&["merge", &one, &two, "--ranks", "--csv"]));
    assert_eq!(ranks.lines().nth(2).unwrap(), format!("{two},,running,1,0,2,0,0,0,0,0,0,1,"));
    assert_eq!(forebay(&["merge", job, "-n", "nothing"]).status.code(), Some(1));
}

#[test]
fn a_rank_that_cannot_be_read_ends_no_other() {
    let folder = tempfile::tempdir().unwrap();
    for rank in 0..2 {
        let folder = folder.path().join(format!("rank-{rank}"));
        std::fs::create_dir(&folder).unwrap();
        let line = r#"{"name":"loss","time":"2026-11-21T08:00:00.000000000Z","step":0,"scalar":1.5}"#;
        std::fs::write(folder.join("events.jsonl"), format!("{line}\n")).unwrap();
    }
    let damaged = folder.path().join("rank-2");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("events.db"), "SQLite format 3\0 and no more").unwrap();
    let output = forebay(&["merge", folder.path().to_str().unwrap(), "--reduce", "sum", "--csv"]);
    let rows = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!((output.status.code(), rows.lines().nth(1)), (Some(2), Some("0,1,2,0,loss,2,2,3")), "{rows}");
    assert!(said(&output).starts_with("forebay: cannot read "), "{}", said(&output));
}

fn line(name: &str, second: u64, rest: &str) -> String {
    let time = humantime(second);
    format!(r#"{{"name":"{name}","time":"{time}",{rest}}}"#) + "\n"
}

/// Returns a moment of the 21st of November 2026, in seconds since eight.
fn humantime(second: u64) -> String {
    format!("2026-11-21T{:02}:{:02}:{:02}.000000000Z", 8 + second / 3_600, second / 60 % 60, second % 60)
}

fn losses(steps: std::ops::Range<u64>, value: f64) -> String {
    steps.map(|step| line("loss", step, &format!(r#""step":{step},"scalar":{value}"#))).collect()
}

fn append(folder: &Path, lines: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join("events.jsonl");
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

#[test]
fn a_job_is_followed_and_late_and_restarted_ranks_change_what_was_printed() {
    let folder = tempfile::tempdir().unwrap();
    let rank = |number: u64| folder.path().join(format!("rank-{number}"));
    let begin = |number: u64, generation: u64, first: u64| {
        let fields = format!(
            r#""priority":"critical","fields":{{"run_id":"job","rank":{number},"world_size":3,"generation":{generation},"first_step":{first}}}"#
        );
        line("training.started", first, &fields)
    };
    let end = |number: u64| {
        let generation = if number == 1 { 2 } else { 1 };
        let fields =
            format!(r#""priority":"critical","fields":{{"run_id":"job","generation":{generation}}}"#);
        line("training.completed", 60, &fields)
    };
    append(&rank(0), &(begin(0, 1, 0) + &losses(0..40, 1.0)));
    append(&rank(1), &(begin(1, 1, 0) + &losses(0..10, 2.0)));
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    let args = ["merge", "-f", folder.path().to_str().unwrap(), "--reduce", "sum", "--json"];
    let child = command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let mut next = || {
        let row = json(&lines.next().unwrap().unwrap());
        let number = |name: &str| row[name].as_u64().unwrap();
        (number("step"), number("revision"), number("ranks"), row["sum"].as_f64().unwrap())
    };
    (0..9).for_each(|step| assert_eq!(next(), (step, 0, 2, 3.0)));
    // It begins again, and the others wait: what was printed changes.
    append(&rank(1), &(begin(1, 2, 6) + &losses(6..12, 5.0)));
    (6..9).for_each(|step| assert_eq!(next(), (step, 1, 2, 6.0)));
    (9..11).for_each(|step| assert_eq!(next(), (step, 0, 2, 6.0)));
    // A rank comes late, and is folded in.
    append(&rank(2), &(begin(2, 1, 0) + &losses(0..3, 10.0)));
    (0..2).for_each(|step| assert_eq!(next(), (step, 1, 3, 13.0)));
    append(&rank(2), &(losses(3..40, 10.0) + &end(2)));
    append(&rank(1), &(losses(12..40, 5.0) + &end(1)));
    append(&rank(0), &end(0));
    let rest: std::collections::BTreeMap<u64, _> = std::iter::from_fn(|| {
        let row = json(&lines.next()?.unwrap());
        Some((row["step"].as_u64().unwrap(), row["sum"].as_f64().unwrap()))
    })
    .collect();
    assert_eq!(rest.len(), 38, "{rest:?}");
    assert!(rest.iter().all(|(step, sum)| *sum == if *step < 6 { 13.0 } else { 16.0 }), "{rest:?}");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.0.stderr.take().unwrap(), &mut said).unwrap();
    assert!(
        said.contains("rank-1 began again (1 time), and took the place of 4 numbers; generation 2"),
        "{said}"
    );
    assert_eq!(child.code(), Some(0));
}

#[test]
fn a_trace_has_the_form_that_perfetto_reads() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..2_u64 {
        append(&folder.path().join(format!("rank-{number}")), &losses(0..5, 1.0));
    }
    // Its clock is an hour ahead. (Of two, nobody knows which is wrong.)
    let mut lines =
        line("training.started", 3_600, r#""priority":"critical","fields":{"run_id":"job","rank":2}"#);
    for step in 0..5 {
        lines += &losses(step..step + 1, 1.0).replace("T08", "T09");
        // Two at once, and one that is a timer.
        for _ in 0..2 {
            let fields = format!(r#""step":{step},"fields":{{"duration":0.5,"level":"INFO"}}"#);
            lines += &line("load.data", 3_600 + step, &fields);
        }
        lines += &line("forward", 3_600 + step, &format!(r#""step":{step},"scalar":0.25"#));
    }
    append(&folder.path().join("rank-2"), &lines);
    let path = folder.path().join("job.json");
    let path = path.to_str().unwrap();
    let job = folder.path().to_str().unwrap();
    let output = forebay(&["merge", job, "--trace", path, "--timer", "forward", "--json"]);
    let report = json(std::str::from_utf8(&output.stdout).unwrap());
    let trace = json(&std::fs::read_to_string(path).unwrap());
    let events = trace["traceEvents"].as_array().unwrap();
    assert_eq!((&report["events"], &report["runs"]), (&events.len().into(), &3.into()), "{}", said(&output));
    let mut slices = std::collections::BTreeMap::<_, Vec<(f64, f64, String)>>::new();
    let mut names = std::collections::BTreeMap::new();
    for event in events {
        let (name, phase) = (event["name"].as_str().unwrap(), event["ph"].as_str().unwrap());
        let thread = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
        match phase {
            "X" => {
                let (ts, dur) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                assert!(
                    ts >= 0.0 && dur >= 0.0 && event["cat"].is_string() && event["args"].is_object(),
                    "{event}"
                );
                slices.entry(thread).or_default().push((ts, dur, name.to_owned()));
            }
            "i" => {
                assert!(event["ts"].as_f64().unwrap() >= 0.0, "{event}");
                assert!(["g", "p", "t"].contains(&event["s"].as_str().unwrap()), "{event}");
            }
            "M" if name == "process_sort_index" => assert!(event["args"]["sort_index"].is_u64()),
            "M" => {
                assert!(["process_name", "thread_name"].contains(&name), "{event}");
                names.insert((thread, name.to_owned()), event["args"]["name"].as_str().unwrap().to_owned());
            }
            _ => panic!("{event}"),
        }
    }
    let threads: Vec<&str> = names.values().map(String::as_str).collect();
    assert_eq!(
        threads,
        ["rank-0", "steps", "rank-1", "steps", "rank-2", "steps", "load.data", "load.data", "forward"]
    );
    // Slices of one thread do not overlap, and each has a thread with a name.
    for (thread, slices) in &mut slices {
        assert!(names.contains_key(&(*thread, "thread_name".to_owned())), "{thread:?}");
        slices.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(slices.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{slices:?}");
    }
    // A step lasts until the next one, in microseconds; the clock that is an hour ahead is put right.
    let steps =
        |pid| slices[&(pid, 1)].iter().map(|(ts, dur, name)| (*ts, *dur, name.as_str())).collect::<Vec<_>>();
    assert_eq!(steps(1)[..2], [(500_000.0, 1e6, "step 0"), (1_500_000.0, 1e6, "step 1")]);
    assert_eq!(steps(3), steps(1));
    assert_eq!(slices[&(3, 2)][0], (0.0, 500_000.0, "load.data".to_owned()));
    assert_eq!(slices[&(3, 4)][1], (1_250_000.0, 250_000.0, "forward".to_owned()));
}

#[cfg(feature = "redis")]
#[test]
fn ranks_may_be_streams_of_a_server() {
    let Some(server) = crate::server::RedisServer::start(&[]) else { return };
    let urls: Vec<String> = (0..3).map(|rank| format!("{}job:{rank}", server.url())).collect();
    for rank in 0..3 {
        let sink = forebay_redis::RedisSink::open(&server.url()).unwrap().stream(format!("job:{rank}"));
        let collector = Collector::builder().sink(sink).start().unwrap();
        let steps = if rank == 2 { 5 } else { 30 };
        (0..steps)
            .for_each(|step| _ = collector.collect(Record::scalar("loss", f64::from(rank)).with_step(step)));
        collector.stop().unwrap();
        law(&collector, steps);
    }
    let output = forebay(&["merge", &urls[0], &urls[1], &urls[2], "--reduce", "max", "--csv"]);
    let rows = String::from_utf8(output.stdout.clone()).unwrap();
    let rows: Vec<&str> = rows.lines().skip(1).collect();
    assert_eq!((rows.len(), rows[4], rows[5]), (30, "4,1,3,0,loss,3,3,2", "5,1,2,1,loss,2,2,1"));
    assert!(said(&output).contains("job:2 vanished after step 4: "), "{}", said(&output));
}
