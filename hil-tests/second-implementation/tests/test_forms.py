"""Forms that the kit's valid files do not have, and the runner itself."""

from __future__ import annotations

import base64
import tracemalloc
import unittest
import zlib

from ehe2 import cbor, characters, columns, recovery
from ehe2.charter import CharterRecord, SignedCharter, check_address, read_chain, read_placement
from ehe2.control import READ, Grant, Private, read_change
from ehe2.event import check_event, version_of
from ehe2.identity import PublicIdentity
from ehe2.kit import judge_case
from ehe2.limits import (CONTROL_BODY_MAX_BYTES, HEADER_MAX_BYTES, RUN_MAX_BYTES,
                         SUBMISSION_MAX_BYTES)
from ehe2.octets import UNPACKED_MAX_BYTES, KitError, as_octets
from ehe2.refused import EVENT_MALFORMED, FRAME_MALFORMED, ROOM_UNKNOWN, Refused
from ehe2.run import SeenCheckpoint
from ehe2.shard import Shard
from ehe2.vitals import Reading
from ehe2.wire import Status, read_frame, read_message


class Encoding(unittest.TestCase):
    def test_every_head_at_its_edges(self) -> None:
        for number in (0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -(2**64)):
            self.assertEqual(cbor.decode(cbor.encode(number), 9), number)

    def test_what_e1_forbids(self) -> None:
        for hex_ in ("", "1800", "1817", "190000", "1900ff", "1b00000000ffffffff", "1c", "1f", "5800", "9800", "b800", "ff",
                     "f6", "f7", "f97e00", "f814", "c000", "9f00ff", "a2010000", "a2000000", "a16100", "62c328", "82"):
            with self.subTest(hex_), self.assertRaises(Refused):
                cbor.decode(bytes.fromhex(hex_), 16)

    def test_a_claimed_length_takes_no_memory(self) -> None:
        for head in ("9b7fffffffffffffff", "bb7fffffffffffffff", "5b7fffffffffffffff"):
            with self.assertRaises(Refused):
                cbor.decode(bytes.fromhex(head), 16)

    def test_nesting_ends(self) -> None:
        with self.assertRaises(Refused):
            cbor.decode(b"\x81" * 5000 + b"\x00", 6000)

    def test_true_is_not_1(self) -> None:
        with self.assertRaises(Refused):
            PublicIdentity.read({False: bytes(32), 1: True})


class Versions(unittest.TestCase):
    """V1: what the headers of all versions have in common."""

    def test_of_any_version_whatever_follows(self) -> None:
        for hex_, version in (("a100a10000", 0), ("a100a10001", 1), ("a100a10002", 2), ("b700b70017", 23), ("a300a9001818", 24),
                              ("a300a900181901020304", 25), ("a200a2001bffffffffffffffff", 2**64 - 1), ("a100a10002ff", 2)):
            with self.subTest(hex_):
                self.assertEqual(version_of(bytes.fromhex(hex_)), version)

    def test_what_does_not_begin_as_a_header(self) -> None:
        for hex_ in ("", "a1", "a100a100", "a000a10002", "b800a10002", "b80100a10002", "a101a10002", "a100a00002",
                     "a100b80002", "a100a10102", "a1001800a10002", "a100a1001802", "a100a100190018", "a100a10018",
                     "a100a10020", "a100a10041", "8100a10002", "a1008100", "a100a1001b00000000ffffffff"):
            with self.subTest(hex_), self.assertRaises(Refused) as caught:
                version_of(bytes.fromhex(hex_))
            self.assertEqual(caught.exception.code, EVENT_MALFORMED)

    def test_a_header_has_its_limit_in_every_version(self) -> None:
        self.assertEqual(version_of(bytes.fromhex("a100a10002").ljust(HEADER_MAX_BYTES)), 2)
        with self.assertRaises(Refused):
            version_of(bytes.fromhex("a100a10002").ljust(HEADER_MAX_BYTES + 1))

    def test_a_node_refuses_what_it_does_not_know(self) -> None:
        with self.assertRaises(Refused) as caught:
            check_event(bytes.fromhex("a100a10002"), b"")
        self.assertEqual(caught.exception.code, EVENT_MALFORMED)


