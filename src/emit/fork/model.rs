//! The same where nobody forks.

#[derive(Debug, Clone, Copy)]
pub(super) struct Home(());

impl Home {
    pub(super) fn here() -> Self {
        Self(())
    }

    pub(super) fn is_left(self) -> bool {
        false
    }
}
