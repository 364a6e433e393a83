//! M: Merkle trees and their proofs.

use ehe::id::Hash;
use ehe::merkle::{self};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Kit;
use super::log::Tree;
use crate::json::h;

const FOLDER: &str = "log";

pub(super) fn cases(kit: &mut Kit) {
    trees(kit);
}

fn trees(kit: &mut Kit) {
    let leaves: Vec<Vec<u8>> = (0..7u8).map(|i| vec![i; usize::from(i)]).collect();
    let hex: Vec<Value> = leaves.iter().map(h).collect();
    for size in [0, 1, 2, 3, 5, 7] {
        kit.case(FOLDER, "M1", &format!("ok-root-of-{size}"), "the root of a tree", "root")
            .input(json!({"leaves": hex[..size]}))
            .valid();
    }
    // The root of two leaves, the domain bytes left out.
    let plain = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
    let bare = plain(&[plain(&leaves[0]), plain(&leaves[1])].concat());
    kit.case(FOLDER, "M1", "no-domain-bytes", "a root without the bytes 0x00 and 0x01", "root")
        .input(json!({"leaves": hex[..2], "root": h(bare)}))
        .invalid();
    let tree_of = |n: usize| {
        let mut tree = Tree::default();
        leaves[..n].iter().for_each(|leaf| tree.append(merkle::leaf_hash(leaf)));
        tree
    };
    let tree = tree_of(7);
    let proof = |hashes: &[Hash]| json!(hashes.iter().map(|hash| hash.to_string()).collect::<Vec<_>>());
    let inclusion = |leaf: usize, index: u64, size: u64, hashes: &[Hash]| json!({"leaf": hex[leaf], "index": index, "size": size, "proof": proof(hashes), "root": tree.root().to_string()});
    for index in [0usize, 3, 6] {
        let hashes = tree.inclusion(index.try_into().unwrap());
        kit.case(FOLDER, "M2", &format!("ok-inclusion-of-{index}-in-7"), "an inclusion proof", "inclusion")
            .input(inclusion(index, index.try_into().unwrap(), 7, &hashes))
            .valid();
    }
    let hashes = tree.inclusion(3);
    let mut swapped = hashes.clone();
    swapped.swap(0, 1);
    let long = [&hashes[..], &[Hash::ZERO]].concat();
    for (slug, title, input) in [
        ("other-leaf", "a proof of another leaf", inclusion(2, 3, 7, &hashes)),
        ("other-index", "a proof at another index", inclusion(3, 2, 7, &hashes)),
        ("index-outside", "an index that is not below the size", inclusion(3, 7, 7, &hashes)),
        ("other-size", "a proof in a tree of another size", inclusion(3, 3, 4, &hashes)),
        ("swapped", "a proof in another order", inclusion(3, 3, 7, &swapped)),
        ("short", "a proof with a hash too few", inclusion(3, 3, 7, &hashes[..2])),
        ("long", "a proof with a hash too many", inclusion(3, 3, 7, &long)),
        ("ends-early", "a leaf whose hash is called the root of seven leaves", {
            let mut input = inclusion(3, 0, 7, &[]);
            input["root"] = json!(merkle::leaf_hash(&leaves[3]).to_string());
            input
        }),
        ("oversized", "a proof of 65 hashes", inclusion(3, 3, 7, &[Hash::ZERO; 65])),
    ] {
        kit.case(FOLDER, "M2", slug, title, "inclusion").input(input).invalid();
    }
    let consistency = |old: usize, old_root: Hash, new: usize, hashes: &[Hash]| json!({"old": old, "old_root": old_root.to_string(), "new": new, "new_root": tree_of(new).root().to_string(), "proof": proof(hashes)});
    let from = |old: u64| merkle::consistency_proof(&tree, old, 7).unwrap();
    for old in [1usize, 3, 4, 6, 7] {
        kit.case(FOLDER, "M3", &format!("ok-{old}-to-7"), "a consistency proof", "consistency")
            .input(consistency(old, tree_of(old).root(), 7, &from(old.try_into().unwrap())))
            .valid();
    }
    kit.case(FOLDER, "M3", "ok-from-nothing", "everything extends the empty tree", "consistency")
        .input(consistency(0, tree_of(0).root(), 7, &[]))
        .valid();
    let mut altered = from(3);
    altered[0].0[0] ^= 1;
    for (slug, title, input) in [
        ("rewritten", "a tree that does not extend the one before", consistency(3, tree_of(4).root(), 7, &from(3))),
        ("altered", "an altered proof", consistency(3, tree_of(3).root(), 7, &altered)),
        ("empty", "no proof", consistency(3, tree_of(3).root(), 7, &[])),
        (
            "shrunk",
            "a tree that became smaller",
            json!({"old": 7, "old_root": tree.root().to_string(), "new": 3, "new_root": tree_of(3).root().to_string(), "proof": []}),
        ),
        // From 3 to 7 the proof has the hashes of leaf 2, leaf 3, leaves 0 and 1, leaves 4 to 6. Without the last one what was
        // computed so far is the root of four leaves, which is called that of seven: only that the path is not at its end is wrong.
        (
            "ends-early",
            "a proof without its last hash, the hash that it leads to called the root",
            json!({"old": 3, "old_root": tree_of(3).root().to_string(), "new": 7, "new_root": tree_of(4).root().to_string(), "proof": proof(&from(3)[..3])}),
        ),
        ("nothing-with-a-proof", "a proof from the empty tree", consistency(0, tree_of(0).root(), 7, &from(1))),
        ("nothing-with-another-root", "an empty tree that has another root", consistency(0, Hash::ZERO, 7, &[])),
        ("same-tree-with-a-proof", "a proof between equal trees", consistency(7, tree_of(7).root(), 7, &from(6))),
        ("same-size-other-root", "two trees of one size", consistency(7, tree_of(6).root(), 7, &[])),
        (
            "long",
            "a proof with a hash too many",
            consistency(3, tree_of(3).root(), 7, &[from(3), vec![Hash::ZERO]].concat()),
        ),
    ] {
        kit.case(FOLDER, "M3", slug, title, "consistency").input(input).invalid();
    }
}
