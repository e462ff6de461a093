//! `Permit`: permission to call user code, which can be revoked.
//!
//! A caller of user code takes it out of a list under a lock, releases the lock, and then calls it, because the call
//! may take long. Between the release and the call, another thread may remove the code from the list and return. The
//! caller must not enter the code after that. So the last step before the call is [`Permit::begin`], and a removal
//! ends with [`Permit::revoke`]. Both are read-modify-writes of one word, so one of them comes first: either the call
//! has begun, or it does not begin.
//!
//! A call has begun once `begin` has returned `true`, although its first instruction still lies ahead. No check can
//! distinguish these two moments. Only a wait for the end of the call can, as in `Bus::unsubscribe_and_wait`. A wait
//! in every removal was rejected: user code may wait for the thread that removes it.
//!
//! A read-modify-write makes all threads that call the same code share a cache line. Cheaper checks were rejected. A
//! load, even behind a fence, may return a value from before a revocation that has returned since the fence.

use crate::sync::{AtomicU64, Ordering};

/// Permission to call user code.
#[derive(Debug)]
pub struct Permit {
    /// [`GRANTED`] until the code is removed, then [`REVOKED`] for ever. The thread that removes the code writes it;
    /// threads that call the code read it.
    state: AtomicU64,
}

const GRANTED: u64 = 0;
const REVOKED: u64 = 1;

impl Default for Permit {
    fn default() -> Self {
        Self::new()
    }
}

impl Permit {
    /// Returns a permit that is granted.
    pub fn new() -> Self {
        Self { state: AtomicU64::new(GRANTED) }
    }

    /// Begins a call. Returns `false` where the permit was revoked before: the code must not be called.
    #[inline]
    pub fn begin(&self) -> bool {
        // A load could be satisfied by a value from before the revocation; an exchange reads the last one. Acquire
        // pairs with the Release of `revoke`, so that a refused caller sees what was done before.
        self.state.compare_exchange(GRANTED, GRANTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Revokes the permit: no call begins once this has returned. Calls that have begun go on.
    pub fn revoke(&self) {
        self.state.swap(REVOKED, Ordering::AcqRel);
    }
}
