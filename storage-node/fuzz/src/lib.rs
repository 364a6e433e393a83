//! One function for each thing that other nodes say: it takes any bytes and asserts what must hold of them.

use ehe_node::checkpoint::{MESSAGE_MAX_BYTES, Message};

/// A target's name, which is its folder's in `corpus`, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: [Target; 1] = [("checkpoint_message", checkpoint_message)];

/// A message about checkpoints: what is understood has one encoding, and a length that is bounded.
pub fn checkpoint_message(bytes: &[u8]) {
    if let Ok(message) = Message::decode(bytes) {
        assert_eq!(message.to_vec(), bytes);
        assert!(bytes.len() <= MESSAGE_MAX_BYTES);
        assert!(message.point().is_none_or(|point| point.shard == message.shard()));
    }
}
