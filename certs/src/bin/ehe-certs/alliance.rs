//! `init`, `issue`, `revoke`: what the authority does.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use certs::authority::{Authority, read_certificate};
use certs::enrol::EnrolmentRequest;
use certs::file;
use certs::identity_file;
use certs::peer::PeerIdentity;
use certs::revocation::Which;
use certs::store::names;
use certs::told::utc;
use ehe::charter::VerifiedCharter;
use ehe::identity::PublicIdentity;
use time::OffsetDateTime;

use crate::args::{Init, Issue, Revoke};
use crate::install::PublicFiles;

/// Largest certificate that is read.
pub(crate) const CERTIFICATE_MAX_BYTES: usize = 64 * 1024;

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
    let into = match &args.into {
        Some(dir) => Some((dir, PublicFiles::of(&args.authority, args.charter.as_deref())?)),
        None => None,
    };
    if let Some((dir, from)) = &into {
        from.refuse_another_alliance(dir)?;
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
    }
    writeln!(out, "issued {} to {}, valid to {}", issued.serial, issued.peer, utc(issued.not_after_unix_s))?;
    let host = request.host_names();
    let hosts = host.dns.iter().cloned().chain(host.ip.iter().map(ToString::to_string));
    for name in hosts {
        writeln!(out, "  for the host {name}")?;
    }
    if let Some((dir, from)) = &into {
        let charter = from.install_into(dir, out)?;
        if let (Some(node), Some(charter)) = (issued.peer.node(), charter.filter(|it| !names_node(it, issued.peer))) {
            writeln!(
                out,
                "  node {node} is not in charter {0}, and does not start with it: once it is in a later one, ehe-certs install --charter FILE --into {1}",
                charter.version(),
                dir.display()
            )?;
        }
    }
    Ok(())
}

fn names_node(charter: &VerifiedCharter, peer: PeerIdentity) -> bool {
    peer.node().is_some_and(|node| charter.node(node).is_some())
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
