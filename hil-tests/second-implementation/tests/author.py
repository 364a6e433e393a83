"""An author for the tests: makes what the package judges."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PublicKey

from ehe2 import cbor, wrap
from ehe2.cose import PURPOSES
from ehe2.event import CheckedEvent, body_limit, check_event
from ehe2.identity import PublicIdentity, SecretIdentity
from ehe2.ids import ZERO16, ZERO32, sha256
from ehe2.judge import RoomLedger
from ehe2.refused import Refused
from ehe2.run import SignedRun, link_ids
from ehe2.seal import seal

ALLIANCE = b"\xa1" * 32
NOW = 1_760_000_000_000
HOUR = NOW // 3_600_000


def secret(name: str) -> SecretIdentity:
    return SecretIdentity(hashlib.sha256(f"{name} sign".encode()).digest(), hashlib.sha256(f"{name} kem".encode()).digest())


def sign(identity: SecretIdentity, purpose: str, payload: bytes, signer: bytes | None = None) -> bytes:
    protected = cbor.encode({1: -8, 4: signer or identity.public.id})
    message = cbor.encode(["Signature1", protected, PURPOSES[purpose], payload])
    signature = Ed25519PrivateKey.from_private_bytes(identity.sign_seed).sign(message)
    return cbor.encode([protected, {}, payload, signature])


def wrap_secret(kem: bytes, info: bytes, value: bytes) -> bytes:
    key = MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(kem[:1184]), X25519PublicKey.from_public_bytes(kem[1184:])
    )
    return wrap._SUITE.encrypt(value, key, info)


def refusal(act: object, *arguments: object) -> int | None:
    try:
        act(*arguments)  # type: ignore[operator]
    except Refused as refused:
        return refused.code
    return None


class UnknownEvent:
    """An event of a version that is not known: nothing of it but its beginning has a form."""

    def __init__(self, header: bytes, body: bytes = b"any") -> None:
        self.id, self.encoded_header, self.body = sha256(header), header, body

    @classmethod
    def of(cls, number: int) -> "UnknownEvent":
        return cls(cbor.encode({0: {0: 2, 1: number}}))


class Author:
    """One room and the events that the tests put into it."""

    def __init__(self, owner: SecretIdentity, recovery: bytes = ZERO32) -> None:
        self.owner = owner
        plain = cbor.encode({0: ALLIANCE, 1: b"\x01" * 16, 2: owner.public.raw, 3: recovery})
        self.room = sha256(plain)[:16]
        self.ledger = RoomLedger(ALLIANCE, self.room)
        self.salt = 0
        self.strands: dict[bytes, tuple[bytes, int, bytes]] = {}
        self.runs: list[tuple[SignedRun, list[CheckedEvent]]] = []
        create = self.control(16, owner.public.id, plain, room=ZERO16)
        self.submit(owner, [create])

    def core(self, kind: int, author: bytes, epoch: bytes = ZERO16, wrap_id: bytes = ZERO16, hour: int = HOUR,
             room: bytes | None = None) -> dict[int, Any]:
        self.salt += 1
        salt = self.salt.to_bytes(16, "big")
        return {0: 1, 1: 1, 2: kind, 3: self.room if room is None else room, 4: author, 5: epoch, 6: wrap_id, 7: hour, 8: salt}

    def control(self, kind: int, author: bytes, plain: bytes, room: bytes | None = None,
                parts: list[Any] | None = None) -> CheckedEvent:
        return self.event(kind, author, cbor.encode({0: plain, 2: parts or []}), room)

    def event(self, kind: int, author: bytes, body: bytes, room: bytes | None = None) -> CheckedEvent:
        header = cbor.encode({0: self.core(kind, author, room=room), 1: ZERO32, 2: sha256(body)})
        return check_event(header, body)

    def content(self, author: bytes, epoch: bytes, wrap_id: bytes, ek: bytes, plaintext: bytes) -> CheckedEvent:
        core = self.core(1, author, epoch, wrap_id)
        commitment, body = seal(ek, core[8], cbor.encode(core), plaintext, body_limit(1))
        return check_event(cbor.encode({0: core, 1: commitment, 2: sha256(body)}), body)

    @property
    def link(self) -> dict[int, Any]:
        room = self.ledger.room
        assert room is not None
        return {0: room.next_control, 1: room.last_control}

    def signed(self, signer: SecretIdentity, events: Sequence[CheckedEvent | UnknownEvent], author: bytes) -> SignedRun:
        start = self.strands.get(author, (author[8:], 0, ZERO32))
        ids = [event.id for event in events]
        payload = {0: self.room, 1: author, 2: dict(enumerate(start)), 3: b"".join(ids)}
        return SignedRun.decode(sign(signer, "run", cbor.encode(payload), author))

    def submit(self, signer: SecretIdentity, events: list[CheckedEvent], author: bytes | None = None) -> None:
        author = author or signer.public.id
        signed = self.signed(signer, events, author)
        self.ledger.submit(signed, events, NOW)
        start = self.strands.get(author, (author[8:], 0, ZERO32))
        self.strands[author] = link_ids(start, [event.id for event in events])
        self.runs.append((signed, events))

    def epoch(self, epoch: bytes, group: PublicIdentity, seeds: list[Any] | None = None,
              continues: list[bytes] | None = None, superseded: bytes | None = None) -> CheckedEvent:
        plain = {0: self.link, 1: epoch, 2: group.kem, 4: continues or [], 5: seeds or []}
        if superseded is not None:
            plain[3] = superseded
        return self.control(20, self.owner.public.id, cbor.encode(plain))

    def grant(self, subject: PublicIdentity, right: int, epoch: bytes) -> CheckedEvent:
        plain = {0: self.link, 1: subject.raw, 2: right, 3: [epoch], 7: []}
        return self.control(18, self.owner.public.id, cbor.encode(plain))

    def change(self, author: bytes, change: list[Any], link: dict[int, Any] | None = None) -> CheckedEvent:
        return self.control(17, author, cbor.encode({0: link or self.link, 1: change, 2: []}))

    def possession(self, keys: SecretIdentity, link: dict[int, Any] | None = None) -> bytes:
        return sign(keys, "possession", cbor.encode({0: self.room, 1: link or self.link}))


class Node:
    """What a node shows of a room, entry by entry; the test says how many control events a leaf counts."""

    def __init__(self, room: bytes) -> None:
        self.room = room
        self.index = 0
        self.before = ZERO32

    def _item(self, entry: bytes, count: int, rest: dict[int, Any]) -> bytes:
        leaf = {0: self.room, 1: self.index, 2: self.before, 3: sha256(entry), 4: NOW, 5: count}
        self.index += 1
        self.before = sha256(b"\x00", cbor.encode(leaf))
        return cbor.encode({0: leaf, **rest})

    def run(self, signed: SignedRun, events: Sequence[CheckedEvent | UnknownEvent], count: int) -> bytes:
        headers = [e.encoded_header if isinstance(e, UnknownEvent) else e.header.encoded for e in events]
        shown = [{0: header, 1: event.body} for header, event in zip(headers, events)]
        return self._item(signed.encoded, count, {1: signed.encoded, 2: shown})

    def access(self, record: bytes, count: int) -> bytes:
        return self._item(record, count, {2: [], 3: record})

    def alone(self, entry: bytes, count: int) -> bytes:
        """By its leaf alone."""
        return self._item(entry, count, {2: []})

    def void(self, index: int, run: bytes, count: int) -> bytes:
        record = cbor.encode({0: index, 1: run})
        return self._item(record, count, {2: [], 4: record})


def read_request(reader: SecretIdentity, room: bytes) -> bytes:
    scope = {0: 2, 1: [b"\xe1" * 16], 2: HOUR, 3: HOUR + 1}
    request = {0: ALLIANCE, 1: room, 2: reader.public.id, 3: bytes(16), 4: scope, 5: 1, 8: 0, 9: NOW}
    return sign(reader, "read request", cbor.encode(request))
