//! Handlers that are called at most once, and the wait for an event.

use std::time::Duration;

use forebay::Record;
use forebay::event::EventId;
use forebay::sink::RetryPolicy;
use forebay_sync::clock::deadline_in;
use forebay_sync::sync::{Arc, Condvar, Mutex, Ordering};

use super::delivery::Delivery;
use super::engine::Engine;
use super::filter::Filter;
use super::handle::Bus;
use super::handler::{Handled, Handler, HandlerError, Topics};
use super::id::SubscriptionId;
use super::subscribers::SubscribeError;
use super::subscription::Subscription;

/// Error of a wait for an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// No event that matches came in time.
    #[error("no event that matches came within {waited:?}")]
    TimedOut {
        /// Time that the call waited.
        waited: Duration,
    },
    /// The bus stopped meanwhile.
    #[error("the bus has stopped")]
    Stopped,
    /// A handler or a sink calls, which must not wait for others.
    #[error("a handler or a sink cannot wait for an event")]
    Inside,
    /// The bus refuses the subscription.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
}

/// Place where a thread waits for an event.
#[derive(Default)]
struct Arrival {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    event: Option<Record>,
    /// The handler has ended: no call begins any more.
    is_over: bool,
}

impl Arrival {
    /// Unsubscribes the handler that waits, and returns the event that came.
    fn end(&self, engine: &Engine, id: SubscriptionId) -> Option<Record> {
        // An event whose call has begun counts as handled. If the call has unsubscribed the handler, the event is here.
        if let Some(subscriber) = engine.unsubscribe(id) {
            engine.await_idle(&subscriber, None);
        }
        self.state.lock().event.take()
    }
}

/// Part of the handler that waits. Its drop is the end of the handler.
struct Notifier(Arc<Arrival>);

impl Notifier {
    /// Keeps the first event, and wakes the thread that waits for it.
    fn arrive(&self, event: &Record) {
        self.0.state.lock().event.get_or_insert_with(|| event.clone());
        self.0.changed.notify_all();
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Bus {
    /// Calls a function for the next event that matches, then unsubscribes it. It is called at most once: an event that it does
    /// not take is a dead letter at once, and no retry is made.
    ///
    /// ```
    /// use forebay_bus::Bus;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::new()?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// bus.once("training.*", move |event| sender.send(event.name().to_owned()))?.keep();
    /// bus.emit_sync("training.started", ())?;
    /// bus.emit_sync("training.completed", ())?;
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), ["training.started"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`on`](Self::on).
    pub fn once<R: Handled>(
        &self,
        topics: impl Into<Topics>,
        call: impl FnOnce(&Delivery) -> R + Send + 'static,
    ) -> Result<Subscription, SubscribeError> {
        let id = Engine::new_id();
        let (call, engine) = (Mutex::new(Some(call)), Arc::downgrade(&self.shared.engine));
        let handler = Handler::new(topics, move |event| -> Result<(), HandlerError> {
            let call = call.lock().take();
            // Before the call: what the function emits does not come back to it.
            engine.upgrade().and_then(|engine| engine.unsubscribe(id));
            call.map_or(Ok(()), |call| call(event).into_result())
        });
        self.shared.engine.subscribe_as(id, at_most_once(handler))?;
        Ok(Subscription { id, shared: Arc::downgrade(&self.shared) })
    }

    /// Waits for the next event that matches, and returns its record. An event counts that is emitted after this call has
    /// begun. An event that was given to the collector has no id: it counts if it reaches the handlers after that.
    ///
    /// ```
    /// use std::time::Duration;
    /// use forebay_bus::Bus;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let bus = Bus::new()?;
    /// let emitter = bus.emitter();
    /// let training = std::thread::spawn(move || {
    ///     while emitter.emit("training.epoch_completed", 3).is_ok_and(|it| it.outcome.is_queued()) {
    ///         std::thread::yield_now();
    ///     }
    /// });
    /// let event = bus.wait_for("training.*", Duration::from_secs(60))?;
    /// assert_eq!(event.value().as_i64(), Some(3));
    /// bus.stop()?;
    /// # training.join().unwrap();
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// No such event came in time; the bus stopped; a handler or a sink calls; or as for [`on`](Self::on).
    pub fn wait_for(&self, topics: impl Into<Topics>, timeout: Duration) -> Result<Record, WaitError> {
        if self.shared.is_inside() {
            return Err(WaitError::Inside);
        }
        let deadline = deadline_in(timeout);
        let arrival = Arc::new(Arrival::default());
        let notifier = Notifier(Arc::clone(&arrival));
        let (id, engine) = (Engine::new_id(), Arc::downgrade(&self.shared.engine));
        let handler = Handler::new(topics, move |event| {
            notifier.arrive(event);
            engine.upgrade().and_then(|engine| engine.unsubscribe(id));
        });
        // Those that were emitted before may be on their way.
        let number = |number| EventId::new(self.shared.session, number);
        let earlier = number(1)..number(self.shared.next_event.load(Ordering::Relaxed));
        let is_later = move |record: &Record| record.event_id().is_none_or(|event| !earlier.contains(&event));
        self.shared.engine.subscribe_as(id, at_most_once(handler.filter(Filter::new(is_later))))?;
        let mut state = arrival.state.lock();
        while state.event.is_none() && !state.is_over {
            if arrival.changed.wait_until(&mut state, deadline) {
                break;
            }
        }
        let error = if state.is_over { WaitError::Stopped } else { WaitError::TimedOut { waited: timeout } };
        drop(state);
        arrival.end(&self.shared.engine, id).ok_or(error)
    }
}

/// Lets no second call begin while the first, which unsubscribes the handler, runs; and makes no retry.
fn at_most_once(handler: Handler) -> Handler {
    handler.max_concurrent(1).retry(RetryPolicy::list([]))
}

#[cfg(test)]
mod tests;
