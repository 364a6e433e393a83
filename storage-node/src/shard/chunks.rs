//! A shard's state in chunks for backups: rows as [`super::export`] writes them, cut where the keys say, so that a chunk in which
//! nothing changed is byte for byte the chunk that it was.

use std::io::{self, Read};
use std::sync::Arc;

use ehe::charter::VerifiedCharter;
use ehe::id::{AllianceId, Hash};
use ehe::merkle::Peaks;
use sha2::{Digest, Sha256};

use super::charters::Charters;
use super::export::{self, Export, Item, OWN, Parser};
use super::notary::Attested;
use super::place::Place;
use super::schema::{META_APPLIED, META_RESTORED, META_SHARD, ShardMeta};
use super::sound;
use super::staging::Staging;
use super::store::{Beside, Store, StoreError};
use super::view::View;

/// Bytes that are taken apart at once.
const PIECE_BYTES: usize = 256 * 1024;
/// A chunk ends behind a row whose key says so, once it has so many bytes.
const CHUNK_MIN_BYTES: usize = 64 * 1024;
/// Behind any row once it has so many.
const CHUNK_FULL_BYTES: usize = 256 * 1024;
/// Largest chunk: a full one, and the largest row behind it.
pub const CHUNK_MAX_BYTES: usize = CHUNK_FULL_BYTES + export::ROW_MAX_BYTES * 2 + 64;
/// One key in so many ends a chunk.
const ENDS_ONE_IN: u32 = 16;
/// Number of the table that holds the hashes of the leaves.
const LEAVES_TABLE: u8 = 3;

/// What was taken of a shard, all as of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The shard as a whole.
    pub meta: ShardMeta,
    /// Root of its log.
    pub root: Hash,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of all chunks' hashes, in order: equal states have the same.
    pub state: Hash,
    /// Version of the charter by which its nodes hold it, see [`View::holders`].
    pub holders: u32,
}

/// SHA-256 of chunks' hashes.
pub fn state_of(chunks: &[Hash]) -> Hash {
    let mut hash = Sha256::new();
    chunks.iter().for_each(|chunk| hash.update(chunk.as_bytes()));
    Hash(hash.finalize().into())
}

/// Whether a chunk may end behind a row of this key (FNV-1a: it depends on nothing else).
fn ends(key: &[u8]) -> bool {
    let hash = key.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // The upper bits are the better mixed ones.
    (hash >> 16).is_multiple_of(ENDS_ONE_IN)
}

