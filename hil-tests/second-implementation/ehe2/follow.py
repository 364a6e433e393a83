"""Section 10: following a room through its items (L1 to L6, C0)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .charter import Charter
from .event import VERSION, CheckedEvent, Event, check_event, version_of
from .ids import ZERO32, sha256
from .judge import RoomLedger, check_named_once, check_place
from .limits import ACCESS_RECORD_MAX_BYTES, FRAME_MAX_BYTES
from .log import Head, Leaf, VerifiedHead, verify_head
from .read import AccessRecord, SignedRequest
from .refused import Refused, refusing_with, require
from .run import SignedRun
from .void import VoidRuns, may_be_void, verifies
from .wire import Item


@dataclass(frozen=True)
class SignedEntry:
    """A run under the owner's author id, or a read that was granted: either may be distrusted later (A18)."""

    leaf: Leaf
    # The id of the keys that signed.
    key: bytes
    # What a run names, shown or not; None for a read.
    ids: list[bytes] | None


@dataclass(frozen=True)
class ShownEvent:
    id: bytes
    # None where the event's version is not known (V1): nothing more is asked of it then than that it is the run's.
    checked: CheckedEvent | None


def _read_shown(event: Event, body_may_lack: bool) -> ShownEvent:
    """V1 to V3 as who follows asks them."""
    with refusing_with(None):
        known = version_of(event.header) == VERSION
        return ShownEvent(sha256(event.header), check_event(event.header, event.body, body_may_lack) if known else None)


def _check_shown(shown: list[bytes], named: list[bytes]) -> None:
    """L2: some of what the run names, in its order; none more often than it is named."""
    rest = iter(named)
    # Each look-up goes on where the one before ended.
    require(all(ehe_id in rest for ehe_id in shown), "events that the run does not name, or in another order")


