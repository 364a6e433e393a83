//! `ehe identity`: what needs no node, and no certificate yet.

use std::path::Path;

use certs::enrol::{self, HostNames};
use certs::passphrase::{Options, Protection, Source};
use certs::store::{self, names};
use certs::{FileError, Role, identity_file};
use serde_json::json;

use super::{IdentityCommand, IdentityRole, NewKey};
use crate::error::Error;
use crate::home::Home;
use crate::output::Printer;

/// How the owner of a new key wants it protected.
fn protection(key: &NewKey, new: &Source, path: &Path) -> Result<Protection, FileError> {
    if key.no_passphrase {
        return Ok(Protection::None);
    }
    Ok(Protection::Passphrase(new.new_one(path)?, key.work_factor))
}

/// Does what `ehe identity` asks for.
pub(super) fn identity(
    command: &IdentityCommand,
    home: &Home,
    passphrase: &Source,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let secret = home.dir().join(names::IDENTITY);
    match command {
        IdentityCommand::New { role, key } => {
            let role = match role {
                IdentityRole::Patient => Role::Patient,
                IdentityRole::Clinician => Role::Clinician,
            };
            if secret.symlink_metadata().is_ok() {
                // Said before anybody types a passphrase for it.
                return Err(FileError::Exists(secret).into());
            }
            let protection = protection(key, passphrase, &secret)?;
            let made = enrol::prepare_with(home.dir(), role, &HostNames::default(), &protection)?;
            let author = made.identity.author_id();
            if printer.is_json() {
                return printer
                    .value(&json!({ "author": author, "peer": made.peer.to_string(), "request": made.request }));
            }
            printer.line(format!("made {author} ({role}) in {}", home.dir().display()))?;
            printer.line(format!("1. send {} to the alliance; it holds no secret", made.request.display()))?;
            printer.line(format!(
                "2. put what comes back beside it: {}, {}, {}",
                names::CHANNEL,
                names::CA,
                names::CHARTER
            ))?;
            let whoever = match protection {
                Protection::None => "whoever has it is you",
                Protection::Passphrase(..) => "whoever has it and the passphrase is you",
            };
            printer.line(format!(
                "3. keep a copy of {} in a safe place: {whoever}, and without it nothing can be opened",
                secret.display()
            ))
        }
        IdentityCommand::Passphrase { new_passphrase_file, key } => {
            let new = Source::named(new_passphrase_file.as_deref(), Options::CHANGED);
            identity_file::protect(&secret, passphrase, || protection(key, &new, &secret))?;
            let now =
                if key.no_passphrase { "is not protected by a passphrase any more" } else { "has a new passphrase" };
            printer.line(format!("{} {now}; copies that were made before open as before", secret.display()))
        }
        IdentityCommand::Show => {
            let public = identity_file::load_public(&home.dir().join(names::IDENTITY_PUBLIC))?;
            // Who this is in the alliance can be told without the secrets.
            let enrolled = store::enrolment(home.dir(), public.author_id());
            let protected = identity_file::glance(&secret).map(|(_, protected)| protected);
            let (author, line) = (public.author_id(), identity_file::public_line(&public));
            if printer.is_json() {
                let enrolled = enrolled.ok();
                return printer.value(&json!({
                    "author": author,
                    "public": line.trim_end(),
                    "peer": enrolled.map(|(peer, _)| peer.to_string()),
                    "alliance": enrolled.map(|(_, alliance)| alliance),
                    "passphrase": protected.ok(),
                }));
            }
            printer.line(format!("author    {author}"))?;
            match protected {
                Ok(true) => printer.line("secrets   protected by a passphrase")?,
                Ok(false) => printer.line("secrets   not protected by a passphrase")?,
                Err(why) => printer.line(format!("secrets   not ready: {why}"))?,
            }
            match enrolled {
                Ok((peer, alliance)) => {
                    printer.line(format!("channel   {peer}"))?;
                    printer.line(format!("alliance  {alliance}"))?;
                }
                Err(why) => printer.line(format!("channel   not ready: {why}"))?,
            }
            printer.line(format!("public    {}", line.trim_end()))
        }
    }
}
