//! `show`: what a file holds, as JSON; never a secret.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use certs::authority::read_certificate;
use certs::certificate::{AuthorityFacts, Facts};
use certs::enrol::EnrolmentRequest;
use certs::told::utc;
use certs::{file, identity_file};
use ehe::charter::{CHAIN_MAX_BYTES, CharterChain};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::charter;

pub(crate) fn show(path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let bytes = Zeroizing::new(file::read_public(path, CHAIN_MAX_BYTES, "name a file to show")?);
    let value = recognise(path, &bytes).with_context(|| path.display().to_string())?;
    print(&value, out)
}

fn recognise(path: &Path, bytes: &[u8]) -> anyhow::Result<Value> {
    if let Ok(chain) = CharterChain::decode(bytes) {
        return charter::to_json(&chain);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { bail!("not a file of this program") };
    if text.contains("-----BEGIN CERTIFICATE-----") {
        return match AuthorityFacts::from_pem(bytes) {
            Some(facts) => Ok(authority(&facts)),
            None => Ok(certificate(&read_certificate(text)?)),
        };
    }
    if text.contains("PRIVATE KEY-----") {
        return Ok(json!({ "type": "private key", "secret": true, "passphrase": false }));
    }
    if text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") {
        return Ok(json!({ "type": "private key", "secret": true, "passphrase": true }));
    }
    if let Ok(identity) = identity_file::parse_public(text) {
        return Ok(json!({ "type": "public identity", "author": identity.author_id() }));
    }
    match serde_json::from_str::<Kind>(text).map(|kind| kind.r#type) {
        Ok(kind) if kind == "ehe identity" => {
            let (author, protected) = identity_file::glance(path)?;
            Ok(json!({ "type": "identity", "secret": true, "author": author, "passphrase": protected }))
        }
        Ok(kind) if kind == "ehe enrolment request" => {
            let request = EnrolmentRequest::from_text(text)?.verify()?;
            let host = request.host_names();
            Ok(json!({
                "type": "enrolment request",
                "peer": request.peer().to_string(),
                "role": request.peer().role(),
                "author": request.identity().author_id(),
                "dns": host.dns,
                "ip": host.ip,
            }))
        }
        _ => bail!("not a file of this program"),
    }
}

#[derive(serde::Deserialize)]
struct Kind {
    r#type: String,
}

fn certificate(facts: &Facts) -> Value {
    json!({
        "type": "certificate",
        "peer": facts.peer.to_string(),
        "role": facts.peer.role(),
        "serial": facts.serial.to_string(),
        "not_before": utc(facts.not_before_unix_s),
        "not_after": utc(facts.not_after_unix_s),
        "dns": facts.dns,
        "ip": facts.ip,
        "issuer": facts.issuer,
    })
}

fn authority(facts: &AuthorityFacts) -> Value {
    json!({
        "type": "authority",
        "name": facts.name,
        "serial": facts.serial.to_string(),
        "not_before": utc(facts.not_before_unix_s),
        "not_after": utc(facts.not_after_unix_s),
    })
}

pub(crate) fn print(value: &Value, out: &mut dyn Write) -> anyhow::Result<()> {
    Ok(writeln!(out, "{}", serde_json::to_string_pretty(value)?)?)
}
