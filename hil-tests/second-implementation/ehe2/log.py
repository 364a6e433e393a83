"""Section 10: the tree, leaves, receipts and heads."""

from __future__ import annotations

from dataclasses import dataclass

from .charter import Charter, at_hand, named
from .cose import Signed
from .event import ms
from .form import Record, array, blob, member, octets, text, uint
from .ids import sha256, shard_of
from .limits import HEAD_SIGNATURE_MAX_BYTES, PROOF_HASHES_MAX
from .note import Checkpoint, read_checkpoint, verify_statement
from .refused import Refused, require
from .run import SignedRun


class Leaf(Record):
    room: bytes = member(0, octets(16))
    index: int = member(1, uint())
    before: bytes = member(2, octets(32))
    entry: bytes = member(3, octets(32))
    accepted_at: int = member(4, ms)
    control_events: int = member(5, uint())

    @property
    def hash(self) -> bytes:
        return leaf_hash(self.encoded)


class Receipt(Record):
    leaf: Leaf = member(0, Leaf.read)
    log_index: int = member(1, uint())
    proof: list[bytes] = member(2, array(octets(32)))
    checkpoint: str = member(3, text)


class Head(Record):
    last: Receipt = member(0, Receipt.read)
    nonce: bytes = member(1, octets(16))
    at: int = member(2, ms)
    signature: bytes = member(3, blob)


class HeadStatement(Record):
    room: bytes = member(0, octets(16))
    last: bytes = member(1, octets(32))
    size: int = member(2, uint())
    at: int = member(3, ms)
    nonce: bytes = member(4, octets(16))


def leaf_hash(leaf: bytes) -> bytes:
    return sha256(b"\x00", leaf)


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01", left, right)


def root_of(leaves: list[bytes]) -> bytes:
    """M1."""
    if not leaves:
        return sha256()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return _node(root_of(leaves[:k]), root_of(leaves[k:]))


def verify_inclusion(hash_: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    """M2, by the steps of RFC 9162 §2.1.3.2."""
    require(len(proof) <= PROOF_HASHES_MAX, "the proof is too long")
    require(index < size, "the index is outside of the tree")
    fn, sn = index, size - 1
    for sibling in proof:
        require(sn != 0, "the proof goes on above the root")
        if fn & 1 or fn == sn:
            hash_ = _node(sibling, hash_)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            hash_ = _node(hash_, sibling)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the proof ends below the root")
    require(hash_ == root, "the proof leads to another root")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: list[bytes]) -> None:
    """M3, by the steps of RFC 9162 §2.1.4.2."""
    require(len(proof) <= PROOF_HASHES_MAX, "the proof is too long")
    require(old <= new, "the tree became smaller")
    if old in (0, new):
        require(not proof, "a proof where nothing is to be proved")
        if old == 0:
            require(old_root == sha256(), "not the root of an empty tree")
        if old == new:
            require(old_root == new_root, "two roots of one size")
        return
    require(len(proof) > 0, "the proof is empty")
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = path[0]
    for c in path[1:]:
        require(sn != 0, "the proof goes on above the root")
        if fn & 1 or fn == sn:
            fr, sr = _node(c, fr), _node(c, sr)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = _node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the proof ends below the root")
    require(fr == old_root and sr == new_root, "the proof leads to other roots")


def verify_receipt(receipt: Receipt, charters: list[Charter], seen: int = 0) -> Checkpoint:
    """The checkpoint stands under the charter at hand (C2) and includes the leaf: what C3 and C4 share."""
    shard = shard_of(receipt.leaf.room, charters[-1].shard_count)
    said = read_checkpoint(receipt.checkpoint.encode())
    checkpoint = verify_statement(said, shard, at_hand(charters, shard, said.charter_version, seen))
    verify_inclusion(receipt.leaf.hash, receipt.log_index, checkpoint.size, receipt.proof, checkpoint.root)
    return checkpoint


def verify_run_receipt(receipt: Receipt, run: SignedRun, charters: list[Charter]) -> Checkpoint:
    """C3."""
    require(receipt.leaf.room == run.run.room, "the receipt is for another room")
    require(receipt.leaf.entry == run.hash, "the receipt is for another entry")
    return verify_receipt(receipt, charters)


@dataclass(frozen=True)
class VerifiedHead:
    leaf: Leaf
    checkpoint: Checkpoint
    at: int

    def check_fresh(self, now: int, charter: Charter) -> None:
        """By the newest charter, whichever the checkpoint stands under (section 12)."""
        require(now - self.at <= charter.head_fresh, "the head is stale")


def verify_head(head: Head, room: bytes, nonce: bytes, charters: list[Charter], seen: int = 0) -> VerifiedHead:
    """C4."""
    leaf = head.last.leaf
    require(leaf.room == room, "the head is of another room")
    require(head.nonce == nonce, "the head answers another question")
    checkpoint = verify_receipt(head.last, charters, seen)
    signed = Signed.decode(head.signature, HEAD_SIGNATURE_MAX_BYTES)
    statement = HeadStatement.decode(signed.payload, HEAD_SIGNATURE_MAX_BYTES)
    stated = (statement.room, statement.last, statement.size, statement.at, statement.nonce)
    require(stated == (room, leaf.hash, checkpoint.size, head.at, nonce), "the head states something else")
    for node in named(charters, checkpoint.charter_version).group(checkpoint.shard):
        try:
            signed.verify("head", node.key)
        except Refused:
            continue
        return VerifiedHead(leaf, checkpoint, head.at)
    raise Refused("no node of the group signed the head")
