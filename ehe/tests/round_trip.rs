//! Any value encodes and comes back; whatever a decoder takes is the encoding of what it understood.
//!
//! Values are made member by member from any bytes, so most mean nothing; what they mean is other tests' affair. Encodings that were
//! changed in one place go through the fuzzers' functions, which assert that accepted bytes have no second encoding.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the library of another package")]
mod checks;

use std::sync::LazyLock;

use ehe::cbor;
use ehe::control::{
    Authority, Change, Control, ControlLink, Ending, EpochRecord, Grant, Revoke, Right, Rights, RoomCreate, SeedWrap,
    WrapRecord,
};
use ehe::event::{Core, Event, Header, Kind, Suite, VERSION, decode_header};
use ehe::id::{AllianceId, AuthorId, EheId, EpochId, Hash, NodeId, Nonce, RoomId, StrandId, WrapId};
use ehe::identity::{Identity, PublicIdentity};
use ehe::kem::{KEM_PUBLIC_LEN, KemPublic, WRAP_LEN, Wrapped};
use ehe::leaf::{Leaf, Receipt};
use ehe::limits;
use ehe::read::{AccessRecord, Part, Purpose, ReadRequest, Scope, SignedRequest};
use ehe::refusal::Refusal;
use ehe::run::{Run, SeenCheckpoint, SignedRun, StrandEnd};
use ehe::sign::VerifyKey;
use ehe::time::{Day, Hour, UnixMs};
use ehe::wire::{
    GroupNode, GroupStatus, Head, Item, KnownRun, MovedStatus, NodeStatus, Request, Response, RoomInfo, ScrubStatus,
    ShardStatus, Submission, Submitted,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rand::SeedableRng;

static SIGNER: LazyLock<Identity> = LazyLock::new(|| Identity::generate(&mut rand::rngs::StdRng::seed_from_u64(1)));

fn id16<T>(make: fn([u8; 16]) -> T) -> impl Strategy<Value = T>
where
    T: core::fmt::Debug,
{
    any::<[u8; 16]>().prop_map(make)
}

fn id32<T>(make: fn([u8; 32]) -> T) -> impl Strategy<Value = T>
where
    T: core::fmt::Debug,
{
    any::<[u8; 32]>().prop_map(make)
}

fn id8<T>(make: fn([u8; 8]) -> T) -> impl Strategy<Value = T>
where
    T: core::fmt::Debug,
{
    any::<[u8; 8]>().prop_map(make)
}

/// `len` bytes that begin differently.
fn long(len: usize) -> impl Strategy<Value = Vec<u8>> {
    any::<[u8; 8]>().prop_map(move |start| {
        let mut bytes = start.to_vec();
        bytes.resize(len, 0x5a);
        bytes
    })
}

fn wrapped() -> impl Strategy<Value = Wrapped> {
    long(WRAP_LEN).prop_map(|bytes| Wrapped::from_slice(&bytes).unwrap())
}

fn kem_public() -> impl Strategy<Value = KemPublic> {
    long(KEM_PUBLIC_LEN).prop_map(|bytes| KemPublic::from_slice(&bytes).unwrap())
}

fn identity() -> impl Strategy<Value = PublicIdentity> {
    (id32(VerifyKey), kem_public()).prop_map(|(sign, kem)| PublicIdentity { sign, kem })
}

fn ms() -> impl Strategy<Value = UnixMs> {
    prop_oneof![any::<u64>(), 0u64..30, 1_700_000_000_000u64..1_800_000_000_000].prop_map(UnixMs)
}

fn header() -> impl Strategy<Value = Header> {
    let kinds = [
        Kind::Vitals,
        Kind::DeviceStatus,
        Kind::ClinicalRecord,
        Kind::Goal,
        Kind::Note,
        Kind::Instruction,
        Kind::RoomCreate,
        Kind::Authority,
        Kind::Grant,
        Kind::Revoke,
        Kind::Epoch,
        Kind::Wrap,
        Kind::Attribution,
        Kind::Shred,
    ];
    let ids = (id16(RoomId), id16(AuthorId), id16(EpochId), id16(WrapId));
    let rest = (any::<u32>().prop_map(Hour), id16(Nonce), id32(Hash), id32(Hash));
    (select(kinds.to_vec()), ids, rest).prop_map(
        |(kind, (room, author, epoch, wrap), (hour, salt, commitment, body_hash))| Header {
            core: Core { version: VERSION, suite: Suite::One, kind, room, author, epoch, wrap, hour, salt },
            commitment,
            body_hash,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    (header(), vec(any::<u8>(), 0..600)).prop_map(|(header, body)| Event { header: cbor::to_vec(&header), body })
}

fn strand_end() -> impl Strategy<Value = StrandEnd> {
    (id8(StrandId), any::<u64>(), id32(Hash)).prop_map(|(strand, next, link)| StrandEnd { strand, next, link })
}

fn seen() -> impl Strategy<Value = SeenCheckpoint> {
    ("[a-z/0-9]{0,60}", any::<u64>(), id32(Hash)).prop_map(|(origin, size, root)| SeenCheckpoint { origin, size, root })
}

fn run() -> impl Strategy<Value = Run> {
    let ids = vec(id32(EheId), 1..=limits::RUN_EVENTS_MAX);
    (id16(RoomId), strand_end(), ids, option::of(seen()), option::of(strand_end())).prop_map(
        |(room, from, ids, seen, continues)| {
            // A strand's numbers do not pass 64 bits, and its first run begins at zeros.
            let from = StrandEnd { next: from.next.min(u64::MAX - 256), ..from };
            let from = if continues.is_some() || from.next == 0 { StrandEnd::start(from.strand) } else { from };
            Run { room, author: SIGNER.author_id(), from, ids, seen, continues }
        },
    )
}

fn signed_run() -> impl Strategy<Value = SignedRun> {
    run().prop_map(|run| run.sign(&SIGNER))
}

fn link() -> impl Strategy<Value = ControlLink> {
    (any::<u64>(), id32(EheId)).prop_map(|(seq, previous)| ControlLink { seq, previous })
}

fn seeds() -> impl Strategy<Value = Vec<SeedWrap>> {
    let seed = (id16(EpochId), id16(AuthorId), wrapped());
    vec(seed.prop_map(|(epoch, recipient, wrapped)| SeedWrap { epoch, recipient, wrapped }), 0..4)
}

fn change() -> impl Strategy<Value = Change> {
    let rights = select(vec![Rights::GRANT, Rights::REVOKE, Rights::EPOCH, Rights::GRANT.and(Rights::EPOCH)]);
    let recover = (identity(), identity(), long(150), id32(Hash), option::of(any::<u64>()));
    prop_oneof![
        (identity(), long(150)).prop_map(|(keys, possession)| Change::Rotate(keys, possession)),
        (identity(), rights, option::of(ms())).prop_map(|(who, rights, until)| Change::Delegate(who, rights, until)),
        id16(AuthorId).prop_map(Change::Withdraw),
        id32(Hash).prop_map(Change::SetRecovery),
        recover.prop_map(|(recovery, keys, possession, next, distrusted_from)| Change::Recover {
            recovery,
            keys,
            possession,
            next,
            distrusted_from
        }),
        Just(Change::HandOver),
    ]
}

fn control() -> impl Strategy<Value = Control> {
    let create = (id32(AllianceId), id16(Nonce), identity(), id32(Hash))
        .prop_map(|(alliance, nonce, owner, recovery)| RoomCreate { alliance, nonce, owner, recovery });
    let authority = (link(), change(), seeds()).prop_map(|(link, change, seeds)| Authority { link, change, seeds });
    let keys = (id16(EpochId), kem_public(), option::of(id16(EpochId)));
    let epoch = (link(), keys, vec(id32(EheId), 0..5), seeds()).prop_map(
        |(link, (epoch, group_key, supersedes), continues, seeds)| EpochRecord {
            link,
            epoch,
            group_key,
            supersedes,
            continues,
            seeds,
        },
    );
    let hour = || option::of(any::<u32>().prop_map(Hour));
    let what = (select(vec![Right::Read, Right::Append]), vec(id16(EpochId), 0..5));
    let grant = (link(), identity(), what, (hour(), hour(), option::of(ms())), seeds()).prop_map(
        |(link, subject, (right, epochs), (from, until, expires), seeds)| Grant {
            link,
            subject,
            right,
            epochs,
            from,
            until,
            expires,
            seeds,
        },
    );
    let ending = prop_oneof![Just(Ending::Cut), ms().prop_map(Ending::DrainUntil)];
    let revoke = (link(), id32(EheId), ending).prop_map(|(link, grant, ending)| Revoke { link, grant, ending });
    let wrap = (id16(EpochId), any::<u32>().prop_map(Day), wrapped()).prop_map(|(epoch, day, wrapped)| WrapRecord {
        epoch,
        day,
        wrapped,
    });
    prop_oneof![
        create.prop_map(Control::RoomCreate),
        authority.prop_map(Control::Authority),
        epoch.prop_map(Control::Epoch),
        grant.prop_map(Control::Grant),
        revoke.prop_map(Control::Revoke),
        wrap.prop_map(Control::Wrap),
    ]
}

fn leaf() -> impl Strategy<Value = Leaf> {
    (id16(RoomId), any::<u64>(), id32(Hash), id32(Hash), ms(), any::<u64>()).prop_map(
        |(room, index, previous, entry, accepted_at, control)| Leaf {
            room,
            index,
            previous,
            entry,
            accepted_at,
            control,
        },
    )
}

fn receipt() -> impl Strategy<Value = Receipt> {
    (leaf(), any::<u64>(), vec(id32(Hash), 0..5), "[a-z\n]{0,80}")
        .prop_map(|(leaf, log_index, proof, checkpoint)| Receipt { leaf, log_index, proof, checkpoint })
}

fn request() -> impl Strategy<Value = ReadRequest> {
    let part = select(vec![Part::Control, Part::Content, Part::Ledger]);
    let scope = (part, vec(id16(EpochId), 0..5), any::<u32>(), any::<u32>())
        .prop_map(|(part, epochs, from, until)| Scope { part, epochs, from: Hour(from), until: Hour(until) });
    let ids = (id32(AllianceId), id16(RoomId), id16(Nonce));
    let purpose = select(vec![Purpose::Treatment, Purpose::PatientRequest, Purpose::Operations, Purpose::Research]);
    (ids, scope, purpose, option::of(id16(Nonce)), option::of(seen()), any::<u64>(), ms()).prop_map(
        |((alliance, room, nonce), scope, purpose, actor, head, from_index, made_at)| ReadRequest {
            alliance,
            room,
            reader: SIGNER.author_id(),
            nonce,
            scope,
            purpose,
            actor,
            head,
            from_index,
            made_at,
        },
    )
}

fn signed_request() -> impl Strategy<Value = SignedRequest> {
    request().prop_map(|request| request.sign(&SIGNER))
}

fn refusal() -> impl Strategy<Value = Refusal> {
    select(Refusal::ALL.to_vec())
}

fn record() -> impl Strategy<Value = AccessRecord> {
    (signed_request(), option::of(refusal()), option::of(identity()), any::<u64>(), ms())
        .prop_map(|(request, refused, reader, count, at)| AccessRecord { request, refused, reader, count, at })
}

fn to_node() -> impl Strategy<Value = Request> {
    let submission = (signed_run(), vec(event(), 0..4)).prop_map(|(run, events)| Submission { run, events });
    prop_oneof![
        submission.prop_map(Request::Submit),
        (signed_request(), identity()).prop_map(|(request, reader)| Request::Fetch(request, reader)),
        (signed_request(), identity()).prop_map(|(request, reader)| Request::Subscribe(request, reader)),
        (id16(RoomId), id16(Nonce)).prop_map(|(room, nonce)| Request::Head(room, nonce)),
        Just(Request::RoomsOf),
        any::<u32>().prop_map(Request::Charter),
        Just(Request::Status),
        any::<u32>().prop_map(Request::Evidence),
        (any::<u16>(), any::<u32>()).prop_map(|(shard, incarnation)| Request::Restorations(shard, incarnation)),
        any::<(u16, u64, u64)>().prop_map(|(shard, smaller, larger)| Request::Extends(shard, smaller, larger)),
    ]
}

fn from_node() -> impl Strategy<Value = Response> {
    let submitted = (receipt(), any::<u64>()).prop_map(|(receipt, control_seq)| Submitted { receipt, control_seq });
    let known = vec((signed_run(), receipt()).prop_map(|(run, receipt)| KnownRun { run, receipt }), 0..3);
    let item = (leaf(), option::of(signed_run()), vec(event(), 0..4), option::of(vec(any::<u8>(), 0..90)))
        .prop_map(|(leaf, run, events, access)| Item { leaf, run, events, void: access.clone(), access });
    let head = (receipt(), id16(Nonce), ms(), vec(any::<u8>(), 0..180)).prop_map(|(last, nonce, at, signature)| Head {
        last,
        nonce,
        at,
        signature,
    });
    let room = (id16(RoomId), id16(AuthorId), vec(id32(EheId), 0..3), any::<u64>())
        .prop_map(|(room, owner, grants, entries)| RoomInfo { room, owner, grants, entries });
    let shard = (any::<u16>(), option::of(id8(NodeId)), any::<[u64; 4]>(), any::<bool>()).prop_map(
        |(shard, leader, [term, applied, leaves, rooms], faulted)| ShardStatus {
            shard,
            leader,
            term,
            applied,
            leaves,
            rooms,
            faulted,
        },
    );
    let count = option::of(any::<core::num::NonZeroU32>());
    let member = (id8(NodeId), any::<bool>(), option::of(any::<u64>()), option::of(any::<u64>()), any::<bool>())
        .prop_map(|(node, votes, applied, heard_ms, faulted)| GroupNode {
            node,
            votes,
            applied,
            heard_ms,
            faulted,
            knows: applied.and_then(|applied| u16::try_from(applied).ok()),
        });
    let group = (any::<u16>(), any::<u32>(), option::of(id8(NodeId)), vec(member, 0..3), option::of("[ -~]{0,20}"))
        .prop_map(|(shard, charter, leader, nodes, doing)| GroupStatus {
            shard,
            charter,
            leader,
            nodes,
            doing,
            rules: leader.map(|_| shard),
        });
    let first = option::of("[ -~]{0,20}");
    let scrub = (any::<u16>(), any::<[u64; 3]>(), any::<bool>(), option::of(ms()), option::of(any::<u64>()), first)
        .prop_map(|(shard, [checked, entries, found], held, ended, took_ms, first)| ScrubStatus {
            shard,
            checked,
            entries,
            found,
            held,
            ended,
            took_ms,
            first,
        });
    let scrub = option::of(vec(scrub, 0..3));
    let moved =
        (any::<u16>(), any::<u64>(), "[ -~]{0,20}").prop_map(|(shard, leaves, why)| MovedStatus { shard, leaves, why });
    let groups = (option::of(vec(group, 0..3)), option::of(vec(moved, 0..3)));
    let status = (id8(NodeId), "[ -~]{0,20}", any::<u32>(), vec(shard, 0..3), ms(), (groups, count, scrub)).prop_map(
        |(node, program, charter_version, shards, at, ((groups, moved), evidence, scrub))| NodeStatus {
            node,
            program,
            charter_version,
            shards,
            at,
            groups,
            evidence,
            scrub,
            moved,
        },
    );
    prop_oneof![
        submitted.prop_map(Response::Submitted),
        known.prop_map(Response::Known),
        refusal().prop_map(Response::Refused),
        id8(NodeId).prop_map(Response::AskNode),
        item.prop_map(Response::Item),
        head.prop_map(Response::Head),
        vec(room, 0..3).prop_map(Response::Rooms),
        vec(any::<u8>(), 0..90).prop_map(Response::Charter),
        status.prop_map(Response::Status),
        event().prop_map(Response::Wrap),
        (any::<u32>(), vec(any::<u8>(), 0..90)).prop_map(|(kept, bytes)| Response::Evidence(kept, bytes)),
        vec(vec(any::<u8>(), 0..90).prop_map(Into::into), 0..3).prop_map(Response::Restorations),
        (any::<[u8; 32]>(), vec(any::<[u8; 32]>(), 0..3))
            .prop_map(|(root, proof)| Response::Extends(Hash(root), proof.into_iter().map(Hash).collect())),
    ]
}

/// What is done to an encoding: nothing, or one place of it.
#[derive(Debug, Clone)]
enum Damage {
    Change(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Change(at, to)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Insert(at, to)),
        1 => any::<Index>().prop_map(Damage::Remove),
        1 => any::<Index>().prop_map(Damage::Cut),
    ]
}

fn damaged(bytes: &[u8], damage: &Damage) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match damage {
        Damage::Change(at, to) => {
            let at = at.index(bytes.len());
            bytes[at] = *to;
        }
        Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), *byte),
        Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
        Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
    }
    bytes
}

