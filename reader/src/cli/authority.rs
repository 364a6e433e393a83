//! `ehe authority`, and the recovery keys that it and `ehe room create` make: arguments, work, printing.

use std::io::Read;
use std::path::{Path, PathBuf};

use certs::age::WorkFactor;
use certs::passphrase::{self, Options, Protection, Source};
use certs::{FileError, file, identity_file};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use ehe::control::Rights;
use ehe::id::{AuthorId, RoomId};
use ehe::recovery::RecoveryKey;
use ehe::time::UnixMs;
use zeroize::Zeroizing;

use super::RoomArgs;
use super::run::Surroundings;
use crate::authority;
use crate::build::Delegated;
use crate::error::{Error, Made};
use crate::home::Home;
use crate::output::Printer;
use crate::session::{Session, rng};
use crate::when;

/// Largest recovery key file that is read.
const KEY_FILE_MAX_BYTES: usize = 512;

/// What stands for the passphrase of a recovery key's new file.
const NEW_KEY: Options = Options::new("--recovery-passphrase-file", "--recovery-no-passphrase");
/// For that of a recovery key's file that is there.
const KEY: Options = Options::new("--key-passphrase-file", "--no-passphrase");
/// For that of the keys to rotate to.
const TO: Options = Options::new("--to-passphrase-file", "--no-passphrase");
/// For that of the keys before the present ones.
const OTHER: Options = Options::new("--other-passphrase-file", "--no-passphrase");

/// `ehe authority`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Show whose keys and whose word count in a room, and every change of rights and keys
    Show {
        /// The room
        #[command(flatten)]
        room: RoomArgs,
        /// Look with the recovery key in this file (`-`: standard input), where the patient's keys are lost
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// File with the passphrase that protects the recovery key's file [default: the terminal is asked]
        #[arg(long, value_name = "FILE", requires = "key")]
        key_passphrase_file: Option<PathBuf>,
    },
    /// Move a room to the keys of another directory
    ///
    /// The directory is made by `ehe --home DIR identity new --role patient`, and holds besides what the alliance sent back for
    /// its request.json: channel.crt, ca.crt and charter.
    Rotate {
        /// The room
        #[command(flatten)]
        room: RoomArgs,
        /// The other directory
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// File with the passphrase of that directory's identity [default: the terminal is asked]
        #[arg(long, value_name = "FILE")]
        to_passphrase_file: Option<PathBuf>,
    },
    /// Finish a rotation or a recovery that broke off, as the patient with the new keys
    #[command(group(ArgGroup::new("other").required(true).args(["from", "key"])))]
    Resume {
        /// The room
        #[command(flatten)]
        room: RoomArgs,
        /// The directory with the keys before the rotation
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
        /// The file with the recovery key that was used; `-`: standard input
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// File with the passphrase that protects those keys [default: the terminal is asked]
        #[arg(long, value_name = "FILE")]
        other_passphrase_file: Option<PathBuf>,
    },
    /// Give every category of a room a new key
    Renew(RoomArgs),
    /// Let somebody act for the patient
    ///
    /// A delegation replaces an earlier one of the same delegate: name all rights. A delegate lets others read only what it may
    /// read itself (`ehe grant --read`). A gateway that only a delegate invited seals after the patient's next `ehe authority
    /// renew`, and not before: gateways take the patient's word alone for what a key is for.
    Delegate(DelegateArgs),
    /// End a delegation
    Withdraw {
        /// The room
        #[command(flatten)]
        room: RoomArgs,
        /// Whose
        #[arg(long, value_name = "AUTHOR")]
        delegate: AuthorId,
    },
    /// Give a room that has none a recovery key, and print it once
    SetRecovery {
        /// The room
        #[command(flatten)]
        room: RoomArgs,
        /// Where the key goes
        #[command(flatten)]
        out: RecoveryOut,
    },
    /// Become the patient of a room with the keys of this directory, by the room's recovery key
    ///
    /// Grants and delegations stay in force, but for those that --distrust-from ends; they are listed at the end, to be checked.
    Recover(RecoverArgs),
}

/// What a delegate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum May {
    /// Invite to append, and to read what the delegate may read
    Grant,
    /// End grants
    Revoke,
    /// Renew keys
    Epoch,
}

impl May {
    /// The right that it names.
    pub fn right(self) -> Rights {
        match self {
            Self::Grant => Rights::GRANT,
            Self::Revoke => Rights::REVOKE,
            Self::Epoch => Rights::EPOCH,
        }
    }
}

/// `ehe authority delegate`.
#[derive(Debug, Args)]
pub struct DelegateArgs {
    /// The room's id
    #[arg(long, value_name = "ID")]
    pub room: RoomId,
    /// The public identity of whom to trust (its `identity.pub`)
    #[arg(long, value_name = "FILE")]
    pub to: PathBuf,
    /// What for
    #[arg(long, value_name = "RIGHTS", value_delimiter = ',', required = true)]
    pub may: Vec<May>,
    /// The delegation ends at this time
    #[arg(long, value_parser = when::instant)]
    pub expires: Option<UnixMs>,
    /// Their name; only the two of you can read it
    #[arg(long)]
    pub name: Option<String>,
}

