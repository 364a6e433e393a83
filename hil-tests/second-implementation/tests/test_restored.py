"""Restored logs: what the kit's files do not have."""

from __future__ import annotations

import unittest
from typing import Any

from ehe2 import cbor
from ehe2.charter import verify_charters
from ehe2.ids import ZERO32, sha256
from ehe2.limits import MEMBERS_MAX, RESTORATION_MAX_BYTES
from ehe2.log import root_of
from ehe2.note import Checkpoint, verify_checkpoint
from ehe2.refused import Refused
from ehe2.restored import Lost, Remembered, Restored, SignedRestoration, follow_restorations, verify_restoration

from .alliance import MEMBERS, Alliance, consistency, leaves
from .author import sign

SHARD = 1
LEAVES = leaves(9)


def record(incarnation: int, kept: int, root: bytes | None = None, version: int = 1, at: int = 5) -> Restored:
    return Restored(ZERO32, SHARD, incarnation, kept, root or root_of(LEAVES[:kept]), kept, version, at)


def shown(incarnation: int, size: int, root: bytes | None = None, version: int = 1) -> Checkpoint:
    return Checkpoint("shown", SHARD, incarnation, size, root or root_of(LEAVES[:size]), version, bytes(8), [])


def remembered(incarnation: int, size: int, version: int = 1) -> Remembered:
    return Remembered(incarnation, size, root_of(LEAVES[:size]), version)


class Records(unittest.TestCase):
    def setUp(self) -> None:
        self.alliance = Alliance(2)
        self.charters = verify_charters(self.alliance.chain, self.alliance.id)

    def restoration(self, kept: int = 5, **changes: Any) -> dict[int, Any]:
        """Of a log whose checkpoint has 8 leaves; a member that is None is left out."""
        made = {0: self.alliance.id, 1: SHARD, 2: 0, 3: kept, 4: root_of(LEAVES[:kept]), 5: consistency(kept, LEAVES[:8]),
                6: self.alliance.note(8, root_of(LEAVES[:8])), 8: 1, 9: ZERO32, 10: 2, 11: 5}
        made |= {int(key[1:]): value for key, value in changes.items()}
        return {key: value for key, value in sorted(made.items()) if value is not None}

    def signed(self, restoration: dict[int, Any], signers: list[Any] = MEMBERS[:2]) -> bytes:
        encoded = cbor.encode(restoration)
        return cbor.encode({0: encoded, 1: [sign(by, "restoration", sha256(encoded)) for by in signers]})

    def verified(self, restoration: dict[int, Any], signers: list[Any] = MEMBERS[:2]) -> Restored:
        return verify_restoration(self.signed(restoration, signers), SHARD, self.charters)

    def refused(self, restoration: dict[int, Any], signers: list[Any] = MEMBERS[:2]) -> None:
        with self.assertRaises(Refused):
            self.verified(restoration, signers)

    def test_how_far_the_lost_log_is_known(self) -> None:
        newest = self.alliance.note(9, root_of(LEAVES))
        self.assertEqual(self.verified(self.restoration()).known, 8)
        self.assertEqual(self.verified(self.restoration(_7=newest)).known, 9)
        nothing = self.restoration(0, _5=[], _6=None)
        self.assertEqual(self.verified(nothing).known, 0)
        self.assertEqual(self.verified(nothing | {7: newest}).known, 9)

    def test_the_newest_checkpoint_of_nothing_is_no_newer_than_none(self) -> None:
        nothing = self.restoration(0, _5=[], _6=None)
        self.refused(nothing | {7: self.alliance.note(0, root_of([]))})

    def test_the_log_that_begins(self) -> None:
        note = self.alliance.note(8, root_of(LEAVES[:8]), incarnation=2**32 - 2)
        begun = self.verified(self.restoration(_2=2**32 - 2, _6=note))
        self.assertEqual(begun.origin, f"ehe/{self.alliance.id[:16].hex()}/1/{2**32 - 1}")
        note = self.alliance.note(8, root_of(LEAVES[:8]), incarnation=2**32 - 1)
        self.refused(self.restoration(_2=2**32 - 1, _6=note))

    def test_checkpoints_of_this_log_under_charters_not_above(self) -> None:
        root = root_of(LEAVES)
        for member in ("_6", "_7"):
            for changes, right in (({}, True), ({"version": 2}, True), ({"shard": 0}, False), ({"incarnation": 1}, False),
                                   ({"ordered": ()}, False), ({"cosigned": (0,)}, False)):
                note = self.alliance.note(9, root, **changes)
                restoration = self.restoration(**({"_5": consistency(5, LEAVES)} if member == "_6" else {}), **{member: note})
                with self.subTest((member, changes)):
                    if right:
                        self.verified(restoration)
                    else:
                        self.refused(restoration)
                    if changes == {"version": 2}:
                        self.refused(restoration | {10: 1})

    def test_members_of_a_form(self) -> None:
        for wrong in ({"_1": 1 << 16}, {"_2": 1 << 32}, {"_4": bytes(31)}, {"_5": [b""]}, {"_6": b"note"}, {"_8": -1},
                      {"_9": None}, {"_10": 1 << 32}, {"_12": 0}):
            with self.subTest(wrong):
                self.refused(self.restoration(**wrong))

    def test_charter_0_is_none(self) -> None:
        self.refused(self.restoration(_10=0))

    def test_too_many_signatures_are_well_formed_and_refused(self) -> None:
        self.verified(self.restoration(), [*MEMBERS] + [MEMBERS[0]] * (MEMBERS_MAX - 3))
        many = self.signed(self.restoration(), [*MEMBERS] + [MEMBERS[0]] * (MEMBERS_MAX - 2))
        self.assertEqual(len(SignedRestoration.decode(many, RESTORATION_MAX_BYTES).signatures), MEMBERS_MAX + 1)
        with self.assertRaises(Refused):
            verify_restoration(many, SHARD, self.charters)

    def test_a_signature_that_is_too_long_refuses_the_whole(self) -> None:
        signed = cbor.decode(self.signed(self.restoration()), RESTORATION_MAX_BYTES)
        for wrong in (b"", bytes(257)):
            with self.assertRaises(Refused):
                verify_restoration(cbor.encode(signed | {1: [*signed[1], wrong]}), SHARD, self.charters)

    def test_from_a_record_to_a_log_of_its_group(self) -> None:
        restored = self.verified(self.restoration(5))
        note = self.alliance.note(9, root_of(LEAVES), incarnation=1, version=2)
        kept, lost = follow_restorations([restored], remembered(0, 7), verify_checkpoint(note.encode(), SHARD, self.charters[-1]))
        self.assertEqual((kept, lost), (remembered(1, 5, version=2), [Lost(0, 5, 7)]))


