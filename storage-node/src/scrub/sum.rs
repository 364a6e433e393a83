//! A sum over the ends of strands, in constant memory.
//!
//! Each run takes its strand from one end to another. The ends that runs lead to, less those that they come from, are the ends at
//! which strands stand now: so the sum of the hashes of all of them has to be that of the table's rows, in whatever order they come.
//! Hashes are added lane by lane. This is a check against disks; that nobody rewrote the log, the Merkle root says.

use ehe::id::{AuthorId, RoomId};
use ehe::run::StrandEnd;
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

/// The sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(transparent)]
pub(super) struct Sum(#[n(0)] [u64; 4]);

impl Sum {
    fn lanes(room: RoomId, author: AuthorId, end: &StrandEnd) -> [u64; 4] {
        let mut hash = Sha256::new();
        hash.update(room.as_bytes());
        hash.update(author.as_bytes());
        hash.update(end.strand.as_bytes());
        hash.update(end.next.to_be_bytes());
        hash.update(end.link.as_bytes());
        let bytes: [u8; 32] = hash.finalize().into();
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *lane = u64::from_be_bytes(*bytes);
        }
        lanes
    }

    /// A strand stands here.
    pub(super) fn add(&mut self, room: RoomId, author: AuthorId, end: &StrandEnd) {
        self.0.iter_mut().zip(Self::lanes(room, author, end)).for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
    }

    /// It stood here before.
    pub(super) fn take(&mut self, room: RoomId, author: AuthorId, end: &StrandEnd) {
        self.0.iter_mut().zip(Self::lanes(room, author, end)).for_each(|(sum, lane)| *sum = sum.wrapping_sub(lane));
    }

    /// Together with another sum.
    pub(super) fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, lane)| *sum = sum.wrapping_add(lane));
    }
}
