//! What a block has to be before this node stores it for a leader.

use ehe::time::UnixMs;

use super::block::{Beginning, Block};
use crate::checkpoint::CLOCK_DIFFERS_MAX_MS;
use crate::consensus::Unfit;
use crate::red;

/// Judges an encoded block that came at `now`; where nobody knows the time, its form alone. `known`: up to which version
/// this program knows the rules. Returns what it decodes to, if it is of such.
///
/// The ledger's time never goes back, so a block from ahead of the clocks would end every grant before its time, and nobody could undo
/// it: it is refused while nothing of it is there. What was made earlier is taken however old it is: this node may have been away
/// for years. And what would stop every replica that applies it (bytes that are no block) is one leader's trouble instead. A block under
/// rules that this program does not know is stored, as far as its beginning tells: whether they are in force, what stands before it in the
/// log decides; if they are, this node keeps it for the later program that is to run here, and if not, it changes nothing anywhere.
///
/// Where programs differ there is a gap. What claims the newest rules and is no block of theirs, an older program stores, and a later one does
/// not. So while more than half of a group still run the older one and the rules are not raised, a leader that lies can have such bytes committed:
/// they change nothing on anybody, but the nodes that were upgraded already take nothing behind them, until a state comes from a leader whose log
/// has gone on by as much as it keeps for them; or they run the older program for a moment, which stores it. To store it here as well would be
/// worse: behind a charter that has come meanwhile it would stop every replica that applies it.
pub(super) fn vet(bytes: &[u8], now: Option<UnixMs>, known: u16) -> Result<Option<Block>, Unfit> {
    let block = match (Block::decode(bytes), Beginning::read(bytes)) {
        (Ok(block), _) if block.rules <= known => Ok(block),
        (_, Some(beginning)) if beginning.rules > known => Err(beginning),
        _ => return Err(Unfit::Unknown),
    };
    let time = block.as_ref().map_or_else(|beginning| beginning.time, |block| block.time);
    match now.map(|now| time.since(now)) {
        Some(ahead_ms) if ahead_ms > CLOCK_DIFFERS_MAX_MS && !red::on("clock_lies") => Err(Unfit::Ahead { ahead_ms }),
        _ => Ok(block.ok()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_from_the_future_is_refused_and_one_from_years_ago_is_taken() {
        let (now, year_ms) = (UnixMs(1_900_000_000_000), 365 * 24 * 3_600_000);
        let at = |ms: u64| vet(&Block::new(UnixMs(ms), 1, vec![]).to_vec(), Some(now), 1).map(drop);
        assert_eq!(at(now.0 - 30 * year_ms), Ok(()));
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(now.0 + CLOCK_DIFFERS_MAX_MS), Ok(()));
        assert_eq!(at(now.0 + CLOCK_DIFFERS_MAX_MS + 1), Err(Unfit::Ahead { ahead_ms: CLOCK_DIFFERS_MAX_MS + 1 }));
        assert_eq!(at(u64::MAX), Err(Unfit::Ahead { ahead_ms: u64::MAX - now.0 }));
        let future = Block::new(UnixMs(u64::MAX), 1, vec![]);
        assert_eq!(vet(&future.to_vec(), None, 1), Ok(Some(future)), "by no clock");
    }

    #[test]
    fn what_would_stop_every_replica_is_not_stored() {
        let good = Block::new(UnixMs(5), 1, vec![]).to_vec();
        assert_eq!(vet(&good, Some(UnixMs(5)), 1), Ok(Some(Block::new(UnixMs(5), 1, vec![]))));
        let longer = [&good[..], &[0]].concat();
        for bytes in [&[][..], &[0xff; 9], &good[..good.len() - 1], &longer] {
            assert_eq!(vet(bytes, Some(UnixMs(5)), 1), Err(Unfit::Unknown), "{bytes:?}");
        }
    }

    #[test]
    fn a_block_of_later_rules_is_kept_for_the_program_that_knows_them_and_its_time_is_judged_all_the_same() {
        let (now, later) = (UnixMs(1_900_000_000_000), |ms| Block::new(UnixMs(ms), 3, vec![]).to_vec());
        let mut of_another_form = later(now.0);
        // A command that this program does not know.
        *of_another_form.last_mut().unwrap() = 0x81;
        of_another_form.extend([0x81, 0x18, 0x63]);
        for bytes in [later(now.0), of_another_form.clone()] {
            assert_eq!(vet(&bytes, Some(now), 2), Ok(None));
        }
        let ahead = later(now.0 + CLOCK_DIFFERS_MAX_MS + 1);
        assert_eq!(vet(&ahead, Some(now), 2), Err(Unfit::Ahead { ahead_ms: CLOCK_DIFFERS_MAX_MS + 1 }));
        assert_eq!(vet(&of_another_form, Some(now), 3), Err(Unfit::Unknown), "who knows them reads the whole");
        assert_eq!(vet(&of_another_form[..9], Some(now), 2), Err(Unfit::Unknown), "not even a beginning");
    }
}