class Charters(unittest.TestCase):
    def test_both_placements(self) -> None:
        a, b = b"\x0a" * 8, b"\x0b" * 8
        self.assertEqual(read_placement([0, [[a]]]).groups, [[a]])
        self.assertEqual(read_placement([1, [[[a], [b]]]]).groups, [[a], [b]])
        for wrong in ([0, [[a], [b]]], [1, [[a], [b]]], [2, [[a]]], [0, []]):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_placement(wrong)

    def test_addresses(self) -> None:
        long = ".".join(["a" * 63] * 3 + ["b" * 61])
        for good in ("node-a.example:4433", "192.0.2.1:1", "999.1.1.1:1", "[2001:DB8::1]:65535", "[::ffff:192.0.2.1]:1",
                     f"{long}:65535"):
            check_address(good)
        for bad in ("node.example:0443", "node.example:65536", "2001:db8::1:1", "[fe80::1%eth0]:1", ":1", "A.example:1",
                    "a..b:1", "a b:1", "[192.0.2.1]:1", f"{long}b:1"):
            with self.subTest(bad), self.assertRaises(Refused):
                check_address(bad)


class Characters(unittest.TestCase):
    def test_white_space_is_unicodes(self) -> None:
        self.assertEqual(characters.without_white_space("a\u00a0b\u0085 \u3000c"), "abc")
        # `str.split` would take these out.
        self.assertEqual(characters.without_white_space("a\x1cb"), "a\x1cb")
        self.assertTrue(characters.has_control("a\x1c") and characters.has_control("\u0085"))

    def test_these_25_and_no_others(self) -> None:
        self.assertEqual(len(characters.WHITE_SPACE), 25)
        for c in "\x1c\x1f\u180e\u200b\ufeff":
            self.assertNotIn(c, characters.WHITE_SPACE)

    def test_controls_are_cc(self) -> None:
        controls = [c for c in map(chr, range(0x110000)) if characters.has_control(c)]
        self.assertEqual(controls, [chr(c) for c in (*range(0x20), *range(0x7F, 0xA0))])

    def test_a_recovery_key_is_read_from_512_bytes_at_most(self) -> None:
        key = bytes(range(32))
        printed = recovery.print_key(key)
        self.assertEqual(recovery.read_key(printed.ljust(512)), key)
        for wrong in (printed.ljust(513), printed.replace(" ", "\x1c")):
            with self.subTest(wrong), self.assertRaises(Refused):
                recovery.read_key(wrong)


