"""Judges a ledger as a node served it: the charters, every entry, the head, and the content where keys are given."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from . import cbor
from .charter import RULES_KNOWN, Charter, named, verify_charters
from .event import VERSION, CheckedEvent, Event, check_event, version_of
from .follow import Follower
from .goes_on import Extends, check_goes_on
from .identity import SecretIdentity
from .ids import sha256
from .limits import FRAME_MAX_BYTES
from .log import Head, VerifiedHead
from .note import read_checkpoint, verify_statement
from .octets import KitError, as_octets
from .opening import Opener
from .procedures import item_octets
from .refused import Refused, require
from .wire import read_message

KIND_NAMES = {
    1: "vitals", 2: "device status", 3: "clinical record", 4: "goal", 5: "note", 6: "instruction", 16: "room-create",
    17: "authority", 18: "grant", 19: "revoke", 20: "epoch", 21: "wrap",
}


def verify_ledger_file(path: Path) -> bool:
    try:
        file = json.loads(path.read_text(encoding="utf-8"))
        # A case of the kit and the bare members of its input are both taken.
        given = file.get("input", file)
        lines = verify_ledger(given, file.get("keys", {}))
    except Refused as refused:
        print(f"refused: {refused}")
        return False
    except (KitError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"not a ledger file: {type(error).__name__}: {error}")
        return False
    for line in lines:
        print(line)
    print("verified")
    return True


def verify_ledger(given: dict[str, Any], keys: dict[str, Any]) -> list[str]:
    """What was verified, as lines; raises at the first thing that does not stand."""
    alliance, room = as_octets(given["alliance"]), as_octets(given["room"])
    charters = verify_charters(as_octets(given["charter"]), alliance)
    charter = charters[-1]
    follower = Follower(alliance, room, given["whole"])
    for index, item in enumerate(item_octets(given["items"])):
        try:
            follower.follow(item)
        except Refused as refused:
            raise Refused(f"item {index}: {refused.reason}{_if_older(charter)}", refused.code) from refused
    head = Head.decode(as_octets(given["head"]), FRAME_MAX_BYTES)
    seen = read_checkpoint(given["remembered"]["checkpoint"].encode()).charter_version if "remembered" in given else 0
    verified = follower.check_head(head, as_octets(given["nonce"]), charters, given.get("known"), seen)
    if "now" in given:
        verified.check_fresh(given["now"], charter)
    lines = _charter_lines(charter, len(charters)) + _room_lines(follower) + _head_lines(verified)
    if "remembered" in given:
        lines += _goes_on_lines(given["remembered"], head.last.checkpoint, charters)
    if "reader" in keys:
        lines += _content_lines(given, keys, follower)
    return lines


def _if_older(charter: Charter) -> str:
    """Section 15: who is shown what newer rules may have made says that the program is older than they are."""
    return f"; this program knows the rules up to version {RULES_KNOWN} only" if charter.rules > RULES_KNOWN else ""


def _charter_lines(charter: Charter, versions: int) -> list[str]:
    return [f"charter: version {charter.version} of {charter.record.alliance!r}, a chain of {versions},"
            f" {charter.shard_count} shards, rules version {charter.rules}{_if_older(charter)}"]


def _room_lines(follower: Follower) -> list[str]:
    kinds = Counter(event.kind for event in follower.events)
    named = ", ".join(f"{count} {KIND_NAMES[kind]}" for kind, count in sorted(kinds.items()))
    voids = follower.voids.named
    alone = follower.verified - follower.runs - follower.access_records - len(voids)
    lines = [
        f"room: {follower.room.hex()}, {'the whole ledger' if follower.whole else 'a part'}",
        f"entries: {follower.verified} ({follower.runs} runs, {follower.access_records} access records,"
        f" {len(voids)} void records, {alone} by their leaf alone)",
        f"events: {len(follower.events)} ({named})",
        f"control events: {follower.next_control}",
    ]
    if follower.unknown:
        lines.append(f"of a version that is not known: {len(follower.unknown)} events")
    if voids:
        lines.append(f"void: the entries {', '.join(map(str, voids))}, whose events count as not shown")
    distrusted = follower.not_the_owners()
    if distrusted:
        reads = len(follower.distrusted_reads())
        lines.append(f"signed by distrusted keys, not the owner's word: {len(distrusted) - reads} runs of"
                     f" {len(follower.distrusted())} events, {reads} reads")
    return lines


def _head_lines(head: VerifiedHead) -> list[str]:
    checkpoint = head.checkpoint
    cosigners = ", ".join(cosigner.node.hex() for cosigner in checkpoint.cosigners)
    return [
        f"checkpoint: {checkpoint.origin}, {checkpoint.size} leaves, root {checkpoint.root.hex()}",
        f"ordered by {checkpoint.ordering_party.hex()}, cosigned by {cosigners}",
        f"head: at {head.at} ms, last entry {head.leaf.index}",
    ]


EXTENDS = 16


def _read_extends(data: bytes) -> Extends:
    message = cbor.decode(data, FRAME_MAX_BYTES)
    require(read_message(message, "response") == EXTENDS, "another answer than how the log goes on")
    return Extends(*message[1:])


def _goes_on_lines(remembered: dict[str, Any], shown: str, charters: list[Charter]) -> list[str]:
    """L4. The checkpoint remembered has to stand under the charter that it names; the one shown was judged with the head."""
    said, head = read_checkpoint(remembered["checkpoint"].encode()), read_checkpoint(shown.encode())
    verify_statement(said, head.shard, named(charters, said.charter_version))
    answer = _read_extends(as_octets(remembered["extends"])) if "extends" in remembered else None
    contradiction = check_goes_on(remembered["checkpoint"], shown, answer)
    require(contradiction is None, "the log is not the one that is remembered: both checkpoints are evidence")
    if said.size > head.size:
        return [f"log: the beginning of the {said.size} leaves remembered"]
    return [f"log: goes on from the {said.size} leaves remembered"]


def _contents(given: dict[str, Any], follower: Follower) -> list[CheckedEvent]:
    """Content with its bodies: as the items bring it, and as further reads brought it for a whole ledger."""
    contents = [event for event in follower.events if event.is_content and event.body]
    named = {event.id for event in follower.events} | set(follower.unknown)
    for encoded in given.get("contents", []):
        event = Event.decode(as_octets(encoded), FRAME_MAX_BYTES)
        ehe_id = sha256(event.header)
        # Of a void run: as if it were not there (L6).
        if ehe_id in follower.void_events - named:
            continue
        if version_of(event.header) != VERSION:
            require(ehe_id in named, "content of an unknown version that no entry names")
            continue
        checked = check_event(event.header, event.body)
        require(checked.id in named, f"content {checked.id.hex()} that no entry names")
        contents.append(checked)
    return contents


def _content_lines(given: dict[str, Any], keys: dict[str, Any], follower: Follower) -> list[str]:
    reader = SecretIdentity(as_octets(keys["reader"]["sign"]), as_octets(keys["reader"]["kem"]))
    opener = Opener.of(follower, reader, [as_octets(wrap) for wrap in given.get("wraps", [])])
    contents = _contents(given, follower)
    opened = closed = readings = 0
    for event in contents:
        try:
            content = opener.open(event)
        except Refused as refused:
            raise Refused(f"content {event.id.hex()}: {refused.reason}", refused.code) from refused
        if content is None:
            closed += 1
            continue
        opened += 1
        readings += len(content.readings or [])
    # Else a file whose keys fit nothing would look like one whose content was opened.
    require(opened > 0 or not contents, "the keys open none of the content")
    return [
        f"reader: {opener.author.hex()}, seeds of {len(opener.seeds)} epochs, {len(opener.privates)} sealed parts opened,"
        f" {opener.closed_privates} did not open",
        f"content: {opened} events opened with {readings} readings, {closed} without a key",
    ]
