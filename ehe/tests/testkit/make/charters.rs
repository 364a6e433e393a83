//! H: the charter and its chain.

use ehe::charter::{Charter, CharterChain, Placement, SignedCharter};
use ehe::cose::{Domain, sign};
use ehe::id::{AllianceId, Hash, MemberId, NodeId};
use ehe::identity::Identity;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Kit;
use super::world::{person, signed, world};
use crate::json::h;
use crate::value::Cbor;

const FOLDER: &str = "log";

pub(super) fn cases(kit: &mut Kit) {
    charters(kit);
    charter_rules(kit);
    charter_forms(kit);
    rules_versions(kit);
}

/// The rules version, from charter to charter.
fn rules_versions(kit: &mut Kit) {
    let world = world();
    let alliance = world.one.id;
    let chain = |rules: &[Option<u16>]| {
        let mut charters: Vec<SignedCharter> = Vec::new();
        for rules in rules {
            let before = charters.last();
            let charter = Charter {
                version: u32::try_from(charters.len()).unwrap() + 1,
                predecessor: before.map(SignedCharter::hash),
                rules: *rules,
                ..world.one.charter.clone()
            };
            charters.push(signed_by_hand(&charter));
        }
        charters
    };
    for (slug, title, rules) in [
        ("ok-raised", "a second charter raises the rules version", &[None, Some(2)][..]),
        ("ok-stays", "a third charter leaves it as it was", &[None, Some(2), Some(2)]),
        (
            "ok-skipped",
            "a rules version that is not the next, and that no program needs to know",
            &[None, Some(65_535)],
        ),
    ] {
        kit.case(FOLDER, "H6", slug, title, "charter").input(chain_input(chain(rules), alliance)).valid();
    }
    for (slug, title, rules) in [
        ("lowered", "a rules version below that of the charter before", &[None, Some(3), Some(2)][..]),
        ("left-out", "a rules version that is left out after it was raised", &[None, Some(2), None]),
        ("one-written", "rules version 1, written", &[None, Some(1)]),
        ("zero", "rules version 0", &[None, Some(0)]),
    ] {
        kit.case(FOLDER, "H6", slug, title, "charter").input(chain_input(chain(rules), alliance)).invalid();
    }
    let first = chain(&[Some(2)]);
    let alliance = AllianceId(first[0].hash().0);
    let title = "charter 1 names a rules version";
    kit.case(FOLDER, "H6", "in-charter-1", title, "charter").input(chain_input(first, alliance)).invalid();
}

fn chain_input(charters: Vec<SignedCharter>, alliance: AllianceId) -> Value {
    json!({"alliance": alliance.to_string(), "charter": h(CharterChain(charters).encode())})
}

