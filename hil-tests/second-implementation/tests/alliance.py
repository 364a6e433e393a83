"""An alliance for the tests: three members with a node each, charters, trees and the notes that nodes sign."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ehe2 import cbor
from ehe2.identity import SecretIdentity
from ehe2.ids import sha256
from ehe2.log import root_of
from ehe2.note import COSIGNED, ORDERED

from .author import secret, sign

MEMBERS = [secret(f"member {letter}") for letter in "abc"]
AT = 1_760_000_000


def leaves(count: int, what: str = "leaf") -> list[bytes]:
    return [f"{what} {number}".encode() for number in range(count)]


def consistency(old: int, of: list[bytes]) -> list[bytes]:
    """PROOF of RFC 6962 §2.1.2, as M3 takes it."""

    def subproof(m: int, part: list[bytes], whole: bool) -> list[bytes]:
        if m == len(part):
            return [] if whole else [root_of(part)]
        k = 1 << (len(part) - 1).bit_length() - 1
        if m <= k:
            return [*subproof(m, part[:k], whole), root_of(part[k:])]
        return [*subproof(m - k, part[k:], False), root_of(part[:k])]

    return subproof(old, of, True) if old else []


class Alliance:
    """Node n is of member n. `rekeyed` are nodes that have another key from charter 2 on, `renamed` those that have another id.

    `rules` says what stands in a charter as its rules version, by the charter's version."""

    def __init__(self, versions: int = 1, rekeyed: tuple[int, ...] = (), renamed: tuple[int, ...] = (),
                 rules: dict[int, int] | None = None) -> None:
        self.rules = rules or {}
        self.rekeyed = rekeyed
        self.renamed = renamed
        chain: list[bytes] = []
        hash_ = None
        for version in range(1, versions + 1):
            charter = self._charter(version, hash_)
            hash_ = sha256(charter)
            if version == 1:
                self.id = hash_
            chain.append(cbor.encode({0: charter, 1: [sign(member, "charter", hash_) for member in MEMBERS[:2]]}))
        self.chain = cbor.encode(chain)

    def node(self, number: int, version: int = 1) -> SecretIdentity:
        return secret(f"node {number}" + (" again" if number in self.rekeyed and version > 1 else ""))

    def node_id(self, number: int, version: int = 1) -> bytes:
        return bytes([9 - number + (0x80 if number in self.renamed and version > 1 else 0)]) * 8

    def _charter(self, version: int, before: bytes | None) -> bytes:
        ids = [bytes([number + 1]) * 8 for number in range(len(MEMBERS))]
        members = [{0: id_, 1: f"Member {n}", 2: member.public.raw} for n, (id_, member) in enumerate(zip(ids, MEMBERS))]
        nodes = [{0: self.node_id(n, version), 1: id_, 2: f"node-{n}.example", 3: self.node(n, version).public.sign,
                  4: [f"node-{n}.example:1"]} for n, id_ in enumerate(ids)]
        group = [self.node_id(n, version) for n in range(len(MEMBERS))]
        charter: dict[int, Any] = {0: version, 1: "Tests", 3: 2, 4: members, 5: nodes, 6: [0, [group]], 7: {0: 2, 1: 8, 2: 1},
                                   8: 1000}
        if before is not None:
            charter[2] = before
        if version in self.rules:
            charter[10] = self.rules[version]
        return cbor.encode(charter)

    def note(self, size: int, root: bytes, ordered: tuple[int, ...] = (0,), cosigned: tuple[int, ...] = (0, 1),
             shard: int = 1, incarnation: int = 0, version: int = 1) -> str:
        origin = f"ehe/{self.id[:16].hex()}/{shard}/{incarnation}"
        text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\ncharter {version}\n"
        lines = []
        for n in ordered:
            lines.append(self._line(self.node(n, version), origin, ORDERED, b"", text.encode()))
        for n in cosigned:
            message = f"cosignature/v1\ntime {AT}\n{text}".encode()
            lines.append(self._line(self.node(n, version), f"node-{n}.example", COSIGNED, AT.to_bytes(8, "big"), message))
        return text + "\n" + "".join(lines)

    def _line(self, key: SecretIdentity, name: str, algorithm: int, time: bytes, message: bytes) -> str:
        key_id = sha256(name.encode(), b"\n", bytes([algorithm]), key.public.sign)[:4]
        signature = Ed25519PrivateKey.from_private_bytes(key.sign_seed).sign(message)
        return f"\u2014 {name} {base64.b64encode(key_id + time + signature).decode()}\n"