/// A fuzz target's function on a damaged encoding.
fn check_damaged(target: &str, bytes: &[u8], damage: &Damage) {
    let (_, check) = checks::ALL.iter().find(|(name, _)| *name == target).unwrap();
    check(&damaged(bytes, damage));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn headers_come_back_and_have_one_encoding(value in header(), damage in damage()) {
        let bytes = cbor::to_vec(&value);
        prop_assert!(bytes.len() <= limits::HEADER_MAX_BYTES);
        prop_assert_eq!(decode_header(&bytes), Ok(value));
        check_damaged("header", &bytes, &damage);
    }

    #[test]
    fn signed_runs_come_back_and_have_one_encoding(value in run(), damage in damage()) {
        let signed = value.sign(&SIGNER);
        prop_assert!(signed.0.len() <= limits::RUN_MAX_BYTES);
        let back = signed.decode().unwrap().verify(&SIGNER.public().sign).unwrap();
        prop_assert_eq!(back.run(), &value);
        check_damaged("run", &signed.0, &damage);
    }

    #[test]
    fn control_events_come_back_and_have_one_encoding(value in control(), damage in damage()) {
        let mut rng = rand::rngs::StdRng::seed_from_u64(2);
        let event = value.event(&mut rng, RoomId([1; 16]), SIGNER.author_id(), UnixMs(1), None).unwrap();
        let event = event.into_event().check().unwrap();
        prop_assert_eq!(Control::decode(&event).unwrap(), value.clone());
        let bytes = [cbor::to_vec(&value.kind()).as_slice(), event.body()].concat();
        check_damaged("control", &bytes, &damage);
    }

    #[test]
    fn leaves_and_receipts_come_back_and_have_one_encoding(value in receipt(), damage in damage()) {
        let bytes = cbor::to_vec(&value.leaf);
        prop_assert_eq!(cbor::from_slice::<Leaf>(&bytes, 1024), Ok(value.leaf.clone()));
        let changed = damaged(&bytes, &damage);
        if let Ok(leaf) = cbor::from_slice::<Leaf>(&changed, 1024) {
            prop_assert_eq!(cbor::to_vec(&leaf), changed);
        }
        let bytes = cbor::to_vec(&value);
        prop_assert_eq!(cbor::from_slice::<Receipt>(&bytes, limits::FRAME_MAX_BYTES), Ok(value));
        check_damaged("receipt", &bytes, &damage);
    }

    #[test]
    fn read_requests_and_access_records_come_back_and_have_one_encoding(
        value in request(), record in record(), damage in damage()
    ) {
        let signed = value.sign(&SIGNER);
        prop_assert_eq!(signed.decode().unwrap().verify_as(SIGNER.public()), Ok(value));
        check_damaged("request", &signed.0, &damage);
        let bytes = record.to_vec();
        prop_assert_eq!(AccessRecord::decode(&bytes), Ok(record));
        check_damaged("request", &bytes, &damage);
    }

    #[test]
    fn messages_to_a_node_come_back_and_have_one_encoding(value in to_node(), damage in damage()) {
        let bytes = value.to_vec();
        prop_assert_eq!(Request::decode(&bytes), Ok(value));
        check_damaged("frame", &bytes, &damage);
    }

    #[test]
    fn messages_of_a_node_come_back_and_have_one_encoding(value in from_node(), damage in damage()) {
        let bytes = value.to_vec();
        prop_assert_eq!(Response::decode(&bytes), Ok(value));
        check_damaged("frame", &bytes, &damage);
    }
}
