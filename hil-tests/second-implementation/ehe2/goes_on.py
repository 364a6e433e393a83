"""Section 10: whether a log goes on as it was seen, by the answer to request 16 (L4)."""

from __future__ import annotations

from dataclasses import dataclass

from .evidence import OTHER_BEGINNING, TWO_ROOTS, Contradiction
from .log import verify_consistency
from .note import read_checkpoint
from .refused import require


@dataclass(frozen=True)
class Extends:
    """The answer: the root of the smaller size, and the proof from there to the larger one. Nobody's word."""

    prefix: bytes
    proof: list[bytes]


def check_goes_on(one: str, other: str, answer: Extends | None) -> Contradiction | None:
    """Of two checkpoints that stand, whichever is larger: None if they are of one log, else what makes both of them evidence.

    Refused where the answer shows nothing: nobody is accused by a proof that does not hold. Checkpoints of one size need no answer.
    """
    smaller, larger = sorted(((read_checkpoint(note.encode()), note) for note in (one, other)),
                             key=lambda read: (read[0].size, read[0].root))
    (said, first), (goes_on, second) = smaller, larger
    require(said.origin == goes_on.origin, "checkpoints of two logs")
    if said.size == goes_on.size:
        return None if said.root == goes_on.root else Contradiction(TWO_ROOTS, first, second)
    require(answer is not None, "no proof of how the log goes on")
    assert answer is not None
    verify_consistency(said.size, answer.prefix, goes_on.size, goes_on.root, answer.proof)
    if answer.prefix == said.root:
        return None
    return Contradiction(OTHER_BEGINNING, first, second, answer.prefix, answer.proof)
