//! One global collector for the whole program, for code that no handle can be passed to.

use std::cell::RefCell;
use std::fmt;

use crate::collector::Collector;
use crate::event::Record;
use crate::sync::{OnceLock, catch_panic};
use crate::unix;

static GLOBAL: OnceLock<Collector<Record>> = OnceLock::new();

thread_local! {
    /// The overrides of this thread, the innermost last.
    static SCOPED: RefCell<Vec<Collector<Record>>> = const { RefCell::new(Vec::new()) };
}

/// Installs the global collector of the program. This can be done once.
///
/// Statics are never dropped. Call [`stop`](Collector::stop) on it before the program ends, to learn how that went.
/// On Unix, `exit` or a return from `main` stops it with the deadline of a last handle
/// ([`Config::drop_timeout`](crate::Config::drop_timeout)). Elsewhere, what was collected within the last interval is
/// lost.
///
/// ```
/// use forebay::{Collector, track_event};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// forebay::init(Collector::builder().start()?)?;
/// track_event!("training.epoch_completed", epoch = 3, loss = 0.12);
/// let report = forebay::global().ok_or("none")?.stop()?;
/// assert_eq!(report.stats.processed, 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// A global collector is installed already. The error returns the new one, still running.
pub fn init(collector: Collector<Record>) -> Result<(), AlreadyInitialized> {
    GLOBAL.set(collector).map_err(AlreadyInitialized)?;
    unix::at_exit(stop_global);
    Ok(())
}

/// Returns the collector given to [`init`]. If there is none, installs the one that `make` makes.
///
/// # Errors
///
/// The error of `make`.
pub fn get_or_init<F>(make: impl FnOnce() -> Result<Collector<Record>, F>) -> Result<Collector<Record>, F> {
    if let Some(collector) = GLOBAL.get() {
        return Ok(collector.clone());
    }
    let made = make()?;
    // If another thread was faster, its collector stays, and ours ends here.
    let mut is_ours = false;
    let global = GLOBAL.get_or_init(|| {
        is_ours = true;
        made
    });
    if is_ours {
        unix::at_exit(stop_global);
    }
    Ok(global.clone())
}

/// Stops the global collector at the end of the process. Other threads may still run and collect.
extern "C" fn stop_global() {
    if let Some(collector) = GLOBAL.get() {
        // Nobody is left to read the result, and nothing may unwind from here.
        let _ = catch_panic(|| drop(collector.stop_timeout(collector.config().drop_timeout)));
    }
}

/// Returns the global collector, if one is installed: the innermost [`scoped`] one of this thread, or else the one
/// given to [`init`].
pub fn global() -> Option<Collector<Record>> {
    let scoped = SCOPED.try_with(|scoped| scoped.borrow().last().cloned());
    scoped.ok().flatten().or_else(|| GLOBAL.get().cloned())
}

/// Runs `body` with `collector` as the global collector, on this thread only. It is for tests, which run side by side
/// in one program.
///
/// ```
/// use forebay::{Collector, collector::scoped, sink::MemorySink, track_event};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// scoped(&collector, || track_event!("cache.hit", key = "user:7"));
/// track_event!("cache.hit", key = "nobody listens");
/// collector.stop()?;
/// assert_eq!(memory.len(), 1);
/// # Ok(())
/// # }
/// ```
pub fn scoped<R>(collector: &Collector<Record>, body: impl FnOnce() -> R) -> R {
    /// Guard that ends the override, even when `body` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            // Moved out first, because the drop of a collector may run code that comes back here.
            let ended = SCOPED.try_with(|scoped| scoped.borrow_mut().pop());
            drop(ended);
        }
    }
    SCOPED.with(|scoped| scoped.borrow_mut().push(collector.clone()));
    let _end = End;
    body()
}

/// Error of [`init`]: a program has one global collector, and this is a second.
#[derive(thiserror::Error)]
#[error("a global collector is installed already")]
pub struct AlreadyInitialized(pub Collector<Record>);

impl fmt::Debug for AlreadyInitialized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AlreadyInitialized")
    }
}

/// Collects a record with the global collector ([`global`]).
///
/// The forms are `track_event!("name")`, `track_event!("name", key = value, ...)`, and `track_event!(priority:
/// Priority::Critical, "name", key = value, ...)`. The value is `Some(`[`Outcome`](crate::Outcome)`)`. When no
/// collector is installed it is `None`, and no argument is evaluated.
#[macro_export]
macro_rules! track_event {
    (priority: $priority:expr, $name:expr $(, $key:ident = $value:expr)* $(,)?) => {
        match $crate::global() {
            ::std::option::Option::Some(collector) => {
                let record = $crate::Record::new($name)
                    .with_priority($priority)
                    $(.with_field(::std::stringify!($key), $value))*;
                ::std::option::Option::Some(collector.collect(record))
            }
            ::std::option::Option::None => ::std::option::Option::None,
        }
    };
    ($name:expr $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::track_event!(priority: $crate::Priority::Normal, $name $(, $key = $value)*)
    };
}