class Following(unittest.TestCase):
    """N5, N6."""

    def refused(self, records: list[Restored], of: Remembered, log: Checkpoint) -> None:
        with self.assertRaises(Refused):
            follow_restorations(records, of, log)

    def test_without_a_record_the_log_is_the_one_that_is_remembered(self) -> None:
        self.assertEqual(follow_restorations([], remembered(3, 5), shown(3, 5)), (remembered(3, 5), []))
        self.assertEqual(follow_restorations([], remembered(3, 5), shown(3, 6)), (remembered(3, 5), []))
        self.refused([], remembered(3, 5), shown(3, 4))
        self.refused([], remembered(3, 5), shown(3, 5, ZERO32))
        for incarnation in (2, 4):
            self.refused([], remembered(3, 5), shown(incarnation, 6))

    def test_what_is_lost_twice(self) -> None:
        records = [record(0, 6), record(1, 8), record(2, 4)]
        found = follow_restorations(records, remembered(0, 9), shown(3, 4))
        self.assertEqual(found, (remembered(3, 4), [Lost(0, 6, 9), Lost(2, 4, 6)]))

    def test_what_was_kept_counts_from_there_on(self) -> None:
        self.refused([record(0, 6), record(1, 6, ZERO32)], remembered(0, 9), shown(2, 9))
        # More was kept than is remembered: nothing of that can be compared.
        found = follow_restorations([record(0, 6), record(1, 8, ZERO32)], remembered(0, 5), shown(2, 9))
        self.assertEqual(found, (remembered(2, 5), []))

    def test_nothing_was_kept(self) -> None:
        self.assertEqual(follow_restorations([record(0, 0)], remembered(0, 5), shown(1, 0)), (remembered(1, 0), [Lost(0, 0, 5)]))
        self.assertEqual(follow_restorations([record(0, 0)], remembered(0, 0), shown(1, 0)), (remembered(1, 0), []))

    def test_the_log_shown_has_what_the_last_record_kept(self) -> None:
        records = [record(0, 8)]
        self.refused(records, remembered(0, 5), shown(1, 7))
        self.refused(records, remembered(0, 5), shown(1, 8, ZERO32))
        self.assertEqual(follow_restorations(records, remembered(0, 5), shown(1, 8)), (remembered(1, 5), []))

    def test_neither_charter_nor_time_goes_back(self) -> None:
        for later, right in ((record(1, 5), True), (record(1, 5, version=2, at=6), True), (record(1, 5, at=4), False),
                             (record(1, 5, version=0), False)):
            with self.subTest(later):
                if right:
                    follow_restorations([record(0, 5), later], remembered(0, 5), shown(2, 5))
                else:
                    self.refused([record(0, 5), later], remembered(0, 5), shown(2, 5))

    def test_not_under_an_earlier_charter_than_what_is_remembered(self) -> None:
        for version, right in ((1, False), (2, True), (3, True)):
            records = [record(0, 5, version=version), record(1, 5, version=3)]
            with self.subTest(version):
                if right:
                    found = follow_restorations(records, remembered(0, 5, version=2), shown(2, 5, version=3))
                    self.assertEqual(found, (remembered(2, 5, version=3), []))
                else:
                    self.refused(records, remembered(0, 5, version=2), shown(2, 5, version=3))

    def test_a_record_of_what_is_behind_is_one_too_many(self) -> None:
        self.refused([record(0, 5), record(1, 5)], remembered(1, 5), shown(2, 5))


if __name__ == "__main__":
    unittest.main()
