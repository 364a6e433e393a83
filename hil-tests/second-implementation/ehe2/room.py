"""A room's state and its rights (A8 to A10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .control import APPEND
from .identity import PublicIdentity
from .limits import HOUR_MS
from .refused import (DELEGATION_ENDED, EPOCH_NOT_COVERED, GRANT_EXPIRED, GRANT_REVOKED, HOUR_NOT_COVERED, NOT_INVITED,
                      NOT_OWNER, Refused)

HOURS_PER_DAY = 24


def hour_of(instant: int) -> int:
    return instant // HOUR_MS


@dataclass
class OwnerKey:
    identity: PublicIdentity
    since: int
    distrusted_from: int | None = None


@dataclass
class GrantState:
    id: bytes
    subject: PublicIdentity
    right: int
    epochs: list[bytes]
    from_hour: int | None
    until_hour: int | None
    expires: int | None
    made_by: int
    # When the first revocation came; the grant is cut if `drain_until` is None then.
    revoked_at: int | None = None
    drain_until: int | None = None

    def why_not(self, now: int, hour: int | None) -> int | None:
        """A8: why the grant does not hold; `hour` None leaves hours aside."""
        if self.revoked_at is not None:
            if self.drain_until is None or now > self.drain_until:
                return GRANT_REVOKED
            if hour is not None and hour > hour_of(self.revoked_at):
                return GRANT_REVOKED
        if self.expires is not None and now >= self.expires:
            return GRANT_EXPIRED
        if hour is not None:
            if self.from_hour is not None and hour < self.from_hour:
                return HOUR_NOT_COVERED
            if self.until_hour is not None and hour >= self.until_hour:
                return HOUR_NOT_COVERED
        return None

    def why_not_in_day(self, now: int, day: int) -> int | None:
        """A9: as `why_not` for the day's best hour, or for its last."""
        why = None
        for hour in range(day * HOURS_PER_DAY, (day + 1) * HOURS_PER_DAY):
            why = self.why_not(now, hour)
            if why is None:
                return None
        return why

    def cut(self, now: int) -> None:
        if self.revoked_at is None:
            self.revoked_at = now
        self.drain_until = None


@dataclass
class Delegation:
    delegate: PublicIdentity
    rights: int
    expires: int | None
    made_by: int
    ended: bool = False

    def holds(self, now: int) -> bool:
        return not self.ended and (self.expires is None or now < self.expires)


@dataclass
class EpochState:
    superseded_by: bytes | None = None


@dataclass(frozen=True)
class WrapPlace:
    author: bytes
    epoch: bytes
    day: int


@dataclass
class Room:
    id: bytes
    owner: bytes
    recovery: bytes
    owner_keys: list[OwnerKey]
    delegations: dict[bytes, Delegation] = field(default_factory=dict)
    epochs: dict[bytes, EpochState] = field(default_factory=dict)
    grants: dict[bytes, GrantState] = field(default_factory=dict)
    next_control: int = 1
    last_control: bytes = b""

    def draft(self) -> "Room":
        """A copy that a run may change before it is accepted (R3)."""
        return replace(
            self,
            owner_keys=[replace(key) for key in self.owner_keys],
            delegations={id_: replace(delegation) for id_, delegation in self.delegations.items()},
            epochs={id_: replace(epoch) for id_, epoch in self.epochs.items()},
            grants={id_: replace(grant, epochs=list(grant.epochs)) for id_, grant in self.grants.items()},
        )

    @property
    def owner_identity(self) -> PublicIdentity:
        return self.owner_keys[-1].identity

    def subjects(self) -> Iterator[PublicIdentity]:
        return (grant.subject for grant in self.grants.values())

    def is_recovery(self, id_: bytes) -> bool:
        return id_ == self.recovery[:16] and self.recovery != bytes(32)

    def is_owner_key(self, id_: bytes) -> bool:
        return any(key.identity.id == id_ for key in self.owner_keys)

    def is_subject(self, id_: bytes) -> bool:
        return any(subject.id == id_ for subject in self.subjects())

    def author_identity(self, author: bytes) -> PublicIdentity | None:
        """The keys that sign for an author whom the room knows."""
        if author == self.owner:
            return self.owner_identity
        if author in self.delegations:
            return self.delegations[author].delegate
        for key in self.owner_keys:
            # Known, but not as the owner: A4 and A10 say what these keys may under their own id, which is nothing.
            if key.identity.id == author:
                return key.identity
        return next((subject for subject in self.subjects() if subject.id == author), None)

    def reader_identity(self, reader: bytes) -> PublicIdentity | None:
        """The keys with this very id, the owner's replaced ones included."""
        keys = (key.identity for key in self.owner_keys if key.identity.id == reader)
        return next(keys, None) or self.author_identity(reader)

    def grants_of(self, author: bytes, right: int) -> list[GrantState]:
        return [grant for grant in self.grants.values() if grant.right == right and grant.subject.id == author]

    def _refusal(self, author: bytes, right: int, epoch: bytes, now: int, hour: int | None, day: int | None) -> int | None:
        """Of several grants the one that decides, or the most telling refusal."""
        if author == self.owner:
            return None if epoch in self.epochs else EPOCH_NOT_COVERED
        known = epoch in self.epochs
        worst = NOT_INVITED
        for grant in self.grants_of(author, right):
            if not known:
                why = grant.why_not(now, None)
            elif day is not None:
                why = grant.why_not_in_day(now, day)
            else:
                why = grant.why_not(now, hour)
            if why is None and known and epoch in grant.epochs:
                return None
            worst = max(worst, EPOCH_NOT_COVERED if why is None else why)
        return worst

    def refusal_in_hour(self, author: bytes, right: int, epoch: bytes, hour: int, now: int) -> int | None:
        return self._refusal(author, right, epoch, now, hour, None)

    def check_append(self, author: bytes, epoch: bytes, hour: int, now: int) -> None:
        """A10, without the wrap."""
        why = self._refusal(author, APPEND, epoch, now, hour, None)
        if why is not None:
            raise Refused("no right to append", why)

    def check_wrap(self, author: bytes, epoch: bytes, day: int, now: int) -> None:
        """A9."""
        why = self._refusal(author, APPEND, epoch, now, None, day)
        if why is not None:
            raise Refused("no right to append on any hour of the day", why)

    def check_delegate(self, author: bytes, right: int, now: int, not_delegated: int) -> None:
        """A4 for everybody but the owner."""
        delegation = self.delegations.get(author)
        if delegation is None:
            raise Refused("neither the owner nor a delegate", NOT_OWNER)
        if not delegation.holds(now):
            raise Refused("the delegation has ended", DELEGATION_ENDED)
        if not delegation.rights & right:
            raise Refused("the right was not delegated", not_delegated)

    def known_by_another_name(self, id_: bytes) -> bool:
        return self.is_owner_key(id_) or id_ in self.delegations or self.is_subject(id_)

    def forbidden_as_subject(self, id_: bytes) -> bool:
        """A6 and A15."""
        return id_ == self.owner or self.is_owner_key(id_) or self.is_recovery(id_)


