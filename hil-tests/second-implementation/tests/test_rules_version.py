"""H6: the rules version that charters put in force; section 15: what a program says that does not know it."""

from __future__ import annotations

import unittest

from ehe2.charter import RULES_KNOWN, verify_charters
from ehe2.ledger import _charter_lines
from ehe2.refused import Refused

from .alliance import Alliance


class RulesVersion(unittest.TestCase):
    def rules(self, versions: int, rules: dict[int, int]) -> list[int]:
        alliance = Alliance(versions, rules=rules)
        return [charter.rules for charter in verify_charters(alliance.chain, alliance.id)]

    def test_it_goes_up_and_stays(self) -> None:
        self.assertEqual(self.rules(3, {}), [1, 1, 1])
        self.assertEqual(self.rules(3, {2: 2, 3: 2}), [1, 2, 2])
        self.assertEqual(self.rules(3, {3: 0xFFFF}), [1, 1, 0xFFFF])

    def test_it_does_not_go_back(self) -> None:
        for rules in ({2: 3, 3: 2}, {2: 2}, {2: 2, 3: 1}):
            with self.subTest(rules), self.assertRaises(Refused):
                self.rules(3, rules)

    def test_where_it_is_not_written(self) -> None:
        for rules in ({1: 1}, {1: 2}, {1: 0}, {2: 0}, {2: 1}):
            with self.subTest(rules), self.assertRaises(Refused):
                self.rules(2, rules)

    def test_who_is_older_than_the_rules_says_so(self) -> None:
        for version in (RULES_KNOWN, RULES_KNOWN + 1):
            alliance = Alliance(2, rules={2: version})
            lines = _charter_lines(verify_charters(alliance.chain, alliance.id)[-1], 2)
            self.assertEqual("this program knows" in lines[0], version > RULES_KNOWN)


if __name__ == "__main__":
    unittest.main()
