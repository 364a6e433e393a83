//! Passphrases: where a program gets one from, and what protects a file of secrets.
//!
//! A key that a person holds (patient, clinician, member, the authority) is protected by a passphrase unless its owner says
//! otherwise. A key that a daemon holds is not: gateway and node start unattended, so a passphrase beside the key would be worth
//! nothing; there, systemd's credentials keep the file (`systemd/README.md`). A passphrase never comes from an argument or an
//! environment variable, which every process of the machine's user can read.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::age::{self, WorkFactor};
use crate::file::{self, FileError};
use crate::terminal;

/// Least characters of a new passphrase.
pub const PASSPHRASE_MIN_CHARS: usize = 8;
/// Most bytes of a passphrase.
pub const PASSPHRASE_MAX_BYTES: usize = 1024;

const FILE_REMEDY: &str = "write the passphrase there, mode 0600, or leave the option that names it out and type it";

/// The options of a command that stand for one passphrase: a message names those that help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Names a file that holds it.
    pub file: &'static str,
    /// Goes without, where the passphrase is one that is to be.
    pub none: Option<&'static str>,
}

impl Options {
    /// Those of a command that takes one passphrase.
    pub const USUAL: Self = Self::new("--passphrase-file", "--no-passphrase");
    /// Those of a command that changes a passphrase: for the one that is to be.
    pub const CHANGED: Self = Self::new("--new-passphrase-file", "--no-passphrase");

    /// Of a passphrase that is to be: `file` names a file that holds it; `none` goes without one.
    pub const fn new(file: &'static str, none: &'static str) -> Self {
        Self { file, none: Some(none) }
    }

    /// Of the passphrase of a file that is there: `file` names a file that holds it.
    pub const fn existing(file: &'static str) -> Self {
        Self { file, none: None }
    }
}

/// A passphrase; its memory is cleared when it goes.
pub struct Passphrase(Zeroizing<String>);

impl core::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// Why there is no passphrase to go on with. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PassphraseError {
    /// The file is protected, and this program cannot ask.
    #[error(
        "protected by a passphrase, which this program cannot ask for: it has to start unattended. Take the passphrase off with `ehe-certs passphrase --no-passphrase`, and keep the file 0600"
    )]
    Unattended,
    /// Nobody to ask.
    #[error("there is no terminal to ask for the passphrase: name a file that holds it with {}{}", .options.file, without(.options, *.new))]
    NoTerminal {
        /// What stands for it on the command line.
        options: Options,
        /// Whether it was to be a new one.
        new: bool,
    },
    /// Typed twice, differently.
    #[error("the two passphrases differ, so nothing was written: try again")]
    Differ,
    /// Too short to protect anything.
    #[error(
        "a passphrase has at least {PASSPHRASE_MIN_CHARS} characters (several words are easy to remember), so nothing was written"
    )]
    Short,
    /// None, or longer than any.
    #[error("a passphrase is one line of 1 to {PASSPHRASE_MAX_BYTES} bytes of text (UTF-8)")]
    Shape,
    /// The terminal failed.
    #[error("the passphrase was not read: {0}")]
    Io(#[from] io::Error),
}

fn without(options: &Options, new: bool) -> String {
    options.none.filter(|_| new).map(|none| format!(", or say {none}")).unwrap_or_default()
}

impl Passphrase {
    /// Takes what was typed or read. One line end is no part of it.
    pub fn new(text: Zeroizing<String>) -> Result<Self, PassphraseError> {
        let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        if line.is_empty() || line.len() > PASSPHRASE_MAX_BYTES || line.chars().any(char::is_control) {
            return Err(PassphraseError::Shape);
        }
        Ok(Self(Zeroizing::new(line.to_owned())))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn from_file(path: &Path) -> Result<Self, FileError> {
        let bytes = match file::is_own_descriptor(path) {
            // Whoever started this program opened it: a pipe will do, and nobody else sees it.
            true => descriptor(path).map_err(file::FileError::io(path, "read it"))?,
            false => file::read_secret(path, PASSPHRASE_MAX_BYTES + 2, FILE_REMEDY)?,
        };
        let text = std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned()));
        text.map_err(|_| PassphraseError::Shape).and_then(Self::new).map_err(|source| at(path)(source))
    }
}

fn descriptor(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const ROOM: usize = PASSPHRASE_MAX_BYTES + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
    let most = u64::try_from(ROOM).unwrap_or(0);
    match File::open(path) {
        // Another user's pipe can be read from, and not be opened again: `sudo -u ehe …` with root's pipe on standard input.
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied && path == Path::new("/dev/stdin") => {
            io::stdin().lock().take(most).read_to_end(&mut bytes)?;
        }
        opened => {
            opened?.take(most).read_to_end(&mut bytes)?;
        }
    }
    Ok(bytes)
}

