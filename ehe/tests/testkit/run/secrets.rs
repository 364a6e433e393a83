//! What needs a secret key: sealing, opening, wraps, the sealed part of a control event.

use ehe::cbor;
use ehe::control::Private;
use ehe::event::{Core, Event};
use ehe::id::{AuthorId, EpochId, Nonce, RoomId};
use ehe::kem::{self, KemSecret, Secret32, WrapPurpose, Wrapped};
use ehe::limits;
use ehe::seal;
use ehe::time::Day;
use serde_json::{Value, json};

use super::keys::secret;
use super::{Facts, Fault};
use crate::json::{Members, h};

pub(super) fn seal(keys: &Value, input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let core: Core = cbor::from_slice(&input.bytes("core"), limits::HEADER_MAX_BYTES)?;
    let plaintext = match input.get("zeros") {
        Some(zeros) => vec![0; usize::try_from(zeros.as_u64().unwrap()).unwrap()],
        None => input.bytes("plaintext"),
    };
    let event = seal::seal(&Secret32::from(keys.fixed("ek")), core, &plaintext)?;
    facts.insert("commitment".into(), h(event.header().commitment.0));
    facts.insert("header".into(), h(&event.event().header));
    facts.insert("body_bytes".into(), json!(event.body().len()));
    facts.insert("body".into(), h(event.body()));
    facts.insert("id".into(), h(event.id().0));
    Ok(())
}

pub(super) fn open(keys: &Value, input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let event = Event { header: input.bytes("header"), body: input.bytes("body") }.check()?;
    let plaintext = seal::open(&Secret32::from(keys.fixed("ek")), &event)?;
    facts.insert("plaintext".into(), h(plaintext.as_slice()));
    Ok(())
}

pub(super) fn unwrap(keys: &Value, input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let room = RoomId(input.fixed("room"));
    let purpose = match input.text("purpose") {
        "EK" => WrapPurpose::EventKey {
            room,
            author: AuthorId(input.fixed("author")),
            epoch: EpochId(input.fixed("epoch")),
            day: Day(u32::try_from(input.number("day")).unwrap()),
        },
        "GK" => WrapPurpose::GroupSeed {
            room,
            epoch: EpochId(input.fixed("epoch")),
            recipient: AuthorId(input.fixed("recipient")),
        },
        "part" => WrapPurpose::ControlPart {
            room,
            author: AuthorId(input.fixed("author")),
            salt: Nonce(input.fixed("salt")),
            recipient: AuthorId(input.fixed("recipient")),
        },
        other => panic!("no purpose {other}"),
    };
    let wrapped = Wrapped::from_slice(&input.bytes("wrapped")).ok_or_else(|| Fault::new("length"))?;
    let opened = kem::unwrap(&KemSecret::from_seed(keys.fixed("kem").into()), &purpose, &wrapped)?;
    facts.insert("secret".into(), h(opened.as_slice()));
    Ok(())
}

pub(super) fn private(keys: &Value, input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let event = Event { header: input.bytes("header"), body: input.bytes("body") }.check()?;
    let private = Private::open(&event, &secret(keys, "reader"))?.ok_or_else(|| Fault::new("nothing is sealed"))?;
    let categories: Vec<Value> = private
        .categories
        .iter()
        .map(|c| json!({"epoch": c.epoch.to_string(), "category": c.category.code()}))
        .collect();
    facts.insert("categories".into(), json!(categories));
    facts.insert("purpose".into(), json!(private.purpose));
    facts.insert("name".into(), json!(private.name));
    facts.insert("recovery".into(), json!(private.recovery.map(|recovery| recovery.author_id().to_string())));
    Ok(())
}
