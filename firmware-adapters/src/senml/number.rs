//! Numbers of SenML: decimals, and what CBOR calls a number and is none.

use ehe::decimal::{Decimal, DecimalError};
use serde::{Serialize, Serializer};

/// A number as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// A number.
    Finite(Decimal),
    /// No value, because: `NaN`, `+INFINITY`, `-INFINITY`. Only CBOR can say so.
    Not(&'static str),
}

impl Number {
    /// A binary number, exactly as far as 64 bits carry it.
    pub(super) fn binary(value: f64) -> Result<Self, DecimalError> {
        match Decimal::from_f64(value) {
            Some(decimal) => decimal.map(Self::Finite),
            None if value.is_nan() => Ok(Self::Not("NaN")),
            None if value.is_sign_negative() => Ok(Self::Not("-INFINITY")),
            None => Ok(Self::Not("+INFINITY")),
        }
    }

    /// The sum; no value stays none.
    pub(super) fn plus(self, other: Self) -> Result<Self, DecimalError> {
        match (self, other) {
            (Self::Finite(a), Self::Finite(b)) => a.checked_add(b).map(Self::Finite),
            (Self::Finite(_), not) | (not, _) => Ok(not),
        }
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Finite(number) => crate::json::document::number(*number).serialize(s),
            Self::Not(why) => s.serialize_str(why),
        }
    }
}

pub(super) fn serialize_time<S: Serializer>(time: &Option<Decimal>, s: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => crate::json::document::number(*time).serialize(s),
        None => s.serialize_none(),
    }
}
