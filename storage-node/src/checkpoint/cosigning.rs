//! The cosigning of one shard's log: what comes in, what is to be remembered, what goes out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ehe::id::{Hash, NodeId};
use ehe::merkle;
use ehe::time::UnixMs;

use super::board::Applied;
use super::clock::{Clocks, agrees};
use super::collect::{Collected, Group, Liar, Unjudged};
use super::core::{Action, Ignored, Now, Refused, Who, World};
use super::evidence::{Evidence, Side};
use super::foresight::Foresight;
use super::message::{ClockDiffers, Conflict, Message, Wish};
use super::publish::Notes;
use super::telling::Telling;
use super::wish::{Place, Wishes, place};
use crate::cosign::{CosignError, Cosigned};
use crate::shard::InEffect;

/// A shard in which nothing happens is cosigned again after this time.
pub(super) const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// A node that lacks a checkpoint of what it applied asks for one after this time.
const LACKING_FOR: Duration = Duration::from_secs(2);
/// A cosignature's time is of the second in which it was made, and its way takes some.
const ON_ITS_WAY_MS: u64 = 5000;

/// One shard.
#[derive(Debug)]
pub(super) struct Cosigning {
    pub(super) shard: u16,
    /// Whose members and nodes count; `None`: the charter that the node began with.
    pub(super) in_effect: Option<InEffect>,
    pub(super) applied: Option<Applied>,
    /// What is remembered on disk.
    pub(super) cosigned: Option<Cosigned>,
    /// The log was shown to extend it since the start.
    pub(super) proven: bool,
    pub(super) fenced: bool,
    pub(super) wishes: Wishes,
    pub(super) telling: Telling,
    /// Somebody waits for a checkpoint of so many leaves.
    pub(super) wanted: Option<u64>,
    /// Something came to stand while something else is waited for.
    pub(super) look_again: bool,
    foresight: Foresight,
    pub(super) said: Collected,
    pub(super) notes: Notes,
    pub(super) clocks: Clocks,
    pub(super) published: Option<(Cosigned, Duration)>,
    /// Version of its charter.
    pub(super) published_under: u32,
    /// A quorum cosigned it without this node: it is shown once it is remembered.
    pub(super) stands: Option<Cosigned>,
    /// What was remembered at the start may have been shown: less is not shown.
    pub(super) shown_before: Place,
    /// Since when something is applied that no checkpoint holds.
    pub(super) lacking: Option<Duration>,
    pub(super) signing: Vec<Signing>,
    pub(super) may_order: bool,
    /// When to look again, if nothing happens.
    pub(super) due: Option<Duration>,
}

/// What is signed once it is remembered.
#[derive(Debug)]
pub(super) struct Signing {
    pub(super) at: Cosigned,
    /// To the whole group, or only to whoever wished. Where nobody did, it is only remembered: a quorum of others signed it.
    pub(super) all: bool,
    /// Who gets it at any rate: whoever wished, with the clock of the wish; or the leader, before it wishes.
    pub(super) to: Option<(NodeId, Option<UnixMs>)>,
}

/// What a step may look at, and where it puts what it decides.
pub(super) struct Step<'a> {
    pub(super) who: &'a Who,
    pub(super) world: &'a dyn World,
    pub(super) now: Now,
    pub(super) out: &'a mut Vec<Action>,
}

impl Cosigning {
    pub(super) fn new(shard: u16, cosigned: Option<Cosigned>) -> Self {
        Self {
            shard,
            in_effect: None,
            applied: None,
            cosigned,
            proven: false,
            fenced: false,
            wishes: Wishes::default(),
            telling: Telling::default(),
            wanted: None,
            look_again: false,
            foresight: Foresight::default(),
            said: Collected::default(),
            notes: Notes::default(),
            clocks: Clocks::default(),
            published: None,
            published_under: 0,
            stands: None,
            shown_before: cosigned.as_ref().map_or((0, 0), place),
            lacking: None,
            signing: Vec::new(),
            may_order: true,
            due: Some(Duration::ZERO),
        }
    }

    pub(super) fn group(&self, who: &Who) -> Group {
        let (charter, before) = match &self.in_effect {
            Some(InEffect { charter, before, .. }) => (Arc::clone(charter), before.clone()),
            None => (Arc::clone(&who.charter), None),
        };
        Group { charter, before, shard: self.shard }
    }

