//! Bytes of a device to readings; one device family a file. No IO, no clock.
//!
//! An [`Adapter`] gets what a source received and when, and answers with readings or says whose fault it is that there are
//! none. It keeps the sender's digits and unit, keeps implausible values (flagged), and never lets a bad timestamp cost a
//! reading. It is deterministic: the same input and receipt give the same readings.

pub mod error;
pub mod json;
pub mod limits;
pub mod receipt;

pub use error::{AdapterError, Fault};
pub use receipt::ReceiptContext;

use ehe::reading::Reading;

/// What makes readings of one kind of input.
pub trait Adapter: Send + Sync {
    /// The readings in `input`, all or none, in the order in which the input gives them. No readings without an error means:
    /// understood, and nothing about a body in it.
    ///
    /// # Errors
    /// [`AdapterError`]: the input is refused whole; what waits behind it goes on.
    fn readings(&self, input: &[u8], receipt: &ReceiptContext) -> Result<Vec<Reading>, AdapterError>;
}
