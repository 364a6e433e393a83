"""Rights, where the kit has keys of one side only."""

from __future__ import annotations

import unittest
from typing import Any

from ehe2 import cbor
from ehe2.control import APPEND, READ, read_control
from ehe2.event import CheckedEvent
from ehe2.ids import ZERO16, ZERO32
from ehe2.refused import (CONTROL_MALFORMED, CONTROL_OUT_OF_SEQUENCE, DELEGATION_UNKNOWN, EPOCH_NOT_COVERED,
                          GRANT_REVOKED, GRANT_UNKNOWN, LIMIT_REACHED, NOT_INVITED, NOT_OWNER, NOT_POSSESSED, ROOM_EXISTS,
                          RUN_MALFORMED)

from .author import HOUR, NOW, Author, refusal, secret

EPOCH = b"\xe1" * 16


class Distrust(unittest.TestCase):
    """A18 as a reader sees it, and who may do what after it."""

    def setUp(self) -> None:
        self.patient, self.paper, self.new, self.group = (secret(n) for n in ("patient", "paper", "new", "group"))
        self.gateway, self.reader = secret("gateway").public, secret("reader").public
        self.author = Author(self.patient, self.paper.public.digest)
        self.author.submit(self.patient, [self.author.epoch(EPOCH, self.group.public)])
        self.author.submit(self.patient, [self.author.grant(self.gateway, APPEND, EPOCH)])
        self.author.submit(self.patient, [self.author.grant(self.reader, READ, EPOCH)])

    def recover(self, distrusted_from: int) -> None:
        paper = self.paper.public
        change = [4, paper.raw, self.new.public.raw, self.author.possession(self.new), ZERO32, distrusted_from]
        self.author.submit(self.paper, [self.author.change(paper.id, change)])

    def may(self, right: int, subject: bytes) -> int | None:
        room = self.author.ledger.room
        assert room is not None
        return room.refusal_in_hour(subject, right, EPOCH, HOUR, NOW)

    def test_only_what_came_from_then_on_ends(self) -> None:
        self.recover(3)
        self.assertIsNone(self.may(APPEND, self.gateway.id))
        self.assertEqual(self.may(READ, self.reader.id), GRANT_REVOKED)
        room = self.author.ledger.room
        assert room is not None
        self.assertEqual([key.distrusted_from for key in room.owner_keys], [3, None])
        self.assertEqual(room.recovery, ZERO32)

    def test_the_new_keys_sign_under_the_old_author_id(self) -> None:
        self.recover(4)
        grant = self.author.grant(self.reader, APPEND, EPOCH)
        self.author.submit(self.new, [grant], author=self.patient.public.id)
        self.assertIsNone(self.may(APPEND, self.reader.id))

    def test_a_refused_recovery_ends_nothing(self) -> None:
        self.assertIsNotNone(refusal(self.recover, 99))
        self.assertIsNone(self.may(READ, self.reader.id))

    def test_the_new_keys_own_id_is_nobody(self) -> None:
        self.recover(4)
        id_ = self.new.public.id
        event = self.author.control(18, id_, cbor.encode(
            {0: self.author.link, 1: self.reader.raw, 2: APPEND, 3: [EPOCH], 7: []}))
        self.assertEqual(refusal(self.author.submit, self.new, [event]), NOT_OWNER)

    def test_keys_that_were_replaced_before_are_trusted(self) -> None:
        self.author.submit(self.patient, [self.rotation("second")])
        self.author.submit(secret("second"), [self.rotation("third")], author=self.patient.public.id)
        self.recover(5)
        room = self.author.ledger.room
        assert room is not None
        # The first keys were replaced at 4, the second at 5 and the third by the recovery.
        self.assertEqual([key.distrusted_from for key in room.owner_keys], [None, 5, 5, None])

    def rotation(self, name: str) -> CheckedEvent:
        keys = secret(name)
        return self.author.change(self.patient.public.id, [0, keys.public.raw, self.author.possession(keys)])

    def test_what_follows_new_keys_in_a_run(self) -> None:
        # A reserved kind would be 7: that the keys changed comes before anything of the event that follows.
        for kind in (21, 22):
            after = self.author.control(kind, self.patient.public.id, b"")
            self.assertEqual(refusal(self.author.submit, self.patient, [self.rotation("second"), after]), RUN_MALFORMED)

    def test_possession_that_is_none(self) -> None:
        for possession in (b"", bytes(257)):
            event = self.author.change(self.patient.public.id, [0, secret("second").public.raw, possession])
            self.assertEqual(refusal(self.author.submit, self.patient, [event]), NOT_POSSESSED)

    def test_a_second_room_create(self) -> None:
        """A3: that the room is there comes after the form alone, and after who signs."""
        says = cbor.encode({0: b"\xa2" * 32, 1: b"\x02" * 16, 2: {0: bytes(32), 1: b"\xff" * 1216}, 3: ZERO32})
        for plain, name, expected in ((says, "patient", ROOM_EXISTS), (says, "reader", ROOM_EXISTS),
                                      (b"\xa0", "reader", CONTROL_MALFORMED), (says, "stranger", NOT_INVITED)):
            keys = secret(name)
            create = self.author.control(16, keys.public.id, plain, room=ZERO16)
            self.assertEqual(refusal(self.author.submit, keys, [create]), expected)

    def test_of_an_epoch_that_is_not_there(self) -> None:
        room = self.author.ledger.room
        assert room is not None
        unknown = b"\xee" * 16
        self.assertEqual(room.refusal_in_hour(room.owner, READ, unknown, HOUR, NOW), EPOCH_NOT_COVERED)
        self.assertEqual(room.refusal_in_hour(self.reader.id, READ, unknown, HOUR, NOW), EPOCH_NOT_COVERED)
        self.assertEqual(room.refusal_in_hour(self.gateway.id, READ, unknown, HOUR, NOW), NOT_INVITED)


