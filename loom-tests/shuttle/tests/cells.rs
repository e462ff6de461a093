//! The cell of these models notices two threads at once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Has two threads write to a cell, each under the lock if `is_guarded`. Returns what a panic says.
fn two_writers(is_guarded: bool) -> Option<String> {
    let body = move || {
        let cell = Arc::new((UnsafeCell::new(0), Mutex::new(())));
        let writes = {
            let cell = Arc::clone(&cell);
            move || {
                let _held = is_guarded.then(|| cell.1.lock());
                // SAFETY: what is tested is that the cell says so where it is not exclusive; and all threads are one of the system.
                cell.0.with_mut(|number| unsafe { *number += 1 });
            }
        };
        let other = thread::spawn(writes.clone());
        writes();
        other.join().unwrap();
    };
    let failed = catch_unwind(AssertUnwindSafe(|| shuttle::check_random(body, 100))).err()?;
    Some(failed.downcast_ref::<&str>().map_or_else(
        || failed.downcast_ref::<String>().cloned().unwrap_or_default(),
        |text| (*text).to_owned(),
    ))
}

#[test]
fn two_threads_that_write_at_once_are_found() {
    let said = two_writers(false).expect("nobody came between");
    assert!(said.contains("two threads access a cell at once"), "{said}");
}

#[test]
fn two_threads_that_write_one_after_the_other_are_not() {
    assert_eq!(two_writers(true), None);
}
