//! The setters of settings structs.

/// Adds a consuming setter for each field.
macro_rules! setters {
    ($kind:ident: $($with:ident, $field:ident: $type:ty;)*) => {
        impl $kind {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[must_use]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }
    };
}

pub(crate) use setters;