class EarlierPlace(unittest.TestCase):
    """A4: recover and withdraw may name an earlier place than they take."""

    def setUp(self) -> None:
        self.patient, self.paper, self.new, self.group = (secret(n) for n in ("patient", "paper", "new", "group"))
        self.id, self.delegate, self.reader = self.patient.public.id, secret("delegate").public, secret("reader").public
        self.author = Author(self.patient, self.paper.public.digest)
        self.author.submit(self.patient, [self.author.change(self.id, [1, self.delegate.raw, 1])])
        self.author.submit(self.patient, [self.author.epoch(EPOCH, self.group.public)])
        self.author.submit(self.patient, [self.author.grant(self.reader, READ, EPOCH)])
        # The next place is 4.
        self.room_create = self.author.runs[0][1][0].id

    def change(self, change: list[object], seq: int, previous: bytes = b"\xff" * 32) -> None:
        self.author.submit(self.patient, [self.author.change(self.id, change, {0: seq, 1: previous})])

    def withdraw(self, seq: int) -> None:
        self.change([2, self.delegate.id], seq)

    def recover(self, seq: int, distrusted_from: int, possessed_at: int | None = None) -> None:
        paper, link = self.paper.public, {0: seq, 1: b"\xff" * 32}
        possession = self.author.possession(self.new, link if possessed_at is None else {**link, 0: possessed_at})
        change = [4, paper.raw, self.new.public.raw, possession, ZERO32, distrusted_from]
        self.author.submit(self.paper, [self.author.change(paper.id, change, link)])

    def test_from_1_up_to_the_one_before(self) -> None:
        for act in (self.withdraw, lambda seq: self.recover(seq, 1)):
            for seq in (1, 2, 3):
                self.setUp()
                self.assertIsNone(refusal(act, seq))
                room = self.author.ledger.room
                assert room is not None
                self.assertEqual((room.next_control, room.last_control), (5, self.author.runs[-1][1][0].id))
                self.assertTrue(room.delegations[self.delegate.id].ended)

    def test_not_0_nor_its_own_place_after_another_nor_a_later_one(self) -> None:
        for seq in (0, 4, 5, 2**64 - 1):
            self.assertEqual(refusal(self.withdraw, seq), CONTROL_OUT_OF_SEQUENCE)
            self.assertEqual(refusal(self.recover, seq, 1), CONTROL_OUT_OF_SEQUENCE)

    def test_nothing_is_earlier_than_the_first_place(self) -> None:
        self.author = Author(self.patient, self.paper.public.digest)
        self.assertEqual(refusal(self.recover, 1, 1), CONTROL_OUT_OF_SEQUENCE)

    def test_no_other_change(self) -> None:
        possession = self.author.possession(self.new, {0: 1, 1: self.room_create})
        for change in ([0, self.new.public.raw, possession], [1, self.reader.raw, 1], [3, b"\x09" * 32], [5]):
            self.assertEqual(refusal(self.change, change, 1, self.room_create), CONTROL_OUT_OF_SEQUENCE)

    def test_a_withdrawal_comes_once(self) -> None:
        self.withdraw(1)
        self.assertEqual(refusal(self.withdraw, 1), DELEGATION_UNKNOWN)

    def test_distrust_and_keys_go_by_the_place_that_is_taken(self) -> None:
        self.assertEqual(refusal(self.recover, 1, 5), CONTROL_MALFORMED)
        self.recover(1, 4)
        room = self.author.ledger.room
        assert room is not None
        self.assertEqual([(key.since, key.distrusted_from) for key in room.owner_keys], [(0, 4), (4, None)])
        self.assertIsNone(room.refusal_in_hour(self.reader.id, READ, EPOCH, HOUR, NOW))
        self.author.submit(self.new, [self.author.grant(secret("other").public, READ, EPOCH)], author=self.id)

    def test_possession_is_for_the_link_that_is_named(self) -> None:
        self.assertEqual(refusal(self.recover, 1, 1, 4), NOT_POSSESSED)


