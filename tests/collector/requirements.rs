//! The list of requirements is complete, and what it names exists.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/internal/requirements.md");

/// The documents, and how many items each has.
const DOCUMENTS: [(&str, usize); 5] = [("S0", 73), ("S1", 105), ("S2", 109), ("S3", 46), ("S4", 95)];

/// Returns the three cells of every row.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    PAGE.lines().filter(|line| line.starts_with("| S")).map(|line| {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        cells.try_into().unwrap_or_else(|_| panic!("not three cells: {line}"))
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the folders of the other crates.
fn crates() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(root().join("crates")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir())
}

#[test]
fn every_item_of_every_document_has_a_row_in_order() {
    let expected = DOCUMENTS
        .iter()
        .flat_map(|(document, items)| (1..=*items).map(move |n| format!("{document}-{n:02}")));
    let reported: Vec<&str> = rows().map(|[id, ..]| id).collect();
    for (expected, reported) in expected.clone().zip(&reported) {
        assert_eq!(expected, *reported);
    }
    assert_eq!(reported.len(), expected.count());
}

#[test]
fn what_shows_an_item_exists() {
    let mut sources = Sources::default();
    for [id, what, shown] in rows() {
        assert!(!what.is_empty(), "{id}");
        // Every other part stands between backticks.
        let names = shown.split('`').skip(1).step_by(2);
        let shows = names.filter(|name| sources.checks(id, name)).count();
        let is_open = ["**missing**", "**untested**", "Left out: "].iter().any(|mark| shown.contains(mark));
        assert!(shows > 0 || is_open, "{id}: nothing shows it");
    }
}

/// Sources that have been read.
#[derive(Default)]
struct Sources {
    files: HashMap<PathBuf, String>,
    library: String,
}

impl Sources {
    /// Returns whether this shows something, and then it has to exist; other names are words, of the crate or of a document.
    fn checks(&mut self, id: &str, name: &str) -> bool {
        if let Some(item) = name.strip_prefix("forebay::") {
            let item = item.rsplit("::").next().unwrap();
            let kinds = ["struct", "enum", "trait", "fn", "mod", "macro_rules!"];
            let is_defined = kinds.iter().any(|kind| self.has_word(&format!("{kind} {item}")));
            assert!(is_defined, "{id}: no {name}");
        } else if !name.contains("::") && (name.contains('/') || name.contains(".md")) {
            let (path, section) = name.split_once('#').unwrap_or((name, ""));
            assert!(root().join(path).exists(), "{id}: no {path}");
            let mut sections = self.read(id, path).lines().filter(|line| line.starts_with('#'));
            let is_there = sections.any(|line| line.trim_start_matches('#').trim() == section);
            assert!(section.is_empty() || is_there, "{id}: no section {section:?} in {path}");
        } else if name.starts_with(char::is_uppercase) {
            let is_known = name.split("::").all(|part| self.has_word(part));
            assert!(is_known, "{id}: nothing is called {name}");
            return false;
        } else if let Some((file, test)) = name.split_once("::") {
            let paths = match file {
                "loom" => ["protocol", "task"].map(|file| format!("loom-tests/tests/{file}.rs")).to_vec(),
                unit if unit.starts_with("src/") || unit.starts_with("crates/") => vec![format!("{unit}.rs")],
                integration => self.integration(&format!("{integration}.rs")),
            };
            let is_there = paths.iter().any(|path| is_test(self.read(id, path), test));
            assert!(is_there, "{id}: no test {test} in {paths:?}");
        } else {
            return false;
        }
        true
    }

    /// Returns the files of tests of that name, each a module of its program.
    fn integration(&self, file: &str) -> Vec<String> {
        let files = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let programs = crates().map(|each| each.join("tests")).filter(|tests| tests.exists());
        let programs = programs.chain([root().join("tests")]).flat_map(files).filter(|path| path.is_dir());
        let folders = programs.chain([root().join("examples/train_digits/tests")]);
        let paths = folders.flat_map(files).filter(|path| path.ends_with(file));
        paths.map(|path| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()).collect()
    }

    #[track_caller]
    fn read(&mut self, id: &str, path: &str) -> &str {
        let path = root().join(path);
        self.files.entry(path).or_insert_with_key(|path| {
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{id}: {}: {error}", path.display()))
        })
    }

    /// Returns whether the library has this word, or these words.
    fn has_word(&mut self, words: &str) -> bool {
        if self.library.is_empty() {
            read_all(&root().join("src"), &mut self.library);
            crates().for_each(|each| read_all(&each.join("src"), &mut self.library));
        }
        let is_part =
            |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
        self.library.match_indices(words).any(|(at, _)| {
            let (before, after) = (&self.library[..at], &self.library[at + words.len()..]);
            !is_part(before.chars().next_back()) && !is_part(after.chars().next())
        })
    }
}

fn read_all(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// Returns whether there is a function of that name with `#[test]` among its attributes.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let function = format!("fn {name}(");
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&function)).any(|(at, _)| {
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).any(|line| *line == "#[test]")
    })
}
