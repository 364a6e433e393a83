//! What lies in a shard's file, table by table. Keys rise with the log wherever that is possible: appending is cheap.
//!
//! Nothing is stored twice that can be computed: a leaf is put together from its entry (room, place, time, hash of the bytes)
//! and the hash of the room's leaf before it, which the Merkle tree has. A change of this file's meaning raises [`FORMAT`].

use minicbor::{Decode, Encode};
use redb::{ReadOnlyTable, ReadTransaction, Table, TableDefinition, WriteTransaction};

use ehe::id::AllianceId;
use ehe::time::UnixMs;

use super::store::StoreError;

/// Version of the tables below. A file with another one is refused.
pub(super) const FORMAT: u32 = 2;

/// Key of [`Marker`] in `meta`.
pub(super) const META_MARKER: &str = "marker";
/// Key of [`ShardMeta`] in `meta`.
pub(super) const META_SHARD: &str = "shard";
/// Key of what consensus stores with each commit, in `meta`.
pub(super) const META_APPLIED: &str = "applied";

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
}

/// A 16-byte identifier.
type Id = &'static [u8; 16];
/// SHA-256.
type Digest = &'static [u8; 32];
/// Log index and position in the run.
type EventAt = (u64, u16);

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

            /// Puts a row of an exported table in. `None`: there is no table of that number.
            pub(super) fn import(&mut self, table: u8, key: &[u8], value: &[u8]) -> Option<Result<(), StoreError>> {
                let mut number = 0u8;
                $(
                    if number == table {
                        return Some(super::export::put::<$key, $value>(&mut self.$field, key, value));
                    }
                    number += 1;
                )*
                let _ = number;
                None
            }

            /// Empties the file.
            pub(super) fn clear(txn: &WriteTransaction) -> Result<(), StoreError> {
                $(txn.delete_table(TableDefinition::<$key, $value>::new(stringify!($field)))?;)*
                Ok(())
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

            /// Up to `max_bytes` (one row at least) of a table's rows after `after`, for [`super::export`]. `None`: there is no
            /// table of that number.
            pub(super) fn export(
                &self,
                table: u8,
                after: Option<&[u8]>,
                max_bytes: usize,
            ) -> Option<Result<super::export::Rows, StoreError>> {
                let mut number = 0u8;
                $(
                    if number == table {
                        return Some(super::export::rows::<$key, $value>(&self.$field, after, max_bytes));
                    }
                    number += 1;
                )*
                let _ = number;
                None
            }
        }
    };
}

tables! {
    /// Marker, [`ShardMeta`], and what consensus keeps.
    meta: &'static str => &'static [u8];
    /// Log index → room, place in the room, time of acceptance, control events so far, and the entry: a signed run or an access
    /// record.
    entries: u64 => (Id, u64, u64, u64, &'static [u8]);
    /// Room, place in the room → log index.
    positions: (Id, u64) => u64;
    /// Merkle tree: level, index → hash of a complete subtree.
    nodes: (u8, u64) => Digest;
    /// Headers of the events of runs.
    headers: EventAt => &'static [u8];
    /// Their bodies, in a table of their own: a body can be erased, the header stays provable.
    bodies: EventAt => &'static [u8];
    /// First 16 bytes of an event's id → where it is. A wrap's id is these 16 bytes. Two events of one such prefix cost their
    /// author 2^64 hashes and only make the second one "known".
    events: Id => EventAt;
    /// Room → its rules' state.
    rooms: Id => &'static [u8];
    /// Room, author, strand → next sequence number and link.
    strands: (Id, Id, &'static [u8; 8]) => (u64, Digest);
    /// Room, wrap → [`ehe::room::WrapFact`].
    wraps: (Id, Id) => &'static [u8];
    /// Identity, room: who has ever been a party of what.
    parties: (Id, Id) => ();
    /// Hour, room, reader → the last refused request of that hour and how many were only counted ([`ehe::read::AccessRecord`]).
    read_refusals: (u32, Id, Id) => &'static [u8];
    /// Room, author → the last refusals of runs of a party.
    run_refusals: (Id, Id) => &'static [u8];
    /// Made at, reader, nonce of granted requests, as long as they are not stale anyway.
    nonces: (u64, Id, Id) => ();
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
