"""Q1: the COSE_Sign1 of the format."""

from __future__ import annotations

from dataclasses import dataclass

from . import cbor
from .identity import verify_signature
from .refused import require

EDDSA = -8
PURPOSES = {
    purpose: f"ehe/1 {purpose}".encode()
    for purpose in ("run", "read request", "charter", "enrolment", "head", "possession", "restoration")
}


@dataclass(frozen=True)
class Signed:
    protected: bytes
    signer: bytes
    payload: bytes
    signature: bytes

    @classmethod
    def decode(cls, data: bytes, limit: int) -> "Signed":
        parts = cbor.decode(data, limit)
        require(isinstance(parts, list) and len(parts) == 4, "not an array of four")
        protected, unprotected, payload, signature = parts
        require(isinstance(protected, bytes), "protected is not a byte string")
        require(unprotected == {} and isinstance(unprotected, dict), "an unprotected header parameter")
        require(isinstance(payload, bytes), "no payload")
        require(isinstance(signature, bytes) and len(signature) == 64, "not a signature of 64 bytes")
        header = cbor.decode(protected, 64)
        require(isinstance(header, dict) and set(header) == {1, 4}, "missing or further header parameters")
        algorithm, signer = header[1], header[4]
        require(algorithm == EDDSA and not isinstance(algorithm, bool), "another algorithm")
        require(isinstance(signer, bytes) and len(signer) == 16, "the key id is not an author id")
        return cls(protected, signer, payload, signature)

    def verify(self, purpose: str, key: bytes) -> None:
        signed = cbor.encode(["Signature1", self.protected, PURPOSES[purpose], self.payload])
        verify_signature(key, self.signature, signed)
