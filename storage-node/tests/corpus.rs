//! Every file of the fuzzers' corpus through the fuzzers' own functions, on a stable toolchain.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, unreachable_pub)]

#[path = "../fuzz/src/lib.rs"]
#[allow(missing_docs, reason = "the library of another package")]
mod checks;

use std::path::Path;

#[test]
fn every_file_of_the_corpus_is_refused_or_understood_to_the_last_byte() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let folders = std::fs::read_dir(&corpus).unwrap().count();
    assert_eq!(folders, checks::ALL.len(), "a folder of the corpus for each target");
    for (target, check) in checks::ALL {
        let files: Vec<_> = std::fs::read_dir(corpus.join(target)).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(files.len() > 3, "{target} has hardly a corpus");
        for file in &files {
            let understood = check(&std::fs::read(file).unwrap());
            let seed = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seed-"));
            assert_eq!(understood, seed, "{}", file.display());
        }
    }
}
