//! Randomness with a seed, for this crate's tests.

use core::convert::Infallible;

use sha2::{Digest, Sha256};

/// SHA-256 in counter mode: good enough for tests, no dependency.
#[derive(Clone)]
pub(crate) struct TestRng {
    seed: u64,
    counter: u64,
}

pub(crate) fn rng(seed: u64) -> TestRng {
    TestRng { seed, counter: 0 }
}

impl rand_core::TryRng for TestRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        for chunk in to.chunks_mut(32) {
            self.counter += 1;
            let block = Sha256::digest([self.seed.to_le_bytes(), self.counter.to_le_bytes()].concat());
            for (to, from) in chunk.iter_mut().zip(block) {
                *to = from;
            }
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for TestRng {}
