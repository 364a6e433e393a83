//! `ehe authority`: arguments, work, printing.

use std::io::Read;
use std::path::{Path, PathBuf};

use certs::identity_file;
use certs::passphrase::{self, Options, Source};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use ehe::control::Rights;
use ehe::id::{AuthorId, RoomId};
use ehe::recovery::RecoveryKey;
use ehe::time::UnixMs;
use zeroize::Zeroizing;

use super::RoomArgs;
use super::issued::{Issued, RecoveryOut};
use super::run::Surroundings;
use crate::authority;
use crate::build::Delegated;
use crate::error::{Error, Made};
use crate::home::Home;
use crate::output::Printer;
use crate::recovery;
use crate::session::Session;
use crate::when;

/// Largest recovery key file that is read.
const KEY_FILE_MAX_BYTES: usize = 512;

/// What stands for the passphrase of a recovery key's file.
const KEY: Options = Options::existing("--key-passphrase-file");
/// For that of the keys to rotate to.
const TO: Options = Options::existing("--to-passphrase-file");
/// For that of the keys before the present ones.
const OTHER: Options = Options::existing("--other-passphrase-file");

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
        /// Give the recovery key that the room has what it cannot open yet: giving it broke off
        #[arg(long, conflicts_with = "recovery_out")]
        complete: bool,
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
            let mut after = authority::keys_after(session, Home::at(to.clone()), &words)?;
            let moved = match authority::rotatable(session, room.room, &mut after).await {
                Ok(rotatable) => authority::rotate(session, rotatable, &mut after).await.inspect_err(|why| {
                    if why.made() == Made::Not {
                        let to = to.display();
                        let _ = (around.complain)(&format!("the keys in {to} were not used: those before hold on"));
                    }
                }),
                Err(why) => Err(why),
            };
            after.nodes.close().await;
            printer.moved(&moved?, (None, None))?;
            if json { Ok(()) } else { printer.line(format!("use --home {} for this room from now on", to.display())) }
        }
        AuthorityCommand::Resume { room, from, key, other_passphrase_file } => {
            let words = Source::named(other_passphrase_file.as_deref(), OTHER);
            let (recovered, before) = (key.is_some(), from.clone());
            let other = match (from, key) {
                (Some(dir), _) => authority::keys_before(session, Home::at(dir), &words)?,
                (None, Some(key)) => typed(&key, &words)?.identity(),
                (None, None) => return Err(Error::Usage("name --from or --key".into())),
            };
            let moved = authority::resume(session, room.room, &other).await?;
            if let Some(before) = before {
                authority::moved_on(&Home::at(before), room.room);
            }
            printer.moved(&moved, (None, None))?;
            if recovered && !json { printer.in_force(room.room, &moved.in_force) } else { Ok(()) }
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
        AuthorityCommand::SetRecovery { room, complete: true, .. } => {
            printer.recovery_completed(room.room, recovery::complete(session, room.room).await?)
        }
        AuthorityCommand::SetRecovery { room, out, .. } => {
            // What would be refused anyway is, before there is a key that somebody keeps for nothing.
            let uncommitted = recovery::uncommitted(session, room.room).await?;
            let issued = Issued::new(true, &out, json, around)?;
            let Some(key) = issued.key() else { return Ok(()) };
            let set = recovery::set(session, uncommitted, key).await;
            set.inspect_err(|why| issued.failed(why, around))?;
            printer.recovery_set(room.room, issued.shown())
        }
        AuthorityCommand::Recover(args) => {
            let key = typed(&args.key, &Source::named(args.key_passphrase_file.as_deref(), KEY))?;
            let recoverable = authority::recoverable(session, args.room, &key, args.distrust_from).await?;
            let issued = Issued::new(!args.no_recovery, &args.out, json, around)?;
            let moved = authority::recover(session, recoverable, issued.key()).await;
            let moved = moved.inspect_err(|why| issued.failed(why, around))?;
            let typed = args.key == Path::new("-");
            let file = if typed { String::new() } else { format!(" in {}", args.key.display()) };
            let _ = (around.complain)(&format!("the recovery key{file} was used and counts no more: destroy it"));
            printer.moved(&moved, issued.shown())?;
            if json { Ok(()) } else { printer.in_force(args.room, &moved.in_force) }
        }
    }
}
