//! `forebay doctor` before runs that are damaged, each in one way, and before runs that are well.

use std::collections::BTreeSet;
use std::path::Path;

use forebay::sink::{JsonLinesSink, Sink, SqliteSink, TensorBoardSink};
use forebay::{Batch, Record};

use super::{forebay, json, run};

/// Returns a line of that second, counted from 08:00.
fn at(second: u64, name: &str, rest: &str) -> String {
    let (hour, minute, second) = (8 + second / 3600, second / 60 % 60, second % 60);
    format!(r#"{{"name":"{name}","time":"2026-11-21T{hour:02}:{minute:02}:{second:02}.000000000Z",{rest}}}"#)
        + "\n"
}

fn loss(second: u64, step: u64) -> String {
    at(second, "loss", &format!(r#""step":{step},"scalar":0.5"#))
}

fn started(second: u64, generation: u64) -> String {
    let fields = format!(r#""fields":{{"run_id":"r","generation":{generation},"heartbeat":5.0}}"#);
    at(second, "training.started", &fields)
}

fn beat(second: u64, uptime: u64, generation: u64) -> String {
    let fields =
        format!(r#""fields":{{"run_id":"r","generation":{generation},"uptime":{uptime}.0,"heartbeat":5.0}}"#);
    at(second, "training.heartbeat", &fields)
}

fn ended(second: u64, how: &str) -> String {
    at(
        second,
        &format!("training.{how}"),
        r#""fields":{"run_id":"r","generation":1,"error":"out of memory"}"#,
    )
}

/// A run of 20 seconds that is well, in lines: those of each second, and its end.
fn well() -> Vec<String> {
    let mut lines = vec![started(0, 1)];
    for second in 1..20 {
        lines.push(loss(second, second));
        if second % 5 == 0 {
            lines.push(beat(second, second, 1));
        }
    }
    lines.push(ended(20, "completed"));
    lines
}

fn write(folder: &Path, lines: &[String]) {
    std::fs::write(folder.join("events.jsonl"), lines.concat()).unwrap();
}

/// Puts lines behind the tenth of a run that is well.
fn with(folder: &Path, more: &[String]) {
    let mut lines = well();
    lines.splice(10..10, more.iter().cloned());
    write(folder, &lines);
}

fn event_file(folder: &Path, name: &str, seconds: std::ops::Range<u64>) {
    let own = tempfile::tempdir().unwrap();
    let mut sink = TensorBoardSink::create(own.path()).unwrap();
    let records = seconds.map(|second| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000 + second);
        Record::scalar("loss", 0.5).with_step(second).with_time(time)
    });
    sink.write_batch(&Batch::from_events(records.collect::<Vec<_>>())).unwrap();
    drop(sink);
    let from = std::fs::read_dir(own.path()).unwrap().next().unwrap().unwrap().path();
    std::fs::copy(from, folder.join(name)).unwrap();
}

fn changed(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn database(folder: &Path) {
    let mut sink = SqliteSink::create(folder.join("events.db")).unwrap();
    let records = (0..5_000).map(|step| Record::scalar("loss", 0.5).with_step(step));
    sink.write_batch(&Batch::from_events(records.collect::<Vec<_>>())).unwrap();
}

type Damage = (&'static str, &'static str, fn(&Path));

const DAMAGES: [Damage; 21] = [
    ("a line without an end", "torn", |folder| {
        let mut lines = well();
        lines.push(loss(21, 21)[..30].to_owned());
        write(folder, &lines);
    }),
    ("a line that is none", "damage", |folder| with(folder, &["{\"name\":\0\0\0\n".to_owned()])),
    ("events that were evicted", "gap", |folder| with(folder, &[at(8, "forebay.gap", r#""integer":20"#)])),
    ("a run that failed", "failed", |folder| {
        let mut lines = well();
        lines.pop();
        lines.push(ended(20, "failed"));
        write(folder, &lines);
    }),
    ("a process that was killed", "vanished", |folder| {
        let mut lines = well();
        lines.pop();
        write(folder, &lines);
    }),
    ("a clock that was ahead", "clock", |folder| {
        let mut lines = well();
        lines.pop();
        let lines: Vec<String> = lines.iter().map(|line| line.replace("2026-", "2126-")).collect();
        write(folder, &lines);
    }),
    ("an event of the future behind the end of a run", "clock", |folder| {
        let mut lines = well();
        lines.push(loss(30, 30).replace("2026-", "2096-"));
        write(folder, &lines);
    }),
    ("event files of the future", "clock", |folder| {
        event_file(folder, "events.out.tfevents.1.a", 2_000_000_000..2_000_000_050);
    }),
    ("a clock that was set while it ran", "clock", |folder| {
        with(folder, &[beat(9, 9, 1), beat(600, 10, 1), beat(11, 11, 1)])
    }),
    ("a machine that hung", "silence", |folder| {
        write(folder, &[started(0, 1), beat(5, 5, 1), loss(6, 1), beat(50, 50, 1), ended(51, "completed")]);
    }),
    ("a number that is none", "not finite", |folder| with(folder, &[loss(9, 9).replace("0.5", "\"NaN\"")])),
    ("a step that goes back", "steps", |folder| with(folder, &[loss(9, 2)])),
    ("a name of two kinds", "kind", |folder| {
        with(folder, &[loss(9, 9).replace("\"scalar\":0.5", "\"text\":\"low\"")])
    }),
    ("a process of an earlier generation", "writers", |folder| {
        write(
            folder,
            &[started(0, 1), started(60, 2), beat(65, 65, 1), ended(70, "completed").replace(":1,", ":2,")],
        );
    }),
    ("a closed file that is missing", "missing file", |folder| {
        write(folder, &well());
        for number in [2, 3, 5] {
            std::fs::write(folder.join(format!("events.jsonl.00000{number}")), "").unwrap();
        }
    }),
    ("a closed file that is damaged", "damage", |folder| {
        write(folder, &well());
        std::fs::write(folder.join("events.jsonl.000001.zst"), [7; 100]).unwrap();
    }),
    ("a byte of an event file", "damage", |folder| {
        event_file(folder, "events.out.tfevents.1.a", 0..50);
        changed(&folder.join("events.out.tfevents.1.a"), |bytes| bytes[300] ^= 1);
    }),
    ("an event file without its end", "torn", |folder| {
        event_file(folder, "events.out.tfevents.1.a", 0..50);
        changed(&folder.join("events.out.tfevents.1.a"), |bytes| bytes.truncate(bytes.len() - 3));
        // One that was written a moment ago may go on.
        let file =
            std::fs::File::options().append(true).open(folder.join("events.out.tfevents.1.a")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000)).unwrap();
    }),
    ("two writers of event files", "writers", |folder| {
        event_file(folder, "events.out.tfevents.1.a", 0..50);
        event_file(folder, "events.out.tfevents.2.b", 50..100);
        event_file(folder, "events.out.tfevents.3.c", 70..130);
    }),
    ("a database with pages of something else", "damage or unreadable", |folder| {
        database(folder);
        changed(&folder.join("events.db"), |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle..middle + 20_000].fill(0xa5);
        });
    }),
    ("nothing", "empty", |folder| write(folder, &[])),
];

fn kinds(folder: &Path) -> (Option<i32>, BTreeSet<String>, String) {
    let output = forebay(&["doctor", "--json", folder.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    let kinds = said.lines().map(|line| json(line)["kind"].as_str().unwrap().to_owned()).collect();
    (output.status.code(), kinds, said)
}

#[test]
fn each_damage_is_found_and_nothing_beside_it() {
    for (what, kind, make) in DAMAGES {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let (code, kinds, said) = kinds(folder.path());
        assert_eq!(code, Some(1), "{what}");
        match kind {
            "damage or unreadable" => {
                assert!(kinds.iter().all(|it| kind.contains(it.as_str())), "{what}: {said}")
            }
            // A step that comes again is one that two files have.
            _ if what.starts_with("two writers") => assert!(kinds.contains(kind), "{what}: {said}"),
            _ => assert_eq!(kinds, BTreeSet::from([kind.to_owned()]), "{what}: {said}"),
        }
    }
}

#[test]
fn the_places_of_a_damage_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let diverged = loss(9, 9).replace("0.5", "\"NaN\"");
    let gaps = [at(8, "forebay.gap", r#""integer":20"#), at(9, "forebay.gap", r#""integer":3"#)];
    with(folder.path(), &[&gaps[..], &[diverged.clone(), diverged]].concat());
    let said = String::from_utf8(forebay(&["doctor", folder.path().to_str().unwrap()]).stdout).unwrap();
    let line = "  gap: 23 events were evicted before they were written: \
                20 behind step 8, at 2026-11-21T08:00:08Z; 3 behind step 8, at 2026-11-21T08:00:09Z\n";
    assert!(said.contains(line), "{said}");
    assert!(said.contains("  not finite: loss has 2 numbers not finite, the first at step 9\n"), "{said}");
}

#[test]
fn nothing_is_found_in_five_runs_that_are_well() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    run(&of("run"), 0.1, 0.25, |run| run.completed([("accuracy", 0.5)]).unwrap());
    write(&of("by hand"), &well());
    // One that was killed and goes on from an earlier step.
    let mut resumed = well();
    resumed.pop();
    resumed.extend([
        started(100, 2),
        loss(101, 10),
        beat(105, 5, 2),
        ended(106, "completed").replace(":1,", ":2,"),
    ]);
    write(&of("resumed"), &resumed);
    database(&of("database"));
    let rotated = of("rotated");
    let mut sink =
        JsonLinesSink::create(rotated.join("events.jsonl")).unwrap().rotate_at(1_000).keep_closed(3);
    for step in 0..200 {
        sink.write_batch(&Batch::from_events(vec![Record::scalar("loss", 0.5).with_step(step)])).unwrap();
    }
    drop(sink);
    let event_files = of("event files");
    event_file(&event_files, "events.out.tfevents.1.a", 0..50);
    event_file(&event_files, "events.out.tfevents.2.b", 50..100);
    let torch = concat!(env!("CARGO_MANIFEST_DIR"), "/../tfevents/tests/torch-writer/scalar");
    let (code, _, said) = kinds(folder.path());
    assert_eq!((code, said.as_str()), (Some(0), ""));
    // What PyTorch wrote there has a step that goes back and numbers that are none, and is whole.
    let (_, kinds, said) = kinds(Path::new(torch));
    assert_eq!(kinds, ["not finite", "steps"].map(str::to_owned).into(), "{said}");
}
