//! Keys, delegates, recovery: as text for people, or as one JSON value a line.

use std::path::Path;

use ehe::control::Rights;
use ehe::id::{AuthorId, RoomId};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Printer, plain};
use crate::authority::{DelegateLine, KeyLine, LeftGrant, Moved, Renewed, Standing};
use crate::error::Error;
use crate::scope::names;
use crate::view::ControlLine;
use crate::when;

/// A new recovery key, or the file that it went to.
type Shown<'a> = (Option<Zeroizing<String>>, Option<&'a Path>);

fn rights(rights: Rights) -> Vec<&'static str> {
    let all = [(Rights::GRANT, "grant"), (Rights::REVOKE, "revoke"), (Rights::EPOCH, "epoch")];
    all.into_iter().filter(|(right, _)| rights.hold(*right)).map(|(_, name)| name).collect()
}

fn delegate_state(delegate: &DelegateLine) -> String {
    match (delegate.ended, delegate.expires) {
        (Some(at), _) => format!("ended {}", when::shown(at)),
        (None, Some(expires)) => format!("expires {}", when::shown(expires)),
        (None, None) => "holds".into(),
    }
}

impl Printer<'_> {
    /// Who may speak for the patient of a room.
    pub fn standing(&mut self, standing: &Standing) -> Result<(), Error> {
        if self.is_json() {
            let key =
                |key: &KeyLine| json!({ "keys": key.id, "from": key.from, "distrusted_from": key.distrusted_from });
            let delegate = |d: &DelegateLine| {
                json!({ "delegate": d.id, "name": d.name, "may": rights(d.rights), "state": delegate_state(d),
                        "expires": d.expires.and_then(when::text), "ended": d.ended.is_some() })
            };
            let control = |c: &ControlLine| json!({ "number": c.seq, "at": when::text(c.at), "by": c.author, "what": c.what, "whom": c.whom });
            return self.value(&json!({
                "room": standing.room, "patient": standing.patient, "recovery": standing.recovery,
                "keys": standing.keys.iter().map(key).collect::<Vec<Value>>(),
                "delegates": standing.delegates.iter().map(delegate).collect::<Vec<Value>>(),
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
            let row = |d: &DelegateLine| {
                let name = d.name.clone().unwrap_or_default();
                vec![d.id.to_string(), rights(d.rights).join(", "), delegate_state(d), name]
            };
            self.line("")?;
            self.table(&["delegate", "may", "state", "name"], &standing.delegates.iter().map(row).collect::<Vec<_>>())?;
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
            return self.value(&json!({ "keys": moved.keys, "recovery": recovery, "recovery_file": file,
                                       "new_keys": renewed, "old_keys": kept, "unknown_keys": unknown }));
        }
        self.line(format!("the patient's keys are {} from now on; the keys before are refused", moved.keys))?;
        self.renewed(&moved.renewed)
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
