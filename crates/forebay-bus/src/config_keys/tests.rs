//! Tests of what `docs/configuration.md` says of the keys of a bus.

#[path = "../../../../src/config/tests/documented.rs"]
mod documented;

use forebay::config::Preset;
use forebay::parts::{Alias, Key, Settings, from_full_tree, read_one, slot, to_full_tree};
use serde_json::Value;

use super::*;
use documented::*;

fn keys() -> Vec<&'static Key> {
    KEYS.iter().collect()
}

fn rows() -> Vec<Vec<String>> {
    rows_of_keys(|name| name.starts_with("bus."))
}

#[test]
fn every_key_of_a_bus_is_documented_with_its_variable_aliases_and_default() {
    every_key_is_documented::<BusConfig>(&keys(), &rows());
}

#[test]
fn no_setting_of_a_bus_changes_at_run_time() {
    what_can_change_is_documented::<BusConfig>(&keys(), &rows(), |_| true);
}

#[test]
fn every_preset_of_a_bus_is_what_the_document_says() {
    every_preset_is_documented::<BusConfig>(&keys());
}

#[test]
fn no_name_of_a_bus_is_ambiguous() {
    no_name_stands_for_two_settings_or_for_a_table(&BusConfig::keys());
}

#[test]
fn a_collector_passes_over_every_name_of_a_bus() {
    let is_passed_over =
        |name: &str| Config::PASSED_OVER.iter().any(|it| *it == name || name.starts_with("bus."));
    assert!(keys().iter().flat_map(|key| key.names()).all(|(name, _)| is_passed_over(name)));
    assert!(Config::PASSED_OVER.contains(&TABLE));
}
