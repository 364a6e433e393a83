//! Recovery keys that `ehe room create` and `ehe authority` make: where they go, and what becomes of them where the work fails.

use std::path::{Path, PathBuf};

use certs::age::WorkFactor;
use certs::passphrase::{self, Options, Protection, Source};
use certs::{FileError, file};
use clap::Args;
use ehe::recovery::RecoveryKey;
use zeroize::Zeroizing;

use super::run::Surroundings;
use crate::error::{Error, Made};
use crate::session::rng;

/// What stands for the passphrase of a recovery key's new file.
const NEW_KEY: Options = Options::new("--recovery-passphrase-file", "--recovery-no-passphrase");

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
        let by_whom = match why {
            Error::Refused(_) => "the node says that it was refused, and shows no room that has it",
            _ => "nothing was sent",
        };
        let said = match (why.made(), &self.file) {
            (Made::Not, None) => format!("{what} was not used: {by_whom}; strike it out"),
            (Made::Not, Some(path)) => match unused(path) {
                Ok(aside) => format!("{what} was not used: {by_whom}; it is {} now, remove it", aside.display()),
                Err(_) => format!("{what} was not used: {by_whom}; remove it"),
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
