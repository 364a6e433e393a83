//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use certs::Role;
use certs::age::WorkFactor;
use certs::authority::AUTHORITY_DAYS;
use certs::certificate::Serial;
use certs::peer::PeerIdentity;
use certs::revocation::CRL_DAYS;
use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand};

const STEPS: &str = "\
The steps of a new alliance, in order:

  ehe-certs init --name 'Two hospitals' --out alliance
  ehe-certs member new --name 'St. Anna' --out st-anna
  ehe-certs identity new --role node --dns node1.example --ip 192.0.2.1 --out node1
  ehe-certs charter new --from alliance.toml --sign st-anna/identity.json --out alliance/charter
  ehe-certs issue node1/request.json --role node --authority alliance --into node1

and for each gateway, patient and clinician:

  ehe-certs identity new --role gateway --out gateway1
  ehe-certs issue gateway1/request.json --role gateway --authority alliance --into gateway1

Keys that a person holds (the authority's, a member's, a patient's, a clinician's) are protected by a passphrase, which is
asked for on the terminal; scripts name a file with --passphrase-file, and --no-passphrase goes without. A gateway and a node
start unattended: theirs have none. The files are of the tool age: `age -d alliance/ca.key` and
`jq -r .sealed identity.json | age -d` open them, too.

`member new` and `identity new` print the lines that belong in alliance.toml.
On another machine than the authority's, `identity new` runs there, request.json travels to the authority, and what
`issue --into` wrote travels back. Private keys never travel.

Exit codes: 0 done; 1 this machine or the command is at fault (a file, a directory); 2 the command line is wrong;
3 what somebody else made was refused (a request, a charter, a certificate).";

/// Authority, charter, identities and certificates of an alliance.
#[derive(Debug, Parser)]
#[command(name = "ehe-certs", version, about, after_help = STEPS)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make the alliance's certificate authority.
    Init(Init),
    /// A member (hospital) of the alliance.
    #[command(subcommand)]
    Member(MemberCommand),
    /// The signed document that says who the members and nodes are.
    #[command(subcommand)]
    Charter(CharterCommand),
    /// Somebody's identity, channel key and request for a certificate.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Look at, and sign, what was kept of logs that were lost (`ehe-node restore --propose` writes it).
    #[command(subcommand)]
    Restoration(RestorationCommand),
    /// Issue a certificate for a request.
    Issue(Issue),
    /// Copy the alliance's public files (ca.crt, charter, crl.pem) into a credentials directory; replaces older ones of the
    /// same alliance.
    Install(Install),
    /// Revoke certificates, and sign a new revocation list (crl.pem in the authority's directory).
    Revoke(Revoke),
    /// Change the passphrase of a key, give it one, or take it off (--no-passphrase).
    Passphrase(ChangePassphrase),
    /// Show what a file holds, as JSON: identity, request, certificate, authority, charter. Never a secret.
    Show {
        /// The file.
        file: PathBuf,
    },
}

/// How a new key is protected.
#[derive(Debug, ClapArgs)]
pub(crate) struct NewKey {
    /// File (mode 0600, or /dev/fd/N) with the new key's passphrase on one line; without it, the terminal is asked.
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Protect the key by its file's mode alone.
    #[arg(long)]
    pub(crate) no_passphrase: bool,
    #[command(flatten)]
    pub(crate) work: Work,
}

/// What a passphrase costs to try.
#[derive(Debug, ClapArgs)]
pub(crate) struct Work {
    /// What each try of the passphrase costs: 14 to 19. 18 takes 256 MiB of memory, each step less half of it.
    #[arg(long, value_name = "NUMBER", default_value_t = WorkFactor::DEFAULT)]
    pub(crate) work_factor: WorkFactor,
}

