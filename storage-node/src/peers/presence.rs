//! What a node's log says of the other nodes: who is away, who is back, who refuses whom and why. Each is said when it begins, now and then
//! while it lasts, and when it is over: a node that is away for a month fills no disk.
//!
//! Every few seconds each other node is asked how it is ([`super::alliance`]), so there is one place for all groups where this shows. It says
//! what openraft's own lines, which are off for that reason, said at every heartbeat of every group, of numbers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use certs::ChannelError;
use certs::terminal::escaped;
use ehe::charter::Node;

use super::alliance::AllianceError;
use crate::consensus::{Apart, LinkError};

/// Who is started anew is silent for a moment, and nobody need know.
const SILENT_FOR: Duration = Duration::from_secs(10);
/// What lasts is said again after this time,
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// and sooner where it has become something else.
const CHANGED_AFTER: Duration = Duration::from_secs(60);

/// How far a thing has been said that begins, lasts, and ends.
#[derive(Debug, Default)]
struct Lasting {
    since: Option<Instant>,
    said: Option<Instant>,
}

impl Lasting {
    /// It is so `now`, and was at `began`. For how long, if it is to be said: after `silent_for`, and then each time `again_after` later.
    fn is_so(
        &mut self,
        (began, now): (Instant, Instant),
        silent_for: Duration,
        again_after: Duration,
    ) -> Option<Duration> {
        let lasts = now.saturating_duration_since(*self.since.get_or_insert(began));
        let due = self.said.map_or(lasts >= silent_for, |said| now.saturating_duration_since(said) >= again_after);
        due.then(|| {
            self.said = Some(now);
            lasts
        })
    }

    /// It is over. How long it was, if it was said.
    fn is_over(&mut self, now: Instant) -> Option<Duration> {
        let Self { since, said } = std::mem::take(self);
        said.and(since).map(|since| now.saturating_duration_since(since))
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// Nothing came back.
    Silent,
    /// The two do not understand each other, or one does not let the other in: somebody has to do something.
    Strange,
}

/// What is known of one other node, and how far it was said.
#[derive(Debug, Default)]
pub(super) struct Presence {
    away: Lasting,
    said: Option<Unanswered>,
    apart: BTreeMap<Apart, Lasting>,
}

/// Something to say of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    Away { how: Unanswered, why: Option<String>, lasts: Duration },
    Back { after: Duration },
    Apart { apart: Apart, why: String },
    Together { apart: Apart },
}

impl Presence {
    /// The node was asked `at` these times, from and until, and answered, or not; `apart`: what stands between the two besides.
    pub(super) fn asked(
        &mut self,
        at: (Instant, Instant),
        asked: Result<(), &AllianceError>,
        apart: BTreeMap<Apart, String>,
    ) -> Vec<Word> {
        let mut words: Vec<Word> = Vec::new();
        match asked.map_err(|error| (unanswered(error), error)) {
            Ok(()) => {
                self.said = None;
                words.extend(self.away.is_over(at.1).map(|after| Word::Back { after }));
            }
            Err((how, error)) => {
                let again_after = if self.said == Some(how) { AGAIN_AFTER } else { CHANGED_AFTER };
                if let Some(lasts) = self.away.is_so(at, SILENT_FOR, again_after) {
                    self.said = Some(how);
                    words.push(Word::Away { how, why: why(error), lasts });
                }
            }
        }
        let over = |now: &Apart| !apart.contains_key(now);
        for (apart, mut lasting) in self.apart.extract_if(.., |now, _| over(now)) {
            words.extend(lasting.is_over(at.1).map(|_| Word::Together { apart }));
        }
        for (apart, why) in apart {
            let said = self.apart.entry(apart).or_default().is_so(at, Duration::ZERO, AGAIN_AFTER);
            words.extend(said.map(|_| Word::Apart { apart, why }));
        }
        words
    }
}

fn unanswered(error: &AllianceError) -> Unanswered {
    match error {
        AllianceError::Channel(error) if !error.retry_helps() => Unanswered::Strange,
        AllianceError::Channel(_) | AllianceError::Silent => Unanswered::Silent,
        AllianceError::Link(LinkError::Unreachable(_) | LinkError::Lost(_)) => Unanswered::Silent,
        _ => Unanswered::Strange,
    }
}

