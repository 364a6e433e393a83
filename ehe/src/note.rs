//! Signed notes (C2SP signed-note) with Ed25519 signatures and Ed25519 cosignatures (C2SP tlog-cosignature) (SPEC 10).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use crate::limits;
use crate::sign::{BadSignature, SIGNATURE_LEN, SignKey, VerifyKey};

/// Signatures in one note.
const SIGNATURES_MAX: usize = 32;

/// What a signature line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 over the note's text: the ordering party's statement.
    Ed25519,
    /// Ed25519 over a time and the note's text: a cosigner has seen nothing that contradicts it.
    CosignatureV1,
}

impl Algorithm {
    fn code(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::CosignatureV1 => 0x04,
        }
    }
}

/// Why a text is no note. Whoever sent it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Larger than a note may be, or with more signatures.
    #[error("the note is too large")]
    TooLarge,
    /// Not text, blank line, signature lines.
    #[error("the note is not a text, a blank line and signature lines")]
    Shape,
    /// No signature by this key on it.
    #[error("the note has no such signature")]
    Missing,
    /// A signature that names this key does not verify.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    name: String,
    key: [u8; 4],
    signature: Vec<u8>,
}

/// A note: text that ends in a newline, and the signatures below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    lines: Vec<Line>,
}

/// First four bytes of SHA-256(name ‖ newline ‖ algorithm ‖ key).
fn key_id(name: &str, algorithm: Algorithm, key: &VerifyKey) -> [u8; 4] {
    let mut hash = Sha256::new();
    hash.update(name.as_bytes());
    hash.update([b'\n', algorithm.code()]);
    hash.update(key.0);
    let hash: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, ..] = hash;
    [a, b, c, d]
}

/// What a cosigner signs: a line that says what it is, the time in seconds, the note's text.
fn cosigned_text(text: &str, time_s: u64) -> String {
    format!("cosignature/v1\ntime {time_s}\n{text}")
}

/// A cosignature as a line has it.
fn timed(time_s: u64, signature: &[u8; SIGNATURE_LEN]) -> Vec<u8> {
    [&time_s.to_be_bytes()[..], signature].concat()
}

/// Whether a name may stand in a signature line: not empty, no white space, no plus sign, within the limit.
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= limits::ORIGIN_MAX_BYTES
        && !name.contains('+')
        && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

