//! `ehe-certs`: the alliance's authority, its charter, and the identities and certificates of everybody in it.
//!
//! Exit status: 0 done; 1 this machine or the command is at fault (a file, a directory, a role); 2 the command line is wrong;
//! 3 what somebody else made was refused (a request, a charter, a certificate).

mod alliance;
mod args;
mod charter;
mod identity;
mod install;
mod passphrase;
mod restoration;
mod show;

use std::io::Write;
use std::process::ExitCode;

use certs::authority::AuthorityError;
use certs::enrol::EnrolError;
use certs::peer::PeerError;
use certs::process;
use certs::store::StoreError;
use certs::terminal::escaped;
use ehe::charter::CharterError;
use ehe::restoration::RestorationError;

use crate::args::{Args, CharterCommand, Command, IdentityCommand, MemberCommand, RestorationCommand};

fn main() -> ExitCode {
    let args: Args = match process::begin("ehe-certs") {
        Ok(args) => args,
        Err(end) => return end,
    };
    let only_shows = matches!(
        args.command,
        Command::Show { .. }
            | Command::Charter(CharterCommand::Show { .. } | CharterCommand::Example)
            | Command::Restoration(RestorationCommand::Show(_))
    );
    let mut out = std::io::stdout().lock();
    match run(args, &mut out).and_then(|()| Ok(out.flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        // Who read our output has seen enough.
        Err(error) if only_shows && is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr().lock(), "{}", escaped(&format!("ehe-certs: {}", told(&error))));
            if is_refusal(&error) { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

fn run(args: Args, out: &mut dyn Write) -> anyhow::Result<()> {
    match args.command {
        Command::Init(init) => alliance::init(&init, out),
        Command::Member(MemberCommand::New(new)) => identity::new_member(&new, out),
        Command::Charter(CharterCommand::Example) => charter::example(out),
        Command::Charter(CharterCommand::New(new)) => charter::new(&new, out),
        Command::Charter(CharterCommand::Sign(sign)) => charter::sign(&sign, out),
        Command::Charter(CharterCommand::Show { file }) => charter::show(&file, out),
        Command::Identity(IdentityCommand::New(new)) => identity::new(&new, out),
        Command::Identity(IdentityCommand::Renew(new)) => identity::renew(&new, out),
        Command::Restoration(RestorationCommand::Sign(sign)) => restoration::sign(&sign, out),
        Command::Restoration(RestorationCommand::Show(show)) => restoration::show(&show, out),
        Command::Issue(issue) => alliance::issue(&issue, out),
        Command::Install(install) => install::install(&install, out),
        Command::Revoke(revoke) => alliance::revoke(&revoke, out),
        Command::Passphrase(change) => passphrase::change(&change, out),
        Command::Show { file } => show::show(&file, out),
    }
}

/// An error with its causes. Most of our errors tell theirs themselves: nothing is said twice.
fn told(error: &anyhow::Error) -> String {
    let mut told = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Whether the fault lies with what somebody else made.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<CharterError>()
            || cause.is::<RestorationError>()
            || cause.is::<PeerError>()
            || cause
                .downcast_ref::<EnrolError>()
                .is_some_and(|e| !matches!(e, EnrolError::File(_) | EnrolError::Make(_)))
            || matches!(cause.downcast_ref(), Some(AuthorityError::Role { .. }))
            || matches!(cause.downcast_ref(), Some(StoreError::Charter { .. }))
    })
}
