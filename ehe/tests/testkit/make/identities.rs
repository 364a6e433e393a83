//! I, S, Q, K: ids, signatures, COSE, keys.

use ehe::cose::{Domain, sign};
use ehe::id::{AuthorId, RoomId};
use ehe::identity::PublicIdentity;
use serde_json::{Value, json};

use super::Kit;
use super::hostile::sign_again;
use super::scene::create;
use super::world::{seeds, world};
use crate::json::h;
use crate::value::Cbor;

const FOLDER: &str = "identity";

pub(super) fn cases(kit: &mut Kit) {
    ids(kit);
    signatures(kit);
    cose(kit);
}

fn ids(kit: &mut Kit) {
    for label in ["patient", "gateway"] {
        kit.case(FOLDER, "I1", &format!("ok-{label}"), "from two seeds to two public keys to an author id", "identity")
            .keys(json!({"identity": seeds(label)}))
            .input(json!({}))
            .valid();
    }
    let public = |p: &PublicIdentity, claimed: AuthorId| json!({"sign": h(p.sign.0), "kem": h(p.kem.as_bytes()), "claimed": claimed.to_string()});
    let (patient, stranger) = (world().patient.public(), world().stranger.public());
    kit.case(FOLDER, "I1", "ok-public", "an author id that is the hash of its keys", "identity")
        .input(public(patient, patient.author_id()))
        .valid();
    kit.case(FOLDER, "I1", "anothers-id", "keys under an author id that is another's", "identity")
        .input(public(stranger, patient.author_id()))
        .invalid();
    let mut mixed = patient.clone();
    mixed.kem = stranger.kem.clone();
    kit.case(
        FOLDER,
        "I1",
        "anothers-encryption-key",
        "the right signing key with another's encryption key",
        "identity",
    )
    .input(public(&mixed, patient.author_id()))
    .invalid();
    kit.case(
        FOLDER,
        "K1",
        "coefficient-too-large",
        "an X-Wing key whose first ML-KEM coefficient is 4095, not below 3329",
        "identity",
    )
    .input(json!({"sign": h(patient.sign.0), "kem": h(bad_kem())}))
    .invalid();
    let plain = ehe::cbor::to_vec(&create());
    kit.case(FOLDER, "S1", "ok-room-id", "a room id is the hash of room-create's plain part", "room_id")
        .input(json!({"plain": h(plain)}))
        .valid();
    let room = create().room_id();
    for (count, slug) in [(1u16, "1"), (4, "4"), (16, "16"), (1000, "1000")] {
        kit.case(FOLDER, "S1", &format!("ok-shard-of-{slug}"), "a room's shard", "shard")
            .input(json!({"room": room.to_string(), "shard_count": count}))
            .valid();
    }
    let high = RoomId([0xff; 16]);
    kit.case(FOLDER, "S1", "ok-shard-unsigned", "the first 8 bytes are an unsigned number", "shard")
        .input(json!({"room": high.to_string(), "shard_count": 1000}))
        .valid();
    kit.case(FOLDER, "S1", "wrong-shard", "a room that is asked of another shard than its own", "shard")
        .input(json!({"room": high.to_string(), "shard_count": 1000, "asked": 616}))
        .refused(60);
}

/// 1216 bytes that are no X-Wing key: ML-KEM's modulus check fails.
pub(super) fn bad_kem() -> Vec<u8> {
    let mut kem = world().stranger.public().kem.as_bytes().to_vec();
    kem[0] = 0xff;
    kem[1] |= 0x0f;
    kem
}

