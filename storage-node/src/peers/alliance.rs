//! What the nodes of the alliance tell each other beside their groups' affairs: which charters there are, and how each one's shards are. So
//! a new charter comes to all of them from the one that it was given to, and any node answers for every shard.
//!
//! One exchange: a question, an answer. A version byte, then deterministic CBOR:
//!
//! ```text
//! question = [0, report]                 this is how I am, how are you?
//!          / [2, uint from]              your charters from this version on, please
//! answer   = [0, report]
//!          / [2, bytes charter chain]    as many of them as a frame of the wire holds; none at the end
//! report   = {0: uint newest charter, 1: [* group], 2?: [+ uint shard that this node gave up],
//!             3?: uint the highest rules version that the program knows}
//! group    = {0: uint shard, 1: uint charter in effect, 2?: node id leader, 3: uint term, 4: uint applied, 5: [* node id] voters,
//!             6: [* node id] learners, 7: bool faulted, 8?: text what is being done to move it,
//!             9?: uint rules version in force}
//! ```

mod charters;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use certs::{ChannelError, Exchange, Lane};
use ehe::cbor::{self, CborError};
use ehe::charter::{CharterError, RULES_FIRST};
use ehe::id::NodeId;
use ehe::limits::FRAME_MAX_BYTES;
use minicbor::{Decode, Encode};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::link::next_frame;
use super::presence::Presence;
use super::{Kind, Reach, cosign_with, tell_evidence};
use crate::charters::Charters;
use crate::checkpoint::{Board, Outbound};
use crate::consensus::{Consensus, GroupId, LinkError};
use crate::evidence::Keeper;
use crate::node::{node_id, raft_id};
use crate::placement::{Progress, Said};

/// Nodes tell each other how they are after this time, and when a charter has come.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Largest report: 1,024 shards with some 200 bytes each.
const REPORT_MAX_BYTES: usize = 256 * 1024;
/// Largest answer: what fits a frame of the wire, with charters.
const ANSWER_MAX_BYTES: usize = FRAME_MAX_BYTES;
/// Question and answer are here within this time.
const WITHIN: Duration = Duration::from_secs(10);
/// Charters may be many: all that a node has are here within this time.
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
    #[n(2)]
    Charters(#[n(0)] u32),
}

