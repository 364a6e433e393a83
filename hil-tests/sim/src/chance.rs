//! Keys and nonces of the people in a run, from its seed.

use std::{cell::RefCell, convert::Infallible};

use ehe_node::consensus::sim::Chance;
use getrandom::rand_core::{TryCryptoRng, TryRng};

thread_local! {
    static CHANCE: RefCell<Chance> = const { RefCell::new(Chance::new(0)) };
}

/// All that follows on this thread follows from `seed`.
pub fn begin(seed: u64) {
    CHANCE.with(|chance| *chance.borrow_mut() = Chance::new(seed));
}

/// As good as secret: nobody here looks.
pub struct Seeded;

pub fn rng() -> Seeded {
    Seeded
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| (number >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(CHANCE.with(|chance| chance.borrow_mut().number()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for piece in out.chunks_mut(8) {
            let number = self.try_next_u64()?.to_le_bytes();
            piece.copy_from_slice(&number[..piece.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}
