//! Records of restored logs, and where they lead from what is remembered.

use ehe::charter::CharterChain;
use ehe::checkpoint::{VerifiedCheckpoint, log_origin};
use ehe::id::{AllianceId, Hash};
use ehe::restoration::{SignedRestoration, moved};
use ehe::run::SeenCheckpoint;
use serde_json::{Value, json};

use super::{Facts, Fault};
use crate::json::{Members, h, unhex};

pub(super) fn restoration(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let alliance = AllianceId(input.fixed("alliance"));
    let charters = CharterChain::decode(&input.bytes("charter"))?.verify_each(alliance)?;
    let shard = u16::try_from(input.number("shard")).unwrap();
    let mut records = Vec::new();
    for record in input.list("records") {
        records.push(SignedRestoration::decode(&unhex(record.as_str().unwrap()))?.verify(shard, &charters)?);
    }
    let said: Vec<Value> = records
        .iter()
        .map(|record| {
            let restoration = record.restoration();
            json!({"origin": record.origin(), "kept": restoration.kept, "root": h(restoration.root.0), "known": record.known()})
        })
        .collect();
    facts.insert("restored".into(), json!(said));
    let Some(remembered) = input.get("remembered") else { return Ok(()) };
    let newest = charters.last().unwrap();
    let shown = VerifiedCheckpoint::verify(input.text("shown"), shard, newest)?;
    let incarnation = u32::try_from(remembered.number("incarnation")).unwrap();
    let seen = SeenCheckpoint {
        origin: log_origin(alliance, shard, incarnation),
        size: remembered.number("size"),
        root: Hash(remembered.fixed("root")),
    };
    let under = remembered.get("charter").map_or(1, |_| u32::try_from(remembered.number("charter")).unwrap());
    let moved = moved(&records, incarnation, (&seen, under))?;
    moved.shows(&shown.checkpoint().seen())?;
    let lost: Vec<Value> = moved
        .lost
        .iter()
        .map(|lost| json!({"incarnation": lost.incarnation, "from": lost.from, "until": lost.until}))
        .collect();
    facts.insert(
        "kept".into(),
        json!({"origin": moved.kept.origin, "size": moved.kept.size, "root": h(moved.kept.root.0)}),
    );
    facts.insert("lost".into(), json!(lost));
    Ok(())
}
