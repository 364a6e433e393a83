"""Following and opening, where the kit has keys of one side only."""

from __future__ import annotations

import unittest

from ehe2 import cbor, wrap
from ehe2.control import APPEND, READ
from ehe2.event import CheckedEvent
from ehe2.follow import Follower
from ehe2.ids import ZERO32
from ehe2.judge import KnownEvents, RoomLedger
from ehe2.opening import Opener
from ehe2.refused import EVENT_OUT_OF_PLACE, EVENT_REPEATED, NOT_INVITED, ROOM_UNKNOWN, Refused

from .author import ALLIANCE, HOUR, NOW, Author, Node, read_request, refusal, secret, wrap_secret

EPOCH = b"\xe1" * 16
EK = b"\x07" * 32
# One heart rate of 70, with constant columns.
VITALS = cbor.encode({0: NOW, 1: 0, 2: [
    {0: 1, 2: "strap", 3: 0, 6: 6, 7: True, 8: 1, 9: 0, 11: 0, 12: 500, 16: 70},
]})


class Opening(unittest.TestCase):
    """A part of a ledger from the author's hand to the reader's readings."""

    def setUp(self) -> None:
        self.patient, self.group = secret("patient"), secret("group")
        self.author = Author(self.patient)
        id_ = self.patient.public.id
        info = wrap.info_gk(self.author.room, EPOCH, id_)
        seed = wrap_secret(self.patient.public.kem, info, self.group.kem_seed)
        self.epoch = self.author.epoch(EPOCH, self.group.public, [{0: EPOCH, 1: id_, 2: seed}])
        self.author.submit(self.patient, [self.epoch])
        day = HOUR // 24
        wrapped = wrap_secret(self.group.public.kem, wrap.info_ek(self.author.room, id_, EPOCH, day), EK)
        self.wrap = self.author.control(21, id_, cbor.encode({0: EPOCH, 1: day, 2: wrapped}))
        self.content = self.author.content(id_, EPOCH, self.wrap.id[:16], EK, VITALS)
        self.author.submit(self.patient, [self.wrap, self.content])

    def opener(self, reader: str = "patient") -> Opener:
        keys = secret(reader)
        opener = Opener(keys, keys.public.id, self.author.room)
        opener.take_event(self.epoch)
        return opener

    def test_readings_come_out(self) -> None:
        opener = self.opener()
        opener.take_event(self.wrap)
        opened = opener.open(self.content)
        assert opened is not None and opened.readings is not None
        self.assertEqual(opened.plaintext, VITALS)
        self.assertEqual([reading.text for reading in opened.readings], ["70"])

    def test_who_has_no_seed_opens_nothing(self) -> None:
        self.assertIsNone(self.opener("stranger").open(self.content))

    def test_a_seed_that_is_not_the_epochs_does_not_count(self) -> None:
        id_ = self.patient.public.id
        info = wrap.info_gk(self.author.room, EPOCH, id_)
        wrong = [wrap_secret(self.patient.public.kem, info, secret("another").kem_seed), bytes(1168)]
        right = wrap_secret(self.patient.public.kem, info, self.group.kem_seed)
        opener = Opener(self.patient, id_, self.author.room)
        for seed in (*wrong, right):
            before = dict(opener.seeds)
            opener.take_event(self.author.epoch(EPOCH, self.group.public, [{0: EPOCH, 1: id_, 2: seed}]))
            self.assertEqual(before, {})
        self.assertEqual(opener.seeds, {EPOCH: self.group.kem_seed})

    def test_a_seed_from_before_the_epoch_does_not_count(self) -> None:
        opener = Opener(self.patient, self.patient.public.id, self.author.room)
        plain = {**cbor.decode(cbor.decode(self.epoch.body, 9999)[0], 9999)}
        self.author.submit(self.patient, [self.author.epoch(b"\xe2" * 16, self.group.public, plain[5])])
        opener.take_event(self.author.runs[-1][1][0])
        self.assertEqual(opener.seeds, {})
        opener.take_event(self.epoch)
        self.assertEqual(opener.seeds, {EPOCH: self.group.kem_seed})

    def test_what_came_as_a_wrap_and_is_none(self) -> None:
        opener = self.opener()
        header, body = self.wrap.header.encoded, self.wrap.body
        for encoded in (b"", b"\x81" * 99, cbor.encode({0: header, 1: b"other"}), cbor.encode({0: b"", 1: body})):
            before = dict(opener.named)
            opener.take_wrap(encoded)
            self.assertEqual(opener.named, before)
        # Another event than is named, of whatever kind, counts for nothing.
        opener.take_wrap(cbor.encode({0: self.content.header.encoded, 1: self.content.body}))
        opener.take_wrap(cbor.encode({0: header, 1: body}))
        self.assertIsNotNone(opener.open(self.content))

    def test_what_is_named_and_is_no_wrap(self) -> None:
        id_ = self.patient.public.id
        no_wrap = self.author.control(21, id_, b"\xa0")
        for named in (self.content, self.epoch, no_wrap):
            opener = self.opener()
            opener.take_event(named)
            with self.assertRaises(Refused):
                opener.open(self.author.content(id_, EPOCH, named.id[:16], EK, VITALS))
            opener.take_event(self.wrap)
            self.assertIsNotNone(opener.open(self.content))

    def test_a_wrap_that_was_not_shown(self) -> None:
        with self.assertRaises(Refused):
            self.opener().open(self.content)


