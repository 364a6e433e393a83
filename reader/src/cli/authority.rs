//! `ehe authority`, and the recovery keys that it and `ehe room create` make: arguments, work, printing.

use std::io::Read;
use std::path::{Path, PathBuf};

use certs::age::WorkFactor;
use certs::passphrase::{self, Protection, Source};
use certs::{FileError, identity_file};
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
use crate::error::Error;
use crate::home::Home;
use crate::output::Printer;
use crate::session::{Session, rng};
use crate::when;

/// Largest recovery key file that is read.
const KEY_FILE_MAX_BYTES: usize = 512;

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
    /// Move a room to the keys of another directory, made by `ehe identity new` and certified
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
        let words = Source::of(self.recovery_passphrase_file.as_deref()).new_one(path)?;
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

    /// What to do about the key where the work failed. An answer may have been lost: then the key counts all the same.
    pub(super) fn failed(&self, around: &mut Surroundings<'_>) {
        match (&self.key, &self.file) {
            (Some(_), Some(path)) => {
                let _ = (around.complain)(&format!("keep {} until it is clear whether it was done", path.display()));
            }
            (Some(_), None) => {
                let _ = (around.complain)("keep this recovery key until it is clear whether it was done");
            }
            (None, _) => {}
        }
    }
}

fn tell(text: &str, around: &mut Surroundings<'_>) -> std::io::Result<()> {
    (around.complain)(&format!("recovery key: {text}"))?;
    (around.complain)(
        "write it down now, it is kept nowhere: without it lost keys cannot be replaced; whoever has it can become the patient",
    )
}

/// Reads a recovery key as somebody typed it.
fn typed(path: &Path, words: Option<&Path>) -> Result<RecoveryKey, Error> {
    let bytes = if path == Path::new("-") {
        let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_FILE_MAX_BYTES + 1));
        let read = std::io::stdin().lock().take(KEY_FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|source| Error::Io { path: "standard input".into(), source })?;
        bytes
    } else {
        passphrase::read(path, "write the recovery key into it as it was printed", &Source::of(words))?
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
            let key = key.as_deref().map(|key| typed(key, key_passphrase_file.as_deref())).transpose()?;
            printer.standing(&authority::show(session, room.room, key.as_ref()).await?)
        }
        AuthorityCommand::Rotate { room, to, to_passphrase_file } => {
            let words = Source::of(to_passphrase_file.as_deref());
            let moved = authority::rotate(session, room.room, Home::at(to.clone()), &words).await?;
            printer.moved(&moved, (None, None))?;
            if json { Ok(()) } else { printer.line(format!("use --home {} for this room from now on", to.display())) }
        }
        AuthorityCommand::Resume { room, from, key, other_passphrase_file } => {
            let words = other_passphrase_file.as_deref();
            let other = match (from, key) {
                (Some(dir), _) => session.beside(Home::at(dir), &Source::of(words))?.me().clone(),
                (None, Some(key)) => typed(&key, words)?.identity(),
                (None, None) => return Err(Error::Usage("name --from or --key".into())),
            };
            printer.moved(&authority::resume(session, room.room, &other).await?, (None, None))
        }
        AuthorityCommand::Renew(room) => printer.renewed(&authority::renew(session, room.room).await?),
        AuthorityCommand::Delegate(args) => {
            let rights = args.may.iter().map(|may| match may {
                May::Grant => Rights::GRANT,
                May::Revoke => Rights::REVOKE,
                May::Epoch => Rights::EPOCH,
            });
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
            let issued = Issued::new(true, &out, json, around)?;
            let Some(key) = issued.key() else { return Ok(()) };
            let set = authority::set_recovery(session, room.room, key).await;
            set.inspect_err(|_| issued.failed(around))?;
            printer.recovery_set(room.room, issued.shown())
        }
        AuthorityCommand::Recover(args) => {
            let key = typed(&args.key, args.key_passphrase_file.as_deref())?;
            let issued = Issued::new(!args.no_recovery, &args.out, json, around)?;
            let moved = authority::recover(session, args.room, &key, issued.key(), args.distrust_from).await;
            let moved = moved.inspect_err(|_| issued.failed(around))?;
            printer.moved(&moved, issued.shown())
        }
    }
}
