//! Checks `docs/configuration.md` against a table of keys. The tests of the bus have this file as a module of their own.

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/configuration.md");

/// Returns the rows of the table below a heading, as cells.
pub(crate) fn table(heading: &str) -> Vec<Vec<String>> {
    let rest = DOCUMENT.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let section = rest.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// Returns the rows of the keys in some tables.
pub(crate) fn rows_of_keys(is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    table("Keys").into_iter().filter(|row| is_wanted(row[0].trim_matches('`'))).collect()
}

fn as_written(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(all) if all.is_empty() => "none".to_owned(),
        Value::Array(all) => all.iter().map(as_written).collect::<Vec<_>>().join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn value_of<S: Settings>(preset: Option<Preset>, key: &Key) -> String {
    as_written(slot(&mut to_full_tree(&S::preset(preset)), key.name))
}

pub(crate) fn every_key_is_documented<S: Settings>(keys: &[&Key], rows: &[Vec<String>]) {
    let names: Vec<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let expected: Vec<&str> = keys.iter().map(|key| key.name).collect();
    assert_eq!(names, expected);
    for (key, row) in keys.iter().zip(rows) {
        assert_eq!(row[1].split('`').nth(1), Some(&*key.variable()), "{}", key.name);
        let alias = |alias: &Alias| {
            let unit = match (alias.meant)(&1000.into()).as_f64() {
                Some(1000.0) => "",
                Some(1.0) => " (ms)",
                _ => " (MiB)",
            };
            format!("`{}`{unit}", alias.name)
        };
        assert_eq!(row[2], key.aliases.iter().map(alias).collect::<Vec<_>>().join(", "), "{}", key.name);
        assert_eq!(row[3].replace(',', ""), value_of::<S>(None, key), "{}", key.name);
    }
}

/// Sets every key to another value, and checks whether it can change at run time.
pub(crate) fn what_can_change_is_documented<S: Settings>(
    keys: &[&Key],
    rows: &[Vec<String>],
    is_fixed: impl Fn(&S) -> bool,
) {
    for (key, row) in keys.iter().zip(rows) {
        let samples: [Value; 8] = [
            1.into(),
            2.into(),
            "a".into(),
            "false".into(),
            "normal".into(),
            serde_json::json!([{ "pattern": "a" }]),
            serde_json::json!({ "every": 1 }),
            serde_json::json!({ "min": 1 }),
        ];
        let words = ["drop_newest", "manual", "inline", "refuse", "per_thread"].map(Value::from);
        let mut changes = 0;
        for sample in samples.iter().chain(&words) {
            let mut tree = to_full_tree(&S::preset(None));
            let Ok(value) = read_one::<S>(key, sample) else { continue };
            if *slot(&mut tree, key.name) == value {
                continue;
            }
            changes += 1;
            // A part is used with some choices alone, and these need it.
            for choice in S::CHOICES {
                let chosen =
                    slot(&mut tree, choice.of).as_str().is_some_and(|word| choice.with.contains(&word));
                if choice.part == key.name && !chosen {
                    *slot(&mut tree, choice.of) = choice.with[0].into();
                } else if choice.of == key.name
                    && value.as_str().is_some_and(|word| choice.with.contains(&word))
                {
                    *slot(&mut tree, choice.part) = 1.into();
                }
            }
            *slot(&mut tree, key.name) = value;
            let settings: S = from_full_tree(tree).unwrap();
            let expected = if is_fixed(&settings) { "no" } else { "yes" };
            assert_eq!(row[5].split(',').next(), Some(expected), "{}", key.name);
        }
        assert!(changes > 0, "{} takes none of the samples", key.name);
    }
}

pub(crate) fn every_preset_is_documented<S: Settings>(keys: &[&Key]) {
    let rows = table("Presets");
    for key in keys {
        let name = format!("`{}`", key.name);
        let row = rows.iter().find(|row| row[0] == name);
        for (column, preset) in Preset::ALL.into_iter().enumerate() {
            let cell = row.map_or("", |row| &row[column + 1]).replace(',', "");
            let expected = if cell.is_empty() { value_of::<S>(None, key) } else { cell };
            assert_eq!(value_of::<S>(Some(preset), key), expected, "{} of {preset}", key.name);
        }
    }
}

pub(crate) fn no_name_stands_for_two_settings_or_for_a_table(keys: &[&Key]) {
    let mut names: Vec<&str> = keys.iter().flat_map(|key| key.names()).map(|(name, _)| name).collect();
    let is_table = |name: &str| {
        names.iter().any(|other| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    };
    assert!(!names.iter().any(|name| is_table(name)));
    let before = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), before);
}
