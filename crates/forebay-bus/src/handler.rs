//! Handlers as users make them: a function, the events that it is called for, and how it is called.

use std::any::{Any, TypeId};
use std::fmt;
use std::time::Duration;

use forebay::config::ConfigError;
use forebay::parts::check;
use forebay::sink::RetryPolicy;
use forebay::{Name, Pattern};
use forebay_sync::sync::Arc;

use super::config::check_deadline;
use super::delivery::Delivery;
use super::filter::Filter;
use super::name::{NAME_RULE, is_name};
use super::user_code::UserFunction;

/// Handler: a function for some events, and how it is called; given to [`Bus::subscribe`](super::Bus::subscribe).
///
/// By default a handler is called by as many workers at once as there are events for it, in no particular order; calls that
/// fail are made again ([`BusConfig::retry`](super::BusConfig::retry)), then the event becomes a dead letter.
///
/// ```
/// use std::time::Duration;
/// use forebay_bus::{Bus, Handler, HandlerError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bus = Bus::new()?;
/// let upload = Handler::new("model.checkpoint_saved", |event| {
///     let path = event.value().as_str().ok_or(HandlerError::new("no path").permanent())?;
///     println!("uploads {path}");
///     Ok::<(), HandlerError>(())
/// });
/// bus.subscribe(upload.named("upload").max_concurrent(1).deadline(Duration::from_secs(60)))?.keep();
/// bus.emit("model.checkpoint_saved", "runs/1/model.bin")?;
/// bus.emit("model.checkpoint_saved", ())?;
/// bus.flush()?;
/// assert_eq!(bus.dead_letters().entries()[0].error, "upload: no path");
/// # Ok(())
/// # }
/// ```
#[must_use = "it is called once it is given to `subscribe`"]
pub struct Handler {
    pub(super) name: Option<Name>,
    pub(super) topics: Topics,
    pub(super) typed: Option<TypeId>,
    pub(super) filters: Vec<Filter>,
    pub(super) is_ordered: bool,
    pub(super) max_concurrent: usize,
    pub(super) retry: Option<RetryPolicy>,
    pub(super) deadline: Option<Duration>,
    pub(super) is_discarding: bool,
    /// True if `plugin.error` reports an event that it did not take in the end.
    pub(super) is_plugin: bool,
    pub(super) call: Arc<Call>,
}

/// Function of a handler.
pub(super) type Call = dyn Fn(&Delivery) -> Result<(), HandlerError> + Send + Sync;

impl Handler {
    /// Creates a handler for all events whose names one of the topics stands for: one name or [`Pattern`], or several.
    /// An event for which several of them stand is given to it once.
    pub fn new<R: Handled>(
        topics: impl Into<Topics>,
        call: impl Fn(&Delivery) -> R + Send + Sync + 'static,
    ) -> Self {
        let call = UserFunction::new(call);
        let call = move |event: &Delivery| call.get().map_or(Ok(()), |call| call(event).into_result());
        Self::with(topics.into(), None, Arc::new(call))
    }

    /// Creates a handler for all events that were emitted as a `T` ([`Bus::emit_event`](super::Bus::emit_event)).
    pub fn of_type<T: Any + Send + Sync, R: Handled>(call: impl Fn(&T) -> R + Send + Sync + 'static) -> Self {
        let call = UserFunction::new(call);
        let call = move |event: &Delivery| match (call.get(), event.as_type::<T>()) {
            (Some(call), Some(it)) => call(it).into_result(),
            _ => Ok(()),
        };
        let handler = Self::with(Topics(Vec::new()), Some(TypeId::of::<T>()), Arc::new(call));
        handler.named(std::any::type_name::<T>())
    }

    /// Makes a handler for no event, which a [watcher](super::watch) calls from time to time.
    pub(super) fn triggered(call: impl Fn() + Send + Sync + 'static) -> Self {
        struct Nothing;
        let call = UserFunction::new(call);
        let call = move |_: &Delivery| {
            call.get().into_iter().for_each(|call| call());
            Ok(())
        };
        Self::with(Topics(Vec::new()), Some(TypeId::of::<Nothing>()), Arc::new(call)).max_concurrent(1)
    }

