//! `restoration sign`, `restoration show`: what was kept of logs that were lost, in words, before anybody signs it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use certs::told::kept_and_lost;
use certs::{file, identity_file, store};
use ehe::charter::VerifiedCharter;
use ehe::limits::{RESTORATION_MAX_BYTES, SHARDS_MAX};
use ehe::restoration::{RestorationError, SignedRestoration, decode_all, encode_all};

use crate::args::{ShowRestoration, SignRestoration, UnlockAll};
use crate::charter::missing;

const FILE_MAX_BYTES: usize = SHARDS_MAX as usize * (RESTORATION_MAX_BYTES + 5) + 5;

pub(crate) fn sign(args: &SignRestoration, out: &mut dyn Write) -> anyhow::Result<()> {
    let (mut records, charters) = read(&args.what)?;
    tell(&args.what, &records, &charters, out)?;
    sign_with(&mut records, &charters, &args.with, &args.keys)?;
    file::replace(&args.what.file, &encode_all(&records))?;
    verdict(&args.what, &records, &charters, out)
}

pub(crate) fn show(args: &ShowRestoration, out: &mut dyn Write) -> anyhow::Result<()> {
    let (records, charters) = read(args)?;
    tell(args, &records, &charters, out)?;
    verdict(args, &records, &charters, out)
}

fn read(args: &ShowRestoration) -> anyhow::Result<(Vec<SignedRestoration>, Vec<VerifiedCharter>)> {
    let bytes = file::read_public(&args.file, FILE_MAX_BYTES, "`ehe-node restore --propose` writes it")?;
    let records = decode_all(&bytes, FILE_MAX_BYTES).with_context(|| args.file.display().to_string())?;
    let (newest, chain) = store::load_charter(&args.charter)?;
    Ok((records, chain.verify_each(newest.alliance_id())?))
}

fn sign_with(
    records: &mut [SignedRestoration],
    charters: &[VerifiedCharter],
    identities: &[PathBuf],
    keys: &UnlockAll,
) -> anyhow::Result<()> {
    for (path, passphrase) in identities.iter().zip(keys.sources(identities.len())?) {
        let identity = identity_file::open(path, &passphrase)?;
        for record in &mut *records {
            let version = record.read()?.charter_version;
            let charter = charters.iter().find(|charter| charter.version() == version);
            let members = charter.map(VerifiedCharter::members).unwrap_or_default();
            if members.iter().all(|member| member.identity.author_id() != identity.author_id()) {
                bail!(
                    "{} is no member under charter {version}: its signature would make the record invalid",
                    path.display()
                );
            }
            record.sign(&identity)?;
        }
    }
    Ok(())
}

/// What a member agrees to by signing. Nothing is signed of which a checkpoint does not stand.
fn tell(
    args: &ShowRestoration,
    records: &[SignedRestoration],
    charters: &[VerifiedCharter],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for record in records {
        let (said, known) = record.sound(charters).with_context(|| args.file.display().to_string())?;
        writeln!(
            out,
            "shard {}, incarnation {}: {}; goes on as incarnation {}; root {}; state {}",
            said.shard,
            said.incarnation,
            kept_and_lost(&said, known),
            said.incarnation.saturating_add(1),
            said.root,
            said.state,
        )?;
    }
    Ok(())
}

fn verdict(
    args: &ShowRestoration,
    records: &[SignedRestoration],
    charters: &[VerifiedCharter],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    for record in records {
        match record.verify(record.read()?.shard, charters) {
            Ok(_) => {}
            Err(RestorationError::Quorum { signed, needed }) => {
                writeln!(
                    out,
                    "not valid yet: {}; the others: ehe-certs restoration sign {} --charter {} --with IDENTITY",
                    missing(signed, needed),
                    args.file.display(),
                    args.charter.display()
                )?;
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| args.file.display().to_string()),
        }
    }
    writeln!(out, "valid: {} records in {}", records.len(), args.file.display())?;
    Ok(())
}
