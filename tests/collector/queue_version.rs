//! The queue that ships is the one that was reviewed: `push_fence` relies on what it does inside.

use std::fs;
use std::path::Path;

/// Instructions for the reader of a failure.
const REVIEW: &str = "
1. Compare src/array_queue.rs of both versions. `sync::push_fence` (crates/forebay-sync/src/sync.rs) needs that `push` and
   `force_push` claim their slot by a compare-exchange or a store of `tail` that is SeqCst, that `len` goes by `tail` and `head`, and that `pop`
   waits for a slot that is claimed and not yet written.
2. Set the version in loom-tests/crossbeam-queue/Cargo.toml and the bounds in Cargo.toml, then `cargo update -p crossbeam-queue`
   here and in loom-tests.
3. Run loom-tests/run and loom-tests/mutants.sh.
";

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the version behind the line that names the package.
fn version_in(path: &str) -> String {
    let text = text(path);
    let mut lines = text.lines().skip_while(|line| *line != "name = \"crossbeam-queue\"");
    let line = lines.nth(1).unwrap_or_else(|| panic!("{path} has no crossbeam-queue"));
    line.trim_start_matches("version = ").trim_matches('"').to_owned()
}

#[test]
fn the_queue_that_ships_is_the_one_that_was_reviewed_and_modelled() {
    let (ships, modelled) = (version_in("Cargo.lock"), version_in("loom-tests/crossbeam-queue/Cargo.toml"));
    assert_eq!(
        ships, modelled,
        "crossbeam-queue {ships} ships, and {modelled} was reviewed and modelled:{REVIEW}"
    );
    let locked = version_in("loom-tests/Cargo.lock");
    assert_eq!(locked, modelled, "loom-tests/Cargo.lock has crossbeam-queue {locked}:{REVIEW}");
}

#[test]
fn no_user_gets_a_queue_that_was_not_reviewed() {
    let modelled = version_in("loom-tests/crossbeam-queue/Cargo.toml");
    let (series, patch) = modelled.rsplit_once('.').unwrap();
    let next = format!("{series}.{}", patch.parse::<u32>().unwrap() + 1);
    let bounds = format!("crossbeam-queue = \">={modelled}, <{next}\"");
    let manifest = text("Cargo.toml");
    assert!(manifest.lines().any(|line| line == bounds), "Cargo.toml must say {bounds}:{REVIEW}");
}
