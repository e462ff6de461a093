//! Filters of a bus, or of one handler.

use std::fmt;

use forebay::{Event, Pattern, Priority, Record, Value};
use forebay_sync::sync::{Arc, catch_panic};

use super::user_code::UserFunction;

/// Filter of events: on the bus, before they are queued ([`Bus::add_filter`](super::Bus::add_filter)); for one handler,
/// before they are given to it ([`Handler::filter`](super::Handler::filter)).
///
/// What is the same for all of a bus and never changes is better set in its gate
/// ([`GateConfig`](forebay::config::GateConfig)), which remembers names.
///
/// Every filter costs an atomic read-modify-write for each event, on a cache line that all threads that emit share: so no
/// filter is asked once it is removed. One filter with several conditions costs less than several filters.
///
/// ```
/// use forebay_bus::Filter;
/// use forebay::{Fields, Priority, Record, Value};
///
/// let important = Filter::data("important", |value| value == Some(&Value::Bool(true)));
/// assert!(important.lets_in(&Record::fields("a.b", Fields::new().with("important", true))));
/// assert!(!important.lets_in(&Record::new("a.b")));
/// assert!(!Filter::deny(["*.debug"]).lets_in(&Record::new("loader.debug")));
/// assert!(Filter::min_priority(Priority::Normal).lets_in(&Record::new("a.b")));
/// ```
#[derive(Clone)]
pub struct Filter(Arc<dyn Fn(&Record) -> bool + Send + Sync>);

impl Filter {
    /// Makes a filter that lets in what a function says. It runs on the thread that emits (for one handler: on the thread that delivers to all),
    /// so it should be quick. One that panics lets the event in.
    pub fn new(lets_in: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        let lets_in = UserFunction::new(lets_in);
        Self(Arc::new(move |event| lets_in.get().is_none_or(|lets_in| lets_in(event))))
    }

    /// Lets in names that one of the patterns stands for.
    pub fn allow<P: Into<Pattern>>(patterns: impl IntoIterator<Item = P>) -> Self {
        let patterns: Vec<Pattern> = patterns.into_iter().map(Into::into).collect();
        Self::new(move |event| patterns.iter().any(|pattern| pattern.matches(Event::name(event))))
    }

    /// Lets in names that none of the patterns stands for.
    pub fn deny<P: Into<Pattern>>(patterns: impl IntoIterator<Item = P>) -> Self {
        let Self(is_named) = Self::allow(patterns);
        Self::new(move |event| !is_named(event))
    }

    /// Lets in events of that priority and above.
    pub fn min_priority(lowest: Priority) -> Self {
        // The highest comes first.
        Self::new(move |event| event.priority() <= lowest)
    }

    /// Lets in what a function says of one field of the data; of `None`, where there is no such field.
    pub fn data(
        field: impl Into<String>,
        lets_in: impl Fn(Option<&Value>) -> bool + Send + Sync + 'static,
    ) -> Self {
        let field = field.into();
        Self::new(move |event| lets_in(event.value().as_fields().and_then(|fields| fields.get(&field))))
    }

    /// Returns whether the filter lets an event in.
    pub fn lets_in(&self, event: &Record) -> bool {
        catch_panic(|| (self.0)(event)).unwrap_or(true)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").finish_non_exhaustive()
    }
}