/// The edge cases of "Taming the many EdDSAs" (K. Chalkias, F. Garillot, V. Nikolaenko, 2020), as published with it: what is
/// special, message, key, signature, whether rule I2 accepts it.
const EDGE_CASES: [(&str, &str, &str, &str, &str, bool); 10] = [
    (
        "small-order-key-and-r",
        "S = 0, small-order key, small-order R",
        "8c93255d71dcab10e8f379c26200f3c7bd5f09d9bc3068d3ef4edeb4853022b6",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a0000000000000000000000000000000000000000000000000000000000000000",
        false,
    ),
    (
        "small-order-key",
        "small-order key, R of mixed order",
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43a5bb704786be79fc476f91d3f3f89b03984d8068dcf1bb7dfc6637b45450ac04",
        false,
    ),
    (
        "small-order-r",
        "key of mixed order, small-order R",
        "aebf3f2601a0c8c5d39cc7d8911642f740b78168218da8471772b35f9d35b9ab",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa8c4bd45aecaca5b24fb97bc10ac27ac8751a7dfe1baff8b953ec9f5833ca260e",
        false,
    ),
    (
        "mixed-order",
        "key and R of mixed order; the equation holds without the cofactor too",
        "9bd9f44f4dcc75bd531b56b2cd280b0bb38fc1cd6d1230e14861d861de092e79",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "9046a64750444938de19f227bb80485e92b83fdb4b6506c160484c016cc1852f87909e14428a7a1d62e9f22f3d3ad7802db02eb2e688b6c52fcd6648a98bd009",
        true,
    ),
    (
        "cofactor-only",
        "the equation holds with the cofactor only",
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "160a1cb0dc9c0258cd0a7d23e94d8fa878bcb1925f2c64246b2dee1796bed5125ec6bc982a269b723e0668e540911a9a6a58921d6925e434ab10aa7940551a09",
        false,
    ),
    (
        "cofactor-only-prehashed",
        "the equation holds with the cofactor only, and only if 8·h is not reduced",
        "e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec4011eaccd55b53f56c",
        "cdb267ce40c5cd45306fa5d2f29731459387dbf9eb933b7bd5aed9a765b88d4d",
        "21122a84e0b5fca4052f5b1235c80a537878b38f3142356b2c2384ebad4668b7e40bc836dac0f71076f9abe3a53f9c03c1ceeeddb658d0030494ace586687405",
        false,
    ),
    (
        "s-above-the-order",
        "S is not below the order of the group",
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "e96f66be976d82e60150baecff9906684aebb1ef181f67a7189ac78ea23b6c0e547f7690a0e2ddcd04d87dbc3490dc19b3b3052f7ff0538cb68afb369ba3a514",
        false,
    ),
    (
        "s-far-above-the-order",
        "S is far above the order of the group",
        "85e241a07d148b41e47d62c63f830dc7a6851a0b1f33ae4bb2f507fb6cffec40",
        "442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623",
        "8ce5b96c8f26d0ab6c47958c9e68b937104cd36e13c33566acd2fe8d38aa19427e71f98a473474f2f13f06f97c20d58cc3f54b8bd0d272f42b695dd7e89a8c22",
        false,
    ),
    (
        "r-not-canonical",
        "R is a small-order point in another than its canonical encoding",
        "fdaebc429f4a735932a160da1301080c13280eea8bc280d1b392c6b9e6ba3a5a",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f454d370c8d9fc323a41450f8d513eafeb5b0697390c1e505a0d4ddc71f566607",
        false,
    ),
    (
        "r-not-canonical-hashed",
        "the same, the point encoded again before it is hashed",
        "84b698d39be126ff55fe45079e6c8bf64a0d7db6994560b4e96b7021eb39c1a1",
        "f7badec5b8abeaf699583992219b7b223f1df3fbbea919844e3f7c554a43dd43",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f084d5b99c2a9463d9c8bd5026916996984eeec87ddf1d3be329006ace1b37b09",
        false,
    ),
];

const EDGE_SOURCE: &str = "Taming the many EdDSAs (Chalkias, Garillot, Nikolaenko, 2020), ed25519-speccheck cases.json";

fn signatures(kit: &mut Kit) {
    for (slug, title, message, key, signature, accepted) in EDGE_CASES {
        let slug = if accepted { format!("ok-{slug}") } else { slug.into() };
        let draft = kit
            .case(FOLDER, "I2", &slug, title, "signature")
            .source(EDGE_SOURCE)
            .input(json!({"key": key, "message": message, "signature": signature}));
        if accepted { draft.valid() } else { draft.invalid() }
    }
    // RFC 8032 §7.1, TEST 3.
    let key = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
    let signature = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";
    let case =
        |key: &str, message: &str, signature: &str| json!({"key": key, "message": message, "signature": signature});
    kit.case(FOLDER, "I2", "ok-rfc8032", "a signature of RFC 8032", "signature")
        .source("RFC 8032 §7.1, TEST 3")
        .input(case(key, "af82", signature))
        .valid();
    kit.case(FOLDER, "I2", "other-message", "a good signature of another message", "signature")
        .input(case(key, "af83", signature))
        .invalid();
    let flipped = signature.replacen("62", "63", 1);
    kit.case(FOLDER, "I2", "altered-r", "a signature with one bit of R changed", "signature")
        .input(case(key, "af82", &flipped))
        .invalid();
    let off_curve = format!("02{}", "00".repeat(31));
    kit.case(FOLDER, "I2", "key-off-the-curve", "32 bytes that are no point: y = 2", "signature")
        .input(case(&off_curve, "af82", signature))
        .invalid();
    // y = p + 1 stands for the neutral element; R is the neutral element, S = 0: the bare equation holds for any message.
    let not_canonical = format!("ee{}7f", "ff".repeat(30));
    let neutral = format!("01{}", "00".repeat(63));
    kit.case(FOLDER, "I2", "key-not-canonical", "a key whose y is not below the field's order", "signature")
        .input(case(&not_canonical, "af82", &neutral))
        .invalid();
}

