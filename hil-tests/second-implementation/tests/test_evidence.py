"""Evidence: what the kit's files do not have, and what is proved by whom."""

from __future__ import annotations

import unittest
from typing import Any

from ehe2 import cbor
from ehe2.evidence import Evidence, Judged, judge_evidence, read_contradiction
from ehe2.ids import ZERO32
from ehe2.limits import CONTRADICTION_MAX_BYTES, EVIDENCE_MAX_BYTES, PROOF_HASHES_MAX
from ehe2.log import root_of
from ehe2.refused import Refused

from .alliance import Alliance, consistency, leaves

LESS, MORE = sorted([root_of(leaves(5)), root_of(leaves(5, "other"))])


class Case(unittest.TestCase):
    def setUp(self) -> None:
        self.alliance = Alliance()

    def judged(self, *contradiction: Any, alliance: Alliance | None = None) -> Judged:
        return judge_evidence(cbor.encode({0: (alliance or self.alliance).chain, 1: list(contradiction)}))

    def refused(self, *contradiction: Any, alliance: Alliance | None = None) -> None:
        with self.assertRaises(Refused):
            self.judged(*contradiction, alliance=alliance)

    def two_roots(self, first: dict[str, Any], second: dict[str, Any], alliance: Alliance | None = None) -> Judged:
        alliance = alliance or self.alliance
        return self.judged(1, alliance.note(5, LESS, **first), alliance.note(5, MORE, **second), alliance=alliance)


class Findings(Case):
    """What evidence proves: nobody is accused who did not sign."""

    def ids(self, *numbers: int) -> list[bytes]:
        return [self.alliance.node_id(number) for number in numbers]

    def test_culprits_come_in_the_order_of_the_group_accused_ascending(self) -> None:
        judged = self.two_roots({}, {"cosigned": (0, 1, 2)})
        self.assertEqual((judged.finding, judged.culprits, judged.accused), ("signed both", self.ids(0, 1), self.ids(1, 0)))
        self.assertEqual(judged.second.ids, self.ids(0, 1, 2))

    def test_who_only_ordered_signed(self) -> None:
        judged = self.two_roots({"ordered": (2,), "cosigned": ()}, {"ordered": (), "cosigned": (2,)})
        self.assertEqual((judged.finding, judged.accused), ("signed both", self.ids(2)))
        self.assertFalse(judged.first.stands or judged.second.stands)

    def test_all_who_ordered_are_signers(self) -> None:
        judged = self.two_roots({"ordered": (1, 0), "cosigned": ()}, {"ordered": (2,), "cosigned": ()})
        self.assertEqual((judged.finding, judged.first.ids), ("sides", self.ids(0, 1)))
        self.assertEqual(judged.accused, self.ids(2, 1, 0))

    def test_a_quorum_that_nobody_ordered_does_not_stand(self) -> None:
        judged = self.two_roots({"ordered": ()}, {"ordered": (), "cosigned": (2,)})
        self.assertEqual((judged.finding, judged.accused), ("sides", self.ids(2, 1, 0)))

    def test_against_a_quorum_on_either_side(self) -> None:
        alone = {"ordered": (), "cosigned": (2,)}
        for first, second in (({}, alone), (alone, {})):
            judged = self.two_roots(first, second)
            self.assertEqual((judged.finding, judged.culprits, judged.accused), ("against quorum", [], self.ids(2)))

    def test_two_quorums_of_which_nobody_is_shown_to_have_signed_both(self) -> None:
        alliance = Alliance(2, rekeyed=(1,))
        judged = self.two_roots({}, {"ordered": (2,), "cosigned": (1, 2), "version": 2}, alliance)
        self.assertEqual((judged.finding, judged.culprits, judged.accused), ("two quorums", [], self.ids(2, 1, 0)))

    def test_an_id_with_one_key_under_two_charters(self) -> None:
        alliance = Alliance(2, rekeyed=(1,))
        judged = self.two_roots({}, {"version": 2}, alliance)
        self.assertEqual((judged.finding, judged.accused), ("signed both", self.ids(0)))

    def test_a_key_under_two_ids_is_of_two_nodes(self) -> None:
        alliance = Alliance(2, renamed=(2,))
        judged = self.two_roots({}, {"ordered": (), "cosigned": (2,), "version": 2}, alliance)
        self.assertEqual((judged.finding, judged.accused), ("against quorum", [alliance.node_id(2, version=2)]))
        alone = {"ordered": (), "cosigned": (2,)}
        judged = self.two_roots(alone, alone | {"version": 2}, alliance)
        self.assertEqual((judged.finding, judged.culprits), ("sides", []))
        self.assertEqual(judged.accused, [alliance.node_id(2), alliance.node_id(2, version=2)])

    def test_the_other_shard_and_a_later_incarnation(self) -> None:
        other = {"shard": 0, "incarnation": 7}
        judged = self.two_roots(other, other)
        self.assertEqual((judged.first.said.shard, judged.first.said.incarnation), (0, 7))
        self.assertEqual(judged.alliance_id, self.alliance.id)


