//! Why an input gives no readings, and whose fault that is.

use ehe::decimal::DecimalError;
use ehe::vital::UnitMismatch;

use crate::limits::{INPUT_MAX_BYTES, JSON_DEPTH_MAX, JSON_ELEMENTS_MAX, READINGS_PER_INPUT_MAX};

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device, or what forwards for it, sent something that cannot be right.
    Sender,
    /// The configuration does not describe what this device sends.
    Operator,
}

/// Why an input is refused. The message says what happened and what to do next; texts of the sender are shortened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdapterError {
    /// Larger than an input may be; nothing was looked at.
    #[error("an input of {found} bytes; at most {INPUT_MAX_BYTES} are read")]
    TooLarge {
        /// Bytes received.
        found: usize,
    },
    /// Not a document of the expected format.
    #[error("not {format}: {reason}")]
    Malformed {
        /// What was expected: "JSON", "CBOR" …
        format: &'static str,
        /// What the parser says, with its place in the input.
        reason: String,
    },
    /// Well-formed, but of a kind or version that this version does not read.
    #[error("{what} is not supported; {remedy}")]
    Unsupported {
        /// What it is: a content type, a schema, a version; texts of the sender are shortened.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The document is nested too deeply.
    #[error("nested deeper than {JSON_DEPTH_MAX}")]
    TooDeep,
    /// An array or object of the document is too long.
    #[error("an array or object with more than {JSON_ELEMENTS_MAX} elements")]
    TooManyElements,
    /// A member stands twice in one object: which of the two is meant is anybody's guess.
    #[error("member {name:?} stands twice in one object")]
    DuplicateMember {
        /// Its name, shortened.
        name: String,
    },
    /// The input gives more readings than one input may.
    #[error("more than {READINGS_PER_INPUT_MAX} readings in one input: send it in parts")]
    TooManyReadings,
    /// A value that the format, or the mapping, calls required is not there.
    #[error("no value at {path}, which is required there")]
    Missing {
        /// Where it should stand.
        path: String,
    },
    /// Something else than the format has there.
    #[error("at {path}: {found} where the format has {expected}")]
    Type {
        /// Where it stands.
        path: String,
        /// What the format has there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A rule of the format is broken.
    #[error("at {path}: {problem}")]
    Invalid {
        /// Where.
        path: String,
        /// Which rule; texts of the sender are shortened.
        problem: String,
    },
    /// A path goes through something that is no object or array: the mapping is for another shape of document.
    #[error(
        "at {path} the mapping expects {expected}, the document has {found}: correct the path, or map this topic apart"
    )]
    Shape {
        /// The path of the mapping.
        path: String,
        /// What the path needs there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// The value is no number.
    #[error(
        "at {path}: {found} where a number is expected (numbers as text need `text = true`, other marks of no value `ignore`)"
    )]
    WrongType {
        /// The path of the mapping.
        path: String,
        /// What is there.
        found: &'static str,
    },
    /// The number is none that a reading can have.
    #[error("at {path}: {problem}")]
    Number {
        /// The path of the mapping.
        path: String,
        /// Why.
        problem: DecimalError,
    },
    /// The document does not say the unit, and the mapping has none to fall back to.
    #[error("no unit at {path}: the device left it out (a mapping can give the value a `unit` to fall back to)")]
    MissingUnit {
        /// The path of the unit.
        path: String,
    },
    /// The document names a unit that nobody knows.
    #[error("at {path}: unknown unit {found:?} (a mapping can explain it in the value's `units` table)")]
    UnknownUnit {
        /// The path of the unit.
        path: String,
        /// The sender's text, shortened.
        found: String,
    },
    /// The document names a unit that does not measure this vital.
    #[error("at {path}: {problem}")]
    Unit {
        /// The path of the value.
        path: String,
        /// Which unit for which vital.
        problem: UnitMismatch,
    },
}

impl AdapterError {
    /// Who can do something about it.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unsupported { .. } | Self::Shape { .. } | Self::UnknownUnit { .. } | Self::MissingUnit { .. } => {
                Fault::Operator
            }
            Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::TooDeep
            | Self::TooManyElements
            | Self::DuplicateMember { .. }
            | Self::TooManyReadings
            | Self::Missing { .. }
            | Self::Type { .. }
            | Self::Invalid { .. }
            | Self::WrongType { .. }
            | Self::Number { .. }
            | Self::Unit { .. } => Fault::Sender,
        }
    }

    /// A short name for counters and machine-readable output; never changes.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Malformed { .. } => "malformed",
            Self::Unsupported { .. } => "unsupported",
            Self::TooDeep => "too_deep",
            Self::TooManyElements => "too_many_elements",
            Self::DuplicateMember { .. } => "duplicate_member",
            Self::TooManyReadings => "too_many_readings",
            Self::Missing { .. } => "missing",
            Self::Type { .. } => "wrong_type",
            Self::Invalid { .. } => "invalid",
            Self::Shape { .. } => "shape",
            Self::WrongType { .. } => "wrong_type",
            Self::Number { .. } => "number",
            Self::MissingUnit { .. } => "missing_unit",
            Self::UnknownUnit { .. } => "unknown_unit",
            Self::Unit { .. } => "unit",
        }
    }
}

/// The first 64 characters of a text that somebody else chose.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What is wrong with an input that tells of more than one person.
pub(crate) const SEVERAL_PEOPLE: &str = "of several people: send them apart";

/// Whether all of `values` are the same: what one input tells of is filed under one name.
pub(crate) fn one_alone<T: PartialEq>(
    values: impl IntoIterator<Item = T>,
    path: &str,
    problem: &str,
) -> Result<(), AdapterError> {
    let mut values = values.into_iter();
    let Some(first) = values.next() else { return Ok(()) };
    match values.all(|value| value == first) {
        true => Ok(()),
        false => Err(AdapterError::Invalid { path: path.to_owned(), problem: problem.to_owned() }),
    }
}
