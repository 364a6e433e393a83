//! What a node served of a room, kept as it came: for somebody else's program to judge (a case of the test kit, `follow`).

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Write};
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
    pub fn begin(path: &Path, room: RoomId, alliance: AllianceId) -> Result<Self, Error> {
        // A link that leads nowhere is in the way too.
        if path.symlink_metadata().is_ok() {
            let why = format!("{} exists already: name another file", path.display());
            return Err(Error::Usage(why));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |source| Error::Io { path: part.clone(), source };
        // What an interrupted command left may go; nobody has taken it for whole. What somebody else put there is not written into:
        // it may be a link, or theirs to read.
        match std::fs::remove_file(&part) {
            Err(why) if why.kind() != ErrorKind::NotFound => return Err(failed(why)),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(failed)?;
        let mut saving = Self { path: path.into(), part, file: BufWriter::new(file), items: 0 };
        saving.write(&format!(
            "{{\"kit\":1,\"rule\":\"L1\",\"title\":\"a ledger as a node served it\",\"what\":\"follow\",\"verdict\":\"valid\",\n\
             \"input\":{{\"alliance\":\"{alliance}\",\"room\":\"{room}\",\"whole\":true,\n\"items\":["
        ))?;
        Ok(saving)
    }

    /// Keeps an entry as it was served, before it is judged.
    pub fn item(&mut self, item: &Item) -> Result<(), Error> {
        let comma = if self.items == 0 { "" } else { "," };
        self.items += 1;
        self.write(&format!("{comma}\n{}", encoded(&cbor::to_vec(item))))
    }

    /// The head and the charters that it stands under, with which the file is whole: durable and under its name when this returns.
    pub fn end(mut self, head: &Head, nonce: Nonce, charters: &CharterChain) -> Result<(), Error> {
        let items = self.items;
        let (head, charter) = (encoded(&cbor::to_vec(head)), encoded(&charters.encode()));
        self.write(&format!(
            "],\n\"charter\":{charter},\n\"head\":{head},\n\"nonce\":\"{nonce}\"}},\n\"expect\":{{\"verified\":{items}}}}}\n"
        ))?;
        self.named()
    }

    fn named(self) -> Result<(), Error> {
        let Self { path, part, file, .. } = self;
        let name = |source| Error::Io { path: path.clone(), source };
        let file = file.into_inner().map_err(|broken| name(broken.into_error()))?;
        file.sync_all().map_err(name)?;
        // A rename would replace what came there meanwhile.
        std::fs::hard_link(&part, &path).map_err(|why| {
            let why = format!("cannot give {} its name ({why}): it is whole, as {}", path.display(), part.display());
            name(std::io::Error::other(why))
        })?;
        std::fs::remove_file(&part).map_err(name)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(name)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn begin(path: &Path) -> Result<Saving, Error> {
        Saving::begin(path, RoomId([1; 16]), AllianceId([2; 32]))
    }

    #[test]
    fn what_others_left_under_the_name_of_its_part_is_neither_followed_nor_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part, theirs) = (dir.path().join("a"), dir.path().join("a.part"), dir.path().join("theirs"));
        std::fs::write(&theirs, "theirs").unwrap();
        symlink(&theirs, &part).unwrap();
        drop(begin(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "theirs");
        std::fs::remove_file(&part).unwrap();
        // A file that everybody may read, and that somebody holds open.
        std::fs::write(&part, "old").unwrap();
        let held = std::fs::metadata(&part).unwrap().ino();
        let _open = File::open(&part).unwrap();
        drop(begin(&path).unwrap());
        let now = symlink_free(&part);
        assert_ne!(now.ino(), held);
        assert_eq!(now.mode() & 0o777, 0o600);
        symlink(dir.path().join("nowhere"), &path).unwrap();
        assert!(matches!(begin(&path), Err(Error::Usage(_))));
    }

    #[test]
    fn what_came_under_its_name_meanwhile_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("a"), dir.path().join("a.part"));
        let saving = begin(&path).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let why = saving.named().unwrap_err().to_string();
        assert!(why.contains("it is whole, as") && part.exists(), "{why}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
        std::fs::remove_file(&path).unwrap();
        begin(&path).unwrap().named().unwrap();
        assert_eq!((symlink_free(&path).mode() & 0o777, part.exists()), (0o600, false));
    }

    fn symlink_free(path: &Path) -> std::fs::Metadata {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        assert!(metadata.is_file());
        metadata
    }
}
