//! `member new`, `identity new`, `identity renew`.

use std::io::Write;

use certs::enrol::{self, HostNames, Prepared};
use certs::store::names;
use certs::{Role, file, identity_file};

use crate::args::{NewIdentity, NewMember};

pub(crate) fn new_member(args: &NewMember, out: &mut dyn Write) -> anyhow::Result<()> {
    file::create_dir(&args.out)?;
    let identity = identity_file::generate()?;
    let (secret, public) = (args.out.join(names::IDENTITY), args.out.join(names::IDENTITY_PUBLIC));
    identity_file::create(&secret, &identity)?;
    identity_file::create_public(&public, identity.public())?;
    writeln!(out, "# made the identity {} of a member; {} signs charters", identity.author_id(), secret.display())?;
    writeln!(out, "# for the description of the charter:")?;
    writeln!(out, "[[member]]")?;
    writeln!(out, "name = {}", text(&args.name))?;
    writeln!(out, "identity = {}", text(&public.display().to_string()))?;
    Ok(())
}

pub(crate) fn new(args: &NewIdentity, out: &mut dyn Write) -> anyhow::Result<()> {
    let prepared = enrol::prepare(&args.out, args.role, &host(args))?;
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

pub(crate) fn renew(args: &NewIdentity, out: &mut dyn Write) -> anyhow::Result<()> {
    let prepared = enrol::renew(&args.out, args.role, &host(args))?;
    next(args, &prepared, out)
}

fn host(args: &NewIdentity) -> HostNames {
    HostNames { dns: args.dns.clone(), ip: args.ip.clone() }
}

fn next(args: &NewIdentity, prepared: &Prepared, out: &mut dyn Write) -> anyhow::Result<()> {
    let (request, dir) = (prepared.request.display(), args.out.display());
    writeln!(out, "# next, at the authority: ehe-certs issue {request} --role {} --into {dir}", args.role)?;
    Ok(())
}

/// A TOML string.
fn text(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}
