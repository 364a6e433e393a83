//! Keys, delegates, recovery: as text for people, or as one JSON value a line.

use std::path::Path;

use ehe::control::Rights;
use ehe::id::{AuthorId, RoomId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::admin::grant_json;
use super::{Printer, plain};
use crate::authority::{DelegateLine, KeyLine, LeftGrant, Moved, Renewed, Standing};
use crate::error::Error;
use crate::in_force::InForce;
use crate::scope::names;
use crate::view::ControlLine;
use crate::when;

/// A new recovery key, or the file that it went to.
type Shown<'a> = (Option<Zeroizing<String>>, Option<&'a Path>);

pub(super) fn rights(rights: Rights) -> Vec<&'static str> {
    rights.names().collect()
}

fn delegate_state(delegate: &DelegateLine) -> String {
    match (delegate.ended, delegate.expires) {
        (Some(at), _) => format!("ended {}", when::shown(at)),
        (None, Some(expires)) => format!("expires {}", when::shown(expires)),
        (None, None) => "holds".into(),
    }
}

pub(super) fn delegate_json(d: &DelegateLine) -> Value {
    json!({ "delegate": d.id, "name": d.name, "may": rights(d.rights), "state": delegate_state(d),
            "expires": d.expires.and_then(when::text), "ended": d.ended.is_some() })
}

