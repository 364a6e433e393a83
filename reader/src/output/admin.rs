//! Rooms, grants, audit, checks and nodes: as text for people, or as one JSON value a line.

use core::num::NonZeroU32;
use std::path::Path;

use ehe::control::{Ending, Right};
use ehe::id::{AuthorId, EheId};
use ehe::read::{Part, Purpose};
use ehe::room::GrantEnd;
use ehe::time::Hour;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::authority::{delegate_json, rights};
use super::{Printer, plain};
use crate::audit::Access;
use crate::error::Error;
use crate::manage::{Created, Revoked};
use crate::rooms::{Found, GrantLine, NodeLine, RoomLine};
use crate::scope::names;
use crate::verify::{Outcome, Report};
use crate::when;

fn right(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::Append => "append",
    }
}

fn purpose(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Treatment => "treatment",
        Purpose::PatientRequest => "patient-request",
        Purpose::Operations => "operations",
        Purpose::Research => "research",
    }
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Control => "control",
        Part::Content => "content",
        Part::Ledger => "ledger",
    }
}

fn hour(hour: Hour) -> String {
    when::shown(hour.start())
}

/// "from … until …", or nothing.
fn between(from: Option<Hour>, until: Option<Hour>) -> String {
    let from = from.map(|from| format!("from {}", hour(from)));
    let until = until.map(|until| format!("until {}", hour(until)));
    [from, until].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

impl Printer<'_> {
    /// A new room.
    pub fn created(
        &mut self,
        created: &Created,
        (recovery, file): (Option<Zeroizing<String>>, Option<&Path>),
    ) -> Result<(), Error> {
        if self.is_json() {
            let epochs: Vec<Value> =
                created.epochs.iter().map(|e| json!({ "category": e.category, "epoch": e.epoch })).collect();
            let recovery = recovery.as_deref().map(String::as_str);
            return self.value(&json!({ "room": created.room, "shard": created.shard, "epochs": epochs,
                                       "recovery": recovery, "recovery_file": file }));
        }
        self.line(created.room.to_string())
    }

    /// A new grant.
    pub fn granted(&mut self, grant: EheId, subject: ehe::id::AuthorId) -> Result<(), Error> {
        if self.is_json() {
            return self.value(&json!({ "grant": grant, "subject": subject }));
        }
        self.line(grant.to_string())
    }

    /// Ended grants.
    pub fn revoked(&mut self, revoked: &Revoked) -> Result<(), Error> {
        if self.is_json() {
            let Revoked { ended, cut, still, renewed, kept, unrenewed } = revoked;
            return self
                .value(&json!({ "revoked": ended, "cut": cut, "still": still, "new_keys": renewed, "old_keys": kept,
                                       "unrenewed_keys": unrenewed }));
        }
        for grant in &revoked.ended {
            self.line(format!("revoked {grant}"))?;
        }
        for grant in &revoked.still {
            self.line(format!("grant {grant} still lets the same gateway append: what waits in its spool is taken as far as that reaches"))?;
        }
        if !revoked.cut.is_empty() && revoked.still.is_empty() {
            self.line("what waits unsent in a gateway's spool is refused now; --drain-until would still take it")?;
        }
        if !revoked.kept.is_empty() {
            self.line(format!(
                "the keys of {} could not be renewed: too many others read them. Nodes refuse who was revoked all the same",
                names(&revoked.kept)
            ))?;
        }
        if !revoked.renewed.is_empty() {
            self.line(format!(
                "new keys for {}: a gateway that reaches a node seals to them some five seconds from now at the latest, alarms within a minute or two, and one that does not once it does. What it seals before, and that alone, the old keys open; nodes give who was revoked none of it",
                names(&revoked.renewed)
            ))?;
        }
        if revoked.unrenewed > 0 {
            self.line(format!(
                "{} keys stay as they are: this identity may not renew them, or was not told what they are for; the patient runs `ehe authority renew`",
                revoked.unrenewed
            ))?;
        }
        if !revoked.renewed.is_empty() || !revoked.kept.is_empty() || revoked.unrenewed > 0 {
            self.line("what was read before stays read: nothing can take back what somebody has seen or copied")?;
        }
        Ok(())
    }

    /// The rooms of an identity.
    pub fn rooms(&mut self, found: &Found) -> Result<(), Error> {
        if self.is_json() {
            return found.rooms.iter().try_for_each(|room| self.value(&room_json(room)));
        }
        let row = |room: &RoomLine| {
            let live = room.grants.iter().filter(|g| g.ended.is_none());
            let as_what = if room.own {
                format!("patient, {} grants", live.count())
            } else {
                let delegate = room.may.map(|may| format!("delegate ({})", rights(may).join(", ")));
                let what = live.map(|g| format!("{} {}", right(g.right), names(&g.categories)));
                delegate.into_iter().chain(what).collect::<Vec<_>>().join("; ")
            };
            vec![room.room.to_string(), room.name.clone().unwrap_or_default(), room.entries.to_string(), as_what]
        };
        self.table(&["room", "name", "entries", "as"], &found.rooms.iter().map(row).collect::<Vec<_>>())
    }

    /// One room with its delegates and grants.
    pub fn room(&mut self, room: &RoomLine) -> Result<(), Error> {
        if self.is_json() {
            return self.value(&room_json(room));
        }
        self.line(format!("room     {}", room.room))?;
        self.line(format!("patient  {}{}", room.patient, if room.own { " (you)" } else { "" }))?;
        if room.keys != room.patient {
            self.line(format!("keys     {} (the patient's since the last rotation or recovery)", room.keys))?;
        }
        if let Some(name) = &room.name {
            self.line(format!("name     {}", plain(name)))?;
        }
        self.line(format!("entries  {}", room.entries))?;
        if !room.delegates.is_empty() {
            self.line("")?;
            self.delegates(&room.delegates)?;
            self.line("")?;
        }
        self.grants(&room.grants, room.patient)
    }

    /// Grants of a room of this patient, as a table.
    pub(super) fn grants(&mut self, grants: &[GrantLine], patient: AuthorId) -> Result<(), Error> {
        let rows: Vec<Vec<String>> = grants.iter().map(|grant| grant_row(grant, patient)).collect();
        self.table(&["grant", "right", "categories", "bounds", "state", "for", "by", "purpose"], &rows)
    }

    /// Access records.
    pub fn audit(&mut self, records: &[Access]) -> Result<(), Error> {
        if self.is_json() {
            return records.iter().try_for_each(|record| self.value(&access_json(record)));
        }
        let row = |record: &Access| {
            let who = match &record.name {
                _ if record.distrusted => "somebody with keys that you distrust".to_owned(),
                _ if record.is_patient => "you".to_owned(),
                Some(name) => format!("{name} ({})", record.reader),
                None => record.reader.to_string(),
            };
            let times = if record.count > 1 { format!(" ({} times)", record.count) } else { String::new() };
            let what = match record.refused {
                None => "read".to_owned(),
                Some(why) => format!("REFUSED{times}: {why}"),
            };
            let of = match record.part {
                Part::Content => format!("{} {}", names(&record.categories), between(record.from, record.until)),
                Part::Control => "rights and keys".to_owned(),
                Part::Ledger => "whole ledger".to_owned(),
            };
            vec![when::shown(record.at), who, purpose(record.purpose).to_owned(), of.trim_end().to_owned(), what]
        };
        self.table(&["at", "who", "purpose", "of", "what"], &records.iter().map(row).collect::<Vec<_>>())?;
        if records.iter().any(|record| record.refused.is_some()) {
            self.line("\nfurther refusals of the same reader within the hour appear as one line with a count when the hour is over")?;
        }
        Ok(())
    }

    /// What came of verifying.
    pub fn report(&mut self, report: &Report) -> Result<(), Error> {
        for (check, outcome) in &report.checks {
            let (state, text) = match outcome {
                Outcome::Holds(text) => ("ok", text.as_str()),
                Outcome::HoldsSoFar => ("ok so far", ""),
                Outcome::Fails(text) => ("FAILED", text.as_str()),
                Outcome::NotShown(text) => ("not shown", text.as_str()),
                Outcome::NotReached => ("not reached", ""),
            };
            if self.is_json() {
                self.value(&json!({ "check": check.name(), "outcome": state, "detail": text }))?;
            } else {
                self.line(plain(format!("{:<11} {state:<11} {text}", check.name()).trim_end()))?;
            }
        }
        Ok(())
    }

    /// How the nodes are.
    pub fn status(&mut self, nodes: &[NodeLine]) -> Result<(), Error> {
        for (name, status) in nodes {
            match status {
                Err(why) if self.is_json() => self.value(&json!({ "name": name, "error": why.at(name) }))?,
                Err(why) => self.line(plain(&format!("{name}: {}", why.at(name))))?,
                Ok(status) => {
                    let shards = status.shards.iter().map(|shard| {
                        json!({ "shard": shard.shard, "leader": shard.leader, "term": shard.term, "applied": shard.applied,
                                "leaves": shard.leaves, "rooms": shard.rooms, "faulted": shard.faulted })
                    });
                    let scrubs = status.scrub.iter().flatten();
                    if self.is_json() {
                        let scrubs: Vec<_> = scrubs.map(|scrub| {
                            json!({ "shard": scrub.shard, "checked": scrub.checked, "entries": scrub.entries, "found": scrub.found,
                                    "held": scrub.held, "ended": scrub.ended.map(when::text), "took_ms": scrub.took_ms, "first": scrub.first })
                        }).collect();
                        self.value(&json!({ "name": name, "scrub": scrubs, "node": status.node, "program": status.program,
                            "charter": status.charter_version, "at": when::text(status.at), "shards": shards.collect::<Vec<_>>(),
                            "evidence": status.evidence.map_or(0, NonZeroU32::get) }))?;
                        continue;
                    }
                    let (leaves, rooms) = status.shards.iter().fold((0u64, 0u64), |(leaves, rooms), shard| {
                        (leaves.saturating_add(shard.leaves), rooms.saturating_add(shard.rooms))
                    });
                    let faulted = status.shards.iter().filter(|s| s.faulted).count();
                    let leaderless = status.shards.iter().filter(|s| s.leader.is_none()).count();
                    self.line(plain(&format!(
                        "{name}: {} shards ({faulted} faulted, {leaderless} without an ordering party), {rooms} rooms, {leaves} leaves, charter {}, program {}, its time {}",
                        status.shards.len(), status.charter_version, status.program, when::shown(status.at),
                    )))?;
                    for scrub in scrubs.filter(|scrub| scrub.found > 0) {
                        let held = if scrub.held { ", held until it is repaired" } else { "" };
                        let first = scrub.first.as_deref().unwrap_or_default();
                        self.line(plain(&format!(
                            "{name}: shard {}: {} findings{held}; {first}",
                            scrub.shard, scrub.found
                        )))?;
                    }
                    if let Some(count) = status.evidence {
                        self.line(plain(&format!(
                            "  it keeps EVIDENCE that nodes signed what contradicts itself, in {count} files: `ehe evidence` shows it"
                        )))?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn grant_state(grant: &GrantLine) -> String {
    match (grant.ended, grant.expires) {
        (Some(GrantEnd { at, ending: Ending::Cut }), _) => format!("revoked {}", when::shown(at)),
        (Some(GrantEnd { ending: Ending::DrainUntil(until), .. }), _) => {
            format!("draining until {}", when::shown(until))
        }
        (None, Some(expires)) => format!("expires {}", when::shown(expires)),
        (None, None) => "holds".into(),
    }
}

/// Somebody by the name that the patient gave, where there is one.
fn named(id: AuthorId, name: Option<&String>) -> String {
    name.map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
}

fn grant_row(grant: &GrantLine, patient: AuthorId) -> Vec<String> {
    let by = match grant.by {
        None => "?".into(),
        Some(by) if by == patient => "patient".into(),
        Some(by) => named(by, grant.by_name.as_ref()),
    };
    let history = if grant.history { " with history" } else { "" };
    vec![
        grant.id.to_string(),
        right(grant.right).into(),
        format!("{}{history}", names(&grant.categories)),
        between(grant.from, grant.until),
        grant_state(grant),
        named(grant.subject, grant.name.as_ref()),
        by,
        grant.purpose.clone().unwrap_or_default(),
    ]
}

pub(super) fn grant_json(g: &GrantLine) -> Value {
    json!({ "grant": g.id, "subject": g.subject, "name": g.name, "purpose": g.purpose, "right": right(g.right),
            "categories": g.categories, "history": g.history, "from": g.from.map(hour), "until": g.until.map(hour),
            "expires": g.expires.and_then(when::text), "state": grant_state(g), "ended": g.ended.is_some(),
            "by": g.by, "by_name": g.by_name })
}

fn room_json(room: &RoomLine) -> Value {
    json!({ "room": room.room, "patient": room.patient, "keys": room.keys, "own": room.own, "name": room.name, "entries": room.entries,
            "delegate": room.may.map(rights), "delegates": room.delegates.iter().map(delegate_json).collect::<Vec<_>>(),
            "grants": room.grants.iter().map(grant_json).collect::<Vec<_>>() })
}

fn access_json(record: &Access) -> Value {
    json!({
        "index": record.index,
        "at": when::text(record.at),
        "reader": record.reader,
        "name": record.name,
        "patient": record.is_patient,
        "distrusted": record.distrusted,
        "actor": record.actor,
        "purpose": purpose(record.purpose),
        "part": part(record.part),
        "categories": record.categories,
        "from": record.from.map(hour),
        "until": record.until.map(hour),
        "granted": record.refused.is_none(),
        "refused": record.refused.map(|why| why.to_string()),
        "code": record.refused.map(|why| why.code()),
        "count": record.count,
    })
}
