//! `init`, `issue`, `install`, `revoke`: what the authority does.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use certs::authority::{Authority, read_certificate};
use certs::certificate::AuthorityFacts;
use certs::enrol::EnrolmentRequest;
use certs::file;
use certs::identity_file;
use certs::revocation::Which;
use certs::store::{load_charter, names};
use ehe::identity::PublicIdentity;
use time::OffsetDateTime;

use crate::args::{Init, Install, Issue, Revoke};
use crate::show::utc;

/// Largest public file that is copied: a chain of charters or a revocation list.
const COPY_MAX_BYTES: usize = 16 * 1024 * 1024;
const CERTIFICATE_MAX_BYTES: usize = 64 * 1024;

pub(crate) fn init(args: &Init, out: &mut dyn Write) -> anyhow::Result<()> {
    let protection = args.key.protection(&args.out.join(names::CA_KEY))?;
    let authority = Authority::create_with(&args.out, &args.name, args.days, OffsetDateTime::now_utc(), &protection)?;
    writeln!(out, "made the authority of {:?} in {}", args.name, authority.dir().display())?;
    writeln!(
        out,
        "  {}  the authority's private key: keep this directory on a machine without a network",
        names::CA_KEY
    )?;
    writeln!(out, "  {}  what everybody installs", names::CA)?;
    Ok(())
}

pub(crate) fn issue(args: &Issue, out: &mut dyn Write) -> anyhow::Result<()> {
    let request = EnrolmentRequest::load(&args.request)
        .and_then(|request| request.verify())
        .with_context(|| format!("{} is refused", args.request.display()))?;
    let charter = args.authority.join(names::CHARTER);
    if let Some(dir) = &args.into {
        refuse_another_alliance(dir, &args.authority, &charter)?;
        refuse_another_identity(dir, request.identity())?;
    }
    // What was asked for is judged before anybody types a passphrase.
    let authority = Authority::open_with(&args.authority, &args.key.source())?;
    let issued = authority.issue(&request, args.role, args.days, OffsetDateTime::now_utc())?;
    if let Some(path) = &args.out {
        file::replace(path, issued.pem.as_bytes())?;
    }
    if let Some(dir) = &args.into {
        file::create_dir(dir)?;
        file::replace(&dir.join(names::CHANNEL), issued.pem.as_bytes())?;
        install_into(dir, &args.authority, &charter, out)?;
    }
    writeln!(out, "issued {} to {}, valid to {}", issued.serial, issued.peer, utc(issued.not_after_unix_s))?;
    let host = request.host_names();
    let hosts = host.dns.iter().cloned().chain(host.ip.iter().map(ToString::to_string));
    for name in hosts {
        writeln!(out, "  for the host {name}")?;
    }
    Ok(())
}

pub(crate) fn install(args: &Install, out: &mut dyn Write) -> anyhow::Result<()> {
    let charter = args.charter.clone().unwrap_or_else(|| args.authority.join(names::CHARTER));
    // Somebody asked for it by name: it has to be there, and valid.
    load_charter(&charter)?;
    args.into.iter().try_for_each(|dir| refuse_another_alliance(dir, &args.authority, &charter))?;
    for dir in &args.into {
        let files = [names::CA, names::CHARTER].map(|name| dir.join(name));
        let read = || files.each_ref().map(|path| file::read_public(path, COPY_MAX_BYTES, "").ok());
        let (before, charter_before) = (read(), version(&dir.join(names::CHARTER)));
        install_into(dir, &args.authority, &charter, out)?;
        let was = match (charter_before, version(&dir.join(names::CHARTER))) {
            (Some(before), Some(now)) if before == now => format!("charter {now}, as before"),
            (Some(before), Some(now)) => format!("charter {now}, where charter {before} was"),
            (_, now) => format!("charter {}", now.unwrap_or_default()),
        };
        writeln!(out, "{}: {was}", dir.display())?;
        if before != read() {
            writeln!(
                out,
                "  restart the node that runs with it: it takes up a charter and a ca.crt when it starts, and no sooner"
            )?;
        }
    }
    Ok(())
}

/// The version of the newest charter in a file, where it is valid.
fn version(charter: &Path) -> Option<u32> {
    Some(load_charter(charter).ok()?.0.version())
}

