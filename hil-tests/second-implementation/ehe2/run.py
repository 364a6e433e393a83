"""Section 7: runs and strands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .cose import Signed
from .form import Record, check_text, member, octets, text, uint
from .ids import ZERO32, sha256
from .limits import ORIGIN_MAX_BYTES, RUN_EVENTS_MAX, RUN_MAX_BYTES
from .refused import RUN_MALFORMED, refusing_with, require


class StrandEnd(Record):
    strand: bytes = member(0, octets(8))
    next: int = member(1, uint())
    link: bytes = member(2, octets(32))


class SeenCheckpoint(Record):
    origin: str = member(0, text)
    size: int = member(1, uint())
    root: bytes = member(2, octets(32))


def _ids(value: Any) -> list[bytes]:
    require(isinstance(value, bytes), "ids are not a byte string")
    require(0 < len(value) <= 32 * RUN_EVENTS_MAX and len(value) % 32 == 0, "not 1 to 256 ids")
    return [value[i : i + 32] for i in range(0, len(value), 32)]


def check_seen(seen: SeenCheckpoint | None) -> None:
    if seen is not None:
        check_text(seen.origin, ORIGIN_MAX_BYTES)


class Run(Record):
    room: bytes = member(0, octets(16))
    author: bytes = member(1, octets(16))
    start: StrandEnd = member(2, StrandEnd.read)
    ids: list[bytes] = member(3, _ids)
    seen: SeenCheckpoint | None = member(4, SeenCheckpoint.read, optional=True)
    continues: StrandEnd | None = member(5, StrandEnd.read, optional=True)

    @cached_property
    def end(self) -> tuple[bytes, int, bytes]:
        return link_ids((self.start.strand, self.start.next, self.start.link), self.ids)


def link_ids(start: tuple[bytes, int, bytes], ids: list[bytes]) -> tuple[bytes, int, bytes]:
    """R1."""
    strand, count, link = start
    require(count + len(ids) < 1 << 64, "the strand passes 64 bits")
    for ehe_id in ids:
        link = sha256(link, ehe_id)
    return strand, count + len(ids), link


@dataclass(frozen=True)
class SignedRun:
    encoded: bytes
    signed: Signed
    run: Run

    @property
    def hash(self) -> bytes:
        return sha256(self.encoded)

    @classmethod
    def decode(cls, data: bytes) -> "SignedRun":
        """Form, R1 and R2 without the ledger; who signed is asked by `verify`."""
        with refusing_with(RUN_MALFORMED):
            signed = Signed.decode(data, RUN_MAX_BYTES)
            run = Run.decode(signed.payload, RUN_MAX_BYTES)
            require(run.author == signed.signer, "the author is not the signer")
            check_seen(run.seen)
            require(run.continues is None or run.start.next == 0, "continues stands in a later run")
            require(run.start.next != 0 or run.start.link == ZERO32, "a strand begins with a link of zeros")
            require(run.start.next + len(run.ids) < 1 << 64, "the strand passes 64 bits")
            return cls(data, signed, run)

    def verify(self, key: bytes) -> None:
        self.signed.verify("run", key)
