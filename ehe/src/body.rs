//! What a content event's body holds once it is opened (SPEC 14).

mod column;
pub mod vitals;

pub use column::ColumnError;
