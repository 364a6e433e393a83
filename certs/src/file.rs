//! Files that hold secrets, and small files that hold none: created once, synced, bounded when read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use zeroize::Zeroizing;

use crate::age::AgeError;
use crate::passphrase::PassphraseError;

/// Mode of a file that holds a secret.
const SECRET_MODE: u32 = 0o600;
/// Mode of a file that holds none.
const PUBLIC_MODE: u32 = 0o644;
/// Mode of a directory that holds secrets.
const DIR_MODE: u32 = 0o700;
/// Largest file read here, where its type sets no lower limit.
pub(crate) const SMALL_FILE_MAX_BYTES: usize = 64 * 1024;

/// Why a file was not read or not written. Each text names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is there already, and holds what must not be overwritten.
    #[error("{} is there already and is never overwritten: choose another name, or move it away yourself", .0.display())]
    Exists(PathBuf),
    /// It is not there.
    #[error("{} is missing: {remedy}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// How it comes to be.
        remedy: &'static str,
    },
    /// It holds a secret, and others than its owner may read it.
    #[error("{path} holds a secret and has mode {mode:03o}: others may have read it. Renew the key, or, if you are sure that nobody did: chmod 600 {path}", path = .path.display())]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is larger than what it should hold.
    #[error("{} has more than {limit} bytes: not the file that it should be", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Most bytes that its type has.
        limit: usize,
    },
    /// It is there and is not what it should be.
    #[error("{}: {why}", .path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A directory, a pipe, a device.
    #[error("{} is {what}: name a regular file", .path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It is protected by a passphrase, and there is none to open it with.
    #[error("{}: {source}", .path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// Why there is none.
        source: PassphraseError,
    },
    /// It is protected by a passphrase, and does not open.
    #[error("{}: {source}", .path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: AgeError,
    },
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was attempted.
        doing: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The operating system gave no random bytes; no key was made.
    #[error("no random bytes from the operating system, so no key was made: {0}")]
    Random(getrandom::Error),
}

impl FileError {
    pub(crate) fn format(path: &Path, why: impl ToString) -> Self {
        Self::Format { path: path.into(), why: why.to_string() }
    }

    pub(crate) fn sealed(path: &Path) -> impl FnOnce(AgeError) -> Self {
        move |source| Self::Sealed { path: path.into(), source }
    }

    pub(crate) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.into(), doing, source }
    }
}

/// 32 fresh random bytes from the operating system.
pub(crate) fn random_32() -> Result<Zeroizing<[u8; 32]>, FileError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    getrandom::fill(bytes.as_mut()).map_err(FileError::Random)?;
    Ok(bytes)
}

/// Makes a directory that only its owner may enter; one that is there stays as it is.
pub fn create_dir(dir: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(FileError::io(dir, "create the directory"))
}

/// Creates a file for a secret: never overwrites, mode 0600 from its first moment, durable when this returns.
pub fn create_secret(path: &Path, content: &[u8]) -> Result<(), FileError> {
    create(path, content, SECRET_MODE)
}

/// Creates a file without a secret: never overwrites, durable when this returns.
pub fn create_public(path: &Path, content: &[u8]) -> Result<(), FileError> {
    create(path, content, PUBLIC_MODE)
}

/// Gives a file a name under which nothing is yet; never overwrites.
pub fn set_aside(path: &Path, aside: &Path) -> Result<(), FileError> {
    renameat_with(CWD, path, CWD, aside, RenameFlags::NOREPLACE).map_err(|why| match why {
        rustix::io::Errno::EXIST => FileError::Exists(aside.into()),
        why => FileError::Io { path: path.into(), doing: "rename it", source: why.into() },
    })?;
    sync_parent(aside)
}

fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            FileError::Exists(path.into())
        } else {
            FileError::Io { path: path.into(), doing: "create it", source }
        }
    })?;
    if let Err(source) = file.write_all(content).and_then(|()| file.sync_all()) {
        // Half a key is none, and would be in the way of the next attempt. We made the file, so we may remove it.
        let _ = fs::remove_file(path);
        return Err(FileError::Io { path: path.into(), doing: "write it", source });
    }
    sync_parent(path)
}

/// Replaces a file at once: whoever reads it finds the old or the new content, also after a crash.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    replace_as(path, content, PUBLIC_MODE)
}

/// As [`replace`], for a file that holds a secret: mode 0600 from its first moment. What the disk held before may still be found
/// on it by whoever reads the device.
pub(crate) fn replace_secret(path: &Path, content: &[u8]) -> Result<(), FileError> {
    // Through a link to the file that it stands for: a plain copy must not stay behind there.
    let path = fs::canonicalize(path).map_err(FileError::io(path, "find it"))?;
    replace_as(&path, content, SECRET_MODE)
}

