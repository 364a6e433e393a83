//! Which shard of which alliance.

use std::num::NonZeroU16;

use ehe::id::AllianceId;

/// What never changes about a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The alliance.
    pub alliance: AllianceId,
    /// Shards of the alliance.
    pub shard_count: NonZeroU16,
    /// This one.
    pub shard: u16,
}
