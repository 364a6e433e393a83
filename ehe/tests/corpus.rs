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

/// What any bytes may make a decoder allocate, the checks' own copies included: a window of 4,096 readings is held three times
/// over (each takes 144 bytes, its columns 56).
fn allowance(bytes: &[u8]) -> usize {
    16 * bytes.len() + 2 * 1024 * 1024
}

/// Metadata behind pco's two bytes that asks for much, as first bytes of a chunk: a dictionary of 2^25 − 1 values, a window of
/// 2^24 values to look back into, 32,767 bins, a convolution of 32 weights, a table of 2^15 states.
const BOMBS: [[u8; 5]; 5] = [
    [0xf4, 0xff, 0xff, 0x1f, 0x00],
    [0x20, 0x17, 0x00, 0x00, 0x00],
    [0x00, 0xfa, 0xff, 0x07, 0x00],
    [0x30, 0xff, 0xff, 0xff, 0xff],
    [0x00, 0x2f, 0x00, 0x00, 0x00],
];

/// A body with one compressed column, whose metadata asks for as much as it can, takes no memory but that for its 600 readings.
fn bombs_cost_nothing(body: &[u8]) {
    // A column `[3, base, 16, chunk]`: width, head of a byte string of up to 255 bytes, pco's format.
    let starts = |at: &[u8]| matches!(at, [0x10, 0x58, _, 0x04, 0x01]);
    let chunk = body.windows(5).position(starts).expect("a compressed column") + 5;
    for bomb in BOMBS {
        let mut bytes = body.to_vec();
        bytes[chunk..chunk + bomb.len()].copy_from_slice(&bomb);
        let memory =
            memory_of(|bytes| assert!(ehe::body::vitals::VitalsBody::decode(bytes).is_err(), "{bytes:02x?}"), &bytes);
        assert!(memory < 128 * 1024, "{bomb:02x?}: {memory} bytes of memory");
    }
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
    bombs_cost_nothing(&std::fs::read(corpus.join("body/seed-600")).unwrap());
    // What came with later rules is reached, and not refused at the door.
    ehe::void::VoidRecord::decode(&std::fs::read(corpus.join("void/seed-one")).unwrap()).unwrap();
    let chain = ehe::charter::CharterChain::decode(&std::fs::read(corpus.join("charter/seed-rules")).unwrap()).unwrap();
    assert_eq!(chain.verify(chain.claimed_alliance().unwrap()).unwrap().rules(), ehe::charter::RULES_KNOWN);
}