impl Note {
    /// A note without signatures. The text ends in a newline and has no other control characters.
    pub fn new(text: String) -> Result<Self, NoteError> {
        if text.len() > limits::CHECKPOINT_MAX_BYTES {
            return Err(NoteError::TooLarge);
        }
        if !text.ends_with('\n') || text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Shape);
        }
        Ok(Self { text, lines: Vec::new() })
    }

    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds the ordering party's signature, and gives it, for those who make the same note.
    pub fn sign(&mut self, name: &str, key: &SignKey) -> [u8; SIGNATURE_LEN] {
        let signature = key.sign(self.text.as_bytes());
        self.push(name, Algorithm::Ed25519, &key.verify_key(), signature.to_vec());
        signature
    }

    /// Adds a cosignature of this second, and gives its 64 bytes, for those who make the same note.
    pub fn cosign(&mut self, name: &str, key: &SignKey, time_s: u64) -> [u8; SIGNATURE_LEN] {
        let signature = key.sign(cosigned_text(&self.text, time_s).as_bytes());
        self.push(name, Algorithm::CosignatureV1, &key.verify_key(), timed(time_s, &signature));
        signature
    }

    /// Adds an ordering party's signature that came by itself, once it verifies.
    pub fn add_signature(
        &mut self,
        name: &str,
        key: &VerifyKey,
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), NoteError> {
        self.has_room(name)?;
        key.verify(self.text.as_bytes(), signature)?;
        self.push(name, Algorithm::Ed25519, key, signature.to_vec());
        Ok(())
    }

    /// Adds a cosignature that came by itself, once it verifies.
    pub fn add_cosignature(
        &mut self,
        name: &str,
        key: &VerifyKey,
        time_s: u64,
        signature: &[u8; SIGNATURE_LEN],
    ) -> Result<(), NoteError> {
        self.has_room(name)?;
        key.verify(cosigned_text(&self.text, time_s).as_bytes(), signature)?;
        self.push(name, Algorithm::CosignatureV1, key, timed(time_s, signature));
        Ok(())
    }

    /// What was added could be read again.
    fn has_room(&self, name: &str) -> Result<(), NoteError> {
        if !is_key_name(name) {
            return Err(NoteError::Shape);
        }
        if self.lines.len() < SIGNATURES_MAX { Ok(()) } else { Err(NoteError::TooLarge) }
    }

    fn push(&mut self, name: &str, algorithm: Algorithm, key: &VerifyKey, signature: Vec<u8>) {
        self.lines.push(Line { name: name.into(), key: key_id(name, algorithm, key), signature });
    }

    /// Verifies the signature of this name and key.
    pub fn verify(&self, name: &str, key: &VerifyKey) -> Result<(), NoteError> {
        let line = self.line(name, Algorithm::Ed25519, key)?;
        let signature = <[u8; SIGNATURE_LEN]>::try_from(line.signature.as_slice()).map_err(|_| NoteError::Shape)?;
        Ok(key.verify(self.text.as_bytes(), &signature)?)
    }

    /// Verifies the cosignature of this name and key, and gives its time in seconds since 1970.
    pub fn verify_cosignature(&self, name: &str, key: &VerifyKey) -> Result<u64, NoteError> {
        let line = self.line(name, Algorithm::CosignatureV1, key)?;
        let (time, signature) = line.signature.split_first_chunk::<8>().ok_or(NoteError::Shape)?;
        let signature = <[u8; SIGNATURE_LEN]>::try_from(signature).map_err(|_| NoteError::Shape)?;
        let time_s = u64::from_be_bytes(*time);
        key.verify(cosigned_text(&self.text, time_s).as_bytes(), &signature)?;
        Ok(time_s)
    }

    fn line(&self, name: &str, algorithm: Algorithm, key: &VerifyKey) -> Result<&Line, NoteError> {
        let id = key_id(name, algorithm, key);
        self.lines.iter().find(|line| line.name == name && line.key == id).ok_or(NoteError::Missing)
    }

    /// Reads a note.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > limits::CHECKPOINT_MAX_BYTES {
            return Err(NoteError::TooLarge);
        }
        // The text may hold blank lines: the signatures begin after the last one.
        let split = note.rfind("\n\n").ok_or(NoteError::Shape)?;
        let (text, signatures) = note.split_at_checked(split + 1).ok_or(NoteError::Shape)?;
        let signatures = signatures.strip_prefix('\n').filter(|s| s.ends_with('\n')).ok_or(NoteError::Shape)?;
        let mut parsed = Self::new(text.into())?;
        // Not `lines`: that would take a carriage return for part of the line's end, and a note would have two encodings.
        for line in signatures.split_terminator('\n') {
            let (name, base64) = line.strip_prefix("— ").and_then(|l| l.split_once(' ')).ok_or(NoteError::Shape)?;
            let bytes = STANDARD.decode(base64).map_err(|_| NoteError::Shape)?;
            let (key, signature) = bytes.split_first_chunk::<4>().ok_or(NoteError::Shape)?;
            if !is_key_name(name) {
                return Err(NoteError::Shape);
            }
            if parsed.lines.len() == SIGNATURES_MAX {
                return Err(NoteError::TooLarge);
            }
            parsed.lines.push(Line { name: name.into(), key: *key, signature: signature.to_vec() });
        }
        if parsed.lines.is_empty() { Err(NoteError::Shape) } else { Ok(parsed) }
    }
}

