//! The numbers of subscriptions and filters.

use serde::Serialize;

/// The number of a subscription. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct SubscriptionId(pub(super) u64);

/// The number of a filter. Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FilterId(pub(super) u64);
