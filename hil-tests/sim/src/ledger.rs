//! What must be true whatever happens: kept while a run goes on, and held against what is left at its end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use ehe_node::consensus::{GroupId, NodeId, Position, sim::Word};

use crate::trace::Trace;

/// The checker. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    trace: Trace,
    groups: BTreeMap<GroupId, Order>,
    violations: Vec<String>,
    acknowledged: u64,
    reads: u64,
    /// The newest vote that each node gave away in a group: the term, and to whom.
    promises: BTreeMap<(u64, GroupId), (u64, NodeId)>,
}

/// What is known of the one order of a group.
#[derive(Debug, Default)]
struct Order {
    /// By index: the term, and the command.
    applied: BTreeMap<u64, (u64, Bytes)>,
    acknowledged: BTreeMap<u64, (u64, Bytes)>,
    /// Who led in a term.
    leaders: BTreeMap<u64, NodeId>,
}

/// The commands of a state, with their positions.
pub type State = Vec<(Position, Vec<u8>)>;

impl Ledger {
    pub fn new(trace: Trace) -> Self {
        let (groups, violations) = (BTreeMap::new(), Vec::new());
        let promises = BTreeMap::new();
        Self(Arc::new(Mutex::new(Inner { trace, groups, violations, acknowledged: 0, reads: 0, promises })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must not happen did.
    pub fn violated(&self, what: impl Into<String>) {
        let what = what.into();
        let mut inner = self.inner();
        inner.trace.say(format_args!("VIOLATION {what}"));
        inner.violations.push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// Commands that were acknowledged, and reads that were answered.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.acknowledged, inner.reads)
    }

    /// A replica applied a command: every replica applies the same one there, in this life and the next.
    pub fn applied(&self, node: u64, group: GroupId, position: Position, command: &Bytes) {
        let mut inner = self.inner();
        let order = inner.groups.entry(group).or_default();
        let found = order.applied.entry(position.index).or_insert((position.term, command.clone()));
        if *found != (position.term, command.clone()) {
            let what = format!(
                "node {node} applied {:?} at {position} of group {group}, where {:?} of term {} was applied before",
                command, found.1, found.0
            );
            drop(inner);
            self.violated(what);
        }
    }

    /// A node led in a term: nobody else did.
    pub fn led(&self, node: NodeId, group: GroupId, term: u64) {
        let mut inner = self.inner();
        let leader = *inner.groups.entry(group).or_default().leaders.entry(term).or_insert(node);
        if leader != node {
            drop(inner);
            self.violated(format!("nodes {leader} and {node} both led group {group} in term {term}"));
        }
    }

    /// Whether a majority has something of a group.
    pub fn has_begun(&self, group: GroupId) -> bool {
        self.inner().groups.get(&group).is_some_and(|order| !order.applied.is_empty())
    }

    /// A node says that a candidate has its vote, or what it finds of its votes when it begins a life: it gives one vote in a term, and
    /// forgets none that it gave.
    pub fn voted(&self, node: u64, group: GroupId, word: Word) {
        let mut inner = self.inner();
        let promise = inner.promises.get(&(node, group)).copied();
        let wrong = match (word, promise) {
            (Word::Promised { term, to }, Some((before, other))) if before == term && to != other => {
                Some(format!("node {node} gave its vote in term {term} of group {group} to {other} and to {to}"))
            }
            (Word::Promised { term, to }, _) => {
                let given = (term, to);
                inner.promises.insert((node, group), promise.filter(|(before, _)| *before > term).unwrap_or(given));
                None
            }
            (Word::Remembers { term: last, to: whose }, Some((term, to)))
                if last < term || (last == term && whose.is_some_and(|whose| whose != to)) =>
            {
                let found = format!("its vote of term {last} for {whose:?}");
                Some(format!(
                    "node {node} gave its vote in term {term} of group {group} to {to}, and comes back with {found}"
                ))
            }
            (Word::Remembers { .. }, _) => None,
        };
        drop(inner);
        if let Some(what) = wrong {
            self.violated(what);
        }
    }

    /// A node gets empty disks: what it gave away nobody counts on any more, once it is known for another.
    pub fn wiped(&self, node: u64) {
        self.inner().promises.retain(|(of, _), _| *of != node);
    }

    /// A client was told that its command is at a place for good.
    pub fn acknowledged(&self, group: GroupId, position: Position, command: Bytes) {
        let mut inner = self.inner();
        inner.acknowledged += 1;
        let order = inner.groups.entry(group).or_default();
        let there = order.applied.get(&position.index);
        let same = there.is_some_and(|there| *there == (position.term, command.clone()));
        let before = order.acknowledged.insert(position.index, (position.term, command.clone()));
        drop(inner);
        if !same {
            self.violated(format!("{command:?} was acknowledged at {position} of group {group} and not applied there"));
        }
        if let Some((term, other)) = before {
            self.violated(format!(
                "{other:?} of term {term} was acknowledged at {position} of group {group}, and {command:?}"
            ));
        }
    }

    /// Up to where a reader who asks now must see.
    pub fn floor(&self, group: GroupId) -> Option<u64> {
        let inner = self.inner();
        inner.groups.get(&group).and_then(|order| order.acknowledged.keys().next_back().copied())
    }

    /// A reader was told that everything up to `read` is all that it must see.
    pub fn read(&self, node: u64, group: GroupId, floor: Option<u64>, read: Position, applied: Option<u64>) {
        self.inner().reads += 1;
        if floor.is_some_and(|floor| read.index < floor) {
            self.violated(format!(
                "node {node} let a reader of group {group} see up to {read}, when {floor:?} was acknowledged before it asked"
            ));
        }
        if applied < Some(read.index) {
            self.violated(format!("node {node} has applied {applied:?} of group {group} and said that it has {read}"));
        }
    }

    /// At the end: everything acknowledged is there, at its place, once; what is there was applied; and all are alike.
    pub fn judge(&self, group: GroupId, states: &BTreeMap<u64, State>) {
        let mut found = Vec::new();
        let mut inner = self.inner();
        let order = inner.groups.entry(group).or_default();
        let Some((first, reference)) = states.first_key_value() else { return };
        for (node, state) in states {
            if state != reference {
                found.push(format!("the states of nodes {first} and {node} of group {group} differ"));
            }
            if !state.windows(2).all(|pair| pair[0].0.index < pair[1].0.index && pair[0].0.term <= pair[1].0.term) {
                found.push(format!("the state of node {node} of group {group} is out of order"));
            }
        }
        let by_index: BTreeMap<u64, (u64, &[u8])> =
            reference.iter().map(|(at, command)| (at.index, (at.term, &command[..]))).collect();
        for (index, (term, command)) in &order.acknowledged {
            if by_index.get(index) != Some(&(*term, &command[..])) {
                found.push(format!("{command:?} was acknowledged at {term}.{index} of group {group} and is lost"));
            }
        }
        for (index, (term, command)) in &order.applied {
            if by_index.get(index) != Some(&(*term, &command[..])) {
                found.push(format!("{command:?} was applied at {term}.{index} of group {group} and is gone"));
            }
        }
        let mut commands: Vec<&Vec<u8>> = reference.iter().map(|(_, command)| command).collect();
        commands.sort();
        if let Some(pair) = commands.windows(2).find(|pair| pair[0] == pair[1]) {
            found.push(format!("{:?} is twice in group {group}", String::from_utf8_lossy(pair[0])));
        }
        drop(inner);
        found.into_iter().for_each(|what| self.violated(what));
    }
}