class Refusals(Case):
    def test_forms_of_a_contradiction(self) -> None:
        self.assertEqual(read_contradiction([1, "a", "b"]).first, "a")
        self.assertEqual(read_contradiction([2, "a", "b", ZERO32, []]).proof, [])
        for wrong in ([], [1], [1, "a", "b", ZERO32, []], [2, "a", "b"], [2, "a", "b", ZERO32], [2, "a", "b", bytes(31), []],
                      [2, "a", "b", ZERO32, [b""]], [0, "a", "b"], [3, "a", "b"], [True, "a", "b"], [1, "a", b"b"], {0: 1}):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_contradiction(wrong)

    def test_the_limit_is_the_files(self) -> None:
        def encoded(chain_bytes: int) -> bytes:
            return cbor.encode({0: bytes(chain_bytes), 1: [1, "", ""]})

        most = EVIDENCE_MAX_BYTES - len(encoded(0x10000)) + 0x10000
        self.assertEqual(len(Evidence.decode(encoded(most), EVIDENCE_MAX_BYTES).chain), most)
        with self.assertRaises(Refused) as caught:
            judge_evidence(encoded(most + 1))
        self.assertIn(str(EVIDENCE_MAX_BYTES), caught.exception.reason)

    def test_the_limit_of_a_contradiction(self) -> None:
        most = CONTRADICTION_MAX_BYTES - len(cbor.encode([1, "x" * 0x8000, ""])) + 0x8000
        self.assertEqual(len(read_contradiction([1, "x" * most, ""]).first), most)
        with self.assertRaises(Refused) as caught:
            read_contradiction([1, "x" * (most + 1), ""])
        self.assertIn(str(CONTRADICTION_MAX_BYTES), caught.exception.reason)

    def test_a_shard_that_there_is_not(self) -> None:
        self.refused(1, self.alliance.note(5, LESS, shard=2), self.alliance.note(5, MORE, shard=2))

    def test_charters_up_to_the_later_one(self) -> None:
        alliance = Alliance(2)
        for versions, right in (((1, 2), True), ((2, 1), True), ((2, 2), True), ((1, 1), False), ((0, 2), False), ((2, 3), False)):
            first, second = (alliance.note(5, root, version=v) for root, v in zip((LESS, MORE), versions))
            with self.subTest(versions):
                if right:
                    self.judged(1, first, second, alliance=alliance)
                else:
                    self.refused(1, first, second, alliance=alliance)

    def test_a_quorum_is_asked_for_nowhere_but_somebody(self) -> None:
        alone = self.alliance.note(5, MORE, ordered=(), cosigned=(2,))
        self.judged(1, self.alliance.note(5, LESS), alone)
        # A note has a line at least: one of the group's under the key that it gets only later is a stranger's.
        stranger = Alliance(2, rekeyed=(2,)).note(5, MORE, ordered=(), cosigned=(2,), version=2)
        self.refused(1, self.alliance.note(5, LESS), stranger)

    def test_another_beginning(self) -> None:
        large = leaves(12)
        small, prefix = self.alliance.note(5, root_of(leaves(5, "other"))), root_of(large[:5])
        larger = self.alliance.note(12, root_of(large))
        proof = consistency(5, large)
        self.assertEqual(self.judged(2, small, larger, prefix, proof).second.said.size, 12)
        self.refused(2, small, larger, prefix, proof[:-1])
        self.refused(2, small, larger, prefix, [ZERO32] * (PROOF_HASHES_MAX + 1))
        self.refused(2, larger, small, prefix, proof)
        self.refused(2, self.alliance.note(5, prefix), larger, prefix, proof)

    def test_no_leaves_have_one_root(self) -> None:
        nothing = root_of([])
        larger = self.alliance.note(12, root_of(leaves(12)))
        self.judged(2, self.alliance.note(0, ZERO32), larger, nothing, [])
        self.refused(2, self.alliance.note(0, ZERO32), larger, MORE, [])
        self.refused(2, self.alliance.note(0, nothing), larger, nothing, [])


if __name__ == "__main__":
    unittest.main()
