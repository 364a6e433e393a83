//! What the nodes of a group say to each other about checkpoints: one version byte, [`VERSION`], and one item of deterministic
//! CBOR (RFC 8949 §4.2.1) of at most [`MESSAGE_MAX_BYTES`]. Who says it, the channel knows.
//!
//! ```text
//! message      = [0, [wish]] / [1, [cosignature]] / [2, [conflict]] / [3, [clock]]
//! wish         = {0: point, 1: ms now}
//! cosignature  = {0: point, 1: word, 2: bytes(64) 0x01 signature if its signer leads the shard, 3: ms of the wish that it answers}
//! conflict     = {0: point, 1: node whose word it is, 2: word}
//! clock        = {0: uint shard, 1: ms now, 2: ms of the wish that it answers}
//! point        = {0: uint shard, 1: uint charter version, 2: uint incarnation, 3: uint size, 4: bytes(32) root}
//! word         = {0: uint time in seconds, 1: bytes(64) 0x04 signature}          both signatures are over the checkpoint's text (SPEC 10)
//! ```
//!
//! A reader takes nothing that it does not know: another version, another kind, or bytes behind the end are errors.

use minicbor::bytes::ByteArray;
use minicbor::{Decode, Encode};

use ehe::cbor::{self, CborError};
use ehe::id::{Hash, NodeId};
use ehe::sign::SIGNATURE_LEN;
use ehe::time::UnixMs;

use crate::cosign::Cosigned;

/// The version byte in front of every message.
pub const VERSION: u8 = 1;
/// No message is larger.
pub const MESSAGE_MAX_BYTES: usize = 320;

/// A size of a shard's log, with its root, under a charter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Point {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// Version of the charter whose members count.
    #[n(1)]
    pub charter: u32,
    /// Incarnation of the log.
    #[n(2)]
    pub incarnation: u32,
    /// Leaves.
    #[n(3)]
    pub size: u64,
    /// Root.
    #[n(4)]
    pub root: Hash,
}

impl Point {
    /// What of it is remembered on disk.
    pub fn cosigned(&self) -> Cosigned {
        Cosigned { incarnation: self.incarnation, size: self.size, root: self.root }
    }
}

/// "Cosign this size": the shard's leader, or a node that lacks a quorum for what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Wish {
    /// The size that is meant.
    #[n(0)]
    pub point: Point,
    /// The sender's clock.
    #[n(1)]
    pub at: UnixMs,
}

/// A cosignature of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Word {
    /// When, in seconds since 1970.
    #[n(0)]
    pub time_s: u64,
    /// The 0x04 signature.
    #[n(1)]
    pub signature: ByteArray<SIGNATURE_LEN>,
}

/// The sender cosigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Cosignature {
    /// What it cosigned.
    #[n(0)]
    pub point: Point,
    /// Its word.
    #[n(1)]
    pub word: Word,
    /// Its 0x01 signature, if it leads the shard.
    #[n(2)]
    pub order: Option<ByteArray<SIGNATURE_LEN>>,
    /// The clock of the wish that it answers, for whoever wished.
    #[n(3)]
    pub wished_at: Option<UnixMs>,
}

/// Somebody's cosignature that the sender's log contradicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Conflict {
    /// What was cosigned.
    #[n(0)]
    pub point: Point,
    /// By whom.
    #[n(1)]
    pub signer: NodeId,
    /// The cosignature.
    #[n(2)]
    pub word: Word,
}

