//! How long to wait before connecting again. Pure: what happened and chance are arguments.
//!
//! That a broker accepts a connection proves little: of two clients with one client_id each is accepted, and puts the other one
//! out. So pauses start from the shortest again only after a connection that lasted.

use std::time::Duration;

/// Of a connection that broke for want of a network or a broker.
const LASTED: Duration = Duration::from_secs(10);
/// Of a connection that another client ended: that one pauses too, so ours lasts a while each time.
const LASTED_UNDISTURBED: Duration = Duration::from_secs(300);
/// So many short connections in a row have a cause of their own.
const SHORT_MANY: u32 = 3;

/// The broker said that another client has connected under our client_id.
pub(super) const TAKEN: &str = "client_id_taken";
/// Connections are accepted and end at once, again and again.
pub(super) const SHORT: &str = "short_connections";

/// Pauses between connections.
#[derive(Debug)]
pub(super) struct Retry {
    min_ms: u64,
    max_ms: u64,
    next_ms: u64,
    short: u32,
    said: Option<&'static str>,
}

/// What to do after a connection, or an attempt at one, has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// Why, with what is known of the connections before.
    pub(super) kind: &'static str,
    /// It was not said before.
    pub(super) say: bool,
    /// Until the next attempt, before jitter.
    pub(super) pause_ms: u64,
}

impl Retry {
    pub(super) fn new(min_ms: u64, max_ms: u64) -> Self {
        Self { min_ms, max_ms, next_ms: min_ms, short: 0, said: None }
    }

    /// A connection ended that `lasted` so long, or, with none, an attempt at one.
    pub(super) fn ended(&mut self, kind: &'static str, lasted: Option<Duration>) -> Ended {
        let disturbed = kind == TAKEN || self.short >= SHORT_MANY;
        let enough = if disturbed { LASTED_UNDISTURBED } else { LASTED };
        match lasted {
            Some(lasted) if lasted >= enough => *self = Self::new(self.min_ms, self.max_ms),
            Some(_) => self.short = self.short.saturating_add(1),
            None => {}
        }
        let unexplained = matches!(kind, "lost" | "io" | "broker_disconnected_us");
        let kind = if unexplained && self.short >= SHORT_MANY { SHORT } else { kind };
        let pause_ms = self.next_ms;
        self.next_ms = self.next_ms.saturating_mul(2).min(self.max_ms);
        Ended { kind, say: self.said.replace(kind) != Some(kind), pause_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Option<Duration> = Some(Duration::from_millis(100));

    #[test]
    fn of_two_clients_with_one_client_id_each_waits_longer_each_time_and_says_so_once() {
        let mut retry = Retry::new(500, 15_000);
        let ended: Vec<Ended> = (0..7).map(|_| retry.ended(TAKEN, MOMENT)).collect();
        let pauses: Vec<u64> = ended.iter().map(|e| e.pause_ms).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000]);
        assert_eq!(ended.iter().filter(|e| e.say).count(), 1);
        let after_its_pause = retry.ended(TAKEN, Some(Duration::from_secs(15)));
        assert_eq!(after_its_pause, Ended { kind: TAKEN, say: false, pause_ms: 15_000 });
    }

    #[test]
    fn after_a_connection_that_lasted_the_next_one_is_tried_soon_and_its_end_is_said() {
        let mut retry = Retry::new(500, 15_000);
        for _ in 0..9 {
            retry.ended("unreachable", None);
        }
        let ended = retry.ended("lost", Some(Duration::from_secs(60)));
        assert_eq!(ended, Ended { kind: "lost", say: true, pause_ms: 500 });
    }

    #[test]
    fn connections_that_end_at_once_again_and_again_get_a_name_of_their_own() {
        let mut retry = Retry::new(500, 15_000);
        let kinds: Vec<&str> = (0..4).map(|_| retry.ended("lost", MOMENT).kind).collect();
        assert_eq!(kinds, ["lost", "lost", SHORT, SHORT]);
        let after_the_others_pause = retry.ended("lost", Some(Duration::from_secs(15)));
        assert_eq!(after_the_others_pause, Ended { kind: SHORT, say: false, pause_ms: 8_000 });
        assert_eq!(retry.ended("lost", Some(Duration::from_secs(600))).kind, "lost");
    }
}
