//! What a block has to be before this node stores it for a leader.

use ehe::time::UnixMs;

use super::block::{Block, RULES};
use crate::checkpoint::CLOCK_DIFFERS_MAX_MS;
use crate::consensus::Unfit;
use crate::red;

/// Judges an encoded block that came at `now`; where nobody knows the time, its form alone. Returns what it decodes to.
///
/// The ledger's time never goes back, so a block from ahead of the clocks would end every grant before its time, and nobody could undo
/// it: it is refused while nothing of it is there. What was made earlier is taken however old it is: this node may have been away
/// for years. And what would stop every replica that applies it (bytes that are no block, rules that this program does not
/// know) is one leader's trouble instead.
pub(super) fn vet(bytes: &[u8], now: Option<UnixMs>) -> Result<Block, Unfit> {
    let block = Block::decode(bytes).map_err(|_| Unfit::Unknown)?;
    if block.rules != RULES {
        return Err(Unfit::Unknown);
    }
    match now.map(|now| block.time.since(now)) {
        Some(ahead_ms) if ahead_ms > CLOCK_DIFFERS_MAX_MS && !red::on("clock_lies") => Err(Unfit::Ahead { ahead_ms }),
        _ => Ok(block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_from_the_future_is_refused_and_one_from_years_ago_is_taken() {
        let (now, year_ms) = (UnixMs(1_900_000_000_000), 365 * 24 * 3_600_000);
        let at = |ms: u64| vet(&Block::new(UnixMs(ms), vec![]).to_vec(), Some(now)).map(drop);
        assert_eq!(at(now.0 - 30 * year_ms), Ok(()));
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(now.0 + CLOCK_DIFFERS_MAX_MS), Ok(()));
        assert_eq!(at(now.0 + CLOCK_DIFFERS_MAX_MS + 1), Err(Unfit::Ahead { ahead_ms: CLOCK_DIFFERS_MAX_MS + 1 }));
        assert_eq!(at(u64::MAX), Err(Unfit::Ahead { ahead_ms: u64::MAX - now.0 }));
        let future = Block::new(UnixMs(u64::MAX), vec![]);
        assert_eq!(vet(&future.to_vec(), None), Ok(future), "by no clock");
    }

    #[test]
    fn what_would_stop_every_replica_is_not_stored() {
        let good = Block::new(UnixMs(5), vec![]).to_vec();
        assert_eq!(vet(&good, Some(UnixMs(5))), Ok(Block::new(UnixMs(5), vec![])));
        let mut other_rules = Block::new(UnixMs(5), vec![]);
        other_rules.rules = RULES + 1;
        let other_rules = other_rules.to_vec();
        let longer = [&good[..], &[0]].concat();
        for bytes in [&[][..], &[0xff; 9], &good[..good.len() - 1], &longer, &other_rules] {
            assert_eq!(vet(bytes, Some(UnixMs(5))), Err(Unfit::Unknown), "{bytes:?}");
        }
    }
}