class ControlForm(unittest.TestCase):
    """The order in which the form of a control event is judged."""

    def setUp(self) -> None:
        self.author = Author(secret("patient"))
        self.id = secret("patient").public.id
        key = {0: bytes(16), 1: bytes(1168)}
        self.parts, self.seeds = [key] * 161, [{0: bytes(16), 1: bytes(16), 2: bytes(1168)}] * 161
        self.plain = {0: self.author.link, 1: [5], 2: []}

    def of(self, plain: dict[int, Any], parts: list[Any]) -> int | None:
        return refusal(read_control, self.author.control(17, self.id, cbor.encode(plain), parts=parts))

    def test_body_then_part_keys_then_plain_then_counts(self) -> None:
        malformed = {**self.plain, 1: [6]}
        # A part key that is none, after as many as there may be.
        self.assertEqual(self.of(malformed, [*self.parts, {0: bytes(15), 1: bytes(1168)}]), CONTROL_MALFORMED)
        self.assertEqual(self.of(malformed, self.parts), LIMIT_REACHED)
        self.assertEqual(self.of({**malformed, 2: self.seeds}, self.parts[1:]), CONTROL_MALFORMED)
        self.assertEqual(self.of({**self.plain, 2: self.seeds}, self.parts[1:]), LIMIT_REACHED)
        self.assertIsNone(self.of({**self.plain, 2: self.seeds[1:]}, self.parts[1:]))


class Continued(unittest.TestCase):
    """A5's order."""

    def setUp(self) -> None:
        self.patient, self.group = secret("patient"), secret("group").public
        self.author = Author(self.patient)
        self.submit(b"\xe1")
        self.covering, self.revoked, self.unknown = self.grant("covering"), self.grant("revoked"), b"\x09" * 32
        plain = cbor.encode({0: self.author.link, 1: self.revoked, 2: [0]})
        self.author.submit(self.patient, [self.author.control(19, self.patient.public.id, plain)])

    def grant(self, name: str) -> bytes:
        event = self.author.grant(secret(name).public, READ, EPOCH)
        self.author.submit(self.patient, [event])
        return event.id

    def submit(self, first: bytes, continues: list[bytes] | None = None, superseded: bytes | None = None) -> None:
        event = self.author.epoch(first * 16, self.group, continues=continues, superseded=superseded)
        self.author.submit(self.patient, [event])

    def test_what_a5_asks_of_all_before_grant_by_grant(self) -> None:
        unknown, covering, revoked = self.unknown, self.covering, self.revoked
        for first, continues, superseded, expected in (
            (b"\xe1", [unknown], EPOCH, CONTROL_MALFORMED),
            (b"\x00", [unknown], EPOCH, CONTROL_MALFORMED),
            (b"\xe2", [unknown], b"\xee" * 16, CONTROL_MALFORMED),
            (b"\xe2", [unknown, unknown], EPOCH, CONTROL_MALFORMED),
            (b"\xe2", [unknown, covering, covering], EPOCH, CONTROL_MALFORMED),
            (b"\xe2", [unknown, revoked], EPOCH, GRANT_UNKNOWN),
            (b"\xe2", [revoked, unknown], EPOCH, CONTROL_MALFORMED),
            (b"\xe2", [covering, unknown], EPOCH, GRANT_UNKNOWN),
            (b"\xe2", [covering, unknown], None, CONTROL_MALFORMED),
            (b"\xe2", [covering], EPOCH, None),
        ):
            with self.subTest(continues=continues, superseded=superseded):
                self.assertEqual(refusal(self.submit, first, continues, superseded), expected)


if __name__ == "__main__":
    unittest.main()
