//! The journal of a bus.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use forebay::bus::Bus;

/// How many files there are after an event behind so many bytes that were there.
fn files_after(bytes: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    std::fs::write(&path, "\n".repeat(bytes)).unwrap();
    let bus = Bus::builder().journal(&path).unwrap().inline().start().unwrap();
    bus.emit("train.loss", 0.5).unwrap();
    bus.stop().unwrap().stats.check_law(1).unwrap();
    std::fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn a_journal_is_closed_at_100_mib_by_default() {
    const MOST: usize = 100 << 20;
    assert_eq!(files_after(MOST - 1_000), 1);
    assert_eq!(files_after(MOST - 1), 2);
}
