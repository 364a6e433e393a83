"""Following past events of a version that is not known (V1, L3)."""

from __future__ import annotations

import unittest
from collections.abc import Sequence

from ehe2 import cbor
from ehe2.control import READ
from ehe2.event import CheckedEvent
from ehe2.follow import Follower
from ehe2.ids import ZERO32
from ehe2.ledger import _room_lines
from ehe2.refused import (CONTROL_OUT_OF_SEQUENCE, EVENT_OUT_OF_PLACE, EVENT_REPEATED, KIND_NOT_ALLOWED, NOT_INVITED, ROOM_UNKNOWN,
                          RUN_MALFORMED, WRAP_MISSING, Refused)

from .author import ALLIANCE, HOUR, Author, Node, UnknownEvent, secret

EPOCH = b"\xe1" * 16
EK = b"\x07" * 32

Events = Sequence[CheckedEvent | UnknownEvent]


class Unknown(unittest.TestCase):
    def setUp(self) -> None:
        self.patient, self.paper, self.group = secret("patient"), secret("paper"), secret("group")
        self.id = self.patient.public.id
        self.author = Author(self.patient, self.paper.public.digest)
        self.author.submit(self.patient, [self.author.epoch(EPOCH, self.group.public)])
        self.wrap = self.author.control(21, self.id, cbor.encode({0: EPOCH, 1: HOUR // 24, 2: bytes(1168)}))
        self.content = self.author.content(self.id, EPOCH, self.wrap.id[:16], EK, b"plain")
        self.one, self.two = UnknownEvent.of(1), UnknownEvent.of(2)

    def follow(self, named: Events, shown: Events | None = None, whole: bool = True, count: int = 2,
               signer: str = "patient", author: bytes | None = None) -> Follower:
        follower, node = Follower(ALLIANCE, self.author.room, whole), Node(self.author.room)
        for seen, (signed, events) in enumerate(self.author.runs, 1):
            follower.follow(node.run(signed, events, seen))
        signed = self.author.signed(secret(signer), named, author or self.id)
        follower.follow(node.run(signed, named if shown is None else shown, count))
        return follower

    def refused(self, *arguments: object, **rest: object) -> Refused:
        with self.assertRaises(Refused) as caught:
            self.follow(*arguments, **rest)  # type: ignore[arg-type]
        return caught.exception

    def test_it_is_told_and_what_is_beside_it_is_judged(self) -> None:
        for whole in (True, False):
            follower = self.follow([self.wrap, self.one, self.content, self.two], whole=whole)
            self.assertEqual(follower.unknown, [self.one.id, self.two.id])
            self.assertEqual([event.id for event in follower.events[-2:]], [self.wrap.id, self.content.id])
            self.assertIn("of a version that is not known: 2 events", _room_lines(follower))
        self.assertEqual(self.follow([self.wrap, self.content]).unknown, [])

    def test_what_is_beside_it_is_refused_as_if_it_were_alone(self) -> None:
        anothers = self.author.content(secret("other").public.id, EPOCH, self.wrap.id[:16], EK, b"plain")
        for whole in (True, False):
            self.assertEqual(self.refused([self.one, anothers], whole=whole).code, EVENT_OUT_OF_PLACE)
        mixed = [self.content, self.one, self.author.change(self.id, [5])]
        self.assertEqual(self.refused(mixed, count=3).code, RUN_MALFORMED)

    def test_a_part_shows_some_and_the_ledger_all(self) -> None:
        named = [self.wrap, self.one, self.two]
        for shown in ([], [self.two], [self.wrap, self.two]):
            told = [event.id for event in shown if event is self.two]
            self.assertEqual(self.follow(named, shown, whole=False).unknown, told)
            self.assertIsNone(self.refused(named, shown).code)
        self.assertIsNone(self.refused(named, [self.two, self.one], whole=False).code)
        self.assertIsNone(self.refused(named, [UnknownEvent.of(3)], whole=False).code)
        # A control record beside it: whole in every part.
        named = [self.author.change(self.id, [5]), self.one]
        self.assertEqual(self.follow(named, whole=False, count=3).unknown, [self.one.id])
        self.assertIsNone(self.refused(named, named[:1], whole=False, count=3).code)

    def test_its_strand_goes_on(self) -> None:
        follower, node = Follower(ALLIANCE, self.author.room, True), Node(self.author.room)
        for seen, (signed, events) in enumerate(self.author.runs, 1):
            follower.follow(node.run(signed, events, seen))
        for named in ([self.one], [self.wrap, self.two], [self.content]):
            signed = self.author.signed(self.patient, named, self.id)
            follower.follow(node.run(signed, named, 2))
            self.author.strands[self.id] = signed.run.end
        self.assertEqual(follower.verified, 5)

    def test_content_that_names_it_as_its_wrap(self) -> None:
        content = self.author.content(self.id, EPOCH, self.one.id[:16], EK, b"plain")
        self.assertEqual(self.refused([self.one, content]).code, WRAP_MISSING)
        self.follow([self.one, content], whole=False)

    def test_a_run_that_names_it_twice(self) -> None:
        self.assertEqual(self.refused([self.one, self.one]).code, EVENT_REPEATED)
        self.assertEqual(self.refused([self.one, self.one], [self.one], whole=False).code, EVENT_REPEATED)

    def test_it_is_the_runs_first(self) -> None:
        paper, new = self.paper.public, secret("new")
        change = [4, paper.raw, new.public.raw, self.author.possession(new), ZERO32]
        recover = self.author.change(paper.id, change)
        after = [recover, self.one]
        self.assertEqual(self.follow(after, count=3, signer="paper", author=paper.id).unknown, [self.one.id])
        self.assertEqual(self.refused([self.one, recover], count=3, signer="paper", author=paper.id).code, NOT_INVITED)

    def test_a_room_does_not_begin_with_it(self) -> None:
        create = self.author.runs[0][1][0]
        self.author.runs, self.author.strands = [], {}
        self.assertEqual(self.follow([create, self.one], count=1).unknown, [self.one.id])
        self.assertEqual(self.refused([self.one, create], count=1).code, ROOM_UNKNOWN)

    def test_keys_that_changed_before_it(self) -> None:
        new = secret("new")
        rotation = self.author.change(self.id, [0, new.public.raw, self.author.possession(new)])
        self.assertEqual(self.follow([rotation, self.one], count=3).unknown, [self.one.id])
        self.assertEqual(self.refused([rotation, self.one, self.wrap], count=3).code, RUN_MALFORMED)

    def test_what_the_leaf_counts_and_nobody_knows(self) -> None:
        # A grant that does not follow the room's last control event: section 8 would refuse it.
        late = self.author.control(18, self.id, cbor.encode(
            {0: {0: 9, 1: ZERO32}, 1: secret("reader").public.raw, 2: READ, 3: [EPOCH], 7: []}))
        self.assertEqual(self.refused([self.one, late], count=3).code, CONTROL_OUT_OF_SEQUENCE)
        for whole in (True, False):
            for named in ([self.one], [self.one, late]):
                stopped = self.refused(named, whole=whole, count=4)
                self.assertIsNone(stopped.code)
                self.assertIn("stops here", stopped.reason)
        self.assertIsNone(self.refused([self.one], count=1).code)
        # Who signs comes before it.
        self.assertEqual(self.refused([self.one], count=3, signer="other", author=secret("other").public.id).code, NOT_INVITED)

    def test_the_leafs_count_comes_before_what_is_named_twice(self) -> None:
        named = [self.one, self.one]
        for whole, shown in ((True, named), (False, named), (False, named[:1])):
            self.assertIn("stops here", self.refused(named, shown, whole=whole, count=3).reason)
            self.assertIn("fewer", self.refused(named, shown, whole=whole, count=1).reason)
            self.assertEqual(self.refused(named, shown, whole=whole).code, EVENT_REPEATED)
        # That it is shown whole, where it must be, comes before both.
        for count in (2, 3):
            self.assertIn("left out of a run", self.refused(named, named[:1], count=count).reason)
        # Without an event of an unknown version the count is asked at the entry's end.
        self.assertEqual(self.refused([self.wrap, self.wrap], count=3).code, EVENT_REPEATED)

    def test_a_reserved_kind_counts_as_known(self) -> None:
        for kind in (22, 23):
            reserved = self.author.control(kind, self.id, b"")
            for whole in (True, False):
                self.assertEqual(self.refused([self.one, reserved], whole=whole, count=3).code, KIND_NOT_ALLOWED)
                self.assertIn("stops here", self.refused([self.one, reserved], whole=whole, count=4).reason)


if __name__ == "__main__":
    unittest.main()
