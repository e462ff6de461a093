//! A bus that does not fit into memory.
#![allow(unsafe_code, reason = "libc")]

use crate::support::alone;
use forebay::Config;
use forebay_bus::{Bus, BusConfig};

const LIMIT: u64 = 1 << 30;

#[test]
fn a_capacity_that_does_not_fit_into_memory_is_an_error_that_names_it() {
    alone!();
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: the call is given a structure of its own. It limits the address space of this process, which runs nothing else.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
    let bus = BusConfig::default().with_collector(Config::default().with_capacity(1 << 30));
    let error = Bus::builder().config(bus).start().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("capacity must fit into memory"), "{error}");
}
