//! Who begins handshakes, by address: one host without a certificate must not keep everybody else out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// One address takes at most this part of the handshakes.
const SHARE: usize = 4;
/// Of an IPv6 address, what is given to one site: whoever has it may use any of the 2^64 addresses within.
const SITE: u128 = !0 << 64;

/// An address as far as it stands for one host: an IPv4 address (also where a socket of both families shows it as
/// `::ffff:192.0.2.7`), or the first 64 bits of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Source(IpAddr);

impl Source {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(Ipv6Addr::from_bits(v6.to_bits() & SITE).into()),
            v4 => Self(v4),
        }
    }
}

/// The handshakes that are under way, by source. As many entries as handshakes at most.
#[derive(Debug)]
pub(super) struct Sources {
    share: usize,
    begun: Mutex<BTreeMap<Source, usize>>,
    refused: AtomicU64,
}

/// What becomes of one more handshake.
#[derive(Debug)]
pub(super) enum Turn {
    /// It may begin; it counts until this is dropped.
    Begin(Begun),
    /// First the client has to show that the address is its own.
    Prove,
    /// Its source has its share.
    Full,
}

impl Sources {
    pub(super) fn new(handshakes_max: usize) -> Arc<Self> {
        let share = (handshakes_max / SHARE).max(1);
        Arc::new(Self { share, begun: Mutex::default(), refused: AtomicU64::new(0) })
    }

    /// One more from this address; `proven` if it is known to be the client's own. What only pretends to come from an address
    /// gets half of the share at most, so that nobody can use it up in another's name.
    pub(super) fn turn(self: &Arc<Self>, address: IpAddr, proven: bool) -> Turn {
        let source = Source::of(address);
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let n = begun.get(&source).copied().unwrap_or(0);
        if n >= self.share {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Turn::Full;
        }
        if !proven && n >= self.share.div_ceil(2) {
            return Turn::Prove;
        }
        begun.insert(source, n.saturating_add(1));
        Turn::Begin(Begun { sources: Arc::clone(self), source })
    }

    /// Handshakes that were refused because their source had its share.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// A handshake that counts towards its source's share.
#[derive(Debug)]
pub(super) struct Begun {
    sources: Arc<Sources>,
    source: Source,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut begun = self.sources.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = begun.get_mut(&self.source) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                begun.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn begun(sources: &Arc<Sources>, address: &str) -> Vec<Begun> {
        std::iter::from_fn(|| match sources.turn(ip(address), true) {
            Turn::Begin(begun) => Some(begun),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn one_source_takes_a_quarter_and_what_it_gives_back_is_free_again() {
        let sources = Sources::new(64);
        let mut first = begun(&sources, "192.0.2.7");
        assert_eq!((first.len(), sources.refused()), (16, 1));
        assert_eq!(begun(&sources, "192.0.2.8").len(), 16, "others have theirs");
        drop(first.split_off(10));
        assert_eq!(begun(&sources, "192.0.2.7").len(), 6);
        drop(first);
        assert!(sources.begun.lock().unwrap().is_empty(), "nothing is remembered of who is gone");
        assert_eq!(begun(&Sources::new(1), "192.0.2.7").len(), 1, "somebody has to get in");
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_site() {
        for (one, other, same) in [
            ("192.0.2.7", "192.0.2.8", false),
            ("192.0.2.7", "::ffff:192.0.2.7", true),
            // On a socket of both families, these two are not neighbours of one site.
            ("::ffff:192.0.2.7", "::ffff:192.0.2.8", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
        ] {
            assert_eq!(Source::of(ip(one)) == Source::of(ip(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn a_pretended_source_uses_up_half_of_a_share_at_most() {
        let sources = Sources::new(64);
        let pretended: Vec<_> = (0..8).map(|_| sources.turn(ip("192.0.2.7"), false)).collect();
        assert!(pretended.iter().all(|turn| matches!(turn, Turn::Begin(_))));
        assert!(matches!(sources.turn(ip("192.0.2.7"), false), Turn::Prove));
        assert_eq!(sources.refused(), 0);
        let real = begun(&sources, "192.0.2.7");
        assert_eq!(real.len(), 8, "the other half is the real one's");
        assert!(matches!(sources.turn(ip("192.0.2.7"), false), Turn::Full));
    }
}
