//! Handlers that are called at most once, and the wait for an event.

use std::time::Duration;

use forebay::Record;
use forebay::sink::RetryPolicy;
use forebay_sync::clock::deadline_in;
use forebay_sync::sync::{Arc, Condvar, Mutex};

use super::delivery::Delivery;
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

/// Function that is called once, and the number of its subscription once that is known.
struct Once<F> {
    call: Option<F>,
    id: Option<SubscriptionId>,
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
    /// The handler has ended.
    is_over: bool,
}

/// Part of the handler that waits. Its drop is the end of the handler.
struct Notifier(Arc<Arrival>);

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
        let once = Arc::new(Mutex::new(Once { call: Some(call), id: None }));
        let (own, shared) = (Arc::clone(&once), Arc::downgrade(&self.shared));
        let unsubscribe = move |id: Option<SubscriptionId>| {
            if let Some((id, shared)) = id.zip(shared.upgrade()) {
                shared.engine.unsubscribe(id);
            }
        };
        let handler = Handler::new(topics, move |event| -> Result<(), HandlerError> {
            let (call, id) = {
                let mut once = own.lock();
                (once.call.take(), once.id)
            };
            // Before the call: what the function emits does not come back to it.
            unsubscribe(id);
            call.map_or(Ok(()), |call| call(event).into_result())
        });
        // At the next call the function would be gone.
        let handler = handler.max_concurrent(1).retry(RetryPolicy::list([]));
        let subscription = self.subscribe(handler)?;
        let was_called = {
            let mut once = once.lock();
            once.id = Some(subscription.id);
            once.call.is_none()
        };
        if was_called {
            // The call did not know its number yet.
            self.unsubscribe(subscription.id);
        }
        Ok(subscription)
    }

    /// Waits for the next event that matches, and returns its record. An event counts that is emitted after this call has
    /// begun.
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
        let subscription = self.once(topics, move |event| {
            notifier.0.state.lock().event = Some(Record::clone(event));
            drop(notifier);
        })?;
        let mut state = arrival.state.lock();
        while state.event.is_none() && !state.is_over {
            if arrival.changed.wait_until(&mut state, deadline) {
                break;
            }
        }
        let (event, is_over) = (state.event.take(), state.is_over);
        drop(state);
        drop(subscription);
        let error = if is_over { WaitError::Stopped } else { WaitError::TimedOut { waited: timeout } };
        event.ok_or(error)
    }
}
