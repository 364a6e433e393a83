"""L4: of two checkpoints of one origin the larger one extends the smaller one, or both are evidence."""

from __future__ import annotations

import unittest

from ehe2 import cbor
from ehe2.charter import verify_charters
from ehe2.evidence import Contradiction, judge_evidence
from ehe2.goes_on import Extends, check_goes_on
from ehe2.ids import ZERO32
from ehe2.ledger import _goes_on_lines
from ehe2.limits import PROOF_HASHES_MAX
from ehe2.log import root_of
from ehe2.refused import Refused

from .alliance import Alliance, consistency, leaves

LEAVES = leaves(12)
OTHER = leaves(5, "other")


class GoesOn(unittest.TestCase):
    def setUp(self) -> None:
        self.alliance = Alliance()

    def note(self, of: list[bytes], shard: int = 1, incarnation: int = 0) -> str:
        return self.alliance.note(len(of), root_of(of), shard=shard, incarnation=incarnation)

    def extends(self, size: int) -> Extends:
        """What a node answers whose log has these leaves."""
        return Extends(root_of(LEAVES[:size]), consistency(size, LEAVES))

    def refused(self, one: str, other: str, answer: Extends | None) -> None:
        with self.assertRaises(Refused):
            check_goes_on(one, other, answer)

    def judged(self, contradiction: Contradiction | None) -> str:
        assert contradiction is not None
        members = [contradiction.form, contradiction.first, contradiction.second]
        if contradiction.prefix is not None:
            members += [contradiction.prefix, contradiction.proof]
        return judge_evidence(cbor.encode({0: self.alliance.chain, 1: members})).finding

    def test_a_log_that_goes_on_in_either_order(self) -> None:
        for size in range(12):
            seen, shown = self.note(LEAVES[:size]), self.note(LEAVES)
            with self.subTest(size):
                self.assertIsNone(check_goes_on(seen, shown, self.extends(size)))
                # Of a node that lags the same is asked.
                self.assertIsNone(check_goes_on(shown, seen, self.extends(size)))

    def test_one_size_needs_no_answer(self) -> None:
        self.assertIsNone(check_goes_on(self.note(LEAVES), self.note(LEAVES), None))
        for pair in ((LEAVES[:5], OTHER), (OTHER, LEAVES[:5])):
            contradiction = check_goes_on(*map(self.note, pair), None)
            self.assertEqual(self.judged(contradiction), "signed both")

    def test_another_beginning_is_evidence(self) -> None:
        for pair in ((OTHER, LEAVES), (LEAVES, OTHER)):
            contradiction = check_goes_on(*map(self.note, pair), self.extends(5))
            self.assertEqual(self.judged(contradiction), "signed both")

    def test_no_leaves_under_another_root_are_evidence(self) -> None:
        contradiction = check_goes_on(self.alliance.note(0, ZERO32), self.note(LEAVES), self.extends(0))
        self.assertEqual(self.judged(contradiction), "signed both")

    def test_what_does_not_hold_shows_nothing(self) -> None:
        right = self.extends(5)
        for wrong in (None, Extends(ZERO32, right.proof), Extends(right.prefix, right.proof[:-1]), Extends(right.prefix, []),
                      Extends(right.prefix, [ZERO32] * (PROOF_HASHES_MAX + 1)), self.extends(6)):
            for seen in (LEAVES[:5], OTHER):
                with self.subTest((wrong, seen)):
                    self.refused(self.note(seen), self.note(LEAVES), wrong)
        # The root that was remembered, though the node's log does not begin with it.
        self.refused(self.note(OTHER), self.note(LEAVES), Extends(root_of(OTHER), right.proof))

    def test_of_one_origin(self) -> None:
        for other in ({"shard": 0}, {"incarnation": 1}):
            self.refused(self.note(LEAVES[:5], **other), self.note(LEAVES), self.extends(5))

    def test_a_ledger_file_with_what_is_remembered(self) -> None:
        charters = verify_charters(self.alliance.chain, self.alliance.id)

        def lines(remembered: str, shown: str, number: int = 16) -> list[str]:
            right = self.extends(5)
            extends = cbor.encode([number, right.prefix, right.proof]).hex()
            return _goes_on_lines({"checkpoint": remembered, "extends": extends}, shown, charters)

        seen, shown = self.note(LEAVES[:5]), self.note(LEAVES)
        self.assertEqual(lines(seen, shown), ["log: goes on from the 5 leaves remembered"])
        self.assertEqual(lines(shown, seen), ["log: the beginning of the 12 leaves remembered"])
        self.assertEqual(_goes_on_lines({"checkpoint": seen}, seen, charters), lines(seen, shown))
        one_of_three = self.alliance.note(5, root_of(LEAVES[:5]), cosigned=(0,))
        for wrong in ((self.note(OTHER), shown), (one_of_three, shown), (seen, shown, 15), (self.note(LEAVES[:5], shard=0), shown)):
            with self.subTest(wrong), self.assertRaises(Refused):
                lines(*wrong)


if __name__ == "__main__":
    unittest.main()
