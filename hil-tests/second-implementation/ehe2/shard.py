"""A shard that holds at most one room: the kit's `ledger` procedure."""

from __future__ import annotations

from typing import Any

from .control import READ
from .event import Event, check_event
from .form import Record, array, blob, member
from .identity import PublicIdentity
from .judge import RoomLedger
from .limits import FRAME_MAX_BYTES, SUBMISSION_MAX_BYTES
from .read import Reads
from .refused import FRAME_MALFORMED, ROOM_UNKNOWN, refusing_with, require
from .room import Room
from .run import SignedRun


class Submission(Record):
    run: bytes = member(0, blob)
    events: list[Event] = member(1, array(Event.read))


def read_submission(value: Any) -> Submission:
    """Of a decoded value: E3's limit is the Submission's own, whatever carried it."""
    submission = Submission.read(value)
    require(len(submission.encoded) <= SUBMISSION_MAX_BYTES, "a Submission above its limit")
    return submission


class Shard:
    def __init__(self, alliance: bytes) -> None:
        self.alliance = alliance
        self.rooms: dict[bytes, RoomLedger] = {}
        self.committed: set[bytes] = set()
        self.reads = Reads(alliance)

    def submit(self, data: bytes, now: int) -> None:
        with refusing_with(FRAME_MALFORMED):
            submission = Submission.decode(data, SUBMISSION_MAX_BYTES)
        signed = SignedRun.decode(submission.run)
        events = [check_event(event.header, event.body) for event in submission.events]
        id_ = signed.run.room
        ledger = self.rooms.get(id_) or RoomLedger(self.alliance, id_, committed=self.committed)
        ledger.submit(signed, events, now)
        self.rooms[id_] = ledger

    def read(self, data: bytes, reader: bytes, now: int) -> None:
        with refusing_with(FRAME_MALFORMED):
            identity = PublicIdentity.decode(reader, FRAME_MAX_BYTES)
        room = self.room
        self.reads.judge(data, identity, room, room.id if room else None, now)

    @property
    def ledger(self) -> RoomLedger | None:
        return next(iter(self.rooms.values()), None)

    @property
    def room(self) -> Room | None:
        return self.ledger.room if self.ledger else None

    def may(self, author: bytes, right: int, epoch: bytes, hour: int, now: int) -> int | None:
        if self.room is None:
            return ROOM_UNKNOWN
        return self.room.refusal_in_hour(author, right, epoch, hour, now)

    def strands(self) -> list[dict[str, Any]]:
        ends = self.ledger.strands if self.ledger else {}
        return [
            {"author": author, "strand": strand, "next": count, "link": link}
            for (author, strand), (count, link) in sorted(ends.items())
        ]


def describe(room: Room | None) -> dict[str, Any] | None:
    """The state as the kit writes it."""
    if room is None:
        return None
    return {
        "room": room.id,
        "owner": room.owner,
        "owner_keys": [
            {"id": key.identity.id, "from": key.since, "distrusted_from": key.distrusted_from}
            for key in room.owner_keys
        ],
        "recovery": room.recovery,
        "delegations": [
            {"delegate": id_, "rights": delegation.rights, "ended": delegation.ended}
            for id_, delegation in sorted(room.delegations.items())
        ],
        "next_control": room.next_control,
        "last_control": room.last_control,
        "epochs": [
            {"epoch": id_, "superseded_by": epoch.superseded_by} for id_, epoch in sorted(room.epochs.items())
        ],
        "grants": [
            {
                "grant": id_,
                "subject": grant.subject.id,
                "right": "read" if grant.right == READ else "append",
                "epochs": grant.epochs,
                "revoked": grant.revoked_at is not None,
            }
            for id_, grant in sorted(room.grants.items())
        ],
    }
