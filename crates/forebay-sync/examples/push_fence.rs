//! What `.ci/fence` reads as assembly: a push, the fence after it and a load, as `collect` makes them.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use forebay_sync::sync::push_fence;

/// As large as a record.
type Event = [u64; 7];

/// Stands for the phase word. It is a static, so that its loads have its name in the assembly.
static PHASE_WORD: AtomicU64 = AtomicU64::new(0);

/// Stands for a tail that is claimed without a locked instruction.
static PLAIN_TAIL: AtomicU64 = AtomicU64::new(0);

#[inline(always)]
fn load_after_push() -> u64 {
    push_fence();
    PHASE_WORD.load(Ordering::Relaxed)
}

#[inline(never)]
fn checked_push(queue: &ArrayQueue<Event>, event: Event) -> Option<u64> {
    queue.push(event).ok().map(|()| load_after_push())
}

#[inline(never)]
fn checked_force_push(queue: &ArrayQueue<Event>, event: Event) -> (Option<Event>, u64) {
    (queue.force_push(event), load_after_push())
}

/// The check must find this one at fault: on x86-64, the load may be satisfied before the store is visible.
#[inline(never)]
fn faulty_push(number: u64) -> u64 {
    PLAIN_TAIL.store(number, Ordering::Release);
    load_after_push()
}

fn main() {
    // Somebody else might write them, as far as the compiler knows.
    black_box((&PHASE_WORD, &PLAIN_TAIL));
    let queue = ArrayQueue::new(2);
    let event = [1; 7];
    assert_eq!(checked_push(&queue, event), Some(0));
    assert_eq!(checked_force_push(&queue, event), (None, 0));
    assert_eq!(faulty_push(1), 0);
}
