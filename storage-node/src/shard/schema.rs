//! What lies in a shard's file, table by table. Keys rise with the log wherever that is possible: appending is cheap, and redb
//! leaves full pages behind.
//!
//! Nothing is stored twice that can be computed: entries are in parts (`record.rs`), a leaf is put together from its entry
//! (room, place, time, hash of the bytes) and the hash of the room's leaf before it, which the Merkle tree has. A change of this
//! file's meaning raises [`FORMAT`].

use minicbor::{Decode, Encode};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction,
};

use ehe::id::AllianceId;
use ehe::room::WrapFact;
use ehe::time::UnixMs;

use super::known::{KnownAt, KnownKey};
use super::segments::SegmentKey;
use super::store::StoreError;

/// Version of the tables below. A file with another one is refused.
pub(super) const FORMAT: u32 = 2;

/// Key of [`Marker`] in `meta`.
pub(super) const META_MARKER: &str = "marker";
/// Key of [`ShardMeta`] in `meta`.
pub(super) const META_SHARD: &str = "shard";
/// Key of what consensus stores with each commit, in `meta`.
pub(super) const META_APPLIED: &str = "applied";
/// Key of the newest note that a quorum signed, in `meta`, as of when the state was last made durable. This node's own, like what
/// consensus stores: no part of the replicated state.
pub(super) const META_NOTE: &str = "note";
/// Key of the records by which earlier incarnations of the log ended, in `meta`.
pub(super) const META_RESTORED: &str = "restored";

/// Whose file this is, and of which format.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Marker {
    #[n(0)]
    pub(super) format: u32,
    #[n(1)]
    pub(super) alliance: AllianceId,
    #[n(2)]
    pub(super) shard: u16,
}

/// The shard as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct ShardMeta {
    /// The ledger's time: that of the last block. Never goes back.
    #[n(0)]
    pub time: UnixMs,
    /// Leaves of the log.
    #[n(1)]
    pub leaves: u64,
    /// Rooms.
    #[n(2)]
    pub rooms: u64,
    /// Blocks applied.
    #[n(3)]
    pub blocks: u64,
    /// Incarnation of the log; a restore from a backup starts a new one.
    #[n(4)]
    pub incarnation: u32,
    /// Strands that have a number.
    #[n(5)]
    pub strands: u64,
    /// Wraps that have a number.
    #[n(6)]
    pub wraps: u64,
}

/// A 16-byte identifier.
type Id = &'static [u8; 16];
/// SHA-256.
type Digest = &'static [u8; 32];

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident: $key:ty => $value:ty;)*) => {
        /// All tables, open for writing in one transaction.
        pub(super) struct Tables<'t> {
            $($(#[$doc])* pub(super) $field: Table<'t, $key, $value>,)*
        }

        impl<'t> Tables<'t> {
            pub(super) fn open(txn: &'t WriteTransaction) -> Result<Self, StoreError> {
                Ok(Self { $($field: txn.open_table(TableDefinition::new(stringify!($field)))?,)* })
            }

            /// Puts one row in, wherever it belongs.
            #[cfg(test)]
            pub(super) fn import(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
                let mut number = 0u8;
                $(
                    if number == table {
                        return super::export::put::<$key, $value>(&mut self.$field, key, value);
                    }
                    number += 1;
                )*
                let _ = number;
                Err(StoreError::Stream("a row is of no table"))
            }

            /// Puts rows at the end of an exported table. `None`: there is no table of that number.
            pub(super) fn append<'r>(
                txn: &WriteTransaction,
                table: u8,
                rows: impl Iterator<Item = (&'r [u8], &'r [u8])>,
            ) -> Option<Result<(), StoreError>> {
                let mut number = 0u8;
                $(
                    if number == table {
                        let open = txn.open_table::<$key, $value>(TableDefinition::new(stringify!($field)));
                        return Some(open.map_err(StoreError::from).and_then(|mut table| super::export::append(&mut table, rows)));
                    }
                    number += 1;
                )*
                let _ = number;
                None
            }
        }

        /// All tables, as of one moment.
        pub(super) struct ReadTables {
            $(pub(super) $field: ReadOnlyTable<$key, $value>,)*
        }

        impl ReadTables {
            pub(super) fn open(txn: &ReadTransaction) -> Result<Self, StoreError> {
                Ok(Self { $($field: txn.open_table(TableDefinition::new(stringify!($field)))?,)* })
            }

            /// Writes rows of a table that come after `after`, for [`super::export`], until there is `max_bytes` of them. `None`:
            /// there is no table of that number.
            pub(super) fn export(
                &self,
                table: u8,
                after: Option<&[u8]>,
                out: &mut super::export::Piece<'_>,
            ) -> Option<Result<Option<Vec<u8>>, StoreError>> {
                let mut number = 0u8;
                $(
                    if number == table {
                        return Some(super::export::rows::<$key, $value>((number, &self.$field), after, out));
                    }
                    number += 1;
                )*
                let _ = number;
                None
            }

            /// Rows of all tables.
            pub(super) fn rows(&self) -> Result<u64, StoreError> {
                let mut rows = 0u64;
                $(rows = rows.saturating_add(self.$field.len()?);)*
                Ok(rows)
            }

            /// The names of all tables.
            pub(super) const NAMES: &'static [&'static str] = &[$(stringify!($field)),*];
        }
    };
}

