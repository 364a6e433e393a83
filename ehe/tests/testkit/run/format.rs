//! Bytes and identifiers: decode and encode again, events, frames, room ids, shards.

use core::num::NonZeroU16;

use ehe::cbor;
use ehe::charter::{Charter, CharterChain, SignedCharter};
use ehe::control::{Authority, EpochRecord, Grant, Private, Revoke, RoomCreate, WrapRecord};
use ehe::event::{Core, Event, Header};
use ehe::id::{RoomId, WrapId};
use ehe::identity::PublicIdentity;
use ehe::leaf::{Leaf, Receipt};
use ehe::ledger::wrap_of;
use ehe::limits;
use ehe::read::{AccessRecord, ReadRequest};
use ehe::run::Run;
use ehe::void::VoidRecord;
use ehe::wire::{Head, HeadStatement, Item, Request, Response, Submission};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Facts, Fault};
use crate::json::{Members, h};

fn again<'b, T: minicbor::Decode<'b, ()> + minicbor::Encode<()>>(bytes: &'b [u8], limit: usize) -> Result<(), Fault> {
    let value: T = cbor::from_slice(bytes, limit)?;
    assert_eq!(cbor::to_vec(&value), bytes, "what decodes encodes to the same bytes");
    Ok(())
}

/// The bytes, and as many arrays of one item behind them as the case says.
fn bytes_of(input: &Value) -> Vec<u8> {
    let mut bytes = input.bytes("bytes");
    let nested = input.get("nested").map_or(0, |nested| nested.as_u64().unwrap());
    bytes.resize(bytes.len() + usize::try_from(nested).unwrap(), 0x81);
    bytes
}

pub(super) fn decode(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let bytes = bytes_of(input);
    facts.insert("sha256".into(), h(Sha256::digest(&bytes)));
    let bytes = bytes.as_slice();
    match input.text("type") {
        "PublicIdentity" => again::<PublicIdentity>(bytes, limits::FRAME_MAX_BYTES),
        "Core" => again::<Core>(bytes, limits::HEADER_MAX_BYTES),
        "Header" => again::<Header>(bytes, limits::HEADER_MAX_BYTES),
        "Event" => again::<Event>(bytes, limits::FRAME_MAX_BYTES),
        "Run" => again::<Run>(bytes, limits::RUN_MAX_BYTES),
        "RoomCreate" => again::<RoomCreate>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "Authority" => again::<Authority>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "EpochRecord" => again::<EpochRecord>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "Grant" => again::<Grant>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "Revoke" => again::<Revoke>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "WrapRecord" => again::<WrapRecord>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "Private" => again::<Private>(bytes, limits::CONTROL_BODY_MAX_BYTES),
        "ReadRequest" => again::<ReadRequest>(bytes, limits::READ_REQUEST_MAX_BYTES),
        "AccessRecord" => again::<AccessRecord>(bytes, limits::ACCESS_RECORD_MAX_BYTES),
        "VoidRecord" => again::<VoidRecord>(bytes, limits::VOID_RECORD_MAX_BYTES),
        "Leaf" => again::<Leaf>(bytes, limits::FRAME_MAX_BYTES),
        "Receipt" => again::<Receipt>(bytes, limits::FRAME_MAX_BYTES),
        "Head" => again::<Head>(bytes, limits::FRAME_MAX_BYTES),
        "HeadStatement" => again::<HeadStatement>(bytes, limits::FRAME_MAX_BYTES),
        "Submission" => again::<Submission>(bytes, limits::SUBMISSION_MAX_BYTES),
        "Item" => again::<Item>(bytes, limits::FRAME_MAX_BYTES),
        "Charter" => again::<Charter>(bytes, limits::CHARTER_MAX_BYTES),
        "SignedCharter" => {
            assert_eq!(SignedCharter::decode(bytes)?.encode(), bytes);
            Ok(())
        }
        "CharterChain" => {
            assert_eq!(CharterChain::decode(bytes)?.encode(), bytes);
            Ok(())
        }
        other => panic!("no type {other}"),
    }
}

pub(super) fn frame(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let bytes = bytes_of(input);
    let (length, message) = bytes.split_first_chunk::<4>().ok_or_else(|| Fault::new("no length"))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
    if length > limits::FRAME_MAX_BYTES || length != message.len() {
        return Err(Fault::new("length"));
    }
    let again = match input.text("direction") {
        "request" => Request::decode(message)?.to_vec(),
        "response" => Response::decode(message)?.to_vec(),
        other => panic!("no direction {other}"),
    };
    assert_eq!(again, message);
    facts.insert("number".into(), json!(crate::value::Cbor::parse(message).at(0).to_vec()[0]));
    Ok(())
}

fn event_of(input: &Value) -> Event {
    let body = match input.get("zeros") {
        Some(zeros) => vec![0; usize::try_from(zeros.as_u64().unwrap()).unwrap()],
        None => input.bytes("body"),
    };
    Event { header: input.bytes("header"), body }
}

pub(super) fn event(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let event = event_of(input).check()?;
    facts.insert("id".into(), h(event.id().0));
    facts.insert("wrap_id".into(), h(WrapId::from(event.id()).0));
    facts.insert("core".into(), h(cbor::to_vec(event.core())));
    Ok(())
}

pub(super) fn wrap_record(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let (id, author, record) = wrap_of(event_of(input)).ok_or_else(|| Fault::new("no wrap"))?;
    if id != WrapId(input.fixed("named")) {
        return Err(Fault::new("another wrap"));
    }
    facts.insert("author".into(), h(author.0));
    facts.insert("epoch".into(), h(record.epoch.0));
    facts.insert("day".into(), json!(record.day.0));
    Ok(())
}

pub(super) fn room_id(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let create: RoomCreate = cbor::from_slice(&input.bytes("plain"), limits::CONTROL_BODY_MAX_BYTES)?;
    facts.insert("room".into(), h(create.room_id().0));
    facts.insert("owner".into(), h(create.owner.author_id().0));
    Ok(())
}

/// Also refuses a room that is asked of the wrong shard.
pub(super) fn shard(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let count = u16::try_from(input.number("shard_count")).ok().and_then(NonZeroU16::new);
    let count = count.ok_or_else(|| Fault::new("shard count"))?;
    let shard = RoomId(input.fixed("room")).shard(count);
    facts.insert("shard".into(), json!(shard));
    if input.get("asked").is_some_and(|asked| *asked != json!(shard)) {
        return Err(Fault { refusal: Some(60), why: "another shard".into() });
    }
    Ok(())
}