fn charters(kit: &mut Kit) {
    let world = world();
    let (members, alliance) = (&world.members, world.three.id);
    let one = world.three.signed.clone();
    let newcomers: Vec<Identity> = (0..3).map(|i| person(&format!("newcomer {i}"))).collect();
    let two = Charter {
        version: 2,
        predecessor: Some(one.hash()),
        alliance: "Renamed".into(),
        ..world.three.charter.clone()
    };
    let by = [&members[1], &members[2]];
    let mut replaced = two.clone();
    for (member, new) in replaced.members.iter_mut().zip(&newcomers) {
        member.identity = new.public().clone();
    }
    let mut ok = |rule: &str, slug: &str, title: &str, charters: Vec<SignedCharter>| {
        kit.case(FOLDER, rule, slug, title, "charter").input(chain_input(charters, alliance)).valid();
    };
    ok("H1", "ok-charter-1", "charter 1 under the alliance id that is its hash", vec![one.clone()]);
    ok("H2", "ok-charter-2", "a second charter", vec![one.clone(), signed(&two, &by)]);
    ok(
        "H3",
        "ok-members-replaced",
        "old members agree to be replaced, and a new one signs too",
        vec![one.clone(), signed(&replaced, &[&members[0], &members[1], &newcomers[0]])],
    );
    ok("H3", "ok-signed-twice", "one signature twice counts once and does no harm", {
        let mut wire = Cbor::parse(&one.encode());
        let Cbor::Array(signatures) = wire.at(1) else { panic!() };
        signatures.push(signatures[0].clone());
        vec![SignedCharter::decode(&wire.to_vec()).unwrap()]
    });
    let with_signatures = |charter: &Charter, change: &dyn Fn(&mut Vec<Cbor>)| {
        let mut wire = Cbor::parse(&signed(charter, &by).encode());
        let Cbor::Array(signatures) = wire.at(1) else { panic!() };
        change(signatures);
        SignedCharter::decode(&wire.to_vec()).unwrap()
    };
    let other = Charter { alliance: "Another".into(), ..world.three.charter.clone() };
    let foreign = Cbor::Bytes(sign(&members[0], Domain::Charter, signed(&other, &[]).hash().0.to_vec()));
    let as_run = Cbor::Bytes(sign(&members[0], Domain::Run, one.hash().0.to_vec()));
    let chain = |two: SignedCharter| vec![one.clone(), two];
    for (rule, slug, title, charters, alliance) in [
        (
            "H1",
            "other-pin",
            "a charter 1 that is not the one whose hash was given",
            vec![one.clone()],
            AllianceId([1; 32]),
        ),
        (
            "H1",
            "from-charter-2",
            "a chain that does not begin with charter 1",
            vec![signed(&two, &by)],
            AllianceId(signed(&two, &by).hash().0),
        ),
        ("H1", "empty-chain", "a chain without a charter", vec![], alliance),
        (
            "H2",
            "version-skipped",
            "a charter 3 after charter 1",
            chain(signed(&Charter { version: 3, ..two.clone() }, &by)),
            alliance,
        ),
        (
            "H2",
            "other-predecessor",
            "a charter that names another before it",
            chain(signed(&Charter { predecessor: Some(Hash([9; 32])), ..two.clone() }, &by)),
            alliance,
        ),
        (
            "H2",
            "other-shard-count",
            "a charter that changes the number of shards",
            chain(signed(&Charter { shard_count: 8.try_into().unwrap(), ..two.clone() }, &by)),
            alliance,
        ),
        ("H3", "minority", "one of three members signed", chain(signed(&two, &by[..1])), alliance),
        (
            "H3",
            "one-signed-twice",
            "one member signed twice",
            chain(with_signatures(&two, &|s| s[1] = s[0].clone())),
            alliance,
        ),
        (
            "H3",
            "stranger-besides",
            "a majority signed, and somebody else",
            chain(signed(&two, &[by[0], by[1], &world.stranger])),
            alliance,
        ),
        (
            "H3",
            "newcomers-alone",
            "the new members vote themselves in",
            chain(signed(&replaced, &[&newcomers[0], &newcomers[1], &newcomers[2]])),
            alliance,
        ),
        (
            "H3",
            "signature-of-another-charter",
            "a member's signature of another charter",
            chain(with_signatures(&two, &|s| s.push(foreign.clone()))),
            alliance,
        ),
        (
            "H3",
            "signature-for-another-purpose",
            "a member's signature for another purpose",
            vec![with_signatures(&world.three.charter, &|s| s.push(as_run.clone()))],
            alliance,
        ),
    ] {
        kit.case(FOLDER, rule, slug, title, "charter").input(chain_input(charters, alliance)).invalid();
    }
}

/// A charter that breaks its own rules cannot be made by the library: it is encoded and signed by hand here.
fn signed_by_hand(charter: &Charter) -> SignedCharter {
    let bytes = charter.to_bytes();
    let hash = Sha256::digest(&bytes).to_vec();
    let signatures = world().members[..charter.members.len().min(2)]
        .iter()
        .map(|m| Cbor::Bytes(sign(m, Domain::Charter, hash.clone())))
        .collect::<Vec<_>>();
    let wire = Cbor::Map(vec![(0, Cbor::Bytes(bytes)), (1, Cbor::Array(signatures))]);
    SignedCharter::decode(&wire.to_vec()).unwrap()
}

