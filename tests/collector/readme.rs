//! The README shows what its programs print, its table is short, and what it and the pages in `docs/` refer to exists.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support;

const README: &str = include_str!("../../README.md");
const GUARANTEES: &str = include_str!("../../docs/guarantees.md");

#[cfg(feature = "tensorboard")]
#[test]
fn the_first_program_of_the_readme_prints_what_stands_below_it() {
    use forebay::sink::{JsonLinesSink, TensorBoardSink};
    use forebay::{Collector, run};

    let parent = tempfile::tempdir().unwrap();
    let folder = run::folder(parent.path().join("runs")).unwrap();
    let path = folder.join("events.jsonl");
    let collector = Collector::builder()
        .sink(JsonLinesSink::create(&path).unwrap())
        .sink(TensorBoardSink::create(&folder).unwrap())
        .start()
        .unwrap();
    for step in 0..1000 {
        let (loss, lr) = (1.0 / (step + 1) as f64, 0.1);
        collector.log(step, [("train.loss", loss), ("train.lr", lr)]);
    }
    let report = collector.stop().unwrap();
    assert!(README.contains(&format!("```text\n{}\n```", report.stats)), "{}", report.stats);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2000);
    support::law(&collector, 2000);
}

#[test]
fn a_sink_that_hangs_for_30_000_events_leaves_the_count_of_the_first_screen() {
    let gate = support::Gate::closed();
    let collector = support::stalled(support::ticks(), &gate);
    for number in 1..30_000 {
        collector.collect(support::tick(number));
    }
    gate.open();
    let stats = collector.stop().unwrap().stats.to_string();
    let count = stats.lines().next().unwrap();
    let first_screen: Vec<&str> = README.lines().take(24).collect();
    assert!(first_screen.join("\n").contains(&format!("```text\n{count}\n```")), "{count}");
    support::law(&collector, 30_000);
}

#[test]
fn the_readme_is_short() {
    assert!(README.lines().count() <= 150);
    let rows = README.split("## What happens when").nth(1).unwrap().split("## ").next().unwrap();
    let rows: Vec<&str> = rows.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().all(|row| row.len() <= 140), "{rows:?}");
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let table = GUARANTEES.split("## What happens when").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| when"));
    let crates = fs::read_dir(root().join("crates")).unwrap().map(|entry| entry.unwrap().path());
    let folders = crates.chain([root()]).map(|folder| folder.join("tests")).filter(|tests| tests.exists());
    let files: Vec<String> = folders.flat_map(|tests| names(&tests)).collect();
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

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let single = ["README.md", "CONTRIBUTING.md", "python/README.md", "python/tests/data/README.md"];
    let mut pages = single.map(|page| root().join(page)).to_vec();
    for folder in ["docs", "docs/internal"] {
        let files = fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|kind| kind == "md")));
    }
    let mut links = 0;
    for page in pages {
        for target in targets(&fs::read_to_string(&page).unwrap()) {
            let (path, section) = target.split_once('#').unwrap_or((&target, ""));
            let file = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(file.exists(), "{}: nothing is at {target}", page.display());
            let is_there =
                section.is_empty() || anchors(&fs::read_to_string(&file).unwrap()).any(|it| it == section);
            assert!(is_there, "{}: no section {target}", page.display());
            links += 1;
        }
    }
    assert!(links > 20, "{links}");
}

/// Returns the names of all files below a folder.
fn names(folder: &Path) -> Vec<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| match path.is_dir() {
        true => names(&path),
        false => vec![path.file_name().unwrap().to_string_lossy().into_owned()],
    };
    paths.flat_map(below).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Returns the targets of the Markdown links in a page that lead to a file of this repository. Code has none.
fn targets(page: &str) -> Vec<String> {
    let prose: String = page.split("```").step_by(2).collect();
    let after = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    after.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// Returns the anchors that a forge gives to the headings of a page.
fn anchors(page: &str) -> impl Iterator<Item = String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| {
        let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
        line.trim_start_matches(['#', ' '])
            .to_lowercase()
            .chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    })
}
