"""Section 10: restored logs, the records by which a log was begun anew (N1 to N6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .charter import Charter, named
from .cose import Signed
from .event import ms
from .form import Record, array, blob, member, octets, text, uint
from .ids import sha256
from .limits import MEMBERS_MAX, PROOF_HASHES_MAX, RESTORATION_MAX_BYTES, RESTORATION_SIGNATURE_MAX_BYTES
from .log import root_of, verify_consistency
from .note import Checkpoint, origin_of, read_checkpoint, verify_statement
from .refused import require

LAST_INCARNATION = 0xFFFFFFFF


class Restoration(Record):
    alliance: bytes = member(0, octets(32))
    shard: int = member(1, uint(16))
    incarnation: int = member(2, uint(32))
    kept: int = member(3, uint())
    root: bytes = member(4, octets(32))
    proof: list[bytes] = member(5, array(octets(32)))
    checkpoint: str | None = member(6, text, optional=True)
    newest: str | None = member(7, text, optional=True)
    kept_until: int = member(8, ms)
    state: bytes = member(9, octets(32))
    charter: int = member(10, uint(32))
    at: int = member(11, ms)


class SignedRestoration(Record):
    restoration: bytes = member(0, blob)
    signatures: list[bytes] = member(1, array(blob))


@dataclass(frozen=True)
class Restored:
    """A record that stands: of the log that was lost in `incarnation`, the first `kept` leaves are in the next one."""

    alliance_id: bytes
    shard: int
    incarnation: int
    kept: int
    root: bytes
    known: int
    charter_version: int
    at: int

    @property
    def origin(self) -> str:
        """Of the log that was begun by it."""
        return origin_of(self.alliance_id, self.shard, self.incarnation + 1)


@dataclass(frozen=True)
class Remembered:
    """Of a log: so many of its leaves, seen in a checkpoint that stood under this charter version."""

    incarnation: int
    size: int
    root: bytes
    charter_version: int


@dataclass(frozen=True)
class Lost:
    """Leaves of the log of an incarnation, from `first` on and without `until`."""

    incarnation: int
    first: int
    until: int


def _check_signatures(signed: SignedRestoration, charter: Charter) -> None:
    """N4."""
    require(len(signed.signatures) <= MEMBERS_MAX, "too many signatures")
    members = {entry.identity.id: entry.identity for entry in charter.record.members}
    hash_ = sha256(signed.restoration)
    voices = set()
    for encoded in signed.signatures:
        cose = Signed.decode(encoded, RESTORATION_SIGNATURE_MAX_BYTES)
        require(cose.payload == hash_, "a signature over another restoration")
        require(cose.signer in members, "a signature of a stranger")
        cose.verify("restoration", members[cose.signer].sign)
        voices.add(cose.signer)
    require(2 * len(voices) > len(members), "no majority signed")


def _of_the_lost(note: str, record: Restoration, charters: list[Charter]) -> Checkpoint:
    """A checkpoint of the log that was lost, under the charter that it names (N2, N3)."""
    said = read_checkpoint(note.encode())
    require(said.incarnation == record.incarnation, "a checkpoint of another incarnation")
    require(said.charter_version <= record.charter, "a checkpoint under a newer charter than the restoration's")
    return verify_statement(said, record.shard, named(charters, said.charter_version))


def _check_kept(record: Restoration, charters: list[Charter]) -> int:
    """N2: how many leaves the checkpoint has of which some were kept."""
    require(len(record.proof) <= PROOF_HASHES_MAX, "the proof is too long")
    if record.checkpoint is None:
        nothing = record.kept == 0 and record.root == root_of([]) and not record.proof
        require(nothing, "leaves were kept of which no checkpoint tells")
        return 0
    checkpoint = _of_the_lost(record.checkpoint, record, charters)
    verify_consistency(record.kept, record.root, checkpoint.size, checkpoint.root, record.proof)
    return checkpoint.size


def verify_restoration(data: bytes, shard: int, charters: list[Charter]) -> Restored:
    """N1 to N4, for a shard of the alliance whose charters these are."""
    signed = SignedRestoration.decode(data, RESTORATION_MAX_BYTES)
    record = Restoration.decode(signed.restoration, RESTORATION_MAX_BYTES)
    alliance_id = charters[0].alliance_id
    require(record.alliance == alliance_id, "of another alliance")
    require(record.shard < charters[-1].shard_count, "of a shard that the alliance does not have")
    require(record.shard == shard, "of another shard")
    require(record.incarnation < LAST_INCARNATION, "no incarnation comes after this one")
    charter = named(charters, record.charter)
    known = _check_kept(record, charters)
    if record.newest is not None:
        newest = _of_the_lost(record.newest, record, charters)
        require(newest.size > known, "the newest checkpoint is no newer")
        known = newest.size
    _check_signatures(signed, charter)
    return Restored(alliance_id, shard, record.incarnation, record.kept, record.root, known, record.charter, record.at)


def follow_restorations(records: Sequence[Restored], remembered: Remembered,
                        shown: Checkpoint) -> tuple[Remembered, list[Lost]]:
    """N5, N6: from what is remembered to the log that is shown; what of it is there, and what was lost.

    Without records the log shown is the one that is remembered, which does not become smaller (L4).
    """
    incarnation, begins = remembered.incarnation, (remembered.size, remembered.root)
    size, root = begins
    lost: list[Lost] = []
    charter_version, at = remembered.charter_version, 0
    for record in records:
        require(record.incarnation == incarnation, "a record of another incarnation")
        require(record.charter_version >= charter_version, "under an earlier charter than what came before it")
        require(record.at >= at, "made before the record before")
        if record.kept == size:
            require(record.root == root, "what was kept is not what is remembered")
        elif record.kept < size:
            lost.append(Lost(record.incarnation, record.kept, size))
            size, root = record.kept, record.root
        incarnation, begins = incarnation + 1, (record.kept, record.root)
        charter_version, at = record.charter_version, record.at
    require(shown.incarnation == incarnation, "the log shown is of another incarnation")
    least, least_root = begins
    require(shown.size >= least, "the log shown has fewer leaves than there were")
    require(shown.size > least or shown.root == least_root, "the log shown has another root")
    return Remembered(incarnation, size, root, shown.charter_version), lost
