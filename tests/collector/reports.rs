//! A flush and a stop are statements: a report may be read and need not be.
#![deny(unused_must_use)]

use std::error::Error;

use crate::support::{law, tick, ticks};
use forebay::sink::{SinkError, from_fn};
use forebay::{Batch, Collector, Event};

/// Compiles only as long as no report has to be used.
fn flush_and_stop<E: Event>(collector: &Collector<E>) -> Result<(), Box<dyn Error>> {
    collector.flush()?;
    collector.flush_timeout(std::time::Duration::from_secs(60))?;
    collector.stop()?;
    Ok(())
}

#[test]
fn a_sink_that_fails_is_no_error_of_a_flush_or_a_stop_and_both_reports_tell() {
    let failing =
        |name| from_fn(name, |_: &Batch<_>| Err(SinkError::write_failed("no space left").permanent()));
    let collector = ticks().sink(failing("one")).start().unwrap();
    collector.collect(tick(1));
    let flushed = collector.flush().unwrap();
    assert!(!flushed.is_clean());
    assert_eq!((flushed.processed, flushed.sinks[0].failed), (1, 1));
    collector.collect(tick(2));
    assert_eq!(collector.stop().unwrap().failed(), 2);
    law(&collector, 2);

    let collector = ticks().sink(failing("two")).start().unwrap();
    collector.collect(tick(1));
    flush_and_stop(&collector).unwrap();
    assert_eq!(law(&collector, 1).sink("two").unwrap().failed, 1);
}