/// What there is to say beside that nothing came.
fn why(error: &AllianceError) -> Option<String> {
    let nothing_more = matches!(
        error,
        AllianceError::Channel(ChannelError::Deadline(_))
            | AllianceError::Silent
            | AllianceError::Link(LinkError::Lost(_))
    );
    (!nothing_more).then(|| error.to_string())
}

impl Word {
    /// Into the log.
    pub(super) fn say(&self, node: &Node) {
        let text = escaped(&self.of(node));
        match self {
            Self::Back { .. } | Self::Together { .. } => tracing::info!("{text}"),
            Self::Away { .. } | Self::Apart { apart: Apart::NotStored | Apart::Unsound, .. } => {
                tracing::warn!("{text}");
            }
            Self::Apart { .. } => tracing::error!("{text}"),
        }
    }

    fn of(&self, node: &Node) -> String {
        let (who, at) = (format!("{} ({})", node.name, node.id), node.addresses.join(", "));
        match self {
            Self::Away { how, why, lasts } => {
                let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
                match how {
                    Unanswered::Silent if *lasts < AGAIN_AFTER => format!("{who} does not answer at {at}{why}"),
                    Unanswered::Silent => format!("{who} has not answered at {at} for {}{why}", spoken(*lasts)),
                    Unanswered::Strange => format!("{who} at {at} and this node do not come together{why}"),
                }
            }
            Self::Back { after } => format!("{who} answers again, after {}", spoken(*after)),
            Self::Apart { apart: Apart::OtherLogThere, why } => format!(
                "this node refuses {who}: it has another log than the one that this node remembers ({why}). If it lost its log, or an older \
                 copy of its disk was put in, enrol it anew under another id. If this node says so of several others, this node's disk is of \
                 another time, and it is this node that must be enrolled anew"
            ),
            Self::Apart { apart: Apart::OtherLogHere, why } => format!(
                "{who} refuses this node: it remembers another log of this node ({why}). If this node lost its log, or an older copy of its \
                 disk was put in, enrol this node anew under another id. If no other node refuses it, look at the log of {}",
                node.name
            ),
            Self::Apart { apart: Apart::Denied, .. } => format!(
                "this node refuses {who}: it denies entries that it confirmed. Its disk lost them, or an older copy was put in: enrol it \
                 anew under another id"
            ),
            Self::Apart { apart: Apart::NotStored, why } => {
                format!("{who}: {why}; if it says so of others too, look at its clock, else at this node's")
            }
            Self::Apart { apart: Apart::Unsound, why } => {
                format!("{who}: {why}; its program is faulty, or of another version")
            }
            Self::Apart { apart: Apart::Unread, why } => {
                format!(
                    "{who} lacks what only this node's state has: {why}; look at this node's disk, and verify what it has stored"
                )
            }
            Self::Together { apart: Apart::OtherLogThere | Apart::Denied } => {
                format!("this node refuses {who} no more")
            }
            Self::Together { apart: Apart::OtherLogHere } => format!("{who} refuses this node no more"),
            Self::Together { apart: Apart::NotStored } => {
                format!("{who} has not refused what this node orders for a minute")
            }
            Self::Together { apart: Apart::Unsound } => format!("{who} has broken no rule for a minute"),
            Self::Together { apart: Apart::Unread } => {
                format!("{who} has lacked nothing of this node's state for a minute")
            }
        }
    }
}

