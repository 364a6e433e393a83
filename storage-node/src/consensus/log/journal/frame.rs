//! The bytes of the journal's file, and which of them count. Nothing here reads or writes.

use sha2::{Digest, Sha256};

/// A record begins at a multiple of so many bytes. What a disk or a page cache writes at once is never larger and shared.
pub(super) const BLOCK: usize = 4096;
/// Blocks with the header.
pub(super) const HEADER_BLOCKS: usize = 2;

const MAGIC: &[u8; 11] = b"ehe-journal";
const VERSION: u8 = 1;
const MARK: &[u8; 4] = b"ehej";
const HASH: usize = 32;
/// Bytes of a record before its body.
const HEAD: usize = 4 + 4 + 8 + 8 + HASH;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: [u8; 16],
    pub(super) epoch: u64,
    /// Bytes of each of the two sides.
    pub(super) side: u64,
}

impl Header {
    /// A block that says so.
    pub(super) fn block(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.id);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.side.to_be_bytes());
        let hash = Sha256::digest(&bytes);
        bytes.extend_from_slice(&hash);
        bytes.resize(BLOCK, 0);
        bytes
    }

    /// Which of the header's blocks is written.
    pub(super) fn at(&self) -> u64 {
        (self.epoch % 2) * BLOCK as u64
    }

    fn parse(block: &[u8]) -> Option<Self> {
        let mut rest = block.strip_prefix(MAGIC)?.strip_prefix(&[VERSION])?;
        let id = take(&mut rest)?;
        let epoch = u64::from_be_bytes(take(&mut rest)?);
        let header = Self { id, epoch, side: u64::from_be_bytes(take(&mut rest)?) };
        (header.block() == block).then_some(header)
    }

    /// The newest of a file's.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        file.chunks(BLOCK).take(HEADER_BLOCKS).filter_map(Self::parse).max_by_key(|header| header.epoch)
    }

    /// Bytes of the whole file, unless no file has so many.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        self.side.checked_mul(2)?.checked_add((HEADER_BLOCKS * BLOCK) as u64)
    }

    /// Where a side begins.
    pub(super) fn side_at(&self, side: Side) -> u64 {
        let first = (HEADER_BLOCKS * BLOCK) as u64;
        match side {
            Side::A => first,
            Side::B => first.saturating_add(self.side),
        }
    }

    fn hash(&self, epoch: u64, sequence: u64, body: &[u8]) -> [u8; HASH] {
        let mut hash = Sha256::new();
        hash.update(self.id);
        hash.update(epoch.to_be_bytes());
        hash.update(sequence.to_be_bytes());
        hash.update((body.len() as u64).to_be_bytes());
        hash.update(body);
        hash.finalize().into()
    }
}

/// The version in a header, if it is later than any that this program knows.
pub(super) fn later_version(file: &[u8]) -> Option<u8> {
    let versions = file.chunks(BLOCK).take(HEADER_BLOCKS);
    versions.filter_map(|block| block.strip_prefix(MAGIC)?.first().copied()).find(|version| *version > VERSION)
}

/// Half of what the file has for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

/// A record in the making.
#[derive(Debug)]
pub(in crate::consensus::log) struct Record(Vec<u8>);

impl Record {
    /// With the body that `write` puts behind what it is given.
    pub(in crate::consensus::log) fn new(write: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Self {
        Self(write(vec![0; HEAD]))
    }

    /// Bytes that it takes in the file. `None`: more than a record has.
    pub(super) fn blocks(&self) -> Option<u64> {
        u32::try_from(self.0.len()).ok()?;
        Some((self.0.len().div_ceil(BLOCK) * BLOCK) as u64)
    }

    /// The record as it is written.
    pub(super) fn sealed(self, header: &Header, sequence: u64) -> Vec<u8> {
        let Self(mut bytes) = self;
        let body = bytes.get(HEAD..).unwrap_or_default();
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let hash = header.hash(header.epoch, sequence, body);
        let head = MARK
            .iter()
            .copied()
            .chain(length.to_be_bytes())
            .chain(header.epoch.to_be_bytes())
            .chain(sequence.to_be_bytes())
            .chain(hash);
        for (to, from) in bytes.iter_mut().zip(head) {
            *to = from;
        }
        bytes.resize(bytes.len().div_ceil(BLOCK) * BLOCK, 0);
        bytes
    }
}

/// A record that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Whole<'file> {
    sequence: u64,
    body: &'file [u8],
    /// Where the next one may be.
    next: usize,
}

/// The record of this epoch at `at`, if there is one and `wanted` wants its sequence.
fn parse<'file>(
    header: &Header,
    epoch: u64,
    file: &'file [u8],
    at: usize,
    wanted: impl FnOnce(u64) -> bool,
) -> Option<Whole<'file>> {
    let side = usize::try_from(header.side).ok().filter(|side| *side > 0)?;
    let records = at.checked_sub(HEADER_BLOCKS * BLOCK)?;
    let left = side - records % side;
    let mut rest = file.get(at..at.checked_add(left)?)?.strip_prefix(MARK)?;
    let length = usize::try_from(u32::from_be_bytes(take(&mut rest)?)).ok()?;
    let of = u64::from_be_bytes(take(&mut rest)?);
    let sequence = u64::from_be_bytes(take(&mut rest)?);
    if of != epoch || !wanted(sequence) {
        return None;
    }
    let hash: [u8; HASH] = take(&mut rest)?;
    let body = rest.get(..length)?;
    let next = at + (HEAD + length).div_ceil(BLOCK) * BLOCK;
    (header.hash(epoch, sequence, body) == hash).then_some(Whole { sequence, body, next })
}

