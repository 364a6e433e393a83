//! What can go wrong, whose affair it is, and which exit code says so.

use std::path::PathBuf;
use std::time::Duration;

use certs::charters::ExtensionError;
use certs::{ChannelError, FileError, Role};
use ehe::evidence::EvidenceError;
use ehe::id::{AllianceId, EheId, RoomId};
use ehe::leaf::ReceiptError;
use ehe::ledger::LedgerError;
use ehe::recovery::RecoveryKeyError;
use ehe::refusal::{Fault, Refusal};
use ehe::restoration::{MovedError, RestorationError};
use ehe::sign::SignedError;

use crate::build::BuildError;
use crate::keys::KeyError;
use crate::memory::MemoryError;
use crate::scope::NotCovered;

/// How the program ends; the numbers are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Something failed: a file, the network, a node.
    Failed = 1,
    /// The command line asks for something that cannot be.
    Usage = 2,
    /// The rights do not allow it.
    Refused = 3,
    /// Something that was shown does not verify, does not open, or is less than was seen before.
    Unverified = 4,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unverified => 4,
        }
    }
}

/// Why a command did not do what it was asked to. Each text says what happened and, where there is something, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials directory.
    #[error("credentials: {0}")]
    Credentials(#[from] certs::store::StoreError),
    /// Making an identity.
    #[error("{0}")]
    Enrol(#[from] certs::enrol::EnrolError),
    /// A file.
    #[error("{0}")]
    File(#[from] FileError),
    /// A file of the rooms' memory.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The memory of a room is not readable.
    #[error("{} is not the memory of a room ({why}); without it a rollback by a node cannot be noticed: restore it, or remove it to start anew", .path.display())]
    MemoryFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Printing.
    #[error("cannot print: {0}")]
    Print(#[source] std::io::Error),
    /// A recovery key that was made could not be shown, so nothing was committed to it.
    #[error("cannot show the recovery key on standard error: {0}; nothing was changed: name a file by --recovery-out")]
    Untold(#[source] std::io::Error),
    /// The network socket.
    #[error("network: {0}")]
    Network(#[source] ChannelError),
    /// A stream of answers broke off.
    #[error("the connection to node {node} broke off: {why}; run the command again")]
    BrokeOff {
        /// Name of the node.
        node: String,
        /// What happened.
        why: String,
    },
    /// No node of the room's group answered.
    #[error("no node could answer{}: {}", within(*.waited), .why.join("; "))]
    NoNode {
        /// What happened at each.
        why: Vec<String>,
        /// How long the nodes were tried again and again, if they were.
        waited: Option<Duration>,
        /// Whether trying again later, with nothing changed, can help.
        later: bool,
        /// Whether any of them was sent the request. If not, nothing can have come of it.
        sent: bool,
    },
    /// One node did not answer what only it can say.
    #[error("{why}")]
    OneNode {
        /// What happened; it begins with the node's name.
        why: String,
        /// Whether trying again later, with nothing changed, can help.
        later: bool,
    },
    /// A node answered something that does not belong to the question.
    #[error("node {node} gave an answer that is not one to this request: {what}")]
    Protocol {
        /// Name of the node.
        node: String,
        /// What it was.
        what: String,
    },
    /// A node refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// No grant covers what was asked for, so nothing was asked of a node.
    #[error("refused: {0}")]
    NotCovered(#[from] NotCovered),
    /// What a node showed does not verify.
    #[error("verification failed: {0}")]
    Ledger(#[from] LedgerError),
    /// A receipt proves nothing.
    #[error("verification failed: {0}")]
    Receipt(#[from] ReceiptError),
    /// A node shows charters that are not those of the alliance, or not only those.
    #[error("verification failed: the charters that node {node} shows do not extend those here: {why}")]
    Charters {
        /// Name of the node.
        node: String,
        /// What is wrong with them.
        why: ExtensionError,
    },
    /// A checkpoint is under a charter that no node shows.
    #[error(
        "{}a checkpoint is under charter {version}, here is {own}, and no node shows charter {version}{}; get the alliance's \
         charter from a member, or run the command again when the nodes have it",
        if .silent.is_empty() { "verification failed: " } else { "" },
        if .silent.is_empty() { String::new() } else { format!(" ({})", .silent.join("; ")) }
    )]
    NoSuchCharter {
        /// What the checkpoint says.
        version: u32,
        /// The newest charter here.
        own: u32,
        /// What happened at the nodes that did not show theirs.
        silent: Vec<String>,
    },
    /// A node works under a charter that is not in force any more.
    #[error(
        "node {node} still runs under charter {theirs} of the alliance, charter {own} is in force: what it shows does not count. Tell \
         the node's operator to install the charter there (`ehe-certs install`) and to restart the node"
    )]
    OlderCharter {
        /// Name of the node.
        node: String,
        /// The node's charter.
        theirs: u32,
        /// The newest charter here.
        own: u32,
    },
    /// A file that is called evidence proves nothing.
    #[error("{} proves nothing: {why}", .path.display())]
    NoEvidence {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Box<EvidenceError>,
    },
    /// It is about another alliance than the one that was asked for.
    #[error("{} is about the nodes of another alliance: {found}, where {wanted} was asked for", .path.display())]
    OtherAlliance {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: AllianceId,
        /// Whose it is.
        found: AllianceId,
    },
    /// What was shown contradicts what was seen before, both are signed, and that is kept.
    #[error(
        "{why}. Both are signed: they are kept as evidence in {}, and `ehe verify --evidence` with that file says what it proves about \
         whom. Give it to the other hospitals", .file.display()
    )]
    Evident {
        /// What does not verify.
        why: Box<Error>,
        /// The evidence.
        file: PathBuf,
    },
    /// The log went back behind what was seen before.
    #[error("verification failed: {0}")]
    Memory(#[from] MemoryError),
    /// A record of a restored log that does not stand.
    #[error("verification failed: {0}")]
    Restoration(#[from] RestorationError),
    /// Records of restored logs do not lead to what is shown.
    #[error("verification failed: {0}")]
    Moved(#[from] MovedError),
    /// The room has no entry yet.
    #[error("verification failed: the node shows the room {0} without its first entry")]
    EmptyRoom(RoomId),
    /// A key that was given does not open.
    #[error("verification failed: {0}")]
    Key(#[from] KeyError),
    /// Our own run is not well formed.
    #[error("the run was not made: {0}")]
    OwnRun(#[from] SignedError),
    /// What was typed is no recovery key.
    #[error("{0}")]
    Recovery(#[from] RecoveryKeyError),
    /// A control event was not made.
    #[error("{0}")]
    Build(#[from] BuildError),
    /// More than one command holds in memory.
    #[error("more than {limit} {what} in one answer: narrow it with --from, --until or --vital")]
    TooMuch {
        /// What is counted.
        what: &'static str,
        /// Most of them.
        limit: usize,
    },
    /// The patient's keys changed; what has to follow broke off.
    #[error("{why}; the patient's keys HAVE changed: run `ehe authority resume` with the new ones to finish")]
    Unfinished {
        /// What happened.
        why: Box<Error>,
    },
    /// The patient's keys were to change, and whether they did could not be found out.
    #[error(
        "{why}; whether the patient's keys have changed could NOT be found out: keep the old keys and the new ones, and run \
         `ehe authority resume` with the new ones"
    )]
    InDoubt {
        /// What happened.
        why: Box<Error>,
    },
    /// A room was to get a recovery key, and whether it did could not be found out.
    #[error(
        "{why}; whether the room has the new recovery key could NOT be found out: `ehe authority show --key` with it tells"
    )]
    RecoveryInDoubt {
        /// What happened.
        why: Box<Error>,
    },
    /// A room was to be made, and whether it was could not be found out.
    #[error("{why}; whether room {room} was made could NOT be found out: `ehe rooms` tells")]
    RoomInDoubt {
        /// The room.
        room: RoomId,
        /// What happened.
        why: Box<Error>,
    },
    /// A room has a recovery key that was not given everything.
    #[error(
        "{why}; room {room} HAS the recovery key, which does not open all of the room's keys yet: run \
         `ehe authority set-recovery --room {room} --complete` to finish"
    )]
    RecoveryIncomplete {
        /// The room.
        room: RoomId,
        /// What happened.
        why: Box<Error>,
    },
    /// The room has the keys to rotate to already.
    #[error(
        "the patient's keys are those in {to} already: this rotation was done before. \
         `ehe --home {to} authority resume --room {room} --from {from}` finishes what may have broken off; use --home {to} from now on",
        to = .to.display(), from = .from.display()
    )]
    Rotated {
        /// The room.
        room: RoomId,
        /// The directory with the keys in force.
        to: PathBuf,
        /// The directory with those before.
        from: PathBuf,
    },
    /// The room has the keys of this directory already, by a recovery.
    #[error(
        "the patient's keys are those of this directory already: this recovery was done before. \
         `ehe authority resume --room {0} --key FILE`, with the recovery key that was used then, finishes what may have broken off"
    )]
    Recovered(RoomId),
    /// No room that the node shows has this recovery key.
    #[error(
        "refused: node {node} shows no room {room} to this recovery key: it has no such room, or this is not its recovery key. Check the \
         room's id; after a recovery the key that was made in it counts, and the one before no more"
    )]
    NotItsRecovery {
        /// Name of the node.
        node: String,
        /// The room.
        room: RoomId,
    },
    /// Keys that are not certified as a patient's.
    #[error(
        "refused: the certificate in {} is a {role}'s, and a room's keys are a patient's. Make them with \
         `ehe --home DIR identity new --role patient`, and have a certificate issued for that role", .dir.display()
    )]
    NotAPatient {
        /// The directory.
        dir: PathBuf,
        /// As what its certificate names it.
        role: Role,
    },
    /// Somebody who is to be invited is a node.
    #[error(
        "refused: these are the keys of {node}, a node of the alliance: nodes keep what they cannot open, and no room is opened to one. \
         Name the identity.pub of a person, or of a gateway"
    )]
    ANode {
        /// The node's name.
        node: String,
    },
    /// The credentials directory of other keys.
    #[error("{option} {}: {why}. It must be {must}", .dir.display())]
    Beside {
        /// The option that names it.
        option: &'static str,
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        why: Box<Error>,
        /// What it must be.
        must: String,
    },
    /// The events are known to the ledger, but by another run.
    #[error("the ledger holds event {0} already, by another run: fetch the control records and try again")]
    KnownElsewhere(EheId),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
}