class Counts(unittest.TestCase):
    """Counts and lengths of section 13 are judged where the rules are, rights in the form."""

    NODE = {0: bytes(8), 1: bytes(8), 2: "n" * 129, 3: bytes(32), 4: ["a" * 260] * 5}
    CHARTER = {0: 0, 1: "x" * 201, 3: 1, 4: [], 5: [NODE], 6: [0, [[]]], 7: {0: 15, 1: 0, 2: 0}, 8: 0, 9: 0}

    def test_texts_have_their_form_at_any_length(self) -> None:
        self.assertEqual(CharterRecord.read(self.CHARTER).nodes[0].addresses[4], "a" * 260)
        self.assertEqual(Private.read({0: [], 1: "x" * 201}).purpose, "x" * 201)
        self.assertEqual(len(SeenCheckpoint.read({0: "x" * 129, 1: 0, 2: bytes(32)}).origin), 129)

    def test_numbers_without_a_meaning(self) -> None:
        for wrong in ({3: 0}, {3: 1 << 16}, {7: {0: 16, 1: 0, 2: 0}}, {9: 1 << 16}, {0: 1 << 32}):
            with self.subTest(wrong), self.assertRaises(Refused):
                CharterRecord.read(self.CHARTER | wrong)

    def test_signatures_of_a_charter(self) -> None:
        for good in ([], [b""] * 128, [bytes(257)]):
            self.assertEqual(SignedCharter.read({0: b"", 1: good}).signatures, good)
        with self.assertRaises(Refused):
            SignedCharter.read({0: b"", 1: [b""] * 129})

    def test_versions_of_a_chain(self) -> None:
        for good in ([], [b""] * 256):
            self.assertEqual(read_chain(cbor.encode(good)), good)
        with self.assertRaises(Refused):
            read_chain(cbor.encode([b""] * 257))

    def test_what_bytes_hold_is_judged_where_it_is_used(self) -> None:
        event = {0: bytes(HEADER_MAX_BYTES + 1), 1: bytes(CONTROL_BODY_MAX_BYTES + 1)}
        message = cbor.encode([1, {0: bytes(RUN_MAX_BYTES + 1), 1: [event]}])
        self.assertEqual(read_frame(len(message).to_bytes(4, "big") + message, "request"), 1)
        with self.assertRaises(Refused) as caught:
            check_event(event[0], event[1])
        self.assertEqual(caught.exception.code, EVENT_MALFORMED)

    def test_a_submission_has_its_own_limit_in_a_frame(self) -> None:
        def submit(run_bytes: int) -> bytes:
            message = cbor.encode([1, {0: bytes(run_bytes), 1: []}])
            return len(message).to_bytes(4, "big") + message

        # A map of two, its keys, the byte string's head and an empty array.
        most = SUBMISSION_MAX_BYTES - (1 + 1 + 5 + 1 + 1)
        self.assertEqual(read_frame(submit(most), "request"), 1)
        with self.assertRaises(Refused) as caught:
            read_frame(submit(most + 1), "request")
        self.assertEqual(caught.exception.code, FRAME_MALFORMED)

    def test_rooms_of_an_answer(self) -> None:
        room = {0: bytes(16), 1: bytes(16), 2: [], 3: 0}
        self.assertEqual(read_message([7, [room] * 1025], "response"), 7)

    def test_charters_are_asked_for_from_a_version_on(self) -> None:
        for version in (0, 1, 2**32 - 1):
            self.assertEqual(read_message([6, version], "request"), 6)
        for wrong in ([6], [6, -1], [6, 1 << 32], [6, 1, 1], [6, "1"]):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_message(wrong, "request")

    def test_evidence_that_a_node_keeps(self) -> None:
        for number in (0, 2**32 - 1):
            self.assertEqual(read_message([9, number], "request"), 9)
            for evidence in (b"", b"any"):
                self.assertEqual(read_message([12, number, evidence], "response"), 12)
        for direction, wrong in (("request", [9]), ("request", [9, -1]), ("request", [9, 1 << 32]), ("request", [9, 0, 0]),
                                 ("response", [12, 0]), ("response", [12, 1 << 32, b""]), ("response", [12, b""]),
                                 ("response", [12, 0, ""])):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_message(wrong, direction)

    def test_a_status_counts_evidence_or_leaves_it_out(self) -> None:
        status = {0: bytes(8), 1: "program", 2: 1, 3: [], 4: 0}
        self.assertIsNone(Status.read(status).evidence)
        for good in (1, 2**32 - 1):
            self.assertEqual(Status.read(status | {6: good}).evidence, good)
        for wrong in (0, 1 << 32, None, True):
            with self.subTest(wrong), self.assertRaises(Refused):
                Status.read(status | {6: wrong})

    def test_a_status_tells_of_shards_that_moved_away(self) -> None:
        status = {0: bytes(8), 1: "program", 2: 1, 3: [], 4: 0}
        moved = {0: 0xFFFF, 1: 2**64 - 1, 2: ""}
        self.assertIsNone(Status.read(status).moved)
        for good in ([moved], [moved] * 1025, []):
            self.assertEqual(len(Status.read(status | {8: good}).moved or []), len(good))
        for wrong in (None, moved, [moved | {0: 1 << 16}], [moved | {1: -1}], [moved | {2: b""}], [moved | {3: 0}],
                      [{0: 1, 1: 1}]):
            with self.subTest(wrong), self.assertRaises(Refused):
                Status.read(status | {8: wrong})

    def test_a_status_may_bring_empty_arrays(self) -> None:
        status = Status.read({0: bytes(8), 1: "program", 2: 1, 3: [], 4: 0, 5: [], 7: [], 8: []})
        self.assertEqual((status.shards, status.groups, status.scrub, status.moved), ([], [], [], []))

    def test_a_status_tells_of_rules_versions(self) -> None:
        status = {0: bytes(8), 1: "program", 2: 1, 3: [], 4: 0}
        node = {0: bytes(8), 1: True, 4: False}
        group = {0: 0, 1: 1, 3: [node]}
        read = Status.read(status | {5: [group]}).groups
        assert read is not None
        self.assertEqual((read[0].rules, read[0].nodes[0].knows_rules), (None, None))
        for number in (0, 1, 2, 0xFFFF):
            read = Status.read(status | {5: [group | {3: [node | {5: number}], 5: number}]}).groups
            assert read is not None
            self.assertEqual((read[0].rules, read[0].nodes[0].knows_rules), (number, number))
        for wrong in (1 << 16, -1, None, True):
            for changed in (group | {5: wrong}, group | {3: [node | {5: wrong}]}):
                with self.subTest(changed), self.assertRaises(Refused):
                    Status.read(status | {5: [changed]})

    def test_an_item_of_a_void_record_has_its_form_whatever_that_holds(self) -> None:
        leaf = {0: bytes(16), 1: 0, 2: bytes(32), 3: bytes(32), 4: 0, 5: 0}
        for record in (b"", bytes(9281)):
            self.assertEqual(read_message([5, {0: leaf, 2: [], 4: record}], "response"), 5)
        for wrong in ({4: None}, {4: {}}, {5: b""}):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_message([5, {0: leaf, 2: [], **wrong}], "response")

    def test_how_a_log_goes_on(self) -> None:
        # A smaller size that is larger is refused by the node that is asked, with the same number.
        for sizes in ((0, 0), (0, 2**64 - 1), (2**64 - 1, 0)):
            self.assertEqual(read_message([16, 0xFFFF, *sizes], "request"), 16)
        for wrong in ([16, 0, 1], [16, 1 << 16, 0, 1], [16, 0, -1, 1], [16, 0, 1, 1 << 64], [16, 0, 1, 2, 3]):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_message(wrong, "request")
        for hashes in ([], [bytes(32)], [bytes(32)] * 65):
            self.assertEqual(read_message([16, bytes(32), hashes], "response"), 16)
        for wrong in ([16, bytes(32)], [16, bytes(31), []], [16, bytes(32), [bytes(33)]], [16, bytes(32), bytes(32)],
                      [16, bytes(32), [], 0]):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_message(wrong, "response")

    def test_records_of_restored_logs_are_asked_for_by_shard_and_incarnation(self) -> None:
        self.assertEqual(read_message([12, 0xFFFF, 0xFFFFFFFF], "request"), 12)
        self.assertEqual(read_message([15, [b"", b"any"]], "response"), 15)
        for wrong in ([12, 1 << 16, 0], [12, 0, 1 << 32], [12, 0], [15, []]):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_message(wrong, "request")

    def test_a_grant_of_many_epochs_has_its_form(self) -> None:
        identity = {0: bytes(32), 1: bytes(1216)}
        plain = {0: {0: 1, 1: bytes(32)}, 1: identity, 2: 1, 3: [bytes(16)] * 65, 7: []}
        self.assertEqual(len(Grant.read(plain).epochs), 65)

    def test_rights(self) -> None:
        identity = {0: bytes(32), 1: bytes(1216)}
        self.assertEqual(read_change([1, identity, 7]).rights, 7)
        for wrong in (0, 8, 0x10001):
            with self.subTest(wrong), self.assertRaises(Refused):
                read_change([1, identity, wrong])


