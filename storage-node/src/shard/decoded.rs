//! Blocks that were decoded when they were judged, until they are applied: nobody decodes the same bytes twice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::block::Block;

/// Bytes of blocks that are kept, and as much again for what they decode to; a larger one is not. What has no room is decoded once more.
const KEPT_BYTES: usize = 4 << 20;
/// Blocks that are kept: more than one leader has under way.
const KEPT_BLOCKS: usize = 64;

/// Of one shard. Clones are the same.
///
/// A block is known by where its bytes lie, not by what a leader says of it, and they are held meanwhile: so nothing else can lie there, and
/// what is taken out is what these very bytes decode to.
#[derive(Clone, Default)]
pub(super) struct Decoded(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    blocks: VecDeque<(Bytes, Block)>,
    bytes: usize,
}

impl Kept {
    fn drop_oldest(&mut self) {
        if let Some((bytes, _)) = self.blocks.pop_front() {
            self.bytes = self.bytes.saturating_sub(bytes.len());
        }
    }
}

impl Decoded {
    /// Keeps what `bytes` decode to. The oldest give way.
    pub(super) fn keep(&self, bytes: &Bytes, block: Block) {
        if bytes.len() > KEPT_BYTES {
            return;
        }
        let mut kept = self.lock();
        kept.bytes = kept.bytes.saturating_add(bytes.len());
        kept.blocks.push_back((bytes.clone(), block));
        while kept.bytes > KEPT_BYTES || kept.blocks.len() > KEPT_BLOCKS {
            kept.drop_oldest();
        }
    }

    /// What these bytes decode to, if it is kept. Whatever was kept before them goes, too: blocks are applied in the order in which they came,
    /// and those that are passed over never will be.
    pub(super) fn take(&self, bytes: &Bytes) -> Option<Block> {
        let mut kept = self.lock();
        let same = |(of, _): &(Bytes, Block)| of.as_ptr() == bytes.as_ptr() && of.len() == bytes.len();
        let at = kept.blocks.iter().position(same)?;
        for _ in 0..at {
            kept.drop_oldest();
        }
        let (of, block) = kept.blocks.pop_front()?;
        kept.bytes = kept.bytes.saturating_sub(of.len());
        Some(block)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ehe::time::UnixMs;

    use super::*;

    fn block(ms: u64) -> (Bytes, Block) {
        let block = Block::new(UnixMs(ms), 1, vec![]);
        (Bytes::from(block.to_vec()), block)
    }

    #[test]
    fn a_block_is_taken_once_and_only_for_the_very_bytes_that_were_judged() {
        let (decoded, (bytes, what)) = (Decoded::default(), block(5));
        decoded.keep(&bytes, what.clone());
        let alike = Bytes::copy_from_slice(&bytes);
        assert_eq!(decoded.take(&alike), None, "the same, elsewhere");
        assert_eq!(decoded.take(&bytes.slice(..bytes.len() - 1)), None, "a part of it");
        assert_eq!(decoded.take(&bytes.clone()), Some(what));
        assert_eq!(decoded.take(&bytes), None);
    }

    #[test]
    fn what_is_passed_over_goes_and_what_is_kept_is_bounded() {
        let decoded = Decoded::default();
        let blocks: Vec<_> = (0..300).map(block).collect();
        for (bytes, what) in &blocks {
            decoded.keep(bytes, what.clone());
            assert!(decoded.lock().blocks.len() <= KEPT_BLOCKS);
        }
        assert_eq!(decoded.take(&blocks[200].0), None, "the oldest gave way");
        assert_eq!(decoded.take(&blocks[290].0), Some(blocks[290].1.clone()));
        assert_eq!(decoded.take(&blocks[280].0), None, "passed over");
        let large = |bytes| Bytes::from(vec![0; bytes]);
        decoded.keep(&large(KEPT_BYTES + 1), blocks[0].1.clone());
        assert_eq!(decoded.lock().blocks.len(), 9);
        decoded.keep(&large(KEPT_BYTES), blocks[0].1.clone());
        assert_eq!(decoded.lock().blocks.len(), 1);
        assert_eq!(decoded.lock().bytes, KEPT_BYTES);
    }
}
