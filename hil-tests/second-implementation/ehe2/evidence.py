"""Section 10: evidence, two signed statements about one log that cannot both be true (J1 to J6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import cbor
from .charter import Charter, Node, alliance_of, named, verify_charters
from .form import Record, array, blob, code, member, octets, text
from .limits import CONTRADICTION_MAX_BYTES, EVIDENCE_MAX_BYTES
from .log import verify_consistency
from .note import Statement, read_checkpoint, signers_of, verify_statement
from .refused import Refused, require

TWO_ROOTS, OTHER_BEGINNING = 1, 2
SIGNED_BOTH, TWO_QUORUMS, AGAINST_QUORUM, SIDES = "signed both", "two quorums", "against quorum", "sides"


@dataclass(frozen=True)
class Contradiction:
    """`prefix` and `proof` are None where both are of one size."""

    form: int
    first: str
    second: str
    prefix: bytes | None = None
    proof: list[bytes] | None = None


def read_contradiction(value: Any) -> Contradiction:
    require(isinstance(value, list) and len(value) > 0, "a contradiction is an array")
    form = code([TWO_ROOTS, OTHER_BEGINNING])(value[0])
    forms = [text, text] if form == TWO_ROOTS else [text, text, octets(32), array(octets(32))]
    require(len(value) == 1 + len(forms), "a contradiction with other members")
    contradiction = Contradiction(form, *(of(item) for of, item in zip(forms, value[1:])))
    require(len(cbor.encode(value)) <= CONTRADICTION_MAX_BYTES, f"a contradiction of more than {CONTRADICTION_MAX_BYTES} bytes")
    return contradiction


class Evidence(Record):
    chain: bytes = member(0, blob)
    contradiction: Contradiction = member(1, read_contradiction)


@dataclass(frozen=True)
class Side:
    """One of the two statements, under the charter that it names. `signers` are in the order of the group."""

    said: Statement
    signers: list[Node]
    stands: bool

    @property
    def ids(self) -> list[bytes]:
        return [node.id for node in self.signers]


@dataclass(frozen=True)
class Judged:
    """Evidence that holds, and what it proves."""

    alliance_id: bytes
    first: Side
    second: Side

    @property
    def culprits(self) -> list[bytes]:
        """Who signed both under one key: an id with another key on the other side is not shown to be one of them."""
        keys = {node.id: node.key for node in self.second.signers}
        return [node.id for node in self.first.signers if keys.get(node.id) == node.key]

    @property
    def finding(self) -> str:
        if self.culprits:
            return SIGNED_BOTH
        if self.first.stands and self.second.stands:
            return TWO_QUORUMS
        return AGAINST_QUORUM if self.first.stands or self.second.stands else SIDES

    @property
    def accused(self) -> list[bytes]:
        """Ascending."""
        if self.finding == SIGNED_BOTH:
            return sorted(self.culprits)
        if self.finding == AGAINST_QUORUM:
            return sorted(self.second.ids if self.first.stands else self.first.ids)
        return sorted({*self.first.ids, *self.second.ids})


def _side(said: Statement, charters: list[Charter]) -> Side:
    """J4, and whether it stands besides (C1, C2)."""
    charter = named(charters, said.charter_version)
    signers = signers_of(said, charter)
    require(len(signers) > 0, "no node of the group signed a statement")
    try:
        verify_statement(said, said.shard, charter)
    except Refused:
        return Side(said, signers, False)
    return Side(said, signers, True)


def _check_contradiction(contradiction: Contradiction, first: Statement, second: Statement) -> None:
    """J5, J6."""
    if contradiction.form == TWO_ROOTS:
        require(first.size == second.size, "two roots of two sizes")
        require(first.root != second.root, "one root")
        require(first.root < second.root, "the greater root comes first")
        return
    assert contradiction.prefix is not None and contradiction.proof is not None
    require(first.size < second.size, "the first is not the smaller one")
    require(contradiction.prefix != first.root, "the larger log begins as the smaller one says")
    verify_consistency(first.size, contradiction.prefix, second.size, second.root, contradiction.proof)


def judge_evidence(data: bytes) -> Judged:
    """J1 to J6. Whether the alliance is the reader's is not asked here: the chain is the evidence's own."""
    evidence = Evidence.decode(data, EVIDENCE_MAX_BYTES)
    contradiction = evidence.contradiction
    alliance_id = alliance_of(evidence.chain)
    charters = verify_charters(evidence.chain, alliance_id)
    first, second = (read_checkpoint(note.encode()) for note in (contradiction.first, contradiction.second))
    require(first.origin == second.origin, "statements about two logs")
    require(first.alliance == alliance_id[:16].hex(), "a log of another alliance")
    require(first.shard < charters[-1].shard_count, "a shard that the alliance does not have")
    require(max(first.charter_version, second.charter_version) == charters[-1].version, "charters that nobody names")
    sides = [_side(said, charters) for said in (first, second)]
    _check_contradiction(contradiction, first, second)
    return Judged(alliance_id, *sides)