    fn place(&self) -> Place {
        self.applied.map_or((0, 0), |applied| (applied.incarnation, applied.size))
    }

    // ---- what comes in

    pub(super) fn applied(&mut self, applied: Applied) {
        self.applied = Some(applied);
    }

    /// Somebody waits for a checkpoint of `size` leaves, and not only until the leader tells this node of one.
    pub(super) fn want(&mut self, size: u64) {
        let shown = self.published.is_some_and(|(published, _)| published.size >= size);
        self.wanted = if shown { self.wanted } else { self.wanted.max(Some(size)) };
    }

    /// Another charter is in effect, or the one before need not be counted any more. What was signed and said under another one is of
    /// no more use; what is remembered on disk holds on, and so does what is known of liars.
    pub(super) fn under(&mut self, in_effect: InEffect, who: &Who) {
        let version = in_effect.charter.version();
        if version != self.group(who).charter.version() {
            self.notes = Notes::default();
            self.said.under(version);
            self.wishes.under(version);
            self.telling = Telling::default();
            self.signing.clear();
            self.stands = None;
            self.lacking = None;
        }
        self.in_effect = Some(in_effect);
        let group = self.group(who);
        self.clocks.only(|node| group.has(*node));
    }

    pub(super) fn heard(&mut self, from: NodeId, message: Message, step: &mut Step<'_>) {
        let group = self.group(step.who);
        let ignored = if self.fenced {
            return;
        } else if from == step.who.id || !group.has(from) {
            Some(Ignored::NotOfGroup)
        } else if message.point().is_some_and(|point| point.charter < group.charter.version()) {
            // Of a later one than this node has come to, it waits like what is of a later size.
            Some(Ignored::OtherCharter)
        } else {
            None
        };
        if let Some(why) = ignored {
            step.out.push(Action::Ignored { from, why });
            return;
        }
        match message {
            Message::Wish(wish) if agrees(wish.at, step.now.wall, step.now.wall) => self.wishes.keep(from, wish),
            Message::Wish(wish) => self.clock_differs(from, &wish, step),
            Message::Cosignature(what) => {
                if what.wished_at.is_some() {
                    // It compared its clock with ours before.
                    self.clocks.agreed(from);
                }
                let theirs = UnixMs(what.word.time_s.saturating_mul(1000));
                let earlier = UnixMs(step.now.wall.0.saturating_sub(ON_ITS_WAY_MS));
                if agrees(theirs, earlier, step.now.wall) {
                    self.said.hear(from, what, step.now.running);
                } else {
                    // Of a wrong clock, or too old: it does not count, whatever else this node knows. It may show a lie.
                    step.out.push(Action::Ignored { from, why: Ignored::ClockDiffers });
                    self.said.relayed(from, Conflict { point: what.point, signer: from, word: what.word });
                }
            }
            Message::Conflict(conflict) => {
                if group.node(conflict.signer).is_some() {
                    self.said.relayed(from, conflict);
                }
            }
            Message::ClockDiffers(differs) => {
                step.out.push(Action::Ignored { from, why: Ignored::ClockDiffers });
                self.clocks.differs(from, differs.at, differs.wished_at, step.now.wall);
            }
        }
    }

    /// There is evidence that a node signed two logs of an incarnation.
    pub(super) fn distrust(&mut self, incarnation: u32, node: NodeId) {
        self.said.distrust(incarnation, node);
    }

    fn clock_differs(&mut self, from: NodeId, wish: &Wish, step: &mut Step<'_>) {
        self.foresight.distrust(from);
        let answer = ClockDiffers { shard: self.shard, at: step.now.wall, wished_at: wish.at };
        step.out.push(Action::Ignored { from, why: Ignored::ClockDiffers });
        step.out.push(Action::Send { to: from, message: Box::new(Message::ClockDiffers(answer)) });
    }

    // ---- before it is remembered

    /// Decides what is signed. Returns what has to be remembered first; then comes [`Self::remembered`].
    pub(super) fn decide(&mut self, step: &mut Step<'_>) -> Option<Cosigned> {
        match self.decided(step) {
            Ok(remember) => remember,
            Err(why) => {
                self.fence(why, step.out);
                None
            }
        }
    }

