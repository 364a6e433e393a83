"""Deterministic CBOR (E1), written here because general decoders accept what E1 forbids.

Only what the format uses: integers of 64 bits, byte strings, text, arrays, maps with unsigned keys, booleans.
"""

from __future__ import annotations

from typing import Any

from .refused import Refused, require

# The deepest structure of the format nests less than half of this.
DEPTH_MAX = 24

UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
FALSE, TRUE = 0xF4, 0xF5


def _head(major: int, number: int) -> bytes:
    first = major << 5
    if number < 24:
        return bytes([first | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << (8 * size):
            return bytes([first | code]) + number.to_bytes(size, "big")
    raise ValueError("a number of more than 64 bits")


def encode(value: Any) -> bytes:
    if isinstance(value, bool):
        return bytes([TRUE if value else FALSE])
    if isinstance(value, int):
        return _head(UNSIGNED, value) if value >= 0 else _head(NEGATIVE, -1 - value)
    if isinstance(value, (bytes, bytearray)):
        return _head(BYTES, len(value)) + bytes(value)
    if isinstance(value, str):
        text = value.encode()
        return _head(TEXT, len(text)) + text
    if isinstance(value, (list, tuple)):
        return _head(ARRAY, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        members = [encode(key) + encode(value[key]) for key in sorted(value)]
        return _head(MAP, len(value)) + b"".join(members)
    raise TypeError(f"{type(value).__name__} has no place in the format")


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        # Compared before anything is taken: a length is only a claim.
        require(count <= len(self.data) - self.at, "truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def head(self) -> tuple[int, int, int]:
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if major == SIMPLE or low < 24:
            return first, major, low
        require(low < 28, "an indefinite or reserved length")
        size = 1 << (low - 24)
        number = int.from_bytes(self.take(size), "big")
        shortest = 24 if size == 1 else 1 << (4 * size)
        require(number >= shortest, "a number longer than it need be")
        return first, major, number

    def value(self, depth: int) -> Any:
        require(depth <= DEPTH_MAX, "nested too deep")
        first, major, number = self.head()
        if major == UNSIGNED:
            return number
        if major == NEGATIVE:
            return -1 - number
        if major == BYTES:
            return self.take(number)
        if major == TEXT:
            try:
                return self.take(number).decode()
            except UnicodeDecodeError as error:
                raise Refused("text that is not UTF-8") from error
        if major == ARRAY:
            require(number <= len(self.data) - self.at, "truncated")
            return [self.value(depth + 1) for _ in range(number)]
        if major == MAP:
            return self.map(number, depth)
        if first in (FALSE, TRUE):
            return first == TRUE
        raise Refused("a tag, a float, null or another simple value")

    def map(self, count: int, depth: int) -> dict[int, Any]:
        require(2 * count <= len(self.data) - self.at, "truncated")
        members: dict[int, Any] = {}
        before = -1
        for _ in range(count):
            _, major, key = self.head()
            require(major == UNSIGNED, "a key that is not an unsigned integer")
            require(key > before, "keys that do not ascend")
            before = key
            members[key] = self.value(depth + 1)
        return members


def leading_uint(data: bytes) -> int:
    """The unsigned integer, in its shortest form, with which `data` begins, whatever follows."""
    _, major, number = _Decoder(data).head()
    require(major == UNSIGNED, "not an unsigned integer")
    return number


def decode(data: bytes, limit: int) -> Any:
    """The one value that `data` encodes; of more than `limit` bytes nothing is decoded (E3)."""
    require(len(data) <= limit, f"more than {limit} bytes")
    decoder = _Decoder(data)
    value = decoder.value(0)
    require(decoder.at == len(data), "trailing bytes")
    return value
