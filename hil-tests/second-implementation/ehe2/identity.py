"""Section 2: keys, and when a signature stands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .form import Record, member, octets
from .ids import sha256
from .refused import BAD_KEY, BAD_SIGNATURE, Refused, require

XWING_KEY_BYTES = 1216
XWING_VECTOR_BYTES = 1152
MLKEM_Q = 3329

FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, -1, FIELD) % FIELD

_ORDER_8 = (
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
)


def _with_sign(point: bytes) -> bytes:
    return point[:31] + bytes([point[31] | 0x80])


SMALL_ORDER = frozenset(
    [bytes(32), _with_sign(bytes(32)), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
    + [bytes.fromhex(point) for point in _ORDER_8]
    + [_with_sign(bytes.fromhex(point)) for point in _ORDER_8]
)


def is_canonical_point(encoded: bytes) -> bool:
    """Whether the bytes are the one encoding of a point of edwards25519."""
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= FIELD:
        return False
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD) % FIELD
    if square == 0:
        return sign == 0
    return pow(square, (FIELD - 1) // 2, FIELD) == 1


def verify_signature(key: bytes, signature: bytes, message: bytes) -> None:
    """I2. The library computes S·B − h·A and compares it with R's bytes, without the cofactor; the rest is asked here."""
    require(len(key) == 32 and len(signature) == 64, "no Ed25519 key or signature", BAD_SIGNATURE)
    r, s = signature[:32], signature[32:]
    for name, point in (("the key", key), ("R", r)):
        require(is_canonical_point(point), f"{name} is no canonical point", BAD_SIGNATURE)
        require(point not in SMALL_ORDER, f"{name} is of small order", BAD_SIGNATURE)
    require(int.from_bytes(s, "little") < ORDER, "S is not below the order", BAD_SIGNATURE)
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise Refused("the signature does not verify", BAD_SIGNATURE) from error


def check_xwing_key(key: bytes) -> None:
    """K1."""
    require(len(key) == XWING_KEY_BYTES, "an X-Wing key has 1216 bytes", BAD_KEY)
    vector = int.from_bytes(key[:XWING_VECTOR_BYTES], "little")
    for _ in range(XWING_VECTOR_BYTES * 8 // 12):
        require(vector & 0xFFF < MLKEM_Q, "a coefficient is not below 3329", BAD_KEY)
        vector >>= 12


def id_of(sign: bytes, kem: bytes) -> bytes:
    """I1."""
    return sha256(sign, kem)[:16]


class PublicIdentity(Record):
    sign: bytes = member(0, octets(32))
    kem: bytes = member(1, octets(XWING_KEY_BYTES))

    @cached_property
    def digest(self) -> bytes:
        """What a room is committed to (I3)."""
        return sha256(self.sign, self.kem)

    @property
    def id(self) -> bytes:
        return self.digest[:16]

    @classmethod
    def of(cls, sign: bytes, kem: bytes) -> "PublicIdentity":
        return cls.read({0: sign, 1: kem})


def xwing_parts(seed: bytes) -> tuple[MLKEM768PrivateKey, X25519PrivateKey]:
    require(len(seed) == 32, "an X-Wing seed has 32 bytes")
    expanded = hashlib.shake_256(seed).digest(96)
    return MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])


@dataclass(frozen=True)
class SecretIdentity:
    sign_seed: bytes
    kem_seed: bytes

    @cached_property
    def public(self) -> PublicIdentity:
        require(len(self.sign_seed) == 32, "an Ed25519 seed has 32 bytes")
        sign = Ed25519PrivateKey.from_private_bytes(self.sign_seed).public_key().public_bytes_raw()
        mlkem, x25519 = xwing_parts(self.kem_seed)
        kem = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        return PublicIdentity.of(sign, kem)
