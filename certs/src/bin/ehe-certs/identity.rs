//! `member new`, `identity new`, `identity renew`.

use std::io::Write;

use anyhow::bail;
use certs::enrol::{self, HostNames, Prepared};
use certs::passphrase::Protection;
use certs::store::names;
use certs::{Role, file, identity_file};

use crate::args::{NewIdentity, NewMember, RenewIdentity, Whose};

pub(crate) fn new_member(args: &NewMember, out: &mut dyn Write) -> anyhow::Result<()> {
    let (secret, public) = (args.out.join(names::IDENTITY), args.out.join(names::IDENTITY_PUBLIC));
    let protection = args.key.protection(&secret)?;
    file::create_dir(&args.out)?;
    let identity = identity_file::generate()?;
    identity_file::create_with(&secret, &identity, &protection)?;
    identity_file::create_public(&public, identity.public())?;
    writeln!(out, "# made the identity {} of a member; {} signs charters", identity.author_id(), secret.display())?;
    writeln!(out, "# for the description of the charter:")?;
    writeln!(out, "[[member]]")?;
    writeln!(out, "name = {}", text(&args.name))?;
    writeln!(out, "identity = {}", text(&public.display().to_string()))?;
    Ok(())
}

pub(crate) fn new(args: &NewIdentity, out: &mut dyn Write) -> anyhow::Result<()> {
    let (NewIdentity { whose: args, key }, secret) = (args, args.whose.out.join(names::IDENTITY));
    let protection = match args.role {
        // They start unattended, so that a passphrase would have to lie beside the key.
        Role::Node | Role::Gateway if key.passphrase_file.is_some() => {
            bail!("a {} starts unattended, so its key has no passphrase: leave --passphrase-file out", args.role)
        }
        Role::Node | Role::Gateway => Protection::None,
        Role::Patient | Role::Clinician => key.protection(&secret)?,
    };
    let prepared = enrol::prepare_with(&args.out, args.role, &host(args), &protection)?;
    writeln!(out, "# made {} in {}", prepared.peer, args.out.display())?;
    next(args, &prepared, out)?;
    if args.role == Role::Node {
        writeln!(out, "# for the description of the charter:")?;
        writeln!(out, "[[node]]")?;
        writeln!(out, "name = {}", text(args.dns.first().map_or("", String::as_str)))?;
        writeln!(out, "member = \"\"")?;
        writeln!(out, "identity = {}", text(&args.out.join(names::IDENTITY_PUBLIC).display().to_string()))?;
        let hosts = args.dns.iter().cloned().chain(args.ip.iter().map(|ip| match ip {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        }));
        let addresses: Vec<String> = hosts.map(|host| text(&format!("{host}:4433"))).collect();
        writeln!(out, "addresses = [{}]", addresses.join(", "))?;
    }
    Ok(())
}

pub(crate) fn renew(args: &RenewIdentity, out: &mut dyn Write) -> anyhow::Result<()> {
    let RenewIdentity { whose: args, key } = args;
    let prepared = enrol::renew(&args.out, args.role, &host(args), &key.source())?;
    next(args, &prepared, out)
}

fn host(args: &Whose) -> HostNames {
    HostNames { dns: args.dns.clone(), ip: args.ip.clone() }
}

fn next(args: &Whose, prepared: &Prepared, out: &mut dyn Write) -> anyhow::Result<()> {
    let (request, dir) = (prepared.request.display(), args.out.display());
    writeln!(out, "# next, at the authority: ehe-certs issue {request} --role {} --into {dir}", args.role)?;
    Ok(())
}

/// A TOML string.
fn text(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
