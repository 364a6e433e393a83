"""Section 11: frames and messages."""

from __future__ import annotations

from typing import Any

from . import cbor
from .event import Event
from .form import Form, Record, array, blob, boolean, code, integer, member, octets, text, uint
from .identity import PublicIdentity
from .limits import FRAME_MAX_BYTES
from .log import Head, Leaf, Receipt
from .refused import CODES, FRAME_MALFORMED, refusing_with, require
from .shard import read_submission

LENGTH_BYTES = 4


class Submitted(Record):
    receipt: Receipt = member(0, Receipt.read)
    control_events: int = member(1, uint())


class KnownRun(Record):
    run: bytes = member(0, blob)
    receipt: Receipt = member(1, Receipt.read)


class Item(Record):
    leaf: Leaf = member(0, Leaf.read)
    run: bytes | None = member(1, blob, optional=True)
    events: list[Event] = member(2, array(Event.read))
    access: bytes | None = member(3, blob, optional=True)
    void: bytes | None = member(4, blob, optional=True)


class RoomEntry(Record):
    room: bytes = member(0, octets(16))
    owner: bytes = member(1, octets(16))
    grants: list[bytes] = member(2, array(octets(32)))
    entries: int = member(3, uint())


class ShardStatus(Record):
    shard: int = member(0, uint(16))
    leader: bytes | None = member(1, octets(8), optional=True)
    term: int = member(2, uint())
    applied: int = member(3, uint())
    leaves: int = member(4, uint())
    rooms: int = member(5, uint())
    faulted: bool = member(6, boolean)


class GroupNode(Record):
    node: bytes = member(0, octets(8))
    votes: bool = member(1, boolean)
    applied: int | None = member(2, uint(), optional=True)
    heard: int | None = member(3, uint(), optional=True)
    faulted: bool = member(4, boolean)
    knows_rules: int | None = member(5, uint(16), optional=True)


class GroupStatus(Record):
    shard: int = member(0, uint(16))
    charter: int = member(1, uint(32))
    leader: bytes | None = member(2, octets(8), optional=True)
    nodes: list[GroupNode] = member(3, array(GroupNode.read))
    doing: str | None = member(4, text, optional=True)
    rules: int | None = member(5, uint(16), optional=True)


class ScrubStatus(Record):
    shard: int = member(0, uint(16))
    checked: int = member(1, uint())
    entries: int = member(2, uint())
    found: int = member(3, uint())
    held: bool = member(4, boolean)
    ended: int | None = member(5, uint(), optional=True)
    took: int | None = member(6, uint(), optional=True)
    first: str | None = member(7, text, optional=True)


class MovedStatus(Record):
    shard: int = member(0, uint(16))
    leaves: int = member(1, uint())
    why: str = member(2, text)


class Status(Record):
    node: bytes = member(0, octets(8))
    program: str = member(1, text)
    charter: int = member(2, uint(32))
    shards: list[ShardStatus] = member(3, array(ShardStatus.read))
    at: int = member(4, uint())
    groups: list[GroupStatus] | None = member(5, array(GroupStatus.read), optional=True)
    evidence: int | None = member(6, integer(1, 0xFFFFFFFF), optional=True)
    scrub: list[ScrubStatus] | None = member(7, array(ScrubStatus.read), optional=True)
    moved: list[MovedStatus] | None = member(8, array(MovedStatus.read), optional=True)


_fetch: list[Form] = [blob, PublicIdentity.read]

# By direction and number: the forms of the members after the number.
MESSAGES: dict[str, dict[int, list[Form]]] = {
    "request": {
        1: [read_submission], 2: _fetch, 3: _fetch, 4: [octets(16), octets(16)], 5: [], 6: [uint(32)], 7: [],
        9: [uint(32)], 12: [uint(16), uint(32)], 16: [uint(16), uint(), uint()],
    },
    "response": {
        1: [Submitted.read],
        2: [array(KnownRun.read)],
        3: [code(CODES)],
        4: [octets(8)],
        5: [Item.read],
        6: [Head.read],
        7: [array(RoomEntry.read)],
        8: [blob],
        9: [Status.read],
        10: [Event.read],
        12: [uint(32), blob],
        15: [array(blob)],
        16: [octets(32), array(octets(32))],
    },
}


def read_message(message: Any, direction: str) -> int:
    require(isinstance(message, list) and len(message) > 0, "a message is an array")
    forms = MESSAGES[direction]
    number = code(forms)(message[0])
    require(len(message) == 1 + len(forms[number]), "a message with other members")
    for form, item in zip(forms[number], message[1:]):
        form(item)
    return number


def read_frame(data: bytes, direction: str) -> int:
    """W4: the message's number."""
    with refusing_with(FRAME_MALFORMED):
        require(len(data) >= LENGTH_BYTES, "no length")
        length = int.from_bytes(data[:LENGTH_BYTES], "big")
        require(length <= FRAME_MAX_BYTES, "a frame above the limit")
        require(length == len(data) - LENGTH_BYTES, "not the length of the rest")
        return read_message(cbor.decode(data[LENGTH_BYTES:], FRAME_MAX_BYTES), direction)