fn within(waited: Option<Duration>) -> String {
    waited.map_or_else(String::new, |waited| format!(" within {} s (--timeout)", waited.as_secs()))
}

/// Whether what a command was to bring into the ledger stands there although the command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was never sent, or it was refused.
    Not,
    /// It stands there; what was to follow failed.
    Yes,
    /// An answer was lost, or does not verify.
    Unknown,
}

impl Error {
    /// Whether what was to be submitted stands in the ledger although this happened.
    pub fn made(&self) -> Made {
        match self {
            Self::Refused(refusal) if refusal.fault() != Fault::Node => Made::Not,
            Self::OwnRun(_) | Self::Build(_) | Self::Usage(_) | Self::NoNode { sent: false, .. } => Made::Not,
            Self::NotItsRecovery { .. } | Self::NotAPatient { .. } | Self::ANode { .. } => Made::Not,
            Self::Unfinished { .. } | Self::RecoveryIncomplete { .. } | Self::Rotated { .. } | Self::Recovered(_) => {
                Made::Yes
            }
            _ => Made::Unknown,
        }
    }

    /// Whether no node was sent the request: nothing can have come of it, and there is nothing to look for.
    pub fn never_sent(&self) -> bool {
        matches!(self, Self::NoNode { sent: false, .. })
    }

