use std::os::unix::fs::MetadataExt;

use ehe::checkpoint::{Checkpoint, Signer};
use ehe::evidence::judge;
use ehe::time::UnixMs;

use super::*;
use crate::test_members::{Seat, seats};

fn note(seat: &Seat, incarnation: u32, size: u64, root: u8, charter_version: u32) -> String {
    let origin = seat.charter.origin(0, incarnation);
    let checkpoint = Checkpoint { origin, size, root: Hash([root; 32]), charter_version };
    let signer = Signer { name: &seat.name, key: seat.identity.sign_key() };
    checkpoint.sign(signer, UnixMs(1_790_000_000_000)).unwrap().to_string()
}

/// Two roots of one size: `one` signed the one, `other` the other.
pub(in crate::evidence) fn pair(one: &Seat, other: &Seat, incarnation: u32, size: u64, roots: [u8; 2]) -> Vec<u8> {
    let [first, second] = [note(one, incarnation, size, roots[0], 1), note(other, incarnation, size, roots[1], 1)];
    Contradiction::of(&first, &second, None).unwrap().to_vec()
}

/// The same of one node, in the log's first incarnation, under a charter of this version.
pub(in crate::evidence) fn said(one: &Seat, roots: [u8; 2], charter: u32) -> Vec<u8> {
    let [first, second] = roots.map(|root| note(one, 0, 9, root, charter));
    Contradiction::of(&first, &second, None).unwrap().to_vec()
}

pub(in crate::evidence) fn judged(seat: &Seat, bytes: &[u8]) -> Verdict {
    Contradiction::decode(bytes).unwrap().judge(&[&*seat.charter]).unwrap()
}

fn charters(seats: &[Seat]) -> [Arc<VerifiedCharter>; 1] {
    [Arc::clone(&seats[0].charter)]
}

fn put(shelf: &mut Shelf, seats: &[Seat], bytes: &[u8]) -> Result<Kept, NotKept> {
    shelf.keep(bytes.to_vec(), judged(&seats[0], bytes))
}

#[test]
fn what_is_kept_is_there_again_after_a_restart_for_this_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("evidence");
    let seats = seats("ABC", None);
    let mut shelf = Shelf::open(dir.clone(), &charters(&seats)).unwrap();
    assert!(shelf.kept().is_empty() && !dir.exists(), "nothing is made before there is something to keep");
    let kept = put(&mut shelf, &seats, &pair(&seats[0], &seats[0], 0, 9, [1, 2])).unwrap();
    let file = kept.file.unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    // What a crash left, what somebody put there, what was altered.
    fs::write(dir.join("half.new"), "x").unwrap();
    fs::write(dir.join("notes.txt"), "x").unwrap();
    let mut altered = fs::read(&file).unwrap();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(dir.join(format!("{}.cbor", Hash([1; 32]))), &altered).unwrap();
    fs::copy(&file, dir.join(format!("{}.cbor", Hash([2; 32])))).unwrap();
    let again = Shelf::open(dir.clone(), &charters(&seats)).unwrap();
    assert_eq!(again.kept().iter().map(|kept| kept.hash).collect::<Vec<_>>(), [kept.hash]);
    assert_eq!(read(&dir, &charters(&seats)).unwrap().strange.len(), 3, "what is none, or under another name, is said");
    let other = charters(&super::tests::seats("ABC", None));
    assert!(Shelf::open(dir, &other).unwrap().kept().is_empty(), "another alliance's is nothing here");
}

#[test]
fn what_is_made_for_others_needs_nothing_else_and_is_kept_once_where_it_lies_in_both_forms() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, to) = (dir.path().join("evidence"), dir.path().join("exported"));
    let seats = seats("ABC", None);
    let mut shelf = Shelf::open(dir.clone(), &charters(&seats)).unwrap();
    let kept = put(&mut shelf, &seats, &pair(&seats[0], &seats[0], 0, 9, [1, 2])).unwrap();
    let files = crate::evidence::export(&dir, &charters(&seats), &to).unwrap();
    let [file] = &files[..] else { panic!("{files:?}") };
    let bytes = fs::read(file).unwrap();
    assert_eq!(judge(&bytes).unwrap(), *kept.verdict);
    // As programs before this one kept it.
    fs::copy(file, dir.join(file.file_name().unwrap())).unwrap();
    let again = Shelf::open(dir.clone(), &charters(&seats)).unwrap();
    assert_eq!(again.kept().iter().map(|kept| kept.hash).collect::<Vec<_>>(), [kept.hash]);
    fs::remove_file(kept.file.unwrap()).unwrap();
    let again = Shelf::open(dir, &charters(&seats)).unwrap();
    assert_eq!(again.kept().iter().map(|kept| kept.hash).collect::<Vec<_>>(), [kept.hash]);
}

#[test]
fn a_flood_about_the_same_node_adds_nothing_and_what_names_somebody_new_still_finds_room() {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats("ABC", None);
    let mut shelf = Shelf::open(dir.path().join("evidence"), &charters(&seats)).unwrap();
    put(&mut shelf, &seats, &pair(&seats[0], &seats[0], 0, 9, [1, 2])).unwrap();
    for size in 1..40 {
        let flood = pair(&seats[0], &seats[0], 0, size, [1, 3]);
        assert!(matches!(put(&mut shelf, &seats, &flood), Err(NotKept::NothingNew)), "size {size}");
    }
    // It may invent incarnations, and is no less guilty for it.
    let invented = (1..100)
        .filter(|incarnation| put(&mut shelf, &seats, &pair(&seats[0], &seats[0], *incarnation, 9, [1, 2])).is_ok());
    assert_eq!(invented.count(), OF_A_NODE_MAX - 1);
    put(&mut shelf, &seats, &pair(&seats[1], &seats[1], 0, 9, [1, 2])).expect("somebody new");
    assert_eq!(shelf.kept().len(), OF_A_NODE_MAX + 1);
    assert_eq!(fs::read_dir(dir.path().join("evidence")).unwrap().count(), OF_A_NODE_MAX + 1);
}

#[test]
fn that_a_node_signed_both_is_kept_beside_that_it_stood_against_another() {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats("ABC", None);
    let mut shelf = Shelf::open(dir.path().join("evidence"), &charters(&seats)).unwrap();
    put(&mut shelf, &seats, &pair(&seats[0], &seats[1], 0, 9, [1, 2])).unwrap();
    assert!(matches!(put(&mut shelf, &seats, &pair(&seats[1], &seats[0], 0, 8, [1, 2])), Err(NotKept::NothingNew)));
    put(&mut shelf, &seats, &pair(&seats[0], &seats[0], 0, 9, [1, 2])).expect("stronger");
    assert!(matches!(put(&mut shelf, &seats, &pair(&seats[0], &seats[1], 0, 7, [1, 2])), Err(NotKept::NothingNew)));
}

#[test]
fn a_disk_that_takes_nothing_loses_no_evidence_while_the_program_runs() {
    let dir = tempfile::tempdir().unwrap();
    let seats = seats("ABC", None);
    // A file where the directory should be.
    let place = dir.path().join("evidence");
    let mut shelf = Shelf::open(place.clone(), &charters(&seats)).unwrap();
    fs::write(&place, "").unwrap();
    let kept = put(&mut shelf, &seats, &pair(&seats[0], &seats[0], 0, 9, [1, 2])).unwrap();
    assert!(kept.file.is_none());
    assert_eq!(shelf.kept().len(), 1);
}
