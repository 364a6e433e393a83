//! A chain of charters as it comes from a node (SPEC 11, request 6): answer by answer, for a frame need not hold it.
//!
//! Pure: whoever asks has the connection and the deadline. What a node can make it hold is bounded by the chain's own limits, and how often it
//! asks by the versions that a chain may have: every answer but the last brings one at least.

use super::signed::check_chain;
use super::{CharterChain, CharterError, SignedCharter};
use crate::limits::FRAME_MAX_BYTES;

/// What an answer's frame has besides its charters: an array of two with a number, and the header of a byte string.
const ANSWER_BYTES: usize = 16;

impl CharterChain {
    /// Of these charters as many as one answer holds, the first ones, encoded as a chain; empty where there are none. Any charter fits a
    /// frame, so a piece is empty only at the end.
    pub fn piece<'a>(charters: impl IntoIterator<Item = &'a SignedCharter>) -> Vec<u8> {
        let (mut held, mut bytes) = (Vec::new(), ANSWER_BYTES);
        for charter in charters {
            bytes = bytes.saturating_add(in_chain(charter));
            if bytes.saturating_add(head_bytes(held.len() + 1)) > FRAME_MAX_BYTES {
                break;
            }
            held.push(charter.clone());
        }
        Self(held).encode()
    }
}

/// The header of a byte string of this length, or of an array of as many.
fn head_bytes(count: usize) -> usize {
    match count {
        0..24 => 1,
        24..0x100 => 2,
        0x100..0x1_0000 => 3,
        _ => 5,
    }
}

/// What a charter takes in a chain.
fn in_chain(charter: &SignedCharter) -> usize {
    let bytes = charter.encode().len();
    bytes.saturating_add(head_bytes(bytes))
}

/// The charters here, and what a node shows after them.
#[derive(Debug)]
pub struct Gathering {
    chain: CharterChain,
    /// What its charters take in it.
    bytes: usize,
    /// How many there were.
    own: usize,
    /// The version that comes next.
    next: u32,
}

impl Gathering {
    /// Begins with the charters here. The newest of them is asked for too: a node that has another one of that version shows it at once.
    pub fn after(own: CharterChain) -> Self {
        let next = u32::try_from(own.0.len()).unwrap_or(u32::MAX).max(1);
        Self { bytes: own.0.iter().map(in_chain).sum(), own: own.0.len(), chain: own, next }
    }

    /// The version from which the node is to be asked for charters.
    pub fn from(&self) -> u32 {
        self.next
    }

    /// Takes an answer. Whether there may be more: then the node is asked again.
    ///
    /// # Errors
    /// The node's fault: bytes that are no charters, versions that were not asked for, another charter than the one here, or a chain that
    /// goes beyond its [limits](CharterChain::check_limits). Signatures are not looked at: the whole chain is verified by whoever
    /// takes it up.
    pub fn take(&mut self, answer: &[u8]) -> Result<bool, CharterError> {
        let answer = CharterChain::decode(answer)?.0;
        let more = !answer.is_empty();
        for charter in answer {
            let (expected, found) = (self.next, charter.read()?.version);
            if found != expected {
                return Err(CharterError::VersionSkip { expected, found });
            }
            let at = usize::try_from(found).ok().and_then(|version| version.checked_sub(1));
            match at.and_then(|at| self.chain.0.get(at)) {
                Some(own) if own.hash() == charter.hash() => {}
                Some(_) => return Err(CharterError::Other(found)),
                None => self.push(charter)?,
            }
            self.next = self.next.saturating_add(1);
        }
        Ok(more)
    }

    fn push(&mut self, charter: SignedCharter) -> Result<(), CharterError> {
        let (count, bytes) = (self.chain.0.len() + 1, self.bytes.saturating_add(in_chain(&charter)));
        check_chain(count, bytes.saturating_add(head_bytes(count)))?;
        self.bytes = bytes;
        self.chain.0.push(charter);
        Ok(())
    }

    /// All, if the node showed any that were not here; they are not verified.
    pub fn newer(self) -> Option<CharterChain> {
        (self.chain.0.len() > self.own).then_some(self.chain)
    }
}
