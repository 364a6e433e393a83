//! What the nodes of the alliance tell each other beside their groups' affairs: which charters there are, and how each one's shards are. So
//! a new charter comes to all of them from the one that it was given to, and any node answers for every shard.
//!
//! One exchange: a question, an answer. A version byte, then deterministic CBOR:
//!
//! ```text
//! question = [0, report] / [1]           this is how I am, how are you? / your charters, please
//! answer   = [0, report] / [1, bytes charter chain]
//! report   = {0: uint newest charter, 1: [* group], 2?: [+ uint shard that this node gave up],
//!             3?: uint the highest rules version that the program knows}
//! group    = {0: uint shard, 1: uint charter in effect, 2?: node id leader, 3: uint term, 4: uint applied, 5: [* node id] voters,
//!             6: [* node id] learners, 7: bool faulted, 8?: text what is being done to move it,
//!             9?: uint rules version in force}
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use certs::{ChannelError, Exchange, Lane};
use ehe::cbor::{self, CborError};
use ehe::charter::{CHAIN_MAX_BYTES, CharterChain, RULES_FIRST};
use ehe::id::NodeId;
use minicbor::{Decode, Encode};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::link::next_frame;
use super::{Kind, Reach, cosign_with, tell_evidence};
use crate::charters::Charters;
use crate::checkpoint::{Board, Outbound};
use crate::consensus::{Consensus, GroupId, LinkError};
use crate::evidence::Keeper;
use crate::node::node_id;
use crate::placement::{Progress, Said};

/// Nodes tell each other how they are after this time, and when a charter has come.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Largest report: 1,024 shards with some 200 bytes each.
const REPORT_MAX_BYTES: usize = 256 * 1024;
/// Question and answer are here within this time.
const WITHIN: Duration = Duration::from_secs(10);
/// Charters may be many.
const CHARTERS_WITHIN: Duration = Duration::from_secs(60);
/// Who is up has been heard of after this time.
const HEARD_WITHIN: Duration = Duration::from_secs(30);
/// While a log waits to be begun.
const ASK_SOON: Duration = Duration::from_millis(250);
const VERSION: u8 = 1;

/// How a shard is, as one of its nodes says.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupReport {
    /// The shard.
    #[n(0)]
    pub shard: u16,
    /// Version of the charter that is in effect in it.
    #[n(1)]
    pub charter: u32,
    /// Who leads it.
    #[n(2)]
    pub leader: Option<NodeId>,
    /// Its term.
    #[n(3)]
    pub term: u64,
    /// Blocks applied.
    #[n(4)]
    pub applied: u64,
    /// Who votes.
    #[n(5)]
    pub voters: Vec<NodeId>,
    /// Who has the log without a vote.
    #[n(6)]
    pub learners: Vec<NodeId>,
    /// A fault stopped it there.
    #[n(7)]
    pub faulted: bool,
    /// What is being done to move it, by the node that leads it.
    #[n(8)]
    pub doing: Option<String>,
    /// The rules version in force in it; absent: the first.
    #[n(9)]
    pub rules: Option<u16>,
}

/// How a node is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    /// Version of the newest charter that it knows.
    #[n(0)]
    pub charter: u32,
    /// The shards in which it has a part.
    #[n(1)]
    pub groups: Vec<GroupReport>,
    /// Those that it had and gave up: a log of theirs was begun, though this node has nothing of it now. `None`: there are none.
    #[n(2)]
    pub gave_up: Option<Vec<u16>>,
    /// The highest rules version that its program knows; absent: the first.
    #[n(3)]
    pub knows: Option<u16>,
}

impl Report {
    /// The highest rules version that its program knows.
    pub fn knows(&self) -> u16 {
        self.knows.unwrap_or(RULES_FIRST)
    }