impl Printer<'_> {
    /// Delegates, as a table.
    pub(super) fn delegates(&mut self, delegates: &[DelegateLine]) -> Result<(), Error> {
        let row = |d: &DelegateLine| {
            let name = d.name.clone().unwrap_or_default();
            vec![d.id.to_string(), rights(d.rights).join(", "), delegate_state(d), name]
        };
        self.table(&["delegate", "may", "state", "name"], &delegates.iter().map(row).collect::<Vec<_>>())
    }

    /// Who may speak for the patient of a room.
    pub fn standing(&mut self, standing: &Standing) -> Result<(), Error> {
        if self.is_json() {
            let key =
                |key: &KeyLine| json!({ "keys": key.id, "from": key.from, "distrusted_from": key.distrusted_from });
            let control = |c: &ControlLine| json!({ "number": c.seq, "at": when::text(c.at), "by": c.author, "what": c.what, "whom": c.whom });
            return self.value(&json!({
                "room": standing.room, "patient": standing.patient, "recovery": standing.recovery,
                "keys": standing.keys.iter().map(key).collect::<Vec<Value>>(),
                "delegates": standing.delegates.iter().map(delegate_json).collect::<Vec<Value>>(),
                "control": standing.control.iter().map(control).collect::<Vec<Value>>(),
            }));
        }
        self.line(format!("room      {}", standing.room))?;
        self.line(format!("patient   {}", standing.patient))?;
        self.line(if standing.recovery {
            "recovery  there is a recovery key"
        } else {
            "recovery  NONE: if the patient's keys are lost, nobody can replace them (ehe authority set-recovery)"
        })?;
        let last = standing.keys.len().saturating_sub(1);
        let row = |(n, key): (usize, &KeyLine)| {
            let state = match key.distrusted_from {
                Some(from) => format!("distrusted from {from} on"),
                None if n == last => "present".into(),
                None => "replaced".into(),
            };
            vec![key.id.to_string(), key.from.to_string(), state]
        };
        self.line("")?;
        self.table(&["keys", "from", "state"], &standing.keys.iter().enumerate().map(row).collect::<Vec<_>>())?;
        if !standing.delegates.is_empty() {
            self.line("")?;
            self.delegates(&standing.delegates)?;
        }
        let row = |c: &ControlLine| {
            let by = if c.author == standing.patient { "patient".to_owned() } else { c.author.to_string() };
            let whom = c.whom.map(|whom| whom.to_string()).unwrap_or_default();
            vec![c.seq.to_string(), when::shown(c.at), by, c.what.to_owned(), whom]
        };
        self.line("")?;
        self.table(&["number", "at", "by", "what", "whom"], &standing.control.iter().map(row).collect::<Vec<_>>())
    }

    /// A room whose patient has other keys now.
    pub fn moved(&mut self, moved: &Moved, (key, file): Shown<'_>) -> Result<(), Error> {
        let Renewed { renewed, kept, unknown } = &moved.renewed;
        if self.is_json() {
            let recovery = key.as_deref().map(String::as_str);
            let InForce { grants, delegates, .. } = &moved.in_force;
            return self.value(&json!({ "keys": moved.keys, "recovery": recovery, "recovery_file": file,
                                       "new_keys": renewed, "old_keys": kept, "unknown_keys": unknown,
                                       "grants": grants.iter().map(grant_json).collect::<Vec<_>>(),
                                       "delegates": delegates.iter().map(delegate_json).collect::<Vec<_>>() }));
        }
        self.line(format!("the patient's keys are {} from now on; the keys before are refused", moved.keys))?;
        self.renewed(&moved.renewed)
    }

    /// What others may go on doing after a recovery: whoever made it knows which of it was meant.
    pub fn in_force(&mut self, room: RoomId, in_force: &InForce) -> Result<(), Error> {
        if in_force.grants.is_empty() && in_force.delegates.is_empty() {
            return self.line("no grants and no delegations stay in force");
        }
        self.line("these stay in force; end what you do not know:")?;
        if !in_force.grants.is_empty() {
            self.line(format!("\nehe revoke --room {room} --grant ID"))?;
            self.grants(&in_force.grants, in_force.patient)?;
        }
        if !in_force.delegates.is_empty() {
            self.line(format!("\nehe authority withdraw --room {room} --delegate ID"))?;
            self.delegates(&in_force.delegates)?;
        }
        Ok(())
    }

    /// New keys for categories.
    pub fn renewed(&mut self, renewed: &Renewed) -> Result<(), Error> {
        let Renewed { renewed, kept, unknown } = renewed;
        if self.is_json() {
            return self.value(&json!({ "new_keys": renewed, "old_keys": kept, "unknown_keys": unknown }));
        }
        if !renewed.is_empty() {
            self.line(format!("new keys for {}", names(renewed)))?;
        }
        if !kept.is_empty() {
            self.line(format!("the keys of {} could not be renewed: too many read them", names(kept)))?;
        }
        if *unknown > 0 {
            self.line(format!("{unknown} keys stay as they are: what they are for was not told to this identity"))?;
        }
        Ok(())
    }

    /// A delegation.
    pub fn delegated(&mut self, delegate: AuthorId) -> Result<(), Error> {
        if self.is_json() { self.value(&json!({ "delegate": delegate })) } else { self.line(delegate.to_string()) }
    }

    /// A delegation that ended.
    pub fn withdrawn(&mut self, room: RoomId, delegate: AuthorId, left: &[LeftGrant]) -> Result<(), Error> {
        if self.is_json() {
            let left = left.iter().map(|grant| json!({ "id": grant.id, "subject": grant.subject, "name": grant.name }));
            return self.value(&json!({ "withdrawn": delegate, "grants_left": left.collect::<Vec<_>>() }));
        }
        if left.is_empty() {
            return self.line(format!("withdrawn {delegate}; no grant that it made holds"));
        }
        self.line(format!("withdrawn {delegate}; these grants that it made still hold, end them one by one:"))?;
        for LeftGrant { id, subject, name } in left {
            let name = name.as_deref().map_or_else(|| "no name".into(), plain);
            self.line(format!("ehe revoke --room {room} --grant {id}   ({subject}, {name})"))?;
        }
        Ok(())
    }

    /// A recovery key that was given what it lacked.
    pub fn recovery_completed(&mut self, room: RoomId, keys: usize) -> Result<(), Error> {
        if self.is_json() {
            return self.value(&json!({ "room": room, "keys": keys }));
        }
        match keys {
            0 => self.line("the room's recovery key lacked none of the room's keys that this directory opens"),
            keys => self.line(format!("the room's recovery key was given {keys} keys that it lacked")),
        }
    }

    /// A recovery key that was set.
    pub fn recovery_set(&mut self, room: RoomId, (key, file): Shown<'_>) -> Result<(), Error> {
        if self.is_json() {
            let recovery = key.as_deref().map(String::as_str);
            return self.value(&json!({ "room": room, "recovery": recovery, "recovery_file": file }));
        }
        self.line(plain(&match file {
            Some(file) => format!("the room's recovery key is in {}", file.display()),
            None => "the room has a recovery key".to_owned(),
        }))
    }
}