macro_rules! looks {
    ($($field:ident: $key:ty => $value:ty;)*) => {
        /// The tables that an entry is put together from, whether they are open for writing or not.
        pub(super) trait Look {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value>;)*
        }
        looks!(impl Tables<'_> { $($field: $key => $value;)* });
        looks!(impl ReadTables { $($field: $key => $value;)* });
    };
    (impl $tables:ty { $($field:ident: $key:ty => $value:ty;)* }) => {
        impl Look for $tables {
            $(fn $field(&self) -> &impl ReadableTable<$key, $value> {
                &self.$field
            })*
        }
    };
}

looks! {
    log: SegmentKey => &'static [u8];
    leaves: u64 => &'static [u8];
    nodes: (u64, u8) => Digest;
    heads: Id => &'static [u8];
    positions: (Id, u64) => &'static [u8];
    strand_names: u64 => (Id, Id, &'static [u8; 8]);
    wraps: (Id, Id) => &'static [u8];
    wrap_names: u64 => (Id, Id);
}

tables! {
    /// Marker, [`ShardMeta`], and what consensus keeps.
    meta: &'static str => &'static [u8];
    /// The log's entries, see `record.rs`, in rows that fill a page, see `segments.rs`.
    log: SegmentKey => &'static [u8];
    /// Which events are in the log, see `known.rs`.
    known: KnownKey => KnownAt;
    /// Hashes of the log's leaves, 127 in a row.
    leaves: u64 => &'static [u8];
    /// Merkle tree above them: leaves when the subtree was complete, level → its hash. See `tree.rs`.
    nodes: (u64, u8) => Digest;
    /// Room → its end, see `places.rs`.
    heads: Id => &'static [u8];
    /// Room, number → where its entries are, a list at a time.
    positions: (Id, u64) => &'static [u8];
    /// Room → its rules' state.
    rooms: Id => &'static [u8];
    /// Room, author, strand → next sequence number, link, the strand's number.
    strands: (Id, Id, &'static [u8; 8]) => (u64, Digest, u64);
    /// A strand's number → room, author, strand.
    strand_names: u64 => (Id, Id, &'static [u8; 8]);
    /// Room, wrap → [`StoredWrap`].
    wraps: (Id, Id) => &'static [u8];
    /// A wrap's number → wrap, its epoch.
    wrap_names: u64 => (Id, Id);
    /// Identity, room: who has ever been a party of what.
    parties: (Id, Id) => ();
    /// Hour, room, reader → the last refused request of that hour and how many were only counted ([`ehe::read::AccessRecord`]).
    read_refusals: (u32, Id, Id) => &'static [u8];
    /// Room, author → the last refusals of runs of a party.
    run_refusals: (Id, Id) => &'static [u8];
    /// Made at, reader, nonce of granted requests, as long as they are not stale anyway.
    nonces: (u64, Id, Id) => ();
}

/// A committed wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct StoredWrap {
    /// What the rules ask of it.
    #[n(0)]
    pub(super) fact: WrapFact,
    /// Its number in this shard.
    #[n(1)]
    pub(super) number: u64,
    /// Log index of its run.
    #[n(2)]
    pub(super) log_index: u64,
    /// Its position there.
    #[n(3)]
    pub(super) position: u16,
}

/// A run of a party that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RunRefusal {
    /// SHA-256 of the signed run.
    #[n(0)]
    pub run: ehe::id::Hash,
    /// Why.
    #[n(1)]
    pub why: ehe::refusal::Refusal,
    /// The ledger's time.
    #[n(2)]
    pub at: UnixMs,
}

/// Refusals kept of each author in each room.
pub const RUN_REFUSALS_KEPT: usize = 8;
