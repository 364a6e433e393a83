//! Holds what clients wrote down, and what every replica shows afterwards, against what the alliance promises. Pure: histories in,
//! violations out.

pub mod history;
mod judge;
#[cfg(test)]
mod tests;

pub use judge::{Limits, Violation, judge};
