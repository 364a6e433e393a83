//! Verifying a room whole, as its patient: every check by name, and which of them failed.

use std::collections::BTreeSet;

use ehe::id::RoomId;
use ehe::leaf::ReceiptError;
use ehe::ledger::{LedgerError, Verified};
use ehe::read::Part;

use crate::error::Error;
use crate::heads::{self, Newest};
use crate::memory::MemoryError;
use crate::scope;
use crate::session::{Session, Shown};

/// What is checked, in the order in which it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Each entry follows the one before it, and is the one that its leaf names.
    Chain,
    /// Every run and every read request is signed by whom it names.
    Signatures,
    /// Every event is well formed and the one that its run names.
    Events,
    /// No author's strand has a gap or goes two ways.
    Strands,
    /// Every run was allowed when it was accepted.
    Rules,
    /// Every access record holds its reader's signed request.
    Access,
    /// The last entry is in the checkpoint's tree.
    Inclusion,
    /// Enough members cosigned the checkpoint.
    Quorum,
    /// Nothing contradicts what this reader saw before.
    Memory,
    /// Enough members say now that there is nothing newer.
    Heads,
}

impl Check {
    /// Every check, in order.
    pub const ALL: &'static [Check] = &[
        Self::Chain,
        Self::Signatures,
        Self::Events,
        Self::Strands,
        Self::Rules,
        Self::Access,
        Self::Inclusion,
        Self::Quorum,
        Self::Memory,
        Self::Heads,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Signatures => "signatures",
            Self::Events => "events",
            Self::Strands => "strands",
            Self::Rules => "rules",
            Self::Access => "access",
            Self::Inclusion => "inclusion",
            Self::Quorum => "quorum",
            Self::Memory => "memory",
            Self::Heads => "heads",
        }
    }

    /// The check that an error belongs to; none for errors that are of no check (a file, the network).
    fn of(error: &Error) -> Option<Self> {
        Some(match error {
            Error::Ledger(why) => match why {
                LedgerError::Chain { .. }
                | LedgerError::TimeWentBack { .. }
                | LedgerError::ControlWithheld { .. }
                | LedgerError::Entry { .. }
                | LedgerError::OtherRoom { .. } => Self::Chain,
                LedgerError::Withheld { .. } => Self::Chain,
                LedgerError::Signature { .. } | LedgerError::Void { .. } | LedgerError::Unvoided { .. } => {
                    Self::Signatures
                }
                LedgerError::Event { .. } | LedgerError::NotInRun { .. } | LedgerError::ControlUnknown { .. } => {
                    Self::Events
                }
                LedgerError::Strand { .. } => Self::Strands,
                LedgerError::Rules { .. } => Self::Rules,
                LedgerError::Access { .. } => Self::Access,
                LedgerError::Head(ReceiptError::Checkpoint(_)) => Self::Quorum,
                LedgerError::Head(_) | LedgerError::OtherHead => Self::Inclusion,
                LedgerError::HeadSignature(_) | LedgerError::Nonce => Self::Quorum,
                LedgerError::WentBack { .. } => Self::Memory,
            },
            Error::Memory(_) => Self::Memory,
            Error::Evident { why, .. } => return Self::of(why),
            Error::Charters { .. } => Self::Quorum,
            Error::NoSuchCharter { silent, .. } if silent.is_empty() => Self::Quorum,
            Error::EmptyRoom(_) => Self::Rules,
            _ => return None,
        })
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; the text says for what.
    Holds(String),
    /// It holds for what was looked at before another check failed.
    HoldsSoFar,
    /// It fails.
    Fails(String),
    /// Not failed, and not shown either: what it would take was not at hand.
    NotShown(String),
    /// An earlier check failed.
    NotReached,
}

/// All checks with their outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order of [`Check::ALL`].
    pub checks: Vec<(Check, Outcome)>,
}

impl Report {
    /// Whether no check failed.
    pub fn holds(&self) -> bool {
        !self.checks.iter().any(|(_, outcome)| matches!(outcome, Outcome::Fails(_)))
    }

    fn failed(check: Check, error: &Error) -> Self {
        // Of a room that is not shown at all nothing was looked at.
        let looked = !matches!(error, Error::Memory(MemoryError::Gone { .. }));
        let outcome = |other: Check| match other {
            _ if other == check => Outcome::Fails(error.to_string()),
            _ if !looked => Outcome::NotReached,
            // Entries are checked one by one, each in all these ways, before the head is looked at.
            _ if other <= Check::Access => Outcome::HoldsSoFar,
            _ if other < check => Outcome::HoldsSoFar,
            _ => Outcome::NotReached,
        };
        Self { checks: Check::ALL.iter().map(|other| (*other, outcome(*other))).collect() }
    }
}

