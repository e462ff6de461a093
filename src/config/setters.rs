//! The setters of settings structs.

/// Adds a consuming setter for each field. The setter of an `Option` takes the value itself as well.
#[doc(hidden)]
#[macro_export]
macro_rules! __setters {
    ($kind:ident: $($fields:tt)*) => {
        impl $kind {
            $crate::__setters! { @each $($fields)* }
        }
    };
    (@each $with:ident, $field:ident: Option<$type:ty>; $($others:tt)*) => {
        $crate::__setters! { @one $with, $field, impl Into<Option<$type>>, $field.into() }
        $crate::__setters! { @each $($others)* }
    };
    (@each $with:ident, $field:ident: $type:ty; $($others:tt)*) => {
        $crate::__setters! { @one $with, $field, $type, $field }
        $crate::__setters! { @each $($others)* }
    };
    (@each) => {};
    (@one $with:ident, $field:ident, $type:ty, $value:expr) => {
        #[doc = concat!("Sets [`", stringify!($field), "`](Self::", stringify!($field), ").")]
        #[must_use]
        pub fn $with(mut self, $field: $type) -> Self {
            self.$field = $value;
            self
        }
    };
}

pub use crate::__setters as setters;