/// Credentials of one alliance never silently become those of another: its files may be nowhere else.
fn refuse_another_alliance(dir: &Path, authority: &Path, charter: &Path) -> anyhow::Result<()> {
    const REMEDY: &str = "nothing was replaced. Choose another directory; or, if this one is to change, move its ca.crt, \
                          channel.crt, crl.pem and charter away yourself";
    let read = |path: &Path| file::read_public(path, CERTIFICATE_MAX_BYTES, "it was there a moment ago").ok();
    let authority_of = |path: &Path| read(path).and_then(|pem| AuthorityFacts::from_pem(&pem));
    // What cannot be read there is nothing to keep: installing is how it is repaired.
    let (new_path, old_path) = (authority.join(names::CA), dir.join(names::CA));
    if let Some(new) = authority_of(&new_path) {
        if let Some(old) = authority_of(&old_path).filter(|old| old.public_key != new.public_key) {
            let (old_path, new_path) = (old_path.display(), new_path.display());
            bail!("{old_path} is of the authority {}, {new_path} is of {}: {REMEDY}", old.name, new.name);
        }
        let path = dir.join(names::CHANNEL);
        let channel = read(&path).and_then(|pem| read_certificate(std::str::from_utf8(&pem).ok()?).ok());
        if let Some(channel) = channel.filter(|channel| channel.issuer != new.name) {
            let (path, new_path) = (path.display(), new_path.display());
            bail!("{path} was issued by the authority {}, {new_path} is of {}: {REMEDY}", channel.issuer, new.name);
        }
    }
    let installed = dir.join(names::CHARTER);
    if let (Ok((old, _)), Ok((new, _))) = (load_charter(&installed), load_charter(charter))
        && old.alliance_id() != new.alliance_id()
    {
        let (old_path, new_path) = (installed.display(), charter.display());
        bail!("{old_path} is of alliance {}, {new_path} is of {}: {REMEDY}", old.alliance_id(), new.alliance_id());
    }
    Ok(())
}

/// A certificate beside somebody else's key would lock that somebody out.
fn refuse_another_identity(dir: &Path, identity: &PublicIdentity) -> anyhow::Result<()> {
    let path = dir.join(names::IDENTITY_PUBLIC);
    if path.exists() && identity_file::load_public(&path)? != *identity {
        bail!(
            "{} is of another identity than the request: name the directory that the request came from, or write the certificate with --out",
            path.display()
        );
    }
    Ok(())
}

fn install_into(dir: &Path, authority: &Path, charter: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
    let copy = |from: &Path, name: &str| -> anyhow::Result<bool> {
        if !from.exists() {
            return Ok(false);
        }
        file::replace(&dir.join(name), &file::read_public(from, COPY_MAX_BYTES, "it was there a moment ago")?)?;
        Ok(true)
    };
    copy(&authority.join(names::CA), names::CA)?;
    copy(&authority.join(names::CRL), names::CRL)?;
    if charter.exists() {
        load_charter(charter)?;
    }
    if !copy(charter, names::CHARTER)? {
        writeln!(
            out,
            "{} has no charter yet: `ehe-certs install --into {}` once there is one",
            dir.display(),
            dir.display()
        )?;
    }
    Ok(())
}

pub(crate) fn revoke(args: &Revoke, out: &mut dyn Write) -> anyhow::Result<()> {
    let which = match (&args.certificate, args.peer, &args.serial) {
        (Some(path), _, _) => {
            let pem = file::read_text(path, CERTIFICATE_MAX_BYTES, "name the certificate's file")?;
            Which::Serial(read_certificate(&pem).with_context(|| path.display().to_string())?.serial)
        }
        (None, Some(peer), _) => Which::Peer(peer),
        (None, None, Some(serial)) => Which::Serial(serial.clone()),
        (None, None, None) => Which::Refresh,
    };
    let authority = Authority::open_with(&args.authority, &args.key.source())?;
    let list = authority.revoke(&which, args.days, OffsetDateTime::now_utc())?;
    writeln!(
        out,
        "signed revocation list {} with {} certificates: {}",
        list.number,
        list.revoked,
        list.path.display()
    )?;
    writeln!(
        out,
        "install it everywhere (`ehe-certs install`), and sign the next before {}",
        utc(list.next_update_unix_s)
    )?;
    Ok(())
}
