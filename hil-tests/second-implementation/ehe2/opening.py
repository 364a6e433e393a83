"""From a reader's keys to what a followed room holds: seeds, event keys, plaintexts."""

from __future__ import annotations

from dataclasses import dataclass, field

from .control import Authority, EpochRecord, Grant, Private, WrapRecord, open_private, read_control
from .event import EPOCH, VITALS, WRAP, CheckedEvent
from .identity import SecretIdentity, xwing_parts
from .refused import Refused, require
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
    wraps: dict[bytes, CheckedEvent] = field(default_factory=dict)
    privates: list[Private] = field(default_factory=list)
    event_keys: dict[bytes, bytes] = field(default_factory=dict)

    def take_control(self, event: CheckedEvent) -> None:
        """Learns from a control event what it has for the reader."""
        body, plain = read_control(event)
        if event.kind == WRAP:
            self.wraps[event.id[:16]] = event
            return
        if event.kind == EPOCH:
            self.group_keys[plain.epoch] = plain.group_key
        if any(part.recipient == self.author for part in body.parts):
            self.privates.append(open_private(event, self.reader, self.author))
        if not isinstance(plain, (Authority, EpochRecord, Grant)):
            return
        for seed in plain.seeds:
            if seed.recipient == self.author:
                info = info_gk(self.room, seed.epoch, self.author)
                self._take_seed(seed.epoch, unwrap(self.reader.kem_seed, info, seed.wrapped))

    def _take_seed(self, epoch: bytes, seed: bytes) -> None:
        mlkem, x25519 = xwing_parts(seed)
        key = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        require(self.group_keys.get(epoch) == key, "a seed that is not the epoch's group key's")
        self.seeds[epoch] = seed

    def open(self, event: CheckedEvent) -> Opened | None:
        """A content event with its body; None where the reader has no seed of its epoch."""
        core = event.core
        if core.epoch not in self.seeds:
            return None
        wrap = self.wraps.get(core.wrap)
        if wrap is None:
            raise Refused("the wrap of its key was not shown")
        _, plain = read_control(wrap)
        place = (wrap.core.author, plain.epoch, plain.day)
        require(place == (core.author, core.epoch, core.hour // HOURS_PER_DAY), "the wrap is of another place")
        plaintext = open_body(self._event_key(wrap, plain), core.salt, core.encoded, event.header.commitment, event.body)
        readings = read_vitals(plaintext)[0] if event.kind == VITALS else None
        return Opened(event, plaintext, readings)

    def _event_key(self, wrap: CheckedEvent, plain: WrapRecord) -> bytes:
        if wrap.id not in self.event_keys:
            info = info_ek(self.room, wrap.core.author, plain.epoch, plain.day)
            self.event_keys[wrap.id] = unwrap(self.seeds[plain.epoch], info, plain.wrapped)
        return self.event_keys[wrap.id]
