"""Byte strings as the kit writes them."""

from __future__ import annotations

import base64
import binascii
import zlib

UNPACKED_MAX_BYTES = 17 * 1024 * 1024

BASE64, ZLIB = "base64:", "zlib:"


class KitError(Exception):
    """The file is not one of a kit that this program knows."""


def _unpacked(packed: bytes) -> bytes:
    """One stream of RFC 1950, of which no more is unpacked than a kit's byte string may have."""
    stream = zlib.decompressobj()
    data = stream.decompress(packed, UNPACKED_MAX_BYTES + 1)
    if len(data) > UNPACKED_MAX_BYTES:
        raise KitError(f"unpacks to more than {UNPACKED_MAX_BYTES} bytes")
    if not stream.eof or stream.unused_data:
        raise KitError("not one whole zlib stream")
    return data


def as_octets(text: str) -> bytes:
    try:
        if text.startswith(BASE64):
            return base64.b64decode(text[len(BASE64) :], validate=True)
        if text.startswith(ZLIB):
            return _unpacked(base64.b64decode(text[len(ZLIB) :], validate=True))
        return bytes.fromhex(text)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise KitError(f"not a byte string: {text[:40]}") from error
