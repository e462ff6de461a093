//! Where items come from, when it is not a [`Sender`](super::Sender) in your hands.

use std::task::{Poll, Wake, Waker};
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::event::Event;
use crate::subscription::Subscription;
use crate::sync::{Arc, Parker, Unparker};

/// Function that makes one item after the other, on the thread of the source. `None` is the end.
pub(super) type Source<T> = Box<dyn FnMut(&SourceContext<'_>) -> Option<T> + Send>;

/// Context of a source on its thread: the clock, and the parker from which a cancellation wakes it.
pub(super) struct SourceContext<'a> {
    pub(super) clock: &'a Clock,
    pub(super) parker: &'a Parker,
    pub(super) unparker: &'a Unparker,
    pub(super) is_wanted: &'a dyn Fn() -> bool,
}

impl SourceContext<'_> {
    /// Sleeps until then; whether items are still wanted.
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

pub(super) fn of_subscription<E: Event + Clone>(subscription: Subscription<E>) -> Source<E> {
    let mut waker: Option<Waker> = None;
    Box::new(move |context| {
        let waker = waker.get_or_insert_with(|| Arc::new(UnparkOnWake(context.unparker.clone())).into());
        while (context.is_wanted)() {
            match subscription.poll_next_event(waker) {
                Poll::Ready(event) => return event,
                Poll::Pending => context.clock.park(context.parker, None),
            }
        }
        None
    })
}

/// Number `n` comes `n` periods after the first. Numbers for which nobody had time are left out.
pub(super) fn of_interval(every: Duration) -> Source<u64> {
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
    use crate::clock::ManualClock;

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
        let context =
            SourceContext { clock: &by, parker: &parker, unparker: &unparker, is_wanted: &is_wanted };
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
