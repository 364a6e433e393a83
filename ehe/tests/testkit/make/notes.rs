//! C1, C2: numbers in a checkpoint's lines, and signature lines without a signature.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ehe::checkpoint::Checkpoint;

use super::Kit;
use super::checkpoints::{FOLDER, checkpoint_input, node, noted};
use super::log::{Log, note};
use super::scene::{Granted, Scene};
use super::world::world;

pub(super) fn cases(kit: &mut Kit) {
    let log = Log::of(&Scene::room(Granted::Append));
    let shard = log.shard;
    let good = Checkpoint { origin: world().three.verified().origin(shard, 1), ..log.checkpoint() };
    numbers(kit, &good, shard);
    empty_signatures(kit, &good, shard);
}

fn numbers(kit: &mut Kit, good: &Checkpoint, shard: u16) {
    let (log, _) = good.origin.rsplit_once('/').unwrap();
    let with = |incarnation: &str, version: &str| {
        let origin = format!("{log}/{incarnation}");
        let text = format!("{origin}\n{}\n{}\ncharter {version}\n", good.size, STANDARD.encode(good.root.0));
        noted(&text, &[(&origin, node(0).1)], &[node(0), node(1)])
    };
    assert_eq!(with("1", "1"), noted_by_two(good));
    for (slug, title, incarnation, version, stands) in [
        ("ok-incarnation-0", "a log in incarnation 0", "0", "1", true),
        ("ok-incarnation-greatest", "a log in incarnation 2^32 - 1", "4294967295", "1", true),
        ("incarnation-above-32-bits", "a log in incarnation 2^32", "4294967296", "1", false),
        ("incarnation-wrapped", "a log in incarnation 2^32 + 1", "4294967297", "1", false),
        ("incarnation-leading-zero", "an incarnation with a leading zero", "01", "1", false),
        ("incarnation-with-minus", "an incarnation with a minus sign, which a name may have", "-0", "1", false),
        ("incarnation-empty", "no digits where the incarnation stands", "", "1", false),
        ("version-above-32-bits", "under charter 2^32 + 1", "1", "4294967297", false),
        ("version-leading-zero", "a charter version with a leading zero", "1", "01", false),
    ] {
        let input = checkpoint_input(&world().three, &with(incarnation, version), shard);
        let draft = kit.case(FOLDER, "C1", slug, title, "checkpoint").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
}

/// Signed by node 0, cosigned by nodes 0 and 1.
fn noted_by_two(good: &Checkpoint) -> String {
    let text = format!("{}\n{}\n{}\ncharter 1\n", good.origin, good.size, STANDARD.encode(good.root.0));
    noted(&text, &[(&good.origin, node(0).1)], &[node(0), node(1)])
}

/// A signature line of which so many bytes stand, key id included.
fn cut(line: &str, bytes: usize) -> String {
    let (start, base64) = line.rsplit_once(' ').unwrap();
    format!("{start} {}", STANDARD.encode(&STANDARD.decode(base64).unwrap()[..bytes]))
}

fn empty_signatures(kit: &mut Kit, good: &Checkpoint, shard: u16) {
    let two = noted_by_two(good);
    let lines: Vec<&str> = two.lines().filter(|line| line.starts_with('—')).collect();
    let (ordered, second) = (lines[0], lines[2]);
    let three = note(good, &[0, 1, 2]).to_string();
    let replaced = |whole: &str, line: &str, by: &str| whole.replacen(&format!("{line}\n"), by, 1);
    let mut stranger = note(good, &[0, 1]);
    stranger.cosign("stranger.example", world().stranger.sign_key(), 1);
    let stranger = stranger.to_string();
    let strangers = stranger.lines().last().unwrap().to_owned();
    let one_of_three = replaced(&three, second, &format!("{}\n", cut(second, 4)));
    for (rule, slug, title, note, stands) in [
        (
            "C2",
            "ok-empty-cosignature-of-three",
            "three cosignatures, of which one is empty: the other two are a quorum",
            one_of_three,
            true,
        ),
        (
            "C2",
            "empty-cosignature",
            "two cosignatures, of which one is empty",
            replaced(&two, second, &format!("{}\n", cut(second, 4))),
            false,
        ),
        (
            "C2",
            "short-cosignature",
            "two cosignatures, of which one has a byte less than it should",
            replaced(&two, second, &format!("{}\n", cut(second, 75))),
            false,
        ),
        (
            "C2",
            "empty-before-whole",
            "an empty cosignature before the whole one of the same name and key: the first counts",
            replaced(&two, second, &format!("{}\n{second}\n", cut(second, 4))),
            false,
        ),
        (
            "C2",
            "ok-whole-before-empty",
            "an empty cosignature after the whole one of the same name and key: the first counts",
            replaced(&two, second, &format!("{second}\n{}\n", cut(second, 4))),
            true,
        ),
        (
            "C1",
            "empty-ordering-signature",
            "the ordering party's signature is empty",
            replaced(&two, ordered, &format!("{}\n", cut(ordered, 4))),
            false,
        ),
        (
            "C1",
            "empty-ordering-signature-before-whole",
            "an empty signature before the whole one of the ordering party: the first counts",
            replaced(&two, ordered, &format!("{}\n{ordered}\n", cut(ordered, 4))),
            false,
        ),
        (
            "C1",
            "ok-a-strangers-empty-signature",
            "a line of somebody else that holds a key id and no signature",
            replaced(&stranger, &strangers, &format!("{}\n", cut(&strangers, 4))),
            true,
        ),
        (
            "C1",
            "shorter-than-a-key-id",
            "a line of somebody else that holds three bytes: it is no signature line",
            replaced(&stranger, &strangers, &format!("{}\n", cut(&strangers, 3))),
            false,
        ),
    ] {
        let input = checkpoint_input(&world().three, &note, shard);
        let draft = kit.case(FOLDER, rule, slug, title, "checkpoint").input(input);
        if stands { draft.valid() } else { draft.invalid() }
    }
}
