//! What a node served of a room, kept as it came: for somebody else's program to judge (a case of the test kit, `follow`).

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::cbor;
use ehe::charter::CharterChain;
use ehe::id::{AllianceId, Nonce, RoomId};
use ehe::wire::{Head, Item};

use crate::error::Error;

/// A file that is being written, entry by entry: a ledger may be larger than memory. It gets its name when it is whole.
///
/// It holds no reading, but who read and wrote, and when: it is for its owner alone (mode 0600).
#[derive(Debug)]
pub struct Saving {
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
    items: u64,
}

impl Saving {
    /// Begins a file that must not exist yet.
    pub fn begin(path: &Path, room: RoomId, alliance: AllianceId, charter: &CharterChain) -> Result<Self, Error> {
        if path.exists() {
            let why = format!("{} exists already: name another file", path.display());
            return Err(Error::Usage(why));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        // What an interrupted command left may be overwritten; nobody has taken it for whole.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part);
        let file = file.map_err(|source| Error::Io { path: part.clone(), source })?;
        let mut saving = Self { path: path.into(), part, file: BufWriter::new(file), items: 0 };
        let charter = encoded(&charter.encode());
        saving.write(&format!(
            "{{\"kit\":1,\"rule\":\"L1\",\"title\":\"a ledger as a node served it\",\"what\":\"follow\",\"verdict\":\"valid\",\n\
             \"input\":{{\"alliance\":\"{alliance}\",\"room\":\"{room}\",\"whole\":true,\n\"charter\":{charter},\n\"items\":["
        ))?;
        Ok(saving)
    }

    /// Keeps an entry as it was served, before it is judged.
    pub fn item(&mut self, item: &Item) -> Result<(), Error> {
        let comma = if self.items == 0 { "" } else { "," };
        self.items += 1;
        self.write(&format!("{comma}\n{}", encoded(&cbor::to_vec(item))))
    }

    /// The head, with which the file is whole: durable and under its name when this returns.
    pub fn end(mut self, head: &Head, nonce: Nonce) -> Result<(), Error> {
        let items = self.items;
        let head = encoded(&cbor::to_vec(head));
        self.write(&format!(
            "],\n\"head\":{head},\n\"nonce\":\"{nonce}\"}},\n\"expect\":{{\"verified\":{items}}}}}\n"
        ))?;
        let Self { path, part, file, .. } = self;
        let name = |source| Error::Io { path: path.clone(), source };
        let file = file.into_inner().map_err(|broken| name(broken.into_error()))?;
        file.sync_all().map_err(name)?;
        std::fs::rename(&part, &path).map_err(name)
    }

    fn write(&mut self, text: &str) -> Result<(), Error> {
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| Error::Io { path: self.part.clone(), source })
    }
}

/// As the test kit writes long byte strings.
fn encoded(bytes: &[u8]) -> String {
    format!("\"base64:{}\"", STANDARD.encode(bytes))
}
