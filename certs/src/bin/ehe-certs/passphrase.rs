//! Passphrases on the command line, and `passphrase`, which changes them.

use std::io::Write;
use std::path::Path;

use anyhow::bail;
use certs::passphrase::{Options, Protection, Source};
use certs::store::names;
use certs::{FileError, authority, identity_file};

use crate::args::{ChangePassphrase, NewKey, Unlock, UnlockAll, Work};

impl Unlock {
    pub(crate) fn source(&self) -> Source {
        Source::of(self.passphrase_file.as_deref())
    }
}

impl UnlockAll {
    /// Where the passphrase of each of `count` identities comes from.
    pub(crate) fn sources(&self, count: usize) -> anyhow::Result<Vec<Source>> {
        match self.passphrase_file.as_slice() {
            [] => Ok(vec![Source::of(None); count]),
            [one] => Ok(vec![Source::File(one.clone()); count]),
            each if each.len() == count => Ok(each.iter().cloned().map(Source::File).collect()),
            each => bail!("{} passphrase files for {count} identities: name one for all, or one for each", each.len()),
        }
    }
}

impl NewKey {
    /// How the owner wants a key protected that is to be written to `path`. Asks only if nothing is there yet.
    pub(crate) fn protection(&self, path: &Path) -> Result<Protection, FileError> {
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists(path.into()));
        }
        let words = Source::of(self.passphrase_file.as_deref());
        wanted(self.no_passphrase, &words, &self.work, path)
    }
}

fn wanted(none: bool, words: &Source, work: &Work, of: &Path) -> Result<Protection, FileError> {
    if none {
        return Ok(Protection::None);
    }
    Ok(Protection::Passphrase(words.new_one(of)?, work.work_factor))
}

pub(crate) fn change(args: &ChangePassphrase, out: &mut dyn Write) -> anyhow::Result<()> {
    let (old, words) = (args.old.source(), Source::named(args.new_passphrase_file.as_deref(), Options::CHANGED));
    let new = |path: &Path| wanted(args.no_passphrase, &words, &args.work, path);
    let path = match (&args.identity, &args.authority) {
        (Some(path), _) => {
            identity_file::protect(path, &old, || new(path))?;
            path.clone()
        }
        (None, Some(dir)) => {
            let path = dir.join(names::CA_KEY);
            authority::protect_key(&path, &old, || new(&path))?;
            path
        }
        (None, None) => bail!("name an identity's file, or --authority"),
    };
    let now = if args.no_passphrase { "is not protected by a passphrase any more" } else { "has a new passphrase" };
    writeln!(out, "{} {now}; copies that were made before open as before", path.display())?;
    Ok(())
}
