"""Void runs and their records (L5, L6)."""

from __future__ import annotations

import unittest
from collections.abc import Sequence
from unittest.mock import patch

from ehe2 import cbor
from ehe2.control import APPEND
from ehe2.event import CheckedEvent
from ehe2.follow import Follower
from ehe2.ledger import _contents, _room_lines
from ehe2.limits import UNVOIDED_RUNS_MAX
from ehe2.refused import EVENT_REPEATED, NOT_INVITED, Refused
from ehe2.run import SignedRun

from .author import ALLIANCE, HOUR, Author, Node, UnknownEvent, secret

EPOCH = b"\xe1" * 16
EK = b"\x07" * 32
# How many control events there are after setUp, and how many entries.
COUNT, ENTRIES = 3, 4


class Void(unittest.TestCase):
    """A gateway that may append, and a node that signs in its name."""

    def setUp(self) -> None:
        self.patient, self.gateway, self.node_key = secret("patient"), secret("gateway"), secret("node")
        self.id = self.gateway.public.id
        self.author = Author(self.patient)
        self.author.submit(self.patient, [self.author.epoch(EPOCH, secret("group").public)])
        self.author.submit(self.patient, [self.author.grant(self.gateway.public, APPEND, EPOCH)])
        self.wrap = self.author.control(21, self.id, cbor.encode({0: EPOCH, 1: HOUR // 24, 2: bytes(1168)}))
        self.author.submit(self.gateway, [self.wrap])
        self.first, self.second = self.content(), self.content()

    def content(self, author: bytes | None = None) -> CheckedEvent:
        return self.author.content(author or self.id, EPOCH, self.wrap.id[:16], EK, b"plain")

    def follower(self, whole: bool) -> tuple[Follower, Node]:
        follower, node = Follower(ALLIANCE, self.author.room, whole), Node(self.author.room)
        for count, (signed, events) in enumerate(self.author.runs, 1):
            follower.follow(node.run(signed, events, min(count, COUNT)))
        return follower, node

    def signed(self, named: Sequence[CheckedEvent | UnknownEvent], signer: str = "node", author: bytes | None = None,
               moves: bool = True) -> SignedRun:
        author = author or self.id
        signed = self.author.signed(secret(signer), named, author)
        if moves:
            self.author.strands[author] = signed.run.end
        return signed

    def refused(self, act: object, *arguments: object) -> int | None:
        with self.assertRaises(Refused) as caught:
            act(*arguments)  # type: ignore[operator]
        return caught.exception.code

    def test_it_stands_with_its_record_only(self) -> None:
        for whole in (True, False):
            with self.subTest(whole):
                self.setUp()
                follower, node = self.follower(whole)
                false = self.signed([self.first])
                follower.follow(node.run(false, [self.first], COUNT))
                self.assertIsNone(self.refused(follower.voids.check_all_void))
                # Its strand goes on, and its event is linked again by the author.
                again = self.signed([self.first, self.second], "gateway")
                follower.follow(node.run(again, [self.first, self.second], COUNT))
                follower.follow(node.void(ENTRIES, false.encoded, COUNT))
                follower.voids.check_all_void()
                self.assertEqual(follower.voids.named, [ENTRIES])
                self.assertEqual([event.id for event in follower.events[-2:]], again.run.ids)
                self.assertEqual(sum(event.id == self.first.id for event in follower.events), 1)
                self.assertIn("(6 runs, 0 access records, 1 void records, 0 by their leaf alone)", _room_lines(follower)[1])

    def test_its_strand_goes_on(self) -> None:
        follower, node = self.follower(True)
        follower.follow(node.run(self.signed([self.first]), [self.first], COUNT))
        self.author.strands[self.id] = self.author.runs[-1][0].run.end
        self.assertIsNone(self.refused(follower.follow, node.run(self.signed([self.second], "gateway"), [self.second], COUNT)))

    def test_by_what_is_shown(self) -> None:
        named = [self.wrap, self.first]
        for whole, shown, good in ((False, [self.first], True), (False, [], True), (False, named, False), (True, named, False)):
            with self.subTest((whole, len(shown))):
                self.setUp()
                follower, node = self.follower(whole)
                item = node.run(self.signed(named), shown, COUNT)
                if good:
                    follower.follow(item)
                else:
                    self.assertIsNone(self.refused(follower.follow, item))

    def test_never_of_the_owner(self) -> None:
        for whole, shown in ((True, True), (False, True), (False, False)):
            self.setUp()
            follower, node = self.follower(whole)
            mine = self.content(self.patient.public.id)
            item = node.run(self.signed([mine], author=self.patient.public.id), [mine] if shown else [], COUNT)
            self.assertIsNone(self.refused(follower.follow, item))

    def test_it_is_judged_as_if_it_were_signed(self) -> None:
        event = self.author.content(self.id, EPOCH, self.wrap.id[:16], EK, b"plain")
        for whole in (True, False):
            self.setUp()
            follower, node = self.follower(whole)
            stranger = secret("stranger").public.id
            self.assertEqual(self.refused(follower.follow, node.run(
                self.signed([event], author=stranger), [event], COUNT)), NOT_INVITED)
            follower, node = self.follower(whole)
            self.assertEqual(self.refused(follower.follow, node.run(
                self.signed([event, event], moves=False), [event, event], COUNT)), EVENT_REPEATED)
            self.assertEqual(follower.voids.unvoided, {})

    def test_events_of_an_unknown_version_in_it(self) -> None:
        one = UnknownEvent.of(1)
        for whole in (True, False):
            self.setUp()
            follower, node = self.follower(whole)
            follower.follow(node.run(self.signed([one, self.first]), [one, self.first], COUNT))
            self.assertEqual(follower.unknown, [])
            self.assertEqual(follower.voids.unvoided.keys(), {ENTRIES})

    def test_a_record_with_another_run_or_of_another_place(self) -> None:
        for whole in (True, False):
            self.setUp()
            follower, node = self.follower(whole)
            false = self.signed([self.first])
            another = self.signed([self.second])
            follower.follow(node.run(false, [self.first], COUNT))
            # A place that was not one of L6 is not asked what it holds.
            follower.follow(node.void(0, another.encoded, COUNT))
            self.assertEqual(follower.voids.named, [0])
            self.assertIsNone(self.refused(follower.voids.check_all_void))
            self.assertIsNone(self.refused(follower.follow, node.void(ENTRIES, another.encoded, COUNT)))

    def test_a_place_is_done_with_once_it_is_void(self) -> None:
        follower, node = self.follower(False)
        false, another = self.signed([self.first]), self.signed([self.second])
        good = self.signed([self.second], "gateway", moves=False)
        follower.follow(node.run(false, [self.first], COUNT))
        for run in (false, false, another):
            follower.follow(node.void(ENTRIES, run.encoded, COUNT))
        self.assertEqual(follower.voids.named, [ENTRIES] * 3)
        # It still has to stand by itself (L5).
        self.assertIsNone(self.refused(follower.follow, node.void(ENTRIES, good.encoded, COUNT)))

    def test_of_a_run_that_was_not_shown(self) -> None:
        follower, node = self.follower(False)
        false = self.signed([self.first])
        follower.follow(node.alone(false.encoded, COUNT))
        for index in (ENTRIES, 0):
            follower.follow(node.void(index, false.encoded, COUNT))
        self.assertEqual(follower.voids.named, [ENTRIES, 0])
        follower.voids.check_all_void()

    def test_what_does_not_stand(self) -> None:
        false = self.signed([self.first], moves=False).encoded
        good = self.signed([self.first], "gateway", moves=False).encoded
        of_owner = self.signed([self.first], author=self.patient.public.id, moves=False).encoded
        of_stranger = self.signed([self.first], author=secret("stranger").public.id, moves=False).encoded
        for index, run in ((ENTRIES, false), (9, false), (0, good), (0, of_owner), (0, of_stranger), (0, b""), (0, false + b"\0"),
                           (0, bytes(9280))):
            follower, node = self.follower(False)
            with self.subTest((index, len(run))):
                self.assertIsNone(self.refused(follower.follow, node.void(index, run, COUNT)))
        follower, node = self.follower(False)
        follower.follow(node.void(0, false, COUNT))

    def test_before_there_is_a_room(self) -> None:
        follower, node = Follower(ALLIANCE, self.author.room, whole=False), Node(self.author.room)
        false = self.signed([self.first]).encoded
        follower.follow(node.alone(b"any", 0))
        self.assertIsNone(self.refused(follower.follow, node.void(0, false, 0)))

    def test_it_counts_no_control_event(self) -> None:
        follower, node = self.follower(False)
        false = self.signed([self.first]).encoded
        self.assertIsNone(self.refused(follower.follow, node.void(0, false, COUNT + 1)))

    def test_no_more_are_remembered_than_there_may_be(self) -> None:
        self.assertEqual(UNVOIDED_RUNS_MAX, 1024)
        with patch("ehe2.void.UNVOIDED_RUNS_MAX", 2):
            follower, node = self.follower(False)
            runs = [self.signed([self.first]) for _ in range(4)]
            for signed in runs[:2]:
                follower.follow(node.run(signed, [], COUNT))
            # One that became void makes place for another.
            follower.follow(node.void(ENTRIES, runs[0].encoded, COUNT))
            follower.follow(node.run(runs[2], [], COUNT))
            self.assertEqual(follower.voids.unvoided.keys(), {ENTRIES + 1, ENTRIES + 3})
            # What the run breaks of L3 is asked before that.
            event = self.author.content(secret("clinician").public.id, EPOCH, self.wrap.id[:16], EK, b"plain")
            reader = self.signed([event], author=event.core.author, moves=False)
            self.assertEqual(self.refused(follower.follow, node.run(reader, [event], COUNT)), NOT_INVITED)
            follower, node = self.follower(False)
            for signed in runs[:2]:
                follower.follow(node.run(signed, [], COUNT))
            self.assertIsNone(self.refused(follower.follow, node.run(runs[3], [], COUNT)))

    def test_content_of_a_void_run_is_passed_over(self) -> None:
        follower, node = self.follower(True)
        false = self.signed([self.first])
        follower.follow(node.run(false, [self.first], COUNT))
        of = cbor.encode({0: self.first.header.encoded, 1: self.first.body}).hex()
        self.assertEqual(_contents({"contents": [of]}, follower), [])
        again = self.signed([self.first], "gateway")
        follower.follow(node.run(again, [self.first], COUNT))
        self.assertEqual([event.id for event in _contents({"contents": [of]}, follower)][-1:], [self.first.id])
        strange = cbor.encode({0: self.second.header.encoded, 1: self.second.body}).hex()
        self.assertIsNone(self.refused(_contents, {"contents": [strange]}, follower))


if __name__ == "__main__":
    unittest.main()