impl Store {
    /// Hands out the state in chunks, as of the moment of the call, while the shard goes on. `each` gets a chunk and its hash.
    ///
    /// Pages that are freed meanwhile are not used again until this returns: the file may grow by what is written.
    pub fn take(&self, mut each: impl FnMut(&[u8], Hash) -> io::Result<()>) -> Result<Taken, StoreError> {
        let moment = self.read()?;
        let view = View::open(&moment, self.log())?;
        let meta = view.shard();
        let root = Peaks::load(&view, meta.leaves)?.root();
        let holders = view.holders(self.log().alliance)?.map_or(1, |charter| charter.version());
        let (mut state, mut rows) = (Sha256::new(), 0u64);
        let (mut chunk, mut of) = (Vec::with_capacity(CHUNK_FULL_BYTES), 0u8);
        let mut out = |chunk: &mut Vec<u8>| -> Result<(), StoreError> {
            if !chunk.is_empty() {
                let hash = Hash(Sha256::digest(&*chunk).into());
                state.update(hash.as_bytes());
                each(chunk, hash)?;
                chunk.clear();
            }
            Ok(())
        };
        let (mut stream, mut parser) = (Export::new(&moment, None)?, Parser::default());
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = stream.read(&mut piece)?;
            if read == 0 {
                break;
            }
            parser.feed(piece.get(..read).unwrap_or_default(), |item| {
                let Item::Row { table, key, value } = item else { return Ok(()) };
                if table != of {
                    out(&mut chunk)?;
                    of = table;
                }
                export::put_row(&mut chunk, table, key, value)?;
                rows += 1;
                if chunk.len() >= CHUNK_FULL_BYTES || (chunk.len() >= CHUNK_MIN_BYTES && ends(key)) {
                    out(&mut chunk)?;
                }
                Ok(())
            })?;
        }
        parser.finish()?;
        out(&mut chunk)?;
        Ok(Taken { meta, root, rows, state: Hash(state.finalize().into()), holders })
    }

    /// Makes this empty store what the chunks say, if it is of this shard, is sound, and its log has this root: all of it, or nothing. The
    /// log is of `incarnation` from here on; `applied` is what consensus keeps with the state, and `records` makes of the records that
    /// came along those that are kept.
    pub fn begin_from(
        &self,
        place: &Place,
        chunks: impl Iterator<Item = io::Result<Vec<u8>>>,
        root: Hash,
        (incarnation, applied): (u32, &[u8]),
        records: impl FnOnce(Option<Vec<u8>>) -> Result<Vec<u8>, StoreError>,
    ) -> Result<(), StoreError> {
        const NONE: StoreError = StoreError::Stream("this store has no directory to be begun in");
        let Beside { folder, cache_bytes } = self.beside().ok_or(NONE)?;
        let mut staging = Staging::begin(folder, cache_bytes)?;
        let (mut meta, mut before) = (None, None);
        for chunk in chunks {
            let chunk = chunk?;
            let mut rest = chunk.as_slice();
            while !rest.is_empty() {
                let (table, key, value) = export::take_row(&mut rest)?;
                match (table, key) {
                    (0, key) if OWN.iter().any(|own| own.as_bytes() == key) => {
                        return Err(StoreError::Stream("it says what a node only says to itself"));
                    }
                    (0, key) if key == META_RESTORED.as_bytes() => before = Some(value.to_vec()),
                    (0, key) if key == META_SHARD.as_bytes() => meta = Some(value.to_vec()),
                    _ => {}
                }
                staging.push(table, key, value)?;
            }
        }
        let meta = meta.and_then(|meta| ehe::cbor::from_slice::<ShardMeta>(&meta, 256).ok());
        let meta = meta.ok_or(StoreError::Stream("the shard's record is missing"))?;
        let (incarnation_before, size, note) = (meta.incarnation, meta.leaves, String::new());
        let attested = Attested { incarnation: incarnation_before, size, root, charter_version: 1, note };
        let staged = staging.finish(|tables| sound::check(tables, place, Some(&attested), None))?;
        let (meta, records) = (ehe::cbor::to_vec(&ShardMeta { incarnation, ..meta }), records(before)?);
        let begun = [(META_SHARD, meta.as_slice()), (META_RESTORED, records.as_slice()), (META_APPLIED, applied)];
        self.replace(staged.settle(begun)?);
        Ok(())
    }

    /// The records of this shard's restored logs, as [`ehe::restoration::decode_all`] reads them; `None` if it never was.
    pub fn restored(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.view()?.meta(META_RESTORED)
    }
}

/// The root of a log, from the leaf hashes that go by in chunks.
#[derive(Debug, Default)]
pub struct Leaves {
    peaks: Peaks,
    rows: u64,
}

impl Leaves {
    /// Looks at the next chunk.
    pub fn pass(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let (table, _, value) = export::take_row(&mut rest)?;
            self.rows += 1;
            if table == LEAVES_TABLE {
                let (hashes, over) = value.as_chunks::<32>();
                if !over.is_empty() {
                    return Err(StoreError::Stream("a row of leaf hashes has another length"));
                }
                for hash in hashes {
                    self.peaks.append(Hash(*hash), |_, _| Ok::<_, StoreError>(()))?;
                }
            }
        }
        Ok(())
    }

    /// Rows, leaves, root.
    pub fn end(&self) -> (u64, u64, Hash) {
        (self.rows, self.peaks.size(), self.peaks.root())
    }
}