    fn decided(&mut self, step: &mut Step<'_>) -> Result<Option<Cosigned>, Refused> {
        let stands = self.stands.take().map(|at| Signing { at, all: false, to: None });
        let group = self.group(step.who);
        let Some(applied) = self.applied.filter(|applied| !self.fenced && applied.size > 0) else { return Ok(None) };
        // Who is not of the group signs nothing in its name: a node that waits to be taken in, or one that was let go.
        if !group.has(step.who.id) {
            return Ok(None);
        }
        if self.said.distrusts(applied.incarnation, step.who.id) {
            return Err(Refused::SignedBoth { shard: self.shard });
        }
        if !self.extends_what_was_cosigned(&applied, step)? {
            return Ok(None);
        }
        self.judge(&applied, step)?;
        let alone = self.alone(step);
        let leader = if alone { Some(step.who.id) } else { step.world.leader(self.shard) };
        // Alone there is nobody whose clock could say otherwise: the ledger's time stands still until ours has caught up.
        let in_time = alone || agrees(applied.time, applied.time, step.now.wall);
        let mut signing: Vec<Signing> = stands.into_iter().collect();
        let leads = leader == Some(step.who.id);
        self.foresight.led_by(leader.filter(|_| !leads));
        for at in self.own_wishes(&applied, leads, step) {
            let wish = Wish { point: self.group(step.who).point(&at), at: step.now.wall };
            self.send(None, &Message::Wish(wish), step);
            // A leader's clock is the others' to judge. Another node signs by its own only if somebody's agreed with it.
            if in_time && (leads || self.clocks.confirmed()) {
                signing.push(Signing { at, all: true, to: None });
            }
        }
        let end = applied.at();
        for (from, wish) in self.wishes.reached(self.place(), group.charter.version()) {
            if wish.point.incarnation != applied.incarnation || wish.point.size == 0 {
                continue;
            }
            if !in_time {
                self.clock_differs(from, &wish, step);
                continue;
            }
            let root = self.root(&applied, wish.point.size, step)?;
            let at = Cosigned { root, ..wish.point.cosigned() };
            let agrees = root == wish.point.root;
            let (said, told) = self.said_lately(&at, step).map_or((false, false), |own| (true, own.all));
            let told = told || signing.iter().any(|it| it.all && it.at == at);
            if self.foresight.wished(from, &at, &end, step.now.running) && agrees && said {
                continue;
            }
            if !agrees {
                // Whoever wished hears what this log has there; its signed word for the other root makes the evidence.
                step.out.push(Action::Ignored { from, why: Ignored::OtherRoot });
            }
            // Whoever asks, and for whatever root: who could have this word to itself could show one log to each half of the group. What is
            // shown already, all hear of again where the leader asks.
            let shown = self.published.map(|(published, _)| place(&published));
            let news = shown.is_none_or(|shown| shown < place(&at));
            let again = leader.is_none_or(|leader| leader == from) && shown == Some(place(&at));
            let all = (news || again) && !told;
            signing.push(Signing { at, all, to: Some((from, Some(wish.at))) });
        }
        // No wish says the leader's time. The ledger's was the leader's when it ordered the block: ours is held against it both ways.
        let in_step = agrees(applied.time, step.now.wall, step.now.wall);
        if in_step && self.unsigned(&end) && !signing.iter().any(|it| it.at == end) && self.foresight.guesses(&end) {
            signing.push(Signing { at: end, all: true, to: leader.map(|leader| (leader, None)) });
        }
        // Evidence has two signed sides.
        let unanswered: Vec<Place> = self
            .said
            .liars()
            .filter(|(_, liar)| !liar.told)
            .map(|(_, liar)| (liar.point.incarnation, liar.point.size))
            .collect();
        if in_time && unanswered.into_iter().any(|liar| self.notes.reaching(liar, false).is_none()) {
            signing.push(Signing { at: end, all: true, to: None });
        }
        let largest = signing.iter().filter(|it| it.all).map(|it| place(&it.at)).max();
        // Of this log, which may be of a later incarnation by now; and by a clock that agrees, for it may have to be signed anew.
        let held = self.telling.before(largest, step.now.running);
        let held = held.filter(|held| in_time && held.incarnation == applied.incarnation);
        signing.extend(held.map(|at| Signing { at, all: true, to: None }));
        self.prove(signing, step)
    }

