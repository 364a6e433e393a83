"""Section 8's order of refusals: a run with its events, before a room that may be there."""

from __future__ import annotations

from dataclasses import dataclass, field

from .control import Authority, Recover, RoomCreate, Rotate, is_recover_of, read_control
from .event import ROOM_CREATE, CheckedEvent, check_fields
from .identity import PublicIdentity
from .ids import ZERO16
from .refused import (CONTROL_MALFORMED, EVENT_MALFORMED, EVENT_OUT_OF_PLACE, EVENT_REPEATED, NOT_INVITED, ROOM_UNKNOWN,
                      RUN_MALFORMED, STRAND_GAP, WRAP_MISMATCH, WRAP_MISSING, Refused, refusing_with, require)
from .room import HOURS_PER_DAY, Room, WrapPlace
from .rules import Place, apply_control, create_room
from .run import SignedRun


class KnownEvents(Exception):
    """R4: no refusal; the answer brings what is committed."""

    def __init__(self, ids: list[bytes]) -> None:
        super().__init__("events that are committed already")
        self.ids = ids


@dataclass
class RoomLedger:
    """A room with what its entries committed. `room` is None before room-create.

    `committed` is the whole shard's, and None for who follows what a node shows: R4 is not asked there.
    """

    alliance: bytes
    id: bytes
    room: Room | None = None
    committed: set[bytes] | None = None
    wraps: dict[bytes, WrapPlace] = field(default_factory=dict)
    strands: dict[tuple[bytes, bytes], tuple[int, bytes]] = field(default_factory=dict)

    def submit(self, signed: SignedRun, events: list[CheckedEvent], now: int) -> None:
        """Applies a run whole or raises, as who takes it in."""
        signed.verify(self.signer(signed.run.author, events[0] if events else None).sign)
        require([event.id for event in events] == signed.run.ids, "not the events that the run names", EVENT_MALFORMED)
        check_named_once(signed)
        check_shape(signed, events)
        self._check_known(signed)
        self._check_strand(signed)
        self._apply(signed, events, now)

    def follow(self, signed: SignedRun, events: list[CheckedEvent], now: int, strands: bool) -> None:
        """L3: what is asked from A13 on of a run that is shown whole. Without `strands`, A2 is not asked: not every run was
        shown. Events of unknown versions are not among `events`, but in the strand as the others."""
        check_shape(signed, events)
        if strands:
            with refusing_with(None):
                self._check_strand(signed)
        self._apply(signed, events, now)

    def _apply(self, signed: SignedRun, events: list[CheckedEvent], now: int) -> None:
        room, wraps = self._judge_events(signed, events, now)
        self.room = room
        self.wraps.update(wraps)
        if self.committed is not None:
            self.committed.update(signed.run.ids)
        strand, count, link = signed.run.end
        self.strands[(signed.run.author, strand)] = (count, link)

    def signer(self, author: bytes, first: CheckedEvent | None) -> PublicIdentity:
        """Who signs. `first` is the run's first event, None where that is not known."""
        if self.room is not None:
            identity = self.room.author_identity(author)
            if identity is None and first is not None:
                identity = is_recover_of(first, author)
            if identity is None:
                raise Refused("the room does not know the author", NOT_INVITED)
            return identity
        require(first is not None and first.kind == ROOM_CREATE, "there is no such room", ROOM_UNKNOWN)
        assert first is not None
        with refusing_with(CONTROL_MALFORMED):
            _, plain = read_control(first)
            require(plain.owner.id == author, "made by another than its owner")
            return plain.owner

    def _check_known(self, signed: SignedRun) -> None:
        """R4."""
        known = [ehe_id for ehe_id in signed.run.ids if ehe_id in (self.committed or ())]
        if known:
            raise KnownEvents(known)

    def _check_strand(self, signed: SignedRun) -> None:
        """A2."""
        run = signed.run
        end = self.strands.get((run.author, run.start.strand), (0, bytes(32)))
        require((run.start.next, run.start.link) == end, "does not follow its strand", STRAND_GAP)

    def _judge_events(self, signed: SignedRun, events: list[CheckedEvent], now: int) -> tuple[Room, dict[bytes, WrapPlace]]:
        changes = any(event.is_control_record for event in events)
        room = self.room.draft() if self.room is not None and changes else self.room
        wraps: dict[bytes, WrapPlace] = {}
        author = signed.run.author
        keys_changed = False
        for index, event in enumerate(events):
            require(not keys_changed, "keys change within a run", RUN_MALFORMED)
            if event.is_content:
                require(room is not None, "there is no such room", ROOM_UNKNOWN)
                assert room is not None
                self._judge_content(room, event, wraps, now)
                continue
            body, plain = read_control(event)
            if room is None:
                require(isinstance(plain, RoomCreate) and index == 0, "there is no such room", ROOM_UNKNOWN)
                room = create_room(event, plain, body.plain, signed.run.room, author, self.alliance)
            elif event.is_wrap:
                room.check_wrap(author, plain.epoch, plain.day, now)
                wraps[event.id[:16]] = WrapPlace(author, plain.epoch, plain.day)
            else:
                apply_control(room, event, plain, Place(author, now))
                keys_changed = isinstance(plain, Authority) and isinstance(plain.change, (Rotate, Recover))
        assert room is not None
        return room, wraps

    def _judge_content(self, room: Room, event: CheckedEvent, wraps: dict[bytes, WrapPlace], now: int) -> None:
        """A10, its right before its wrap."""
        core = event.core
        room.check_append(core.author, core.epoch, core.hour, now)
        wrap = wraps.get(core.wrap) or self.wraps.get(core.wrap)
        require(wrap is not None, "the wrap is missing", WRAP_MISSING)
        require(wrap == WrapPlace(core.author, core.epoch, core.hour // HOURS_PER_DAY),
                "the wrap is of another author, epoch or day", WRAP_MISMATCH)


def check_named_once(signed: SignedRun) -> None:
    """A1."""
    ids = signed.run.ids
    require(len(set(ids)) == len(ids), "an event named twice", EVENT_REPEATED)


def check_shape(signed: SignedRun, events: list[CheckedEvent]) -> None:
    """A13, then A1's places and fields event by event."""
    mixed = any(event.is_content for event in events) and any(event.is_control_record for event in events)
    require(not mixed, "content beside control records", RUN_MALFORMED)
    for event in events:
        check_place(event, signed)
        check_fields(event)


def check_place(event: CheckedEvent, signed: SignedRun) -> None:
    """A1: the run's room and author."""
    room = ZERO16 if event.kind == ROOM_CREATE else signed.run.room
    require(event.core.room == room and event.core.author == signed.run.author,
            "names another room or author than its run", EVENT_OUT_OF_PLACE)
