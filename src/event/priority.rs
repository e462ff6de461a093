//! `Priority`: the lane of an event.

/// Priority of an event, which chooses its lane.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Priority {
    /// Delivered at once and before all others; never evicted, never sampled out. For the few events that must
    /// arrive: a run started, completed, failed.
    Critical = 0,
    /// The default.
    #[default]
    Normal = 1,
    /// Delivered last, at least one for every two normal ones.
    Low = 2,
}
