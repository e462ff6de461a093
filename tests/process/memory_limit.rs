//! A collector that does not fit into memory.
#![allow(unsafe_code, reason = "libc")]

use std::process::Command;

use crate::support::*;
use forebay::collector::{BuildError, StartError};
use forebay::{Builder, Collector, Config, Event, Record};

/// Set in the process with little memory.
const LIMITED: &str = "FOREBAY_TEST_LIMITED";

const LIMIT: u64 = 1 << 30;

/// Limits the address space of this process.
fn limit_memory() {
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the call is given a structure of its own.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

fn refused(config: Config) -> (&'static str, usize) {
    match Collector::builder().config(config).build() {
        Err(BuildError::OutOfMemory { field, slots, .. }) => (field, slots),
        other => panic!("{other:?}"),
    }
}

/// 4 KiB an event.
struct Large {
    _bytes: [u64; 512],
}

impl Event for Large {}

/// Runs only in the process with little memory.
#[test]
fn refuses_what_does_not_fit() {
    if std::env::var_os(LIMITED).is_none() {
        return;
    }
    limit_memory();
    let base = Config::default;
    let most = 1 << 30;
    assert_eq!(refused(base().with_capacity(most)), ("capacity", most));
    assert_eq!(refused(base().with_capacity(most).with_shards(64)), ("capacity", most));
    assert_eq!(refused(base().with_critical_capacity(most)), ("critical_capacity", most));
    assert_eq!(refused(base().with_low_capacity(most)), ("low_capacity", most));
    // Each of them fits alone.
    let third = 6_000_000;
    let together = base().with_capacity(third).with_critical_capacity(third).with_low_capacity(third);
    assert_eq!(refused(together), ("low_capacity", third));

    let error = Builder::<Large>::new().capacity(300_000).build().map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "capacity must fit into memory, got 300000 slots of 4104 bytes");

    // A stack that does not fit is refused as well, and leaves a collector that can be started later.
    let error = Collector::builder().thread_stack_size(1 << 40).start().map(|_| ()).unwrap_err();
    assert!(matches!(error, StartError::Thread(_)), "{error}");

    let collector = Collector::builder().start().unwrap();
    collector.collect_batch((0..10).map(|n| Record::integer("n", n)));
    collector.stop().unwrap();
    law(&collector, 10);
}

#[test]
fn a_capacity_that_does_not_fit_into_memory_is_an_error_that_names_it() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name_of!(refuses_what_does_not_fit), "--nocapture"])
        .env(LIMITED, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_stack_that_no_machine_has_is_not_allowed() {
    for bytes in [isize::MAX as usize, usize::MAX] {
        let error = Collector::builder().thread_stack_size(bytes).start().map(|_| ()).unwrap_err();
        let expected =
            format!("invalid thread_stack_size: {bytes} (expected less than half of the address space)");
        assert_eq!(error.to_string(), expected);
    }
}
