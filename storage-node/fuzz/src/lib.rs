//! One function for each thing that other nodes say: it takes any bytes and asserts what must hold of them.

use ehe_node::checkpoint::{MESSAGE_MAX_BYTES, Message};
use ehe_node::peers;

/// A target's name, which is its folder's in `corpus`, and its function. That says whether the bytes were understood.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All targets.
pub const ALL: [Target; 2] = [("alliance", alliance), ("checkpoint_message", checkpoint_message)];

/// What nodes tell each other of charters and shards: a question or an answer. What is understood has one encoding.
pub fn alliance(bytes: &[u8]) -> bool {
    let again = peers::reencoded(bytes);
    assert!(again.as_deref().is_none_or(|again| again == bytes));
    again.is_some()
}

/// A message about checkpoints: what is understood has one encoding, and a length that is bounded.
pub fn checkpoint_message(bytes: &[u8]) -> bool {
    let Ok(message) = Message::decode(bytes) else { return false };
    assert_eq!(message.to_vec(), bytes);
    assert!(bytes.len() <= MESSAGE_MAX_BYTES);
    assert!(message.point().is_none_or(|point| point.shard == message.shard()));
    true
}
