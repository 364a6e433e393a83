//! Identities in files: `identity.json` holds both secret seeds, `identity.pub` the public half on one line.
//!
//! Unprotected, `identity.json` is `{"type":"ehe identity","version":1,"protection":"none","author":…,"sign_seed":…,"kem_seed":…}`.
//! Protected by a passphrase it is `{…,"protection":"age-scrypt","author":…,"sealed":"-----BEGIN AGE ENCRYPTED FILE-----…"}`, and what
//! `sealed` opens to is the unprotected file: `jq -r .sealed identity.json | age -d` gets it back without any program of ours.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::cbor;
use ehe::id::{AuthorId, hex, unhex};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::KemSecret;
use ehe::sign::SignKey;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::file::{self, FileError, SMALL_FILE_MAX_BYTES};
use crate::passphrase::{self, Protection, Source};

const TYPE: &str = "ehe identity";
const VERSION: u32 = 1;
/// Starts the line of a public identity; the digit is its version.
const PUBLIC_MARKER: &str = "ehe-identity-1";
/// Largest encoded public identity.
const PUBLIC_MAX_BYTES: usize = 2048;

const SECRET_REMEDY: &str = "make one with `ehe identity new` or `ehe-certs identity new`";
const PUBLIC_REMEDY: &str = "ask the identity's owner for the file `identity.pub`";

const PLAIN: &str = "none";
const SEALED: &str = "age-scrypt";

/// The members of an unprotected file, and of what a protected one opens to.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct Stored {
    r#type: String,
    version: u32,
    protection: String,
    author: String,
    sign_seed: String,
    kem_seed: String,
}

/// The members of a file that a passphrase protects.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSealed {
    r#type: String,
    version: u32,
    protection: String,
    author: String,
    sealed: String,
}

/// The file's first members, to give a newer file its right name.
#[derive(Deserialize)]
struct Marker {
    r#type: String,
    version: u32,
    protection: String,
}

/// A new identity from the operating system's randomness.
pub fn generate() -> Result<Identity, FileError> {
    let sign = SignKey::from_seed(&*file::random_32()?);
    Ok(Identity::new(sign, KemSecret::from_seed(file::random_32()?)))
}

/// Writes both secret seeds to a new file of mode 0600, without a passphrase: for what a daemon holds. Never overwrites; durable
/// when this returns.
pub fn create(path: &Path, identity: &Identity) -> Result<(), FileError> {
    create_with(path, identity, &Protection::None)
}

/// As [`create`], with the protection that the identity's owner wants.
pub fn create_with(path: &Path, identity: &Identity, protection: &Protection) -> Result<(), FileError> {
    file::create_secret(path, &encoded(path, identity, protection)?)
}

