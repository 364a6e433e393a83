//! The log: Merkle trees, checkpoints, receipts, heads, charters.

use core::convert::Infallible;

use ehe::cbor;
use ehe::charter::{CharterChain, VerifiedCharter};
use ehe::checkpoint::VerifiedCheckpoint;
use ehe::id::{AllianceId, Hash, Nonce, RoomId};
use ehe::leaf::Receipt;
use ehe::ledger::verify_head;
use ehe::limits;
use ehe::merkle::{self, Peaks};
use ehe::run::SignedRun;
use ehe::sign::VerifyKey;
use ehe::time::UnixMs;
use ehe::wire::Head;
use serde_json::{Value, json};

use super::{Facts, Fault};
use crate::json::{Members, h};

pub(super) fn root(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let mut peaks = Peaks::default();
    for leaf in input.list("leaves") {
        let leaf = merkle::leaf_hash(&crate::json::unhex(leaf.as_str().unwrap()));
        peaks.append(leaf, |_, _| Ok::<_, Infallible>(())).unwrap();
    }
    facts.insert("root".into(), h(peaks.root().0));
    if input.get("root").is_some_and(|claimed| *claimed != h(peaks.root().0)) {
        return Err(Fault::new("another root"));
    }
    Ok(())
}

fn hashes(input: &Value, key: &str) -> Vec<Hash> {
    input.list(key).iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
}

pub(super) fn inclusion(input: &Value) -> Result<(), Fault> {
    let (leaf, root) = (merkle::leaf_hash(&input.bytes("leaf")), Hash(input.fixed("root")));
    Ok(merkle::verify_inclusion(&leaf, input.number("index"), input.number("size"), &hashes(input, "proof"), &root)?)
}

pub(super) fn consistency(input: &Value) -> Result<(), Fault> {
    let (old, new) = (Hash(input.fixed("old_root")), Hash(input.fixed("new_root")));
    let (old, new) = ((input.number("old"), &old), (input.number("new"), &new));
    Ok(merkle::verify_consistency(old, new, &hashes(input, "proof"))?)
}

pub(super) fn verified_charter(input: &Value) -> Result<VerifiedCharter, Fault> {
    Ok(CharterChain::decode(&input.bytes("charter"))?.verify(AllianceId(input.fixed("alliance")))?)
}

/// The charter by which a checkpoint is judged that came with a receipt or a head (C2), and the newest. Nothing of the log was seen before.
pub(super) fn charter_at_hand(
    input: &Value,
    shard: impl FnOnce(&VerifiedCharter) -> u16,
    checkpoint: &str,
) -> Result<(VerifiedCharter, VerifiedCharter), Fault> {
    let charters = CharterChain::decode(&input.bytes("charter"))?.verify_each(AllianceId(input.fixed("alliance")))?;
    let newest = charters.last().unwrap().clone();
    let (shard, version) = (shard(&newest), VerifiedCheckpoint::charter_of(checkpoint)?);
    let named = charters.into_iter().find(|it| it.version() == version && it.is_at_hand(shard, &newest, 0));
    Ok((named.unwrap_or_else(|| newest.clone()), newest))
}

pub(super) fn charter(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let charter = verified_charter(input)?;
    facts.insert("version".into(), json!(charter.version()));
    facts.insert("hash".into(), h(charter.hash().0));
    if charter.rules() > 1 {
        facts.insert("rules".into(), json!(charter.rules()));
    }
    facts.insert("shard_count".into(), json!(charter.shard_count()));
    let shards = 0..charter.shard_count().get();
    facts.insert("quorums".into(), json!(shards.map(|shard| charter.quorum(shard)).collect::<Vec<_>>()));
    Ok(())
}

fn checkpoint_facts(checkpoint: &VerifiedCheckpoint, facts: &mut Facts) {
    let said = checkpoint.checkpoint();
    facts.insert("origin".into(), json!(said.origin));
    facts.insert("size".into(), json!(said.size));
    facts.insert("root".into(), h(said.root.0));
    facts.insert("ordering_party".into(), h(checkpoint.ordering_party().0));
    let cosigners: Vec<Value> =
        checkpoint.cosigners().iter().map(|(node, at)| json!({"node": node.to_string(), "at": at.0 / 1000})).collect();
    facts.insert("cosigners".into(), json!(cosigners));
}

pub(super) fn checkpoint(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let charter = verified_charter(input)?;
    let shard = u16::try_from(input.number("shard")).unwrap();
    checkpoint_facts(&VerifiedCheckpoint::verify(input.text("note"), shard, &charter)?, facts);
    Ok(())
}

pub(super) fn receipt(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let run = SignedRun(input.bytes("run")).decode()?.verify(&VerifyKey(input.fixed("key")))?;
    let receipt: Receipt = cbor::from_slice(&input.bytes("receipt"), limits::FRAME_MAX_BYTES)?;
    let room = run.run().room;
    let (charter, _) = charter_at_hand(input, |newest| room.shard(newest.shard_count()), &receipt.checkpoint)?;
    let verified = receipt.verify(&run, &charter)?;
    facts.insert("leaf_hash".into(), h(verified.leaf().hash().0));
    facts.insert("accepted_at".into(), json!(verified.leaf().accepted_at.0));
    checkpoint_facts(verified.checkpoint(), facts);
    Ok(())
}

pub(super) fn head(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let head: Head = cbor::from_slice(&input.bytes("head"), limits::FRAME_MAX_BYTES)?;
    let room = RoomId(input.fixed("room"));
    let shard = |newest: &VerifiedCharter| room.shard(newest.shard_count());
    let (charter, newest) = charter_at_hand(input, shard, &head.last.checkpoint)?;
    let checkpoint = verify_head(room, &head, Nonce(input.fixed("nonce")), &charter)?;
    facts.insert("size".into(), json!(checkpoint.checkpoint().size));
    facts.insert("entries".into(), json!(head.last.leaf.index + 1));
    let age = UnixMs(input.number("now")).since(head.at);
    if age > u64::from(newest.head_fresh_ms()) {
        return Err(Fault::new("stale"));
    }
    Ok(())
}
