//! The crate root has what most programs name, and no more: the rest has its place in a module.

use std::fs;
use std::path::Path;

/// Returns the names that `pub use` brings into the root, and the macros, which have no other place.
fn root_names() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let code = fs::read_to_string(root.join("lib.rs")).unwrap();
    let mut names = Vec::new();
    // What is indented is in a module of its own; a list of names that is broken into lines ends with its semicolon.
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        let Some(item) = line.strip_prefix("pub use ") else { continue };
        let mut item = item.to_owned();
        while !item.ends_with(';') {
            item += lines.next().unwrap();
        }
        let item = item.trim_end_matches(';').trim_end_matches('}');
        let list = item.split_once('{').map_or_else(|| item.rsplit("::").next().unwrap(), |(_, list)| list);
        names.extend(list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    macros(&root, &mut names);
    names
}

fn macros(folder: &Path, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            macros(&path, names);
            continue;
        }
        let code = fs::read_to_string(&path).unwrap();
        for exported in code.split("#[macro_export]").skip(1) {
            let name = exported.split("macro_rules! ").nth(1).and_then(|name| name.split(" {").next());
            names.push(format!("{}!", name.unwrap()));
        }
    }
}

#[test]
fn the_crate_root_has_at_most_25_names() {
    let names = root_names();
    assert!(names.len() <= 25, "{} names: {names:?}", names.len());
    for expected in ["Collector", "Record", "Batch", "global", "init", "Overflow", "fields!", "track_event!"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains('*') || name.contains("::")), "{names:?}");
}
