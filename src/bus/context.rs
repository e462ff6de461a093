//! What the calling thread is in the middle of: a handler, the calls of a bus, a scope of correlation.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;

use crate::event::Text;
use crate::sync::{per_thread, worker_of};

per_thread! {
    /// How many events led to the one whose handler this thread is in; `None` outside of handlers.
    static DEPTH: Cell<Option<u32>> = Cell::new(None);
    /// The addresses of the buses for which this thread makes calls, the innermost last.
    static WITHIN: RefCell<Vec<usize>> = RefCell::new(Vec::new());
    /// The ids of the scopes of this thread, the innermost last.
    static SCOPES: RefCell<Vec<Text>> = RefCell::new(Vec::new());
}

/// Whether the calling thread is in a handler, of any bus.
pub(super) fn is_inside() -> bool {
    DEPTH.try_with(Cell::get).is_ok_and(|depth| depth.is_some())
}

/// Whether the calling thread is in a handler or a sink of any bus, or makes calls for one: it may be what others wait for.
pub(super) fn is_busy() -> bool {
    let makes_calls = WITHIN.try_with(|within| !within.borrow().is_empty()).unwrap_or(true);
    makes_calls || is_inside() || worker_of() != 0
}

/// Whether the calling thread makes calls for the bus at this address, of handlers or of sinks.
pub(super) fn is_within(place: usize) -> bool {
    WITHIN.try_with(|within| within.borrow().contains(&place)).unwrap_or(false)
}

/// The calling thread makes calls for the bus at this address from now on, until the value is dropped; `None` if it does
/// already.
pub(super) fn within(place: usize) -> Option<Within> {
    let enter = |within: &RefCell<Vec<usize>>| {
        let is_new = !within.borrow().contains(&place);
        is_new.then(|| within.borrow_mut().push(place))
    };
    WITHIN.try_with(enter).ok().flatten().map(|()| Within(PhantomData))
}

/// Made by [`within`]. Belongs to its thread.
pub(super) struct Within(PhantomData<*const ()>);

impl Drop for Within {
    fn drop(&mut self) {
        let _ = WITHIN.try_with(|within| within.borrow_mut().pop());
    }
}

/// How many events led to one that is emitted here.
pub(super) fn depth() -> u32 {
    DEPTH.try_with(Cell::get).ok().flatten().map_or(0, |depth| depth.saturating_add(1))
}

/// The id of the innermost scope.
pub(super) fn correlation() -> Option<Text> {
    SCOPES.try_with(|scopes| scopes.borrow().last().cloned()).ok().flatten()
}

/// While it lives, the thread is in a handler of an event of that depth.
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
/// use forebay::bus::{Bus, correlate};
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

/// Made by [`correlate`]. Belongs to its thread.
#[derive(Debug)]
#[must_use = "the scope ends when this is dropped"]
pub struct CorrelationScope {
    /// How many scopes there are with this one.
    depth: usize,
    thread: PhantomData<*const ()>,
}

impl Drop for CorrelationScope {
    fn drop(&mut self) {
        // Dropped out of order, it ends those inside as well.
        let _ = SCOPES.try_with(|scopes| scopes.borrow_mut().truncate(self.depth.saturating_sub(1)));
    }
}
