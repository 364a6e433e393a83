"""Section 6: 32 secret bytes to one X-Wing key."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite

from . import cbor
from .identity import xwing_parts
from .refused import Refused, require

WRAPPED_BYTES = 1168
SECRET_BYTES = 32

_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def info_ek(room: bytes, author: bytes, epoch: bytes, day: int) -> bytes:
    return b"ehe/1 wrap EK\x00" + cbor.encode([room, author, epoch, day])


def info_gk(room: bytes, epoch: bytes, recipient: bytes) -> bytes:
    return b"ehe/1 wrap GK\x00" + cbor.encode([room, epoch, recipient])


def info_part(room: bytes, author: bytes, salt: bytes, recipient: bytes) -> bytes:
    return b"ehe/1 wrap part\x00" + cbor.encode([room, author, salt, recipient])


def unwrap(seed: bytes, info: bytes, wrapped: bytes) -> bytes:
    """K2."""
    require(len(wrapped) == WRAPPED_BYTES, "a wrap has 1168 bytes")
    key = MLKEM768X25519PrivateKey(*xwing_parts(seed))
    try:
        secret = _SUITE.decrypt(wrapped, key, info)
    except (InvalidTag, ValueError) as error:
        raise Refused("the wrap does not open") from error
    require(len(secret) == SECRET_BYTES, "a wrap carries 32 bytes")
    return secret
