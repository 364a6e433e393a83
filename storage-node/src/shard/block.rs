//! The block: what goes through consensus as one log entry, and what applying it answers. All forms are deterministic CBOR.

use minicbor::{Decode, Encode};

use ehe::cbor::{self, CborError};
use ehe::charter::{RULES_FIRST, SignedCharter};
use ehe::id::NodeId;
use ehe::identity::PublicIdentity;
use ehe::limits;
use ehe::read::SignedRequest;
use ehe::refusal::Refusal;
use ehe::time::UnixMs;
use ehe::void::RULES_VOID;
use ehe::wire::Submission;

use super::charters::CharterEntry;
use super::void::FalseRun;

/// Version of the encoding.
const VERSION: u8 = 1;
/// Commands in one block.
pub(super) const BLOCK_COMMANDS_MAX: usize = 1024;
/// Bytes of commands in one block; one command fits in any case.
pub(super) const BLOCK_MAX_BYTES: usize = 4 * limits::FRAME_MAX_BYTES;
/// What a block's members and frames may add to its commands.
const BLOCK_FRAME_BYTES: usize = 64 * 1024;

/// One entry of a shard's replicated log.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Block {
    #[n(0)]
    version: u8,
    /// The rules version that was in force when it was written. Applied is it by the one in force where it stands: only a committed charter
    /// raises that, so that a rolling upgrade cannot split the replicas, and a block that claims a higher one changes nothing. Which refusal
    /// is kept is part of the rules too. Until the first release, 1 means what the newest commit does.
    #[n(1)]
    pub rules: u16,
    /// The ordering party's time; the ledger's is never earlier than that of the block before.
    #[n(2)]
    pub time: UnixMs,
    /// In the order in which they are applied.
    #[n(3)]
    pub commands: Vec<Command>,
}

/// What a block can order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub(super) enum Command {
    /// Append a run.
    #[n(1)]
    Submit(#[n(0)] Submission),
    /// Decide a read request, and record it; the node that may release what it grants.
    #[n(2)]
    Read(#[n(0)] SignedRequest, #[n(1)] PublicIdentity, #[n(2)] NodeId),
    /// Take up the next charter in this shard, or note who vouched for the one in effect.
    #[n(3)]
    Charter(#[n(0)] CharterEntry),
    /// Void a run that its author did not sign. From rules version 2 on.
    #[n(4)]
    Void(#[n(0)] FalseRun),
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
pub enum Outcome {
    /// The run is in the log.
    #[n(1)]
    Submitted {
        /// Where.
        #[n(0)]
        log_index: u64,
        /// Control events that the room has after it.
        #[n(1)]
        control_seq: u64,
    },
    /// Some of its events are in the log already, by the runs at these places.
    #[n(2)]
    Known(#[n(0)] Vec<u64>),
    /// Refused.
    #[n(3)]
    Refused(#[n(0)] Refusal),
    /// The request is granted.
    #[n(4)]
    Granted {
        /// Where its access record is; none where the request needs none.
        #[n(0)]
        record: Option<u64>,
    },
    /// This charter is in effect after the entry, whether the entry changed that or not.
    #[n(7)]
    Charter {
        /// Its version; 0 while the log says nothing of charters.
        #[n(0)]
        version: u32,
        /// Nobody has to vouch for it any more.
        #[n(1)]
        vouched: bool,
    },
    /// The run is void now.
    #[n(8)]
    Voided {
        /// Where its record is; none where nothing changed: it may not be void, or was already.
        #[n(0)]
        record: Option<u64>,
    },
}

impl Block {
    /// A block of commands, written while this rules version is in force.
    pub(super) fn new(time: UnixMs, rules: u16, commands: Vec<Command>) -> Self {
        Self { version: VERSION, rules, time, commands }
    }

    /// The highest rules version that a charter in it would put in force.
    pub(super) fn raises_to(&self) -> Option<u16> {
        let raised = self.commands.iter().filter_map(|command| match command {
            Command::Charter(entry) if entry.vouched.is_none() => {
                Some(SignedCharter::decode(&entry.signed).ok()?.read().ok()?.rules())
            }
            _ => None,
        });
        raised.max()
    }

    /// Encodes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        cbor::to_vec(self)
    }

    /// Decodes. An error means that the ordering party is faulty or of another version.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, CborError> {
        let block: Self = cbor::from_slice(bytes, BLOCK_MAX_BYTES + limits::FRAME_MAX_BYTES + BLOCK_FRAME_BYTES)?;
        let void = |command: &Command| matches!(command, Command::Void(_));
        // A program that knows no later rules would not know the command.
        let early = block.rules < RULES_VOID && block.commands.iter().any(void);
        if block.version != VERSION || block.commands.len() > BLOCK_COMMANDS_MAX || early {
            return Err(CborError::Shape("not a block of this version".into()));
        }
        Ok(block)
    }
}

/// What blocks of all rules versions begin with, whatever their commands are. A program reads it where it does not know the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Beginning {
    pub rules: u16,
    pub time: UnixMs,
}

impl Beginning {
    /// Of bytes that begin like a block's.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut d = minicbor::Decoder::new(bytes);
        let members = d.map().ok()??;
        let member = |d: &mut minicbor::Decoder<'_>, key: u8| (d.u8().ok()? == key).then_some(());
        member(&mut d, 0)?;
        let version = d.u8().ok()?;
        member(&mut d, 1)?;
        let rules = d.u16().ok()?;
        member(&mut d, 2)?;
        let time = d.decode().ok()?;
        (version == VERSION && members >= 3).then_some(Self { rules, time })
    }
}

/// An encoded block of runs alone, as the ordering party proposes it: for programs that measure a [`ShardMachine`](super::ShardMachine).
pub fn block_of_runs(time: UnixMs, runs: Vec<Submission>) -> Vec<u8> {
    Block::new(time, RULES_FIRST, runs.into_iter().map(Command::Submit).collect()).to_vec()
}

/// What became of the runs of such a block, from the answer to it.
pub fn outcomes_of_runs(answer: &[u8]) -> Result<Vec<Outcome>, CborError> {
    decode_outcomes(answer)
}

/// What is wrong with an encoded block; none: it is one of this version.
pub(crate) fn block_fault(bytes: &[u8]) -> Option<String> {
    Block::decode(bytes).err().map(|why| format!("it is no block ({why})"))
}

/// Encodes the outcomes of one block.
pub(super) fn encode_outcomes(outcomes: &Vec<Outcome>) -> Vec<u8> {
    cbor::to_vec(outcomes)
}

/// Decodes the outcomes of one block.
pub(super) fn decode_outcomes(bytes: &[u8]) -> Result<Vec<Outcome>, CborError> {
    cbor::from_slice(bytes, BLOCK_MAX_BYTES)
}