class Packed(unittest.TestCase):
    """Byte strings of the kit that are compressed."""

    def packed(self, data: bytes) -> str:
        return "zlib:" + base64.b64encode(data).decode()

    def test_there_and_back(self) -> None:
        for length in (0, 1, UNPACKED_MAX_BYTES):
            self.assertEqual(as_octets(self.packed(zlib.compress(bytes(length)))), bytes(length))

    def test_no_more_is_unpacked_than_there_may_be(self) -> None:
        bomb = zlib.compress(bytes(16 * UNPACKED_MAX_BYTES))
        tracemalloc.start()
        try:
            for too_much in (bomb, zlib.compress(bytes(UNPACKED_MAX_BYTES + 1))):
                with self.assertRaises(KitError):
                    as_octets(self.packed(too_much))
            self.assertLess(tracemalloc.get_traced_memory()[1], 4 * UNPACKED_MAX_BYTES)
        finally:
            tracemalloc.stop()

    def test_what_is_not_one_whole_stream(self) -> None:
        whole = zlib.compress(b"whole")
        for wrong in (b"", whole[:-1], whole + b"\x00", whole[:-1] + b"\x00", whole[2:-4]):
            with self.subTest(wrong), self.assertRaises(KitError):
                as_octets(self.packed(wrong))
        with self.assertRaises(KitError):
            as_octets("zlib:" + "*" * 8)


