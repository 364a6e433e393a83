//! The second half of a round: what is remembered is signed, counted, shown, and told.

use std::sync::Arc;
use std::time::Duration;

use ehe::id::{Hash, NodeId};
use ehe::note::Note;

use super::collect::{Group, NoQuorum, Stands};
use super::core::{Action, Ignored, Refused};
use super::cosigning::{AGAIN_AFTER, Cosigning, Signing, Step};
use super::evidence::Side;
use super::message::{Conflict, Cosignature, Message, Word};
use super::publish::{Notes, Own, Published};
use super::wish::place;
use crate::cosign::Cosigned;
use crate::red;

/// A cosignature that is younger is sent again instead of being made again.
const SAME_FOR: Duration = Duration::from_secs(1);
/// Evidence against a node waits so long for a quorum's note to stand against: one node's word against another's says less.
const QUORUM_WITHIN: Duration = Duration::from_secs(10);
/// Who leads is looked up at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Cosigning {
    /// What was to be remembered is on disk (or nothing was).
    pub(super) fn remembered(&mut self, remembered: Option<Cosigned>, step: &mut Step<'_>) {
        self.cosigned = remembered.or(self.cosigned);
        if !self.fenced
            && let Err(why) = self.sign(step).and_then(|()| self.publish(step)).and_then(|()| self.tell(None, step))
        {
            self.fence(why, step.out);
        }
        self.settle(step);
    }

    fn sign(&mut self, step: &mut Step<'_>) -> Result<(), Refused> {
        let signing = std::mem::take(&mut self.signing);
        if signing.is_empty() {
            return Ok(());
        }
        let leads = (self.alone(step) || step.world.leader(self.shard) == Some(step.who.id))
            && self.group(step.who).orders(step.who.id);
        // The largest says it all.
        let largest = signing.iter().filter(|it| it.all).map(|it| place(&it.at)).max();
        for Signing { at, all, to: first } in signing.into_iter().filter(|it| it.all || it.to.is_some()) {
            let same = self.said_lately(&at, step).filter(|own| own.said.order.is_some() == leads);
            let said = match same {
                Some(own) => own.said,
                None => {
                    let own = self.made(&at, leads, step)?;
                    let said = own.said;
                    self.notes.signed(&at, own);
                    said
                }
            };
            if all {
                self.notes.told(place(&at));
            }
            let all = all && largest == Some(place(&at)) && self.telling.tells(&at, step.now.running);
            let nodes = self.group(step.who).nodes().into_iter();
            for to in nodes.filter(|to| all || first.is_some_and(|(first, _)| first == *to)) {
                let wished_at = first.filter(|(first, _)| *first == to).and_then(|(_, at)| at);
                self.send(Some(to), &Message::Cosignature(Cosignature { wished_at, ..said }), step);
            }
        }
        Ok(())
    }

    /// What this node said of a place a moment ago.
    pub(super) fn said_lately(&self, at: &Cosigned, step: &Step<'_>) -> Option<&Own> {
        let own = self.notes.own(place(at)).filter(|own| own.said.point.root == at.root)?;
        (step.now.running.saturating_sub(own.at) < SAME_FOR).then_some(own)
    }

    fn made(&self, at: &Cosigned, leads: bool, step: &Step<'_>) -> Result<Own, Refused> {
        let (group, who) = (self.group(step.who), step.who);
        let at = &if red::on("two_branches") && at.size.is_multiple_of(8) {
            Cosigned { root: Hash::ZERO, ..*at }
        } else {
            *at
        };
        let checkpoint = group.checkpoint(at);
        let mut note = checkpoint.unsigned()?;
        let order = leads.then(|| note.sign(&checkpoint.origin, who.identity.sign_key()).into());
        let time_s = step.now.wall.0 / 1000;
        let signature = note.cosign(&who.name, who.identity.sign_key(), time_s).into();
        let said = Cosignature { point: group.point(at), word: Word { time_s, signature }, order, wished_at: None };
        Ok(Own { note, said, at: step.now.running, all: false })
    }

    /// Shows the largest size that a quorum cosigned; the same size once more if all of its lines are newer.
    fn publish(&mut self, step: &mut Step<'_>) -> Result<(), Refused> {
        let Some(applied) = self.applied.filter(|_| self.proven) else { return Ok(()) };
        let now = step.now.running;
        let from = self.published.map_or(self.shown_before, |(published, _)| place(&published));
        let mut candidates: Vec<Cosigned> = self.said.agreed_from(from);
        candidates.extend(self.notes.signed_from(from));
        candidates.sort_by_key(|at| std::cmp::Reverse(place(at)));
        candidates.dedup();
        for at in candidates {
            if at.incarnation != applied.incarnation {
                continue;
            }
            let again =
                self.published.filter(|(published, _)| place(published) == place(&at) && self.shown_under(step.who));
            let Some(stands) = self.count(&at, again.map(|(_, made)| made), step)? else { continue };
            if self.cosigned.is_none_or(|cosigned| place(&cosigned) < place(&at)) {
                // A restart must not make this node show less than it showed.
                self.stands = Some(at);
                return Ok(());
            }
            let published = Arc::new(Published {
                size: at.size,
                root: at.root,
                incarnation: at.incarnation,
                charter_version: self.group(step.who).charter.version(),
                rooms: applied.rooms,
                cosigners: stands.cosigners,
                note: stands.note.to_string(),
            });
            self.notes.published(&at, Arc::clone(&published));
            self.published = Some((at, now));
            self.published_under = published.charter_version;
            self.wishes.answered(place(&at));
            self.said.published(place(&at));
            self.lacking = None;
            self.wanted = self.wanted.filter(|size| *size > at.size);
            self.look_again = self.wanted.is_some();
            step.out.push(Action::Publish { shard: self.shard, published, again: again.is_some() });
            break;
        }
        Ok(())
    }

    fn count(&mut self, at: &Cosigned, made: Option<Duration>, step: &mut Step<'_>) -> Result<Option<Stands>, Refused> {
        let group = self.group(step.who);
        // The same size stands anew only if every line is much newer than what is shown.
        let newer = made.map_or(Duration::ZERO, |made| made.saturating_add(AGAIN_AFTER / 2));
        let own = self.notes.own(place(at)).filter(|own| own.at >= newer);
        let own: Option<(NodeId, &Note, bool)> = own.map(|own| (step.who.id, &own.note, own.said.order.is_some()));
        loop {
            match self.said.count(&group, at, own, newer) {
                Ok(stands) => return Ok(Some(stands)),
                Err(NoQuorum::Yet) => return Ok(None),
                Err(NoQuorum::Note(why)) => return Err(why.into()),
                Err(NoQuorum::BadSignature(from)) => {
                    step.out.push(Action::Ignored { from, why: Ignored::BadSignature });
                }
            }
        }
    }

    /// Hands on what was found out about others, once there are two signed sides; or else with this one.
    pub(super) fn tell(&mut self, unsigned: Option<Side>, step: &mut Step<'_>) -> Result<(), Refused> {
        let (group, now) = (self.group(step.who), step.now.running);
        let (mut found, mut relay) = (Vec::new(), Vec::new());
        for (of, liar) in self.said.liars().filter(|(_, liar)| liar.untold()) {
            if liar.first_hand && !std::mem::replace(&mut liar.relayed, true) {
                relay.push(Conflict { point: liar.point, signer: of, word: liar.word });
            }
            let signed = match &liar.both {
                Some((what, alone)) => Some(with_the_liars_line(&self.notes, &group, of, (what, alone))),
                None => {
                    let (at, waited) = ((liar.point.incarnation, liar.point.size), now.saturating_sub(liar.found));
                    self.notes.reaching(at, waited < QUORUM_WITHIN && unsigned.is_none())
                }
            };
            if let Some(log) = signed.or_else(|| unsigned.clone()) {
                (liar.told, liar.told_both) = (true, liar.both.is_some());
                found.push((of, liar.clone(), log));
            }
        }
        for conflict in relay {
            self.send(None, &Message::Conflict(conflict), step);
        }
        for (of, liar, log) in found {
            let size = liar.point.size;
            let stated = Side { size, root: liar.point.root, note: Some(liar.note.to_string()) };
            let prefix = step.world.root(self.shard, size)?;
            let proof = step.world.consistency(self.shard, size, log.size)?;
            let evidence = self.evidence(of, stated, log, (prefix, proof), step.who);
            step.out.push(Action::Evidence(Box::new(evidence)));
        }
        Ok(())
    }

    /// Ends a round: may this node order, and when is the next look?
    fn settle(&mut self, step: &mut Step<'_>) {
        let group = self.group(step.who);
        let (nodes, alone) = (group.nodes().len(), self.alone(step));
        let may = alone || !(self.fenced || self.clocks.contradicted(nodes));
        if may != self.may_order {
            self.may_order = may;
            step.out.push(Action::MayOrder { shard: self.shard, may });
        }
        let again = self.published.map(|(_, made)| made.saturating_add(self.again_after()));
        let look = (!alone).then(|| step.now.running.saturating_add(LOOK_EVERY));
        let idle = self.fenced || !group.has(step.who.id) || self.applied.is_none_or(|applied| applied.size == 0);
        // What is over now and did not happen, waits for something else than time.
        let later = [again, look, self.wishes.next(), self.telling.due()]
            .into_iter()
            .flatten()
            .filter(|at| *at > step.now.running);
        self.due = match self.stands {
            _ if idle => None,
            Some(_) => Some(step.now.running),
            // What is still waited for could not be wished for while that was open which now stands.
            None if std::mem::take(&mut self.look_again) => Some(step.now.running),
            None => later.min(),
        };
    }
}

/// A liar's cosignature of this log, among those of a quorum if there is one of the same size.
fn with_the_liars_line(notes: &Notes, group: &Group, of: NodeId, (what, alone): (&Cosignature, &Note)) -> Side {
    let at = what.point.cosigned();
    let beside = notes.exactly(&at).zip(group.node(of)).and_then(|(mut note, node)| {
        let there = note.verify_cosignature(&node.name, &node.sign).is_ok();
        let added =
            there || note.add_cosignature(&node.name, &node.sign, what.word.time_s, &what.word.signature).is_ok();
        added.then_some(note)
    });
    Side { size: at.size, root: at.root, note: Some(beside.map_or_else(|| alone.to_string(), |note| note.to_string())) }
}
