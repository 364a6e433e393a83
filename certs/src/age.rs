//! Files that one passphrase opens: age v1 (C2SP `age.md`) with the recipient type `scrypt`, in its ASCII armor. What is made here
//! opens with `age -d`, and what `age -p -a` makes opens here.
//!
//! The format only: randomness is an argument, and every primitive is a library's. A payload here is one chunk (64 KiB) at most:
//! what these files hold is a key.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::passphrase::Passphrase;

/// First line of the armor.
pub(crate) const ARMOR_BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const ARMOR_END: &str = "-----END AGE ENCRYPTED FILE-----";
const ARMOR_COLUMNS: usize = 64;
const VERSION_LINE: &str = "age-encryption.org/v1";
const SCRYPT_LABEL: &[u8] = b"age-encryption.org/v1/scrypt";
const SALT_LEN: usize = 16;
const FILE_KEY_LEN: usize = 16;
const PAYLOAD_NONCE_LEN: usize = 16;
const TAG_LEN: usize = 16;
/// Most bytes of a payload: one chunk.
pub(crate) const PLAIN_MAX_BYTES: usize = 64 * 1024;
/// Most bytes of an armored file that is looked at.
pub(crate) const ARMORED_MAX_BYTES: usize = 128 * 1024;

/// What a passphrase costs to try: the binary logarithm of scrypt's N. Each step doubles time and memory; 18 takes 256 MiB and
/// some tenths of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkFactor(u8);

impl WorkFactor {
    /// What the `age` tool uses.
    pub const DEFAULT: Self = Self(18);
    /// Least for a new file.
    pub const MIN: Self = Self(14);
    /// Most: a file is refused that asks for more than 512 MiB, before anything is computed.
    pub const MAX: Self = Self(19);

    /// Its number, as it stands in the file.
    pub fn log_n(self) -> u8 {
        self.0
    }
}

impl core::fmt::Display for WorkFactor {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(f)
    }
}

impl core::str::FromStr for WorkFactor {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = text.parse().map(Self).ok().filter(|found| (Self::MIN..=Self::MAX).contains(found));
        found.ok_or_else(|| format!("a work factor is {} to {}", Self::MIN, Self::MAX))
    }
}

/// Why a file does not open. Each text says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgeError {
    /// Not the format, or torn.
    #[error("damaged or torn ({0}): restore it from a copy")]
    Shape(&'static str),
    /// A later version of the format.
    #[error("made by a newer version of age: update this program")]
    OtherVersion,
    /// Encrypted to something else than a passphrase.
    #[error(
        "encrypted to a key, not to a passphrase: decrypt it with the tool that made it, and encrypt it with `age -p -a`"
    )]
    OtherRecipient,
    /// It asks for more work than is done for any file.
    #[error(
        "opening it would take a work factor of {found}, at most {} is accepted: no file of ours needs more, do not use it",
        WorkFactor::MAX
    )]
    WorkFactor {
        /// What it asks for.
        found: u8,
    },
    /// Another passphrase. (Or somebody altered the lines that the passphrase is tried on: no one can tell these two apart.)
    #[error("the passphrase does not open it: try again; without the right one only another copy of the key helps")]
    WrongPassphrase,
    /// The passphrase is the right one, the rest is not what was written.
    #[error("the passphrase is right, but the file was altered or torn since it was written: restore it from a copy")]
    Altered,
    /// More than a key takes.
    #[error("larger than any key file")]
    TooLarge,
}

/// The randomness of one file; never used twice.
pub(crate) struct Fresh {
    pub(crate) file_key: Zeroizing<[u8; FILE_KEY_LEN]>,
    pub(crate) salt: [u8; SALT_LEN],
    pub(crate) nonce: [u8; PAYLOAD_NONCE_LEN],
}

/// Encrypts `plain`.
pub(crate) fn seal(plain: &[u8], passphrase: &Passphrase, work: WorkFactor, fresh: &Fresh) -> Result<String, AgeError> {
    if plain.len() > PLAIN_MAX_BYTES {
        return Err(AgeError::TooLarge);
    }
    let mut wrapped = fresh.file_key.to_vec();
    let tag = cipher(&*wrap_key(passphrase, &fresh.salt, work.0)?)
        .encrypt_inout_detached(&Nonce::default(), &[], wrapped.as_mut_slice().into())
        .map_err(|_| AgeError::TooLarge)?;
    wrapped.extend_from_slice(&tag);
    let mut header = format!(
        "{VERSION_LINE}\n-> scrypt {} {work}\n{}\n---",
        STANDARD_NO_PAD.encode(fresh.salt),
        STANDARD_NO_PAD.encode(&wrapped),
    );
    let mac = mac(&fresh.file_key, header.as_bytes())?.finalize().into_bytes();
    header.push(' ');
    header.push_str(&STANDARD_NO_PAD.encode(mac));
    header.push('\n');

    let mut file = header.into_bytes();
    // Room for all of it at once: a vector that grows would leave plaintext behind.
    file.reserve_exact(PAYLOAD_NONCE_LEN + plain.len() + TAG_LEN);
    file.extend_from_slice(&fresh.nonce);
    let start = file.len();
    file.extend_from_slice(plain);
    let tag = cipher(&*payload_key(&fresh.file_key, &fresh.nonce)?)
        .encrypt_inout_detached(&last_chunk(), &[], file.get_mut(start..).unwrap_or_default().into())
        .map_err(|_| AgeError::TooLarge)?;
    file.extend_from_slice(&tag);
    Ok(armored(&file))
}