fn cose(kit: &mut Kit) {
    let (patient, stranger) = (&world().patient, &world().stranger);
    let key = h(patient.public().sign.0);
    let payload = b"payload".to_vec();
    let bytes = sign(patient, Domain::Run, payload.clone());
    let input = |purpose: &str, bytes: &[u8], key: &Value| json!({"purpose": purpose, "bytes": h(bytes), "key": key});
    for (purpose, domain) in [
        ("run", Domain::Run),
        ("read request", Domain::ReadRequest),
        ("charter", Domain::Charter),
        ("enrolment", Domain::Enrolment),
        ("head", Domain::Head),
        ("possession", Domain::Possession),
    ] {
        let bytes = sign(patient, domain, payload.clone());
        kit.case(FOLDER, "Q1", &format!("ok-{}", purpose.replace(' ', "-")), "a COSE_Sign1 of each purpose", "cose")
            .input(input(purpose, &bytes, &key))
            .valid();
    }
    let with = |change: &dyn Fn(&mut Cbor)| {
        let mut value = Cbor::parse(&bytes);
        change(&mut value);
        value.to_vec()
    };
    let protected = |change: &dyn Fn(&mut Cbor)| {
        with(&|v| {
            let mut header = Cbor::parse(v.at(0).bytes());
            change(&mut header);
            *v.at(0) = Cbor::Bytes(header.to_vec());
            // The signature is right for what stands there now: it is the header alone that is refused.
            sign_again(v, b"ehe/1 run", patient);
        })
    };
    fn items(value: &mut Cbor) -> &mut Vec<Cbor> {
        let Cbor::Array(items) = value else { panic!("no array") };
        items
    }
    let mut tagged = vec![0xd2];
    tagged.extend_from_slice(&bytes);
    for (slug, title, purpose, bytes, key) in [
        ("other-purpose", "a run's signature shown as a read request's", "read request", bytes.clone(), key.clone()),
        ("other-key", "under the key of another", "run", bytes.clone(), h(stranger.public().sign.0)),
        ("altered-payload", "the payload was altered", "run", with(&|v| v.at(2).bytes()[0] ^= 1), key.clone()),
        ("altered-signature", "the signature was altered", "run", with(&|v| v.at(3).bytes()[40] ^= 1), key.clone()),
        (
            "further-parameter",
            "a parameter besides in the protected header",
            "run",
            protected(&|p| p.set(5, Cbor::Int(1))),
            key.clone(),
        ),
        ("other-algorithm", "the algorithm is ES256", "run", protected(&|p| *p.at(1) = Cbor::Int(-7)), key.clone()),
        (
            "no-key-id",
            "the protected header has no key id",
            "run",
            protected(&|p| p.members().truncate(1)),
            key.clone(),
        ),
        (
            "unprotected-member",
            "something stands in the unprotected header",
            "run",
            with(&|v| v.at(1).set(4, Cbor::Bytes(vec![1; 16]))),
            key.clone(),
        ),
        ("tagged", "with CBOR tag 18", "run", tagged, key.clone()),
        ("detached", "without its payload", "run", with(&|v| *v.at(2) = Cbor::Null), key.clone()),
        ("array-of-3", "without its signature", "run", with(&|v| items(v).truncate(3)), key.clone()),
        ("array-of-5", "with an item after the signature", "run", with(&|v| items(v).push(Cbor::Null)), key.clone()),
        (
            "protected-map",
            "the protected header as a map, not as bytes that hold one",
            "run",
            with(&|v| *v.at(0) = Cbor::parse(v.at(0).bytes())),
            key.clone(),
        ),
        ("payload-text", "the payload as text", "run", with(&|v| *v.at(2) = Cbor::Text("payload".into())), key.clone()),
        ("key-id-15", "a key id of 15 bytes", "run", protected(&|p| p.at(4).bytes().truncate(15)), key.clone()),
        ("short-signature", "a signature of 63 bytes", "run", with(&|v| v.at(3).bytes().truncate(63)), key.clone()),
    ] {
        kit.case(FOLDER, "Q1", slug, title, "cose").input(input(purpose, &bytes, &key)).invalid();
    }
}
