//! What the other nodes of a group said, until it makes a quorum, or shows that one of them signed another log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ehe::charter::{self, VerifiedCharter};
use ehe::checkpoint::Checkpoint;
use ehe::id::{MemberId, NodeId};
use ehe::note::{Note, NoteError};

use super::message::{Conflict, Cosignature, Point, Word};
use super::wish::{Place, place};
use crate::cosign::Cosigned;

/// Cosignatures of one node that are kept: of a leader's open wishes, and of those that this node asked for.
const OF_A_NODE_MAX: usize = 4;

/// A shard's group under the charter in effect; while the shard moves, with the group before.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) charter: Arc<VerifiedCharter>,
    /// Its members have to cosign too.
    pub(super) before: Option<Arc<VerifiedCharter>>,
    pub(super) shard: u16,
}

impl Group {
    /// Under the charter in effect, then the one before.
    fn charters(&self) -> impl Iterator<Item = &VerifiedCharter> {
        [Some(&self.charter), self.before.as_ref()].into_iter().flatten().map(Arc::as_ref)
    }

    pub(super) fn nodes(&self) -> BTreeSet<NodeId> {
        self.charters().flat_map(|charter| charter.group(self.shard)).copied().collect()
    }

    pub(super) fn has(&self, id: NodeId) -> bool {
        self.charters().any(|charter| charter.group(self.shard).contains(&id))
    }

    /// A node, if it is of the group.
    pub(super) fn node(&self, id: NodeId) -> Option<&charter::Node> {
        self.charters().find_map(|charter| charter.node(id)).filter(|_| self.has(id))
    }

    /// Whether a node may order: the charter in effect counts alone.
    pub(super) fn orders(&self, id: NodeId) -> bool {
        self.charter.group(self.shard).contains(&id)
    }

    /// Members that still have to cosign, beside those of these nodes: under the charter in effect, and under the one before.
    fn lacking(&self, cosigners: &[NodeId]) -> (usize, usize) {
        let lacking = |charter: &VerifiedCharter| {
            let group = charter.group(self.shard);
            let signed = cosigners.iter().filter(|id| group.contains(id)).filter_map(|id| charter.node(*id));
            let members: BTreeSet<MemberId> = signed.map(|node| node.member).collect();
            charter.quorum(self.shard).saturating_sub(members.len())
        };
        (lacking(&self.charter), self.before.as_ref().map_or(0, |before| lacking(before)))
    }

    pub(super) fn point(&self, at: &Cosigned) -> Point {
        let Cosigned { incarnation, size, root } = *at;
        Point { shard: self.shard, charter: self.charter.version(), incarnation, size, root }
    }

    /// The checkpoint of a point of this group's log.
    pub(super) fn checkpoint(&self, at: &Cosigned) -> Checkpoint {
        Checkpoint {
            origin: self.charter.origin(self.shard, at.incarnation),
            size: at.size,
            root: at.root,
            charter_version: self.charter.version(),
        }
    }

    /// The note that says that a node cosigned a point, if it did.
    pub(super) fn verified(&self, signer: NodeId, point: &Point, word: &Word) -> Result<Note, NoteError> {
        let mut note = self.checkpoint(&point.cosigned()).unsigned()?;
        let node = self.node(signer).ok_or(NoteError::Missing)?;
        note.add_cosignature(&node.name, &node.sign, word.time_s, &word.signature)?;
        Ok(note)
    }
}

#[derive(Debug, Clone)]
struct Said {
    what: Cosignature,
    heard: Duration,
    /// Its root is the one of this node's log. Whether the signature verifies shows when it is counted.
    agrees: bool,
}

/// A node's cosignature that this node's log contradicts. The signature verifies.
#[derive(Debug, Clone)]
pub(super) struct Liar {
    pub(super) point: Point,
    pub(super) word: Word,
    /// Both as a note, verified when it was found: its charter may be in effect no more when evidence is handed on.
    pub(super) note: Note,
    /// It came from the node itself: the others have not seen it for sure.
    pub(super) first_hand: bool,
    /// When it was found.
    pub(super) found: Duration,
    /// The others were told of it.
    pub(super) relayed: bool,
    /// Evidence was handed on.
    pub(super) told: bool,
    /// What it cosigned of this node's log, not smaller than what it lied about: it signed both.
    pub(super) both: Option<(Cosignature, Note)>,
    /// And so was evidence of that.
    pub(super) told_both: bool,
}

impl Liar {
    /// Whether there is something to hand on.
    pub(super) fn untold(&self) -> bool {
        !self.told || (self.both.is_some() && !self.told_both)
    }
}

/// What is left to be judged when this node's log has reached it.
pub(super) struct Unjudged {
    pub(super) signer: NodeId,
    pub(super) point: Point,
    pub(super) word: Word,
    /// Who told of it, if it was not the signer.
    pub(super) relayed_by: Option<NodeId>,
}

/// A quorum's note.
pub(super) struct Stands {
    pub(super) note: Note,
    pub(super) cosigners: Vec<NodeId>,
}

