"""Section 10: void runs, as who follows a room judges them (L5, L6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .event import CheckedEvent
from .form import Record, blob, member, uint
from .ids import sha256
from .limits import UNVOIDED_RUNS_MAX, VOID_RECORD_MAX_BYTES
from .log import Leaf
from .refused import Refused, require
from .room import Room
from .run import SignedRun


class VoidRecord(Record):
    index: int = member(0, uint())
    run: bytes = member(1, blob)


def verifies(signed: SignedRun, key: bytes) -> bool:
    try:
        signed.verify(key)
    except Refused:
        return False
    return True


def may_be_void(room: Room | None, author: bytes, shown: list[CheckedEvent]) -> bool:
    """L6: what the nodes may have taken their ordering party's word for, by what is shown and known of it."""
    return room is not None and author != room.owner and all(event.is_content for event in shown)


@dataclass
class VoidRuns:
    # By their index in the room, the entries of runs whose signature is false and that have no record yet. One that has is done with.
    unvoided: dict[int, bytes] = field(default_factory=dict)
    # What the records name, in their order, shown or not.
    named: list[int] = field(default_factory=list)

    def remember(self, leaf: Leaf) -> None:
        require(len(self.unvoided) < UNVOIDED_RUNS_MAX, "too many runs with a false signature and without a void record")
        self.unvoided[leaf.index] = leaf.entry

    def take(self, data: bytes, leaf: Leaf, room_id: bytes, room: Room | None) -> None:
        """L5. Nobody is asked under which rules version the record was made."""
        record = VoidRecord.decode(data, VOID_RECORD_MAX_BYTES)
        require(record.index < leaf.index, "a void record of its own entry or a later one")
        signed = SignedRun.decode(record.run)
        author = signed.run.author
        require(signed.run.room == room_id, "a void record of another room's run")
        require(room is not None and author != room.owner, "a void record of a run of the owner")
        assert room is not None
        identity = room.author_identity(author)
        require(identity is not None, "a void record of a run by somebody whom the room does not know")
        assert identity is not None
        require(not verifies(signed, identity.sign), "a void record of a run that its author signed")
        entry = self.unvoided.get(record.index)
        require(entry is None or entry == sha256(record.run), "a void record with another run than its place holds")
        self.unvoided.pop(record.index, None)
        self.named.append(record.index)

    def check_all_void(self) -> None:
        require(not self.unvoided, "the signature of a run does not verify, and no entry says that it is void")
