//! A handler that is subscribed.

use std::any::TypeId;
use std::fmt;
use std::time::Duration;

use forebay::sink::RetryPolicy;
use forebay::{Name, Record};
use forebay_sync::permit::Permit;
use forebay_sync::sync::{Arc, Condvar, Mutex};

use super::config::BusConfig;
use super::filter::Filter;
use super::handler::{Handler, Topics};
use super::id::SubscriptionId;
use super::mailbox::{CloseReason, Closed, End, Mailbox};
use super::stats::HandlerStats;

/// Handler that is subscribed. Created by `subscribe`; held by the table of subscribers, and by the threads that call it.
pub(super) struct Subscriber {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) topics: Topics,
    pub(super) typed: Option<TypeId>,
    filters: Vec<Filter>,
    pub(super) max_concurrent: usize,
    pub(super) retry: RetryPolicy,
    pub(super) deadline: Duration,
    pub(super) is_discarding: bool,
    pub(super) is_plugin: bool,
    pub(super) mailbox: Mutex<Mailbox>,
    /// Permission to call the function and the filters. Revoked under the lock of the mailbox, when that is closed.
    pub(super) permit: Permit,
    /// Notified when there is space in the mailbox, or never will be; and when a call ends that somebody waits for.
    pub(super) changed: Condvar,
}

impl Subscriber {
    /// Makes a subscriber of a handler. What the handler leaves open, the settings of the bus decide.
    pub(super) fn new(id: u64, handler: Handler, config: &BusConfig) -> Arc<Self> {
        let name = handler.label();
        let Handler {
            topics,
            typed,
            filters,
            is_ordered,
            max_concurrent,
            is_discarding,
            is_plugin,
            call,
            ..
        } = handler;
        let stats = HandlerStats { id: SubscriptionId(id), name: name.clone(), ..HandlerStats::default() };
        let limits = (config.handler_queue, config.handler_bytes);
        let end_of_failed = if is_discarding { End::Failed } else { End::DeadLettered };
        let mailbox = Mailbox::new((call, is_ordered, end_of_failed), limits, stats);
        Arc::new(Self {
            id,
            name,
            topics,
            typed,
            filters,
            max_concurrent,
            retry: handler.retry.unwrap_or_else(|| config.retry.clone()),
            deadline: handler.deadline.unwrap_or(config.deadline),
            is_discarding,
            is_plugin,
            mailbox: Mutex::new(mailbox),
            permit: Permit::new(),
            changed: Condvar::new(),
        })
    }

    /// Closes the mailbox: see [`Mailbox::close`]. No call begins once this has returned.
    pub(super) fn close(&self, reason: CloseReason) -> Closed {
        let mut mailbox = self.mailbox.lock();
        self.permit.revoke();
        mailbox.close(reason)
    }

    /// Returns whether all filters of the handler let the event in.
    pub(super) fn lets_in(&self, event: &Record) -> bool {
        self.filters.iter().all(|filter| self.permit.begin() && filter.lets_in(event))
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}
