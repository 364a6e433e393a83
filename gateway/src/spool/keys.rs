//! The spool's own keys: one for each UTC day, in a file that only the gateway reads. A day's key is destroyed when no row
//! needs it any more, and with it everything that the database file may still hold of those rows.
//!
//! A stolen gateway opens what lies unsent in its spool, and nothing else: not what was sealed into events, not yesterday's rows.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use certs::FileError;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use ehe::id::{hex, unhex};
use ehe::time::Day;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// First line of the file.
const HEADING: &str = "ehe spool keys 1";
/// A key for each day of ten years, and then some: anything larger is not our file.
const FILE_MAX_BYTES: usize = 1024 * 1024;
/// A number of ten digits, 64 of a key, and what lies between.
const LINE_MAX_BYTES: usize = 80;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// What sealing adds to a plaintext: the day of the key, the nonce, the tag.
pub(super) const SEALED_OVERHEAD: usize = 4 + NONCE_LEN + TAG_LEN;

/// Why the key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file, or the directory around it.
    #[error("spool keys {}: {why}", .path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// It is there and cannot be read, others may read it, or it is no file of keys.
    #[error("spool keys: {0}")]
    File(#[from] FileError),
    /// Not a key file.
    #[error("spool keys {}: line {line} is not one of a key file; restore the file from where it was moved", .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// The spool has rows of a day whose key is gone.
    #[error("spool keys {}: the spool holds rows of day {day}, whose key is not in the file; restore the file, or move the spool away", .path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
        /// UTC days since 1970.
        day: u32,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

/// A row does not open: altered, of another place, or its key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row of the spool does not open")]
pub(super) struct DoesNotOpen;

/// All keys that rows still need.
pub(super) struct KeyRing {
    path: PathBuf,
    /// Keys digests and tags that must not be guessable from the file: device tags, payload digests.
    secret: Zeroizing<[u8; 32]>,
    days: BTreeMap<Day, Zeroizing<[u8; 32]>>,
}

impl KeyRing {
    /// Reads the file, or makes it where there is none.
    pub(super) fn open(path: &Path) -> Result<Self, KeyError> {
        match certs::file::read_secret(path, FILE_MAX_BYTES, "it is made when the gateway first starts") {
            Ok(bytes) => Self::read(path, &bytes),
            Err(FileError::Missing { .. }) => {
                let ring = Self { path: path.to_owned(), secret: random()?, days: BTreeMap::new() };
                ring.write(&ring.days).map_err(|why| KeyError::Io { path: path.to_owned(), why })?;
                Ok(ring)
            }
            Err(why) => Err(KeyError::File(why)),
        }
    }

    fn read(path: &Path, bytes: &[u8]) -> Result<Self, KeyError> {
        let malformed = |line: usize| KeyError::Malformed { path: path.to_owned(), line };
        let mut lines = std::str::from_utf8(bytes).map_err(|_| malformed(1))?.lines();
        if lines.next() != Some(HEADING) {
            return Err(malformed(1));
        }
        let secret = lines.next().and_then(|l| l.strip_prefix("secret ")).and_then(|h| unhex::<32>(h).ok());
        let mut ring = Self {
            path: path.to_owned(),
            secret: Zeroizing::new(secret.ok_or_else(|| malformed(2))?),
            days: BTreeMap::new(),
        };
        for (index, line) in lines.enumerate() {
            let parsed = line.split_once(' ').and_then(|(day, key)| Some((day.parse().ok()?, unhex::<32>(key).ok()?)));
            let (day, key) = parsed.ok_or_else(|| malformed(index + 3))?;
            ring.days.insert(Day(day), Zeroizing::new(key));
        }
        Ok(ring)
    }

    /// Writes the file anew beside the old one, syncs, and puts it in its place; then overwrites the old one's bytes. (On flash
    /// the medium may keep a copy all the same: the volume is to be encrypted.)
    fn write(&self, days: &BTreeMap<Day, Zeroizing<[u8; 32]>>) -> io::Result<()> {
        // Room for all of it at once: a text that grows would leave copies of the keys behind.
        let mut text = Zeroizing::new(String::with_capacity(HEADING.len() + LINE_MAX_BYTES * (days.len() + 1)));
        let mut line = |name: &str, key: &[u8; 32]| {
            text.push_str(name);
            text.push(' ');
            text.push_str(&Zeroizing::new(hex(key)));
            text.push('\n');
        };
        line(&format!("{HEADING}\nsecret"), &self.secret);
        days.iter().for_each(|(day, key)| line(&day.0.to_string(), key));
        let mut old = OpenOptions::new().write(true).open(&self.path).ok();
        let temporary = self.path.with_extension("key.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        if let Some(parent) = self.path.parent() {
            File::open(parent)?.sync_all()?;
        }
        if let Some(old) = &mut old {
            let length = usize::try_from(old.metadata()?.len()).unwrap_or(0);
            old.write_all(&vec![b'0'; length])?;
            old.sync_all()?;
        }
        Ok(())
    }

    /// Sees to it that `day` has a key, durably, before anything is sealed under it.
    pub(super) fn ensure(&mut self, day: Day) -> Result<(), KeyError> {
        if self.days.contains_key(&day) {
            return Ok(());
        }
        let mut days = self.days.clone();
        days.insert(day, random()?);
        self.write(&days).map_err(|why| KeyError::Io { path: self.path.clone(), why })?;
        self.days = days;
        Ok(())
    }

    /// Destroys the keys of all days before `today` that `needed` does not name. Gives how many there were.
    pub(super) fn destroy_unneeded(&mut self, today: Day, needed: impl Fn(Day) -> bool) -> Result<usize, KeyError> {
        let keep: BTreeMap<_, _> =
            self.days.iter().filter(|(day, _)| **day >= today || needed(**day)).map(|(d, k)| (*d, k.clone())).collect();
        let gone = self.days.len() - keep.len();
        if gone > 0 {
            self.write(&keep).map_err(|why| KeyError::Io { path: self.path.clone(), why })?;
            self.days = keep;
        }
        Ok(gone)
    }

    /// Whether there are keys of days before `today`.
    pub(super) fn has_before(&self, today: Day) -> bool {
        self.days.range(..today).next().is_some()
    }

    /// Whether there is a key for the day.
    pub(super) fn has(&self, day: Day) -> bool {
        self.days.contains_key(&day)
    }

    /// The error that says that a day's key is gone.
    pub(super) fn missing(&self, day: Day) -> KeyError {
        KeyError::Missing { path: self.path.clone(), day: day.0 }
    }

    /// A digest that cannot be recomputed without the file: a plain hash of `{"hr":72}` is found by trying.
    pub(super) fn digest(&self, what: &str, parts: &[&[u8]]) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.secret.as_slice());
        for part in [what.as_bytes()].iter().chain(parts) {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        let full: [u8; 32] = hash.finalize().into();
        full.first_chunk::<16>().copied().unwrap_or_default()
    }

    /// Seals `plain` under the day's key: `day 4 ‖ nonce 12 ‖ ciphertext ‖ tag 16`. `place` (table and key) is authenticated,
    /// so that no row can be put in another's place. Nonces are random: at ten million rows a day a repetition has a chance
    /// below 10⁻¹⁵.
    pub(super) fn seal(&self, day: Day, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.days.get(&day).ok_or_else(|| self.missing(day))?;
        let mut nonce = [0u8; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(KeyError::Random)?;
        let mut out = Vec::with_capacity(plain.len() + SEALED_OVERHEAD);
        out.extend_from_slice(&day.0.to_be_bytes());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(plain);
        let sealed = out.get_mut(4 + NONCE_LEN..).and_then(|body| {
            let cipher = ChaCha20Poly1305::new((&**key).into());
            cipher.encrypt_inout_detached(&Nonce::from(nonce), place, body.into()).ok()
        });
        // Cannot fail: a row is far below the cipher's limit of 256 GiB.
        let tag = sealed.ok_or_else(|| self.missing(day))?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens what [`KeyRing::seal`] made for the same place.
    pub(super) fn open_row(&self, place: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
        let day = day_of(sealed).ok_or(DoesNotOpen)?;
        let key = self.days.get(&day).ok_or(DoesNotOpen)?;
        let rest = sealed.get(4..).ok_or(DoesNotOpen)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_LEN>().ok_or(DoesNotOpen)?;
        let (body, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or(DoesNotOpen)?;
        let mut plain = Zeroizing::new(body.to_vec());
        ChaCha20Poly1305::new((&**key).into())
            .decrypt_inout_detached(&Nonce::from(*nonce), place, plain.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| DoesNotOpen)?;
        Ok(plain)
    }
}

/// The day whose key sealed it.
pub(super) fn day_of(sealed: &[u8]) -> Option<Day> {
    sealed.first_chunk::<4>().map(|day| Day(u32::from_be_bytes(*day)))
}

fn random() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut key = Zeroizing::new([0u8; 32]);
    getrandom::fill(key.as_mut()).map_err(KeyError::Random)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_row_opens_in_its_own_place_only_and_not_without_its_days_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool.key");
        let mut ring = KeyRing::open(&path).unwrap();
        ring.ensure(Day(5)).unwrap();
        ring.ensure(Day(6)).unwrap();
        let sealed = ring.seal(Day(5), b"place", b"72").unwrap();
        let again = KeyRing::open(&path).unwrap();
        assert_eq!(again.open_row(b"place", &sealed).unwrap().as_slice(), b"72");
        assert!(again.open_row(b"other", &sealed).is_err());
        for cut in 0..sealed.len() {
            assert!(again.open_row(b"place", &sealed[..cut]).is_err());
        }
        assert_eq!(ring.destroy_unneeded(Day(6), |_| false).unwrap(), 1);
        assert!(ring.open_row(b"place", &sealed).is_err());
        assert!(KeyRing::open(&path).unwrap().open_row(b"place", &sealed).is_err());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool.key");
        KeyRing::open(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(KeyRing::open(&path), Err(KeyError::File(FileError::OpenToOthers { mode: 0o640, .. }))));
    }

    #[test]
    fn a_key_file_that_is_none_is_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool.key");
        KeyRing::open(&path).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for (text, line) in [("", 1), ("ehe spool keys 1\n", 2), (&*format!("{good}x y\n"), 3)] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(KeyRing::open(&path), Err(KeyError::Malformed { line: found, .. }) if found == line));
        }
    }
}
