//! Checks `docs/configuration.md` against the table of keys.

use serde_json::Value;

use super::keys::{Alias, Key};
use super::loader::{Settings, from_full_tree, read_one, slot, to_full_tree};
use super::preset::Preset;
use super::settings::Config;

mod documented;

use documented::*;

/// Returns the keys of a collector, which are also above those of a bus.
fn is_of_a_collector(name: &str) -> bool {
    name != "preset" && !name.starts_with("bus.")
}

#[test]
fn every_key_of_a_collector_is_documented_with_its_variable_aliases_and_default() {
    assert_eq!(table("Keys")[0][0], "`preset`");
    every_key_is_documented::<Config>(&Config::keys(), &rows_of_keys(is_of_a_collector));
}

#[test]
fn what_can_change_at_run_time_is_what_the_document_says() {
    let is_fixed = |config: &Config| config.keeps_what_is_fixed(&Config::default()).is_err();
    what_can_change_is_documented(&Config::keys(), &rows_of_keys(is_of_a_collector), is_fixed);
}

#[test]
fn every_preset_of_a_collector_is_what_the_document_says() {
    every_preset_is_documented::<Config>(&Config::keys());
    let is_key = |row: &[String]| Config::keys().iter().any(|key| row[0] == format!("`{}`", key.name));
    assert!(table("Presets").iter().all(|row| is_key(row) || row[0].starts_with("`bus.")));
}

#[test]
fn no_name_of_a_collector_is_ambiguous() {
    no_name_stands_for_two_settings_or_for_a_table(&Config::keys());
}

#[test]
fn every_key_that_a_choice_takes_is_a_key() {
    let is_key = |name: &str| Config::keys().iter().any(|key| key.name == name);
    assert!(Config::CHOICES.iter().all(|choice| is_key(choice.part) && is_key(choice.of)));
}
