"""I3 and I4: the recovery key on paper."""

from __future__ import annotations

from .characters import without_white_space
from .identity import SecretIdentity
from .limits import RECOVERY_TEXT_MAX_BYTES
from .refused import require
from .seal import hkdf_sha256

PREFIX = "ehe-recovery"
ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3
CHECKSUM_DIGITS = 6
GROUP_DIGITS = 4


def _polymod(digits: list[int]) -> int:
    generators = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
    check = 1
    for digit in digits:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ digit
        for i, generator in enumerate(generators):
            if top >> i & 1:
                check ^= generator
    return check


def _expanded_prefix() -> list[int]:
    return [ord(c) >> 5 for c in PREFIX] + [0] + [ord(c) & 31 for c in PREFIX]


def read_key(text: str) -> bytes:
    """The 32 bytes of a printed recovery key."""
    require(len(text.encode()) <= RECOVERY_TEXT_MAX_BYTES, "too long a text")
    text = without_white_space(text)
    require(text in (text.lower(), text.upper()), "mixed case")
    text = text.lower()
    prefix, separator, data = text.rpartition("1")
    require(separator == "1" and prefix == PREFIX, "another prefix")
    require(all(c in ALPHABET for c in data), "a character that Bech32 does not have")
    digits = [ALPHABET.index(c) for c in data]
    require(len(digits) >= CHECKSUM_DIGITS, "too short")
    require(_polymod(_expanded_prefix() + digits) == BECH32M, "the checksum is wrong")
    digits = digits[:-CHECKSUM_DIGITS]
    number = 0
    for digit in digits:
        number = number << 5 | digit
    require(len(digits) == 52, "not 32 bytes")
    require(number & 0xF == 0, "padding bits that are not zero")
    return (number >> 4).to_bytes(32, "big")


def print_key(key: bytes) -> str:
    number = int.from_bytes(key, "big") << 4
    digits = [number >> 5 * i & 31 for i in reversed(range(52))]
    check = _polymod(_expanded_prefix() + digits + [0] * CHECKSUM_DIGITS) ^ BECH32M
    digits += [check >> 5 * i & 31 for i in reversed(range(CHECKSUM_DIGITS))]
    data = "".join(ALPHABET[digit] for digit in digits)
    groups = [data[i : i + GROUP_DIGITS] for i in range(0, len(data), GROUP_DIGITS)]
    return f"{PREFIX}1 " + " ".join(groups)


def recovery_identity(key: bytes) -> SecretIdentity:
    return SecretIdentity(
        hkdf_sha256(key, b"", b"ehe/1 recovery sign", 32),
        hkdf_sha256(key, b"", b"ehe/1 recovery kem", 32),
    )
