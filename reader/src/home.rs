//! The program's directory: credentials, and under `rooms/` what is remembered of each room.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use certs::FileError;
use ehe::id::{Hash, RoomId};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::memory::{RoomMemory, Tie};

/// Largest memory file that is read.
const MEMORY_MAX_BYTES: usize = 4096 + 2 * ehe::limits::CHECKPOINT_MAX_BYTES;
/// Files of evidence that are kept at most.
const EVIDENCE_FILES_MAX: usize = 1024;
/// Bytes of all of them at most: each has the alliance's charters in it, up to 16 MiB.
const EVIDENCE_ALL_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The program's directory.
#[derive(Debug, Clone)]
pub struct Home(PathBuf);

impl Home {
    /// A directory that the user named, else `$EHE_HOME`, else `ehe` in the user's configuration directory.
    pub fn find(named: Option<PathBuf>, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Error> {
        let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
        let config = || {
            set("XDG_CONFIG_HOME")
                .or_else(|| set("HOME").map(|home| home.join(".config")))
                .map(|config| config.join("ehe"))
        };
        let dir = named.or_else(|| set("EHE_HOME")).or_else(config);
        dir.map(Self).ok_or_else(|| Error::Usage("name the program's directory by --home or EHE_HOME".into()))
    }

    /// This directory.
    pub fn at(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    fn rooms(&self) -> PathBuf {
        self.0.join("rooms")
    }

    /// Where evidence is kept.
    pub fn evidence(&self) -> PathBuf {
        self.0.join("evidence")
    }

    /// Keeps evidence under its hash. Durable when this returns.
    pub fn keep_evidence(&self, bytes: &[u8]) -> Result<PathBuf, Error> {
        let dir = self.evidence();
        certs::file::create_dir(&dir)?;
        let path = dir.join(format!("{}.cbor", Hash(Sha256::digest(bytes).into())));
        if path.exists() {
            return Ok(path);
        }
        let entries = fs::read_dir(&dir).map_err(|source| Error::Io { path: dir.clone(), source })?;
        let lengths: Vec<u64> = entries
            .map(|entry| entry.and_then(|entry| entry.metadata()).map_or(0, |metadata| metadata.len()))
            .collect();
        let new = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let all = lengths.iter().fold(new, |all, one| all.saturating_add(*one));
        if lengths.len() >= EVIDENCE_FILES_MAX || all > EVIDENCE_ALL_MAX_BYTES {
            let full = format!(
                "it holds {} files already, as much as it may: look at them, and move away what has been dealt with",
                lengths.len()
            );
            return Err(Error::Io { path: dir, source: std::io::Error::other(full) });
        }
        certs::file::replace(&path, bytes)?;
        Ok(path)
    }

    /// The file that remembers a room.
    pub fn memory_file(&self, room: RoomId) -> PathBuf {
        self.rooms().join(format!("{room}.json"))
    }

    /// What is remembered of a room.
    pub fn recall(&self, room: RoomId) -> Result<Option<RoomMemory>, Error> {
        let path = self.memory_file(room);
        let bytes = match certs::file::read_public(&path, MEMORY_MAX_BYTES, "") {
            Err(FileError::Missing { .. }) => return Ok(None),
            other => other?,
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::MemoryFile { path, why: e.to_string() })
    }

    /// The rooms of which something is remembered.
    pub fn remembered(&self) -> Result<Vec<RoomId>, Error> {
        let rooms = self.rooms();
        let at = |source| Error::Io { path: rooms.clone(), source };
        let files = match fs::read_dir(&rooms) {
            Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            files => files.map_err(at)?,
        };
        let mut remembered = Vec::new();
        for file in files {
            let name = file.map_err(at)?.file_name();
            let room: Option<RoomId> = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            remembered.extend(room);
        }
        remembered.sort_unstable();
        Ok(remembered)
    }

    /// Remembers that the identity is something else in a room from now on, if the room is remembered.
    pub fn tie(&self, room: RoomId, tie: Tie) -> Result<(), Error> {
        match self.recall(room)? {
            Some(known) => self.remember(room, &RoomMemory { tie, ..known }),
            None => Ok(()),
        }
    }

    /// Remembers a room, unless another command remembered more of it meanwhile. Durable when this returns: a crash leaves the
    /// old or the new content.
    pub fn remember(&self, room: RoomId, memory: &RoomMemory) -> Result<(), Error> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { path, source }
        };
        let rooms = self.rooms();
        certs::file::create_dir(&rooms)?;
        // Two commands at once must not take each other's memory back; the lock goes when the file is closed.
        let lock_path = rooms.join("lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        if self.recall(room)?.is_some_and(|known| !known.may_become(memory)) {
            return Ok(());
        }
        let path = self.memory_file(room);
        let temporary = rooms.join(format!("{room}.new"));
        let content = serde_json::to_vec_pretty(memory)
            .map_err(|e| Error::MemoryFile { path: path.clone(), why: e.to_string() })?;
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
        let written = written.and_then(|mut file| file.write_all(&content).and_then(|()| file.sync_all()));
        written.map_err(at(&temporary))?;
        fs::rename(&temporary, &path).map_err(at(&path))?;
        File::open(&rooms).and_then(|dir| dir.sync_all()).map_err(at(&rooms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn memory(size: u64) -> RoomMemory {
        let (root, last_leaf) = (Hash::ZERO, Hash::ZERO);
        RoomMemory {
            origin: "log".into(),
            size,
            root,
            entries: size,
            last_leaf,
            accepted: None,
            tie: Tie::Party,
            charter: 1,
            note: None,
        }
    }

    #[test]
    fn what_was_remembered_is_recalled_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().join("home"));
        let room = RoomId([7; 16]);
        assert_eq!(home.recall(room).unwrap(), None);
        home.remember(room, &memory(5)).unwrap();
        home.remember(room, &memory(3)).unwrap();
        assert_eq!(home.recall(room).unwrap(), Some(memory(5)));
        home.remember(room, &memory(6)).unwrap();
        assert_eq!(home.recall(room).unwrap(), Some(memory(6)));
        fs::write(home.rooms().join("notes.txt"), "x").unwrap();
        assert_eq!(home.remembered().unwrap(), [room]);
        assert_eq!(Home(dir.path().join("none")).remembered().unwrap(), []);
        assert_eq!(fs::metadata(home.memory_file(room)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn evidence_is_kept_once_and_no_more_of_it_than_a_disk_should_hold() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().into());
        let kept = home.keep_evidence(b"one").unwrap();
        assert_eq!(home.keep_evidence(b"one").unwrap(), kept);
        let large = home.evidence().join("large.cbor");
        File::create(&large).unwrap().set_len(EVIDENCE_ALL_MAX_BYTES - 3 - 3).unwrap();
        home.keep_evidence(b"two").unwrap();
        assert!(matches!(home.keep_evidence(b"3"), Err(Error::Io { .. })), "there is no room for another byte");
        home.keep_evidence(b"two").expect("it is there");
    }

    #[test]
    fn a_damaged_memory_is_said_and_not_taken_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home(dir.path().into());
        let room = RoomId([7; 16]);
        home.remember(room, &memory(5)).unwrap();
        fs::write(home.memory_file(room), "{").unwrap();
        assert!(matches!(home.recall(room), Err(Error::MemoryFile { .. })));
    }

    #[test]
    fn the_directory_is_the_named_one_then_ehe_home_then_the_users_configuration() {
        let all = |name: &str| Some(PathBuf::from(format!("/{name}")));
        let find = |named: Option<&str>, variable: &dyn Fn(&str) -> Option<PathBuf>| {
            Home::find(named.map(Into::into), variable).map(|home| home.0.display().to_string())
        };
        assert_eq!(find(Some("/x"), &all).unwrap(), "/x");
        assert_eq!(find(None, &all).unwrap(), "/EHE_HOME");
        assert_eq!(find(None, &|n| all(n).filter(|_| n != "EHE_HOME")).unwrap(), "/XDG_CONFIG_HOME/ehe");
        assert_eq!(find(None, &|n| all(n).filter(|_| n == "HOME")).unwrap(), "/HOME/.config/ehe");
        assert!(find(None, &|_| None).is_err());
    }
}
