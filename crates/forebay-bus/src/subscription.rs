//! Guards of subscriptions.

use forebay_sync::sync::Weak;

use super::id::SubscriptionId;
use super::shared::Shared;

/// Guard of a subscription: the handler is called until it is dropped. Made by [`Bus::on`](super::Bus::on) and its relatives.
#[must_use = "the handler is unsubscribed when this is dropped; see `keep`"]
#[derive(Debug)]
pub struct Subscription {
    pub(super) id: SubscriptionId,
    pub(super) shared: Weak<Shared>,
}

impl Subscription {
    /// Returns the number of the subscription.
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
