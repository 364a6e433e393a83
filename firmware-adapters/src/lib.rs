//! What devices and the programs beside them send, to readings; one format or device family a file. No IO, no clock.
//!
//! An [`Adapter`] gets what a source received and when, and answers with readings or says whose fault it is that there are
//! none. It keeps the sender's digits and unit, keeps implausible values (flagged), and never lets a bad timestamp cost a
//! reading. It is deterministic: the same input and receipt give the same readings. [`Format`] lists the formats.

pub mod error;
pub mod format;
pub mod json;
pub mod limits;
pub mod receipt;
pub mod senml;
mod stamp;

pub use error::{AdapterError, Fault};
pub use format::Format;
pub use receipt::ReceiptContext;

use ehe::reading::Reading;

/// What makes readings of one kind of input.
pub trait Adapter: Send + Sync {
    /// The readings in `input`, all or none, in the order in which the input gives them, and its fields. No readings without
    /// an error means: understood, and nothing about a body in it.
    ///
    /// # Errors
    /// [`AdapterError`]: the input is refused whole; what waits behind it goes on.
    fn decode(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Decoded, AdapterError>;

    /// The readings alone.
    ///
    /// # Errors
    /// As [`Adapter::decode`].
    fn readings(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Vec<Reading>, AdapterError> {
        self.decode(input, receipt).map(|decoded| decoded.readings)
    }
}

/// What an input says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decoded {
    /// What a patient's ledger would hold.
    pub readings: Vec<Reading>,
    /// What was said beside it, for a technician: never stored.
    pub fields: Fields,
}

/// The fields of an input, in the terms of its format. Serialised they are the object that `ehe-gateway decode` prints.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Fields {
    /// Nothing to say.
    None {},
    /// A document that is its own description.
    Json(serde_json::Value),
    /// The resolved records of a SenML pack.
    SenMl(senml::Pack),
    /// Observations of FHIR.
    Fhir(json::fhir::Observed),
}

impl Default for Fields {
    fn default() -> Self {
        Self::None {}
    }
}
