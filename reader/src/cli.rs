//! The command line: what can be asked for, in words.

mod authority;
mod identity;
mod issued;
mod run;

use std::path::PathBuf;

use certs::age::WorkFactor;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use ehe::id::{AllianceId, AuthorId, EheId, RoomId};
use ehe::read::Purpose;
use ehe::time::{Hour, UnixMs};
use ehe::vital::{Category, Vital};

use crate::error::Error;
use crate::when;

pub use authority::{AuthorityCommand, DelegateArgs, May, RecoverArgs};
pub use issued::RecoveryOut;
pub use run::{Complain, Surroundings, run};

/// The exit codes, for the help text.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 something failed; 2 the command line is wrong; \
                          3 refused: the rights do not allow it; 4 what a node showed does not verify, does not open, or is less than was seen before.";

/// A patient's, a clinician's or a program's window to the ledger.
#[derive(Debug, Parser)]
#[command(name = "ehe", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Directory of the credentials and of what is remembered of rooms [default: $EHE_HOME, else ~/.config/ehe]
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// File (mode 0600, or /dev/fd/N) with the identity's passphrase on one line [default: the terminal is asked]
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Print JSON, one value a line
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to try until a node answers, in seconds, and to wait for each further part of an answer. A last look at what became of a
    /// change takes up to 2 more
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: u32,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What clap cannot see: global options beside a command's own, and one value beside another.
    pub fn check(&self) -> Result<(), Error> {
        let (Command::Read(args) | Command::Watch(args)) = &self.command else { return self.check_key() };
        if self.json && args.csv {
            return Err(Error::Usage("--json and --csv exclude each other".into()));
        }
        match (args.from, args.until) {
            (Some(from), Some(until)) if from >= until => Err(Error::Usage(format!(
                "--from must lie before --until: {} is not before {}",
                when::shown(from),
                when::shown(until)
            ))),
            _ => Ok(()),
        }
    }

    fn check_key(&self) -> Result<(), Error> {
        match &self.command {
            Command::Identity(IdentityCommand::New { key, .. })
                if key.no_passphrase && self.passphrase_file.is_some() =>
            {
                Err(Error::Usage("--passphrase-file and --no-passphrase exclude each other".into()))
            }
            _ => Ok(()),
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make or show the identity of this directory
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Make or show a room
    #[command(subcommand)]
    Room(RoomCommand),
    /// Invite somebody to read or to append
    ///
    /// A gateway that only a delegate invited seals after the patient's next `ehe authority renew`, and not before: gateways take
    /// the patient's word alone for what a key is for.
    Grant(GrantArgs),
    /// End a grant at once (a cut); of a right to append, --drain-until still takes what waits in the gateway's spool
    Revoke(RevokeArgs),
    /// Whose keys and whose word count in a room: rotation, delegates, recovery
    #[command(subcommand)]
    Authority(AuthorityCommand),
    /// List the rooms that this identity is a party of
    Rooms,
    /// Read what the grants allow
    Read(ReadArgs),
    /// Print readings as they come in, until interrupted or until the right to read ends
    Watch(ReadArgs),
    /// Show who read what, when and what for, and who was refused (the patient)
    ///
    /// A refusal is shown at once; further refusals of the same reader within the hour appear as one line with a count when the
    /// hour is over.
    Audit(RoomArgs),
    /// Verify a room whole: chain, signatures, strands, rules, inclusion, quorum (the patient); or judge a file of evidence
    Verify(VerifyArgs),
    /// Fetch the evidence that the nodes keep, judge it, and keep it in the directory `evidence`
    Evidence,
    /// Show how the nodes are
    Status,
}

/// `ehe identity`.
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// Make an identity and a request for its channel certificate
    New {
        /// As what
        #[arg(long)]
        role: IdentityRole,
        /// How its secrets are protected
        #[command(flatten)]
        key: NewKey,
    },
    /// Change the passphrase of the identity, give it one, or take it off
    Passphrase {
        /// File with the new passphrase [default: the terminal is asked]
        #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
        new_passphrase_file: Option<PathBuf>,
        /// How the secrets are protected from now on
        #[command(flatten)]
        key: NewKey,
    },
    /// Show the identity
    Show,
}

/// How secrets are protected beyond their file's mode.
#[derive(Debug, Args)]
pub struct NewKey {
    /// Without a passphrase: whoever gets hold of the file is you
    #[arg(long)]
    pub no_passphrase: bool,
    /// What each try of the passphrase costs, 14 to 19: 18 takes 256 MiB of memory, each step less half of it
    #[arg(long, value_name = "NUMBER", default_value_t = WorkFactor::DEFAULT)]
    pub work_factor: WorkFactor,
}

/// Who uses this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it")]
pub enum IdentityRole {
    Patient,
    Clinician,
}

/// `ehe room`.
#[derive(Debug, Subcommand)]
pub enum RoomCommand {
    /// Make a room and its first keys, and print its id; its recovery key is shown once
    Create {
        /// A name, for the patient's own eyes
        #[arg(long)]
        name: Option<String>,
        /// The shard in which the data must live (residency)
        #[arg(long)]
        shard: Option<u16>,
        /// Make no recovery key: if the patient's keys are lost, nobody can replace them
        #[arg(long)]
        no_recovery: bool,
        /// Where the recovery key goes
        #[command(flatten)]
        out: RecoveryOut,
    },
    /// Show a room and its grants
    Show(RoomArgs),
}

