//! `init`, `issue`, `install`, `revoke`: what the authority does.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use certs::authority::{Authority, read_certificate};
use certs::enrol::EnrolmentRequest;
use certs::file;
use certs::revocation::Which;
use certs::store::{load_charter, names};
use time::OffsetDateTime;

use crate::args::{Init, Install, Issue, Revoke};
use crate::show::utc;

/// Largest public file that is copied: a chain of charters or a revocation list.
const COPY_MAX_BYTES: usize = 16 * 1024 * 1024;
const CERTIFICATE_MAX_BYTES: usize = 64 * 1024;

pub(crate) fn init(args: &Init, out: &mut dyn Write) -> anyhow::Result<()> {
    let authority = Authority::create(&args.out, &args.name, args.days, OffsetDateTime::now_utc())?;
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
    let authority = Authority::open(&args.authority)?;
    let request = EnrolmentRequest::load(&args.request)
        .and_then(|request| request.verify())
        .with_context(|| format!("{} is refused", args.request.display()))?;
    let issued = authority.issue(&request, args.role, args.days, OffsetDateTime::now_utc())?;
    if let Some(path) = &args.out {
        file::replace(path, issued.pem.as_bytes())?;
    }
    if let Some(dir) = &args.into {
        file::create_dir(dir)?;
        file::replace(&dir.join(names::CHANNEL), issued.pem.as_bytes())?;
        install_into(dir, &args.authority, &args.authority.join(names::CHARTER), out)?;
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
    args.into.iter().try_for_each(|dir| install_into(dir, &args.authority, &charter, out))
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
    let list = Authority::open(&args.authority)?.revoke(&which, args.days, OffsetDateTime::now_utc())?;
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