impl core::fmt::Display for Note {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(f, "{}", self.text)?;
        for line in &self.lines {
            let mut bytes = line.key.to_vec();
            bytes.extend_from_slice(&line.signature);
            writeln!(f, "— {} {}", line.name, STANDARD.encode(bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rng::rng;

    /// The example of the signed-note specification's reference implementation (golang.org/x/mod/sumdb/note).
    const PETER: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_of_the_reference_implementation_verifies() {
        // Public key PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW
        let key = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = VerifyKey(key[1..].try_into().unwrap());
        let note = Note::parse(PETER).unwrap();
        assert_eq!(note.verify("PeterNeumann", &key), Ok(()));
        assert_eq!(note.to_string(), PETER);
        assert_eq!(note.verify("EnochRoot", &key), Err(NoteError::Missing));
        let altered = Note::parse(&PETER.replace("answer", "Answer")).unwrap();
        assert_eq!(altered.verify("PeterNeumann", &key), Err(NoteError::Signature(BadSignature)));
    }

    #[test]
    fn signatures_and_cosignatures_verify_and_do_not_stand_for_each_other() {
        let key = SignKey::generate(&mut rng(1));
        let mut note = Note::new("origin\n1\nroot\n".into()).unwrap();
        note.sign("origin", &key);
        note.cosign("node-a", &key, 1_700_000_000);
        let note = Note::parse(&note.to_string()).unwrap();
        assert_eq!(note.verify("origin", &key.verify_key()), Ok(()));
        assert_eq!(note.verify_cosignature("node-a", &key.verify_key()), Ok(1_700_000_000));
        assert_eq!(note.verify("node-a", &key.verify_key()), Err(NoteError::Missing));
        assert_eq!(note.verify_cosignature("origin", &key.verify_key()), Err(NoteError::Missing));
    }

    #[test]
    fn signatures_that_came_by_themselves_make_the_same_note_and_only_if_they_verify() {
        let (key, other) = (SignKey::generate(&mut rng(1)), SignKey::generate(&mut rng(2)));
        let mut note = Note::new("origin\n1\nroot\n".into()).unwrap();
        let (signature, cosignature) = (note.sign("origin", &key), note.cosign("node-a", &key, 1_700_000_000));
        let mut same = Note::new("origin\n1\nroot\n".into()).unwrap();
        let bad = Err(NoteError::Signature(BadSignature));
        assert_eq!(same.add_signature("origin", &other.verify_key(), &signature), bad);
        assert_eq!(same.add_signature("origin", &key.verify_key(), &cosignature), bad);
        assert_eq!(same.add_cosignature("node-a", &key.verify_key(), 1_700_000_001, &cosignature), bad);
        assert_eq!(same.add_cosignature("node a", &key.verify_key(), 0, &cosignature), Err(NoteError::Shape));
        same.add_signature("origin", &key.verify_key(), &signature).unwrap();
        same.add_cosignature("node-a", &key.verify_key(), 1_700_000_000, &cosignature).unwrap();
        assert_eq!(same, note);
        for n in 2..SIGNATURES_MAX {
            same.add_signature(&format!("origin{n}"), &key.verify_key(), &signature).unwrap();
        }
        assert_eq!(same.add_signature("origin", &key.verify_key(), &signature), Err(NoteError::TooLarge));
        assert!(Note::parse(&same.to_string()).is_ok(), "what was made can be read");
    }

    #[test]
    fn texts_that_are_no_notes_are_refused() {
        for bad in [
            "",
            "\n",
            "text\n",
            "text\n\n",
            "text\n\n— a\n",
            "text\n\n— a !!!!\n",
            "text\n\n— a AAAA",
            "a\tb\n\n— a AAAAAAAA\n",
            "text\n\n— a AAAAAAAA\r\n",
        ] {
            assert!(Note::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Note::parse(&"x".repeat(limits::CHECKPOINT_MAX_BYTES + 1)), Err(NoteError::TooLarge));
    }
}
