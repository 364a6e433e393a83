//! Identities, signatures, runs, strands.

use ehe::cbor;
use ehe::cose::{Domain, Unverified};
use ehe::id::{EheId, Hash, NodeId, StrandId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::{self, KemPublic, KemSecret};
use ehe::limits;
use ehe::recovery::RecoveryKey;
use ehe::run::{SignedRun, StrandEnd};
use ehe::sign::{SignKey, VerifyKey};
use serde_json::{Value, json};

use super::{Facts, Fault};
use crate::json::{Members, h};

/// The identity of two seeds.
pub(super) fn secret(keys: &Value, name: &str) -> Identity {
    let keys = &keys[name];
    Identity::new(SignKey::from_seed(&keys.fixed("sign")), KemSecret::from_seed(keys.fixed("kem").into()))
}

/// From seeds to public keys to ids; or public keys alone.
pub(super) fn identity(keys: &Value, input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let public = if keys.is_null() {
        let kem = KemPublic::from_slice(&input.bytes("kem")).ok_or_else(|| Fault::new("length"))?;
        if !kem::is_public_key(&kem) {
            return Err(Fault::new("no X-Wing key"));
        }
        PublicIdentity { sign: VerifyKey(input.fixed("sign")), kem }
    } else {
        secret(keys, "identity").public().clone()
    };
    let author = public.author_id();
    if let Some(claimed) = input.get("claimed")
        && *claimed != h(author.0)
    {
        return Err(Fault::new("another author id"));
    }
    facts.insert("sign".into(), h(public.sign.0));
    facts.insert("kem".into(), h(public.kem.as_bytes()));
    facts.insert("encoded".into(), h(cbor::to_vec(&public)));
    facts.insert("author".into(), h(author.0));
    facts.insert("node".into(), h(&author.0[..NodeId::LEN]));
    Ok(())
}

/// From the printed key to the identity.
pub(super) fn recovery_key(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let key: RecoveryKey = input.text("text").parse()?;
    let identity = key.identity();
    let commitment = identity.public().commitment();
    facts.insert("text".into(), json!(key.to_text().as_str()));
    facts.insert("sign_seed".into(), h(identity.sign_key().to_seed().as_slice()));
    facts.insert("kem_seed".into(), h(identity.kem_secret().seed().as_slice()));
    facts.insert("author".into(), h(identity.author_id().0));
    facts.insert("commitment".into(), h(commitment.0));
    if input.get("commitment").is_some_and(|claimed| *claimed != h(commitment.0)) {
        return Err(Fault::new("another commitment"));
    }
    Ok(())
}

pub(super) fn signature(input: &Value) -> Result<(), Fault> {
    let key = VerifyKey(input.fixed("key"));
    Ok(key.verify(&input.bytes("message"), &input.fixed("signature"))?)
}

fn domain(purpose: &str) -> (Domain, usize) {
    match purpose {
        "run" => (Domain::Run, limits::RUN_MAX_BYTES),
        "read request" => (Domain::ReadRequest, limits::READ_REQUEST_MAX_BYTES),
        "charter" => (Domain::Charter, 256),
        "enrolment" => (Domain::Enrolment, 256),
        "head" => (Domain::Head, limits::HEAD_SIGNATURE_MAX_BYTES),
        "restoration" => (Domain::Restoration, 256),
        "possession" => (Domain::Possession, limits::POSSESSION_MAX_BYTES),
        other => panic!("no purpose {other}"),
    }
}

pub(super) fn cose(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let (domain, limit) = domain(input.text("purpose"));
    let cose = Unverified::decode(&input.bytes("bytes"), limit)?;
    facts.insert("signer".into(), h(cose.signer().0));
    facts.insert("payload".into(), h(cose.payload()));
    Ok(cose.verify(domain, &VerifyKey(input.fixed("key")))?)
}

pub(super) fn run(input: &Value, facts: &mut Facts) -> Result<(), Fault> {
    let run = SignedRun(input.bytes("run")).decode()?.verify(&VerifyKey(input.fixed("key")))?;
    let end = run.run().end();
    facts.insert("hash".into(), h(run.hash().0));
    facts.insert("ids".into(), json!(run.run().ids.iter().map(|id| id.to_string()).collect::<Vec<_>>()));
    facts.insert("end".into(), end_json(&end));
    Ok(())
}

pub(crate) fn end_json(end: &StrandEnd) -> Value {
    json!({"strand": end.strand.to_string(), "next": end.next, "link": end.link.to_string()})
}

/// Links ids one by one and compares with the end that is claimed.
pub(super) fn strand(input: &Value) -> Result<(), Fault> {
    let of = |v: &Value| StrandEnd {
        strand: StrandId(v.fixed("strand")),
        next: v.number("next"),
        link: Hash(v.fixed("link")),
    };
    let ids: Vec<EheId> = input.list("ids").iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect();
    let found = of(&input["from"]).after(&ids);
    if found == of(&input["end"]) { Ok(()) } else { Err(Fault::new("another end")) }
}