/// A record that was synced is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) missing: u64,
    pub(super) later: u64,
}

/// The bodies of the records of `epoch` behind `settled`, in order.
pub(super) fn replay<'file>(
    header: &Header,
    epoch: u64,
    settled: u64,
    file: &'file [u8],
) -> Result<Vec<&'file [u8]>, Hole> {
    let mut bodies = Vec::new();
    let (mut next, mut behind) = (settled.saturating_add(1), None);
    let starts = [Side::A, Side::B].map(|side| usize::try_from(header.side_at(side)).unwrap_or(usize::MAX));
    while let Some(whole) = behind
        .into_iter()
        .chain(starts)
        .find_map(|at: usize| parse(header, epoch, file, at, |sequence| sequence == next))
    {
        bodies.push(whole.body);
        behind = Some(whole.next);
        next = next.saturating_add(1);
    }
    let later = (HEADER_BLOCKS * BLOCK..file.len())
        .step_by(BLOCK)
        .filter_map(|at| parse(header, epoch, file, at, |sequence| sequence >= next))
        .map(|whole| whole.sequence)
        .min();
    later.map_or(Ok(bodies), |later| Err(Hole { missing: next, later }))
}

/// Whether any record lies in the file, of whatever epoch.
pub(super) fn any(header: &Header, file: &[u8]) -> bool {
    (HEADER_BLOCKS * BLOCK..file.len()).step_by(BLOCK).any(|at| {
        let epoch = file.get(at + 8..at + 16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        epoch.is_some_and(|epoch| parse(header, epoch, file, at, |_| true).is_some())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { id: [7; 16], epoch: 4, side: 8 * BLOCK as u64 };

    /// A file with records: side, block of the side, epoch, sequence.
    fn file_with(records: &[(Side, usize, u64, u64)]) -> Vec<u8> {
        let mut file = vec![0; usize::try_from(HEADER.file_bytes().unwrap()).unwrap()];
        for (side, block, epoch, sequence) in records {
            let record = Record::new(|mut out| {
                out.extend_from_slice(&sequence.to_be_bytes());
                out
            });
            let bytes = record.sealed(&Header { epoch: *epoch, ..HEADER }, *sequence);
            let at = usize::try_from(HEADER.side_at(*side)).unwrap() + block * BLOCK;
            file[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        file
    }

    fn replayed(file: &[u8], settled: u64) -> Result<Vec<u64>, Hole> {
        let bodies = replay(&HEADER, HEADER.epoch, settled, file)?;
        Ok(bodies.into_iter().map(|body| u64::from_be_bytes(body.try_into().unwrap())).collect())
    }

    #[test]
    fn records_of_an_older_lap_or_epoch_are_neither_taken_nor_missed() {
        use Side::{A, B};
        // Side A was written again: 7 and 8 over 1 and 2, of which 3 is left; side B has 4 to 6.
        let lap = [(A, 0, 4, 7), (A, 1, 4, 8), (A, 2, 4, 3), (B, 0, 4, 4), (B, 1, 4, 5), (B, 2, 4, 6)];
        assert_eq!(replayed(&file_with(&lap), 3), Ok(vec![4, 5, 6, 7, 8]));
        assert_eq!(replayed(&file_with(&lap), 6), Ok(vec![7, 8]));
        assert_eq!(replayed(&file_with(&lap), 8), Ok(vec![]));
        let older = [(A, 0, 3, 1), (A, 1, 3, 2), (B, 0, 3, 3)];
        assert_eq!(replayed(&file_with(&older), 0), Ok(vec![]));
        let mixed = [(A, 0, 4, 1), (A, 1, 3, 2), (A, 2, 3, 3)];
        assert_eq!(replayed(&file_with(&mixed), 0), Ok(vec![1]));
    }

    #[test]
    fn a_record_that_is_missing_before_a_later_one_is_told() {
        use Side::{A, B};
        assert_eq!(replayed(&file_with(&[(A, 0, 4, 1), (A, 2, 4, 3)]), 0), Err(Hole { missing: 2, later: 3 }));
        assert_eq!(replayed(&file_with(&[(A, 0, 4, 1), (B, 0, 4, 3)]), 0), Err(Hole { missing: 2, later: 3 }));
        assert_eq!(replayed(&file_with(&[(B, 1, 4, 9)]), 7), Err(Hole { missing: 8, later: 9 }));
    }

    #[test]
    fn bytes_inside_of_a_command_do_not_pass_for_a_record_and_lengths_do_not_lead_out_of_the_file() {
        let forged = Record::new(|out| out).sealed(&Header { id: [8; 16], ..HEADER }, 2);
        let record = Record::new(|mut out| {
            out.resize(BLOCK, 1);
            out.extend_from_slice(&forged);
            out
        });
        let mut file = file_with(&[]);
        let at = 2 * BLOCK;
        let bytes = record.sealed(&HEADER, 1);
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        assert_eq!(replay(&HEADER, 4, 0, &file).unwrap().len(), 1);
        file[at + 4..at + 8].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(replay(&HEADER, 4, 0, &file).unwrap().len(), 0);
        assert_eq!(replay(&Header { side: 0, ..HEADER }, 4, 0, &file).unwrap().len(), 0);
    }
}