class Parts(unittest.TestCase):
    """L2 and L3 for a run that is shown in part."""

    def setUp(self) -> None:
        self.patient, self.gateway, group = secret("patient"), secret("gateway"), secret("group")
        self.author = Author(self.patient)
        self.id, gateway = self.patient.public.id, self.gateway.public
        self.author.submit(self.patient, [self.author.epoch(EPOCH, group.public)])
        self.author.submit(self.patient, [self.author.grant(gateway, READ, EPOCH)])
        day = HOUR // 24
        self.wrap = self.author.control(21, self.id, cbor.encode({0: EPOCH, 1: day, 2: bytes(1168)}))
        self.first, self.second = (self.content(self.id) for _ in range(2))
        self.run = [self.wrap, self.first, self.second]

    def content(self, author: bytes) -> CheckedEvent:
        return self.author.content(author, EPOCH, self.wrap.id[:16], EK, VITALS)

    def follower(self, whole: bool = False) -> tuple[Follower, Node]:
        follower, node = Follower(ALLIANCE, self.author.room, whole), Node(self.author.room)
        for count, (signed, events) in enumerate(self.author.runs, 1):
            follower.follow(node.run(signed, events, count))
        return follower, node

    def show(self, named: list[CheckedEvent], shown: list[CheckedEvent], signer: str = "patient",
             author: bytes | None = None) -> int | None:
        signed = self.author.signed(secret(signer), named, author or self.id)
        follower, node = self.follower()
        follower.follow(node.run(signed, shown, 3))
        return follower.verified

    def refused(self, *arguments: object) -> int | None:
        with self.assertRaises(Refused) as caught:
            self.show(*arguments)  # type: ignore[arg-type]
        return caught.exception.code

    def test_some_of_a_run_in_its_order(self) -> None:
        for shown in ([], [self.wrap], [self.second], [self.first, self.second], self.run):
            self.assertEqual(self.show(self.run, shown), 4)

    def test_another_order_or_twice(self) -> None:
        for shown in ([self.second, self.first], [self.first, self.first], [self.first, self.wrap]):
            self.assertIsNone(self.refused(self.run, shown))
        self.assertIsNone(self.refused([self.first, self.first], [self.first] * 3))

    def test_what_a_run_names_twice_is_refused_however_it_is_shown(self) -> None:
        named = [self.first, self.second, self.first]
        for shown in ([], [self.second], [self.first], [self.first, self.first], [self.second, self.first], named):
            self.assertEqual(self.refused(named, shown), EVENT_REPEATED)

    def test_what_is_shown_is_the_runs_before_who_signs(self) -> None:
        self.assertIsNone(self.refused([self.first], [self.second], "stranger", secret("stranger").public.id))

    def test_who_signs_before_places_and_places_before_rights(self) -> None:
        anothers, stranger = self.content(self.gateway.public.id), secret("stranger").public.id
        self.assertEqual(self.refused([anothers], [anothers], "stranger", stranger), NOT_INVITED)
        # A signature that does not stand has no number here, though a submission would be refused with one.
        self.assertIsNone(self.refused([anothers], [anothers], "stranger"))
        self.assertEqual(self.refused([anothers] * 2, [anothers], "stranger", stranger), NOT_INVITED)
        self.assertEqual(self.refused([anothers] * 2, [anothers]), EVENT_REPEATED)
        self.assertEqual(self.refused([anothers], [anothers]), EVENT_OUT_OF_PLACE)
        self.assertEqual(self.refused([anothers], [anothers], "gateway", self.gateway.public.id), NOT_INVITED)
        # Event by event: the right of the first before the place of the second.
        both = [anothers, self.first]
        self.assertEqual(self.refused(both, both, "gateway", self.gateway.public.id), NOT_INVITED)

    def test_nothing_else_of_a1_is_asked(self) -> None:
        without_wrap = self.author.content(self.id, EPOCH, bytes(16), EK, VITALS)
        self.assertEqual(self.show([without_wrap], [without_wrap]), 4)

    def test_content_before_the_room(self) -> None:
        signed = self.author.signed(self.patient, self.run, self.id)
        follower = Follower(ALLIANCE, self.author.room, whole=False)
        item = Node(self.author.room).run(signed, [self.first], 0)
        self.assertEqual(refusal(follower.follow, item), ROOM_UNKNOWN)

    def test_only_a_node_asks_what_is_committed(self) -> None:
        for whole in (False, True):
            follower, node = self.follower(whole)
            for _ in range(2):
                signed = self.author.signed(self.patient, self.run, self.id)
                follower.follow(node.run(signed, self.run, 3))
                self.author.strands[self.id] = signed.run.end
            self.assertEqual(follower.verified, 5)
            self.setUp()
        ledger = RoomLedger(ALLIANCE, self.author.room, committed={self.first.id})
        ledger.room = self.author.ledger.room
        with self.assertRaises(KnownEvents) as known:
            ledger.submit(self.author.signed(self.patient, self.run, self.id), self.run, NOW)
        self.assertEqual(known.exception.ids, [self.first.id])