    /// Whether it tells that a shard's log was begun, wherever that log is now.
    pub fn tells_of(&self, shard: u16) -> bool {
        self.groups.iter().any(|group| group.shard == shard)
            || self.gave_up.as_ref().is_some_and(|shards| shards.contains(&shard))
    }
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
enum Question {
    #[n(0)]
    Report(#[n(0)] Report),
    #[n(1)]
    Charters,
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
enum Answer {
    #[n(0)]
    Report(#[n(0)] Report),
    #[n(1)]
    Charters(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

fn encoded<T: Encode<()>>(said: &T) -> Vec<u8> {
    [&[VERSION][..], &cbor::to_vec(said)].concat()
}

fn decoded<T: Encode<()> + for<'b> Decode<'b, ()>>(frame: &[u8], max: usize) -> Result<T, AllianceError> {
    match frame.split_first() {
        Some((&VERSION, said)) => Ok(cbor::from_slice(said, max)?),
        _ => Err(AllianceError::Version),
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AllianceError {
    /// The channel, or the node at its other end.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// A frame did not come.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Nothing came.
    #[error("the node said nothing")]
    Silent,
    /// Another version of these messages.
    #[error("not a message of version {VERSION}; the node there runs another version of this program")]
    Version,
    /// No message.
    #[error("not a message about the alliance: {0}")]
    Cbor(#[from] CborError),
    /// Its charters are not taken up.
    #[error(transparent)]
    Charters(#[from] crate::charters::CharterFault),
    /// The answer to another question.
    #[error("an answer to another question")]
    OtherQuestion,
    /// This node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// What this node knows of the others, and they of it.
#[derive(Debug)]
pub struct Alliance {
    charters: Charters,
    consensus: Consensus,
    board: Arc<Board>,
    progress: Progress,
    heard: Mutex<BTreeMap<NodeId, (Instant, Report)>>,
    told: Notify,
    waiting: AtomicBool,
    knows: u16,
    since: Instant,
}

impl Alliance {
    /// Of nobody anything yet. This node's program `knows` the rules up to this version.
    pub fn new(charters: Charters, consensus: Consensus, board: Arc<Board>, progress: Progress, knows: u16) -> Self {
        Self {
            charters,
            consensus,
            board,
            progress,
            heard: Mutex::default(),
            told: Notify::new(),
            waiting: AtomicBool::new(false),
            knows,
            since: Instant::now(),
        }
    }

    /// How this node is.
    pub fn own(&self) -> Report {
        let groups = self.consensus.groups().filter_map(|group| self.group(group));
        let given_up = |group: &GroupId| self.consensus.left_under(*group).is_some();
        let gave_up: Vec<u16> = self.consensus.groups().filter(given_up).map(|group| group.0).collect();
        Report {
            charter: self.charters.version(),
            groups: groups.collect(),
            gave_up: (!gave_up.is_empty()).then_some(gave_up),
            knows: Some(self.knows),
        }
    }

    /// `None`: this node has no part in it.
    fn group(&self, group: GroupId) -> Option<GroupReport> {
        let status = self.consensus.status(group)?;
        let nodes = |nodes: &BTreeSet<crate::consensus::NodeId>| nodes.iter().copied().map(node_id).collect::<Vec<_>>();
        if status.voters.is_empty() {
            return None;
        }
        Some(GroupReport {
            shard: group.0,
            charter: self.board.in_effect(group.0).map_or(1, |now| now.charter.version()),
            leader: status.leader.map(node_id),
            term: status.term,
            applied: status.applied.map_or(0, |at| at.index.saturating_add(1)),
            voters: nodes(&status.voters),
            learners: nodes(&status.learners),
            faulted: status.fault.is_some(),
            doing: self.progress.of(group.0).map(|step| Said(&step).to_string()),
            rules: self.board.in_effect(group.0).map(|now| now.charter.rules()).filter(|rules| *rules > RULES_FIRST),
        })
    }

    /// What the nodes last said, and how long ago; this node's own word too, under `me`.
    pub fn reports(&self, me: NodeId) -> BTreeMap<NodeId, (Duration, Report)> {
        let heard = self.heard();
        let mut reports: BTreeMap<_, _> =
            heard.iter().map(|(node, (at, report))| (*node, (at.elapsed(), report.clone()))).collect();
        reports.insert(me, (Duration::ZERO, self.own()));
        reports
    }

    /// Those of these nodes whose programs do not know a rules version. Who was not heard of yet counts for a while like one that does not; then
    /// nobody waits for it any more: it may never come, and if it does, it finds out by itself.
    pub fn older_than(&self, rules: u16, nodes: BTreeSet<NodeId>, me: NodeId) -> BTreeSet<NodeId> {
        let (heard, waits) = (self.heard(), self.since.elapsed() < HEARD_WITHIN);
        let older = |node: &NodeId| match heard.get(node) {
            _ if *node == me => self.knows < rules,
            Some((_, report)) => report.knows() < rules,
            None => waits,
        };
        nodes.into_iter().filter(older).collect()
    }

    fn heard(&self) -> MutexGuard<'_, BTreeMap<NodeId, (Instant, Report)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who leads a shard by the word of its nodes: of those that say so, by the highest term.
    pub fn leader_of(&self, shard: u16) -> Option<NodeId> {
        let heard = self.heard();
        let groups = heard.values().flat_map(|(_, report)| &report.groups).filter(|group| group.shard == shard);
        groups.filter(|group| group.leader.is_some()).max_by_key(|group| (group.charter, group.term))?.leader
    }

    /// The charter under which a shard goes on without a node, if the one that leads it says so.
    pub fn goes_on_without(&self, shard: u16, node: NodeId) -> Option<u32> {
        let heard = self.heard();
        let led = heard.iter().flat_map(|(from, (_, report))| report.groups.iter().map(move |group| (from, group)));
        let led = led.filter(|(from, group)| group.shard == shard && group.leader == Some(**from));
        let (_, newest) = led.max_by_key(|(_, group)| (group.charter, group.term))?;
        let member = newest.voters.iter().chain(&newest.learners).any(|member| *member == node);
        (!member && newest.doing.is_none()).then_some(newest.charter)
    }

    fn hear(&self, from: NodeId, report: Report) {
        // Of a shard that there is not, nobody asks.
        self.heard().insert(from, (Instant::now(), report));
        self.told.notify_waiters();
    }

    /// Whether a log waits to be begun until the others have said that they have none: they are asked more often then.
    pub fn wait_to_begin(&self, waiting: bool) {
        self.waiting.store(waiting, Relaxed);
    }

    /// Returns when a node says how it is, or after a while.
    pub async fn told(&self) {
        drop(tokio::time::timeout(TELL_EVERY, self.told.notified()).await);
    }

    /// Of an alliance of very many shards a node opens those that it is given when it starts, and no others.
    fn say_what_is_not_open(&self, me: NodeId) {
        let open: BTreeSet<u16> = self.consensus.groups().map(|group| group.0).collect();
        let newest = self.charters.newest();
        let given: Vec<u16> = newest.shards_of(me).filter(|shard| !open.contains(shard)).collect();
        if !given.is_empty() {
            tracing::error!(
                version = newest.version(), shards = ?given,
                "the newest charter gives this node shards that it has not open: restart it, and it opens them"
            );
        }
    }

    /// Answers one question of a node.
    pub(super) async fn answer(&self, from: NodeId, exchange: &mut Exchange) -> Result<(), AllianceError> {
        let question =
            next_frame(&mut exchange.receiver, REPORT_MAX_BYTES, WITHIN).await?.ok_or(AllianceError::Silent)?;
        let (answer, within) = match decoded(&question, REPORT_MAX_BYTES)? {
            Question::Report(report) => {
                self.hear(from, report);
                (Answer::Report(self.own()), WITHIN)
            }
            Question::Charters => (Answer::Charters(self.charters.encoded()), CHARTERS_WITHIN),
        };
        exchange.send(&encoded(&answer), within).await?;
        exchange.finish()?;
        Ok(exchange.delivered(within).await?)
    }

    /// Tells a node how this one is, hears how that one is, and takes its charters if they are newer.
    async fn ask(&self, reach: &Reach, node: NodeId) -> Result<(), AllianceError> {
        let question = Question::Report(self.own());
        let Answer::Report(report) = asked(reach, node, &question, REPORT_MAX_BYTES, WITHIN).await? else {
            return Err(AllianceError::OtherQuestion);
        };
        let newer = report.charter > self.charters.version();
        self.hear(node, report);
        if !newer {
            return Ok(());
        }
        let max = CHAIN_MAX_BYTES.saturating_sub(64);
        let Answer::Charters(chain) = asked(reach, node, &Question::Charters, max, CHARTERS_WITHIN).await? else {
            return Err(AllianceError::OtherQuestion);
        };
        let charters = self.charters.clone();
        let taking = tokio::task::spawn_blocking(move || {
            let chain = CharterChain::decode(&chain).map_err(crate::charters::CharterFault::from)?;
            Ok::<_, AllianceError>(charters.take_up(&chain)?)
        });
        if taking.await.map_err(|_| AllianceError::Stopping)?? {
            tracing::info!(version = self.charters.version(), from = %node, "a newer charter came from another node");
        }
        Ok(())
    }

    /// Goes on asking a node until it is stopped.
    async fn keep_asking(&self, reach: &Reach, node: NodeId, stop: &CancellationToken) {
        loop {
            let known = self.charters.version();
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = self.ask(reach, node) => asked,
            };
            if let Err(why) = asked {
                tracing::debug!(%node, %why, "a node does not say how it is");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if self.waiting.load(Relaxed) { ASK_SOON } else { TELL_EVERY }) => {}
                () = self.charters.newer_than(known) => {}
            }
        }
    }
}

async fn asked(
    reach: &Reach,
    node: NodeId,
    question: &Question,
    max: usize,
    within: Duration,
) -> Result<Answer, AllianceError> {
    // Charters may be long; how a shard is should not wait behind them.
    let lane = if *question == Question::Charters { Lane::Bulk } else { Lane::Prompt };
    let mut exchange = reach.open(node, lane, Kind::Alliance).await?;
    exchange.send(&encoded(question), within).await?;
    exchange.finish()?;
    let answer = next_frame(&mut exchange.receiver, max, within).await?.ok_or(AllianceError::Silent)?;
    decoded(&answer, max)
}

/// Sees to it that every other node of the alliance is told what concerns it, those of later charters too, until it is stopped.
pub async fn attend(
    alliance: Arc<Alliance>,
    reach: Reach,
    me: NodeId,
    (outbound, evidence): (Outbound, Keeper),
    stop: CancellationToken,
) {
    let (mut attended, tasks) = (BTreeSet::new(), tokio_util::task::TaskTracker::new());
    loop {
        let known = alliance.charters.version();
        let others: BTreeSet<NodeId> =
            alliance.charters.nodes().iter().map(|node| node.id).filter(|id| *id != me).collect();
        alliance.board.admit(others.clone());
        alliance.say_what_is_not_open(me);
        for node in others {
            outbound.add(node);
            if attended.insert(node) {
                tasks.spawn(cosign_with(reach.clone(), node, outbound.clone(), stop.clone()));
                tasks.spawn(tell_evidence(reach.clone(), node, evidence.clone(), stop.clone()));
                let (alliance, reach, stop) = (Arc::clone(&alliance), reach.clone(), stop.clone());
                tasks.spawn(async move { alliance.keep_asking(&reach, node, &stop).await });
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = alliance.charters.newer_than(known) => {}
        }
    }
    tasks.close();
    tasks.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_tell_each_other_comes_back_and_nothing_else_is_taken() {
        let group = GroupReport {
            shard: 3,
            charter: 2,
            leader: Some(NodeId([1; 8])),
            term: 7,
            applied: 900,
            voters: vec![NodeId([1; 8]), NodeId([2; 8])],
            learners: vec![NodeId([3; 8])],
            faulted: false,
            doing: Some("waits".into()),
            rules: Some(2),
        };
        let question =
            Question::Report(Report { charter: 2, groups: vec![group], gave_up: Some(vec![4]), knows: Some(3) });
        let bytes = encoded(&question);
        assert_eq!(decoded::<Question>(&bytes, REPORT_MAX_BYTES).unwrap(), question);
        assert_eq!(encoded(&Question::Charters), [1, 0x81, 1]);
        for bad in [&[][..], &[2, 0x81, 1], &[1, 0x81, 2], &[1, 0x81, 1, 0], &bytes[..bytes.len() - 1]] {
            assert!(decoded::<Question>(bad, REPORT_MAX_BYTES).is_err(), "{bad:?}");
        }
        assert!(decoded::<Question>(&bytes, bytes.len() - 2).is_err(), "too long");
    }
}
