"""Byte strings as the kit writes them."""

from __future__ import annotations

import base64
import binascii

BASE64 = "base64:"


class KitError(Exception):
    """The file is not one of a kit that this program knows."""


def as_octets(text: str) -> bytes:
    try:
        if text.startswith(BASE64):
            return base64.b64decode(text[len(BASE64) :], validate=True)
        return bytes.fromhex(text)
    except (binascii.Error, ValueError) as error:
        raise KitError(f"not a byte string: {text[:40]}") from error
