//! One global collector for the whole program, for code that no handle can be passed to.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use crate::collector::Collector;
use crate::event::Record;
use crate::sync::{OnceLock, catch_panic, unforked};
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
/// ```standalone_crate
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
    // A fork waits until it is set. A child could never finish what another thread has begun.
    unforked(|| GLOBAL.set(collector)).map_err(AlreadyInitialized)?;
    unix::at_exit(stop_global);
    Ok(())
}

/// Returns the collector given to [`init`]. If there is none, installs the one that `make` makes.
///
/// # Errors
///
/// The error of `make`.
///
/// # Examples
///
/// ```standalone_crate
/// use forebay::Collector;
/// use forebay::collector::get_or_init;
///
/// # fn main() -> Result<(), forebay::collector::StartError> {
/// let collector: &'static Collector = get_or_init(|| Collector::builder().start())?;
/// assert!(collector.is_running());
/// # Ok(())
/// # }
/// ```
pub fn get_or_init<F>(
    make: impl FnOnce() -> Result<Collector<Record>, F>,
) -> Result<&'static Collector<Record>, F> {
    if let Some(collector) = GLOBAL.get() {
        return Ok(collector);
    }
    let made = make()?;
    // If another thread was faster, its collector stays, and ours stops at the end, where no fork has to wait for it.
    let mut is_ours = false;
    let global = unforked(|| {
        GLOBAL.get_or_init(|| {
            is_ours = true;
            made.clone()
        })
    });
    if is_ours {
        unix::at_exit(stop_global);
    }
    Ok(global)
}

/// Stops the global collector at the end of the process. Other threads may still run and collect.
extern "C" fn stop_global() {
    if let Some(collector) = GLOBAL.get() {
        // Nobody is left to read the result, and nothing may unwind from here.
        let _ = catch_panic(|| drop(collector.stop_timeout(collector.config().drop_timeout)));
    }
}

/// Returns the collector given to [`init`]: one atomic load, and no handle is cloned.
///
/// It is `None` before `init`: an event is not lost in a collector that nobody has set up, and nothing panics. An override
/// by [`scoped`] lives shorter than the program, so it is not seen here; [`current`] sees both.
///
/// ```standalone_crate
/// use forebay::{Collector, Record};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// assert!(forebay::global().is_none());
/// forebay::init(Collector::builder().start()?)?;
/// let collector: &'static Collector = forebay::global().ok_or("init was not called")?;
/// assert!(collector.collect(Record::scalar("train.loss", 0.5)).is_queued());
/// # Ok(())
/// # }
/// ```
pub fn global() -> Option<&'static Collector<Record>> {
    GLOBAL.get()
}

/// Returns the collector that [`track_event!`](crate::track_event) uses: the innermost [`scoped`] one of this thread,
/// else the [`global`] one.
///
/// ```standalone_crate
/// use forebay::collector::{current, scoped};
/// use forebay::{Collector, Record, sink::MemorySink};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// fn library_code() {
///     if let Some(collector) = current() {
///         collector.collect(Record::new("cache.hit"));
///     }
/// }
///
/// let memory = MemorySink::new();
/// let collector = Collector::builder().sink(memory.clone()).start()?;
/// scoped(&collector, library_code);
/// library_code(); // no collector is installed: nothing happens
/// collector.stop()?;
/// assert_eq!(memory.len(), 1);
/// # Ok(())
/// # }
/// ```
pub fn current() -> Option<Cow<'static, Collector<Record>>> {
    let scoped = SCOPED.try_with(|scoped| scoped.borrow().last().cloned()).ok().flatten();
    scoped.map(Cow::Owned).or_else(|| global().map(Cow::Borrowed))
}

/// Runs `body` with `collector` as the [`current`] one, on this thread only. It is for tests, which run side by side
/// in one program.
///
/// ```standalone_crate
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

/// Collects a record with the [current](crate::collector::current) collector: that of the scope, or the global one.
///
/// The forms are `track_event!("name")`, `track_event!("name", key = value, ...)`, and `track_event!(priority:
/// Priority::Critical, "name", key = value, ...)`. The value is `Some(`[`Outcome`](crate::Outcome)`)`. When no
/// collector is installed it is `None`, and no argument is evaluated.
#[macro_export]
macro_rules! track_event {
    (priority: $priority:expr, $name:expr $(, $key:ident = $value:expr)* $(,)?) => {
        match $crate::collector::current() {
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