/// Decrypts what [`seal`] or the `age` tool made. Costs nothing beyond reading before the work that it asks for was judged.
pub(crate) fn open(text: &str, passphrase: &Passphrase) -> Result<Zeroizing<Vec<u8>>, AgeError> {
    let file = Sealed::read(text)?;
    let (body, tag) = file.wrapped.split_last_chunk::<TAG_LEN>().ok_or(AgeError::Shape("its key is cut off"))?;
    let mut file_key = Zeroizing::new([0u8; FILE_KEY_LEN]);
    if body.len() != file_key.len() {
        return Err(AgeError::Shape("its key has another length"));
    }
    file_key.copy_from_slice(body);
    cipher(&*wrap_key(passphrase, &file.salt, file.log_n)?)
        .decrypt_inout_detached(&Nonce::default(), &[], file_key.as_mut_slice().into(), &Tag::from(*tag))
        .map_err(|_| AgeError::WrongPassphrase)?;
    mac(&file_key, &file.signed)?.verify_slice(&file.mac).map_err(|_| AgeError::Altered)?;

    let (nonce, chunk) = file.payload.split_first_chunk::<PAYLOAD_NONCE_LEN>().ok_or(AgeError::Altered)?;
    let (body, tag) = chunk.split_last_chunk::<TAG_LEN>().ok_or(AgeError::Altered)?;
    if body.len() > PLAIN_MAX_BYTES {
        return Err(AgeError::TooLarge);
    }
    let mut plain = Zeroizing::new(body.to_vec());
    cipher(&*payload_key(&file_key, nonce)?)
        .decrypt_inout_detached(&last_chunk(), &[], plain.as_mut_slice().into(), &Tag::from(*tag))
        .map_err(|_| AgeError::Altered)?;
    Ok(plain)
}

/// Whether it is worth asking for a passphrase: its shape and the work that it asks for.
pub(crate) fn judge(text: &str) -> Result<(), AgeError> {
    Sealed::read(text).map(|_| ())
}

/// A file taken apart; nothing in it is believed yet.
struct Sealed {
    salt: [u8; SALT_LEN],
    log_n: u8,
    wrapped: Vec<u8>,
    /// The header up to and with `---`.
    signed: Vec<u8>,
    mac: Vec<u8>,
    payload: Vec<u8>,
}

impl Sealed {
    fn read(text: &str) -> Result<Self, AgeError> {
        const TORN: AgeError = AgeError::Shape("its header is cut off");
        let file = unarmored(text)?;
        let mut lines = Lines(&file);
        let version = lines.next().ok_or(TORN)?;
        if version != VERSION_LINE.as_bytes() {
            let newer = version.starts_with(b"age-encryption.org/v");
            return Err(if newer { AgeError::OtherVersion } else { AgeError::Shape("no header of age") });
        }
        let stanza = text_of(lines.next().ok_or(TORN)?)?;
        let mut words = stanza.strip_prefix("-> ").ok_or(AgeError::Shape("no recipient"))?.split(' ');
        if words.next() != Some("scrypt") {
            return Err(AgeError::OtherRecipient);
        }
        let (Some(salt), Some(log_n), None) = (words.next(), words.next(), words.next()) else {
            return Err(AgeError::Shape("its recipient line"));
        };
        let salt = decoded(salt)?.try_into().map_err(|_| AgeError::Shape("its salt has another length"))?;
        let log_n = log_n_of(log_n)?;
        let wrapped = decoded(text_of(lines.next().ok_or(TORN)?)?)?;
        let last = lines.next().ok_or(TORN)?;
        if last.starts_with(b"-> ") {
            // A passphrase is a file's only recipient, so that who opens it knows that who made it knew the passphrase.
            return Err(AgeError::OtherRecipient);
        }
        let last = text_of(last)?.strip_prefix("--- ").ok_or(AgeError::Shape("its header has no end"))?;
        let payload = lines.0.to_vec();
        let signed = file.len() - payload.len() - 1 - last.len() - 1;
        let mac = decoded(last)?;
        Ok(Self { salt, log_n, wrapped, mac, payload, signed: file.get(..signed).unwrap_or_default().to_vec() })
    }
}