/// `ehe authority recover`.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// The room's id
    #[arg(long, value_name = "ID")]
    pub room: RoomId,
    /// The file with the recovery key as it was printed; `-`: standard input
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// File with the passphrase that protects the recovery key's file [default: the terminal is asked]
    #[arg(long, value_name = "FILE")]
    pub key_passphrase_file: Option<PathBuf>,
    /// The keys were stolen: end what they granted from this control event on (its number in `ehe authority show`)
    #[arg(long, value_name = "NUMBER")]
    pub distrust_from: Option<u64>,
    /// Have no recovery key from now on
    #[arg(long)]
    pub no_recovery: bool,
    /// Where the new recovery key goes
    #[command(flatten)]
    pub out: RecoveryOut,
}

/// Where a new recovery key goes.
#[derive(Debug, Args)]
pub struct RecoveryOut {
    /// Write the recovery key to this new file (mode 0600), do not print it
    #[arg(long, value_name = "FILE")]
    pub recovery_out: Option<PathBuf>,
    /// File (mode 0600, or /dev/fd/N) with a passphrase that protects that file [default: the terminal is asked]
    #[arg(long, value_name = "FILE", requires = "recovery_out", conflicts_with = "recovery_no_passphrase")]
    pub recovery_passphrase_file: Option<PathBuf>,
    /// Protect that file by its mode alone, for a printer or a safe
    #[arg(long, requires = "recovery_out")]
    pub recovery_no_passphrase: bool,
}

impl RecoveryOut {
    /// How the file at `path` is protected. Asks only if nothing is there yet.
    fn protection(&self, path: &Path) -> Result<Protection, FileError> {
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists(path.into()));
        }
        if self.recovery_no_passphrase {
            return Ok(Protection::None);
        }
        let words = Source::named(self.recovery_passphrase_file.as_deref(), NEW_KEY).new_one(path)?;
        Ok(Protection::Passphrase(words, WorkFactor::DEFAULT))
    }
}

/// The text as a line, without a copy that is left behind.
fn line(text: &str) -> Zeroizing<Vec<u8>> {
    let mut line = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    line.extend_from_slice(text.as_bytes());
    line.push(b'\n');
    line
}

/// A recovery key that was made for the user, and where it is shown.
pub(super) struct Issued {
    key: Option<RecoveryKey>,
    file: Option<PathBuf>,
    json: bool,
}

impl Issued {
    /// Makes a key, and hands it out before anything is committed to it: a room must not have a key that nobody has seen.
    pub(super) fn new(
        wanted: bool,
        out: &RecoveryOut,
        json: bool,
        around: &mut Surroundings<'_>,
    ) -> Result<Self, Error> {
        if !wanted && out.recovery_out.is_some() {
            return Err(Error::Usage("--no-recovery and --recovery-out exclude each other".into()));
        }
        if !wanted {
            return Ok(Self { key: None, file: None, json });
        }
        let key = RecoveryKey::generate(&mut rng());
        let text = key.to_text();
        match &out.recovery_out {
            Some(path) => passphrase::create(path, &line(&text), &out.protection(path)?)?,
            // As JSON too: what stands in the answer comes when the room is committed to the key.
            None => tell(&text, around).map_err(Error::Untold)?,
        }
        Ok(Self { key: Some(key), file: out.recovery_out.clone(), json })
    }

    pub(super) fn key(&self) -> Option<&RecoveryKey> {
        self.key.as_ref()
    }

    /// The key and its file, as JSON shows them.
    pub(super) fn shown(&self) -> (Option<Zeroizing<String>>, Option<&Path>) {
        let key = self.key.as_ref().filter(|_| self.json && self.file.is_none());
        (key.map(RecoveryKey::to_text), self.file.as_deref())
    }

    /// What to do about the key where the work failed. An answer may have been lost: then the key may count all the same, and stays
    /// where it is. Nothing is removed in any case: that it was refused is a node's word.
    pub(super) fn failed(&self, why: &Error, around: &mut Surroundings<'_>) {
        if self.key.is_none() {
            return;
        }
        let what = match &self.file {
            Some(path) => format!("the recovery key in {}", path.display()),
            None => "this recovery key".to_owned(),
        };
        let said = match (why.made(), &self.file) {
            (Made::Not, None) => format!("{what} was not used, no room has it: strike it out"),
            (Made::Not, Some(path)) => match unused(path) {
                Ok(aside) => format!("{what} was not used, no room has it: it is {} now, remove it", aside.display()),
                Err(_) => format!("{what} was not used, no room has it: remove it"),
            },
            (Made::Yes, _) => format!("keep {what}: it counts from now on"),
            (Made::Unknown, _) => {
                format!("keep {what} until `ehe rooms` or `ehe authority show` tells whether it was done")
            }
        };
        let _ = (around.complain)(&said);
    }
}

