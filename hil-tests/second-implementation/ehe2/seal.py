"""Section 5: sealing."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .ids import sha256
from .limits import BODY_FLOOR_BYTES
from .refused import Refused, require

TAG_BYTES = 16
MARKER = 0x80


def hkdf_sha256(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt or None, info).derive(ikm)


@dataclass(frozen=True)
class SealKeys:
    key: bytes
    nonce: bytes
    commitment: bytes


def seal_keys(ek: bytes, salt: bytes, core: bytes) -> SealKeys:
    require(len(ek) == 32, "an event key has 32 bytes")
    okm = hkdf_sha256(ek, salt, b"ehe/1 seal\x00" + core, 76)
    return SealKeys(okm[:32], okm[32:44], okm[44:])


def body_length(plaintext_length: int) -> int:
    """P1: how long the body of so long a plaintext is."""
    m = max(plaintext_length + TAG_BYTES + 1, BODY_FLOOR_BYTES)
    e = m.bit_length() - 1
    s = e.bit_length()
    step = 1 << (e - s)
    return (m + step - 1) // step * step


def unpad(padded: bytes) -> bytes:
    plaintext = padded.rstrip(b"\x00")
    require(plaintext[-1:] == bytes([MARKER]), "the padding has no marker")
    plaintext = plaintext[:-1]
    require(body_length(len(plaintext)) == len(padded) + TAG_BYTES, "padding of another length")
    return plaintext


def seal(ek: bytes, salt: bytes, core: bytes, plaintext: bytes, limit: int) -> tuple[bytes, bytes]:
    """Commitment and body."""
    length = body_length(len(plaintext))
    require(length <= limit, "the body would pass its kind's limit")
    keys = seal_keys(ek, salt, core)
    padded = (plaintext + bytes([MARKER])).ljust(length - TAG_BYTES, b"\x00")
    return keys.commitment, ChaCha20Poly1305(keys.key).encrypt(keys.nonce, padded, sha256(core))


def open_body(ek: bytes, salt: bytes, core: bytes, commitment: bytes, body: bytes) -> bytes:
    keys = seal_keys(ek, salt, core)
    # P2: before anything is decrypted; else one body could open to two plaintexts under two keys.
    require(keys.commitment == commitment, "the header commits to another key")
    try:
        padded = ChaCha20Poly1305(keys.key).decrypt(keys.nonce, body, sha256(core))
    except InvalidTag as error:
        raise Refused("the body's tag does not verify") from error
    return unpad(padded)
