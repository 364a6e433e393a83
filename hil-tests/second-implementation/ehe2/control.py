"""Section 8: the forms of control bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .event import (AUTHORITY, EPOCH, GRANT, RESERVED_KINDS, REVOKE, ROOM_CREATE, WRAP, CheckedEvent, day, hour, ms)
from .form import Record, array, blob, check_text, code, flags, member, octets, text, uint
from .identity import XWING_KEY_BYTES, PublicIdentity, SecretIdentity
from .limits import CONTROL_BODY_MAX_BYTES, EPOCHS_PER_GRANT_MAX, LABEL_MAX_BYTES, WRAPS_PER_CONTROL_MAX
from .refused import CONTROL_MALFORMED, KIND_NOT_ALLOWED, LIMIT_REACHED, Refused, refusing_with, require
from .seal import open_body
from .wrap import WRAPPED_BYTES, info_part, unwrap

CATEGORIES = range(1, 9)
READ, APPEND = 1, 2
MAY_GRANT, MAY_REVOKE, MAY_EPOCH = 1, 2, 4
ALL_RIGHTS = MAY_GRANT | MAY_REVOKE | MAY_EPOCH

epoch_id = octets(16)
author_id = octets(16)
grant_id = octets(32)
wrapped = octets(WRAPPED_BYTES)


class PartKey(Record):
    recipient: bytes = member(0, author_id)
    wrapped: bytes = member(1, wrapped)


class ControlBody(Record):
    plain: bytes = member(0, blob)
    sealed: bytes | None = member(1, blob, optional=True)
    parts: list[PartKey] = member(2, array(PartKey.read))


class EpochCategory(Record):
    epoch: bytes = member(0, epoch_id)
    category: int = member(1, code(CATEGORIES))


class GrantNote(Record):
    grant: bytes = member(0, grant_id)
    purpose: str | None = member(1, text, optional=True)
    name: str | None = member(2, text, optional=True)


class Private(Record):
    categories: list[EpochCategory] = member(0, array(EpochCategory.read))
    purpose: str | None = member(1, text, optional=True)
    name: str | None = member(2, text, optional=True)
    recovery: PublicIdentity | None = member(3, PublicIdentity.read, optional=True)
    notes: list[GrantNote] | None = member(4, array(GrantNote.read), optional=True)


class ControlLink(Record):
    seq: int = member(0, uint())
    previous: bytes = member(1, octets(32))


class SeedWrap(Record):
    epoch: bytes = member(0, epoch_id)
    recipient: bytes = member(1, author_id)
    wrapped: bytes = member(2, wrapped)


class RoomCreate(Record):
    alliance: bytes = member(0, octets(32))
    nonce: bytes = member(1, octets(16))
    owner: PublicIdentity = member(2, PublicIdentity.read)
    recovery: bytes = member(3, octets(32))


@dataclass(frozen=True)
class Rotate:
    keys: PublicIdentity
    possession: bytes


@dataclass(frozen=True)
class Delegate:
    delegate: PublicIdentity
    rights: int
    expires: int | None


@dataclass(frozen=True)
class Withdraw:
    delegate: bytes


@dataclass(frozen=True)
class SetRecovery:
    commitment: bytes


@dataclass(frozen=True)
class Recover:
    recovery: PublicIdentity
    keys: PublicIdentity
    possession: bytes
    next_recovery: bytes
    distrusted_from: int | None


@dataclass(frozen=True)
class HandOver:
    pass


Change = Rotate | Delegate | Withdraw | SetRecovery | Recover | HandOver

_identity = PublicIdentity.read


def _rights(value: Any) -> int:
    rights: int = flags(ALL_RIGHTS)(value)
    require(rights != 0, "no right")
    return rights


# By the change's number: its class, its members, and how many of them may be left out at the end.
_CHANGES: list[tuple[type, list[Any], int]] = [
    (Rotate, [_identity, blob], 0),
    (Delegate, [_identity, _rights, ms], 1),
    (Withdraw, [author_id], 0),
    (SetRecovery, [octets(32)], 0),
    (Recover, [_identity, _identity, blob, octets(32), uint()], 1),
    (HandOver, [], 0),
]


def read_change(value: Any) -> Change:
    require(isinstance(value, list) and len(value) > 0, "a change is an array")
    number = code(range(len(_CHANGES)))(value[0])
    cls, forms, optional = _CHANGES[number]
    members = value[1:]
    require(len(forms) - optional <= len(members) <= len(forms), "a change with other members")
    read: list[Any] = [form(item) for form, item in zip(forms, members)]
    return cls(*read, *[None] * (len(forms) - len(members)))


@dataclass(frozen=True)
class Ending:
    """`drain_until` is None for a cut."""

    drain_until: int | None


def read_ending(value: Any) -> Ending:
    require(isinstance(value, list) and len(value) > 0, "an ending is an array")
    number = code([0, 1])(value[0])
    require(len(value) == 1 + number, "an ending with other members")
    return Ending(ms(value[1]) if number else None)


class Authority(Record):
    link: ControlLink = member(0, ControlLink.read)
    change: Change = member(1, read_change)
    seeds: list[SeedWrap] = member(2, array(SeedWrap.read))


class EpochRecord(Record):
    link: ControlLink = member(0, ControlLink.read)
    epoch: bytes = member(1, epoch_id)
    group_key: bytes = member(2, octets(XWING_KEY_BYTES))
    superseded: bytes | None = member(3, epoch_id, optional=True)
    continues: list[bytes] = member(4, array(grant_id))
    seeds: list[SeedWrap] = member(5, array(SeedWrap.read))


class Grant(Record):
    link: ControlLink = member(0, ControlLink.read)
    subject: PublicIdentity = member(1, PublicIdentity.read)
    right: int = member(2, code([READ, APPEND]))
    epochs: list[bytes] = member(3, array(epoch_id))
    from_hour: int | None = member(4, hour, optional=True)
    until_hour: int | None = member(5, hour, optional=True)
    expires: int | None = member(6, ms, optional=True)
    seeds: list[SeedWrap] = member(7, array(SeedWrap.read))


class Revoke(Record):
    link: ControlLink = member(0, ControlLink.read)
    grant: bytes = member(1, grant_id)
    ending: Ending = member(2, read_ending)


class WrapRecord(Record):
    epoch: bytes = member(0, epoch_id)
    day: int = member(1, day)
    wrapped: bytes = member(2, wrapped)


PLAIN_FORMS: dict[int, type[Record]] = {
    ROOM_CREATE: RoomCreate, AUTHORITY: Authority, GRANT: Grant, REVOKE: Revoke, EPOCH: EpochRecord, WRAP: WrapRecord,
}

# A12: which members of a plain part are counted, and to how many.
_COUNTED: dict[int, dict[str, int]] = {
    AUTHORITY: {"seeds": WRAPS_PER_CONTROL_MAX},
    EPOCH: {"seeds": WRAPS_PER_CONTROL_MAX, "continues": WRAPS_PER_CONTROL_MAX},
    GRANT: {"seeds": EPOCHS_PER_GRANT_MAX, "epochs": EPOCHS_PER_GRANT_MAX},
}


def _check_count(what: str, items: list[Any], most: int) -> None:
    require(len(items) <= most, f"more {what} than allowed", LIMIT_REACHED)


def read_control(event: CheckedEvent) -> tuple[ControlBody, Any]:
    """The form of a control event; refusals in the order of section 8."""
    require(event.kind not in RESERVED_KINDS, "a reserved kind", KIND_NOT_ALLOWED)
    with refusing_with(CONTROL_MALFORMED):
        body = ControlBody.decode(event.body, CONTROL_BODY_MAX_BYTES)
    _check_count("part keys", body.parts, WRAPS_PER_CONTROL_MAX)
    with refusing_with(CONTROL_MALFORMED):
        plain = PLAIN_FORMS[event.kind].decode(body.plain, CONTROL_BODY_MAX_BYTES)
    for name, most in _COUNTED.get(event.kind, {}).items():
        _check_count(name, getattr(plain, name), most)
    return body, plain


def open_private(event: CheckedEvent, reader: SecretIdentity, author: bytes | None = None) -> Private:
    """K3. `author` is the reader's author id in the room, where the keys were rotated."""
    require(not event.is_content, "content has no sealed part of this kind")
    body, _ = read_control(event)
    require(body.sealed is not None, "nothing is sealed")
    assert body.sealed is not None
    recipient = author or reader.public.id
    mine = [part for part in body.parts if part.recipient == recipient]
    require(len(mine) > 0, "not a party")
    core = event.core
    key = unwrap(reader.kem_seed, info_part(core.room, core.author, core.salt, recipient), mine[0].wrapped)
    plaintext = open_body(key, core.salt, core.encoded, event.header.commitment, body.sealed)
    private = Private.decode(plaintext, CONTROL_BODY_MAX_BYTES)
    _check_private(private)
    return private


def _check_private(private: Private) -> None:
    notes = private.notes or []
    for named in (private.categories, notes):
        require(len(named) <= EPOCHS_PER_GRANT_MAX, "names more than allowed")
    for label in (value for holder in (private, *notes) for value in (holder.purpose, holder.name)):
        if label is not None:
            check_text(label, LABEL_MAX_BYTES)


def is_recover_of(event: CheckedEvent, author: bytes) -> PublicIdentity | None:
    """The identity of a recover that names `author` as the recovery identity, else None."""
    if event.kind != AUTHORITY:
        return None
    try:
        _, plain = read_control(event)
    except Refused:
        return None
    change = plain.change
    return change.recovery if isinstance(change, Recover) and change.recovery.id == author else None