fn charter_rules(kit: &mut Kit) {
    type Change = fn(&mut Charter);
    let changes: [(&str, &str, Change); 37] = [
        ("version-0", "version 0", |c| c.version = 0),
        ("predecessor-in-1", "charter 1 names a predecessor", |c| c.predecessor = Some(Hash::ZERO)),
        ("node-id-twice", "two nodes of one id", |c| c.nodes[1].id = c.nodes[0].id),
        ("node-name-twice", "two nodes of one name", |c| c.nodes[1].name = c.nodes[0].name.clone()),
        ("node-key-twice", "two nodes of one key", |c| c.nodes[1].sign = c.nodes[0].sign),
        ("member-id-twice", "two members of one id", |c| c.members[1].id = c.members[0].id),
        ("member-name-twice", "two members of one name", |c| c.members[1].name = c.members[0].name.clone()),
        ("member-key-twice", "two members of one signing key", |c| {
            c.members[2].identity = c.members[0].identity.clone()
        }),
        ("node-twice-in-a-group", "one node twice in a group", |c| {
            c.placement = Placement::Everywhere(vec![c.nodes[0].id, c.nodes[1].id, c.nodes[1].id]);
        }),
        ("group-of-2", "a group of two nodes", |c| {
            c.placement = Placement::Everywhere(vec![c.nodes[0].id, c.nodes[1].id])
        }),
        ("group-of-0", "a group without a node", |c| c.placement = Placement::Everywhere(vec![])),
        ("unknown-node", "a group with a node that the charter does not have", |c| {
            c.placement = Placement::Everywhere(vec![NodeId([9; 8])])
        }),
        ("shards-not-covered", "three groups for four shards", |c| {
            c.placement = Placement::Listed(vec![vec![c.nodes[0].id]; 3])
        }),
        ("unknown-member", "a node of a member that the charter does not have", |c| {
            c.nodes[0].member = MemberId([9; 8])
        }),
        ("cosignatures-above-members", "more cosignatures asked for than there are members", |c| {
            c.min_cosignatures = Some(4)
        }),
        ("cosignatures-0", "no cosignature asked for", |c| c.min_cosignatures = Some(0)),
        ("name-upper-case", "a node's name in upper case", |c| c.nodes[0].name = "Node-a.example".into()),
        ("name-plus", "a node's name with a plus sign", |c| c.nodes[0].name = "node+a.example".into()),
        ("name-edge-hyphen", "a node's name with a label that begins with a hyphen", |c| {
            c.nodes[0].name = "-node.example".into()
        }),
        ("address-without-port", "an address without a port", |c| c.nodes[0].addresses = vec!["node-a.example".into()]),
        ("address-port-above", "an address with port 65536", |c| {
            c.nodes[0].addresses = vec!["node-a.example:65536".into()]
        }),
        ("address-port-zeros", "an address whose port has a leading zero", |c| {
            c.nodes[0].addresses = vec!["node-a.example:0443".into()]
        }),
        ("address-no-host", "an address whose host has an underscore", |c| {
            c.nodes[0].addresses = vec!["node_a.example:1".into()]
        }),
        ("address-zone", "an IPv6 address with a zone", |c| c.nodes[0].addresses = vec!["[fe80::1%eth0]:1".into()]),
        ("name-oversized", "a node's name of 129 bytes", |c| {
            c.nodes[0].name = format!("{0}.{0}.{1}", "x".repeat(60), "x".repeat(7))
        }),
        ("no-members", "no member", |c| c.members.clear()),
        ("no-nodes", "no node", |c| c.nodes.clear()),
        ("alliance-name-empty", "an empty name", |c| c.alliance = String::new()),
        ("alliance-name-space", "a name that ends with a white space that is not ASCII (U+00A0)", |c| {
            c.alliance = "Alliance\u{a0}".into()
        }),
        ("alliance-name-ideographic-space", "a name that begins with U+3000", |c| {
            c.alliance = "\u{3000}Alliance".into()
        }),
        ("alliance-name-next-line", "a name with a control character that is not ASCII (U+0085)", |c| {
            c.alliance = "next\u{85}line".into()
        }),
        ("address-port-0", "an address with port 0", |c| c.nodes[0].addresses = vec!["node-a.example:0".into()]),
        ("no-address", "a node without an address", |c| c.nodes[0].addresses.clear()),
        ("addresses-5", "a node with five addresses", |c| c.nodes[0].addresses = vec!["node-a.example:1".into(); 5]),
        ("alliance-name-control", "a name with a line break", |c| c.alliance = "line\nbreak".into()),
        ("alliance-name-oversized", "a name of 201 bytes", |c| c.alliance = "x".repeat(201)),
        ("fresh-0", "heads that are never fresh", |c| c.head_fresh_ms = 0),
    ];
    for (slug, title, change) in changes {
        // Three nodes of one member, where it takes no second one: a member is 1.3 KB.
        let mut charter = world().three.charter.clone();
        if !slug.starts_with("member-") {
            charter.members.truncate(1);
            let member = charter.members[0].id;
            charter.nodes.iter_mut().for_each(|node| node.member = member);
        }
        change(&mut charter);
        let signed = signed_by_hand(&charter);
        let alliance = AllianceId(signed.hash().0);
        kit.case(FOLDER, "H5", slug, title, "charter").input(chain_input(vec![signed], alliance)).invalid();
    }
    let shards = {
        let mut wire = Cbor::parse(&world().one.charter.to_bytes());
        *wire.at(3) = Cbor::Int(1025);
        wire.to_vec()
    };
    let roles = {
        let mut wire = Cbor::parse(&world().one.charter.to_bytes());
        *wire.at(7).at(0) = Cbor::Int(16);
        wire.to_vec()
    };
    let no_shards = {
        let mut wire = Cbor::parse(&world().one.charter.to_bytes());
        *wire.at(3) = Cbor::Int(0);
        wire.to_vec()
    };
    for (slug, title, bytes) in [
        ("shards-1025", "more shards than there may be", shards),
        ("shards-0", "no shard, which is malformed", no_shards),
        ("role-unknown", "a set of roles with a bit that stands for none", roles),
    ] {
        let hash = Sha256::digest(&bytes).to_vec();
        let signatures =
            world().members[..1].iter().map(|m| Cbor::Bytes(sign(m, Domain::Charter, hash.clone()))).collect();
        let wire = Cbor::Map(vec![(0, Cbor::Bytes(bytes)), (1, Cbor::Array(signatures))]).to_vec();
        let signed = SignedCharter::decode(&wire).unwrap();
        let alliance = AllianceId(signed.hash().0);
        kit.case(FOLDER, "H5", slug, title, "charter").input(chain_input(vec![signed], alliance)).invalid();
    }
}