/// Names a file as that of a key which was not used.
fn unused(path: &Path) -> Result<PathBuf, FileError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unused");
    let aside = PathBuf::from(aside);
    file::set_aside(path, &aside)?;
    Ok(aside)
}

fn tell(text: &str, around: &mut Surroundings<'_>) -> std::io::Result<()> {
    (around.complain)(&format!("recovery key: {text}"))?;
    (around.complain)(
        "write it down now, it is kept nowhere: without it lost keys cannot be replaced; whoever has it can become the patient",
    )
}

/// Reads a recovery key as somebody typed it.
fn typed(path: &Path, words: &Source) -> Result<RecoveryKey, Error> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_MAX_BYTES + 1));
        let read = std::io::stdin().lock().take(KEY_FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Io { path: "standard input".into(), source })?;
        bytes
    } else {
        passphrase::read(path, "write the recovery key into it as it was printed", words)?
    };
    // Text that is none has no key in it either.
    Ok(std::str::from_utf8(&bytes).unwrap_or_default().parse()?)
}

/// Does what was asked for.
pub(super) async fn run(
    command: AuthorityCommand,
    session: &mut Session,
    around: &mut Surroundings<'_>,
    printer: &mut Printer<'_>,
) -> Result<(), Error> {
    let json = printer.is_json();
    match command {
        AuthorityCommand::Show { room, key, key_passphrase_file } => {
            let words = Source::named(key_passphrase_file.as_deref(), KEY);
            let key = key.as_deref().map(|key| typed(key, &words)).transpose()?;
            printer.standing(&authority::show(session, room.room, key.as_ref()).await?)
        }
        AuthorityCommand::Rotate { room, to, to_passphrase_file } => {
            let words = Source::named(to_passphrase_file.as_deref(), TO);
            let moved = authority::rotate(session, room.room, Home::at(to.clone()), &words).await;
            let moved = moved.inspect_err(|why| {
                if why.made() == Made::Not {
                    let _ =
                        (around.complain)(&format!("the keys in {} were not used: those before hold on", to.display()));
                }
            })?;
            printer.moved(&moved, (None, None))?;
            if json { Ok(()) } else { printer.line(format!("use --home {} for this room from now on", to.display())) }
        }
        AuthorityCommand::Resume { room, from, key, other_passphrase_file } => {
            let words = Source::named(other_passphrase_file.as_deref(), OTHER);
            let recovered = key.is_some();
            let other = match (from, key) {
                (Some(dir), _) => authority::keys_before(session, Home::at(dir), &words)?,
                (None, Some(key)) => typed(&key, &words)?.identity(),
                (None, None) => return Err(Error::Usage("name --from or --key".into())),
            };
            let moved = authority::resume(session, room.room, &other).await?;
            printer.moved(&moved, (None, None))?;
            if recovered && !json { printer.stays(room.room, &moved.stays) } else { Ok(()) }
        }
        AuthorityCommand::Renew(room) => printer.renewed(&authority::renew(session, room.room).await?.0),
        AuthorityCommand::Delegate(args) => {
            let rights = args.may.iter().map(|may| may.right());
            let rights = rights.reduce(Rights::and).ok_or_else(|| Error::Usage("name --may".into()))?;
            let delegate = identity_file::load_public(&args.to)?;
            let to = Delegated { delegate, rights, expires: args.expires, name: args.name };
            authority::delegate(session, args.room, &to).await?;
            printer.delegated(to.delegate.author_id())
        }
        AuthorityCommand::Withdraw { room, delegate } => {
            let left = authority::withdraw(session, room.room, delegate).await?;
            printer.withdrawn(room.room, delegate, &left)
        }
        AuthorityCommand::SetRecovery { room, out } => {
            // What would be refused anyway is, before there is a key that somebody keeps for nothing.
            let uncommitted = authority::uncommitted(session, room.room).await?;
            let issued = Issued::new(true, &out, json, around)?;
            let Some(key) = issued.key() else { return Ok(()) };
            let set = authority::set_recovery(session, uncommitted, key).await;
            set.inspect_err(|why| issued.failed(why, around))?;
            printer.recovery_set(room.room, issued.shown())
        }
        AuthorityCommand::Recover(args) => {
            let key = typed(&args.key, &Source::named(args.key_passphrase_file.as_deref(), KEY))?;
            let recoverable = authority::recoverable(session, args.room, &key, args.distrust_from).await?;
            let issued = Issued::new(!args.no_recovery, &args.out, json, around)?;
            let moved = authority::recover(session, recoverable, issued.key()).await;
            let moved = moved.inspect_err(|why| issued.failed(why, around))?;
            printer.moved(&moved, issued.shown())?;
            if json { Ok(()) } else { printer.stays(args.room, &moved.stays) }
        }
    }
}