class Asks(unittest.TestCase):
    def test_without_a_room(self) -> None:
        self.assertEqual(Shard(bytes(32)).may(bytes(16), READ, bytes(16), 0, 0), ROOM_UNKNOWN)


class Vitals(unittest.TestCase):
    def text(self, mantissa: int, exponent: int) -> str:
        return Reading(1, 1, 1, "d", mantissa, exponent, 0, True, 0, 0, 0, None, None, None, None, None).text

    def test_values_as_text(self) -> None:
        self.assertEqual(self.text(3640, -2), "36.40")
        self.assertEqual(self.text(-5, -1), "-0.5")
        self.assertEqual(self.text(0, -2), "0.00")
        self.assertEqual(self.text(1, -18), "0.000000000000000001")
        self.assertEqual(self.text(1, -19), "1e-19")
        self.assertEqual(self.text(12, 3), "12e3")

    def test_columns_at_the_edges_of_64_bits(self) -> None:
        low, high = -(1 << 63), (1 << 63) - 1
        for values in ([low, high, 0], [high, low, high, low, 5], list(range(0, 3000, 7)) + [1], [low] * 3, [0, low, 0]):
            self.assertEqual(columns.read_column(columns.plain_encoding(values), len(values)), values)


class Paper(unittest.TestCase):
    def test_there_and_back(self) -> None:
        key = bytes(range(1, 33))
        self.assertEqual(recovery.read_key(recovery.print_key(key)), key)


class Runner(unittest.TestCase):
    """A runner that is wrong about its own failures would find any program right."""

    CASE = {"kit": 1, "what": "signature", "verdict": "invalid",
            "input": {"key": "00" * 32, "signature": "00" * 64, "message": ""}}

    def test_a_refusal_is_right(self) -> None:
        self.assertTrue(judge_case(self.CASE).right)

    def test_a_crash_is_no_refusal(self) -> None:
        self.assertFalse(judge_case(self.CASE | {"input": {}}).right)
        self.assertFalse(judge_case(self.CASE | {"input": {"key": "zz", "signature": "", "message": ""}}).right)

    def test_what_is_unknown_is_wrong(self) -> None:
        for change in ({"kit": 2}, {"what": "guess"}, {"verdict": "maybe"}, {"refusal": 63}):
            with self.subTest(change):
                self.assertFalse(judge_case(self.CASE | change).right)

    def test_every_expected_member_is_compared(self) -> None:
        case = {"kit": 1, "what": "shard", "verdict": "valid", "input": {"room": "00" * 16, "shard_count": 4}}
        self.assertTrue(judge_case(case | {"expect": {"shard": 0}}).right)
        for expect in ({"shard": 1}, {"shard": False}, {"shard": "0"}, {"shard": 0, "more": 1}):
            with self.subTest(expect):
                self.assertFalse(judge_case(case | {"expect": expect}).right)


if __name__ == "__main__":
    unittest.main()