/// What of a charter is form, and what is for its rules (H5) to say.
fn charter_forms(kit: &mut Kit) {
    for (slug, title, member, value, well_formed) in [
        ("shard-count-0", "a charter of no shards", 3, 0, false),
        ("ok-shard-count-greatest", "a charter of 2^16 - 1 shards: H5 refuses it", 3, 65_535, true),
        ("shard-count-above", "a charter of 2^16 shards", 3, 65_536, false),
        ("ok-charter-version-0", "a charter of version 0: H5 refuses it", 0, 0, true),
        ("charter-version-above", "a charter of version 2^32", 0, 1 << 32, false),
        ("ok-head-fresh-0", "a charter under which no head is fresh: H5 refuses it", 8, 0, true),
        ("head-fresh-above", "a charter under which heads are fresh for 2^32 ms", 8, 1 << 32, false),
        ("ok-min-cosignatures-0", "a charter that asks for no cosignature: H5 refuses it", 9, 0, true),
        ("min-cosignatures-above", "a charter that asks for 2^16 cosignatures", 9, 65_536, false),
        ("ok-rules-0", "a charter of rules version 0: H6 refuses it", 10, 0, true),
        ("ok-rules-greatest", "a charter of rules version 2^16 - 1: charter 1 names none (H6)", 10, 65_535, true),
        ("rules-above", "a charter of rules version 2^16", 10, 65_536, false),
    ] {
        let mut wire = Cbor::parse(&world().one.charter.to_bytes());
        wire.set(member, Cbor::Int(value));
        let input = json!({"type": "Charter", "bytes": h(wire.to_vec())});
        let draft = kit.case("encoding", "E4", slug, title, "decode").input(input);
        if well_formed { draft.valid() } else { draft.invalid() }
    }
    let mut charter = world().one.charter.clone();
    charter.alliance = "Alliance\u{200b}".into();
    let signed = signed(&charter, &[&world().members[0]]);
    let alliance = AllianceId(signed.hash().0);
    kit.case(
        FOLDER,
        "H5",
        "ok-alliance-name-zero-width-space",
        "a name that ends with U+200B, which is not white space",
        "charter",
    )
    .input(chain_input(vec![signed], alliance))
    .valid();
}