class Whole(unittest.TestCase):
    """L3 for a run that must be shown whole: what it asks besides section 8 has no number."""

    def setUp(self) -> None:
        self.patient, group = secret("patient"), secret("group")
        self.id = self.patient.public.id
        self.author = Author(self.patient)
        self.author.submit(self.patient, [self.author.epoch(EPOCH, group.public)])
        self.wrap = self.author.control(21, self.id, cbor.encode({0: EPOCH, 1: HOUR // 24, 2: bytes(1168)}))
        self.content = self.author.content(self.id, EPOCH, self.wrap.id[:16], EK, VITALS)

    def show(self, named: list[CheckedEvent], shown: list[CheckedEvent], whole: bool = True,
             author: bytes | None = None) -> tuple[bool, int | None]:
        """Whether it is followed, and the refusal's number."""
        follower, node = Follower(ALLIANCE, self.author.room, whole), Node(self.author.room)
        for count, (signed, events) in enumerate(self.author.runs, 1):
            follower.follow(node.run(signed, events, count))
        signed = self.author.signed(self.patient, named, author or self.id)
        try:
            follower.follow(node.run(signed, shown, 2))
        except Refused as refused:
            return False, refused.code
        return True, None

    def test_whole(self) -> None:
        both = [self.wrap, self.content]
        self.assertEqual(self.show(both, both), (True, None))
        self.assertEqual(self.show(both, both[:1]), (False, None))
        self.assertEqual(self.show(both, []), (False, None))

    def test_left_out_before_named_twice_and_who_signs_before_left_out(self) -> None:
        twice = [self.wrap, self.wrap]
        self.assertEqual(self.show(twice, [self.wrap]), (False, None))
        self.assertEqual(self.show(twice, twice), (False, EVENT_REPEATED))
        self.assertEqual(self.show(twice, [], author=secret("stranger").public.id), (False, NOT_INVITED))

    def test_strands(self) -> None:
        self.author.strands[self.id] = (self.id[8:], 9, bytes(32))
        self.assertEqual(self.show([self.wrap], [self.wrap]), (False, None))
        self.assertEqual(self.show([self.wrap], [self.wrap], whole=False), (True, None))

    def test_control_records_come_whole_in_every_part(self) -> None:
        named = [self.author.change(self.id, [5]), self.wrap]
        self.assertEqual(self.show(named, named[:1], whole=False), (False, None))


class Following(unittest.TestCase):
    """What a reader says of distrusted keys (A18)."""

    def setUp(self) -> None:
        self.patient, self.new, paper, group = (secret(n) for n in ("patient", "new", "paper", "group"))
        self.author = Author(self.patient, paper.public.digest)
        for epoch in (b"\xe1" * 16, b"\xe2" * 16):
            self.author.submit(self.patient, [self.author.epoch(epoch, group.public)])
        change = [4, paper.public.raw, self.new.public.raw, self.author.possession(self.new), ZERO32, 2]
        self.author.submit(paper, [self.author.change(paper.public.id, change)])
        self.node = Node(self.author.room)

    def follow(self, counts: list[int]) -> Follower:
        follower = Follower(ALLIANCE, self.author.room, whole=False)
        for (signed, events), count in zip(self.author.runs, counts, strict=True):
            follower.follow(self.node.run(signed, events, count))
        return follower

    def test_what_distrusted_keys_signed_is_named(self) -> None:
        follower = self.follow([1, 2, 3, 4])
        # Distrusted from 2: the leaf of room-create counts 1, of the first epoch 2, of the second 3.
        self.assertEqual([entry.leaf.index for entry in follower.not_the_owners()], [2])
        self.assertEqual(follower.distrusted(), self.author.runs[2][0].run.ids)

    def test_a_leaf_that_counts_more_than_was_shown(self) -> None:
        with self.assertRaises(Refused):
            self.follow([1, 2, 3, 5])

    def test_reads_that_were_granted_to_distrusted_keys_are_named(self) -> None:
        follower = self.follow([1, 2, 3, 4])
        stranger = secret("stranger")
        # Index 4 was granted to distrusted keys, 5 was refused, 6 is of the present keys, 7 of somebody else.
        reads = ((self.patient, {}), (self.patient, {1: 33}), (self.new, {}), (stranger, {2: stranger.public.raw}))
        for reader, rest in reads:
            record = {0: read_request(reader, self.author.room), **rest, 3: 1, 4: NOW}
            follower.follow(self.node.access(cbor.encode(record), 4))
        self.assertEqual(follower.distrusted_reads(), [4])
        self.assertEqual(follower.distrusted(), self.author.runs[2][0].run.ids)

    def test_a_read_from_before_the_distrust_is_the_owners(self) -> None:
        follower = Follower(ALLIANCE, self.author.room, whole=False)
        record = cbor.encode({0: read_request(self.patient, self.author.room), 3: 1, 4: NOW})
        # The second read's leaf counts as many as N is, the third's one more.
        for count, (signed, events) in enumerate(self.author.runs, 1):
            follower.follow(self.node.run(signed, events, count))
            follower.follow(self.node.access(record, count))
        self.assertEqual(follower.distrusted_reads(), [5, 7])


if __name__ == "__main__":
    unittest.main()
