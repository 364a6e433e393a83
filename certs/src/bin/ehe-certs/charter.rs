//! `charter example`, `charter new`, `charter sign`, `charter show`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use certs::charter_file::{CHARTER_FILE_MAX_BYTES, CharterFile, EXAMPLE};
use certs::{file, identity_file, store};
use ehe::charter::{Changes, Charter, CharterChain, CharterError, Placement, Role, SignedCharter, Trust};
use ehe::id::AllianceId;
use serde_json::{Value, json};

use crate::args::{NewCharter, SignCharter, UnlockAll};
use crate::show::print;

const REMEDY: &str = "make one with `ehe-certs charter new`";

pub(crate) fn example(out: &mut dyn Write) -> anyhow::Result<()> {
    Ok(write!(out, "{EXAMPLE}")?)
}

pub(crate) fn new(args: &NewCharter, out: &mut dyn Write) -> anyhow::Result<()> {
    let before = args.after.as_deref().map(store::load_charter).transpose()?;
    if args.out.exists() && args.after.as_ref() != Some(&args.out) {
        bail!("{} is there already: a charter follows another with --after, or goes to a new file", args.out.display());
    }
    let text = file::read_text(
        &args.from,
        CHARTER_FILE_MAX_BYTES,
        "write the charter's description first (`ehe-certs charter example` prints one)",
    )?;
    let base = args.from.parent().unwrap_or(Path::new("."));
    let verified = before.as_ref().map(|(verified, _)| verified);
    let charter = CharterFile::parse(&text)
        .and_then(|description| description.charter(base, verified))
        .with_context(|| args.from.display().to_string())?;
    let signed = SignedCharter::unsigned(&charter).with_context(|| args.from.display().to_string())?;
    let mut chain = before.map(|(_, chain)| chain).unwrap_or_default();
    chain.0.push(signed);
    judged(&chain).with_context(|| args.from.display().to_string())?;
    tell_and_sign(&args.out, chain, (&args.sign, &args.keys), out)
}

pub(crate) fn sign(args: &SignCharter, out: &mut dyn Write) -> anyhow::Result<()> {
    let chain = store::read_charters(&args.file, REMEDY)?;
    tell_and_sign(&args.file, chain, (&args.with, &args.keys), out)
}

/// Says what the newest charter changes, before anybody gives a passphrase for it; signs, and writes it unless that made it one that nobody
/// would ever accept.
fn tell_and_sign(
    path: &Path,
    mut chain: CharterChain,
    (identities, keys): (&[PathBuf], &UnlockAll),
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    judged(&chain).with_context(|| path.display().to_string())?;
    if let Some(changes) = changes(&chain)? {
        writeln!(out, "{changes}")?;
    }
    let newest = chain.0.last_mut().with_context(|| format!("{} holds no charter", path.display()))?;
    sign_with(newest, identities, keys)?;
    let verdict = judged(&chain).with_context(|| format!("nothing was written to {}", path.display()))?;
    file::replace(path, &chain.encode())?;
    report(path, &chain, &verdict, out)
}

/// What the newest charter changes against the one before it; none of charter 1.
fn changes(chain: &CharterChain) -> anyhow::Result<Option<Changes>> {
    match chain.0.as_slice() {
        [.., before, newest] => Ok(Some(newest.read()?.changes(&before.read()?))),
        _ => Ok(None),
    }
}

fn sign_with(signed: &mut SignedCharter, identities: &[PathBuf], keys: &UnlockAll) -> anyhow::Result<()> {
    let charter = signed.read()?;
    for (path, passphrase) in identities.iter().zip(keys.sources(identities.len())?) {
        let identity = identity_file::open(path, &passphrase)?;
        // The rest of a quorum may be of the charter before; a signature of nobody at all would refuse the whole.
        if charter.version == 1 && charter.members.iter().all(|m| m.identity.author_id() != identity.author_id()) {
            bail!("{} is no member of this charter: its signature would make the charter invalid", path.display());
        }
        signed.sign(&identity)?;
    }
    Ok(())
}

fn verdict(chain: &CharterChain) -> Result<AllianceId, CharterError> {
    let alliance = chain.claimed_alliance().ok_or(CharterError::EmptyChain)?;
    chain.verify(alliance).map(|verified| verified.alliance_id())
}

