//! What is asked of a peer's words before openraft hears them.
//!
//! openraft trusts its peers: some of what follows is an assertion there, and stops the group's core; some would put entries
//! into the log that its order of (term, index) does not allow. Nothing honest fails here, but for a term that a liar made grow
//! ([`leaps`]).
//!
//! What is not asked, because Raft has no proof of it: whether who says that it was elected, was. A member that lies can name a higher
//! term and call itself its leader, to some or to all, as often as it likes; each time they follow it, and it may delay, censor, or fall
//! silent, for as long as it is a member. So one node alone *can* stop a group. What it cannot: have acknowledged what a majority does not
//! have on disk, take back what is known here to be committed (`Order` below), make itself the group (the memberships that it orders are
//! judged by the charters, [`Consensus::judge_members`](crate::consensus::Consensus::judge_members)), or tell two stories unseen: that is the affair of checkpoints and
//! cosignatures. Against the rest the members take it out of the charter.

use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};

use super::codec::{Answer, Header, Request};
use crate::consensus::{
    leaps,
    log::group::GroupLog,
    types::{LogId, Types, Vote},
};

/// What a peer said cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsound {
    #[error("it speaks for node {0:016x}")]
    NotItsVote(u64),
    #[error("a leader's vote that is not committed, or a candidate's that is")]
    Committed,
    #[error("term {term}, {known} is known here")]
    Leap { term: u64, known: u64 },
    #[error("an entry of a later term than its leader's")]
    BeyondVote,
    #[error("terms that fall along the log, or contradict what is known of it")]
    Order,
    #[error("entries in a heartbeat")]
    Entries,
    #[error("a request for another node")]
    OtherNode,
    #[error("a membership from behind the end of its snapshot")]
    Membership,
    #[error("an answer to another question")]
    OtherQuestion,
    #[error("an answer that no log gives")]
    Answer,
}

/// What this node knows when it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// The vote that is on disk.
    pub(super) vote: Option<Vote>,
    /// The last entry known to be committed.
    pub(super) committed: Option<LogId>,
    /// How many terms were refused.
    pub(super) refused: u64,
}

impl Known {
    pub(super) fn of(log: &GroupLog) -> Self {
        let (vote, committed) = log.known();
        Self { vote, committed, refused: log.leaps.refused(term_of(vote)) }
    }

    fn term(&self) -> u64 {
        term_of(self.vote)
    }

    /// Whether a leader with this vote will be followed; if not, openraft says so, and its log is not looked at.
    fn follows(&self, vote: &Vote) -> bool {
        self.vote.is_none_or(|own| (own.leader_id.term, own.committed) <= (vote.leader_id.term, vote.committed))
    }
}

fn term_of(vote: Option<Vote>) -> u64 {
    vote.map_or(0, |vote| vote.leader_id.term)
}

/// Remembers a term that was refused, for the next one.
pub(super) fn noted<T>(log: &GroupLog, checked: Result<T, Unsound>) -> Result<T, Unsound> {
    checked.inspect_err(|why| {
        if matches!(why, Unsound::Leap { .. }) {
            log.leaps.refuse();
        }
    })
}

/// What one leader's log was seen to hold: its greatest entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    vote: Option<Vote>,
    greatest: Option<LogId>,
}

fn place(id: &LogId) -> (u64, u64) {
    (id.committed_leader_id().term, id.index())
}

/// Whether two entries can be in one log: along it, terms do not fall, and one index has one term.
pub(super) fn in_one_log(a: &LogId, b: &LogId) -> bool {
    let ((a_term, a_index), (b_term, b_index)) = (place(a), place(b));
    (a_index > b_index || a_term <= b_term) && (b_index > a_index || b_term <= a_term)
}

/// A vote of a leader, from whom it should come.
pub(super) fn leader(peer: u64, known: &Known, vote: &Vote) -> Result<(), Unsound> {
    from(peer, known, vote, true)
}

fn from(peer: u64, known: &Known, vote: &Vote, committed: bool) -> Result<(), Unsound> {
    if vote.leader_id.voted_for != peer {
        return Err(Unsound::NotItsVote(vote.leader_id.voted_for));
    }
    if vote.committed != committed {
        return Err(Unsound::Committed);
    }
    term(known, vote)
}

/// A vote that a peer reports, whoever's it is.
pub(super) fn term(known: &Known, vote: &Vote) -> Result<(), Unsound> {
    let term = vote.leader_id.term;
    let limit = leaps::limit(known.vote.map(|vote| vote.leader_id.term), known.refused);
    if term > limit { Err(Unsound::Leap { term, known: known.term() }) } else { Ok(()) }
}

