//! The demo's folder: made anew by each demo, and never somebody else's.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Marks a folder that an earlier demo made, and that this one may therefore replace.
const MARKER: &str = "ehe-demo";

/// Makes the folder anew, if it is not somebody else's.
pub fn anew(out: &Path) -> Result<()> {
    let named = || format!("{} cannot be made anew; name another folder with --out", out.display());
    if out.exists() {
        ensure!(out.is_dir(), "{} is no folder; name one with --out", out.display());
        let ours = out.join(MARKER).is_file() || out.read_dir().with_context(named)?.next().is_none();
        ensure!(ours, "{} has files that no demo made; name another folder with --out", out.display());
        std::fs::remove_dir_all(out).with_context(named)?;
    }
    std::fs::create_dir_all(out).with_context(named)?;
    std::fs::write(out.join(MARKER), "This folder belongs to the demo: the next one replaces it.\n").with_context(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_made_is_named_and_what_no_demo_made_stays() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        for out in [file.clone(), file.join("below"), folder.path().to_owned()] {
            let why = format!("{:#}", anew(&out).unwrap_err());
            assert!(why.contains(&out.display().to_string()) && why.contains("--out"), "{why}");
        }
        assert_eq!(std::fs::read_to_string(file).unwrap(), "mine");
        let new = folder.path().join("new");
        anew(&new).unwrap();
        anew(&new).unwrap();
    }
}