@dataclass
class Follower:
    alliance: bytes
    room: bytes
    whole: bool
    ledger: RoomLedger = field(init=False)
    last: Leaf | None = None
    verified: int = 0
    runs: int = 0
    access_records: int = 0
    events: list[CheckedEvent] = field(default_factory=list)
    # The ids of the events shown whose version is not known. Here as in `events` those of void runs are left out (L6).
    unknown: list[bytes] = field(default_factory=list)
    entries: list[SignedEntry] = field(default_factory=list)
    voids: VoidRuns = field(default_factory=VoidRuns)
    void_events: set[bytes] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.ledger = RoomLedger(self.alliance, self.room)

    @property
    def next_control(self) -> int:
        return self.ledger.room.next_control if self.ledger.room else 0

    def follow(self, data: bytes) -> None:
        item = Item.decode(data, FRAME_MAX_BYTES)
        leaf = item.leaf
        self._check_leaf(leaf)
        brought = [entry for entry in (item.run, item.access, item.void) if entry is not None]
        require(len(brought) <= 1, "an item of two entries")
        require(item.run is not None or not item.events, "events without their run")
        require(len(brought) > 0 or not self.whole, "a leaf alone in the ledger")
        require(all(sha256(entry) == leaf.entry for entry in brought), "the leaf is of another entry")
        if item.run is not None:
            with refusing_with(None):
                signed = SignedRun.decode(item.run)
            self._follow_run(signed, item, leaf)
        elif item.access is not None:
            with refusing_with(None):
                self._follow_access(item.access, leaf)
        elif item.void is not None:
            with refusing_with(None):
                self.voids.take(item.void, leaf, self.room, self.ledger.room)
        require(leaf.control_events == self.next_control, "a control event was left out")
        self.last = leaf
        self.verified += 1

    def _check_leaf(self, leaf: Leaf) -> None:
        """L1."""
        require(leaf.room == self.room, "a leaf of another room")
        require(leaf.index == self.verified, "a gap between leaves")
        before = self.last.hash if self.last else ZERO32
        require(leaf.before == before, "the leaf names another before it")
        require(self.last is None or leaf.accepted_at >= self.last.accepted_at, "time went back")

    def _follow_run(self, signed: SignedRun, item: Item, leaf: Leaf) -> None:
        """L2 and L3, in L3's order."""
        run = signed.run
        require(run.room == self.room, "a run of another room")
        shown = [_read_shown(event, body_may_lack=self.whole) for event in item.events]
        ids = [event.id for event in shown]
        _check_shown(ids, run.ids)
        first = shown[0].checked if ids[:1] == run.ids[:1] else None
        signer = self.ledger.signer(run.author, first)
        events = [event.checked for event in shown if event.checked is not None]
        is_signed = verifies(signed, signer.sign)
        require(is_signed or may_be_void(self.ledger.room, run.author, events), "the signature does not verify")
        must_be_whole = self.whole or any(event.is_control_record for event in events)
        require(ids == run.ids or not must_be_whole, "an event was left out of a run that is shown whole")
        unknown = [event.id for event in shown if event.checked is None]
        if unknown:
            self._check_counted(events, leaf)
        check_named_once(signed)
        room = self.ledger.room
        # Asked before the run is applied: a rotation at its end was signed by the keys before.
        if room is None or run.author == room.owner:
            self.entries.append(SignedEntry(leaf, signer.id, run.ids))
        if must_be_whole:
            self.ledger.follow(signed, events, leaf.accepted_at, strands=self.whole)
        else:
            self._follow_part(signed, events, leaf)
        self.runs += 1
        if not is_signed:
            self.voids.remember(leaf)
            self.void_events.update(ids)
            return
        self.events += events
        self.unknown += unknown

    def _check_counted(self, events: list[CheckedEvent], leaf: Leaf) -> None:
        """C0 of a run with events of an unknown version, before anything else of section 8 but who signs. Reserved kinds count."""
        known = self.next_control + sum(event.is_control_record for event in events)
        require(leaf.control_events <= known, "a control event of a version that is not known: what it changed is not known,"
                " and the following stops here")
        require(leaf.control_events == known, "the leaf counts fewer control events than there are")

    def _follow_part(self, signed: SignedRun, events: list[CheckedEvent], leaf: Leaf) -> None:
        """Of A1 only the places are asked, and of wraps nothing more."""
        room = self.ledger.room
        assert room is not None
        for event in events:
            check_place(event, signed)
            if event.is_content:
                room.check_append(event.core.author, event.core.epoch, event.core.hour, leaf.accepted_at)

    def _follow_access(self, data: bytes, leaf: Leaf) -> None:
        record = AccessRecord.decode(data, ACCESS_RECORD_MAX_BYTES)
        signed = SignedRequest.decode(record.request)
        request = signed.request
        require(request.room == self.room, "a request for another room")
        room = self.ledger.room
        identity = room.reader_identity(request.reader) if room is not None else None
        if identity is None:
            identity = record.reader
        if identity is None or identity.id != request.reader:
            raise Refused("nobody knows the reader's keys")
        signed.verify(identity)
        if record.refusal is None:
            self.entries.append(SignedEntry(leaf, request.reader, None))
        self.access_records += 1

    def not_the_owners(self) -> list[SignedEntry]:
        """A18: what distrusted keys signed from then on, by what the room knows now."""
        room = self.ledger.room
        since = {key.identity.id: key.distrusted_from for key in room.owner_keys} if room is not None else {}
        return [
            entry
            for entry in self.entries
            if (first := since.get(entry.key)) is not None and entry.leaf.control_events > first
        ]

    def distrusted(self) -> list[bytes]:
        return [ehe_id for entry in self.not_the_owners() for ehe_id in entry.ids or []]

    def distrusted_reads(self) -> list[int]:
        return [entry.leaf.index for entry in self.not_the_owners() if entry.ids is None]

    def check_head(self, head: Head, nonce: bytes, charters: list[Charter], known: int | None, seen: int = 0) -> VerifiedHead:
        """At the end of what is shown: L6 of all of it, C4, and of L4 that the log did not become smaller."""
        self.voids.check_all_void()
        verified = verify_head(head, self.room, nonce, charters, seen)
        require(self.last is not None and verified.leaf == self.last, "the head is of another entry than the last shown")
        require(self.ledger.room is not None, "no room was created in what is shown")
        require(known is None or verified.checkpoint.size >= known, "the log became smaller")
        return verified