impl Seen {
    /// Every id that a leader names is of its own log: so they must fit each other, its vote, and what is committed.
    fn fits<'a>(
        &mut self,
        known: &Known,
        vote: &Vote,
        ids: impl Iterator<Item = &'a LogId> + Clone,
    ) -> Result<(), Unsound> {
        if ids.clone().any(|id| place(id).0 > vote.leader_id.term) {
            return Err(Unsound::BeyondVote);
        }
        if !known.follows(vote) {
            return Ok(());
        }
        let before = if self.vote.as_ref() == Some(vote) { self.greatest } else { None };
        let fixed = [known.committed, before];
        let fits = |id: &LogId| fixed.iter().flatten().all(|fixed| in_one_log(fixed, id));
        if !ids.clone().all(fits) {
            return Err(Unsound::Order);
        }
        self.vote = Some(*vote);
        self.greatest = ids.copied().chain(before).max_by_key(LogId::index);
        Ok(())
    }

    /// Entries, or a heartbeat.
    pub(super) fn append(
        &mut self,
        peer: u64,
        known: &Known,
        request: &AppendEntriesRequest<Types>,
    ) -> Result<(), Unsound> {
        leader(peer, known, &request.vote)?;
        let chain = request.prev_log_id.iter().chain(request.entries.iter().map(|entry| &entry.log_id));
        if !chain.clone().is_sorted_by_key(|id| place(id).0) {
            return Err(Unsound::Order);
        }
        let ends = [chain.clone().next(), chain.clone().last()];
        if let Some(commit) = &request.leader_commit
            && !ends.iter().flatten().all(|end| in_one_log(commit, end))
        {
            return Err(Unsound::Order);
        }
        self.fits(known, &request.vote, chain.chain(request.leader_commit.iter()))
    }

    /// A snapshot that is about to be installed.
    pub(super) fn snapshot(&mut self, peer: u64, known: &Known, header: &Header) -> Result<(), Unsound> {
        leader(peer, known, &header.vote)?;
        let last = header.meta.last_log_id;
        if header.meta.last_membership.log_id().as_ref().map(LogId::index) > last.as_ref().map(LogId::index) {
            return Err(Unsound::Membership);
        }
        self.fits(
            known,
            &header.vote,
            header.meta.last_log_id.iter().chain(header.meta.last_membership.log_id().iter()),
        )
    }
}

/// A request, from whom it should come.
pub(super) fn request(peer: u64, known: &Known, request: &Request) -> Result<(), Unsound> {
    match request {
        Request::Vote(vote) | Request::PreVote(vote) => {
            from(peer, known, &vote.vote, false)?;
            let beyond = vote.last_log_id.is_some_and(|last| place(&last).0 > vote.vote.leader_id.term);
            if beyond { Err(Unsound::BeyondVote) } else { Ok(()) }
        }
        // All voters are told who is to stand for election: the others will listen to it.
        Request::Transfer(transfer) => from(peer, known, transfer.from_leader(), true),
        Request::ReadIndex => Ok(()),
    }
}

/// Whether an answer is one to `request`, as far as a leader's progress and a candidate's term depend on it.
pub(super) fn answer(known: &Known, request: &Request, answer: &Answer) -> Result<(), Unsound> {
    match (request, answer) {
        (Request::Vote(_) | Request::PreVote(_), Answer::Vote(answer)) => term(known, &answer.vote),
        (Request::Transfer(_), Answer::Transferring | Answer::OtherVote { .. } | Answer::NotFlushed { .. })
        | (Request::ReadIndex, Answer::ReadIndex(_) | Answer::NotLeader(_)) => Ok(()),
        _ => Err(Unsound::OtherQuestion),
    }
}

/// What was asked in one append, to hold the answer against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) vote: Vote,
    pub(super) prev: Option<LogId>,
    pub(super) last: Option<LogId>,
}

impl Asked {
    pub(super) fn of(request: &AppendEntriesRequest<Types>) -> Self {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        Self { vote: request.vote, prev: request.prev_log_id, last }
    }

    /// A follower that has taken what it was sent says how far that went, and no other number: a greater one would count as a
    /// copy of entries that it does not have.
    pub(super) fn answered(&self, known: &Known, result: &StreamAppendResult<Types>) -> Result<(), Unsound> {
        let sound = match result {
            Ok(matched) => *matched == self.last,
            Err(StreamAppendError::Conflict(at)) => Some(*at) == self.prev,
            // In one term there is one leader.
            Err(StreamAppendError::HigherVote(vote)) => {
                term(known, vote)?;
                vote.leader_id.term > self.vote.leader_id.term
            }
        };
        if sound { Ok(()) } else { Err(Unsound::Answer) }
    }
}
