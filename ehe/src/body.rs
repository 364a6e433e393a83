//! What a content event's body holds once it is opened.

mod column;
pub mod vitals;

pub use column::ColumnError;