/// The passphrase of a key that is there.
#[derive(Debug, ClapArgs)]
pub(crate) struct Unlock {
    /// File (mode 0600, or /dev/fd/N) with the key's passphrase on one line; without it, the terminal is asked.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// The passphrases of several identities.
#[derive(Debug, ClapArgs)]
pub(crate) struct UnlockAll {
    /// File with the identity's passphrase on one line; one for all identities, or one for each, in their order.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("key").required(true).args(["identity", "authority"]))]
pub(crate) struct ChangePassphrase {
    /// The identity's file (identity.json).
    pub(crate) identity: Option<PathBuf>,
    /// The authority's directory, for its key.
    #[arg(long, value_name = "DIR")]
    pub(crate) authority: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) old: Unlock,
    /// File with the new passphrase; without it, the terminal is asked.
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
    pub(crate) new_passphrase_file: Option<PathBuf>,
    /// From now on without a passphrase.
    #[arg(long)]
    pub(crate) no_passphrase: bool,
    #[command(flatten)]
    pub(crate) work: Work,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Init {
    /// Name of the alliance.
    #[arg(long)]
    pub(crate) name: String,
    /// Directory to make.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Days that the authority's own certificate is valid.
    #[arg(long, default_value_t = AUTHORITY_DAYS)]
    pub(crate) days: u32,
    #[command(flatten)]
    pub(crate) key: NewKey,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Make the identity that signs charters in a member's name.
    New(NewMember),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NewMember {
    /// Name of the member.
    #[arg(long)]
    pub(crate) name: String,
    /// Directory to make.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) key: NewKey,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CharterCommand {
    /// Print a description with every option, explained (certs/alliance.example.toml in the sources).
    Example,
    /// Write a charter from its description, sign it, and say what it changes.
    New(NewCharter),
    /// Say what the newest charter of a file changes, and add members' signatures to it.
    Sign(SignCharter),
    /// Show a charter as JSON, what it changes, and whether it is valid.
    Show {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NewCharter {
    /// The description (TOML); `ehe-certs charter example` prints one with every option.
    #[arg(long, value_name = "FILE")]
    pub(crate) from: PathBuf,
    /// A member's secret identity to sign with; may be given several times.
    #[arg(long, value_name = "IDENTITY")]
    pub(crate) sign: Vec<PathBuf>,
    /// The charter that this one follows; without it, this is charter 1. Where the description has no `[placement]`, each shard stays where
    /// it is: a new node holds nothing until `ehe-node move-shard`, `drain` or `replace` moves something to it.
    #[arg(long, value_name = "FILE")]
    pub(crate) after: Option<PathBuf>,
    /// File to write: all charters up to the new one. May be the file of --after, and no other that is there.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) keys: UnlockAll,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignCharter {
    /// The charter's file; the signatures are added to it.
    pub(crate) file: PathBuf,
    /// A member's secret identity to sign with; may be given several times.
    #[arg(long, value_name = "IDENTITY", required = true)]
    pub(crate) with: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: UnlockAll,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RestorationCommand {
    /// Say what is kept and what is lost, and add members' signatures to it.
    Sign(SignRestoration),
    /// Say what is kept and what is lost, and who has signed.
    Show(ShowRestoration),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SignRestoration {
    #[command(flatten)]
    pub(crate) what: ShowRestoration,
    /// A member's secret identity to sign with; may be given several times.
    #[arg(long, value_name = "IDENTITY", required = true)]
    pub(crate) with: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) keys: UnlockAll,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ShowRestoration {
    /// The file of records.
    pub(crate) file: PathBuf,
    /// The alliance's charters: by them the checkpoints in the records are judged.
    #[arg(long, value_name = "FILE")]
    pub(crate) charter: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Make a directory with a new identity, a channel key and the request for its certificate.
    New(NewIdentity),
    /// Make a new request from a directory's identity and channel key (a new key, if channel.key was moved away).
    Renew(RenewIdentity),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NewIdentity {
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) key: NewKey,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RenewIdentity {
    #[command(flatten)]
    pub(crate) whose: Whose,
    #[command(flatten)]
    pub(crate) key: Unlock,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Whose {
    /// node, gateway, patient or clinician.
    #[arg(long)]
    pub(crate) role: Role,
    /// The directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A DNS name of the node; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) dns: Vec<String>,
    /// An IP address of the node; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Vec<IpAddr>,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("to").required(true).args(["out", "into"]))]
pub(crate) struct Issue {
    /// The request (request.json).
    pub(crate) request: PathBuf,
    /// The role to give; the request has to ask for the same.
    #[arg(long)]
    pub(crate) role: Role,
    /// Days that the certificate is valid.
    #[arg(long, default_value_t = 365)]
    pub(crate) days: u32,
    /// The authority's directory.
    #[arg(long, value_name = "DIR", default_value = "alliance")]
    pub(crate) authority: PathBuf,
    /// The charter's file, if it is not `charter` in the authority's directory: a node needs one that names it.
    #[arg(long, value_name = "FILE", conflicts_with = "out")]
    pub(crate) charter: Option<PathBuf>,
    /// File to write the certificate to.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Directory to write channel.crt and the alliance's public files to; not one of another alliance.
    #[arg(long, value_name = "DIR")]
    pub(crate) into: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) key: Unlock,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Install {
    /// The authority's directory.
    #[arg(long, value_name = "DIR", default_value = "alliance")]
    pub(crate) authority: PathBuf,
    /// The charter's file, if it is not `charter` in the authority's directory.
    #[arg(long, value_name = "FILE")]
    pub(crate) charter: Option<PathBuf>,
    /// Credentials directory; may be given several times.
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) into: Vec<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("which").required(true).args(["certificate", "peer", "serial", "refresh"]))]
pub(crate) struct Revoke {
    /// The authority's directory.
    #[arg(long, value_name = "DIR", default_value = "alliance")]
    pub(crate) authority: PathBuf,
    /// The certificate in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) certificate: Option<PathBuf>,
    /// All certificates of this peer (`urn:ehe:<role>:<id>`).
    #[arg(long, value_name = "URN")]
    pub(crate) peer: Option<PeerIdentity>,
    /// The certificate of this serial number (hex).
    #[arg(long, value_name = "HEX")]
    pub(crate) serial: Option<Serial>,
    /// None; only sign a fresh list before the old one is too old.
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Days after which the list is too old. Ends that have it then refuse everybody.
    #[arg(long, default_value_t = CRL_DAYS)]
    pub(crate) days: u32,
    #[command(flatten)]
    pub(crate) key: Unlock,
}
