//! Helpers that the benchmarks share.
#![allow(dead_code, reason = "no benchmark uses all of it")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forebay::sink::{Sink, SinkError, from_fn};
use forebay::{Batch, Builder, Collector, Event, FlushStrategy};

/// Plain data, `8 * N` bytes.
#[derive(Clone, Copy)]
pub(crate) struct Words<const N: usize>(
    #[allow(dead_code, reason = "it is only carried")] pub(crate) [u64; N],
);

impl<const N: usize> Event for Words<N> {}

/// A strategy under which a worker sleeps unless half a lane is full.
pub(crate) const NEVER: FlushStrategy = FlushStrategy::Time { interval: Duration::from_secs(3600) };

pub(crate) fn null<E: Event>() -> impl Sink<E> {
    from_fn("null", |_: &Batch<E>| Ok(()))
}

/// Returns a sink in which the worker stays until the sender is dropped.
fn hung<E: Event>(arrived: Sender<()>, go_on: Receiver<()>) -> impl Sink<E> {
    let go_on = Mutex::new(go_on);
    from_fn("hung", move |_: &Batch<E>| {
        let _ = arrived.send(());
        if let Ok(go_on) = go_on.lock() {
            let _ = go_on.recv();
        }
        Ok(())
    })
}

/// Starts a collector whose worker is awake and hangs until the sender is dropped. `event` is the one it hangs with.
pub(crate) fn stalled<E: Event>(builder: Builder<E>, event: E) -> (Collector<E>, Sender<()>) {
    let (arrived, arrivals) = channel();
    let (go_on, wait) = channel();
    let builder = builder.flush(FlushStrategy::Size { events: 1 }).sink(hung(arrived, wait));
    let collector = match builder.start() {
        Ok(collector) => collector,
        Err(error) => unreachable!("the settings are allowed: {error}"),
    };
    collector.collect(event);
    let _ = arrivals.recv();
    (collector, go_on)
}

/// A sink that measures the time from its first batch to its flush, on the worker: without the two wake-ups of the
/// flush that starts it.
#[derive(Clone)]
pub(crate) struct Stopwatch(Arc<Mutex<(Option<Instant>, Duration)>>);

impl Stopwatch {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((None, Duration::ZERO))))
    }

    /// Returns the time at the last flush.
    pub(crate) fn read(&self) -> Duration {
        self.0.lock().map_or(Duration::MAX, |watch| watch.1)
    }
}

impl<E: Event> Sink<E> for Stopwatch {
    fn name(&self) -> &str {
        "stopwatch"
    }

    fn write_batch(&mut self, _: &Batch<E>) -> Result<(), SinkError> {
        if let Ok(mut watch) = self.0.lock() {
            watch.0.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        if let Ok(mut watch) = self.0.lock() {
            watch.1 = watch.0.take().map_or(Duration::MAX, |begun| begun.elapsed());
        }
        Ok(())
    }
}

/// Prepared inserts of scalars, a transaction at a time, into the tables and indices of an `SqliteSink`.
#[cfg(feature = "sqlite")]
pub(crate) struct BareDatabase(rusqlite::Connection);

#[cfg(feature = "sqlite")]
impl BareDatabase {
    pub(crate) fn create(path: &std::path::Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        drop(forebay::sink::SqliteSink::create(path)?);
        let database = rusqlite::Connection::open(path)?;
        database.pragma_update(None, "synchronous", "NORMAL")?;
        let ids = "INSERT INTO runs VALUES (1, 'bare', 0); INSERT INTO names VALUES (1, 'train.loss')";
        database.execute_batch(ids)?;
        Ok(Self(database))
    }

    pub(crate) fn insert(&mut self, records: &[forebay::Record]) -> Result<(), rusqlite::Error> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO events (run, name, time, step, priority, kind, value) VALUES (1, 1, ?, ?, 1, 'scalar', ?)",
            )?;
            for record in records {
                let step = record.step().map(|step| step as i64);
                insert.execute((record.unix_nanos() as i64, step, record.value().as_f64()))?;
            }
        }
        transaction.commit()
    }
}
