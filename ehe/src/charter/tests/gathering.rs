use super::*;
use crate::limits::FRAME_MAX_BYTES;
use crate::wire::Response;

/// So many versions of an alliance that is as large as one may be, signed by nobody: some 160 KiB each.
fn large(versions: u32) -> CharterChain {
    let mut rng = rng(8);
    let numbers = || 0..u8::try_from(MEMBERS_MAX).unwrap();
    let people: Vec<Identity> = numbers().map(|_| Identity::generate(&mut rng)).collect();
    let address = |i: u8, n: usize| {
        let label = "a".repeat(61);
        let name = [&label[..], &label, &label, &format!("{i:02}{n}{}", "a".repeat(60))].join(".");
        format!("{name}:65535")
    };
    let mut charter = world().charter;
    charter.members = numbers()
        .map(|i| Member {
            id: MemberId([i; 8]),
            name: format!("{i:02}{}", "x".repeat(190)),
            identity: people[usize::from(i)].public().clone(),
        })
        .collect();
    charter.nodes = numbers()
        .map(|i| Node {
            id: NodeId([i; 8]),
            member: MemberId([i; 8]),
            name: format!("node-{i}.example"),
            sign: people[usize::from(i)].public().sign,
            addresses: (0..ADDRESSES_PER_NODE_MAX).map(|n| address(i, n)).collect(),
        })
        .collect();
    let mut chain = CharterChain::default();
    for version in 1..=versions {
        charter.version = version;
        charter.predecessor = chain.0.last().map(SignedCharter::hash);
        chain.0.push(signed(&charter, &[]));
    }
    chain
}

/// Asks a node that has these charters until it says that there are no more. How often it was asked.
fn gather(gathering: &mut Gathering, theirs: &CharterChain) -> Result<usize, CharterError> {
    for asked in 1.. {
        let from = usize::try_from(gathering.from()).unwrap();
        if !gathering.take(&CharterChain::piece(theirs.0.iter().skip(from - 1)))? {
            return Ok(asked);
        }
    }
    unreachable!()
}

#[test]
fn a_chain_that_fits_no_frame_comes_in_answers_that_do_whatever_of_it_is_here_already() {
    let theirs = large(12);
    assert!(theirs.encode().len() > FRAME_MAX_BYTES * 3 / 2, "{}", theirs.encode().len());
    for own in [0, 1, 5, 11, 12] {
        let mut gathering = Gathering::after(CharterChain(theirs.0[..own].to_vec()));
        let asked = gather(&mut gathering, &theirs).unwrap();
        assert!((2..=5).contains(&asked), "{own}: {asked}");
        let expected = (own < 12).then(|| theirs.clone());
        assert!(gathering.newer() == expected, "{own}");
    }
    let first = CharterChain::piece(&theirs.0);
    let frame = Response::Charter(first.clone()).to_vec().len();
    let held = CharterChain::decode(&first).unwrap().0.len();
    assert!(frame <= FRAME_MAX_BYTES && held >= 4, "{frame}");
    // Not a charter less than the frame holds.
    let one_more = Response::Charter(CharterChain(theirs.0[..=held].to_vec()).encode()).to_vec().len();
    assert!(one_more > FRAME_MAX_BYTES, "{one_more}");
}

#[test]
fn a_node_with_fewer_charters_shows_nothing_newer_and_one_with_others_is_found_out() {
    let theirs = large(3);
    let first = CharterChain(theirs.0[..1].to_vec());
    let mut gathering = Gathering::after(theirs.clone());
    assert_eq!(gather(&mut gathering, &first), Ok(1));
    assert_eq!(gathering.newer(), None);
    let mut other = theirs.clone();
    let renamed = Charter { alliance: "Another".into(), ..other.0[1].read().unwrap() };
    other.0[1] = signed(&renamed, &[]);
    let mut gathering = Gathering::after(CharterChain(theirs.0[..2].to_vec()));
    assert_eq!(gather(&mut gathering, &other), Err(CharterError::Other(2)));
}

#[test]
fn versions_that_were_not_asked_for_are_refused() {
    let theirs = large(4);
    for (what, shown, expected, found) in [
        ("what was shown already", vec![0, 1], 2, 1),
        ("one left out", vec![2], 2, 3),
        ("one left out in the middle", vec![1, 3], 3, 4),
        ("one twice", vec![1, 1], 3, 2),
    ] {
        let mut gathering = Gathering::after(CharterChain(theirs.0[..2].to_vec()));
        let said = gathering.take(&CharterChain::piece(shown.iter().map(|at: &usize| &theirs.0[*at])));
        assert_eq!(said, Err(CharterError::VersionSkip { expected, found }), "{what}");
    }
    assert!(matches!(Gathering::after(theirs).take(b"no charters"), Err(CharterError::Cbor(_))));
}

#[test]
fn a_node_that_goes_on_for_ever_is_refused_at_the_limits_of_a_chain() {
    let theirs = large(120);
    let mut gathering = Gathering::after(CharterChain(theirs.0[..1].to_vec()));
    let Err(CharterError::Limit { what, found, most, .. }) = gather(&mut gathering, &theirs) else { panic!() };
    assert_eq!((what, most), ("the size of the chain", CHAIN_MAX_BYTES));
    let mut fitting = theirs.clone();
    fitting.0.truncate(usize::try_from(gathering.from()).unwrap());
    assert_eq!(fitting.encode().len(), found, "the size is that of the chain");
    assert!(matches!(fitting.check_limits(), Err(CharterError::Limit { found: all, .. }) if all == found));
    fitting.0.pop();
    assert_eq!(fitting.check_limits(), Ok(()));
    assert!(gather(&mut Gathering::after(CharterChain::default()), &fitting).is_ok());

    let mut charter = world().charter;
    let mut many = CharterChain::default();
    for version in 1..=u32::try_from(CHAIN_VERSIONS_MAX).unwrap() + 1 {
        charter.version = version;
        charter.predecessor = many.0.last().map(SignedCharter::hash);
        many.0.push(signed(&charter, &[]));
    }
    assert!(matches!(
        many.check_limits(),
        Err(CharterError::Limit { what: "the number of versions in the chain", .. })
    ));
    let last = many.0.pop().unwrap();
    assert_eq!(many.check_limits(), Ok(()));
    let mut gathering = Gathering::after(CharterChain(many.0[..1].to_vec()));
    assert!(gather(&mut gathering, &many).is_ok());
    let refused = gathering.take(&CharterChain::piece([&last]));
    assert!(
        matches!(refused, Err(CharterError::Limit { what: "the number of versions in the chain", .. })),
        "{refused:?}"
    );
}