    /// Alone nobody else has the log: what is not there is not going to come.
    pub(super) fn alone(&self, step: &Step<'_>) -> bool {
        self.group(step.who).nodes() == BTreeSet::from([step.who.id])
    }

    /// Whether this log is known to extend what this node put its name to. After a restart it may not have come so far yet:
    /// then nothing is signed, of whatever size, until it has.
    fn extends_what_was_cosigned(&mut self, applied: &Applied, step: &mut Step<'_>) -> Result<bool, Refused> {
        let Some(old) = self.cosigned else {
            self.proven = true;
            return Ok(true);
        };
        if (applied.incarnation, applied.size) < place(&old) {
            self.proven = false;
            return if self.alone(step) { Err(self.contradicts(applied.size, &old)) } else { Ok(false) };
        }
        if !self.proven {
            self.consistent(&old, &applied.at(), step)?;
            self.proven = true;
        }
        Ok(true)
    }

    /// Proves that of two places of this log the larger extends the smaller. `old` was cosigned.
    fn consistent(&self, old: &Cosigned, new: &Cosigned, step: &mut Step<'_>) -> Result<(), Refused> {
        // A later incarnation is another log: what it keeps of this one, its recovery record says.
        if old.incarnation != new.incarnation {
            return if old.incarnation < new.incarnation { Ok(()) } else { Err(self.contradicts(new.size, old)) };
        }
        let (small, large) = if old.size <= new.size { (old, new) } else { (new, old) };
        let proof = step.world.consistency(self.shard, small.size, large.size)?;
        if merkle::verify_consistency((small.size, &small.root), (large.size, &large.root), &proof).is_ok() {
            return Ok(());
        }
        if old.size <= new.size {
            let prefix = step.world.root(self.shard, old.size)?;
            let stated = Side { size: old.size, root: old.root, note: self.notes.note_of(old) };
            let log = Side { size: new.size, root: new.root, note: None };
            let evidence = self.evidence(step.who.id, stated, log, (prefix, proof), step.who);
            step.out.push(Action::Evidence(Box::new(evidence)));
        }
        Err(self.contradicts(new.size, old))
    }

    fn contradicts(&self, size: u64, cosigned: &Cosigned) -> Refused {
        CosignError::Contradicts { shard: self.shard, size, cosigned: cosigned.size }.into()
    }

    /// The root of the first `size` leaves of this log.
    fn root(&self, applied: &Applied, size: u64, step: &Step<'_>) -> Result<Hash, Refused> {
        if size == applied.size {
            return Ok(applied.root);
        }
        match self.notes.root((applied.incarnation, size)) {
            Some(root) => Ok(root),
            None => Ok(step.world.root(self.shard, size)?),
        }
    }

    /// Compares what others said with this log.
    fn judge(&mut self, applied: &Applied, step: &mut Step<'_>) -> Result<(), Refused> {
        for Unjudged { signer, point, word, relayed_by } in self.said.unjudged(self.place()) {
            if point.incarnation != applied.incarnation || point.size == 0 {
                self.said.forget(signer, &point);
                continue;
            }
            if self.root(applied, point.size, step)? == point.root {
                if relayed_by.is_none() {
                    self.said.agrees(signer, &point);
                }
                continue;
            }
            if relayed_by.is_none() && self.said.is_liar(signer) {
                self.said.forget(signer, &point);
                continue;
            }
            let Ok(note) = self.group(step.who).verified(signer, &point, &word) else {
                let from = relayed_by.unwrap_or(signer);
                step.out.push(Action::Ignored { from, why: Ignored::BadSignature });
                if relayed_by.is_none() {
                    self.said.forget(signer, &point);
                }
                continue;
            };
            if signer == step.who.id {
                // Nobody else has this key: this node signed another log, and its own file no longer knows.
                let stated = Side { size: point.size, root: point.root, note: None };
                let log = Side { size: applied.size, root: applied.root, note: None };
                let proof = step.world.consistency(self.shard, point.size, applied.size)?;
                let prefix = self.root(applied, point.size, step)?;
                let evidence = self.evidence(signer, stated, log, (prefix, proof), step.who);
                step.out.push(Action::Evidence(Box::new(evidence)));
                return Err(self.contradicts(applied.size, &point.cosigned()));
            }
            let first_hand = relayed_by.is_none_or(|by| by == signer);
            let found = step.now.running;
            let (relayed, told, told_both) = (false, false, false);
            let liar = Liar { point, word, note, first_hand, found, relayed, told, both: None, told_both };
            self.said.lied(signer, liar);
        }
        for (signer, what) in self.said.agreeing_liars() {
            match self.group(step.who).verified(signer, &what.point, &what.word) {
                Ok(note) => self.said.signed_both(signer, what, note),
                Err(_) => self.said.forget(signer, &what.point),
            }
        }
        if self.said.outvoted(&self.group(step.who)) {
            // Against so many this node signs nothing more, not even what its log has there.
            let log = Side { size: applied.size, root: applied.root, note: None };
            self.tell(Some(log), step)?;
            return Err(Refused::Outvoted { shard: self.shard });
        }
        Ok(())
    }

