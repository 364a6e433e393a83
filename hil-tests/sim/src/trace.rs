//! What happened, in order: a number that changes if anything did, and the newest lines.

use std::{
    collections::VecDeque,
    fmt::Display,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ehe_node::consensus::sim;

/// Lines that are kept.
const KEPT: usize = 400;

/// Clones are the same trace.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    hash: u64,
    steps: u64,
    lines: VecDeque<String>,
    /// Everything is also said at once.
    aloud: bool,
}

/// FNV-1a, 64 bits: not for secrets.
pub fn fold(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

pub const BEGIN: u64 = 0xcbf2_9ce4_8422_2325;

impl Trace {
    pub fn new(aloud: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner { hash: BEGIN, steps: 0, lines: VecDeque::new(), aloud })))
    }

    /// A line.
    pub fn say(&self, what: impl Display) {
        let line = format!("{:>12.6} {what}", sim::now().as_secs_f64());
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.hash = fold(inner.hash, line.as_bytes());
        inner.steps += 1;
        if inner.aloud {
            println!("{line}");
        }
        if inner.lines.len() == KEPT {
            inner.lines.pop_front();
        }
        inner.lines.push_back(line);
    }

    /// A step that nobody reads, but that must be the same next time.
    pub fn step(&self, at: Duration, numbers: [u64; 3], bytes: &[u8]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut hash = fold(inner.hash, &at.as_nanos().to_be_bytes());
        for number in numbers {
            hash = fold(hash, &number.to_be_bytes());
        }
        inner.hash = fold(hash, bytes);
        inner.steps += 1;
    }

    /// The number, and of how many steps.
    pub fn hash(&self) -> (u64, u64) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.hash, inner.steps)
    }

    /// The newest lines.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.lines.iter().skip(inner.lines.len().saturating_sub(lines)).cloned().collect()
    }
}
