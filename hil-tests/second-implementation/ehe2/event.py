"""Section 4: the event."""

from __future__ import annotations

from dataclasses import dataclass

from . import cbor
from .form import Record, blob, code, member, octets, uint
from .ids import ZERO16, sha256
from .limits import CONTENT_BODY_MAX_BYTES, CONTROL_BODY_MAX_BYTES, HEADER_MAX_BYTES
from .refused import EVENT_MALFORMED, refusing_with, require

VITALS, DEVICE_STATUS, CLINICAL_RECORD, GOAL, NOTE, INSTRUCTION = range(1, 7)
ROOM_CREATE, AUTHORITY, GRANT, REVOKE, EPOCH, WRAP, ATTRIBUTION, SHRED = range(16, 24)
KINDS = frozenset([*range(1, 7), *range(16, 24)])
RESERVED_KINDS = frozenset([ATTRIBUTION, SHRED])
FIRST_CONTROL_KIND = 16
VERSION = 1
# The first byte of a map of 1 to 23 members.
SMALL_MAPS = range(0xA1, 0xB8)

hour = uint(32)
day = uint(32)
ms = uint(64)


class Core(Record):
    version: int = member(0, code([VERSION]))
    suite: int = member(1, code([1]))
    kind: int = member(2, code(KINDS))
    room: bytes = member(3, octets(16))
    author: bytes = member(4, octets(16))
    epoch: bytes = member(5, octets(16))
    wrap: bytes = member(6, octets(16))
    hour: int = member(7, hour)
    salt: bytes = member(8, octets(16))


class Header(Record):
    core: Core = member(0, Core.read)
    commitment: bytes = member(1, octets(32))
    body_hash: bytes = member(2, octets(32))


class Event(Record):
    header: bytes = member(0, blob)
    body: bytes = member(1, blob)


def body_limit(kind: int) -> int:
    return CONTROL_BODY_MAX_BYTES if kind >= FIRST_CONTROL_KIND else CONTENT_BODY_MAX_BYTES


@dataclass(frozen=True)
class CheckedEvent:
    """An event that is well formed. `body` is empty where only the header was shown."""

    id: bytes
    header: Header
    body: bytes

    @property
    def core(self) -> Core:
        return self.header.core

    @property
    def kind(self) -> int:
        return self.core.kind

    @property
    def is_content(self) -> bool:
        return self.kind < FIRST_CONTROL_KIND

    @property
    def is_wrap(self) -> bool:
        return self.kind == WRAP

    @property
    def is_control_record(self) -> bool:
        """Control other than a wrap: what A13 keeps apart and the room's sequence counts."""
        return not self.is_content and not self.is_wrap


def version_of(header: bytes) -> int:
    """V1: how a header of any version begins; what follows is that version's."""
    with refusing_with(EVENT_MALFORMED):
        require(len(header) <= HEADER_MAX_BYTES, "the header is above its limit")
        begins = len(header) > 4 and header[0] in SMALL_MAPS and header[2] in SMALL_MAPS and header[1] == header[3] == 0
        require(begins, "does not begin as a header does")
        return cbor.leading_uint(header[4:])


def check_event(header: bytes, body: bytes, body_may_lack: bool = False) -> CheckedEvent:
    """V1 to V3. With `body_may_lack` content may come with an empty body, as in part *ledger*."""
    with refusing_with(EVENT_MALFORMED):
        require(version_of(header) == VERSION, "a version that is not known")
        read = Header.decode(header, HEADER_MAX_BYTES)
        event = CheckedEvent(sha256(header), read, body)
        if body_may_lack and event.is_content and body == b"":
            return event
        require(len(body) <= body_limit(read.core.kind), "the body is above its kind's limit")
        require(sha256(body) == read.body_hash, "the header names another body")
        return event


def check_fields(event: CheckedEvent) -> None:
    """A1: content has epoch and wrap, control has neither."""
    core = event.core
    if event.is_content:
        good = core.epoch != ZERO16 and core.wrap != ZERO16
    else:
        good = core.epoch == ZERO16 and core.wrap == ZERO16
    require(good, "epoch and wrap do not suit the kind", EVENT_MALFORMED)