/// A time as a person says it.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use ehe::id::NodeId;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node() -> Node {
        Node {
            id: NodeId([0xab; 8]),
            name: "node2.example".into(),
            addresses: vec!["192.0.2.2:4433".into()],
            member: ehe::id::MemberId([1; 8]),
            sign: ehe::sign::VerifyKey([2; 32]),
        }
    }

    fn texts(words: Vec<Word>) -> Vec<String> {
        words.iter().map(|word| word.of(&node())).collect()
    }

    /// Asks every 5 s for so long, and gives what was said.
    fn asks(
        presence: &mut Presence,
        clock: &mut Instant,
        lasting: Duration,
        asked: Result<(), &AllianceError>,
        apart: &[(Apart, &str)],
    ) -> Vec<String> {
        let end = *clock + lasting;
        let mut said = Vec::new();
        while *clock < end {
            let apart = apart.iter().map(|(apart, why)| (*apart, (*why).to_owned())).collect();
            said.extend(texts(presence.asked((*clock, *clock + SECOND / 10), asked, apart)));
            *clock += 5 * SECOND;
        }
        said
    }

    #[test]
    fn a_node_that_is_away_is_named_once_then_rarely_and_once_when_it_is_back() {
        let (mut presence, mut clock) = (Presence::default(), Instant::now());
        let away = AllianceError::Channel(ChannelError::Deadline("the node did not answer at its address"));
        let mut asks = |lasting, asked, apart: &[_]| asks(&mut presence, &mut clock, lasting, asked, apart);
        assert!(asks(60 * SECOND, Ok(()), &[]).is_empty());
        assert!(asks(10 * SECOND, Err(&away), &[]).is_empty(), "it is being restarted");
        assert!(asks(60 * SECOND, Ok(()), &[]).is_empty(), "and nobody need know");
        assert_eq!(
            asks(900 * SECOND, Err(&away), &[]),
            [
                "node2.example (abababababababab) does not answer at 192.0.2.2:4433",
                "node2.example (abababababababab) has not answered at 192.0.2.2:4433 for 10 min"
            ]
        );
        assert_eq!(asks(900 * SECOND, Ok(()), &[]), ["node2.example (abababababababab) answers again, after 15 min"]);
        // A day of it is as many lines as it has ten minutes.
        assert_eq!(asks(86_400 * SECOND, Err(&away), &[]).len(), 144);
        assert_eq!(asks(5 * SECOND, Ok(()), &[]), ["node2.example (abababababababab) answers again, after 24 h 0 min"]);
    }

    #[test]
    fn a_node_that_refuses_this_one_is_not_called_silent_and_a_change_is_told_soon_but_not_at_each_turn() {
        let (mut presence, mut clock) = (Presence::default(), Instant::now());
        let away = AllianceError::Silent;
        let refuses = AllianceError::Channel(ChannelError::OtherProtocol);
        let mut asks = |lasting, asked| asks(&mut presence, &mut clock, lasting, asked, &[]);
        assert_eq!(asks(20 * SECOND, Err(&away)).len(), 1);
        let changed = asks(90 * SECOND, Err(&refuses));
        assert!(
            matches!(&changed[..], [one] if one.contains("do not come together: the other end does not")),
            "{changed:?}"
        );
        let mut turns = 0;
        for _ in 0..60 {
            turns += asks(5 * SECOND, Err(&away)).len() + asks(5 * SECOND, Err(&refuses)).len();
        }
        assert!(turns <= 10, "{turns} lines in ten minutes");
        assert_eq!(asks(5 * SECOND, Ok(())).len(), 1, "back is said once, whatever it was");
    }

    #[test]
    fn who_refuses_whom_and_why_is_said_by_both_sides_once_and_when_it_is_over() {
        let (mut presence, mut clock) = (Presence::default(), Instant::now());
        let mut asks = |lasting, apart: &[_]| asks(&mut presence, &mut clock, lasting, Ok(()), apart);
        let both = [
            (Apart::OtherLogThere, "it has log 1, this node remembers log 2"),
            (Apart::OtherLogHere, "by its own word"),
        ];
        let said = asks(300 * SECOND, &both);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("this node refuses node2.example (abababababababab): it has another log"),
            "{said:?}"
        );
        assert!(said[0].contains("(it has log 1, this node remembers log 2)"), "{said:?}");
        assert!(said[1].starts_with("node2.example (abababababababab) refuses this node: it remembers"), "{said:?}");
        assert_eq!(asks(300 * SECOND, &both[..1]), ["node2.example (abababababababab) refuses this node no more"]);
        assert_eq!(asks(600 * SECOND, &both[..1]).len(), 1, "what lasts is said again");
        assert_eq!(asks(5 * SECOND, &[]), ["this node refuses node2.example (abababababababab) no more"]);
    }
}
