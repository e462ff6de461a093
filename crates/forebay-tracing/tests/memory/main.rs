//! What an event costs the allocator: on the thread that logs, and where there are more places than the table holds.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, reason = "tests")]

#[allow(dead_code, reason = "a part of it is used")]
#[path = "../../../../tests/memory/allocator.rs"]
mod allocator;
mod places;
#[path = "../../../../tests/support/mod.rs"]
mod support;

use allocator::{calls_of_this_thread, turn};
use forebay::sink::from_fn;
use forebay::{Batch, Builder, Collector};
use forebay_tracing::{Line, LinesSink};
use tracing_subscriber::prelude::*;

/// Calls of the allocator by one event, after the first ones.
fn calls(mut event: impl FnMut()) -> u64 {
    for _ in 0..10 {
        event();
    }
    let before = calls_of_this_thread();
    for _ in 0..1000 {
        event();
    }
    (calls_of_this_thread() - before) / 1000
}

#[test]
fn an_event_of_numbers_allocates_nothing_and_each_text_two_pieces() {
    let _turn = turn();
    let collector = Collector::builder().sink(from_fn("none", |_: &Batch| Ok(()))).start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        // Lists of fields, which the worker hands back once it has emptied them.
        let flush = || _ = collector.flush().unwrap();
        (0..2000).for_each(|_| tracing::info!(loss = 0.5, epoch = 3));
        flush();
        assert_eq!(calls(|| tracing::info!(loss = 0.5, epoch = 3)), 0);
        // The message of a place is known, as long as it stays the same.
        flush();
        assert_eq!(calls(|| tracing::info!(loss = 0.5, epoch = 3, "step done")), 0);
        flush();
        assert_eq!(calls(|| tracing::info!(loss = 0.5, epoch = 3, "step {}", "done")), 0);
        flush();
        let mut number = 0;
        let changing = calls(|| {
            number += 1;
            tracing::info!(loss = 0.5, "step {number}");
        });
        assert_eq!(changing, 2);
        flush();
        assert_eq!(calls(|| tracing::info!(step = 3, loss = 0.5, name = "small", "step done")), 2);
        // What is inherited is shared.
        flush();
        let _span = tracing::info_span!("run", user = "ada", host = "a").entered();
        assert_eq!(calls(|| tracing::info!(loss = 0.5, epoch = 3, "step done")), 0);
    });
    assert_eq!(guard.stop().lost(), 0);
    support::law(&collector, 2000 + 6 * 1010);
}

#[test]
fn an_event_that_nobody_wants_allocates_nothing() {
    let _turn = turn();
    let collector = Collector::builder().start().unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    drop(guard);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        assert_eq!(calls(|| tracing::info!(loss = 0.5, epoch = 3, "step done")), 0);
    });
    support::law(&collector, 1010);
}

#[test]
fn a_line_allocates_once() {
    let _turn = turn();
    let collector = Builder::<Line>::new().sink(LinesSink::new(std::io::sink())).start().unwrap();
    let (writer, guard) = forebay_tracing::lines(collector.clone());
    let format = tracing_subscriber::fmt::layer().without_time().with_ansi(false).with_writer(writer);
    tracing::subscriber::with_default(tracing_subscriber::registry().with(format), || {
        assert_eq!(calls(|| tracing::info!(loss = 0.5, epoch = 3, "step done")), 1);
    });
    assert_eq!(guard.stop().lost(), 0);
    support::law(&collector, 1010);
}