fn replace_as(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    remove_leftovers(path)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    create(&temporary, content, mode)?;
    fs::rename(&temporary, path).map_err(FileError::io(path, "put the new version in its place"))?;
    sync_parent(path)
}

/// Removes what processes that crashed in [`replace_as`] left: it may hold a secret without the passphrase that protects it since.
fn remove_leftovers(path: &Path) -> Result<(), FileError> {
    let own = path.file_name().unwrap_or_default().as_encoded_bytes();
    let entries = fs::read_dir(parent(path)).map_err(FileError::io(path, "look beside it"))?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let process = name.as_encoded_bytes().strip_prefix(own).and_then(|rest| rest.strip_prefix(b"."));
        let process = process.and_then(|rest| rest.strip_suffix(b".new")).and_then(|id| std::str::from_utf8(id).ok());
        let Some(process) = process.and_then(|id| id.parse::<u32>().ok()) else { continue };
        // One that runs may be at it; of our number it was another one, before us.
        if process == std::process::id() || !Path::new("/proc").join(process.to_string()).exists() {
            match fs::remove_file(entry.path()) {
                Err(why) if why.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::io(&entry.path(), "remove what a crashed program left")(why));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Appends one line, durable when this returns. Half a line that an earlier writer left stays a line of its own.
pub(crate) fn append_line(path: &Path, line: &str) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(SECRET_MODE)
        .open(path)
        .map_err(FileError::io(path, "open it for appending"))?;
    let length = file.metadata().map_err(FileError::io(path, "look at it"))?.len();
    let mut last = *b"\n";
    if let Some(at) = length.checked_sub(1) {
        file.read_exact_at(&mut last, at).map_err(FileError::io(path, "read it"))?;
    }
    let before = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{before}{line}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(FileError::io(path, "append"))?;
    sync_parent(path)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    let parent = parent(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(FileError::io(parent, "sync the directory"))
}

/// Reads a secret file. Refuses one that its group or others may read: the secret may be known.
pub fn read_secret(path: &Path, limit: usize, remedy: &'static str) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = open(path, remedy)?;
    // Of the open file, not of the path: nobody can exchange it in between.
    let metadata = file.metadata().map_err(FileError::io(path, "look at it"))?;
    let mode = metadata.mode() & 0o777;
    let root = rustix::process::geteuid().is_root();
    if mode & 0o077 != 0 && !is_systemd_credential(metadata.uid(), metadata.gid(), mode, root) {
        return Err(FileError::OpenToOthers { path: path.into(), mode });
    }
    read(file, path, limit)
}

/// systemd (from 254 on) shows a service its credentials as root's, with an access list that names the service's user; the list's
/// mask stands where the group's bits are, so the mode reads 0440. Root and its group could read the original anyway.
fn is_systemd_credential(owner: u32, group: u32, mode: u32, we_are_root: bool) -> bool {
    owner == 0 && group == 0 && mode == 0o440 && !we_are_root
}

/// Reads a file that holds no secret.
pub fn read_public(path: &Path, limit: usize, remedy: &'static str) -> Result<Vec<u8>, FileError> {
    read(open(path, remedy)?, path, limit).map(|mut bytes| std::mem::take(&mut *bytes))
}

/// Reads a text file that holds no secret.
pub fn read_text(path: &Path, limit: usize, remedy: &'static str) -> Result<String, FileError> {
    String::from_utf8(read_public(path, limit, remedy)?).map_err(|_| FileError::format(path, "not a text (UTF-8)"))
}

/// What is wrong with a TOML text: line, column and the parser's words, without the line itself. It may be long, and where
/// somebody named the wrong file it may be a secret.
pub fn toml_fault(text: &str, error: &toml::de::Error) -> String {
    const MESSAGE_MAX_CHARS: usize = 300;
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    let message: String = error.message().chars().take(MESSAGE_MAX_CHARS).collect();
    format!("line {line}, column {column}: {}", message.trim_end())
}

/// Whether a path names a descriptor of this very process: whoever started it opened that.
pub(crate) fn is_own_descriptor(path: &Path) -> bool {
    path.starts_with("/dev/fd") || path.starts_with("/proc/self/fd") || path == Path::new("/dev/stdin")
}

/// Whether a program's own file is there already. It got its name when it was whole, so that what is there and is empty, a directory
/// or a pipe is damage, which must not pass for "not there yet".
pub fn is_made(path: &Path) -> io::Result<bool> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match kind_of(&metadata) {
        Some(what) => {
            Err(io::Error::other(format!("it is {what}, not the file that this program made: put that back")))
        }
        None if metadata.len() == 0 => Err(io::Error::other(
            "it is empty, and was not when it was made: restore it, or move it away to begin anew",
        )),
        None => Ok(true),
    }
}

/// What something is that is no regular file.
fn kind_of(metadata: &fs::Metadata) -> Option<&'static str> {
    match metadata.file_type() {
        kind if kind.is_file() => None,
        kind if kind.is_dir() => Some("a directory"),
        kind if kind.is_fifo() => Some("a pipe"),
        _ => Some("a device"),
    }
}

