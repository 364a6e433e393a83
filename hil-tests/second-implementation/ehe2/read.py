"""Section 9: requests to read."""

from __future__ import annotations

from dataclasses import dataclass, field

from .control import READ
from .cose import Signed
from .event import hour, ms
from .form import Record, array, blob, code, member, octets, uint
from .identity import PublicIdentity
from .limits import EPOCHS_PER_GRANT_MAX, READ_REQUEST_MAX_BYTES, REQUEST_SKEW_MAX_MS
from .refused import (BAD_SIGNATURE, CODES, DELEGATION_ENDED, EPOCH_NOT_COVERED, HOUR_NOT_COVERED, KEYS_REPLACED, NOT_INVITED,
                      NOT_OWNER, OTHER_ALLIANCE, REQUEST_MALFORMED, REQUEST_REPEATED, REQUEST_STALE, ROOM_UNKNOWN,
                      Refused, refusing_with, require)
from .room import Room
from .run import SeenCheckpoint, check_seen

CONTROL, CONTENT, LEDGER = 1, 2, 3
PURPOSES_OF_USE = range(1, 5)


class Scope(Record):
    part: int = member(0, code([CONTROL, CONTENT, LEDGER]))
    epochs: list[bytes] = member(1, array(octets(16)))
    from_hour: int = member(2, hour)
    until_hour: int = member(3, hour)


class ReadRequest(Record):
    alliance: bytes = member(0, octets(32))
    room: bytes = member(1, octets(16))
    reader: bytes = member(2, octets(16))
    nonce: bytes = member(3, octets(16))
    scope: Scope = member(4, Scope.read)
    purpose: int = member(5, code(PURPOSES_OF_USE))
    actor: bytes | None = member(6, octets(16), optional=True)
    head: SeenCheckpoint | None = member(7, SeenCheckpoint.read, optional=True)
    from_index: int = member(8, uint())
    made_at: int = member(9, ms)


class AccessRecord(Record):
    request: bytes = member(0, blob)
    refusal: int | None = member(1, code(CODES), optional=True)
    reader: PublicIdentity | None = member(2, PublicIdentity.read, optional=True)
    count: int = member(3, uint())
    at: int = member(4, ms)


@dataclass(frozen=True)
class SignedRequest:
    signed: Signed
    request: ReadRequest

    @classmethod
    def decode(cls, data: bytes) -> "SignedRequest":
        with refusing_with(REQUEST_MALFORMED):
            signed = Signed.decode(data, READ_REQUEST_MAX_BYTES)
            request = ReadRequest.decode(signed.payload, READ_REQUEST_MAX_BYTES)
            require(request.reader == signed.signer, "names another reader than its signer")
            require(len(request.scope.epochs) <= EPOCHS_PER_GRANT_MAX, "more epochs than allowed")
            check_seen(request.head)
            return cls(signed, request)

    def verify(self, reader: PublicIdentity) -> None:
        self.signed.verify("read request", reader.sign)


@dataclass
class Reads:
    """What a shard remembers of the requests that it granted."""

    alliance: bytes
    granted: set[tuple[bytes, bytes, int]] = field(default_factory=set)

    def judge(self, data: bytes, reader: PublicIdentity, room: Room | None, room_id: bytes | None, now: int) -> None:
        signed = SignedRequest.decode(data)
        request = signed.request
        require(reader.id == request.reader, "other keys came with it than the reader's", BAD_SIGNATURE)
        signed.verify(reader)
        if room is None or request.room != room_id:
            raise Refused("there is no such room", ROOM_UNKNOWN)
        require(abs(now - request.made_at) <= REQUEST_SKEW_MAX_MS, "too old or from ahead", REQUEST_STALE)
        is_content = request.scope.part == CONTENT
        once = (request.reader, request.nonce, request.made_at)
        require(not is_content or once not in self.granted, "granted before", REQUEST_REPEATED)
        require(request.alliance == self.alliance, "for another alliance", OTHER_ALLIANCE)
        is_owner = room.owner_identity.id == request.reader
        replaced = room.is_owner_key(request.reader) and not is_owner
        require(not replaced, "the owner has replaced these keys", KEYS_REPLACED)
        if is_content:
            _check_content(room, request, is_owner, now)
            self.granted.add(once)
        elif not is_owner:
            _check_other_part(room, request, now)


def _check_other_part(room: Room, request: ReadRequest, now: int) -> None:
    """D2, for everybody but the owner."""
    reader = request.reader
    grants = sorted((g for g in room.grants.values() if g.subject.id == reader), key=lambda grant: grant.id)
    delegation = room.delegations.get(reader)
    if request.scope.part == LEDGER:
        knows = bool(grants) or delegation is not None
        raise Refused("the ledger is the owner's", NOT_OWNER if knows else NOT_INVITED)
    if room.is_recovery(reader) or (delegation is not None and delegation.holds(now)):
        return
    reasons = [grant.why_not(now, None) for grant in grants]
    if None in reasons:
        return
    if reasons:
        raise Refused("no grant of the reader's holds", reasons[0])
    if delegation is not None:
        raise Refused("the delegation has ended", DELEGATION_ENDED)
    raise Refused("not a party", NOT_INVITED)


def _check_content(room: Room, request: ReadRequest, is_owner: bool, now: int) -> None:
    """D3."""
    scope = request.scope
    require(len(scope.epochs) > 0 and scope.from_hour < scope.until_hour, "asks for nothing", REQUEST_MALFORMED)
    first, last = scope.from_hour, scope.until_hour - 1
    for epoch in scope.epochs:
        if is_owner:
            require(epoch in room.epochs, "an unknown epoch", EPOCH_NOT_COVERED)
            continue
        for hour_asked in (first, last):
            why = room.refusal_in_hour(request.reader, READ, epoch, hour_asked, now)
            require(why is None, "no right to read", why)
        one = any(epoch in grant.epochs and grant.why_not(now, first) is None and grant.why_not(now, last) is None
                  for grant in room.grants_of(request.reader, READ))
        require(one, "no one grant covers all hours", HOUR_NOT_COVERED)
