"""Section 10: checkpoints as signed notes (C1, C2), and who signed them (J4)."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from .characters import has_control, has_white_space
from .charter import Charter, Node
from .identity import verify_signature
from .ids import sha256
from .limits import CHECKPOINT_MAX_BYTES, NOTE_LINES_MAX, ORIGIN_MAX_BYTES
from .refused import Refused, require

ORDERED, COSIGNED = 0x01, 0x04
TEXT_LINES = 4
_DECIMAL = r"(0|[1-9][0-9]{0,19})"
_ORIGIN = re.compile(rf"ehe/([0-9a-f]{{32}})/{_DECIMAL}/{_DECIMAL}", re.ASCII)
_NUMBER = re.compile(_DECIMAL, re.ASCII)
_VERSION = re.compile(rf"charter {_DECIMAL}", re.ASCII)


@dataclass(frozen=True)
class Line:
    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True)
class Note:
    text: bytes
    lines: list[Line]

    def signature(self, name: str, algorithm: int, key: bytes) -> bytes | None:
        """Of several lines with one name and key id the first counts."""
        key_id = sha256(name.encode(), b"\n", bytes([algorithm]), key)[:4]
        return next((line.signature for line in self.lines if (line.name, line.key_id) == (name, key_id)), None)


@dataclass(frozen=True)
class Statement:
    """What the text of a checkpoint says. Who signed it is not judged yet."""

    note: Note
    origin: str
    alliance: str
    shard: int
    incarnation: int
    size: int
    root: bytes
    charter_version: int


@dataclass(frozen=True)
class Cosigner:
    node: bytes
    at: int


@dataclass(frozen=True)
class Checkpoint:
    origin: str
    shard: int
    incarnation: int
    size: int
    root: bytes
    charter_version: int
    ordering_party: bytes
    cosigners: list[Cosigner]


def _base64(encoded: str) -> bytes:
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused("not base64") from error
    # Bits that are left over and padding that is not there: only the one encoding comes back the same.
    require(base64.b64encode(data).decode() == encoded, "not canonical base64")
    return data


def _read_line(line: str) -> Line:
    require(line.startswith("\u2014 "), "a signature line begins with a dash and a space")
    name, space, encoded = line[2:].partition(" ")
    require(space == " " and 1 <= len(name.encode()) <= ORIGIN_MAX_BYTES, "a line without name or signature")
    require(not has_white_space(name) and not has_control(name) and "+" not in name, "a name that may not be")
    data = _base64(encoded)
    # What stands behind the key id is judged only where the line is of a node whose signature is asked for.
    require(len(data) >= 4, "a line without a key id")
    return Line(name, data[:4], data[4:])


def read_note(data: bytes) -> tuple[Note, list[str]]:
    """The note and the lines of its text."""
    require(len(data) <= CHECKPOINT_MAX_BYTES, "the note is too long")
    try:
        note = data.decode()
    except UnicodeDecodeError as error:
        raise Refused("the note is not UTF-8") from error
    require(note.endswith("\n"), "the last line does not end")
    lines = note[:-1].split("\n")
    require(len(lines) > TEXT_LINES + 1 and lines[TEXT_LINES] == "", "no text of four lines with an empty line after it")
    text_lines, signatures = lines[:TEXT_LINES], lines[TEXT_LINES + 1 :]
    require(len(signatures) <= NOTE_LINES_MAX, "too many signature lines")
    require(not any(has_control(line) for line in text_lines), "a control character in the text")
    text = "".join(line + "\n" for line in text_lines).encode()
    return Note(text, [_read_line(line) for line in signatures]), text_lines


def _number(text: str, bits: int) -> int:
    number = int(text)
    require(number < 1 << bits, "a number out of its range")
    return number


def origin_of(alliance_id: bytes, shard: int, incarnation: int) -> str:
    return f"ehe/{alliance_id[:16].hex()}/{shard}/{incarnation}"


def read_checkpoint(data: bytes) -> Statement:
    """A note whose text is a checkpoint's, of whatever log."""
    note, (origin, size_line, root_line, version_line) = read_note(data)
    in_origin, in_size, in_version = (
        pattern.fullmatch(line)
        for pattern, line in ((_ORIGIN, origin), (_NUMBER, size_line), (_VERSION, version_line))
    )
    require(in_origin is not None and len(origin) <= ORIGIN_MAX_BYTES, "another origin")
    require(in_size is not None and in_version is not None, "another size or version line")
    assert in_origin is not None and in_size is not None and in_version is not None
    root = _base64(root_line)
    require(len(root) == 32, "a root has 32 bytes")
    return Statement(note, origin, in_origin[1], _number(in_origin[2], 16), _number(in_origin[3], 32),
                     _number(in_size[0], 64), root, _number(in_version[1], 32))


def verify_checkpoint(data: bytes, shard: int, charter: Charter) -> Checkpoint:
    """C1, C2."""
    return verify_statement(read_checkpoint(data), shard, charter)


def verify_statement(said: Statement, shard: int, charter: Charter) -> Checkpoint:
    require(said.alliance == charter.alliance_id[:16].hex(), "a checkpoint of another alliance")
    require(said.shard == shard, "a checkpoint of another shard")
    require(said.charter_version == charter.version, "under another charter")
    ordering_parties = _ordering_parties(said.note, said.origin, shard, charter)
    require(len(ordering_parties) > 0, "no node of the group ordered this")
    cosigners = _cosigners(said.note, shard, charter)
    voices = {charter.node(cosigner.node).of_member for cosigner in cosigners}
    require(len(voices) >= charter.quorum(shard), "no quorum of members cosigned")
    return Checkpoint(said.origin, shard, said.incarnation, said.size, said.root, said.charter_version,
                      ordering_parties[0], cosigners)


def signers_of(said: Statement, charter: Charter) -> list[Node]:
    """J4: who of the shard's group signed in one way or the other, in the order of the group."""
    signed = {*_ordering_parties(said.note, said.origin, said.shard, charter),
              *(cosigner.node for cosigner in _cosigners(said.note, said.shard, charter))}
    return [node for node in charter.group(said.shard) if node.id in signed]


def _ordering_parties(note: Note, origin: str, shard: int, charter: Charter) -> list[bytes]:
    ordering_parties = []
    for node in charter.group(shard):
        signature = note.signature(origin, ORDERED, node.key)
        if signature is None or len(signature) != 64:
            continue
        try:
            verify_signature(node.key, signature, note.text)
        except Refused:
            continue
        ordering_parties.append(node.id)
    return ordering_parties


def _cosigners(note: Note, shard: int, charter: Charter) -> list[Cosigner]:
    cosigners = []
    for node in charter.group(shard):
        signature = note.signature(node.name, COSIGNED, node.key)
        if signature is None or len(signature) != 72:
            continue
        at = int.from_bytes(signature[:8], "big")
        message = f"cosignature/v1\ntime {at}\n".encode() + note.text
        try:
            verify_signature(node.key, signature[8:], message)
        except Refused:
            continue
        cosigners.append(Cosigner(node.id, at))
    return cosigners