impl View {
    /// The charter by which the shard's nodes are those that hold it: while a charter moves it, the one before. `None`: charter 1, of which
    /// the log says nothing yet.
    pub fn holders(&self, alliance: AllianceId) -> Result<Option<Arc<VerifiedCharter>>, StoreError> {
        let in_effect = Charters::load(&self.tables().meta, alliance)?.in_effect();
        Ok(in_effect.map(|in_effect| in_effect.before.unwrap_or(in_effect.charter)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use redb::Durability;

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), AllianceId([7; 32]), 1, 1 << 20).unwrap();
        (dir, store)
    }

    fn put(store: &Store, keys: impl Iterator<Item = u64>, value: u8) {
        store
            .write(Durability::None, |tables| {
                for key in keys {
                    tables.positions.insert((&[3; 16], key), [value; 300].as_slice())?;
                }
                Ok(())
            })
            .unwrap();
    }

    fn chunks(store: &Store) -> (Vec<Vec<u8>>, Taken) {
        let mut chunks = Vec::new();
        let taken = store.take(|chunk, hash| {
            assert_eq!(Hash(Sha256::digest(chunk).into()), hash);
            chunks.push(chunk.to_vec());
            Ok(())
        });
        (chunks, taken.unwrap())
    }

    #[test]
    fn a_small_change_makes_few_new_chunks_wherever_it_is() {
        let (_dir, store) = store();
        put(&store, (0..20_000).map(|n| n * 2), 1);
        let (before, taken) = chunks(&store);
        assert!(before.len() > 20 && before.iter().all(|chunk| chunk.len() <= CHUNK_MAX_BYTES));
        assert_eq!(taken.state, state_of(&before.iter().map(|c| Hash(Sha256::digest(c).into())).collect::<Vec<_>>()));
        let known: BTreeSet<Vec<u8>> = before.into_iter().collect();
        let new = |store: &Store| chunks(store).0.into_iter().filter(|chunk| !known.contains(chunk)).count();
        assert_eq!(new(&store), 0, "nothing changed");
        // A row in the middle, and rows behind all.
        put(&store, std::iter::once(20_001), 2);
        assert!((1..=4).contains(&new(&store)), "{}", new(&store));
        put(&store, 50_000..50_100, 2);
        assert!((2..=7).contains(&new(&store)), "{}", new(&store));
        assert_ne!(chunks(&store).1.state, taken.state);
    }

    #[test]
    fn a_store_that_begins_from_chunks_is_the_one_that_they_were_taken_of_but_for_what_is_said_of_its_log() {
        let ((_one, from), (_two, to)) = (store(), store());
        let (all, taken) = chunks(&from);
        let place =
            Place { alliance: AllianceId([7; 32]), shard_count: std::num::NonZeroU16::new(4).unwrap(), shard: 1 };
        let begin = |store: &Store, place: &Place, root| {
            store.begin_from(place, all.iter().cloned().map(Ok), root, (3, b"applied"), |before| {
                assert_eq!(before, None);
                Ok(b"records".to_vec())
            })
        };
        assert!(begin(&to, &place, Hash([1; 32])).is_err(), "another root");
        assert!(begin(&to, &Place { shard: 2, ..place }, taken.root).is_err(), "another shard's");
        begin(&to, &place, taken.root).unwrap();
        assert_eq!(to.restored().unwrap().unwrap(), b"records");
        let view = to.view().unwrap();
        assert_eq!(view.shard(), ShardMeta { incarnation: 3, ..from.view().unwrap().shard() });
        assert_eq!(view.meta(META_APPLIED).unwrap().unwrap(), b"applied");
        let mut leaves = Leaves::default();
        all.iter().for_each(|chunk| leaves.pass(chunk).unwrap());
        assert_eq!(leaves.end(), (taken.rows, 0, taken.root));
        let cut = &all[0][..all[0].len() - 1];
        assert!(Leaves::default().pass(cut).is_err());
    }
}
