"""The kit's procedures, each from `input` and `keys` to what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from . import cbor, charter, control, event, evidence, log, read, restored, run, shard, vitals, void, wire
from .cose import Signed
from .follow import Follower
from .form import Record, array, blob
from .identity import PublicIdentity, SecretIdentity, check_xwing_key, id_of, verify_signature
from .ids import check_shard, node_id, room_id, sha256, shard_of, wrap_id
from .judge import KnownEvents
from .limits import (ACCESS_RECORD_MAX_BYTES, CHARTER_MAX_BYTES, CHARTER_SIGNATURE_MAX_BYTES, CONTROL_BODY_MAX_BYTES,
                     ENROLMENT_MAX_BYTES, FRAME_MAX_BYTES, HEAD_SIGNATURE_MAX_BYTES, HEADER_MAX_BYTES,
                     POSSESSION_MAX_BYTES, READ_REQUEST_MAX_BYTES, RESTORATION_SIGNATURE_MAX_BYTES, RUN_MAX_BYTES,
                     SUBMISSION_MAX_BYTES, VOID_RECORD_MAX_BYTES)
from .note import Checkpoint, verify_checkpoint
from .octets import KitError, as_octets as octets
from .opening import Opener
from .recovery import print_key, read_key, recovery_identity
from .refused import Refused, require
from .seal import open_body, seal
from .wrap import info_ek, info_gk, info_part, unwrap

READINGS_SHOWN_MAX = 64


@dataclass(frozen=True)
class Finding:
    """`refused` is None for a case that is found valid."""

    found: dict[str, Any]
    refused: Refused | None = None


Input = dict[str, Any]
Procedure = Callable[[Input, Input], Finding]


def _all_octets(texts: list[str]) -> list[bytes]:
    return [octets(text) for text in texts]


def item_octets(given: str | list[str]) -> list[bytes]:
    """One byte string stands for a thousand items: the encoding of an array of theirs."""
    if isinstance(given, str):
        try:
            return array(blob)(cbor.decode(octets(given), FRAME_MAX_BYTES))
        except Refused as refused:
            raise KitError(f"items that are no array of byte strings: {refused}") from refused
    return _all_octets(given)


def _body(given: Input, name: str) -> bytes:
    return octets(given[name]) if name in given else bytes(given["zeros"])


def _secret(given: Input) -> SecretIdentity:
    return SecretIdentity(octets(given["sign"]), octets(given["kem"]))


# Bytes

_RECORDS: dict[str, tuple[type[Record], int]] = {
    "PublicIdentity": (PublicIdentity, FRAME_MAX_BYTES),
    "Event": (event.Event, FRAME_MAX_BYTES),
    "Leaf": (log.Leaf, FRAME_MAX_BYTES),
    "Receipt": (log.Receipt, FRAME_MAX_BYTES),
    "Head": (log.Head, FRAME_MAX_BYTES),
    "HeadStatement": (log.HeadStatement, FRAME_MAX_BYTES),
    "Item": (wire.Item, FRAME_MAX_BYTES),
    "Core": (event.Core, HEADER_MAX_BYTES),
    "Header": (event.Header, HEADER_MAX_BYTES),
    "Run": (run.Run, RUN_MAX_BYTES),
    "RoomCreate": (control.RoomCreate, CONTROL_BODY_MAX_BYTES),
    "Authority": (control.Authority, CONTROL_BODY_MAX_BYTES),
    "EpochRecord": (control.EpochRecord, CONTROL_BODY_MAX_BYTES),
    "Grant": (control.Grant, CONTROL_BODY_MAX_BYTES),
    "Revoke": (control.Revoke, CONTROL_BODY_MAX_BYTES),
    "WrapRecord": (control.WrapRecord, CONTROL_BODY_MAX_BYTES),
    "Private": (control.Private, CONTROL_BODY_MAX_BYTES),
    "ReadRequest": (read.ReadRequest, READ_REQUEST_MAX_BYTES),
    "AccessRecord": (read.AccessRecord, ACCESS_RECORD_MAX_BYTES),
    "VoidRecord": (void.VoidRecord, VOID_RECORD_MAX_BYTES),
    "Submission": (shard.Submission, SUBMISSION_MAX_BYTES),
    "Charter": (charter.CharterRecord, CHARTER_MAX_BYTES),
    "SignedCharter": (charter.SignedCharter, CHARTER_MAX_BYTES),
}


def _nested(given: Input) -> bytes:
    return octets(given["bytes"]) + b"\x81" * given.get("nested", 0)


def _decode(given: Input, keys: Input) -> Finding:
    data, type_ = _nested(given), given["type"]
    if type_ == "CharterChain":
        chain = charter.read_chain(data)
        again = cbor.encode([charter.SignedCharter.decode(signed, CHARTER_MAX_BYTES).encoded for signed in chain])
    else:
        record, limit = _RECORDS[type_]
        again = record.decode(data, limit).encoded
    require(again == data, "encodes to other bytes")
    return Finding({"sha256": sha256(again)})


def _frame(given: Input, keys: Input) -> Finding:
    return Finding({"number": wire.read_frame(_nested(given), given["direction"])})


def _event(given: Input, keys: Input) -> Finding:
    checked = event.check_event(octets(given["header"]), _body(given, "body"))
    return Finding({"id": checked.id, "wrap_id": wrap_id(checked.id), "core": checked.core.encoded})


def _room_id(given: Input, keys: Input) -> Finding:
    plain = octets(given["plain"])
    create = control.RoomCreate.decode(plain, CONTROL_BODY_MAX_BYTES)
    return Finding({"room": room_id(plain), "owner": create.owner.id})


def _shard(given: Input, keys: Input) -> Finding:
    room, count = octets(given["room"]), given["shard_count"]
    if "asked" in given:
        check_shard(room, count, given["asked"])
    return Finding({"shard": shard_of(room, count)})


def _wrap_record(given: Input, keys: Input) -> Finding:
    checked = event.check_event(octets(given["header"]), octets(given["body"]))
    require(checked.is_wrap, "not a wrap")
    require(wrap_id(checked.id) == octets(given["named"]), "another wrap than was asked for")
    _, plain = control.read_control(checked)
    return Finding({"author": checked.core.author, "epoch": plain.epoch, "day": plain.day})


def _shown(readings: list[vitals.Reading]) -> list[dict[str, Any]]:
    return [
        {f.name: getattr(reading, f.name) for f in fields(reading) if getattr(reading, f.name) is not None}
        for reading in readings[:READINGS_SHOWN_MAX]
    ]


def _vitals(given: Input, keys: Input) -> Finding:
    readings, pco_may_stand = vitals.read_vitals(octets(given["body"]))
    found: dict[str, Any] = {"text": [reading.text for reading in readings], "readings": _shown(readings)}
    if not pco_may_stand:
        # A body that was accepted is the only one that these readings have.
        found["canonical"] = True
    return Finding(found)


# Keys


def _identity(given: Input, keys: Input) -> Finding:
    if "identity" in keys:
        public = _secret(keys["identity"]).public
    else:
        sign, kem = octets(given["sign"]), octets(given["kem"])
        check_xwing_key(kem)
        public = PublicIdentity.of(sign, kem)
    if "claimed" in given:
        require(id_of(public.sign, public.kem) == octets(given["claimed"]), "another identity's id")
    return Finding({"sign": public.sign, "kem": public.kem, "encoded": public.encoded, "author": public.id,
                    "node": node_id(public.id)})


def _recovery_key(given: Input, keys: Input) -> Finding:
    key = read_key(given["text"])
    identity = recovery_identity(key)
    public = identity.public
    if "commitment" in given:
        require(public.digest == octets(given["commitment"]), "another commitment")
    return Finding({"text": print_key(key), "sign_seed": identity.sign_seed, "kem_seed": identity.kem_seed,
                    "author": public.id, "commitment": public.digest})


def _signature(given: Input, keys: Input) -> Finding:
    verify_signature(octets(given["key"]), octets(given["signature"]), octets(given["message"]))
    return Finding({})


_COSE_LIMITS = {
    "run": RUN_MAX_BYTES, "read request": READ_REQUEST_MAX_BYTES, "charter": CHARTER_SIGNATURE_MAX_BYTES,
    "enrolment": ENROLMENT_MAX_BYTES, "head": HEAD_SIGNATURE_MAX_BYTES, "possession": POSSESSION_MAX_BYTES,
    "restoration": RESTORATION_SIGNATURE_MAX_BYTES,
}


def _cose(given: Input, keys: Input) -> Finding:
    signed = Signed.decode(octets(given["bytes"]), _COSE_LIMITS[given["purpose"]])
    signed.verify(given["purpose"], octets(given["key"]))
    return Finding({"signer": signed.signer, "payload": signed.payload})


def _run(given: Input, keys: Input) -> Finding:
    signed = run.SignedRun.decode(octets(given["run"]))
    signed.verify(octets(given["key"]))
    strand, count, link = signed.run.end
    return Finding({"hash": signed.hash, "ids": signed.run.ids, "end": {"strand": strand, "next": count, "link": link}})


def _strand(given: Input, keys: Input) -> Finding:
    def end(of: Input) -> tuple[bytes, int, bytes]:
        return octets(of["strand"]), of["next"], octets(of["link"])

    require(run.link_ids(end(given["from"]), _all_octets(given["ids"])) == end(given["end"]), "another end")
    return Finding({})


# Secrets


def _seal(given: Input, keys: Input) -> Finding:
    encoded = octets(given["core"])
    core = event.Core.decode(encoded, HEADER_MAX_BYTES)
    plaintext = _body(given, "plaintext")
    commitment, body = seal(octets(keys["ek"]), core.salt, encoded, plaintext, event.body_limit(core.kind))
    header = cbor.encode({0: core.raw, 1: commitment, 2: sha256(body)})
    return Finding({"commitment": commitment, "header": header, "body": body, "body_bytes": len(body),
                    "id": sha256(header)})


def _open(given: Input, keys: Input) -> Finding:
    checked = event.check_event(octets(given["header"]), octets(given["body"]))
    core = checked.core
    plaintext = open_body(octets(keys["ek"]), core.salt, core.encoded, checked.header.commitment, checked.body)
    return Finding({"plaintext": plaintext})


def _unwrap(given: Input, keys: Input) -> Finding:
    def of(name: str) -> bytes:
        return octets(given[name])

    purpose = given["purpose"]
    if purpose == "EK":
        info = info_ek(of("room"), of("author"), of("epoch"), given["day"])
    elif purpose == "GK":
        info = info_gk(of("room"), of("epoch"), of("recipient"))
    elif purpose == "part":
        info = info_part(of("room"), of("author"), of("salt"), of("recipient"))
    else:
        raise ValueError(f"unknown purpose {purpose}")
    return Finding({"secret": unwrap(octets(keys["kem"]), info, of("wrapped"))})


def _private(given: Input, keys: Input) -> Finding:
    checked = event.check_event(octets(given["header"]), octets(given["body"]))
    private = control.open_private(checked, _secret(keys["reader"]))
    return Finding({
        "categories": [{"epoch": entry.epoch, "category": entry.category} for entry in private.categories],
        "purpose": private.purpose,
        "name": private.name,
        "recovery": private.recovery.id if private.recovery else None,
    })


# The room


def _ledger(given: Input, keys: Input) -> Finding:
    the_shard = shard.Shard(octets(given["alliance"]))
    outcomes: list[Any] = []
    refused: Refused | None = None
    for step in given["steps"]:
        refused = None
        try:
            if "submit" in step:
                the_shard.submit(octets(step["submit"]), step["at"])
                outcomes.append("accepted")
            else:
                the_shard.read(octets(step["read"]), octets(step["reader"]), step["at"])
                outcomes.append("granted")
        except Refused as error:
            refused = error
            outcomes.append({"refused": error.code})
        except KnownEvents as error:
            refused = Refused(str(error))
            outcomes.append({"known": error.ids})
    found = {"outcomes": outcomes, "state": shard.describe(the_shard.room), "strands": the_shard.strands()}
    if "asks" in given:
        found["answers"] = [_answer(the_shard, ask) for ask in given["asks"]]
    return Finding(found, refused)


def _answer(the_shard: shard.Shard, ask: Input) -> Any:
    right = {"read": control.READ, "append": control.APPEND}[ask["may"]]
    why = the_shard.may(octets(ask["author"]), right, octets(ask["epoch"]), ask["hour"], ask["at"])
    return "yes" if why is None else why


def _followed(given: Input) -> tuple[Follower, dict[str, Any]]:
    alliance = octets(given["alliance"])
    charters = charter.verify_charters(octets(given["charter"]), alliance)
    follower = Follower(alliance, octets(given["room"]), given["whole"])
    for item in item_octets(given["items"]):
        follower.follow(item)
    head = log.Head.decode(octets(given["head"]), FRAME_MAX_BYTES)
    verified = follower.check_head(head, octets(given["nonce"]), charters, given.get("known"))
    found = {"verified": follower.verified, "size": verified.checkpoint.size, "next_control": follower.next_control,
             "distrusted": follower.distrusted(), "distrusted_reads": follower.distrusted_reads()}
    if follower.unknown:
        found["unknown"] = follower.unknown
    if follower.voids.named:
        found["void"] = follower.voids.named
    return follower, found


def _follow(given: Input, keys: Input) -> Finding:
    return Finding(_followed(given)[1])


def _read(given: Input, keys: Input) -> Finding:
    follower, found = _followed(given)
    opener = Opener.of(follower, _secret(keys["reader"]), _all_octets(given["wraps"]))
    opened = []
    refused: Refused | None = None
    for shown in follower.events:
        if shown.kind != event.VITALS or not shown.body:
            continue
        try:
            opened.append({"event": shown.id, "readings": _shown(opener.open_vitals(shown))})
        except Refused as error:
            refused = refused or error
    return Finding(found | {"opened": opened}, refused)


# The log


def _root(given: Input, keys: Input) -> Finding:
    root = log.root_of(_all_octets(given["leaves"]))
    require("root" not in given or root == octets(given["root"]), "another root")
    return Finding({"root": root})


def _inclusion(given: Input, keys: Input) -> Finding:
    hash_ = log.leaf_hash(octets(given["leaf"]))
    log.verify_inclusion(hash_, given["index"], given["size"], _all_octets(given["proof"]), octets(given["root"]))
    return Finding({})


def _consistency(given: Input, keys: Input) -> Finding:
    old_root, new_root = octets(given["old_root"]), octets(given["new_root"])
    log.verify_consistency(given["old"], old_root, given["new"], new_root, _all_octets(given["proof"]))
    return Finding({})


def _charters(given: Input) -> list[charter.Charter]:
    return charter.verify_charters(octets(given["charter"]), octets(given["alliance"]))


def _charter(given: Input, keys: Input) -> Finding:
    newest = _charters(given)[-1]
    quorums = [newest.quorum(number) for number in range(newest.shard_count)]
    found = {"version": newest.version, "hash": newest.hash, "shard_count": newest.shard_count, "quorums": quorums}
    if newest.rules != 1:
        found["rules"] = newest.rules
    return Finding(found)


def _of_checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    cosigners = [{"node": cosigner.node, "at": cosigner.at} for cosigner in checkpoint.cosigners]
    return {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root,
            "ordering_party": checkpoint.ordering_party, "cosigners": cosigners}


def _checkpoint(given: Input, keys: Input) -> Finding:
    return Finding(_of_checkpoint(verify_checkpoint(given["note"].encode(), given["shard"], _charters(given)[-1])))


def _receipt(given: Input, keys: Input) -> Finding:
    charters = _charters(given)
    signed = run.SignedRun.decode(octets(given["run"]))
    signed.verify(octets(given["key"]))
    receipt = log.Receipt.decode(octets(given["receipt"]), FRAME_MAX_BYTES)
    checkpoint = log.verify_run_receipt(receipt, signed, charters)
    return Finding({"leaf_hash": receipt.leaf.hash, "accepted_at": receipt.leaf.accepted_at} | _of_checkpoint(checkpoint))


def _head(given: Input, keys: Input) -> Finding:
    charters = _charters(given)
    head = log.Head.decode(octets(given["head"]), FRAME_MAX_BYTES)
    verified = log.verify_head(head, octets(given["room"]), octets(given["nonce"]), charters)
    verified.check_fresh(given["now"], charters[-1])
    return Finding({"size": verified.checkpoint.size, "entries": verified.leaf.index + 1})


def _restoration(given: Input, keys: Input) -> Finding:
    charters = _charters(given)
    records = [restored.verify_restoration(record, given["shard"], charters) for record in _all_octets(given["records"])]
    found: dict[str, Any] = {"restored": [
        {"origin": record.origin, "kept": record.kept, "root": record.root, "known": record.known} for record in records
    ]}
    if "remembered" in given:
        of = given["remembered"]
        remembered = restored.Remembered(of["incarnation"], of["size"], octets(of["root"]), of.get("charter", 1))
        shown = verify_checkpoint(given["shown"].encode(), given["shard"], charters[-1])
        kept, lost = restored.follow_restorations(records, remembered, shown)
        found["kept"] = {"origin": shown.origin, "size": kept.size, "root": kept.root}
        found["lost"] = [{"incarnation": l.incarnation, "from": l.first, "until": l.until} for l in lost]
    return Finding(found)


def _evidence(given: Input, keys: Input) -> Finding:
    judged = evidence.judge_evidence(octets(given["evidence"]))
    first, second = (
        {"size": side.said.size, "root": side.said.root, "charter": side.said.charter_version,
         "signers": [node.id for node in side.signers], "stands": side.stands}
        for side in (judged.first, judged.second)
    )
    said = judged.first.said
    return Finding({"alliance": judged.alliance_id, "origin": said.origin, "shard": said.shard,
                    "incarnation": said.incarnation, "first": first, "second": second, "culprits": judged.culprits,
                    "finding": judged.finding, "accused": judged.accused})


PROCEDURES: dict[str, Procedure] = {
    "decode": _decode, "frame": _frame, "event": _event, "room_id": _room_id, "shard": _shard,
    "wrap_record": _wrap_record, "vitals": _vitals, "identity": _identity, "recovery_key": _recovery_key,
    "signature": _signature, "cose": _cose, "run": _run, "strand": _strand, "seal": _seal, "open": _open,
    "unwrap": _unwrap, "private": _private, "ledger": _ledger, "follow": _follow, "read": _read,
    "root": _root, "inclusion": _inclusion, "consistency": _consistency, "charter": _charter, "checkpoint": _checkpoint,
    "receipt": _receipt, "head": _head, "restoration": _restoration, "evidence": _evidence,
}