/// Opens for reading, and waits for nobody: a pipe without a writer would keep a program from ever starting.
pub fn open(path: &Path, remedy: &'static str) -> Result<File, FileError> {
    let mut options = OpenOptions::new();
    if !is_own_descriptor(path) {
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed());
    }
    let file = options.read(true).open(path).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            FileError::Missing { path: path.into(), remedy }
        } else {
            FileError::Io { path: path.into(), doing: "open it", source }
        }
    })?;
    match kind_of(&file.metadata().map_err(FileError::io(path, "look at it"))?) {
        // What the caller opened may be a pipe.
        Some("a pipe") if is_own_descriptor(path) => Ok(file),
        Some(what) => Err(FileError::NotAFile { path: path.into(), what }),
        None => Ok(file),
    }
}

fn read(file: File, path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Room for all of it at once: a vector that grows would leave copies of a secret behind.
    let length = file.metadata().map_err(FileError::io(path, "look at it"))?.len();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > limit {
        return Err(FileError::TooLarge { path: path.into(), limit });
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).map_err(FileError::io(path, "read it"))?;
    if bytes.len() > limit { Err(FileError::TooLarge { path: path.into(), limit }) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_its_owners_alone_from_the_start_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create_secret(&path, b"one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create_secret(&path, b"two"), Err(FileError::Exists(_))));
        assert_eq!(*read_secret(&path, 10, "").unwrap(), b"one");
    }

    #[test]
    fn a_file_is_set_aside_only_where_nothing_is() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("key"), dir.path().join("key.unused"));
        create_secret(&path, b"one").unwrap();
        set_aside(&path, &aside).unwrap();
        assert!(!path.exists());
        create_secret(&path, b"two").unwrap();
        assert!(matches!(set_aside(&path, &aside), Err(FileError::Exists(_))));
        assert_eq!(
            (&**read_secret(&path, 9, "").unwrap(), &**read_secret(&aside, 9, "").unwrap()),
            (&b"two"[..], &b"one"[..])
        );
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create_secret(&path, b"one").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&path, 10, "").unwrap_err();
            assert!(matches!(error, FileError::OpenToOthers { mode: m, .. } if m == mode), "{error}");
        }
    }

    #[test]
    fn of_wider_modes_only_that_of_a_systemd_credential_is_taken() {
        assert!(is_systemd_credential(0, 0, 0o440, false));
        for (owner, group, mode, root) in [
            (0, 0, 0o440, true),
            (0, 0, 0o460, false),
            (0, 0, 0o444, false),
            (0, 7, 0o440, false),
            (7, 0, 0o440, false),
        ] {
            assert!(!is_systemd_credential(owner, group, mode, root), "{owner} {group} {mode:o} {root}");
        }
    }

    #[test]
    fn a_file_above_its_limit_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        create_public(&path, &[0; 11]).unwrap();
        assert!(matches!(read_public(&path, 10, ""), Err(FileError::TooLarge { limit: 10, .. })));
        assert!(read_public(&path, 11, "").is_ok());
    }

    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, expected) in
            [(pipe.as_path(), "pipe"), (dir.path(), "directory"), (Path::new("/dev/zero"), "device")]
        {
            for error in [read_public(path, 10, "").unwrap_err(), read_secret(path, 10, "").unwrap_err()] {
                assert!(matches!(error, FileError::NotAFile { what, .. } if what.contains(expected)), "{error}");
            }
        }
    }

    #[test]
    fn a_secret_that_is_replaced_stays_its_owners_alone_also_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("secret"), dir.path().join("link"));
        create_secret(&path, b"one").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace_secret(&link, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_a_crash_left_of_an_earlier_version_goes_with_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create_secret(&path, b"one").unwrap();
        // No process has a number as large as this.
        let (dead, ours) = ("secret.4294967295.new".to_owned(), format!("secret.{}.new", std::process::id()));
        let others = ["secret.1.new", "secret.x.new", "secret2.4294967295.new", "secret.new"].map(str::to_owned);
        for name in [&dead, &ours].into_iter().chain(&others) {
            fs::write(dir.path().join(name), "in the clear").unwrap();
        }
        replace_secret(&path, b"two").unwrap();
        assert!([dead, ours].iter().all(|name| !dir.path().join(name).exists()));
        assert!(others.iter().all(|name| dir.path().join(name).exists()), "a running process's and other files stay");
    }

    #[test]
    fn replacing_leaves_one_file_with_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("public");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