    /// This, of a request that another one came before: something was sent.
    pub fn after_another(self) -> Self {
        match self {
            Self::NoNode { why, waited, later, .. } => Self::NoNode { why, waited, later, sent: true },
            other => other,
        }
    }

    /// Whether the same may succeed later without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoNode { later, .. } | Self::OneNode { later, .. } => *later,
            Self::BrokeOff { .. } => true,
            Self::Refused(refusal) => refusal.fault() == Fault::Node,
            _ => false,
        }
    }

    /// What happened at a node, for a line that begins with the node's name already.
    pub fn at(&self, node: &str) -> String {
        let said = self.to_string();
        said.strip_prefix(&format!("{node}: ")).map(str::to_owned).unwrap_or(said)
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused(refusal) if refusal.fault() == Fault::Rights => Exit::Refused,
            Self::NotCovered(_) | Self::Rotated { .. } | Self::Recovered(_) => Exit::Refused,
            Self::NotItsRecovery { .. } | Self::NotAPatient { .. } | Self::ANode { .. } => Exit::Refused,
            Self::Build(
                BuildError::NotThePatient
                | BuildError::Refused(_)
                | BuildError::NotDelegated { .. }
                | BuildError::KnownKeys { .. }
                | BuildError::BeyondOwn { .. },
            ) => Exit::Refused,
            Self::Ledger(_)
            | Self::Receipt(_)
            | Self::Memory(_)
            | Self::Restoration(_)
            | Self::Moved(_)
            | Self::EmptyRoom(_)
            | Self::Charters { .. }
            | Self::NoEvidence { .. }
            | Self::OtherAlliance { .. }
            | Self::Evident { .. }
            | Self::Key(_)
            | Self::Build(BuildError::Key(_)) => Exit::Unverified,
            Self::NoSuchCharter { silent, .. } if silent.is_empty() => Exit::Unverified,
            Self::Usage(_) | Self::Recovery(_) | Self::Build(BuildError::Usage(_)) => Exit::Usage,
            Self::InDoubt { why } | Self::RecoveryInDoubt { why } | Self::RoomInDoubt { why, .. }
                if why.exit() == Exit::Unverified =>
            {
                Exit::Unverified
            }
            _ => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_rights_ends_with_3_and_one_for_another_reason_with_1() {
        assert_eq!(Error::Refused(Refusal::NotInvited).exit(), Exit::Refused);
        assert_eq!(Error::Refused(Refusal::GrantRevoked).exit(), Exit::Refused);
        assert_eq!(Error::Refused(Refusal::Overloaded).exit(), Exit::Failed);
        assert_eq!(Error::Refused(Refusal::RequestStale).exit(), Exit::Failed);
        assert_eq!(Error::Build(BuildError::NotThePatient).exit(), Exit::Refused);
        assert_eq!(Error::Ledger(LedgerError::OtherHead).exit(), Exit::Unverified);
        assert_eq!(Error::Usage("x".into()).exit(), Exit::Usage);
    }

    #[test]
    fn only_what_was_never_sent_or_finally_refused_is_known_not_to_be_made() {
        assert_eq!(Error::Refused(Refusal::ControlOutOfSequence).made(), Made::Not);
        assert_eq!(Error::Build(BuildError::NotThePatient).made(), Made::Not);
        let lost = || Error::NoNode { why: vec![], waited: None, later: true, sent: true };
        let never_sent = Error::NoNode { why: vec![], waited: None, later: true, sent: false };
        assert_eq!(never_sent.made(), Made::Not);
        let refused = || Box::new(Error::Refused(Refusal::LimitReached));
        for unknown in [
            lost(),
            Error::Refused(Refusal::NoLeader),
            Error::Refused(Refusal::StorageFault),
            Error::BrokeOff { node: "n".into(), why: "w".into() },
            Error::Protocol { node: "n".into(), what: "w".into() },
            Error::Receipt(ReceiptError::TooLarge),
            Error::KnownElsewhere(EheId::ZERO),
            Error::InDoubt { why: refused() },
            Error::RecoveryInDoubt { why: refused() },
            Error::RoomInDoubt { room: RoomId::ZERO, why: refused() },
        ] {
            assert_eq!(unknown.made(), Made::Unknown, "{unknown}");
        }
        assert_eq!(Error::Unfinished { why: refused() }.made(), Made::Yes);
        assert_eq!(Error::RecoveryIncomplete { room: RoomId::ZERO, why: refused() }.made(), Made::Yes);
    }
}