fn encoded(path: &Path, identity: &Identity, protection: &Protection) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let stored = Stored {
        r#type: TYPE.into(),
        version: VERSION,
        protection: PLAIN.into(),
        author: identity.author_id().to_string(),
        sign_seed: hex(identity.sign_key().to_seed().as_slice()),
        kem_seed: hex(identity.kem_secret().seed().as_slice()),
    };
    let plain = text(path, &stored)?;
    let Some(sealed) = protection.seal(path, &plain)? else { return Ok(plain) };
    let author = stored.author.clone();
    text(path, &StoredSealed { r#type: TYPE.into(), version: VERSION, protection: SEALED.into(), author, sealed })
}

fn text(path: &Path, stored: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, FileError> {
    // Room for all of it, so that no copy stays behind when the buffer grows.
    let mut text = Zeroizing::new(Vec::with_capacity(4096));
    serde_json::to_writer_pretty(&mut *text, stored).map_err(|e| FileError::format(path, e))?;
    text.push(b'\n');
    Ok(text)
}

/// Reads an identity without asking anybody: one that a passphrase protects is refused, by name. Refuses a file that others may
/// read, and one whose seeds are not its author's.
pub fn load(path: &Path) -> Result<Identity, FileError> {
    open(path, &Source::Nobody)
}

/// As [`load`], with a passphrase where the file is protected by one.
pub fn open(path: &Path, passphrase: &Source) -> Result<Identity, FileError> {
    match read(path)? {
        Read::Plain(bytes) => plain(path, &bytes),
        Read::Sealed(stored) => {
            let bytes = passphrase::open(path, &stored.sealed, passphrase)?;
            let damaged =
                || FileError::format(path, "what the passphrase opens is not this identity: restore the file");
            let inner = marker(path, &bytes)?;
            if inner.r#type != TYPE || inner.version != VERSION || inner.protection != PLAIN {
                return Err(damaged());
            }
            let identity = plain(path, &bytes)?;
            // The name outside is what is shown without the passphrase: it must not be another's.
            if stored.author == identity.author_id().to_string() { Ok(identity) } else { Err(damaged()) }
        }
    }
}

/// Whose identity a file says that it is, and whether a passphrase protects it. Opens nothing: believe it after [`open`].
pub fn glance(path: &Path) -> Result<(String, bool), FileError> {
    match read(path)? {
        Read::Plain(bytes) => plain(path, &bytes).map(|identity| (identity.author_id().to_string(), false)),
        Read::Sealed(stored) => Ok((stored.author, true)),
    }
}

/// Protects a file in another way: a new passphrase, the first one, or none any more. Whoever reads it meanwhile finds the old or
/// the new one. What the disk held before may still be found on it by whoever reads the device.
pub fn protect(
    path: &Path,
    old: &Source,
    new: impl FnOnce() -> Result<Protection, FileError>,
) -> Result<(), FileError> {
    let identity = open(path, old)?;
    file::replace_secret(path, &encoded(path, &identity, &new()?)?)
}

enum Read {
    Plain(Zeroizing<Vec<u8>>),
    Sealed(StoredSealed),
}

fn marker(path: &Path, bytes: &[u8]) -> Result<Marker, FileError> {
    serde_json::from_slice(bytes)
        .map_err(|_| FileError::format(path, "not an identity file: `identity.json` is made by `ehe identity new`"))
}

/// An error's text names a place in the file, never its content.
fn damaged(path: &Path) -> impl FnOnce(serde_json::Error) -> FileError {
    move |e| FileError::format(path, format!("damaged identity file (line {}): restore it", e.line()))
}

fn public_instead(path: &Path) -> FileError {
    FileError::format(
        path,
        "this is a public identity, which can neither sign nor open: name the `identity.json` that it belongs to",
    )
}

/// Whether a file that others may read is only the public half: nothing has leaked then.
fn is_public(path: &Path) -> bool {
    file::read_public(path, SMALL_FILE_MAX_BYTES, "").map(Zeroizing::new).is_ok_and(|bytes| starts_as_public(&bytes))
}

fn starts_as_public(bytes: &[u8]) -> bool {
    bytes.strip_prefix(PUBLIC_MARKER.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' '))
}

fn read(path: &Path) -> Result<Read, FileError> {
    let bytes = match file::read_secret(path, SMALL_FILE_MAX_BYTES, SECRET_REMEDY) {
        // What it holds before how it lies there: a public file is no secret that got out.
        Err(FileError::OpenToOthers { .. }) if is_public(path) => return Err(public_instead(path)),
        other => other?,
    };
    if starts_as_public(&bytes) {
        return Err(public_instead(path));
    }
    let marker = marker(path, &bytes)?;
    if marker.r#type != TYPE {
        let found: String = marker.r#type.chars().take(40).collect();
        return Err(FileError::format(path, format!("a file of type {found:?}, not an identity")));
    }
    match (marker.version, marker.protection.as_str()) {
        (VERSION, PLAIN) => Ok(Read::Plain(bytes)),
        (VERSION, SEALED) => serde_json::from_slice(&bytes).map(Read::Sealed).map_err(damaged(path)),
        (version, protection) => {
            let protection: String = protection.chars().take(40).collect();
            let what = format!("version {version}, protection {protection:?}");
            Err(FileError::format(path, format!("made by a newer program ({what}): update this one")))
        }
    }
}

fn plain(path: &Path, bytes: &[u8]) -> Result<Identity, FileError> {
    let stored: Stored = serde_json::from_slice(bytes).map_err(damaged(path))?;
    let seed = |text: &str| {
        unhex::<32>(text).map(Zeroizing::new).map_err(|e| FileError::format(path, format!("damaged seed: {e}")))
    };
    let sign = SignKey::from_seed(&*seed(&stored.sign_seed)?);
    let identity = Identity::new(sign, KemSecret::from_seed(seed(&stored.kem_seed)?));
    if stored.author != identity.author_id().to_string() {
        return Err(FileError::format(
            path,
            "damaged identity file: the seeds are not those of its author id; restore it",
        ));
    }
    Ok(identity)
}

/// A public identity as one line of text: marker, author id, base64 of its CBOR.
pub fn public_line(identity: &PublicIdentity) -> String {
    format!("{PUBLIC_MARKER} {} {}", identity.author_id(), STANDARD.encode(cbor::to_vec(identity)))
}

