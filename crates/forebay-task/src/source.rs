//! Sources: functions that make the items of a task on a thread of their own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select_biased};
use forebay::Event;
use forebay::sink::EventReceiver;
use forebay::subscription::Subscription;
use forebay_sync::clock::Clock;
use forebay_sync::sync::{Arc, Parker, Unparker};
use futures_core::Stream;

/// Function that makes one item after the other, on the thread of the source. `None` is the end.
pub(crate) type Source<T> = Box<dyn FnMut(&SourceContext<'_>) -> Option<T> + Send>;

/// Context of a source on its thread: the clock, and two ways in which the end of the task wakes it.
pub(crate) struct SourceContext<'a> {
    pub(crate) clock: &'a Clock,
    /// Unparked when the task is stopped.
    pub(crate) parker: &'a Parker,
    pub(crate) unparker: &'a Unparker,
    /// Disconnected when the task is stopped, for who waits by a `select`.
    pub(crate) stopped: &'a Receiver<Infallible>,
    pub(crate) is_wanted: &'a dyn Fn() -> bool,
}

impl SourceContext<'_> {
    /// Sleeps until then. Returns whether items are still wanted.
    fn sleep_until(&self, until: Instant) -> bool {
        while (self.is_wanted)() && self.clock.now() < until {
            self.clock.park(self.parker, Some(until));
        }
        (self.is_wanted)()
    }
}

/// Waker that unparks the thread of the source when its subscription has an event.
struct UnparkOnWake(Unparker);

impl Wake for UnparkOnWake {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Makes a source of the items of a channel.
pub(crate) fn of_receiver<T: Send + 'static>(receiver: Receiver<T>) -> Source<T> {
    // The stop comes first: a task that is stopped takes nothing from a channel that is never empty.
    Box::new(move |context| {
        select_biased! {
            recv(context.stopped) -> _ => None,
            recv(receiver) -> item => item.ok(),
        }
    })
}

/// Makes a source of the events of a subscription that is a channel.
pub(crate) fn of_events<E: Event>(events: EventReceiver<E>) -> Source<E> {
    Box::new(move |context| {
        select_biased! {
            recv(context.stopped) -> _ => None,
            recv(events) -> event => event.ok(),
        }
    })
}

/// Makes a source of the events of a subscription.
pub(crate) fn of_subscription<E: Event + Clone>(mut subscription: Subscription<E>) -> Source<E> {
    let mut waker: Option<Waker> = None;
    Box::new(move |context| {
        let waker = waker.get_or_insert_with(|| Arc::new(UnparkOnWake(context.unparker.clone())).into());
        while (context.is_wanted)() {
            match Pin::new(&mut subscription).poll_next(&mut Context::from_waker(waker)) {
                Poll::Ready(event) => return event,
                Poll::Pending => context.clock.park(context.parker, None),
            }
        }
        None
    })
}

/// Makes a source of numbers. Number `n` comes `n` periods after the first. Numbers for which nobody had time are left out.
pub(crate) fn of_interval(every: Duration) -> Source<u64> {
    let mut first: Option<Instant> = None;
    let mut next = 0u64;
    Box::new(move |context| {
        let first = *first.get_or_insert_with(|| context.clock.now());
        let nanos = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX).max(1);
        // Beyond what the clock can tell, there is no next one.
        let due = first.checked_add(Duration::from_nanos(nanos.checked_mul(next)?))?;
        if !context.sleep_until(due) {
            return None;
        }
        let passed = context.clock.now().saturating_duration_since(first).as_nanos() / u128::from(nanos);
        let number = next.max(u64::try_from(passed).unwrap_or(u64::MAX));
        next = number.checked_add(1)?;
        Some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_sync::clock::ManualClock;

    #[test]
    fn an_interval_waits_for_its_time() {
        let (clock, hour) = (ManualClock::new(), Duration::from_secs(3600));
        let (parker, unparker) = Parker::new();
        let by = Clock::Manual(clock.clone());
        by.register(&unparker);
        // Time passes whenever somebody asks whether to go on.
        let is_wanted = || {
            clock.advance(hour / 7);
            true
        };
        let stopped = &crossbeam_channel::never();
        let context = SourceContext {
            clock: &by,
            parker: &parker,
            unparker: &unparker,
            stopped,
            is_wanted: &is_wanted,
        };
        let mut source = of_interval(hour);
        assert_eq!(source(&context), Some(0));
        let begun = clock.elapsed();
        for number in 1..5 {
            assert_eq!(source(&context), Some(number));
            assert!(clock.elapsed() >= hour * number as u32, "{number} came at {:?}", clock.elapsed());
            assert!(clock.elapsed() < begun + hour * (number as u32 + 1));
        }
    }
}