/// Lines up to each line feed; what has none is no line.
struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|b| *b == b'\n')?;
        let (line, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        Some(line)
    }
}

fn text_of(line: &[u8]) -> Result<&str, AgeError> {
    std::str::from_utf8(line).map_err(|_| AgeError::Shape("its header is no text"))
}

/// Base64 without padding, in its one spelling.
fn decoded(text: &str) -> Result<Vec<u8>, AgeError> {
    STANDARD_NO_PAD.decode(text).map_err(|_| AgeError::Shape("its header is not base64"))
}

/// A decimal number in its one spelling, within the bound.
fn log_n_of(text: &str) -> Result<u8, AgeError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    let number: Option<u8> = digits.then(|| text.parse().unwrap_or(u8::MAX));
    match number {
        None => Err(AgeError::Shape("its work factor is no number")),
        Some(found) if found > WorkFactor::MAX.0 => Err(AgeError::WorkFactor { found }),
        Some(found) => Ok(found),
    }
}

fn wrap_key(passphrase: &Passphrase, salt: &[u8; SALT_LEN], log_n: u8) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let salt = [SCRYPT_LABEL, salt].concat();
    let params = scrypt::Params::new(log_n, 8, 1).map_err(|_| AgeError::WorkFactor { found: log_n })?;
    let mut key = Zeroizing::new([0u8; 32]);
    scrypt::scrypt(passphrase.as_bytes(), &salt, &params, key.as_mut())
        .map_err(|_| AgeError::WorkFactor { found: log_n })?;
    Ok(key)
}

fn derived(file_key: &[u8; FILE_KEY_LEN], salt: &[u8], label: &[u8]) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    let mut key = Zeroizing::new([0u8; 32]);
    // 32 bytes are far below HKDF's limit: it cannot fail.
    Hkdf::<Sha256>::new(Some(salt), file_key).expand(label, key.as_mut()).map_err(|_| AgeError::TooLarge)?;
    Ok(key)
}

fn mac(file_key: &[u8; FILE_KEY_LEN], header: &[u8]) -> Result<Hmac<Sha256>, AgeError> {
    let key = derived(file_key, &[], b"header")?;
    // A key of any length will do: it cannot fail.
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(key.as_slice()).map_err(|_| AgeError::TooLarge)?;
    mac.update(header);
    Ok(mac)
}

fn payload_key(
    file_key: &[u8; FILE_KEY_LEN],
    nonce: &[u8; PAYLOAD_NONCE_LEN],
) -> Result<Zeroizing<[u8; 32]>, AgeError> {
    derived(file_key, nonce, b"payload")
}

fn cipher(key: &[u8; 32]) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(key.into())
}

/// The nonce of the first chunk that is the last one, too: counter 0, flag 1.
fn last_chunk() -> Nonce {
    let mut nonce = [0u8; 12];
    nonce[11] = 1;
    nonce.into()
}

fn armored(file: &[u8]) -> String {
    let body = STANDARD.encode(file);
    let mut text = String::with_capacity(body.len() + body.len() / ARMOR_COLUMNS + 80);
    text.push_str(ARMOR_BEGIN);
    text.push('\n');
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(ARMOR_COLUMNS).unwrap_or((rest, ""));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(ARMOR_END);
    text.push('\n');
    text
}

fn unarmored(text: &str) -> Result<Vec<u8>, AgeError> {
    if text.len() > ARMORED_MAX_BYTES {
        return Err(AgeError::TooLarge);
    }
    let mut lines = text.trim().lines();
    if lines.next() != Some(ARMOR_BEGIN) {
        return Err(AgeError::Shape("its first line"));
    }
    let mut body = String::with_capacity(text.len());
    let mut short = false;
    loop {
        match lines.next() {
            Some(ARMOR_END) => break,
            // Only the last line of base64 is shorter.
            Some(line) if !short && (1..=ARMOR_COLUMNS).contains(&line.len()) => {
                short = line.len() < ARMOR_COLUMNS;
                body.push_str(line);
            }
            Some(_) => return Err(AgeError::Shape("its lines")),
            None => return Err(AgeError::Shape("its end is missing")),
        }
    }
    if lines.next().is_some() {
        return Err(AgeError::Shape("there is something behind its end"));
    }
    STANDARD.decode(body).map_err(|_| AgeError::Shape("not base64"))
}

#[cfg(test)]
mod tests;
