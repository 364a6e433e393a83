"""Section 3: identifiers are beginnings of SHA-256 hashes."""

from __future__ import annotations

import hashlib

from .refused import WRONG_SHARD, require

ZERO16 = bytes(16)
ZERO32 = bytes(32)


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def room_id(plain: bytes) -> bytes:
    return sha256(plain)[:16]


def wrap_id(ehe_id: bytes) -> bytes:
    return ehe_id[:16]


def node_id(author: bytes) -> bytes:
    return author[:8]


def shard_of(room: bytes, shard_count: int) -> int:
    """S1."""
    return int.from_bytes(room[:8], "big") % shard_count


def check_shard(room: bytes, shard_count: int, asked: int) -> None:
    require(shard_of(room, shard_count) == asked, "the room is of another shard", WRONG_SHARD)
