"""C2: the charter under which a checkpoint has to stand while a shard moves."""

from __future__ import annotations

import unittest
from typing import Any

from ehe2 import cbor
from ehe2.charter import at_hand, verify_charters
from ehe2.ids import ZERO32
from ehe2.limits import FRAME_MAX_BYTES
from ehe2.log import Head, VerifiedHead, leaf_hash, verify_head
from ehe2.refused import Refused

from .alliance import Alliance
from .author import sign

# Of shard 1 of 2.
ROOM = bytes(7) + b"\x01" + bytes(8)
NONCE = b"\x0c" * 16
ALL = (0, 1, 2)


class AtHand(unittest.TestCase):
    def head(self, alliance: Alliance, version: int, signer: int = 1, signed_under: int | None = None) -> Head:
        """Of a log of one leaf, under a charter, signed by a node as another charter may have it."""
        leaf = {0: ROOM, 1: 0, 2: ZERO32, 3: ZERO32, 4: 7, 5: 1}
        hash_ = leaf_hash(cbor.encode(leaf))
        statement = cbor.encode({0: ROOM, 1: hash_, 2: 1, 3: 9, 4: NONCE})
        signature = sign(alliance.node(signer, signed_under or version), "head", statement)
        receipt = {0: leaf, 1: 0, 2: [], 3: alliance.note(1, hash_, version=version)}
        return Head.decode(cbor.encode({0: receipt, 1: NONCE, 2: 9, 3: signature}), FRAME_MAX_BYTES)

    def verified(self, alliance: Alliance, *args: Any, seen: int = 0, **changes: Any) -> VerifiedHead:
        charters = verify_charters(alliance.chain, alliance.id)
        return verify_head(self.head(alliance, *args, **changes), ROOM, NONCE, charters, seen)

    def refused(self, alliance: Alliance, *args: Any, **changes: Any) -> None:
        with self.assertRaises(Refused):
            self.verified(alliance, *args, **changes)

    def test_a_head_of_the_group_before(self) -> None:
        moved = Alliance(2, rekeyed=ALL, renamed=ALL)
        for version in (1, 2):
            self.assertEqual(self.verified(moved, version).checkpoint.charter_version, version)
        # Who signs the head is of the group of the charter that the checkpoint stands under.
        self.refused(moved, 1, signed_under=2)
        self.refused(moved, 2, signed_under=1)

    def test_one_new_node_makes_it_another_group(self) -> None:
        self.verified(Alliance(2, renamed=(2,)), 1)

    def test_the_same_nodes_are_asked_for_the_newest(self) -> None:
        self.verified(Alliance(2), 2)
        self.refused(Alliance(2), 1)
        # Another key makes no other node.
        self.refused(Alliance(2, rekeyed=ALL), 1)

    def test_not_under_an_earlier_one_than_the_log_was_seen_under(self) -> None:
        moved = Alliance(3, renamed=ALL)
        self.verified(moved, 1, seen=1)
        self.refused(moved, 1, seen=2)
        # Charter 2 has the newest one's nodes.
        self.refused(moved, 2)

    def test_of_a_version_that_there_is_not_the_newest_is_asked(self) -> None:
        moved = Alliance(2, renamed=ALL)
        charters = verify_charters(moved.chain, moved.id)
        for version in (0, 2, 3):
            self.assertEqual(at_hand(charters, 1, version).version, 2)


if __name__ == "__main__":
    unittest.main()
