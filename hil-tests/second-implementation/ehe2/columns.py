"""Section 14: columns of integers."""

from __future__ import annotations

from typing import Any

import numpy
from pcodec import wrapped as pco

from . import cbor
from .form import integer
from .limits import COLUMN_PCO_BINS_MAX, COLUMN_PCO_TABLE_LOG_MAX, COLUMN_PCO_VALUES_MIN
from .refused import Refused, require

MASK = (1 << 64) - 1
STEP, PACKED, DELTA, PCO = range(4)

int64 = integer(-(1 << 63), (1 << 63) - 1)


def signed(number: int) -> int:
    """The number as 64 bits hold it: sums and differences wrap."""
    number &= MASK
    return number - (1 << 64) if number >> 63 else number


def _unpack(data: Any, count: int, width: int) -> list[int]:
    require(isinstance(data, bytes), "packed bits are not a byte string")
    require(len(data) == (count * width + 7) // 8, "packed bits of another length")
    bits = int.from_bytes(data, "little")
    require(bits >> (count * width) == 0, "bits left over that are not zero")
    ones = (1 << width) - 1
    return [bits >> (i * width) & ones for i in range(count)]


def _pack(numbers: list[int], width: int) -> bytes:
    bits = 0
    for i, number in enumerate(numbers):
        bits |= number << (i * width)
    return bits.to_bytes((len(numbers) * width + 7) // 8, "little")


def _least_width(distances: list[int]) -> int:
    return max(1, max(distances).bit_length())


def plain_encoding(values: list[int]) -> Any:
    """The one plain encoding of a column."""
    if all(value == values[0] for value in values):
        return values[0]
    differences = [signed(b - a) for a, b in zip(values, values[1:])]
    if all(difference == differences[0] for difference in differences):
        return [STEP, values[0], differences[0]]
    base = min(values)
    distances = [value - base & MASK for value in values]
    width = _least_width(distances)
    packed = [PACKED, base, width, _pack(distances, width)]
    base = min(differences)
    distances = [difference - base & MASK for difference in differences]
    width = _least_width(distances)
    delta = [DELTA, values[0], base, width, _pack(distances, width)]

    def size(column: list[Any]) -> int:
        return sum(len(cbor.encode(item)) for item in column[1:])

    return delta if size(delta) < size(packed) else packed


def read_column(raw: Any, count: int) -> list[int]:
    """B1, B4 to B6: the column's values, if this is an encoding that they may have."""
    if not isinstance(raw, list):
        values = [int64(raw)] * count
    else:
        require(len(raw) > 0, "an empty array")
        values = _read_form(raw, count)
    plain = plain_encoding(values)
    if isinstance(raw, list) and raw[0] == PCO:
        require(isinstance(plain, list) and plain[0] in (PACKED, DELTA), "pco where a shorter form applies")
        require(len(cbor.encode(raw)) < len(cbor.encode(plain)), "pco is not shorter")
    else:
        require(cbor.encode(raw) == cbor.encode(plain), "not the column's plain encoding")
    return values


def _read_form(raw: list[Any], count: int) -> list[int]:
    number = integer(STEP, PCO)(raw[0])
    require(len(raw) == {STEP: 3, PACKED: 4, DELTA: 5, PCO: 4}[number], "a form with other members")
    if number == STEP:
        start, step = int64(raw[1]), int64(raw[2])
        return [signed(start + i * step) for i in range(count)]
    width = integer(1, 64)(raw[-2])
    if number == PACKED:
        base = int64(raw[1])
        return [signed(base + distance) for distance in _unpack(raw[3], count, width)]
    if number == DELTA:
        values, base = [int64(raw[1])], int64(raw[2])
        for distance in _unpack(raw[4], count - 1, width):
            values.append(signed(values[-1] + base + distance))
        return values
    return _read_pco(int64(raw[1]), width, raw[3], count)


def _read_pco(base: int, width: int, chunk: Any, count: int) -> list[int]:
    require(count >= COLUMN_PCO_VALUES_MIN, "pco for too few values")
    require(width in (16, 32, 64), "a width that pco does not have")
    require(isinstance(chunk, bytes), "a chunk is a byte string")
    _check_chunk(chunk)
    numbers = _decompress(chunk, width, count)
    values = [signed(base + number) for number in numbers]
    require(min(values) == base, "the base is not the smallest value")
    largest = max(values) - base
    require(width == next(w for w in (16, 32, 64) if largest < 1 << w), "a smaller width holds the values")
    return values


def _check_chunk(chunk: bytes) -> None:
    """B5: asked before pco, whose other modes may take much memory for little input."""
    require(chunk[:2] == b"\x04\x01", "another format of pco")
    bits, left = int.from_bytes(chunk[2:], "little"), 8 * len(chunk[2:])

    def take(count: int) -> int:
        nonlocal bits, left
        require(count <= left, "the chunk ends in its head")
        value, bits, left = bits & ((1 << count) - 1), bits >> count, left - count
        return value

    require(take(4) == 0, "a mode other than 0")
    variant = take(4)
    require(variant in (0, 1), "another delta variant")
    if variant == 1:
        require(take(3) == 1 and take(1) == 0, "another order of deltas")
    require(take(4) <= COLUMN_PCO_TABLE_LOG_MAX, "the table is too large")
    require(1 <= take(15) <= COLUMN_PCO_BINS_MAX, "too many bins, or none")


def _decompress(chunk: bytes, width: int, count: int) -> list[int]:
    # pco reports what it refuses as RuntimeError, and numpy arrays that do not suit it as TypeError (ours to see).
    numbers = numpy.zeros(count, dtype=f"u{width // 8}")
    try:
        file, read = pco.FileDecompressor.new(chunk)
        at = read
        decompressor, read = file.chunk_decompressor(chunk[at:], f"u{width}")
        at += read
        progress, read = decompressor.read_page_into(chunk[at:], count, numbers)
    except RuntimeError as error:
        raise Refused("pco refuses the chunk") from error
    require(progress.n_processed == count and progress.finished, "the page ends early")
    require(at + read == len(chunk), "bytes after the page")
    return [int(number) for number in numbers]
