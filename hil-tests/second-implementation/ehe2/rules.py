"""What a control event does to a room, and when it may (A3 to A7, A12, A14 to A20)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import cbor
from .control import (APPEND, MAY_EPOCH, MAY_GRANT, MAY_REVOKE, READ, Authority, Change, ControlLink, Delegate,
                      EpochRecord, Grant, HandOver, Recover, Revoke, RoomCreate, Rotate, SetRecovery, Withdraw)
from .cose import Signed
from .event import CheckedEvent
from .identity import PublicIdentity, check_xwing_key
from .ids import ZERO16, ZERO32, room_id
from .limits import (DELEGATIONS_PER_ROOM_MAX, EPOCHS_PER_ROOM_MAX, GRANTED_EPOCHS_PER_ROOM_MAX, GRANTS_PER_ROOM_MAX,
                     OWNER_KEYS_BY_ROTATION_MAX, OWNER_KEYS_PER_ROOM_MAX, POSSESSION_MAX_BYTES)
from .refused import (BEYOND_OWN_RIGHTS, CONTROL_MALFORMED, CONTROL_OUT_OF_SEQUENCE, DELEGATION_UNKNOWN,
                      EPOCH_NOT_COVERED, GRANT_UNKNOWN, LIMIT_REACHED, NOT_DELEGATED, NOT_OWNER, NOT_POSSESSED,
                      NOT_RECOVERY, OTHER_ALLIANCE, RECOVERY_SET, ROOM_EXISTS, refusing_with, require)
from .room import Delegation, EpochState, GrantState, OwnerKey, Room


@dataclass(frozen=True)
class Place:
    """Where a control event stands: what its rules ask besides the room."""

    author: bytes
    now: int


def create_room(event: CheckedEvent, plain: RoomCreate, plain_bytes: bytes, run_room: bytes, author: bytes,
                alliance: bytes) -> Room:
    """A3, for a room that is not there."""
    require(plain.owner.id == author, "made by another than its owner", CONTROL_MALFORMED)
    require(plain.alliance == alliance, "for another alliance", OTHER_ALLIANCE)
    require(room_id(plain_bytes) == run_room, "the room is not the hash of its plain part", CONTROL_MALFORMED)
    check_xwing_key(plain.owner.kem)
    room = Room(run_room, author, plain.recovery, [OwnerKey(plain.owner, 0)], last_control=event.id)
    require(not room.is_recovery(author), "committed to the owner", CONTROL_MALFORMED)
    return room


def apply_control(room: Room, event: CheckedEvent, plain: Any, place: Place) -> None:
    require(not isinstance(plain, RoomCreate), "the room exists", ROOM_EXISTS)
    _check_who(room, plain, place)
    _check_sequence(room, plain)
    if isinstance(plain, EpochRecord):
        _apply_epoch(room, plain)
    elif isinstance(plain, Grant):
        _apply_grant(room, event, plain)
    elif isinstance(plain, Revoke):
        _apply_revoke(room, plain, place.now)
    else:
        _apply_change(room, plain.change, plain.link, place)
    room.next_control += 1
    room.last_control = event.id


def _check_who(room: Room, plain: Any, place: Place) -> None:
    """A4."""
    if isinstance(plain, Authority):
        if isinstance(plain.change, Recover):
            identity = plain.change.recovery
            require(room.recovery != ZERO32 and identity.digest == room.recovery and identity.id == place.author,
                    "not the room's recovery identity", NOT_RECOVERY)
        else:
            require(place.author == room.owner, "not the owner", NOT_OWNER)
    elif place.author != room.owner:
        right = {EpochRecord: MAY_EPOCH, Grant: MAY_GRANT, Revoke: MAY_REVOKE}[type(plain)]
        room.check_delegate(place.author, right, place.now, NOT_DELEGATED)
        if isinstance(plain, Grant):
            _check_own_reach(room, plain, place)


def _check_own_reach(room: Room, plain: Grant, place: Place) -> None:
    """A19, which is asked with A4."""
    if plain.right != READ:
        return
    for epoch in plain.epochs:
        own = room.grants_of(place.author, READ)
        require(any(epoch in grant.epochs and _as_wide(grant, plain, place.now) for grant in own),
                "a delegate grants more than it may read", BEYOND_OWN_RIGHTS)


def _check_sequence(room: Room, plain: Any) -> None:
    """A4. What a recover or a withdraw names may be earlier; the place that it takes is the next all the same."""
    link: ControlLink = plain.link
    follows = link.seq == room.next_control and link.previous == room.last_control
    may_be_late = isinstance(plain, Authority) and isinstance(plain.change, (Recover, Withdraw))
    require(follows or (may_be_late and 1 <= link.seq < room.next_control),
            "does not follow the room's last control event", CONTROL_OUT_OF_SEQUENCE)


def _check_granted_epochs(room: Room, more: int) -> None:
    count = sum(len(grant.epochs) for grant in room.grants.values())
    require(count + more <= GRANTED_EPOCHS_PER_ROOM_MAX, "too many granted epochs", LIMIT_REACHED)


def _apply_epoch(room: Room, plain: EpochRecord) -> None:
    """A5."""
    check_xwing_key(plain.group_key)
    require(len(room.epochs) < EPOCHS_PER_ROOM_MAX, "too many epochs", LIMIT_REACHED)
    _check_granted_epochs(room, len(plain.continues))
    require(plain.epoch != ZERO16 and plain.epoch not in room.epochs, "the epoch id is not new", CONTROL_MALFORMED)
    superseded = None
    if plain.superseded is not None:
        superseded = room.epochs.get(plain.superseded)
        require(superseded is not None, "supersedes an unknown epoch", CONTROL_MALFORMED)
        assert superseded is not None
        require(superseded.superseded_by is None, "superseded twice", CONTROL_MALFORMED)
    require(len(set(plain.continues)) == len(plain.continues), "continues a grant twice", CONTROL_MALFORMED)
    for id_ in plain.continues:
        grant = room.grants.get(id_)
        require(grant is not None, "continues an unknown grant", GRANT_UNKNOWN)
        assert grant is not None
        require(grant.revoked_at is None, "continues a revoked grant", CONTROL_MALFORMED)
        require(plain.superseded is not None and plain.superseded in grant.epochs,
                "continues a grant that does not cover the superseded epoch", CONTROL_MALFORMED)
        grant.epochs.append(plain.epoch)
    room.epochs[plain.epoch] = EpochState()
    if superseded is not None:
        superseded.superseded_by = plain.epoch


def _apply_grant(room: Room, event: CheckedEvent, plain: Grant) -> None:
    """A6."""
    check_xwing_key(plain.subject.kem)
    require(len(room.grants) < GRANTS_PER_ROOM_MAX, "too many grants", LIMIT_REACHED)
    _check_granted_epochs(room, len(plain.epochs))
    require(len(plain.epochs) > 0, "grants no epoch", EPOCH_NOT_COVERED)
    require(all(epoch in room.epochs for epoch in plain.epochs), "grants an unknown epoch", EPOCH_NOT_COVERED)
    require(len(set(plain.epochs)) == len(plain.epochs), "grants an epoch twice", CONTROL_MALFORMED)
    require(not room.forbidden_as_subject(plain.subject.id), "nobody to grant to", CONTROL_MALFORMED)
    if plain.from_hour is not None and plain.until_hour is not None:
        require(plain.from_hour < plain.until_hour, "grants no hour", CONTROL_MALFORMED)
    room.grants[event.id] = GrantState(event.id, plain.subject, plain.right, list(plain.epochs), plain.from_hour,
                                       plain.until_hour, plain.expires, room.next_control)


def _as_wide(own: GrantState, new: Grant, now: int) -> bool:
    """A19: absent is the beginning, never, never."""

    def no_earlier(mine: int | None, other: int | None) -> bool:
        return mine is None or (other is not None and mine >= other)

    return (own.revoked_at is None and own.why_not(now, None) is None
            and (own.from_hour or 0) <= (new.from_hour or 0)
            and no_earlier(own.until_hour, new.until_hour) and no_earlier(own.expires, new.expires))


def _apply_revoke(room: Room, plain: Revoke, now: int) -> None:
    """A7."""
    grant = room.grants.get(plain.grant)
    require(grant is not None, "revokes an unknown grant", GRANT_UNKNOWN)
    assert grant is not None
    until = plain.ending.drain_until
    require(until is None or grant.right == APPEND, "a read grant does not drain", CONTROL_MALFORMED)
    if until is None:
        grant.cut(now)
        return
    if grant.revoked_at is not None:
        require(grant.drain_until is not None and until <= grant.drain_until, "lengthened", CONTROL_MALFORMED)
    else:
        grant.revoked_at = now
    grant.drain_until = until


def _apply_change(room: Room, change: Change, link: ControlLink, place: Place) -> None:
    if isinstance(change, Rotate):
        _take_keys(room, change.keys, change.possession, link, OWNER_KEYS_BY_ROTATION_MAX)
    elif isinstance(change, Delegate):
        _apply_delegate(room, change)
    elif isinstance(change, Withdraw):
        delegation = room.delegations.get(change.delegate)
        require(delegation is not None and not delegation.ended, "no such delegation", DELEGATION_UNKNOWN)
        assert delegation is not None
        delegation.ended = True
    elif isinstance(change, SetRecovery):
        require(room.recovery == ZERO32, "the room has a recovery identity", RECOVERY_SET)
        _check_commitment(room, change.commitment)
        require(change.commitment != ZERO32, "set to nobody", CONTROL_MALFORMED)
        room.recovery = change.commitment
    elif isinstance(change, Recover):
        _apply_recover(room, change, link, place.now)
    else:
        assert isinstance(change, HandOver)


def _check_commitment(room: Room, commitment: bytes) -> None:
    """A17: whoever acts in the room must not be its recovery identity too."""
    require(not room.known_by_another_name(commitment[:16]), "known by another name", CONTROL_MALFORMED)


def _take_keys(room: Room, keys: PublicIdentity, possession: bytes, link: ControlLink, most: int) -> None:
    """A14."""
    check_xwing_key(keys.kem)
    require(not room.known_by_another_name(keys.id) and not room.is_recovery(keys.id) and keys.id != room.owner,
            "the keys are not new to the room", CONTROL_MALFORMED)
    with refusing_with(NOT_POSSESSED):
        signed = Signed.decode(possession, POSSESSION_MAX_BYTES)
        require(signed.signer == keys.id, "signed under another name")
        require(signed.payload == cbor.encode({0: room.id, 1: link.raw}), "signed for another place")
        signed.verify("possession", keys.sign)
    require(len(room.owner_keys) < most, "too many keys of the owner", LIMIT_REACHED)
    room.owner_keys.append(OwnerKey(keys, room.next_control))


def _apply_delegate(room: Room, change: Delegate) -> None:
    """A15."""
    check_xwing_key(change.delegate.kem)
    id_ = change.delegate.id
    require(id_ in room.delegations or len(room.delegations) < DELEGATIONS_PER_ROOM_MAX,
            "too many delegations", LIMIT_REACHED)
    require(not room.forbidden_as_subject(id_), "nobody to delegate to", CONTROL_MALFORMED)
    room.delegations[id_] = Delegation(change.delegate, change.rights, change.expires, room.next_control)


def _apply_recover(room: Room, change: Recover, link: ControlLink, now: int) -> None:
    """A18."""
    if change.distrusted_from is not None:
        require(0 < change.distrusted_from <= room.next_control,
                "distrusts nothing or what is to come", CONTROL_MALFORMED)
        _distrust(room, change.distrusted_from, now)
    _take_keys(room, change.keys, change.possession, link, OWNER_KEYS_PER_ROOM_MAX)
    if change.next_recovery != ZERO32:
        _check_commitment(room, change.next_recovery)
    room.recovery = change.next_recovery


def _distrust(room: Room, first: int, now: int) -> None:
    for grant in room.grants.values():
        if grant.made_by >= first:
            grant.cut(now)
    for delegation in room.delegations.values():
        if delegation.made_by >= first:
            delegation.ended = True
    for key, replaced_by in zip(room.owner_keys, [*room.owner_keys[1:], None]):
        if replaced_by is None or replaced_by.since >= first:
            key.distrusted_from = min(first, key.distrusted_from if key.distrusted_from is not None else first)
