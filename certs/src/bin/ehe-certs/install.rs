//! `install`, and what `issue --into` has in common with it: the alliance's public files come into a credentials directory. Neither a charter
//! nor a revocation list ever gives way to an older one.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use certs::authority::read_certificate;
use certs::certificate::AuthorityFacts;
use certs::crl::Revocations;
use certs::file;
use certs::store::{StoreError, load_charter, names};
use ehe::charter::{CharterChain, CharterError, VerifiedCharter};

use crate::alliance::CERTIFICATE_MAX_BYTES;
use crate::args::Install;

/// Largest public file that is copied: a chain of charters or a revocation list.
const COPY_MAX_BYTES: usize = 16 * 1024 * 1024;
const GONE: &str = "it was there a moment ago";

pub(crate) fn install(args: &Install, out: &mut dyn Write) -> anyhow::Result<()> {
    let from = PublicFiles::of(&args.authority, args.charter.as_deref())?;
    if from.newest.is_none() {
        // Somebody asked for it: it has to be there.
        load_charter(&from.charter)?;
    }
    args.into.iter().try_for_each(|dir| from.refuse_another_alliance(dir))?;
    for dir in &args.into {
        from.install_into(dir, out)?;
    }
    Ok(())
}

/// Where the public files come from: read, and found valid, before anything is replaced.
pub(crate) struct PublicFiles {
    authority: PathBuf,
    charter: PathBuf,
    newest: Option<(VerifiedCharter, CharterChain)>,
    list: Option<Revocations>,
}

impl PublicFiles {
    /// The authority's directory, and the charter's file if it is not there. One that is named has to be there.
    pub(crate) fn of(authority: &Path, named: Option<&Path>) -> anyhow::Result<Self> {
        let charter = named.map_or_else(|| authority.join(names::CHARTER), Path::to_path_buf);
        let newest = (named.is_some() || charter.exists()).then(|| load_charter(&charter)).transpose()?;
        let list = if authority.join(names::CRL).exists() { Revocations::in_dir(authority)? } else { None };
        Ok(Self { authority: authority.into(), charter, newest, list })
    }

    /// Credentials of one alliance never silently become those of another: its files may be nowhere else.
    pub(crate) fn refuse_another_alliance(&self, dir: &Path) -> anyhow::Result<()> {
        const REMEDY: &str = "nothing was replaced. Choose another directory; or, if this one is to change, move its ca.crt, \
                              channel.crt, crl.pem and charter away yourself";
        let read = |path: &Path| file::read_public(path, CERTIFICATE_MAX_BYTES, "it was there a moment ago").ok();
        let authority_of = |path: &Path| read(path).and_then(|pem| AuthorityFacts::from_pem(&pem));
        // What cannot be read there is nothing to keep: installing is how it is repaired.
        let (new_path, old_path) = (self.authority.join(names::CA), dir.join(names::CA));
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
        let (Ok((old, old_chain)), Some((new, new_chain))) = (load_charter(&installed), &self.newest) else {
            return Ok(());
        };
        if old.alliance_id() != new.alliance_id() {
            let (old_path, new_path) = (installed.display(), self.charter.display());
            bail!("{old_path} is of alliance {}, {new_path} is of {}: {REMEDY}", old.alliance_id(), new.alliance_id());
        }
        match old_chain.parts_from(new_chain) {
            Some(version) => {
                Err(StoreError::Charter { path: self.charter.clone(), source: CharterError::Other(version) }.into())
            }
            None => Ok(()),
        }
    }

    /// Copies what is there, and says what is new and from when on it counts. The charter that lies there then.
    pub(crate) fn install_into(&self, dir: &Path, out: &mut dyn Write) -> anyhow::Result<Option<VerifiedCharter>> {
        let ca = self.install_authority(dir)?;
        let charter = self.install_charter(dir, out)?;
        self.install_list(dir, out)?;
        if ca {
            writeln!(
                out,
                "  ca.crt is another one: restart what runs with it, which trusts the one before until then"
            )?;
        }
        Ok(charter)
    }

    /// Whether another one was there.
    fn install_authority(&self, dir: &Path) -> anyhow::Result<bool> {
        let (from, to) = (self.authority.join(names::CA), dir.join(names::CA));
        if !from.exists() {
            return Ok(false);
        }
        let new = file::read_public(&from, COPY_MAX_BYTES, GONE)?;
        let changed = file::read_public(&to, COPY_MAX_BYTES, GONE).is_ok_and(|old| old != new);
        file::replace(&to, &new)?;
        Ok(changed)
    }

    fn install_charter(&self, dir: &Path, out: &mut dyn Write) -> anyhow::Result<Option<VerifiedCharter>> {
        let (to, shown) = (dir.join(names::CHARTER), dir.display());
        let old = load_charter(&to).ok().map(|(old, _)| old);
        let Some((new, chain)) = &self.newest else {
            if old.is_none() {
                writeln!(out, "{shown} has no charter yet: `ehe-certs install --into {shown}` once there is one")?;
            }
            return Ok(old);
        };
        match old {
            Some(old) if old.version() > new.version() => {
                let (from, found) = (self.charter.display(), new.version());
                writeln!(out, "{shown}: charter {} stays; {from} has no newer one than {found}", old.version())?;
                return Ok(Some(old));
            }
            Some(old) if old.version() == new.version() => {
                writeln!(out, "{shown}: charter {}, as before", old.version())?
            }
            Some(old) => writeln!(
                out,
                "{shown}: charter {}, where charter {} was\n  a node that runs takes it up within seconds; gateways and `ehe` fetch it from a node",
                new.version(),
                old.version()
            )?,
            None => writeln!(out, "{shown}: charter {}", new.version())?,
        }
        file::replace(&to, &chain.encode())?;
        Ok(Some(new.clone()))
    }

    fn install_list(&self, dir: &Path, out: &mut dyn Write) -> anyhow::Result<()> {
        let Some(new) = &self.list else { return Ok(()) };
        // What cannot be read there is nothing to keep: installing is how it is repaired.
        match Revocations::in_dir(dir).ok().flatten() {
            Some(old) if new.is_older_than(&old) => {
                let (number, from) = (new.number(), self.authority.display());
                writeln!(out, "  crl.pem: list {} stays; {from} has no newer one than {number}", old.number())?;
                return Ok(());
            }
            Some(old) if old == *new => writeln!(out, "  crl.pem: list {}, as before", new.number())?,
            _ => writeln!(
                out,
                "  crl.pem: list {}, certificates that it revokes: {}; what runs with it goes by it within `credentials_reload_s` (a minute unless \
                 configured), without a restart",
                new.number(),
                new.count()
            )?,
        }
        let list = file::read_public(&self.authority.join(names::CRL), COPY_MAX_BYTES, GONE)?;
        Ok(file::replace(&dir.join(names::CRL), &list)?)
    }
}
