//! The pieces that a backup is made of, on the socket and in a file.

use std::io::{self, Read, Write};

use ehe::id::{AllianceId, Hash, NodeId};
use ehe::limits::CHECKPOINT_MAX_BYTES;
use ehe::time::UnixMs;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::shard::CHUNK_MAX_BYTES;

/// How a file begins.
pub(super) const MAGIC: &[u8; 10] = b"ehe-backup";
/// Version of all that is written here.
pub(super) const VERSION: u32 = 1;
/// Largest piece.
pub(super) const PIECE_MAX_BYTES: usize = CHUNK_MAX_BYTES;
/// Hashes in one piece of a manifest.
pub(super) const MANIFEST_HASHES: usize = 4096;

/// What a piece holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// [`Begin`].
    Begin = 1,
    /// The alliance's charters, a chain.
    Charters = 2,
    /// Rows of the shard whose end follows.
    Chunk = 3,
    /// Hashes of the shard's chunks.
    Manifest = 4,
    /// [`ShardEnd`].
    Shard = 5,
    /// SHA-256 of all before it. On the socket: nothing, all was sent.
    End = 6,
    /// On the socket only: why there is no more.
    Failed = 7,
}

impl Kind {
    const ALL: [Self; 7] =
        [Self::Begin, Self::Charters, Self::Chunk, Self::Manifest, Self::Shard, Self::End, Self::Failed];
}

/// Of which node, and when.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Begin {
    /// The alliance.
    #[n(0)]
    pub alliance: AllianceId,
    /// The node.
    #[n(1)]
    pub node: NodeId,
    /// Its time.
    #[n(2)]
    pub at: UnixMs,
    /// Shards.
    #[n(3)]
    pub shards: u16,
    /// The end of the file that this one was taken since.
    #[n(4)]
    pub since: Option<Hash>,
}

/// A shard's end: what the node signed, and the proof.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct ShardEnd {
    /// COSE_Sign1 of a [`super::Statement`].
    #[n(0)]
    pub(super) signed: ByteVec,
    /// That the checkpoint's log begins with the state's.
    #[n(1)]
    pub(super) proof: Vec<Hash>,
    /// The checkpoint, unless the log is empty.
    #[n(2)]
    pub(super) checkpoint: Option<String>,
}

/// Largest encoded [`ShardEnd`].
pub(super) const SHARD_END_MAX_BYTES: usize = CHECKPOINT_MAX_BYTES + 4096;

/// Writes a piece.
pub(super) fn write(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= PIECE_MAX_BYTES);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a piece is too long"))?;
    to.write_all(&[kind as u8])?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)
}

/// Reads a piece; what it claims to have is not allocated before it comes.
pub(super) fn read(from: &mut impl Read) -> io::Result<(Kind, Vec<u8>)> {
    let wrong = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut kind = [0u8; 1];
    from.read_exact(&mut kind)?;
    let kind =
        Kind::ALL.into_iter().find(|known| [*known as u8] == kind).ok_or_else(|| wrong("a piece of no known kind"))?;
    let mut length = [0u8; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if usize::try_from(length).map_or(true, |length| length > PIECE_MAX_BYTES) {
        return Err(wrong("a piece is too long"));
    }
    let mut bytes = Vec::new();
    from.take(length.into()).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == u64::from(length) { Ok((kind, bytes)) } else { Err(wrong("it ends within a piece")) }
}