    /// The sizes that this node asks the others to cosign now.
    fn own_wishes(&mut self, applied: &Applied, leads: bool, step: &mut Step<'_>) -> Vec<Cosigned> {
        let now = step.now.running;
        let at = applied.at();
        // Under another charter the same size is shown anew.
        let behind =
            self.published.is_none_or(|(published, _)| place(&published) < place(&at)) || !self.shown_under(step.who);
        if behind {
            let since = *self.lacking.get_or_insert(now);
            // A node that just started has none at all, and nobody may be about to wish.
            let wanted = self.wanted.is_some_and(|size| size <= applied.size);
            let lacking = wanted || self.published.is_none() || now.saturating_sub(since) >= LACKING_FOR;
            let news = self.wishes.newest().is_none_or(|newest| newest < place(&at));
            if (leads && news) || (self.wishes.none_open() && lacking) {
                self.wishes.open(at, now);
            }
        } else if let Some((_, made)) = self.published
            && leads
            && self.wishes.none_open()
            && now.saturating_sub(made) >= self.again_after()
        {
            self.wishes.open(at, now);
        }
        self.wishes.due(now)
    }

    /// Whether this node has said nothing of this place, and nobody has shown it.
    fn unsigned(&self, at: &Cosigned) -> bool {
        let shown = self.published.is_some_and(|(published, _)| place(&published) >= place(at));
        !shown && self.notes.own(place(at)).is_none()
    }

    /// Whether what is shown is of the charter in effect.
    pub(super) fn shown_under(&self, who: &Who) -> bool {
        self.published_under == self.group(who).charter.version()
    }

    /// A leader that may not order has to hear soon that its clock is right again: it makes no blocks that others could answer.
    pub(super) fn again_after(&self) -> Duration {
        if self.may_order { AGAIN_AFTER } else { LACKING_FOR }
    }

    /// Only what extends what was signed before is signed.
    fn prove(&mut self, mut signing: Vec<Signing>, step: &mut Step<'_>) -> Result<Option<Cosigned>, Refused> {
        signing.sort_by_key(|signing| place(&signing.at));
        let mut newest = self.cosigned;
        for Signing { at, .. } in &signing {
            if let Some(newest) = newest.filter(|newest| newest != at) {
                self.consistent(&newest, at, step)?;
            }
            if newest.is_none_or(|newest| place(&newest) < place(at)) {
                newest = Some(*at);
            }
        }
        self.signing = signing;
        Ok(newest.filter(|newest| self.cosigned != Some(*newest)))
    }

    pub(super) fn evidence(
        &self,
        of: NodeId,
        stated: Side,
        log: Side,
        (prefix, proof): (Hash, Vec<Hash>),
        who: &Who,
    ) -> Evidence {
        let incarnation = self.place().0;
        let charter_version = self.group(who).charter.version();
        Evidence { shard: self.shard, incarnation, charter_version, of, stated, log, prefix, proof }
    }

    pub(super) fn fence(&mut self, why: impl Into<Arc<Refused>>, out: &mut Vec<Action>) {
        self.signing.clear();
        if !std::mem::replace(&mut self.fenced, true) {
            out.push(Action::Fence { shard: self.shard, why: why.into() });
        }
    }

    pub(super) fn send(&self, to: Option<NodeId>, message: &Message, step: &mut Step<'_>) {
        let nodes = self.group(step.who).nodes().into_iter();
        let to = nodes.filter(|node| *node != step.who.id && to.is_none_or(|to| to == *node));
        step.out.extend(to.map(|to| Action::Send { to, message: Box::new(*message) }));
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.said.held()
    }
}