    fn with(topics: Topics, typed: Option<TypeId>, call: Arc<Call>) -> Self {
        Self {
            name: None,
            topics,
            typed,
            filters: Vec::new(),
            is_ordered: false,
            max_concurrent: usize::MAX,
            retry: None,
            deadline: None,
            is_discarding: false,
            is_plugin: false,
            call,
        }
    }

    /// Sets the name under which it is counted. Names need not differ. Defaults to its topics, or to the name of its type.
    pub fn named(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives it only what the filter lets in; may be said again.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// Keeps the order of events that have one name and one priority: one of them at a time, and none before a retry of the
    /// one before it is done. Dead letters that are offered again come behind what waits. Events of other names do not wait
    /// for them, nor does the bus: what waits behind a retry takes no
    /// space in the queue of the handler.
    pub fn ordered(mut self) -> Self {
        self.is_ordered = true;
        self
    }

    /// Sets how many calls may run at once. At least 1. Defaults to the number of workers.
    pub fn max_concurrent(mut self, calls: usize) -> Self {
        self.max_concurrent = calls;
        self
    }

    /// Sets when a call that failed is made again, instead of [`BusConfig::retry`](super::BusConfig::retry).
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Sets how long a call may take before it is overdue, instead of [`BusConfig::deadline`](super::BusConfig::deadline).
    /// More than zero.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Drops events that the handler could not take, instead of keeping them as dead letters. They count as failed.
    pub fn discard_failed(mut self) -> Self {
        self.is_discarding = true;
        self
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let has_topic = !self.topics.0.is_empty() || self.typed.is_some();
        check("topics", "none", "at least one", has_topic)?;
        for name in self.topics.0.iter().filter_map(Pattern::as_name) {
            let is_allowed = is_name(&name);
            check("topics", format!("{name:?}"), NAME_RULE, is_allowed)?;
        }
        check("max_concurrent", self.max_concurrent, "1 or more", self.max_concurrent >= 1)?;
        self.deadline.map_or(Ok(()), check_deadline)
    }

    pub(super) fn label(&self) -> Name {
        let topics = || self.topics.0.iter().map(Pattern::as_str).collect::<Vec<_>>().join(" ").into();
        self.name.clone().unwrap_or_else(topics)
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("name", &self.label()).finish_non_exhaustive()
    }
}

/// Names and patterns of names: made from one, or from several. A text that is no [`Pattern`] stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics(pub(super) Vec<Pattern>);

impl From<&str> for Topics {
    fn from(topic: &str) -> Self {
        Self(vec![topic.into()])
    }
}

impl From<Pattern> for Topics {
    fn from(topic: Pattern) -> Self {
        Self(vec![topic])
    }
}

impl<P: Into<Pattern>, const N: usize> From<[P; N]> for Topics {
    fn from(topics: [P; N]) -> Self {
        Self(topics.into_iter().map(Into::into).collect())
    }
}

impl<P: Into<Pattern>> From<Vec<P>> for Topics {
    fn from(topics: Vec<P>) -> Self {
        Self(topics.into_iter().map(Into::into).collect())
    }
}

/// Return type of a handler: nothing, or a result. Any error of the standard kind is transient;
/// [`HandlerError::permanent`] says otherwise.
pub trait Handled {
    /// Returns how the call went.
    ///
    /// # Errors
    ///
    /// The event was not taken.
    fn into_result(self) -> Result<(), HandlerError>;
}

impl Handled for () {
    fn into_result(self) -> Result<(), HandlerError> {
        Ok(())
    }
}

impl<E: Into<HandlerError>> Handled for Result<(), E> {
    fn into_result(self) -> Result<(), HandlerError> {
        self.map_err(Into::into)
    }
}

/// Reason why a handler did not take an event, and whether another call may help. Made from any error by `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerError {
    pub(super) message: String,
    pub(super) is_transient: bool,
}

impl HandlerError {
    /// Makes a transient error: the handler failed, and another call may help.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_transient: true }
    }

    /// Says that another call cannot help.
    pub fn permanent(mut self) -> Self {
        self.is_transient = false;
        self
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}
