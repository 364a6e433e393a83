"""Section 12: charters and their chain."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from . import cbor
from .characters import WHITE_SPACE, has_control
from .cose import Signed
from .form import Record, array, blob, check_text, code, flags, integer, member, octets, text, uint
from .identity import PublicIdentity
from .ids import sha256
from .limits import (ADDRESS_MAX_BYTES, ADDRESSES_PER_NODE_MAX, CHAIN_MAX_BYTES, CHAIN_VERSIONS_MAX, CHARTER_MAX_BYTES,
                     CHARTER_SIGNATURE_MAX_BYTES, HEAD_FRESH_MAX_MS, HOST_NAME_MAX_BYTES, LABEL_MAX_BYTES, MEMBERS_MAX,
                     NODE_NAME_MAX_BYTES, SHARDS_MAX)
from .refused import require

GROUP_SIZES = (1, 3, 5, 7)
ALL_ROLES = 1 | 2 | 4 | 8
ON_ONE_GROUP, BY_SHARD = 0, 1
# The greatest rules version that this program knows (section 15).
RULES_KNOWN = 2

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)

node_id = octets(8)
member_id = octets(8)


class CharterMember(Record):
    id: bytes = member(0, member_id)
    name: str = member(1, text)
    identity: PublicIdentity = member(2, PublicIdentity.read)


class Node(Record):
    id: bytes = member(0, node_id)
    of_member: bytes = member(1, member_id)
    name: str = member(2, text)
    key: bytes = member(3, octets(32))
    addresses: list[str] = member(4, array(text))


class Permissions(Record):
    submit: int = member(0, flags(ALL_ROLES))
    read_roles: int = member(1, flags(ALL_ROLES))
    host: int = member(2, flags(ALL_ROLES))


@dataclass(frozen=True)
class Placement:
    kind: int
    groups: list[list[bytes]]


def read_placement(value: Any) -> Placement:
    require(isinstance(value, list) and len(value) == 2, "placement is an array of two")
    kind = code([ON_ONE_GROUP, BY_SHARD])(value[0])
    group = array(node_id)
    # The array's second item holds the placement's one member: a group, or the array of groups.
    members = array(group if kind == ON_ONE_GROUP else array(group), 1, 1)(value[1])
    return Placement(kind, members if kind == ON_ONE_GROUP else members[0])


class CharterRecord(Record):
    version: int = member(0, uint(32))
    alliance: str = member(1, text)
    predecessor: bytes | None = member(2, octets(32), optional=True)
    shard_count: int = member(3, integer(1, 0xFFFF))
    members: list[CharterMember] = member(4, array(CharterMember.read))
    nodes: list[Node] = member(5, array(Node.read))
    placement: Placement = member(6, read_placement)
    permissions: Permissions = member(7, Permissions.read)
    head_fresh: int = member(8, uint(32))
    min_cosignatures: int | None = member(9, uint(16), optional=True)
    rules: int | None = member(10, uint(16), optional=True)


class SignedCharter(Record):
    charter: bytes = member(0, blob)
    signatures: list[bytes] = member(1, array(blob, 2 * MEMBERS_MAX))


@dataclass(frozen=True)
class Charter:
    """A charter that stands, of the alliance with this id."""

    record: CharterRecord
    hash: bytes
    alliance_id: bytes

    @property
    def version(self) -> int:
        return self.record.version

    @property
    def shard_count(self) -> int:
        return self.record.shard_count

    @property
    def head_fresh(self) -> int:
        return self.record.head_fresh

    @property
    def rules(self) -> int:
        """The rules version that it puts in force."""
        return self.record.rules or 1

    def node(self, id_: bytes) -> Node:
        return next(node for node in self.record.nodes if node.id == id_)

    def group(self, shard: int) -> list[Node]:
        placement = self.record.placement
        return [self.node(id_) for id_ in placement.groups[0 if placement.kind == ON_ONE_GROUP else shard]]

    def quorum(self, shard: int) -> int:
        """How many members have to cosign (C2)."""
        count = len({node.of_member for node in self.group(shard)})
        return max(count // 2 + 1, self.record.min_cosignatures or 0)


def _unique(what: str, values: Iterable[Hashable]) -> None:
    values = list(values)
    require(len(set(values)) == len(values), f"{what} twice")


def _check_label(name: str) -> None:
    check_text(name, LABEL_MAX_BYTES, 1)
    require(not has_control(name), "a control character in a name")
    require(WHITE_SPACE.isdisjoint((name[0], name[-1])), "white space at the end of a name")


def is_dns_name(name: str, most: int) -> bool:
    return 1 <= len(name) <= most and all(_LABEL.fullmatch(label) for label in name.split("."))


def _is_ipv6(address: str) -> bool:
    # A zone ("%eth0") says something on one machine only.
    if "%" in address:
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def check_address(address: str) -> None:
    check_text(address, ADDRESS_MAX_BYTES)
    host, colon, port = address.rpartition(":")
    require(colon == ":", "an address without a port")
    require(_PORT.fullmatch(port) is not None and int(port) <= 65535, "not a port")
    in_brackets = host.startswith("[") and host.endswith("]") and _is_ipv6(host[1:-1])
    # An IPv4 address has the form of a name.
    require(in_brackets or is_dns_name(host, HOST_NAME_MAX_BYTES), "not a host")


def check_charter(charter: CharterRecord) -> None:
    """H5."""
    require(charter.version >= 1, "versions begin with 1")
    require((charter.version == 1) == (charter.predecessor is None), "only version 1 has no predecessor")
    _check_label(charter.alliance)
    members, nodes = charter.members, charter.nodes
    require(1 <= len(members) <= MEMBERS_MAX and 1 <= len(nodes) <= MEMBERS_MAX, "no members or nodes, or too many")
    for entry in members:
        _check_label(entry.name)
    _unique("a member's id", (entry.id for entry in members))
    _unique("a member's name", (entry.name for entry in members))
    _unique("a member's key", (entry.identity.sign for entry in members))
    _unique("a node's id", (node.id for node in nodes))
    _unique("a node's name", (node.name for node in nodes))
    _unique("a node's key", (node.key for node in nodes))
    member_ids = {entry.id for entry in members}
    for node in nodes:
        require(node.of_member in member_ids, "a node of no member")
        require(is_dns_name(node.name, NODE_NAME_MAX_BYTES), "a node's name is no DNS name")
        require(1 <= len(node.addresses) <= ADDRESSES_PER_NODE_MAX, "a node without address, or with too many")
        for address in node.addresses:
            check_address(address)
    require(charter.shard_count <= SHARDS_MAX, "too many shards")
    require(1 <= charter.head_fresh <= HEAD_FRESH_MAX_MS, "head fresh is out of its range")
    _check_groups(charter)


def _check_groups(charter: CharterRecord) -> None:
    placement = charter.placement
    if placement.kind == BY_SHARD:
        require(len(placement.groups) == charter.shard_count, "not as many groups as shards")
    members = {node.id: node.of_member for node in charter.nodes}
    for group in placement.groups:
        require(len(group) in GROUP_SIZES, "a group of another size")
        _unique("a node in a group", group)
        require(all(id_ in members for id_ in group), "a group with an unknown node")
        if charter.min_cosignatures is not None:
            count = len({members[id_] for id_ in group})
            require(1 <= charter.min_cosignatures <= count, "more cosignatures than members, or none")


def _check_rules(charter: CharterRecord, before: Charter | None) -> None:
    """H6. Whether a program knows the version is not asked."""
    require(charter.rules is None or (before is not None and charter.rules > 1), "a rules version that is not to be written")
    require(before is None or (charter.rules or 1) >= before.rules, "the rules version went back")


def _check_signatures(signed: SignedCharter, hash_: bytes, own: CharterRecord, before: CharterRecord | None) -> None:
    """H3."""
    voters = {entry.identity.id: entry.identity for entry in (before or own).members}
    known = {entry.identity.id: entry.identity for entry in own.members} | voters
    voices = set()
    for encoded in signed.signatures:
        cose = Signed.decode(encoded, CHARTER_SIGNATURE_MAX_BYTES)
        require(cose.payload == hash_, "a signature over another charter")
        require(cose.signer in known, "a signature of a stranger")
        cose.verify("charter", known[cose.signer].sign)
        if cose.signer in voters:
            voices.add(cose.signer)
    require(2 * len(voices) > len(voters), "no majority signed")


def read_chain(chain: bytes) -> list[bytes]:
    return array(blob, CHAIN_VERSIONS_MAX)(cbor.decode(chain, CHAIN_MAX_BYTES))


def alliance_of(chain: bytes) -> bytes:
    """The id of the alliance whose chain this would be: the hash of its first charter."""
    versions = read_chain(chain)
    require(len(versions) > 0, "the chain is empty")
    return sha256(SignedCharter.decode(versions[0], CHARTER_MAX_BYTES).charter)


def named(charters: list[Charter], version: int) -> Charter:
    """The charter of a chain that has this version: they go up one by one from 1."""
    require(1 <= version <= len(charters), "a charter version that is not at hand")
    return charters[version - 1]


def at_hand(charters: list[Charter], shard: int, version: int, seen: int = 0) -> Charter:
    """C2: under which charter a checkpoint has to stand that names this version; `seen` is the latest under which the log was seen.

    It is the newest, but where that gives the shard to other nodes it may not have come there yet.
    """
    newest = charters[-1]
    if not max(seen, 1) <= version < newest.version:
        return newest
    before = named(charters, version)
    moves = {node.id for node in before.group(shard)} != {node.id for node in newest.group(shard)}
    return before if moves else newest


def verify_charters(chain: bytes, alliance_id: bytes) -> list[Charter]:
    """H1 to H3, H5 and H6: all charters of the chain, version 1 first."""
    charters: list[Charter] = []
    for encoded in read_chain(chain):
        signed = SignedCharter.decode(encoded, CHARTER_MAX_BYTES)
        record = CharterRecord.decode(signed.charter, CHARTER_MAX_BYTES)
        hash_ = sha256(signed.charter)
        check_charter(record)
        newest = charters[-1] if charters else None
        if newest is None:
            require(hash_ == alliance_id and record.version == 1, "another charter 1")
        else:
            require(record.version == newest.version + 1, "not one version higher")
            require(record.predecessor == newest.hash, "another predecessor")
            require(record.shard_count == newest.shard_count, "another shard count")
        _check_rules(record, newest)
        _check_signatures(signed, hash_, record, newest.record if newest else None)
        charters.append(Charter(record, hash_, alliance_id))
    require(len(charters) > 0, "the chain is empty")
    return charters