/// Why a line is no public identity. Whoever sent it is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicIdentityError {
    /// Not the three fields, or another marker.
    #[error("not a public identity: it is one line `{PUBLIC_MARKER} <author id> <base64>`")]
    Shape,
    /// The keys are not encoded as they should be.
    #[error("the keys of the public identity are damaged: ask its owner to send it again")]
    Keys,
    /// The author id is not that of the keys.
    #[error("the public identity claims to be {claimed}, its keys are those of {found}: do not use it, ask its owner")]
    OtherAuthor {
        /// What the line says.
        claimed: String,
        /// What the keys say.
        found: AuthorId,
    },
}

/// Reads the line that [`public_line`] writes; its author id has to follow from its keys.
pub fn parse_public(line: &str) -> Result<PublicIdentity, PublicIdentityError> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [PUBLIC_MARKER, author, keys] = fields.as_slice() else { return Err(PublicIdentityError::Shape) };
    let keys = STANDARD.decode(keys).map_err(|_| PublicIdentityError::Keys)?;
    let identity: PublicIdentity = cbor::from_slice(&keys, PUBLIC_MAX_BYTES).map_err(|_| PublicIdentityError::Keys)?;
    let found = identity.author_id();
    if *author != found.to_string() {
        return Err(PublicIdentityError::OtherAuthor { claimed: author.chars().take(64).collect(), found });
    }
    Ok(identity)
}

/// Writes a public identity to a new file.
pub fn create_public(path: &Path, identity: &PublicIdentity) -> Result<(), FileError> {
    file::create_public(path, format!("{}\n", public_line(identity)).as_bytes())
}

/// Reads a public identity from its file.
pub fn load_public(path: &Path) -> Result<PublicIdentity, FileError> {
    let text = file::read_text(path, SMALL_FILE_MAX_BYTES, PUBLIC_REMEDY)?;
    parse_public(&text).map_err(|e| FileError::format(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_comes_back_from_its_file_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let (secret, public) = (dir.path().join("identity.json"), dir.path().join("identity.pub"));
        let identity = generate().unwrap();
        create(&secret, &identity).unwrap();
        create_public(&public, identity.public()).unwrap();
        assert_eq!(load(&secret).unwrap().public(), identity.public());
        assert_eq!(load_public(&public).unwrap(), *identity.public());
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(create(&secret, &identity), Err(FileError::Exists(_))));
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&secret), Err(FileError::OpenToOthers { .. })));
    }

    #[test]
    fn a_public_identity_in_place_of_the_secret_one_is_no_false_alarm_whatever_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let public = dir.path().join("identity.pub");
        let identity = generate().unwrap();
        create_public(&public, identity.public()).unwrap();
        for mode in [0o644, 0o600] {
            fs::set_permissions(&public, fs::Permissions::from_mode(mode)).unwrap();
            let error = load(&public).unwrap_err().to_string();
            assert!(error.contains("public identity") && error.contains("identity.json"), "{error}");
        }
        // A secret one with a word of the public one in it stays a secret one.
        let secret = dir.path().join("identity.json");
        create(&secret, &identity).unwrap();
        let text = fs::read_to_string(&secret).unwrap();
        fs::write(&secret, format!("\n{PUBLIC_MARKER} {text}")).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(load(&secret), Err(FileError::OpenToOthers { .. })));
    }

    #[test]
    fn a_damaged_or_newer_identity_file_says_so_and_shows_no_seed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.json");
        let identity = generate().unwrap();
        create(&path, &identity).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let seed = hex(identity.sign_key().to_seed().as_slice());
        for (from, to, expected) in [
            ("\"ehe identity\"", "\"ehe diary\"", "not an identity"),
            ("\"none\"", "\"passphrase\"", "newer program"),
            ("\"version\": 1", "\"version\": 2", "newer program"),
            (seed.as_str(), &"00".repeat(32), "not those of its author"),
            (seed.as_str(), &seed[2..], "damaged seed"),
            ("{", "[", "not an identity file"),
        ] {
            fs::write(&path, good.replacen(from, to, 1)).unwrap();
            let error = load(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains(&seed[4..20]), "{error}");
        }
    }

    #[test]
    fn a_public_identity_has_to_be_its_own_author() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        let line = public_line(one.public());
        assert_eq!(parse_public(&format!("{line}\n")).unwrap(), *one.public());
        let lie = line.replace(&one.author_id().to_string(), &two.author_id().to_string());
        assert!(matches!(parse_public(&lie), Err(PublicIdentityError::OtherAuthor { .. })));
        assert_eq!(parse_public("ehe-identity-2 a b"), Err(PublicIdentityError::Shape));
        assert_eq!(parse_public(""), Err(PublicIdentityError::Shape));
        assert_eq!(parse_public(line.get(..line.len() - 8).unwrap()), Err(PublicIdentityError::Keys));
    }
}
