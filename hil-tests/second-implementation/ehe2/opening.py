"""From a reader's keys to what a followed room holds: seeds, event keys, plaintexts."""

from __future__ import annotations

from dataclasses import dataclass, field

from .control import Authority, EpochRecord, Grant, Private, SeedWrap, WrapRecord, open_private, read_control
from .event import VITALS, CheckedEvent, Event, check_event
from .follow import Follower
from .identity import SecretIdentity, xwing_parts
from .ids import wrap_id
from .limits import FRAME_MAX_BYTES
from .refused import Refused, refusing_with, require
from .room import HOURS_PER_DAY
from .seal import open_body
from .vitals import Reading, read_vitals
from .wrap import info_ek, info_gk, unwrap


@dataclass(frozen=True)
class Opened:
    event: CheckedEvent
    plaintext: bytes
    # None for other kinds than vitals.
    readings: list[Reading] | None


@dataclass
class Opener:
    reader: SecretIdentity
    author: bytes
    room: bytes
    seeds: dict[bytes, bytes] = field(default_factory=dict)
    group_keys: dict[bytes, bytes] = field(default_factory=dict)
    # By the id that content names as its wrap's: events of any kind, judged where they are named.
    named: dict[bytes, CheckedEvent] = field(default_factory=dict)
    privates: list[Private] = field(default_factory=list)
    closed_privates: int = 0
    event_keys: dict[bytes, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, follower: Follower, reader: SecretIdentity, wraps: list[bytes]) -> "Opener":
        """A reader of what was followed, with what its control events and the wraps beside them have for it."""
        room = follower.ledger.room
        is_owner = room is not None and reader.public == room.owner_identity
        # The owner keeps its author id where its keys are rotated.
        opener = cls(reader, room.owner if room is not None and is_owner else reader.public.id, follower.room)
        for event in follower.events:
            opener.take_event(event)
        for wrap in wraps:
            opener.take_wrap(wrap)
        return opener

    def take_event(self, event: CheckedEvent) -> None:
        """Learns from an event what it has for the reader, in the order of the room."""
        self.named[wrap_id(event.id)] = event
        if event.is_control_record:
            self._take_control(event)

    def _take_control(self, event: CheckedEvent) -> None:
        body, plain = read_control(event)
        if isinstance(plain, EpochRecord):
            self.group_keys[plain.epoch] = plain.group_key
        if body.sealed is not None and any(part.recipient == self.author for part in body.parts):
            self._take_private(event)
        if isinstance(plain, (Authority, EpochRecord, Grant)):
            for seed in plain.seeds:
                if seed.recipient == self.author:
                    self._take_seed(seed)

    def take_wrap(self, encoded: bytes) -> None:
        """A Wrap response. One that is not well formed is nobody's wrap, and of any other kind nothing is learnt."""
        try:
            event = Event.decode(encoded, FRAME_MAX_BYTES)
            checked = check_event(event.header, event.body)
        except Refused:
            return
        self.named.setdefault(wrap_id(checked.id), checked)

    def _take_private(self, event: CheckedEvent) -> None:
        try:
            self.privates.append(open_private(event, self.reader, self.author))
        except Refused:
            self.closed_privates += 1

    def _take_seed(self, seed: SeedWrap) -> None:
        """K4: what does not open, or is not the seed of the epoch's group key, does not count."""
        group_key = self.group_keys.get(seed.epoch)
        if group_key is None or seed.epoch in self.seeds:
            return
        try:
            secret = unwrap(self.reader.kem_seed, info_gk(self.room, seed.epoch, self.author), seed.wrapped)
        except Refused:
            return
        mlkem, x25519 = xwing_parts(secret)
        if mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw() == group_key:
            self.seeds[seed.epoch] = secret

    def open(self, event: CheckedEvent) -> Opened | None:
        """A content event with its body; None where the reader has no seed of its epoch."""
        core = event.core
        if core.epoch not in self.seeds:
            return None
        wrap = self.named.get(core.wrap)
        if wrap is None:
            raise Refused("the wrap of its key was not shown")
        require(wrap.is_wrap, "names an event that is no wrap")
        with refusing_with(None):
            _, plain = read_control(wrap)
        place = (wrap.core.author, plain.epoch, plain.day)
        require(place == (core.author, core.epoch, core.hour // HOURS_PER_DAY), "the wrap is of another place")
        plaintext = open_body(self._event_key(wrap, plain), core.salt, core.encoded, event.header.commitment, event.body)
        readings = read_vitals(plaintext)[0] if event.kind == VITALS else None
        return Opened(event, plaintext, readings)

    def open_vitals(self, event: CheckedEvent) -> list[Reading]:
        opened = self.open(event)
        if opened is None or opened.readings is None:
            raise Refused("no seed of the event's epoch")
        return opened.readings

    def _event_key(self, wrap: CheckedEvent, plain: WrapRecord) -> bytes:
        if wrap.id not in self.event_keys:
            info = info_ek(self.room, wrap.core.author, plain.epoch, plain.day)
            self.event_keys[wrap.id] = unwrap(self.seeds[plain.epoch], info, plain.wrapped)
        return self.event_keys[wrap.id]