/// Why there is no note of a point.
pub(super) enum NoQuorum {
    /// Too few members, or no ordering party.
    Yet,
    /// A signature did not verify; what this node said of the point is forgotten. Ask again.
    BadSignature(NodeId),
    /// The text makes no note.
    Note(NoteError),
}

/// What was heard about a shard.
#[derive(Debug, Default)]
pub(super) struct Collected {
    said: BTreeMap<NodeId, Vec<Said>>,
    /// Of each peer the last conflict that it told of and that cannot be judged yet.
    relayed: BTreeMap<NodeId, Conflict>,
    liars: BTreeMap<NodeId, Liar>,
    /// Nodes of which evidence says that they signed two logs of an incarnation.
    distrusted: BTreeSet<(u32, NodeId)>,
}

impl Collected {
    /// A node of the group cosigned. Of those that one node said of one point the latest counts; of its points the largest.
    pub(super) fn hear(&mut self, signer: NodeId, what: Cosignature, heard: Duration) {
        // Of a liar it counts no more. It may show that it signed both logs.
        if self.liars.get(&signer).is_some_and(|liar| liar.both.is_some()) {
            return;
        }
        let said = self.said.entry(signer).or_default();
        let known = said.iter().position(|old| old.what.point == what.point);
        let agrees = match known.and_then(|at| said.get(at).map(|old| (at, old))) {
            // Late on its way.
            Some((_, old)) if old.what.word.time_s > what.word.time_s => return,
            Some((at, _)) => said.remove(at).agrees,
            None => false,
        };
        said.push(Said { what, heard, agrees });
        said.sort_by_key(|said| place(&said.what.point.cosigned()));
        if said.len() > OF_A_NODE_MAX {
            said.remove(0);
        }
    }

    /// A peer relays somebody's cosignature that contradicts its log.
    pub(super) fn relayed(&mut self, by: NodeId, conflict: Conflict) {
        self.relayed.insert(by, conflict);
    }

    /// Takes what can be judged by a log of this place: what is not known to agree. Of an earlier incarnation nothing is kept.
    pub(super) fn unjudged(&mut self, applied: Place) -> Vec<Unjudged> {
        let reached = |point: &Point| (point.incarnation, point.size) <= applied;
        let mut out = Vec::new();
        for (signer, said) in &mut self.said {
            said.retain(|said| said.what.point.incarnation >= applied.0);
            let ready = said.iter().filter(|said| !said.agrees && reached(&said.what.point));
            out.extend(ready.map(|said| Unjudged {
                signer: *signer,
                point: said.what.point,
                word: said.what.word,
                relayed_by: None,
            }));
        }
        let ready: Vec<_> = self.relayed.iter().filter(|(_, it)| reached(&it.point)).map(|(by, _)| *by).collect();
        for by in ready {
            let Some(Conflict { point, signer, word }) = self.relayed.remove(&by) else { continue };
            out.push(Unjudged { signer, point, word, relayed_by: Some(by) });
        }
        out
    }

    /// Its root is this log's.
    pub(super) fn agrees(&mut self, signer: NodeId, point: &Point) {
        let said = self.said.get_mut(&signer).into_iter().flatten();
        said.filter(|said| said.what.point == *point).for_each(|said| said.agrees = true);
    }

    /// Forgets what was said under charters before this version.
    pub(super) fn under(&mut self, version: u32) {
        self.said.values_mut().for_each(|said| said.retain(|said| said.what.point.charter >= version));
        self.relayed.retain(|_, conflict| conflict.point.charter >= version);
    }

    /// Forgets one node's word about a point.
    pub(super) fn forget(&mut self, signer: NodeId, point: &Point) {
        if let Some(said) = self.said.get_mut(&signer) {
            said.retain(|said| said.what.point != *point);
        }
    }

    /// Nothing that this node says of this shard counts from now on. The first finding stays.
    pub(super) fn lied(&mut self, signer: NodeId, liar: Liar) {
        self.forget(signer, &liar.point);
        self.liars.entry(signer).or_insert(liar);
    }

    pub(super) fn is_liar(&self, signer: NodeId) -> bool {
        self.liars.contains_key(&signer)
    }

    /// There is evidence that a node signed two logs of an incarnation, whoever found it: nothing that it says of either counts.
    pub(super) fn distrust(&mut self, incarnation: u32, node: NodeId) {
        self.distrusted.insert((incarnation, node));
    }

    pub(super) fn distrusts(&self, incarnation: u32, node: NodeId) -> bool {
        self.distrusted.contains(&(incarnation, node))
    }

    /// Of each liar what it said that agrees with this log and is not smaller than what it lied about: the two together are two
    /// logs that one node signed, however the smaller one went on.
    pub(super) fn agreeing_liars(&self) -> Vec<(NodeId, Cosignature)> {
        let open = self.liars.iter().filter(|(_, liar)| liar.both.is_none());
        let agreeing = open.filter_map(|(id, liar)| {
            let lied = place(&liar.point.cosigned());
            let mut said = self.said.get(id)?.iter().filter(|said| said.agrees);
            let found = said.find(|said| {
                let at = place(&said.what.point.cosigned());
                at.0 == lied.0 && at >= lied
            })?;
            Some((*id, found.what))
        });
        agreeing.collect()
    }