#[derive(Default)]
struct Counts {
    entries: u64,
    runs: u64,
    events: u64,
    /// Events of a version that this program does not know.
    unknown: u64,
    authors: BTreeSet<ehe::id::AuthorId>,
    accesses: u64,
    /// Void records.
    void: u64,
    first_void: Option<u64>,
}

/// Verifies a room whole. The error is of what prevented verifying; what did not verify is in the report.
pub async fn verify(session: &mut Session, room: RoomId) -> Result<Report, Error> {
    let mut following = session.following(room, true)?;
    let before = following.known().cloned();
    let purpose = session.usual_purpose();
    let mut counts = Counts::default();
    let followed = session
        .fetch(&mut following, &scope::everything(Part::Ledger), purpose, |shown, _| {
            if let Shown::Entry(_, verified) = shown {
                counts.entries += 1;
                match *verified {
                    Verified::Run { run, events, unknown } => {
                        counts.runs += 1;
                        counts.events += u64::try_from(events.len()).unwrap_or(u64::MAX);
                        counts.unknown += u64::try_from(unknown.len()).unwrap_or(u64::MAX);
                        counts.authors.insert(run.author);
                    }
                    Verified::Access(_) => counts.accesses += 1,
                    Verified::Void { index, .. } => {
                        counts.void += 1;
                        counts.first_void = counts.first_void.or(Some(index));
                    }
                    // The head is not confirmed before a void record says so.
                    Verified::Unsigned(_) | Verified::Skeleton => {}
                }
            }
            Ok(())
        })
        .await;
    if let Err(error) = followed {
        return match Check::of(&error) {
            Some(check) => Ok(Report::failed(check, &error)),
            None => Err(error),
        };
    }
    let heads = match heads::from_all(session, &following).await {
        Newest::Shown { nodes, members, needed } => Outcome::Holds(format!(
            "{nodes} nodes, of {members} members, say that there is nothing newer; needed: {needed} members"
        )),
        Newest::NotShown { members, needed, why, .. } => Outcome::NotShown(format!(
            "{members} of the {needed} members that are needed say that there is nothing newer ({})",
            why.join("; ")
        )),
        contradicted => Outcome::Fails(contradicted.complaint().unwrap_or_default()),
    };
    let checkpoint = following.confirmed().ok_or(Error::EmptyRoom(room))?;
    let log = checkpoint.checkpoint();
    let memory = match before {
        Some(_) if following.lost().is_some() => following.lost().unwrap_or_default().to_owned(),
        Some(known) => format!("extends the {} entries seen before", known.entries),
        None => "the first look at this room from here: remembered from now on".into(),
    };
    let Counts { entries, runs, events, unknown, authors, accesses, void, first_void } = counts;
    let holds = |check: Check| match check {
        Check::Chain => Outcome::Holds(format!("{entries} entries")),
        Check::Signatures => Outcome::Holds(match first_void {
            None => format!("{runs} runs, {accesses} read requests"),
            Some(first) => format!(
                "{runs} runs, {accesses} read requests; {void} more runs were not signed by those in whose name they are, the first of them entry \
                 {first}: the ledger says that they are void"
            ),
        }),
        Check::Events if unknown == 0 => Outcome::Holds(format!("{events} events")),
        // Signed and in the log; what they hold, and by what right, a newer program can say.
        Check::Events => Outcome::NotShown(format!(
            "{events} events are well formed; {unknown} are of a version that this program does not know: update it"
        )),
        Check::Strands => Outcome::Holds(format!("of {} authors", authors.len())),
        Check::Rules => Outcome::Holds(format!("{runs} runs")),
        Check::Access => Outcome::Holds(format!("{accesses} access records")),
        Check::Inclusion => Outcome::Holds(format!("in the log {} of {} leaves", log.origin, log.size)),
        Check::Quorum => Outcome::Holds(format!("{} nodes cosigned the checkpoint", checkpoint.cosigners().len())),
        Check::Memory => Outcome::Holds(memory.clone()),
        Check::Heads => heads.clone(),
    };
    Ok(Report { checks: Check::ALL.iter().map(|check| (*check, holds(*check))).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ehe::refusal::Refusal;

    #[test]
    fn a_failure_names_its_check_and_says_what_was_not_reached() {
        let error = Error::Ledger(LedgerError::Rules { index: 7, why: Refusal::NotInvited });
        let report = Report::failed(Check::of(&error).unwrap(), &error);
        assert!(!report.holds());
        let outcome = |check| report.checks.iter().find(|(c, _)| *c == check).map(|(_, o)| o.clone()).unwrap();
        assert!(matches!(outcome(Check::Rules), Outcome::Fails(why) if why.contains("entry 7")));
        assert_eq!(outcome(Check::Chain), Outcome::HoldsSoFar);
        assert_eq!(outcome(Check::Inclusion), Outcome::NotReached);
    }

    #[test]
    fn a_broken_network_is_no_failed_check() {
        assert_eq!(Check::of(&Error::NoNode { why: vec![], waited: None, later: true, sent: false }), None);
    }
}