/// As [`verdict`], where signatures that are still missing are no error.
fn judged(chain: &CharterChain) -> Result<Verdict, CharterError> {
    match verdict(chain) {
        Ok(alliance) => Ok(Verdict::Valid(alliance)),
        // Of the newest alone: a chain whose earlier ones lack some was never one.
        Err(CharterError::Quorum { signed, needed }) if earlier_are_valid(chain) => {
            Ok(Verdict::Waits { signed, needed })
        }
        Err(error) => Err(error),
    }
}

enum Verdict {
    Valid(AllianceId),
    Waits { signed: usize, needed: usize },
}

fn earlier_are_valid(chain: &CharterChain) -> bool {
    let earlier = chain.0.split_last().map(|(_, earlier)| earlier).unwrap_or_default();
    earlier.is_empty() || verdict(&CharterChain(earlier.to_vec())).is_ok()
}

fn report(path: &Path, chain: &CharterChain, verdict: &Verdict, out: &mut dyn Write) -> anyhow::Result<()> {
    let version = chain.0.last().map(SignedCharter::read).transpose()?.map_or(0, |charter| charter.version);
    writeln!(out, "charter {version} in {}", path.display())?;
    match verdict {
        Verdict::Valid(alliance) => writeln!(out, "valid; alliance {alliance}")?,
        Verdict::Waits { signed, needed } => writeln!(
            out,
            "not valid yet: {}; the others: ehe-certs charter sign {} --with IDENTITY",
            missing(*signed, *needed),
            path.display()
        )?,
    }
    Ok(())
}

/// How far the signing is.
pub(crate) fn missing(signed: usize, needed: usize) -> String {
    format!("{signed} of the {needed} signatures that are needed are there")
}

pub(crate) fn show(path: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    print(&to_json(&store::read_charters(path, REMEDY)?)?, out)
}

/// The newest charter of a chain as JSON; `valid` says whether it and all before it verify.
pub(crate) fn to_json(chain: &CharterChain) -> anyhow::Result<Value> {
    let newest = chain.0.last().context("the file holds no charter")?;
    let charter = newest.read()?;
    let verdict = verdict(chain);
    // A charter that is only on its own may lie; its claims are shown, and that they are claims.
    let first_alone =
        matches!(newest.verify(Trust::Pinned(AllianceId(newest.hash().0))), Ok(_) | Err(CharterError::Quorum { .. }));
    Ok(json!({
        "type": "charter",
        "valid": verdict.is_ok(),
        "why_not": verdict.as_ref().err().map(ToString::to_string),
        "alliance_id": chain.claimed_alliance().filter(|_| verdict.is_ok() || first_alone),
        "versions": chain.0.len(),
        "hash": newest.hash(),
        "signed_by": newest.signers()?,
        // By what the charter before says of itself: whether that is valid, `valid` tells.
        "changes": changes(chain)?.map(|changes| changes.lines().to_vec()),
        "charter": content(&charter),
    }))
}

fn content(charter: &Charter) -> Value {
    let roles = |set: ehe::charter::RoleSet| set.iter().map(Role::as_str).collect::<Vec<_>>();
    json!({
        "version": charter.version,
        "alliance": charter.alliance,
        "predecessor": charter.predecessor,
        "shards": charter.shard_count,
        "head_fresh_ms": charter.head_fresh_ms,
        "min_cosignatures": charter.min_cosignatures,
        "rules": charter.rules(),
        "members": charter.members.iter().map(|m| json!({
            "id": m.id, "name": m.name, "author": m.identity.author_id(),
        })).collect::<Vec<_>>(),
        "nodes": charter.nodes.iter().map(|n| json!({
            "id": n.id, "member": n.member, "name": n.name, "sign_key": ehe::id::hex(&n.sign.0), "addresses": n.addresses,
        })).collect::<Vec<_>>(),
        "placement": match &charter.placement {
            Placement::Everywhere(group) => json!({ "everywhere": group }),
            Placement::Listed(groups) => json!({ "shards": groups }),
        },
        "permissions": {
            "submit": roles(charter.permissions.submit),
            "read": roles(charter.permissions.read),
            "host": roles(charter.permissions.host),
        },
    })
}
