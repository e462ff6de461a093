//! Closed files that are to go: one that cannot be removed holds up no other, and no form of a file comes back.
#![allow(unsafe_code, reason = "libc")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::name_of;
use forebay::sink::{JsonLinesSink, Sink};
use forebay::{Batch, Record};

fn batch(step: u64) -> Batch {
    Batch::from_events(vec![Record::scalar("a", 1.0).with_step(step)])
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Set in a process of its own, to the folder that it works in.
const FOLDER: &str = "FOREBAY_TEST_FOLDER";

/// Runs only in the process that its parent test starts.
#[test]
fn beside_files_of_root() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    // SAFETY: the calls change numbers of this process alone, which is one of the test's own.
    assert!(unsafe { libc::setgid(65_534) == 0 && libc::setuid(65_534) == 0 });
    let path = Path::new(&folder).join("events.jsonl");
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).keep_closed(2);
    let mut reported = Vec::new();
    for step in 0..20 {
        if let Err(error) = sink.write_batch(&batch(step)) {
            assert_eq!(error.failed_events(), Some(0), "{error}");
            reported.push(error.to_string());
        }
    }
    // Once for each of the two files, and not with every file that is closed.
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(
        reported[0].contains("events.jsonl.000001") && reported[1].contains("events.jsonl.000002"),
        "{reported:?}"
    );
}

#[test]
fn files_that_cannot_be_removed_are_reported_once_and_hold_up_no_other() {
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root has files that others cannot remove");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for closed in ["events.jsonl.000001", "events.jsonl.000002"] {
        fs::write(folder.path().join(closed), "{}\n").unwrap();
    }
    // As /tmp is: nobody removes what belongs to another.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(beside_files_of_root), "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected = ["", ".000001", ".000002", ".000020", ".000021"].map(|end| format!("events.jsonl{end}"));
    assert_eq!(names(folder.path()), expected);
}

#[test]
fn a_file_leaves_in_both_of_its_forms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    // A process died between the two last acts of a compression.
    for end in [".000001", ".000001.zst", ".000002"] {
        fs::write(folder.path().join(format!("events.jsonl{end}")), "").unwrap();
    }
    let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1).keep_closed(2);
    (0..2).for_each(|step| sink.write_batch(&batch(step)).unwrap());
    assert_eq!(names(folder.path()), ["events.jsonl", "events.jsonl.000002", "events.jsonl.000003"]);
}

#[cfg(feature = "zstd")]
mod compressed {
    use super::*;

    /// Flushes until something holds, and returns what the flushes reported.
    fn flush_until(sink: &mut JsonLinesSink, holds: impl Fn() -> bool) -> Vec<String> {
        let mut reported = Vec::new();
        while !holds() {
            reported.extend(Sink::<Record>::flush(sink).err().map(|error| error.to_string()));
            std::thread::yield_now();
        }
        reported
    }

    #[test]
    fn a_file_that_cannot_be_compressed_is_reported_once_and_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        // Where the first would go, there is a folder, which is not empty.
        fs::create_dir_all(folder.path().join("events.jsonl.000001.zst.new/full")).unwrap();
        let mut sink = JsonLinesSink::create(&path).unwrap().rotate_at(1);
        (0..4).for_each(|step| sink.write_batch(&batch(step)).unwrap());
        let mut sink = sink.compress_closed();
        let is_done = |number| {
            let closed = folder.path().join(format!("events.jsonl.00000{number}"));
            move || !closed.exists()
        };
        let mut reported = flush_until(&mut sink, is_done(3));
        // It is tried again with the next file that is closed, and not reported again.
        reported.extend(sink.write_batch(&batch(4)).err().map(|error| error.to_string()));
        reported.extend(flush_until(&mut sink, is_done(4)));
        for _ in 0..100 {
            reported.extend(Sink::<Record>::flush(&mut sink).err().map(|error| error.to_string()));
        }
        assert_eq!(reported.len(), 1, "{reported:?}");
        assert!(
            reported[0].contains("cannot compress") && reported[0].contains("events.jsonl.000001"),
            "{reported:?}"
        );
        drop(sink);
        assert_eq!(names(folder.path()).len(), 1 + 4 + 1, "{:?}", names(folder.path()));
    }

    #[test]
    fn what_a_process_left_that_died_is_cleaned_up_although_its_file_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let left = folder.path().join("events.jsonl.000007.zst.new");
        let foreign = folder.path().join("events.jsonl.7.zst.new");
        fs::write(&left, "half").unwrap();
        fs::write(&foreign, "somebody else's").unwrap();
        let mut sink = JsonLinesSink::create(&path).unwrap().compress_closed();
        let reported = flush_until(&mut sink, || !left.exists());
        assert_eq!(reported, Vec::<String>::new());
        assert_eq!(fs::read_to_string(foreign).unwrap(), "somebody else's");
    }
}
