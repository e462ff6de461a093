//! The program at the top of the README does what the README says it prints.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

#[cfg(feature = "tensorboard")]
mod support;

#[cfg(feature = "tensorboard")]
#[test]
fn the_first_program_of_the_readme_prints_what_stands_below_it() {
    use forebay::sink::{JsonLinesSink, TensorBoardSink};
    use forebay::{Collector, Record};

    let readme = include_str!("../README.md");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs/1/events.jsonl");
    let collector = Collector::builder()
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(TensorBoardSink::create(path.parent().unwrap()).unwrap())
        .start()
        .unwrap();
    for step in 0..1000 {
        let loss = 1.0 / (step + 1) as f64;
        collector.collect(Record::scalar("train.loss", loss).step(step));
    }
    let report = collector.stop().unwrap();
    assert!(readme.contains(&format!("```text\n{}\n```", report.stats)), "{}", report.stats);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1000);
    support::law(&collector, 1000);
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let readme = include_str!("../README.md");
    let table = readme.split("## What happens when").nth(1).unwrap().split("## When not").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| when"));
    let files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
        .unwrap()
        .map(|file| file.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let mut named = 0;
    for row in rows {
        let tests = row.trim_end_matches([' ', '|']).rsplit("| ").next().unwrap();
        for test in tests.split(", ").map(|test| test.trim_matches('`')) {
            let begins =
                |file: &String| file.starts_with(&format!("{test}_")) || *file == format!("{test}.rs");
            assert!(files.iter().any(begins), "no file of tests begins with {test}: {row}");
            named += 1;
        }
    }
    assert!(named > 15);
}