/// A room.
#[derive(Debug, Args)]
pub struct RoomArgs {
    /// The room's id
    #[arg(long, value_name = "ID")]
    pub room: RoomId,
}

/// `ehe verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The room's id
    #[arg(long, value_name = "ID", required_unless_present = "evidence")]
    pub room: Option<RoomId>,
    /// Keep what the node served in this new file, for another program to judge
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Judge this file of evidence, by itself: what it proves, about which node and hospital. Ends with 4 if it proves nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["room", "save"])]
    pub evidence: Option<PathBuf>,
    /// Take evidence about this alliance only
    #[arg(long, value_name = "ID", requires = "evidence", conflicts_with_all = ["room", "save"])]
    pub alliance: Option<AllianceId>,
}

/// One category, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Categories {
    /// All of them.
    All,
    /// One.
    One(Category),
}

/// A vital by its name; what is none is answered with those that there are.
fn vital(text: &str) -> Result<Vital, String> {
    text.parse().map_err(|_| {
        let names: Vec<&str> = Vital::ALL.iter().map(|v| v.as_str()).collect();
        format!("no vital; there are {}", names.join(", "))
    })
}

impl Categories {
    /// Reads `all` or a category's name; help and errors list them.
    fn parser() -> impl TypedValueParser<Value = Self> {
        let names = ["all"].into_iter().chain(Category::ALL.iter().map(|category| category.as_str()));
        PossibleValuesParser::new(names).map(|name| name.parse().map_or(Self::All, Self::One))
    }
}

/// The categories that a list names, each once.
pub fn categories(named: &[Categories]) -> Vec<Category> {
    let takes =
        |category: &Category| named.iter().any(|n| matches!(n, Categories::All) || *n == Categories::One(*category));
    Category::ALL.iter().copied().filter(takes).collect()
}

/// `ehe grant`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("right").required(true).args(["read", "append"])))]
pub struct GrantArgs {
    /// The room's id
    #[arg(long, value_name = "ID")]
    pub room: RoomId,
    /// The public identity of whom to invite (its `identity.pub`)
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// To read these categories, or `all`
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',', value_parser = Categories::parser())]
    pub read: Vec<Categories>,
    /// To append to these categories, or to all
    #[arg(long, value_name = "CATEGORIES", value_delimiter = ',', num_args = 0.., default_missing_value = "all",
          value_parser = Categories::parser())]
    pub append: Vec<Categories>,
    /// To read also what was sealed under the categories' earlier keys
    #[arg(long, conflicts_with = "append")]
    pub history: bool,
    /// Readings of this full hour and later (YYYY-MM-DD or RFC 3339)
    #[arg(long, value_parser = when::full_hour)]
    pub from: Option<Hour>,
    /// Readings before this full hour
    #[arg(long, value_parser = when::full_hour)]
    pub until: Option<Hour>,
    /// The grant ends at this time
    #[arg(long, value_parser = when::instant)]
    pub expires: Option<UnixMs>,
    /// What for; only the two of you can read it
    #[arg(long)]
    pub purpose: Option<String>,
    /// Their name; only the two of you can read it
    #[arg(long)]
    pub name: Option<String>,
}

/// `ehe revoke`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("which").required(true).args(["grant", "subject"])))]
pub struct RevokeArgs {
    /// The room's id
    #[arg(long, value_name = "ID")]
    pub room: RoomId,
    /// The grant
    #[arg(long, value_name = "ID")]
    pub grant: Option<EheId>,
    /// All grants of this identity
    #[arg(long, value_name = "AUTHOR")]
    pub subject: Option<AuthorId>,
    /// Of a right to append: still accept until then what was measured up to the end of the present hour (nodes see hours alone)
    #[arg(long, value_name = "TIME", value_parser = when::instant)]
    pub drain_until: Option<UnixMs>,
}

/// `ehe read` and `ehe watch`.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The room's id
    #[arg(long, value_name = "ID")]
    pub room: RoomId,
    /// Only these vitals, like heart_rate,oxygen_saturation
    #[arg(long, value_name = "VITALS", value_delimiter = ',', value_parser = vital)]
    pub vital: Vec<Vital>,
    /// Readings at this time and later (YYYY-MM-DD or RFC 3339)
    #[arg(long, value_parser = when::instant)]
    pub from: Option<UnixMs>,
    /// Readings before this time
    #[arg(long, value_parser = when::instant)]
    pub until: Option<UnixMs>,
    /// Print CSV
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    /// What for; it stands in the room's audit [default: treatment, for a patient patient-request]
    #[arg(long, value_enum)]
    pub purpose: Option<PurposeArg>,
    /// What to print as the patient [default: the room's id]
    #[arg(long, value_name = "TEXT")]
    pub patient: Option<String>,
}

/// Why somebody reads (HL7 v3 PurposeOfUse).
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PurposeArg {
    /// TREAT
    Treatment,
    /// PATRQT
    PatientRequest,
    /// HOPERAT
    Operations,
    /// HRESCH
    Research,
}

impl From<PurposeArg> for Purpose {
    fn from(purpose: PurposeArg) -> Self {
        match purpose {
            PurposeArg::Treatment => Self::Treatment,
            PurposeArg::PatientRequest => Self::PatientRequest,
            PurposeArg::Operations => Self::Operations,
            PurposeArg::Research => Self::Research,
        }
    }
}

#[cfg(test)]
mod tests;