/// "Your clock and mine differ too much; I do not cosign."
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ClockDiffers {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// The sender's clock.
    #[n(1)]
    pub at: UnixMs,
    /// The wish's clock.
    #[n(2)]
    pub wished_at: UnixMs,
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Message {
    /// See [`Wish`].
    #[n(0)]
    Wish(#[n(0)] Wish),
    /// See [`Cosignature`].
    #[n(1)]
    Cosignature(#[n(0)] Cosignature),
    /// See [`Conflict`].
    #[n(2)]
    Conflict(#[n(0)] Conflict),
    /// See [`ClockDiffers`].
    #[n(3)]
    ClockDiffers(#[n(0)] ClockDiffers),
}

/// Bytes are no message of this version. Their sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Another version of these messages, or nothing at all.
    #[error("not a message of version {VERSION}; the node there runs another version of this program")]
    Version,
    /// Not the deterministic encoding of a message.
    #[error("not a message about checkpoints: {0}")]
    Cbor(#[from] CborError),
}

impl Message {
    /// Encodes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(cbor::to_vec(self));
        bytes
    }

    /// Decodes.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => Ok(cbor::from_slice(rest, MESSAGE_MAX_BYTES - 1)?),
            _ => Err(MessageError::Version),
        }
    }

    /// The shard that it is about.
    pub fn shard(&self) -> u16 {
        match self {
            Self::Wish(Wish { point, .. })
            | Self::Cosignature(Cosignature { point, .. })
            | Self::Conflict(Conflict { point, .. }) => point.shard,
            Self::ClockDiffers(differs) => differs.shard,
        }
    }

    /// What it is about, except for clocks.
    pub fn point(&self) -> Option<&Point> {
        match self {
            Self::Wish(Wish { point, .. })
            | Self::Cosignature(Cosignature { point, .. })
            | Self::Conflict(Conflict { point, .. }) => Some(point),
            Self::ClockDiffers(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn largest() -> [Message; 4] {
        let point =
            Point { shard: u16::MAX, charter: u32::MAX, incarnation: u32::MAX, size: u64::MAX, root: Hash([0xff; 32]) };
        let word = Word { time_s: u64::MAX, signature: [0xff; 64].into() };
        let at = UnixMs(u64::MAX);
        [
            Message::Wish(Wish { point, at }),
            Message::Cosignature(Cosignature { point, word, order: Some([0xff; 64].into()), wished_at: Some(at) }),
            Message::Conflict(Conflict { point, signer: NodeId([0xff; 8]), word }),
            Message::ClockDiffers(ClockDiffers { shard: u16::MAX, at, wished_at: at }),
        ]
    }

    #[test]
    fn the_largest_message_of_each_kind_is_within_the_limit_and_comes_back() {
        for message in largest() {
            let bytes = message.to_vec();
            assert!(bytes.len() <= MESSAGE_MAX_BYTES, "{} bytes", bytes.len());
            assert_eq!(Message::decode(&bytes), Ok(message));
        }
    }

    #[test]
    fn the_bytes_of_a_wish_are_these() {
        let point = Point { shard: 3, charter: 1, incarnation: 0, size: 300, root: Hash([7; 32]) };
        let bytes = Message::Wish(Wish { point, at: UnixMs(5) }).to_vec();
        let mut expected = vec![1, 0x82, 0, 0x81, 0xa2, 0, 0xa5, 0, 3, 1, 1, 2, 0, 3, 0x19, 1, 0x2c, 4, 0x58, 0x20];
        expected.extend([7; 32]);
        expected.extend([1, 5]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn another_version_another_kind_bytes_behind_the_end_and_longer_encodings_are_refused() {
        let good = largest()[3].to_vec();
        assert_eq!(Message::decode(&[]), Err(MessageError::Version));
        assert_eq!(Message::decode(&[&[2], &good[1..]].concat()), Err(MessageError::Version));
        assert!(Message::decode(&[&[1, 0x82, 4], &good[3..]].concat()).is_err());
        assert!(Message::decode(&[good.as_slice(), &[0]].concat()).is_err());
        assert!(Message::decode(&[&[1, 0x82, 0x18, 3], &good[3..]].concat()).is_err());
        assert!(Message::decode(&[&good[..], &[0; MESSAGE_MAX_BYTES]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_and_what_it_takes_has_one_encoding(
            kind in 0usize..4, cuts in prop::collection::vec((0usize..320, any::<u8>()), 0..6), end in 0usize..320
        ) {
            let mut bytes = largest()[kind].to_vec();
            for (at, byte) in cuts {
                if let Some(it) = bytes.get_mut(at) {
                    *it = byte;
                }
            }
            bytes.truncate(end.max(1));
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.to_vec(), bytes);
            }
        }
    }
}
