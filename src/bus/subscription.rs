//! Subscriptions: their numbers, their guards, and why there is none.

use serde::Serialize;

use super::Shared;
use crate::config::ConfigError;
use crate::sync::Weak;

/// The number of a subscription. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct SubscriptionId(pub(super) u64);

/// Why there is no subscription.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// Something of the handler is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There are as many as there may be ([`BusConfig::max_subscribers`](super::BusConfig::max_subscribers)).
    #[error("there are {most} subscriptions, allowed are {most} (max_subscribers)")]
    TooMany {
        /// How many there may be.
        most: usize,
    },
    /// The bus is stopped.
    #[error("the bus is stopped")]
    Stopped,
    /// This process is a forked child; the threads live in the parent.
    #[error("this process is a fork of the one that started the bus")]
    Forked,
}

crate::sync::from_forked!(SubscribeError);

/// Whose handlers are called until this is dropped. Made by [`Bus::on`](super::Bus::on) and its relatives.
#[must_use = "the handler is unsubscribed when this is dropped; see `keep`"]
#[derive(Debug)]
pub struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) shared: Weak<Shared>,
}

impl Subscription {
    /// Its number.
    pub fn id(&self) -> SubscriptionId {
        self.id
    }

    /// Leaves the handler subscribed, until its number is [unsubscribed](super::Bus::unsubscribe) or the bus stops.
    pub fn keep(mut self) -> SubscriptionId {
        self.shared = Weak::new();
        self.id
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.engine.unsubscribe(self.id);
        }
    }
}