    /// The signature verifies.
    pub(super) fn signed_both(&mut self, signer: NodeId, what: Cosignature, note: Note) {
        if let Some(liar) = self.liars.get_mut(&signer) {
            liar.both = Some((what, note));
            self.said.remove(&signer);
        }
    }

    /// Whether what a node says of a log may count.
    fn counts(&self, id: NodeId, incarnation: u32) -> bool {
        !self.is_liar(id) && !self.distrusts(incarnation, id)
    }

    pub(super) fn liars(&mut self) -> impl Iterator<Item = (NodeId, &mut Liar)> {
        self.liars.iter_mut().map(|(id, liar)| (*id, liar))
    }

    /// Whether more than half of the group's nodes, of a quorum of members, signed another log than this node's.
    pub(super) fn outvoted(&self, group: &Group) -> bool {
        let liars: Vec<_> = self.liars.keys().filter_map(|id| group.node(*id)).collect();
        let members: BTreeSet<MemberId> = liars.iter().map(|node| node.member).collect();
        liars.len() > group.nodes().len() / 2 && members.len() >= group.charter.quorum(group.shard)
    }

    /// The places above `from` of which others said what agrees, the largest first.
    pub(super) fn agreed_from(&self, from: Place) -> Vec<Cosigned> {
        let said = self.said.iter().flat_map(|(id, said)| said.iter().map(move |said| (*id, said)));
        let said = said.filter(|(id, said)| said.agrees && self.counts(*id, said.what.point.incarnation));
        let said = said.map(|(_, said)| said);
        let mut agreed: Vec<_> = said.map(|said| said.what.point.cosigned()).filter(|at| place(at) >= from).collect();
        agreed.sort_by_key(|at| std::cmp::Reverse(place(at)));
        agreed.dedup();
        agreed
    }

    /// The note of a point, if what was heard since a moment and `own` are of a quorum of members, one of whose nodes ordered.
    pub(super) fn count(
        &mut self,
        group: &Group,
        at: &Cosigned,
        own: Option<(NodeId, &Note, bool)>,
        since: Duration,
    ) -> Result<Stands, NoQuorum> {
        let point = group.point(at);
        let counted = self.said.iter().filter(|(id, _)| self.counts(**id, at.incarnation));
        let said = counted.filter_map(|(id, said)| {
            let said = said.iter().find(|said| said.agrees && said.heard >= since && said.what.point == point)?;
            Some((group.node(*id)?, said.what))
        });
        // Who is not of the group that orders has ordered nothing that counts.
        let said: Vec<(&charter::Node, Cosignature)> = said
            .map(|(node, what)| (node, Cosignature { order: what.order.filter(|_| group.orders(node.id)), ..what }))
            .collect();
        let all: Vec<NodeId> = said.iter().map(|(node, _)| node.id).chain(own.map(|(id, ..)| id)).collect();
        let mut ordered = own.is_some_and(|(_, _, ordered)| ordered);
        // Looking costs nothing; only what could be a quorum is verified, and no more of it than makes one.
        if group.lacking(&all) != (0, 0) || !(ordered || said.iter().any(|(_, what)| what.order.is_some())) {
            return Err(NoQuorum::Yet);
        }
        let checkpoint = group.checkpoint(at);
        let mut note = match own {
            Some((_, note, _)) => note.clone(),
            None => checkpoint.unsigned().map_err(NoQuorum::Note)?,
        };
        let mut cosigners: Vec<NodeId> = own.map(|(id, ..)| id).into_iter().collect();
        let mut bad = None;
        // Who ordered comes first: without it nothing stands.
        for (node, what) in said.iter().filter(|(_, it)| it.order.is_some()).chain(&said) {
            let counted = cosigners.contains(&node.id);
            let order = what.order.filter(|_| !ordered);
            let lacking = group.lacking(&cosigners);
            let with = group.lacking(&[&cosigners[..], &[node.id]].concat());
            let needs = with.0 < lacking.0 || with.1 < lacking.1;
            if counted || !(needs || order.is_some()) {
                continue;
            }
            let verified = (|| {
                if let Some(order) = order {
                    note.add_signature(&checkpoint.origin, &node.sign, &order)?;
                }
                note.add_cosignature(&node.name, &node.sign, what.word.time_s, &what.word.signature)
            })();
            if verified.is_err() {
                bad = Some(node.id);
                break;
            }
            ordered |= order.is_some();
            cosigners.push(node.id);
        }
        if let Some(bad) = bad {
            self.forget(bad, &point);
            return Err(NoQuorum::BadSignature(bad));
        }
        Ok(Stands { note, cosigners })
    }

    /// A checkpoint was made: less is not needed any more.
    pub(super) fn published(&mut self, at: Place) {
        for said in self.said.values_mut() {
            said.retain(|said| place(&said.what.point.cosigned()) >= at);
        }
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.said.values().map(Vec::len).sum::<usize>() + self.relayed.len()
    }
}
