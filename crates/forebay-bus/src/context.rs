//! Context of the calling thread: whether it is in a handler or makes calls for a bus, and its correlation id.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;

use forebay::event::Text;
use forebay_sync::sync::{per_thread, worker_of};

per_thread! {
    /// Number of events that led to the one whose handler this thread is in; `None` outside of handlers.
    static DEPTH: Cell<Option<u32>> = Cell::new(None);
    /// The addresses of the buses for which this thread makes calls, the innermost last.
    static CALLS_FOR: RefCell<Vec<usize>> = RefCell::new(Vec::new());
    /// The ids of the scopes of this thread, the innermost last.
    static SCOPES: RefCell<Vec<Text>> = RefCell::new(Vec::new());
}

/// Returns whether the calling thread is in a handler of any bus.
pub(super) fn is_inside() -> bool {
    DEPTH.try_with(Cell::get).is_ok_and(|depth| depth.is_some())
}

/// Returns whether the calling thread is in a handler or a sink of any bus, or makes calls for one: others may wait for it.
pub(super) fn is_busy() -> bool {
    let makes_calls = CALLS_FOR.try_with(|calls_for| !calls_for.borrow().is_empty()).unwrap_or(true);
    makes_calls || is_inside() || worker_of() != 0
}

/// Returns whether the calling thread calls handlers or sinks for the bus at this address.
pub(super) fn is_calling_for(address: usize) -> bool {
    CALLS_FOR.try_with(|calls_for| calls_for.borrow().contains(&address)).unwrap_or(false)
}

/// Marks the calling thread as one that makes calls for the bus at this address, until the value is dropped. Returns `None` if
/// it is marked already.
pub(super) fn enter(address: usize) -> Option<Caller> {
    let mark = |calls_for: &RefCell<Vec<usize>>| {
        let is_new = !calls_for.borrow().contains(&address);
        is_new.then(|| calls_for.borrow_mut().push(address))
    };
    CALLS_FOR.try_with(mark).ok().flatten().map(|()| Caller(PhantomData))
}

/// Mark of a thread. Made by [`enter`].
pub(super) struct Caller(PhantomData<*const ()>);

impl Drop for Caller {
    fn drop(&mut self) {
        let _ = CALLS_FOR.try_with(|calls_for| calls_for.borrow_mut().pop());
    }
}

/// Returns how many events led to one that this thread emits now.
pub(super) fn depth() -> u32 {
    DEPTH.try_with(Cell::get).ok().flatten().map_or(0, |depth| depth.saturating_add(1))
}

/// Returns the id of the innermost scope.
pub(super) fn correlation() -> Option<Text> {
    SCOPES.try_with(|scopes| scopes.borrow().last().cloned()).ok().flatten()
}

/// Mark of a thread that is in a handler. While it lives, events of the thread have that depth, and one more.
pub(super) struct Inside {
    before: Option<u32>,
    _scope: Option<CorrelationScope>,
}

impl Inside {
    pub(super) fn enter(depth: u32, correlation: Option<&str>) -> Self {
        let before = DEPTH.try_with(|cell| cell.replace(Some(depth))).ok().flatten();
        Self { before, _scope: correlation.map(correlate) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|cell| cell.set(self.before));
    }
}

/// Gives all events that this thread emits a correlation id, until the value is dropped; those that have one keep it.
/// Scopes may be nested: the innermost holds. An event that a handler emits has the id of the event at hand by itself.
///
/// ```
/// use forebay_bus::{Bus, correlate};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new()?;
/// {
///     let _run = correlate("run-7");
///     bus.emit("training.started", ())?;
///     bus.emit("training.epoch_started", 1)?;
/// }
/// bus.emit("training.started", ())?;
/// bus.flush()?;
/// assert_eq!(bus.correlated("run-7")?.len(), 2);
/// # Ok(())
/// # }
/// ```
pub fn correlate(id: impl Into<Text>) -> CorrelationScope {
    let id = id.into();
    let depth = SCOPES.try_with(|scopes| {
        let mut scopes = scopes.borrow_mut();
        scopes.push(id);
        scopes.len()
    });
    CorrelationScope { depth: depth.unwrap_or(0), thread: PhantomData }
}

/// Scope of a correlation id. Made by [`correlate`]. Belongs to its thread.
#[derive(Debug)]
#[must_use = "the scope ends when this is dropped"]
pub struct CorrelationScope {
    /// Number of scopes, this one included.
    depth: usize,
    thread: PhantomData<*const ()>,
}

impl Drop for CorrelationScope {
    fn drop(&mut self) {
        // Dropped out of order, it ends those inside as well.
        let _ = SCOPES.try_with(|scopes| scopes.borrow_mut().truncate(self.depth.saturating_sub(1)));
    }
}