#[derive(Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(flat)]
enum Answer {
    #[n(0)]
    Report(#[n(0)] Report),
    #[n(2)]
    Charters(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// See [`Alliance::older_than`]: of a node that said so long ago which rules it knows; of one that said nothing, `waits`.
fn is_older(rules: u16, heard: Option<(Duration, u16)>, waits: bool) -> bool {
    heard.map_or(waits, |(ago, knows)| knows < rules && ago < HEARD_WITHIN)
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

/// A question or an answer of another node, encoded again as it was understood; `None`: it is neither.
pub fn reencoded(frame: &[u8]) -> Option<Vec<u8>> {
    let question = decoded::<Question>(frame, REPORT_MAX_BYTES).map(|question| encoded(&question));
    question.or_else(|_| decoded::<Answer>(frame, ANSWER_MAX_BYTES).map(|answer| encoded(&answer))).ok()
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
    /// What it shows as its charters are none, or not those that follow.
    #[error(transparent)]
    Shown(#[from] CharterError),
    /// Its charters are not taken up.
    #[error(transparent)]
    Charters(#[from] crate::charters::CharterFault),
    /// Charters that it said that it has are not among those that it shows.
    #[error("it says that it has charter {said}, and shows none after {shown}")]
    NotShown {
        /// The newest that it spoke of.
        said: u32,
        /// The newest that is here now.
        shown: u32,
    },
    /// They did not all come in time.
    #[error("its charters do not come to an end within {} s", CHARTERS_WITHIN.as_secs())]
    Endless,
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
    /// A chain of charters may be long: of one node at a time.
    gathering: Semaphore,
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
            gathering: Semaphore::new(1),
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

    /// Those of these nodes whose programs do not know a rules version. Who was not heard of yet counts for a while like one that does not. Who
    /// has been silent since, nobody waits for any more: it may never come, and if it does, it finds out by itself.
    pub fn older_than(&self, rules: u16, nodes: BTreeSet<NodeId>, me: NodeId) -> BTreeSet<NodeId> {
        let (heard, waits) = (self.heard(), self.since.elapsed() < HEARD_WITHIN);
        let older = |node: &NodeId| match heard.get(node) {
            _ if *node == me => self.knows < rules,
            heard => is_older(rules, heard.map(|(at, report)| (at.elapsed(), report.knows())), waits),
        };
        nodes.into_iter().filter(older).collect()
    }

    /// Whether a node's program knows a rules version, by its own word of a short time ago.
    pub fn knows_now(&self, rules: u16, node: NodeId) -> bool {
        let lately = |(at, report): &(Instant, Report)| at.elapsed() < HEARD_WITHIN && report.knows() >= rules;
        self.heard().get(&node).is_some_and(lately)
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

    /// What a node said counts no more: it was let go.
    pub fn forget(&self, node: NodeId) {
        self.heard().remove(&node);
    }

    fn hear(&self, from: NodeId, report: Report) {
        // Of a shard that there is not, nobody asks.
        let mut heard = self.heard();
        // What was on its way when it was let go would be believed for ever.
        if self.charters.node(from).is_none() {
            return;
        }
        heard.insert(from, (Instant::now(), report));
        drop(heard);
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
        let answer = match decoded(&question, REPORT_MAX_BYTES)? {
            Question::Report(report) => {
                self.hear(from, report);
                Answer::Report(self.own())
            }
            Question::Charters(from) => Answer::Charters(self.charters.piece(from)),
        };
        exchange.send(&encoded(&answer), WITHIN).await?;
        exchange.finish()?;
        Ok(exchange.delivered(WITHIN).await?)
    }

    /// Tells a node how this one is, and hears how that one is.
    async fn ask(&self, reach: &Reach, node: NodeId) -> Result<(), AllianceError> {
        let question = Question::Report(self.own());
        let Answer::Report(report) = asked(reach, node, &question, REPORT_MAX_BYTES).await? else {
            return Err(AllianceError::OtherQuestion);
        };
        self.hear(node, report);
        Ok(())
    }

    /// Goes on asking a node until it is stopped.
    async fn keep_asking(&self, reach: &Reach, node: NodeId, stop: &CancellationToken) {
        let mut presence = Presence::default();
        loop {
            let (known, began) = (self.charters.version(), Instant::now());
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = self.ask(reach, node) => asked,
            };
            if let Err(why) = &asked {
                tracing::debug!(%node, %why, "a node does not say how it is");
            }
            // Of who was let go there is nothing more to say.
            if let Some(entry) = self.charters.node(node) {
                let (at, apart) = ((began, Instant::now()), self.consensus.apart(raft_id(node)));
                presence.asked(at, asked.as_ref().copied(), apart).iter().for_each(|word| word.say(&entry));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(if self.waiting.load(Relaxed) { ASK_SOON } else { TELL_EVERY }) => {}
                () = self.charters.newer_than(known) => {}
            }
        }
    }
}

async fn asked(reach: &Reach, node: NodeId, question: &Question, max: usize) -> Result<Answer, AllianceError> {
    // Charters may be long; how a shard is should not wait behind them.
    let lane = if matches!(question, Question::Charters(_)) { Lane::Bulk } else { Lane::Prompt };
    let mut exchange = reach.open(node, lane, Kind::Alliance).await?;
    exchange.send(&encoded(question), WITHIN).await?;
    exchange.finish()?;
    let answer = next_frame(&mut exchange.receiver, max, WITHIN).await?.ok_or(AllianceError::Silent)?;
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
        let keeper = evidence.clone();
        // Nobody waits for the disk here.
        drop(tokio::task::spawn_blocking(move || keeper.charters_came()));
        for node in others {
            outbound.add(node);
            if attended.insert(node) {
                tasks.spawn(cosign_with(reach.clone(), node, outbound.clone(), stop.clone()));
                tasks.spawn(tell_evidence(reach.clone(), node, evidence.clone(), stop.clone()));
                let with = || (Arc::clone(&alliance), reach.clone(), stop.clone());
                let (alliance, reach, stop) = with();
                tasks.spawn(async move { alliance.keep_asking(&reach, node, &stop).await });
                let (alliance, reach, stop) = with();
                tasks.spawn(async move { alliance.keep_taking(&reach, node, &stop).await });
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
    fn a_node_that_does_not_know_the_rules_is_waited_for_as_long_as_it_says_so() {
        let second = Duration::from_secs(1);
        assert!(is_older(2, Some((second, 1)), false));
        assert!(!is_older(2, Some((second, 2)), true));
        assert!(!is_older(2, Some((HEARD_WITHIN, 1)), true), "it has been silent since");
        assert!(is_older(2, None, true) && !is_older(2, None, false));
    }

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
        assert_eq!(encoded(&Question::Charters(7)), [1, 0x82, 2, 7]);
        for bad in
            [&[][..], &[2, 0x82, 2, 7], &[1, 0x81, 2], &[1, 0x82, 1, 7], &[1, 0x82, 2, 7, 0], &bytes[..bytes.len() - 1]]
        {
            assert!(decoded::<Question>(bad, REPORT_MAX_BYTES).is_err(), "{bad:?}");
        }
        assert!(decoded::<Question>(&bytes, bytes.len() - 2).is_err(), "too long");
    }
}