fn at(path: &Path) -> impl FnOnce(PassphraseError) -> FileError {
    move |source| FileError::Passphrase { path: path.into(), source }
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A daemon: nobody is there to ask.
    Nobody,
    /// The terminal that the program runs on; where there is none, these options help.
    Terminal(Options),
    /// A file of mode 0600, or `/dev/fd/N` for a descriptor that the caller opened.
    File(PathBuf),
}

impl Source {
    /// The file that `--passphrase-file` named, else the terminal.
    pub fn of(file: Option<&Path>) -> Self {
        Self::named(file, Options::USUAL)
    }

    /// The file that one of these options named, else the terminal.
    pub fn named(file: Option<&Path>, options: Options) -> Self {
        file.map_or(Self::Terminal(options), |file| Self::File(file.into()))
    }

    /// The passphrase of a file that is there, asked for once.
    pub fn existing(&self, of: &Path) -> Result<Passphrase, FileError> {
        match self {
            Self::Nobody => Err(at(of)(PassphraseError::Unattended)),
            Self::File(path) => Passphrase::from_file(path),
            Self::Terminal(options) => ask(&format!("Passphrase of {}: ", shown(of)), *options, false).map_err(at(of)),
        }
    }

    /// The passphrase of a file that is to be made; typed twice on a terminal.
    pub fn new_one(&self, of: &Path) -> Result<Passphrase, FileError> {
        let passphrase = match self {
            Self::Nobody => return Err(at(of)(PassphraseError::Unattended)),
            Self::File(path) => Passphrase::from_file(path)?,
            Self::Terminal(options) => {
                let first = ask(&format!("New passphrase of {}: ", shown(of)), *options, true).map_err(at(of))?;
                let again = ask("The same again: ", *options, true).map_err(at(of))?;
                if first.0 != again.0 {
                    return Err(at(of)(PassphraseError::Differ));
                }
                first
            }
        };
        if passphrase.0.chars().count() < PASSPHRASE_MIN_CHARS {
            return Err(at(of)(PassphraseError::Short));
        }
        Ok(passphrase)
    }
}

fn shown(path: &Path) -> String {
    terminal::escaped(&path.display().to_string())
}

fn ask(prompt: &str, options: Options, new: bool) -> Result<Passphrase, PassphraseError> {
    let line = terminal::ask_hidden(prompt)?.ok_or(PassphraseError::NoTerminal { options, new })?;
    let text = std::str::from_utf8(&line).map_err(|_| PassphraseError::Shape)?;
    Passphrase::new(Zeroizing::new(text.to_owned()))
}

/// How a file of secrets is protected beyond its mode.
#[derive(Debug)]
pub enum Protection {
    /// By nothing: what a daemon holds, and what its owner wants so.
    None,
    /// By a passphrase.
    Passphrase(Passphrase, WorkFactor),
}

impl Protection {
    /// Encrypts the content of a file to be, if it is to be protected.
    pub(crate) fn seal(&self, path: &Path, plain: &[u8]) -> Result<Option<String>, FileError> {
        let Self::Passphrase(passphrase, work) = self else { return Ok(None) };
        let mut fresh = age::Fresh { file_key: Zeroizing::default(), salt: [0; 16], nonce: [0; 16] };
        for part in [&mut *fresh.file_key, &mut fresh.salt, &mut fresh.nonce] {
            getrandom::fill(part).map_err(FileError::Random)?;
        }
        age::seal(plain, passphrase, *work, &fresh).map(Some).map_err(FileError::sealed(path))
    }
}

/// Opens the armored content of a file. What costs nothing is judged before anybody is asked.
pub(crate) fn open(path: &Path, armored: &str, source: &Source) -> Result<Zeroizing<Vec<u8>>, FileError> {
    age::judge(armored).map_err(FileError::sealed(path))?;
    age::open(armored, &source.existing(path)?).map_err(FileError::sealed(path))
}

/// Creates a file for a secret text: protected, it is an age file (armored) of that text, else the text. Never overwrites, mode
/// 0600 from its first moment, durable when this returns.
pub fn create(path: &Path, text: &[u8], protection: &Protection) -> Result<(), FileError> {
    match protection.seal(path, text)? {
        Some(sealed) => file::create_secret(path, sealed.as_bytes()),
        None => file::create_secret(path, text),
    }
}

/// Puts a file in another protection's place, at once. What the disk held before may still be found on it.
pub(crate) fn replace(path: &Path, text: &[u8], protection: &Protection) -> Result<(), FileError> {
    match protection.seal(path, text)? {
        Some(sealed) => file::replace_secret(path, sealed.as_bytes()),
        None => file::replace_secret(path, text),
    }
}

/// Reads what [`create`] wrote, with a passphrase where it is protected by one. `remedy` says how the file comes to be.
pub fn read(path: &Path, remedy: &'static str, source: &Source) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let bytes = file::read_secret(path, age::ARMORED_MAX_BYTES, remedy)?;
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.starts_with(age::ARMOR_BEGIN) => open(path, text, source),
        _ => Ok(bytes),
    }
}
