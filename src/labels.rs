//! Enums whose variants are words of metrics, logs and the API: the word stands beside its variant.
//!
//! Knows no module of this crate. Declared first in `lib.rs`, so that every module below can use it.

/// Declares an enum whose variants have a fixed word each and can index an array of counters.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $meaning:literal])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[doc = $meaning])* $variant,)* }

        impl $name {
            /// Every variant, in the order of their indices.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Each word with the doc of its variant, for the reference.
            #[cfg(test)]
            #[allow(dead_code, reason = "not every enum is in the reference")]
            pub const MEANINGS: &[(&'static str, &'static str)] = &[$(($word, concat!($($meaning),*)),)*];

            /// Its word in metrics, logs and the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}
