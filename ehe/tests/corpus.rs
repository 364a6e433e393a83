//! Every file of the fuzzers' corpus through the fuzzers' own functions, on a stable toolchain; and what hostile bytes may cost.
//!
//! One test: memory is counted for the whole process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the library of another package")]
mod checks;

use std::path::Path;

use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes that looking at `bytes` takes at most while it lasts.
fn memory_of(check: fn(&[u8]), bytes: &[u8]) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    check(bytes);
    ALLOCATOR.peak_usage().saturating_sub(before)
}

/// What any bytes may make a decoder allocate, the checks' own copies included: some 64 bytes for each byte received, and what a
/// window of 4,096 readings takes beside (a reading takes 144 bytes, its columns 56, and the checks hold it several times).
fn allowance(bytes: &[u8]) -> usize {
    64 * bytes.len() + 4 * 1024 * 1024
}

#[test]
fn every_file_of_the_corpus_is_refused_or_understood_to_the_last_byte_within_little_memory() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut targets: Vec<String> =
        std::fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    targets.sort();
    let mut known: Vec<&str> = checks::ALL.iter().map(|(target, _)| *target).collect();
    known.sort_unstable();
    assert_eq!(targets, known, "a folder of the corpus for each target");
    for (target, check) in checks::ALL {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus.join(target)).unwrap() {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            let memory = memory_of(check, &bytes);
            assert!(memory <= allowance(&bytes), "{}: {memory} bytes of memory", path.display());
            files += 1;
        }
        assert!(files > 0, "{target} has no corpus");
    }
}
