//! Enumerations with a stable number on the wire and a stable name in text: one line a member.

/// A text that is no name of its enumeration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {name:?}")]
pub struct UnknownName {
    /// What was looked for: "vital", "unit" …
    pub what: &'static str,
    /// The text, its first 64 characters.
    pub name: String,
}

impl UnknownName {
    pub(crate) fn new(what: &'static str, name: &str) -> Self {
        Self { what, name: name.chars().take(64).collect() }
    }
}

/// Defines an enumeration from lines `code Variant "name"`. Codes and names are never reused for another meaning.
///
/// It gets `ALL`, `code`, `from_code`, `as_str`, `Display` and `FromStr` (the name), serde (the name) and CBOR (the code).
macro_rules! coded {
    ($(#[$meta:meta])* $name:ident: $repr:ident = $what:literal {
        $($(#[$member_meta:meta])* $code:literal $variant:ident $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$member_meta])* $variant,)+
        }

        impl $name {
            /// Every member, in the order of the table.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The number on the wire; never changes.
            pub const fn code(self) -> $repr {
                match self { $($name::$variant => $code,)+ }
            }

            /// The member with this number; `None` for numbers that this version does not know.
            pub const fn from_code(code: $repr) -> Option<Self> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }

            /// The name in text; never changes.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl core::str::FromStr for $name {
            type Err = $crate::coded::UnknownName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($text => Ok($name::$variant),)+
                    _ => Err($crate::coded::UnknownName::new($what, text)),
                }
            }
        }

        impl<C> minicbor::Encode<C> for $name {
            fn encode<W: minicbor::encode::Write>(
                &self, e: &mut minicbor::Encoder<W>, _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.$repr(self.code())?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name {
            fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
                Self::from_code(d.$repr()?).ok_or_else(|| minicbor::decode::Error::message(concat!("unknown ", $what)))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use coded;
