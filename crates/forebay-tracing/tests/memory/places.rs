//! A program with a million places that log.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay::sink::{SinkError, from_fn};
use forebay::{Batch, Collector, Overflow};
use tracing::callsite::{Callsite, Identifier};
use tracing::field::FieldSet;
use tracing::metadata::Kind;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::prelude::*;

use crate::allocator::{IN_USE, turn};
use crate::support;

const PLACES: usize = 1_000_000;

/// After so many, the table is full.
const FIRST: usize = 50_000;

/// Place that logs, as a macro makes it. It lives as long as the process, as all of them do.
struct Place(OnceLock<Metadata<'static>>);

impl Callsite for Place {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        self.0.get().unwrap()
    }
}

/// Makes places, each with a target of its own.
fn places() -> &'static [Place] {
    let places: &'static [Place] = (0..PLACES).map(|_| Place(OnceLock::new())).collect::<Vec<_>>().leak();
    let targets: &'static str =
        (0..PLACES).map(|place| format!("place::{place:07}")).collect::<String>().leak();
    let length = targets.len() / PLACES;
    for (number, place) in places.iter().enumerate() {
        let target = &targets[number * length..(number + 1) * length];
        let fields = FieldSet::new(&[], Identifier(place));
        let metadata =
            Metadata::new("event here", target, Level::INFO, None, None, None, fields, Kind::EVENT);
        place.0.set(metadata).ok().unwrap();
    }
    places
}

#[test]
fn a_million_places_have_their_names_and_take_no_more_memory_than_a_few_thousand() {
    let _turn = turn();
    let places = places();
    let next = AtomicU64::new(0);
    // In order, and none is missing.
    let sink = from_fn("names", move |batch: &Batch| {
        for record in batch {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if record.name() != format!("place.{number:07}") {
                return Err(SinkError::from(std::io::Error::other(record.name())));
            }
        }
        Ok(())
    });
    let collector = Collector::builder()
        .capacity(1024)
        .overflow(Overflow::Block { timeout: support::LONG })
        .sink(sink)
        .start()
        .unwrap();
    let (layer, guard) = forebay_tracing::layer(collector.clone());
    let log = |places: &'static [Place]| {
        for place in places {
            let metadata = place.0.get().unwrap();
            Event::dispatch(metadata, &metadata.fields().value_set(&[]));
        }
        collector.flush().unwrap();
        IN_USE.load(Ordering::Relaxed)
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let (first, others) = places.split_at(FIRST);
        let few = log(first);
        let many = log(others);
        assert!(many < few + (256 << 10), "{few} bytes in use after {FIRST} places, {many} after {PLACES}");
    });
    let report = guard.stop();
    assert_eq!(report.lost(), 0, "{report}");
    support::law(&collector, PLACES as u64);
}
